//! How far a client is ahead of its quota, and for how long it must pause: a bucket that fills with what the client sends
//! and drains at the rate of its quota.
//!
//! It holds [`BURST_SECONDS`] before it runs over: what Kafka lets pass at once, whose windows of a second count for
//! eleven. Those forget what is owed after that time, so that whoever sends more than eleven seconds' worth at a time gets past
//! its quota there. A bucket forgets nothing.
//!
//! Invariants:
//! 1. Whoever pauses as told stays within rate × (time + [`BURST_SECONDS`]) and the last request.
//! 2. A bucket that has drained equals a new one.

use millrace_storage::env::Mono;
use std::time::Duration;

/// Seconds' worth that pass at once.
pub const BURST_SECONDS: u64 = 10;

const SECOND_NS: u128 = 1_000_000_000;

/// What one client, or those who are counted together, sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meter {
    /// Bytes in the bucket at `at`.
    level: u64,
    at: Mono,
    /// Bytes a second, as last told.
    rate: u64,
}

impl Meter {
    /// Counts bytes of a client with this quota, in bytes a second; how long it must pause.
    pub fn count(&mut self, now: Mono, rate: u64, bytes: u64) -> Duration {
        let rate = rate.max(1);
        // What drained before drained at the rate of that time.
        *self = Meter { level: self.level_at(now).saturating_add(bytes), at: now.max(self.at), rate };
        let above = self.level.saturating_sub(rate.saturating_mul(BURST_SECONDS));
        let wait = u128::from(above) * SECOND_NS / u128::from(rate);
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// Whether nothing is left in it.
    pub fn is_drained(&self, now: Mono) -> bool {
        self.level_at(now) == 0
    }

    fn level_at(&self, now: Mono) -> u64 {
        let drained = now.since(self.at).as_nanos() * u128::from(self.rate) / SECOND_NS;
        self.level.saturating_sub(u64::try_from(drained).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn ten_seconds_worth_pass_at_once_and_what_is_above_is_waited_for() {
        let mut meter = Meter::default();
        assert_eq!(meter.count(at(0), 1_000, 10_000), Duration::ZERO);
        assert_eq!(meter.count(at(0), 1_000, 1_500), Duration::from_millis(1_500));
        assert_eq!(meter.count(at(1_000), 1_000, 0), Duration::from_millis(500));
        assert_eq!(meter.count(at(1_500), 1_000, 0), Duration::ZERO);
        assert!(!meter.is_drained(at(11_499)) && meter.is_drained(at(11_500)));
        assert_eq!(meter.count(at(60_000), 1_000, 11_000), Duration::from_secs(1), "nothing is saved up");
    }

    #[test]
    fn a_changed_rate_counts_from_then_on() {
        let mut meter = Meter::default();
        meter.count(at(0), 1_000, 10_000);
        assert_eq!(meter.count(at(5_000), 100, 0), Duration::from_secs(40), "5,000 are left, 1,000 may be");
        assert_eq!(meter.count(at(5_000), 0, 0), Duration::from_secs(4_990), "no rate is one byte");
        assert_eq!(meter.count(at(5_000), u64::MAX, u64::MAX), Duration::ZERO);
        assert_eq!(Meter::default().count(at(0), 1, u64::MAX), Duration::from_nanos(u64::MAX));
    }

    proptest! {
        #[test]
        fn who_pauses_as_told_stays_within_the_rate(
            rate in 100_u64..10_000,
            steps in prop::collection::vec((1_u64..20_000, 0_u64..3_000), 1..200),
        ) {
            let mut meter = Meter::default();
            let (mut now, mut sent, mut last) = (0, 0, 0);
            for (bytes, idle_ms) in steps {
                now += idle_ms;
                let allowed = rate * (now + 1_000 * BURST_SECONDS) / 1_000;
                prop_assert!(sent <= allowed + last, "{sent} of {allowed} at {now}");
                let wait = meter.count(at(now), rate, bytes);
                (sent, last) = (sent + bytes, bytes);
                now += u64::try_from(wait.as_millis()).unwrap() + 1;
            }
        }

        #[test]
        fn who_sends_all_it_may_gets_its_rate(rate in 100_u64..10_000, sizes in prop::collection::vec(1_u64..20_000, 1..200)) {
            let mut meter = Meter::default();
            let (mut now, mut sent, mut rounded) = (0, 0, 0);
            for bytes in sizes {
                let wait = meter.count(at(now), rate, bytes);
                sent += bytes;
                if !wait.is_zero() {
                    rounded += 1;
                    now += u64::try_from(wait.as_millis()).unwrap() + 1;
                }
                prop_assert!(sent >= rate * now.saturating_sub(rounded) / 1_000, "{sent} at {now}");
            }
        }
    }
}
