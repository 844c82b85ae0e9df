//! Write-ahead objects: header, footer and trailer.
//!
//! Header, 64 bytes (integers little-endian, ids as in their text form):
//!
//! | at | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `MILLWAL\0` |
//! | 8 | 1 | version = 1 |
//! | 9 | 1 | kind: 1 DATA, 2 FENCE |
//! | 10 | 2 | writer's lane; 65535: a fencer |
//! | 12 | 4 | zero |
//! | 16 | 16 | wid |
//! | 32 | 8 | writer's boot id |
//! | 40 | 8 | sequence |
//! | 48 | 8 | sealed at, Unix milliseconds |
//! | 56 | 4 | zero |
//! | 60 | 4 | CRC-32C of the 60 bytes before |
//!
//! Footer: a copy of the header, so that one read of an object's end suffices to fold it; then varints: number of
//! partition entries, each {topic id (16 bytes), partition, leader epoch, base, last − base, position, length, max
//! timestamp (zigzag), number of batches, each {length, count − 1, flags (bit 0: has a producer), producer id, producer
//! epoch, first sequence}}; number of log starts, each {topic id, partition, offset}. A batch's offset delta and position
//! delta are the sums of the counts and lengths before it, so a footer that is not contiguous can't be written down.
//!
//! Trailer, 32 bytes: footer position u32 · footer length u32 · newest checkpoint u64 · CRC-32C of the body u32 ·
//! CRC-32C of the footer and of the 20 bytes before u32 · magic `MILLEND1`, whose last byte counts up with the version.
//!
//! A later version adds fields at the end of an element or of the footer and raises the header's version; its decoder
//! takes what an older version lacks as zero. A version above its own is refused.

use super::varint::{Reader, crc32c, crc32c_of_slices, put, put_natural, put_signed};
use super::{BatchEntry, Footer, FormatError, HEADER_BYTES, LogStartEntry, PartitionEntry, TRAILER_BYTES};
use crate::env::WallMs;
use crate::ids::{BootId, LeaderEpoch, Offset, Seq, TopicId, TopicPartition, Wid, WriterId};
use crate::partition::ProducerStamp;
use bytes::Bytes;
use uuid::Uuid;

const HEADER_MAGIC: &[u8; 8] = b"MILLWAL\0";
const TRAILER_MAGIC: &[u8; 8] = b"MILLEND1";
const VERSION: u8 = 1;
/// Batch flag: a producer's three fields follow.
const HAS_PRODUCER: u8 = 1;
/// The least that one partition entry, batch or log start takes in a footer.
const LEAST_ENTRY_BYTES: usize = 27;
const LEAST_BATCH_BYTES: usize = 3;
const LEAST_LOG_START_BYTES: usize = 18;
/// Trailer bytes that the footer's CRC covers too.
const TRAILER_COVERED_BYTES: usize = 20;

/// What a header says the object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Batches of the writer.
    Data,
    /// The end of the log: nothing at or after this sequence counts.
    Fence,
}

/// The first 64 bytes of every write-ahead object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectHeader {
    /// DATA or FENCE.
    pub kind: ObjectKind,
    /// The log that it belongs to.
    pub wid: Wid,
    /// Who wrote it.
    pub writer: WriterId,
    /// Its sequence.
    pub seq: Seq,
    /// The broker's wall clock when it was sealed; producers expire by it, so that the fold is deterministic.
    pub sealed_at: WallMs,
}

/// The last 32 bytes of a DATA object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// First byte of the footer, from the start of the object.
    pub footer_position: u32,
    /// Its length in bytes.
    pub footer_length: u32,
    /// CRC-32C of the footer and of the trailer's bytes before this CRC.
    pub footer_crc: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// The newest checkpoint that the writer knew to be current.
    pub newest_checkpoint: u64,
}

impl Trailer {
    /// Size of the whole object in bytes.
    pub fn object_bytes(&self) -> u64 {
        u64::from(self.footer_position) + u64::from(self.footer_length) + TRAILER_BYTES as u64
    }

    /// Bytes from the footer's first to the object's last: the suffix that a fold needs.
    pub fn suffix_bytes(&self) -> u64 {
        u64::from(self.footer_length) + TRAILER_BYTES as u64
    }

