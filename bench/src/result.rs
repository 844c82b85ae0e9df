//! What a run of any workload gives, and what it tells while it goes on. Reports and comparisons read nothing else.
//!
//! 1. A latency belongs to the interval in which its request was due, a request with its records and bytes to the one in
//!    which it was answered: what a stall delays is neither lost nor credited early.
//! 2. A series' totals are the sums of its intervals.
//! 3. `errors` are what makes a run fail; `retries` are what the client mended, and what it costs is in the latency.

use crate::usage::Usage;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Latencies beyond this are counted as this much, nanoseconds.
const LONGEST_NANOS: u64 = 600 * 1_000_000_000;
/// Decimal digits that a histogram keeps.
const DIGITS: u8 = 3;
/// The length of an interval, of all but very long windows.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);
/// Intervals of a window at most; those of a longer window are as many times [`INTERVAL`] as that needs.
pub(crate) const MOST_INTERVALS: u32 = 600;

/// How long the intervals of such a window are; the last one may be shorter.
pub(crate) fn interval_length(window: Duration) -> Duration {
    let times = window.as_nanos().div_ceil(INTERVAL.as_nanos() * u128::from(MOST_INTERVALS)).max(1);
    INTERVAL * u32::try_from(times).expect("a window lasts days at most")
}

/// A histogram of nanoseconds, up to ten minutes with three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_max(LONGEST_NANOS, DIGITS).expect("bounds that the histogram can have")
}

/// What came of a run.
#[derive(Clone, Debug)]
pub(crate) struct RunResult {
    /// The workload's name on the command line.
    pub workload: String,
    /// What it ran with: names as on the command line, and values.
    pub settings: Vec<(String, String)>,
    /// What was measured, without warm-up and drain.
    pub window: Duration,
    /// One for each kind of thing that was timed, in the order in which they are shown.
    pub series: Vec<Series>,
    /// Figures of this workload alone.
    pub findings: Vec<Finding>,
    /// What went wrong, how often, at any time. Fails the run.
    pub errors: BTreeMap<String, u64>,
    /// Why requests were sent again, how often, at any time. Does not fail the run.
    pub retries: BTreeMap<String, u64>,
    /// Single failures, one a line, as many as a workload lists.
    pub details: Vec<String>,
    /// Of this process during the window.
    pub own: Usage,
    /// Of the broker's process during the window, if it was named.
    pub broker: Option<Usage>,
}

/// A figure that only one workload has.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Finding {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what; empty for a plain number.
    pub unit: &'static str,
}

/// One kind of thing that was timed.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// "produce", "end to end", "group 3", "catch-up".
    pub name: String,
    /// Over the whole window.
    pub total: Counts,
    /// In order, without gaps.
    pub intervals: Vec<Interval>,
}

impl Series {
    /// The same in a window that ended earlier than was planned: without the intervals that never were.
    pub(crate) fn within(mut self, window: Duration) -> Series {
        self.intervals.retain(|interval| interval.start < window);
        if let Some(last) = self.intervals.last_mut() {
            last.end = last.end.min(window);
        }
        self
    }
}

/// A part of the window.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    /// Since the window's start.
    pub start: Duration,
    /// Since the window's start; not part of it.
    pub end: Duration,
    /// What happened in it.
    pub counts: Counts,
}

/// What is counted in a stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// Nanoseconds.
    pub latency: Histogram<u64>,
    /// Requests that were answered well.
    pub requests: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their batches, as they were sent.
    pub bytes: u64,
}

impl Counts {
    /// Nothing yet.
    pub(crate) fn new() -> Counts {
        Counts { latency: latency_histogram(), requests: 0, records: 0, bytes: 0 }
    }

    /// Adds what was counted elsewhere.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.latency.add(&other.latency).expect("all histograms have the same bounds");
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// What a run is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The load is there, nothing counts yet.
    WarmUp,
    /// It counts.
    Window,
    /// Nothing new is sent; the last answers are awaited.
    Drain,
}

/// A look at a run, given out about once a second.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Where it is.
    pub stage: Stage,
    /// How long in this stage so far.
    pub elapsed: Duration,
    /// How long this stage takes, at most for the drain.
    pub whole: Duration,
    /// Of each series what happened since the last look.
    pub series: Vec<(String, Counts)>,
    /// Errors so far.
    pub errors: u64,
    /// Retries so far.
    pub retries: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_only_when_there_would_be_too_many() {
        let length = |seconds| interval_length(Duration::from_secs(seconds)).as_secs();
        assert_eq!([1, 10, 600, 601, 1200, 86_400].map(length), [1, 1, 1, 2, 2, 144]);
    }

    #[test]
    fn a_window_that_ended_early_has_no_interval_behind_its_end() {
        let at = Duration::from_secs;
        let interval = |start| Interval { start: at(start), end: at(start + 6), counts: Counts::new() };
        let series = Series { name: String::new(), total: Counts::new(), intervals: [0, 6, 12].map(interval).into() };
        let ends = |window| series.clone().within(window).intervals.iter().map(|each| each.end).collect::<Vec<_>>();
        assert_eq!(ends(at(7)), [at(6), at(7)]);
        assert_eq!(ends(at(30)), [at(6), at(12), at(18)]);
    }

    #[test]
    fn counts_add_up() {
        let mut sum = Counts::new();
        let mut one = Counts::new();
        one.latency.saturating_record(u64::MAX);
        (one.requests, one.records, one.bytes) = (1, 2, 3);
        sum.add(&one);
        sum.add(&one);
        assert_eq!((sum.latency.len(), sum.requests, sum.records, sum.bytes), (2, 2, 4, 6));
    }
}
