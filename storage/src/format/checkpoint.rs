//! Checkpoints and reference chunks.
//!
//! A checkpoint `ckpt/{wid}/{n:020}` is the lane's committed state at one commit point S. References to write-ahead
//! objects not yet covered by a manifest stand in append-only chunks `ckpt/{wid}/{n:020}.refs`, each written once just
//! before the checkpoint that first names it, so that a checkpoint's size does not grow with the log. Chunks of one WAL are
//! merged geometrically: a checkpoint may name a new chunk that replaces several older ones. A chunk belongs to the
//! WAL in whose folder it lies; ACQUIRE copies what it needs into chunks of the acquiring WAL.
//!
//! Both start with 8 magic bytes and a version byte, go on in varints, and end with a CRC-32C (little-endian) of all
//! bytes before it.
//!
//! Checkpoint, magic `MILLCKP\0`: wid (16 bytes, as in its text form), number, S, lw, producer-id high-water; chunks
//! {number, length, CRC u32, references}; partitions in order {topic id (16 bytes), index, epoch, end, log start,
//! covered, epochs {epoch, start}, producers by id {id, epoch, updated (zigzag), batches {base, last − base, last
//! sequence}}}. Every list is preceded by its length. An epoch, start or id is written as the difference to the one before it.
//!
//! Reference chunk, magic `MILLREF\0`: dictionary of wids (16 bytes each); partitions in order {topic id, index,
//! references {index of the wid, seq (zigzag difference), position, length, base − the offset after the one before,
//! last − base, max timestamp (zigzag difference)}}.
//!
//! A later version adds fields at the end of an element or of the whole and raises the version byte; its decoder takes
//! what an older version lacks as zero. A version above its own is refused.

use super::FormatError;
use super::object::{put_partition, read_partition};
use super::varint::{Reader, put, put_crc, put_natural, put_signed, split_crc};
use crate::env::WallMs;
use crate::ids::{LeaderEpoch, Offset, Seq, TopicPartition, Wid};
use crate::partition::{
    CommittedBatch, CommittedPartition, EpochHistory, MAX_EPOCHS, MAX_PRODUCERS, ProducerState, ProducerTable,
    Reference, References, WINDOW,
};
use bytes::Bytes;
use std::collections::BTreeMap;

const CHECKPOINT: &str = "checkpoint";
const CHUNK: &str = "reference chunk";
const CHECKPOINT_MAGIC: &[u8; 8] = b"MILLCKP\0";
const CHUNK_MAGIC: &[u8; 8] = b"MILLREF\0";
const VERSION: u8 = 1;
/// The least that an element takes, per list.
const LEAST_CHUNK_NAME_BYTES: usize = 7;
const LEAST_PARTITION_BYTES: usize = 23;
const LEAST_EPOCH_BYTES: usize = 2;
const LEAST_PRODUCER_BYTES: usize = 7;
const LEAST_BATCH_BYTES: usize = 3;
const WID_BYTES: usize = 16;
const LEAST_REFERENCES_BYTES: usize = 18;
const LEAST_REFERENCE_BYTES: usize = 7;