    /// Whether `body`, what stands between header and footer, is what was written.
    pub fn is_of_body(&self, body: &[u8]) -> bool {
        crc32c(body) == self.body_crc
    }

    fn to_bytes(self) -> [u8; TRAILER_BYTES] {
        let mut out = [0; TRAILER_BYTES];
        out[0..4].copy_from_slice(&self.footer_position.to_le_bytes());
        out[4..8].copy_from_slice(&self.footer_length.to_le_bytes());
        out[8..16].copy_from_slice(&self.newest_checkpoint.to_le_bytes());
        out[16..20].copy_from_slice(&self.body_crc.to_le_bytes());
        out[20..24].copy_from_slice(&self.footer_crc.to_le_bytes());
        out[24..32].copy_from_slice(TRAILER_MAGIC);
        out
    }

    /// What `footer_crc` must be over `footer`.
    fn crc_over(&self, footer: &[u8]) -> u32 {
        crc32c_of_slices([footer, &self.to_bytes()[..TRAILER_COVERED_BYTES]])
    }
}

/// Writes a header.
pub fn encode_header(header: &ObjectHeader) -> Bytes {
    Bytes::copy_from_slice(&header_bytes(header))
}

fn header_bytes(header: &ObjectHeader) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[0..8].copy_from_slice(HEADER_MAGIC);
    out[8] = VERSION;
    out[9] = match header.kind {
        ObjectKind::Data => 1,
        ObjectKind::Fence => 2,
    };
    out[10..12].copy_from_slice(&header.writer.lane.to_le_bytes());
    out[16..32].copy_from_slice(&header.wid.0.to_be_bytes());
    out[32..40].copy_from_slice(&header.writer.boot.0.to_le_bytes());
    out[40..48].copy_from_slice(&header.seq.0.to_le_bytes());
    out[48..56].copy_from_slice(&header.sealed_at.0.to_le_bytes());
    let crc = crc32c(&out[..60]);
    out[60..64].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a header: exactly the first [`HEADER_BYTES`].
pub fn decode_header(bytes: &[u8]) -> Result<ObjectHeader, FormatError> {
    let mut reader = Reader::new("write-ahead object's header", bytes);
    reader.ensure(bytes.len() == HEADER_BYTES, "not 64 bytes")?;
    reader.magic(HEADER_MAGIC, VERSION)?;
    let kind = match reader.array()? {
        [1] => ObjectKind::Data,
        [2] => ObjectKind::Fence,
        [other] => return Err(reader.error(format!("kind {other}"))),
    };
    let lane = u16::from_le_bytes(reader.array()?);
    let reserved = reader.u32()?;
    reader.ensure(reserved == 0, "reserved bytes are not zero")?;
    let wid = Wid(u128::from_be_bytes(reader.array()?));
    let boot = BootId(u64::from_le_bytes(reader.array()?));
    let seq = Seq(u64::from_le_bytes(reader.array()?));
    let sealed_at = WallMs(i64::from_le_bytes(reader.array()?));
    let reserved = reader.u32()?;
    reader.ensure(reserved == 0, "reserved bytes are not zero")?;
    let crc = reader.u32()?;
    reader.ensure(crc == crc32c(&bytes[..60]), "wrong CRC-32C")?;
    reader.finish()?;
    Ok(ObjectHeader { kind, wid, writer: WriterId { boot, lane }, seq, sealed_at })
}

/// The slices of a whole DATA object: header, the body's slices as they are (positions in `footer` already count the
/// header), footer and trailer. The body's CRC is computed here, slice by slice.
///
/// # Panics
/// If the object would reach 4 GiB: a lane seals far below.
pub fn encode_object(header: &ObjectHeader, body: Vec<Bytes>, footer: &Footer, newest_checkpoint: u64) -> Vec<Bytes> {
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    let body_crc = crc32c_of_slices(body.iter().map(Bytes::as_ref));
    let header = header_bytes(header);
    let mut end = encode_footer(&header, footer);
    let mut trailer = Trailer {
        footer_position: u32::try_from(HEADER_BYTES + body_bytes).expect("an object stays below 4 GiB"),
        footer_length: u32::try_from(end.len()).expect("an object stays below 4 GiB"),
        footer_crc: 0,
        body_crc,
        newest_checkpoint,
    };
    trailer.footer_crc = trailer.crc_over(&end);
    end.extend_from_slice(&trailer.to_bytes());
    let mut slices = Vec::with_capacity(body.len() + 2);
    slices.push(Bytes::copy_from_slice(&header));
    slices.extend(body);
    slices.push(Bytes::from(end));
    slices
}

