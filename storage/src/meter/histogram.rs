//! Times in buckets that never change, so that recording one is three additions: no lock, no allocation.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, six to a decade from 10 µs to 10 s; one more bucket takes what is above.
pub const BOUNDS: [u64; 37] = [
    10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1_000, 1_500, 2_000, 3_000, 5_000, 7_000, 10_000, 15_000,
    20_000, 30_000, 50_000, 70_000, 100_000, 150_000, 200_000, 300_000, 500_000, 700_000, 1_000_000, 1_500_000,
    2_000_000, 3_000_000, 5_000_000, 7_000_000, 10_000_000,
];

/// Times recorded by any thread.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1], nanos: AtomicU64::new(0) }
    }
}

/// What a histogram held at one moment, give or take what was being recorded.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// Times by bucket: those of [`BOUNDS`], then what is above them all.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Their sum in seconds.
    pub seconds: f64,
}

impl Snapshot {
    /// How many times it holds.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

impl Histogram {
    /// Records one time. A bucket's bound belongs to it.
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < nanos);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What it holds now.
    pub fn snapshot(&self) -> Snapshot {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        Snapshot { buckets, seconds: self.nanos.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_whose_bound_is_not_below_it() {
        let histogram = Histogram::default();
        for micros in [0, 10, 11, 1_000, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let held = histogram.snapshot();
        let at = |bound: u64| held.buckets[BOUNDS.iter().position(|other| *other == bound).unwrap()];
        assert_eq!((at(10), at(15), at(1_000), at(10_000_000)), (2, 1, 1, 1));
        assert_eq!((held.buckets[BOUNDS.len()], held.count()), (1, 6));
        assert!((held.seconds - 20.001_022).abs() < 1e-9, "{}", held.seconds);
    }

    #[test]
    fn bounds_ascend() {
        assert!(BOUNDS.is_sorted_by(|a, b| a < b));
    }
}
