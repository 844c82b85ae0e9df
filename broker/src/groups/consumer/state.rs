//! A group and its members: epochs, the target, and the steps towards it (KIP-848). No I/O and no answers.

use super::assignors::{Assignor, Subscriber};
use super::journal::Journal;
use super::{ConsumerHeartbeat, JOINS, PAUSES, Partitions, Refusal, subscription};
use crate::control::ClusterImage;
use crate::groups::group::Protocol;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use millrace_storage::ids::{TopicId, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Where a member is on its way to the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Step {
    /// It has its part of the target of its epoch.
    Stable,
    /// It has partitions to give up before anything else.
    Revoking,
    /// It waits for partitions that others have not given up.
    Waiting,
}

/// What a member that speaks the classic protocol said of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct ClassicSide {
    pub(in super::super) session_timeout: Duration,
    /// Assignors in order of preference, each with the embedded subscription.
    pub(in super::super) protocols: Vec<Protocol>,
}

/// A member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct ConsumerMember {
    pub(in super::super) instance: Option<String>,
    pub(in super::super) rack: Option<String>,
    pub(in super::super) client_id: String,
    pub(in super::super) client_host: String,
    pub(in super::super) rebalance_timeout: Duration,
    pub(in super::super) topics: BTreeSet<String>,
    pub(in super::super) regex: Option<String>,
    pub(in super::super) assignor: Option<String>,
    /// [`PAUSES`] while a static member is away.
    pub(in super::super) epoch: i32,
    pub(in super::super) previous_epoch: i32,
    pub(in super::super) step: Step,
    pub(in super::super) assigned: Partitions,
    /// What it shall give up and has not.
    pub(in super::super) revoking: Partitions,
    pub(in super::super) target: Partitions,
    /// When silence ends its membership.
    pub(in super::super) expires: Mono,
    /// When it must have given up what it shall.
    pub(in super::super) revoke_by: Option<Mono>,
    /// Of a member that speaks the classic protocol.
    pub(in super::super) classic: Option<ClassicSide>,
    /// When a classic member that was told to join again must have done so,
    pub(in super::super) join_by: Option<Mono>,
    /// and when one that joined must have asked for its assignment.
    pub(in super::super) sync_by: Option<Mono>,
}

impl ConsumerMember {
    /// A member of which nothing is known but its timeouts.
    pub(super) fn new(expires: Mono) -> ConsumerMember {
        ConsumerMember {
            instance: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout: Duration::ZERO,
            topics: BTreeSet::new(),
            regex: None,
            assignor: None,
            epoch: 0,
            previous_epoch: 0,
            step: Step::Stable,
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            target: Partitions::new(),
            expires,
            revoke_by: None,
            classic: None,
            join_by: None,
            sync_by: None,
        }
    }

    /// Silence after which it is out, if it speaks this protocol with a session of `consumer_session`.
    pub(in super::super) fn session(&self, consumer_session: Duration) -> Duration {
        self.classic.as_ref().map_or(consumer_session, |classic| classic.session_timeout)
    }

    /// Whether both are stored alike: deadlines are not stored.
    fn is_stored_as(&self, other: &ConsumerMember) -> bool {
        let deadlines = (other.expires, other.join_by, other.sync_by);
        let mut same = self.clone();
        (same.expires, same.join_by, same.sync_by) = deadlines;
        same == *other
    }

    /// Takes over what the member says of itself; whether its subscription changed.
    pub(super) fn update(&mut self, said: &ConsumerHeartbeat) -> bool {
        let before = (self.topics.clone(), self.regex.clone());
        if said.rack.is_some() {
            self.rack.clone_from(&said.rack);
        }
        if let Some(timeout) = said.rebalance_timeout {
            self.rebalance_timeout = timeout;
        }
        if let Some(topics) = &said.topics {
            self.topics.clone_from(topics);
        }
        if let Some(regex) = &said.regex {
            self.regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
        }
        if said.assignor.is_some() {
            self.assignor.clone_from(&said.assignor);
        }
        self.client_id.clone_from(&said.client_id);
        self.client_host.clone_from(&said.client_host);
        // Whoever spoke the classic protocol speaks this one now.
        (self.classic, self.join_by, self.sync_by) = (None, None, None);
        before != (self.topics.clone(), self.regex.clone())
    }

    /// Whether it has all of its part of the target of `epoch`.
    pub(super) fn is_settled(&self, epoch: i32) -> bool {
        self.step == Step::Stable && self.epoch == epoch
    }
}

