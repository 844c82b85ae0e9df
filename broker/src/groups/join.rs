//! JoinGroup and the rebalance that it leads to.

use super::coordinator::{Coordinator, Purpose};
use super::group::{GroupState, Member, Rebalance};
use super::{Answer, JoinAnswer, JoinRequest, NEW_MEMBER_JOIN_TIMEOUT, SyncAnswer, Ticket};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use std::time::Duration;

/// The least time between two looks whether static members are back.
const ABSENT_STATICS_WAIT: Duration = Duration::from_secs(1);

/// Where a join stands after the checks.
pub(super) enum Entry {
    /// Nobody has this id yet: a new member under it.
    New(String),
    /// A static member that lost its id: it replaces this one.
    Replace(String),
    /// A member that is in the group.
    Known(String),
    /// It shall come back with this id.
    ComeBack(String),
}

impl JoinAnswer {
    /// An answer that lets nobody in.
    pub(super) fn failed(error: ErrorCode, member: String) -> JoinAnswer {
        JoinAnswer {
            error,
            member,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

impl Coordinator {
    /// A member asks to be in the group's next generation (or, unchanged, to hear of the present one).
    pub fn join(&mut self, now: Mono, ticket: Ticket, request: JoinRequest) {
        let slot = match self.slot_for(&request.group) {
            Ok(slot) => slot,
            Err(error) => return self.refuse_join(ticket, error, request.member),
        };
        if let Err(error) = self.check_session(&request) {
            return self.refuse_join(ticket, error, request.member);
        }
        self.settle_protocol(now, slot, &request.group);
        if self.group_mut(slot, &request.group).is_some_and(|group| group.has_consumers()) {
            return self.join_consumers(now, slot, ticket, &request);
        }
        let entry = self.check_join(slot, &request);
        let entry = entry.and_then(|entry| self.check_room(slot, &request, &entry).map(|()| entry));
        match entry {
            Err(error) => self.refuse_join(ticket, error, request.member),
            Ok(Entry::ComeBack(id)) => {
                let until = now.plus(request.session_timeout);
                let group = self.group_mut(slot, &request.group).expect("checked above");
                group.pending.insert(id.clone(), until);
                self.refuse_join(ticket, ErrorCode::MemberIdRequired, id);
            }
            Ok(Entry::New(id)) => {
                let group = self.group_mut(slot, &request.group).expect("checked above");
                group.pending.remove(&id);
                if let Some(instance) = &request.instance {
                    group.statics.insert(instance.clone(), id.clone());
                }
                group.leader.get_or_insert_with(|| id.clone());
                group.protocol_type.get_or_insert_with(|| request.protocol_type.clone());
                group.new_member_came = true;
                group.members.insert(id.clone(), new_member(now, ticket, &request));
                self.prepare_rebalance(now, slot, &request.group);
            }
            Ok(Entry::Replace(old)) => self.replace_static(now, slot, ticket, &old, &request),
            Ok(Entry::Known(id)) => self.rejoin(now, slot, ticket, &id, request.clone()),
        }
        self.reschedule(slot, &request.group);
    }

    pub(super) fn refuse_join(&mut self, ticket: Ticket, error: ErrorCode, member: String) {
        self.answer(ticket, Answer::Join(JoinAnswer::failed(error, member)));
    }

    /// What is wrong with a join whatever the group is.
    fn check_session(&self, request: &JoinRequest) -> Result<(), ErrorCode> {
        let limits = self.limits;
        if !(limits.min_session..=limits.max_session).contains(&request.session_timeout) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let metadata: usize = request.protocols.iter().map(|p| p.name.len() + p.metadata.len()).sum();
        if metadata > limits.member_bytes { Err(ErrorCode::GroupMaxSizeReached) } else { Ok(()) }
    }

    fn check_join(&mut self, slot: u16, request: &JoinRequest) -> Result<Entry, ErrorCode> {
        let limits = self.limits;
        // The id is made first: the group is borrowed afterwards.
        let fresh = self.new_member_id(request.instance.as_ref().unwrap_or(&request.client_id));
        if !request.member.is_empty() && self.group_mut(slot, &request.group).is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.group_or_new(slot, &request.group)?;
        self.leave_consumer_protocol(slot, &request.group);
        let group = self.group_mut(slot, &request.group).expect("made above");
        if request.member.is_empty() {
            let replaced = request.instance.as_ref().and_then(|i| group.statics.get(i)).cloned();
            if replaced.is_none() && group.is_full(&limits) {
                return Err(ErrorCode::GroupMaxSizeReached);
            }
            if !group.accepts(&request.protocol_type, &request.protocols, replaced.as_deref()) {
                return Err(ErrorCode::InconsistentGroupProtocol);
            }
            return Ok(match replaced {
                Some(old) => Entry::Replace(old),
                None if request.instance.is_none() && request.require_known_member => Entry::ComeBack(fresh),
                None => Entry::New(fresh),
            });
        }
        if let Some(instance) = &request.instance {
            match group.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(id) if *id != request.member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if !group.accepts(&request.protocol_type, &request.protocols, Some(&request.member)) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if group.pending.contains_key(&request.member) {
            return Ok(Entry::New(request.member.clone()));
        }
        if group.members.contains_key(&request.member) {
            return Ok(Entry::Known(request.member.clone()));
        }
        Err(ErrorCode::UnknownMemberId)
    }

    /// A member of the group joins again.
    fn rejoin(&mut self, now: Mono, slot: u16, ticket: Ticket, id: &str, request: JoinRequest) {
        let group = self.group_mut(slot, &request.group).expect("checked by the caller");
        let (state, leads) = (group.state, group.is_leader(id));
        let member = group.members.get_mut(id).expect("checked by the caller");
        let unchanged = member.protocols == request.protocols;
        let stays = match state {
            GroupState::CompletingRebalance => unchanged,
            // A leader that joins again wants the assignment made anew.
            GroupState::Stable => unchanged && !leads,
            GroupState::PreparingRebalance | GroupState::Empty => false,
        };
        if stays {
            member.expires = now.plus(member.session_timeout);
            let answer = self.join_answer(slot, &request.group, id);
            return self.answer(ticket, Answer::Join(answer));
        }
        member.protocols = request.protocols;
        member.session_timeout = request.session_timeout;
        member.rebalance_timeout = request.rebalance_timeout;
        member.client_id = request.client_id;
        member.client_host = request.client_host;
        // The client gave up on the earlier request: it reads this as the end of a broken connection.
        if let Some(earlier) = member.joining.replace(ticket) {
            self.refuse_join(earlier, ErrorCode::UnknownMemberId, id.to_owned());
        }
        self.prepare_rebalance(now, slot, &request.group);
    }

    /// A static member came back without its id (KIP-345): it goes on in the place of its old self, which is fenced.
    fn replace_static(&mut self, now: Mono, slot: u16, ticket: Ticket, old: &str, request: &JoinRequest) {
        let instance = request.instance.as_deref().expect("only static members are replaced");
        let id = self.new_member_id(instance);
        let group = self.group_mut(slot, &request.group).expect("checked by the caller");
        let led = group.is_leader(old);
        let before = group.members.remove(old).expect("the instance names a member");
        let mut member = new_member(now, ticket, request);
        member.assignment = before.assignment.clone();
        member.is_new = false;
        let same_subscription = before.protocols == member.protocols;
        group.members.insert(id.clone(), member);
        group.statics.insert(instance.to_owned(), id.clone());
        if led {
            group.leader = Some(id.clone());
        }
        let undisturbed =
            group.state == GroupState::Stable && same_subscription && group.choose_protocol() == group.protocol;
        if undisturbed {
            group.members.get_mut(&id).expect("inserted above").joining = None;
        }
        if let Some(waiting) = before.joining {
            self.refuse_join(waiting, ErrorCode::FencedInstanceId, old.to_owned());
        }
        if let Some(waiting) = before.syncing {
            self.answer(waiting, Answer::Sync(SyncAnswer::failed(ErrorCode::FencedInstanceId)));
        }
        if !undisturbed {
            return self.prepare_rebalance(now, slot, &request.group);
        }
        let mut answer = self.join_answer(slot, &request.group, &id);
        if led && request.can_skip_assignment {
            answer.skip_assignment = true;
        } else if led {
            // An older client would assign anew if it heard that it leads: it is told its old id as the leader's.
            answer.leader = old.to_owned();
            answer.members = Vec::new();
        }
        self.write_group(slot, &request.group, Purpose::Replacement { ticket, answer, group: request.group.clone() });
    }

    /// What a member of the present generation is told.
    fn join_answer(&mut self, slot: u16, name: &str, id: &str) -> JoinAnswer {
        let group = self.group_mut(slot, name).expect("asked for a member");
        JoinAnswer {
            error: ErrorCode::None,
            member: id.to_owned(),
            generation: group.generation,
            protocol_type: group.protocol_type.clone(),
            protocol: group.protocol.clone(),
            leader: group.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            members: if group.is_leader(id) { group.roster() } else { Vec::new() },
        }
    }

    /// Begins a rebalance, or sees whether the one under way can end.
    pub(super) fn prepare_rebalance(&mut self, now: Mono, slot: u16, name: &str) {
        let initial = self.limits.initial_rebalance_delay;
        let group = self.group_mut(slot, name).expect("rebalanced while it exists");
        let (was, timeout) = (group.state, group.rebalance_timeout());
        match was {
            GroupState::PreparingRebalance => {}
            GroupState::Empty if !initial.is_zero() => {
                let initial_left = Some(timeout.saturating_sub(initial));
                group.rebalance = Some(Rebalance { until: now.plus(initial), initial_left });
                group.new_member_came = false;
            }
            GroupState::Empty | GroupState::Stable | GroupState::CompletingRebalance => {
                group.rebalance = Some(Rebalance { until: now.plus(timeout), initial_left: None });
            }
        }
        group.state = GroupState::PreparingRebalance;
        group.sync_until = None;
        group.storing = false;
        if was == GroupState::CompletingRebalance {
            let waiting: Vec<Ticket> = group
                .members
                .values_mut()
                .filter_map(|member| {
                    member.proposed = None;
                    member.expires = now.plus(member.session_timeout);
                    member.syncing.take()
                })
                .collect();
            for ticket in waiting {
                self.answer(ticket, Answer::Sync(SyncAnswer::failed(ErrorCode::RebalanceInProgress)));
            }
        }
        self.try_complete_join(now, slot, name);
    }

    /// Begins the generation if everyone is there and no initial delay runs.
    pub(super) fn try_complete_join(&mut self, now: Mono, slot: u16, name: &str) {
        let group = self.group_mut(slot, name).expect("rebalanced while it exists");
        let delayed = group.rebalance.is_some_and(|r| r.initial_left.is_some());
        if group.state == GroupState::PreparingRebalance && !delayed && group.all_joined() {
            self.complete_join(now, slot, name);
        }
    }

    /// The time for joining is over: an initial delay is extended while members keep coming, else the generation
    /// begins.
    pub(super) fn on_rebalance_timeout(&mut self, now: Mono, slot: u16, name: &str) {
        let initial = self.limits.initial_rebalance_delay;
        let group = self.group_mut(slot, name).expect("its timer rang");
        if let Some(Rebalance { initial_left: Some(left), .. }) = group.rebalance
            && group.new_member_came
            && !left.is_zero()
        {
            let more = initial.min(left);
            group.new_member_came = false;
            group.rebalance = Some(Rebalance { until: now.plus(more), initial_left: Some(left - more) });
            return;
        }
        self.complete_join(now, slot, name);
    }

    /// Begins the next generation with those who joined.
    fn complete_join(&mut self, now: Mono, slot: u16, name: &str) {
        let wall_ms = self.wall_ms(now);
        let group = self.group_mut(slot, name).expect("rebalanced while it exists");
        let absent: Vec<String> = group
            .members
            .iter()
            .filter(|(_, m)| m.joining.is_none() && m.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in absent {
            group.remove(&id);
        }
        let leader_joined =
            group.leader.as_ref().and_then(|id| group.members.get(id)).is_some_and(|m| m.joining.is_some());
        if !leader_joined && !group.members.is_empty() {
            let Some(next) = group.members.iter().find(|(_, m)| m.joining.is_some()).map(|(id, _)| id.clone()) else {
                // Only static members, none of them back yet: go on waiting for them.
                let until = now.plus(group.rebalance_timeout().max(ABSENT_STATICS_WAIT));
                group.rebalance = Some(Rebalance { until, initial_left: None });
                return;
            };
            group.leader = Some(next);
        }
        group.rebalance = None;
        group.generation = group.generation.checked_add(1).unwrap_or(1);
        if group.members.is_empty() {
            group.state = GroupState::Empty;
            group.empty_since = Some(wall_ms);
            group.protocol = None;
            group.leader = None;
            return self.write_group(slot, name, Purpose::State);
        }
        group.protocol = group.choose_protocol();
        group.state = GroupState::CompletingRebalance;
        group.sync_until = Some(now.plus(group.rebalance_timeout()));
        let mut joined = Vec::new();
        for (id, member) in &mut group.members {
            member.is_new = false;
            member.expires = now.plus(member.session_timeout);
            if let Some(ticket) = member.joining.take() {
                joined.push((id.clone(), ticket));
            }
        }
        for (id, ticket) in joined {
            let answer = self.join_answer(slot, name, &id);
            self.answer(ticket, Answer::Join(answer));
        }
    }
}

fn new_member(now: Mono, ticket: Ticket, request: &JoinRequest) -> Member {
    Member {
        instance: request.instance.clone(),
        client_id: request.client_id.clone(),
        client_host: request.client_host.clone(),
        session_timeout: request.session_timeout,
        rebalance_timeout: request.rebalance_timeout,
        protocols: request.protocols.clone(),
        assignment: Bytes::new(),
        proposed: None,
        joining: Some(ticket),
        syncing: None,
        is_new: true,
        expires: now.plus(NEW_MEMBER_JOIN_TIMEOUT),
    }
}
