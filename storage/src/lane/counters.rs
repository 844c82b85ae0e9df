//! What a lane counts: written by its pump, read by whoever shows it.

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
}

/// The totals as other threads see them. Single numbers are current; together they may be of two moments.
#[derive(Debug, Default)]
pub struct LaneCells([AtomicU64; 4]);

impl LaneCells {
    pub(super) fn publish(&self, totals: LaneTotals) {
        let values = [totals.objects, totals.object_bytes, totals.hedges, totals.hedges_won];
        for (cell, value) in self.0.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The totals.
    pub fn totals(&self) -> LaneTotals {
        let [objects, object_bytes, hedges, hedges_won] = [0, 1, 2, 3].map(|at| self.0[at].load(Ordering::Relaxed));
        LaneTotals { objects, object_bytes, hedges, hedges_won }
    }
}
