//! What shards and the control task say to each other. Every question carries a token that its answer repeats; a shard
//! never waits: it goes on and completes the request when the answer comes. All queues are bounded mailboxes.

use super::group_settings::Settings;
use super::topic_rules::Refusal;
use crate::quotas::QuotaTable;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicId, TopicPartition};
use millrace_storage::meta::Key;
use millrace_storage::meta::records::QuotaEntity;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Names a question of one shard.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// One advertised broker node: one shard of one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Kafka's node id; kept over restarts.
    pub id: i32,
    /// Advertised host.
    pub host: String,
    /// Advertised port.
    pub port: u16,
    /// Zone, as Kafka's rack.
    pub rack: Option<String>,
    /// Which shard of this process it is; `None` for a shard of another process.
    pub shard: Option<ShardIndex>,
}

/// One partition in the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionImage {
    /// Node id of the leader; `None` while nobody leads (LEADER_NOT_AVAILABLE).
    pub leader: Option<i32>,
    /// Its leader epoch, 0 if it was never led.
    pub epoch: LeaderEpoch,
    /// The shard of this process that owns it, or any if another process does: whom to ask where all shards are one node.
    pub shard: ShardIndex,
}

/// One topic in the image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicImage {
    /// Its id.
    pub id: TopicId,
    /// Its name.
    pub name: String,
    /// Its partitions by index.
    pub partitions: Vec<PartitionImage>,
    /// Settings that differ from the defaults, by Kafka's names.
    pub settings: BTreeMap<String, String>,
    /// Whether it is being deleted (produce is refused, Metadata no longer lists it).
    pub deleting: bool,
}

/// What every shard knows of the cluster; replaced whole, topics shared by pointer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClusterImage {
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// Node that answers as controller: any live node.
    pub controller: i32,
    /// Nodes by id.
    pub nodes: BTreeMap<i32, Node>,
    /// Topics by name.
    pub topics: BTreeMap<String, Arc<TopicImage>>,
    /// Names by id.
    pub names: HashMap<TopicId, String>,
    /// Whether other processes may have made topics that are not here yet: what is not here need not be gone.
    pub may_lack_topics: bool,
    /// Settings of groups that have any, by group.
    pub group_settings: Arc<BTreeMap<String, Settings>>,
    /// Node id by coordinator slot ([`COORDINATOR_SLOTS`] of them); `None` while nobody coordinates.
    pub slots: Vec<Option<i32>>,
    /// Partitions of a topic that is created without a number.
    pub default_partitions: u32,
    /// What clients may send and receive.
    pub quotas: Arc<QuotaTable>,
    /// Settings of nodes that were changed while they ran.
    pub node_settings: Arc<NodeSettings>,
    /// Whether every partition and slot known at start-up has been recovered (`/readyz`).
    pub ready: bool,
}

/// What goes with UNKNOWN_TOPIC_OR_PARTITION, in Apache Kafka's words.
pub(crate) const UNKNOWN_TOPIC: &str = "This server does not host this topic-partition.";

/// What goes with UNKNOWN_TOPIC_ID, likewise.
pub(crate) const UNKNOWN_TOPIC_ID: &str = "This server does not host this topic ID.";

/// How long a process may take for granted that no other one was put in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freshness {
    /// Its lease lives at least until then.
    pub until: Mono,
    /// Both clocks when that was learned.
    pub at: Mono,
    /// See `at`.
    pub wall: WallMs,
    /// How far the clocks may be apart.
    pub lease: Duration,
}

impl Freshness {
    /// Whether it may, by both clocks: a machine that was suspended may have stopped the one and not the other.
    pub fn holds(&self, now: Mono, wall: WallMs) -> bool {
        let passed = i128::try_from(now.since(self.at).as_millis()).unwrap_or(i128::MAX);
        let by_wall = i128::from(wall.0) - i128::from(self.wall.0);
        now < self.until && by_wall.abs_diff(passed) <= self.lease.as_millis()
    }
}

