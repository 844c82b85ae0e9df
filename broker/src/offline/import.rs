//! `millrace segment import`: segments under KafScale's own keys become a new topic of a Millrace log, offsets preserved.
//!
//! Invariants:
//! 1. All or nothing: the topic is there with its last step, one transaction of the metadata store. What an import leaves
//!    that was cut off belongs to no topic; the next import makes it that of a deleted one, which a broker collects.
//! 2. Every file is read whole and checked before anything counts; files that leave a gap or overlap are refused.
//! 3. Batches keep every byte but the leader epoch, which stands outside their checksum: the new log has epochs of its own,
//!    and a consumer that was told a higher one than its leader has would wait for it.
//! 4. Memory is bounded: one segment and one piece of a file.
//!
//! Not here: committed offsets of groups, and sequences of idempotent producers, which start anew.

use super::OfflineError;
use super::kafscale::{self, Place, SEGMENT_BYTES, TransferError};
use super::topics::Topics;
use crate::control::messages::NewTopic;
use crate::control::start::{Process, identify, kafka_uuid};
use crate::control::topic_object::{self, TOPIC_OBJECT_VERSION, TopicObject};
use crate::control::topic_rules;
use crate::process::open::{DirectoryLock, Places, SharedStores};
use crate::settings::Settings;
use bytes::{Bytes, BytesMut};
use millrace_protocol::records::{RecordBatch, set_leader_epoch};
use millrace_storage::compactor::{collect, manifest};
use millrace_storage::env::Env;
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName};
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, TopicId, TopicPartition, Wid};
use millrace_storage::meta::records::{RECORD_VERSION, Record, TopicRecord, TopicState};
use millrace_storage::meta::{MAX_PAGE, keys};
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{ObjectStore, OpenError};
use millrace_storage::partition::{CommittedPartition, EpochHistory};
use millrace_storage::recovery::{Rebuilt, Stores, adopt, put_new, put_object};
use millrace_storage::segment::{SegmentCutter, SegmentIndex, SegmentReader, WrittenSegment, data_key, index_key};
use millrace_storage::side::{SideRuntime, block_on_local};
use millrace_storage::store_error::{FailureKind, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// Epoch of everything imported: the first that a leader of this log has is one more.
const EPOCH: LeaderEpoch = LeaderEpoch(1);

/// What is to be imported, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Import {
    /// The topic there.
    pub topic: String,
    /// KafScale's namespace there.
    pub namespace: String,
    /// The other place.
    pub source: StoreUrl,
    /// The new topic; without partitions: as many as there are files for.
    pub new: NewTopic,
    /// Take what there is where files are missing or unfinished.
    pub gaps: bool,
}

/// What was imported of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportedPartition {
    /// The partition.
    pub index: u32,
    /// First offset.
    pub start: Offset,
    /// First offset behind the last.
    pub end: Offset,
    /// Records.
    pub records: u64,
    /// Files that were left out.
    pub left_out: Vec<String>,
}

/// Imports into the store that `settings` name, which no broker serves from.
///
/// # Errors
/// See [`OfflineError`]. There is no new topic then.
pub fn import(settings: &Settings, asked: &Import) -> Result<Vec<ImportedPartition>, OfflineError> {
    let place = Place::new(&asked.namespace, &asked.topic)?;
    let _data_lock = DirectoryLock::take(&settings.data_dir, "--data-dir")?;
    let places = Places::of(settings)?;
    if places.metadata.is_none() {
        let problem = "a memory: store ends with its process";
        return Err(OpenError::new(problem, "name another with --object-store").into());
    }
    let _store_lock = places.to_lock().map(|root| DirectoryLock::take(root, "--object-store")).transpose()?;
    let side = SideRuntime::start()?;
    let source = kafscale::source(&asked.source, &side)?;
    block_on_local(async |env| {
        let shared = SharedStores::open(&places, settings, &side, || env.random_u128())?;
        let stores = shared.handles(&env);
        let nobody = Process { name: String::new(), addresses: Vec::new(), zone: None };
        identify(&env, &*stores.meta, &*stores.objects, &nobody).await?;
        bury(&stores).await?;
        // Nobody reads what it counts.
        let source = source.handle(&env, &Arc::default());
        let files = place.all(&*source).await?;
        let record = record(&env, &stores, asked, &place, &files).await?;
        let copy = Copy { env: &env, source, place, stores: &stores, gaps: asked.gaps, id: record.id };
        match copy.all(&files).await {
            Ok(copied) => copy.commit(&asked.new.name, record, copied).await,
            Err(error) => {
                // The next import does the same if this fails.
                let _ = put_tombstone(&stores, record.id, &asked.new.name).await;
                Err(error)
            }
        }
    })?
}

