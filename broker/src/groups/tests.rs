//! The coordinator driven by hand: requests and time in, answers and writes out.

use super::*;
use millrace_storage::env::Mono;
use millrace_storage::ids::{TopicId, TopicPartition};
use millrace_storage::meta::Key;
use proptest::prelude::*;
use std::collections::BTreeMap;

const GROUP: &str = "g";
const FIRST_BOOT: u64 = 7;

/// Keys with new values; `None` deletes.
type Writes = Vec<(Key, Option<Bytes>)>;

/// A coordinator with every slot, its durable store, and the answers so far.
pub(super) struct Bench {
    pub(super) core: Coordinator,
    pub(super) now: Mono,
    store: BTreeMap<Key, Bytes>,
    pub(super) answers: BTreeMap<Ticket, Answer>,
    next_ticket: u64,
    /// The life of the process.
    boot: u64,
    /// Writes wait here instead of becoming durable at once.
    pub(super) hold: bool,
    held: Vec<(WriteToken, Writes)>,
}

impl Bench {
    fn new() -> Bench {
        let limits = Limits { initial_rebalance_delay: Duration::ZERO, ..Limits::default() };
        Bench::with(limits)
    }

    pub(super) fn with(limits: Limits) -> Bench {
        let mut bench = Bench {
            core: Coordinator::new(limits, FIRST_BOOT),
            now: Mono(0),
            store: BTreeMap::new(),
            answers: BTreeMap::new(),
            next_ticket: 0,
            boot: FIRST_BOOT,
            hold: false,
            held: Vec::new(),
        };
        bench.grant(1);
        bench
    }

    fn grant(&mut self, epoch: u64) {
        for slot in 0..crate::control::COORDINATOR_SLOTS {
            let part = |prefix: String| -> Vec<(Key, Bytes)> {
                let with_prefix = self.store.iter().filter(|(key, _)| key.starts_with(&prefix));
                with_prefix.map(|(key, value)| (key.clone(), value.clone())).collect()
            };
            use millrace_storage::meta::keys;
            let (groups, offsets) = (part(keys::groups_of(slot)), part(keys::offsets_of(slot)));
            self.core.on_slot_granted(self.now, slot, epoch, &groups, &offsets).expect("our own records");
        }
        self.pump();
    }

