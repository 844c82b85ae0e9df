//! What one thread counts for one series.
//!
//! 1. What lies outside of the window is seen live and otherwise not counted; errors and retries always are.
//! 2. Counting takes no lock: what is shown live is handed over once in a [`LIVE_NANOS`].

use crate::pace::SECOND;
use crate::result::{Counts, Interval, Series, interval_length};
use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often what happened is handed over for the live line, nanoseconds.
const LIVE_NANOS: u64 = SECOND / 2;

/// Causes that are told apart: a text of the broker's may be another one each time.
const MOST_CAUSES: usize = 100;
/// The name of all others.
const OTHER_CAUSES: &str = "other causes";

/// What threads hand over for the live line and its reader takes.
#[derive(Debug)]
pub(crate) struct Live {
    /// Since it was last taken.
    pub counts: Counts,
    /// So far.
    pub errors: u64,
    /// So far.
    pub retries: u64,
}

/// A [`Live`] between threads.
pub(crate) type LiveCell = Arc<Mutex<Live>>;

/// A new cell.
pub(crate) fn live_cell() -> LiveCell {
    Arc::new(Mutex::new(Live { counts: Counts::new(), errors: 0, retries: 0 }))
}

/// Counts of one thread and series. Times are nanoseconds from the start of the run.
#[derive(Debug)]
pub(crate) struct Recorder {
    window: Range<u64>,
    interval: u64,
    intervals: Vec<Counts>,
    /// Causes and times.
    pub errors: BTreeMap<String, u64>,
    /// Causes and times.
    pub retries: BTreeMap<String, u64>,
    live: LiveCell,
    recent: Counts,
    recent_errors: u64,
    recent_retries: u64,
    hand_over_at: u64,
}

impl Recorder {
    /// Counts within `window`.
    pub(crate) fn new(window: Range<u64>, live: LiveCell) -> Recorder {
        let length = window.end - window.start;
        let interval = nanos(interval_length(Duration::from_nanos(length)));
        let intervals = (0..length.div_ceil(interval)).map(|_| Counts::new()).collect();
        Recorder {
            window,
            interval,
            intervals,
            errors: BTreeMap::new(),
            retries: BTreeMap::new(),
            live,
            recent: Counts::new(),
            recent_errors: 0,
            recent_retries: 0,
            hand_over_at: LIVE_NANOS,
        }
    }

    fn at(&mut self, time: u64) -> Option<&mut Counts> {
        let since = time.checked_sub(self.window.start).filter(|_| time < self.window.end)?;
        self.intervals.get_mut(usize::try_from(since / self.interval).expect("intervals are few"))
    }

    /// What was due at `due` came at `now`.
    pub(crate) fn timed(&mut self, due: u64, now: u64) {
        let latency = now.saturating_sub(due).max(1);
        if let Some(counts) = self.at(due) {
            counts.latency.saturating_record(latency);
        }
        self.recent.latency.saturating_record(latency);
    }

    /// A request was answered well at `now`.
    pub(crate) fn answered(&mut self, now: u64, records: u64, bytes: u64) {
        let count = |counts: &mut Counts| {
            counts.requests += 1;
            counts.records += records;
            counts.bytes += bytes;
        };
        if let Some(counts) = self.at(now) {
            count(counts);
        }
        count(&mut self.recent);
    }

    /// Something went wrong `times` times.
    pub(crate) fn failed(&mut self, what: &str, times: u64) {
        note(&mut self.errors, what, times);
        self.recent_errors += times;
    }

    /// Something that went wrong is done again, `times` times.
    pub(crate) fn retried(&mut self, why: &str, times: u64) {
        note(&mut self.retries, why, times);
        self.recent_retries += times;
    }

    /// Hands over what the live line shows, if it is time.
    pub(crate) fn hand_over(&mut self, now: u64) {
        if now < self.hand_over_at {
            return;
        }
        self.hand_over_at = now + LIVE_NANOS;
        let mut live = self.live.lock().expect("who holds it does not panic");
        live.counts.add(&self.recent);
        live.errors += mem::take(&mut self.recent_errors);
        live.retries += mem::take(&mut self.recent_retries);
        drop(live);
        self.recent.latency.reset();
        (self.recent.requests, self.recent.records, self.recent.bytes) = (0, 0, 0);
    }

    /// Adds what another thread counted in the same window.
    pub(crate) fn merge(&mut self, other: &Recorder) {
        assert_eq!(self.window, other.window, "threads of one run have one window");
        for (mine, theirs) in self.intervals.iter_mut().zip(&other.intervals) {
            mine.add(theirs);
        }
        other.errors.iter().for_each(|(what, times)| note(&mut self.errors, what, *times));
        other.retries.iter().for_each(|(why, times)| note(&mut self.retries, why, *times));
    }