/// A chunk as a checkpoint names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkName {
    /// Number of the checkpoint that introduced it: its key's number.
    pub number: u64,
    /// Bytes.
    pub length: u32,
    /// The CRC-32C that it ends with.
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
    /// Number 0: what a log starts with, without an object.
    pub fn empty(wid: Wid) -> Checkpoint {
        let none = Seq(0);
        let partitions = BTreeMap::new();
        Checkpoint { wid, number: 0, s: none, lw: none, producer_id_high_water: 0, chunks: Vec::new(), partitions }
    }

    /// Writes it (without references).
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        out.extend_from_slice(CHECKPOINT_MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.wid.0.to_be_bytes());
        put(&mut out, self.number);
        put(&mut out, self.s.0);
        put(&mut out, self.lw.0);
        put_natural(&mut out, self.producer_id_high_water);
        put(&mut out, self.chunks.len() as u64);
        for chunk in &self.chunks {
            put(&mut out, chunk.number);
            put(&mut out, chunk.length.into());
            out.extend_from_slice(&chunk.crc.to_le_bytes());
            put(&mut out, chunk.references.into());
        }
        put(&mut out, self.partitions.len() as u64);
        for (partition, state) in &self.partitions {
            put_partition(&mut out, *partition);
            encode_state(&mut out, state);
        }
        put_crc(&mut out);
        Bytes::from(out)
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
        let (content, _) = split_crc(CHECKPOINT, bytes)?;
        let mut reader = Reader::new(CHECKPOINT, content);
        reader.magic(CHECKPOINT_MAGIC, VERSION)?;
        let wid = Wid(u128::from_be_bytes(reader.array()?));
        let number = reader.varint()?;
        let (s, lw) = (Seq(reader.varint()?), Seq(reader.varint()?));
        reader.ensure(lw <= s, "the low-water mark is above S")?;
        let producer_id_high_water = reader.bounded()?;
        let count = reader.count(LEAST_CHUNK_NAME_BYTES)?;
        let mut chunks = Vec::with_capacity(count);
        for _ in 0..count {
            let (number, length) = (reader.varint()?, reader.bounded()?);
            chunks.push(ChunkName { number, length, crc: reader.u32()?, references: reader.bounded()? });
        }
        let mut partitions = BTreeMap::new();
        for _ in 0..reader.count(LEAST_PARTITION_BYTES)? {
            let partition = read_partition(&mut reader)?;
            let ascends = partitions.last_key_value().is_none_or(|(last, _)| *last < partition);
            reader.ensure(ascends, "partitions out of order")?;
            partitions.insert(partition, decode_state(&mut reader)?);
        }
        reader.finish()?;
        Ok(Checkpoint { wid, number, s, lw, producer_id_high_water, chunks, partitions })
    }

    /// Attaches the references of one chunk, which come in order of age. References that are attached already, or lie
    /// below what their partition needs, are passed over; so are partitions that the checkpoint does not hold. So are
    /// references behind a gap: of a partition that left and came back, all stand in a chunk of later age, while an older
    /// one may still hold the end of what it had before, and the one with the beginning be gone. Whether all are there,
    /// [`Checkpoint::check_attached`] tells.
    ///
    /// # Errors
    /// References that overlap those before in part, or lie beyond the end.
    pub fn attach(&mut self, chunk: &ReferenceChunk) -> Result<(), FormatError> {
        for (partition, references) in &chunk.partitions {
            let Some(state) = self.partitions.get_mut(partition) else { continue };
            for reference in references {
                let next = state.references.last().map_or(state.referenced_from(), |last| last.last.plus(1));
                if reference.last < next {
                    continue;
                }
                if reference.base > next && reference.last < state.end {
                    break;
                }
                let follows = reference.base == next || (state.references.is_empty() && reference.base < next);
                if !follows || reference.last >= state.end {
                    return Err(not_covered(partition, reference.base, next, state.end));
                }
                state.references.push(*reference);
            }
        }
        Ok(())
    }

    /// After the last chunk: the references hold everything that no manifest covers.
    ///
    /// # Errors
    /// A partition's references end before its end offset.
    pub fn check_attached(&self) -> Result<(), FormatError> {
        for (partition, state) in &self.partitions {
            let next = state.references.last().map_or(state.referenced_from(), |last| last.last.plus(1));
            if next != state.end {
                return Err(not_covered(partition, next, next, state.end));
            }
        }
        Ok(())
    }
}

fn not_covered(partition: &TopicPartition, found: Offset, expected: Offset, end: Offset) -> FormatError {
    let detail = format!("reference of {partition} at {found} where {expected} was expected, end {end}");
    FormatError { what: CHUNK, position: 0, detail }
}

