//! `millrace recover`: the metadata store rebuilt from the store of the log (PROTOCOL.md section 7), an embedded one or that
//! in an etcd.
//!
//! Invariants:
//! 1. Nothing is recovered while a process holds the directories, lives in the etcd or writes to the store; no embedded one
//!    where one is.
//! 2. The object `meta/cluster` belongs to the new metadata store before any log is ended: whoever still has the lost one
//!    can't start on this prefix any more.
//! 3. A new store gets its name, by which alone a broker would start from it, once it is whole. So a recovery that was cut
//!    off is simply made again.
//! 4. Logs, topics and producer ids are what the bucket says, whatever an etcd says that was restored from a backup: such a
//!    one is emptied first. What the log does not hold comes from the journal, or from the etcd where that is not older
//!    ([`kept`]); then it is in the bucket before the etcd is emptied.
//!
//! [`place`] is where the store is made.

mod kept;
mod place;

use super::OfflineError;
use super::topics::Topics;
use crate::control::start::{CLUSTER_OBJECT, ClusterObject, StartError, kafka_uuid};
use crate::control::topic_object::TopicObject;
use crate::process::open::{DirectoryLock, MetadataPlace, Places};
use crate::settings::Settings;
use bytes::Bytes;
use kept::Kept;
pub use kept::{KeptCounts, Source};
use millrace_storage::env::{Env, WallMs};
use millrace_storage::format::snapshot::generation_base;
use millrace_storage::ids::{BootId, TopicPartition, Wid};
use millrace_storage::meta::records::{ClusterRecord, RECORD_VERSION, Record, TopicRecord, TopicState};
use millrace_storage::meta::{Compare, Key, Op, Txn, keys};
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{ListedObject, MatchOutcome, ObjectStore, OpenError, SharedObjects};
use millrace_storage::recovery::{NEW_AT_ONCE, Rebuilt, Stores, observe, rebuild};
use millrace_storage::side::{SideRuntime, block_on_local};
use millrace_storage::store_error::StoreError;
use millrace_storage::wal::WalStore;
use millrace_storage::wal::extents::ExtentWal;
use millrace_storage::wal::objects::ObjectWal;
use place::Place;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// On an object store: how long nothing may be written before it counts as left alone. Longer than the time between two
/// checkpoints of a lane that commits anything.
const WATCHED: Duration = Duration::from_secs(15);
/// Producer ids that are passed over: blocks that were given out to clients which had not written yet when the metadata
/// store was lost.
const PASSED_OVER: i64 = 1_000_000;

/// What was recovered, or would be.
#[derive(Clone, PartialEq, Debug)]
pub struct Recovered {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The store of the log.
    pub url: StoreUrl,
    /// Where the metadata store is now, for people.
    pub metadata: String,
    /// How many times the prefix's metadata store was rebuilt.
    pub generation: u64,
    /// Live topics, by name: partitions and settings.
    pub topics: BTreeMap<String, TopicObject>,
    /// Partitions and logs.
    pub rebuilt: Rebuilt,
    /// What the log does not hold.
    pub kept: KeptCounts,
    /// When this was.
    pub at: WallMs,
}

/// Recovers the metadata store of the settings from the store of the log. A `dry_run` only looks.
///
/// # Errors
/// See [`OfflineError`].
pub fn recover(settings: &Settings, dry_run: bool) -> Result<Recovered, OfflineError> {
    // Nothing of this machine is needed where all is on others.
    let elsewhere = settings.object_store.is_some().then(|| Places::existing(settings)).transpose()?.filter(|places| {
        matches!(places.store, StoreUrl::Bucket { .. }) && matches!(places.metadata, MetadataPlace::Etcd(_))
    });
    let _data_lock = elsewhere.is_none().then(|| DirectoryLock::take(&settings.data_dir, "--data-dir")).transpose()?;
    let places = elsewhere.map_or_else(|| Places::of(settings), Ok)?;
    let on_bucket = matches!(places.store, StoreUrl::Bucket { .. });
    let _store_lock = places.to_lock().map(|root| DirectoryLock::take(root, "--object-store")).transpose()?;
    let side = SideRuntime::start()?;
    let mut place = Place::of(&places.metadata)?;
    place.connect(settings, &side, dry_run)?;
    let objects = SharedObjects::open(&places.store, &side)?;
    let wal = match &places.store {
        StoreUrl::File(root) if settings.store_model.is_none() => Some(extents(root, dry_run, &side)?),
        StoreUrl::File(_) | StoreUrl::Bucket { .. } | StoreUrl::Memory => None,
    };
    block_on_local(async |env| {
        // Nobody reads what it counts.
        let objects = objects.handle(&env, &Arc::default());
        let wal: Rc<dyn WalStore> = match &wal {
            Some(extents) => Rc::new(extents.clone()),
            None => Rc::new(ObjectWal::new(objects.clone())),
        };
        let before = cluster(&*objects, &places.store).await?;
        let known = place.look(&before).await?;
        // Who only looks is in nobody's way.
        if !dry_run {
            let left_alone =
                async { if on_bucket { left_alone(&env, &*objects, &places.store).await } else { Ok(()) } };
            futures::try_join!(left_alone, place.is_left(&env))?;
        }
        let kept = Kept::read(&env, &*objects, known.as_deref(), generation_base(before.generation)).await?;
        let topics = live_topics(&*objects).await?;
        let work = Work { env: &env, wal, objects, topics, kept };
        let (generation, rebuilt) = if dry_run {
            (before.generation + 1, work.look().await?)
        } else {
            let (cluster, rebuilt) = work.make(&mut place, before).await?;
            (cluster.generation, rebuilt)
        };
        let (kept, metadata) = (work.kept.counts(&work.topics), place.name());
        let Work { topics, .. } = work;
        Ok(Recovered {
            dry_run,
            url: places.store.clone(),
            metadata,
            generation,
            topics,
            rebuilt,
            kept,
            at: env.wall(),
        })
    })?
}

