//! The memory store's ring: above the cap log starts rise past the oldest objects, so that they can go.
//!
//! A log start is an entry of a footer like any other; the low-water mark follows at the next checkpoint, and only then
//! are objects deleted. Produce is never refused for the cap.

use super::core::LaneCore;
use crate::ids::{Offset, Seq, TopicPartition};
use std::collections::VecDeque;

/// Committed objects that were not yet given up, oldest first.
#[derive(Default)]
pub(super) struct Ring {
    objects: VecDeque<(Seq, u64)>,
    bytes: u64,
}

impl Ring {
    /// An object was committed. Gives the first sequence to keep if the cap is exceeded: an eighth of the cap goes at
    /// once, so that log starts do not rise with every object.
    pub(super) fn committed(&mut self, cap: u64, seq: Seq, bytes: u64) -> Option<Seq> {
        self.objects.push_back((seq, bytes));
        self.bytes += bytes;
        if self.bytes <= cap {
            return None;
        }
        let target = cap - cap / 8;
        let mut keep = None;
        while self.bytes > target && self.objects.len() > 1 {
            let (gone, bytes) = self.objects.pop_front().expect("more than one");
            self.bytes -= bytes;
            keep = Some(gone.next());
        }
        keep
    }
}

impl LaneCore {
    /// Raises log starts so that nothing below `keep` is needed.
    pub(super) fn raise_past(&mut self, keep: Seq) {
        let wid = self.wid;
        let starts: Vec<(TopicPartition, Offset)> = self
            .partitions
            .iter()
            .filter(|(_, led)| led.first_own.is_some_and(|first| first < keep))
            .map(|(&partition, led)| {
                let mut kept = led.committed.references.iter().filter(|one| one.wid == wid && one.seq >= keep);
                (partition, kept.next().map_or(led.committed.end, |first| first.base))
            })
            .collect();
        for (partition, offset) in starts {
            self.raise_log_start(partition, offset);
        }
    }

    /// Log starts are committed: what lies below them goes with the next checkpoint, which the ring has soon.
    pub(super) fn ring_may_shrink(&mut self) {
        self.checkpointing.wanted |= self.config.ring_bytes.is_some();
    }
}
