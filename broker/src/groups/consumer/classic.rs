//! Members that speak the classic protocol in a group of the consumer protocol: the coordinator assigns to them too. A
//! heartbeat tells them to join again when there is something for them to do; with the join they say what they have, and
//! the sync after it tells them what they are to have.

use super::super::coordinator::Coordinator;
use super::super::{Answer, Caller, JoinAnswer, JoinRequest, Leaver, SyncAnswer, SyncRequest, Ticket};
use super::CONSUMERS;
use super::embedded::{self, Subscription};
use super::state::{ClassicSide, ConsumerGroup, ConsumerMember, Step};
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use std::collections::BTreeSet;

/// A join that passed the checks.
struct Admitted {
    id: String,
    /// The static member whose place it takes.
    replaced: Option<String>,
    subscription: Subscription,
}

impl ConsumerMember {
    /// Takes over what the member says of itself; whether its subscription changed.
    fn update_as_classic(&mut self, said: &JoinRequest, subscription: Subscription) -> bool {
        let resubscribed = self.topics != subscription.topics || self.regex.is_some();
        if subscription.rack.is_some() {
            self.rack = subscription.rack;
        }
        self.rebalance_timeout = said.rebalance_timeout;
        self.topics = subscription.topics;
        self.regex = None;
        self.client_id.clone_from(&said.client_id);
        self.client_host.clone_from(&said.client_host);
        let side = ClassicSide { session_timeout: said.session_timeout, protocols: said.protocols.clone() };
        self.classic = Some(side);
        self.revoke_by = None;
        resubscribed
    }

    /// The name of the protocol that it is told, its first: which it is plays no part.
    fn protocol(&self) -> Option<&String> {
        self.classic.as_ref().and_then(|classic| classic.protocols.first()).map(|protocol| &protocol.name)
    }

    /// It is told to join again, and has its rebalance timeout for that from the first time on.
    fn must_rejoin(&mut self, now: Mono) -> ErrorCode {
        self.join_by.get_or_insert(now.plus(self.rebalance_timeout));
        ErrorCode::RebalanceInProgress
    }
}

impl ConsumerGroup {
    /// The classic member that the caller says it is, at its epoch.
    fn classic_member(&mut self, caller: &Caller) -> Result<&mut ConsumerMember, ErrorCode> {
        if let Some(instance) = &caller.instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(id) if *id != caller.member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        let member = self.members.get_mut(&caller.member).filter(|member| member.classic.is_some());
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if member.epoch == caller.generation { Ok(member) } else { Err(ErrorCode::IllegalGeneration) }
    }
}

impl Coordinator {
    /// The slot of a group of the consumer protocol that has members. One that is about to become a classic group becomes
    /// it first.
    pub(in super::super) fn slot_of_consumers(&mut self, now: Mono, name: &str) -> Option<u16> {
        let slot = self.slot_for(name).ok()?;
        self.settle_protocol(now, slot, name);
        self.group_mut(slot, name).is_some_and(|group| group.has_consumers()).then_some(slot)
    }

    /// A classic member joins, or joins again.
    pub(in super::super) fn join_consumers(&mut self, now: Mono, slot: u16, ticket: Ticket, request: &JoinRequest) {
        match self.check_join_of_consumers(slot, request) {
            Err((error, id)) => self.refuse_join(ticket, error, id),
            Ok(admitted) => self.admit_classic(now, slot, ticket, request, admitted),
        }
        self.reschedule(slot, &request.group);
    }

