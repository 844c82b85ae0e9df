//! Groups that change their protocol (`group.consumer.migration.policy` is `bidirectional`): a classic group when the first
//! member of the consumer protocol joins it, back when the last of those is gone.
//!
//! 1. No member loses what it has by the change: it goes on with what it was told last, and is told to join again where
//!    that may be out of date. What it may have besides that goes to nobody before it joined without it.
//! 2. A group that was refused the change is as it was.
//! 3. A group of which only classic members are left, and no assignment without the others is stored, is stored as it was
//!    before it became a classic one: after a crash it becomes one with the first word of a member, and rebalances.

use super::super::coordinator::{Coordinator, Purpose};
use super::super::group::{Group, GroupState, Member};
use super::super::record::encode_group;
use super::super::{Answer, JoinAnswer, Limits, SyncAnswer, Ticket};
use super::heartbeat::not_found;
use super::journal::Journal;
use super::state::{ClassicSide, ConsumerGroup, ConsumerMember, Step};
use super::{CONSUMERS, Partitions, Refusal, embedded};
use crate::control::ClusterImage;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;

/// The epoch of a new group before its first member, as in Kafka.
const FIRST_EPOCH: i32 = 1;

impl Group {
    /// The classic group as one of the consumer protocol. Every member has what it was told last; what else it may have still,
    /// it is to give up.
    fn as_consumers(
        &self,
        now: Mono,
        name: &str,
        limits: &Limits,
        image: &ClusterImage,
    ) -> Result<ConsumerGroup, Refusal> {
        if self.state == GroupState::Empty {
            // As in Kafka, which makes a new one: nobody knows of the generations that were.
            return Ok(ConsumerGroup::new(FIRST_EPOCH));
        }
        let mut consumers = ConsumerGroup::new(self.generation.max(FIRST_EPOCH));
        let cannot =
            |why: &str| not_found(format!("Cannot upgrade classic group {name} to consumer group because {why}."));
        if self.protocol_type.as_deref() != Some(CONSUMERS) {
            return Err(cannot("the group does not use the consumer embedded protocol"));
        }
        if self.members.len() > limits.members {
            return Err(cannot("the group size exceeds the consumer group maximum size"));
        }
        let malformed = |_: embedded::Malformed| cannot("the embedded consumer protocol is malformed");
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let (mut held, mut parts) = (Partitions::new(), Vec::with_capacity(self.members.len()));
        for member in self.members.values() {
            let subscription = member.subscription(protocol).map_err(malformed)?;
            let told = embedded::assignment(&member.assignment).map_err(malformed)?;
            if told.has_user_data {
                return Err(cannot(
                    "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default \
                     assignor before re-attempting the upgrade",
                ));
            }
            // The clients' assignor may have given one partition to two members: here the first of them has it.
            let mut assigned = embedded::resolve(&told.partitions, image);
            assigned.retain(|partition| held.insert(*partition));
            parts.push((subscription, assigned));
        }
        for ((id, member), (subscription, assigned)) in self.members.iter().zip(parts) {
            // What it had when it joined it may have still: perhaps it has not heard yet what it was told after that.
            let mut revoking = embedded::resolve(&subscription.owned, image);
            revoking.retain(|partition| held.insert(*partition));
            let member = ConsumerMember {
                instance: member.instance.clone(),
                rack: subscription.rack,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: member.rebalance_timeout,
                topics: subscription.topics,
                epoch: consumers.epoch,
                previous_epoch: consumers.epoch,
                step: if revoking.is_empty() { Step::Stable } else { Step::Revoking },
                target: assigned.clone(),
                assigned,
                revoking,
                classic: Some(ClassicSide {
                    session_timeout: member.session_timeout,
                    protocols: member.protocols.clone(),
                }),
                ..ConsumerMember::new(now.plus(member.session_timeout))
            };
            consumers.insert(id.clone(), member);
        }
        consumers.know_topics(image);
        Ok(consumers)
    }
}

impl Member {
    /// What it said with its last join, in the protocol that was chosen.
    fn subscription(&self, protocol: &str) -> Result<embedded::Subscription, embedded::Malformed> {
        let chosen = self.protocols.iter().find(|offered| offered.name == protocol).or(self.protocols.first());
        embedded::subscription(&chosen.map(|chosen| chosen.metadata.clone()).unwrap_or_default())
    }
}

impl Coordinator {
    /// The classic group of this name as one of the consumer protocol, which it is to become; `None` if it is one already.
    /// A group that does not exist is made, empty.
    pub(super) fn converted(&mut self, now: Mono, slot: u16, name: &str) -> Result<Option<ConsumerGroup>, Refusal> {
        let (limits, image) = (self.limits, self.image.clone());
        let full = |error| Refusal::new(error, "The coordinator has no room for another group.");
        let group = self.group_or_new(slot, name).map_err(full)?;
        if group.consumer.is_some() {
            return Ok(None);
        }
        group.as_consumers(now, name, &limits, &image).map(Some)
    }

