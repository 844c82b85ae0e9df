//! ListOffsets requests that wait for lookups of records by timestamp.
//!
//! 1. A request leaves this table exactly when its reply is made: by its last lookup, at its deadline, or when its
//!    connection goes.
//! 2. At most [`UNDER_WAY`] searches go on at a time, reads of manifests included, and the bytes that they search stay
//!    within the budget, unless a single one exceeds it. Others wait, first come, first served; beyond [`WAITING`] lookups
//!    are refused.
//! 3. A search that nobody waits for any more keeps its place and its charge until it ends.

use super::core::ShardCore;
use super::deadlines::{DeadlineId, Due};
use super::events::{ConnectionId, Effect, LookupToken, Now, Reply, ReplyTo, RequestNumber};
use super::lookup::{Lookup, Step};
use super::partition_log::PartitionLog;
use super::search::{Found, SearchError, Searched};
use crate::cold::reader::ColdError;
use crate::handlers::RequestContext;
use crate::handlers::errors::PartitionError;
use crate::handlers::list_offsets::set_result;
use millrace_protocol::messages::ListOffsetsResponse;
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// Searches at a time: a few reads of the store side by side, and a fraction of the threads that they compute on.
pub(crate) const UNDER_WAY: usize = 8;
/// Lookups that wait for their turn: as many as a process has partitions by default.
pub(crate) const WAITING: usize = 10_000;

/// A ListOffsets request that needs lookups.
pub(crate) struct NewLookups {
    /// How to answer.
    pub(crate) context: RequestContext,
    /// The answer, but for what is looked up.
    pub(crate) response: ListOffsetsResponse,
    /// What is looked up, at least one.
    pub(crate) slots: Vec<LookupSlot>,
    /// Answer without what was not found by then.
    pub(crate) patience: Duration,
}

/// One partition of a request.
pub(crate) struct LookupSlot {
    /// Which partition.
    pub(crate) partition: TopicPartition,
    /// Leader epoch that the client believes in, −1 if it does not say.
    pub(crate) current_epoch: i32,
    /// Index into the response's topics.
    pub(crate) topic_at: usize,
    /// Index into that topic's partitions.
    pub(crate) partition_at: usize,
    /// How far it is; `None` once that is in the response.
    pub(crate) lookup: Option<Lookup>,
}

struct Pending {
    context: RequestContext,
    response: ListOffsetsResponse,
    slots: Vec<LookupSlot>,
    /// Slots without a result.
    open: usize,
    deadline: DeadlineId,
}

/// A slot of a request.
#[derive(Clone, Copy, Debug)]
struct Place {
    request: ReplyTo,
    slot: usize,
}

/// A search or a read of a manifest under way: whose it is, and what it is charged.
#[derive(Clone, Copy, Debug)]
struct Charge {
    place: Place,
    bytes: usize,
}

/// The lookups of one shard.
#[derive(Default)]
pub(crate) struct Lookups {
    by_request: BTreeMap<ReplyTo, Pending>,
    /// Slots whose next step waits for its turn. Some may be of requests that have been answered.
    waiting: VecDeque<Place>,
    searches: BTreeMap<LookupToken, Charge>,
    next_token: u64,
    charged: usize,
}

impl Lookups {
    /// Bytes being searched.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// How many more lookups may wait.
    pub(crate) fn room(&self) -> usize {
        WAITING.saturating_sub(self.waiting.len())
    }
}

impl ShardCore {
    /// Looks up what the request asks for, then answers.
    pub(crate) fn start_lookups(&mut self, now: Now, new: NewLookups) {
        let request = new.context.reply_to;
        let deadline = self.deadlines.set(now.mono.plus(new.patience), Due::Lookups(request));
        let open = new.slots.len();
        self.lookups.waiting.extend((0..open).map(|slot| Place { request, slot }));
        let pending = Pending { context: new.context, response: new.response, slots: new.slots, open, deadline };
        self.lookups.by_request.insert(request, pending);
        self.go_on_looking();
    }

    /// A search ended.
    pub(crate) fn searched(&mut self, token: LookupToken, result: Result<Searched, SearchError>) {
        self.end_step(token, |lookup, log| match result {
            Ok(searched) => lookup.searched(searched),
            Err(SearchError::Missing) if log.is_none_or(|log| lookup.starts_over_without_them(log)) => Ok(()),
            Err(error) => Err(error),
        });
    }

    /// A manifest asked for by [`Effect::FindSegments`] was read.
    pub fn on_segments(&mut self, _now: Now, token: LookupToken, result: Result<Rc<Manifest>, ColdError>) {
        self.end_step(token, |lookup, _| lookup.learned(result?));
    }

