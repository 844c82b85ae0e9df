//! Fetches in progress: parked until there is enough to read, or waiting for reads of write-ahead objects and segments.
//!
//! 1. A parked fetch is registered in every partition that it asks for and the shard leads; it is looked at again
//!    only when one of them changes, at its deadline, when a later reply of its connection waits, or when its
//!    connection goes.
//!    A connection has at most one.
//! 2. Bytes being read, and read for answers not yet made, stay within the budget, unless a single fetch exceeds it.
//! 3. A fetch is answered once: by its results, or after [`READ_PATIENCE`] without those that are missing.
//!
//! The reads themselves are those of [`super::fetch_reads`]; what is beyond a log's end is looked into by
//! [`super::fetch_looks`].

use super::core::ShardCore;
use super::deadlines::{DeadlineId, Due};
use super::events::{ConnectionId, Now, ReadToken, Reply, ReplyTo, RequestNumber};
use super::fetch_looks::Looks;
use super::fetch_reads::{Part, ReadOwner, planned_bytes};
use super::fetching::{self, Planned, PlannedRead, Room};
use super::split::watch::Watch;
use crate::cold::reader::ColdError;
use crate::handlers::RequestContext;
use crate::handlers::errors::PartitionError;
use crate::handlers::fetch::{SessionUse, SlotResult, respond};
use millrace_protocol::StrBytes;
use millrace_protocol::record_set::RecordSet;
use millrace_storage::ids::{Offset, TopicPartition};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use uuid::Uuid;

/// How long the answer waits for reads: a store that does not answer must not hold a client's connection for ever.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Reads of one fetch over all partitions.
const READS_PER_FETCH: usize = 16;

/// Bytes in one answer, whatever the client allows (Kafka's `fetch.max.bytes` of a broker).
pub(crate) const MOST_BYTES: usize = 55 * 1024 * 1024;

/// A fetch that just arrived.
pub(crate) struct NewFetch {
    /// How to answer.
    pub(crate) context: RequestContext,
    /// The topics in the request's order, as they were named.
    pub(crate) topics: Vec<(StrBytes, Uuid)>,
    /// The partitions in the request's order.
    pub(crate) slots: Vec<FetchSlot>,
    /// The session that it belongs to.
    pub(crate) session: SessionUse,
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

/// A fetch that is not answered yet.
pub(crate) struct PendingFetch {
    pub(super) context: RequestContext,
    topics: Vec<(StrBytes, Uuid)>,
    session: SessionUse,
    pub(super) slots: Vec<FetchSlot>,
    /// Which slot is planned first: rotates from fetch to fetch, so that a full response starves nobody.
    first: usize,
    min_bytes: usize,
    pub(super) max_bytes: usize,
    /// One that is watched for another shard has none while it waits.
    pub(super) deadline: Option<DeadlineId>,
    /// Set while another shard is told how much there is, which then says when to read.
    pub(super) watch: Option<Watch>,
    /// Whether its first batch may exceed `max_bytes`.
    pub(super) oversized: bool,
    /// Bytes charged for its reads.
    pub(super) charged: usize,
    /// Reads under way,
    pub(super) outstanding: usize,
    /// and their bytes.
    pub(super) outstanding_bytes: usize,
    pub(super) phase: Phase,
    /// The lane has looked for it, or was given up.
    pub(super) looked: bool,
}

impl PendingFetch {
    /// Of slots that wait, without any bound.
    pub(super) fn parked(
        context: RequestContext,
        topics: Vec<(StrBytes, Uuid)>,
        session: SessionUse,
        slots: Vec<FetchSlot>,
        first: usize,
    ) -> PendingFetch {
        PendingFetch {
            context,
            topics,
            session,
            slots,
            first,
            min_bytes: 0,
            max_bytes: 0,
            deadline: None,
            watch: None,
            oversized: true,
            charged: 0,
            outstanding: 0,
            outstanding_bytes: 0,
            phase: Phase::Parked,
            looked: false,
        }
    }
}

/// What a plan amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// Bytes that could be given.
    pub(super) bytes: usize,
    /// Whether a partition has an error to report.
    pub(super) failed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Parked,
    /// Waits for the lane to look whether somebody else may have what it asks for.
    Looking,
    Queued,
    Reading,
}

/// All fetches of one shard.
#[derive(Default)]
pub(crate) struct Fetches {
    pub(super) by_request: BTreeMap<ReplyTo, PendingFetch>,
    pub(super) reads: BTreeMap<ReadToken, ReadOwner>,
    pub(super) next_token: u64,
    rotation: usize,
    /// Fetches that wait for the budget of reads, first come, first served.
    pub(super) queue: VecDeque<ReplyTo>,
    pub(super) charged: usize,
    pub(super) looks: Looks,
}

impl Fetches {
    /// Bytes charged for reads.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// A number that is one higher each time: who may give first.
    pub(super) fn rotate(&mut self) -> usize {
        self.rotation = self.rotation.wrapping_add(1);
        self.rotation
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
        let first = self.fetches.rotate() % new.slots.len().max(1);
        let mut fetch = PendingFetch::parked(new.context, new.topics, new.session, new.slots, first);
        fetch.max_bytes = self.most_bytes(new.max_bytes);
        // As in Kafka nobody waits for more than may be given.
        fetch.min_bytes = new.min_bytes.min(fetch.max_bytes);
        fetch.deadline = Some(self.deadlines.set(now.mono.plus(new.wait), Due::Fetch(reply_to)));
        let at_once = new.wait.is_zero() || fetch.slots.is_empty();
        if self.is_enough(&mut fetch) || at_once {
            return self.gather(now, fetch);
        }
        self.counters.parked_fetches += 1;
        self.hurry_fetches_of(now, reply_to.connection);
        self.park(&fetch);
        self.fetches.by_request.insert(reply_to, fetch);
    }

