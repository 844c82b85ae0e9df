//! Fetches in progress: parked until there is enough to read, or waiting for reads of write-ahead objects and segments.
//!
//! 1. A parked fetch is registered in every partition that it asks for and the shard leads; it is looked at again
//!    only when one of them changes, at its deadline, when a later reply of its connection waits, or when its
//!    connection goes.
//!    A connection has at most one.
//! 2. Bytes being read, and read for answers not yet made, stay within the budget, unless a single fetch exceeds it.
//! 3. A fetch is answered once: by its results, or after [`READ_PATIENCE`] without those that are missing.
//! 4. A write-ahead object that is gone has been covered meanwhile: its offsets are read from segments.

use super::core::ShardCore;
use super::deadlines::{DeadlineId, Due};
use super::events::{ConnectionId, Effect, Now, ReadToken, Reply, ReplyTo, RequestNumber};
use super::fetching::{self, Planned, PlannedRead, Room, Walked};
use crate::cold::reader::{ColdError, ColdRead};
use crate::handlers::RequestContext;
use crate::handlers::errors::PartitionError;
use crate::handlers::fetch::{SlotResult, respond};
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::record_set::RecordSet;
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::store_error::StoreError;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use uuid::Uuid;

/// How long the answer waits for reads: a store that does not answer must not hold a client's connection for ever.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Reads of one fetch over all partitions.
const READS_PER_FETCH: usize = 16;

/// Bytes in one answer, whatever the client allows (Kafka's `fetch.max.bytes` of a broker).
const MOST_BYTES: usize = 55 * 1024 * 1024;

/// A fetch that just arrived.
pub(crate) struct NewFetch {
    /// How to answer.
    pub(crate) context: RequestContext,
    /// The topics in the request's order, as they were named.
    pub(crate) topics: Vec<(StrBytes, Uuid)>,
    /// The partitions in the request's order.
    pub(crate) slots: Vec<FetchSlot>,
    /// Wait until there is as much, in bytes,
    pub(crate) min_bytes: usize,
    /// Give no more, in bytes.
    pub(crate) max_bytes: usize,
    /// or as long.
    pub(crate) wait: Duration,
}

/// One partition of a fetch.
pub(crate) struct FetchSlot {
    /// Its topic's place in the request.
    pub(crate) topic_at: usize,
    /// The partition's index as asked.
    pub(crate) index: i32,
    /// First offset wanted.
    pub(crate) from: Offset,
    /// Most bytes wanted.
    pub(crate) max_bytes: usize,
    /// Leader epoch that the client believes in, −1 if it does not say.
    pub(crate) current_epoch: i32,
    /// Which partition, if there is such.
    pub(crate) partition: Option<TopicPartition>,
    /// How far it is.
    pub(crate) state: SlotState,
}

/// How far one partition of a fetch is.
pub(crate) enum SlotState {
    /// It will fail with this, whatever comes.
    Failed(PartitionError),
    /// Nothing to give (yet).
    Idle,
    /// Its reads are to be started.
    Planned { reads: SmallVec<[PlannedRead; 2]>, allotted: usize, oversized: bool },
    /// Its reads are under way.
    Reading { parts: Vec<Part>, allotted: usize, oversized: bool },
    /// Segments are to be read for it.
    ColdPlanned { allotted: usize, oversized: bool },
    /// Segments are being read for it.
    ColdReading,
    /// They could not be read.
    ColdFailed(ColdError),
    /// Its bytes.
    Ready(RecordSet),
}

/// A read and what came of it.
pub(crate) struct Part {
    read: PlannedRead,
    bytes: Option<Bytes>,
}

