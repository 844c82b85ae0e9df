//! What the groups of a shard take in memory, and how much more they may.
//!
//! 1. The coordinator's count is the sum of what each of its groups was counted as last; every event that changes a group
//!    ends by counting it again.
//! 2. Nothing that grows a group is taken beyond the bound. What is durable already is loaded whatever it takes, and
//!    what replaces as much as it brings always goes on.
//!
//! The figures are estimates, on the large side: lengths of texts and bytes, and a constant for each entry of the tables.

use super::consumer::state::{ConsumerGroup, ConsumerMember};
use super::consumer::{ConsumerHeartbeat, Refusal};
use super::coordinator::{Coordinator, WRITES_PER_BOUND};
use super::group::{Group, Member};
use super::join::Entry;
use super::offsets::CommittedOffset;
use super::{JoinRequest, Protocol};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;

/// A group besides its name and contents: its entry, its timer.
const GROUP_BYTES: usize = 512;
/// A member besides its texts: its entry, the requests of it that wait.
const MEMBER_BYTES: usize = 640;
/// An assignor of a member besides name and metadata.
const PROTOCOL_BYTES: usize = 96;
/// An id given out with MEMBER_ID_REQUIRED, besides the id.
const PENDING_BYTES: usize = 64;
/// A partition in a member's assignment, its target, or the table of what is held.
const PARTITION_BYTES: usize = 40;
/// A committed offset besides its note.
const OFFSET_BYTES: usize = 128;

/// Ids stand in the table, in the table of instances and in answers.
fn member_bytes(id: usize, instance: Option<&String>, protocols: &[Protocol]) -> usize {
    let instance = instance.map_or(0, String::len);
    MEMBER_BYTES + 2 * (id + instance) + protocols_bytes(protocols)
}

fn protocols_bytes(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|p| PROTOCOL_BYTES + p.name.len() + p.metadata.len()).sum()
}

impl Member {
    fn memory(&self, id: &str) -> usize {
        let texts = self.client_id.len() + self.client_host.len();
        let proposed = self.proposed.as_ref().map_or(0, Bytes::len);
        member_bytes(id.len(), self.instance.as_ref(), &self.protocols) + texts + self.assignment.len() + proposed
    }
}

impl JoinRequest {
    /// What its member takes under `id`, before it is assigned anything.
    fn memory(&self, id: &str) -> usize {
        let texts = self.client_id.len() + self.client_host.len();
        member_bytes(id.len(), self.instance.as_ref(), &self.protocols) + texts
    }
}

impl ConsumerMember {
    fn memory(&self, id: &str) -> usize {
        let texts = [&self.instance, &self.rack, &self.regex, &self.assignor].into_iter().flatten().map(String::len);
        let texts = texts.sum::<usize>() + self.client_id.len() + self.client_host.len();
        let topics = self.topics.iter().map(|topic| PROTOCOL_BYTES + topic.len()).sum::<usize>();
        // What it holds stands in the group's table too.
        let partitions = 2 * (self.assigned.len() + self.revoking.len()) + self.target.len();
        let classic = self.classic.as_ref().map_or(0, |classic| protocols_bytes(&classic.protocols));
        MEMBER_BYTES + 2 * id.len() + texts + topics + classic + PARTITION_BYTES * partitions
    }
}

impl ConsumerHeartbeat {
    /// What of it the group keeps.
    fn memory(&self) -> usize {
        let texts = [&self.instance, &self.rack, &self.regex, &self.assignor].into_iter().flatten().map(String::len);
        let texts = texts.sum::<usize>() + self.client_id.len() + self.client_host.len();
        let topics = self.topics.iter().flatten().map(|topic| PROTOCOL_BYTES + topic.len()).sum::<usize>();
        MEMBER_BYTES + 2 * self.member.len() + texts + topics
    }
}

impl ConsumerGroup {
    fn memory(&self) -> usize {
        let members = self.members.iter().map(|(id, member)| member.memory(id)).sum::<usize>();
        members + PARTITION_BYTES * self.counts.len() + self.journal.memory()
    }
}

