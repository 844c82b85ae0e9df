//! When requests are due. Pure.
//!
//! 1. The due time of the n-th request depends on n and the rate alone, never on an answer: what can't be sent in time
//!    is late, not forgiven.
//! 2. Connections take turns: the n-th request belongs to connection n modulo their number, and the c-th connection to
//!    thread c modulo theirs. Threads that follow the same schedule do so without a word between them.

/// One second in nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// A fixed arrival schedule. Times are nanoseconds from the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    rate: u64,
    connections: u64,
    thread: u64,
    threads: u64,
    next: u64,
}

impl Schedule {
    /// `rate` requests a second over `connections` connections; of them those of `thread` of `threads`.
    pub(crate) fn new(rate: u64, connections: usize, thread: usize, threads: usize) -> Schedule {
        assert!(rate > 0 && thread < threads && threads <= connections, "every thread has a connection");
        let (thread, threads) = (thread as u64, threads as u64);
        Schedule { rate, connections: connections as u64, thread, threads, next: thread }
    }

    fn due(&self, number: u64) -> u64 {
        let due = u128::from(number) * u128::from(SECOND) / u128::from(self.rate);
        u64::try_from(due).expect("a run lasts days at most")
    }

    /// When the next request is due.
    pub(crate) fn next_due(&self) -> u64 {
        self.due(self.next)
    }

    /// The next request if it is due at `now`: which of the thread's connections, and when it was due.
    pub(crate) fn take(&mut self, now: u64) -> Option<(usize, u64)> {
        let due = self.next_due();
        if due > now {
            return None;
        }
        let connection = self.next % self.connections / self.threads;
        let connection = usize::try_from(connection).expect("one of the connections");
        self.next += 1;
        while self.next % self.connections % self.threads != self.thread {
            self.next += 1;
        }
        Some((connection, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken(schedule: &mut Schedule, now: u64) -> Vec<(usize, u64)> {
        std::iter::from_fn(|| schedule.take(now)).collect()
    }

    #[test]
    fn requests_missed_during_a_stall_are_due_when_they_were() {
        let mut schedule = Schedule::new(1_000, 2, 0, 1);
        assert_eq!(taken(&mut schedule, 0), [(0, 0)]);
        assert_eq!(taken(&mut schedule, 999_999), []);
        assert_eq!(taken(&mut schedule, 3_500_000), [(1, 1_000_000), (0, 2_000_000), (1, 3_000_000)]);
        assert_eq!(schedule.next_due(), 4_000_000);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let mut schedule = Schedule::new(7, 1, 0, 1);
        assert_eq!(taken(&mut schedule, 1_000 * SECOND).len(), 7_001);
        assert_eq!(schedule.next_due(), 7_001 * SECOND / 7);
    }

    #[test]
    fn threads_share_a_schedule_without_gaps_and_each_knows_its_own_connections() {
        let mut all = Vec::new();
        for thread in 0..2 {
            let mine = taken(&mut Schedule::new(1_000, 3, thread, 2), 5_000_000);
            all.extend(mine.iter().map(|(connection, due)| (*due, connection * 2 + thread)));
        }
        all.sort_unstable();
        let expected: Vec<(u64, usize)> = (0..=5).map(|number| (number * 1_000_000, number as usize % 3)).collect();
        assert_eq!(all, expected);
    }

    proptest! {
        #[test]
        fn every_interval_brings_its_share_to_every_connection(
            rate in 1..2_000_000_u64, connections in 1..100_usize, mut times in prop::collection::vec(0..SECOND / 100, 1..20)
        ) {
            times.sort_unstable();
            let mut schedule = Schedule::new(rate, connections, 0, 1);
            let mut all = Vec::new();
            for now in &times {
                all.extend(taken(&mut schedule, *now));
            }
            let last = *times.last().unwrap();
            prop_assert!(schedule.next_due() > last);
            prop_assert!(all.last().unwrap().1 <= last);
            for (number, (connection, due)) in all.iter().enumerate() {
                prop_assert_eq!(*connection, number % connections);
                prop_assert!(number == 0 || *due >= all[number - 1].1);
            }
        }
    }
}
