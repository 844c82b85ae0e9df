//! A segment's file checked from its first byte to its last, in pieces of any size, so that whoever reads a file needs no
//! more memory than its largest batch takes.
//!
//! Invariants:
//! 1. What [`SegmentScan::finish`] gives is of a file in which header, footer and every batch agree: checksums, offsets,
//!    counts.
//! 2. Nothing is copied: batches are shown where the caller has them.

use super::{FOOTER_BYTES, HEADER_BYTES};
use crate::env::WallMs;
use crate::format::FormatError;
use crate::ids::Offset;
use crc_fast::{CrcAlgorithm, Digest};
use millrace_protocol::records::{LENGTH_OVERHEAD, RecordBatch};

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

/// What a whole file came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// As the header says: the first batch starts there or, where batches were lost before, above it.
    pub base: Offset,
    /// Last offset.
    pub last: Offset,
    /// When it was made.
    pub created: WallMs,
    /// Records in it.
    pub records: u64,
    /// Largest timestamp of its batches, Unix milliseconds; −1 if none.
    pub max_timestamp: i64,
    /// The first place where offsets are passed over: the one that was to come, and the one that came.
    pub hole: Option<(Offset, Offset)>,
}

/// How far a scan is. Positions count from the start of the file.
pub struct SegmentScan {
    position: usize,
    /// Where the batches end.
    body_end: usize,
    /// As the header says.
    stated_records: i32,
    crc: Digest,
    /// The least offset that the next batch may have.
    next: Offset,
    found: Scanned,
    footer_seen: bool,
}

fn error(position: usize, detail: impl Into<String>) -> FormatError {
    FormatError { what: WHAT, position, detail: detail.into() }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("within a header or footer whose length was compared")
}

impl SegmentScan {
    /// Begins with a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// No segment has that size.
    pub fn new(file_bytes: u64) -> Result<SegmentScan, FormatError> {
        let size = i32::try_from(file_bytes).ok().and_then(|size| usize::try_from(size).ok());
        let body_end = size.and_then(|size| size.checked_sub(FOOTER_BYTES)).filter(|end| *end >= HEADER_BYTES);
        let body_end = body_end.ok_or_else(|| error(0, format!("{file_bytes} bytes are no segment")))?;
        let none = Offset(0);
        let found = Scanned { base: none, last: none, created: WallMs(0), records: 0, max_timestamp: -1, hole: None };
        let crc = Digest::new(CrcAlgorithm::Crc32Iscsi);
        Ok(SegmentScan { position: 0, body_end, stated_records: 0, crc, next: none, found, footer_seen: false })
    }

    /// Where the bytes that come next stand in the file.
    pub fn position(&self) -> u64 {
        self.position as u64
    }

    /// Takes what is whole of `bytes`, which begin at [`SegmentScan::position`], shows `each` batch, and gives how many
    /// bytes that were: the rest is to be given again, with more behind it.
    ///
    /// # Errors
    /// Where and how the bytes are not a segment of version 1, or contradict themselves. The scan is of no use then.
    pub fn take<'a>(&mut self, bytes: &'a [u8], mut each: impl FnMut(PlacedBatch<'a>)) -> Result<usize, FormatError> {
        let mut rest = bytes;
        if self.position == 0 {
            let Some((header, after)) = rest.split_at_checked(HEADER_BYTES) else { return Ok(0) };
            self.header(header)?;
            rest = after;
        }
        while self.position < self.body_end {
            let body = &rest[..rest.len().min(self.body_end - self.position)];
            let split = RecordBatch::split(body).map_err(|flaw| error(self.position, flaw.to_string()))?;
            let Some((batch, _)) = split else {
                self.check_length(body)?;
                return Ok(bytes.len() - rest.len());
            };
            self.batch(&batch)?;
            each(PlacedBatch { position: self.position as u32, batch });
            self.position += batch.bytes().len();
            rest = &rest[batch.bytes().len()..];
        }
        if !self.footer_seen && rest.len() >= FOOTER_BYTES {
            self.footer(&rest[..FOOTER_BYTES])?;
            rest = &rest[FOOTER_BYTES..];
        }
        Ok(bytes.len() - rest.len())
    }

    /// What the file came to.
    ///
    /// # Errors
    /// Its end was not seen.
    pub fn finish(self) -> Result<Scanned, FormatError> {
        if !self.footer_seen {
            return Err(error(self.position, "the file is cut off"));
        }
        Ok(self.found)
    }

    fn header(&mut self, header: &[u8]) -> Result<(), FormatError> {
        if header[..4] != *MAGIC || header[4..6] != VERSION.to_be_bytes() {
            return Err(error(0, "not a segment of version 1"));
        }
        self.found.base = Offset(i64::from_be_bytes(number(header, 8)));
        self.next = self.found.base;
        self.stated_records = i32::from_be_bytes(number(header, 16));
        self.found.created = WallMs(i64::from_be_bytes(number(header, 20)));
        self.position = HEADER_BYTES;
        Ok(())
    }

    fn batch(&mut self, batch: &RecordBatch<'_>) -> Result<(), FormatError> {
        let at = self.position;
        let (first, last) = (Offset(batch.base_offset()), Offset(batch.last_offset()));
        if first < self.next || last < first || last.0 == i64::MAX {
            return Err(error(at, format!("a batch of offsets {first} to {last} where {} follows", self.next)));
        }
        if batch.computed_crc() != batch.crc() {
            return Err(error(at, format!("the checksum of the batch at offset {first} is another")));
        }
        let count = u32::try_from(batch.count()).map_err(|_| error(at, "a negative count"))?;
        if first > self.next && self.found.hole.is_none() {
            self.found.hole = Some((self.next, first));
        }
        self.crc.update(batch.bytes());
        self.found.records += u64::from(count);
        self.found.max_timestamp = self.found.max_timestamp.max(batch.max_timestamp());
        self.found.last = last;
        self.next = last.plus(1);
        Ok(())
    }

    /// A batch that is not all there must at least end within the file.
    fn check_length(&self, cut: &[u8]) -> Result<(), FormatError> {
        let left = self.body_end - self.position;
        let least = match cut.get(8..LENGTH_OVERHEAD).and_then(|length| length.first_chunk()) {
            // A negative length is refused by whoever splits.
            Some(length) => LENGTH_OVERHEAD + u32::from_be_bytes(*length) as usize,
            None => LENGTH_OVERHEAD,
        };
        if least > left || cut.len() == left {
            return Err(error(self.position, "a batch is cut off"));
        }
        Ok(())
    }

    fn footer(&mut self, footer: &[u8]) -> Result<(), FormatError> {
        let at = self.body_end;
        if footer[12..] != *END {
            return Err(error(at + 12, "no footer: the file is cut off"));
        }
        if self.crc.finalize() != u64::from(u32::from_be_bytes(number(footer, 0))) {
            return Err(error(at, "the checksum of the batches is another"));
        }
        let last = Offset(i64::from_be_bytes(number(footer, 4)));
        if self.next == self.found.base || self.found.last != last {
            return Err(error(at + 4, format!("the last offset is {}, not {last}", self.next.0 - 1)));
        }
        // What does not fit is written as the highest number.
        let (records, stated) = (self.found.records, self.stated_records);
        if i32::try_from(records).unwrap_or(i32::MAX) != stated {
            return Err(error(16, format!("{records} records, not {stated}")));
        }
        self.footer_seen = true;
        Ok(())
    }
}