/// A fetch that is not answered yet.
pub(crate) struct PendingFetch {
    context: RequestContext,
    topics: Vec<(StrBytes, Uuid)>,
    slots: Vec<FetchSlot>,
    /// Which slot is planned first: rotates from fetch to fetch, so that a full response starves nobody.
    first: usize,
    min_bytes: usize,
    max_bytes: usize,
    deadline: DeadlineId,
    /// Bytes charged for its reads.
    charged: usize,
    /// Reads under way,
    outstanding: usize,
    /// and their bytes.
    outstanding_bytes: usize,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Parked,
    Queued,
    Reading,
}

/// Whose read it is.
#[derive(Clone, Copy, Debug)]
struct ReadOwner {
    fetch: ReplyTo,
    slot: usize,
    part: usize,
    /// What it is charged.
    bytes: usize,
}

/// All fetches of one shard.
#[derive(Default)]
pub(crate) struct Fetches {
    by_request: BTreeMap<ReplyTo, PendingFetch>,
    reads: BTreeMap<ReadToken, ReadOwner>,
    next_token: u64,
    rotation: usize,
    /// Fetches that wait for the budget of reads, first come, first served.
    queue: VecDeque<ReplyTo>,
    charged: usize,
}

impl Fetches {
    /// Bytes charged for reads.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// The fetches of a connection, in order.
    fn of(&self, connection: ConnectionId) -> Vec<ReplyTo> {
        let first = ReplyTo { connection, request: RequestNumber(0) };
        let last = ReplyTo { connection, request: RequestNumber(u64::MAX) };
        self.by_request.range(first..=last).map(|(request, _)| *request).collect()
    }
}

impl ShardCore {
    /// Answers a fetch at once, starts its reads, or parks it.
    pub(crate) fn start_fetch(&mut self, now: Now, new: NewFetch) {
        let reply_to = new.context.reply_to;
        let deadline = self.deadlines.set(now.mono.plus(new.wait), Due::Fetch(reply_to));
        self.fetches.rotation = self.fetches.rotation.wrapping_add(1);
        let mut fetch = PendingFetch {
            context: new.context,
            topics: new.topics,
            first: self.fetches.rotation % new.slots.len().max(1),
            slots: new.slots,
            min_bytes: new.min_bytes,
            max_bytes: new.max_bytes.min(MOST_BYTES).min(self.config().response_bytes),
            deadline,
            charged: 0,
            outstanding: 0,
            outstanding_bytes: 0,
            phase: Phase::Parked,
        };
        let at_once = new.wait.is_zero() || fetch.slots.is_empty();
        if self.plan_fetch(&mut fetch) || at_once {
            return self.gather(now, fetch);
        }
        self.counters.parked_fetches += 1;
        // One parked fetch per connection, which is what clients send: many would be memory that nobody bounds.
        for earlier in self.fetches.of(reply_to.connection) {
            self.hurry_fetch(now, earlier, false);
        }
        for slot in &fetch.slots {
            if let Some(log) = slot.partition.and_then(|partition| self.logs.get_mut(&partition)) {
                log.park(reply_to);
            }
        }
        self.fetches.by_request.insert(reply_to, fetch);
    }

    /// A partition of a parked fetch changed: answer it if there is enough now.
    pub(crate) fn wake_fetch(&mut self, now: Now, request: ReplyTo) {
        let Some(mut fetch) = self.take_parked(request) else { return };
        if self.plan_fetch(&mut fetch) {
            self.gather(now, fetch);
        } else {
            self.fetches.by_request.insert(request, fetch);
        }
    }

    /// A parked fetch waits no longer; one whose patience with its reads is over is answered without them.
    pub(crate) fn hurry_fetch(&mut self, now: Now, request: ReplyTo, timed_out: bool) {
        if let Some(mut fetch) = self.take_parked(request) {
            self.plan_fetch(&mut fetch);
            return self.gather(now, fetch);
        }
        if timed_out && let Some(fetch) = self.fetches.by_request.remove(&request) {
            self.fetches.queue.retain(|queued| *queued != request);
            self.finish_fetch(now, fetch);
        }
    }

