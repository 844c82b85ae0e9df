//! When people are told that the write-ahead store does not take what the lane sends: once per outage, not per put.
//!
//! Decides nothing about the log: that is `inflight`, which sends the same bytes until the store takes them.

use crate::env::Mono;
use std::time::Duration;

/// Puts that fail for less are the daily life of an object store.
const PATIENCE: Duration = Duration::from_secs(1);

/// What there is to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// Puts fail, and have for a while: producers wait.
    Began,
    /// One succeeded again after so long.
    Over(Duration),
}

/// The puts since the last one that succeeded.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Mono>,
    told: bool,
}

impl Outage {
    /// A put ended.
    pub(super) fn on_put(&mut self, now: Mono, succeeded: bool) -> Option<News> {
        if succeeded {
            let since = self.since.take()?;
            return std::mem::take(&mut self.told).then(|| News::Over(now.since(since)));
        }
        let since = *self.since.get_or_insert(now);
        if self.told || now.since(since) < PATIENCE {
            return None;
        }
        self.told = true;
        Some(News::Began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(tenth: u64) -> Mono {
        Mono(tenth * 100_000_000)
    }

    #[test]
    fn an_outage_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let mut outage = Outage::default();
        assert_eq!(outage.on_put(at(0), true), None);
        assert_eq!(outage.on_put(at(1), false), None);
        assert_eq!(outage.on_put(at(5), false), None);
        assert_eq!(outage.on_put(at(11), false), Some(News::Began));
        assert_eq!(outage.on_put(at(30), false), None);
        assert_eq!(outage.on_put(at(41), true), Some(News::Over(Duration::from_secs(4))));
        assert_eq!(outage.on_put(at(42), true), None);
    }

    #[test]
    fn puts_that_fail_now_and_then_are_not_told() {
        let mut outage = Outage::default();
        for second in 0..10 {
            assert_eq!(outage.on_put(at(10 * second), false), None);
            assert_eq!(outage.on_put(at(10 * second + 5), true), None);
        }
    }
}
