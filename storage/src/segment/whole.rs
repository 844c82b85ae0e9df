//! A whole segment file read and checked: for tools and audits. What serves fetches reads ranges.
//!
//! Invariants:
//! 1. A [`WholeSegment`] is one in which header, footer and every batch agree: checksums, offsets, counts.

use super::{FOOTER_BYTES, HEADER_BYTES, SegmentIndex};
use crate::env::WallMs;
use crate::format::FormatError;
use crate::ids::Offset;
use millrace_protocol::records::RecordBatch;

const WHAT: &str = "segment";
const MAGIC: &[u8; 4] = b"KAFS";
const END: &[u8; 4] = b"END!";
const VERSION: u16 = 1;

/// A batch where it stands in a segment's file.
#[derive(Clone, Copy, Debug)]
pub struct PlacedBatch<'a> {
    /// Of its first byte.
    pub position: u32,
    /// The batch.
    pub batch: RecordBatch<'a>,
}

/// A segment's file that is as it must be.
#[derive(Clone, Debug)]
pub struct WholeSegment<'a> {
    /// As the header says: the first batch starts there or, where batches were lost before, above it.
    pub base: Offset,
    /// Last offset.
    pub last: Offset,
    /// When it was made.
    pub created: WallMs,
    /// Records in it.
    pub records: u64,
    /// In offset order, at least one.
    pub batches: Vec<PlacedBatch<'a>>,
}

fn error(position: usize, detail: impl Into<String>) -> FormatError {
    FormatError { what: WHAT, position, detail: detail.into() }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("within a header or footer whose length was compared")
}

impl<'a> WholeSegment<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// Where and how the bytes are not a segment of version 1, or contradict themselves.
    pub fn read(bytes: &'a [u8]) -> Result<WholeSegment<'a>, FormatError> {
        if bytes.len() < HEADER_BYTES + FOOTER_BYTES || i32::try_from(bytes.len()).is_err() {
            return Err(error(0, format!("{} bytes are no segment", bytes.len())));
        }
        if bytes[..4] != *MAGIC || bytes[4..6] != VERSION.to_be_bytes() {
            return Err(error(0, "not a segment of version 1"));
        }
        let (base, stated) = (Offset(i64::from_be_bytes(number(bytes, 8))), i32::from_be_bytes(number(bytes, 16)));
        let created = WallMs(i64::from_be_bytes(number(bytes, 20)));
        let body_end = bytes.len() - FOOTER_BYTES;
        let (body, footer) = (&bytes[HEADER_BYTES..body_end], &bytes[body_end..]);
        if footer[12..] != *END {
            return Err(error(body_end + 12, "no footer: the file is cut off"));
        }
        if crc_fast::crc32_iscsi(body) != u32::from_be_bytes(number(footer, 0)) {
            return Err(error(body_end, "the checksum of the batches is another"));
        }
        let last = Offset(i64::from_be_bytes(number(footer, 4)));
        let (batches, records) = read_batches(body, base, last)?;
        // What does not fit is written as the highest number.
        if i32::try_from(records).unwrap_or(i32::MAX) != stated {
            return Err(error(16, format!("{records} records, not {stated}")));
        }
        Ok(WholeSegment { base, last, created, records, batches })
    }

    /// Compares an index with the batches.
    ///
    /// # Errors
    /// An entry names a place where no batch of that offset begins, or the first batch has none.
    pub fn compare(&self, index: &SegmentIndex) -> Result<(), FormatError> {
        let starts = |entry: &(Offset, u32)| {
            let found = self.batches.binary_search_by_key(&entry.1, |placed| placed.position);
            found.is_ok_and(|at| self.batches[at].batch.base_offset() == entry.0.0)
        };
        match index.entries().iter().position(|entry| !starts(entry)) {
            Some(at) => Err(error(0, format!("entry {at} of the index names no batch"))),
            None if index.entries().is_empty() => Err(error(0, "the index is empty")),
            None => Ok(()),
        }
    }
}

fn read_batches(body: &[u8], base: Offset, last: Offset) -> Result<(Vec<PlacedBatch<'_>>, u64), FormatError> {
    let mut batches = Vec::new();
    let (mut next, mut records, mut rest) = (base, 0_u64, body);
    while !rest.is_empty() {
        let at = HEADER_BYTES + body.len() - rest.len();
        let split = RecordBatch::split(rest).map_err(|flaw| error(at, flaw.to_string()))?;
        let Some((batch, after)) = split else { return Err(error(at, "a batch is cut off")) };
        let (first, end) = (Offset(batch.base_offset()), Offset(batch.last_offset()));
        if first < next || end < first || end > last || end.0 == i64::MAX {
            return Err(error(at, format!("a batch of offsets {first} to {end} where {next} follows")));
        }
        if batch.computed_crc() != batch.crc() {
            return Err(error(at, format!("the checksum of the batch at offset {first} is another")));
        }
        let count = u32::try_from(batch.count()).map_err(|_| error(at, "a negative count"))?;
        records += u64::from(count);
        batches.push(PlacedBatch { position: at as u32, batch });
        (next, rest) = (end.plus(1), after);
    }
    if batches.is_empty() || next.0 - 1 != last.0 {
        return Err(error(HEADER_BYTES + body.len() + 4, format!("the last offset is {}, not {last}", next.0 - 1)));
    }
    Ok((batches, records))
}

#[cfg(test)]
mod tests {
    use super::super::SegmentWriter;
    use super::*;
    use bytes::Bytes;
    use millrace_protocol::records::BatchBuilder;
    use proptest::prelude::*;

    fn batch(base: i64, records: usize) -> Bytes {
        let mut builder = BatchBuilder::new(1_000 + base);
        (0..records).for_each(|_| builder.push(None, Some(b"value")));
        let mut bytes = builder.finish();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes.into()
    }

    fn written() -> (Vec<u8>, SegmentIndex) {
        let mut writer = SegmentWriter::new(Offset(7));
        for (base, records) in [(7, 3), (10, 1), (11, 2)] {
            writer.push(batch(base, records)).unwrap();
        }
        let written = writer.finish(WallMs(5)).unwrap();
        (written.file.concat(), SegmentIndex::decode(&written.index).unwrap())
    }

    #[test]
    fn what_was_written_reads_back() {
        let (file, index) = written();
        let read = WholeSegment::read(&file).unwrap();
        assert_eq!((read.base, read.last, read.created, read.records), (Offset(7), Offset(12), WallMs(5), 6));
        let bases: Vec<i64> = read.batches.iter().map(|placed| placed.batch.base_offset()).collect();
        assert_eq!(bases, [7, 10, 11]);
        assert_eq!(read.compare(&index), Ok(()));
        assert!(read.compare(&SegmentIndex::default()).is_err());
    }

    proptest! {
        #[test]
        fn a_file_that_is_cut_or_changed_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u32, cut in any::<bool>()) {
            let (mut file, _) = written();
            let at = at.index(file.len());
            if cut {
                file.truncate(at);
            } else {
                file[at] ^= 1 << bit;
            }
            // Flags, the time and what is reserved stand under no checksum in KafScale's layout.
            let unchecked = !cut && ((6..8).contains(&at) || (20..32).contains(&at));
            prop_assert_eq!(WholeSegment::read(&file).is_ok(), unchecked);
        }
    }
}
