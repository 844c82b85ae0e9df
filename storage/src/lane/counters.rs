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
}

/// The totals as other threads see them. Single numbers are current; together they may be of two moments.
#[derive(Debug, Default)]
pub struct LaneCells {
    totals: [AtomicU64; 5],
    segments: Arc<SegmentMeter>,
}

impl LaneCells {
    pub(super) fn publish(&self, totals: LaneTotals) {
        let LaneTotals { objects, object_bytes, hedges, hedges_won, held_bytes } = totals;
        let values = [objects, object_bytes, hedges, hedges_won, held_bytes];
        for (cell, value) in self.totals.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The totals.
    pub fn totals(&self) -> LaneTotals {
        let [objects, object_bytes, hedges, hedges_won, held_bytes] =
            self.totals.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        LaneTotals { objects, object_bytes, hedges, hedges_won, held_bytes }
    }

    /// What the lane's rolls count.
    pub fn segments(&self) -> Arc<SegmentMeter> {
        self.segments.clone()
    }
}
