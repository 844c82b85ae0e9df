//! A whole segment file read and checked: for tools. What serves fetches reads ranges, audits read piece by piece.
//!
//! Invariants:
//! 1. A [`WholeSegment`] is one that [`SegmentScan`] found whole.

use super::scan::{PlacedBatch, SegmentScan};
use super::{SegmentIndex, index};
use crate::env::WallMs;
use crate::format::FormatError;
use crate::ids::Offset;

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

impl<'a> WholeSegment<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// Where and how the bytes are not a segment of version 1, or contradict themselves.
    pub fn read(bytes: &'a [u8]) -> Result<WholeSegment<'a>, FormatError> {
        let mut batches = Vec::new();
        let mut scan = SegmentScan::new(bytes.len() as u64)?;
        scan.take(bytes, |placed| batches.push(placed))?;
        let found = scan.finish()?;
        Ok(WholeSegment { base: found.base, last: found.last, created: found.created, records: found.records, batches })
    }

    /// Compares an index with the batches.
    ///
    /// # Errors
    /// An entry names a place where no batch of that offset begins, or the first batch has none.
    pub fn compare(&self, index: &SegmentIndex) -> Result<(), FormatError> {
        let mut comparison = index::Comparison::new(index);
        for placed in &self.batches {
            comparison.batch(placed.position, Offset(placed.batch.base_offset()))?;
        }
        comparison.finish()
    }
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
        fn a_file_in_pieces_is_the_same_file(piece in 1..200_usize) {
            let (file, index) = written();
            let mut scan = SegmentScan::new(file.len() as u64).unwrap();
            let mut comparison = index::Comparison::new(&index);
            let mut end = 0;
            while (scan.position() as usize) < file.len() && end < file.len() {
                end = file.len().min(end + piece);
                let meets = |placed: PlacedBatch<'_>| {
                    comparison.batch(placed.position, Offset(placed.batch.base_offset())).unwrap();
                };
                scan.take(&file[scan.position() as usize..end], meets).unwrap();
            }
            prop_assert_eq!(comparison.finish(), Ok(()));
            let found = scan.finish().unwrap();
            prop_assert_eq!((found.base, found.last, found.records, found.hole), (Offset(7), Offset(12), 6, None));
            prop_assert_eq!(found.max_timestamp, 1_011);
        }

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
            // So does the base, of which a lower one says that batches were lost.
            let same = WholeSegment::read(&file).is_ok_and(|whole| whole.base == Offset(7));
            prop_assert_eq!(same, unchecked);
        }
    }
}
