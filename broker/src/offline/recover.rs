//! `millrace recover`: the embedded metadata store rebuilt from the store of the log (PROTOCOL.md section 7).
//!
//! Invariants:
//! 1. Nothing is recovered where a metadata store is, nor while a process holds the directories or writes to the store.
//! 2. The object `meta/cluster` belongs to the new metadata store before anything is read: whoever still has the lost one
//!    can't start on this prefix any more.
//! 3. The new store is made under another name and gets its own once it is whole. So a recovery that was cut off leaves
//!    nothing that a broker would start from, and is simply made again.
//!
//! Not here: committed offsets and the state of groups. They are in the metadata store only, and lost with it.

use super::OfflineError;
use super::topics::Topics;
use crate::control::start::{CLUSTER_OBJECT, ClusterObject, StartError, kafka_uuid};
use crate::control::topic_object::TopicObject;
use crate::process::open::{DirectoryLock, MetadataPlace, Places};
use crate::settings::Settings;
use millrace_storage::env::Env;
use millrace_storage::ids::{BootId, Wid};
use millrace_storage::meta::embedded::{EmbeddedMeta, FILE_NAME};
use millrace_storage::meta::records::{ClusterRecord, RECORD_VERSION, Record, TopicRecord, TopicState};
use millrace_storage::meta::{Compare, MAX_TXN_OPS, Op, Txn, keys};
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{ListedObject, MatchOutcome, ObjectStore, OpenError, SharedObjects};
use millrace_storage::recovery::{Rebuilt, Stores, rebuild};
use millrace_storage::side::{SideRuntime, block_on_local};
use millrace_storage::store_error::StoreError;
use millrace_storage::wal::WalStore;
use millrace_storage::wal::extents::ExtentWal;
use millrace_storage::wal::objects::ObjectWal;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// On an object store: how long nothing may be written before it counts as left alone. Longer than the time between two
/// checkpoints of a lane that commits anything.
const WATCHED: Duration = Duration::from_secs(15);
/// Producer ids that are passed over: blocks that were given out to clients which had not written yet when the metadata
/// store was lost.
const PASSED_OVER: i64 = 1_000_000;
/// What the new metadata directory is called until it is whole.
const UNFINISHED: &str = "recovering";

/// What was recovered.
#[derive(Clone, PartialEq, Debug)]
pub struct Recovered {
    /// The store of the log.
    pub url: StoreUrl,
    /// Where the metadata store is now.
    pub metadata: PathBuf,
    /// How many times the prefix's metadata store was rebuilt.
    pub generation: u64,
    /// Live topics.
    pub topics: usize,
    /// Partitions and logs.
    pub rebuilt: Rebuilt,
}