impl CommittedOffset {
    /// What it takes in its group's table.
    pub(super) fn memory(&self) -> usize {
        OFFSET_BYTES + self.metadata.len()
    }
}

impl Group {
    /// What it takes. Its name stands in three tables.
    fn memory(&self, name: &str) -> usize {
        let members = self.members.iter().map(|(id, member)| member.memory(id)).sum::<usize>();
        let pending = self.pending.keys().map(|id| PENDING_BYTES + id.len()).sum::<usize>();
        let consumers = self.consumer.as_ref().map_or(0, ConsumerGroup::memory);
        GROUP_BYTES + 3 * name.len() + members + pending + consumers + self.offsets.memory()
    }
}

impl Coordinator {
    /// What its groups take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the writes take that are being made durable.
    pub fn writing_bytes(&self) -> usize {
        self.writing_bytes
    }

    /// How much more its groups may take.
    pub(super) fn room(&self) -> usize {
        self.limits.bytes.saturating_sub(self.bytes)
    }

    /// Whether so much is being made durable that whoever wants more written shall come back: each write of a group's
    /// record holds all of it.
    pub(super) fn is_behind(&self) -> bool {
        self.writing_bytes >= self.limits.bytes / WRITES_PER_BOUND
    }

    /// Counts a group again.
    pub(super) fn recount(&mut self, slot: u16, name: &str) {
        let Some(group) = self.group_mut(slot, name) else { return };
        let memory = group.memory(name);
        let before = std::mem::replace(&mut group.counted, memory);
        self.bytes = self.bytes - before + memory;
    }

