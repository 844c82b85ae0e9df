//! One partition at the shard that leads it: what was appended, what is durable, who waits for which of the two.
//!
//! A batch goes through three places: *unsealed* (appended, not yet handed to the lane), *sealed* (with the lane),
//! *tail* (durable, kept in memory for readers at the end of the log). Older batches are found by their references.
//!
//! 1. Unsealed, sealed and tail are contiguous in offsets: tail · high watermark · sealed · unsealed · log end.
//! 2. Readers see only what lies below the high watermark, which rises only by committed objects.
//! 3. Answers to acks −1 leave in the order of the offsets that they wait for.
//! 4. The epoch never changes: another leadership is another `PartitionLog`.
//!
//! It does not check batches (that is `handlers::produce`) and plans no reads (that is [`super::fetching`]).

use super::covered::Covered;
use super::events::ReplyTo;
use super::produces::ProduceToken;
use super::tail::TailBudget;
use super::topic_settings::TopicSettings;
use crate::net::budget::Permit;
use bytes::{Bytes, BytesMut};
use millrace_storage::compaction::retention::Piece;
use millrace_storage::format::PartitionEntry;
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::{LeaderEpoch, Offset, TopicPartition};
use millrace_storage::lane::{BatchDescription, CommittedObject, SealEntry};
use millrace_storage::partition::{AppendedPartition, CommittedPartition, EpochHistory, Reference, References};
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

/// Batches of at most this many bytes are copied together when they are sealed, so that a tiny batch does not keep the
/// whole chunk that it arrived in from being reused. A larger one is worth its place in the chunk.
pub const COPY_AT_SEAL_BYTES: usize = 16 * 1024;

/// Memory that small batches are copied into at a time: what the smallest slice of them keeps from being freed.
const GATHER_BYTES: usize = 64 * 1024;

/// Where the small batches of one seal are copied.
#[derive(Debug)]
pub struct Gather {
    /// What is being filled.
    piece: BytesMut,
    /// Bytes that the seal has still to copy.
    left: usize,
    /// Bytes copied.
    copied: usize,
}

impl Gather {
    /// For a seal that copies `bytes`.
    pub fn new(bytes: usize) -> Gather {
        Gather { piece: BytesMut::new(), left: bytes, copied: 0 }
    }

    /// Bytes that were copied.
    pub fn copied(&self) -> usize {
        self.copied
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.piece.capacity() - self.piece.len() >= bytes
    }

    /// Goes on in memory of its own, with room for `bytes`. What was copied before was taken.
    fn next_piece(&mut self, bytes: usize) {
        self.piece = BytesMut::with_capacity(self.left.min(GATHER_BYTES).max(bytes));
    }

    fn copy(&mut self, batch: &[u8]) {
        self.piece.extend_from_slice(batch);
        self.left = self.left.saturating_sub(batch.len());
        self.copied += batch.len();
    }
}

/// How many places within write-ahead objects a partition remembers, so that a reader going through a large entry in
/// several fetches does not search for its place each time.
const REMEMBERED_PLACES: usize = 8;

/// One batch in memory.
#[derive(Debug)]
pub struct LogBatch {
    /// Its first offset.
    pub base: Offset,
    /// Its last offset, inclusive.
    pub last: Offset,
    /// As the lane is told.
    pub description: BatchDescription,
    /// Exactly the bytes that consumers get.
    pub bytes: Bytes,
    /// Bytes of memory that it keeps from being reused.
    pub pinned: usize,
    /// The promise of memory that its request came with, shared by the request's batches; given back when committed.
    pub permit: Option<Rc<Permit>>,
}

/// A produce request that waits for the high watermark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// The high watermark that answers it.
    pub end: Offset,
    /// The request.
    pub request: ProduceToken,
    /// Which of the request's partitions.
    pub slot: usize,
}

/// Where in a write-ahead object the batch with a certain base offset begins.
#[derive(Clone, Copy, Debug)]
struct Place {
    base: Offset,
    position: u32,
}

