//! Kafka's primitive types: read from a frame without copying, written into a list of slices without joining.
//!
//! 1. Reading never panics, whatever the bytes.
//! 2. A length or count is compared with the bytes left before anything is allocated for it, and what all elements of
//!    a frame take in memory stays below [`decoded_bound`].
//! 3. Strings, bytes and record sets are slices of the frame; those written keep their own slices in the output when
//!    they are worth one.
//!
//! Does not know messages or versions: see `codec`.

use crate::double::Double;
use crate::string::StrBytes;
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::{Deref, DerefMut, Range};
use thiserror::Error;
use uuid::Uuid;

/// Bytes of at least this length leave as a slice of their own; shorter ones are copied between the small fields, which
/// costs less than one more entry in the socket's scatter list.
const WORTH_A_SLICE: usize = 1024;

/// The most bytes that an unsigned 32-bit varint takes.
const MAX_UVARINT_BYTES: usize = 5;

/// Memory that the elements of any frame may take, in bytes: small frames never meet a bound.
const DECODED_FLOOR: usize = 1 << 20;

/// Memory that elements may take for each byte of the frame, in bytes. Without this bound a frame of empty strings
/// would grow 32 times; real messages need less than 6.
const DECODED_PER_BYTE: usize = 8;

/// The most memory that the elements of a frame of this length take, in bytes. Strings and byte fields take none of it:
/// they are slices of the frame.
pub const fn decoded_bound(frame_bytes: usize) -> usize {
    DECODED_FLOOR.saturating_add(frame_bytes.saturating_mul(DECODED_PER_BYTE))
}

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{kind} in {field} at byte {at}")]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// `Struct.field` being read, empty outside of messages.
    pub field: &'static str,
    /// Position in the frame, after its length prefix.
    pub at: usize,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The field goes beyond the end of the frame.
    #[error("{wanted} bytes wanted and {left} left")]
    TooShort {
        /// Bytes that the field needs.
        wanted: usize,
        /// Bytes that the frame still has.
        left: usize,
    },
    /// The elements cannot fit into the rest of the frame.
    #[error("{count} elements claimed and {left} bytes left")]
    TooMany {
        /// Elements claimed.
        count: usize,
        /// Bytes that the frame still has.
        left: usize,
    },
    /// The elements would take more memory than the frame justifies.
    #[error("{needed} bytes of memory needed for elements and {left} allowed")]
    TooLarge {
        /// Bytes that the next elements would take.
        needed: usize,
        /// Bytes left of [`decoded_bound`].
        left: usize,
    },
    /// More topics and partitions of a produce request carry no batch than this.
    #[error("more than {0} topics and partitions without a batch")]
    WithoutBatch(usize),
    /// A string above 32,767 bytes.
    #[error("string of {0} bytes")]
    LongString(usize),
    /// A varint above 32 bits.
    #[error("varint too long")]
    LongVarint,
    /// Null where this version allows none.
    #[error("null not allowed")]
    Null,
    /// A string that is not UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// A known tagged field of a length other than announced.
    #[error("tagged field has another length than announced")]
    TagLength,
    /// A version outside of those declared.
    #[error("version {0} unknown")]
    Version(i16),
    /// An API key that Kafka 4.4 does not know.
    #[error("API key {0} unknown")]
    ApiKey(i16),
}

/// Why a message has no form in a version: a mistake of the program, not of its peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{kind} in {field}")]
pub struct EncodeError {
    /// What is wrong.
    pub kind: EncodeErrorKind,
    /// `Struct.field` being written.
    pub field: &'static str,
}

/// What is wrong with the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum EncodeErrorKind {
    /// Longer than its length field can say.
    #[error("too long")]
    TooLong,
    /// A value that matters in a field that this version lacks.
    #[error("no such field in version {0}")]
    NotInVersion(i16),
    /// Null where this version allows none.
    #[error("null not allowed")]
    Null,
    /// A version outside of those declared.
    #[error("version {0} unknown")]
    Version(i16),
}

/// Reads primitives from borrowed bytes.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    field: &'static str,
}

