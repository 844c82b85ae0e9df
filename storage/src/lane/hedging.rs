//! When a second put of an object that is under way is worth its price: once nearly all others would have been
//! answered, and within a budget. One slow put holds back every later commit of its lane.
//!
//! Safe by PROTOCOL.md, COMMIT: the second put carries the same bytes under the same key if-absent, so that it is what a
//! put of unknown outcome is sent again as, only earlier. Which of the two is stored decides nothing.
//!
//! Invariants:
//! 1. Of any number of puts at most the stated share, and [`BURST`] besides, is sent a second time for this reason.
//! 2. The delay follows what was observed: without experience ([`Times`]) there is no hedge.
//! 3. A store that says SlowDown gets none for [`THROTTLED_PAUSE`].

use crate::env::Mono;
use crate::object::times::Times;
use std::time::Duration;

/// Hedges that a quiet time saves up.
const BURST: u64 = 4;
/// No hedge is sent earlier: it would save less than it costs.
const LEAST_DELAY: Duration = Duration::from_millis(2);
/// After a SlowDown the store is left alone for so long.
const THROTTLED_PAUSE: Duration = Duration::from_secs(10);
/// What a hedge costs, in what one put earns at one per cent.
const PRICE: u64 = 100;

/// Budget and delay.
#[derive(Debug, Default)]
pub(super) struct Hedging {
    /// How long the last objects took from their first put on.
    times: Times,
    /// In hundredths of a hedge.
    budget: u64,
    quiet_until: Mono,
    /// Hedges sent so far.
    pub sent: u64,
    /// Of those, how many were stored before the first put was.
    pub won: u64,
}

impl Hedging {
    /// An object was put for the first time.
    pub(super) fn put(&mut self, percent: u32) {
        self.budget = (self.budget + u64::from(percent)).min(BURST * PRICE);
    }

    /// An object was stored `took` after its first put, without an error. A hedge that came first does not distort the
    /// delay: whatever it shortens had taken longer than that already.
    pub(super) fn stored(&mut self, took: Duration) {
        self.times.record(took);
    }

    /// The store said SlowDown.
    pub(super) fn throttled(&mut self, now: Mono) {
        self.quiet_until = now.plus(THROTTLED_PAUSE);
    }

    /// When an object that was first put at `sent` is worth a hedge; `None` if none can be paid.
    pub(super) fn due(&self, sent: Mono) -> Option<Mono> {
        let delay = self.times.quantiles().filter(|_| self.budget >= PRICE)?.most.max(LEAST_DELAY);
        Some(sent.plus(delay).max(self.quiet_until))
    }

    /// Pays for a hedge, which [`Hedging::due`] said can be paid.
    pub(super) fn pay(&mut self) {
        self.budget -= PRICE;
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::times::LEAST_SAMPLES;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Has seen times of 1 to 100 ms.
    fn experienced() -> Hedging {
        let mut hedging = Hedging::default();
        for n in 0..112 {
            hedging.stored(ms(1 + n * 37 % 100));
        }
        hedging
    }

    #[test]
    fn the_delay_is_what_nearly_all_objects_take() {
        let mut hedging = experienced();
        assert_eq!(hedging.due(Mono(0)), None, "nothing was put, so nothing can be paid");
        for _ in 0..20 {
            hedging.put(5);
        }
        let due = hedging.due(Mono(0)).expect("one hedge is paid for");
        assert!((Mono(0).plus(ms(93))..=Mono(0).plus(ms(97))).contains(&due), "{due:?}");
    }

    #[test]
    fn hedges_are_a_share_of_the_puts() {
        let mut hedging = experienced();
        for _ in 0..1_000 {
            hedging.put(5);
            if hedging.due(Mono(0)).is_some() {
                hedging.pay();
            }
        }
        assert_eq!(hedging.sent, 50);
        (0..1_000).for_each(|_| hedging.put(5));
        let mut saved_up = 0;
        while hedging.due(Mono(0)).is_some() {
            hedging.pay();
            saved_up += 1;
        }
        assert_eq!(saved_up, BURST);
    }

    #[test]
    fn without_experience_and_after_a_slow_down_there_is_none() {
        let mut hedging = Hedging::default();
        (0..100).for_each(|_| hedging.put(100));
        (0..LEAST_SAMPLES - 1).for_each(|_| hedging.stored(ms(10)));
        assert_eq!(hedging.due(Mono(0)), None);
        hedging.stored(ms(10));
        assert_eq!(hedging.due(Mono(0)), Some(Mono(0).plus(ms(10))));
        hedging.throttled(Mono(5));
        assert_eq!(hedging.due(Mono(0)), Some(Mono(5).plus(THROTTLED_PAUSE)));
    }
}
