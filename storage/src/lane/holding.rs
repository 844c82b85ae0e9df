//! Committed batches that the lane keeps in memory until a segment holds them, so that a roll need not read them.
//!
//! Invariants:
//! 1. What is kept is a copy of exactly its size: it pins no memory of produce requests, which go on however full this is.
//! 2. Everything that is kept counts until nobody holds it any more, a roll under way included. With what rolls under way
//!    read it stays within `bytes`, but for one entry of each roll.
//! 3. The entries of a partition stand in offset order, and those of its roll under way come first and stay.
//! 4. Where there is no room the partition that keeps the most gives up its newest: the next roll, which takes the oldest,
//!    finds them here, and a trickle, of which each entry would cost a request, does not make room for a stream.
//!
//! What is not here is read from the write-ahead log; nothing depends on it.

use super::config::RollMemory;
use super::messages::CommittedObject;
use crate::format::PartitionEntry;
use crate::format::manifest::SegmentName;
use crate::ids::{Offset, TopicPartition};
use crate::partition::Reference;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many bytes are copied at once: the lane has other work.
const COPY_BYTES: u64 = 2 << 20;
/// Objects that wait to be copied; older ones are not kept.
const WAITING: usize = 16;
/// Memory of an entry beside its bytes: allocations and its place in the queue.
const ENTRY_BYTES: u64 = 160;

/// Memory that counts for as long as it lives.
struct Counted {
    bytes: Box<[u8]>,
    counter: Arc<AtomicU64>,
}

impl Counted {
    fn memory(bytes: u64) -> u64 {
        bytes + ENTRY_BYTES
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counter.fetch_sub(Counted::memory(self.bytes.len() as u64), Ordering::Relaxed);
    }
}

struct Entry {
    base: Offset,
    last: Offset,
    bytes: Bytes,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Entry>,
    /// Of them the first so many are being rolled,
    rolling: usize,
    /// by this roll.
    roll: Option<SegmentName>,
    /// Bytes of the others.
    idle: u64,
}

impl Kept {
    /// What ends at `last` or before is being rolled.
    fn roll(&mut self, roll: Option<SegmentName>, last: Offset) {
        self.roll = roll;
        self.rolling = self.entries.partition_point(|entry| entry.last <= last);
        self.idle = self.entries.iter().skip(self.rolling).map(|entry| entry.bytes.len() as u64).sum();
    }

    fn rolling(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().take(self.rolling)
    }
}

/// What the lane keeps.
pub(super) struct Holding {
    config: RollMemory,
    /// Bytes of all that is kept or was given to a roll.
    counter: Arc<AtomicU64>,
    /// What rolls under way read.
    reading: BTreeMap<SegmentName, u64>,
    partitions: BTreeMap<TopicPartition, Kept>,
    /// By bytes that are kept and not being rolled.
    by_bytes: BTreeSet<(u64, TopicPartition)>,
    /// Committed objects to be copied from, oldest first.
    waiting: VecDeque<(Arc<CommittedObject>, Vec<Bytes>)>,
}

