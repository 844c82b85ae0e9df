//! The byte reader and writer of the stored formats: fixed little-endian integers, LEB128 varints with bounds, CRC-32C.
//!
//! Invariants:
//! 1. A reader never panics; every error names the position.
//! 2. A varint has one encoding only: no more bytes than its value needs, no bits beyond 64.
//! 3. A count that a reader gives out is backed by as many bytes as its elements need at least.

use super::FormatError;
use crc_fast::{CrcAlgorithm, Digest};

/// The most bytes of a 64-bit varint.
const VARINT_BYTES: usize = 10;

/// CRC-32C of one slice.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// CRC-32C of slices as if they were joined.
pub(super) fn crc32c_of_slices<'a>(slices: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    slices.into_iter().for_each(|slice| digest.update(slice));
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

/// Appends `value`, seven bits a byte, the lowest first.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed value in zigzag form.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a value that is never negative.
pub(super) fn put_natural(out: &mut Vec<u8>, value: i64) {
    put(out, u64::try_from(value).expect("offsets, epochs and producer ids are not negative"));
}

/// Reads a stored byte string from its start.
pub(super) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`, which shall hold a `what`.
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { what, bytes, position: 0 }
    }

    /// An error at the current position.
    pub(super) fn error(&self, detail: impl Into<String>) -> FormatError {
        FormatError { what: self.what, position: self.position, detail: detail.into() }
    }

    /// An error at the current position unless `holds`.
    pub(super) fn ensure(&self, holds: bool, detail: &'static str) -> Result<(), FormatError> {
        if holds { Ok(()) } else { Err(self.error(detail)) }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let Some(taken) = self.bytes[self.position..].first_chunk::<N>() else {
            return Err(self.error("ends too early"));
        };
        self.position += N;
        Ok(*taken)
    }

    /// The next `length` bytes.
    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let rest = &self.bytes[self.position..];
        let Some(taken) = rest.get(..length) else { return Err(self.error("ends too early")) };
        self.position += length;
        Ok(taken)
    }

    /// Consumes magic bytes and the version after them, which must be `version`.
    pub(super) fn magic(&mut self, magic: &[u8; 8], version: u8) -> Result<(), FormatError> {
        let found = self.array::<8>()?;
        self.ensure(found == *magic, "not the magic bytes of this format")?;
        let [found] = self.array::<1>()?;
        if found != version {
            return Err(self.error(format!("version {found}, this program reads {version}")));
        }
        Ok(())
    }

    /// A 32-bit little-endian integer.
    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    /// An unsigned varint.
    pub(super) fn varint(&mut self) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for index in 0..VARINT_BYTES {
            let Some(&byte) = self.bytes.get(self.position + index) else {
                return Err(self.error("ends within a varint"));
            };
            let low = u64::from(byte & 0x7f);
            let shift = 7 * index as u32;
            if low << shift >> shift != low || (byte == 0 && index > 0) {
                return Err(self.error("not the shortest form of a 64-bit varint"));
            }
            value |= low << shift;
            if byte < 0x80 {
                self.position += index + 1;
                return Ok(value);
            }
        }
        Err(self.error("a varint of more than 10 bytes"))
    }

    /// A signed varint in zigzag form.
    pub(super) fn signed(&mut self) -> Result<i64, FormatError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A varint that fits `T`, which may be smaller than 64 bits or signed (then it is not negative).
    pub(super) fn bounded<T: TryFrom<u64>>(&mut self) -> Result<T, FormatError> {
        let value = self.varint()?;
        T::try_from(value).map_err(|_| self.error(format!("{value} is out of range")))
    }

    /// A number of elements that take at least `element_bytes` each.
    pub(super) fn count(&mut self, element_bytes: usize) -> Result<usize, FormatError> {
        let count = self.varint()?;
        let most = (self.bytes.len() - self.position) / element_bytes;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(self.error(format!("{count} elements in too few bytes"))),
        }
    }

    /// Ends: every byte must have been read.
    pub(super) fn finish(self) -> Result<(), FormatError> {
        self.ensure(self.position == self.bytes.len(), "bytes after the end")
    }
}

/// Splits off and checks the CRC-32C (little-endian) that ends a stored byte string.
pub(super) fn split_crc<'a>(what: &'static str, bytes: &'a [u8]) -> Result<(&'a [u8], u32), FormatError> {
    let error = |detail: &str| FormatError { what, position: bytes.len(), detail: detail.into() };
    let (content, stored) = bytes.split_last_chunk::<4>().ok_or_else(|| error("ends too early"))?;
    let stored = u32::from_le_bytes(*stored);
    if crc32c(content) != stored {
        return Err(error("wrong CRC-32C"));
    }
    Ok((content, stored))
}

/// Appends the CRC-32C of everything before.
pub(super) fn put_crc(out: &mut Vec<u8>) {
    let crc = crc32c(out);
    out.extend_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(unsigned: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, unsigned);
            put_signed(&mut out, signed);
            let mut reader = Reader::new("test", &out);
            prop_assert_eq!(reader.varint(), Ok(unsigned));
            prop_assert_eq!(reader.signed(), Ok(signed));
            prop_assert_eq!(reader.finish(), Ok(()));
        }

        #[test]
        fn a_varint_has_one_form_only(bytes: [u8; 11]) {
            let mut reader = Reader::new("test", &bytes);
            if let Ok(value) = reader.varint() {
                let mut out = Vec::new();
                put(&mut out, value);
                prop_assert_eq!(&bytes[..reader.position], &out[..]);
            }
        }
    }

    #[test]
    fn bits_beyond_64_and_padding_are_refused() {
        for bad in [&[0x80, 0x00][..], &[0xff; 10], &[0x80; 3], &[]] {
            assert!(Reader::new("test", bad).varint().is_err(), "{bad:?}");
        }
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new("test", &most).varint(), Ok(u64::MAX));
    }

    #[test]
    fn a_count_is_backed_by_bytes() {
        assert_eq!(Reader::new("test", &[2, 0, 0, 0, 0]).count(2), Ok(2));
        assert!(Reader::new("test", &[3, 0, 0, 0, 0]).count(2).is_err());
    }
}
