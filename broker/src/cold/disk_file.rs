//! The file in which one shard keeps blocks of segments on the local disk: a page that says what it is, a table of slots,
//! and as many places of one block each.
//!
//! ```text
//! page   "millrace-blocks\0"  version u32  slots u32  block bytes u64  crc-64 of the above and the store's address
//! table  slots × 128:  length u32, reserved u32, crc-64 of the block, what block it is (76 bytes), zeros, crc-64 of it all
//! places slots × block bytes
//! ```
//!
//! Numbers are little-endian. Nothing is ever synced: after a crash any part may be old, new, half of each, or nothing.
//!
//! Invariants:
//! 1. A file that is not of this version, these sizes and this store is emptied before use; its length never exceeds
//!    what [`Shape::file_bytes`] says.
//! 2. Of a slot whose entry is not whole nothing is known; a block is given only if it has the checksum of its entry.
//! 3. A block's place is written before its entry: an entry that is whole, with an older block, is found out by the
//!    checksum.

use super::reader::File as Segment;
use crc_fast::{CrcAlgorithm, checksum};
use millrace_storage::format::manifest::SegmentName;
use millrace_storage::ids::{Offset, TopicId, TopicPartition, Wid};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: &[u8; 16] = b"millrace-blocks\0";
const VERSION: u32 = 1;
/// Bytes of the first page.
const PAGE_BYTES: u64 = 4096;
/// Bytes of an entry of the table.
const ENTRY_BYTES: usize = 128;
/// Slots of one file: what the table in memory takes is charged to the memory of blocks, this bounds a start.
const MOST_SLOTS: u64 = 1 << 20;

/// One block of a segment's file.
pub type BlockKey = (Segment, u64);

/// How a file is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Blocks that it holds.
    pub slots: u32,
    /// Bytes of each.
    pub block_bytes: u64,
}

impl Shape {
    /// As many blocks as a file of `bytes` holds.
    pub fn within(bytes: u64, block_bytes: usize) -> Shape {
        let block_bytes = block_bytes as u64;
        // The table begins and ends at a page.
        let slots = bytes.saturating_sub(2 * PAGE_BYTES) / (block_bytes + ENTRY_BYTES as u64);
        Shape { slots: slots.min(MOST_SLOTS) as u32, block_bytes }
    }

    fn table_bytes(self) -> u64 {
        (u64::from(self.slots) * ENTRY_BYTES as u64).next_multiple_of(PAGE_BYTES)
    }

    fn place(self, slot: u32) -> u64 {
        PAGE_BYTES + self.table_bytes() + u64::from(slot) * self.block_bytes
    }

    fn entry(slot: u32) -> u64 {
        PAGE_BYTES + u64::from(slot) * ENTRY_BYTES as u64
    }

    /// Length of the file.
    pub fn file_bytes(self) -> u64 {
        self.place(self.slots)
    }

    /// The first page of the file for the blocks of this store.
    fn page(self, store: &str) -> [u8; PAGE_BYTES as usize] {
        let mut page = [0; PAGE_BYTES as usize];
        page[..16].copy_from_slice(MAGIC);
        page[16..20].copy_from_slice(&VERSION.to_le_bytes());
        page[20..24].copy_from_slice(&self.slots.to_le_bytes());
        page[24..32].copy_from_slice(&self.block_bytes.to_le_bytes());
        let mut all = page[..32].to_vec();
        all.extend_from_slice(store.as_bytes());
        page[32..40].copy_from_slice(&crc(&all).to_le_bytes());
        page
    }
}

/// What lies in a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Where.
    pub slot: u32,
    /// Bytes of the block.
    pub length: u32,
    /// Its CRC-64.
    pub crc: u64,
}

/// The open file.
#[derive(Debug)]
pub struct BlockFile {
    file: File,
    shape: Shape,
}

