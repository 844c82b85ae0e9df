//! The coordinator of one shard: slots, groups, timers, writes in flight.

use super::consumer::journal::Parked;
use super::group::{Group, GroupState};
use super::offset_expiry::{Looks, USUALLY_KNOWN_WITHIN};
use super::offsets::{CommittedOffset, OffsetWrite};
use super::record::{self, RecordError};
use super::{Answer, JoinAnswer, Limits, SyncAnswer, Ticket};
use crate::control::ClusterImage;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use millrace_storage::ids::TopicPartition;
use millrace_storage::meta::{Key, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a client's or instance's name that its member id begins with: a name may be as long as the wire's strings,
/// and the id is longer than the name.
const LONGEST_PREFIX: usize = 255;

/// The part of the bound of the groups' memory from which on writes under way keep others from being begun.
pub(super) const WRITES_PER_BOUND: usize = 2;

/// Names a write that is being made durable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteToken(pub u64);

/// What the coordinator wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// A request ends.
    Answer(Ticket, Answer),
    /// Make these writes durable, in order, and tell [`Coordinator::on_written`].
    Write {
        /// Names it.
        token: WriteToken,
        /// The slot.
        slot: u16,
        /// The epoch that the slot was granted with.
        slot_epoch: u64,
        /// Keys with new values; `None` deletes.
        writes: Vec<(Key, Option<Bytes>)>,
    },
}

/// A group's slot.
pub fn slot_of(group: &str) -> u16 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, group.as_bytes());
    u16::try_from(crc % u64::from(crate::control::COORDINATOR_SLOTS)).expect("a remainder of 64")
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) epoch: u64,
    pub(super) groups: BTreeMap<String, Group>,
    /// When it was granted.
    pub(super) since: Mono,
}

/// What a write is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The assignment of this generation: then the group is stable and syncs are answered.
    Assignment { group: String, generation: i32 },
    /// The group's record only; nobody waits.
    State,
    /// A static member came back under a new id: then its join is answered.
    Replacement { ticket: Ticket, answer: JoinAnswer, group: String },
    /// A group of the consumer protocol: then these answers leave, and the record is what it goes back to.
    Consumer { group: String, record: Bytes, answers: Parked },
    /// The last record of a group of the consumer protocol that is a classic one from now on: then these answers leave.
    ChangedOver { answers: Parked },
    /// Offsets: then they are visible and the commit is answered.
    Offsets { ticket: Ticket, group: String, offsets: Vec<OffsetWrite> },
    /// Deletion of offsets: then they are gone and the request is answered.
    OffsetDeletion { ticket: Option<Ticket>, group: String, partitions: Vec<TopicPartition> },
    /// Deletion of a group with these offsets: then it is gone, but for what came to it meanwhile, and the request is
    /// answered.
    Deletion { ticket: Option<Ticket>, group: String, offsets: Vec<TopicPartition> },
}

/// A write under way.
#[derive(Debug)]
struct Writing {
    slot: u16,
    /// Its keys and values.
    bytes: usize,
    purpose: Purpose,
}

/// The coordinator of one shard's groups.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) limits: Limits,
    /// Makes member ids unique over process lives.
    boot: u64,
    next_member: u64,
    next_write: u64,
    /// The topics, and
    pub(super) image: Arc<ClusterImage>,
    /// how often they were told.
    pub(super) image_number: u64,
    pub(super) slots: BTreeMap<u16, Slot>,
    /// For each group with something that ends: a time not later than its next deadline.
    timers: BTreeSet<(Mono, String)>,
    timer_of: BTreeMap<String, Mono>,
    writes: BTreeMap<WriteToken, Writing>,
    pub(super) looks: Looks,
    /// What the groups take, and
    pub(super) bytes: usize,
    /// what the writes under way do.
    pub(super) writing_bytes: usize,
    outputs: Vec<Output>,
}

impl Coordinator {
    /// A coordinator without slots. `boot` is random and new for every process life.
    pub fn new(limits: Limits, boot: u64) -> Coordinator {
        Coordinator {
            limits,
            boot,
            next_member: 0,
            next_write: 0,
            image: Arc::default(),
            image_number: 0,
            slots: BTreeMap::new(),
            timers: BTreeSet::new(),
            timer_of: BTreeMap::new(),
            writes: BTreeMap::new(),
            looks: Looks::new(limits.offset_retention),
            bytes: 0,
            writing_bytes: 0,
            outputs: Vec::new(),
        }
    }

