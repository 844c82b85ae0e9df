//! What of a log has expired, as Kafka counts (`retention.ms`, `retention.bytes`, `cleanup.policy`). Pure.
//!
//! Invariants:
//! 1. What goes is a prefix of the log.
//! 2. Without `delete` in the policy nothing goes.
//!
//! [`Retention::start`] says where a log should start, by pieces of any size: what the leader knows of segments, and
//! references into write-ahead objects (decision 055). [`Retention::limits`] is what merges must respect for its sake.

use super::Segment;
use super::tiers::{Cells, Limits};
use crate::env::WallMs;
use crate::ids::Offset;
use crate::partition::Reference;
use std::time::Duration;

/// Retention by time is exact to this part of `retention.ms`: so fine are the cells across which nothing is merged.
const CELLS_OF_RETENTION: i64 = 8;
/// Retention by size is exact to about this part of `retention.bytes`.
const SEGMENTS_OF_RETENTION: u64 = 4;
/// But no segment is called full below this, bytes: a small log takes more than it may rather than many objects.
const LEAST_FULL_BYTES: u64 = 1 << 20;

/// A topic's settings that concern the planner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// `cleanup.policy` holds `delete`.
    pub delete: bool,
    /// `retention.ms`; `None` is Kafka's −1, no limit.
    pub ms: Option<u64>,
    /// `retention.bytes`; `None` is Kafka's −1, no limit.
    pub bytes: Option<u64>,
}

/// A run of a log that goes as a whole. It begins where the one before ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Last offset, inclusive.
    pub last: Offset,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Largest timestamp of its records, Unix milliseconds; −1 if none.
    pub max_timestamp: i64,
}

impl Piece {
    /// This piece and the one after it.
    #[must_use]
    pub fn join(self, next: Piece) -> Piece {
        Piece {
            last: next.last,
            bytes: self.bytes + next.bytes,
            max_timestamp: self.max_timestamp.max(next.max_timestamp),
        }
    }
}

impl From<Reference> for Piece {
    fn from(reference: Reference) -> Piece {
        let Reference { last, length, max_timestamp, .. } = reference;
        Piece { last, bytes: u64::from(length), max_timestamp }
    }
}

impl From<Segment> for Piece {
    /// One without timestamps counts from its creation, as Kafka takes the file's time.
    fn from(segment: Segment) -> Piece {
        let Segment { last, bytes, max_timestamp, created, .. } = segment;
        Piece { last, bytes, max_timestamp: if max_timestamp >= 0 { max_timestamp } else { created.0 } }
    }
}

impl Default for Retention {
    /// Kafka's: seven days, whatever the size.
    fn default() -> Self {
        Retention { delete: true, ms: Some(7 * 24 * 3_600_000), bytes: None }
    }
}

impl Retention {
    fn limit_ms(&self) -> Option<i64> {
        self.ms.filter(|_| self.delete).map(|ms| i64::try_from(ms).unwrap_or(i64::MAX))
    }

    fn limit_bytes(&self) -> Option<u64> {
        self.bytes.filter(|_| self.delete)
    }

    /// Whether there is a limit at all.
    pub fn limits_anything(&self) -> bool {
        self.limit_ms().is_some() || self.limit_bytes().is_some()
    }

    /// Where a log of `pieces`, in offset order, should start; `None` if nothing of it has expired.
    ///
    /// By age goes the longest prefix whose pieces have all expired: one without timestamps goes with a later one, not
    /// by itself. By size pieces go while those that remain have the limit.
    pub fn start(&self, pieces: impl Iterator<Item = Piece> + Clone, now: WallMs) -> Option<Offset> {
        let by_age = self.limit_ms().and_then(|limit| {
            let expired = |piece: &Piece| piece.max_timestamp.saturating_add(limit) < now.0;
            let timed = pieces.clone().filter(|piece| piece.max_timestamp >= 0);
            timed.take_while(expired).last()
        });
        let by_size = self.limit_bytes().and_then(|limit| {
            let total = pieces.clone().fold(0_u64, |sum, piece| sum.saturating_add(piece.bytes));
            let mut surplus = total.saturating_sub(limit);
            let goes = |piece: &Piece| {
                let goes = surplus >= piece.bytes && surplus > 0;
                surplus = surplus.saturating_sub(piece.bytes);
                goes
            };
            pieces.clone().take_while(goes).last()
        });
        by_age.into_iter().chain(by_size).map(|piece| piece.last.plus(1)).max()
    }

    /// How exact retention by time is; `None`: age takes nothing.
    pub fn cell(&self) -> Option<Duration> {
        self.limit_ms().map(|limit| Duration::from_millis(cell_ms(limit).unsigned_abs()))
    }

    /// When a cell of `segments` next becomes overdue by time alone; `None`: never.
    pub fn next_look(&self, segments: &[Segment], limits: &Limits, now: WallMs) -> Option<WallMs> {
        let overdue = limits.cells?.overdue;
        // Only what should have expired already, but is held back by what stands before it, gets so old.
        let next = segments.iter().map(|each| each.created).find(|&created| created >= overdue)?;
        let left = next.0.saturating_sub(overdue.0).saturating_add(1);
        Some(WallMs(now.0.saturating_add(left)))
    }

