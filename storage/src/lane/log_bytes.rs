//! Bytes of the lane's own log from a sequence on. Pure.
//!
//! 1. They are counted in steps of at least [`STEP_BYTES`], so that their number follows the bytes: the answer is too
//!    large by less than a step and an object.

use crate::ids::Seq;
use std::collections::VecDeque;

/// Objects are counted together up to so many bytes.
const STEP_BYTES: u64 = 4 << 20;

/// The committed objects of one log, by steps.
#[derive(Default)]
pub(super) struct LogBytes {
    /// First sequence of each, with the bytes of all objects before it.
    steps: VecDeque<(Seq, u64)>,
    total: u64,
}

impl LogBytes {
    /// An object was committed: the sequences come in order.
    pub(super) fn committed(&mut self, seq: Seq, bytes: u64) {
        if self.steps.back().is_none_or(|(_, before)| self.total - before >= STEP_BYTES) {
            self.steps.push_back((seq, self.total));
        }
        self.total += bytes;
    }

    /// Objects below `seq` are of no interest any more.
    pub(super) fn drop_below(&mut self, seq: Seq) {
        while self.steps.get(1).is_some_and(|(second, _)| *second <= seq) {
            self.steps.pop_front();
        }
    }

    /// Bytes of the objects from `seq` on.
    pub(super) fn since(&self, seq: Seq) -> u64 {
        let after = self.steps.partition_point(|(first, _)| *first <= seq);
        self.steps.get(after.saturating_sub(1)).map_or(0, |(_, before)| self.total - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_from_a_sequence_on_are_counted_to_within_a_step() {
        let mut log = LogBytes::default();
        assert_eq!(log.since(Seq(0)), 0);
        let bytes = STEP_BYTES / 4;
        (0..400).for_each(|seq| log.committed(Seq(seq), bytes));
        for seq in [0, 1, 200, 399] {
            let exact = (400 - seq) * bytes;
            assert!((exact..exact + STEP_BYTES).contains(&log.since(Seq(seq))), "from {seq}: {}", log.since(Seq(seq)));
        }
        log.drop_below(Seq(200));
        assert!(log.steps.len() <= 51);
        assert_eq!(log.since(Seq(200)), 200 * bytes);
    }

    #[test]
    fn the_memory_follows_the_bytes_however_small_the_objects_are() {
        let mut log = LogBytes::default();
        (0..1_000_000).for_each(|seq| log.committed(Seq(seq), 100));
        assert!(log.steps.len() <= 25, "{}", log.steps.len());
    }
}