fn encode_state(out: &mut Vec<u8>, state: &CommittedPartition) {
    put_natural(out, state.epoch.0.into());
    put_natural(out, state.end.0);
    put_natural(out, state.log_start.0);
    put_natural(out, state.covered.0);
    encode_epochs(out, &state.epochs);
    put(out, state.producers.len() as u64);
    let mut before = 0;
    for (id, producer) in state.producers.iter() {
        put_natural(out, id - before);
        before = id;
        put_natural(out, producer.epoch.into());
        put_signed(out, producer.updated.0);
        put(out, producer.batches().len() as u64);
        for batch in producer.batches() {
            put_natural(out, batch.base.0);
            put(out, batch.last_delta.into());
            put_natural(out, batch.last_sequence.into());
        }
    }
}

fn decode_state(reader: &mut Reader<'_>) -> Result<CommittedPartition, FormatError> {
    let epoch = LeaderEpoch(reader.bounded()?);
    let end = read_offset(reader)?;
    let (log_start, covered) = (read_offset(reader)?, read_offset(reader)?);
    reader.ensure(log_start <= end && covered <= end, "offsets beyond the end")?;
    let epochs = decode_epochs(reader)?;
    let latest = epochs.latest();
    let known = latest.is_some_and(|latest| latest.epoch == epoch && latest.start <= end);
    reader.ensure(known, "the latest epoch is not the partition's")?;
    let producers = decode_producers(reader)?;
    Ok(CommittedPartition { epoch, end, log_start, epochs, producers, covered, references: References::default() })
}

/// Appends a history: its length, then epochs and starts as differences.
pub(super) fn encode_epochs(out: &mut Vec<u8>, epochs: &EpochHistory) {
    let starts = epochs.starts();
    put(out, starts.len() as u64);
    let (mut epoch, mut start) = (0, 0);
    for each in starts {
        put_natural(out, i64::from(each.epoch.0) - epoch);
        put_natural(out, each.start.0 - start);
        (epoch, start) = (each.epoch.0.into(), each.start.0);
    }
}

/// Reads what [`encode_epochs`] wrote.
pub(super) fn decode_epochs(reader: &mut Reader<'_>) -> Result<EpochHistory, FormatError> {
    let mut epochs = EpochHistory::default();
    let count = reader.count(LEAST_EPOCH_BYTES)?;
    reader.ensure(count <= MAX_EPOCHS, "too many epochs")?;
    let (mut epoch, mut start) = (0i32, 0i64);
    for index in 0..count {
        let by = reader.bounded::<i32>()?;
        reader.ensure(by > 0 || index == 0, "epochs out of order")?;
        epoch = epoch.checked_add(by).ok_or_else(|| reader.error("an epoch beyond 2^31"))?;
        start = start.checked_add(reader.bounded()?).ok_or_else(|| reader.error("an offset beyond 2^63"))?;
        epochs.append(LeaderEpoch(epoch), Offset(start));
    }
    Ok(epochs)
}

fn decode_producers(reader: &mut Reader<'_>) -> Result<ProducerTable, FormatError> {
    let mut producers = ProducerTable::default();
    let count = reader.count(LEAST_PRODUCER_BYTES)?;
    reader.ensure(count <= MAX_PRODUCERS, "too many producers")?;
    let mut id = 0i64;
    for index in 0..count {
        let by = reader.bounded::<i64>()?;
        reader.ensure(by > 0 || index == 0, "producers out of order")?;
        id = id.checked_add(by).ok_or_else(|| reader.error("a producer id beyond 2^63"))?;
        let mut state = ProducerState::new(reader.bounded()?, WallMs(reader.signed()?));
        let count = reader.count(LEAST_BATCH_BYTES)?;
        reader.ensure((1..=WINDOW).contains(&count), "not one to five batches of a producer")?;
        for _ in 0..count {
            let (base, last_delta) = (read_offset(reader)?, reader.bounded::<i32>()?.unsigned_abs());
            state.push(CommittedBatch { base, last_delta, last_sequence: reader.bounded()? });
        }
        producers.restore(id, state);
    }
    Ok(producers)
}

/// An offset with room above it for the records of a batch.
pub(super) fn read_offset(reader: &mut Reader<'_>) -> Result<Offset, FormatError> {
    let offset = reader.bounded::<i64>()?;
    reader.ensure(offset < i64::MAX - i64::from(u32::MAX), "an offset beyond 2^63")?;
    Ok(Offset(offset))
}

