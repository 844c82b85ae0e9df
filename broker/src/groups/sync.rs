//! SyncGroup: the leader's assignment is made durable, then everyone hears of it.

use super::coordinator::{Coordinator, Purpose};
use super::group::{Group, GroupState};
use super::{Answer, Caller, SyncAnswer, SyncRequest, Ticket};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;

impl SyncAnswer {
    /// An answer without an assignment.
    pub(super) fn failed(error: ErrorCode) -> SyncAnswer {
        SyncAnswer { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

impl Group {
    /// Whether the caller is a member, and the one that its instance names.
    pub(super) fn check_member(&self, caller: &Caller) -> Result<(), ErrorCode> {
        if let Some(instance) = &caller.instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(id) if *id != caller.member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(&caller.member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// As [`Group::check_member`], at the present generation.
    pub(super) fn check_generation(&self, caller: &Caller) -> Result<(), ErrorCode> {
        self.check_member(caller)?;
        if caller.generation == self.generation { Ok(()) } else { Err(ErrorCode::IllegalGeneration) }
    }
}

impl Coordinator {
    /// A member asks for its part of the generation's assignment; the leader brings it.
    pub fn sync(&mut self, now: Mono, ticket: Ticket, request: SyncRequest) {
        let name = request.group.clone();
        if let Some(slot) = self.slot_of_consumers(now, &name) {
            return self.sync_consumers(now, slot, ticket, &request);
        }
        let slot = match self.check_sync(&request) {
            Ok(slot) => slot,
            Err(error) => return self.answer(ticket, Answer::Sync(SyncAnswer::failed(error))),
        };
        let (limit, room) = (self.limits.member_bytes, self.room());
        let group = self.group_mut(slot, &name).expect("checked above");
        let leads = group.is_leader(&request.caller.member);
        let state = group.state;
        let member = group.members.get_mut(&request.caller.member).expect("checked above");
        member.expires = now.plus(member.session_timeout);
        match state {
            GroupState::Empty => unreachable!("an empty group has no member that passes the checks"),
            GroupState::PreparingRebalance => {
                self.answer(ticket, Answer::Sync(SyncAnswer::failed(ErrorCode::RebalanceInProgress)));
            }
            GroupState::Stable => {
                let answer = self.sync_answer(slot, &name, &request.caller.member);
                self.answer(ticket, Answer::Sync(answer));
            }
            GroupState::CompletingRebalance => {
                if let Some(earlier) = member.syncing.replace(ticket) {
                    self.answer(earlier, Answer::Sync(SyncAnswer::failed(ErrorCode::UnknownMemberId)));
                }
                let mut parts = request.assignments.iter().map(|(_, part)| part.len());
                let total: usize = parts.clone().sum();
                if leads && (total > room || parts.any(|part| part > limit)) {
                    self.fail_generation(now, slot, &name, ErrorCode::GroupMaxSizeReached);
                } else if leads {
                    self.store_assignment(slot, &name, request.assignments);
                }
            }
        }
        self.reschedule(slot, &name);
    }

    fn check_sync(&mut self, request: &SyncRequest) -> Result<u16, ErrorCode> {
        let slot = self.slot_for(&request.group)?;
        let group = self.group_mut(slot, &request.group).ok_or(ErrorCode::UnknownMemberId)?;
        group.check_generation(&request.caller)?;
        let differs = |said: &Option<String>, own: &Option<String>| said.is_some() && said != own;
        if differs(&request.protocol_type, &group.protocol_type) || differs(&request.protocol, &group.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if !request.assignments.is_empty() && self.is_behind() {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        Ok(slot)
    }

    fn store_assignment(&mut self, slot: u16, name: &str, mut assignments: Vec<(String, Bytes)>) {
        let group = self.group_mut(slot, name).expect("checked by the caller");
        // The leader sent its assignment again while the first is being stored: one write is enough.
        if std::mem::replace(&mut group.storing, true) {
            return;
        }
        for (id, member) in &mut group.members {
            // The last counts of what one member is given several times, as in Kafka.
            let part = assignments.iter_mut().rev().find(|(to, _)| to == id);
            member.proposed = Some(part.map(|(_, part)| std::mem::take(part)).unwrap_or_default());
        }
        let generation = group.generation;
        self.write_group(slot, name, Purpose::Assignment { group: name.to_owned(), generation });
    }

    /// The assignment is durable: the group is stable. Or it is not: everyone joins again.
    pub(super) fn on_assignment_written(
        &mut self,
        now: Mono,
        slot: u16,
        name: &str,
        generation: i32,
        result: Result<(), ErrorCode>,
    ) {
        let Some(group) = self.group_mut(slot, name) else { return };
        // A rebalance began while the write was under way: its waiters are answered already.
        if group.state != GroupState::CompletingRebalance || group.generation != generation {
            return;
        }
        group.storing = false;
        match result {
            Err(error) => self.fail_generation(now, slot, name, error),
            Ok(()) => {
                group.state = GroupState::Stable;
                for member in group.members.values_mut() {
                    member.assignment = member.proposed.take().unwrap_or_default();
                }
                let waiting: Vec<_> = group
                    .members
                    .iter_mut()
                    .filter_map(|(id, member)| {
                        let ticket = member.syncing.take()?;
                        member.expires = now.plus(member.session_timeout);
                        Some((id.clone(), ticket))
                    })
                    .collect();
                for (id, ticket) in waiting {
                    let answer = self.sync_answer(slot, name, &id);
                    self.answer(ticket, Answer::Sync(answer));
                }
            }
        }
        self.reschedule(slot, name);
    }

    /// Nobody gets an assignment of this generation.
    fn fail_generation(&mut self, now: Mono, slot: u16, name: &str, error: ErrorCode) {
        let group = self.group_mut(slot, name).expect("checked by the caller");
        let waiting: Vec<Ticket> = group.members.values_mut().filter_map(|m| m.syncing.take()).collect();
        for ticket in waiting {
            self.answer(ticket, Answer::Sync(SyncAnswer::failed(error)));
        }
        self.prepare_rebalance(now, slot, name);
    }

    fn sync_answer(&mut self, slot: u16, name: &str, id: &str) -> SyncAnswer {
        let group = self.group_mut(slot, name).expect("asked for a member");
        SyncAnswer {
            error: ErrorCode::None,
            protocol_type: group.protocol_type.clone(),
            protocol: group.protocol.clone(),
            assignment: group.members[id].assignment.clone(),
        }
    }
}