fn extents(root: &std::path::Path, dry_run: bool, side: &SideRuntime) -> Result<ExtentWal, OfflineError> {
    let wal = root.join("wal");
    if dry_run && wal.is_dir() {
        return Ok(ExtentWal::open_read_only(&wal)?.0);
    }
    Ok(ExtentWal::open(&wal, true, side)?.0)
}

/// All that a recovery is made from.
struct Work<'a> {
    env: &'a Env,
    wal: Rc<dyn WalStore>,
    objects: Rc<dyn ObjectStore>,
    topics: BTreeMap<String, TopicObject>,
    kept: Kept,
}

impl Work<'_> {
    /// Which partitions there shall be.
    fn wanted(&self) -> impl Fn(TopicPartition) -> bool + use<> {
        let counts: BTreeMap<_, _> = self.topics.values().map(|topic| (topic.id, topic.partitions)).collect();
        move |partition| counts.get(&partition.topic).is_some_and(|count| partition.index < *count)
    }

    /// What a recovery would find; nothing is changed.
    async fn look(&self) -> Result<Rebuilt, OfflineError> {
        let nobody = Rc::new(millrace_storage::meta::memory::MemoryMeta::new(uuid::Uuid::nil()));
        let meta = Rc::new(nobody.timed(self.env));
        let stores = Stores { wal: self.wal.clone(), objects: self.objects.clone(), meta };
        let partitions = observe(&stores, self.wanted()).await?;
        Ok(Rebuilt { partitions, ..Rebuilt::default() })
    }

    /// Makes the new metadata store.
    async fn make(&self, place: &mut Place, before: ClusterObject) -> Result<(ClusterObject, Rebuilt), OfflineError> {
        let number = self.kept.store(self.env, &*self.objects, before.generation + 1).await?;
        let new_id = kafka_uuid(|| self.env.random_u128());
        let cluster = take_over(&*self.objects, before, &new_id.to_string()).await?;
        let cluster_record = ClusterRecord { v: RECORD_VERSION, cluster_id: cluster.cluster_id.clone() };
        let meta = place.make(new_id, cluster_record.encode()).await?;
        let stores = Stores { wal: self.wal.clone(), objects: self.objects.clone(), meta };
        let rebuilt = rebuild(self.env, &stores, BootId(self.env.random()), self.wanted()).await?;
        let producer_ids = rebuilt.producer_ids.max(self.kept.producer_ids()).saturating_add(PASSED_OVER);
        let mut records: BTreeMap<Key, Bytes> = self.kept.records(&self.topics);
        records.insert(keys::CLUSTER.to_owned(), cluster_record.encode());
        records.insert(keys::PRODUCER_IDS.to_owned(), producer_ids.to_string().into());
        records.insert(keys::JOURNAL.to_owned(), number.to_string().into());
        records.extend(self.topics.iter().map(|(name, topic)| (keys::topic(name), record(topic).encode())));
        let records: Vec<(Key, Bytes)> = records.into_iter().collect();
        for some in records.chunks(NEW_AT_ONCE) {
            // Values can be large, those of groups; one by one they fit.
            for one in fitting(some) {
                let ops = one.iter().map(|(key, value)| Op::Put(key.clone(), value.clone())).collect();
                stores.meta.txn(Txn { compares: Vec::<Compare>::new(), ops }).await?;
            }
        }
        drop(stores);
        place.finish(new_id).await?;
        Ok((cluster, rebuilt))
    }
}

