//! `millrace restore`: a topic as it was at a point in time, as a new topic beside it.
//!
//! Which records those are their timestamps say: a partition is cut where its first batch stands that holds a record later
//! than the point. So what comes is a prefix of the log, whole batches, nothing later than the point; of a batch that holds
//! records from both sides nothing comes. Where clients set timestamps (`CreateTime`), it is their clocks that count.
//!
//! Invariants:
//! 1. The topic that is read stays as it is; the new one is there whole or not at all ([`super::new_topic`]).
//! 2. Offsets, batches and their checksums are those of the topic that is read.
//! 3. What has expired or was deleted comes only if it is asked for, and only where it goes on without a gap up to what is
//!    still there: what segments hold was committed once, whether or not a manifest names them still.
//!
//! Not here: topics that are deleted, and what was collected; committed offsets of groups.

use super::OfflineError;
use super::batches::{self, Take};
use super::kafscale::TransferError;
use super::new_topic::{self, Ground, Writer, Writing, put_tombstone};
use super::topics::Topics;
use crate::control::messages::NewTopic;
use crate::control::topic_settings;
use crate::settings::Settings;
use bytes::{Bytes, BytesMut};
use millrace_protocol::records::RecordBatch;
use millrace_storage::compaction::Segment;
use millrace_storage::compactor::{collect, manifest};
use millrace_storage::env::WallMs;
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName};
use millrace_storage::ids::{Offset, TopicId, TopicPartition};
use millrace_storage::object::ObjectStore;
use millrace_storage::partition::CommittedPartition;
use millrace_storage::recovery::{Stores, observe};
use millrace_storage::segment::{FOOTER_BYTES, data_key};
use millrace_storage::side::{SideRuntime, block_on_local};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What is to be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restore {
    /// The topic that is read.
    pub topic: String,
    /// The new topic: its name, and settings beside those of the other.
    pub new: NewTopic,
    /// Nothing later than this comes, Unix milliseconds; `None`: no bound.
    pub at: Option<WallMs>,
    /// By partition, the first offset that is not wanted.
    pub ends: BTreeMap<u32, Offset>,
    /// What has expired or was deleted, and is still stored, comes too.
    pub expired: bool,
}

/// What was restored of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestoredPartition {
    /// The partition.
    pub index: u32,
    /// First offset.
    pub start: Offset,
    /// First offset behind the last.
    pub end: Offset,
    /// Records.
    pub records: u64,
    /// Where the log that is read goes on with what was left out.
    pub left_out_from: Option<Offset>,
}

/// Settings of the new topic unless others are asked for: old records would expire at once.
const KEPT: [(&str, &str); 2] = [("retention.ms", "-1"), ("retention.bytes", "-1")];

/// Restores in the store that `settings` name, which no broker serves from.
///
/// # Errors
/// See [`OfflineError`]. There is no new topic then.
pub fn restore(settings: &Settings, asked: &Restore) -> Result<Vec<RestoredPartition>, OfflineError> {
    let ground = Ground::lock(settings)?;
    let side = SideRuntime::start()?;
    block_on_local(async |env| {
        let stores = ground.open(&env, settings, &side).await?;
        let topics = Topics::read(&*stores.objects).await?;
        let nothing = |what: String| TransferError::Nothing { what, place: ground.url() };
        let topic = topics.alive().find(|topic| topic.name == asked.topic);
        let topic = topic.ok_or_else(|| nothing(format!("topic {}", asked.topic)))?;
        if let Some((index, _)) = asked.ends.range(topic.partitions..).next() {
            return Err(nothing(format!("partition {index} of {}", asked.topic)).into());
        }
        let kept = KEPT.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut new = asked.new.clone();
        // What a topic was told before there was a rule against it is not copied.
        let can_be_set = |(name, value): &(String, String)| topic_settings::objection(name, value).is_none();
        let all =
            topic.settings.clone().into_iter().filter(can_be_set).chain(kept).chain(std::mem::take(&mut new.settings));
        (new.settings, new.partitions) = (all.collect(), Some(topic.partitions));
        let record = new_topic::record(&env, &stores, &new, topic.partitions).await?;
        let mut writer = Writer::new(&env, &stores, record.id);
        match partitions(&stores, topic.id, asked, &mut writer).await {
            Ok(restored) => {
                writer.commit(&new.name, &record, restored.iter().map(|(_, manifest)| manifest)).await?;
                Ok(restored.into_iter().map(|(told, _)| told).collect())
            }
            Err(error) => {
                // The next run does the same if this fails.
                let _ = put_tombstone(&stores, record.id, &new.name).await;
                Err(error)
            }
        }
    })?
}