/// A partition that this shard leads.
#[derive(Debug)]
pub struct PartitionLog {
    partition: TopicPartition,
    epoch: LeaderEpoch,
    /// What offsets and sequences were given out; the produce handler appends to it.
    pub appended: AppendedPartition,
    /// What the topic's settings say.
    pub settings: TopicSettings,
    high_watermark: Offset,
    log_start: Offset,
    epochs: EpochHistory,
    references: References,
    covered: Covered,
    unsealed: VecDeque<LogBatch>,
    sealed: VecDeque<LogBatch>,
    tail: VecDeque<LogBatch>,
    waiting: VecDeque<Waiting>,
    parked: BTreeSet<ReplyTo>,
    places: VecDeque<Place>,
    draining: bool,
    alarmed: bool,
    /// Bytes that went in and out since they were asked for last.
    moved: u64,
}

impl PartitionLog {
    /// A leadership that starts from committed state: appended := committed.
    pub fn acquired(partition: TopicPartition, state: CommittedPartition, settings: TopicSettings) -> PartitionLog {
        PartitionLog {
            partition,
            epoch: state.epoch,
            appended: AppendedPartition::new(&state),
            settings,
            high_watermark: state.end,
            log_start: state.log_start,
            covered: Covered::acquired(&state),
            epochs: state.epochs,
            references: state.references,
            unsealed: VecDeque::new(),
            sealed: VecDeque::new(),
            tail: VecDeque::new(),
            waiting: VecDeque::new(),
            parked: BTreeSet::new(),
            places: VecDeque::new(),
            draining: false,
            alarmed: false,
            moved: 0,
        }
    }