/// Settings of nodes that were changed while they ran, by Kafka's names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeSettings(BTreeMap<Option<i32>, BTreeMap<String, String>>);

impl NodeSettings {
    /// What was set of one node, or (`None`) of all nodes together.
    pub fn own(&self, node: Option<i32>) -> Option<&BTreeMap<String, String>> {
        self.0.get(&node)
    }

    /// Sets all that is set of one node, or of all nodes.
    pub fn set(&mut self, node: Option<i32>, settings: BTreeMap<String, String>) {
        if settings.is_empty() {
            self.0.remove(&node);
        } else {
            self.0.insert(node, settings);
        }
    }

    /// What was set, of the node and of all nodes; the first counts.
    pub fn set_values(&self, node: i32, name: &str) -> (Option<&String>, Option<&String>) {
        let of = |node| self.own(node).and_then(|settings| settings.get(name));
        (of(Some(node)), of(None))
    }
}

/// A change of the quotas of a user, a client id, or both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuotaAlteration {
    /// Whose.
    pub entity: QuotaEntity,
    /// Bytes a second by Kafka's name; `None` takes the quota away.
    pub changes: Vec<(String, Option<u64>)>,
}

/// A change of the settings of nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAlteration {
    /// Which node; `None`: all of them together.
    pub node: Option<i32>,
    /// The change.
    pub change: SettingsChange,
}

/// Number of coordinator slots. A group's slot is the CRC-32C of its id modulo this.
pub const COORDINATOR_SLOTS: u16 = 64;

/// A topic to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewTopic {
    /// Name.
    pub name: String,
    /// Partitions; `None` = the default.
    pub partitions: Option<u32>,
    /// Settings.
    pub settings: BTreeMap<String, String>,
}

/// A topic to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicDeletion {
    /// Name.
    pub name: String,
    /// The id by which it was named; `None`: whichever topic has the name.
    pub id: Option<TopicId>,
}

/// A change of a topic that exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicAlteration {
    /// Name.
    pub name: String,
    /// The change.
    pub change: Alteration,
}

/// A change of a group's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupAlteration {
    /// The group, which need not exist.
    pub group: String,
    /// The change.
    pub change: SettingsChange,
}

/// What is changed of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Alteration {
    /// So many partitions in all: more than there are.
    Partitions(u32),
    /// Its settings.
    Settings(SettingsChange),
}

/// A change of settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SettingsChange {
    /// These and no others: what is not named returns to its default.
    Replace(BTreeMap<String, String>),
    /// Only these; each name is here once.
    Each(BTreeMap<String, SettingChange>),
}

/// A change of one setting (KIP-339).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SettingChange {
    /// To this value.
    Set(String),
    /// To its default.
    Delete,
    /// The elements of this list that are missing are put to the end.
    Append(String),
    /// The elements of this list are taken out.
    Subtract(String),
}

/// Result for one topic of a creation, change or deletion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicAnswer {
    /// Name.
    pub name: String,
    /// Id, if the topic exists (or would).
    pub id: Option<TopicId>,
    /// Partitions that it has (or would have).
    pub partitions: u32,
    /// NONE or what went wrong.
    pub error: ErrorCode,
    /// For people.
    pub message: Option<String>,
}