/// Reads a fixed-width big-endian number.
macro_rules! read_number {
    ($(#[$doc:meta])* $name:ident, $type:ty) => {
        $(#[$doc])*
        pub fn $name(&mut self) -> Result<$type, DecodeError> {
            self.array().map(<$type>::from_be_bytes)
        }
    };
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0, field: "" }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Names the field that errors from here on speak of.
    pub fn enter(&mut self, field: &'static str) {
        self.field = field;
    }

    /// An error of `kind` here.
    pub fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { kind, field: self.field, at: self.at }
    }

    /// Goes over `length` bytes and says where they are in the frame.
    pub fn range(&mut self, length: usize) -> Result<Range<usize>, DecodeError> {
        let left = self.remaining();
        if length > left {
            return Err(self.error(DecodeErrorKind::TooShort { wanted: length, left }));
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    /// The next `length` bytes.
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        self.range(length).map(|range| &self.bytes[range])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N).map(|bytes| bytes.try_into().expect("take returns N bytes"))
    }

    read_number!(
        /// INT8.
        i8, i8
    );
    read_number!(
        /// INT16.
        i16, i16
    );
    read_number!(
        /// UINT16.
        u16, u16
    );
    read_number!(
        /// INT32.
        i32, i32
    );
    read_number!(
        /// INT64.
        i64, i64
    );

    /// FLOAT64.
    pub fn f64(&mut self) -> Result<Double, DecodeError> {
        self.array().map(|bytes| Double(f64::from_be_bytes(bytes)))
    }

    /// BOOLEAN: any byte but 0 is true.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// UUID.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.array().map(Uuid::from_bytes)
    }

    /// UNSIGNED_VARINT.
    pub fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for index in 0..MAX_UVARINT_BYTES {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if index == MAX_UVARINT_BYTES - 1 && byte > 0x0f {
                break;
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(DecodeErrorKind::LongVarint))
    }

    /// The length before a string, `None` for null.
    pub fn string_length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if !flexible {
            return Ok(usize::try_from(self.i16()?).ok());
        }
        match self.compact_length()? {
            // KIP-482 keeps the old bound of strings.
            Some(length) if length > i16::MAX as usize => Err(self.error(DecodeErrorKind::LongString(length))),
            length => Ok(length),
        }
    }

    /// The length before bytes or a record set, or the count before an array; `None` for null.
    pub fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        // Any negative number is null, as in Kafka.
        if flexible { self.compact_length() } else { Ok(usize::try_from(self.i32()?).ok()) }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    /// The count before an array whose elements take `min_element` bytes at least, checked against the bytes left;
    /// `None` for null.
    pub fn count(&mut self, flexible: bool, min_element: usize) -> Result<Option<usize>, DecodeError> {
        let Some(count) = self.length(flexible)? else { return Ok(None) };
        self.check_count(count, min_element)?;
        Ok(Some(count))
    }

    fn check_count(&self, count: usize, min_element: usize) -> Result<(), DecodeError> {
        let left = self.remaining();
        if count > left / min_element.max(1) {
            return Err(self.error(DecodeErrorKind::TooMany { count, left }));
        }
        Ok(())
    }

    /// A string that may be null, borrowed.
    pub fn nullable_str(&mut self, flexible: bool) -> Result<Option<&'a str>, DecodeError> {
        let Some(length) = self.string_length(flexible)? else { return Ok(None) };
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| self.error(DecodeErrorKind::NotUtf8))
    }

    /// Goes over a section of tagged fields of which none is known.
    pub fn skip_tags(&mut self) -> Result<(), DecodeError> {
        for _ in 0..self.tag_count()? {
            let (_, length) = self.tag()?;
            self.range(length)?;
        }
        Ok(())
    }

    /// How many tagged fields follow.
    pub fn tag_count(&mut self) -> Result<usize, DecodeError> {
        /// A tag and a length.
        const MIN_TAGGED_FIELD: usize = 2;
        let count = self.uvarint()? as usize;
        self.check_count(count, MIN_TAGGED_FIELD)?;
        Ok(count)
    }

    /// The head of a tagged field: its tag and the length of its value, which is within the frame.
    pub fn tag(&mut self) -> Result<(u32, usize), DecodeError> {
        let tag = self.uvarint()?;
        let length = self.uvarint()? as usize;
        let left = self.remaining();
        if length > left {
            return Err(self.error(DecodeErrorKind::TooShort { wanted: length, left }));
        }
        Ok((tag, length))
    }
}

