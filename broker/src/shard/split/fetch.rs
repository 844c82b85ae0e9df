//! Fetches over partitions of several shards, at their home: it knows the session, the limits and the time, and its owners
//! tell it how much there is to read.
//!
//! 1. Nothing is read before every owner has told its level once, and then when the levels together suffice, something
//!    failed, or the client waits no longer.
//! 2. The owners together may give as many bytes as the client and the broker allow; the first batch of one of them
//!    may exceed that.
//! 3. There is one deadline, here.
//! 4. What owners gave is counted ([`ShardCore::held_bytes`]) until the fetch is answered, as replies are.

use super::{How, PartId, ToPeer};
use crate::handlers::RequestContext;
use crate::handlers::errors::PartitionError;
use crate::handlers::fetch::{Bounds, SessionUse, SlotResult, respond};
use crate::shard::core::ShardCore;
use crate::shard::deadlines::{DeadlineId, Due};
use crate::shard::events::{ConnectionId, Now, Reply, ReplyTo};
use crate::shard::fetches::{NewFetch, SlotState};
use millrace_protocol::StrBytes;
use millrace_protocol::record_set::RecordSet;
use millrace_storage::ids::{Offset, ShardIndex, TopicPartition};
use std::collections::BTreeMap;
use uuid::Uuid;

/// One partition that an owner is asked for.
#[derive(Debug)]
pub struct WatchedSlot {
    /// Which.
    pub partition: TopicPartition,
    /// First offset wanted.
    pub from: Offset,
    /// Most bytes wanted.
    pub max_bytes: usize,
    /// Leader epoch that the client believes in, −1 if it does not say.
    pub current_epoch: i32,
}

/// What an owner gave of one partition.
#[derive(Debug)]
pub struct Fetched {
    /// Batches, maybe none.
    pub result: Result<RecordSet, PartitionError>,
    /// Where its log begins and ends, if it leads it.
    pub bounds: Option<Bounds>,
}

/// One partition of the request.
struct Slot {
    topic_at: usize,
    index: i32,
    partition: Option<TopicPartition>,
    fetched: Option<Fetched>,
}

/// What one owner is asked for.
struct Part {
    owner: ShardIndex,
    slots: Vec<usize>,
    /// Bytes that it last told of.
    level: Option<usize>,
    /// It has told something and waits to hear whether to go on.
    waits: bool,
    ended: bool,
}

/// A fetch that is not answered yet.
pub(super) struct SplitFetch {
    context: RequestContext,
    topics: Vec<(StrBytes, Uuid)>,
    session: SessionUse,
    slots: Vec<Slot>,
    parts: Vec<Part>,
    min_bytes: usize,
    max_bytes: usize,
    /// Which part may give first.
    first: usize,
    deadline: DeadlineId,
    /// It waits for no more bytes.
    hurried: bool,
    /// The owners have been told to read.
    collecting: bool,
    /// It has been counted among those that waited.
    counted: bool,
    /// Bytes that its owners gave so far.
    held: usize,
}

impl SplitFetch {
    /// A part ended without results: its connection has gone.
    pub(super) fn dropped(&mut self, place: usize) {
        self.parts[place].ended = true;
    }

    /// Whether to read now; `None` while that can't be said (invariant 1).
    fn suffices(&self) -> Option<bool> {
        let mut sum = 0_usize;
        for part in &self.parts {
            sum = sum.saturating_add(part.level?);
        }
        Some(self.hurried || sum >= self.min_bytes)
    }

    /// How many bytes each part may give, and which may exceed that with its first batch (invariant 2).
    fn shares(&self) -> (Vec<usize>, usize) {
        let count = self.parts.len();
        let order = || (0..count).map(|at| (self.first + at) % count);
        let level = |part: usize| self.parts[part].level.unwrap_or(0);
        let mut shares = vec![0; count];
        let mut left = self.max_bytes;
        for part in order() {
            shares[part] = level(part).min(left);
            left -= shares[part];
        }
        // More may have come meanwhile.
        shares.iter_mut().for_each(|share| *share += left / count);
        (shares, order().find(|part| level(*part) > 0).unwrap_or(self.first % count))
    }
}

