//! Fields of an encoded batch that differ by request, set without reading the batch again.
//!
//! A CRC is linear: what a changed bit does to it depends on how far that bit is from the end, not on any other byte. So
//! the effect of each value of each byte of a field is computed once, and setting the field costs as many look-ups as
//! it has bytes, however large the batch is.
//!
//! 1. The field is zero where it is set for the first time; the CRC that is given belongs to that.

/// A field of `WIDTH` bytes.
#[derive(Clone, Debug)]
pub(crate) struct Patch<const WIDTH: usize> {
    effects: Box<[[u32; 256]; WIDTH]>,
}

impl<const WIDTH: usize> Patch<WIDTH> {
    /// A field at byte `at` of `length` bytes that a CRC-32C covers.
    pub(crate) fn new(length: usize, at: usize) -> Patch<WIDTH> {
        let mut bytes = vec![0; length];
        let base = crc_fast::crc32_iscsi(&bytes);
        let mut effects = Box::new([[0; 256]; WIDTH]);
        for (position, effects) in effects.iter_mut().enumerate() {
            let mut bit = |bit: u32| {
                bytes[at + position] = 1 << bit;
                let effect = crc_fast::crc32_iscsi(&bytes) ^ base;
                bytes[at + position] = 0;
                effect
            };
            let bits: [u32; 8] = std::array::from_fn(|number| bit(number as u32));
            for (value, effect) in effects.iter_mut().enumerate() {
                *effect = (0..8).filter(|bit| value >> bit & 1 == 1).fold(0, |sum, bit| sum ^ bits[bit]);
            }
        }
        Patch { effects }
    }

    /// What setting the field to `value` does to the CRC.
    pub(crate) fn effect(&self, value: &[u8; WIDTH]) -> u32 {
        self.effects.iter().zip(value).fold(0, |sum, (effects, byte)| sum ^ effects[usize::from(*byte)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_crc_is_that_of_the_changed_bytes(
            mut bytes in prop::collection::vec(any::<u8>(), 8..300), value: [u8; 8], at: prop::sample::Index
        ) {
            let at = at.index(bytes.len() - 7);
            bytes[at..at + 8].fill(0);
            let before = crc_fast::crc32_iscsi(&bytes);
            let patch = Patch::<8>::new(bytes.len(), at);
            bytes[at..at + 8].copy_from_slice(&value);
            prop_assert_eq!(before ^ patch.effect(&value), crc_fast::crc32_iscsi(&bytes));
        }
    }
}
