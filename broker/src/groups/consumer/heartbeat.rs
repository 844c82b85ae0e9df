//! ConsumerGroupHeartbeat: the checks in Kafka's order, then joining, following, leaving; and what silence ends.

use super::super::coordinator::Coordinator;
use super::super::group::Group;
use super::super::{Answer, Ticket};
use super::assignors::Assignor;
use super::state::ConsumerGroup;
use super::{ConsumerHeartbeat, HeartbeatAnswer, JOINS, LEAVES, PAUSES, Refusal, subscription};
use crate::control::ClusterImage;
use crate::control::group_settings::{INTERVAL, SESSION};
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use millrace_storage::ids::TopicId;
use std::sync::Arc;
use std::time::Duration;

impl Coordinator {
    /// The topics are these from now on. Groups look at their next heartbeat whether that changes anything for them.
    pub fn on_image(&mut self, image: Arc<ClusterImage>) {
        let before = std::mem::replace(&mut self.image, image);
        self.image_number += 1;
        let gone: Vec<TopicId> =
            before.names.keys().filter(|topic| !self.image.names.contains_key(topic)).copied().collect();
        if !gone.is_empty() {
            self.drop_offsets_of(&gone);
        }
    }

    /// A member joins, keeps up, or leaves.
    pub fn consumer_heartbeat(&mut self, now: Mono, ticket: Ticket, request: &ConsumerHeartbeat) {
        let name = request.group.as_str();
        let handled = check_request(request).and_then(|()| {
            let slot = self.slot_for(name).map_err(|error| Refusal::new(error, ""))?;
            // Topics are not known yet: nobody must lose what it has for that.
            if self.image.cluster_id.is_empty() {
                return Err(Refusal::new(ErrorCode::CoordinatorLoadInProgress, ""));
            }
            match request.epoch {
                LEAVES | PAUSES => self.leave_consumers(now, slot, ticket, request),
                _ => {
                    let (answer, changed) = self.follow(now, slot, request)?;
                    self.answer_change(slot, name, changed, (ticket, Answer::ConsumerHeartbeat(answer)));
                    Ok(())
                }
            }
        });
        if let Err(refusal) = handled {
            self.answer(ticket, Answer::ConsumerHeartbeat(HeartbeatAnswer::failed(refusal)));
        }
        if let Ok(slot) = self.slot_for(name) {
            self.reschedule(slot, name);
        }
    }

    /// Silence after which a member of this protocol is out of the group: the group's own setting, or the node's.
    pub(in super::super) fn consumer_session(&self, group: &str) -> Duration {
        self.own_time(group, SESSION).unwrap_or(self.limits.consumer_session)
    }

    /// How soon a member shall come again.
    fn consumer_interval(&self, group: &str) -> Duration {
        self.own_time(group, INTERVAL).unwrap_or(self.limits.consumer_interval)
    }

    fn own_time(&self, group: &str, setting: &str) -> Option<Duration> {
        let milliseconds = self.image.group_settings.get(group)?.get(setting)?.trim().parse().ok()?;
        Some(Duration::from_millis(milliseconds))
    }

    pub(super) fn consumer_mut(&mut self, slot: u16, name: &str) -> Option<&mut ConsumerGroup> {
        self.group_mut(slot, name)?.consumer.as_mut()
    }

    /// Also says whether the group changed.
    fn follow(
        &mut self,
        now: Mono,
        slot: u16,
        request: &ConsumerHeartbeat,
    ) -> Result<(HeartbeatAnswer, bool), Refusal> {
        let name = &request.group;
        let (joins, limits) = (request.epoch == JOINS, self.limits);
        let (session, interval) = (self.consumer_session(name), self.consumer_interval(name));
        if let Some(expression) = request.regex.as_deref().filter(|regex| !regex.is_empty()) {
            subscription::compile(expression)?;
        }
        if joins && self.is_behind() {
            return Err(Refusal::new(ErrorCode::CoordinatorLoadInProgress, ""));
        }
        let fresh = self.new_member_uuid();
        self.check_room_for_heartbeat(request)?;
        let id = if request.member.is_empty() { fresh } else { request.member.clone() };
        let converted = if joins { self.converted(now, slot, name)? } else { None };
        let group = match &converted {
            Some(converted) => converted,
            None => self.consumers(slot, name)?,
        };
        let known_instance = request.instance.as_ref().is_some_and(|instance| group.statics.contains_key(instance));
        if !known_instance && !group.members.contains_key(&id) && group.members.len() >= limits.members {
            let message = format!("The consumer group has reached its maximum capacity of {} members.", limits.members);
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        let replaced = check_member(group, &id, request)?;
        // From here on nothing is refused.
        if let Some(converted) = converted {
            self.become_consumers(slot, name, converted);
        }
        let (image, number) = (self.image.clone(), self.image_number);
        let group = self.consumer_mut(slot, name).expect("found or made above");
        let heard = (&*id, replaced.as_deref(), request.instance.as_deref());
        let (before, changed) = group.hear(now, heard, request.owned.as_ref(), (&image, number), |member| {
            member.expires = now.plus(session);
            member.update(request)
        });
        let after = &group.members[&id];
        let said_all = request.rebalance_timeout.is_some()
            && (request.topics.is_some() || request.regex.is_some())
            && request.owned.is_some();
        let is_news = before.is_none_or(|before| before.assigned != after.assigned);
        let answer = HeartbeatAnswer {
            error: ErrorCode::None,
            message: None,
            epoch: after.epoch,
            interval,
            assignment: (joins || said_all || is_news).then(|| after.assigned.clone()),
            member: Some(id),
        };
        Ok((answer, changed))
    }

    /// The group of a member that is in it.
    fn consumers(&mut self, slot: u16, name: &str) -> Result<&ConsumerGroup, Refusal> {
        let group = self.group_mut(slot, name).and_then(|group| group.consumer.as_ref());
        group.ok_or_else(|| not_found(format!("Group {name} not found.")))
    }

    fn leave_consumers(
        &mut self,
        now: Mono,
        slot: u16,
        ticket: Ticket,
        request: &ConsumerHeartbeat,
    ) -> Result<(), Refusal> {
        let (name, id) = (&request.group, &request.member);
        let group = self.consumers(slot, name)?;
        match &request.instance {
            None => check_known(group, id)?,
            Some(instance) => check_instance(group, id, instance)?,
        }
        let answer = Answer::ConsumerHeartbeat(HeartbeatAnswer {
            error: ErrorCode::None,
            message: None,
            member: Some(id.clone()),
            epoch: request.epoch,
            interval: Duration::ZERO,
            assignment: None,
        });
        if request.epoch == PAUSES {
            self.consumer_mut(slot, name).expect("found above").pause(id);
            self.answer_change(slot, name, true, (ticket, answer));
        } else {
            self.take_out_consumers(now, slot, name, std::slice::from_ref(id), Some((ticket, answer)));
        }
        Ok(())
    }

    /// What ran out in one group.
    pub(in super::super) fn on_consumer_time(&mut self, now: Mono, slot: u16, name: &str) {
        let Some(group) = self.consumer_mut(slot, name) else { return };
        let overdue = group.overdue(now);
        if !overdue.is_empty() {
            self.take_out_consumers(now, slot, name, &overdue, None);
        }
    }
}

impl Group {
    /// Whether its protocol is the consumer protocol and it has members.
    pub(in super::super) fn has_consumers(&self) -> bool {
        self.consumer.as_ref().is_some_and(|consumer| !consumer.members.is_empty())
    }

