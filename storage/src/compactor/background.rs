//! What writing segments may take from the lane that it happens beside, and what it did. One for each lane.
//!
//! 1. All rolls of a lane go in turns: so much work, then a pause in which the thread's other work goes on. So the turns
//!    bound the rate too.

use crate::env::{Env, Mono};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of a turn.
pub(super) const TURN_BYTES: usize = 1 << 20;
/// From one turn to the next: a GiB a second at most.
const TURN: Duration = Duration::from_millis(1);
/// The same while produce is at work.
const BUSY_TURN: Duration = Duration::from_millis(3);

/// Turns, and totals.
#[derive(Default)]
pub struct Background {
    next: Cell<Mono>,
    busy: Cell<bool>,
    /// What was done.
    pub meter: Arc<SegmentMeter>,
}

impl Background {
    /// Counts in `meter`.
    pub fn new(meter: Arc<SegmentMeter>) -> Background {
        Background { meter, ..Background::default() }
    }

    /// Whether produce needs the processor and the store.
    pub fn set_busy(&self, busy: bool) {
        self.busy.set(busy);
    }

    /// Waits for the next turn.
    pub(super) async fn turn(&self, env: &Env) {
        let at = self.next.get().max(env.now());
        self.next.set(at.plus(if self.busy.get() { BUSY_TURN } else { TURN }));
        env.sleep_until(at).await;
    }
}

/// Totals of segments that were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentTotals {
    /// Rolls that ended with a manifest that covers their records, whoever wrote it.
    pub rolls: u64,
    /// Bytes that rolls found in memory.
    pub roll_held_bytes: u64,
    /// Bytes that they read from write-ahead objects.
    pub roll_read_bytes: u64,
    /// Reads that this took.
    pub roll_reads: u64,
    /// Segments put, with their indexes.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Manifests put that name one of them.
    pub manifests: u64,
}

/// The totals, written by one thread and read by others.
#[derive(Debug, Default)]
pub struct SegmentMeter([AtomicU64; 7]);

impl SegmentMeter {
    pub(super) fn add(&self, more: SegmentTotals) {
        let SegmentTotals { rolls, roll_held_bytes, roll_read_bytes, roll_reads, segments, segment_bytes, manifests } =
            more;
        let more = [rolls, roll_held_bytes, roll_read_bytes, roll_reads, segments, segment_bytes, manifests];
        for (cell, more) in self.0.iter().zip(more) {
            cell.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// The totals.
    pub fn totals(&self) -> SegmentTotals {
        let [rolls, roll_held_bytes, roll_read_bytes, roll_reads, segments, segment_bytes, manifests] =
            self.0.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        SegmentTotals { rolls, roll_held_bytes, roll_read_bytes, roll_reads, segments, segment_bytes, manifests }
    }
}
