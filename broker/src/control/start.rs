//! What the control task does once, before it serves: who are we ([`identify`]), what is there ([`load`]).
//!
//! Invariants:
//! 1. An object-store prefix belongs to one metadata store, named in its object `meta/cluster`; another one is refused,
//!    because two stores that each believe to own the same logs would both be wrong.
//! 2. Node ids are never given out twice: taking one and moving `/next-node` is one transaction.
//! 3. Each step reads first and stops when things are as they shall be, so a step whose outcome was unknown is simply
//!    made again.

use super::messages::Node;
use crate::journal::check;
use bytes::Bytes;
use millrace_storage::env::Env;
use millrace_storage::format::snapshot::generation_base;
use millrace_storage::ids::{ShardIndex, TopicId, TopicPartition};
use millrace_storage::meta::records::{
    ClusterRecord, GroupSettingsRecord, PartitionRecord, QuotaEntity, QuotaRecord, RECORD_VERSION, Record, RecordError,
    SettingRecord, TopicRecord,
};
use millrace_storage::meta::{Compare, Key, MAX_PAGE, MAX_TXN_OPS, MetaStore, Op, Txn, TxnOutcome, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::store_error::StoreError;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// Tries of one step before the start fails.
const TRIES: u32 = 40;

/// Pause between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Key of the object that binds a prefix to its metadata store.
pub const CLUSTER_OBJECT: &str = "meta/cluster";

/// Version of that object.
const CLUSTER_OBJECT_VERSION: u16 = 1;

/// The object `meta/cluster`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterObject {
    /// Version of the object.
    pub v: u16,
    /// One more with every rebuild (PROTOCOL.md section 7).
    pub generation: u64,
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// The metadata store's own id, a UUID.
    pub metadata: String,
}

impl ClusterObject {
    /// The bytes.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("it has no map").into()
    }

    /// Reads the object.
    ///
    /// # Errors
    /// A newer version wrote it, or it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<ClusterObject, RecordError> {
        serde_json::from_slice(bytes).map_err(|e| RecordError { kind: CLUSTER_OBJECT, detail: e.to_string() })
    }
}

/// Why the process can't start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// A store did not answer, many times in a row.
    #[error("a store does not answer: {0}; check that it runs and can be reached")]
    Store(#[from] StoreError),
    /// Another process or program wrote what we can't read.
    #[error("{0}; it was written by a newer version or damaged")]
    Record(#[from] RecordError),
    /// The prefix belongs to another metadata store.
    #[error(
        "the object store's prefix belongs to metadata store {theirs}, but this process uses {ours}; \
         point --metadata at the store that belongs to it, or --object-store at an empty prefix; if that metadata store is \
         lost, rebuild it (millrace recover)"
    )]
    OtherMetadata {
        /// Id in `meta/cluster`.
        theirs: String,
        /// Id of our metadata store.
        ours: String,
    },
    /// The metadata store is an older state of itself.
    #[error(
        "the metadata store is older than the object store ({0}): it was restored from a backup, or copied, and lacks what \
         was acknowledged since; stop every broker and rebuild it with `millrace recover` and the same settings (an \
         embedded one: after its directory was moved away)"
    )]
    OlderMetadata(String),
    /// The store answered, but never as it should have.
    #[error("could not agree on {0} with other processes that write the same store")]
    Contended(&'static str),
}

/// Who the process says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Process {
    /// Its name: the same after a restart.
    pub name: String,
    /// Advertised host and port of each shard.
    pub addresses: Vec<(String, u16)>,
    /// Its zone, as Kafka's rack.
    pub zone: Option<String>,
}

/// Who it is in the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Kafka's cluster id: 22 characters of URL-safe base64.
    pub cluster_id: String,
    /// The node of each shard, by shard index.
    pub nodes: Vec<Node>,
    /// How many times the metadata store was rebuilt.
    pub generation: u64,
}