/// The record of the new topic.
async fn record(
    env: &Env,
    stores: &Stores,
    asked: &Import,
    place: &Place,
    files: &BTreeMap<u32, Vec<Offset>>,
) -> Result<TopicRecord, OfflineError> {
    let Some((last, _)) = files.last_key_value() else {
        let what = format!("segment under {}", place.topic());
        return Err(TransferError::Nothing { what, place: asked.source.to_string() }.into());
    };
    let partitions = asked.new.partitions.unwrap_or(last.saturating_add(1));
    let asked_for = NewTopic { partitions: Some(partitions), ..asked.new.clone() };
    topic_rules::check(&asked_for, partitions).map_err(|refusal| TransferError::Refused(refusal.message))?;
    if *last >= partitions {
        return Err(TransferError::Refused(format!("there are files of partition {last}")).into());
    }
    let name = &asked.new.name;
    if stores.meta.get(vec![keys::topic(name)]).await?.values.iter().any(Option::is_some) {
        return Err(TransferError::TopicExists(name.clone()).into());
    }
    let id = TopicId(kafka_uuid(|| env.random_u128()));
    let settings = asked.new.settings.clone();
    Ok(TopicRecord { v: RECORD_VERSION, id, state: TopicState::Live, partitions, settings })
}

/// Gives a tombstone to what imports left that were cut off: segments of a topic that never was, a topic's object
/// without a record.
async fn bury(stores: &Stores) -> Result<(), OfflineError> {
    let objects = &*stores.objects;
    let mut known = BTreeSet::new();
    let mut after = None;
    loop {
        let page = stores.meta.list(keys::TOPICS, after, MAX_PAGE).await?;
        for (key, found) in &page.entries {
            let corrupt = |detail| StoreError::not_done(FailureKind::Corrupt, format!("record {key}: {detail}"));
            known.insert(TopicRecord::decode(&found.value).map_err(|error| corrupt(error.to_string()))?.id);
        }
        after = page.entries.last().map(|(key, _)| key.clone());
        if !page.more {
            break;
        }
    }
    let topics = Topics::read(objects).await?;
    if let Some((key, detail)) = topics.damaged.first() {
        return Err(TransferError::Damaged { key: key.clone(), detail: detail.clone() }.into());
    }
    for topic in topics.alive().filter(|topic| !known.contains(&topic.id)) {
        let Some(found) = objects.get(&topic_object::key(topic.id)).await? else { continue };
        let tombstone = TopicObject { deleted: true, ..topic.clone() };
        let bytes = serde_json::to_vec(&tombstone).expect("the keys are strings");
        objects.put_if_match(&topic_object::key(topic.id), bytes.into(), found.version).await?;
    }
    for id in collect::topics(objects).await? {
        if !known.contains(&id) && !topics.by_id.contains_key(&id) {
            put_tombstone(stores, id, "").await?;
        }
    }
    Ok(())
}

async fn put_tombstone(stores: &Stores, id: TopicId, name: &str) -> Result<(), StoreError> {
    let settings = BTreeMap::new();
    let object =
        TopicObject { v: TOPIC_OBJECT_VERSION, name: name.to_owned(), id, partitions: 0, settings, deleted: true };
    let bytes = Bytes::from(serde_json::to_vec(&object).expect("the keys are strings"));
    stores.objects.put_if_absent(&topic_object::key(id), vec![bytes]).await.map(drop)
}

/// The copy of a topic.
struct Copy<'a> {
    env: &'a Env,
    source: Rc<dyn ObjectStore>,
    place: Place,
    stores: &'a Stores,
    gaps: bool,
    id: TopicId,
}

/// What became of one partition.
struct Copied {
    manifest: Manifest,
    left_out: Vec<String>,
}

