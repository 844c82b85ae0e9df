//! What goes into a lane's core and what comes out of it.

use super::messages::{LaneCommand, LaneReport, ToLane, ToShard};
use crate::compactor::Coverage;
use crate::compactor::merge::{Merge, Merged};
use crate::compactor::roll::{Roll, RollError};
use crate::env::{Mono, WallMs};
use crate::format::manifest::SegmentName;
use crate::ids::{Seq, ShardIndex, TopicPartition, Wid};
use crate::meta::records::PartitionRecord;
use crate::meta::{Key, Snapshot, Txn, TxnOutcome};
use crate::partition::CommittedPartition;
use crate::store_error::StoreError;
use crate::wal::PutOutcome;
use bytes::Bytes;
use std::collections::BTreeMap;

/// The time, as every call of the core brings it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For deadlines.
    pub mono: Mono,
    /// For `sealed at`.
    pub wall: WallMs,
}

/// Names a question of the core to a store; its answer repeats it. An answer whose question was dropped is ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Token(pub u64);

/// What ACQUIRE read about one partition.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// It has no record: it was never born.
    Unborn,
    /// Its record names a write-ahead log that is neither sealed nor did it release the partition.
    Held {
        /// The record.
        record: PartitionRecord,
    },
    /// Its committed state, folded to the end of its log at the record's epoch.
    State {
        /// The record that a claim compares.
        record: PartitionRecord,
        /// The state, references attached.
        state: Box<CommittedPartition>,
    },
    /// Data that must exist does not, or contradicts itself.
    Alarm {
        /// What is wrong.
        detail: String,
    },
}

/// What happens to a lane.
#[derive(Debug)]
pub enum Event {
    /// A shard of this lane says something.
    FromShard(ShardIndex, ToLane),
    /// The control task says something.
    Command(LaneCommand),
    /// Answer to [`Effect::NewWid`].
    NewWid(Wid),
    /// A put of a write-ahead object ended.
    WalPut {
        /// Its log.
        wid: Wid,
        /// Its sequence.
        seq: Seq,
        /// As the effect said.
        hedge: bool,
        /// How.
        result: Result<PutOutcome, StoreError>,
    },
    /// A header was read, or is known to be absent.
    Header {
        /// Its log.
        wid: Wid,
        /// Its sequence.
        seq: Seq,
        /// The header's bytes.
        result: Result<Option<Bytes>, StoreError>,
    },
    /// A transaction ended.
    Txn(Token, Result<TxnOutcome, StoreError>),
    /// Answer to [`Effect::ReadMeta`].
    MetaRead(Token, Result<Snapshot, StoreError>),
    /// An object was put (present already is success), or extents were synced.
    Stored(Token, Result<(), StoreError>),
    /// Answer to [`Effect::LookUp`].
    LookedUp(Token, Result<BTreeMap<TopicPartition, Found>, StoreError>),
    /// The write-ahead log is sealed.
    Sealed(Wid),
    /// Answer to [`Effect::Roll`], by the partition and the name that it had.
    Rolled(TopicPartition, SegmentName, Result<Coverage, RollError>),
    /// Answer to [`Effect::Merge`], likewise.
    Merged(TopicPartition, SegmentName, Result<Merged, RollError>),
    /// Answer to [`Effect::LookAtSegments`].
    Looked(TopicPartition, Result<Coverage, StoreError>),
}

/// What the core wants done. The pump carries effects out in order; those with answers run side by side.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Draw a random name.
    NewWid,
    /// PUT if-absent.
    PutWal {
        /// The log.
        wid: Wid,
        /// The sequence.
        seq: Seq,
        /// The object.
        slices: Vec<Bytes>,
        /// Whether it is under way already and only takes long.
        hedge: bool,
    },
    /// Read an object's header.
    ReadHeader {
        /// The log.
        wid: Wid,
        /// The sequence.
        seq: Seq,
    },
    /// Run a transaction.
    Txn(Token, Txn),
    /// Read keys at one revision.
    ReadMeta(Token, Vec<Key>),
    /// PUT if-absent of a plain object; answered by [`Event::Stored`].
    PutObject {
        /// Names it.
        token: Token,
        /// Its key.
        key: String,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Make objects below `below` survive a power loss; answered by [`Event::Stored`].
    SyncBelow {
        /// Names it.
        token: Token,
        /// The log.
        wid: Wid,
        /// First sequence that need not.
        below: Seq,
    },
    /// Read records and, of what can be acquired, the state: [`crate::recovery::acquire`].
    LookUp {
        /// Names it.
        token: Token,
        /// The partitions.
        partitions: Vec<TopicPartition>,
    },
    /// SEAL a log that this lane gave up, without hurry; answered by [`Event::Sealed`].
    Seal(Wid),
    /// Roll entries into a segment; answered by [`Event::Rolled`].
    Roll(Box<Roll>),
    /// Merge segments; answered by [`Event::Merged`].
    Merge(Merge),
    /// Read which segments a partition has; answered by [`Event::Looked`].
    LookAtSegments(TopicPartition),
    /// Delete data objects; a failure is of no consequence, the next deletion covers it.
    DeleteWalBelow {
        /// The log.
        wid: Wid,
        /// First sequence that stays.
        below: Seq,
    },
    /// Delete plain objects; a failure leaves litter for [`crate::recovery::collect`].
    DeleteObjects(Vec<String>),
    /// To a shard of this lane.
    ToShard(ShardIndex, ToShard),
    /// To the control task. After [`LaneReport::Stopped`] the pump ends.
    Report(LaneReport),
    /// An invariant is broken: end the process.
    Abort(String),
}