/// Recovers the metadata store of the settings from the store of the log.
pub fn recover(settings: &Settings) -> Result<Recovered, OfflineError> {
    let refuse = |problem: String, fix: &str| Err(OpenError::new(problem, fix).into());
    let _data_lock = DirectoryLock::take(&settings.data_dir, "--data-dir")?;
    let places = Places::of(settings)?;
    let metadata = match places.metadata.clone() {
        MetadataPlace::Embedded(directory) => directory,
        MetadataPlace::Memory => {
            return refuse("a memory: store ends with its process".to_owned(), "name another with --object-store");
        }
        MetadataPlace::Etcd(_) => {
            let problem = "an etcd is not rebuilt by this command yet";
            return refuse(problem.to_owned(), "name a directory with --metadata embedded:DIR");
        }
    };
    let _store_lock = places.to_lock().map(|root| DirectoryLock::take(root, "--object-store")).transpose()?;
    if metadata.join(FILE_NAME).exists() {
        let problem = format!("there is a metadata store in {}: nothing is lost", metadata.display());
        return refuse(problem, "start the broker; or, if that store is damaged, move it away first");
    }
    let side = SideRuntime::start()?;
    let objects = SharedObjects::open(&places.store, &side)?;
    let wal = match &places.store {
        StoreUrl::File(root) if settings.store_model.is_none() => {
            Some(ExtentWal::open(&root.join("wal"), true, &side)?.0)
        }
        StoreUrl::File(_) | StoreUrl::Bucket { .. } | StoreUrl::Memory => None,
    };
    let remote = matches!(places.store, StoreUrl::Bucket { .. });
    let staged = metadata.with_added_extension(UNFINISHED);
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    let recovered = block_on_local(async |env| {
        // Nobody reads what it counts.
        let objects = objects.handle(&env, &Arc::default());
        let wal: Rc<dyn WalStore> = match &wal {
            Some(extents) => Rc::new(extents.clone()),
            None => Rc::new(ObjectWal::new(objects.clone())),
        };
        let cluster = objects.get(CLUSTER_OBJECT).await?;
        if cluster.is_none() {
            let problem = format!("there is no cluster at {}: {CLUSTER_OBJECT} is missing", places.store);
            return Err(OpenError::new(problem, "name the store of the cluster with --object-store").into());
        }
        if remote {
            left_alone(&env, &*objects, &places.store).await?;
        }
        let new_id = kafka_uuid(|| env.random_u128());
        let cluster = take_over(&*objects, &new_id.to_string()).await?;
        let meta = Rc::new(EmbeddedMeta::open(&staged, new_id)?);
        let stores = Stores { wal, objects, meta };
        fill(&env, &stores, cluster).await
    })?;
    let (generation, topics, rebuilt) = recovered?;
    put_in_place(&staged, &metadata)?;
    Ok(Recovered { url: places.store, metadata, generation, topics, rebuilt })
}

/// Fills the new metadata store; gives the generation, the number of topics and what was rebuilt.
async fn fill(env: &Env, stores: &Stores, cluster: ClusterObject) -> Result<(u64, usize, Rebuilt), OfflineError> {
    let topics = live_topics(&*stores.objects).await?;
    let counts: BTreeMap<_, _> = topics.values().map(|topic| (topic.id, topic.partitions)).collect();
    let boot = BootId(env.random());
    let wanted = |partition: millrace_storage::ids::TopicPartition| {
        counts.get(&partition.topic).is_some_and(|count| partition.index < *count)
    };
    let rebuilt = rebuild(env, stores, boot, wanted).await?;
    let cluster_record = ClusterRecord { v: RECORD_VERSION, cluster_id: cluster.cluster_id };
    let producer_ids = rebuilt.producer_ids.saturating_add(PASSED_OVER).to_string();
    let mut records =
        vec![(keys::CLUSTER.to_owned(), cluster_record.encode()), (keys::PRODUCER_IDS.to_owned(), producer_ids.into())];
    records.extend(topics.iter().map(|(name, topic)| (keys::topic(name), record(topic).encode())));
    for some in records.chunks(MAX_TXN_OPS / 2) {
        let compares = some.iter().map(|(key, _)| Compare::Absent(key.clone())).collect();
        let ops = some.iter().map(|(key, value)| Op::Put(key.clone(), value.clone())).collect();
        stores.meta.txn(Txn { compares, ops }).await?;
    }
    Ok((cluster.generation, topics.len(), rebuilt))
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

/// Makes the prefix belong to the metadata store `ours`, as its next generation.
async fn take_over(objects: &dyn ObjectStore, ours: &str) -> Result<ClusterObject, OfflineError> {
    let gone = || OpenError::new(format!("{CLUSTER_OBJECT} went away"), "leave the store alone while it is recovered");
    let found = objects.get(CLUSTER_OBJECT).await?.ok_or_else(gone)?;
    let before = ClusterObject::decode(&found.bytes).map_err(StartError::from)?;
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
    Err(OpenError::new(format!("{CLUSTER_OBJECT} could not be replaced"), "run one recovery at a time, again").into())
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

/// Gives the finished directory its name.
fn put_in_place(staged: &Path, metadata: &Path) -> std::io::Result<()> {
    // An empty one may have been left where the lost store was; anything else in it stays, and is an error.
    if metadata.exists() {
        fs::remove_dir(metadata)?;
    }
    fs::rename(staged, metadata)?;
    let parent = metadata.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}
