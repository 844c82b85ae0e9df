//! ListOffsets requests that wait for lookups of records by timestamp.
//!
//! 1. A request leaves this table exactly when its reply is made: by its last lookup, at its deadline, or when its
//!    connection goes.
//! 2. At most [`UNDER_WAY`] searches go on at a time, and the bytes that they search stay within the budget, unless a
//!    single one exceeds it. Others wait, first come, first served; beyond [`WAITING`] lookups are refused.
//! 3. A search that nobody waits for any more keeps its place and its charge until it ends.

use super::core::ShardCore;
use super::deadlines::{DeadlineId, Due};
use super::events::{ConnectionId, Effect, LookupToken, Now, Reply, ReplyTo, RequestNumber};
use super::lookup::{Lookup, Source, Step};
use super::search::{Found, SearchError, Searched, Seek};
use crate::handlers::RequestContext;
use crate::handlers::errors::PartitionError;
use crate::handlers::list_offsets::set_result;
use millrace_protocol::messages::ListOffsetsResponse;
use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, VecDeque};
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

/// A search under way: whose it is, and what it is charged.
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
        let Charge { place, bytes } = self.lookups.searches.remove(&token).expect("only what was asked for ends");
        self.lookups.charged -= bytes;
        let pending = self.lookups.by_request.get_mut(&place.request);
        if let Some(LookupSlot { partition, lookup: Some(lookup), .. }) =
            pending.map(|pending| &mut pending.slots[place.slot])
        {
            let failed = match result {
                Ok(searched) => lookup.searched(searched).err(),
                Err(SearchError::Missing)
                    if self.logs.get(partition).is_none_or(|log| lookup.starts_over_without_them(log)) =>
                {
                    None
                }
                Err(error) => Some(error),
            };
            match failed {
                Some(error) => self.end_lookup(place, Err(error.into())),
                // In front: what has been begun is finished first.
                None => self.lookups.waiting.push_front(place),
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
                Ok(Step::Search(source, seek)) => {
                    let bytes = source.bytes();
                    let charged = self.lookups.charged;
                    if charged > 0 && charged + bytes > self.config().lookup_bytes {
                        return self.lookups.waiting.push_front(place);
                    }
                    self.start_search(place, source, seek);
                }
                Ok(Step::Done(found)) => self.end_lookup(place, Ok(found)),
                Err(error) => self.end_lookup(place, Err(error)),
            }
        }
    }

    fn step_of(&mut self, place: Place) -> Result<Step, PartitionError> {
        let pending = self.lookups.by_request.get(&place.request).expect("who waits is in the table");
        let slot = &pending.slots[place.slot];
        let (partition, epoch) = (slot.partition, slot.current_epoch);
        // The leadership may have ended meanwhile.
        self.leading(partition, epoch)?;
        let pending = self.lookups.by_request.get_mut(&place.request).expect("just looked at");
        let lookup = pending.slots[place.slot].lookup.as_mut().expect("who waits has no result");
        Ok(lookup.step(&self.logs[&partition]))
    }

    fn start_search(&mut self, place: Place, source: Source, seek: Seek) {
        let token = LookupToken(self.lookups.next_token);
        self.lookups.next_token += 1;
        let bytes = source.bytes();
        self.lookups.charged += bytes;
        self.lookups.searches.insert(token, Charge { place, bytes });
        self.counters.searches += 1;
        self.effects.push(Effect::Search { token, source, seek });
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
