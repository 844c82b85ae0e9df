//! Appended state: what the shard gave offsets to, committed or not. Answers whether a batch may follow.
//!
//! Invariants:
//! 1. It starts as a copy of the committed state, is never handed over, and is dropped when the lane is fenced: retries
//!    are then judged by what recovery folds.
//! 2. Once everything appended is committed, its producers are those of the committed state. A producer is forgotten in
//!    both, by one message in order with the seals.
//! 3. `committed ≤ next`, both only rise.
//!
//! The rules are Kafka's (ProducerAppendInfo of 4.x): the first batch of a producer that is unknown, or has expired, may
//! start with any sequence; a new epoch starts with sequence 0; a retry of any of the last five batches is a duplicate if
//! both its sequences match; anything else must follow without a gap.

use super::{CommittedBatch, CommittedPartition, ProducerStamp, ProducerState, ProducerTable};
use crate::env::WallMs;
use crate::ids::Offset;

/// How a batch relates to what was appended before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequenced {
    /// It follows: append it.
    Append,
    /// It is in the log already, and durable.
    DuplicateCommitted {
        /// First offset of the original.
        base: Offset,
        /// Last offset of the original, inclusive.
        last: Offset,
    },
    /// It was appended already and is not durable yet: its answer is the original's.
    DuplicateInFlight {
        /// First offset of the original.
        base: Offset,
        /// Last offset of the original, inclusive.
        last: Offset,
    },
}

/// Why a batch can't follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER: a gap, a duplicate of something older than the window, or a new epoch that does
    /// not start with sequence 0.
    #[error("sequence {found} of producer {producer} where {expected} was expected")]
    OutOfOrderSequence {
        /// Producer id.
        producer: i64,
        /// The sequence that would have followed.
        expected: i32,
        /// First sequence of the batch.
        found: i32,
    },
    /// INVALID_PRODUCER_EPOCH: a newer instance of the producer has written.
    #[error("epoch {found} of producer {producer} is older than {current}")]
    StaleEpoch {
        /// Producer id.
        producer: i64,
        /// The epoch that was seen last.
        current: i16,
        /// Epoch of the batch.
        found: i16,
    },
}

/// A partition as its leading shard appends to it.
#[derive(Clone, PartialEq, Debug)]
pub struct AppendedPartition {
    next: Offset,
    committed: Offset,
    producers: ProducerTable,
}

impl AppendedPartition {
    /// Appended := committed.
    pub fn new(committed: &CommittedPartition) -> AppendedPartition {
        AppendedPartition { next: committed.end, committed: committed.end, producers: committed.producers.clone() }
    }

    /// The offset that the next record gets: the log end offset.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// First offset not committed: the high watermark.
    pub fn committed(&self) -> Offset {
        self.committed
    }

    /// The producers, those in flight included.
    pub fn producers(&self) -> &ProducerTable {
        &self.producers
    }

    /// Whether a batch of `count` ≥ 1 records may follow at `now`. Changes nothing.
    pub fn check(&self, stamp: Option<ProducerStamp>, count: u32, now: WallMs) -> Result<Sequenced, AppendError> {
        let Some(stamp) = stamp else { return Ok(Sequenced::Append) };
        let Some(state) = self.producers.get(stamp.id, now) else { return Ok(Sequenced::Append) };
        if stamp.epoch < state.epoch {
            return Err(AppendError::StaleEpoch { producer: stamp.id, current: state.epoch, found: stamp.epoch });
        }
        let expected = if stamp.epoch == state.epoch {
            if let Some(original) = state.duplicate_of(stamp.first_sequence, count) {
                return Ok(self.duplicate(original));
            }
            state.next_sequence().expect("a producer in the table has a batch")
        } else {
            0
        };
        let found = stamp.first_sequence;
        if found != expected {
            return Err(AppendError::OutOfOrderSequence { producer: stamp.id, expected, found });
        }
        Ok(Sequenced::Append)
    }

    /// Appends a batch of `count` ≥ 1 records that [`check`](Self::check) answered [`Sequenced::Append`] for; gives its
    /// base offset.
    pub fn append(&mut self, stamp: Option<ProducerStamp>, count: u32, now: WallMs) -> Offset {
        let base = self.next;
        if let Some(stamp) = stamp {
            self.producers.record(stamp, base, count, now);
        }
        self.next = base.plus(i64::from(count));
        base
    }

    /// Everything below `end` is durable.
    ///
    /// # Panics
    /// If `end` was never appended (invariant 3).
    pub fn commit_through(&mut self, end: Offset) {
        assert!(end <= self.next, "committed {end} beyond the appended end {}", self.next);
        self.committed = self.committed.max(end);
    }

    /// Producers whose batches are all durable and no newer than `before`, with the time of the newest: those that may
    /// be forgotten without losing track of anything in flight.
    pub fn silent_producers(&self, before: WallMs) -> impl Iterator<Item = (WallMs, i64)> + '_ {
        let durable = |state: &ProducerState| state.batches().last().is_none_or(|last| last.last() < self.committed);
        let silent = self.producers.iter().filter(move |(_, state)| state.updated <= before && durable(state));
        silent.map(|(id, state)| (state.updated, id))
    }

    /// Forgets a producer that [`AppendedPartition::silent_producers`] named.
    pub fn forget_producer(&mut self, id: i64) {
        self.producers.forget(id);
    }

    fn duplicate(&self, original: CommittedBatch) -> Sequenced {
        let (base, last) = (original.base, original.last());
        if last < self.committed {
            Sequenced::DuplicateCommitted { base, last }
        } else {
            Sequenced::DuplicateInFlight { base, last }
        }
    }
}