/// Reads a frame; what it hands out shares the frame's memory.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    cursor: Cursor<'a>,
    /// Bytes of memory that elements may still take.
    allowance: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of a frame whose length prefix is already off.
    pub fn new(frame: &'a Bytes) -> Self {
        Reader { frame, cursor: Cursor::new(frame), allowance: decoded_bound(frame.len()) }
    }

    /// Accounts for `needed` bytes of memory that elements are about to take.
    pub(crate) fn charge(&mut self, needed: usize) -> Result<(), DecodeError> {
        let left = self.allowance;
        self.allowance =
            left.checked_sub(needed).ok_or_else(|| self.error(DecodeErrorKind::TooLarge { needed, left }))?;
        Ok(())
    }

    /// The next `length` bytes as a slice of the frame.
    pub fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        let range = self.range(length)?;
        Ok(self.frame.slice(range))
    }

    /// A string that may be null, as a slice of the frame.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<StrBytes>, DecodeError> {
        let Some(length) = self.string_length(flexible)? else { return Ok(None) };
        let bytes = self.slice(length)?;
        StrBytes::from_utf8(bytes).map(Some).map_err(|_| self.error(DecodeErrorKind::NotUtf8))
    }

    /// Bytes or a record set that may be null, as a slice of the frame.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.length(flexible)? else { return Ok(None) };
        self.slice(length).map(Some)
    }
}

/// A reader is a cursor that also hands out slices.
impl<'a> Deref for Reader<'a> {
    type Target = Cursor<'a>;

    fn deref(&self) -> &Cursor<'a> {
        &self.cursor
    }
}

impl DerefMut for Reader<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.cursor
    }
}

/// Writes primitives: small fields into one buffer, long bytes as slices between its parts.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    small: BytesMut,
    /// Slices and where in `small` each belongs, ascending.
    slices: Vec<(usize, Bytes)>,
    slice_bytes: usize,
    field: &'static str,
}

impl Writer {
    /// An empty output.
    pub fn new() -> Self {
        Writer::default()
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.small.len() + self.slice_bytes
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An empty output with room for `bytes` of small fields.
    pub fn with_capacity(bytes: usize) -> Self {
        Writer { small: BytesMut::with_capacity(bytes), ..Writer::default() }
    }

    /// Names the field that errors from here on speak of.
    pub fn enter(&mut self, field: &'static str) {
        self.field = field;
    }

    /// An error of `kind` here.
    pub fn error(&self, kind: EncodeErrorKind) -> EncodeError {
        EncodeError { kind, field: self.field }
    }

    /// INT8.
    pub fn i8(&mut self, value: i8) {
        self.small.put_i8(value);
    }

    /// INT16.
    pub fn i16(&mut self, value: i16) {
        self.small.put_i16(value);
    }

    /// UINT16.
    pub fn u16(&mut self, value: u16) {
        self.small.put_u16(value);
    }

    /// INT32.
    pub fn i32(&mut self, value: i32) {
        self.small.put_i32(value);
    }

    /// INT64.
    pub fn i64(&mut self, value: i64) {
        self.small.put_i64(value);
    }

    /// FLOAT64.
    pub fn f64(&mut self, value: Double) {
        self.small.put_f64(value.0);
    }

    /// BOOLEAN.
    pub fn bool(&mut self, value: bool) {
        self.small.put_u8(u8::from(value));
    }

    /// UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.small.put_slice(value.as_bytes());
    }

