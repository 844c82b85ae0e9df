//! What a run counts.

use crate::pace::SECOND;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Latencies beyond this are counted as this much, nanoseconds.
const LONGEST: u64 = 600 * SECOND;
/// Decimal digits that the histogram keeps.
const DIGITS: u8 = 3;

/// Counts of one run. Only what falls into its window counts, errors always do.
#[derive(Debug)]
pub(crate) struct Tally {
    window: Range<u64>,
    /// Nanoseconds from when a request was due to its answer, of requests that were due within the window.
    pub latency: Histogram<u64>,
    /// Requests that were answered well within the window.
    pub requests: u64,
    /// Their records.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// What went wrong, how often, at any time.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts within `window`, nanoseconds from the start of the run.
    pub(crate) fn new(window: Range<u64>) -> Tally {
        let latency = Histogram::new_with_max(LONGEST, DIGITS).expect("bounds that the histogram can have");
        Tally { window, latency, requests: 0, records: 0, bytes: 0, errors: BTreeMap::new() }
    }

    /// A request that was due at `due` was answered well at `now`.
    pub(crate) fn answered(&mut self, due: u64, now: u64, records: u64, bytes: u64) {
        if self.window.contains(&due) {
            self.latency.saturating_record((now - due).max(1));
        }
        if self.window.contains(&now) {
            self.requests += 1;
            self.records += records;
            self.bytes += bytes;
        }
    }

    /// Something went wrong `times` times.
    pub(crate) fn failed(&mut self, what: &str, times: u64) {
        if times > 0 {
            *self.errors.entry(what.to_owned()).or_default() += times;
        }
    }

    /// Seconds that count.
    pub(crate) fn seconds(&self) -> f64 {
        (self.window.end - self.window.start) as f64 / SECOND as f64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        let mib = self.bytes as f64 / f64::from(1 << 20);
        writeln!(
            f,
            "throughput  {:.1} MiB/s  {:.0} records/s  {:.0} requests/s  ({:.0} s, {:.1} MiB)",
            mib / seconds,
            self.records as f64 / seconds,
            self.requests as f64 / seconds,
            seconds,
            mib
        )?;
        write!(f, "latency ms ")?;
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            write!(f, " {name} {:.3}", self.latency.value_at_quantile(quantile) as f64 / 1e6)?;
        }
        writeln!(f, "  of {} requests", self.latency.len())?;
        if self.errors.is_empty() {
            return writeln!(f, "errors      none");
        }
        self.errors.iter().try_for_each(|(what, times)| writeln!(f, "errors      {times} × {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_counts_answers_and_latency_counts_due_times_within_the_window() {
        let mut tally = Tally::new(2 * SECOND..4 * SECOND);
        tally.answered(SECOND, 2 * SECOND + 1, 10, 1 << 20); // due before it, answered within
        tally.answered(3 * SECOND, 3 * SECOND + 2_000_000, 10, 1 << 20);
        tally.answered(4 * SECOND - 1, 9 * SECOND, 10, 1 << 20); // answered late: its latency is not lost
        tally.answered(4 * SECOND, 4 * SECOND + 1, 10, 1 << 20);
        assert_eq!((tally.requests, tally.records, tally.bytes), (2, 20, 2 << 20));
        assert_eq!(tally.latency.len(), 2);
        let text = tally.to_string();
        assert!(text.starts_with("throughput  1.0 MiB/s  10 records/s  1 requests/s"), "{text}");
        assert!(text.contains("p50 2.00"), "{text}");
        assert!(tally.latency.max() >= 5 * SECOND);
        assert!(text.ends_with("errors      none\n"), "{text}");
    }

    #[test]
    fn errors_count_at_any_time_and_are_printed() {
        let mut tally = Tally::new(0..SECOND);
        tally.failed("no answer", 0);
        assert!(tally.errors.is_empty());
        tally.failed("no answer", 2);
        tally.failed("no answer", 1);
        assert!(tally.to_string().ends_with("errors      3 × no answer\n"));
    }

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut tally = Tally::new(0..SECOND);
        for latency in 1..=100_000_u64 {
            tally.answered(0, latency * 1_000, 1, 1);
        }
        for (quantile, expected) in [(0.5, 50_000_000.0), (0.99, 99_000_000.0), (0.999, 99_900_000.0)] {
            let value = tally.latency.value_at_quantile(quantile) as f64;
            assert!((value / expected - 1.0).abs() < 0.001, "{quantile}: {value}");
        }
    }
}
