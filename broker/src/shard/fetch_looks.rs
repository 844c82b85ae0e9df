//! Fetches beyond a log's end, by clients that name no leader epoch, where other processes may be put in this one's place:
//! the client may have read up to there from whoever was. It begins anew by its reset policy when it is told
//! OFFSET_OUT_OF_RANGE, so it is told so only once the lane has looked (PROTOCOL.md section 5).
//!
//! 1. One question to the lane is under way at a time. It is asked after all fetches came that its answer is for.
//! 2. A fetch waits for one look, [`LOOK_PATIENCE`] at most, and is answered NOT_LEADER_OR_FOLLOWER where that says
//!    nothing.

use super::core::ShardCore;
use super::deadlines::Due;
use super::events::{Effect, Now, ReplyTo};
use super::fetches::{FetchSlot, PendingFetch, Phase, SlotState};
use crate::handlers::errors::PartitionError;
use millrace_storage::lane::ToLane;
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a fetch waits for a look: longer than a store takes that is well.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// Fetches that wait for looks.
#[derive(Default)]
pub(crate) struct Looks {
    /// Whether a question is under way,
    asking: bool,
    /// the fetches that came before it,
    asked: BTreeSet<ReplyTo>,
    /// and those that came later and want another.
    next: BTreeSet<ReplyTo>,
}

impl ShardCore {
    /// Whether somebody else may have what a fetch asks for.
    pub(super) fn is_doubtful(&self, fetch: &PendingFetch) -> bool {
        self.is_among_others() && !fetch.looked && fetch.slots.iter().any(|slot| self.is_beyond(slot))
    }

    /// Whether the log had no such offset yet when the fetch was planned, and somebody else's may have. What is below the
    /// log's start stays so, whoever leads it.
    fn is_beyond(&self, slot: &FetchSlot) -> bool {
        let out_of_range = matches!(slot.state, SlotState::Failed(PartitionError::OutOfRange));
        let log = slot.partition.and_then(|partition| self.logs.get(&partition));
        out_of_range && slot.current_epoch < 0 && log.is_none_or(|log| slot.from >= log.log_start())
    }

    /// Has the lane look, and the fetch wait.
    pub(super) fn look_for(&mut self, now: Now, mut fetch: PendingFetch) {
        let request = fetch.context.reply_to;
        self.clear_deadline(&fetch);
        fetch.deadline = Some(self.deadlines.set(now.mono.plus(LOOK_PATIENCE), Due::Fetch(request)));
        fetch.phase = Phase::Looking;
        self.fetches.by_request.insert(request, fetch);
        self.fetches.looks.next.insert(request);
        self.ask_to_look();
    }

    fn ask_to_look(&mut self) {
        let looks = &mut self.fetches.looks;
        if !looks.asking && !looks.next.is_empty() {
            looks.asking = true;
            looks.asked = std::mem::take(&mut looks.next);
            let generation = self.generation();
            self.effects.push(Effect::ToLane(ToLane::Look { generation }));
        }
    }

    /// The lane has looked: whether nobody else led its partitions when it was asked.
    pub(super) fn lane_looked(&mut self, now: Now, unfenced: bool) {
        let looks = &mut self.fetches.looks;
        looks.asking = false;
        for request in std::mem::take(&mut looks.asked) {
            self.end_look(now, request, unfenced);
        }
        self.ask_to_look();
    }

    /// The log had a fence: what was asked before is not answered.
    pub(super) fn forget_looks(&mut self, now: Now) {
        let Looks { asked, next, .. } = std::mem::take(&mut self.fetches.looks);
        asked.into_iter().chain(next).for_each(|request| self.end_look(now, request, false));
    }

    /// The patience of a fetch is over. Says whether it waited for a look.
    pub(super) fn give_up_look(&mut self, now: Now, request: ReplyTo) -> bool {
        let looks = &mut self.fetches.looks;
        let waited = looks.asked.remove(&request) || looks.next.remove(&request);
        if waited {
            self.end_look(now, request, false);
        }
        waited
    }

    fn end_look(&mut self, now: Now, request: ReplyTo, unfenced: bool) {
        let mut fetch = self.fetches.by_request.remove(&request).expect("who waits for a look is not answered yet");
        fetch.looked = true;
        for slot in fetch.slots.iter_mut().filter(|slot| self.is_beyond(slot)) {
            let log = slot.partition.and_then(|partition| self.logs.get(&partition));
            // Who drains may have handed over without a fence.
            let leads = unfenced && log.is_some_and(|log| !log.draining());
            slot.state = if leads { SlotState::Idle } else { SlotState::Failed(PartitionError::NotLeader) };
        }
        fetch.phase = Phase::Parked;
        self.plan_fetch(&mut fetch);
        self.gather(now, fetch);
    }
}