impl ShardCore {
    /// Asks the owners what there is. `owners` are those of the slots, whose states say what already failed.
    pub(crate) fn start_split_fetch(&mut self, now: Now, new: NewFetch, owners: &[ShardIndex]) {
        let request = new.context.reply_to;
        self.hurry_fetches_of(now, request.connection);
        let mut parts: BTreeMap<ShardIndex, Part> = BTreeMap::new();
        let mut asked: BTreeMap<ShardIndex, Vec<WatchedSlot>> = BTreeMap::new();
        let mut slots = Vec::with_capacity(new.slots.len());
        let mut failed = false;
        for (at, (slot, &owner)) in new.slots.into_iter().zip(owners).enumerate() {
            let (topic_at, index, partition) = (slot.topic_at, slot.index, slot.partition);
            let mut fetched = None;
            match (partition, slot.state) {
                (Some(partition), _) => {
                    let part = Part { owner, slots: Vec::new(), level: None, waits: false, ended: false };
                    parts.entry(owner).or_insert(part).slots.push(at);
                    let (from, max_bytes, current_epoch) = (slot.from, slot.max_bytes, slot.current_epoch);
                    let slot = WatchedSlot { partition, from, max_bytes, current_epoch };
                    asked.entry(owner).or_default().push(slot);
                }
                (None, SlotState::Failed(error)) => {
                    failed = true;
                    fetched = Some(Fetched { result: Err(error), bounds: None });
                }
                (None, _) => unreachable!("a slot without a partition has failed"),
            }
            slots.push(Slot { topic_at, index, partition, fetched });
        }
        let max_bytes = self.most_bytes(new.max_bytes);
        // Not the number that parts are planned by: a part of our own would take every second one of it.
        let rotation = &mut self.splits().rotation;
        *rotation = rotation.wrapping_add(1);
        let first = *rotation % parts.len();
        let fetch = SplitFetch {
            context: new.context,
            topics: new.topics,
            session: new.session,
            slots,
            first,
            parts: parts.into_values().collect(),
            min_bytes: new.min_bytes.min(max_bytes),
            max_bytes,
            deadline: self.deadlines.set(now.mono.plus(new.wait), Due::Fetch(request)),
            hurried: failed || new.wait.is_zero(),
            collecting: false,
            counted: false,
            held: 0,
        };
        let ids = self.splits().open(request, asked.keys().copied().collect::<Vec<_>>(), How::Fetch(Box::new(fetch)));
        for ((owner, slots), part) in asked.into_iter().zip(ids) {
            self.post(now, owner, ToPeer::Watch { part, connection: request.connection, max_bytes, slots });
        }
    }

    /// An owner told how much there is.
    pub(super) fn level_told(&mut self, now: Now, part: PartId, bytes: usize, failed: bool) {
        // What was told while the fetch was being given up.
        let Some(super::Part { request, place }) = self.splits().parts.get(&part).copied() else { return };
        let fetch = self.split_fetch(request).expect("only fetches have levels");
        fetch.parts[place].level = Some(bytes);
        fetch.parts[place].waits = true;
        fetch.hurried |= failed;
        self.consider_split_fetch(now, request);
    }

    /// The client waits no longer. Says whether the request is such a fetch.
    pub(crate) fn hurry_split_fetch(&mut self, now: Now, request: ReplyTo) -> bool {
        if self.splits.is_none() {
            return false;
        }
        let Some(fetch) = self.split_fetch(request) else { return false };
        fetch.hurried = true;
        self.consider_split_fetch(now, request);
        true
    }