    /// One parked fetch per connection, which is what clients send: many would be memory that nobody bounds.
    pub(super) fn hurry_fetches_of(&mut self, now: Now, connection: ConnectionId) {
        for earlier in self.fetches.of(connection) {
            self.hurry_fetch(now, earlier, false);
        }
        self.hurry_split_fetches_of(now, connection);
    }

    /// Bytes that an answer may have of which the client wants so many.
    pub(super) fn most_bytes(&self, wanted: usize) -> usize {
        wanted.min(MOST_BYTES).min(self.config().response_bytes)
    }

    /// Has it looked at whenever one of its partitions changes.
    pub(super) fn park(&mut self, fetch: &PendingFetch) {
        for slot in &fetch.slots {
            if let Some(log) = slot.partition.and_then(|partition| self.logs.get_mut(&partition)) {
                log.park(fetch.context.reply_to);
            }
        }
    }

    /// A partition of a parked fetch changed: answer it if there is enough now.
    pub(crate) fn wake_fetch(&mut self, now: Now, request: ReplyTo) {
        let Some(mut fetch) = self.take_parked(request) else { return };
        if fetch.watch.is_some() {
            self.tell_level(now, fetch);
        } else if self.is_enough(&mut fetch) {
            self.gather(now, fetch);
        } else {
            self.fetches.by_request.insert(request, fetch);
        }
    }

    /// A parked fetch waits no longer; one whose patience with its reads is over is answered without them.
    pub(crate) fn hurry_fetch(&mut self, now: Now, request: ReplyTo, timed_out: bool) {
        if self.hurry_split_fetch(now, request) {
            return;
        }
        if let Some(mut fetch) = self.take_parked(request) {
            self.plan_fetch(&mut fetch);
            return self.gather(now, fetch);
        }
        if timed_out && self.give_up_look(now, request) {
            return;
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
                self.clear_deadline(&fetch);
                self.end(request, Reply::Silent);
            }
        }
    }

    pub(super) fn clear_deadline(&mut self, fetch: &PendingFetch) {
        if let Some(deadline) = fetch.deadline {
            self.deadlines.clear(deadline);
        }
    }

    pub(super) fn take_parked(&mut self, request: ReplyTo) -> Option<PendingFetch> {
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

    /// Plans it; whether there is enough to answer, or an error to report.
    fn is_enough(&self, fetch: &mut PendingFetch) -> bool {
        let Plan { bytes, failed } = self.plan_fetch(fetch);
        failed || bytes >= fetch.min_bytes
    }

    /// Plans every partition afresh.
    pub(super) fn plan_fetch(&self, fetch: &mut PendingFetch) -> Plan {
        let mut room = Room { bytes: fetch.max_bytes, empty: fetch.oversized, reads: READS_PER_FETCH };
        let (mut bytes, mut failed) = (0, false);
        let count = fetch.slots.len();
        for slot in (0..count).map(|at| (fetch.first + at) % count) {
            let slot = &mut fetch.slots[slot];
            if !matches!(slot.state, SlotState::Failed(_)) {
                slot.state = self.plan_slot(slot, &mut room, &mut bytes);
            }
            failed |= matches!(slot.state, SlotState::Failed(_));
        }
        Plan { bytes, failed }
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
        *bytes += planned.available();
        match planned {
            Planned::Tail { records, .. } => SlotState::Ready(records),
            Planned::Read { reads, allotted, oversized, .. } => SlotState::Planned { reads, allotted, oversized },
            Planned::Segments { allotted, oversized } => SlotState::ColdPlanned { allotted, oversized },
            Planned::NoRoom { .. } | Planned::Wait => SlotState::Idle,
        }
    }

    /// Does the reads that the plan needs, then answers.
    pub(super) fn gather(&mut self, now: Now, mut fetch: PendingFetch) {
        self.unpark(&fetch);
        if self.is_doubtful(&fetch) {
            return self.look_for(now, fetch);
        }
        let block_bytes = self.config().block_bytes;
        fetch.charged = fetch.slots.iter().map(|slot| planned_bytes(slot, block_bytes)).sum();
        if fetch.charged == 0 {
            return self.finish_fetch(now, fetch);
        }
        self.clear_deadline(&fetch);
        let patience = self.deadlines.set(now.mono.plus(READ_PATIENCE), Due::Fetch(fetch.context.reply_to));
        fetch.deadline = Some(patience);
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

    /// Makes the answer from what is there.
    pub(super) fn finish_fetch(&mut self, now: Now, fetch: PendingFetch) {
        self.clear_deadline(&fetch);
        if fetch.phase == Phase::Reading {
            // What is still being read stays charged, or a store that does not answer would gather reads without end.
            self.fetches.charged -= fetch.charged - fetch.outstanding_bytes;
        }
        if fetch.context.reply_to.connection.home().is_some() {
            self.give_fetched(now, fetch.context.reply_to, &fetch.slots);
            return self.start_queued(now);
        }
        let mut results = Vec::with_capacity(fetch.slots.len());
        for slot in fetch.slots {
            let result = self.slot_result(&slot);
            let FetchSlot { topic_at, index, partition, .. } = slot;
            results.push(SlotResult { topic_at, index, partition, bounds: self.bounds_of(partition), result });
        }
        respond(self, now, fetch.context, (fetch.topics, fetch.session), results);
        self.start_queued(now);
    }
}
