//! The owner's side of a fetch over several shards: a fetch that is parked like any other, tells its home how much there
//! is to read, and reads when it is told to.
//!
//! 1. It tells its level once when it begins, and afterwards only what the home has not heard, and only after the home
//!    has said to go on: one message at a time is under way, however many commits there are.
//! 2. It has no deadline of its own until it reads.

use super::fetch::{Fetched, WatchedSlot};
use super::{PartId, ToPeer};
use crate::handlers::RequestContext;
use crate::handlers::fetch::SessionUse;
use crate::shard::core::ShardCore;
use crate::shard::events::{ConnectionId, Now, ReplyTo};
use crate::shard::fetches::{FetchSlot, PendingFetch, SlotState};
use millrace_storage::ids::ShardIndex;

/// What a home has heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Watch {
    /// Bytes last told of, and whether something had failed; `None`: nothing yet.
    told: Option<(usize, bool)>,
    /// The home has not said to go on.
    unheard: bool,
}

impl ShardCore {
    /// Begins to watch.
    pub(super) fn watch(&mut self, now: Now, reply_to: ReplyTo, max_bytes: usize, asked: Vec<WatchedSlot>) {
        let slot = |asked: WatchedSlot| {
            let WatchedSlot { partition, from, max_bytes, current_epoch } = asked;
            let led = self.leading(partition, current_epoch);
            let state = led.map_or_else(SlotState::Failed, |_| SlotState::Idle);
            let partition = Some(partition);
            FetchSlot { topic_at: 0, index: 0, from, max_bytes, current_epoch, partition, state }
        };
        let slots: Vec<FetchSlot> = asked.into_iter().map(slot).collect();
        let context = RequestContext { reply_to, version: 0, correlation_id: 0 };
        let first = self.fetches.rotate() % slots.len();
        let mut fetch = PendingFetch::parked(context, Vec::new(), SessionUse::None, slots, first);
        fetch.max_bytes = max_bytes;
        fetch.watch = Some(Watch::default());
        self.park(&fetch);
        self.tell_level(now, fetch);
    }

    /// The home has heard what was told.
    pub(super) fn go_on_watching(&mut self, now: Now, reply_to: ReplyTo) {
        let Some(mut fetch) = self.take_parked(reply_to) else { return };
        fetch.watch.as_mut().expect("only what is watched comes from elsewhere").unheard = false;
        // A log that was lost and came back meanwhile has forgotten it.
        self.park(&fetch);
        self.tell_level(now, fetch);
    }

    /// Looks how much there is, tells it if that is news, and waits on.
    pub(crate) fn tell_level(&mut self, now: Now, mut fetch: PendingFetch) {
        let reply_to = fetch.context.reply_to;
        let watch = fetch.watch.expect("the caller knows that it is watched");
        let mut news = None;
        if !watch.unheard {
            let planned = self.plan_fetch(&mut fetch);
            let level = (planned.bytes, planned.failed);
            news = (watch.told != Some(level)).then_some(level);
        }
        if let Some((bytes, failed)) = news {
            fetch.watch = Some(Watch { told: news, unheard: true });
            self.fetches.by_request.insert(reply_to, fetch);
            let (home, part) = home_of(reply_to);
            return self.post(now, home, ToPeer::Level { part, bytes, failed });
        }
        self.fetches.by_request.insert(reply_to, fetch);
    }

    /// Reads as much as the home allows.
    pub(super) fn collect_watched(&mut self, now: Now, reply_to: ReplyTo, max_bytes: usize, oversized: bool) {
        let Some(mut fetch) = self.take_parked(reply_to) else { return };
        (fetch.max_bytes, fetch.oversized, fetch.watch) = (max_bytes, oversized, None);
        self.plan_fetch(&mut fetch);
        self.gather(now, fetch);
    }

    /// Gives the home what was read.
    pub(crate) fn give_fetched(&mut self, now: Now, reply_to: ReplyTo, slots: &[FetchSlot]) {
        let slots = slots.iter().map(|slot| {
            let result = self.slot_result(slot);
            Fetched { result, bounds: self.bounds_of(slot.partition) }
        });
        let slots = slots.collect();
        let (home, part) = home_of(reply_to);
        self.post(now, home, ToPeer::Fetched { part, slots });
    }

    /// What waits for a connection that has gone waits no longer.
    pub(crate) fn drop_waiting_of(&mut self, connection: ConnectionId) {
        self.drop_fetches_of(connection);
        self.drop_lookups_of(connection);
        self.drop_deletions_of(connection);
        self.drop_stored_bytes_of(connection);
    }
}

/// Where a part's answers go.
fn home_of(reply_to: ReplyTo) -> (ShardIndex, PartId) {
    let home = reply_to.connection.home().expect("parts come from a home");
    (home, PartId(reply_to.request.0))
}