/// All partitions that have held anything.
async fn partitions(
    stores: &Stores,
    topic: TopicId,
    asked: &Restore,
    writer: &mut Writer<'_>,
) -> Result<Vec<(RestoredPartition, Manifest)>, OfflineError> {
    let states = observe(stores, |partition| partition.topic == topic).await?;
    let listing = if asked.expired { collect::list(&*stores.objects, topic).await? } else { BTreeMap::new() };
    let mut restored = Vec::new();
    for (&partition, state) in &states {
        let mut found = manifest::read(&*stores.objects, partition).await?.manifest;
        if let Some(listed) = listing.get(&partition) {
            prepend(&*stores.objects, &mut found, listed).await?;
        }
        restored.push(one_partition(stores, partition, (&found, state), asked, writer).await?);
    }
    Ok(restored)
}

async fn one_partition(
    stores: &Stores,
    partition: TopicPartition,
    (found, state): (&Manifest, &CommittedPartition),
    asked: &Restore,
    writer: &mut Writer<'_>,
) -> Result<(RestoredPartition, Manifest), OfflineError> {
    let index = partition.index;
    let log_start = if asked.expired { Offset(0) } else { state.log_start.max(found.log_start) };
    let end = asked.ends.get(&index).copied();
    let writing = writer.partition(index, log_start);
    let mut taking = Taking { writer, writing, at: asked.at, end, left_out_from: None };
    let range = log_start..Offset(i64::MAX);
    let _ = batches::give(stores, partition, (found, state), range, &mut taking).await?;
    let Taking { writer, writing, left_out_from, .. } = taking;
    let manifest = writer.finish(writing).await?;
    let records = manifest.segments.iter().map(|named| named.records).sum();
    let (start, end) = (manifest.log_start, manifest.covered);
    Ok((RestoredPartition { index, start, end, records, left_out_from }, manifest))
}

/// Puts before the segments that a manifest names those of `listed` that it named once, as far as each goes on where the
/// one before it ended.
async fn prepend(
    objects: &dyn ObjectStore,
    manifest: &mut Manifest,
    listed: &BTreeMap<SegmentName, collect::Stored>,
) -> Result<(), OfflineError> {
    let mut floor = manifest.segments.first().map_or(manifest.covered, |first| first.segment.base);
    // By where they end. Two that end alike hold the same records; the one that begins first holds more.
    let mut ending: BTreeMap<Offset, NamedSegment> = BTreeMap::new();
    for (&name, stored) in listed.iter().filter(|(_, stored)| stored.file.base < floor) {
        let Some(last) = last_offset(objects, &data_key(manifest.partition, name, stored.file.base)).await? else {
            continue;
        };
        let created = WallMs(stored.modified_ms);
        let segment = Segment { base: stored.file.base, last, bytes: stored.bytes, max_timestamp: -1, created };
        let longer = ending.get(&last).is_none_or(|other| other.segment.base > stored.file.base);
        if longer {
            ending.insert(last, NamedSegment { name, segment, records: 0 });
        }
    }
    while let Some(before) = ending.remove(&Offset(floor.0 - 1)) {
        floor = before.segment.base;
        manifest.segments.insert(0, before);
    }
    Ok(())
}

/// The last offset of a segment by its footer; `None` for a file that was not written to its end.
async fn last_offset(objects: &dyn ObjectStore, key: &str) -> Result<Option<Offset>, OfflineError> {
    let found = objects.get_suffix(key, FOOTER_BYTES as u64).await?;
    let footer = found.and_then(|found| <[u8; FOOTER_BYTES]>::try_from(&found.bytes[..]).ok());
    let footer = footer.filter(|footer| footer[12..] == *b"END!");
    Ok(footer.map(|footer| Offset(i64::from_be_bytes(*footer[4..].first_chunk().expect("a footer is longer")))))
}

/// Takes batches up to the point.
struct Taking<'a, 'b> {
    writer: &'a mut Writer<'b>,
    writing: Writing,
    at: Option<WallMs>,
    end: Option<Offset>,
    left_out_from: Option<Offset>,
}

impl Take for Taking<'_, '_> {
    async fn take(&mut self, key: &str, bytes: Bytes) -> Result<ControlFlow<()>, OfflineError> {
        let (batch, _) = RecordBatch::split(&bytes).ok().flatten().expect("whoever gives it found it whole");
        let later = self.at.is_some_and(|at| batch.max_timestamp() > at.0);
        if later || self.end.is_some_and(|end| Offset(batch.last_offset()) >= end) {
            self.left_out_from = Some(Offset(batch.base_offset()));
            return Ok(ControlFlow::Break(()));
        }
        let bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.writer.push(&mut self.writing, key, bytes).await?;
        Ok(ControlFlow::Continue(()))
    }
}
