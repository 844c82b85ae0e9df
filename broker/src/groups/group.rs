//! One group: members, generation, state. No I/O, no answers: what a move means for waiting requests is decided by
//! the coordinator's files.

use super::consumer::state::ConsumerGroup;
use super::offsets::{CommittedOffset, GroupOffsets};
use super::{Limits, Ticket};
use bytes::Bytes;
use millrace_storage::env::Mono;
use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An assignor's name and a member's metadata for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// The subscription, opaque.
    pub metadata: Bytes,
}

/// State of a group, by Kafka's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    /// No members; offsets may exist.
    Empty,
    /// Members are rejoining.
    PreparingRebalance,
    /// A generation began; its leader's assignment is awaited or being made durable.
    CompletingRebalance,
    /// Every member has, or can have, its assignment.
    Stable,
}

impl GroupState {
    /// As DescribeGroups and ListGroups spell it.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
        }
    }
}

/// One member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Member {
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<Protocol>,
    /// What it was told last: until it is told otherwise it may own that.
    pub(super) assignment: Bytes,
    /// What it will be told once that is durable.
    pub(super) proposed: Option<Bytes>,
    /// Its JoinGroup that waits.
    pub(super) joining: Option<Ticket>,
    /// Its SyncGroup that waits.
    pub(super) syncing: Option<Ticket>,
    /// Not yet in any generation.
    pub(super) is_new: bool,
    /// When silence ends its membership.
    pub(super) expires: Mono,
}

impl Member {
    /// A waiting member is alive however silent, but for a new one that waits for its first generation.
    pub(super) fn is_expired(&self, now: Mono) -> bool {
        let waits = self.joining.is_some() || self.syncing.is_some();
        (self.is_new || !waits) && self.expires <= now
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|p| p.name == protocol).map(|p| p.metadata.clone()).unwrap_or_default()
    }
}

/// A rebalance under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rebalance {
    /// When the generation begins with whoever has joined.
    pub(super) until: Mono,
    /// The group was empty: wait `until` in any case, and again while new members come, for this long in all.
    pub(super) initial_left: Option<Duration>,
}

/// A group.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Group {
    pub(super) state: GroupState,
    /// When a classic group lost its last member, Unix ms, if that is known.
    pub(super) empty_since: Option<i64>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Member ids by instance.
    pub(super) statics: BTreeMap<String, String>,
    /// Ids given out with MEMBER_ID_REQUIRED, until when.
    pub(super) pending: BTreeMap<String, Mono>,
    pub(super) rebalance: Option<Rebalance>,
    /// A member came since the initial delay was last extended.
    pub(super) new_member_came: bool,
    /// Members that have not sent SyncGroup by then are out.
    pub(super) sync_until: Option<Mono>,
    /// An assignment of this generation is being made durable.
    pub(super) storing: bool,
    /// The members, if the group's protocol is the consumer protocol, also those that speak the classic one: then there are
    /// none in `members`.
    pub(super) consumer: Option<ConsumerGroup>,
    pub(super) offsets: GroupOffsets,
    /// Bytes that the coordinator counts it as.
    pub(super) counted: usize,
}

impl Group {
    pub(super) fn new() -> Group {
        Group {
            state: GroupState::Empty,
            empty_since: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            rebalance: None,
            new_member_came: false,
            sync_until: None,
            storing: false,
            consumer: None,
            offsets: GroupOffsets::default(),
            counted: 0,
        }
    }

    /// Whether nothing of it needs to be kept.
    pub(super) fn is_void(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty() && self.offsets.is_empty() && self.consumer.is_none()
    }

    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        self.members.len() + self.pending.len() >= limits.members
    }

    /// Whether a member with these protocols can be in the group beside the members that it has.
    pub(super) fn accepts(&self, protocol_type: &str, protocols: &[Protocol], without: Option<&str>) -> bool {
        if protocols.is_empty() || protocol_type.is_empty() {
            return false;
        }
        let others: Vec<&Member> =
            self.members.iter().filter(|(id, _)| Some(id.as_str()) != without).map(|(_, member)| member).collect();
        if others.is_empty() && self.state == GroupState::Empty {
            return true;
        }
        let supported = |p: &Protocol| others.iter().all(|m| m.protocols.iter().any(|theirs| theirs.name == p.name));
        self.protocol_type.as_deref().is_none_or(|own| own == protocol_type) && protocols.iter().any(supported)
    }

    /// The assignor that most members prefer among those that all know; ties go to the first by name.
    pub(super) fn choose_protocol(&self) -> Option<String> {
        let mut members = self.members.values();
        let first = members.next()?;
        let mut common: BTreeSet<&str> = first.protocols.iter().map(|p| p.name.as_str()).collect();
        for member in members {
            common.retain(|name| member.protocols.iter().any(|p| p.name == *name));
        }
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let favourite = member.protocols.iter().find(|p| common.contains(p.name.as_str()))?;
            *votes.entry(favourite.name.as_str()).or_default() += 1;
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|m| m.joining.is_some())
    }

    /// The longest rebalance timeout of any member.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default()
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Takes a member out, its instance and leadership with it.
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Id, instance and metadata of every member, as the leader is told.
    pub(super) fn roster(&self) -> Vec<(String, Option<String>, Bytes)> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members.iter().map(|(id, m)| (id.clone(), m.instance.clone(), m.metadata(protocol))).collect()
    }

    /// The next time at which something of the group ends.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let waits = |m: &&Member| m.is_new || (m.joining.is_none() && m.syncing.is_none());
        let members = self.members.values().filter(waits).map(|m| m.expires);
        members
            .chain(self.pending.values().copied())
            .chain(self.rebalance.map(|r| r.until))
            .chain(self.sync_until.filter(|_| !self.storing))
            .chain(self.consumer.as_ref().and_then(ConsumerGroup::next_deadline))
            .min()
    }

    /// The durable offset of a partition.
    pub(super) fn offset(&self, partition: TopicPartition) -> Option<&CommittedOffset> {
        self.offsets.committed(partition)
    }
}
