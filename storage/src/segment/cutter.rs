//! Cuts a stream of batches into segments of a bounded size, pure.
//!
//! Invariants:
//! 1. A segment ends with the first batch that brings it to the limit: it is larger by less than that batch.
//! 2. Dense segments follow each other without a gap, whatever offsets the batches pass over, as a manifest needs it
//!    (a segment begins where the one before ended); others begin with their first batch, as KafScale's do.

use super::{SegmentError, SegmentWriter, WrittenSegment};
use crate::env::WallMs;
use crate::ids::Offset;
use bytes::Bytes;
use millrace_protocol::records::RecordBatch;

/// Takes batches, in order, and gives segments.
pub struct SegmentCutter {
    limit: u64,
    /// Where the next segment begins; `None`: with its first batch.
    base: Option<Offset>,
    /// The segment at work, and its bytes so far.
    writer: Option<(SegmentWriter, u64)>,
}

impl SegmentCutter {
    /// Segments of about `limit` bytes, each beginning with its first batch.
    pub fn new(limit: u64) -> SegmentCutter {
        SegmentCutter { limit, base: None, writer: None }
    }

    /// The same without a gap between them, the first beginning at `base`.
    pub fn dense(base: Offset, limit: u64) -> SegmentCutter {
        SegmentCutter { base: Some(base), ..SegmentCutter::new(limit) }
    }

    /// Takes one batch; gives the segment, made at `now`, that ends with it.
    ///
    /// # Errors
    /// As [`SegmentWriter::push`]; the cutter is of no use then.
    pub fn push(&mut self, batch: Bytes, now: WallMs) -> Result<Option<WrittenSegment>, SegmentError> {
        let (mut writer, before) = match self.writer.take() {
            Some(open) => open,
            None => {
                let first = RecordBatch::split(&batch).ok().flatten().map(|(first, _)| Offset(first.base_offset()));
                let base = self.base.or(first).unwrap_or(Offset(0));
                (SegmentWriter::new(base), 0)
            }
        };
        let bytes = before + batch.len() as u64;
        writer.push(batch)?;
        self.writer = Some((writer, bytes));
        Ok(if bytes >= self.limit { self.finish(now) } else { None })
    }

    /// The segment of what is left, made at `now`.
    pub fn finish(&mut self, now: WallMs) -> Option<WrittenSegment> {
        let written = self.writer.take()?.0.finish(now)?;
        self.base = self.base.map(|_| written.segment.last.plus(1));
        Some(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::WholeSegment;
    use millrace_protocol::records::BatchBuilder;
    use proptest::prelude::*;

    fn batch(base: i64, records: usize) -> Bytes {
        let mut builder = BatchBuilder::new(1_000 + base);
        (0..records).for_each(|_| builder.push(None, Some(b"value")));
        let mut bytes = builder.finish();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes.into()
    }

    proptest! {
        #[test]
        fn segments_hold_every_batch_once_and_a_dense_row_leaves_no_gap(
            steps in proptest::collection::vec((0..3_i64, 1..5_usize), 1..40),
            limit in 1..600_u64,
            dense in any::<bool>(),
        ) {
            let mut cutter =
                if dense { SegmentCutter::dense(Offset(0), limit) } else { SegmentCutter::new(limit) };
            let (mut next, mut given, mut cut) = (0, Vec::new(), Vec::new());
            for (hole, records) in steps {
                let batch = batch(next + hole, records);
                given.push(batch.clone());
                next += hole + records as i64;
                cut.extend(cutter.push(batch, WallMs(5)).unwrap());
            }
            cut.extend(cutter.finish(WallMs(5)));
            let (mut held, mut end) = (Vec::new(), Offset(0));
            for written in cut {
                let file = written.file.concat();
                let whole = WholeSegment::read(&file).unwrap();
                held.extend(whole.batches.iter().map(|placed| Bytes::copy_from_slice(placed.batch.bytes())));
                let first = Offset(whole.batches[0].batch.base_offset());
                prop_assert_eq!(whole.base, if dense { end } else { first });
                end = whole.last.plus(1);
            }
            prop_assert_eq!(held, given);
        }
    }
}
