//! ConsumerGroupHeartbeat: the checks in Kafka's order, then joining, following, leaving; and what silence ends.

use super::super::coordinator::Coordinator;
use super::super::group::{Group, GroupState};
use super::super::{Answer, Ticket};
use super::assignors::Assignor;
use super::state::{ConsumerGroup, ConsumerMember};
use super::{ConsumerHeartbeat, HeartbeatAnswer, JOINS, LEAVES, PAUSES, Refusal, subscription};
use crate::control::ClusterImage;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use std::sync::Arc;
use std::time::Duration;

/// The type of the groups that may change over to this protocol.
const CONSUMERS: &str = "consumer";
/// The epoch of a new group before its first member, as in Kafka.
const FIRST_EPOCH: i32 = 1;

impl Coordinator {
    /// The topics are these from now on. Groups look at their next heartbeat whether that changes anything for them.
    pub fn on_image(&mut self, image: Arc<ClusterImage>) {
        self.image = image;
        self.image_number += 1;
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
            let leaves = matches!(request.epoch, LEAVES | PAUSES);
            let answer = if leaves { self.leave_consumers(slot, request) } else { self.follow(now, slot, request) };
            answer.map(|answer| (slot, answer))
        });
        match handled {
            Ok((slot, (answer, changed))) => {
                self.answer_change(slot, name, changed, (ticket, answer));
                self.reschedule(slot, name);
            }
            Err(refusal) => {
                self.answer(ticket, Answer::ConsumerHeartbeat(HeartbeatAnswer::failed(refusal)));
                if let Ok(slot) = self.slot_for(name) {
                    self.reschedule(slot, name);
                }
            }
        }
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
        let joins = request.epoch == JOINS;
        if let Some(expression) = request.regex.as_deref().filter(|regex| !regex.is_empty()) {
            subscription::compile(expression)?;
        }
        if joins && self.is_behind() {
            return Err(Refusal::new(ErrorCode::CoordinatorLoadInProgress, ""));
        }
        let fresh = self.new_member_uuid();
        self.check_room_for_heartbeat(request)?;
        let (limits, image, number) = (self.limits, self.image.clone(), self.image_number);
        let group = if joins { self.consumers_or_new(slot, request)? } else { self.consumers(slot, &request.group)? };
        let mut id = request.member.clone();
        let known_instance = request.instance.as_ref().is_some_and(|instance| group.statics.contains_key(instance));
        if !known_instance && !group.members.contains_key(&id) && group.members.len() >= limits.members {
            let message = format!("The consumer group has reached its maximum capacity of {} members.", limits.members);
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        if id.is_empty() {
            id = fresh;
        }
        let replaced = check_member(group, &id, request)?;
        // From here on nothing is refused.
        let before = group.members.get(&id).cloned();
        let is_new = before.is_none() && replaced.is_none();
        if let Some(old) = replaced {
            let mut member = group.take(&old).expect("the instance names a member");
            (member.epoch, member.previous_epoch) = (JOINS, JOINS);
            group.insert(id.clone(), member);
        } else if is_new {
            group.insert(id.clone(), ConsumerMember::new(now.plus(limits.consumer_session)));
        }
        let preferred = group.preferred_assignor();
        let member = group.members.get_mut(&id).expect("put in above");
        member.expires = now.plus(limits.consumer_session);
        let resubscribed = member.update(request);
        if let Some(instance) = &request.instance {
            group.statics.insert(instance.clone(), id.clone());
        }
        if is_new || resubscribed || group.preferred_assignor() != preferred {
            group.subscription_changed();
        }
        let refreshed = group.refresh(&image, number);
        let reassigned = group.assign(&image);
        group.reconcile(now, &id, request.owned.as_ref());
        let after = &group.members[&id];
        // A session that goes on is no change worth a write.
        let unchanged = |before: &ConsumerMember| ConsumerMember { expires: after.expires, ..before.clone() } == *after;
        let changed = refreshed || reassigned || !before.as_ref().is_some_and(unchanged);
        let said_all = request.rebalance_timeout.is_some()
            && (request.topics.is_some() || request.regex.is_some())
            && request.owned.is_some();
        let is_news = before.is_none_or(|before| before.assigned != after.assigned);
        let answer = HeartbeatAnswer {
            error: ErrorCode::None,
            message: None,
            epoch: after.epoch,
            interval: limits.consumer_interval,
            assignment: (joins || said_all || is_news).then(|| after.assigned.clone()),
            member: Some(id),
        };
        Ok((answer, changed))
    }

    /// The group of a member that is in it.
    fn consumers(&mut self, slot: u16, name: &str) -> Result<&mut ConsumerGroup, Refusal> {
        let group = self.group_mut(slot, name).and_then(|group| group.consumer.as_mut());
        group.ok_or_else(|| not_found(format!("Group {name} not found.")))
    }

    /// The group of a member that joins: a group that does not exist is made, an empty classic one changes over.
    fn consumers_or_new(&mut self, slot: u16, request: &ConsumerHeartbeat) -> Result<&mut ConsumerGroup, Refusal> {
        let name = &request.group;
        let full = |error| Refusal::new(error, "The coordinator has no room for another group.");
        let group = self.group_or_new(slot, name).map_err(full)?;
        if group.consumer.is_none() {
            let in_use = group.state != GroupState::Empty || !group.pending.is_empty();
            if in_use || group.protocol_type.as_deref().is_some_and(|kind| kind != CONSUMERS) {
                return Err(not_found(format!("Group {name} is not a consumer group.")));
            }
            group.consumer = Some(ConsumerGroup::new(group.generation.max(FIRST_EPOCH)));
        }
        Ok(group.consumer.as_mut().expect("made above"))
    }

    fn leave_consumers(&mut self, slot: u16, request: &ConsumerHeartbeat) -> Result<(HeartbeatAnswer, bool), Refusal> {
        let group = self.consumers(slot, &request.group)?;
        match &request.instance {
            None => check_known(group, &request.member)?,
            Some(instance) => check_instance(group, &request.member, instance)?,
        }
        if request.epoch == PAUSES {
            group.pause(&request.member);
        } else {
            group.remove(&request.member);
        }
        let answer = HeartbeatAnswer {
            error: ErrorCode::None,
            message: None,
            member: Some(request.member.clone()),
            epoch: request.epoch,
            interval: Duration::ZERO,
            assignment: None,
        };
        Ok((answer, true))
    }

    /// What ran out in one group.
    pub(in super::super) fn on_consumer_time(&mut self, now: Mono, slot: u16, name: &str) {
        let Some(group) = self.consumer_mut(slot, name) else { return };
        let overdue = group.overdue(now);
        if overdue.is_empty() {
            return;
        }
        overdue.iter().for_each(|id| group.remove(id));
        self.store_change(slot, name);
    }
}

impl Group {
    /// Whether it has members of the consumer protocol, or is about to be stored as such a group.
    pub(in super::super) fn has_consumers(&self) -> bool {
        self.consumer.as_ref().is_some_and(|consumer| !consumer.members.is_empty() || consumer.journal.is_busy())
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

fn not_found(message: String) -> Refusal {
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
        if group.members[owner].epoch != PAUSES {
            let instance = request.instance.as_deref().unwrap_or_default();
            let message = format!(
                "Static member {id} with instance id {instance} cannot join the group because the instance id is \
                 owned by member {owner}."
            );
            return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
        }
        // The id of another member is no id for the instance.
        return if group.members.contains_key(id) { Ok(None) } else { Ok(Some(owner.clone())) };
    }
    match &request.instance {
        None => check_known(group, id)?,
        Some(instance) => check_instance(group, id, instance)?,
    }
    group.check_epoch(id, request.epoch, request.owned.as_ref())?;
    Ok(None)
}
