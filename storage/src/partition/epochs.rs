//! Leader epoch history: where each epoch started (KIP-101, KIP-320).
//!
//! Invariants:
//! 1. Epochs strictly ascend, their starts never descend (an epoch without records starts where the next one does).
//! 2. At most [`MAX_EPOCHS`]; the oldest go first. A question about one that is gone is answered as Kafka answers for
//!    epochs whose records retention has removed.

use crate::ids::{LeaderEpoch, Offset};

/// Epochs remembered per partition: a leadership that changes every hour is remembered for six weeks.
pub const MAX_EPOCHS: usize = 1024;

/// Answer to OffsetForLeaderEpoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The largest epoch not above the one asked for.
    pub epoch: LeaderEpoch,
    /// Its end offset: the start of the next epoch, or the log's end.
    pub end: Offset,
}

/// An epoch and the offset of its first record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Where it starts: the log end when its leader took over.
    pub start: Offset,
}

/// (epoch, start offset) in ascending order of both; epochs without records too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochHistory {
    starts: Vec<EpochStart>,
}

impl EpochHistory {
    /// Adds an epoch that starts at `start`.
    ///
    /// # Panics
    /// If it breaks invariant 1: epochs and ends only grow, decoders check.
    pub fn append(&mut self, epoch: LeaderEpoch, start: Offset) {
        let follows = self.latest().is_none_or(|latest| latest.epoch < epoch && latest.start <= start);
        assert!(follows, "epoch {epoch} at {start} follows {:?}", self.latest());
        if self.starts.len() == MAX_EPOCHS {
            self.starts.remove(0);
        }
        self.starts.push(EpochStart { epoch, start });
    }

    /// The latest epoch.
    pub fn latest(&self) -> Option<EpochStart> {
        self.starts.last().copied()
    }

    /// All, in ascending order.
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The epoch that `offset` was written at, or will be; `None` below the first known start.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.starts.partition_point(|each| each.start <= offset);
        after.checked_sub(1).map(|index| self.starts[index].epoch)
    }

    /// Where `requested` ended in a log that now ends at `log_end`, or `None` where Kafka answers −1/−1: nothing is
    /// known, or the epoch asked for is above the latest. An epoch below the first known one ends where that starts.
    pub fn end_of(&self, requested: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        let latest = self.latest()?;
        if requested.0 < 0 || requested > latest.epoch {
            return None;
        }
        let after = self.starts.partition_point(|each| each.epoch <= requested);
        let end = self.starts.get(after).map_or(log_end, |next| next.start);
        let epoch = after.checked_sub(1).map_or(requested, |index| self.starts[index].epoch);
        Some(EpochEnd { epoch, end })
    }

    /// Forgets epochs that ended at or below `log_start`; the one that holds `log_start` now starts there. The latest
    /// epoch always stays.
    pub fn truncate_below(&mut self, log_start: Offset) {
        let below = self.starts.partition_point(|each| each.start <= log_start);
        if let Some(holder) = below.checked_sub(1) {
            self.starts.drain(..holder);
            self.starts[0].start = log_start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(starts: &[(i32, i64)]) -> EpochHistory {
        let mut history = EpochHistory::default();
        starts.iter().for_each(|&(epoch, start)| history.append(LeaderEpoch(epoch), Offset(start)));
        history
    }

    fn end_of(history: &EpochHistory, requested: i32) -> Option<(i32, i64)> {
        history.end_of(LeaderEpoch(requested), Offset(100)).map(|found| (found.epoch.0, found.end.0))
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let history = history(&[(1, 0), (2, 10), (5, 30)]);
        assert_eq!(end_of(&history, 1), Some((1, 10)));
        assert_eq!(end_of(&history, 2), Some((2, 30)));
        assert_eq!(end_of(&history, 4), Some((2, 30)), "the largest epoch not above the one asked for");
        assert_eq!(end_of(&history, 5), Some((5, 100)), "the latest ends at the log's end");
    }

    #[test]
    fn an_epoch_without_records_ends_where_it_starts() {
        let history = history(&[(1, 0), (2, 10), (3, 10)]);
        assert_eq!(end_of(&history, 2), Some((2, 10)));
        assert_eq!(history.epoch_at(Offset(10)), Some(LeaderEpoch(3)));
        assert_eq!(history.epoch_at(Offset(9)), Some(LeaderEpoch(1)));
    }

    #[test]
    fn what_kafka_calls_undefined_is_none() {
        let history = history(&[(3, 10)]);
        assert_eq!(end_of(&history, 4), None, "above the latest");
        assert_eq!(end_of(&history, -1), None);
        assert_eq!(end_of(&EpochHistory::default(), 0), None);
        assert_eq!(end_of(&history, 2), Some((2, 10)), "below the first: ends where that starts");
    }

    #[test]
    fn truncation_moves_the_start_of_the_epoch_that_holds_the_log_start() {
        let mut history = history(&[(1, 0), (2, 10), (3, 20)]);
        history.truncate_below(Offset(15));
        assert_eq!(history.starts(), self::history(&[(2, 15), (3, 20)]).starts());
        history.truncate_below(Offset(20));
        assert_eq!(history.starts(), self::history(&[(3, 20)]).starts());
        history.truncate_below(Offset(99));
        assert_eq!(history.starts(), self::history(&[(3, 99)]).starts());
    }

    #[test]
    fn the_history_is_bounded_and_forgets_the_oldest() {
        let epochs = MAX_EPOCHS as i32 + 10;
        let history = history(&(0..epochs).map(|epoch| (epoch, i64::from(epoch))).collect::<Vec<_>>());
        assert_eq!(history.starts().len(), MAX_EPOCHS);
        assert_eq!(history.latest().map(|latest| latest.epoch), Some(LeaderEpoch(epochs - 1)));
    }
}
