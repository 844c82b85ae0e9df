//! A distribution of latencies as a table of quantiles, which is the form in which stores are measured.

use super::milliseconds;
use serde::Deserialize;
use std::time::Duration;

/// Points of one table at most.
const POINTS: usize = 32;
/// The longest latency that a table may hold, milliseconds.
const LONGEST_MS: f64 = 600_000.0;

/// Points (share of requests, milliseconds within which they are answered), from share 0 to share 1. Between two points
/// the logarithm of the time is linear, so that a table of few points has the long tail that stores have.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(try_from = "Vec<(f64, f64)>")]
pub struct Latency(Vec<(f64, f64)>);

impl TryFrom<Vec<(f64, f64)>> for Latency {
    type Error = String;

    fn try_from(points: Vec<(f64, f64)>) -> Result<Latency, String> {
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return Err("a table of quantiles is empty".to_owned());
        };
        if !(2..=POINTS).contains(&points.len()) || first.0 != 0.0 || last.0 != 1.0 {
            return Err(format!("a table of quantiles has 2 to {POINTS} points, the first at 0.0, the last at 1.0"));
        }
        let rises = points.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        // Written so that what is no number fails it as well.
        let bounded = points.iter().all(|(_, ms)| *ms > 0.0 && *ms <= LONGEST_MS);
        if !rises || !bounded {
            return Err(format!("quantiles rise, and their times with them, from above 0 to {LONGEST_MS} ms"));
        }
        Ok(Latency(points))
    }
}

impl Latency {
    /// The time at a quantile that 64 random bits choose: 0 is the shortest.
    pub fn at(&self, bits: u64) -> Duration {
        // 53 bits are what the fraction of an f64 holds: below 1.
        self.quantile((bits >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// The time within which the share `quantile`, from 0 to 1, of all requests is answered.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let upper = self.0.partition_point(|(share, _)| *share < quantile).clamp(1, self.0.len() - 1);
        let ((from, low), (to, high)) = (self.0[upper - 1], self.0[upper]);
        let part = ((quantile - from) / (to - from)).clamp(0.0, 1.0);
        milliseconds(low * (high / low).powf(part))
    }
}