    /// The parked fetches of a connection that is gone end, with replies that nobody sends.
    pub(crate) fn drop_fetches_of(&mut self, connection: ConnectionId) {
        for request in self.fetches.of(connection) {
            if let Some(fetch) = self.take_parked(request) {
                self.unpark(&fetch);
                self.deadlines.clear(fetch.deadline);
                self.end(request, Reply::Silent);
            }
        }
    }

    fn take_parked(&mut self, request: ReplyTo) -> Option<PendingFetch> {
        if self.fetches.by_request.get(&request)?.phase != Phase::Parked {
            return None;
        }
        self.fetches.by_request.remove(&request)
    }

    fn unpark(&mut self, fetch: &PendingFetch) {
        for slot in &fetch.slots {
            if let Some(log) = slot.partition.and_then(|partition| self.logs.get_mut(&partition)) {
                log.unpark(fetch.context.reply_to);
            }
        }
    }

    /// Plans every partition afresh; true if there is enough to answer, or an error to report.
    fn plan_fetch(&self, fetch: &mut PendingFetch) -> bool {
        let mut room = Room { bytes: fetch.max_bytes, empty: true, reads: READS_PER_FETCH };
        let (mut bytes, mut failed) = (0, false);
        let count = fetch.slots.len();
        for slot in (0..count).map(|at| (fetch.first + at) % count) {
            let slot = &mut fetch.slots[slot];
            if !matches!(slot.state, SlotState::Failed(_)) {
                slot.state = self.plan_slot(slot, &mut room, &mut bytes);
            }
            failed |= matches!(slot.state, SlotState::Failed(_));
        }
        failed || bytes >= fetch.min_bytes
    }

    fn plan_slot(&self, slot: &FetchSlot, room: &mut Room, bytes: &mut usize) -> SlotState {
        let partition = slot.partition.expect("a slot without a partition has failed");
        let log = match self.leading(partition, slot.current_epoch) {
            Ok(log) => log,
            Err(error) => return SlotState::Failed(error),
        };
        let Ok(planned) = fetching::plan(log, slot.from, slot.max_bytes, room) else {
            return SlotState::Failed(PartitionError::OutOfRange);
        };
        *bytes += planned.bytes();
        match planned {
            Planned::Tail(records) => SlotState::Ready(records),
            Planned::Read { reads, allotted, oversized } => SlotState::Planned { reads, allotted, oversized },
            Planned::Segments { allotted, oversized } => SlotState::ColdPlanned { allotted, oversized },
            Planned::NoRoom | Planned::Wait => SlotState::Idle,
        }
    }

    /// Does the reads that the plan needs, then answers.
    fn gather(&mut self, now: Now, mut fetch: PendingFetch) {
        self.unpark(&fetch);
        let block_bytes = self.config().block_bytes;
        fetch.charged = fetch.slots.iter().map(|slot| planned_bytes(slot, block_bytes)).sum();
        if fetch.charged == 0 {
            return self.finish_fetch(now, fetch);
        }
        self.deadlines.clear(fetch.deadline);
        fetch.deadline = self.deadlines.set(now.mono.plus(READ_PATIENCE), Due::Fetch(fetch.context.reply_to));
        let fits = self.fetches.charged == 0 || self.fetches.charged + fetch.charged <= self.config().read_bytes;
        let request = fetch.context.reply_to;
        if fits && self.fetches.queue.is_empty() {
            self.start_reads(&mut fetch);
        } else {
            fetch.phase = Phase::Queued;
            self.fetches.queue.push_back(request);
        }
        self.fetches.by_request.insert(request, fetch);
    }

