//! One write-ahead object, every byte of it checked, pure.

use crate::format::object::{ObjectHeader, ObjectKind, decode_footer, decode_header, decode_trailer};
use crate::format::{Footer, HEADER_BYTES, PartitionEntry, TRAILER_BYTES};
use crate::ids::{Seq, Wid};
use millrace_protocol::records::RecordBatch;

/// What bodies hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bodies {
    /// Kafka's batches: each is checked.
    Batches,
    /// Anything: simulated shards write what they like.
    Opaque,
}

/// A write-ahead object that is whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenObject {
    /// Its header.
    pub header: ObjectHeader,
    /// What it holds, without the descriptions of batches; of a fence nothing.
    pub footer: Footer,
    /// Its size.
    pub bytes: u64,
}

/// Checks that `bytes` are the object `seq` of `wid`: header, footer, body and batches with their checksums, and that
/// they agree with each other.
///
/// # Errors
/// What does not fit, for people.
pub fn examine(wid: Wid, seq: Seq, bytes: &[u8], bodies: Bodies) -> Result<SeenObject, String> {
    let head = bytes.get(..HEADER_BYTES).ok_or("it is shorter than a header")?;
    let header = decode_header(head).map_err(|error| error.to_string())?;
    if header.wid != wid || header.seq != seq {
        return Err(format!("it says that it is {}/{}", header.wid, header.seq));
    }
    let size = bytes.len() as u64;
    if header.kind == ObjectKind::Fence {
        let whole = bytes.len() == HEADER_BYTES;
        let seen = SeenObject { header, footer: Footer::default(), bytes: size };
        return if whole { Ok(seen) } else { Err("a fence with a body".to_owned()) };
    }
    let at = bytes.len().checked_sub(TRAILER_BYTES).ok_or("it is shorter than a trailer")?;
    let trailer = decode_trailer(&bytes[at..]).map_err(|error| error.to_string())?;
    if trailer.object_bytes() != size {
        return Err(format!("it has {size} bytes, its trailer says {}", trailer.object_bytes()));
    }
    let begin = trailer.footer_position as usize;
    let (copy, mut footer) = decode_footer(&bytes[begin..at], &trailer).map_err(|error| error.to_string())?;
    if copy != header {
        return Err("the footer's copy of the header is another".to_owned());
    }
    if !trailer.is_of_body(&bytes[HEADER_BYTES..begin]) {
        return Err("wrong CRC-32C of the body".to_owned());
    }
    for entry in &mut footer.partitions {
        let (from, to) = (entry.position as usize, entry.position as usize + entry.length as usize);
        let body = bytes.get(from..to).filter(|_| from >= HEADER_BYTES && to <= begin);
        let body = body.ok_or_else(|| format!("the entry of {} lies outside of the body", entry.partition))?;
        if bodies == Bodies::Batches {
            batches(entry, body).map_err(|detail| format!("{}: {detail}", entry.partition))?;
        }
        entry.batches = Vec::new();
    }
    Ok(SeenObject { header, footer, bytes: size })
}

/// The batches of an entry are those that the footer describes.
fn batches(entry: &PartitionEntry, body: &[u8]) -> Result<(), String> {
    let mut rest = body;
    for described in &entry.batches {
        let base = entry.base.plus(i64::from(described.offset_delta));
        let position = body.len() - rest.len();
        let split = RecordBatch::split(rest).map_err(|error| format!("batch at offset {base}: {error}"))?;
        let (batch, after) = split.ok_or_else(|| format!("the batch at offset {base} is cut off"))?;
        let count = i64::from(batch.last_offset_delta()) + 1;
        let fits = position == described.position_delta as usize
            && batch.base_offset() == base.0
            && count == i64::from(described.count)
            && batch.leader_epoch() == entry.epoch.0;
        if !fits {
            let (at, epoch) = (batch.base_offset(), batch.leader_epoch());
            return Err(format!("a batch of {count} offsets at {at}, epoch {epoch}, where {described:?} is described"));
        }
        if batch.crc() != batch.computed_crc() {
            return Err(format!("wrong CRC-32C of the batch at offset {base}"));
        }
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes behind the last batch", rest.len())) }
}
