//! The sparse index of a segment: where some of its batches begin.
//!
//! Header of 16 bytes {"IDX\0", version u16 = 1, entries i32, interval in messages i32, reserved u16}, then entries of 12
//! bytes {offset i64, position in the segment's file i32}, in offset order.

use super::HEADER_BYTES;
use crate::format::FormatError;
use crate::ids::Offset;
use bytes::Bytes;

const WHAT: &str = "index of a segment";
const MAGIC: &[u8; 4] = b"IDX\0";
const VERSION: u16 = 1;
const INDEX_HEADER: usize = 16;
const ENTRY: usize = 12;

/// A batch is in the index if it begins at least so many messages after the last one that is,
const INTERVAL_MESSAGES: u32 = 1_000;
/// or so many bytes after it.
const INTERVAL_BYTES: u32 = 128 << 10;

/// Where some of a segment's batches begin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentIndex {
    entries: Vec<(Offset, u32)>,
    /// Messages since the last entry.
    messages: u32,
}

impl SegmentIndex {
    /// The next batch of `messages` messages begins at `position`: puts it in if it is far enough from the last one.
    pub(super) fn push(&mut self, base: Offset, position: u32, messages: u32) {
        let last = self.entries.last().map(|(_, position)| *position);
        let far = |last| self.messages >= INTERVAL_MESSAGES || position - last >= INTERVAL_BYTES;
        if last.is_none_or(far) {
            self.entries.push((base, position));
            self.messages = 0;
        }
        self.messages = self.messages.saturating_add(messages);
    }

    /// Where the last batch of the index begins whose offset is not above `offset`.
    pub fn position_at(&self, offset: Offset) -> u64 {
        let below = self.entries.partition_point(|(base, _)| *base <= offset);
        below.checked_sub(1).map_or(HEADER_BYTES as u64, |at| self.entries[at].1.into())
    }

    /// Base offsets of batches and where they begin, in order.
    pub fn entries(&self) -> &[(Offset, u32)] {
        &self.entries
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        size_of_val(self.entries.as_slice())
    }

    /// Writes it.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(INDEX_HEADER + self.entries.len() * ENTRY);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        // A file of less than 2 GiB has fewer batches.
        out.extend_from_slice(&(self.entries.len() as i32).to_be_bytes());
        out.extend_from_slice(&(INTERVAL_MESSAGES as i32).to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        for (offset, position) in &self.entries {
            out.extend_from_slice(&offset.0.to_be_bytes());
            out.extend_from_slice(&position.to_be_bytes());
        }
        out.into()
    }

    /// Reads it.
    ///
    /// # Errors
    /// The bytes are no index, of another version, or their entries are not in order.
    pub fn decode(bytes: &[u8]) -> Result<SegmentIndex, FormatError> {
        let error = |position, detail: &str| FormatError { what: WHAT, position, detail: detail.to_owned() };
        let (header, rest) =
            bytes.split_first_chunk::<INDEX_HEADER>().ok_or_else(|| error(0, "shorter than its header"))?;
        if !header.starts_with(MAGIC) || header[4..6] != VERSION.to_be_bytes() {
            return Err(error(0, "not an index of version 1"));
        }
        let count = i32::from_be_bytes([header[6], header[7], header[8], header[9]]);
        let (entries, odd) = rest.as_chunks::<ENTRY>();
        if !odd.is_empty() || usize::try_from(count) != Ok(entries.len()) {
            return Err(error(6, "another number of entries"));
        }
        let mut index = SegmentIndex::default();
        for (at, entry) in entries.iter().enumerate() {
            let (offset, position) = entry.split_first_chunk().expect("an entry has 12 bytes");
            let position = u32::from_be_bytes(*position.first_chunk().expect("an entry has 12 bytes"));
            let next = (Offset(i64::from_be_bytes(*offset)), position);
            let follows = index.entries.last().is_none_or(|last| last.0 < next.0 && last.1 < next.1);
            if !follows || position < HEADER_BYTES as u32 || i32::try_from(position).is_err() {
                return Err(error(INDEX_HEADER + at * ENTRY, "an entry out of order"));
            }
            index.entries.push(next);
        }
        Ok(index)
    }
}

/// An index held against the batches of its segment, which come in order.
pub struct Comparison<'a> {
    entries: &'a [(Offset, u32)],
    /// The entry that is to be met next.
    at: usize,
}

impl<'a> Comparison<'a> {
    /// Nothing met yet.
    pub fn new(index: &'a SegmentIndex) -> Comparison<'a> {
        Comparison { entries: index.entries(), at: 0 }
    }

    /// The next batch.
    ///
    /// # Errors
    /// An entry names a place before it where no batch begins, or another offset at its place.
    pub fn batch(&mut self, position: u32, base: Offset) -> Result<(), FormatError> {
        match self.entries.get(self.at) {
            Some(entry) if *entry == (base, position) => self.at += 1,
            Some(entry) if entry.1 <= position => return Err(self.flaw()),
            Some(_) | None => {}
        }
        Ok(())
    }

    /// The last batch was met.
    ///
    /// # Errors
    /// An entry names a place behind it, or there is none at all.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.entries.is_empty() {
            return Err(FormatError { what: WHAT, position: INDEX_HEADER, detail: "it is empty".to_owned() });
        }
        if self.at < self.entries.len() { Err(self.flaw()) } else { Ok(()) }
    }

    fn flaw(&self) -> FormatError {
        let detail = format!("entry {} names no batch", self.at);
        FormatError { what: WHAT, position: INDEX_HEADER + self.at * ENTRY, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_those_of_the_layout() {
        let mut index = SegmentIndex::default();
        index.push(Offset(10), 32, 5);
        index.push(Offset(15), 500, 5);
        index.push(Offset(20), 500 + INTERVAL_BYTES, 5);
        let golden = [
            b"IDX\0".as_slice(),
            &[0, 1, 0, 0, 0, 2, 0, 0, 3, 232, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 32],
            &[0, 0, 0, 0, 0, 0, 0, 20, 0, 2, 1, 244],
        ];
        assert_eq!(index.encode(), golden.concat());
        let read = SegmentIndex::decode(&golden.concat()).unwrap();
        assert_eq!(read.entries(), index.entries());
        let positions = [9, 10, 19, 20, 99].map(|offset| read.position_at(Offset(offset)));
        let second = u64::from(500 + INTERVAL_BYTES);
        assert_eq!(positions, [32, 32, 32, second, second]);
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_index_are_refused_without_a_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..100),
            whole in any::<bool>(),
        ) {
            if whole && bytes.len() >= INDEX_HEADER {
                bytes[..6].copy_from_slice(b"IDX\0\0\x01");
                let count = ((bytes.len() - INDEX_HEADER) / ENTRY) as i32;
                bytes[6..10].copy_from_slice(&count.to_be_bytes());
            }
            if let Ok(index) = SegmentIndex::decode(&bytes) {
                prop_assert!(index.entries().is_sorted());
            }
        }
    }
}
