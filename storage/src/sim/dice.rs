//! Seeded randomness of a run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::ops::Range;
use std::time::Duration;

/// A probability in parts per ten thousand.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Chance(pub u32);

impl Chance {
    /// Never.
    pub const NEVER: Chance = Chance(0);
    /// What `Chance` counts in.
    pub const WHOLE: u32 = 10_000;
}

/// A stream of random values that its seed determines.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice(ChaCha8Rng::seed_from_u64(seed))
    }
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }
    /// A number of `range`, which is not empty. (The bias of the remainder does not matter to tests.)
    pub fn below(&mut self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "a choice of nothing");
        range.start + self.bits() % (range.end - range.start)
    }
    /// An index into something of `length` > 0 elements.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(0..length as u64) as usize
    }
    /// Whether something of this probability happens now.
    pub fn happens(&mut self, chance: Chance) -> bool {
        // Draws also for 0, so that changing one probability leaves the stream of the others aligned.
        self.below(0..u64::from(Chance::WHOLE)) < u64::from(chance.0)
    }
    /// A duration of `range`, with short ones much likelier than long ones, as latencies are.
    pub fn latency(&mut self, range: &Range<Duration>) -> Duration {
        let span = range.end.saturating_sub(range.start).as_nanos() as u64;
        let part = self.below(0..1 << 20);
        // The cube of a uniform value: the median is an eighth of the span.
        let cubed = ((u128::from(part) * u128::from(part) * u128::from(part)) >> 40) as u64;
        range.start + Duration::from_nanos(((u128::from(span) * u128::from(cubed)) >> 20) as u64)
    }
}
