//! Planning of fetches, pure: where the bytes for one partition come from, and how many of them.
//!
//! 1. Only whole batches leave, the first of them holds the offset asked for, and none reaches beyond the high watermark.
//! 2. The first batch of a response always fits, so that a reader with small limits gets on.
//! 3. A read asks for bytes of one write-ahead object; several follow each other only while limits have room.

use super::partition_log::PartitionLog;
use bytes::Bytes;
use millrace_protocol::record_set::RecordSet;
use millrace_protocol::records::{HEADER_BYTES, LENGTH_OVERHEAD};
use millrace_storage::ids::Offset;
use millrace_storage::partition::Reference;
use smallvec::SmallVec;

/// Reads for one partition of one fetch: beyond the first ones the next fetch goes on.
pub const READS_PER_PARTITION: usize = 8;

/// Read at least this much where the first batch is, since its size is not known before: most batches fit.
const FIRST_READ_BYTES: usize = 64 * 1024;

/// Where a batch must be searched in an entry, this much is read at a time.
const SEARCH_BYTES: usize = 1024 * 1024;

/// Bytes that one fetch gets from the segments of one partition: beyond them the next fetch goes on.
const MOST_FROM_SEGMENTS: usize = 8 * 1024 * 1024;

/// Where the last offset delta stands in a batch.
const LAST_DELTA_AT: usize = 23;

/// What one response may still take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes left of the request's `max_bytes`.
    pub bytes: usize,
    /// Whether nothing has been given yet: the next batch may be larger than any limit.
    pub empty: bool,
    /// Reads that may still be started.
    pub reads: usize,
}

/// A read of one write-ahead object for one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedRead {
    /// The entry that is read.
    pub reference: Reference,
    /// First byte to read, from the start of the object: where a batch begins.
    pub start: u32,
    /// Bytes to read.
    pub length: u32,
}

/// Where the bytes for one partition come from.
#[derive(Clone, PartialEq, Debug)]
pub enum Planned {
    /// From memory, now.
    Tail {
        /// The batches.
        records: RecordSet,
        /// Bytes of the next batch for which there was room, but not for all of it.
        behind: usize,
    },
    /// From write-ahead objects.
    Read {
        /// The reads in offset order, at least one.
        reads: SmallVec<[PlannedRead; 2]>,
        /// Bytes behind them, as far as the fetch may go: for a later one, but there to be read.
        behind: usize,
        /// Bytes that may be given of them.
        allotted: usize,
        /// Whether the first batch may exceed that.
        oversized: bool,
    },
    /// From segments: no write-ahead object is known to hold the offset any more.
    Segments {
        /// Bytes that may be given.
        allotted: usize,
        /// Whether the first batch may exceed that.
        oversized: bool,
    },
    /// There are bytes, but the response is full.
    NoRoom {
        /// Bytes of the next batch for which there was room, but not for all of it.
        behind: usize,
    },
    /// Everything up to the high watermark has been read.
    Wait,
}

/// The offset asked for is below the log start or beyond the log end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfRange;

impl Planned {
    /// Bytes that it gives, as far as that is known before the reads.
    pub fn bytes(&self) -> usize {
        match self {
            Planned::Tail { records, .. } => records.len(),
            Planned::Read { reads, allotted, .. } => {
                let readable: usize = reads.iter().map(|read| read.length as usize).sum();
                readable.min(*allotted).max(1)
            }
            Planned::Segments { allotted, .. } => (*allotted).max(1),
            Planned::NoRoom { .. } | Planned::Wait => 0,
        }
    }

    /// Bytes that are there to be read within the limits: what a fetch that wants so many waits for. As in Kafka, which cuts
    /// batches where a limit is, a part of one counts.
    pub fn available(&self) -> usize {
        let behind = match self {
            Planned::Tail { behind, .. } | Planned::Read { behind, .. } | Planned::NoRoom { behind } => *behind,
            Planned::Segments { .. } | Planned::Wait => 0,
        };
        self.bytes().saturating_add(behind)
    }
}