    /// Whether it is about to be stored as a group of the consumer protocol.
    pub(in super::super) fn is_being_stored(&self) -> bool {
        self.consumer.as_ref().is_some_and(|consumer| consumer.journal.is_busy())
    }
}

/// What is wrong with a request whatever the group is.
fn check_request(request: &ConsumerHeartbeat) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let is_blank = |text: &str| text.trim().is_empty();
    let is_named_blank = |text: &Option<String>| text.as_deref().is_some_and(is_blank);
    if (request.brings_id || request.epoch > JOINS || request.epoch == LEAVES) && is_blank(&request.member) {
        return invalid("MemberId can't be empty.");
    }
    if is_blank(&request.group) {
        return invalid("GroupId can't be empty.");
    }
    if is_named_blank(&request.instance) {
        return invalid("InstanceId can't be empty.");
    }
    if is_named_blank(&request.rack) {
        return invalid("RackId can't be empty.");
    }
    if request.epoch == JOINS {
        if request.rebalance_timeout.is_none() {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if request.topics.is_none() && request.regex.is_none() {
            return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.");
        }
    } else if request.epoch == PAUSES && request.instance.is_none() {
        return invalid("InstanceId can't be null.");
    } else if request.epoch < PAUSES {
        return invalid("MemberEpoch is invalid.");
    }
    match &request.assignor {
        Some(name) if Assignor::by_name(name).is_none() => {
            let names = Assignor::ALL.map(Assignor::name).join(", ");
            let message = format!("ServerAssignor {name} is not supported. Supported assignors: {names}.");
            Err(Refusal::new(ErrorCode::UnsupportedAssignor, message))
        }
        Some(_) | None => Ok(()),
    }
}

pub(super) fn not_found(message: String) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, message)
}

fn check_known(group: &ConsumerGroup, id: &str) -> Result<(), Refusal> {
    if group.members.contains_key(id) {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::UnknownMemberId, format!("Member {id} is not a member of the group.")))
}

/// Whether the instance is this member's.
fn check_instance(group: &ConsumerGroup, id: &str, instance: &str) -> Result<(), Refusal> {
    match group.statics.get(instance) {
        None => Err(Refusal::new(ErrorCode::UnknownMemberId, format!("Instance id {instance} is unknown."))),
        Some(owner) if owner != id => {
            let message = format!("Static member {id} with instance id {instance} was fenced by member {owner}.");
            Err(Refusal::new(ErrorCode::FencedInstanceId, message))
        }
        Some(_) => Ok(()),
    }
}

/// Whether the request is from whom it says; the member whose place it takes, if a static member comes back under another
/// id.
fn check_member(group: &ConsumerGroup, id: &str, request: &ConsumerHeartbeat) -> Result<Option<String>, Refusal> {
    if request.epoch == JOINS {
        let owner = request.instance.as_ref().and_then(|instance| group.statics.get(instance));
        let Some(owner) = owner.filter(|owner| *owner != id) else { return Ok(None) };
        let before = &group.members[owner];
        // One of the classic protocol changes over whether it left or not.
        if before.epoch != PAUSES && before.classic.is_none() {
            let instance = request.instance.as_deref().unwrap_or_default();
            let message = format!(
                "Static member {id} with instance id {instance} cannot join the group because the instance id is \
                 owned by member {owner}."
            );
            return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
        }
        return Ok(Some(owner.clone()));
    }
    match &request.instance {
        None => check_known(group, id)?,
        Some(instance) => check_instance(group, id, instance)?,
    }
    group.check_epoch(id, request.epoch, request.owned.as_ref())?;
    Ok(None)
}
