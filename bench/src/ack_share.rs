//! The broker's own share of acknowledgements, from the histogram that it exports. Pure.
//!
//! 1. A quantile is the upper bound of its bucket: never too small.
//! 2. Shards add up; the last bucket has no bound, and a quantile in it no value.

use serde::Serialize;

/// The histogram's name.
pub(crate) const NAME: &str = "millrace_ack_share_seconds";

/// What was recorded in a stretch of time.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub(crate) struct AckShare {
    /// Seals that became durable; each counts with the oldest batch in it.
    pub seals: u64,
    /// Half took at most so long, milliseconds.
    pub p50_ms: Option<f64>,
    /// 99 in a hundred.
    pub p99_ms: Option<f64>,
    /// 999 in a thousand.
    pub p999_ms: Option<f64>,
}

/// Bounds in milliseconds, ascending, and how many were at most so long.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Buckets(Vec<(f64, u64)>);

impl Buckets {
    /// Reads an exposition; `None` if it has no such histogram.
    pub(crate) fn read(text: &str) -> Option<Buckets> {
        let mut buckets: Vec<(f64, u64)> = Vec::new();
        for (bound, count) in text.lines().filter_map(bucket) {
            match buckets.iter_mut().find(|(other, _)| *other == bound) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        (!buckets.is_empty()).then_some(Buckets(buckets))
    }

    /// What came since `from`; `None` if nothing did.
    pub(crate) fn since(&self, from: &Buckets) -> Option<AckShare> {
        let before = |bound: f64| from.0.iter().find(|(other, _)| *other == bound).map_or(0, |(_, count)| *count);
        let grown: Vec<(f64, u64)> =
            self.0.iter().map(|&(bound, count)| (bound, count.saturating_sub(before(bound)))).collect();
        let seals = grown.last().map_or(0, |(_, all)| *all);
        let quantile = |share: f64| {
            let rank = (seals as f64 * share).ceil() as u64;
            grown.iter().find(|(_, count)| *count >= rank).map(|(bound, _)| *bound).filter(|bound| bound.is_finite())
        };
        let share = || AckShare { seals, p50_ms: quantile(0.5), p99_ms: quantile(0.99), p999_ms: quantile(0.999) };
        (seals > 0).then(share)
    }
}

/// Bound in milliseconds and count of a bucket's line.
fn bucket(line: &str) -> Option<(f64, u64)> {
    let (labels, value) = line.strip_prefix(NAME)?.strip_prefix("_bucket{")?.split_once("} ")?;
    let (_, bound) = labels.split_once("le=\"")?;
    let bound = bound.split('"').next()?.parse::<f64>().ok().filter(|bound| *bound >= 0.0)?;
    // A timestamp or an exemplar may follow.
    Some((bound * 1e3, value.split(' ').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two shards with as many in each bucket.
    fn exposition(counts: [u64; 3]) -> Buckets {
        let mut text =
            format!("# TYPE {NAME} histogram\n{NAME}_sum{{shard=\"0\"}} 0.5\n{NAME}_count{{shard=\"0\"}} 7\n");
        for shard in 0..2 {
            let mut sum = 0;
            for (bound, count) in ["0.0005", "0.001", "+Inf"].into_iter().zip(counts) {
                sum += count;
                text += &format!("{NAME}_bucket{{le=\"{bound}\",shard=\"{shard}\"}} {sum}\n");
            }
        }
        Buckets::read(&text).unwrap()
    }

    #[test]
    fn quantiles_are_the_bounds_of_what_came_in_between_over_all_shards() {
        let share = exposition([60, 42, 1]).since(&exposition([10, 2, 1])).unwrap();
        assert_eq!(share, AckShare { seals: 180, p50_ms: Some(0.5), p99_ms: Some(1.0), p999_ms: Some(1.0) });
    }

    #[test]
    fn what_is_above_all_bounds_has_no_value() {
        let share = exposition([98, 0, 2]).since(&Buckets::default()).unwrap();
        assert_eq!((share.p50_ms, share.p99_ms), (Some(0.5), None));
    }

    #[test]
    fn nothing_recorded_is_no_share_and_another_histogram_is_none() {
        assert_eq!(exposition([5, 1, 0]).since(&exposition([5, 1, 0])), None);
        assert_eq!(Buckets::read("millrace_store_put_seconds_bucket{le=\"+Inf\"} 3\n"), None);
    }
}
