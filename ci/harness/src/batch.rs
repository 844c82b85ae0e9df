//! Record batches of magic 2, written and read without the broker's code, and the records that proofs send: each says
//! who made it, which one it is, and carries a checksum.

use bytes::{BufMut, Bytes};
use crc_fast::crc32_iscsi;

/// Bytes of a batch before its records.
pub(crate) const HEADER_BYTES: usize = 61;
/// Where the CRC stands; what follows it is covered.
pub(crate) const CRC_AT: usize = 17;
/// Where the attributes stand.
pub(crate) const ATTRIBUTES_AT: usize = 21;
/// Where the number of records stands.
pub(crate) const COUNT_AT: usize = 57;
/// Bytes before those that the batch's length counts.
const LENGTH_COVERS_FROM: usize = 12;
/// Fixed bytes of a record of ours: producer, number, checksum.
pub(crate) const MIN_RECORD_BYTES: usize = 16;

/// Who made a record and which of its records it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Identity {
    /// Index of the producer in this run.
    pub(crate) producer: u32,
    /// Counts the producer's records over all partitions, from 0.
    pub(crate) number: u64,
}

/// What makes a batch idempotent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerState {
    /// From InitProducerId.
    pub(crate) id: i64,
    /// From InitProducerId.
    pub(crate) epoch: i16,
    /// Sequence of the first record.
    pub(crate) sequence: i32,
}

/// The value of a record: `bytes` long, at least [`MIN_RECORD_BYTES`].
pub(crate) fn record_value(identity: Identity, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes);
    value.put_u32(identity.producer);
    value.put_u64(identity.number);
    let filler = bytes.saturating_sub(MIN_RECORD_BYTES);
    let mut word = identity.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(identity.producer);
    for index in 0..filler {
        if index % 8 == 0 {
            word = word.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(1);
        }
        value.push((word >> (index % 8 * 8)) as u8);
    }
    value.put_u32(crc32_iscsi(&value));
    value
}

/// Reads back what [`record_value`] wrote; `None` if a byte changed.
pub(crate) fn identity(value: &[u8]) -> Option<Identity> {
    let (body, checksum) = value.split_last_chunk::<4>()?;
    if value.len() < MIN_RECORD_BYTES || u32::from_be_bytes(*checksum) != crc32_iscsi(body) {
        return None;
    }
    let (producer, rest) = body.split_first_chunk::<4>()?;
    let number = rest.first_chunk::<8>()?;
    Some(Identity { producer: u32::from_be_bytes(*producer), number: u64::from_be_bytes(*number) })
}

/// A batch of uncompressed records without keys, base offset 0.
pub(crate) fn encode(values: &[Vec<u8>], producer: Option<ProducerState>, timestamp_ms: i64) -> Vec<u8> {
    let state = producer.unwrap_or(ProducerState { id: -1, epoch: -1, sequence: -1 });
    let last = values.len() as i32 - 1;
    let mut batch = Vec::with_capacity(HEADER_BYTES + values.iter().map(|value| value.len() + 16).sum::<usize>());
    batch.put_i64(0); // base offset
    batch.put_i32(0); // length, below
    batch.put_i32(-1); // leader epoch
    batch.put_i8(2); // magic
    batch.put_u32(0); // CRC, below
    batch.put_i16(0); // attributes
    batch.put_i32(last);
    batch.put_i64(timestamp_ms);
    batch.put_i64(timestamp_ms);
    batch.put_i64(state.id);
    batch.put_i16(state.epoch);
    batch.put_i32(state.sequence);
    batch.put_i32(values.len() as i32);
    for (delta, value) in values.iter().enumerate() {
        let mut record = Vec::with_capacity(value.len() + 12);
        record.push(0); // attributes
        put_varint(&mut record, 0); // timestamp delta
        put_varint(&mut record, delta as i64);
        put_varint(&mut record, -1); // no key
        put_varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        put_varint(&mut record, 0); // headers
        put_varint(&mut batch, record.len() as i64);
        batch.extend_from_slice(&record);
    }
    seal(&mut batch);
    batch
}

