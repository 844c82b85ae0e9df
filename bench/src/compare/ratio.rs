//! Ratios of paired rounds. Pure.
//!
//! 1. A ratio is of the two values of one round, which ran one after the other; values of different rounds never meet.
//! 2. The interval of the median is that of the sign test: of n ratios in order, the k-th lowest to the k-th highest
//!    enclose the median of what they are drawn from with a chance of 1 - 2·P(fewer than k of n coins show heads),
//!    whatever the distribution. It uses no randomness, and with few rounds it says honestly how little they prove.

use serde::Serialize;

/// The chance that an interval is to have, if there are rounds enough.
const WANTED: f64 = 0.95;

/// What the rounds say.
#[derive(Clone, Copy, PartialEq, Serialize, Debug)]
pub(crate) struct Ratio {
    /// The middle one.
    pub median: f64,
    /// The lowest of all rounds.
    pub least: f64,
    /// The highest of all rounds.
    pub most: f64,
    /// Lower bound of the median.
    pub low: f64,
    /// Upper bound of the median.
    pub high: f64,
    /// The chance that the bounds enclose it, 0 to 1.
    pub confidence: f64,
}

/// The middle value, or the mean of the two middle ones. Empty has none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Of the second to the first of each pair. Pairs without a ratio (a first value of 0) are left out; none left: `None`.
pub(crate) fn ratio(pairs: &[(f64, f64)]) -> Option<Ratio> {
    let ratios = pairs.iter().map(|(first, second)| second / first);
    let mut sorted: Vec<f64> = ratios.filter(|ratio| ratio.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let median = median(&sorted)?;
    let count = sorted.len();
    // The widest trim that still has the wanted chance; with few rounds, none.
    let trim = (1..count.div_ceil(2)).rev().find(|&trim| confidence(count, trim) >= WANTED).unwrap_or(0);
    Some(Ratio {
        median,
        least: sorted[0],
        most: sorted[count - 1],
        low: sorted[trim],
        high: sorted[count - 1 - trim],
        confidence: confidence(count, trim),
    })
}

/// The chance of the interval that leaves out `trim` values at each end of `count`.
fn confidence(count: usize, trim: usize) -> f64 {
    let mut chance = 0.5_f64.powi(i32::try_from(count).expect("rounds are bounded by the command line"));
    let mut below = 0.0;
    for heads in 0..=trim {
        below += chance;
        chance *= (count - heads) as f64 / (heads + 1) as f64;
    }
    (1.0 - 2.0 * below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_ratio_pairs_the_values_of_one_round() {
        let ratio = ratio(&[(1.0, 2.0), (10.0, 40.0), (100.0, 300.0)]).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (3.0, 2.0, 4.0));
        assert_eq!((ratio.low, ratio.high, ratio.confidence), (2.0, 4.0, 0.75));
    }

    #[test]
    fn confidence_is_that_of_the_published_tables_of_the_sign_test() {
        for (count, trim, expected) in
            [(1, 0, 0.0), (5, 0, 0.9375), (6, 0, 0.96875), (9, 1, 0.9609375), (12, 2, 0.961425)]
        {
            let found = confidence(count, trim);
            assert!((found - expected).abs() < 1e-6, "{count} {trim}: {found}");
        }
        let nine: Vec<_> = (1..=9).map(|n| (1.0, f64::from(n))).collect();
        let ratio = ratio(&nine).unwrap();
        assert_eq!((ratio.low, ratio.high, ratio.median), (2.0, 8.0, 5.0));
    }

    #[test]
    fn without_a_value_there_is_no_ratio() {
        assert_eq!(ratio(&[]), None);
        assert_eq!(ratio(&[(0.0, 1.0), (0.0, 0.0)]), None);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    proptest! {
        #[test]
        fn bounds_enclose_the_median_and_lie_within_the_spread(
            pairs in proptest::collection::vec((0.001_f64..1e6, 0.001_f64..1e6), 1..100),
        ) {
            let ratio = ratio(&pairs).unwrap();
            prop_assert!(ratio.least <= ratio.low && ratio.low <= ratio.median);
            prop_assert!(ratio.median <= ratio.high && ratio.high <= ratio.most);
            prop_assert!((0.0..=1.0).contains(&ratio.confidence));
            prop_assert!(pairs.len() < 6 || ratio.confidence >= WANTED);
        }
    }
}
