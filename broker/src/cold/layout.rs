//! Where a segment's two objects lie and how its index reads (DESIGN.md section 5: KafScale's layout).
//!
//! Index: header of 16 bytes {"IDX\0", version u16 = 1, entries i32, interval i32, reserved u16}, then entries of 12
//! bytes {offset i64, position in the segment's file i32}, all big-endian, in offset order.

use millrace_storage::format::manifest::SegmentName;
use millrace_storage::ids::{Offset, TopicPartition};

/// Bytes of a segment's file before its batches.
pub const HEADER_BYTES: usize = 32;
/// Bytes after them.
pub const FOOTER_BYTES: usize = 16;

const INDEX_HEADER: usize = 16;
const INDEX_ENTRY: usize = 12;
const INDEX_MAGIC: &[u8; 6] = b"IDX\0\0\x01";

/// Key of a segment's batches.
pub fn data_key(partition: TopicPartition, name: SegmentName, base: Offset) -> String {
    key(partition, name, base, "kfs")
}

/// Key of its index.
pub fn index_key(partition: TopicPartition, name: SegmentName, base: Offset) -> String {
    key(partition, name, base, "index")
}

fn key(partition: TopicPartition, name: SegmentName, base: Offset, what: &str) -> String {
    format!("seg/{}/{}/{name}/segment-{:020}.{what}", partition.topic, partition.index, base.0)
}

/// Where some of a segment's batches begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentIndex(Vec<(Offset, u32)>);

impl SegmentIndex {
    /// Reads it; `None` if it is no index.
    pub fn decode(bytes: &[u8]) -> Option<SegmentIndex> {
        let (header, entries) = bytes.split_at_checked(INDEX_HEADER)?;
        let count = i32::from_be_bytes(*header[INDEX_MAGIC.len()..].first_chunk()?);
        let whole = entries.len() % INDEX_ENTRY == 0 && usize::try_from(count) == Ok(entries.len() / INDEX_ENTRY);
        if !header.starts_with(INDEX_MAGIC) || !whole {
            return None;
        }
        let entry = |entry: &[u8]| {
            let (offset, position) = entry.split_first_chunk()?;
            let position = u32::try_from(i32::from_be_bytes(*position.first_chunk()?)).ok()?;
            Some((Offset(i64::from_be_bytes(*offset)), position))
        };
        let entries: Vec<_> = entries.chunks_exact(INDEX_ENTRY).map(entry).collect::<Option<_>>()?;
        let sorted = entries.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = entries.first().is_none_or(|(_, position)| *position >= HEADER_BYTES as u32);
        (sorted && inside).then_some(SegmentIndex(entries))
    }

    /// Where the last batch of the index begins whose offset is not above `offset`.
    pub fn position_at(&self, offset: Offset) -> u64 {
        let below = self.0.partition_point(|(base, _)| *base <= offset);
        below.checked_sub(1).map_or(HEADER_BYTES as u64, |at| self.0[at].1.into())
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        size_of_val(self.0.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_from_the_entry_at_the_offset_or_below_it() {
        let mut bytes = [INDEX_MAGIC.as_slice(), &2i32.to_be_bytes(), &[0; 6]].concat();
        for (offset, position) in [(10i64, 32i32), (20, 500)] {
            bytes.extend(offset.to_be_bytes());
            bytes.extend(position.to_be_bytes());
        }
        let index = SegmentIndex::decode(&bytes).unwrap();
        let positions = [9, 10, 19, 20, 99].map(|offset| index.position_at(Offset(offset)));
        assert_eq!(positions, [32, 32, 32, 500, 500]);
        for length in 0..bytes.len() {
            assert_eq!(SegmentIndex::decode(&bytes[..length]), None, "cut at {length}");
        }
    }
}
