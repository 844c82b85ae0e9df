//! Heartbeats, leaving, silence; what operators see of groups.

use super::coordinator::{Coordinator, Purpose};
use super::group::{GroupState, Member};
use super::{Answer, Caller, JoinAnswer, SyncAnswer, Ticket};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use millrace_storage::ids::TopicPartition;
use millrace_storage::meta::keys;
use std::collections::BTreeSet;

/// Whom a LeaveGroup takes out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaver {
    /// Member id; may be empty where an instance is given.
    pub member: String,
    /// Instance of a static member.
    pub instance: Option<String>,
}

/// A group as DescribeGroups and ListGroups show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupView {
    /// Name.
    pub group: String,
    /// State, by Kafka's name.
    pub state: &'static str,
    /// Protocol type, empty if it never had one.
    pub protocol_type: String,
    /// The chosen assignor, empty unless stable.
    pub protocol: String,
    /// Members.
    pub members: Vec<MemberView>,
}

/// A group as ListGroups shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    /// Name.
    pub group: String,
    /// Protocol type, empty if it never had one.
    pub protocol_type: String,
    /// State, by Kafka's name.
    pub state: &'static str,
    /// Which protocol, by KIP-848's names: `classic` or `consumer`.
    pub kind: &'static str,
}

/// A member as DescribeGroups shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberView {
    /// Id.
    pub member: String,
    /// Instance.
    pub instance: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Client's address.
    pub client_host: String,
    /// Metadata for the chosen assignor.
    pub metadata: Bytes,
    /// Its part.
    pub assignment: Bytes,
}

impl Coordinator {
    /// A member says that it is alive.
    pub fn heartbeat(&mut self, now: Mono, ticket: Ticket, group: &str, caller: &Caller) {
        let checked = match self.slot_of_consumers(now, group) {
            Some(slot) => self.heartbeat_consumers(now, slot, group, caller),
            None => self.check_heartbeat(now, group, caller),
        };
        let code = match checked {
            Ok(()) => ErrorCode::None,
            Err(error) => error,
        };
        self.answer(ticket, Answer::Code(code));
    }

    fn check_heartbeat(&mut self, now: Mono, name: &str, caller: &Caller) -> Result<(), ErrorCode> {
        let slot = self.slot_for(name)?;
        let group = self.group_mut(slot, name).ok_or(ErrorCode::UnknownMemberId)?;
        group.check_generation(caller)?;
        let state = group.state;
        let member = group.members.get_mut(&caller.member).expect("checked above");
        member.expires = now.plus(member.session_timeout);
        if state == GroupState::PreparingRebalance { Err(ErrorCode::RebalanceInProgress) } else { Ok(()) }
    }

    /// Members leave of their own accord, or an operator takes static ones out.
    pub fn leave(&mut self, now: Mono, ticket: Ticket, name: &str, leavers: &[Leaver]) {
        let slot = match self.slot_for(name) {
            Ok(slot) => slot,
            Err(error) => return self.answer(ticket, Answer::Code(error)),
        };
        if self.slot_of_consumers(now, name).is_some() {
            return self.leave_as_classic(now, slot, ticket, name, leavers);
        }
        let codes = leavers
            .iter()
            .map(|leaver| match self.take_out(now, slot, name, leaver) {
                Ok(()) => ErrorCode::None,
                Err(error) => error,
            })
            .collect();
        self.answer(ticket, Answer::Leave(codes));
        self.reschedule(slot, name);
    }