    /// Takes over a slot with what is durable of it. Members get a full session to be heard of.
    ///
    /// # Errors
    /// When a record can't be read: a person must look, the slot is not served.
    pub fn on_slot_granted(
        &mut self,
        now: Mono,
        slot: u16,
        epoch: u64,
        groups: &[(Key, Bytes)],
        offsets: &[(Key, Bytes)],
    ) -> Result<(), RecordError> {
        self.on_slot_revoked(slot);
        let groups = record::load(now, self.limits.consumer_session, groups, offsets)?;
        let deadlines: Vec<_> =
            groups.iter().filter_map(|(name, g)| g.next_deadline().map(|at| (name.clone(), at))).collect();
        let names: Vec<String> = groups.keys().cloned().collect();
        self.slots.insert(slot, Slot { epoch, groups, since: now });
        for name in names {
            self.recount(slot, &name);
        }
        for (name, at) in deadlines {
            self.set_timer(&name, at);
        }
        Ok(())
    }

    /// Gives a slot up: whoever waits is sent to find the coordinator.
    pub fn on_slot_revoked(&mut self, slot: u16) {
        let Some(gone) = self.slots.remove(&slot) else { return };
        for (name, group) in gone.groups {
            self.clear_timer(&name);
            self.bytes -= group.counted;
            for (id, member) in group.members {
                if let Some(ticket) = member.joining {
                    self.answer(ticket, Answer::Join(JoinAnswer::failed(ErrorCode::NotCoordinator, id)));
                }
                if let Some(ticket) = member.syncing {
                    self.answer(ticket, Answer::Sync(SyncAnswer::failed(ErrorCode::NotCoordinator)));
                }
            }
            let parked = group.consumer.map(|mut consumer| consumer.journal.take_parked());
            self.answer_parked(parked.unwrap_or_default(), Err(ErrorCode::NotCoordinator));
        }
        let orphans: Vec<_> =
            self.writes.iter().filter(|(_, write)| write.slot == slot).map(|(token, _)| *token).collect();
        for token in orphans {
            let Writing { bytes, purpose, .. } = self.writes.remove(&token).expect("listed above");
            self.writing_bytes -= bytes;
            match purpose {
                Purpose::Assignment { .. } | Purpose::State => {}
                Purpose::Consumer { answers, .. } | Purpose::ChangedOver { answers } => {
                    self.answer_parked(answers, Err(ErrorCode::NotCoordinator));
                }
                Purpose::Replacement { ticket, answer, .. } => {
                    self.answer(ticket, Answer::Join(JoinAnswer::failed(ErrorCode::NotCoordinator, answer.member)));
                }
                Purpose::Offsets { ticket, .. } => self.answer(ticket, Answer::Code(ErrorCode::NotCoordinator)),
                Purpose::OffsetDeletion { ticket, .. } | Purpose::Deletion { ticket, .. } => {
                    self.answer_deletion(ticket, Err(ErrorCode::NotCoordinator));
                }
            }
        }
    }

    /// A write became durable, or did not. After a failure the slot's owner is asked again (or revoked), so the group
    /// keeps what it had.
    pub fn on_written(&mut self, now: Mono, token: WriteToken, result: Result<(), ErrorCode>) {
        // A write of a slot that was revoked meanwhile: its tickets are answered.
        let Some(Writing { slot, bytes, purpose }) = self.writes.remove(&token) else { return };
        self.writing_bytes -= bytes;
        match purpose {
            Purpose::Assignment { group, generation } => {
                self.on_assignment_written(now, slot, &group, generation, result)
            }
            Purpose::State => {}
            Purpose::Consumer { group, record, answers } => {
                self.on_consumer_written(now, (slot, &group), token, (record, answers), result);
            }
            Purpose::ChangedOver { answers } => self.answer_parked(answers, result),
            Purpose::Replacement { ticket, answer, group } => {
                let answer = match result {
                    Ok(()) => answer,
                    Err(error) => JoinAnswer::failed(error, answer.member),
                };
                self.answer(ticket, Answer::Join(answer));
                self.reschedule(slot, &group);
            }
            Purpose::Offsets { ticket, group, offsets } => {
                if let Some(group) = self.group_mut(slot, &group) {
                    group.offsets.finish(&offsets, result.is_ok());
                }
                // A group that was made for a commit that failed goes.
                self.reschedule(slot, &group);
                self.answer(ticket, Answer::Code(result.err().unwrap_or(ErrorCode::None)));
            }
            Purpose::OffsetDeletion { ticket, group, partitions } => {
                if let Some(group) = self.group_mut(slot, &group) {
                    group.offsets.finish_deletion(&partitions, result.is_ok());
                }
                self.reschedule(slot, &group);
                self.answer_deletion(ticket, result);
            }
            Purpose::Deletion { ticket, group, offsets } => {
                if result.is_ok() {
                    self.on_deleted(slot, &group, &offsets);
                }
                self.answer_deletion(ticket, result);
            }
        }
    }