    /// The counts as a series.
    pub(crate) fn series(self, name: &str) -> Series {
        let mut total = Counts::new();
        let length = self.window.end - self.window.start;
        let interval = self.interval;
        let intervals = self.intervals.into_iter().zip(0_u64..).map(|(counts, number)| {
            total.add(&counts);
            let start = number * interval;
            let end = (start + interval).min(length);
            Interval { start: Duration::from_nanos(start), end: Duration::from_nanos(end), counts }
        });
        let intervals = intervals.collect();
        Series { name: name.to_owned(), total, intervals }
    }
}

/// Adds `times` to a cause, if there is anything to add. Causes beyond [`MOST_CAUSES`] go under one name.
pub(crate) fn note(causes: &mut BTreeMap<String, u64>, cause: &str, times: u64) {
    if times == 0 {
        return;
    }
    let cause = if causes.len() >= MOST_CAUSES && !causes.contains_key(cause) { OTHER_CAUSES } else { cause };
    match causes.get_mut(cause) {
        Some(so_far) => *so_far += times,
        None => drop(causes.insert(cause.to_owned(), times)),
    }
}

/// Nanoseconds of a duration that a run may last.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a run lasts days at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_counts_answers_and_latency_counts_due_times_within_the_window() {
        let mut recorder = Recorder::new(2 * SECOND..4 * SECOND, live_cell());
        let mut request = |due, now| {
            recorder.timed(due, now);
            recorder.answered(now, 10, 1 << 20);
        };
        request(SECOND, 2 * SECOND + 1); // due before it, answered within
        request(3 * SECOND, 3 * SECOND + 2_000_000);
        request(4 * SECOND - 1, 9 * SECOND); // answered late: its latency is not lost
        request(4 * SECOND, 4 * SECOND + 1);
        let series = recorder.series("produce");
        assert_eq!((series.total.requests, series.total.records, series.total.bytes), (2, 20, 2 << 20));
        assert_eq!(series.total.latency.len(), 2);
        assert!(series.total.latency.max() >= 5 * SECOND);
        let parts: Vec<_> = series
            .intervals
            .iter()
            .map(|part| (part.start.as_secs(), part.end.as_secs(), part.counts.requests))
            .collect();
        assert_eq!(parts, [(0, 1, 1), (1, 2, 1)]);
        assert_eq!(series.intervals[1].counts.latency.len(), 2);
    }

    #[test]
    fn errors_and_retries_count_at_any_time_and_threads_add_up() {
        let mut one = Recorder::new(0..SECOND, live_cell());
        let mut other = Recorder::new(0..SECOND, live_cell());
        one.failed("no answer", 0);
        assert!(one.errors.is_empty());
        one.failed("no answer", 2);
        other.failed("no answer", 1);
        other.retried("connection lost", 4);
        other.answered(5, 1, 1);
        one.merge(&other);
        assert_eq!((one.errors["no answer"], one.retries["connection lost"]), (3, 4));
        assert_eq!(one.series("x").total.requests, 1);
    }

    #[test]
    fn causes_are_bounded() {
        let mut causes = BTreeMap::new();
        (0..1_000).for_each(|number| note(&mut causes, &number.to_string(), 1));
        note(&mut causes, "5", 1);
        assert_eq!((causes.len(), causes["5"], causes[OTHER_CAUSES]), (MOST_CAUSES + 1, 2, 1_000 - MOST_CAUSES as u64));
    }

    #[test]
    fn what_is_handed_over_is_everything_since_the_last_time() {
        let live = live_cell();
        let mut recorder = Recorder::new(0..SECOND, live.clone());
        recorder.answered(5, 7, 9);
        recorder.retried("x", 1);
        recorder.hand_over(LIVE_NANOS - 1);
        assert_eq!(live.lock().unwrap().counts.requests, 0);
        recorder.hand_over(LIVE_NANOS);
        recorder.hand_over(2 * LIVE_NANOS);
        let live = live.lock().unwrap();
        assert_eq!((live.counts.requests, live.counts.records, live.retries), (1, 7, 1));
    }

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut recorder = Recorder::new(0..SECOND, live_cell());
        for latency in 1..=100_000_u64 {
            recorder.timed(0, latency * 1_000);
        }
        let latency = recorder.series("x").total.latency;
        for (quantile, expected) in [(0.5, 50_000_000.0), (0.99, 99_000_000.0), (0.999, 99_900_000.0)] {
            let value = latency.value_at_quantile(quantile) as f64;
            assert!((value / expected - 1.0).abs() < 0.001, "{quantile}: {value}");
        }
    }
}
