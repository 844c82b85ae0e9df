//! What a lane counts: written by its pump, read by whoever shows it.

use crate::compactor::background::SegmentMeter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Totals since the lane started.
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
}

/// The totals as other threads see them. Single numbers are current; together they may be of two moments.
#[derive(Debug, Default)]
pub struct LaneCells {
    totals: [AtomicU64; FIELDS],
    segments: Arc<SegmentMeter>,
}

const FIELDS: usize = 10;

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
}
