//! Segments: many batches of one partition in one file, with an index beside it, in KafScale's layout (DESIGN.md section 5),
//! so that either reads what the other wrote. Integers are big-endian.
//!
//! File: header of 32 bytes {"KAFS", version u16 = 1, flags u16, base offset i64, message count i32, created Unix ms i64,
//! reserved u32} · batches of magic 2 as on the wire · footer of 16 bytes {CRC-32C of the batches u32, last offset i64,
//! "END!"}. Index: see [`index`].
//!
//! Both lie under a name that is never used twice and are found through the manifest only.

mod cutter;
pub mod index;
pub mod pieces;
mod reader;
mod scan;
mod whole;
mod writer;

pub use cutter::SegmentCutter;
pub use index::SegmentIndex;
pub use reader::{ReadError, SegmentReader};
pub use scan::{PlacedBatch, Scanned, SegmentScan};
pub use whole::WholeSegment;
pub use writer::{SegmentError, SegmentWriter, WrittenSegment};

use crate::format::manifest::SegmentName;
use crate::ids::{Offset, TopicPartition};

/// Bytes of a segment's file before its batches.
pub const HEADER_BYTES: usize = 32;
/// Bytes after them.
pub const FOOTER_BYTES: usize = 16;

/// Where the batches end in a file of `bytes`.
pub fn batches_end(bytes: u64) -> u64 {
    bytes.saturating_sub(FOOTER_BYTES as u64)
}

/// Key of a segment's file.
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
