//! The values of the metadata store, as JSON with a version, so that an operator can read them with any tool.
//!
//! A record is compared byte by byte in transactions, so `encode` is deterministic: fields in declaration order.

use crate::ids::{BootId, LeaderEpoch, Offset, Seq, ShardIndex, TopicId, Wid};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of every record of this file.
pub const RECORD_VERSION: u16 = 1;

/// A value that can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("metadata record of kind {kind}: {detail}")]
pub struct RecordError {
    /// Which record.
    pub kind: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

/// State of a write-ahead log (PROTOCOL.md section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", tag = "is")]
pub enum WalState {
    /// Its lane may commit.
    Open,
    /// Somebody is fencing it; `ck` and `lw` are frozen.
    Fencing,
    /// Ended: objects `[0, end)` are data, the fence at `end` exists.
    Sealed {
        /// Sequence of the fence.
        end: Seq,
    },
}

/// `/wal/{wid}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalRecord {
    /// Version of the record.
    pub v: u16,
    /// Name of the broker process.
    pub broker: String,
    /// Its life.
    pub boot: BootId,
    /// Its lane.
    pub lane: u16,
    /// OPEN, FENCING, SEALED.
    pub state: WalState,
    /// Number of the checkpoint; 0 is empty, without an object.
    pub ck: u64,
    /// Low-water mark: data objects below need not exist.
    pub lw: Seq,
    /// Unix milliseconds since which only the fence remains. Absent before, so that nothing else of the bytes changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emptied: Option<i64>,
}

/// What a released partition was left at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Released {
    /// The lane's commit point: entries of this epoch all lie below.
    pub seq: Seq,
    /// The log's end.
    pub end: Offset,
}

/// `/partition/{topic id}/{index}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Version of the record.
    pub v: u16,
    /// Leader epoch, from 1.
    pub epoch: LeaderEpoch,
    /// The write-ahead log that holds this epoch's entries.
    pub wid: Wid,
    /// The shard that serves it.
    pub shard: ShardIndex,
    /// Unix milliseconds of birth.
    pub born: i64,
    /// Set while nobody leads it.
    pub released: Option<Released>,
}

/// `/broker/{name}`: a process that lives. Its bytes are the same throughout a life, so that a transaction can compare
/// them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BrokerRecord {
    /// Version of the record.
    pub v: u16,
    /// Its life.
    pub boot: BootId,
    /// The Kafka node of each shard, by index: at least one.
    pub shards: Vec<ShardRecord>,
    /// Whether clients are told of the first of them alone, which then stands for all.
    pub shared_port: bool,
    /// Where it stands, as Kafka's rack.
    pub zone: Option<String>,
    /// How long its lease lives from each keep-alive, milliseconds.
    pub lease_ms: u64,
    /// Host and port where it tells of itself over HTTP, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
}

/// A shard as clients reach it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Kafka's node id.
    pub node: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
}

/// `/controller`: who places partitions and slots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ControllerRecord {
    /// Version of the record.
    pub v: u16,
    /// Name of the broker process.
    pub broker: String,
    /// Its life.
    pub boot: BootId,
}

/// `/suspect/{name}/{observer}`: a life that does not answer that observer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SuspectRecord {
    /// Version of the record.
    pub v: u16,
    /// The life that is meant.
    pub boot: BootId,
}

/// `/drain/{name}` of a process that leaves by itself; the value is empty where an operator wants it left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DrainRecord {
    /// Version of the record.
    pub v: u16,
    /// The life that leaves: a later one does not.
    pub boot: BootId,
}

/// `/load/{name}`: what partitions cost a broker. No safety role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Version of the record.
    pub v: u16,
    /// Those that cost most.
    pub partitions: Vec<PartitionLoad>,
}

/// What one partition costs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionLoad {
    /// Its topic.
    pub topic: TopicId,
    /// Its index.
    pub index: u32,
    /// Bytes in and out a second.
    pub rate: u64,
}

/// `/wish/{topic id}/{index}`, `/slot-wish/{slot}`: where the controller wants the partition, or the slot's coordinator.
/// No safety role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WishRecord {
    /// Version of the record.
    pub v: u16,
    /// Name of the broker process.
    pub broker: String,
    /// The shard.
    pub shard: ShardIndex,
}