/// What the metadata store holds for the control task.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loaded {
    /// Topics by name.
    pub topics: BTreeMap<String, TopicRecord>,
    /// Partition records of those topics.
    pub partitions: BTreeMap<TopicPartition, PartitionRecord>,
    /// The value of `/pid`.
    pub producer_ids: Option<Bytes>,
    /// Records of the settings of groups, by group; each can be read.
    pub group_settings: BTreeMap<String, Bytes>,
    /// Client quotas.
    pub quotas: BTreeMap<QuotaEntity, BTreeMap<String, u64>>,
    /// Settings that were changed while nodes ran; `None`: of all nodes.
    pub settings: BTreeMap<Option<i32>, BTreeMap<String, String>>,
}

/// A random UUID that Kafka's tools can take: version 4, its base64 form not starting with '-'.
pub fn kafka_uuid(mut random: impl FnMut() -> u128) -> Uuid {
    loop {
        let uuid = uuid::Builder::from_random_bytes(random().to_be_bytes()).into_uuid();
        // One in 64 is drawn again.
        if !base64(uuid).starts_with('-') {
            return uuid;
        }
    }
}

/// Kafka's text form of a UUID: URL-safe base64 (RFC 4648 section 5) without padding, 22 characters.
pub fn base64(uuid: Uuid) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // 128 bits and 4 zero bits behind them make 22 groups of 6.
    let letter = |group: u32| {
        let shift = 122i32 - 6 * i32::try_from(group).expect("22 groups");
        let bits = if shift >= 0 { uuid.as_u128() >> shift } else { uuid.as_u128() << -shift };
        char::from(LETTERS[usize::try_from(bits & 63).expect("six bits")])
    };
    (0..22).map(letter).collect()
}

/// Finds or makes the cluster's id, binds the prefix, refuses an older state of the metadata store, finds or takes the node
/// ids of the shards.
pub async fn identify(
    env: &Env,
    meta: &dyn MetaStore,
    objects: &dyn ObjectStore,
    process: &Process,
) -> Result<Identity, StartError> {
    // Before anything is written: what is not the prefix's metadata store stays as it is.
    let found = until_answered(env, "the prefix's owner", async || objects.get(CLUSTER_OBJECT).await).await?;
    if let Some(found) = found {
        let ours = until_answered(env, "the metadata store's id", async || meta.cluster_id().await).await?;
        belongs(&ClusterObject::decode(&found.bytes)?, &ours.to_string())?;
    }
    let cluster_id = cluster_id(env, meta).await?;
    let generation = bind_prefix(env, meta, objects, &cluster_id).await?;
    check::not_older(env, meta, objects, generation_base(generation)).await?;
    let mut nodes = Vec::with_capacity(process.addresses.len());
    for (shard, (host, port)) in (0..).map(ShardIndex).zip(&process.addresses) {
        let id = node_id(env, meta, &process.name, shard).await?;
        nodes.push(Node { id, host: host.clone(), port: *port, rack: process.zone.clone(), shard: Some(shard) });
    }
    Ok(Identity { cluster_id, nodes, generation })
}

/// What one try of a step came to.
enum Tried<T> {
    Done(T),
    Again,
}

/// Tries a step until it is done; waits between tries.
async fn until_done<T>(
    env: &Env,
    what: &'static str,
    mut step: impl AsyncFnMut() -> Result<Tried<T>, StoreError>,
) -> Result<T, StartError> {
    let mut last = StartError::Contended(what);
    for attempt in 0..TRIES {
        match step().await {
            Ok(Tried::Done(value)) => return Ok(value),
            // Usually one's own success is read by the very next try.
            Ok(Tried::Again) if attempt == 0 => continue,
            Ok(Tried::Again) => last = StartError::Contended(what),
            Err(error) => {
                tracing::warn!(%error, what, "a store call failed; it is tried again");
                last = error.into();
            }
        }
        env.sleep(TRY_AGAIN_AFTER).await;
    }
    Err(last)
}