    /// Which partition.
    pub fn partition(&self) -> TopicPartition {
        self.partition
    }
    /// The epoch that it is led at.
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }
    /// First offset that is not durable.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }
    /// First offset that may be read.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }
    /// First offset that was not given out.
    pub fn log_end(&self) -> Offset {
        self.appended.next_offset()
    }
    /// Where each epoch started.
    pub fn epochs(&self) -> &EpochHistory {
        &self.epochs
    }
    /// Where durable batches lie.
    pub fn references(&self) -> &References {
        &self.references
    }
    /// First offset that is in a write-ahead object; the high watermark if none is. Segments hold what lies below it.
    pub fn references_from(&self) -> Offset {
        self.references.first().map_or(self.high_watermark, |first| first.base)
    }
    /// Something of it is missing that must exist: true if nobody has been told in this leadership.
    pub fn raise_alarm(&mut self) -> bool {
        !std::mem::replace(&mut self.alarmed, true)
    }
    /// So many bytes of it were given to a client.
    pub fn served(&mut self, bytes: usize) {
        self.moved += bytes as u64;
    }
    /// Bytes that went in and out since this was asked last.
    pub fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }
    /// Whether produce is refused because the partition is being given up.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Takes a batch whose offset was just given out by `appended`. True if it is the first one since the last seal.
    pub fn push(&mut self, batch: LogBatch) -> bool {
        let newest = self.unsealed.back().or(self.sealed.back());
        let follows = newest.map_or(self.high_watermark, |newest| newest.last.plus(1));
        assert_eq!(batch.base, follows, "invariant 1: {} has no hole", self.partition);
        self.moved += batch.bytes.len() as u64;
        self.unsealed.push_back(batch);
        self.unsealed.len() == 1
    }

    /// `request` waits until everything below `end` is durable.
    pub fn wait(&mut self, waiting: Waiting) {
        // Almost always the newest offset; a retry may attach to an older batch.
        let place = self.waiting.partition_point(|other| other.end <= waiting.end);
        self.waiting.insert(place, waiting);
    }

    /// `request` no longer waits.
    pub fn stop_waiting(&mut self, request: ProduceToken) {
        self.waiting.retain(|waiting| waiting.request != request);
    }

    /// Bytes of the unsealed batches that [`seal`](Self::seal) would take within `limit`, the first one counted in any
    /// case; and how many of those it would copy.
    pub fn unsealed_bytes(&self, limit: usize) -> (usize, usize) {
        let (mut taken, mut copied) = (0, 0);
        for batch in &self.unsealed {
            let length = batch.bytes.len();
            if taken > 0 && taken + length > limit {
                break;
            }
            taken += length;
            copied += if length <= COPY_AT_SEAL_BYTES { length } else { 0 };
        }
        (taken, copied)
    }

    /// Moves unsealed batches of at most `limit` bytes into a seal entry, one even if it is larger when `at_least_one`.
    /// Small ones are copied into `gather`. `None` if none is unsealed or fits.
    pub fn seal(&mut self, limit: usize, at_least_one: bool, gather: &mut Gather) -> Option<SealEntry> {
        let base = self.unsealed.front()?.base;
        let mut entry =
            SealEntry { partition: self.partition, epoch: self.epoch, base, batches: Vec::new(), slices: Vec::new() };
        let mut taken = 0;
        let mut run_from = self.sealed.len();
        while let Some(batch) = self.unsealed.front() {
            let oversized = at_least_one && entry.batches.is_empty();
            if !oversized && taken + batch.bytes.len() > limit {
                break;
            }
            let batch = self.unsealed.pop_front().expect("just looked at");
            taken += batch.bytes.len();
            entry.batches.push(batch.description);
            if batch.bytes.len() <= COPY_AT_SEAL_BYTES {
                if !gather.has_room(batch.bytes.len()) {
                    self.end_run(run_from, gather, &mut entry.slices);
                    run_from = self.sealed.len();
                    gather.next_piece(batch.bytes.len());
                }
                gather.copy(&batch.bytes);
                self.sealed.push_back(batch);
            } else {
                self.end_run(run_from, gather, &mut entry.slices);
                entry.slices.push(batch.bytes.clone());
                self.sealed.push_back(batch);
                run_from = self.sealed.len();
            }
        }
        self.end_run(run_from, gather, &mut entry.slices);
        if entry.batches.is_empty() { None } else { Some(entry) }
    }

    /// The batches from `run_from` on were copied to the end of `gather`: from now on they lie there.
    fn end_run(&mut self, run_from: usize, gather: &mut Gather, slices: &mut Vec<Bytes>) {
        if run_from == self.sealed.len() {
            return;
        }
        let run = gather.piece.split().freeze();
        let mut at = 0;
        for batch in self.sealed.range_mut(run_from..) {
            let length = batch.bytes.len();
            batch.bytes = run.slice(at..at + length);
            batch.pinned = length;
            at += length;
        }
        slices.push(run);
    }

    /// Whether batches wait for a seal.
    pub fn has_unsealed(&self) -> bool {
        !self.unsealed.is_empty()
    }

    /// An entry of this partition and epoch became durable: the high watermark rises to its end, its batches join the
    /// tail and are charged to it.
    pub fn commit(&mut self, object: &CommittedObject, entry: &PartitionEntry, tail: &mut TailBudget) {
        assert_eq!(entry.epoch, self.epoch, "the caller looked at the epoch");
        assert_eq!(entry.base, self.high_watermark, "invariant 1: {} commits in order", self.partition);
        self.references.push(Reference {
            wid: object.wid,
            seq: object.seq,
            position: entry.position,
            length: entry.length,
            base: entry.base,
            last: entry.last,
            max_timestamp: entry.max_timestamp,
        });
        self.high_watermark = entry.last.plus(1);
        self.appended.commit_through(self.high_watermark);
        while self.sealed.front().is_some_and(|batch| batch.last < self.high_watermark) {
            let mut batch = self.sealed.pop_front().expect("just looked at");
            batch.permit = None;
            tail.charge(self.partition, batch.pinned);
            self.tail.push_back(batch);
        }
        let next = self.sealed.front().map(|batch| batch.base);
        assert!(next.is_none_or(|base| base == self.high_watermark), "invariant 1: an entry ends where a batch ends");
    }

    /// The next request that the high watermark answers.
    pub fn next_answered(&mut self) -> Option<Waiting> {
        let answered = self.waiting.front().is_some_and(|waiting| waiting.end <= self.high_watermark);
        if answered { self.waiting.pop_front() } else { None }
    }

    /// Everybody who waits for an answer: the leadership ends.
    pub fn take_waiting(&mut self) -> VecDeque<Waiting> {
        std::mem::take(&mut self.waiting)
    }

    /// Drops the oldest batch of the tail.
    pub fn evict(&mut self) {
        self.tail.pop_front().expect("what the tail budget charges is in the tail");
    }

    /// What each batch of the tail was charged for.
    pub fn tail_pinned(&self) -> impl Iterator<Item = usize> {
        self.tail.iter().map(|batch| batch.pinned)
    }

    /// First offset that is in the tail; the high watermark if the tail is empty.
    pub fn tail_start(&self) -> Offset {
        self.tail.front().map_or(self.high_watermark, |batch| batch.base)
    }

    /// The batches of the tail from the one that holds `from` on.
    pub fn tail_from(&self, from: Offset) -> impl Iterator<Item = &LogBatch> {
        let first = self.tail.partition_point(|batch| batch.last < from);
        self.tail.range(first..)
    }

    /// The log now starts at `offset` (never lower than before, never above the high watermark).
    pub fn raise_log_start(&mut self, offset: Offset) {
        let offset = offset.min(self.high_watermark);
        if offset > self.log_start {
            self.log_start = offset;
            self.references.drop_below(offset);
            self.covered.drop_below(offset);
            self.epochs.truncate_below(offset);
        }
    }

    /// Segments hold everything below `covered`.
    pub fn cover(&mut self, covered: Offset) {
        self.covered.add(self.references.iter().take_while(|reference| reference.last < covered));
        self.references.drop_below(covered);
    }

    /// What the log is made of from its start to the high watermark; `None` while its manifest is not known.
    pub fn pieces(&self) -> Option<impl Iterator<Item = Piece> + Clone> {
        Some(self.covered.pieces()?.chain(self.references.iter().map(Piece::from)))
    }

    /// Its manifest was read.
    pub fn learn_segments(&mut self, manifest: &Manifest) {
        self.covered.learn(manifest, self.log_start, self.references_from());
    }

    /// Bytes that are stored of it, where that manifest says what its segments hold.
    pub fn stored_bytes(&self, manifest: &Manifest) -> u64 {
        let segments = manifest.segments.iter().filter(|named| named.segment.last >= self.log_start);
        let uncovered = self.references.since(manifest.covered).map(|reference| u64::from(reference.length));
        segments.map(|named| named.segment.bytes).chain(uncovered).sum()
    }

    /// Whether what its segments hold is known.
    pub fn knows_segments(&self) -> bool {
        self.covered.pieces().is_some()
    }

    /// `fetch` wants to know when the high watermark rises.
    pub fn park(&mut self, fetch: ReplyTo) {
        self.parked.insert(fetch);
    }
    /// It no longer does.
    pub fn unpark(&mut self, fetch: ReplyTo) {
        self.parked.remove(&fetch);
    }
    /// The fetches that want to know, in order.
    pub fn parked(&self) -> impl Iterator<Item = ReplyTo> {
        self.parked.iter().copied()
    }

    /// Remembers that the batch with base offset `base` begins at byte `position` of its object.
    pub fn remember_place(&mut self, base: Offset, position: u32) {
        if self.places.len() == REMEMBERED_PLACES {
            self.places.pop_front();
        }
        self.places.push_back(Place { base, position });
    }

    /// Where in its object the batch with base offset `base` begins, if that was remembered.
    pub fn place_of(&self, base: Offset) -> Option<u32> {
        self.places.iter().rev().find(|place| place.base == base).map(|place| place.position)
    }

    /// Produce is refused from now on. What was appended before still goes to the lane.
    pub fn drain(&mut self) {
        self.draining = true;
    }
}
