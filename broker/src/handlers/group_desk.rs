//! Between the group APIs and the coordinator: tickets out, answers back, writes by way of the control task.
//!
//! 1. Every request that the coordinator holds has an entry here; its answer takes it out.

use super::{
    RequestContext, consumer_group_heartbeat, delete_groups, heartbeat, join_group, leave_group, offset_commit,
    offset_delete, sync_group,
};
use crate::control::{ToControl, Token};
use crate::groups::{Answer, Coordinator, Leaver, Limits, Output, Ticket, WriteToken};
use crate::shard::core::ShardCore;
use crate::shard::events::{Effect, Now};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::meta::Key;
use std::collections::BTreeMap;

/// A request that the coordinator holds.
#[derive(Debug)]
pub(crate) enum Held {
    /// JoinGroup.
    Join(RequestContext),
    /// SyncGroup.
    Sync(RequestContext),
    /// ConsumerGroupHeartbeat.
    ConsumerHeartbeat(RequestContext),
    /// Heartbeat.
    Heartbeat(RequestContext),
    /// LeaveGroup, and whom it named.
    Leave(RequestContext, Vec<Leaver>),
    /// OffsetCommit, and what to answer for each partition.
    Commit(RequestContext, offset_commit::Asked),
    /// OffsetDelete, and what to answer for each partition.
    DeleteOffsets(RequestContext, offset_delete::Asked),
    /// One group of a DeleteGroups.
    Delete(delete_groups::Part),
}

/// The coordinator of this shard and the requests that it holds.
#[derive(Debug)]
pub(crate) struct GroupDesk {
    pub(crate) coordinator: Coordinator,
    held: BTreeMap<Ticket, Held>,
    next_ticket: u64,
    writes: BTreeMap<Token, WriteToken>,
    pub(crate) deletions: delete_groups::Deletions,
}

impl GroupDesk {
    /// A desk whose groups may take `bytes`.
    pub(crate) fn new(boot: u64, bytes: usize) -> GroupDesk {
        GroupDesk {
            coordinator: Coordinator::new(Limits { bytes, ..Limits::default() }, boot),
            held: BTreeMap::new(),
            next_ticket: 0,
            writes: BTreeMap::new(),
            deletions: delete_groups::Deletions::default(),
        }
    }

    /// Holds a request; its answer finds it by the ticket.
    pub(crate) fn hold(&mut self, held: Held) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.held.insert(ticket, held);
        ticket
    }
}

impl ShardCore {
    /// Carries out what the coordinator decided. To be called after everything that it was told.
    pub(crate) fn settle_groups(&mut self) {
        let mut outputs = Vec::new();
        self.groups.coordinator.take_outputs(&mut outputs);
        for output in outputs {
            match output {
                Output::Answer(ticket, answer) => {
                    let held = self.groups.held.remove(&ticket).expect("a ticket is answered once");
                    self.answer_held(held, answer);
                }
                Output::Write { token, slot, slot_epoch, writes } => {
                    let question = self.questions.token();
                    self.groups.writes.insert(question, token);
                    let persist = ToControl::Persist { token: question, slot, slot_epoch, writes };
                    self.effects.push(Effect::ToControl(persist));
                }
            }
        }
    }

    fn answer_held(&mut self, held: Held, answer: Answer) {
        match (held, answer) {
            (Held::Join(context), Answer::Join(answer)) => join_group::reply(self, context, answer),
            (Held::Sync(context), Answer::Sync(answer)) => sync_group::reply(self, context, answer),
            (Held::Heartbeat(context), Answer::Code(code)) => heartbeat::reply(self, context, code),
            (Held::ConsumerHeartbeat(context), Answer::ConsumerHeartbeat(answer)) => {
                consumer_group_heartbeat::reply(self, context, answer);
            }
            (Held::Leave(context, leavers), Answer::Leave(codes)) => {
                leave_group::reply(self, context, &leavers, ErrorCode::None, &codes);
            }
            (Held::Leave(context, leavers), Answer::Code(code)) => {
                leave_group::reply(self, context, &leavers, code, &[]);
            }
            (Held::Commit(context, asked), Answer::Code(code)) => offset_commit::reply(self, context, asked, code),
            (Held::DeleteOffsets(context, asked), Answer::Code(code)) => {
                offset_delete::reply(self, context, asked, code);
            }
            (Held::Delete(part), Answer::Code(code)) => delete_groups::part_done(self, part, code),
            (held, answer) => unreachable!("{held:?} is not answered by {answer:?}"),
        }
    }

    /// A coordinator's write became durable, or not.
    pub(crate) fn group_written(&mut self, now: Now, token: Token, result: Result<(), ErrorCode>) {
        let write = self.groups.writes.remove(&token).expect("the control task answers each question once");
        self.groups.coordinator.on_written(now.mono, write, result);
        self.settle_groups();
    }

    /// This shard coordinates the slot from now on.
    pub(crate) fn slot_granted(
        &mut self,
        now: Now,
        slot: u16,
        epoch: u64,
        groups: &[(Key, Bytes)],
        offsets: &[(Key, Bytes)],
    ) {
        self.groups.coordinator.on_clock(now.mono, now.wall);
        if let Err(error) = self.groups.coordinator.on_slot_granted(now.mono, slot, epoch, groups, offsets) {
            tracing::error!(slot, %error, "the groups of this slot are not served: look at the record, or delete it");
        }
        self.settle_groups();
    }

    /// This shard no longer coordinates the slot.
    pub(crate) fn slot_revoked(&mut self, slot: u16) {
        self.groups.coordinator.on_slot_revoked(slot);
        self.settle_groups();
        if self.is_among_others() {
            self.effects.push(Effect::ToControl(ToControl::SlotLeft { slot }));
        }
    }

    /// Sessions and rebalances that ran out.
    pub(crate) fn groups_on_time(&mut self, now: Now) {
        self.groups.coordinator.on_clock(now.mono, now.wall);
        self.groups.coordinator.on_time(now.mono);
        self.settle_groups();
    }
}