    /// Whether there is room for what a member of the consumer protocol says of itself.
    pub(super) fn check_room_for_heartbeat(&self, request: &ConsumerHeartbeat) -> Result<(), Refusal> {
        let says_something = request.topics.is_some() || request.regex.is_some();
        let wanted = request.memory();
        if says_something && (wanted > self.limits.member_bytes || wanted > self.room()) {
            let message = "The coordinator has no room for the member.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// Whether there is room for what a classic member brings into a group of the consumer protocol: its subscription
    /// stands there twice, as it came and read.
    pub(super) fn check_room_among_consumers(
        &self,
        request: &JoinRequest,
        id: &str,
        replaced: Option<&ConsumerMember>,
    ) -> Result<(), ErrorCode> {
        let replaced = replaced.map_or(0, |member| member.memory(id));
        if (2 * request.memory(id)).saturating_sub(replaced) > self.room() {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        if self.is_behind() { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) }
    }

    /// Whether there is room for what a join brings.
    pub(super) fn check_room(&self, slot: u16, request: &JoinRequest, entry: &Entry) -> Result<(), ErrorCode> {
        let group = self.slots[&slot].groups.get(&request.group);
        let (wanted, replaced) = match entry {
            Entry::ComeBack(id) => (PENDING_BYTES + id.len(), None),
            Entry::New(id) => (request.memory(id), None),
            Entry::Replace(id) | Entry::Known(id) => {
                (request.memory(id), group.and_then(|g| g.members.get_key_value(id)))
            }
        };
        let told = |member: &Member| member.assignment.len() + member.proposed.as_ref().map_or(0, Bytes::len);
        let replaced = replaced.map_or(0, |(id, member)| member.memory(id) - told(member));
        if wanted.saturating_sub(replaced) > self.room() {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        if matches!(entry, Entry::Replace(_)) && self.is_behind() {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, outsider, partition};
    use super::super::{CommittedOffset, Limits, Protocol};
    use super::*;
    use bytes::Bytes;
    use std::time::Duration;

    const BOUND: usize = 20_000;

    fn bench() -> Bench {
        Bench::with(Limits { initial_rebalance_delay: Duration::ZERO, bytes: BOUND, ..Limits::default() })
    }

    fn request(group: &str, metadata: usize) -> JoinRequest {
        let protocols = vec![Protocol { name: "range".into(), metadata: Bytes::from(vec![0; metadata]) }];
        JoinRequest { group: group.into(), protocols, ..Bench::request("") }
    }

    fn commit(bench: &mut Bench, index: u32, note: usize) -> ErrorCode {
        let value = CommittedOffset {
            offset: 1,
            leader_epoch: 0,
            metadata: "x".repeat(note),
            committed_at: 1,
            expires_at: None,
        };
        let mut partition = partition();
        partition.index = index;
        let ticket = bench.send_commit(&outsider(), partition, value);
        bench.code(ticket)
    }

    #[test]
    fn members_beyond_the_bound_are_refused_and_those_inside_go_on() {
        let mut bench = bench();
        let first = bench.send_join(request("a", 9_000));
        let first = bench.joined(first);
        let refused = bench.send_join(request("b", 11_000));
        assert_eq!(bench.joined(refused).error, ErrorCode::GroupMaxSizeReached);
        let mut again = request("a", 9_000);
        again.member = first.member.clone();
        let again = bench.send_join(again);
        assert_eq!(bench.joined(again).error, ErrorCode::None);
        let mut grown = request("a", 20_000);
        grown.member = first.member;
        let grown = bench.send_join(grown);
        assert_eq!(bench.joined(grown).error, ErrorCode::GroupMaxSizeReached);
        assert!((9_000..BOUND).contains(&bench.core.bytes()));
    }

    #[test]
    fn what_members_and_groups_took_is_given_back_when_they_go() {
        let mut bench = bench();
        for _ in 0..10 {
            let ticket = bench.send_join(request("a", 9_000));
            let member = bench.joined(ticket);
            assert_eq!(member.error, ErrorCode::None);
            bench.leave("a", &member.member);
        }
        assert!(bench.core.bytes() < 1_000, "{}", bench.core.bytes());
        bench.restart();
        assert!(bench.core.bytes() < 1_000);
    }

    #[test]
    fn an_assignment_beyond_the_bound_ends_its_generation() {
        let mut bench = bench();
        let ticket = bench.send_join(Bench::request(""));
        let member = bench.joined(ticket);
        let ticket = bench.send_sync(&member, &[(&member.member, &[0; BOUND])]);
        assert_eq!(bench.synced(ticket).error, ErrorCode::GroupMaxSizeReached);
    }

    #[test]
    fn offsets_beyond_the_bound_are_refused_and_those_that_exist_can_be_committed_again() {
        let mut bench = bench();
        let taken = (0..).take_while(|index| commit(&mut bench, *index, 1_000) == ErrorCode::None).count();
        assert!((14..20).contains(&taken), "{taken}");
        assert_eq!(commit(&mut bench, u32::MAX, 1_000), ErrorCode::InvalidCommitOffsetSize);
        assert_eq!(commit(&mut bench, 0, 1_000), ErrorCode::None);
        let before = bench.core.bytes();
        bench.restart();
        assert_eq!(bench.core.bytes(), before, "what is durable is counted alike");
        assert_eq!(commit(&mut bench, 0, 10), ErrorCode::None);
        assert_eq!(bench.core.bytes(), before - 990);
    }

    #[test]
    fn while_much_is_being_written_nothing_more_is() {
        let mut bench = bench();
        bench.hold = true;
        for index in 0..10 {
            let mut partition = partition();
            partition.index = index;
            let value = CommittedOffset {
                offset: 1,
                leader_epoch: 0,
                metadata: "x".repeat(1_000),
                committed_at: 1,
                expires_at: None,
            };
            bench.send_commit(&outsider(), partition, value);
        }
        assert!(bench.core.writing_bytes() >= BOUND / WRITES_PER_BOUND);
        assert_eq!(commit(&mut bench, 10, 0), ErrorCode::CoordinatorNotAvailable);
        bench.release(Ok(()));
        assert_eq!(bench.core.writing_bytes(), 0);
        bench.hold = false;
        assert_eq!(commit(&mut bench, 10, 0), ErrorCode::None);
    }
}