/// Asks until there is an answer.
pub(crate) async fn until_answered<T>(
    env: &Env,
    what: &'static str,
    mut ask: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StartError> {
    until_done(env, what, async || ask().await.map(Tried::Done)).await
}

async fn cluster_id(env: &Env, meta: &dyn MetaStore) -> Result<String, StartError> {
    let value = until_done(env, "the cluster id", async || {
        if let Some(found) = read(meta, keys::CLUSTER).await? {
            return Ok(Tried::Done(found));
        }
        let cluster_id = base64(kafka_uuid(|| env.random_u128()));
        let record = ClusterRecord { v: RECORD_VERSION, cluster_id };
        put_if_absent(meta, keys::CLUSTER, record.encode()).await?;
        Ok(Tried::Again)
    });
    Ok(ClusterRecord::decode(&value.await?)?.cluster_id)
}

async fn bind_prefix(
    env: &Env,
    meta: &dyn MetaStore,
    objects: &dyn ObjectStore,
    cluster_id: &str,
) -> Result<u64, StartError> {
    let ours = until_done(env, "the metadata store's id", async || meta.cluster_id().await.map(Tried::Done))
        .await?
        .to_string();
    let found = until_done(env, "the prefix's owner", async || {
        if let Some(found) = objects.get(CLUSTER_OBJECT).await? {
            return Ok(Tried::Done(found.bytes));
        }
        let cluster_id = cluster_id.to_owned();
        let object = ClusterObject { v: CLUSTER_OBJECT_VERSION, generation: 0, cluster_id, metadata: ours.clone() };
        objects.put_if_absent(CLUSTER_OBJECT, vec![object.encode()]).await?;
        Ok(Tried::Again)
    });
    let found = ClusterObject::decode(&found.await?)?;
    belongs(&found, &ours)?;
    Ok(found.generation)
}

fn belongs(found: &ClusterObject, ours: &str) -> Result<(), StartError> {
    if found.metadata == ours {
        return Ok(());
    }
    Err(StartError::OtherMetadata { theirs: found.metadata.clone(), ours: ours.to_owned() })
}

async fn node_id(env: &Env, meta: &dyn MetaStore, name: &str, shard: ShardIndex) -> Result<i32, StartError> {
    let key = keys::node(name, shard);
    let value = until_done(env, "a node id", async || {
        if let Some(found) = read(meta, &key).await? {
            return Ok(Tried::Done(found));
        }
        let next = keys::NEXT_NODE.to_owned();
        let (compare, id) = match read(meta, keys::NEXT_NODE).await? {
            Some(value) => {
                let id: i32 = number("next node id", &value).map_err(corrupt)?;
                (Compare::Value(next.clone(), value), id)
            }
            // Kafka's ids start at 0; 1 is the first here, since 0 is what clients see for "unset".
            None => (Compare::Absent(next.clone()), 1),
        };
        let text = |number: i32| Bytes::from(number.to_string());
        let compares = vec![compare, Compare::Absent(key.clone())];
        let ops = vec![Op::Put(key.clone(), text(id)), Op::Put(next, text(id + 1))];
        meta.txn(Txn { compares, ops }).await?;
        Ok(Tried::Again)
    });
    Ok(number("node id", &value.await?)?)
}

fn corrupt(error: RecordError) -> StoreError {
    StoreError::not_done(millrace_storage::store_error::FailureKind::Corrupt, error.to_string())
}

fn number<T: std::str::FromStr>(kind: &'static str, value: &[u8]) -> Result<T, RecordError> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| RecordError { kind, detail: "it is not a number".to_owned() })
}

async fn read(meta: &dyn MetaStore, key: &str) -> Result<Option<Bytes>, StoreError> {
    Ok(meta.get(vec![key.to_owned()]).await?.values.remove(0).map(|found| found.value))
}

async fn put_if_absent(meta: &dyn MetaStore, key: &str, value: Bytes) -> Result<TxnOutcome, StoreError> {
    let compares = vec![Compare::Absent(key.to_owned())];
    meta.txn(Txn { compares, ops: vec![Op::Put(key.to_owned(), value)] }).await
}

/// Reads topics, partition records, settings of groups and nodes, quotas and `/pid`; removes partition records that a
/// finished deletion left. Only where this process is alone: another one may be making the topic of such a record.
pub async fn load(env: &Env, meta: &dyn MetaStore) -> Result<Loaded, StartError> {
    let mut loaded = load_settings(env, meta).await?;
    for (key, value) in list(env, meta, keys::TOPICS).await? {
        let name = key.strip_prefix(keys::TOPICS).expect("the listing has this prefix").to_owned();
        loaded.topics.insert(name, TopicRecord::decode(&value)?);
    }
    let known: BTreeSet<TopicId> = loaded.topics.values().map(|record| record.id).collect();
    let mut strays = Vec::new();
    for (key, value) in list(env, meta, keys::PARTITIONS).await? {
        match keys::parse_partition(&key) {
            Some(partition) if known.contains(&partition.topic) => {
                loaded.partitions.insert(partition, PartitionRecord::decode(&value)?);
            }
            _ => strays.push((key, value)),
        }
    }
    remove_strays(env, meta, strays).await?;
    Ok(loaded)
}

/// Reads settings of groups and nodes, quotas and `/pid`.
pub async fn load_settings(env: &Env, meta: &dyn MetaStore) -> Result<Loaded, StartError> {
    let mut loaded = Loaded::default();
    for (key, value) in list(env, meta, keys::GROUP_SETTINGS).await? {
        GroupSettingsRecord::decode(&value)?;
        let group = keys::parse_group_settings(&key).ok_or_else(|| RecordError {
            kind: "group settings",
            detail: format!("{key} is not the key of a group"),
        })?;
        loaded.group_settings.insert(group, value);
    }
    loaded.producer_ids =
        until_done(env, "the producer ids", async || read(meta, keys::PRODUCER_IDS).await.map(Tried::Done)).await?;
    if let Some(value) = &loaded.producer_ids {
        number::<i64>("producer ids", value)?;
    }
    for (key, value) in list(env, meta, keys::QUOTAS).await? {
        let entity = keys::parse_quota(&key).ok_or_else(|| unreadable("quota", &key))?;
        loaded.quotas.insert(entity, QuotaRecord::decode(&value)?.quotas);
    }
    for (key, value) in list(env, meta, keys::SETTINGS).await? {
        let node = keys::parse_setting(&key).ok_or_else(|| unreadable("setting", &key))?;
        loaded.settings.insert(node, SettingRecord::decode(&value)?.settings);
    }
    Ok(loaded)
}

fn unreadable(kind: &'static str, key: &str) -> RecordError {
    RecordError { kind, detail: format!("the key {key} names nobody") }
}

async fn list(env: &Env, meta: &dyn MetaStore, prefix: &str) -> Result<Vec<(Key, Bytes)>, StartError> {
    let mut all: Vec<(Key, Bytes)> = Vec::new();
    loop {
        let after = all.last().map(|(key, _)| key.clone());
        let page =
            until_done(env, "a listing", async || meta.list(prefix, after.clone(), MAX_PAGE).await.map(Tried::Done));
        let page = page.await?;
        all.extend(page.entries.into_iter().map(|(key, found)| (key, found.value)));
        if !page.more {
            return Ok(all);
        }
    }
}

/// Records of a topic that is gone: of an import that was cut off, or of a birth by an earlier version, which did not compare
/// the topic. They hold a write-ahead log back from collection.
async fn remove_strays(env: &Env, meta: &dyn MetaStore, strays: Vec<(Key, Bytes)>) -> Result<(), StartError> {
    for some in strays.chunks(MAX_TXN_OPS / 2) {
        let txn = Txn::delete_unchanged(some.iter().map(|(key, value)| (key, value)));
        // A conflict means that an earlier try removed them.
        until_done(env, "stray records", async || meta.txn(txn.clone()).await.map(Tried::Done)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_kafkas() {
        assert_eq!(base64(Uuid::from_u128(0)), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(base64(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64(Uuid::from_u128(u128::MAX)), "_____________________w");
    }

    #[test]
    fn an_id_never_starts_with_a_dash() {
        let dash = 0b1111_1000u128 << 120;
        let mut draws = [dash, dash | 1, 7].into_iter();
        let uuid = kafka_uuid(|| draws.next().expect("the third is good"));
        assert!(!base64(uuid).starts_with('-'));
        assert_eq!(uuid.get_version_num(), 4);
    }
}