    /// What a lookup asked for has ended; `learn` tells it.
    fn end_step(
        &mut self,
        token: LookupToken,
        learn: impl FnOnce(&mut Lookup, Option<&PartitionLog>) -> Result<(), SearchError>,
    ) {
        let Charge { place, bytes } = self.lookups.searches.remove(&token).expect("only what was asked for ends");
        self.lookups.charged -= bytes;
        let pending = self.lookups.by_request.get_mut(&place.request);
        if let Some(LookupSlot { partition, lookup: Some(lookup), .. }) =
            pending.map(|pending| &mut pending.slots[place.slot])
        {
            let log = self.logs.get_mut(partition);
            match learn(lookup, log.as_deref()) {
                // In front: what has been begun is finished first.
                Ok(()) => self.lookups.waiting.push_front(place),
                Err(error) => {
                    if matches!(error, SearchError::Missing) && log.is_some_and(PartitionLog::raise_alarm) {
                        tracing::error!(%partition, %error, "records that must be in the store can't be searched");
                    }
                    self.end_lookup(place, Err(error.into()));
                }
            }
        }
        self.go_on_looking();
    }

    /// The request waits no longer: what was not found is not told.
    pub(crate) fn time_out_lookups(&mut self, request: ReplyTo) {
        let open = |slot: &(usize, &LookupSlot)| slot.1.lookup.is_some();
        let pending = self.lookups.by_request.get(&request).expect("the deadline goes with the request");
        let left: Vec<usize> = pending.slots.iter().enumerate().filter(open).map(|(slot, _)| slot).collect();
        for slot in left {
            self.end_lookup(Place { request, slot }, Err(PartitionError::TimedOut));
        }
        self.lookups.waiting.retain(|place| place.request != request);
    }

    /// The requests of a connection that is gone end, with replies that nobody sends.
    pub(crate) fn drop_lookups_of(&mut self, connection: ConnectionId) {
        let of = |request| ReplyTo { connection, request: RequestNumber(request) };
        let requests: Vec<ReplyTo> =
            self.lookups.by_request.range(of(0)..=of(u64::MAX)).map(|(request, _)| *request).collect();
        for request in requests {
            let pending = self.lookups.by_request.remove(&request).expect("listed just now");
            self.lookups.waiting.retain(|place| place.request != request);
            self.deadlines.clear(pending.deadline);
            self.end(request, Reply::Silent);
        }
    }

    /// Takes the next steps of those who wait, as far as they may go on.
    fn go_on_looking(&mut self) {
        while self.lookups.searches.len() < UNDER_WAY
            && let Some(place) = self.lookups.waiting.pop_front()
        {
            match self.step_of(place) {
                Ok(Step::Manifest(stale)) => {
                    let token = self.take_place(place, 0);
                    let partition = self.slot_of(place).partition;
                    self.effects.push(Effect::FindSegments { token, partition, stale });
                }
                Ok(Step::Search(source, seek)) => {
                    let bytes = source.bytes(self.config().block_bytes);
                    let charged = self.lookups.charged;
                    if charged > 0 && charged + bytes > self.config().lookup_bytes {
                        return self.lookups.waiting.push_front(place);
                    }
                    let token = self.take_place(place, bytes);
                    self.counters.searches += 1;
                    self.effects.push(Effect::Search { token, source, seek });
                }
                Ok(Step::Done(found)) => self.end_lookup(place, Ok(found)),
                Err(error) => self.end_lookup(place, Err(error)),
            }
        }
    }

    fn step_of(&mut self, place: Place) -> Result<Step, PartitionError> {
        let slot = self.slot_of(place);
        let (partition, epoch) = (slot.partition, slot.current_epoch);
        // The leadership may have ended meanwhile.
        self.leading(partition, epoch)?;
        let pending = self.lookups.by_request.get_mut(&place.request).expect("just looked at");
        let lookup = pending.slots[place.slot].lookup.as_mut().expect("who waits has no result");
        Ok(lookup.step(&self.logs[&partition]))
    }

    fn slot_of(&self, place: Place) -> &LookupSlot {
        &self.lookups.by_request.get(&place.request).expect("who waits is in the table").slots[place.slot]
    }

    /// Something is under way for a lookup.
    fn take_place(&mut self, place: Place, bytes: usize) -> LookupToken {
        let token = LookupToken(self.lookups.next_token);
        self.lookups.next_token += 1;
        self.lookups.charged += bytes;
        self.lookups.searches.insert(token, Charge { place, bytes });
        token
    }

    /// A lookup has its result; the request is answered with the last one.
    fn end_lookup(&mut self, place: Place, result: Result<Option<Found>, PartitionError>) {
        let pending = self.lookups.by_request.get_mut(&place.request).expect("it has a lookup without a result");
        let slot = &mut pending.slots[place.slot];
        slot.lookup = None;
        set_result(
            &mut pending.response.topics[slot.topic_at].partitions[slot.partition_at],
            pending.context.version,
            result,
        );
        pending.open -= 1;
        if pending.open == 0 {
            let pending = self.lookups.by_request.remove(&place.request).expect("just looked at");
            self.deadlines.clear(pending.deadline);
            pending.context.reply(self, &pending.response);
        }
    }
}