impl ReferenceChunk {
    /// How many references it holds.
    pub fn len(&self) -> usize {
        self.partitions.values().map(Vec::len).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes it; also gives the name that checkpoint `number` and later ones know it by.
    ///
    /// # Panics
    /// If it would reach 4 GiB.
    pub fn encode(&self, number: u64) -> (ChunkName, Bytes) {
        let mut wids: Vec<Wid> = self.partitions.values().flatten().map(|reference| reference.wid).collect();
        wids.sort_unstable();
        wids.dedup();
        let mut out = Vec::new();
        out.extend_from_slice(CHUNK_MAGIC);
        out.push(VERSION);
        put(&mut out, wids.len() as u64);
        wids.iter().for_each(|wid| out.extend_from_slice(&wid.0.to_be_bytes()));
        put(&mut out, self.partitions.len() as u64);
        for (partition, references) in &self.partitions {
            put_partition(&mut out, *partition);
            encode_references(&mut out, references, &wids);
        }
        put_crc(&mut out);
        let crc = u32::from_le_bytes(*out.last_chunk().expect("a CRC was appended"));
        let length = u32::try_from(out.len()).expect("a chunk stays below 4 GiB");
        let references = u32::try_from(self.len()).expect("a reference takes a byte at least");
        (ChunkName { number, length, crc, references }, Bytes::from(out))
    }

    /// Reads it; `name` gives the length and CRC that it must have.
    pub fn decode(bytes: &[u8], name: &ChunkName) -> Result<ReferenceChunk, FormatError> {
        let (content, crc) = split_crc(CHUNK, bytes)?;
        let mut reader = Reader::new(CHUNK, content);
        let named = bytes.len() == name.length as usize && crc == name.crc;
        reader.ensure(named, "not the chunk that the checkpoint names")?;
        reader.magic(CHUNK_MAGIC, VERSION)?;
        let count = reader.count(WID_BYTES)?;
        let mut wids = Vec::with_capacity(count);
        for _ in 0..count {
            wids.push(Wid(u128::from_be_bytes(reader.array()?)));
        }
        let mut partitions = BTreeMap::new();
        for _ in 0..reader.count(LEAST_REFERENCES_BYTES)? {
            let partition = read_partition(&mut reader)?;
            let ascends = partitions.last_key_value().is_none_or(|(last, _)| *last < partition);
            reader.ensure(ascends, "partitions out of order")?;
            partitions.insert(partition, decode_references(&mut reader, &wids)?);
        }
        reader.finish()?;
        Ok(ReferenceChunk { partitions })
    }
}

fn encode_references(out: &mut Vec<u8>, references: &[Reference], wids: &[Wid]) {
    put(out, references.len() as u64);
    let (mut seq, mut next, mut timestamp) = (0u64, 0i64, 0i64);
    for reference in references {
        put(out, wids.binary_search(&reference.wid).expect("the dictionary holds every wid") as u64);
        put_signed(out, reference.seq.0.wrapping_sub(seq) as i64);
        put(out, reference.position.into());
        put(out, reference.length.into());
        put_natural(out, reference.base.0 - next);
        put_natural(out, reference.last.0 - reference.base.0);
        put_signed(out, reference.max_timestamp.wrapping_sub(timestamp));
        (seq, next, timestamp) = (reference.seq.0, reference.last.0 + 1, reference.max_timestamp);
    }
}

fn decode_references(reader: &mut Reader<'_>, wids: &[Wid]) -> Result<Vec<Reference>, FormatError> {
    let count = reader.count(LEAST_REFERENCE_BYTES)?;
    let mut references = Vec::with_capacity(count);
    let (mut seq, mut next, mut timestamp) = (0u64, 0i64, 0i64);
    for _ in 0..count {
        let index = reader.bounded::<usize>()?;
        let wid = *wids.get(index).ok_or_else(|| reader.error("a wid beyond the dictionary"))?;
        seq = seq.wrapping_add(reader.signed()? as u64);
        let (position, length) = (reader.bounded()?, reader.bounded()?);
        let (gap, last_delta) = (reader.bounded::<i64>()?, reader.bounded::<i64>()?);
        let base = next.checked_add(gap);
        let last = base.and_then(|base| base.checked_add(last_delta)).filter(|last| *last < i64::MAX);
        let (base, last) = base.zip(last).ok_or_else(|| reader.error("offsets beyond 2^63"))?;
        next = last + 1;
        timestamp = timestamp.wrapping_add(reader.signed()?);
        let (base, last) = (Offset(base), Offset(last));
        references.push(Reference { wid, seq: Seq(seq), position, length, base, last, max_timestamp: timestamp });
    }
    Ok(references)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a checkpoint and one chunk keep of a partition.
    pub(crate) fn round_trip(partition: TopicPartition, state: &CommittedPartition) -> CommittedPartition {
        let chunk = ReferenceChunk { partitions: BTreeMap::from([(partition, state.references.iter().collect())]) };
        let (name, bytes) = chunk.encode(3);
        let decoded = ReferenceChunk::decode(&bytes, &name).expect("a chunk just written");
        assert_eq!(decoded, chunk);
        let checkpoint = Checkpoint {
            wid: Wid(5),
            number: 3,
            s: Seq(9),
            lw: Seq(2),
            producer_id_high_water: 4000,
            chunks: vec![name],
            partitions: BTreeMap::from([(partition, state.clone())]),
        };
        let mut read = Checkpoint::decode(&checkpoint.encode()).expect("a checkpoint just written");
        read.attach(&decoded).expect("the references of this state");
        read.attach(&decoded).expect("attached twice is attached once");
        read.check_attached().expect("all references");
        assert_eq!(read, checkpoint);
        read.partitions.remove(&partition).expect("the partition")
    }
    fn reference(base: i64, last: i64) -> Reference {
        let (base, last) = (Offset(base), Offset(last));
        Reference { wid: Wid(5), seq: Seq(1), position: 64, length: 10, base, last, max_timestamp: 0 }
    }

    /// A checkpoint of one partition with these bounds, and chunks with references to these offsets.
    fn attached(covered: i64, end: i64, chunks: &[&[(i64, i64)]]) -> Result<Vec<i64>, FormatError> {
        let partition = TopicPartition { topic: crate::ids::TopicId(uuid::Uuid::from_u128(7)), index: 0 };
        let mut state = CommittedPartition::born(LeaderEpoch(1));
        (state.covered, state.end) = (Offset(covered), Offset(end));
        let mut checkpoint = Checkpoint::empty(Wid(5));
        checkpoint.partitions.insert(partition, state);
        for chunk in chunks {
            let references = chunk.iter().map(|&(base, last)| reference(base, last)).collect();
            checkpoint.attach(&ReferenceChunk { partitions: BTreeMap::from([(partition, references)]) })?;
        }
        checkpoint.check_attached()?;
        Ok(checkpoint.partitions[&partition].references.iter().map(|one| one.base.0).collect())
    }

    #[test]
    fn an_older_chunk_that_begins_behind_a_gap_is_passed_over_for_the_later_one_that_has_all() {
        assert_eq!(attached(2, 9, &[&[(5, 6)], &[(1, 3), (4, 4), (5, 6), (7, 8)]]), Ok(vec![1, 4, 5, 7]));
        assert_eq!(attached(2, 9, &[&[(1, 3)], &[(5, 6)], &[(1, 3), (4, 4), (5, 6), (7, 8)]]), Ok(vec![1, 4, 5, 7]));
    }

    #[test]
    fn a_gap_that_no_chunk_closes_a_part_of_a_reference_and_one_beyond_the_end_are_refused() {
        assert!(attached(2, 9, &[&[(5, 6)], &[(7, 8)]]).is_err());
        assert!(attached(2, 9, &[&[(1, 3), (5, 8)]]).is_err());
        assert!(attached(2, 9, &[&[(2, 5)], &[(4, 8)]]).is_err());
        assert!(attached(2, 9, &[&[(2, 9)]]).is_err());
        assert!(attached(2, 9, &[&[(5, 9)]]).is_err());
    }
}