    fn take_out(&mut self, now: Mono, slot: u16, name: &str, leaver: &Leaver) -> Result<(), ErrorCode> {
        let group = self.group_mut(slot, name).ok_or(ErrorCode::UnknownMemberId)?;
        if leaver.instance.is_none() && group.pending.remove(&leaver.member).is_some() {
            self.try_complete_join(now, slot, name);
            return Ok(());
        }
        let id = match &leaver.instance {
            None => leaver.member.clone(),
            Some(instance) => group.statics.get(instance).cloned().ok_or(ErrorCode::UnknownMemberId)?,
        };
        if leaver.instance.is_some() && !leaver.member.is_empty() && leaver.member != id {
            return Err(ErrorCode::FencedInstanceId);
        }
        if !group.members.contains_key(&id) {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.remove_member(now, slot, name, &id);
        Ok(())
    }

    /// Takes a member out and lets the group go on without it.
    fn remove_member(&mut self, now: Mono, slot: u16, name: &str, id: &str) {
        let group = self.group_mut(slot, name).expect("the member is in it");
        let Some(Member { joining, syncing, .. }) = group.remove(id) else { return };
        let state = group.state;
        if let Some(ticket) = joining {
            let answer = JoinAnswer::failed(ErrorCode::UnknownMemberId, id.to_owned());
            self.answer(ticket, Answer::Join(answer));
        }
        if let Some(ticket) = syncing {
            self.answer(ticket, Answer::Sync(SyncAnswer::failed(ErrorCode::UnknownMemberId)));
        }
        match state {
            GroupState::Empty => {}
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(now, slot, name),
            GroupState::PreparingRebalance => self.try_complete_join(now, slot, name),
        }
    }

    /// What ran out in one group: silent members and pending ids, the time to join, the time to sync.
    pub(super) fn on_group_time(&mut self, now: Mono, slot: u16, name: &str) {
        let Some(group) = self.group_mut(slot, name) else { return };
        group.pending.retain(|_, until| *until > now);
        let silent: Vec<String> =
            group.members.iter().filter(|(_, m)| m.is_expired(now)).map(|(id, _)| id.clone()).collect();
        for id in silent {
            self.remove_member(now, slot, name, &id);
        }
        let Some(group) = self.group_mut(slot, name) else { return };
        if group.state == GroupState::CompletingRebalance
            && !group.storing
            && group.sync_until.is_some_and(|at| at <= now)
        {
            group.sync_until = None;
            let late: Vec<String> =
                group.members.iter().filter(|(_, m)| m.syncing.is_none()).map(|(id, _)| id.clone()).collect();
            for id in late {
                self.remove_member(now, slot, name, &id);
            }
        }
        let Some(group) = self.group_mut(slot, name) else { return };
        match group.rebalance {
            Some(rebalance) if rebalance.until <= now => self.on_rebalance_timeout(now, slot, name),
            _ => self.try_complete_join(now, slot, name),
        }
        if let Some(group) = self.group_mut(slot, name)
            && group.state != GroupState::CompletingRebalance
        {
            group.sync_until = None;
        }
    }

    /// Deletes a group that has no members.
    pub fn delete(&mut self, ticket: Ticket, name: &str) {
        let slot = if name.is_empty() { Err(ErrorCode::GroupIdNotFound) } else { self.slot_for(name) };
        let deletable = slot.and_then(|slot| {
            let group = self.group_mut(slot, name).ok_or(ErrorCode::GroupIdNotFound)?;
            if group.state != GroupState::Empty
                || group.has_consumers()
                || group.is_being_stored()
                || !group.pending.is_empty()
            {
                return Err(ErrorCode::NonEmptyGroup);
            }
            let mut offsets: BTreeSet<TopicPartition> = group.offsets.iter().map(|(partition, _)| *partition).collect();
            // What is being committed is durable before the deletion is.
            offsets.extend(self.being_committed(slot, name));
            Ok((slot, offsets.into_iter().collect::<Vec<_>>()))
        });
        match deletable {
            Ok((slot, offsets)) => {
                let mut writes = vec![(keys::group(slot, name), None)];
                writes.extend(offsets.iter().map(|partition| (keys::offset(slot, name, *partition), None)));
                self.write(slot, writes, Purpose::Deletion { ticket: Some(ticket), group: name.to_owned(), offsets });
            }
            Err(error) => self.answer(ticket, Answer::Code(error)),
        }
    }

    /// A group's deletion is durable. What came to it while that was being written is written after it, and stays.
    pub(super) fn on_deleted(&mut self, slot: u16, name: &str, offsets: &[TopicPartition]) {
        let Some(group) = self.group_mut(slot, name) else { return };
        group.offsets.drop_durable(offsets);
        let in_use = group.state != GroupState::Empty || group.has_consumers() || group.is_being_stored();
        let came = in_use || !group.pending.is_empty();
        if came || !group.offsets.is_empty() {
            return self.reschedule(slot, name);
        }
        self.forget(slot, name);
    }

    /// Describes a classic group; `None` if there is none of this name (Kafka: state Dead).
    ///
    /// # Errors
    /// NOT_COORDINATOR.
    pub fn describe(&self, name: &str) -> Result<Option<GroupView>, ErrorCode> {
        // There is no group without a name.
        if name.is_empty() {
            return Ok(None);
        }
        self.slot_for(name)?;
        let Some(group) = self.find(name)?.filter(|group| group.consumer.is_none()) else { return Ok(None) };
        let stable = group.state == GroupState::Stable;
        let protocol = group.protocol.clone().filter(|_| stable).unwrap_or_default();
        let members = group.members.iter().map(|(id, m)| MemberView {
            member: id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: if stable { m.metadata(&protocol) } else { Bytes::new() },
            // What it was told last, also while the group rebalances.
            assignment: m.assignment.clone(),
        });
        let members = members.collect();
        Ok(Some(GroupView {
            group: name.to_owned(),
            state: group.state.name(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol,
            members,
        }))
    }

    /// Every group of this shard.
    pub fn list(&self) -> Vec<ListedGroup> {
        let groups = self.slots.values().flat_map(|slot| &slot.groups);
        let listed = groups.map(|(name, group)| match &group.consumer {
            Some(consumer) => ListedGroup {
                group: name.clone(),
                protocol_type: "consumer".to_owned(),
                state: consumer.state_name(),
                kind: "consumer",
            },
            None => ListedGroup {
                group: name.clone(),
                protocol_type: group.protocol_type.clone().unwrap_or_default(),
                state: group.state.name(),
                kind: "classic",
            },
        });
        listed.collect()
    }
}