impl Holding {
    pub(super) fn new(config: RollMemory) -> Holding {
        Holding {
            config,
            counter: Arc::default(),
            reading: BTreeMap::new(),
            partitions: BTreeMap::new(),
            by_bytes: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Bytes of memory that this and the rolls under way take.
    pub(super) fn memory(&self) -> u64 {
        self.counter.load(Ordering::Relaxed) + self.reading.values().sum::<u64>()
    }

    /// Keeps nothing of what was committed so far; rolls under way keep theirs.
    pub(super) fn clear(&mut self) {
        self.partitions.clear();
        self.by_bytes.clear();
        self.waiting.clear();
    }

    /// An object was committed: its entries are to be copied.
    pub(super) fn committed(&mut self, object: Arc<CommittedObject>, slices: Vec<Bytes>) {
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((object, slices));
    }

    /// Whether something waits to be copied.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Copies from what was committed, for a while: those entries that are `wanted`.
    pub(super) fn keep(&mut self, wanted: impl Fn(&PartitionEntry) -> bool) {
        let mut copied = 0;
        while copied < COPY_BYTES
            && let Some((object, slices)) = self.waiting.pop_front()
        {
            let mut body = Body { slices: &slices, start: 0 };
            for entry in object.footer.partitions.iter().filter(|entry| wanted(entry)) {
                let length = u64::from(entry.length);
                if length <= self.config.entry_bytes && self.make_room_for(entry.partition, Counted::memory(length)) {
                    copied += length;
                    self.push(entry, body.copy(entry.position as usize, entry.length as usize));
                }
            }
        }
    }

    fn push(&mut self, entry: &PartitionEntry, bytes: Box<[u8]>) {
        self.counter.fetch_add(Counted::memory(bytes.len() as u64), Ordering::Relaxed);
        let bytes = Bytes::from_owner(Counted { bytes, counter: self.counter.clone() });
        self.change(entry.partition, |kept| {
            kept.idle += bytes.len() as u64;
            kept.entries.push_back(Entry { base: entry.base, last: entry.last, bytes });
        });
    }

    /// Changes what is kept of a partition, and its place in the order.
    fn change(&mut self, partition: TopicPartition, change: impl FnOnce(&mut Kept)) {
        let kept = self.partitions.entry(partition).or_default();
        let before = kept.idle;
        change(kept);
        let (after, is_empty) = (kept.idle, kept.entries.is_empty());
        if before != after {
            self.by_bytes.remove(&(before, partition));
            if after > 0 {
                self.by_bytes.insert((after, partition));
            }
        }
        if is_empty {
            self.partitions.remove(&partition);
        }
    }

    /// Makes room for an entry of `partition`, unless that one keeps the most itself (invariant 4).
    fn make_room_for(&mut self, partition: TopicPartition, memory: u64) -> bool {
        while self.memory() + memory > self.config.bytes {
            let own = self.partitions.get(&partition).map_or(0, |kept| kept.idle);
            let largest = self.by_bytes.last().filter(|(most, other)| *other != partition && *most > own + memory);
            let Some(&(_, largest)) = largest else { return false };
            self.give_up_newest(largest);
        }
        true
    }

    fn give_up_newest(&mut self, partition: TopicPartition) {
        self.change(partition, |kept| {
            let newest = kept.entries.pop_back().expect("something of it is idle");
            kept.idle -= newest.bytes.len() as u64;
        });
    }

    /// Everything below `offset` is in segments, or deleted.
    pub(super) fn drop_below(&mut self, partition: TopicPartition, offset: Offset) {
        if !self.partitions.contains_key(&partition) {
            return;
        }
        self.change(partition, |kept| {
            while kept.entries.front().is_some_and(|first| first.last < offset) {
                let first = kept.entries.pop_front().expect("just seen");
                match kept.rolling.checked_sub(1) {
                    Some(rest) => kept.rolling = rest,
                    None => kept.idle -= first.bytes.len() as u64,
                }
            }
        });
    }

    /// The lane no longer leads the partition.
    pub(super) fn forget(&mut self, partition: TopicPartition) {
        if let Some(kept) = self.partitions.remove(&partition) {
            self.by_bytes.remove(&(kept.idle, partition));
        }
    }

    /// What is kept of these references, which a roll named `name` is for, by their first offset. Those for which there is
    /// no memory to read what is not kept go from their end; the first stays.
    pub(super) fn take(
        &mut self,
        partition: TopicPartition,
        name: SegmentName,
        references: &mut Vec<Reference>,
    ) -> BTreeMap<Offset, Bytes> {
        let Some(last) = references.last().map(|one| one.last) else { return BTreeMap::new() };
        // First all of them, so that none makes room for the others.
        self.change(partition, |kept| kept.roll(Some(name), last));
        let kept = self.partitions.get(&partition);
        let held: BTreeMap<Offset, u64> =
            kept.iter().flat_map(|kept| kept.rolling()).map(|entry| (entry.base, entry.bytes.len() as u64)).collect();
        let missing = |one: &Reference| match held.get(&one.base) {
            Some(bytes) if *bytes == u64::from(one.length) => 0,
            _ => u64::from(one.length),
        };
        self.make_room_for_reads(references.iter().map(missing).sum());
        let free = self.config.bytes.saturating_sub(self.memory());
        let (mut read, mut fit) = (missing(&references[0]), 1);
        while fit < references.len() && read + missing(&references[fit]) <= free {
            (read, fit) = (read + missing(&references[fit]), fit + 1);
        }
        references.truncate(fit);
        self.reading.insert(name, read);
        let last = references[fit - 1].last;
        self.change(partition, |kept| kept.roll(Some(name), last));
        let kept = self.partitions.get(&partition);
        kept.iter().flat_map(|kept| kept.rolling()).map(|entry| (entry.base, entry.bytes.clone())).collect()
    }

    /// What is kept makes room for what a roll reads: the log goes on only if what is oldest is rolled.
    fn make_room_for_reads(&mut self, bytes: u64) {
        while self.memory() + bytes > self.config.bytes
            && let Some(&(_, largest)) = self.by_bytes.last()
        {
            self.give_up_newest(largest);
        }
    }

    /// The roll ended.
    pub(super) fn rolled(&mut self, partition: TopicPartition, name: SegmentName) {
        self.reading.remove(&name);
        if self.partitions.get(&partition).is_some_and(|kept| kept.roll == Some(name)) {
            self.change(partition, |kept| kept.roll(None, Offset(-1)));
        }
    }
}

/// The slices of an object, to copy from in the order of positions.
struct Body<'a> {
    slices: &'a [Bytes],
    /// Where the first of them starts within the object.
    start: usize,
}

impl Body<'_> {
    fn copy(&mut self, position: usize, length: usize) -> Box<[u8]> {
        while let Some(first) = self.slices.first()
            && self.start + first.len() <= position
        {
            self.start += first.len();
            self.slices = &self.slices[1..];
        }
        let mut bytes = Vec::with_capacity(length);
        let mut from = position - self.start;
        for slice in self.slices {
            let part = &slice[from..slice.len().min(from + length - bytes.len())];
            bytes.extend_from_slice(part);
            if bytes.len() == length {
                break;
            }
            from = 0;
        }
        assert_eq!(bytes.len(), length, "a footer describes the body before it");
        bytes.into_boxed_slice()
    }
}
