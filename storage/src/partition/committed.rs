//! Committed state: a fold of footers, the same function live and in recovery.

use super::{EpochHistory, ProducerTable, References};
use crate::env::WallMs;
use crate::format::PartitionEntry;
use crate::ids::{LeaderEpoch, Offset, Seq, Wid};

/// Which object an entry stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectPlace {
    /// Its log.
    pub wid: Wid,
    /// Its sequence.
    pub seq: Seq,
    /// When it was sealed.
    pub sealed_at: WallMs,
}

/// Everything that acknowledged records of one partition amount to.
#[derive(Clone, PartialEq, Debug)]
pub struct CommittedPartition {
    /// The epoch at which it is led (or was, when released).
    pub epoch: LeaderEpoch,
    /// First offset not committed: the high watermark.
    pub end: Offset,
    /// First offset that may be read.
    pub log_start: Offset,
    /// Where each epoch started, empty epochs too.
    pub epochs: EpochHistory,
    /// Idempotent producers.
    pub producers: ProducerTable,
    /// Offsets below are covered by the manifest (0 until compaction exists).
    pub covered: Offset,
    /// Where the offsets from `covered` on lie.
    pub references: References,
}

/// What folding an entry did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Folded {
    /// The end rose.
    Advanced,
    /// The entry is of another epoch: not of this leadership.
    OtherEpoch,
}

/// An entry that can't follow what was folded before: data is missing or damaged. Stop and alarm.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("entry with base {base} follows end {end} at epoch {epoch}")]
pub struct FoldError {
    /// The entry's base.
    pub base: Offset,
    /// The folded end.
    pub end: Offset,
    /// The epoch.
    pub epoch: LeaderEpoch,
}

impl CommittedPartition {
    /// A partition just born: empty, at `epoch`, starting at offset 0.
    pub fn born(_epoch: LeaderEpoch) -> CommittedPartition {
        todo!("partition state")
    }
    /// The state with which the next epoch starts: epoch + 1, an epoch boundary at the end.
    #[must_use]
    pub fn next_epoch(&self) -> CommittedPartition {
        todo!("partition state")
    }
    /// Folds one entry of a committed object.
    pub fn fold(&mut self, _place: ObjectPlace, _entry: &PartitionEntry) -> Result<Folded, FoldError> {
        todo!("partition state")
    }
    /// Folds a LOG_START entry: never decreases, never above `end`; drops references wholly below.
    pub fn fold_log_start(&mut self, _offset: Offset) {
        todo!("partition state")
    }
}