impl BlockFile {
    /// Opens or makes the file at `path`, and says what blocks of `store` it seems to hold. Reads the whole table: not on a
    /// shard's thread.
    ///
    /// # Errors
    /// The file can't be made, read or sized.
    pub fn open(path: &Path, shape: Shape, store: &str) -> io::Result<(BlockFile, Vec<(BlockKey, Kept)>)> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let page = shape.page(store);
        let mut found = [0; PAGE_BYTES as usize];
        let ours = file.read_exact_at(&mut found, 0).is_ok() && found == page;
        if !ours {
            file.set_len(0)?;
        }
        // Places take room once they are written.
        file.set_len(shape.file_bytes())?;
        if !ours {
            file.write_all_at(&page, 0)?;
        }
        let file = BlockFile { file, shape };
        let kept = if ours { file.table()? } else { Vec::new() };
        Ok((file, kept))
    }

    /// Whatever file this is, as one that was opened.
    #[cfg(test)]
    pub(super) fn over(file: File, shape: Shape) -> BlockFile {
        BlockFile { file, shape }
    }

    fn table(&self) -> io::Result<Vec<(BlockKey, Kept)>> {
        let mut table = vec![0; self.shape.slots as usize * ENTRY_BYTES];
        self.file.read_exact_at(&mut table, PAGE_BYTES)?;
        let entries = (0..).zip(table.as_chunks::<ENTRY_BYTES>().0);
        Ok(entries.filter_map(|(slot, entry)| decode(slot, entry, self.shape)).collect())
    }

    /// The block that is kept there; `None` if it is not what the table says. Blocks the thread.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(&self, kept: Kept) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; kept.length as usize];
        self.file.read_exact_at(&mut bytes, self.shape.place(kept.slot))?;
        Ok((crc(&bytes) == kept.crc).then_some(bytes))
    }

    /// Writes a block into a slot, in place of what was there. Blocks the thread.
    ///
    /// # Errors
    /// The disk's. Nothing is kept in that slot then.
    ///
    /// # Panics
    /// If it is larger than a block.
    pub fn write(&self, slot: u32, key: &BlockKey, bytes: &[u8]) -> io::Result<Kept> {
        assert!(slot < self.shape.slots && bytes.len() as u64 <= self.shape.block_bytes, "a block fits into its place");
        let kept = Kept { slot, length: bytes.len() as u32, crc: crc(bytes) };
        self.file.write_all_at(bytes, self.shape.place(slot))?;
        self.file.write_all_at(&encode(key, kept), Shape::entry(slot))?;
        Ok(kept)
    }
}