/// Plans one partition of a fetch from `from` with at most `partition_max` bytes, and takes that from `room`.
///
/// # Errors
/// An offset that the log does not have. One between high watermark and log end waits instead (DESIGN.md section 4).
pub fn plan(log: &PartitionLog, from: Offset, partition_max: usize, room: &mut Room) -> Result<Planned, OutOfRange> {
    if from < log.log_start() || from > log.log_end() {
        return Err(OutOfRange);
    }
    if from >= log.high_watermark() {
        return Ok(Planned::Wait);
    }
    let allotted = partition_max.min(room.bytes);
    if allotted == 0 && !room.empty {
        return Ok(Planned::NoRoom { behind: 0 });
    }
    let planned = if from >= log.tail_start() {
        from_tail(log, from, allotted, room.empty)
    } else if room.reads == 0 {
        Planned::NoRoom { behind: allotted }
    } else if log.references().find(from).is_none() {
        room.reads -= 1;
        Planned::Segments { allotted: allotted.min(MOST_FROM_SEGMENTS), oversized: room.empty }
    } else {
        let reads = from_objects(log, from, allotted, room.reads);
        room.reads -= reads.len();
        let behind = behind(log, &reads, allotted);
        Planned::Read { reads, behind, allotted, oversized: room.empty }
    };
    let bytes = planned.bytes();
    room.bytes = room.bytes.saturating_sub(bytes);
    room.empty &= bytes == 0;
    Ok(planned)
}

fn from_tail(log: &PartitionLog, from: Offset, allotted: usize, oversized: bool) -> Planned {
    let mut records = RecordSet::new();
    let mut behind = 0;
    for batch in log.tail_from(from) {
        let first = records.is_empty() && oversized;
        if !first && records.len() + batch.bytes.len() > allotted {
            behind = allotted.saturating_sub(records.len());
            break;
        }
        records.push(batch.bytes.clone());
    }
    if records.is_empty() { Planned::NoRoom { behind } } else { Planned::Tail { records, behind } }
}

fn from_objects(log: &PartitionLog, from: Offset, allotted: usize, most: usize) -> SmallVec<[PlannedRead; 2]> {
    let mut reads = SmallVec::new();
    let mut left = allotted;
    for reference in log.references().from_offset(from) {
        let enough = left == 0 && !reads.is_empty();
        if enough || reads.len() == most.min(READS_PER_PARTITION) || reference.base >= log.tail_start() {
            break;
        }
        let end = reference.position + reference.length;
        let place = if reference.base >= from { Some(reference.position) } else { log.place_of(from) };
        let (start, wanted) = match place {
            Some(place) if reads.is_empty() => (place, left.max(FIRST_READ_BYTES)),
            Some(place) => (place, left),
            None => (reference.position, left.max(SEARCH_BYTES)),
        };
        let length = u32::try_from(wanted).unwrap_or(u32::MAX).min(end - start);
        reads.push(PlannedRead { reference, start, length });
        left = left.saturating_sub(length as usize);
        if start + length < end {
            break;
        }
    }
    assert!(!reads.is_empty(), "the caller found a reference");
    reads
}

/// How many bytes there are behind these reads, as far as `allotted` goes. Of stored ones there are enough: a fetch that
/// waited would be given no more of them.
fn behind(log: &PartitionLog, reads: &[PlannedRead], allotted: usize) -> usize {
    let readable: usize = reads.iter().map(|read| read.length as usize).sum();
    let left = allotted.saturating_sub(readable);
    let last = reads.last().expect("a fetch of objects reads one");
    let next = last.reference.last.plus(1);
    if last.start + last.length < last.reference.position + last.reference.length || next < log.tail_start() {
        return left;
    }
    let mut bytes = 0;
    let mut batches = log.tail_from(next);
    while bytes < left
        && let Some(batch) = batches.next()
    {
        bytes += batch.bytes.len();
    }
    bytes.min(left)
}

/// What whole batches the bytes of a read hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Walked {
    /// Batches, the first of which holds the offset asked for or follows it.
    Batches {
        /// Where they begin in the bytes.
        start: usize,
        /// Where they end.
        end: usize,
        /// Offset after the last one.
        next: Offset,
    },
    /// Every whole batch lies below the offset: go on from this byte.
    Below(usize),
    /// The first batch to give begins at `start` and needs this many bytes in all, more than were read.
    Cut {
        /// Where it begins.
        start: usize,
        /// Its bytes.
        needs: usize,
    },
    /// The first batch to give is larger than the limit.
    TooLarge,
    /// Not batches.
    Broken,
}

