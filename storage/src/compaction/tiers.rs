//! Which segments of a partition to merge, so that their number stays bounded whatever the traffic.
//!
//! A segment of at least `full_bytes` is *full* and never touched again. Full segments, and changes of the *cell* of time
//! in which segments were created, cut the log into runs of small ones. The run at the end of the log is *open*: it
//! grows. The others are *closed*: nothing can join them any more. The run of what should have expired by age but did not
//! (records with timestamps in the future) counts as open too, because cells join it as they age.
//!
//! The rule: a closed run of two or more is merged. In an open run the longest suffix is merged that has at least
//! `fan_in` segments and whose first one is no larger than the others together. A merge takes from the start of its run
//! or suffix until it has `full_bytes`, so that its result is smaller than twice that.
//!
//! **The number converges.** Every merge takes at least two segments and leaves one, so without new ones they end. Then an
//! open run of n segments has, but for the last `fan_in` − 1, sizes each above the sum of what follows; those sums more
//! than double from one to the next, so that n < `fan_in` + 1 + log2(bytes of the run), and a closed run is one segment.
//! Runs are separated by full segments, of which there are at most total / `full_bytes`, and by cells: [`segments_limit`].
//!
//! **Bytes are rewritten a logarithmic number of times.** A segment that a merge made is smaller than every older one of
//! its open run: those were not taken since each exceeded all that followed, and that sum is what a merge keeps. So
//! whatever later merge takes it either begins with it, and then at least doubles it by the rule, or with an older,
//! larger one, and then more than doubles it too. Only a segment that was never merged may grow by less, once. From its
//! roll of s bytes on a record is therefore rewritten at most once, plus log2(2 `full_bytes` / s) times, plus once when
//! its run closes, and again so when it joins what is overdue: [`rewrites_limit`].
//!
//! What this does not promise: the second bound holds where merges keep up, so that no run has more than
//! [`MERGE_SEGMENTS`]; the first one in any case.

use super::Segment;
use crate::env::WallMs;
use std::ops::Range;

/// The fewest segments that brokers merge at the end of the log.
pub const FAN_IN: usize = 8;
/// The most segments that one merge takes: bounds its requests and its memory.
pub const MERGE_SEGMENTS: usize = 64;

/// What bounds the merges of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The fewest segments that are merged at the end of the log, at least 2.
    pub fan_in: usize,
    /// Segments of as many bytes are left alone. At least 1.
    pub full_bytes: u64,
    /// Segments of different cells are not merged, so that retention by time stays exact to one cell.
    pub cells: Option<Cells>,
}

/// Cells of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cells {
    /// Length of one, milliseconds, at least 1.
    pub length_ms: i64,
    /// What was created before is one cell.
    pub overdue: WallMs,
}

impl Cells {
    /// The cell of a segment; 0 is that of the overdue ones.
    fn of(self, segment: &Segment) -> i64 {
        if segment.created < self.overdue { 0 } else { segment.created.0.div_euclid(self.length_ms).max(0) + 1 }
    }
}

/// The segments to merge next, as indices into `segments`, which are those of one partition in offset order.
///
/// Merges of closed runs come first, the oldest of them.
pub fn due(segments: &[Segment], limits: &Limits) -> Option<Range<usize>> {
    let mut start = 0;
    let mut open = None;
    while start < segments.len() {
        let (end, is_open) = run(segments, limits, start);
        if is_open {
            open = open.or_else(|| suffix(&segments[start..end], limits.fan_in).map(|from| start + from..end));
        } else if end - start >= 2 {
            return Some(taken(segments, limits, start..end));
        }
        // Past the full segment that ends the run, if one does.
        start = if end == start { start + 1 } else { end };
    }
    open.map(|range| taken(segments, limits, range))
}

