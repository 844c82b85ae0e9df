//! Committed offsets: visible once durable.

use super::coordinator::{Coordinator, Purpose};
use super::group::GroupState;
use super::{Answer, Caller, Ticket, record};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use millrace_storage::ids::{TopicId, TopicPartition};
use millrace_storage::meta::keys;
use std::collections::BTreeMap;

/// What a group committed for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    /// Offset of the next record to read.
    pub offset: i64,
    /// Leader epoch of the last record read; −1 if not said.
    pub leader_epoch: i32,
    /// The client's note.
    pub metadata: String,
    /// When it was committed, Unix milliseconds.
    pub committed_at: i64,
    /// When it shall go, if the commit said so: Unix milliseconds.
    pub expires_at: Option<i64>,
}

/// An offset that is being made durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct OffsetWrite {
    pub(super) partition: TopicPartition,
    pub(super) value: CommittedOffset,
}

/// The offsets of one group.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct GroupOffsets {
    durable: BTreeMap<TopicPartition, CommittedOffset>,
    /// What those take.
    bytes: usize,
    /// Writes under way, so that a group is not dropped beneath them.
    busy: usize,
}

impl GroupOffsets {
    pub(super) fn from_durable(durable: BTreeMap<TopicPartition, CommittedOffset>) -> Self {
        let bytes = durable.values().map(CommittedOffset::memory).sum();
        GroupOffsets { durable, bytes, busy: 0 }
    }

    pub(super) fn committed(&self, partition: TopicPartition) -> Option<&CommittedOffset> {
        self.durable.get(&partition)
    }

    pub(super) fn all(&self) -> Vec<(TopicPartition, CommittedOffset)> {
        self.durable.iter().map(|(p, o)| (*p, o.clone())).collect()
    }

    /// Every partition with its durable offset.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &CommittedOffset)> {
        self.durable.iter()
    }

    /// Partitions of one topic.
    pub(super) fn of_topic(&self, topic: TopicId) -> impl Iterator<Item = TopicPartition> {
        let partition = |index| TopicPartition { topic, index };
        self.durable.range(partition(0)..=partition(u32::MAX)).map(|(partition, _)| *partition)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.durable.is_empty() && self.busy == 0
    }

    /// Bytes that they take.
    pub(super) fn memory(&self) -> usize {
        self.bytes
    }

    /// By how much that grows with these.
    fn growth(&self, offsets: &BTreeMap<TopicPartition, CommittedOffset>) -> usize {
        let old = |partition| self.durable.get(partition).map_or(0, CommittedOffset::memory);
        let (new, old) = offsets.iter().fold((0, 0), |(new, gone), (p, value)| (new + value.memory(), gone + old(p)));
        usize::saturating_sub(new, old)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy > 0
    }

    /// A write is under way.
    pub(super) fn begin(&mut self) {
        self.busy += 1;
    }

    /// A deletion that was begun ended.
    pub(super) fn finish_deletion(&mut self, partitions: &[TopicPartition], durable: bool) {
        self.busy -= 1;
        if durable {
            self.drop_durable(partitions);
        }
    }

    /// These are gone from the store.
    pub(super) fn drop_durable(&mut self, partitions: &[TopicPartition]) {
        let gone = partitions.iter().filter_map(|partition| self.durable.remove(partition));
        self.bytes -= gone.map(|gone| gone.memory()).sum::<usize>();
    }

    pub(super) fn finish(&mut self, writes: &[OffsetWrite], durable: bool) {
        self.busy -= 1;
        if durable {
            for OffsetWrite { partition, value } in writes {
                self.bytes += value.memory();
                let replaced = self.durable.insert(*partition, value.clone());
                self.bytes -= replaced.map_or(0, |replaced| replaced.memory());
            }
        }
    }
}

impl Coordinator {
    /// Commits offsets; one answer for all of them. Of a partition that is named more than once the last offset counts, as
    /// in Kafka, which writes a record for each, one after the other. `knows_epochs`: the client speaks of member epochs
    /// (version 9), which a member of the consumer protocol must.
    pub fn commit(
        &mut self,
        now: Mono,
        ticket: Ticket,
        name: &str,
        caller: &Caller,
        knows_epochs: bool,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    ) {
        // A metadata transaction writes a key once.
        let offsets: BTreeMap<TopicPartition, CommittedOffset> = offsets.into_iter().collect();
        match self.check_commit(now, name, (caller, knows_epochs), &offsets) {
            Err(error) => self.end_commit(ticket, name, error),
            Ok(_) if offsets.is_empty() => self.end_commit(ticket, name, ErrorCode::None),
            Ok(slot) => {
                self.group_mut(slot, name).expect("checked above").offsets.begin();
                let writes = offsets
                    .iter()
                    .map(|(p, value)| (keys::offset(slot, name, *p), Some(record::encode_offset(value))))
                    .collect::<Vec<(_, Option<Bytes>)>>();
                let offsets = offsets.into_iter().map(|(partition, value)| OffsetWrite { partition, value }).collect();
                self.write(slot, writes, Purpose::Offsets { ticket, group: name.to_owned(), offsets });
            }
        }
    }

    /// Answers a commit that changed nothing. The group goes if the commit is all that it was made for, or names that
    /// are made up would take the places of groups.
    fn end_commit(&mut self, ticket: Ticket, name: &str, code: ErrorCode) {
        self.answer(ticket, Answer::Code(code));
        if let Ok(slot) = self.slot_for(name) {
            self.reschedule(slot, name);
        }
    }

    /// The longest note that a commit may carry, in bytes.
    pub fn metadata_limit(&self) -> usize {
        self.limits.offset_metadata_bytes
    }

    fn check_commit(
        &mut self,
        now: Mono,
        name: &str,
        (caller, knows_epochs): (&Caller, bool),
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<u16, ErrorCode> {
        let slot = self.slot_for(name)?;
        let (limit, room) = (self.limits.offsets, self.room());
        if !offsets.is_empty() && self.is_behind() {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if caller.generation >= 0 && self.group_mut(slot, name).is_none() {
            return Err(if knows_epochs { ErrorCode::GroupIdNotFound } else { ErrorCode::IllegalGeneration });
        }
        let group = self.group_or_new(slot, name)?;
        let durable = &group.offsets.durable;
        let more = offsets.keys().filter(|partition| !durable.contains_key(partition)).count();
        if more > 0 && durable.len() + more > limit || group.offsets.growth(offsets) > room {
            return Err(ErrorCode::InvalidCommitOffsetSize);
        }
        if let Some(consumer) = &group.consumer {
            return consumer.check_commit(caller, knows_epochs).map(|()| slot);
        }
        // A consumer that assigns partitions itself commits from outside of the group's protocol.
        if caller.generation < 0 && group.state == GroupState::Empty {
            return Ok(slot);
        }
        group.check_generation(caller)?;
        let state = group.state;
        let member = group.members.get_mut(&caller.member).expect("checked above");
        member.expires = now.plus(member.session_timeout);
        match state {
            GroupState::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            GroupState::Empty | GroupState::PreparingRebalance | GroupState::Stable => Ok(slot),
        }
    }
}