/// Fills in length and CRC: to be called again after a change of other bytes.
pub(crate) fn seal(batch: &mut [u8]) {
    let length = (batch.len() - LENGTH_COVERS_FROM) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32_iscsi(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
}

/// Reads the batches of a fetch answer: each record's offset and value. An incomplete batch at the end is left out, as
/// the protocol demands of readers.
///
/// # Errors
/// When a batch is malformed or its CRC does not match; the text says where.
pub(crate) fn decode(mut records: &[u8]) -> Result<Vec<(i64, Bytes)>, String> {
    let mut found = Vec::new();
    while records.len() >= HEADER_BYTES {
        let length = i32::from_be_bytes(records[8..12].try_into().expect("four bytes"));
        let total = usize::try_from(length).map_err(|_| format!("batch length {length}"))? + LENGTH_COVERS_FROM;
        if total > records.len() {
            break;
        }
        if total < HEADER_BYTES {
            return Err(format!("batch of {total} bytes"));
        }
        let (batch, rest) = records.split_at(total);
        decode_batch(batch, &mut found)?;
        records = rest;
    }
    Ok(found)
}

fn decode_batch(batch: &[u8], found: &mut Vec<(i64, Bytes)>) -> Result<(), String> {
    let base = i64::from_be_bytes(batch[..8].try_into().expect("eight bytes"));
    let malformed = |what: &str| format!("batch at offset {base}: {what}");
    let crc = u32::from_be_bytes(batch[CRC_AT..ATTRIBUTES_AT].try_into().expect("four bytes"));
    if crc != crc32_iscsi(&batch[ATTRIBUTES_AT..]) {
        return Err(malformed("CRC does not match"));
    }
    let count = i32::from_be_bytes(batch[COUNT_AT..HEADER_BYTES].try_into().expect("four bytes"));
    let mut rest = &batch[HEADER_BYTES..];
    for _ in 0..count {
        let record = take_sized(&mut rest).ok_or_else(|| malformed("record cut short"))?;
        let (delta, value) = decode_record(record).ok_or_else(|| malformed("malformed record"))?;
        found.push((base + delta, Bytes::copy_from_slice(value)));
    }
    if rest.is_empty() { Ok(()) } else { Err(malformed("bytes after the last record")) }
}

fn decode_record(record: &[u8]) -> Option<(i64, &[u8])> {
    let mut rest = record.get(1..)?;
    take_varint(&mut rest)?; // timestamp delta
    let delta = take_varint(&mut rest)?;
    let key = take_varint(&mut rest)?;
    if key > 0 {
        rest = rest.get(key as usize..)?;
    }
    let value = take_sized(&mut rest)?;
    Some((delta, value))
}

/// Takes a length and as many bytes.
fn take_sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(rest)?).ok()?;
    let (taken, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn take_varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn put_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: u64) -> Vec<Vec<u8>> {
        (0..count).map(|number| record_value(Identity { producer: 3, number }, 100)).collect()
    }

    #[test]
    fn a_batch_is_read_back_with_offsets_and_identities() {
        let batch = encode(&values(3), None, 1);
        let read = decode(&batch).expect("own batch");
        let found: Vec<_> = read.iter().map(|(offset, value)| (*offset, identity(value))).collect();
        let expected: Vec<_> = (0..3).map(|n| (n as i64, Some(Identity { producer: 3, number: n }))).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_incomplete_last_batch_is_left_out() {
        let mut bytes = encode(&values(2), None, 1);
        bytes.extend_from_slice(&encode(&values(2), None, 1)[..80]);
        assert_eq!(decode(&bytes).expect("the first is whole").len(), 2);
    }

    #[test]
    fn a_flipped_bit_is_found_in_batch_and_record() {
        let mut batch = encode(&values(2), None, 1);
        *batch.last_mut().expect("not empty") ^= 1;
        assert!(decode(&batch).is_err());
        let mut value = record_value(Identity { producer: 1, number: 7 }, 64);
        value[20] ^= 1;
        assert_eq!(identity(&value), None);
    }
}
