//! The pools of memory as `/metrics` shows them: what each holds, and its bound.
//!
//! 1. The pools are those of [`crate::net::budget`], by the same names; a pool that has no bound of its own shows the part
//!    of the total that is kept for it.
//! 2. What lane and shard keep one of each counts twice: producers and references.

use crate::pump::ShardPump;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names of the pools, in the order of [`PoolLevels`].
pub const POOLS: [&str; 12] = [
    "produce",
    "arena",
    "tail",
    "replies",
    "reads",
    "cold",
    "lookups",
    "reserve",
    "groups",
    "group_writes",
    "producers",
    "references",
];

/// Bytes that a pool holds, and its bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PoolLevel {
    /// What it holds, where that can't be counted exactly an estimate on the large side.
    pub bytes: usize,
    /// What it may hold.
    pub bound: usize,
}

/// A level for each of [`POOLS`].
pub type PoolLevels = [PoolLevel; POOLS.len()];

/// The levels of a shard's pools now.
pub fn levels(pump: &ShardPump) -> PoolLevels {
    let core = pump.core().borrow();
    let (intake, pools) = (pump.intake(), pump.pools());
    let level = |bytes, bound| PoolLevel { bytes, bound };
    let groups = core.config().group_bytes;
    [
        level(intake.produce_bytes(), pools.produce),
        level(intake.arena().borrow().usage().held, pools.arena()),
        level(core.tail_bytes(), pools.tail),
        level(intake.reply_bytes(), pools.replies),
        level(core.read_bytes(), pools.reads),
        level(pump.cold_bytes(), pools.cold),
        level(core.lookup_bytes(), pools.lookups),
        level(intake.reserve_bytes(), pools.reserve),
        level(core.group_bytes(), groups),
        level(core.group_writing_bytes(), groups),
        level(core.producer_bytes(), pools.producers),
        level(core.reference_bytes(), pools.references),
    ]
}

/// The levels that a thread publishes for others to read.
#[derive(Debug, Default)]
pub(super) struct PoolCells([[AtomicU64; 2]; POOLS.len()]);

impl PoolCells {
    /// Publishes.
    pub(super) fn store(&self, levels: &PoolLevels) {
        for ([bytes, bound], level) in self.0.iter().zip(levels) {
            bytes.store(level.bytes as u64, Ordering::Relaxed);
            bound.store(level.bound as u64, Ordering::Relaxed);
        }
    }

    /// Bytes and bound of each pool.
    pub(super) fn load(&self) -> [[u64; 2]; POOLS.len()] {
        self.0.each_ref().map(|pair| pair.each_ref().map(|cell| cell.load(Ordering::Relaxed)))
    }
}