/// A group.
#[derive(Clone, PartialEq, Debug)]
pub(in super::super) struct ConsumerGroup {
    pub(in super::super) epoch: i32,
    /// The epoch that the members' targets were made for.
    pub(in super::super) assignment_epoch: i32,
    pub(super) assignor: Assignor,
    pub(in super::super) members: BTreeMap<String, ConsumerMember>,
    /// Member ids by instance.
    pub(in super::super) statics: BTreeMap<String, String>,
    /// All that members have, or have yet to give up.
    held: Partitions,
    /// Partitions of the topics subscribed to, as of the group's epoch.
    pub(in super::super) counts: BTreeMap<TopicId, u32>,
    /// Names by the expressions that match them.
    matched: BTreeMap<String, BTreeSet<String>>,
    /// The image that subscriptions were looked up in; `None`: they must be again.
    seen_image: Option<u64>,
    pub(in super::super) journal: Journal,
}

impl ConsumerGroup {
    /// A group without members.
    pub(super) fn new(epoch: i32) -> ConsumerGroup {
        ConsumerGroup {
            epoch,
            assignment_epoch: epoch,
            assignor: Assignor::Uniform,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            held: Partitions::new(),
            counts: BTreeMap::new(),
            matched: BTreeMap::new(),
            seen_image: None,
            journal: Journal::default(),
        }
    }

    /// Puts a member in, under an id that is free.
    pub(super) fn insert(&mut self, id: String, member: ConsumerMember) {
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        for partition in member.assigned.iter().chain(&member.revoking) {
            assert!(self.held.insert(*partition), "a partition is held by one member");
        }
        assert!(self.members.insert(id, member).is_none(), "the id is free");
    }

    /// Takes over what was heard of a member: it may be new, take the place of `replaced`, or bear the instance id from now
    /// on. `update` enters what it says of itself and gives whether its subscription changed; then the group is brought up
    /// to date. Gives the member as it was before, and whether the group changed: a session that goes on is no change worth
    /// a write.
    pub(super) fn hear(
        &mut self,
        now: Mono,
        (id, replaced, instance): (&str, Option<&str>, Option<&str>),
        owned: Option<&Partitions>,
        image: (&ClusterImage, u64),
        update: impl FnOnce(&mut ConsumerMember) -> bool,
    ) -> (Option<ConsumerMember>, bool) {
        let before = self.members.get(id).cloned();
        let preferred = self.preferred_assignor();
        let is_one_less = self.seat(id, replaced, now);
        if let Some(instance) = instance {
            self.name_instance(id, instance);
        }
        let resubscribed = update(self.members.get_mut(id).expect("put in above"));
        if is_one_less || resubscribed || self.preferred_assignor() != preferred {
            self.subscription_changed();
        }
        let advanced = self.advance(now, id, owned, image);
        let changed = advanced || !before.as_ref().is_some_and(|before| before.is_stored_as(&self.members[id]));
        (before, changed)
    }

    /// Makes a place for a member that may be new, or take the place of `replaced`, whose part it goes on with unless it is
    /// in the group already. Whether another member is gone by that; that one came is told by its subscription.
    fn seat(&mut self, id: &str, replaced: Option<&str>, now: Mono) -> bool {
        let is_known = self.members.contains_key(id);
        match replaced.map(|old| self.take(old).expect("the instance names a member")) {
            Some(mut member) if !is_known => {
                (member.epoch, member.previous_epoch) = (JOINS, JOINS);
                self.insert(id.to_owned(), member);
                false
            }
            Some(_) => true,
            None if is_known => false,
            None => {
                self.insert(id.to_owned(), ConsumerMember::new(now));
                false
            }
        }
    }

    /// The member is the instance's from now on, and no other's.
    fn name_instance(&mut self, id: &str, instance: &str) {
        let former = self.members[id].instance.as_deref().filter(|former| *former != instance);
        if let Some(former) = former {
            self.statics.remove(former);
        }
        self.statics.insert(instance.to_owned(), id.to_owned());
        self.members.get_mut(id).expect("looked at above").instance = Some(instance.to_owned());
    }

    /// Brings the group up to date after a member was heard, and that member nearer to its target; whether the group
    /// changed by that. The topics are told with their number.
    fn advance(
        &mut self,
        now: Mono,
        id: &str,
        owned: Option<&Partitions>,
        (image, number): (&ClusterImage, u64),
    ) -> bool {
        let refreshed = self.refresh(image, number);
        let reassigned = self.assign(image);
        self.reconcile(now, id, owned);
        refreshed || reassigned
    }

