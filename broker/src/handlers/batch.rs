//! The one record batch that a produce request may carry for a partition, as its header describes it.

use millrace_storage::env::WallMs;
use millrace_storage::ids::{LeaderEpoch, Offset};
use millrace_storage::partition::ProducerStamp;

/// Size of a v2 batch's header.
const HEADER_BYTES: usize = 61;
/// Bytes before the part that the batch length counts.
const LOG_OVERHEAD: usize = 12;
const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// First byte that the CRC covers.
const ATTRIBUTES_AT: usize = 21;
const LAST_DELTA_AT: usize = 23;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_AT: usize = 43;
const COUNT_AT: usize = 57;
const COMPRESSION_MASK: i16 = 0x07;
const APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const ZSTD: i16 = 4;
/// Version of Produce from which zstd is allowed (KIP-110).
const ZSTD_FROM: i16 = 7;

/// What the header of a sound batch says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    /// Bytes, header included.
    pub(crate) length: usize,
    /// Records, which is the offsets that it takes.
    pub(crate) count: u32,
    /// Largest timestamp in Unix ms, −1 if none.
    pub(crate) max_timestamp: i64,
    /// Its producer, if idempotent.
    pub(crate) producer: Option<ProducerStamp>,
}

/// Why a batch is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchError {
    /// No whole batch.
    Missing,
    /// Bytes after the first batch.
    Several,
    /// A message format before version 2.
    OldMagic,
    /// A format that does not exist, or a CRC that does not fit.
    Corrupt,
    /// A codec that does not exist, or not in this version of Produce.
    Codec,
    /// Control batches are the broker's.
    Control,
    /// Transactions are not offered.
    Transactional,
    /// Counts that contradict each other.
    Counts,
    /// A producer id without a sequence.
    Sequence,
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(*bytes[at..].first_chunk().expect("the header is whole"))
}
fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(*bytes[at..].first_chunk().expect("the header is whole"))
}
fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(*bytes[at..].first_chunk().expect("the header is whole"))
}
fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Looks at the records of one partition in a produce request of `version`.
pub(crate) fn examine(bytes: &[u8], version: i16) -> Result<Batch, BatchError> {
    if bytes.len() <= MAGIC_AT {
        return Err(BatchError::Missing);
    }
    match bytes[MAGIC_AT] {
        0 | 1 => return Err(BatchError::OldMagic),
        2 => {}
        _ => return Err(BatchError::Corrupt),
    }
    if bytes.len() < HEADER_BYTES {
        return Err(BatchError::Missing);
    }
    let length = usize::try_from(i32_at(bytes, 8)).map_err(|_| BatchError::Corrupt)? + LOG_OVERHEAD;
    if length < HEADER_BYTES {
        return Err(BatchError::Corrupt);
    }
    if length > bytes.len() {
        return Err(BatchError::Missing);
    }
    if length < bytes.len() {
        return Err(BatchError::Several);
    }
    if crc(&bytes[ATTRIBUTES_AT..]) != i32_at(bytes, CRC_AT) as u32 {
        return Err(BatchError::Corrupt);
    }
    examine_header(bytes, length, version)
}

fn examine_header(bytes: &[u8], length: usize, version: i16) -> Result<Batch, BatchError> {
    let attributes = i16_at(bytes, ATTRIBUTES_AT);
    if attributes & CONTROL_BIT != 0 {
        return Err(BatchError::Control);
    }
    if attributes & TRANSACTIONAL_BIT != 0 {
        return Err(BatchError::Transactional);
    }
    let codec = attributes & COMPRESSION_MASK;
    if codec > ZSTD || (codec == ZSTD && version < ZSTD_FROM) {
        return Err(BatchError::Codec);
    }
    let count = u32::try_from(i32_at(bytes, COUNT_AT)).map_err(|_| BatchError::Counts)?;
    if count == 0 || i64::from(i32_at(bytes, LAST_DELTA_AT)) + 1 != i64::from(count) {
        return Err(BatchError::Counts);
    }
    let id = i64_at(bytes, PRODUCER_AT);
    let epoch = i16_at(bytes, PRODUCER_AT + 8);
    let first_sequence = i32_at(bytes, PRODUCER_AT + 10);
    if id >= 0 && (first_sequence < 0 || epoch < 0) {
        return Err(BatchError::Sequence);
    }
    let producer = (id >= 0).then_some(ProducerStamp { id, epoch, first_sequence });
    Ok(Batch { length, count, max_timestamp: i64_at(bytes, MAX_TIMESTAMP_AT), producer })
}

/// Writes the base offset and the leader epoch, which the CRC does not cover.
pub(crate) fn place(batch: &mut [u8], base: Offset, epoch: LeaderEpoch) {
    batch[..8].copy_from_slice(&base.0.to_be_bytes());
    batch[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].copy_from_slice(&epoch.0.to_be_bytes());
}

/// Gives all records the time of appending, and the batch its new CRC.
pub(crate) fn stamp(batch: &mut [u8], now: WallMs) {
    let attributes = i16_at(batch, ATTRIBUTES_AT) | APPEND_TIME_BIT;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&now.0.to_be_bytes());
    let crc = crc(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}