    /// Answers a deletion, if anyone asked for it.
    fn answer_deletion(&mut self, ticket: Option<Ticket>, result: Result<(), ErrorCode>) {
        if let Some(ticket) = ticket {
            self.answer(ticket, Answer::Code(result.err().unwrap_or(ErrorCode::None)));
        }
    }

    /// Ends what has run out.
    pub fn on_time(&mut self, now: Mono) {
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            let (_, name) = self.timers.pop_first().expect("looked at above");
            self.timer_of.remove(&name);
            let slot = slot_of(&name);
            self.on_group_time(now, slot, &name);
            self.on_consumer_time(now, slot, &name);
            self.reschedule(slot, &name);
        }
        self.look_for_expired_offsets(now);
    }

    /// Its bounds and delays.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// When [`Coordinator::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        // Without a group there is nothing to look at.
        let looks = (self.bytes > 0).then_some(self.looks.next);
        self.timers.first().map(|(at, _)| *at).into_iter().chain(looks).min()
    }

    /// Moves the outputs to the end of `into`.
    pub fn take_outputs(&mut self, into: &mut Vec<Output>) {
        into.append(&mut self.outputs);
    }

    /// The durable offset of a partition.
    ///
    /// # Errors
    /// NOT_COORDINATOR.
    pub fn committed(&self, group: &str, partition: TopicPartition) -> Result<Option<&CommittedOffset>, ErrorCode> {
        Ok(self.find(group)?.and_then(|g| g.offset(partition)))
    }

    /// Whether the group has offsets of topics that are not known here and may have been made a moment before they were
    /// loaded: then nobody can say of a topic that nothing was committed for it.
    pub fn may_lack_topics_of(&self, now: Mono, group: &str) -> bool {
        let unknown = |group: &Group| group.offsets.iter().any(|(p, _)| !self.image.names.contains_key(&p.topic));
        let slot = self.slots.get(&slot_of(group)).filter(|slot| now.since(slot.since) < USUALLY_KNOWN_WITHIN);
        self.image.may_lack_topics && slot.is_some_and(|slot| slot.groups.get(group).is_some_and(unknown))
    }

    /// Whether the group's slot is ours.
    ///
    /// # Errors
    /// NOT_COORDINATOR.
    pub fn coordinates(&self, group: &str) -> Result<(), ErrorCode> {
        self.find(group).map(|_| ())
    }

    /// Every durable offset of a group.
    ///
    /// # Errors
    /// NOT_COORDINATOR.
    pub fn all_committed(&self, group: &str) -> Result<Vec<(TopicPartition, CommittedOffset)>, ErrorCode> {
        Ok(self.find(group)?.map(|g| g.offsets.all()).unwrap_or_default())
    }

    pub(super) fn find(&self, group: &str) -> Result<Option<&Group>, ErrorCode> {
        let slot = self.slots.get(&slot_of(group)).ok_or(ErrorCode::NotCoordinator)?;
        Ok(slot.groups.get(group))
    }

    /// Checks the group's name and that its slot is ours.
    pub(super) fn slot_for(&self, group: &str) -> Result<u16, ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let slot = slot_of(group);
        if self.slots.contains_key(&slot) { Ok(slot) } else { Err(ErrorCode::NotCoordinator) }
    }

    pub(super) fn group_mut(&mut self, slot: u16, group: &str) -> Option<&mut Group> {
        self.slots.get_mut(&slot)?.groups.get_mut(group)
    }

    /// The group, made if it does not exist and there is room for it.
    pub(super) fn group_or_new(&mut self, slot: u16, group: &str) -> Result<&mut Group, ErrorCode> {
        let count: usize = self.slots.values().map(|s| s.groups.len()).sum();
        let room = count < self.limits.groups;
        let groups = &mut self.slots.get_mut(&slot).ok_or(ErrorCode::NotCoordinator)?.groups;
        if !groups.contains_key(group) && !room {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(groups.entry(group.to_owned()).or_insert_with(Group::new))
    }

    pub(super) fn forget(&mut self, slot: u16, group: &str) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            let gone = slot.groups.remove(group);
            self.bytes -= gone.map_or(0, |gone| gone.counted);
        }
        self.clear_timer(group);
    }

    pub(super) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.outputs.push(Output::Answer(ticket, answer));
    }

    /// A member id that no other has.
    pub(super) fn new_member_uuid(&mut self) -> String {
        self.next_member += 1;
        uuid::Uuid::from_u64_pair(self.boot, self.next_member).to_string()
    }

    pub(super) fn new_member_id(&mut self, prefix: &str) -> String {
        let unique = self.new_member_uuid();
        let prefix = &prefix[..prefix.floor_char_boundary(LONGEST_PREFIX)];
        format!("{prefix}-{unique}")
    }

    pub(super) fn write(&mut self, slot: u16, writes: Vec<(Key, Option<Bytes>)>, purpose: Purpose) -> WriteToken {
        self.next_write += 1;
        let token = WriteToken(self.next_write);
        let slot_epoch = self.slots[&slot].epoch;
        let bytes = writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        self.writing_bytes += bytes;
        self.writes.insert(token, Writing { slot, bytes, purpose });
        self.outputs.push(Output::Write { token, slot, slot_epoch, writes });
        token
    }

    /// Partitions of which offsets of the group are being made durable.
    pub(super) fn being_committed(&self, slot: u16, name: &str) -> Vec<TopicPartition> {
        let mut partitions = Vec::new();
        for write in self.writes.values().filter(|write| write.slot == slot) {
            match &write.purpose {
                Purpose::Offsets { group, offsets, .. } if group == name => {
                    partitions.extend(offsets.iter().map(|offset| offset.partition));
                }
                _ => {}
            }
        }
        partitions
    }

    /// What a write under way is for.
    pub(super) fn purpose_mut(&mut self, token: WriteToken) -> &mut Purpose {
        &mut self.writes.get_mut(&token).expect("the write is under way").purpose
    }

    /// Writes the group's record.
    pub(super) fn write_group(&mut self, slot: u16, name: &str, purpose: Purpose) {
        let group = self.slots[&slot].groups.get(name).expect("written while it exists");
        let value = record::encode_group(group);
        self.write(slot, vec![(keys::group(slot, name), Some(value))], purpose);
    }

    /// Counts a group that may have changed, and sets its timer to its next deadline; drops a group of which nothing is
    /// left.
    pub(super) fn reschedule(&mut self, slot: u16, name: &str) {
        self.recount(slot, name);
        let Some(group) = self.group_mut(slot, name) else { return self.clear_timer(name) };
        let (deadline, void) = (group.next_deadline(), group.is_void() && group.state == GroupState::Empty);
        // A group whose record is stored keeps its generation; one that was never stored may go without a trace.
        if void && group.generation == 0 && !group.offsets.is_busy() {
            return self.forget(slot, name);
        }
        match deadline {
            Some(at) => self.set_timer(name, at),
            None => self.clear_timer(name),
        }
    }

    fn set_timer(&mut self, name: &str, at: Mono) {
        // A timer that fires early is set anew then; so a heartbeat, which only moves the deadline out, costs nothing.
        if self.timer_of.get(name).is_some_and(|set| *set <= at) {
            return;
        }
        self.clear_timer(name);
        self.timers.insert((at, name.to_owned()));
        self.timer_of.insert(name.to_owned(), at);
    }

    fn clear_timer(&mut self, name: &str) {
        if let Some(at) = self.timer_of.remove(name) {
            self.timers.remove(&(at, name.to_owned()));
        }
    }
}