    fn start_reads(&mut self, fetch: &mut PendingFetch) {
        fetch.phase = Phase::Reading;
        self.fetches.charged += fetch.charged;
        let request = fetch.context.reply_to;
        for (slot_at, slot) in fetch.slots.iter_mut().enumerate() {
            let bytes = planned_bytes(slot, self.config().block_bytes);
            match &slot.state {
                SlotState::Planned { reads, allotted, oversized } => {
                    let parts: Vec<Part> = reads.iter().map(|&read| Part { read, bytes: None }).collect();
                    for (part_at, part) in parts.iter().enumerate() {
                        let bytes = part.read.length as usize;
                        fetch.outstanding += 1;
                        self.ask_store(ReadOwner { fetch: request, slot: slot_at, part: part_at, bytes }, part.read);
                    }
                    slot.state = SlotState::Reading { parts, allotted: *allotted, oversized: *oversized };
                }
                SlotState::ColdPlanned { allotted, oversized } => {
                    let (allotted, oversized) = (*allotted, *oversized);
                    fetch.outstanding += 1;
                    let owner = ReadOwner { fetch: request, slot: slot_at, part: 0, bytes };
                    self.ask_segments(owner, slot, allotted, oversized);
                }
                SlotState::Failed(_)
                | SlotState::Idle
                | SlotState::Reading { .. }
                | SlotState::ColdReading
                | SlotState::ColdFailed(_)
                | SlotState::Ready(_) => {}
            }
            fetch.outstanding_bytes += bytes;
        }
    }

    fn token(&mut self, owner: ReadOwner) -> ReadToken {
        let token = ReadToken(self.fetches.next_token);
        self.fetches.next_token += 1;
        self.fetches.reads.insert(token, owner);
        token
    }

    fn ask_segments(&mut self, owner: ReadOwner, slot: &mut FetchSlot, most: usize, oversized: bool) {
        let token = self.token(owner);
        self.counters.cold_reads += 1;
        let partition = slot.partition.expect("a slot without a partition has failed");
        slot.state = SlotState::ColdReading;
        self.effects.push(Effect::ColdRead { token, read: ColdRead { partition, from: slot.from, most, oversized } });
    }

    fn ask_store(&mut self, owner: ReadOwner, read: PlannedRead) {
        let token = self.token(owner);
        self.counters.store_reads += 1;
        let start = u64::from(read.start);
        self.effects.push(Effect::Read {
            token,
            wid: read.reference.wid,
            seq: read.reference.seq,
            range: start..start + u64::from(read.length),
        });
    }

    /// A read of a write-ahead object ended.
    pub(crate) fn finish_read(&mut self, now: Now, token: ReadToken, result: Result<Option<Bytes>, StoreError>) {
        let Some((owner, mut fetch)) = self.end_read(now, token) else { return };
        let slot = &mut fetch.slots[owner.slot];
        let block_bytes = self.config().block_bytes;
        if let SlotState::Reading { allotted, oversized, .. } = slot.state
            && owner.part == 0
            && matches!(result, Ok(None))
        {
            let bytes = cold_bytes(allotted, block_bytes);
            self.ask_segments(ReadOwner { bytes, ..owner }, slot, allotted, oversized);
            self.charge_more(&mut fetch, bytes);
        } else if let Some(read) = take_read(slot, owner.part, result) {
            let bytes = read.length as usize;
            self.ask_store(ReadOwner { bytes, ..owner }, read);
            self.charge_more(&mut fetch, bytes);
        }
        self.go_on(now, fetch);
    }

    /// A read of segments ended.
    pub(crate) fn finish_cold_read(&mut self, now: Now, token: ReadToken, result: Result<RecordSet, ColdError>) {
        let Some((owner, mut fetch)) = self.end_read(now, token) else { return };
        fetch.slots[owner.slot].state = match result {
            Ok(records) => {
                self.counters.fetched_cold_bytes += records.len() as u64;
                SlotState::Ready(records)
            }
            Err(error) => SlotState::ColdFailed(error),
        };
        self.go_on(now, fetch);
    }

