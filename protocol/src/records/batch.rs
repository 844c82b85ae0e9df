//! [`RecordBatch`]: the fields of a batch where they stand.
//!
//! 1. A view holds exactly the bytes of one batch of magic 2: no less than [`HEADER_BYTES`], as many as its length says.
//!    Nothing else about it is checked here.

use super::{BatchError, Records};
use std::ops::Range;

/// Bytes before the records of a batch.
pub const HEADER_BYTES: usize = 61;
/// Bytes that the length field does not count: base offset and the length itself.
pub const LENGTH_OVERHEAD: usize = 12;
/// Bytes up to and with the magic byte, which stands at the same place in every format since Kafka 0.
const UP_TO_MAGIC: usize = 17;
/// The shortest message of magic 0, by its length field.
const LEAST_LENGTH: i32 = 14;

pub(super) const BASE_OFFSET: Range<usize> = 0..8;
const LENGTH: Range<usize> = 8..12;
pub(super) const LEADER_EPOCH: Range<usize> = 12..16;
const MAGIC: usize = 16;
pub(super) const CRC: Range<usize> = 17..21;
pub(super) const ATTRIBUTES: Range<usize> = 21..23;
const LAST_OFFSET_DELTA: Range<usize> = 23..27;
const BASE_TIMESTAMP: Range<usize> = 27..35;
pub(super) const MAX_TIMESTAMP: Range<usize> = 35..43;
const PRODUCER_ID: Range<usize> = 43..51;
const PRODUCER_EPOCH: Range<usize> = 51..53;
const BASE_SEQUENCE: Range<usize> = 53..57;
const COUNT: Range<usize> = 57..61;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names of the codecs")]
pub enum Compression {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// What a batch's timestamps mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, the same for all records: the batch's max timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    /// Bit of [`TimestampType::LogAppendTime`].
    pub const LOG_APPEND_TIME: i16 = 1 << 3;
    /// Bit of a transactional batch.
    pub const TRANSACTIONAL: i16 = 1 << 4;
    /// Bit of a control batch.
    pub const CONTROL: i16 = 1 << 5;

    /// The codec, if it exists.
    pub fn compression(self) -> Result<Compression, BatchError> {
        match self.0 & 7 {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(BatchError::UnknownCompression(other as u8)),
        }
    }
    /// What the timestamps mean.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }
    /// Whether it belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }
    /// Whether it holds control records.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }
}

/// A batch of magic 2 where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordBatch<'a>(&'a [u8]);

impl<'a> RecordBatch<'a> {
    /// The first batch of `bytes` and what follows it; `None` if there is no whole one, as Kafka does for what a broken
    /// connection or a full response has cut.
    ///
    /// # Errors
    /// [`BatchError::Framing`] and [`BatchError::OldMagic`].
    pub fn split(bytes: &'a [u8]) -> Result<Option<(RecordBatch<'a>, &'a [u8])>, BatchError> {
        if bytes.len() < LENGTH_OVERHEAD {
            return Ok(None);
        }
        let length = i32::from_be_bytes(array(bytes, LENGTH));
        if length < LEAST_LENGTH {
            return Err(BatchError::Framing { length, magic: -1 });
        }
        if bytes.len() < UP_TO_MAGIC {
            return Ok(None);
        }
        let magic = bytes[MAGIC] as i8;
        if !(0..=2).contains(&magic) {
            return Err(BatchError::Framing { length, magic });
        }
        let whole = LENGTH_OVERHEAD + length.unsigned_abs() as usize;
        if bytes.len() < whole {
            return Ok(None);
        }
        if magic < 2 {
            return Err(BatchError::OldMagic(magic));
        }
        if whole < HEADER_BYTES {
            return Err(BatchError::Framing { length, magic });
        }
        let (batch, rest) = bytes.split_at(whole);
        Ok(Some((RecordBatch(batch), rest)))
    }

    /// All its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }
    /// Offset of its first record.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(array(self.0, BASE_OFFSET))
    }
    /// Offset of its last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset().wrapping_add(self.last_offset_delta().into())
    }
    /// Epoch of the leader that appended it; −1 from a producer. Outside the CRC.
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(array(self.0, LEADER_EPOCH))
    }
    /// The CRC-32C that it carries.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(array(self.0, CRC))
    }
    /// The CRC-32C of its bytes from the attributes on.
    pub fn computed_crc(&self) -> u32 {
        crc_fast::crc32_iscsi(&self.0[CRC.end..])
    }
    /// Attribute bits.
    pub fn attributes(&self) -> Attributes {
        Attributes(i16::from_be_bytes(array(self.0, ATTRIBUTES)))
    }
    /// Offset of the last record less that of the first; for the sequence likewise.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(array(self.0, LAST_OFFSET_DELTA))
    }
    /// Timestamp of the first record, which the others count from; Unix milliseconds, −1 if none.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(array(self.0, BASE_TIMESTAMP))
    }
    /// The largest timestamp; Unix milliseconds, −1 if none.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(array(self.0, MAX_TIMESTAMP))
    }
    /// Producer id, −1 if none (KIP-98).
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(array(self.0, PRODUCER_ID))
    }
    /// Producer epoch, −1 if none.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(array(self.0, PRODUCER_EPOCH))
    }
    /// Sequence of the first record, −1 if none.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(array(self.0, BASE_SEQUENCE))
    }
    /// Number of records.
    pub fn count(&self) -> i32 {
        i32::from_be_bytes(array(self.0, COUNT))
    }
    /// What follows the header: the records, compressed or not.
    pub fn payload(&self) -> &'a [u8] {
        &self.0[HEADER_BYTES..]
    }
    /// Its records; the batch must not be compressed.
    pub fn records(&self) -> Records<'a> {
        Records::new(*self)
    }
}

fn array<const N: usize>(bytes: &[u8], at: Range<usize>) -> [u8; N] {
    bytes[at].try_into().expect("a field has the size of its type")
}

/// Gives a whole batch the epoch of the leader that appends it, which stands outside its CRC.
///
/// # Panics
/// If the bytes are shorter than a batch's header.
pub fn set_leader_epoch(batch: &mut [u8], epoch: i32) {
    batch[LEADER_EPOCH].copy_from_slice(&epoch.to_be_bytes());
}

/// The batches of a record set, one after the other. A cut one at the end is passed over; an error is the last item.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Batches<'a> {
        Batches { rest: bytes }
    }
    /// The bytes that were not given out yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<RecordBatch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        match RecordBatch::split(self.rest) {
            Ok(Some((batch, rest))) => {
                self.rest = rest;
                Some(Ok(batch))
            }
            Ok(None) => None,
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}
