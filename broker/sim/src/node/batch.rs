//! Record batches as a Kafka client writes and reads them: version 2, uncompressed, each value a record id.
//!
//! Written from the record format's description, not with the broker's own code: it is the client's side of the wire.

use crate::ledger::{RECORD_BYTES, RecordId};
use bytes::Bytes;

/// Bytes before the records.
const HEADER: usize = 61;
/// Where the CRC-32C begins to count: after itself.
const CHECKED: usize = 21;

/// Producer id, epoch and first sequence; −1 in all for none.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Producer id.
    pub producer: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub sequence: i32,
}

fn varint(value: i64, into: &mut Vec<u8>) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        into.push((left as u8 & 0x7f) | 0x80);
        left >>= 7;
    }
    into.push(left as u8);
}

fn read_varint(bytes: &[u8], at: &mut usize) -> i64 {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return (value >> 1) as i64 ^ -((value & 1) as i64);
        }
        shift += 7;
    }
}

/// A batch of these records.
pub fn write(stamp: Stamp, timestamp: i64, ids: &[RecordId]) -> Bytes {
    let mut records = Vec::new();
    for (index, id) in (0..).zip(ids) {
        let mut body = vec![0]; // attributes
        varint(0, &mut body); // timestamp delta
        varint(index, &mut body); // offset delta
        varint(-1, &mut body); // no key
        varint(RECORD_BYTES as i64, &mut body);
        id.write(&mut body);
        varint(0, &mut body); // no headers
        varint(body.len() as i64, &mut records);
        records.append(&mut body);
    }
    let count = i32::try_from(ids.len()).expect("a small batch");
    let mut checked = Vec::new();
    checked.extend_from_slice(&0_i16.to_be_bytes()); // attributes
    checked.extend_from_slice(&(count - 1).to_be_bytes());
    checked.extend_from_slice(&timestamp.to_be_bytes());
    checked.extend_from_slice(&timestamp.to_be_bytes());
    checked.extend_from_slice(&stamp.producer.to_be_bytes());
    checked.extend_from_slice(&stamp.epoch.to_be_bytes());
    checked.extend_from_slice(&stamp.sequence.to_be_bytes());
    checked.extend_from_slice(&count.to_be_bytes());
    checked.append(&mut records);
    let mut batch = Vec::with_capacity(HEADER + checked.len());
    batch.extend_from_slice(&0_i64.to_be_bytes());
    let length = i32::try_from(CHECKED - 12 + checked.len()).expect("a small batch");
    batch.extend_from_slice(&length.to_be_bytes());
    batch.extend_from_slice(&(-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&crc_fast::crc32_iscsi(&checked).to_be_bytes());
    batch.append(&mut checked);
    Bytes::from(batch)
}

/// The batches in these bytes: base offset and records of each. Anything that a client would not accept is a finding.
pub fn read_all(bytes: &[u8]) -> Vec<(i64, Vec<RecordId>)> {
    let mut batches = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        assert!(rest.len() >= HEADER, "FINDING a batch is cut after {} bytes", rest.len());
        let number = |at: usize| i32::from_be_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let base = i64::from_be_bytes(rest[..8].try_into().expect("eight bytes"));
        let length = usize::try_from(number(8)).expect("FINDING a negative batch length") + 12;
        assert!(rest.len() >= length && rest[16] == 2, "FINDING a batch of {length} bytes in {}", rest.len());
        let crc = crc_fast::crc32_iscsi(&rest[CHECKED..length]);
        assert!(crc == number(17) as u32, "FINDING the checksum of the batch at {base} does not hold");
        let (last_delta, count) = (number(23), number(57));
        assert!(count == last_delta + 1, "FINDING the batch at {base} counts {count} and {last_delta}");
        batches.push((base, records(&rest[HEADER..length], count)));
        rest = &rest[length..];
    }
    batches
}

fn records(bytes: &[u8], count: i32) -> Vec<RecordId> {
    let mut at = 0;
    let mut ids = Vec::new();
    for index in 0..i64::from(count) {
        let length = read_varint(bytes, &mut at) as usize;
        let end = at + length;
        at += 1;
        read_varint(bytes, &mut at);
        assert!(read_varint(bytes, &mut at) == index, "FINDING an offset delta is not {index}");
        assert!(read_varint(bytes, &mut at) == -1, "FINDING a key came from nowhere");
        assert!(read_varint(bytes, &mut at) == RECORD_BYTES as i64, "FINDING a value has another size");
        ids.extend(RecordId::read_all(&bytes[at..at + RECORD_BYTES]));
        at = end;
    }
    assert!(at == bytes.len(), "FINDING bytes after the last record");
    ids
}

/// The record ids of all batches in these bytes.
pub fn ids(bytes: &[u8]) -> Vec<RecordId> {
    read_all(bytes).into_iter().flat_map(|(_, ids)| ids).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_reads_back_as_it_was_written() {
        let ids: Vec<RecordId> = (0..200).map(|number| RecordId { producer: 7, number }).collect();
        let batch = write(Stamp { producer: 7, epoch: 0, sequence: 3 }, 5, &ids);
        assert_eq!(read_all(&[&batch[..], &batch[..]].concat()), [(0, ids.clone()), (0, ids)]);
    }

    #[test]
    #[should_panic(expected = "checksum")]
    fn a_changed_byte_is_noticed() {
        let ids = [RecordId { producer: 7, number: 1 }];
        let mut batch = write(Stamp { producer: -1, epoch: -1, sequence: -1 }, 5, &ids).to_vec();
        batch[70] ^= 1;
        read_all(&batch);
    }
}