    /// Puts `converted` in the place of the classic group. Who waits for a rebalance hears of another one.
    pub(super) fn become_consumers(&mut self, slot: u16, name: &str, mut converted: ConsumerGroup) {
        let group = self.group_mut(slot, name).expect("it was converted");
        if !group.members.is_empty() {
            // If it can't be stored, the members join the classic group again.
            converted.journal = Journal::of(encode_group(group));
        }
        let before = std::mem::replace(group, Group::new());
        *group = Group {
            empty_since: before.empty_since,
            generation: before.generation,
            protocol_type: before.protocol_type,
            offsets: before.offsets,
            counted: before.counted,
            consumer: Some(converted),
            ..Group::new()
        };
        for (id, member) in before.members {
            if let Some(ticket) = member.joining {
                self.answer(ticket, Answer::Join(JoinAnswer::failed(ErrorCode::RebalanceInProgress, id)));
            }
            if let Some(ticket) = member.syncing {
                self.answer(ticket, Answer::Sync(SyncAnswer::failed(ErrorCode::RebalanceInProgress)));
            }
        }
    }

    /// Takes members out of a group of the consumer protocol; `answer` leaves when that is durable. If only classic members
    /// are left, they rebalance as a classic group.
    pub(super) fn take_out_consumers(
        &mut self,
        now: Mono,
        slot: u16,
        name: &str,
        ids: &[String],
        answer: Option<(Ticket, Answer)>,
    ) {
        let group = self.consumer_mut(slot, name).expect("the members are in it");
        for id in ids {
            group.take(id).expect("a member is taken out once");
        }
        if group.is_all_classic() {
            self.write_last(slot, name, answer);
            self.become_classic(now, slot, name);
            return self.prepare_rebalance(now, slot, name);
        }
        group.changed_by_leaving();
        match answer {
            Some(answer) => self.answer_change(slot, name, true, answer),
            None => self.store_change(slot, name),
        }
    }

    /// A group that was stored while it became a classic one does so now.
    pub(in super::super) fn settle_protocol(&mut self, now: Mono, slot: u16, name: &str) {
        let is_due = self.consumer_mut(slot, name).is_some_and(|group| group.is_all_classic());
        if is_due && !self.image.cluster_id.is_empty() {
            self.become_classic(now, slot, name);
            self.prepare_rebalance(now, slot, name);
        }
    }

    /// An empty group of the consumer protocol is a classic one from now on.
    pub(in super::super) fn leave_consumer_protocol(&mut self, slot: u16, name: &str) {
        let group = self.group_mut(slot, name).expect("looked at by the caller");
        let Some(consumer) = &group.consumer else { return };
        assert!(consumer.members.is_empty(), "a group keeps its members");
        if group.is_being_stored() {
            self.write_last(slot, name, None);
        }
        let group = self.group_mut(slot, name).expect("looked at above");
        let consumer = group.consumer.take().expect("looked at above");
        group.generation = consumer.epoch;
    }

    /// Only classic members are left: the group is a stable classic one of the same generation, each of its members with
    /// all that it may have.
    pub(super) fn become_classic(&mut self, now: Mono, slot: u16, name: &str) {
        let image = self.image.clone();
        let group = self.group_mut(slot, name).expect("looked at by the caller");
        let consumers = group.consumer.take().expect("looked at by the caller");
        group.generation = consumers.epoch;
        group.protocol_type = Some(CONSUMERS.to_owned());
        group.state = GroupState::Stable;
        group.statics = consumers.statics;
        for (id, member) in consumers.members {
            group.members.insert(id, as_classic(now, member, &image));
        }
        group.leader = group.members.keys().next().cloned();
        group.protocol = group.choose_protocol();
    }

    /// A classic member took the place of the last member of the consumer protocol. If nobody has anything left to do, the
    /// group is a stable classic one, and `answer` leaves when that is durable. Otherwise the members rebalance, and the one
    /// that joined is answered with the others.
    pub(super) fn replaced_last_consumer(
        &mut self,
        now: Mono,
        slot: u16,
        name: &str,
        (ticket, answer): (Ticket, JoinAnswer),
    ) {
        let consumers = self.consumer_mut(slot, name).expect("the caller changed it");
        let epoch = consumers.epoch;
        let mut members = consumers.members.values();
        if consumers.assignment_epoch == epoch && members.all(|member| member.is_settled(epoch)) {
            let mut answers = consumers.journal.take_parked();
            answers.push((ticket, Answer::Join(answer)));
            self.become_classic(now, slot, name);
            return self.write_group(slot, name, Purpose::ChangedOver { answers });
        }
        self.write_last(slot, name, None);
        self.become_classic(now, slot, name);
        let group = self.group_mut(slot, name).expect("it became another");
        group.members.get_mut(&answer.member).expect("it joined").joining = Some(ticket);
        self.prepare_rebalance(now, slot, name);
    }
}

fn as_classic(now: Mono, member: ConsumerMember, image: &ClusterImage) -> Member {
    let ClassicSide { session_timeout, protocols } = member.classic.expect("only classic members are left");
    let metadata = protocols.first().map(|protocol| protocol.metadata.clone()).unwrap_or_default();
    let may_have = member.assigned.union(&member.revoking).copied().collect();
    Member {
        instance: member.instance,
        client_id: member.client_id,
        client_host: member.client_host,
        session_timeout,
        rebalance_timeout: member.rebalance_timeout,
        protocols,
        assignment: embedded::encode(&may_have, &metadata, image),
        proposed: None,
        joining: None,
        syncing: None,
        is_new: false,
        expires: now.plus(session_timeout),
    }
}