    /// Whose read it was, and the fetch; `None` if that was answered without it.
    fn end_read(&mut self, now: Now, token: ReadToken) -> Option<(ReadOwner, PendingFetch)> {
        let owner = self.fetches.reads.remove(&token).expect("only reads that were asked for end");
        let Some(mut fetch) = self.fetches.by_request.remove(&owner.fetch) else {
            // It left us its charge.
            self.fetches.charged -= owner.bytes;
            self.start_queued(now);
            return None;
        };
        fetch.outstanding -= 1;
        fetch.outstanding_bytes -= owner.bytes;
        Some((owner, fetch))
    }

    /// One more read of `fetch` is under way.
    fn charge_more(&mut self, fetch: &mut PendingFetch, bytes: usize) {
        fetch.outstanding += 1;
        fetch.outstanding_bytes += bytes;
        fetch.charged += bytes;
        self.fetches.charged += bytes;
    }

    /// Answers once no read is under way.
    fn go_on(&mut self, now: Now, fetch: PendingFetch) {
        if fetch.outstanding == 0 {
            return self.finish_fetch(now, fetch);
        }
        self.fetches.by_request.insert(fetch.context.reply_to, fetch);
    }

    /// Makes the answer from what is there.
    fn finish_fetch(&mut self, now: Now, fetch: PendingFetch) {
        self.deadlines.clear(fetch.deadline);
        if fetch.phase == Phase::Reading {
            // What is still being read stays charged, or a store that does not answer would gather reads without end.
            self.fetches.charged -= fetch.charged - fetch.outstanding_bytes;
        }
        let mut results = Vec::with_capacity(fetch.slots.len());
        for slot in fetch.slots {
            let result = self.slot_result(&slot);
            results.push(SlotResult { topic_at: slot.topic_at, index: slot.index, partition: slot.partition, result });
        }
        respond(self, fetch.context, fetch.topics, results);
        self.start_queued(now);
    }

    fn slot_result(&mut self, slot: &FetchSlot) -> Result<RecordSet, PartitionError> {
        if let SlotState::Failed(error) = slot.state {
            return Err(error);
        }
        let partition = slot.partition.expect("a slot without a partition has failed");
        // The leadership may have ended while the reads were under way.
        self.leading(partition, slot.current_epoch)?;
        match &slot.state {
            SlotState::Failed(error) => Err(*error),
            SlotState::Idle => Ok(RecordSet::new()),
            SlotState::Ready(records) => Ok(records.clone()),
            SlotState::Planned { .. } | SlotState::ColdPlanned { .. } | SlotState::ColdReading => {
                Err(PartitionError::Storage)
            }
            SlotState::ColdFailed(error) => Err(self.cold_error(partition, slot.from, error)),
            SlotState::Reading { parts, allotted, oversized } => {
                let assembled = self.assemble(partition, slot.from, parts, *allotted, *oversized);
                // What retention removed while it was being read is not missing.
                let removed = self.leading(partition, slot.current_epoch)?.log_start() > slot.from;
                let records = assembled.map_err(|error| if removed { PartitionError::OutOfRange } else { error })?;
                self.counters.fetched_from_store_bytes += records.len() as u64;
                Ok(records)
            }
        }
    }

    /// What the client is told of a read of segments that failed.
    fn cold_error(&mut self, partition: TopicPartition, from: Offset, error: &ColdError) -> PartitionError {
        let log = self.logs.get_mut(&partition).expect("the caller saw that it is led");
        // What retention removed while it was being read is not missing.
        if log.log_start() > from || *error == ColdError::Removed {
            return PartitionError::OutOfRange;
        }
        if matches!(error, ColdError::Missing(_)) && log.raise_alarm() {
            tracing::error!(%partition, %from, %error, "records that must be in segments can't be read");
        }
        PartitionError::Storage
    }