    /// The id that goes with an error is one to come back with, or none, as in Kafka.
    fn check_join_of_consumers(&mut self, slot: u16, request: &JoinRequest) -> Result<Admitted, (ErrorCode, String)> {
        let refused = |error| (error, String::new());
        // Topics are not known yet: nobody must lose what it has for that.
        if self.image.cluster_id.is_empty() {
            return Err(refused(ErrorCode::CoordinatorLoadInProgress));
        }
        let (fresh, most) = (self.new_member_uuid(), self.limits.members);
        let group = &*self.consumer_mut(slot, &request.group).expect("looked at by the caller");
        let id = if request.member.is_empty() { fresh } else { request.member.clone() };
        let owner = request.instance.as_ref().and_then(|instance| group.statics.get(instance)).cloned();
        if group.members.len() >= most && owner.is_none() && !group.members.contains_key(&id) {
            return Err(refused(ErrorCode::GroupMaxSizeReached));
        }
        if !group.accepts(&request.protocol_type, &request.protocols) {
            return Err(refused(ErrorCode::InconsistentGroupProtocol));
        }
        if request.instance.is_none() && request.member.is_empty() && request.require_known_member {
            return Err((ErrorCode::MemberIdRequired, id));
        }
        match &owner {
            None if request.instance.is_some() && !request.member.is_empty() => {
                return Err(refused(ErrorCode::UnknownMemberId));
            }
            Some(owner) if !request.member.is_empty() && *owner != id => {
                return Err(refused(ErrorCode::FencedInstanceId));
            }
            _ => {}
        }
        let replaced = owner.filter(|owner| *owner != id);
        let before = group.members.get(replaced.as_ref().unwrap_or(&id)).cloned();
        self.check_room_among_consumers(request, &id, before.as_ref()).map_err(refused)?;
        let metadata = request.protocols.first().map(|protocol| &protocol.metadata);
        let subscription = metadata.and_then(|metadata| embedded::subscription(metadata).ok());
        let subscription = subscription.ok_or_else(|| refused(ErrorCode::InconsistentGroupProtocol))?;
        Ok(Admitted { id, replaced, subscription })
    }

    fn admit_classic(
        &mut self,
        now: Mono,
        slot: u16,
        ticket: Ticket,
        request: &JoinRequest,
        Admitted { id, replaced, subscription }: Admitted,
    ) {
        let name = &request.group;
        let (image, number) = (self.image.clone(), self.image_number);
        let owned = embedded::resolve(&subscription.owned, &image);
        let group = self.consumer_mut(slot, name).expect("checked by the caller");
        let heard = (&*id, replaced.as_deref(), request.instance.as_deref());
        let (_, changed) = group.hear(now, heard, Some(&owned), (&image, number), |member| {
            member.expires = now.plus(request.session_timeout);
            member.join_by = None;
            member.sync_by = Some(now.plus(request.rebalance_timeout));
            member.update_as_classic(request, subscription)
        });
        let after = &group.members[&id];
        let answer = JoinAnswer {
            error: ErrorCode::None,
            generation: after.epoch,
            protocol_type: Some(CONSUMERS.to_owned()),
            protocol: after.protocol().cloned(),
            leader: String::new(),
            skip_assignment: false,
            members: Vec::new(),
            member: id,
        };
        if group.is_all_classic() {
            self.replaced_last_consumer(now, slot, name, (ticket, answer));
        } else {
            self.answer_change(slot, name, changed, (ticket, Answer::Join(answer)));
        }
    }

    /// A classic member asks for what it is to have.
    pub(in super::super) fn sync_consumers(&mut self, now: Mono, slot: u16, ticket: Ticket, request: &SyncRequest) {
        let name = &request.group;
        match self.check_sync_of_consumers(now, slot, request) {
            Ok(answer) => self.answer_change(slot, name, false, (ticket, Answer::Sync(answer))),
            Err(error) => self.answer(ticket, Answer::Sync(SyncAnswer::failed(error))),
        }
        self.reschedule(slot, name);
    }

