//! What shards, lanes and the control task say to each other (PROTOCOL.md section 1): one FIFO each way per pair.

use crate::compaction::retention::Retention;
use crate::env::WallMs;
use crate::format::Footer;
use crate::ids::{LeaderEpoch, Offset, Seq, ShardIndex, TopicId, TopicPartition, Wid};
use crate::partition::{CommittedPartition, ProducerStamp};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// One batch of a seal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchDescription {
    /// Its bytes.
    pub length: u32,
    /// Offsets that it takes: last offset delta + 1.
    pub count: u32,
    /// Its max timestamp, Unix milliseconds; −1 if none.
    pub max_timestamp: i64,
    /// Its producer, if idempotent.
    pub producer: Option<ProducerStamp>,
}

/// Batches of one partition in offset order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealEntry {
    /// The partition.
    pub partition: TopicPartition,
    /// The epoch that the shard leads it at.
    pub epoch: LeaderEpoch,
    /// Offset of the first batch: the lane's own appended end.
    pub base: Offset,
    /// The batches.
    pub batches: Vec<BatchDescription>,
    /// Their bytes, in order; slices need not fall on batch boundaries.
    pub slices: Vec<Bytes>,
}

/// What one shard appended since its last seal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    /// Number of the seal: from 0 per shard, in order, over all generations.
    pub number: u64,
    /// Which fence generation the shard had seen when it appended.
    pub generation: u64,
    /// The entries, each partition at most once.
    pub entries: Vec<SealEntry>,
}

/// Shard → lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ToLane {
    /// Make these durable.
    Seal(Seal),
    /// The answer to [`ToShard::Drain`]: the shard refuses produce for this partition; nothing of it comes after this
    /// message.
    Drain {
        /// The partition.
        partition: TopicPartition,
        /// The epoch that was asked for: an answer that a fence overtook is none.
        epoch: LeaderEpoch,
    },
    /// Raise the log start (DeleteRecords, retention).
    LogStart {
        /// The partition.
        partition: TopicPartition,
        /// The new start.
        offset: Offset,
    },
    /// When records of this partition expire: nothing is merged that is not to expire together. Sent where it is not the
    /// default; what is merged before it comes is merged once.
    Retention {
        /// The partition.
        partition: TopicPartition,
        /// By the settings of its topic.
        retention: Retention,
    },
    /// Forget these producers: all their batches are durable, they have been silent for minutes, and the shard has no
    /// memory for them. What they send later comes behind this message.
    ForgetProducers {
        /// The partition.
        partition: TopicPartition,
        /// The epoch that the shard leads it at.
        epoch: LeaderEpoch,
        /// Their ids.
        producers: Vec<i64>,
    },
    /// Look whether the log has a fence: a client asks for an offset beyond a partition's end. The answer is
    /// [`ToShard::Looked`], before which the shard asks no more.
    Look {
        /// Which fence generation the shard had seen: a question that a fence overtook is not answered.
        generation: u64,
    },
}

/// A committed object, one value shared by all shards of the lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedObject {
    /// Its log.
    pub wid: Wid,
    /// Its sequence.
    pub seq: Seq,
    /// When it was sealed.
    pub sealed_at: WallMs,
    /// What it holds (entries of other shards too).
    pub footer: Footer,
}

/// What a seal that is durable now waited for others than the broker. Of all times in this protocol's messages the only
/// one, and nothing is decided by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealWait {
    /// Number of the seal.
    pub number: u64,
    /// For the flush governor, for a place in the window of sequences, for the store to take its object and those before.
    pub waited: Duration,
}