fn encode_footer(header: &[u8; HEADER_BYTES], footer: &Footer) -> Vec<u8> {
    let mut out = header.to_vec();
    put(&mut out, footer.partitions.len() as u64);
    for entry in &footer.partitions {
        encode_entry(&mut out, entry);
    }
    put(&mut out, footer.log_starts.len() as u64);
    for log_start in &footer.log_starts {
        put_partition(&mut out, log_start.partition);
        put_natural(&mut out, log_start.offset.0);
    }
    out
}

fn encode_entry(out: &mut Vec<u8>, entry: &PartitionEntry) {
    put_partition(out, entry.partition);
    put_natural(out, entry.epoch.0.into());
    put_natural(out, entry.base.0);
    put_natural(out, entry.last.0 - entry.base.0);
    put(out, entry.position.into());
    put(out, entry.length.into());
    put_signed(out, entry.max_timestamp);
    put(out, entry.batches.len() as u64);
    let ends = entry.batches.iter().skip(1).map(|next| next.position_delta).chain([entry.length]);
    let mut offset_delta = 0;
    for (batch, end) in entry.batches.iter().zip(ends) {
        assert_eq!(batch.offset_delta, offset_delta, "the batches of an entry are contiguous in offsets");
        offset_delta += batch.count;
        put(out, u64::from(end.checked_sub(batch.position_delta).expect("the batches of an entry stand in order")));
        put(out, u64::from(batch.count - 1));
        assert_eq!(batch.flags, 0, "batch flags are reserved");
        let Some(producer) = batch.producer else {
            out.push(0);
            continue;
        };
        out.push(HAS_PRODUCER);
        put_natural(out, producer.id);
        put_natural(out, producer.epoch.into());
        put_natural(out, producer.first_sequence.into());
    }
    assert_eq!(i64::from(offset_delta), entry.last.0 - entry.base.0 + 1, "the batches fill their entry");
}

/// Reads the trailer: exactly the last [`TRAILER_BYTES`]. Its CRC is checked with the footer.
pub fn decode_trailer(bytes: &[u8]) -> Result<Trailer, FormatError> {
    let mut reader = Reader::new("write-ahead object's trailer", bytes);
    reader.ensure(bytes.len() == TRAILER_BYTES, "not 32 bytes")?;
    let footer_position = reader.u32()?;
    let footer_length = reader.u32()?;
    let newest_checkpoint = u64::from_le_bytes(reader.array()?);
    let body_crc = reader.u32()?;
    let footer_crc = reader.u32()?;
    let magic = reader.array()?;
    reader.ensure(magic == *TRAILER_MAGIC, "not the magic bytes of this format and version")?;
    reader.ensure(footer_position as usize >= HEADER_BYTES, "the footer starts within the header")?;
    let trailer = Trailer { footer_position, footer_length, footer_crc, body_crc, newest_checkpoint };
    reader.ensure(trailer.object_bytes() <= u64::from(u32::MAX), "an object of 4 GiB or more")?;
    Ok(trailer)
}

/// Reads a footer, exactly the [`Trailer::footer_length`] bytes at [`Trailer::footer_position`]: the object's header and
/// what the object holds.
pub fn decode_footer(bytes: &[u8], trailer: &Trailer) -> Result<(ObjectHeader, Footer), FormatError> {
    let mut reader = Reader::new("write-ahead object's footer", bytes);
    reader.ensure(bytes.len() == trailer.footer_length as usize, "not the length that the trailer gives")?;
    reader.ensure(trailer.crc_over(bytes) == trailer.footer_crc, "wrong CRC-32C")?;
    let header = decode_header(&reader.array::<HEADER_BYTES>()?)?;
    reader.ensure(header.kind == ObjectKind::Data, "a fence has no footer")?;
    let count = reader.count(LEAST_ENTRY_BYTES)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        partitions.push(decode_entry(&mut reader, trailer)?);
    }
    let count = reader.count(LEAST_LOG_START_BYTES)?;
    let mut log_starts = Vec::with_capacity(count);
    for _ in 0..count {
        let partition = read_partition(&mut reader)?;
        log_starts.push(LogStartEntry { partition, offset: Offset(reader.bounded()?) });
    }
    reader.finish()?;
    Ok((header, Footer { partitions, log_starts }))
}