    fn check_sync_of_consumers(
        &mut self,
        now: Mono,
        slot: u16,
        request: &SyncRequest,
    ) -> Result<SyncAnswer, ErrorCode> {
        let image = self.image.clone();
        if image.cluster_id.is_empty() {
            return Err(ErrorCode::CoordinatorLoadInProgress);
        }
        let group = self.consumer_mut(slot, &request.group).expect("looked at by the caller");
        let goal = group.epoch;
        let member = group.classic_member(&request.caller)?;
        let differs = |said: &Option<String>, own: Option<&str>| said.is_some() && said.as_deref() != own;
        if differs(&request.protocol_type, Some(CONSUMERS))
            || differs(&request.protocol, member.protocol().map(String::as_str))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        // One that has partitions to give up hears which first.
        if member.epoch < goal && member.step != Step::Revoking {
            return Err(member.must_rejoin(now));
        }
        member.sync_by = None;
        let classic = member.classic.as_ref().expect("a classic member");
        member.expires = now.plus(classic.session_timeout);
        let like = classic.protocols.first().map(|protocol| protocol.metadata.clone()).unwrap_or_default();
        Ok(SyncAnswer {
            error: ErrorCode::None,
            protocol_type: request.protocol_type.clone(),
            protocol: request.protocol.clone(),
            assignment: embedded::encode(&member.assigned, &like, &image),
        })
    }

    /// A classic member says that it is alive, and hears whether it must join again.
    pub(in super::super) fn heartbeat_consumers(
        &mut self,
        now: Mono,
        slot: u16,
        name: &str,
        caller: &Caller,
    ) -> Result<(), ErrorCode> {
        let group = self.consumer_mut(slot, name).expect("looked at by the caller");
        let goal = group.epoch;
        group.classic_member(caller)?;
        let member = &group.members[&caller.member];
        let must_rejoin = member.epoch < goal
            || member.step == Step::Revoking
            || member.step == Step::Waiting && !group.waits_for_others(member);
        let member = group.members.get_mut(&caller.member).expect("looked at above");
        member.expires = now.plus(member.classic.as_ref().expect("a classic member").session_timeout);
        let answer = if must_rejoin { Err(member.must_rejoin(now)) } else { Ok(()) };
        self.reschedule(slot, name);
        answer
    }

    /// Members of either protocol are taken out by a LeaveGroup.
    pub(in super::super) fn leave_as_classic(
        &mut self,
        now: Mono,
        slot: u16,
        ticket: Ticket,
        name: &str,
        leavers: &[Leaver],
    ) {
        let group = self.consumer_mut(slot, name).expect("looked at by the caller");
        let found: Vec<Result<String, ErrorCode>> = leavers.iter().map(|leaver| group.leaving(leaver)).collect();
        let codes = found.iter().map(|found| found.as_ref().err().copied().unwrap_or(ErrorCode::None)).collect();
        let gone: BTreeSet<String> = found.into_iter().flatten().collect();
        let answer = (ticket, Answer::Leave(codes));
        if gone.is_empty() {
            self.answer(ticket, answer.1);
        } else {
            let gone: Vec<String> = gone.into_iter().collect();
            self.take_out_consumers(now, slot, name, &gone, Some(answer));
        }
        self.reschedule(slot, name);
    }
}

impl ConsumerGroup {
    /// The member that a LeaveGroup means.
    fn leaving(&self, leaver: &Leaver) -> Result<String, ErrorCode> {
        let id = match &leaver.instance {
            None => &leaver.member,
            Some(instance) => self.statics.get(instance).ok_or(ErrorCode::UnknownMemberId)?,
        };
        if leaver.instance.is_some() && !leaver.member.is_empty() && leaver.member != *id {
            return Err(ErrorCode::FencedInstanceId);
        }
        if self.members.contains_key(id) { Ok(id.clone()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Whether offsets may be committed or read by a member that says this epoch.
    pub(super) fn check_epoch_of(&self, member: &str, epoch: i32) -> Result<(), ErrorCode> {
        let member = self.members.get(member).ok_or(ErrorCode::UnknownMemberId)?;
        match &member.classic {
            _ if member.epoch == epoch => Ok(()),
            Some(_) => Err(ErrorCode::IllegalGeneration),
            None => Err(ErrorCode::StaleMemberEpoch),
        }
    }
}