    pub(super) fn restart(&mut self) {
        self.boot += 1;
        self.core = Coordinator::new(self.core.limits, self.boot);
        self.held.clear();
        self.grant(2);
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    pub(super) fn pump(&mut self) {
        let mut outputs = Vec::new();
        loop {
            self.core.take_outputs(&mut outputs);
            if outputs.is_empty() {
                return;
            }
            for output in outputs.drain(..) {
                match output {
                    Output::Answer(ticket, answer) => {
                        let earlier = self.answers.insert(ticket, answer);
                        assert_eq!(earlier, None, "answered twice");
                    }
                    Output::Write { token, writes, .. } => self.held.push((token, writes)),
                }
            }
            if !self.hold {
                self.release(Ok(()));
            }
        }
    }

    pub(super) fn release(&mut self, result: Result<(), ErrorCode>) {
        for (token, writes) in std::mem::take(&mut self.held) {
            if result.is_ok() {
                for (key, value) in writes {
                    match value {
                        Some(value) => self.store.insert(key, value),
                        None => self.store.remove(&key),
                    };
                }
            }
            self.core.on_written(self.now, token, result);
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.core.on_time(self.now);
            self.pump();
        }
        self.now = end;
    }

    pub(super) fn request(member: &str) -> JoinRequest {
        JoinRequest {
            group: GROUP.into(),
            member: member.into(),
            instance: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata: Bytes::from_static(b"topics") }],
            require_known_member: false,
            can_skip_assignment: false,
        }
    }

    pub(super) fn send_join(&mut self, request: JoinRequest) -> Ticket {
        let ticket = self.ticket();
        self.core.join(self.now, ticket, request);
        self.pump();
        ticket
    }

    pub(super) fn joined(&self, ticket: Ticket) -> JoinAnswer {
        match self.answers.get(&ticket) {
            Some(Answer::Join(answer)) => answer.clone(),
            other => panic!("expected the answer to a join: {other:?}"),
        }
    }

    fn waits(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    pub(super) fn send_sync(&mut self, member: &JoinAnswer, assignments: &[(&str, &'static [u8])]) -> Ticket {
        let ticket = self.ticket();
        let request = SyncRequest {
            group: GROUP.into(),
            caller: Caller { member: member.member.clone(), instance: None, generation: member.generation },
            protocol_type: None,
            protocol: None,
            assignments: assignments.iter().map(|(to, part)| ((*to).to_owned(), Bytes::from_static(part))).collect(),
        };
        self.core.sync(self.now, ticket, request);
        self.pump();
        ticket
    }

    pub(super) fn synced(&self, ticket: Ticket) -> SyncAnswer {
        match self.answers.get(&ticket) {
            Some(Answer::Sync(answer)) => answer.clone(),
            other => panic!("expected the answer to a sync: {other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, member: &JoinAnswer) -> ErrorCode {
        let ticket = self.ticket();
        let caller = Caller { member: member.member.clone(), instance: None, generation: member.generation };
        self.core.heartbeat(self.now, ticket, GROUP, &caller);
        self.pump();
        self.code(ticket)
    }

    pub(super) fn code(&self, ticket: Ticket) -> ErrorCode {
        match self.answers.get(&ticket) {
            Some(Answer::Code(code)) => *code,
            other => panic!("expected a code: {other:?}"),
        }
    }

    fn commit(&mut self, caller: &Caller, offset: i64) -> Ticket {
        let value =
            CommittedOffset { offset, leader_epoch: 3, metadata: "note".into(), committed_at: 1, expires_at: None };
        self.send_commit(caller, partition(), value)
    }

    pub(super) fn send_commit(&mut self, caller: &Caller, of: TopicPartition, value: CommittedOffset) -> Ticket {
        let ticket = self.ticket();
        self.core.commit(self.now, ticket, GROUP, caller, true, vec![(of, value)]);
        self.pump();
        ticket
    }

    /// A member of any group leaves.
    pub(super) fn leave(&mut self, group: &str, member: &str) {
        let ticket = self.ticket();
        self.core.leave(self.now, ticket, group, &[Leaver { member: member.to_owned(), instance: None }]);
        self.pump();
    }

    fn offset(&self) -> Option<i64> {
        self.core.committed(GROUP, partition()).expect("the slot is ours").map(|o| o.offset)
    }

    /// A stable group of one member.
    pub(super) fn stable_member(&mut self) -> JoinAnswer {
        let ticket = self.send_join(Bench::request(""));
        let member = self.joined(ticket);
        let ticket = self.send_sync(&member, &[(&member.member, b"all")]);
        assert_eq!(self.synced(ticket).assignment, Bytes::from_static(b"all"));
        member
    }
}

pub(super) fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), index: 0 }
}

pub(super) fn outsider() -> Caller {
    Caller { member: String::new(), instance: None, generation: -1 }
}

#[test]
fn the_first_member_leads_and_gets_what_it_assigned_to_itself() {
    let mut bench = Bench::new();
    let ticket = bench.send_join(Bench::request(""));
    let member = bench.joined(ticket);
    assert_eq!((member.error, member.generation), (ErrorCode::None, 1));
    assert_eq!(member.leader, member.member);
    assert_eq!(member.members.len(), 1);
    let ticket = bench.send_sync(&member, &[(&member.member, b"all")]);
    assert_eq!(bench.synced(ticket).assignment, Bytes::from_static(b"all"));
    assert_eq!(bench.heartbeat(&member), ErrorCode::None);
}

#[test]
fn a_new_dynamic_member_is_sent_back_for_its_id_and_then_let_in() {
    let mut bench = Bench::new();
    let mut request = Bench::request("");
    request.require_known_member = true;
    let ticket = bench.send_join(request.clone());
    let first = bench.joined(ticket);
    assert_eq!(first.error, ErrorCode::MemberIdRequired);
    request.member = first.member.clone();
    let ticket = bench.send_join(request);
    let second = bench.joined(ticket);
    assert_eq!((second.error, &second.member), (ErrorCode::None, &first.member));
}

#[test]
fn an_id_given_out_and_never_used_is_forgotten_after_the_session_timeout() {
    let mut bench = Bench::new();
    let mut request = Bench::request("");
    request.require_known_member = true;
    let ticket = bench.send_join(request.clone());
    request.member = bench.joined(ticket).member;
    bench.pass(Duration::from_secs(11));
    let ticket = bench.send_join(request);
    assert_eq!(bench.joined(ticket).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_second_member_makes_the_first_rejoin_and_both_get_the_same_generation() {
    let mut bench = Bench::new();
    let first = bench.stable_member();
    let second = bench.send_join(Bench::request(""));
    assert!(bench.waits(second));
    assert_eq!(bench.heartbeat(&first), ErrorCode::RebalanceInProgress);
    let again = bench.send_join(Bench::request(&first.member));
    let (first, second) = (bench.joined(again), bench.joined(second));
    assert_eq!((first.generation, second.generation), (2, 2));
    assert_eq!((first.members.len(), second.members.len()), (2, 0));
    let follower = bench.send_sync(&second, &[]);
    assert!(bench.waits(follower));
    let leader = bench.send_sync(&first, &[(&first.member, b"a"), (&second.member, b"b")]);
    assert_eq!(bench.synced(leader).assignment, Bytes::from_static(b"a"));
    assert_eq!(bench.synced(follower).assignment, Bytes::from_static(b"b"));
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_left_behind() {
    let mut bench = Bench::new();
    let first = bench.stable_member();
    let second = bench.send_join(Bench::request(""));
    for _ in 0..7 {
        bench.pass(Duration::from_secs(9));
        bench.heartbeat(&first);
    }
    let second = bench.joined(second);
    assert_eq!((second.generation, second.leader == second.member), (2, true));
    assert_eq!(bench.heartbeat(&first), ErrorCode::UnknownMemberId);
}

#[test]
fn a_group_that_rebalances_is_shown_with_what_its_members_were_told_last() {
    let mut bench = Bench::new();
    bench.stable_member();
    bench.send_join(Bench::request(""));
    let view = bench.core.describe(GROUP).expect("ours").expect("it is there");
    assert_eq!(view.state, "PreparingRebalance");
    let told: Vec<_> = view.members.iter().map(|member| member.assignment.len()).collect();
    assert_eq!((told.iter().sum::<usize>(), told.len()), ("all".len(), 2));
}

#[test]
fn a_silent_member_is_out_after_its_session_timeout() {
    let mut bench = Bench::new();
    let member = bench.stable_member();
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.heartbeat(&member), ErrorCode::None);
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.heartbeat(&member), ErrorCode::None);
    bench.pass(Duration::from_secs(11));
    assert_eq!(bench.heartbeat(&member), ErrorCode::UnknownMemberId);
    assert_eq!(bench.core.describe(GROUP).expect("ours").expect("it is remembered").state, "Empty");
}

#[test]
fn an_assignment_is_told_only_once_it_is_durable() {
    let mut bench = Bench::new();
    let ticket = bench.send_join(Bench::request(""));
    let member = bench.joined(ticket);
    bench.hold = true;
    let sync = bench.send_sync(&member, &[(&member.member, b"all")]);
    assert!(bench.waits(sync));
    bench.release(Ok(()));
    bench.pump();
    assert_eq!(bench.synced(sync).assignment, Bytes::from_static(b"all"));
}

#[test]
fn an_assignment_that_can_not_be_stored_fails_the_sync_and_starts_over() {
    let mut bench = Bench::new();
    let ticket = bench.send_join(Bench::request(""));
    let member = bench.joined(ticket);
    bench.hold = true;
    let sync = bench.send_sync(&member, &[(&member.member, b"all")]);
    bench.release(Err(ErrorCode::CoordinatorNotAvailable));
    bench.pump();
    assert_eq!(bench.synced(sync).error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(bench.heartbeat(&member), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_restarted_coordinator_needs_no_rebalance() {
    let mut bench = Bench::new();
    let member = bench.stable_member();
    let caller = Caller { member: member.member.clone(), instance: None, generation: member.generation };
    bench.commit(&caller, 42);
    bench.restart();
    assert_eq!(bench.heartbeat(&member), ErrorCode::None);
    assert_eq!(bench.offset(), Some(42));
    let sync = bench.send_sync(&member, &[]);
    assert_eq!(bench.synced(sync).assignment, Bytes::from_static(b"all"));
}

#[test]
fn of_a_partition_that_a_commit_names_twice_the_last_offset_counts_and_is_written_once() {
    let mut bench = Bench::new();
    bench.hold = true;
    let ticket = bench.ticket();
    let value = |offset| CommittedOffset {
        offset,
        leader_epoch: 3,
        metadata: String::new(),
        committed_at: 1,
        expires_at: None,
    };
    let offsets = [7, 5].map(|offset| (partition(), value(offset)));
    bench.core.commit(bench.now, ticket, GROUP, &outsider(), true, offsets.into());
    bench.pump();
    let keys: Vec<usize> = bench.held.iter().map(|(_, writes)| writes.len()).collect();
    assert_eq!(keys, [1]);
    bench.release(Ok(()));
    bench.pump();
    assert_eq!((bench.code(ticket), bench.offset()), (ErrorCode::None, Some(5)));
    bench.restart();
    assert_eq!(bench.offset(), Some(5));
}

#[test]
fn a_commit_is_answered_and_visible_once_durable() {
    let mut bench = Bench::new();
    bench.hold = true;
    let ticket = bench.commit(&outsider(), 5);
    assert!(bench.waits(ticket));
    assert_eq!(bench.offset(), None);
    bench.release(Ok(()));
    bench.pump();
    assert_eq!(bench.code(ticket), ErrorCode::None);
    assert_eq!(bench.offset(), Some(5));
}

#[test]
fn a_commit_that_changes_nothing_leaves_no_group_behind() {
    let mut bench = Bench::with(Limits { groups: 1, offsets: 1, ..Limits::default() });
    for group in ["a", "b"] {
        let ticket = bench.ticket();
        let stranger = Caller { member: "x".into(), ..outsider() };
        bench.core.commit(bench.now, ticket, group, &stranger, true, Vec::new());
        let ticket = bench.ticket();
        bench.core.commit(bench.now, ticket, group, &outsider(), true, Vec::new());
    }
    bench.pump();
    bench.hold = true;
    let ticket = bench.commit(&outsider(), 5);
    bench.release(Err(ErrorCode::CoordinatorNotAvailable));
    bench.pump();
    assert_eq!(bench.code(ticket), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(bench.core.list(), []);
    bench.hold = false;
    for offset in [6, 7] {
        let ticket = bench.commit(&outsider(), offset);
        assert_eq!(bench.code(ticket), ErrorCode::None, "a known partition takes no further place");
    }
}

#[test]
fn commits_of_strangers_and_of_old_generations_are_refused() {
    let mut bench = Bench::new();
    let unheard_of = Caller { member: "m".into(), instance: None, generation: 0 };
    let ticket = bench.commit(&unheard_of, 5);
    assert_eq!(bench.code(ticket), ErrorCode::GroupIdNotFound);
    let member = bench.stable_member();
    let ticket = bench.commit(&outsider(), 5);
    assert_eq!(bench.code(ticket), ErrorCode::UnknownMemberId);
    let old = Caller { member: member.member.clone(), instance: None, generation: 0 };
    let ticket = bench.commit(&old, 5);
    assert_eq!(bench.code(ticket), ErrorCode::IllegalGeneration);
    let unknown = Caller { member: "x".into(), instance: None, generation: 1 };
    let ticket = bench.commit(&unknown, 5);
    assert_eq!(bench.code(ticket), ErrorCode::UnknownMemberId);
    assert_eq!(bench.offset(), None);
}

#[test]
fn a_member_that_is_given_two_parts_has_the_last() {
    let mut bench = Bench::new();
    let ticket = bench.send_join(Bench::request(""));
    let member = bench.joined(ticket);
    let ticket =
        bench.send_sync(&member, &[(&member.member, b"first"), ("someone", b"other"), (&member.member, b"last")]);
    assert_eq!(bench.synced(ticket).assignment, Bytes::from_static(b"last"));
}

#[test]
fn a_static_member_that_restarts_goes_on_without_a_rebalance_and_fences_its_old_self() {
    let mut bench = Bench::new();
    let request = JoinRequest { instance: Some("i".into()), ..Bench::request("") };
    let ticket = bench.send_join(request.clone());
    let old = bench.joined(ticket);
    let caller = |id: &str| Caller { member: id.into(), instance: Some("i".into()), generation: 1 };
    let ticket = bench.ticket();
    let sync = SyncRequest {
        group: GROUP.into(),
        caller: caller(&old.member),
        protocol_type: None,
        protocol: None,
        assignments: vec![(old.member.clone(), Bytes::from_static(b"all"))],
    };
    bench.core.sync(bench.now, ticket, sync);
    bench.pump();
    let ticket = bench.send_join(JoinRequest { can_skip_assignment: true, ..request });
    let new = bench.joined(ticket);
    assert_eq!((new.error, new.generation, new.skip_assignment), (ErrorCode::None, 1, true));
    assert_ne!(new.member, old.member);
    let ticket = bench.ticket();
    bench.core.heartbeat(bench.now, ticket, GROUP, &caller(&old.member));
    bench.pump();
    assert_eq!(bench.code(ticket), ErrorCode::FencedInstanceId);
}

#[test]
fn members_without_a_common_assignor_are_refused() {
    let mut bench = Bench::new();
    bench.stable_member();
    let other = vec![Protocol { name: "sticky".into(), metadata: Bytes::new() }];
    let ticket = bench.send_join(JoinRequest { protocols: other, ..Bench::request("") });
    assert_eq!(bench.joined(ticket).error, ErrorCode::InconsistentGroupProtocol);
    let ticket = bench.send_join(JoinRequest { protocol_type: "connect".into(), ..Bench::request("") });
    assert_eq!(bench.joined(ticket).error, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn leaving_lets_the_others_go_on_at_once() {
    let mut bench = Bench::new();
    let first = bench.stable_member();
    let second = bench.send_join(Bench::request(""));
    let ticket = bench.ticket();
    let leaver = Leaver { member: first.member.clone(), instance: None };
    bench.core.leave(bench.now, ticket, GROUP, &[leaver.clone(), leaver]);
    bench.pump();
    assert_eq!(bench.answers[&ticket], Answer::Leave(vec![ErrorCode::None, ErrorCode::UnknownMemberId]));
    assert_eq!(bench.joined(second).generation, 2);
}

#[test]
fn the_first_members_wait_for_more_within_the_initial_delay() {
    let mut bench = Bench::with(Limits::default());
    let first = bench.send_join(Bench::request(""));
    bench.pass(Duration::from_secs(2));
    let second = bench.send_join(Bench::request(""));
    assert!(bench.waits(first) && bench.waits(second));
    bench.pass(Duration::from_secs(2));
    assert!(bench.waits(first), "a member came: the delay is extended");
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.joined(first).generation, bench.joined(second).generation), (1, 1));
}

#[test]
fn a_group_with_members_is_not_deleted_and_an_empty_one_is_with_its_offsets() {
    let mut bench = Bench::new();
    let member = bench.stable_member();
    let refused = bench.ticket();
    bench.core.delete(refused, GROUP);
    bench.pump();
    assert_eq!(bench.code(refused), ErrorCode::NonEmptyGroup);
    let leaver = Leaver { member: member.member, instance: None };
    let ticket = bench.ticket();
    bench.core.leave(bench.now, ticket, GROUP, &[leaver]);
    bench.pump();
    bench.commit(&outsider(), 9);
    let deleted = bench.ticket();
    bench.core.delete(deleted, GROUP);
    bench.pump();
    assert_eq!(bench.code(deleted), ErrorCode::None);
    assert_eq!(bench.offset(), None);
    assert!(bench.store.is_empty(), "{:?}", bench.store);
}

#[test]
fn a_group_whose_offsets_are_on_their_way_is_deleted_with_them() {
    let mut bench = Bench::new();
    bench.commit(&outsider(), 5);
    bench.hold = true;
    let commit = bench.commit(&outsider(), 6);
    let offset_deletion = bench.ticket();
    bench.core.delete_offsets(offset_deletion, GROUP, vec![partition()]);
    let other = TopicPartition { index: 1, ..partition() };
    let value =
        CommittedOffset { offset: 7, leader_epoch: 3, metadata: String::new(), committed_at: 1, expires_at: None };
    let second = bench.send_commit(&outsider(), other, value);
    let deletion = bench.ticket();
    bench.core.delete(deletion, GROUP);
    bench.pump();
    assert!(bench.waits(deletion));
    bench.release(Ok(()));
    bench.hold = false;
    bench.pump();
    for ticket in [commit, offset_deletion, second, deletion] {
        assert_eq!(bench.code(ticket), ErrorCode::None);
    }
    assert!(bench.store.is_empty(), "{:?}", bench.store);
    assert!(bench.core.list().is_empty());
    assert_eq!(bench.core.bytes(), 0);
}

#[test]
fn who_comes_while_a_group_is_being_deleted_stays_in_it() {
    let mut bench = Bench::new();
    let ticket = bench.commit(&outsider(), 5);
    assert_eq!(bench.code(ticket), ErrorCode::None);
    bench.hold = true;
    let deletion = bench.ticket();
    bench.core.delete(deletion, GROUP);
    bench.pump();
    let join = bench.send_join(Bench::request(""));
    bench.release(Ok(()));
    bench.hold = false;
    bench.pump();
    assert_eq!(bench.code(deletion), ErrorCode::None);
    assert_eq!(bench.offset(), None, "what it had is gone");
    let member = bench.joined(join);
    let ticket = bench.send_sync(&member, &[(&member.member, b"all")]);
    assert_eq!(bench.synced(ticket).error, ErrorCode::None);
    bench.restart();
    assert_eq!(bench.core.list().len(), 1, "and it is stored after the deletion");
}

#[test]
fn a_revoked_slot_sends_everyone_to_find_the_coordinator() {
    let mut bench = Bench::new();
    let member = bench.stable_member();
    let waiting = bench.send_join(Bench::request(""));
    bench.core.on_slot_revoked(slot_of(GROUP));
    bench.pump();
    assert_eq!(bench.joined(waiting).error, ErrorCode::NotCoordinator);
    assert_eq!(bench.heartbeat(&member), ErrorCode::NotCoordinator);
}

#[test]
fn a_damaged_record_is_an_error() {
    let mut bench = Bench::new();
    bench.stable_member();
    let (key, value) = bench.store.iter().next().map(|(k, v)| (k.clone(), v.clone())).expect("the group is stored");
    for length in 0..value.len() {
        let cut = [(key.clone(), value.slice(..length))];
        assert!(record::load(bench.now, Duration::ZERO, &cut, &[]).is_err(), "cut at {length}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join { known: usize, fixed: bool, keep: bool },
    Sync(usize),
    Beat(usize),
    Leave(usize),
    Commit(usize),
    Pass(u64),
    Hold(bool),
    Fail,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..6, any::<bool>(), any::<bool>()).prop_map(|(known, fixed, keep)| Step::Join { known, fixed, keep }),
        4 => (0usize..6).prop_map(Step::Sync),
        2 => (0usize..6).prop_map(Step::Beat),
        1 => (0usize..6).prop_map(Step::Leave),
        1 => (0usize..6).prop_map(Step::Commit),
        2 => (0u64..20_000).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Hold),
        1 => Just(Step::Fail),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever clients do and whatever fails, every request of a life ends.
    #[test]
    fn every_ticket_is_answered_exactly_once(steps in steps()) {
        let mut bench = Bench::new();
        let mut known: Vec<JoinAnswer> = Vec::new();
        let mut lost = Vec::new();
        for step in steps {
            let pick = |index: usize, known: &Vec<JoinAnswer>| known.get(index % known.len().max(1)).cloned();
            match step {
                Step::Join { known: index, fixed, keep } => {
                    let mut request = Bench::request("");
                    if fixed {
                        request.instance = Some("i".into());
                    } else if keep && let Some(member) = pick(index, &known) {
                        request.member = member.member;
                    }
                    bench.send_join(request);
                }
                Step::Sync(index) => if let Some(member) = pick(index, &known) {
                    bench.send_sync(&member, &[(&member.member, b"part")]);
                },
                Step::Beat(index) => if let Some(member) = pick(index, &known) {
                    bench.heartbeat(&member);
                },
                Step::Leave(index) => if let Some(member) = pick(index, &known) {
                    let ticket = bench.ticket();
                    let leaver = Leaver { member: member.member, instance: None };
                    bench.core.leave(bench.now, ticket, GROUP, &[leaver]);
                    bench.pump();
                },
                Step::Commit(index) => if let Some(member) = pick(index, &known) {
                    let caller = Caller { member: member.member, instance: None, generation: member.generation };
                    bench.commit(&caller, 1);
                },
                Step::Pass(ms) => bench.pass(Duration::from_millis(ms)),
                Step::Hold(hold) => { bench.hold = hold; bench.pump(); }
                Step::Fail => { bench.release(Err(ErrorCode::CoordinatorNotAvailable)); bench.pump(); }
                Step::Restart => {
                    lost.extend((1..=bench.next_ticket).map(Ticket).filter(|t| bench.waits(*t)));
                    bench.restart();
                }
            }
            known = bench.answers.values().filter_map(|answer| match answer {
                Answer::Join(join) if join.error == ErrorCode::None => Some(join.clone()),
                _ => None,
            }).collect();
        }
        bench.hold = false;
        bench.release(Ok(()));
        bench.pump();
        bench.pass(Duration::from_secs(3_600));
        for slot in 0..crate::control::COORDINATOR_SLOTS {
            bench.core.on_slot_revoked(slot);
        }
        bench.pump();
        for ticket in (1..=bench.next_ticket).map(Ticket) {
            prop_assert!(!bench.waits(ticket) || lost.contains(&ticket), "{ticket:?} was never answered");
        }
    }
}
