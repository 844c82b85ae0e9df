//! Checkpoints and reference chunks.
//!
//! A checkpoint `ckpt/{wid}/{n:020}` is the lane's committed state at one commit point S. References to write-ahead
//! objects not yet covered by a manifest stand in append-only chunks `ckpt/{wid}/{n:020}.refs`, each written once just
//! before the checkpoint that first names it, so that a checkpoint's size does not grow with the log. Chunks of one WAL are
//! merged geometrically: a checkpoint may name a new chunk that replaces several older ones. A chunk belongs to the
//! WAL in whose folder it lies; ACQUIRE copies what it needs into chunks of the acquiring WAL.

use super::FormatError;
use crate::ids::{Seq, TopicPartition, Wid};
use crate::partition::{CommittedPartition, Reference};
use bytes::Bytes;
use std::collections::BTreeMap;

/// A chunk as a checkpoint names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkName {
    /// Number of the checkpoint that introduced it: its key's number.
    pub number: u64,
    /// Bytes.
    pub length: u32,
    /// CRC-32C of its bytes.
    pub crc: u32,
    /// References in it, for deciding merges.
    pub references: u32,
}

/// A checkpoint. The references of its partitions are in the chunks, not in [`CommittedPartition::references`]
/// (empty after decoding until the chunks are attached).
#[derive(Clone, PartialEq, Debug)]
pub struct Checkpoint {
    /// The WAL it belongs to.
    pub wid: Wid,
    /// Its number, from 1.
    pub number: u64,
    /// S: the commit point it was taken at.
    pub s: Seq,
    /// Low-water mark.
    pub lw: Seq,
    /// First producer id that this cluster has surely not given out, as far as the lane knows.
    pub producer_id_high_water: i64,
    /// Chunks in order of age.
    pub chunks: Vec<ChunkName>,
    /// Every partition led or released.
    pub partitions: BTreeMap<TopicPartition, CommittedPartition>,
}

/// A reference chunk: for each partition the references in offset order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReferenceChunk {
    /// References by partition.
    pub partitions: BTreeMap<TopicPartition, Vec<Reference>>,
}

/// Key of a checkpoint.
pub fn checkpoint_key(wid: Wid, number: u64) -> String {
    format!("ckpt/{wid}/{number:020}")
}
/// Key of a chunk.
pub fn chunk_key(wid: Wid, number: u64) -> String {
    format!("ckpt/{wid}/{number:020}.refs")
}

impl Checkpoint {
    /// Writes it (without references).
    pub fn encode(&self) -> Bytes {
        todo!("formats")
    }
    /// Reads it.
    pub fn decode(_bytes: &[u8]) -> Result<Checkpoint, FormatError> {
        todo!("formats")
    }
}

impl ReferenceChunk {
    /// Writes it.
    pub fn encode(&self) -> Bytes {
        todo!("formats")
    }
    /// Reads it; `name` gives the length and CRC that it must have.
    pub fn decode(_bytes: &[u8], _name: &ChunkName) -> Result<ReferenceChunk, FormatError> {
        todo!("formats")
    }
}