/// Goes over the batches in `bytes`, which begin with one, and picks those from `from` on that fit into `allotted`.
pub fn walk(bytes: &[u8], from: Offset, allotted: usize, oversized: bool) -> Walked {
    let mut at = 0;
    let mut found: Option<(usize, Offset)> = None;
    while let Some(header) = bytes[at..].first_chunk::<HEADER_BYTES>() {
        let Some(BatchExtent { bytes: length, last, .. }) = batch_extent(header) else { return Walked::Broken };
        let next = last.plus(1);
        let whole = length <= bytes.len() - at;
        match found {
            None if last < from => {
                if !whole {
                    // Its end is known, so its bytes need not be read.
                    return Walked::Below(at + length);
                }
            }
            None if length > allotted && !oversized => return Walked::TooLarge,
            None if !whole => return Walked::Cut { start: at, needs: length },
            None => found = Some((at, next)),
            Some((start, _)) if whole && at + length - start <= allotted => found = Some((start, next)),
            Some((start, next)) => return Walked::Batches { start, end: at, next },
        }
        at += length;
        if at >= bytes.len() {
            break;
        }
    }
    match found {
        Some((start, next)) => Walked::Batches { start, end: at, next },
        None if at < bytes.len() && bytes.len() - at < HEADER_BYTES => Walked::Cut { start: at, needs: HEADER_BYTES },
        None => Walked::Below(at),
    }
}

/// What a batch takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchExtent {
    /// Its bytes, header included.
    pub bytes: usize,
    /// Its first offset.
    pub base: Offset,
    /// Its last offset, inclusive; the one after it exists too.
    pub last: Offset,
}

/// What the batch with this header takes; `None` if it is no header.
pub fn batch_extent(header: &[u8; HEADER_BYTES]) -> Option<BatchExtent> {
    let base = i64::from_be_bytes(*header.first_chunk()?);
    let length = i32::from_be_bytes(*header[LENGTH_OVERHEAD - 4..].first_chunk()?);
    let last_delta = i32::from_be_bytes(*header[LAST_DELTA_AT..].first_chunk()?);
    let bytes = usize::try_from(length).ok()? + LENGTH_OVERHEAD;
    let next = base.checked_add(i64::from(last_delta) + 1).filter(|_| last_delta >= 0 && base >= 0)?;
    let extent = BatchExtent { bytes, base: Offset(base), last: Offset(next - 1) };
    (bytes >= HEADER_BYTES).then_some(extent)
}

/// The slice of `bytes` that `walked` found, sharing their memory only if it is most of them.
pub fn slice_of(bytes: &Bytes, start: usize, end: usize) -> Bytes {
    if (end - start) * 2 >= bytes.len() { bytes.slice(start..end) } else { Bytes::copy_from_slice(&bytes[start..end]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_protocol::records::{BatchBuilder, RecordBatch};
    use proptest::prelude::*;

    /// Batches of these numbers of records, one after the other from offset 0.
    fn entry(counts: &[u32]) -> Vec<u8> {
        let (mut bytes, mut base) = (Vec::new(), 0i64);
        for &count in counts {
            let mut builder = BatchBuilder::new(0);
            (0..count).for_each(|_| builder.push(None, Some(b"value")));
            let mut batch = builder.finish();
            batch[..8].copy_from_slice(&base.to_be_bytes());
            bytes.extend(batch);
            base += i64::from(count);
        }
        bytes
    }

    proptest! {
        #[test]
        fn going_on_as_told_always_finds_the_batch_that_holds_the_offset(
            counts in proptest::collection::vec(1..6u32, 1..12),
            at in any::<proptest::sample::Index>(),
            first_read in 1..400usize,
        ) {
            let bytes = entry(&counts);
            let from = at.index(counts.iter().sum::<u32>() as usize) as i64;
            let (mut start, mut length) = (0, first_read);
            loop {
                let end = bytes.len().min(start + length);
                match walk(&bytes[start..end], Offset(from), 1, true) {
                    Walked::Batches { start: found, end, next } => {
                        let (batch, _) = RecordBatch::split(&bytes[start + found..]).unwrap().unwrap();
                        prop_assert!(batch.base_offset() <= from && from <= batch.last_offset());
                        prop_assert_eq!(end - found, batch.bytes().len(), "one batch exceeds the limit");
                        prop_assert_eq!(next.0, batch.last_offset() + 1);
                        break;
                    }
                    Walked::Cut { start: cut, needs } => {
                        prop_assert!(cut > 0 || needs > end - start, "every step gets on");
                        (start, length) = (start + cut, needs);
                    }
                    Walked::Below(skipped) => {
                        prop_assert!(skipped > 0, "every step gets on");
                        start += skipped;
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }

        #[test]
        fn bytes_that_are_not_batches_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            from in 0..i64::MAX,
            allotted in 0..500usize,
            oversized in any::<bool>(),
        ) {
            if let Walked::Batches { start, end, .. } = walk(&bytes, Offset(from), allotted, oversized) {
                prop_assert!(start < end && end <= bytes.len());
            }
        }
    }
}