    /// UNSIGNED_VARINT.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.small.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.small.put_u8(value as u8);
    }

    /// The bytes as they are, as a slice of their own if they are long.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() < WORTH_A_SLICE {
            self.small.put_slice(bytes);
        } else {
            self.slices.push((self.small.len(), bytes.clone()));
            self.slice_bytes += bytes.len();
        }
    }

    /// A string, or null.
    pub fn string(&mut self, value: Option<&StrBytes>, flexible: bool) -> Result<(), EncodeError> {
        let length = match value {
            // KIP-482 keeps the old bound of strings.
            Some(text) => Some(i16::try_from(text.len()).map_err(|_| self.error(EncodeErrorKind::TooLong))?),
            None => None,
        };
        if flexible {
            self.uvarint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.i16(length.unwrap_or(-1));
        }
        if let Some(text) = value {
            self.raw(text.as_bytes());
        }
        Ok(())
    }

    /// Bytes or a record set, or null.
    pub fn bytes(&mut self, value: Option<&Bytes>, flexible: bool) -> Result<(), EncodeError> {
        self.length(value.map(Bytes::len), flexible)?;
        if let Some(bytes) = value {
            self.raw(bytes);
        }
        Ok(())
    }

    /// The length before bytes or a record set, or the count before an array; `None` for null.
    pub fn length(&mut self, length: Option<usize>, flexible: bool) -> Result<(), EncodeError> {
        let length = match length {
            Some(length) => i32::try_from(length).map_err(|_| self.error(EncodeErrorKind::TooLong))?,
            None => -1,
        };
        if flexible {
            self.uvarint(length.wrapping_add(1) as u32);
        } else {
            self.i32(length);
        }
        Ok(())
    }

    /// Appends a tagged field: tag, length and what `value` holds.
    pub fn tagged(&mut self, tag: u32, value: Writer) -> Result<(), EncodeError> {
        let length = u32::try_from(value.len()).map_err(|_| self.error(EncodeErrorKind::TooLong))?;
        self.uvarint(tag);
        self.uvarint(length);
        self.append(value);
        Ok(())
    }

    fn append(&mut self, other: Writer) {
        let offset = self.small.len();
        self.small.extend_from_slice(&other.small);
        self.slices.extend(other.slices.into_iter().map(|(at, bytes)| (offset + at, bytes)));
        self.slice_bytes += other.slice_bytes;
    }

    /// Puts `value` over the four bytes at `at`, which were written before any slice.
    pub(crate) fn set_i32(&mut self, at: usize, value: i32) {
        assert!(self.slices.first().is_none_or(|(slice_at, _)| *slice_at >= at + 4), "four small bytes stand at {at}");
        self.small[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// The output, in order, no part empty.
    pub fn finish(self) -> Vec<Bytes> {
        let mut rest = self.small.freeze();
        let mut parts = Vec::with_capacity(2 * self.slices.len() + 1);
        let mut cut = 0;
        for (at, slice) in self.slices {
            let small = rest.split_to(at - cut);
            cut = at;
            if !small.is_empty() {
                parts.push(small);
            }
            parts.push(slice);
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
        parts
    }

    /// The output in one piece: for tests and for short values.
    pub fn concat(self) -> Bytes {
        let mut parts = self.finish();
        if parts.len() == 1 {
            return parts.remove(0);
        }
        parts.concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_read_back_up_to_32_bits_and_refused_above() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX - 1, u32::MAX] {
            let mut writer = Writer::new();
            writer.uvarint(value);
            let bytes = writer.concat();
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.uvarint(), Ok(value));
            assert_eq!(cursor.remaining(), 0);
        }
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0x10], [0x80, 0x80, 0x80, 0x80, 0x80]] {
            assert_eq!(Cursor::new(&bytes).uvarint().unwrap_err().kind, DecodeErrorKind::LongVarint);
        }
    }

    #[test]
    fn an_error_names_the_field_and_the_position() {
        let mut cursor = Cursor::new(&[0, 0, 0, 1, 0]);
        cursor.enter("Struct.field");
        cursor.i32().unwrap();
        let error = cursor.i32().unwrap_err();
        assert_eq!(error.to_string(), "4 bytes wanted and 1 left in Struct.field at byte 4");
    }

    #[test]
    fn strings_too_long_for_their_length_are_refused_both_ways() {
        let text = StrBytes::from("a".repeat(40_000));
        assert_eq!(Writer::new().string(Some(&text), true).unwrap_err().kind, EncodeErrorKind::TooLong);
        let mut writer = Writer::new();
        writer.uvarint(40_001);
        writer.raw(text.as_bytes());
        let frame = writer.concat();
        let error = Reader::new(&frame).nullable_string(true).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::LongString(40_000));
    }

    #[test]
    fn slices_stay_in_their_places_between_small_fields() {
        let long = Bytes::from(vec![9; WORTH_A_SLICE]);
        let mut writer = Writer::new();
        writer.raw(&long);
        writer.i8(1);
        writer.raw(&long);
        writer.raw(&long);
        writer.i8(2);
        assert_eq!(writer.len(), 3 * WORTH_A_SLICE + 2);
        let parts = writer.finish();
        let lengths: Vec<_> = parts.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [WORTH_A_SLICE, 1, WORTH_A_SLICE, WORTH_A_SLICE, 1]);
        assert_eq!((parts[1][0], parts[4][0]), (1, 2));
    }

    #[test]
    fn a_tagged_value_keeps_its_slices() {
        let long = Bytes::from(vec![9; WORTH_A_SLICE]);
        let mut value = Writer::new();
        value.i8(1);
        value.raw(&long);
        let mut writer = Writer::new();
        writer.i8(0);
        writer.tagged(3, value).unwrap();
        let parts = writer.finish();
        assert_eq!(parts[0].as_ref(), [0, 3, 0x81, 0x08, 1]);
        assert_eq!(parts[1].as_ptr(), long.as_ptr());
    }
}