/// The end of the run that starts at `start`, and whether it is open. Empty at a full segment.
fn run(segments: &[Segment], limits: &Limits, start: usize) -> (usize, bool) {
    let mut cell = limits.cells.map_or(1, |cells| cells.of(&segments[start]));
    let first = cell;
    for (index, segment) in segments.iter().enumerate().skip(start) {
        if segment.bytes >= limits.full_bytes {
            return (index, false);
        }
        // A clock that went back makes no new cell.
        cell = cell.max(limits.cells.map_or(1, |cells| cells.of(segment)));
        if cell != first {
            return (index, first == 0);
        }
    }
    (segments.len(), true)
}

/// Where the longest suffix begins that is to be merged.
fn suffix(run: &[Segment], fan_in: usize) -> Option<usize> {
    let mut following = 0;
    let mut found = None;
    for (index, segment) in run.iter().enumerate().rev() {
        if run.len() - index >= fan_in && segment.bytes <= following {
            found = Some(index);
        }
        following += segment.bytes;
    }
    found
}

/// Of `range` as many as one merge takes. They are at least two, since none of them is full.
fn taken(segments: &[Segment], limits: &Limits, range: Range<usize>) -> Range<usize> {
    let mut bytes = 0;
    let mut end = range.start;
    while end < range.end && bytes < limits.full_bytes && end - range.start < MERGE_SEGMENTS {
        bytes += segments[end].bytes;
        end += 1;
    }
    range.start..end
}

/// How many segments of `total_bytes` in `cells` cells remain at most when no merge is due.
pub fn segments_limit(total_bytes: u64, cells: u64, limits: &Limits) -> u64 {
    let full = total_bytes / limits.full_bytes;
    let open = limits.fan_in as u64 + 1 + u64::from(total_bytes.min(limits.full_bytes).max(1).ilog2());
    // The overdue run and the one at the end are open.
    full + (full + cells) + 2 * open
}

