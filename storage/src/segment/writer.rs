//! Makes a segment out of batches, which are checked on the way and not copied.
//!
//! 1. The batches stand in offset order, each is whole and has the checksum that it states.
//! 2. Positions fit the index: a file is smaller than 2 GiB.

use super::{FOOTER_BYTES, HEADER_BYTES, SegmentIndex};
use crate::compaction::Segment;
use crate::env::WallMs;
use crate::ids::Offset;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use millrace_protocol::records::RecordBatch;

const MAGIC: &[u8; 4] = b"KAFS";
const END: &[u8; 4] = b"END!";
const VERSION: u16 = 1;

/// Bytes that are not the batches that follow.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the batches from offset {next} on: {detail}")]
pub struct SegmentError {
    /// The offset that was to come.
    pub next: Offset,
    /// What is wrong.
    pub detail: String,
}

/// A segment's objects, to be put.
#[derive(Clone, Debug)]
pub struct WrittenSegment {
    /// The file, in slices.
    pub file: Vec<Bytes>,
    /// The index.
    pub index: Bytes,
    /// As the manifest names it.
    pub segment: Segment,
    /// Records in it.
    pub records: u64,
}

/// Takes batches, in order.
pub struct SegmentWriter {
    base: Offset,
    /// The least offset that the next batch may have.
    next: Offset,
    position: u32,
    records: u64,
    max_timestamp: i64,
    batches: Vec<Bytes>,
    crc: Digest,
    index: SegmentIndex,
}

impl SegmentWriter {
    /// A segment that begins at offset `base`.
    pub fn new(base: Offset) -> SegmentWriter {
        SegmentWriter {
            base,
            next: base,
            position: HEADER_BYTES as u32,
            records: 0,
            max_timestamp: -1,
            batches: Vec::new(),
            crc: Digest::new(CrcAlgorithm::Crc32Iscsi),
            index: SegmentIndex::default(),
        }
    }

    /// Adds whole batches.
    ///
    /// # Errors
    /// They are not whole, damaged, of lower offsets than those before, or too many; the writer is of no use then.
    pub fn push(&mut self, batches: Bytes) -> Result<(), SegmentError> {
        let mut rest = &batches[..];
        while !rest.is_empty() {
            let split = RecordBatch::split(rest).map_err(|error| self.error(error.to_string()))?;
            let Some((batch, after)) = split else { return Err(self.error("a batch is cut off")) };
            self.add(&batch)?;
            rest = after;
        }
        self.crc.update(&batches);
        self.batches.push(batches);
        Ok(())
    }

    fn add(&mut self, batch: &RecordBatch<'_>) -> Result<(), SegmentError> {
        let (base, last) = (Offset(batch.base_offset()), Offset(batch.last_offset()));
        if base < self.next || last < base || last.0 == i64::MAX {
            return Err(self.error(format!("offsets {base} to {last}")));
        }
        if batch.computed_crc() != batch.crc() {
            return Err(self.error(format!("a wrong checksum at offset {base}")));
        }
        let count = u32::try_from(batch.count()).map_err(|_| self.error("a negative count"))?;
        let after = u64::from(self.position) + batch.bytes().len() as u64;
        if after + FOOTER_BYTES as u64 > i32::MAX as u64 {
            return Err(self.error("more than 2 GiB"));
        }
        self.index.push(base, self.position, count);
        self.position = u32::try_from(after).expect("compared above");
        self.next = last.plus(1);
        self.records += u64::from(count);
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp());
        Ok(())
    }

    fn error(&self, detail: impl Into<String>) -> SegmentError {
        SegmentError { next: self.next, detail: detail.into() }
    }

    /// The offset after the last batch.
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The segment, made at `created`; `None` if it holds no batch.
    pub fn finish(self, created: WallMs) -> Option<WrittenSegment> {
        if self.batches.is_empty() {
            return None;
        }
        let last = Offset(self.next.0 - 1);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_be_bytes());
        header.extend_from_slice(&[0; 2]);
        header.extend_from_slice(&self.base.0.to_be_bytes());
        // A count that does not fit is only possible with batches that count more records than they have bytes for.
        header.extend_from_slice(&i32::try_from(self.records).unwrap_or(i32::MAX).to_be_bytes());
        header.extend_from_slice(&created.0.to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        let crc = u32::try_from(self.crc.finalize()).expect("a CRC-32 has 32 bits");
        footer.extend_from_slice(&crc.to_be_bytes());
        footer.extend_from_slice(&last.0.to_be_bytes());
        footer.extend_from_slice(END);
        let segment = Segment {
            base: self.base,
            last,
            bytes: u64::from(self.position) + FOOTER_BYTES as u64,
            max_timestamp: self.max_timestamp,
            created,
        };
        let file = [vec![header.into()], self.batches, vec![footer.into()]].concat();
        Some(WrittenSegment { file, index: self.index.encode(), segment, records: self.records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_protocol::records::BatchBuilder;

    fn batch(base: i64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1_000 + base);
        (0..records).for_each(|_| builder.push(None, Some(b"value")));
        let mut bytes = builder.finish();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes
    }

    #[test]
    fn the_file_is_header_batches_and_footer_of_the_layout() {
        let mut writer = SegmentWriter::new(Offset(7));
        let (first, second, third) = (batch(7, 3), batch(10, 1), batch(11, 2));
        writer.push([first.clone(), second.clone()].concat().into()).unwrap();
        writer.push(third.clone().into()).unwrap();
        let written = writer.finish(WallMs(0x0102)).unwrap();
        let file = written.file.concat();
        let batches = [first, second, third].concat();
        let header = [
            b"KAFS".as_slice(),
            &[0, 1, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 7],
            &[0, 0, 0, 6],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[0; 4],
        ];
        let crc = crc_fast::crc32_iscsi(&batches).to_be_bytes();
        let footer = [crc.as_slice(), &[0, 0, 0, 0, 0, 0, 0, 12], b"END!"];
        assert_eq!(file, [header.concat(), batches, footer.concat()].concat());
        let Segment { base, last, bytes, max_timestamp, created } = written.segment;
        assert_eq!((base, last, max_timestamp, created), (Offset(7), Offset(12), 1_011, WallMs(0x0102)));
        assert_eq!((bytes, written.records), (file.len() as u64, 6));
        let index = SegmentIndex::decode(&written.index).unwrap();
        assert_eq!(index.entries(), [(Offset(7), 32)]);
    }

    #[test]
    fn what_does_not_follow_or_is_damaged_is_refused() {
        let mut flipped = batch(7, 1);
        *flipped.last_mut().unwrap() ^= 1;
        let cut = batch(7, 1)[..50].to_vec();
        for bytes in [batch(6, 1), flipped, cut] {
            assert!(SegmentWriter::new(Offset(7)).push(bytes.into()).is_err());
        }
        assert!(SegmentWriter::new(Offset(7)).finish(WallMs(0)).is_none());
    }
}
