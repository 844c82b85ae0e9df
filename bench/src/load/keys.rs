//! Keys of records, and the partition that a key goes to. Pure.
//!
//! 1. A key always goes to the same partition, the one that Kafka's default partitioner gives it.
//! 2. Draws depend on the distribution alone: every run sends the same keys.

use std::fmt;
use std::str::FromStr;

/// Keys that a distribution has at most.
const MOST_KEYS: u64 = 1_000_000;
/// What murmur2 starts from in Kafka.
const SEED: u32 = 0x9747_b28c;
/// What draws start from.
const DRAW_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// How keys are distributed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Keys {
    /// No keys: partitions take turns.
    None,
    /// Every one of so many as often as the others.
    Uniform(u64),
    /// The n-th of so many with a weight of n to the power of minus the exponent.
    Zipf(u64, f64),
}

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Keys, String> {
        let count = |text: &str| match text.parse() {
            Ok(count @ 1..=MOST_KEYS) => Ok(count),
            _ => Err(format!("{text} is no number of keys from 1 to {MOST_KEYS}")),
        };
        match text.split(':').collect::<Vec<_>>()[..] {
            ["none"] => Ok(Keys::None),
            ["uniform", keys] => Ok(Keys::Uniform(count(keys)?)),
            ["zipf", keys, exponent] => match exponent.parse() {
                Ok(exponent) if (0.0..=10.0).contains(&exponent) => Ok(Keys::Zipf(count(keys)?, exponent)),
                _ => Err(format!("{exponent} is no exponent from 0 to 10")),
            },
            _ => Err("none, uniform:KEYS or zipf:KEYS:EXPONENT".to_owned()),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Keys::None => write!(f, "none"),
            Keys::Uniform(keys) => write!(f, "uniform:{keys}"),
            Keys::Zipf(keys, exponent) => write!(f, "zipf:{keys}:{exponent}"),
        }
    }
}

/// Draws numbers of keys without end.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    state: u64,
    keys: u64,
    /// Up to the n-th key the sum of all weights so far; empty if all weigh the same.
    sums: Vec<f64>,
}

impl Draw {
    /// Draws from a distribution that has keys.
    pub(crate) fn new(keys: Keys) -> Option<Draw> {
        let (keys, sums) = match keys {
            Keys::None => return None,
            Keys::Uniform(keys) => (keys, Vec::new()),
            Keys::Zipf(keys, exponent) => {
                let weights = (1..=keys).map(|number| (number as f64).powf(-exponent));
                let sums = weights.scan(0.0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                });
                (keys, sums.collect())
            }
        };
        Some(Draw { state: DRAW_SEED, keys, sums })
    }
}

impl Iterator for Draw {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let random = xorshift(&mut self.state);
        let Some(all) = self.sums.last() else { return Some(random % self.keys) };
        let at = random as f64 / u64::MAX as f64 * all;
        Some((self.sums.partition_point(|sum| *sum < at) as u64).min(self.keys - 1))
    }
}

/// The bytes of a key.
pub(crate) fn key(number: u64) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

/// Where Kafka's default partitioner sends a key.
pub(crate) fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// The next number of a generator whose state is not zero (xorshift64).
pub(crate) fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// MurmurHash2 with the seed that Kafka's clients use.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |last, byte| last << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_kafkas_own_tests() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (bytes, hash) in known {
            assert_eq!(murmur2(bytes) as i32, hash, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn distributions_are_read_and_printed_alike() {
        for text in ["none", "uniform:7", "zipf:100:1.1"] {
            assert_eq!(text.parse::<Keys>().unwrap().to_string(), text);
        }
        for text in ["", "uniform", "uniform:0", "uniform:1000001", "zipf:5", "zipf:5:-1", "none:1"] {
            assert!(text.parse::<Keys>().is_err(), "{text}");
        }
    }

    #[test]
    fn draws_follow_their_distribution() {
        let share = |keys, wanted| {
            let drawn = Draw::new(keys).unwrap().take(100_000).filter(|key| *key == wanted).count();
            drawn as f64 / 100_000.0
        };
        assert!((share(Keys::Uniform(4), 3) - 0.25).abs() < 0.02);
        // 1 + 1/2 + 1/3 + 1/4 = 25/12
        assert!((share(Keys::Zipf(4, 1.0), 0) - 0.48).abs() < 0.02);
        assert!((share(Keys::Zipf(4, 1.0), 3) - 0.12).abs() < 0.02);
        assert!(Draw::new(Keys::None).is_none());
    }
}
