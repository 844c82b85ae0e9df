//! Settings of a lane, as values, and the bounds that are no settings.

use crate::compaction::PlannerConfig;
use crate::ids::{BootId, WriterId};
use crate::meta::Compare;
use std::time::Duration;

/// Who a lane is: goes into its `/wal` records and into the header of every object that it writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneIdentity {
    /// Name of the broker process.
    pub broker: String,
    /// Its life.
    pub boot: BootId,
    /// Index of the lane within the process.
    pub lane: u16,
}

impl LaneIdentity {
    /// The writer id of the lane's data objects and fences.
    pub fn writer(&self) -> WriterId {
        WriterId { boot: self.boot, lane: self.lane }
    }
}

/// Settings of one lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneConfig {
    /// How long a seal waits for company while other objects are in flight.
    pub linger: Duration,
    /// An object is put without waiting from this size on, bytes.
    pub object_bytes: usize,
    /// No object is larger, unless one seal alone is, bytes.
    pub object_limit_bytes: usize,
    /// Sequences sent and not committed (K).
    pub in_flight_objects: usize,
    /// Their bytes; one object is always allowed.
    pub in_flight_bytes: usize,
    /// Token bucket for puts that are not due by size, tokens per second; `None` is unlimited.
    pub puts_per_second: Option<u32>,
    /// An object of as many bytes pays for itself; a smaller one costs the missing part of a token.
    pub put_bytes: usize,
    /// Size of that bucket.
    pub put_burst: u32,
    /// A checkpoint is taken after this time if anything was committed.
    pub checkpoint_every: Duration,
    /// A checkpoint is taken after this many objects.
    pub checkpoint_objects: u64,
    /// Least time between two checkpoints.
    pub checkpoint_gap: Duration,
    /// The same before one that partitions wait for, which nobody serves meanwhile; `checkpoint_gap` where that is shorter.
    pub acquire_gap: Duration,
    /// How long objects below the low-water mark stay for readers that hold references to them.
    pub readers_grace: Duration,
    /// When committed records are rolled into segments; `None`: never.
    pub compaction: Option<PlannerConfig>,
    /// What rolls may take of memory.
    pub roll_memory: RollMemory,
    /// Ring size of the memory store, bytes: above it the oldest records go. `None`: nothing is dropped.
    pub ring_bytes: Option<u64>,
    /// A sequence unresolved for this long while other requests succeed ends the write-ahead log.
    pub unresolved_limit: Duration,
    /// A put without any answer is sent again after this time (the same bytes; both may land).
    pub put_patience: Duration,
    /// Of a hundred puts at most so many are sent a second time because they take longer than most; 0 is none.
    pub hedge_percent: u32,
    /// A released partition that nobody takes is taken back after this time, the first time.
    pub take_back_after: Duration,
    /// Among other processes a log is opened only while this life's key stands.
    pub registered: Option<Compare>,
}

/// Memory of rolls into segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RollMemory {
    /// For committed batches that are kept until they are rolled and for what rolls read, bytes.
    pub bytes: u64,
    /// Larger entries of write-ahead objects are not kept, bytes.
    pub entry_bytes: u64,
}

impl Default for RollMemory {
    fn default() -> Self {
        RollMemory { bytes: 128 << 20, entry_bytes: u64::MAX }
    }
}

impl Default for LaneConfig {
    fn default() -> Self {
        LaneConfig {
            linger: Duration::from_millis(2),
            object_bytes: 4 << 20,
            object_limit_bytes: 16 << 20,
            in_flight_objects: 16,
            in_flight_bytes: 64 << 20,
            puts_per_second: None,
            put_bytes: 256 << 10,
            put_burst: 16,
            checkpoint_every: Duration::from_secs(10),
            checkpoint_objects: 512,
            checkpoint_gap: Duration::from_secs(1),
            acquire_gap: Duration::from_millis(100),
            readers_grace: Duration::ZERO,
            compaction: None,
            roll_memory: RollMemory::default(),
            ring_bytes: None,
            unresolved_limit: Duration::from_secs(30),
            put_patience: Duration::from_secs(10),
            hedge_percent: 0,
            take_back_after: Duration::from_secs(5),
            registered: None,
        }
    }
}

/// Rounds of "412, but no object is there" before the write-ahead log is given up (PROTOCOL.md, COMMIT).
pub(super) const VANISHED_ROUNDS: u32 = 3;
/// First wait before an unknown outcome is tried again; doubled per attempt, jittered by half.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// Longest wait between attempts.
pub(super) const BACKOFF_LIMIT: Duration = Duration::from_secs(2);
/// A store that answered a request this recently is not out.
pub(super) const RECENT_SUCCESS: Duration = Duration::from_secs(5);
/// After this part of the limit a sequence is suspected, and other writes are made to see whether the store is out.
pub(super) const SUSPECT_AFTER: u32 = 3;
/// Unanswered puts of the same sequence at once.
pub(super) const PUTS_OF_ONE_SEQUENCE: u32 = 3;
/// Transactions that compare the lane's `/wal` record without changing it, in flight at once.
pub(super) const SHARED_TXNS: usize = 8;
/// Merged reference chunks hold at most about this many references.
pub(crate) const CHUNK_REFERENCES: u32 = 65_536;
/// Deleted topics remembered beyond those of which the lane still holds something.
pub(super) const FORGOTTEN_TOPICS: usize = 1024;
/// Seals wait in the shards' mailboxes while this many bytes wait in the lane, in multiples of `object_limit_bytes`.
pub(super) const WAITING_OBJECTS: usize = 2;
/// How often the records of released partitions and of partitions that cannot be had yet are read again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The wait before attempt `attempt` (from 1) with `random` for jitter: between half and the whole of the step.
pub(super) fn backoff(attempt: u32, random: u64) -> Duration {
    let step = BACKOFF_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(BACKOFF_LIMIT);
    let nanos = u64::try_from(step.as_nanos()).expect("at most BACKOFF_LIMIT");
    Duration::from_nanos(nanos / 2 + random % (nanos / 2 + 1))
}
