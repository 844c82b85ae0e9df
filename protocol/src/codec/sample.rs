//! Random messages for tests: every field of the version gets a value, now and then null, empty or extreme.

use super::{Nullable, Version};
use crate::double::Double;
use crate::error_code::ErrorCode;
use crate::record_set::RecordSet;
use crate::string::StrBytes;
use bytes::Bytes;
use uuid::Uuid;

/// A source of random numbers with a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Sampler(pub(crate) u64);

impl Sampler {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// A type with random values.
pub(crate) trait Sample {
    /// A value that exists in `version`.
    fn sample(sampler: &mut Sampler, version: Version) -> Self;
}

macro_rules! sample_numbers {
    ($($type:ty),*) => {
        $(impl Sample for $type {
            fn sample(sampler: &mut Sampler, _: Version) -> Self {
                match sampler.below(8) {
                    0 => 0,
                    1 => -1,
                    2 => <$type>::MIN,
                    3 => <$type>::MAX,
                    _ => sampler.next() as $type,
                }
            }
        })*
    };
}

sample_numbers!(i8, i16, i32, i64);

impl Sample for u16 {
    fn sample(sampler: &mut Sampler, version: Version) -> Self {
        i16::sample(sampler, version).cast_unsigned()
    }
}

impl Sample for Double {
    fn sample(sampler: &mut Sampler, version: Version) -> Self {
        Double(f64::from_bits(i64::sample(sampler, version).cast_unsigned()))
    }
}

impl Sample for bool {
    fn sample(sampler: &mut Sampler, _: Version) -> Self {
        sampler.below(2) == 0
    }
}

impl Sample for Uuid {
    fn sample(sampler: &mut Sampler, _: Version) -> Self {
        Uuid::from_u64_pair(sampler.next(), sampler.next())
    }
}

impl Sample for ErrorCode {
    fn sample(sampler: &mut Sampler, _: Version) -> Self {
        ErrorCode::ALL[sampler.below(ErrorCode::ALL.len())]
    }
}

impl Sample for StrBytes {
    fn sample(sampler: &mut Sampler, _: Version) -> Self {
        const ALPHABET: [char; 8] = ['a', 'Z', '0', '.', '_', '-', 'ß', '漢'];
        let length = if sampler.below(16) == 0 { 300 } else { sampler.below(12) };
        (0..length).map(|_| ALPHABET[sampler.below(ALPHABET.len())]).collect::<String>().into()
    }
}

impl Sample for Bytes {
    fn sample(sampler: &mut Sampler, _: Version) -> Self {
        // Long enough now and then for a slice of its own.
        let length = if sampler.below(8) == 0 { 1500 } else { sampler.below(40) };
        (0..length).map(|_| sampler.next() as u8).collect()
    }
}

impl Sample for RecordSet {
    fn sample(sampler: &mut Sampler, version: Version) -> Self {
        (0..sampler.below(3)).map(|_| Bytes::sample(sampler, version)).collect()
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(sampler: &mut Sampler, version: Version) -> Self {
        (0..sampler.below(4)).map(|_| T::sample(sampler, version)).collect()
    }
}

impl<T: Sample + Nullable> Sample for Option<T> {
    fn sample(sampler: &mut Sampler, version: Version) -> Self {
        if sampler.below(4) == 0 { None } else { Some(T::sample(sampler, version)) }
    }
}