/// Parts that fit into a transaction each.
fn fitting(records: &[(Key, Bytes)]) -> Vec<&[(Key, Bytes)]> {
    let bytes = |(key, value): &(Key, Bytes)| key.len() + value.len();
    let (mut parts, mut start, mut size) = (Vec::new(), 0, 0);
    for (index, record) in records.iter().enumerate() {
        if index > start && size + bytes(record) > millrace_storage::meta::MAX_TXN_BYTES / 2 {
            parts.push(&records[start..index]);
            (start, size) = (index, 0);
        }
        size += bytes(record);
    }
    parts.push(&records[start..]);
    parts
}

fn record(topic: &TopicObject) -> TopicRecord {
    TopicRecord {
        v: RECORD_VERSION,
        id: topic.id,
        state: TopicState::Live,
        partitions: topic.partitions,
        settings: topic.settings.clone(),
    }
}

/// Topics by name that are not deleted.
async fn live_topics(objects: &dyn ObjectStore) -> Result<BTreeMap<String, TopicObject>, OfflineError> {
    let fix = "restore it, or put a tombstone (\"deleted\":true) in its place if that topic may go";
    let topics = Topics::read(objects).await?;
    if let Some((key, detail)) = topics.damaged.first() {
        return Err(OpenError::new(format!("the object {key} can't be read: {detail}"), fix).into());
    }
    let mut live = BTreeMap::new();
    for topic in topics.alive() {
        if let Some(other) = live.insert(topic.name.clone(), topic.clone()) {
            let problem = format!("two live topics are called {}: ids {} and {}", topic.name, other.id, topic.id);
            return Err(OpenError::new(problem, fix).into());
        }
    }
    Ok(live)
}

/// What the bucket says of itself.
async fn cluster(objects: &dyn ObjectStore, url: &StoreUrl) -> Result<ClusterObject, OfflineError> {
    let found = objects.get(CLUSTER_OBJECT).await?.ok_or_else(|| {
        let problem = format!("there is no cluster at {url}: {CLUSTER_OBJECT} is missing");
        OpenError::new(problem, "name the store of the cluster with --object-store")
    })?;
    Ok(ClusterObject::decode(&found.bytes).map_err(StartError::from)?)
}

/// Makes the prefix belong to the metadata store `ours`, as its next generation, if it is still as it was `before`.
async fn take_over(
    objects: &dyn ObjectStore,
    before: ClusterObject,
    ours: &str,
) -> Result<ClusterObject, OfflineError> {
    let gone = || OpenError::new(format!("{CLUSTER_OBJECT} went away"), "leave the store alone while it is recovered");
    let again = || {
        OpenError::new(format!("{CLUSTER_OBJECT} was replaced by another"), "run one recovery at a time, again").into()
    };
    let found = objects.get(CLUSTER_OBJECT).await?.ok_or_else(gone)?;
    if ClusterObject::decode(&found.bytes).map_err(StartError::from)? != before {
        return Err(again());
    }
    let after = ClusterObject { generation: before.generation + 1, metadata: ours.to_owned(), ..before };
    match objects.put_if_match(CLUSTER_OBJECT, after.encode(), found.version).await {
        Ok(MatchOutcome::Stored(_)) => return Ok(after),
        Ok(MatchOutcome::Changed) | Err(_) => {}
    }
    // One's own success may have been answered by an error.
    let found = objects.get(CLUSTER_OBJECT).await?.ok_or_else(gone)?;
    if ClusterObject::decode(&found.bytes).map_err(StartError::from)? == after {
        return Ok(after);
    }
    Err(again())
}

/// Whether nothing is written for a while.
async fn left_alone(env: &Env, objects: &dyn ObjectStore, url: &StoreUrl) -> Result<(), OfflineError> {
    let before = newest(objects).await?;
    env.sleep(WATCHED).await;
    if newest(objects).await? == before {
        return Ok(());
    }
    let problem = format!("a live process writes to {url}");
    Err(OpenError::new(problem, "stop every broker of the cluster first").into())
}

/// The last object of each log and of its checkpoints.
async fn newest(objects: &dyn ObjectStore) -> Result<Vec<(Wid, Vec<Option<ListedObject>>)>, StoreError> {
    let mut wids: Vec<Wid> = Vec::new();
    for folder in ["wal/", "ckpt/"] {
        wids.extend(objects.list_directories(folder).await?.iter().filter_map(|name| name.parse::<Wid>().ok()));
    }
    wids.sort_unstable();
    wids.dedup();
    let mut newest = Vec::with_capacity(wids.len());
    for wid in wids {
        let wal = objects.list(&format!("wal/{wid}/")).await?;
        let checkpoints = objects.list(&format!("ckpt/{wid}/")).await?;
        newest.push((wid, vec![wal.last().cloned(), checkpoints.last().cloned()]));
    }
    Ok(newest)
}