/// How often a record of a segment that was rolled with `rolled_bytes` is rewritten at most, in one cell.
pub fn rewrites_limit(rolled_bytes: u64, limits: &Limits) -> u64 {
    let doublings = (2 * limits.full_bytes).div_ceil(rolled_bytes.max(1)).max(1).ilog2() + 1;
    2 + u64::from(doublings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Offset;
    use proptest::prelude::*;

    const FULL: u64 = 1 << 16;

    fn segment(at: usize, bytes: u64, created: i64) -> Segment {
        let base = Offset(at as i64);
        Segment { base, last: base, bytes, max_timestamp: -1, created: WallMs(created) }
    }

    fn merged(segments: &mut Vec<Segment>, range: Range<usize>) -> Segment {
        let parts = &segments[range.clone()];
        let result = Segment {
            base: parts[0].base,
            last: parts[parts.len() - 1].last,
            bytes: parts.iter().map(|each| each.bytes).sum(),
            max_timestamp: -1,
            created: parts.iter().map(|each| each.created).max().expect("two or more"),
        };
        segments.splice(range, [result]);
        result
    }

    /// Merges until nothing is due; gives the bytes written.
    fn settle(segments: &mut Vec<Segment>, limits: &Limits) -> u64 {
        let mut written = 0;
        while let Some(range) = due(segments, limits) {
            assert!((2..=MERGE_SEGMENTS).contains(&range.len()));
            let result = merged(segments, range);
            assert!(result.bytes < 2 * limits.full_bytes);
            written += result.bytes;
        }
        written
    }

    fn sizes() -> impl Strategy<Value = Vec<u64>> {
        let one = prop_oneof![1_u64..4, 1_u64..2000, 1_u64..FULL * 2, (0_u32..17).prop_map(|power| 1 << power)];
        prop::collection::vec(one, 1..400)
    }

    proptest! {
        #[test]
        fn segments_stay_below_their_limit_after_every_roll_and_are_rewritten_a_logarithmic_number_of_times(sizes in sizes()) {
            let limits = Limits { fan_in: FAN_IN, full_bytes: FULL, cells: None };
            let (mut segments, mut total, mut written, mut allowed) = (Vec::new(), 0, 0, 0);
            for (at, &bytes) in sizes.iter().enumerate() {
                segments.push(segment(at, bytes, 0));
                total += bytes;
                allowed += bytes * rewrites_limit(bytes, &limits);
                written += settle(&mut segments, &limits);
                prop_assert!(segments.len() as u64 <= segments_limit(total, 1, &limits));
                prop_assert!(written <= allowed, "{written} of {allowed}");
            }
            prop_assert_eq!(segments.iter().map(|each| each.bytes).sum::<u64>(), total);
        }

        #[test]
        fn any_log_settles_and_no_merge_leaves_its_cell(
            parts in prop::collection::vec((1_u64..FULL * 2, 0_i64..200), 1..300),
            overdue in 0_i64..100,
        ) {
            let cells = Cells { length_ms: 20, overdue: WallMs(overdue) };
            let limits = Limits { fan_in: FAN_IN, full_bytes: FULL, cells: Some(cells) };
            let mut segments: Vec<_> =
                parts.iter().enumerate().map(|(at, &(bytes, created))| segment(at, bytes, created)).collect();
            segments.sort_by_key(|each| each.created);
            for (at, each) in segments.iter_mut().enumerate() {
                (each.base, each.last) = (Offset(at as i64), Offset(at as i64));
            }
            let before = segments.clone();
            let total = before.iter().map(|each| each.bytes).sum();
            settle(&mut segments, &limits);
            prop_assert!(segments.len() as u64 <= segments_limit(total, 11, &limits));
            for each in &segments {
                let held = &before[each.base.0 as usize..=each.last.0 as usize];
                prop_assert!(held.iter().all(|part| cells.of(part) == cells.of(each)));
            }
        }

        #[test]
        fn a_clock_that_goes_back_makes_no_more_segments_than_one_that_stands(jumps in prop::collection::vec(0_i64..50, 1..300)) {
            let limits = Limits { fan_in: FAN_IN, full_bytes: FULL, cells: Some(Cells { length_ms: 100, overdue: WallMs(0) }) };
            let mut segments = Vec::new();
            for (at, jump) in jumps.into_iter().enumerate() {
                segments.push(segment(at, 10, 199 - jump));
                settle(&mut segments, &limits);
            }
            prop_assert!(segments.len() as u64 <= segments_limit(3000, 1, &limits));
        }
    }

    #[test]
    fn equal_segments_are_merged_when_there_are_enough_of_them() {
        let limits = Limits { fan_in: FAN_IN, full_bytes: FULL, cells: None };
        let mut segments: Vec<_> = (0..FAN_IN - 1).map(|at| segment(at, 100, 0)).collect();
        assert_eq!(due(&segments, &limits), None);
        segments.push(segment(FAN_IN - 1, 100, 0));
        assert_eq!(due(&segments, &limits), Some(0..FAN_IN));
    }

    #[test]
    fn what_stands_before_a_full_segment_becomes_one() {
        let limits = Limits { fan_in: FAN_IN, full_bytes: FULL, cells: None };
        let mut segments = vec![segment(0, 9, 0), segment(1, 5, 0), segment(2, FULL, 0), segment(3, 7, 0)];
        assert_eq!(due(&segments, &limits), Some(0..2));
        settle(&mut segments, &limits);
        assert_eq!(segments.iter().map(|each| each.bytes).collect::<Vec<_>>(), [14, FULL, 7]);
    }

    #[test]
    fn a_long_list_of_tiny_segments_is_merged_in_parts() {
        let limits = Limits { fan_in: FAN_IN, full_bytes: FULL, cells: None };
        let mut segments: Vec<_> = (0..10_000).map(|at| segment(at, 1, 0)).collect();
        assert_eq!(due(&segments, &limits), Some(0..MERGE_SEGMENTS));
        settle(&mut segments, &limits);
        assert!(segments.len() as u64 <= segments_limit(10_000, 1, &limits));
    }
}