/// State of a topic (PROTOCOL.md section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TopicState {
    /// The name is reserved; `meta/topics/{id}` may not exist yet.
    Creating,
    /// In use.
    Live,
    /// Being deleted: produce is refused.
    Deleting,
}

/// `/topic/{name}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TopicRecord {
    /// Version of the record.
    pub v: u16,
    /// The topic's id.
    pub id: TopicId,
    /// Its state.
    pub state: TopicState,
    /// Number of partitions.
    pub partitions: u32,
    /// Settings that differ from the defaults, by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// `/slot/{slot}`: who coordinates the groups of a slot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Version of the record.
    pub v: u16,
    /// One more with every change; writes of group state compare it.
    pub epoch: u64,
    /// Name of the broker process.
    pub broker: String,
    /// Its life.
    pub boot: BootId,
    /// The shard.
    pub shard: ShardIndex,
    /// Whether it has let go: another process may take the slot. Absent if not, so that nothing else of the bytes changes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
}

/// `/group-settings/{group}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GroupSettingsRecord {
    /// Version of the record.
    pub v: u16,
    /// Settings that differ from the defaults, by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// `/cluster`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Version of the record.
    pub v: u16,
    /// Kafka's cluster id: 22 characters of base64.
    pub cluster_id: String,
}

/// A part of a [`QuotaEntity`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum QuotaPart {
    /// The entity has no such part.
    #[default]
    Absent,
    /// Whoever has no quota by name.
    Default,
    /// This one.
    Named(String),
}

/// Whom a quota is for: a user, a client id, or both (KIP-55).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct QuotaEntity {
    /// The user.
    pub user: QuotaPart,
    /// The client id.
    pub client_id: QuotaPart,
}

/// `/quota/{user}/{client id}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuotaRecord {
    /// Version of the record.
    pub v: u16,
    /// Bytes a second at each broker, by Kafka's names.
    pub quotas: BTreeMap<String, u64>,
}

/// `/setting/{node}`: settings that were changed while brokers ran.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettingRecord {
    /// Version of the record.
    pub v: u16,
    /// Values by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// A record with a kind and a JSON form.
pub trait Record: Serialize + for<'a> Deserialize<'a> {
    /// For error messages.
    const KIND: &'static str;
    /// The bytes to store and to compare.
    fn encode(&self) -> Bytes {
        Bytes::from(serde_json::to_vec(self).expect("records have string keys and finite numbers"))
    }
    /// Reads a stored value.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        serde_json::from_slice(bytes).map_err(|e| RecordError { kind: Self::KIND, detail: e.to_string() })
    }
}

macro_rules! records {
    ($($name:ident: $kind:literal),*) => {$( impl Record for $name { const KIND: &'static str = $kind; } )*};
}
records!(WalRecord: "wal", PartitionRecord: "partition", WishRecord: "wish", TopicRecord: "topic",
         SlotRecord: "slot", ClusterRecord: "cluster", GroupSettingsRecord: "group settings", QuotaRecord: "quota",
         SettingRecord: "setting", BrokerRecord: "broker", ControllerRecord: "controller", SuspectRecord: "suspect",
         DrainRecord: "drain", LoadRecord: "load");

macro_rules! plain_serde {
    ($($name:ident($inner:ty)),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { self.0.serialize(s) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> { <$inner>::deserialize(d).map($name) }
        }
    )*};
}
plain_serde!(Seq(u64), Offset(i64), LeaderEpoch(i32), ShardIndex(u16), BootId(u64));

macro_rules! text_serde {
    ($($name:ident: $parse:expr),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.collect_str(self) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                let parse: fn(&str) -> Option<$name> = $parse;
                parse(&text).ok_or_else(|| serde::de::Error::custom(concat!("not a ", stringify!($name))))
            }
        }
    )*};
}
text_serde!(Wid: |t| t.parse().ok(), TopicId: |t| uuid::Uuid::try_parse(t).ok().map(TopicId));