    /// Takes a member out, with all that it has.
    pub(super) fn take(&mut self, id: &str) -> Option<ConsumerMember> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance {
            self.statics.remove(instance);
        }
        self.release(&member.assigned);
        self.release(&member.revoking);
        Some(member)
    }

    /// Members are gone for good: the others get what they had.
    pub(super) fn changed_by_leaving(&mut self) {
        self.next_epoch();
        if self.members.is_empty() {
            // Nobody is there to assign anything to.
            self.assignment_epoch = self.epoch;
        }
        self.seen_image = None;
    }

    /// A static member leaves and will be back: it keeps its part, and needs nothing to give up.
    pub(super) fn pause(&mut self, id: &str) {
        let mut member = self.take(id).expect("a member pauses");
        member.epoch = PAUSES;
        member.step = Step::Stable;
        member.revoking.clear();
        member.revoke_by = None;
        self.insert(id.to_owned(), member);
    }

    /// Whether others still hold something that the member waits for.
    pub(super) fn waits_for_others(&self, member: &ConsumerMember) -> bool {
        member.target.iter().any(|partition| !member.assigned.contains(partition) && self.held.contains(partition))
    }

    /// Whether all members speak the classic protocol, and there are any.
    pub(super) fn is_all_classic(&self) -> bool {
        !self.members.is_empty() && self.members.values().all(|member| member.classic.is_some())
    }

    /// Whether a classic member with these protocols can be in the group beside the classic members that it has.
    pub(super) fn accepts(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        let has = |protocols: &[Protocol], name: &str| protocols.iter().any(|protocol| protocol.name == name);
        let others = || self.members.values().filter_map(|member| member.classic.as_ref());
        let supported = |name: &str| others().all(|classic| has(&classic.protocols, name));
        protocol_type == super::CONSUMERS && protocols.iter().any(|protocol| supported(&protocol.name))
    }

    fn release(&mut self, partitions: &Partitions) {
        partitions.iter().for_each(|partition| assert!(self.held.remove(partition), "what is released was held"));
    }

    pub(super) fn next_epoch(&mut self) {
        self.epoch = self.epoch.checked_add(1).expect("2^31 changes of one group");
    }

    /// A member means other topics than before: one that came and means none changes nothing for the others.
    fn subscription_changed(&mut self) {
        self.next_epoch();
        self.seen_image = None;
    }

    /// Looks the subscriptions up if they or the topics may have changed; whether the group changed by that.
    pub(super) fn refresh(&mut self, image: &ClusterImage, number: u64) -> bool {
        if self.seen_image == Some(number) {
            return false;
        }
        let mut matched = BTreeMap::new();
        for expression in self.members.values().filter_map(|member| member.regex.as_ref()) {
            if !matched.contains_key(expression) {
                // Each was compiled when it came; one that another version of us stored may match nothing.
                let regex = subscription::compile(expression).ok();
                let matches = |name: &&String| regex.as_ref().is_some_and(|regex| regex.is_match(name));
                matched.insert(expression.clone(), image.topics.keys().filter(matches).cloned().collect());
            }
        }
        self.matched = matched;
        self.seen_image = Some(number);
        let counts = self.partitions_in(image);
        if self.counts == counts {
            return false;
        }
        self.counts = counts;
        // An epoch without a target yet takes this change in.
        if self.epoch == self.assignment_epoch {
            self.next_epoch();
        }
        true
    }

    /// Numbers of partitions of the topics subscribed to.
    fn partitions_in(&self, image: &ClusterImage) -> BTreeMap<TopicId, u32> {
        let names: BTreeSet<&String> = self.members.values().flat_map(|member| self.names_of(member)).collect();
        let topics = names.into_iter().filter_map(|name| image.topics.get(name)).filter(|topic| !topic.deleting);
        let count = |partitions: usize| u32::try_from(partitions).expect("a topic has at most 2^31 partitions");
        topics.map(|topic| (topic.id, count(topic.partitions.len()))).collect()
    }

    /// The members have their parts of the topics as these are now, which is no change then. What nobody has yet is one.
    pub(super) fn know_topics(&mut self, image: &ClusterImage) {
        let counts = self.partitions_in(image);
        let is_there =
            |partition: &&TopicPartition| counts.get(&partition.topic).is_some_and(|count| partition.index < *count);
        let assigned: usize = self.members.values().map(|member| member.assigned.iter().filter(is_there).count()).sum();
        if assigned == counts.values().map(|count| *count as usize).sum::<usize>() {
            self.counts = counts;
        }
    }

    fn names_of<'a>(&'a self, member: &'a ConsumerMember) -> impl Iterator<Item = &'a String> {
        member
            .topics
            .iter()
            .chain(member.regex.as_ref().and_then(|regex| self.matched.get(regex)).into_iter().flatten())
    }

    /// Whether a member subscribes to the topic of this name.
    pub(in super::super) fn subscribes(&self, topic: &str) -> bool {
        self.members.values().any(|member| self.names_of(member).any(|name| name == topic))
    }

    /// The assignor that most members want; the default where none says so, the first by name among equals.
    fn preferred_assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for wanted in self.members.values().filter_map(|member| Assignor::by_name(member.assignor.as_deref()?)) {
            *votes.entry(wanted).or_default() += 1;
        }
        let most = votes.values().copied().max();
        votes.into_iter().find(|(_, count)| Some(*count) == most).map_or(Assignor::Uniform, |(assignor, _)| assignor)
    }

    /// Makes the target of the group's epoch if it has none; whether it was made.
    pub(super) fn assign(&mut self, image: &ClusterImage) -> bool {
        if self.assignment_epoch == self.epoch {
            return false;
        }
        let id_of = |name: &String| image.topics.get(name).map(|topic| topic.id);
        let subscribers: Vec<Subscriber<'_>> = self
            .members
            .iter()
            .map(|(id, member)| Subscriber {
                order: member.instance.as_deref().map_or((true, id.as_str()), |instance| (false, instance)),
                topics: self.names_of(member).filter_map(id_of).filter(|id| self.counts.contains_key(id)).collect(),
                before: &member.target,
            })
            .collect();
        let assignor = self.preferred_assignor();
        let targets = assignor.assign(&subscribers, &self.counts);
        for (member, target) in self.members.values_mut().zip(targets) {
            member.target = target;
        }
        self.assignor = assignor;
        self.assignment_epoch = self.epoch;
        true
    }

    /// Leads a member one step towards its target. `owned` is what it says that it owns, if it said so.
    pub(super) fn reconcile(&mut self, now: Mono, id: &str, owned: Option<&Partitions>) {
        let goal = self.assignment_epoch;
        let member = &self.members[id];
        let holds_on = |to: &Partitions| owned.is_none_or(|owned| !owned.is_disjoint(to));
        match member.step {
            Step::Stable if member.epoch == goal => return,
            Step::Revoking if holds_on(&member.revoking) => return,
            Step::Stable | Step::Revoking | Step::Waiting => {}
        }
        let mut member = self.take(id).expect("looked at above");
        let kept: Partitions = member.assigned.intersection(&member.target).copied().collect();
        let revoking: Partitions = member.assigned.difference(&kept).copied().collect();
        member.previous_epoch = member.epoch;
        if !revoking.is_empty() && holds_on(&revoking) {
            member.step = Step::Revoking;
            // A classic member has the time to join again instead.
            member.revoke_by = member.classic.is_none().then(|| now.plus(member.rebalance_timeout));
            (member.assigned, member.revoking) = (kept, revoking);
        } else {
            let wanted = member.target.len();
            let held = &self.held;
            member.assigned = member.target.iter().filter(|p| kept.contains(p) || !held.contains(p)).copied().collect();
            member.revoking.clear();
            member.revoke_by = None;
            member.step = if member.assigned.len() < wanted { Step::Waiting } else { Step::Stable };
            member.epoch = goal;
        }
        self.insert(id.to_owned(), member);
    }

    /// Whether an epoch that a member says is the one that it was told last, or, with no more than it has, the one
    /// before: the answer with the new one may have been lost.
    pub(super) fn check_epoch(&self, id: &str, epoch: i32, owned: Option<&Partitions>) -> Result<(), Refusal> {
        let member = &self.members[id];
        let repeats = epoch == member.previous_epoch && owned.is_some_and(|owned| owned.is_subset(&member.assigned));
        let greater = match epoch {
            _ if epoch == member.epoch => return Ok(()),
            _ if epoch > member.epoch => "greater",
            _ if repeats => return Ok(()),
            _ => "smaller",
        };
        let message = format!(
            "The consumer group member has a {greater} member epoch ({epoch}) than the one known by the group \
             coordinator ({}). The member must abandon all its partitions and rejoin.",
            member.epoch
        );
        Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
    }

    /// The next time at which something of a member ends.
    pub(in super::super) fn next_deadline(&self) -> Option<Mono> {
        let of = |member: &ConsumerMember| [Some(member.expires), member.revoke_by, member.join_by, member.sync_by];
        self.members.values().flat_map(of).flatten().min()
    }

    /// Members that were silent, held on to partitions, or did not join or sync, for too long.
    pub(super) fn overdue(&self, now: Mono) -> Vec<String> {
        let until = |member: &ConsumerMember| [member.revoke_by, member.join_by, member.sync_by];
        let late =
            |member: &ConsumerMember| member.expires <= now || until(member).into_iter().flatten().any(|by| by <= now);
        self.members.iter().filter(|(_, member)| late(member)).map(|(id, _)| id.clone()).collect()
    }

    /// By Kafka's name.
    pub(in super::super) fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.assignment_epoch {
            "Assigning"
        } else if self.members.values().all(|member| member.is_settled(self.assignment_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }
}
