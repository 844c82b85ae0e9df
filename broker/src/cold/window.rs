//! A stretch of a segment's file in memory: neighbouring blocks as they were loaded, joined only for searches.
//!
//! Blocks are all of one size, counted from the start of the file; the last one of a file is shorter. A block remembers
//! which of the batches that begin in it had the right checksum, so that this is computed once however often they are read.

use crate::shard::fetching::slice_of;
use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use millrace_protocol::record_set::RecordSet;
use millrace_protocol::records::HEADER_BYTES;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// Where a batch's CRC-32C stands, which is of everything after it.
const CRC: Range<u64> = 17..21;

/// A part of a segment's file.
#[derive(Debug)]
pub struct Block {
    bytes: Bytes,
    /// Batches that begin in this stretch of it are sound.
    sound: Cell<(usize, usize)>,
}

impl Block {
    /// Of which nothing is known yet.
    pub fn new(bytes: Bytes) -> Rc<Block> {
        Rc::new(Block { bytes, sound: Cell::new((0, 0)) })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn is_sound(&self, at: usize) -> bool {
        let (from, to) = self.sound.get();
        from <= at && at < to
    }

    /// The batch that begins at `at` is sound and ends at `end`, or beyond the block.
    fn found_sound(&self, at: usize, end: usize) {
        let (from, to) = self.sound.get();
        let end = end.min(self.bytes.len());
        // One stretch is enough: readers go forward, and the first who reads a block begins where others will.
        if at == to || from == to {
            self.sound.set((if from == to { at } else { from }, end));
        } else if end == from {
            self.sound.set((at, to));
        }
    }
}

/// Neighbouring blocks.
#[derive(Debug)]
pub struct Window {
    block_bytes: u64,
    /// Number of the first block held, or of the next one to come if none is held.
    first: u64,
    blocks: Vec<Rc<Block>>,
    /// Position after the last byte held.
    end: u64,
}

impl Window {
    /// Holds nothing; the first block to come is the one in which `position` lies.
    pub fn at(position: u64, block_bytes: u64) -> Window {
        let first = position / block_bytes;
        Window { block_bytes, first, blocks: Vec::new(), end: first * block_bytes }
    }

    /// Number of the block to come.
    pub fn next_block(&self) -> u64 {
        self.first + self.blocks.len() as u64
    }

    /// Adds the block to come.
    pub fn push(&mut self, block: Rc<Block>) {
        self.end += block.bytes.len() as u64;
        self.blocks.push(block);
    }

    /// Position after the last byte held.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The bytes of a batch header that begins at `position`, if they are all held.
    ///
    /// # Panics
    /// If `position` lies before the window.
    pub fn header(&self, position: u64) -> Option<[u8; HEADER_BYTES]> {
        if position + HEADER_BYTES as u64 > self.end {
            return None;
        }
        let mut header = [0; HEADER_BYTES];
        let mut filled = 0;
        for (block, part) in self.parts(position..position + HEADER_BYTES as u64) {
            header[filled..filled + part.len()].copy_from_slice(&block.bytes[part.clone()]);
            filled += part.len();
        }
        (filled == HEADER_BYTES).then_some(header)
    }

    /// The bytes `range`, in slices of the blocks where that does not keep much more in memory than it gives.
    ///
    /// # Panics
    /// If they are not all held.
    pub fn records(&self, range: Range<u64>, into: &mut RecordSet) {
        assert!(range.end <= self.end, "only bytes that are held are given");
        for (block, part) in self.parts(range) {
            into.push(slice_of(&block.bytes, part.start, part.end));
        }
    }

    /// The bytes `range`, copied only where they lie in several blocks.
    ///
    /// # Panics
    /// If they are not all held.
    pub fn joined(&self, range: Range<u64>) -> Bytes {
        assert!(range.end <= self.end, "only bytes that are held are given");
        let length = range.end - range.start;
        let mut parts = self.parts(range);
        let Some((block, part)) = parts.next() else { return Bytes::new() };
        if part.len() as u64 == length {
            return block.bytes.slice(part);
        }
        let mut joined = BytesMut::with_capacity(usize::try_from(length).expect("held in memory"));
        joined.extend_from_slice(&block.bytes[part]);
        parts.for_each(|(block, part)| joined.extend_from_slice(&block.bytes[part]));
        joined.freeze()
    }

    /// Whether the batch at `range` has the checksum that its `header` states.
    ///
    /// # Panics
    /// If it is not all held.
    pub fn is_sound(&self, range: Range<u64>, header: &[u8; HEADER_BYTES]) -> bool {
        assert!(range.end <= self.end, "only batches that are held can be checked");
        let (block, part) = self.parts(range.clone()).next().expect("a batch has bytes");
        if block.is_sound(part.start) {
            return true;
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        for (block, part) in self.parts(range.start + CRC.end..range.end) {
            digest.update(&block.bytes[part]);
        }
        let stored = &header[CRC.start as usize..CRC.end as usize];
        let sound = digest.finalize() == stored.iter().fold(0, |crc, byte| crc << 8 | u64::from(*byte));
        if sound {
            let length = usize::try_from(range.end - range.start).expect("held in memory");
            block.found_sound(part.start, part.start + length);
        }
        sound
    }

    /// The blocks that hold bytes of `range`, with the part of each.
    fn parts(&self, range: Range<u64>) -> impl Iterator<Item = (&Block, Range<usize>)> {
        let origin = self.first * self.block_bytes;
        let from = range.start.checked_sub(origin).expect("the window begins before what is asked of it");
        let to = range.end - origin;
        let skip = usize::try_from(from / self.block_bytes).expect("held in memory");
        let starts = (0..).map(|number| number * self.block_bytes);
        self.blocks.iter().zip(starts).skip(skip).map_while(move |(block, start)| {
            let within = |position: u64| {
                usize::try_from(position.saturating_sub(start)).expect("held in memory").min(block.bytes.len())
            };
            let part = within(from)..within(to);
            (part.start < part.end).then_some((&**block, part))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_range_comes_back_however_the_blocks_are_cut(
            bytes in proptest::collection::vec(any::<u8>(), 70..400),
            block_bytes in 1..100usize,
            places in any::<[proptest::sample::Index; 3]>(),
        ) {
            let mut places = places.map(|place| place.index(bytes.len()));
            places.sort_unstable();
            let [begin, from, to] = places;
            let mut window = Window::at(begin as u64, block_bytes as u64);
            for block in bytes.chunks(block_bytes).skip(begin / block_bytes) {
                window.push(Block::new(Bytes::copy_from_slice(block)));
            }
            prop_assert_eq!(window.end(), bytes.len() as u64);
            let mut records = RecordSet::new();
            window.records(from as u64..to as u64, &mut records);
            prop_assert_eq!(records.concat(), &bytes[from..to]);
            prop_assert_eq!(window.joined(from as u64..to as u64), &bytes[from..to]);
            let header = bytes[from..].first_chunk::<HEADER_BYTES>().copied();
            prop_assert_eq!(window.header(from as u64), header);
        }
    }
}
