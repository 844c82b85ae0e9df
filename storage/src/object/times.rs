//! How long the last operations of one kind took: the newest [`SAMPLES`], and quantiles of them.
//!
//! Pure. Quantiles are derived again after every [`RENEW_AFTER`] times, and only from [`LEAST_SAMPLES`] on: whoever acts
//! upon them acts upon experience.

use std::time::Duration;

/// Times that are remembered.
const SAMPLES: usize = 256;
/// Nothing is derived from fewer.
pub(crate) const LEAST_SAMPLES: usize = 16;
/// Quantiles are derived again after so many.
const RENEW_AFTER: u64 = 16;

/// Within what time how many operations ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Quantiles {
    /// Half of them.
    pub(crate) half: Duration,
    /// 95 of a hundred.
    pub(crate) most: Duration,
    /// 99 of a hundred.
    pub(crate) nearly_all: Duration,
}

/// The last times of one kind of operation.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// A ring.
    times: Vec<Duration>,
    seen: u64,
    quantiles: Option<Quantiles>,
}

impl Times {
    /// One more operation took so long.
    pub(crate) fn record(&mut self, took: Duration) {
        if self.times.len() < SAMPLES {
            self.times.push(took);
        } else {
            self.times[(self.seen % SAMPLES as u64) as usize] = took;
        }
        self.seen += 1;
        if self.times.len() >= LEAST_SAMPLES && self.seen.is_multiple_of(RENEW_AFTER) {
            let mut sorted = self.times.clone();
            sorted.sort_unstable();
            let at = |percent: usize| sorted[sorted.len() * percent / 100];
            self.quantiles = Some(Quantiles { half: at(50), most: at(95), nearly_all: at(99) });
        }
    }

    /// What they tell; `None` while they are too few.
    pub(crate) fn quantiles(&self) -> Option<Quantiles> {
        self.quantiles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_newest_times_once_there_are_enough() {
        let ms = Duration::from_millis;
        let mut times = Times::default();
        (0..LEAST_SAMPLES - 1).for_each(|_| times.record(ms(7)));
        assert_eq!(times.quantiles(), None);
        times.record(ms(7));
        assert_eq!(times.quantiles(), Some(Quantiles { half: ms(7), most: ms(7), nearly_all: ms(7) }));
        (0..SAMPLES as u64).for_each(|n| times.record(ms(1 + n * 37 % 100)));
        let told = times.quantiles().unwrap();
        assert!((ms(48)..=ms(53)).contains(&told.half), "{told:?}");
        assert!((ms(93)..=ms(97)).contains(&told.most), "{told:?}");
        assert!((ms(98)..=ms(100)).contains(&told.nearly_all), "the sevens have left: {told:?}");
    }
}
