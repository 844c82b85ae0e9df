//! Committed state: a fold of footers, the same function live and in recovery (PROTOCOL.md sections 1 and 4).
//!
//! Invariants:
//! 1. `log_start ≤ end`, `covered ≤ end`; none of the three ever decreases.
//! 2. Entries of the current epoch follow each other without a gap; entries of any other epoch change nothing.
//! 3. The references hold every offset from the larger of `covered` and `log_start` up to `end`.
//! 4. The latest epoch of the history is `epoch`.

use super::{EpochHistory, ProducerTable, Reference, References};
use crate::env::WallMs;
use crate::format::PartitionEntry;
use crate::ids::{LeaderEpoch, Offset, Seq, Wid};
use crate::wrong::{Wrong, wrong};

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
    /// Offsets below are covered by the manifest, as far as this lane knows.
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
    pub fn born(epoch: LeaderEpoch) -> CommittedPartition {
        let mut epochs = EpochHistory::default();
        epochs.append(epoch, Offset(0));
        CommittedPartition {
            epoch,
            end: Offset(0),
            log_start: Offset(0),
            epochs,
            producers: ProducerTable::default(),
            covered: Offset(0),
            references: References::default(),
        }
    }

    /// The state with which the next epoch starts: epoch + 1, an epoch boundary at the end.
    #[must_use]
    pub fn next_epoch(&self) -> CommittedPartition {
        let mut next = self.clone();
        next.epoch = LeaderEpoch(self.epoch.0 + 1);
        next.epochs.append(next.epoch, next.end);
        next
    }

    /// Folds one entry of a committed object.
    ///
    /// # Errors
    /// The entry is of this epoch and does not start at the end.
    pub fn fold(&mut self, place: ObjectPlace, entry: &PartitionEntry) -> Result<Folded, FoldError> {
        if entry.epoch != self.epoch && !wrong(Wrong::FoldIgnoresEpoch) {
            return Ok(Folded::OtherEpoch);
        }
        if entry.base != self.end {
            return Err(FoldError { base: entry.base, end: self.end, epoch: self.epoch });
        }
        for batch in &entry.batches {
            if let Some(stamp) = batch.producer {
                let base = entry.base.plus(i64::from(batch.offset_delta));
                self.producers.record(stamp, base, batch.count, place.sealed_at);
            }
        }
        self.references.push(Reference {
            wid: place.wid,
            seq: place.seq,
            position: entry.position,
            length: entry.length,
            base: entry.base,
            last: entry.last,
            max_timestamp: entry.max_timestamp,
        });
        self.end = entry.last.plus(1);
        Ok(Folded::Advanced)
    }

    /// Folds a LOG_START entry: never decreases, never above `end`; drops references wholly below.
    pub fn fold_log_start(&mut self, offset: Offset) {
        let offset = offset.min(self.end);
        if offset > self.log_start {
            self.log_start = offset;
            self.references.drop_below(offset);
            self.epochs.truncate_below(offset);
        }
    }

    /// The manifest is known to cover what lies below `through`: never decreases, drops references wholly below.
    pub fn cover(&mut self, through: Offset) {
        let through = through.min(self.end);
        if through > self.covered {
            self.covered = through;
            self.references.drop_below(through);
        }
    }

    /// The first offset that a write-ahead object must still hold: what lies below is in segments, or deleted.
    pub fn referenced_from(&self) -> Offset {
        self.covered.max(self.log_start)
    }
}
