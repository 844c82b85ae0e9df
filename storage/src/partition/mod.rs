//! A partition's state, pure: what is committed (a fold of footers), what is appended (what the shard gave offsets to).
//!
//! [`CommittedPartition`] is folded by the same function in the live lane and in recovery. [`AppendedPartition`] is
//! the shard's: it starts as a copy of the committed state and is never handed over.

mod appended;
mod committed;
mod epochs;
mod producers;
mod references;
#[cfg(test)]
mod tests;

pub use appended::{AppendError, AppendedPartition, Sequenced};
pub use committed::{CommittedPartition, FoldError, Folded, ObjectPlace};
pub use epochs::{EpochEnd, EpochHistory, EpochStart, MAX_EPOCHS};
pub use producers::{CommittedBatch, MAX_PRODUCERS, PRODUCER_EXPIRY_MS, ProducerState, ProducerTable, WINDOW};
pub use references::{Reference, References};

/// Producer id, epoch and first sequence of an idempotent batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerStamp {
    /// Producer id, ≥ 0.
    pub id: i64,
    /// Producer epoch, ≥ 0.
    pub epoch: i16,
    /// Sequence of the first record; wraps from 2^31 − 1 to 0.
    pub first_sequence: i32,
}