impl Copy<'_> {
    /// Segments and manifests of all partitions.
    async fn all(&self, files: &BTreeMap<u32, Vec<Offset>>) -> Result<Vec<Copied>, OfflineError> {
        let mut naming = SegmentName { wid: Wid(self.env.random_u128()), number: 0 };
        let mut copied = Vec::new();
        for (&index, bases) in files {
            copied.push(self.partition(TopicPartition { topic: self.id, index }, bases, &mut naming).await?);
        }
        Ok(copied)
    }

    async fn partition(
        &self,
        partition: TopicPartition,
        bases: &[Offset],
        naming: &mut SegmentName,
    ) -> Result<Copied, OfflineError> {
        let mut copied = Copied { manifest: Manifest::empty(partition), left_out: Vec::new() };
        let standing = manifest::Standing { manifest: copied.manifest.clone(), version: None };
        let mut cutter: Option<SegmentCutter> = None;
        let mut next: Option<Offset> = None;
        for &base in bases {
            let key = self.place.data_key(partition.index, base);
            let index = match self.source.get(&self.place.index_key(partition.index, base)).await? {
                Some(found) => SegmentIndex::decode(&found.bytes).map_err(|error| damaged(&key, &error))?,
                None if self.gaps => {
                    copied.left_out.push(key);
                    continue;
                }
                None => return Err(TransferError::NoIndex(key).into()),
            };
            self.follows(&key, base, next)?;
            let cutter = cutter.get_or_insert_with(|| SegmentCutter::dense(base, SEGMENT_BYTES));
            let opened = SegmentReader::open(&*self.source, key.clone(), Some(&index)).await;
            let mut reader = opened.map_err(|error| damaged(&key, &error))?;
            while let Some(batches) = reader.next().await.map_err(|error| damaged(&key, &error))? {
                for batch in batches {
                    let batch = taken(&key, batch)?;
                    let written = cutter.push(batch, self.env.wall()).map_err(|error| damaged(&key, &error))?;
                    self.put(&mut copied.manifest, naming, written).await?;
                }
            }
            let scanned = reader.finish().map_err(|error| damaged(&key, &error))?;
            if scanned.base != base {
                return Err(damaged(&key, &format!("it begins at offset {}", scanned.base)).into());
            }
            next = Some(scanned.last.plus(1));
        }
        let rest = cutter.and_then(|mut cutter| cutter.finish(self.env.wall()));
        self.put(&mut copied.manifest, naming, rest).await?;
        if !copied.manifest.segments.is_empty() {
            manifest::commit(self.env, &*self.stores.objects, &standing, &copied.manifest).await?;
        }
        Ok(copied)
    }

    fn follows(&self, key: &str, base: Offset, next: Option<Offset>) -> Result<(), TransferError> {
        let key = key.to_owned();
        match next {
            Some(end) if base < end => Err(TransferError::Overlap { key, found: base, end }),
            Some(expected) if base > expected && !self.gaps => Err(TransferError::Gap { key, expected, found: base }),
            _ => Ok(()),
        }
    }

    /// Puts a segment and its index, and names it.
    async fn put(
        &self,
        manifest: &mut Manifest,
        naming: &mut SegmentName,
        written: Option<WrittenSegment>,
    ) -> Result<(), OfflineError> {
        let Some(WrittenSegment { file, index, segment, records }) = written else { return Ok(()) };
        naming.number += 1;
        let (partition, name, objects) = (manifest.partition, *naming, &*self.stores.objects);
        put_object(self.env, objects, data_key(partition, name, segment.base), file).await?;
        put_object(self.env, objects, index_key(partition, name, segment.base), vec![index]).await?;
        if manifest.segments.is_empty() {
            manifest.log_start = segment.base;
            manifest.epochs = EpochHistory::default();
            manifest.epochs.append(EPOCH, segment.base);
        }
        manifest.covered = segment.last.plus(1);
        manifest.segments.push(NamedSegment { name, segment, records });
        Ok(())
    }

    /// The log of the partitions, the object of the topic, and last its record.
    async fn commit(
        &self,
        name: &str,
        record: TopicRecord,
        copied: Vec<Copied>,
    ) -> Result<Vec<ImportedPartition>, OfflineError> {
        let mut logs = Rebuilt::default();
        let mut imported = Vec::new();
        for Copied { manifest, left_out } in copied {
            if manifest.segments.is_empty() {
                continue;
            }
            let (start, end) = (manifest.log_start, manifest.covered);
            let mut state = CommittedPartition::born(EPOCH);
            state.end = end;
            state.fold_log_start(start);
            state.cover(end);
            logs.partitions.insert(manifest.partition, state);
            let records = manifest.segments.iter().map(|named| named.records).sum();
            imported.push(ImportedPartition { index: manifest.partition.index, start, end, records, left_out });
        }
        adopt(self.env, self.stores, BootId(self.env.random()), &logs).await?;
        let object = TopicObject::encode(name, &record, false);
        put_object(self.env, &*self.stores.objects, topic_object::key(record.id), vec![object]).await?;
        put_new(self.env, self.stores, vec![(keys::topic(name), record.encode())]).await?;
        Ok(imported)
    }
}

fn damaged(key: &str, error: &dyn ToString) -> TransferError {
    TransferError::Damaged { key: key.to_owned(), detail: error.to_string() }
}

/// A batch as this log holds it.
fn taken(key: &str, mut bytes: BytesMut) -> Result<Bytes, TransferError> {
    let (batch, _) = RecordBatch::split(&bytes).ok().flatten().expect("the reader found it whole");
    let attributes = batch.attributes();
    if attributes.is_transactional() || attributes.is_control() {
        let offset = Offset(batch.base_offset());
        return Err(TransferError::Transactional { key: key.to_owned(), offset });
    }
    set_leader_epoch(&mut bytes, EPOCH.0);
    Ok(bytes.freeze())
}
