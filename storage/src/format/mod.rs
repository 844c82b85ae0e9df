//! Stored formats, version 1 (PROTOCOL.md section 2): write-ahead objects, checkpoints, reference chunks, manifests,
//! metadata snapshots.
//!
//! Write-ahead object: header 64 B · body (v2 batches grouped by partition, as consumers get them) · footer (varints) ·
//! trailer 32 B. A fence is a header alone. Checkpoint and reference chunk: see [`checkpoint`]; manifest: see
//! [`manifest`]; metadata snapshot: see [`snapshot`]. Integers are little-endian unless a file says otherwise; every format starts with magic and version,
//! ends with a CRC-32C.
//! Golden bytes stand in `storage/tests/golden/`.
//!
//! Decoders take bytes from outside: they never panic and never allocate more than the input justifies.

pub mod checkpoint;
pub mod manifest;
pub mod object;
pub mod snapshot;
mod varint;

use crate::ids::{LeaderEpoch, Offset, TopicPartition};
use crate::partition::ProducerStamp;

/// Size of the header of a write-ahead object, and of a whole fence.
pub const HEADER_BYTES: usize = 64;
/// Size of the trailer of a write-ahead object.
pub const TRAILER_BYTES: usize = 32;

/// A stored byte string that is not what its format says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {position}: {detail}")]
pub struct FormatError {
    /// Which format.
    pub what: &'static str,
    /// Where, from the start of the bytes that were given.
    pub position: usize,
    /// What is wrong.
    pub detail: String,
}

/// What one write-ahead object says about one batch. Deltas count from the partition's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchEntry {
    /// Batch's base offset − entry's base.
    pub offset_delta: u32,
    /// Batch's position − entry's position, in bytes.
    pub position_delta: u32,
    /// Offsets that the batch takes: last offset delta + 1.
    pub count: u32,
    /// Who produced it, if idempotent.
    pub producer: Option<ProducerStamp>,
    /// Reserved, zero.
    pub flags: u8,
}

/// All batches of one partition and epoch in one write-ahead object: contiguous in offsets and in bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionEntry {
    /// The partition.
    pub partition: TopicPartition,
    /// The leader epoch that its lane led it at.
    pub epoch: LeaderEpoch,
    /// First offset.
    pub base: Offset,
    /// Last offset, inclusive as in Kafka's batches.
    pub last: Offset,
    /// First byte, from the start of the object.
    pub position: u32,
    /// Bytes.
    pub length: u32,
    /// The largest timestamp of any batch, Unix milliseconds; −1 if none.
    pub max_timestamp: i64,
    /// The batches in offset order.
    pub batches: Vec<BatchEntry>,
}

/// The partition's log now starts at `offset` (retention, DeleteRecords, the memory ring).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogStartEntry {
    /// The partition.
    pub partition: TopicPartition,
    /// Its new log start offset.
    pub offset: Offset,
}

/// The footer: what the object holds. Recovery folds footers; bodies are read only by consumers and compaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Footer {
    /// Entries, at most one per partition and epoch.
    pub partitions: Vec<PartitionEntry>,
    /// Log starts that rose.
    pub log_starts: Vec<LogStartEntry>,
}