/// Shard → control.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToControl {
    /// Create topics. Answered when each is LIVE and led, or failed.
    CreateTopics {
        /// Names the question.
        token: Token,
        /// The topics.
        topics: Vec<NewTopic>,
        /// Check only.
        validate_only: bool,
        /// Auto-creation through Metadata: an existing topic is success.
        auto: bool,
    },
    /// Change topics that exist. Answered when each change is durable, and led what it added, or failed.
    AlterTopics {
        /// Names the question.
        token: Token,
        /// The changes; a topic may be named more than once.
        alterations: Vec<TopicAlteration>,
        /// Check only.
        validate_only: bool,
    },
    /// Change settings of groups. Answered when each change is durable, or failed.
    AlterGroups {
        /// Names the question.
        token: Token,
        /// The changes.
        alterations: Vec<GroupAlteration>,
        /// Check only.
        validate_only: bool,
    },
    /// Change client quotas. Answered when the changes are durable, or failed.
    AlterQuotas {
        /// Names the question.
        token: Token,
        /// The changes, in order.
        alterations: Vec<QuotaAlteration>,
        /// Check only.
        validate_only: bool,
    },
    /// Change settings of nodes. Answered when the changes are durable, or failed.
    AlterNodes {
        /// Names the question.
        token: Token,
        /// The changes, in order.
        alterations: Vec<NodeAlteration>,
        /// Check only.
        validate_only: bool,
    },
    /// Delete topics.
    DeleteTopics {
        /// Names the question.
        token: Token,
        /// Which.
        topics: Vec<TopicDeletion>,
    },
    /// A block of 1,000 producer ids.
    ProducerIds {
        /// Names the question.
        token: Token,
    },
    /// Writes of a coordinator: applied in order in one or more transactions that compare the slot's epoch; answered
    /// when durable.
    Persist {
        /// Names the question.
        token: Token,
        /// The slot.
        slot: u16,
        /// The slot's epoch that the coordinator was granted.
        slot_epoch: u64,
        /// Key and new value; `None` deletes.
        writes: Vec<(Key, Option<Bytes>)>,
    },
    /// To [`FromControl::SlotRevoked`], of a process among others: the shard answers nothing of this slot any more.
    SlotLeft {
        /// The slot.
        slot: u16,
    },
    /// Of a process among others: bytes that went in and out of partitions since this was told last, those without any left
    /// out.
    Loads {
        /// By partition.
        bytes: Vec<(TopicPartition, u64)>,
    },
    /// After [`FromControl::Stopping`]: everything that this shard appended is in its lane's mailbox, no seal follows.
    /// The last message of the shard: its ends may be dropped then.
    Drained,
}

/// Control → shard.
#[derive(Clone, PartialEq, Debug)]
pub enum FromControl {
    /// The cluster changed.
    Image(Arc<ClusterImage>),
    /// To [`ToControl::CreateTopics`], [`ToControl::AlterTopics`], [`ToControl::DeleteTopics`], and, with groups in the place
    /// of topics, [`ToControl::AlterGroups`], in the order asked.
    Topics {
        /// The question.
        token: Token,
        /// A result each.
        topics: Vec<TopicAnswer>,
    },
    /// To [`ToControl::AlterQuotas`] and [`ToControl::AlterNodes`], in the order asked.
    Altered {
        /// The question.
        token: Token,
        /// A result each.
        results: Vec<Result<(), Refusal>>,
    },
    /// To [`ToControl::ProducerIds`].
    ProducerIds {
        /// The question.
        token: Token,
        /// First id of the block of 1,000, or why there is none.
        first: Result<i64, ErrorCode>,
    },
    /// To [`ToControl::Persist`].
    Persisted {
        /// The question.
        token: Token,
        /// `Err(NotCoordinator)` when the slot's epoch moved on; `Err(CoordinatorNotAvailable)` when the store failed
        /// (the outcome may be unknown: the slot is revoked and granted anew from what is durable);
        /// `Err(MessageTooLarge)` when a single write is too large for a transaction (nothing was written).
        result: Result<(), ErrorCode>,
    },
    /// This shard coordinates the slot from now on, starting from these durable records.
    SlotGranted {
        /// The slot.
        slot: u16,
        /// Epoch to write with.
        slot_epoch: u64,
        /// Records under `/group/{slot}/`.
        groups: Vec<(Key, Bytes)>,
        /// Records under `/offset/{slot}/`.
        offsets: Vec<(Key, Bytes)>,
    },
    /// No longer.
    SlotRevoked {
        /// The slot.
        slot: u16,
    },
    /// The process's lease is fresh for a while: until then the shard may answer from what it alone knows. A shard that
    /// never hears this is of a process that has no lease, and always may.
    Fresh(Freshness),
    /// The process stops: refuse new work, finish what is in flight.
    Stopping,
}
