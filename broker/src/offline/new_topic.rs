//! A new topic of a log that no broker serves from, made of batches at the offsets that they had: what an import and a
//! restore have in common.
//!
//! Invariants:
//! 1. All or nothing: the topic is there with its last step, one transaction of the metadata store. What is left of a run that
//!    was cut off belongs to no topic; the next run makes it that of a deleted one, which a broker collects.
//! 2. Batches keep every byte but the leader epoch, which stands outside their checksum: the new log has epochs of its own,
//!    and a consumer that was told a higher one than its leader has would wait for it.
//! 3. Memory is bounded: one segment.
//!
//! Not here: committed offsets of groups, and sequences of idempotent producers, which start anew.

use super::OfflineError;
use super::kafscale::{SEGMENT_BYTES, TransferError};
use super::topics::Topics;
use crate::control::messages::NewTopic;
use crate::control::start::{Process, identify, kafka_uuid};
use crate::control::topic_object::{self, TOPIC_OBJECT_VERSION, TopicObject};
use crate::control::topic_rules;
use crate::process::open::{DirectoryLock, MetadataPlace, Places, SharedStores};
use crate::settings::Settings;
use bytes::{Bytes, BytesMut};
use millrace_protocol::records::{RecordBatch, set_leader_epoch};
use millrace_storage::compactor::{collect, manifest};
use millrace_storage::env::Env;
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName};
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, TopicId, TopicPartition, Wid};
use millrace_storage::meta::keys;
use millrace_storage::meta::pages::Pages;
use millrace_storage::meta::records::{RECORD_VERSION, Record, TopicRecord, TopicState};
use millrace_storage::object::OpenError;
use millrace_storage::partition::{CommittedPartition, EpochHistory};
use millrace_storage::recovery::{Rebuilt, Stores, adopt, put_new, put_object};
use millrace_storage::segment::{SegmentCutter, WrittenSegment, data_key, index_key};
use millrace_storage::side::SideRuntime;
use millrace_storage::store_error::{FailureKind, StoreError};
use std::collections::{BTreeMap, BTreeSet};

/// Epoch of everything in it: the first that a leader of this log has is one more.
const EPOCH: LeaderEpoch = LeaderEpoch(1);

/// A log to which topics are added. Its locks are held as long as this lives.
pub(super) struct Ground {
    places: Places,
    _locks: Vec<DirectoryLock>,
}

impl Ground {
    /// Takes the locks of the directories of `settings`.
    pub(super) fn lock(settings: &Settings) -> Result<Ground, OpenError> {
        let mut locks = vec![DirectoryLock::take(&settings.data_dir, "--data-dir")?];
        let places = Places::of(settings)?;
        match &places.metadata {
            MetadataPlace::Embedded(_) => {}
            MetadataPlace::Memory => {
                let problem = "a memory: store ends with its process";
                return Err(OpenError::new(problem, "name another with --object-store"));
            }
            // No lock shows that nobody else serves.
            MetadataPlace::Etcd(_) => {
                let problem = "topics are not added offline to a cluster whose metadata are in an etcd";
                return Err(OpenError::new(problem, "name a directory with --metadata embedded:DIR"));
            }
        }
        locks.extend(places.to_lock().map(|root| DirectoryLock::take(root, "--object-store")).transpose()?);
        Ok(Ground { places, _locks: locks })
    }

    /// Opens the stores, and gives a tombstone to what was left there of topics that never were.
    pub(super) async fn open(
        &self,
        env: &Env,
        settings: &Settings,
        side: &SideRuntime,
    ) -> Result<Stores, OfflineError> {
        let shared = SharedStores::open(&self.places, settings, side, || env.random_u128())?;
        let stores = shared.handles(env);
        let nobody = Process { name: String::new(), addresses: Vec::new(), zone: None };
        identify(env, &*stores.meta, &*stores.objects, &nobody).await?;
        bury(&stores).await?;
        Ok(stores)
    }

    /// Where it is, for people.
    pub(super) fn url(&self) -> String {
        self.places.store.to_string()
    }
}

/// The record of a topic of so many partitions at least.
pub(super) async fn record(
    env: &Env,
    stores: &Stores,
    asked: &NewTopic,
    least: u32,
) -> Result<TopicRecord, OfflineError> {
    let partitions = asked.partitions.unwrap_or(least);
    let asked_for = NewTopic { partitions: Some(partitions), ..asked.clone() };
    topic_rules::check(&asked_for, partitions).map_err(|refusal| TransferError::Refused(refusal.message))?;
    if least > partitions {
        return Err(TransferError::Refused(format!("there are files of partition {}", least - 1)).into());
    }
    if stores.meta.get(vec![keys::topic(&asked.name)]).await?.values.iter().any(Option::is_some) {
        return Err(TransferError::TopicExists(asked.name.clone()).into());
    }
    let id = TopicId(kafka_uuid(|| env.random_u128()));
    let settings = asked.settings.clone();
    Ok(TopicRecord { v: RECORD_VERSION, id, state: TopicState::Live, partitions, settings })
}

