//! DeleteRecords requests that wait until their log starts are durable.
//!
//! 1. A request leaves this table exactly when its reply is made: by the last of its log starts, by the end of a
//!    leadership, at its deadline, or when its connection goes.
//! 2. At most [`WAITING`] partitions of requests wait; those beyond are refused by the handler.
//! 3. A deadline takes nothing back: the log start may rise afterwards.
//! 4. The lane is asked for a log start at or below the high watermark only: what is appended above waits for it first. A
//!    producer with acks 1 knows its offsets before that, and Kafka with one replica would delete them at once.

use super::core::ShardCore;
use super::deadlines::{DeadlineId, Due};
use super::events::{ConnectionId, Effect, Now, Reply, ReplyTo, RequestNumber};
use crate::handlers::RequestContext;
use crate::handlers::delete_records::set_result;
use crate::handlers::errors::PartitionError;
use millrace_protocol::messages::DeleteRecordsResponse;
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::lane::ToLane;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Partitions of requests that wait: as many as a process has by default.
pub(crate) const WAITING: usize = 10_000;

/// A DeleteRecords request that raises log starts.
pub(crate) struct NewDeletion {
    /// How to answer.
    pub(crate) context: RequestContext,
    /// The answer, but for what waits.
    pub(crate) response: DeleteRecordsResponse,
    /// What waits, each partition once.
    pub(crate) slots: Vec<DeletionSlot>,
    /// Answer without what is not durable by then.
    pub(crate) patience: Duration,
}

/// One partition of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeletionSlot {
    /// Which partition.
    pub(crate) partition: TopicPartition,
    /// Where its log is to start, at most its end.
    pub(crate) wanted: Offset,
    /// Index into the response's topics.
    pub(crate) topic_at: usize,
    /// Index into that topic's partitions.
    pub(crate) partition_at: usize,
}

struct Pending {
    context: RequestContext,
    response: DeleteRecordsResponse,
    /// Those that still wait.
    slots: BTreeMap<TopicPartition, DeletionSlot>,
    deadline: DeadlineId,
}

/// The deletions of one shard.
#[derive(Default)]
pub(crate) struct Deletions {
    by_request: BTreeMap<ReplyTo, Pending>,
    /// Who waits for which log start.
    waiting: BTreeMap<TopicPartition, BTreeSet<(Offset, ReplyTo)>>,
    count: usize,
}

impl Deletions {
    /// How many more partitions may wait.
    pub(crate) fn room(&self) -> usize {
        WAITING.saturating_sub(self.count)
    }

    fn wait(&mut self, slot: DeletionSlot, request: ReplyTo) {
        self.waiting.entry(slot.partition).or_default().insert((slot.wanted, request));
        self.count += 1;
    }

    fn stop_waiting(&mut self, slot: DeletionSlot, request: ReplyTo) {
        let line = self.waiting.get_mut(&slot.partition).expect("who waits is in the line of its partition");
        assert!(line.remove(&(slot.wanted, request)), "who waits is in the line of its partition");
        if line.is_empty() {
            self.waiting.remove(&slot.partition);
        }
        self.count -= 1;
    }

    /// The first in the line of a partition.
    fn first(&self, partition: TopicPartition) -> Option<(Offset, ReplyTo)> {
        self.waiting.get(&partition)?.first().copied()
    }
}

impl ShardCore {
    /// Has the log starts raised, then answers.
    pub(crate) fn start_deletion(&mut self, now: Now, new: NewDeletion) {
        let request = new.context.reply_to;
        let deadline = self.deadlines.set(now.mono.plus(new.patience), Due::Deletion(request));
        for &slot in &new.slots {
            self.deletions.wait(slot, request);
            let (partition, offset) = (slot.partition, slot.wanted);
            if offset <= self.logs[&partition].high_watermark() {
                self.effects.push(Effect::ToLane(ToLane::LogStart { partition, offset }));
            }
        }
        let slots = new.slots.into_iter().map(|slot| (slot.partition, slot)).collect();
        let pending = Pending { context: new.context, response: new.response, slots, deadline };
        self.deletions.by_request.insert(request, pending);
    }

    /// The high watermark of a partition rose: the lane is asked for the log starts that it was in the way of.
    pub(super) fn ask_for_log_starts(&mut self, partition: TopicPartition, before: Offset, now: Offset) {
        let Some(line) = self.deletions.waiting.get(&partition) else { return };
        let due = line.iter().map(|(wanted, _)| *wanted).filter(|wanted| (before.plus(1)..=now).contains(wanted));
        // What several wait for is asked for once.
        for offset in due.collect::<BTreeSet<_>>() {
            self.effects.push(Effect::ToLane(ToLane::LogStart { partition, offset }));
        }
    }

    /// The log start of a partition rose: whom that is enough for is answered.
    pub(crate) fn log_start_rose(&mut self, partition: TopicPartition) {
        let start = self.logs[&partition].log_start();
        while let Some((_, request)) = self.deletions.first(partition).filter(|(wanted, _)| *wanted <= start) {
            self.end_deletion(request, partition, Ok(start));
        }
    }

    /// The leadership of a partition is over: nobody knows what becomes of its log start.
    pub(crate) fn end_deletions_of(&mut self, partition: TopicPartition) {
        while let Some((_, request)) = self.deletions.first(partition) {
            self.end_deletion(request, partition, Err(PartitionError::NotLeader));
        }
    }

    /// The request's time is over.
    pub(crate) fn time_out_deletion(&mut self, request: ReplyTo) {
        let pending = self.deletions.by_request.get(&request).expect("the deadline goes with the request");
        let left: Vec<TopicPartition> = pending.slots.keys().copied().collect();
        for partition in left {
            self.end_deletion(request, partition, Err(PartitionError::TimedOut));
        }
    }

    /// The requests of a connection that is gone end, with replies that nobody sends.
    pub(crate) fn drop_deletions_of(&mut self, connection: ConnectionId) {
        let of = |request| ReplyTo { connection, request: RequestNumber(request) };
        let requests: Vec<ReplyTo> =
            self.deletions.by_request.range(of(0)..=of(u64::MAX)).map(|(request, _)| *request).collect();
        for request in requests {
            let pending = self.deletions.by_request.remove(&request).expect("listed just now");
            pending.slots.into_values().for_each(|slot| self.deletions.stop_waiting(slot, request));
            self.deadlines.clear(pending.deadline);
            self.end(request, Reply::Silent);
        }
    }

    /// A partition of a request is decided; the request is answered with the last one.
    fn end_deletion(&mut self, request: ReplyTo, partition: TopicPartition, result: Result<Offset, PartitionError>) {
        let pending = self.deletions.by_request.get_mut(&request).expect("who waits is in the table");
        let slot = pending.slots.remove(&partition).expect("who waits has a slot");
        set_result(&mut pending.response.topics[slot.topic_at].partitions[slot.partition_at], result);
        let done = pending.slots.is_empty();
        self.deletions.stop_waiting(slot, request);
        if done {
            let pending = self.deletions.by_request.remove(&request).expect("just looked at");
            self.deadlines.clear(pending.deadline);
            pending.context.reply(self, &pending.response);
        }
    }
}