fn decode_entry(reader: &mut Reader<'_>, trailer: &Trailer) -> Result<PartitionEntry, FormatError> {
    let partition = read_partition(reader)?;
    let epoch = LeaderEpoch(reader.bounded()?);
    let base = Offset(reader.bounded()?);
    let last_delta = reader.bounded::<u32>()?;
    let last = base.0.checked_add(last_delta.into()).filter(|last| *last < i64::MAX);
    let last = Offset(last.ok_or_else(|| reader.error("offsets beyond 2^63"))?);
    let position = reader.bounded::<u32>()?;
    let length = reader.bounded::<u32>()?;
    let body = HEADER_BYTES as u64..=u64::from(trailer.footer_position);
    let end = u64::from(position) + u64::from(length);
    reader.ensure(body.contains(&position.into()) && body.contains(&end), "an entry outside the body")?;
    let max_timestamp = reader.signed()?;
    let count = reader.count(LEAST_BATCH_BYTES)?;
    let mut batches = Vec::with_capacity(count);
    let (mut offset_delta, mut position_delta) = (0u32, 0u32);
    for _ in 0..count {
        let bytes = reader.bounded::<u32>()?;
        let count = reader.bounded::<u32>()?.checked_add(1).filter(|count| i32::try_from(*count).is_ok());
        let count = count.ok_or_else(|| reader.error("a batch of more than 2^31 − 1 records"))?;
        let producer = decode_producer(reader)?;
        batches.push(BatchEntry { offset_delta, position_delta, count, producer, flags: 0 });
        let sums = offset_delta.checked_add(count).zip(position_delta.checked_add(bytes));
        (offset_delta, position_delta) = sums.ok_or_else(|| reader.error("batches beyond their entry"))?;
    }
    let filled = u64::from(offset_delta) == u64::from(last_delta) + 1 && position_delta == length;
    reader.ensure(filled, "the batches do not fill their entry")?;
    Ok(PartitionEntry { partition, epoch, base, last, position, length, max_timestamp, batches })
}

fn decode_producer(reader: &mut Reader<'_>) -> Result<Option<ProducerStamp>, FormatError> {
    match reader.array()? {
        [0] => Ok(None),
        [HAS_PRODUCER] => {
            let id = reader.bounded()?;
            let epoch = reader.bounded()?;
            Ok(Some(ProducerStamp { id, epoch, first_sequence: reader.bounded()? }))
        }
        [flags] => Err(reader.error(format!("batch flags {flags}"))),
    }
}

/// Reads a whole DATA object and checks every CRC in it, the body's too. Gives the number of the checkpoint as well.
pub fn decode_object(bytes: &[u8]) -> Result<(ObjectHeader, Footer, u64), FormatError> {
    let outer = Reader::new("write-ahead object", bytes);
    let at = bytes.len().checked_sub(TRAILER_BYTES).ok_or_else(|| outer.error("ends too early"))?;
    let trailer = decode_trailer(&bytes[at..])?;
    outer.ensure(trailer.object_bytes() == bytes.len() as u64, "not the size that the trailer gives")?;
    let body_end = trailer.footer_position as usize;
    let (header, footer) = decode_footer(&bytes[body_end..at], &trailer)?;
    outer.ensure(decode_header(&bytes[..HEADER_BYTES])? == header, "the footer has another header")?;
    outer.ensure(crc32c(&bytes[HEADER_BYTES..body_end]) == trailer.body_crc, "wrong CRC-32C of the body")?;
    Ok((header, footer, trailer.newest_checkpoint))
}

/// Appends a partition's name: 16 bytes and a varint.
pub(super) fn put_partition(out: &mut Vec<u8>, partition: TopicPartition) {
    out.extend_from_slice(partition.topic.0.as_bytes());
    put(out, partition.index.into());
}

/// Reads what [`put_partition`] wrote.
pub(super) fn read_partition(reader: &mut Reader<'_>) -> Result<TopicPartition, FormatError> {
    let topic = TopicId(Uuid::from_bytes(reader.array()?));
    Ok(TopicPartition { topic, index: reader.bounded()? })
}