    /// One fetch of a connection waits at a time.
    pub(crate) fn hurry_split_fetches_of(&mut self, now: Now, connection: ConnectionId) {
        let Some(splits) = &self.splits else { return };
        let waiting =
            |(request, split): (&ReplyTo, &super::Split)| matches!(split.how, How::Fetch(_)).then_some(*request);
        let requests: Vec<ReplyTo> = splits.of(connection).filter_map(waiting).collect();
        for request in requests {
            self.hurry_split_fetch(now, request);
        }
    }

    fn split_fetch(&mut self, request: ReplyTo) -> Option<&mut SplitFetch> {
        match &mut self.splits().requests.get_mut(&request)?.how {
            How::Fetch(fetch) => Some(fetch),
            How::Whole | How::Join { .. } | How::Produce(_) => None,
        }
    }

    /// Reads if there is enough, else lets those go on who told something.
    fn consider_split_fetch(&mut self, now: Now, request: ReplyTo) {
        let connection = request.connection;
        let ids: Vec<PartId> = self.splits().requests[&request].parts.iter().map(|(part, _)| *part).collect();
        let fetch = self.split_fetch(request).expect("the caller found it");
        let Some(suffices) = fetch.suffices().filter(|_| !fetch.collecting) else { return };
        fetch.collecting = suffices;
        let waits = !suffices && !std::mem::replace(&mut fetch.counted, true);
        let (shares, oversized) = fetch.shares();
        let mut mail = Vec::with_capacity(ids.len());
        for (place, (part, id)) in fetch.parts.iter_mut().zip(ids).enumerate() {
            if suffices && !part.ended {
                let (max_bytes, oversized) = (shares[place], place == oversized);
                mail.push((part.owner, ToPeer::Collect { part: id, connection, max_bytes, oversized }));
            } else if std::mem::take(&mut part.waits) && !part.ended {
                mail.push((part.owner, ToPeer::GoOn { part: id, connection }));
            }
        }
        self.counters.parked_fetches += u64::from(waits);
        for (owner, message) in mail {
            self.post(now, owner, message);
        }
    }

    /// An owner gave what it read.
    pub(super) fn part_fetched(&mut self, now: Now, part: PartId, fetched: Vec<Fetched>) {
        let bytes: usize = fetched.iter().filter_map(|one| one.result.as_ref().ok()).map(RecordSet::len).sum();
        self.splits().held += bytes;
        let (request, place, split) = self.splits().part_ended(part);
        let open = split.open;
        let How::Fetch(fetch) = &mut split.how else { unreachable!("only fetches have such parts") };
        fetch.parts[place].ended = true;
        fetch.held += bytes;
        for (at, fetched) in fetch.parts[place].slots.iter().zip(fetched) {
            fetch.slots[*at].fetched = Some(fetched);
        }
        if open > 0 {
            return;
        }
        let split = self.splits().requests.remove(&request).expect("just looked at");
        let How::Fetch(fetch) = split.how else { unreachable!("just looked at") };
        self.finish_split_fetch(now, *fetch);
    }

    /// The last part of a fetch ended without results.
    pub(super) fn end_dropped_fetch(&mut self, fetch: SplitFetch) {
        self.splits().held -= fetch.held;
        self.deadlines.clear(fetch.deadline);
        self.end(fetch.context.reply_to, Reply::Silent);
    }

    fn finish_split_fetch(&mut self, now: Now, fetch: SplitFetch) {
        self.splits().held -= fetch.held;
        self.deadlines.clear(fetch.deadline);
        let mut results = Vec::with_capacity(fetch.slots.len());
        for Slot { topic_at, index, partition, fetched } in fetch.slots {
            let Some(Fetched { result, bounds }) = fetched else {
                // Its connection went while others were being read.
                return self.end(fetch.context.reply_to, Reply::Silent);
            };
            results.push(SlotResult { topic_at, index, partition, bounds, result });
        }
        respond(self, now, fetch.context, (fetch.topics, fetch.session), results);
    }
}