/// Lane → shard.
#[derive(Clone, PartialEq, Debug)]
pub enum ToShard {
    /// Everything in these objects is durable, in order.
    Committed {
        /// Every seal of this shard with a lower number is wholly durable.
        through: u64,
        /// The objects that became durable, in sequence order.
        objects: Vec<Arc<CommittedObject>>,
        /// The seals of this shard that those objects hold, by number.
        waits: Vec<SealWait>,
    },
    /// This shard leads the partition from now on.
    Acquired {
        /// The partition.
        partition: TopicPartition,
        /// Its epoch (`state.epoch`).
        epoch: LeaderEpoch,
        /// Committed state; appended := committed.
        state: Box<CommittedPartition>,
    },
    /// Refuse produce for this partition from now on (NOT_LEADER_OR_FOLLOWER), seal what was appended, and send
    /// [`ToLane::Drain`] behind that seal. Reads go on, what is in flight is still committed and acknowledged. Sent for a
    /// move, for a deleted topic, and for every partition at a graceful stop.
    Drain {
        /// The partition.
        partition: TopicPartition,
        /// The epoch that ends; to be repeated in the answer.
        epoch: LeaderEpoch,
    },
    /// This shard no longer leads the partition: everything drained is durable, drop it.
    Revoked {
        /// The partition.
        partition: TopicPartition,
    },
    /// Segments hold everything below `covered`: what references lie wholly below lead nowhere soon.
    Covered {
        /// The partition.
        partition: TopicPartition,
        /// The epoch that the shard leads it at.
        epoch: LeaderEpoch,
        /// First offset that only write-ahead objects hold.
        covered: Offset,
    },
    /// The write-ahead store has no room (`true`), or has stored what it had refused (`false`). While it has none the shard
    /// refuses what is not in the log yet, with KAFKA_STORAGE_ERROR; what was appended stays in the log and is stored when
    /// there is room (PROTOCOL.md section 6). [`ToShard::Fenced`] ends it too.
    StoreFull(bool),
    /// The answer to [`ToLane::Look`].
    Looked {
        /// Whether the log is known not to have ended when the question came: nobody else led its partitions then. If not,
        /// nothing is known.
        unfenced: bool,
    },
    /// The WAL ended under the lane: all partitions of the lane are lost, outstanding produces fail with
    /// NOT_LEADER_OR_FOLLOWER, seals from now on carry `generation`.
    Fenced {
        /// The new generation.
        generation: u64,
    },
}

/// A topic's record as somebody saw it, LIVE: a BIRTH compares it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSeen {
    /// The topic's name, which its key is of.
    pub name: String,
    /// The value under it.
    pub record: Bytes,
}

/// What a lane shall lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToLead {
    /// The partition.
    pub partition: TopicPartition,
    /// The shard that shall serve it.
    pub shard: ShardIndex,
    /// Its topic. One that has changed since is read again where that matters.
    pub topic: Arc<TopicSeen>,
}

/// Control task → lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneCommand {
    /// Lead these partitions for these shards: BIRTH where no record exists and the topic is LIVE, ACQUIRE where the record
    /// names a sealed WAL or is released. Idempotent: what is already led for that shard stays.
    Lead {
        /// Of each what it is, for whom, and of which topic.
        partitions: Vec<ToLead>,
    },
    /// Give these up (RELEASE): for a move.
    Release {
        /// The partitions.
        partitions: Vec<TopicPartition>,
    },
    /// The topic is deleted: stop leading its partitions, forget their data (its entries no longer hold `lw` back).
    Forget {
        /// The topic.
        topic: TopicId,
    },
    /// First producer id not yet given out (for checkpoints).
    ProducerIdHighWater(i64),
    /// The process's lease is not fresh: look whether the log was fenced (PROTOCOL.md section 5).
    Probe,
    /// Graceful stop.
    Stop,
}

/// Lane → control task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LaneReport {
    /// The lane has an open WAL and takes commands.
    Opened {
        /// Its WAL.
        wid: Wid,
    },
    /// It leads the partition for the shard.
    Leading {
        /// The partition.
        partition: TopicPartition,
        /// For which shard.
        shard: ShardIndex,
        /// At which epoch.
        epoch: LeaderEpoch,
    },
    /// It does not lead the partition, or no longer does (released, lost, topic forgotten).
    NotLeading {
        /// The partition.
        partition: TopicPartition,
    },
    /// Its WAL was fenced: it leads nothing and opens a new one.
    Fenced,
    /// Data that must exist does not, or contradicts itself. A person must look; the partition is not served.
    Alarm {
        /// The partition, if it is one.
        partition: Option<TopicPartition>,
        /// What is wrong.
        detail: String,
    },
    /// The graceful stop is done (`sealed`: its WAL is SEALED).
    Stopped {
        /// Whether the WAL was sealed, or is left to the walker.
        sealed: bool,
    },
}