    /// Joins what the reads of one partition brought, as far as it is whole and fits.
    fn assemble(
        &mut self,
        partition: TopicPartition,
        mut from: Offset,
        parts: &[Part],
        allotted: usize,
        oversized: bool,
    ) -> Result<RecordSet, PartitionError> {
        let mut records = RecordSet::new();
        for Part { read, bytes } in parts {
            let Some(bytes) = bytes else {
                return if records.is_empty() { Err(PartitionError::Storage) } else { Ok(records) };
            };
            let left = allotted.saturating_sub(records.len());
            match fetching::walk(bytes, from, left, oversized && records.is_empty()) {
                Walked::Batches { start, end, next } => {
                    records.push(fetching::slice_of(bytes, start, end));
                    from = next;
                    let position = read.start + u32::try_from(end).expect("an object is smaller than 4 GiB");
                    if position < read.reference.position + read.reference.length {
                        if let Some(log) = self.logs.get_mut(&partition) {
                            log.remember_place(next, position);
                        }
                        break;
                    }
                }
                Walked::TooLarge | Walked::Cut { .. } | Walked::Below(_) if !records.is_empty() => break,
                Walked::TooLarge => break,
                Walked::Cut { .. } | Walked::Below(_) | Walked::Broken => return Err(PartitionError::Storage),
            }
        }
        Ok(records)
    }

    /// Starts the fetches at the front of the queue that the budget now allows.
    fn start_queued(&mut self, _now: Now) {
        while let Some(&request) = self.fetches.queue.front() {
            let mut fetch = self.fetches.by_request.remove(&request).expect("who queues is in the table");
            let fits = self.fetches.charged == 0 || self.fetches.charged + fetch.charged <= self.config().read_bytes;
            if fits {
                self.fetches.queue.pop_front();
                self.start_reads(&mut fetch);
            }
            self.fetches.by_request.insert(request, fetch);
            if !fits {
                return;
            }
        }
    }
}

/// What the reads planned for a slot are charged.
fn planned_bytes(slot: &FetchSlot, block_bytes: usize) -> usize {
    match &slot.state {
        SlotState::Planned { reads, .. } => reads.iter().map(|read| read.length as usize).sum(),
        SlotState::ColdPlanned { allotted, .. } => cold_bytes(*allotted, block_bytes),
        SlotState::Failed(_)
        | SlotState::Idle
        | SlotState::Reading { .. }
        | SlotState::ColdReading
        | SlotState::ColdFailed(_)
        | SlotState::Ready(_) => 0,
    }
}

/// What a read of segments is charged: whole blocks at both ends.
fn cold_bytes(allotted: usize, block_bytes: usize) -> usize {
    allotted + 2 * block_bytes
}

/// Keeps the result of a read. Gives the read that must follow if the first batch to give was not in it.
fn take_read(slot: &mut FetchSlot, part_at: usize, result: Result<Option<Bytes>, StoreError>) -> Option<PlannedRead> {
    let SlotState::Reading { parts, allotted, oversized } = &mut slot.state else { return None };
    let part = &mut parts[part_at];
    let Ok(Some(bytes)) = result else {
        // Said to the client as a storage error unless earlier parts have something to give.
        part.bytes = None;
        return None;
    };
    let PlannedRead { reference, start, length } = part.read;
    let end = reference.position + reference.length;
    let whole = bytes.len() == length as usize;
    let walked = fetching::walk(&bytes, slot.from, *allotted, *oversized);
    part.bytes = Some(bytes);
    if part_at > 0 || !whole {
        return None;
    }
    let (skip, wanted) = match walked {
        Walked::Cut { start, needs } => (start, needs),
        Walked::Below(skip) => (skip, length as usize),
        Walked::Batches { .. } | Walked::TooLarge | Walked::Broken => return None,
    };
    let next = start.checked_add(u32::try_from(skip).ok()?)?;
    let wanted = u32::try_from(wanted).ok()?.min(end.checked_sub(next)?);
    // An entry that ends before its batch does is broken; reading it again would not help.
    if wanted == 0 || (next == start && wanted <= length) {
        return None;
    }
    part.read = PlannedRead { reference, start: next, length: wanted };
    part.bytes = None;
    Some(part.read)
}