fn crc(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

fn encode(key: &BlockKey, kept: Kept) -> [u8; ENTRY_BYTES] {
    let (Segment { partition, name, base, bytes }, number) = key;
    let mut entry = [0; ENTRY_BYTES];
    let mut at = 0;
    let mut put = |field: &[u8]| {
        entry[at..at + field.len()].copy_from_slice(field);
        at += field.len();
    };
    put(&kept.length.to_le_bytes());
    put(&[0; 4]);
    put(&kept.crc.to_le_bytes());
    put(partition.topic.0.as_bytes());
    put(&partition.index.to_le_bytes());
    put(&name.wid.0.to_le_bytes());
    put(&name.number.to_le_bytes());
    put(&base.0.to_le_bytes());
    put(&bytes.to_le_bytes());
    put(&number.to_le_bytes());
    let whole = crc(&entry[..ENTRY_BYTES - 8]);
    entry[ENTRY_BYTES - 8..].copy_from_slice(&whole.to_le_bytes());
    entry
}

fn decode(slot: u32, entry: &[u8; ENTRY_BYTES], shape: Shape) -> Option<(BlockKey, Kept)> {
    let mut rest = &entry[..];
    let length = u32::from_le_bytes(next(&mut rest));
    let _reserved: [u8; 4] = next(&mut rest);
    let block_crc = u64::from_le_bytes(next(&mut rest));
    let topic = TopicId(uuid::Uuid::from_bytes(next(&mut rest)));
    let partition = TopicPartition { topic, index: u32::from_le_bytes(next(&mut rest)) };
    let wid = Wid(u128::from_le_bytes(next(&mut rest)));
    let name = SegmentName { wid, number: u64::from_le_bytes(next(&mut rest)) };
    let base = Offset(i64::from_le_bytes(next(&mut rest)));
    let bytes = u64::from_le_bytes(next(&mut rest));
    let number = u64::from_le_bytes(next(&mut rest));
    let stored = u64::from_le_bytes(*entry.last_chunk()?);
    let whole = crc(&entry[..ENTRY_BYTES - 8]) == stored && length > 0 && u64::from(length) <= shape.block_bytes;
    let key = (Segment { partition, name, base, bytes }, number);
    whole.then_some((key, Kept { slot, length, crc: block_crc }))
}

fn next<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (field, after) = rest.split_first_chunk().expect("all fields together are shorter than an entry");
    *rest = after;
    *field
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: Shape = Shape { slots: 4, block_bytes: 1_000 };

    fn key(number: u64) -> BlockKey {
        let partition = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(9)), index: 2 };
        let name = SegmentName { wid: Wid(5), number: 77 };
        (Segment { partition, name, base: Offset(100), bytes: 9_999 }, number)
    }

    #[test]
    fn what_was_written_is_there_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made/here/blocks");
        let (file, kept) = BlockFile::open(&path, SHAPE, "s3://b").unwrap();
        assert!(kept.is_empty());
        let first = file.write(1, &key(0), &[1; 1_000]).unwrap();
        let second = file.write(3, &key(1), &[2; 10]).unwrap();
        let (file, kept) = BlockFile::open(&path, SHAPE, "s3://b").unwrap();
        assert_eq!(kept, [(key(0), first), (key(1), second)]);
        assert_eq!(file.read(first).unwrap().unwrap(), [1; 1_000]);
        assert_eq!(file.read(second).unwrap().unwrap(), [2; 10]);
        assert_eq!(fs::metadata(&path).unwrap().len(), SHAPE.file_bytes());
    }

    #[test]
    fn a_file_of_another_store_or_shape_or_kind_is_emptied() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blocks");
        let fill = || BlockFile::open(&path, SHAPE, "s3://b").unwrap().0.write(0, &key(0), b"block").unwrap();
        let other = Shape { block_bytes: 500, ..SHAPE };
        for (shape, store) in [(SHAPE, "s3://c"), (other, "s3://b")] {
            fill();
            assert!(BlockFile::open(&path, shape, store).unwrap().1.is_empty());
        }
        fs::write(&path, vec![b'x'; 100_000]).unwrap();
        assert!(BlockFile::open(&path, SHAPE, "s3://b").unwrap().1.is_empty());
        assert_eq!(fs::metadata(&path).unwrap().len(), SHAPE.file_bytes());
        // Cut off by somebody: what is left of it counts.
        let kept = fill();
        File::options().write(true).open(&path).unwrap().set_len(SHAPE.place(0) + 2).unwrap();
        let (file, found) = BlockFile::open(&path, SHAPE, "s3://b").unwrap();
        assert_eq!(found, [(key(0), kept)]);
        assert_eq!(file.read(kept).unwrap(), None);
    }

    #[test]
    fn the_file_stays_within_its_bytes() {
        for bytes in [0, 1, 8_191, 8_192, 100_000, 1 << 20, (1 << 30) + 12_345] {
            let shape = Shape::within(bytes, 1_000);
            assert!(shape.slots == 0 || shape.file_bytes() <= bytes, "{bytes}: {shape:?}");
            assert!(bytes < 1 << 20 || shape.file_bytes() > bytes - 20_000, "{bytes}: {shape:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_to_the_file_it_gives_what_was_written_or_nothing(
            writes in proptest::collection::vec((0..4_u32, 0..9_u64, 1..1_000_usize, any::<u8>()), 1..20),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..200),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("blocks");
            let (file, _) = BlockFile::open(&path, SHAPE, "s3://b").unwrap();
            let mut written = std::collections::BTreeMap::new();
            for (slot, number, length, byte) in writes {
                let bytes = vec![byte; length];
                file.write(slot, &key(number), &bytes).unwrap();
                written.insert(slot, (key(number), bytes));
            }
            let size = fs::metadata(&path).unwrap().len() as usize;
            let hurt = !damage.is_empty();
            for (at, byte) in damage {
                file.file.write_all_at(&[byte], at.index(size) as u64).unwrap();
            }
            let (file, kept) = BlockFile::open(&path, SHAPE, "s3://b").unwrap();
            prop_assert!(hurt || kept.len() == written.len());
            for (found, kept) in kept {
                let (key, bytes) = &written[&kept.slot];
                prop_assert_eq!(&found, key);
                if let Some(read) = file.read(kept).unwrap() {
                    prop_assert_eq!(&read, bytes);
                } else {
                    prop_assert!(hurt);
                }
            }
        }
    }
}
