//! What a lane counts and when its jobs last succeeded: written by its pump, read by whoever shows it.

use crate::compactor::background::SegmentMeter;
use crate::env::WallMs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the lane started, and what it holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneTotals {
    /// Write-ahead objects put, each once however often it was sent.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Second puts sent because the first took long.
    pub hedges: u64,
    /// Of those, how many were stored before the first put was.
    pub hedges_won: u64,
    /// Memory of rolls and of committed batches kept for them, now.
    pub held_bytes: u64,
    /// Merges of segments.
    pub merges: u64,
    /// Bytes of the segments that they replaced.
    pub merge_read_bytes: u64,
    /// Bytes of those that they made.
    pub merge_written_bytes: u64,
    /// When the last one was done, Unix seconds; 0: none was.
    pub merged_at: u64,
    /// Partitions of which segments wait to be merged.
    pub merges_due: u64,
    /// Bytes of committed records that no segment holds now, if they are rolled at all.
    pub uncovered_bytes: u64,
    /// When a roll last ended with its manifest committed, Unix seconds; 0: none did.
    pub rolled_at: u64,
    /// When a checkpoint last came to stand, likewise.
    pub checkpoint_at: u64,
    /// When a write-ahead object was last stored, likewise.
    pub put_at: u64,
    /// Since when the oldest of the write-ahead objects that nothing needs have waited for their readers' grace, Unix
    /// seconds; 0: none does.
    pub unneeded_since: u64,
    /// Partitions that are not served because data of theirs is missing or contradicts itself.
    pub damaged: u64,
}

/// Since when the oldest of some objects wait to be deleted by the pump, Unix seconds; 0: none does.
#[derive(Debug, Default)]
pub(super) struct Undeleted(AtomicU64);

impl Undeleted {
    pub(super) fn set(&self, since: Option<WallMs>) {
        self.0.store(since.map_or(0, WallMs::seconds), Ordering::Relaxed);
    }
}

/// The totals as other threads see them. Single numbers are current; together they may be of two moments.
#[derive(Debug, Default)]
pub struct LaneCells {
    totals: [AtomicU64; FIELDS],
    segments: Arc<SegmentMeter>,
    /// Write-ahead objects whose deletion failed.
    pub(super) objects: Undeleted,
    /// Checkpoints whose deletion failed.
    pub(super) checkpoints: Undeleted,
}

const FIELDS: usize = 16;

/// The fields, in one order for writing and reading.
fn fields(totals: &mut LaneTotals) -> [&mut u64; FIELDS] {
    let LaneTotals {
        objects,
        object_bytes,
        hedges,
        hedges_won,
        held_bytes,
        merges,
        merge_read_bytes,
        merge_written_bytes,
        merged_at,
        merges_due,
        uncovered_bytes,
        rolled_at,
        checkpoint_at,
        put_at,
        unneeded_since,
        damaged,
    } = totals;
    [
        objects,
        object_bytes,
        hedges,
        hedges_won,
        held_bytes,
        merges,
        merge_read_bytes,
        merge_written_bytes,
        merged_at,
        merges_due,
        uncovered_bytes,
        rolled_at,
        checkpoint_at,
        put_at,
        unneeded_since,
        damaged,
    ]
}

impl LaneCells {
    pub(super) fn publish(&self, mut totals: LaneTotals) {
        for (cell, value) in self.totals.iter().zip(fields(&mut totals)) {
            cell.store(*value, Ordering::Relaxed);
        }
    }

    /// The totals.
    pub fn totals(&self) -> LaneTotals {
        let mut totals = LaneTotals::default();
        for (cell, value) in self.totals.iter().zip(fields(&mut totals)) {
            *value = cell.load(Ordering::Relaxed);
        }
        totals
    }

    /// What the lane's rolls count.
    pub fn segments(&self) -> Arc<SegmentMeter> {
        self.segments.clone()
    }

    /// Since when the oldest of the write-ahead objects that nothing needs have waited, in their grace or because a deletion
    /// failed; Unix seconds, 0: none does.
    pub fn objects_undeleted_since(&self) -> u64 {
        let both = [self.objects.0.load(Ordering::Relaxed), self.totals().unneeded_since];
        both.into_iter().filter(|since| *since > 0).min().unwrap_or(0)
    }

    /// The same of checkpoints, which have no grace.
    pub fn checkpoints_undeleted_since(&self) -> u64 {
        self.checkpoints.0.load(Ordering::Relaxed)
    }
}