    /// What merges must respect so that whole segments can expire on time. `fan_in` and `full_bytes` are the planner's.
    pub fn limits(&self, fan_in: usize, full_bytes: u64, now: WallMs) -> Limits {
        let by_size = self.limit_bytes().map_or(full_bytes, |limit| limit / SEGMENTS_OF_RETENTION);
        let cells = self.limit_ms().map(|limit| {
            let length_ms = cell_ms(limit);
            Cells { length_ms, overdue: WallMs(now.0.saturating_sub(limit).saturating_sub(2 * length_ms)) }
        });
        Limits { fan_in, full_bytes: by_size.max(LEAST_FULL_BYTES).min(full_bytes).max(1), cells }
    }
}

fn cell_ms(limit: i64) -> i64 {
    (limit / CELLS_OF_RETENTION).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(sizes: &[u64]) -> Vec<Segment> {
        let at = |n: usize| Offset(n as i64 * 10);
        let one = |(n, &bytes): (usize, &u64)| Segment {
            base: at(n),
            last: Offset(at(n).0 + 9),
            bytes,
            max_timestamp: n as i64 * 1000,
            created: WallMs(n as i64 * 1000 + 5),
        };
        sizes.iter().enumerate().map(one).collect()
    }

    fn start(retention: Retention, log: &[(u64, i64)], now: i64) -> Option<i64> {
        let piece = |(n, &(bytes, max_timestamp)): (usize, &(u64, i64))| Piece {
            last: Offset(n as i64 * 10 + 9),
            bytes,
            max_timestamp,
        };
        retention.start(log.iter().enumerate().map(piece), WallMs(now)).map(|offset| offset.0)
    }

    #[test]
    fn a_log_starts_behind_the_pieces_that_have_all_expired() {
        let by_age = keep(Some(500), None);
        let log = [(1, 0), (1, 1_000), (1, 900)];
        assert_eq!(start(by_age, &log, 500), None, "as old as the limit is not older");
        assert_eq!(start(by_age, &log, 501), Some(10));
        assert_eq!(start(by_age, &log, 1_450), Some(10), "what comes behind something newer waits for it");
        assert_eq!(start(by_age, &log, 1_501), Some(30), "nothing need stay");
        assert_eq!(start(by_age, &[], 1_501), None);
    }

    #[test]
    fn pieces_without_timestamps_go_with_a_later_one() {
        let by_age = keep(Some(0), None);
        assert_eq!(start(by_age, &[(1, -1), (1, -1)], 1 << 40), None);
        assert_eq!(start(by_age, &[(1, -1), (1, 5), (1, -1)], 1 << 40), Some(20));
        assert_eq!(start(by_age, &[(1, -1), (1, 1 << 50)], 1 << 40), None);
    }

    #[test]
    fn pieces_go_while_the_rest_still_has_the_limit_of_bytes() {
        let log = [(100, 0), (50, 0), (100, 0)];
        let by_size = |limit| start(keep(None, Some(limit)), &log, 0);
        assert_eq!([by_size(250), by_size(151), by_size(150), by_size(100)], [None, None, Some(10), Some(20)]);
        assert_eq!(by_size(0), Some(30));
        assert_eq!(start(keep(Some(1), Some(150)), &[(100, 0), (50, 0), (100, 9)], 5), Some(20), "both limits hold");
    }

    #[test]
    fn without_delete_or_without_a_limit_a_log_starts_where_it_does() {
        let log = [(100, 0), (50, 0)];
        assert_eq!(start(Retention { delete: false, ms: Some(0), bytes: Some(0) }, &log, 1 << 40), None);
        assert_eq!(start(keep(None, None), &log, 1 << 40), None);
        assert!(!keep(None, None).limits_anything() && Retention::default().limits_anything());
    }

    fn keep(ms: Option<u64>, bytes: Option<u64>) -> Retention {
        Retention { delete: true, ms, bytes }
    }

    #[test]
    fn without_delete_or_an_age_there_are_no_cells() {
        let compact = Retention { delete: false, ms: Some(1), bytes: Some(1) };
        assert_eq!(compact.limits(8, 64, WallMs(0)), Limits { fan_in: 8, full_bytes: 64, cells: None });
        assert_eq!(compact.next_look(&log(&[1]), &compact.limits(8, 64, WallMs(0)), WallMs(0)), None);
        let by_size = keep(None, Some(64 << 20)).limits(8, 64 << 20, WallMs(0));
        assert_eq!((by_size.full_bytes, by_size.cells), (16 << 20, None));
    }

    #[test]
    fn time_is_looked_at_again_when_what_was_held_back_becomes_overdue() {
        let log = log(&[1, 1, 1]);
        let by_age = keep(Some(800), None);
        let look = |now| by_age.next_look(&log, &by_age.limits(8, 64, WallMs(now)), WallMs(now));
        assert_eq!(look(0), Some(WallMs(1006)), "created at 5, overdue a limit and two cells later");
        assert_eq!(look(2000), Some(WallMs(2006)), "created at 1005");
        assert_eq!(look(10_000), None);
        assert_eq!(by_age.next_look(&[], &by_age.limits(8, 64, WallMs(0)), WallMs(0)), None);
    }
}