/// Gives a tombstone to what runs left that were cut off: segments of a topic that never was, a topic's object without a
/// record.
async fn bury(stores: &Stores) -> Result<(), OfflineError> {
    let objects = &*stores.objects;
    let mut known = BTreeSet::new();
    let mut pages = Pages::of(&*stores.meta, keys::TOPICS);
    while let Some(page) = pages.next_page().await? {
        for (key, found) in &page.entries {
            let corrupt = |detail| StoreError::not_done(FailureKind::Corrupt, format!("record {key}: {detail}"));
            known.insert(TopicRecord::decode(&found.value).map_err(|error| corrupt(error.to_string()))?.id);
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

/// Says that a topic that never was is deleted: what there is of it is collected.
pub(super) async fn put_tombstone(stores: &Stores, id: TopicId, name: &str) -> Result<(), StoreError> {
    let settings = BTreeMap::new();
    let object =
        TopicObject { v: TOPIC_OBJECT_VERSION, name: name.to_owned(), id, partitions: 0, settings, deleted: true };
    let bytes = Bytes::from(serde_json::to_vec(&object).expect("the keys are strings"));
    stores.objects.put_if_absent(&topic_object::key(id), vec![bytes]).await.map(drop)
}

/// Writes the partitions of a new topic, one after the other.
pub(super) struct Writer<'a> {
    env: &'a Env,
    stores: &'a Stores,
    id: TopicId,
    naming: SegmentName,
}

/// A partition that is being written.
pub(super) struct Writing {
    manifest: Manifest,
    log_start: Offset,
    cutter: Option<SegmentCutter>,
}

impl<'a> Writer<'a> {
    /// Nothing written yet.
    pub(super) fn new(env: &'a Env, stores: &'a Stores, id: TopicId) -> Writer<'a> {
        Writer { env, stores, id, naming: SegmentName { wid: Wid(env.random_u128()), number: 0 } }
    }

    /// A partition to which nothing has come. Nothing below `log_start` is to be readable.
    pub(super) fn partition(&self, index: u32, log_start: Offset) -> Writing {
        Writing { manifest: Manifest::empty(TopicPartition { topic: self.id, index }), log_start, cutter: None }
    }

    /// Takes the next batch, a whole one whose checksum was found right. `key`: where it comes from, for errors.
    pub(super) async fn push(&mut self, writing: &mut Writing, key: &str, batch: BytesMut) -> Result<(), OfflineError> {
        let (base, batch) = taken(key, batch)?;
        let cutter = writing.cutter.get_or_insert_with(|| SegmentCutter::dense(base, SEGMENT_BYTES));
        let pushed = cutter.push(batch, self.env.wall());
        let written =
            pushed.map_err(|error| TransferError::Damaged { key: key.to_owned(), detail: error.to_string() })?;
        self.put(writing, written).await
    }

    /// The partition is whole: its manifest is committed, if there is anything in it.
    pub(super) async fn finish(&mut self, mut writing: Writing) -> Result<Manifest, OfflineError> {
        let rest = writing.cutter.as_mut().and_then(|cutter| cutter.finish(self.env.wall()));
        self.put(&mut writing, rest).await?;
        let manifest = writing.manifest;
        if !manifest.segments.is_empty() {
            let standing = manifest::Standing { manifest: Manifest::empty(manifest.partition), version: None };
            manifest::commit(self.env, &*self.stores.objects, &standing, &manifest).await?;
        }
        Ok(manifest)
    }

    /// Puts a segment and its index, and names it.
    async fn put(&mut self, writing: &mut Writing, written: Option<WrittenSegment>) -> Result<(), OfflineError> {
        let Writing { manifest, log_start, .. } = writing;
        let Some(WrittenSegment { file, index, segment, records }) = written else { return Ok(()) };
        self.naming.number += 1;
        let (partition, name, objects) = (manifest.partition, self.naming, &*self.stores.objects);
        put_object(self.env, objects, data_key(partition, name, segment.base), file).await?;
        put_object(self.env, objects, index_key(partition, name, segment.base), vec![index]).await?;
        if manifest.segments.is_empty() {
            manifest.log_start = segment.base.max(*log_start);
            manifest.epochs = EpochHistory::default();
            manifest.epochs.append(EPOCH, segment.base);
        }
        manifest.covered = segment.last.plus(1);
        manifest.segments.push(NamedSegment { name, segment, records });
        Ok(())
    }

    /// The log of the partitions, the object of the topic, and last its record.
    pub(super) async fn commit(
        self,
        name: &str,
        record: &TopicRecord,
        manifests: impl IntoIterator<Item = &Manifest>,
    ) -> Result<(), OfflineError> {
        let mut logs = Rebuilt::default();
        for manifest in manifests {
            if manifest.segments.is_empty() {
                continue;
            }
            let mut state = CommittedPartition::born(EPOCH);
            state.end = manifest.covered;
            state.fold_log_start(manifest.log_start);
            state.cover(manifest.covered);
            logs.partitions.insert(manifest.partition, state);
        }
        let Writer { env, stores, .. } = self;
        adopt(env, stores, BootId(env.random()), &logs).await?;
        let object = TopicObject::encode(name, record, false);
        put_object(env, &*stores.objects, topic_object::key(record.id), vec![object]).await?;
        Ok(put_new(env, stores, vec![(keys::topic(name), record.encode())]).await?)
    }
}

/// A batch as this log holds it, and its first offset.
fn taken(key: &str, mut bytes: BytesMut) -> Result<(Offset, Bytes), TransferError> {
    let (batch, _) = RecordBatch::split(&bytes).ok().flatten().expect("whoever cut it out found it whole");
    let (attributes, base) = (batch.attributes(), Offset(batch.base_offset()));
    if attributes.is_transactional() || attributes.is_control() {
        return Err(TransferError::Transactional { key: key.to_owned(), offset: base });
    }
    set_leader_epoch(&mut bytes, EPOCH.0);
    Ok((base, bytes.freeze()))
}
