//! The parts of a cluster by themselves: the view, the lease of one process, the controller, and what follows for settings,
//! slots and topics.

use super::super::effects::{Effect, Owner, Sink, StoreAnswer, StoreCall};
use super::super::messages::{Freshness, FromControl, NewTopic, Node, Token};
use super::super::slots::Slots;
use super::super::topics::{Counts, PartitionNumbers, Topics};
use super::controller::{Controller, SEALS, SEALS_PER};
use super::membership::{Membership, PROBE_EVERY, Standing};
use super::view::{View, WATCHED};
use super::{ClusterConfig, Home, SlotHome, broker_record};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, Seq, ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::lane::{LaneCommand, LaneReport};
use millrace_storage::meta::records::{
    BrokerRecord, ControllerRecord, DrainRecord, PartitionRecord, RECORD_VERSION, Record, Released, SlotRecord,
    SuspectRecord, TopicRecord, TopicState, WalRecord, WalState, WishRecord,
};
use millrace_storage::meta::{
    Change, Compare, KeptAlive, Key, Lease, LeaseId, Op, Page, Revision, Snapshot, TxnOutcome, Versioned, keys,
};
use millrace_storage::store_error::{FailureKind, StoreError};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(5);

pub(super) fn record(boot: u64, first_node: i32) -> BrokerRecord {
    let node = |shard: u16| Node {
        id: first_node + i32::from(shard),
        host: "h".to_owned(),
        port: 9092 + shard,
        rack: None,
        shard: Some(ShardIndex(shard)),
    };
    let config = ClusterConfig { zone: Some("z".to_owned()), lease: LEASE, drain: Duration::ZERO, admin: None };
    broker_record(&config, BootId(boot), &[node(0), node(1)], false)
}

fn wal(broker: &str, boot: u64, state: WalState) -> Bytes {
    let (broker, boot) = (broker.to_owned(), BootId(boot));
    WalRecord { v: RECORD_VERSION, broker, boot, lane: 0, state, ck: 0, lw: Seq(0), emptied: None }.encode()
}

fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), index }
}

fn owned(wid: u128, shard: u16, released: bool) -> Bytes {
    let released = released.then_some(Released { seq: Seq(3), end: Offset(9) });
    let (epoch, wid, shard) = (LeaderEpoch(4), Wid(wid), ShardIndex(shard));
    PartitionRecord { v: RECORD_VERSION, epoch, wid, shard, born: 0, released }.encode()
}

fn wish(broker: &str, shard: u16) -> Bytes {
    WishRecord { v: RECORD_VERSION, broker: broker.to_owned(), shard: ShardIndex(shard) }.encode()
}

/// A view that was listed whole, of these keys.
pub(super) fn view_of(entries: Vec<(Key, Bytes)>) -> View {
    let mut view = View::default();
    for prefix in WATCHED {
        view.begin_listing(prefix);
        let of_it = entries.iter().filter(|(key, _)| key.starts_with(prefix));
        let versioned =
            of_it.map(|(key, value)| (key.clone(), Versioned { value: value.clone(), modified: Revision(5) }));
        view.on_page(prefix, Revision(10), versioned.collect()).expect("records of ours");
        assert_eq!(view.end_listing(prefix), Revision(10));
    }
    assert!(view.is_complete());
    view
}

pub(super) fn change(view: &mut View, key: Key, value: Option<Bytes>, revision: i64) {
    let prefix = WATCHED.into_iter().find(|prefix| key.starts_with(prefix)).expect("it is watched");
    view.on_changes(prefix, vec![Change { key, value, revision: Revision(revision) }]).expect("records of ours");
}

fn two_brokers() -> Vec<(Key, Bytes)> {
    vec![
        (keys::broker("a"), record(1, 10).encode()),
        (keys::broker("b"), record(2, 20).encode()),
        (keys::wal(Wid(1)), wal("a", 1, WalState::Open)),
        (keys::wal(Wid(2)), wal("b", 2, WalState::Open)),
    ]
}

#[test]
fn what_is_older_than_what_is_known_is_ignored() {
    let mut view = view_of(two_brokers());
    change(&mut view, keys::wish(partition(0)), Some(wish("b", 1)), 12);
    change(&mut view, keys::wish(partition(0)), Some(wish("a", 0)), 11);
    change(&mut view, keys::wish(partition(0)), None, 9);
    assert_eq!(view.wish(partition(0)).map(|(wish, _)| wish.broker.as_str()), Some("b"));
    assert_eq!(view.through(keys::WISHES), Revision(12));
}

#[test]
fn what_a_new_listing_lacks_is_gone_unless_it_came_later() {
    let mut view = view_of(two_brokers());
    change(&mut view, keys::broker("late"), Some(record(3, 30).encode()), 21);
    view.take_touched();
    view.begin_listing(keys::BROKERS);
    let only = vec![(keys::broker("a"), Versioned { value: record(1, 10).encode(), modified: Revision(5) })];
    view.on_page(keys::BROKERS, Revision(20), only).expect("a record of ours");
    view.end_listing(keys::BROKERS);
    assert_eq!(view.brokers().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "late"]);
    assert!(view.take_touched().brokers);
}

#[test]
fn a_leader_is_known_once_both_records_are_and_only_while_that_life_has_an_open_log() {
    let mut view = view_of(vec![(keys::partition(partition(0)), owned(1, 1, false))]);
    assert_eq!(view.owner(partition(0)).and_then(|owner| owner.leader), None);
    view.take_touched();
    for (key, value) in two_brokers() {
        change(&mut view, key, Some(value), 12);
    }
    assert!(view.take_touched().partitions.contains(&partition(0)), "its log's record came");
    let leader = |view: &View| view.owner(partition(0)).and_then(|owner| owner.leader);
    assert_eq!(leader(&view), Some(11));
    change(&mut view, keys::broker("a"), Some(record(9, 90).encode()), 13);
    assert_eq!(leader(&view), None, "that is another life");
    change(&mut view, keys::broker("a"), Some(record(1, 10).encode()), 14);
    change(&mut view, keys::wal(Wid(1)), Some(wal("a", 1, WalState::Fencing)), 15);
    assert_eq!(leader(&view), None, "somebody ends its log");
    assert!(view.owner(partition(0)).is_some_and(|owner| owner.is_held), "and has not ended it yet");
    change(&mut view, keys::wal(Wid(1)), Some(wal("a", 1, WalState::Sealed { end: Seq(3) })), 16);
    assert!(view.owner(partition(0)).is_some_and(|owner| !owner.is_held));
}

#[test]
fn a_checkpoint_of_a_log_that_stays_open_touches_nothing() {
    let mut view = view_of([two_brokers(), vec![(keys::partition(partition(0)), owned(1, 1, false))]].concat());
    view.take_touched();
    let open = WalRecord::decode(&wal("a", 1, WalState::Open)).expect("a record of ours");
    change(&mut view, keys::wal(Wid(1)), Some(WalRecord { ck: 7, lw: Seq(2), ..open }.encode()), 12);
    assert!(view.take_touched().is_empty());
}

#[test]
fn a_home_is_the_wish_while_that_broker_lives_and_has_the_shard_and_else_the_owner() {
    let mut view = view_of([two_brokers(), vec![(keys::partition(partition(0)), owned(1, 1, true))]].concat());
    let home = |view: &View| view.home(partition(0)).map(|home| (home.broker, home.shard.0));
    assert_eq!(home(&view), Some(("a".to_owned(), 1)));
    change(&mut view, keys::wish(partition(0)), Some(wish("b", 0)), 12);
    assert_eq!(home(&view), Some(("b".to_owned(), 0)));
    change(&mut view, keys::wish(partition(0)), Some(wish("b", 2)), 13);
    assert_eq!(home(&view), Some(("a".to_owned(), 1)), "b has two shards");
    change(&mut view, keys::broker("a"), None, 14);
    assert_eq!(home(&view), None);
}

// ---- the lease ----

/// A process that joins, its calls answered by the test.
struct Joining {
    sink: Sink,
    membership: Membership,
    calls: Vec<(Owner, StoreCall)>,
    commands: usize,
    fresh: Option<Freshness>,
}

impl Joining {
    fn new() -> Joining {
        let mut sink = Sink::default();
        (sink.now, sink.wall) = (Mono(1_000_000_000_000), WallMs(1_700_000_000_000));
        let membership = Membership::new(("a".to_owned(), BootId(1)), &record(1, 10), (2, 1), &mut sink);
        let mut joining = Joining { sink, membership, calls: Vec::new(), commands: 0, fresh: None };
        joining.pass(Duration::ZERO);
        joining
    }

    /// Registered under lease 1.
    fn joined() -> Joining {
        let mut joining = Joining::new();
        joining.granted(1);
        joining.registers(None);
        joining
    }

    fn drain(&mut self) {
        for effect in self.sink.drain(Vec::new()) {
            match effect {
                Effect::Call(id, call) => self.calls.push((self.sink.ended(id), call)),
                Effect::Lane(0, LaneCommand::Probe) => self.commands += 1,
                Effect::Shard(_, FromControl::Fresh(fresh)) => self.fresh = Some(fresh),
                other => panic!("{other:?}"),
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.jump(time, time);
    }

    /// Time passes, on both clocks by their own measure, unseen until its end.
    fn jump(&mut self, mono: Duration, wall: Duration) {
        self.sink.now = self.sink.now.plus(mono);
        self.sink.wall.0 += i64::try_from(wall.as_millis()).expect("a short time");
        while let Some(owner) = self.sink.due() {
            assert_eq!(owner, Owner::Membership);
            self.membership.on_tick(&mut self.sink);
        }
        self.drain();
    }

    fn take(&mut self, owner: Owner) -> StoreCall {
        let at = self.calls.iter().position(|(of, _)| *of == owner);
        self.calls.remove(at.unwrap_or_else(|| panic!("{owner:?} asked for nothing: {:?}", self.calls))).1
    }

    fn granted(&mut self, id: i64) {
        assert_eq!(self.take(Owner::Lease), StoreCall::Grant(LEASE));
        let lease = Lease { id: LeaseId(id), ttl: LEASE };
        self.membership.on_granted(StoreAnswer::Grant(Ok(lease)), &mut self.sink);
        self.drain();
    }

    fn reads(&mut self, found: Option<Bytes>) {
        assert_eq!(self.take(Owner::Register), StoreCall::Get(vec![keys::broker("a")]));
        let values = vec![found.map(|value| Versioned { value, modified: Revision(1) })];
        let snapshot = Snapshot { revision: Revision(1), values };
        self.membership.on_registering(StoreAnswer::Get(Ok(snapshot)), &mut self.sink);
        self.drain();
    }

    fn registers(&mut self, found: Option<Bytes>) -> LeaseId {
        let compare = match &found {
            None => Compare::Absent(keys::broker("a")),
            Some(value) => Compare::Value(keys::broker("a"), value.clone()),
        };
        self.reads(found);
        let StoreCall::Txn(txn) = self.take(Owner::Register) else { panic!("it is put") };
        assert_eq!(txn.compares, [compare]);
        let [Op::PutLeased(_, value, lease)] = &txn.ops[..] else { panic!("{:?}", txn.ops) };
        assert_eq!(*value, record(1, 10).encode(), "the bytes stay the same for a life");
        let done = StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(2))));
        self.membership.on_registering(done, &mut self.sink);
        self.drain();
        *lease
    }

    fn kept(&mut self, place: u8, answer: Result<KeptAlive, StoreError>) {
        assert!(matches!(self.take(Owner::KeepAlive(place)), StoreCall::KeepAlive(_)));
        self.membership.on_kept(place, StoreAnswer::KeepAlive(answer), &mut self.sink);
        self.drain();
    }

    fn is_fresh(&self) -> bool {
        let by_shard = self.fresh.is_some_and(|fresh| fresh.holds(self.sink.now, self.sink.wall));
        // A shard hears of freshness, and forgets nothing: it may only be stricter where a clock jumped.
        assert!(!self.membership.is_fresh(&self.sink) || by_shard);
        self.membership.is_fresh(&self.sink)
    }
}

#[test]
fn a_lease_counts_from_the_moment_at_which_it_was_asked_for() {
    let mut joining = Joining::new();
    joining.pass(Duration::from_secs(2));
    joining.granted(1);
    joining.registers(None);
    assert!(joining.is_fresh());
    joining.pass(Duration::from_millis(2_990));
    assert!(joining.is_fresh());
    joining.pass(Duration::from_millis(20));
    assert!(!joining.is_fresh(), "asked for five seconds ago");
    joining.kept(0, Ok(KeptAlive::For(LEASE)));
    assert!(joining.is_fresh());
}

#[test]
fn a_lost_keep_alive_does_not_keep_the_next_from_being_sent() {
    let mut joining = Joining::joined();
    joining.pass(Duration::from_millis(1_700));
    joining.pass(Duration::from_millis(1_700));
    joining.pass(Duration::from_millis(1_000));
    joining.kept(1, Ok(KeptAlive::For(LEASE)));
    joining.pass(Duration::from_millis(3_900));
    assert!(joining.is_fresh(), "the second, sent after 3.4 s, was answered");
    joining.kept(0, Err(StoreError::unknown(FailureKind::Timeout, "lost")));
    assert!(joining.is_fresh());
}

#[test]
fn a_lease_that_has_ended_is_taken_anew_and_the_same_key_put_under_it() {
    let mut joining = Joining::joined();
    joining.pass(Duration::from_secs(20));
    joining.kept(0, Ok(KeptAlive::Ended));
    assert!(!joining.is_fresh());
    joining.granted(2);
    assert_eq!(joining.registers(None), LeaseId(2));
    assert_eq!(joining.membership.standing(), Standing::Member);
}

#[test]
fn the_key_of_an_earlier_life_is_replaced_and_that_of_a_later_one_is_the_end() {
    let mut joining = Joining::new();
    joining.granted(1);
    joining.registers(Some(record(0, 10).encode()));
    joining.pass(Duration::from_secs(1));
    joining.membership.on_view(&view_of(vec![(keys::broker("a"), record(9, 10).encode())]), &mut joining.sink);
    joining.drain();
    joining.reads(Some(record(9, 10).encode()));
    assert_eq!(joining.membership.standing(), Standing::Replaced);
    assert_eq!(joining.calls.iter().filter(|(owner, _)| *owner == Owner::Register).count(), 0);
}

#[test]
fn a_view_that_is_late_is_no_end() {
    let mut joining = Joining::joined();
    joining.membership.on_view(&view_of(vec![(keys::broker("a"), record(0, 10).encode())]), &mut joining.sink);
    joining.drain();
    joining.registers(Some(record(1, 10).encode()));
    assert_eq!(joining.membership.standing(), Standing::Member);
}

#[test]
fn lanes_look_for_a_fence_while_the_lease_is_not_fresh_and_after_a_jump_of_either_clock() {
    let mut joining = Joining::joined();
    let probes = |joining: &mut Joining, mono, wall| {
        joining.commands = 0;
        joining.jump(mono, wall);
        joining.commands
    };
    let (short, hour) = (Duration::from_millis(400), Duration::from_secs(3_600));
    assert_eq!(probes(&mut joining, short, short), 0);
    assert_eq!(probes(&mut joining, short, hour), 1, "the wall clock jumped");
    assert!(!joining.is_fresh());
    joining.kept(0, Ok(KeptAlive::For(LEASE)));
    assert!(joining.is_fresh(), "asked after the jump");
    assert_eq!(probes(&mut joining, LEASE * 2, LEASE * 2), 1, "nothing was seen for so long");
    let every: usize = (0..20).map(|_| probes(&mut joining, short, short)).sum();
    let passed = short * 20;
    let expected = usize::try_from(passed.as_millis() / PROBE_EVERY.as_millis()).expect("a few");
    assert!((expected - 1..=expected).contains(&every), "{every} looks in {passed:?}");
}

#[test]
fn a_life_that_leaves_says_so_under_its_lease_until_the_view_shows_it() {
    let mut joining = Joining::joined();
    let mut view = view_of(vec![(keys::broker("a"), record(1, 10).encode())]);
    joining.membership.begin_to_leave(&view, &mut joining.sink);
    joining.membership.say_so(&view, &mut joining.sink);
    joining.drain();
    let StoreCall::Txn(txn) = joining.take(Owner::Leaving) else { panic!("it is put") };
    assert_eq!(txn.compares, [Compare::Absent(keys::drain("a"))], "what an operator said stays");
    let said = DrainRecord { v: RECORD_VERSION, boot: BootId(1) }.encode();
    assert_eq!(txn.ops, [Op::PutLeased(keys::drain("a"), said.clone(), LeaseId(1))]);
    assert_eq!(joining.calls.iter().filter(|(owner, _)| *owner == Owner::Leaving).count(), 0, "once at a time");
    joining.membership.on_said();
    joining.membership.say_so(&view, &mut joining.sink);
    joining.drain();
    joining.take(Owner::Leaving);
    joining.membership.on_said();
    change(&mut view, keys::drain("a"), Some(said), 12);
    joining.membership.say_so(&view, &mut joining.sink);
    joining.drain();
    assert!(view.is_leaving("a") && joining.calls.iter().all(|(owner, _)| *owner != Owner::Leaving));
    change(&mut view, keys::broker("a"), Some(record(2, 10).encode()), 13);
    assert!(!view.is_leaving("a"), "a later life does not leave");
    assert_eq!(view.drained().count(), 0);
    change(&mut view, keys::drain("a"), Some(Bytes::new()), 14);
    assert!(view.is_leaving("a") && view.drained().eq(["a"]));
}

// ---- the controller ----

/// A controller and what it asked for.
struct Desk {
    sink: Sink,
    controller: Controller,
    membership: Membership,
    view: View,
    sealed: Vec<Wid>,
    txns: Vec<Vec<Op>>,
    /// Transactions are not answered.
    holds: bool,
    /// What a read finds, instead of what the view says.
    stored: BTreeMap<Key, Bytes>,
}

impl Desk {
    fn new(entries: Vec<(Key, Bytes)>) -> Desk {
        let mut sink = Sink::default();
        let membership = Membership::new(("a".to_owned(), BootId(1)), &record(1, 10), (2, 1), &mut sink);
        let own = ControllerRecord { v: RECORD_VERSION, broker: "a".to_owned(), boot: BootId(1) };
        let entries = [entries, vec![(keys::CONTROLLER.to_owned(), own.encode())]].concat();
        let stored = entries.iter().cloned().collect();
        let (controller, view, sealed, txns) = (Controller::default(), view_of(entries), Vec::new(), Vec::new());
        Desk { sink, controller, membership, view, sealed, txns, holds: false, stored }
    }

    fn look(&mut self) {
        self.controller.on_look(&self.view, &self.membership, &mut self.sink);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        loop {
            let effects = self.sink.drain(Vec::new());
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Call(id, StoreCall::Get(asked)) => {
                        assert_eq!(self.sink.ended(id), Owner::CheckDead);
                        let found = |key: &Key| self.stored.get(key).cloned();
                        let versioned = |value| Versioned { value, modified: Revision(1) };
                        let values = asked.iter().map(|key| found(key).map(versioned)).collect();
                        let answer = StoreAnswer::Get(Ok(Snapshot { revision: Revision(1), values }));
                        self.controller.on_checked(&self.view, answer, &mut self.sink);
                    }
                    Effect::Call(id, StoreCall::Txn(txn)) => {
                        assert_eq!(self.sink.ended(id), Owner::Wishes);
                        let own = self.membership.as_controller(&self.view);
                        assert_eq!(txn.compares, Vec::from_iter(own), "invariant 1");
                        self.txns.push(txn.ops);
                        if !self.holds {
                            self.written();
                        }
                    }
                    Effect::Seal(wid) => self.sealed.push(wid),
                    Effect::Shard(_, FromControl::Fresh(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn written(&mut self) {
        let done = StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(30))));
        self.controller.on_written(&self.view, &self.membership, &done, &mut self.sink);
    }

    fn pass(&mut self, time: Duration) {
        self.sink.now = self.sink.now.plus(time);
        while let Some(owner) = self.sink.due() {
            match owner {
                Owner::SealAgain => self.controller.check_next(&mut self.sink),
                Owner::Plan => self.controller.on_look(&self.view, &self.membership, &mut self.sink),
                Owner::Membership => {}
                other => panic!("{other:?}"),
            }
        }
        self.carry_out();
    }
}

#[test]
fn the_logs_of_the_dead_are_ended_and_those_of_later_lives_and_of_the_living_are_not() {
    let mut desk = Desk::new(
        [
            two_brokers(),
            vec![
                (keys::wal(Wid(3)), wal("gone", 3, WalState::Open)),
                (keys::wal(Wid(4)), wal("b", 1, WalState::Fencing)),
                (keys::wal(Wid(5)), wal("gone", 3, WalState::Sealed { end: Seq(2) })),
            ],
        ]
        .concat(),
    );
    desk.look();
    assert_eq!(desk.sealed, [Wid(3), Wid(4)]);
    desk.look();
    assert_eq!(desk.sealed.len(), 2, "they are under way");
    desk.controller.on_sealed(Wid(3), false, &mut desk.sink);
    desk.carry_out();
    desk.pass(Duration::from_secs(2));
    assert_eq!(desk.sealed, [Wid(3), Wid(4), Wid(3)], "what failed is tried again");
}

#[test]
fn a_log_whose_owner_the_view_does_not_know_yet_is_left_alone() {
    let mut desk = Desk::new([two_brokers(), vec![(keys::wal(Wid(3)), wal("new", 3, WalState::Open))]].concat());
    desk.stored.insert(keys::broker("new"), record(3, 30).encode());
    desk.look();
    assert_eq!(desk.sealed, []);
}

#[test]
fn before_the_lease_has_ended_two_observers_are_needed() {
    let more = vec![(keys::broker("c"), record(3, 30).encode()), (keys::partition(partition(0)), owned(2, 0, false))];
    let mut desk = Desk::new([two_brokers(), more].concat());
    let suspicion = SuspectRecord { v: RECORD_VERSION, boot: BootId(2) }.encode();
    change(&mut desk.view, keys::suspect("b", "a"), Some(suspicion.clone()), 12);
    change(&mut desk.view, keys::suspect("b", "b"), Some(suspicion.clone()), 13);
    desk.look();
    assert_eq!(desk.sealed, [], "one observer, and itself");
    change(&mut desk.view, keys::suspect("b", "c"), Some(suspicion), 14);
    desk.look();
    assert_eq!(desk.sealed, [Wid(2)]);
    change(&mut desk.view, keys::wal(Wid(2)), Some(wal("b", 2, WalState::Sealed { end: Seq(1) })), 15);
    change(&mut desk.view, keys::wal(Wid(4)), Some(wal("b", 2, WalState::Open)), 16);
    desk.controller.on_sealed(Wid(2), true, &mut desk.sink);
    desk.look();
    assert_eq!(desk.sealed, [Wid(2)], "in its next log is nothing that others are to take");
}

#[test]
fn a_suspected_broker_is_nobodys_home_unless_as_many_as_half_of_all_are_suspected() {
    let names = ["a", "b", "c", "d", "e"];
    let brokers = (1..).zip(names).map(|(boot, name)| (keys::broker(name), record(boot, 10).encode()));
    let mut view = view_of(brokers.chain([(keys::wish(partition(0)), wish("b", 0))]).collect());
    view.take_touched();
    let say = |view: &mut View, name: &str, boot, by: &str, revision| {
        let suspicion = SuspectRecord { v: RECORD_VERSION, boot: BootId(boot) }.encode();
        change(view, keys::suspect(name, by), Some(suspicion), revision);
    };
    say(&mut view, "b", 2, "a", 12);
    say(&mut view, "b", 9, "c", 13);
    assert!(view.home(partition(0)).is_some() && !view.take_touched().brokers, "one of them means another life");
    say(&mut view, "b", 2, "c", 14);
    assert!(view.home(partition(0)).is_none() && view.take_touched().brokers);
    for (place, name) in (0..).zip(["c", "d"]) {
        say(&mut view, name, u64::try_from(place + 3).expect("small"), "a", 20 + 2 * place);
        say(&mut view, name, u64::try_from(place + 3).expect("small"), "e", 21 + 2 * place);
    }
    assert!(view.home(partition(0)).is_some() && !view.is_suspected("d"), "three of five");
    change(&mut view, keys::suspect("c", "e"), None, 30);
    change(&mut view, keys::suspect("d", "e"), None, 31);
    assert!(view.is_suspected("b"));
    change(&mut view, keys::broker("c"), None, 32);
    assert!(!view.is_suspected("b"), "who said so lives no more");
}

#[test]
fn a_controller_that_does_not_answer_is_replaced_and_one_that_does_is_not() {
    let mut joining = Joining::joined();
    let controller = ControllerRecord { v: RECORD_VERSION, broker: "b".to_owned(), boot: BootId(2) }.encode();
    let mut entries = two_brokers();
    entries.extend([(keys::broker("c"), record(3, 30).encode()), (keys::CONTROLLER.to_owned(), controller.clone())]);
    let mut view = view_of(entries);
    joining.membership.stand(&view, &mut joining.sink);
    joining.drain();
    assert!(joining.calls.iter().all(|(owner, _)| *owner != Owner::Election));
    for (by, revision) in [("a", 12), ("c", 13)] {
        let suspicion = SuspectRecord { v: RECORD_VERSION, boot: BootId(2) }.encode();
        change(&mut view, keys::suspect("b", by), Some(suspicion), revision);
    }
    joining.membership.stand(&view, &mut joining.sink);
    joining.drain();
    let StoreCall::Txn(txn) = joining.take(Owner::Election) else { panic!("it is put") };
    assert_eq!(txn.compares, [Compare::Value(keys::CONTROLLER.to_owned(), controller)]);
}

#[test]
fn so_many_logs_are_ended_a_minute_and_no_more() {
    let logs = (100..100 + 2 * SEALS as u128).map(|wid| (keys::wal(Wid(wid)), wal("gone", 3, WalState::Open)));
    let mut desk = Desk::new([two_brokers(), logs.collect()].concat());
    desk.look();
    assert_eq!(desk.sealed.len(), SEALS);
    desk.pass(SEALS_PER - Duration::from_millis(1));
    assert_eq!(desk.sealed.len(), SEALS);
    desk.pass(Duration::from_millis(1));
    assert_eq!(desk.sealed.len(), 2 * SEALS);
}

#[test]
fn new_partitions_and_slots_get_wishes_and_those_of_topics_that_are_gone_lose_theirs() {
    let topic = TopicId(Uuid::from_u128(7));
    let live = TopicRecord {
        v: RECORD_VERSION,
        id: topic,
        state: TopicState::Live,
        partitions: 200,
        settings: BTreeMap::new(),
    };
    let stray = TopicPartition { topic: TopicId(Uuid::from_u128(8)), index: 0 };
    let more = vec![(keys::topic("t"), live.encode()), (keys::wish(stray), wish("a", 0))];
    let mut desk = Desk::new([two_brokers(), more].concat());
    desk.look();
    let ops: Vec<Op> = desk.txns.concat();
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::Put(key, _) if keys::parse_wish(key).is_some())).count(), 200);
    assert_eq!(
        ops.iter().filter(|op| matches!(op, Op::Put(key, _) if keys::parse_slot_wish(key).is_some())).count(),
        64
    );
    assert!(ops.contains(&Op::Delete(keys::wish(stray))));
    for (at, op) in ops.into_iter().enumerate() {
        let (key, value) = match op {
            Op::Put(key, value) => (key, Some(value)),
            Op::Delete(key) => (key, None),
            other => panic!("{other:?}"),
        };
        change(&mut desk.view, key, value, 40 + at as i64);
    }
    desk.txns.clear();
    desk.look();
    assert_eq!(desk.txns, Vec::<Vec<Op>>::new(), "the plan stands");
}

#[test]
fn what_changes_while_wishes_are_written_is_planned_for_afterwards() {
    let live = |id| TopicRecord {
        v: RECORD_VERSION,
        id: TopicId(Uuid::from_u128(id)),
        state: TopicState::Live,
        partitions: 1,
        settings: BTreeMap::new(),
    };
    let mut desk = Desk::new([two_brokers(), vec![(keys::topic("t"), live(7).encode())]].concat());
    desk.holds = true;
    desk.look();
    change(&mut desk.view, keys::topic("u"), Some(live(8).encode()), 12);
    desk.look();
    assert_eq!(desk.txns.len(), 1, "the first is under way");
    desk.holds = false;
    desk.written();
    desk.pass(Duration::from_secs(1));
    let of_late =
        |op: &Op| matches!(op, Op::Put(key, _) if *key == keys::wish(TopicPartition { topic: live(8).id, index: 0 }));
    assert!(desk.txns.concat().iter().any(of_late), "nothing else would have it planned for");
}

#[test]
fn what_costs_much_is_swapped_now_and_then_with_what_costs_little() {
    use millrace_storage::meta::records::{LoadRecord, PartitionLoad};
    let topic = partition(0).topic;
    let live =
        TopicRecord { v: RECORD_VERSION, id: topic, state: TopicState::Live, partitions: 8, settings: BTreeMap::new() };
    // Two on each of the four shards; those of "a" cost a hundred times as much.
    let seats = (0..8).map(|index| {
        (keys::partition(partition(index)), owned(1 + u128::from(index % 2), u16::from(index / 2 % 2 == 1), false))
    });
    let load =
        |index: u32| PartitionLoad { topic, index, rate: if index.is_multiple_of(2) { 100 << 20 } else { 1 << 20 } };
    let loads =
        |which: u32| LoadRecord { v: RECORD_VERSION, partitions: (0..4).map(|at| load(2 * at + which)).collect() };
    let told = vec![(keys::load("a"), loads(0).encode()), (keys::load("b"), loads(1).encode())];
    let mut desk = Desk::new([two_brokers(), vec![(keys::topic("t"), live.encode())], seats.collect(), told].concat());
    let moved = |desk: &Desk| {
        let ops = desk.txns.concat();
        ops.iter().filter(|op| matches!(op, Op::Put(key, _) if keys::parse_wish(key).is_some())).count()
    };
    desk.look();
    assert_eq!(moved(&desk), 0, "counts are even");
    desk.controller.even_loads_now_and_then(&desk.view, &mut desk.sink);
    desk.pass(Duration::from_secs(59));
    assert_eq!(moved(&desk), 0);
    desk.sink.now = desk.sink.now.plus(Duration::from_secs(2));
    desk.controller.even_loads_now_and_then(&desk.view, &mut desk.sink);
    desk.pass(Duration::from_secs(1));
    assert_eq!(moved(&desk), 4, "a swap of each pair of shards");
}

#[test]
fn a_process_that_is_not_controller_plans_nothing() {
    let mut desk = Desk::new([two_brokers(), vec![(keys::wal(Wid(3)), wal("gone", 3, WalState::Open))]].concat());
    let other = ControllerRecord { v: RECORD_VERSION, broker: "b".to_owned(), boot: BootId(2) };
    change(&mut desk.view, keys::CONTROLLER.to_owned(), Some(other.encode()), 12);
    desk.look();
    assert!(desk.txns.is_empty() && desk.sealed.is_empty());
}

// ---- settings that others change ----

#[test]
fn what_others_change_of_quotas_is_shown_and_never_goes_back_behind_a_change_of_ones_own() {
    use super::super::cluster_records::{ClusterRecords, Wish};
    use super::super::messages::QuotaAlteration;
    use millrace_storage::meta::records::{QuotaEntity, QuotaPart, QuotaRecord};
    let mut sink = Sink::default();
    let mut records = ClusterRecords::new(BTreeMap::new(), BTreeMap::new()).among_others();
    records.take_changed();
    let entity = QuotaEntity { user: QuotaPart::Default, client_id: QuotaPart::Absent };
    let quota = |rate| {
        let quotas = BTreeMap::from([("producer_byte_rate".to_owned(), rate)]);
        QuotaRecord { v: RECORD_VERSION, quotas }.encode()
    };
    let key = keys::quota(&entity);
    let rate = |records: &mut ClusterRecords| {
        let (quotas, _) = records.take_changed()?;
        quotas.0.get(&entity).and_then(|quotas| quotas.get("producer_byte_rate").copied())
    };
    records.learn(&key, Some(&quota(5)), Revision(5));
    assert_eq!(rate(&mut records), Some(5));
    records.learn(&key, Some(&quota(5)), Revision(6));
    assert_eq!(records.take_changed(), None, "it is known");
    let changes = vec![("producer_byte_rate".to_owned(), Some(9))];
    let wish = Wish::Quota(QuotaAlteration { entity: entity.clone(), changes });
    records.alter((ShardIndex(0), Token(1)), std::iter::once(wish), false, &mut sink);
    records.on_store(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(20)))), &mut sink);
    assert_eq!(rate(&mut records), Some(9));
    records.learn(&key, Some(&quota(7)), Revision(19));
    assert_eq!(records.take_changed(), None, "the view has not come so far");
    records.learn(&key, Some(&quota(8)), Revision(21));
    assert_eq!(rate(&mut records), Some(8));
    records.learn(&key, Some(&Bytes::from_static(b"nonsense")), Revision(22));
    assert_eq!(records.take_changed(), None);
}

// ---- coordinator slots ----

/// The slots of process "a", of which the test plays slot 3.
struct SlotDesk {
    sink: Sink,
    slots: Slots,
    calls: Vec<StoreCall>,
    messages: Vec<FromControl>,
}

impl SlotDesk {
    fn new() -> SlotDesk {
        let slots = Slots::among_others("a".to_owned(), BootId(1));
        SlotDesk { sink: Sink::default(), slots, calls: Vec::new(), messages: Vec::new() }
    }

    fn place(&mut self, own: Option<u16>, held: Option<SlotRecord>) {
        let home = SlotHome { own: own.map(ShardIndex), elsewhere: None, epoch: 0, held };
        self.slots.place(3, home, &mut self.sink);
        self.drain();
    }

    fn drain(&mut self) {
        for effect in self.sink.drain(Vec::new()) {
            match effect {
                Effect::Call(id, call) => {
                    assert_eq!(self.sink.ended(id), Owner::Slot(3));
                    self.calls.push(call);
                }
                Effect::Shard(_, message) => self.messages.push(message),
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, answer: StoreAnswer) {
        self.slots.on_store(3, answer, &mut self.sink);
        self.drain();
    }

    /// The last read finds this record, and this life of whoever's key was asked for.
    fn finds(&mut self, found: Option<SlotRecord>, life: Option<u64>) -> Vec<Key> {
        let Some(StoreCall::Get(asked)) = self.calls.pop() else { panic!("nothing is read") };
        let versioned = |value| Versioned { value, modified: Revision(1) };
        let life = life.map(|boot| versioned(record(boot, 20).encode()));
        let values = [found.map(|found| versioned(found.encode())), life];
        let values = values.into_iter().take(asked.len()).collect();
        self.answer(StoreAnswer::Get(Ok(Snapshot { revision: Revision(1), values })));
        asked
    }

    /// The epoch that is raised to.
    fn raised(&mut self) -> u64 {
        let Some(StoreCall::Txn(txn)) = self.calls.pop() else { panic!("nothing is written") };
        let [Op::Put(_, value)] = &txn.ops[..] else { panic!("{:?}", txn.ops) };
        self.answer(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(2)))));
        SlotRecord::decode(value).expect("a record of ours").epoch
    }

    fn loads(&mut self) {
        for _ in 0..2 {
            assert!(matches!(self.calls.pop(), Some(StoreCall::List { .. })));
            self.answer(StoreAnswer::List(Ok(Page { revision: Revision(2), entries: Vec::new(), more: false })));
        }
        assert!(matches!(self.messages.pop(), Some(FromControl::SlotGranted { slot: 3, .. })));
    }
}

fn slot(broker: &str, boot: u64, epoch: u64, released: bool) -> SlotRecord {
    let (broker, boot, shard) = (broker.to_owned(), BootId(boot), ShardIndex(0));
    SlotRecord { v: RECORD_VERSION, epoch, broker, boot, shard, released }
}

#[test]
fn a_slot_of_a_living_process_is_taken_only_when_it_has_let_go_and_that_of_a_dead_one_at_once() {
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    assert_eq!(desk.finds(Some(slot("b", 2, 7, false)), None), [keys::slot(3)]);
    assert_eq!(desk.finds(Some(slot("b", 2, 7, false)), Some(2)), [keys::slot(3), keys::broker("b")]);
    assert_eq!(desk.calls, [], "it lives");
    desk.place(Some(1), None);
    desk.finds(Some(slot("b", 2, 7, true)), Some(2));
    assert_eq!(desk.raised(), 8, "it has let go");
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    desk.finds(Some(slot("b", 2, 7, false)), None);
    desk.finds(Some(slot("b", 2, 7, false)), Some(3));
    assert_eq!(desk.raised(), 8, "a later life has its key");
}

#[test]
fn what_the_view_shows_of_a_slot_while_its_record_is_read_is_not_missed() {
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    desk.finds(Some(slot("b", 2, 7, false)), None);
    // The release is shown before the answer of the read that came before it.
    desk.place(Some(1), None);
    assert_eq!(desk.finds(Some(slot("b", 2, 7, false)), Some(2)), [keys::slot(3), keys::broker("b")]);
    desk.finds(Some(slot("b", 2, 7, true)), Some(2));
    assert_eq!(desk.raised(), 8, "it is read again");
}

#[test]
fn a_slot_is_granted_anew_under_another_lease_also_while_it_is_written_or_loaded() {
    let mut desk = SlotDesk::new();
    let doubt = |desk: &mut SlotDesk| {
        desk.slots.doubt_all(&mut desk.sink);
        desk.drain();
    };
    let left = |desk: &mut SlotDesk| {
        assert_eq!(desk.messages.pop(), Some(FromControl::SlotRevoked { slot: 3 }));
        desk.slots.left(3, &mut desk.sink);
        desk.drain();
    };
    let own = |epoch| Some(SlotRecord { shard: ShardIndex(1), ..slot("a", 1, epoch, false) });
    desk.place(Some(1), None);
    desk.finds(None, None);
    assert_eq!(desk.raised(), 1);
    desk.loads();
    doubt(&mut desk);
    assert_eq!(desk.calls, [], "the shard may still answer");
    left(&mut desk);
    desk.finds(own(1), None);
    assert_eq!(desk.raised(), 2);
    // While it is loaded.
    doubt(&mut desk);
    for _ in 0..2 {
        assert!(matches!(desk.calls.pop(), Some(StoreCall::List { .. })));
        let nothing = Page { revision: Revision(2), entries: Vec::new(), more: false };
        desk.answer(StoreAnswer::List(Ok(nothing)));
    }
    assert_eq!(desk.messages, [], "that was under the earlier lease");
    desk.finds(own(2), None);
    assert_eq!(desk.raised(), 3);
    desk.loads();
    // While it is written.
    let writes = vec![(keys::group(3, "g"), None)];
    desk.slots.persist(ShardIndex(1), Token(9), (3, 3), writes, &mut desk.sink);
    desk.drain();
    assert!(matches!(desk.calls.pop(), Some(StoreCall::Txn(_))));
    doubt(&mut desk);
    let refused = FromControl::Persisted { token: Token(9), result: Err(ErrorCode::CoordinatorNotAvailable) };
    assert_eq!(desk.messages.pop(), Some(refused));
    left(&mut desk);
    assert_eq!(desk.calls, [], "the write is under way");
    desk.answer(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(3)))));
    desk.finds(Some(slot("b", 2, 4, false)), None);
    assert_eq!(desk.finds(Some(slot("b", 2, 4, false)), Some(2)), [keys::slot(3), keys::broker("b")]);
    assert_eq!((desk.calls, desk.messages), (vec![], vec![]), "another has it by now");
}

#[test]
fn a_slot_whose_home_is_elsewhere_is_taken_from_its_shard_and_then_released() {
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    desk.finds(None, None);
    assert_eq!(desk.raised(), 1);
    desk.loads();
    desk.place(None, None);
    assert_eq!(desk.messages, [FromControl::SlotRevoked { slot: 3 }]);
    assert_eq!(desk.calls, [], "the shard may still answer");
    desk.slots.left(3, &mut desk.sink);
    desk.drain();
    let held = SlotRecord { shard: ShardIndex(1), ..slot("a", 1, 1, false) };
    let released = SlotRecord { released: true, ..held.clone() };
    let Some(StoreCall::Txn(txn)) = desk.calls.pop() else { panic!("nothing is written") };
    assert_eq!(txn.compares, [Compare::Value(keys::slot(3), held.encode())]);
    assert_eq!(txn.ops, [Op::Put(keys::slot(3), released.encode())]);
    desk.answer(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(3)))));
    desk.place(None, None);
    assert_eq!(desk.calls, [], "nothing is left to do");
    desk.place(None, Some(held));
    assert_eq!(desk.calls.len(), 1, "a record of this life stands after all");
}

// ---- topics of others ----

#[test]
fn a_topic_that_another_process_was_faster_to_create_is_learned_however_far_the_store_is_by_then() {
    let mut sink = Sink::default();
    let numbers = PartitionNumbers { default: 1, most: 10 };
    let own_id = TopicId(Uuid::from_u128(1));
    let mut topics = Topics::new(Counts { shards: 1, lanes: 1 }, numbers, true, Box::new(move || own_id));
    let new = NewTopic { name: "t".to_owned(), partitions: None, settings: BTreeMap::new() };
    topics.create((ShardIndex(0), Token(1)), vec![new], false, false, &mut sink);
    let theirs = TopicRecord {
        v: RECORD_VERSION,
        id: TopicId(Uuid::from_u128(2)),
        state: TopicState::Live,
        partitions: 1,
        settings: BTreeMap::new(),
    };
    topics.on_store(own_id, StoreAnswer::Txn(Ok(TxnOutcome::Conflict(Revision(900)))), &mut sink);
    let found = Versioned { value: theirs.encode(), modified: Revision(7) };
    let snapshot = Snapshot { revision: Revision(900), values: vec![Some(found)] };
    topics.on_store(own_id, StoreAnswer::Get(Ok(snapshot)), &mut sink);
    let answered = sink.drain(Vec::new()).into_iter().find_map(|effect| match effect {
        Effect::Shard(_, FromControl::Topics { topics, .. }) => Some(topics[0].error),
        _ => None,
    });
    assert_eq!(answered, Some(ErrorCode::TopicAlreadyExists));
    assert!(topics.take_unsettled().names.contains("t"), "the view is to be looked at");
    topics.learn("t", None, Revision(6), &mut sink);
    topics.learn("t", Some(&theirs), Revision(7), &mut sink);
    let (images, _) = topics.take_changed(&[10]);
    assert_eq!(images.iter().map(|image| image.id).collect::<Vec<_>>(), [theirs.id]);
}

#[test]
fn lanes_forget_a_topic_that_another_process_deletes_when_it_is_gone_and_until_then_take_nothing_of_it() {
    let mut sink = Sink::default();
    let numbers = PartitionNumbers { default: 1, most: 10 };
    let new_id = Box::new(|| TopicId(Uuid::from_u128(1)));
    let mut topics = Topics::new(Counts { shards: 1, lanes: 1 }, numbers, true, new_id);
    let id = partition(0).topic;
    let record = |state| TopicRecord { v: RECORD_VERSION, id, state, partitions: 2, settings: BTreeMap::new() };
    topics.learn("t", Some(&record(TopicState::Live)), Revision(5), &mut sink);
    topics.on_lane(0, LaneReport::Opened { wid: Wid(1) }, &mut sink);
    let home = Home { own: Some(ShardIndex(0)), is_free: true, leader: None, epoch: LeaderEpoch(4) };
    (0..2).for_each(|index| topics.place(partition(index), home, &mut sink));
    let leading = LaneReport::Leading { partition: partition(0), shard: ShardIndex(0), epoch: LeaderEpoch(5) };
    topics.on_lane(0, leading, &mut sink);
    sink.drain(Vec::new());
    topics.delete((ShardIndex(0), Token(1)), vec!["t".to_owned()], &mut sink);
    assert_eq!(sink.drain(Vec::new()), [], "a partition is undecided");
    topics.learn("t", Some(&record(TopicState::Deleting)), Revision(6), &mut sink);
    let release = LaneCommand::Release { partitions: vec![partition(1)] };
    assert_eq!(sink.drain(Vec::new()), [Effect::Lane(0, release)], "the other is led");
    (0..2).for_each(|index| topics.place(partition(index), home, &mut sink));
    topics.on_lane(0, LaneReport::Fenced, &mut sink);
    topics.on_lane(0, LaneReport::Opened { wid: Wid(2) }, &mut sink);
    assert_eq!(sink.drain(Vec::new()), [], "it is being deleted");
    topics.on_lane(0, LaneReport::NotLeading { partition: partition(1) }, &mut sink);
    assert_eq!(sink.drain(Vec::new()), [], "by somebody else");
    topics.learn("t", None, Revision(7), &mut sink);
    let done = sink.drain(Vec::new());
    assert_eq!(done[0], Effect::Lane(0, LaneCommand::Forget { topic: id }));
    assert!(
        matches!(&done[1..], [Effect::Shard(_, FromControl::Topics { topics, .. })] if topics[0].error == ErrorCode::None)
    );
}

#[test]
fn a_partition_is_led_once_nobody_else_may_and_released_when_its_home_is_elsewhere() {
    let mut sink = Sink::default();
    let numbers = PartitionNumbers { default: 1, most: 10 };
    let new_id = Box::new(|| TopicId(Uuid::from_u128(1)));
    let mut topics = Topics::new(Counts { shards: 2, lanes: 1 }, numbers, true, new_id);
    let live = TopicRecord {
        v: RECORD_VERSION,
        id: partition(0).topic,
        state: TopicState::Live,
        partitions: 1,
        settings: BTreeMap::new(),
    };
    topics.learn("t", Some(&live), Revision(5), &mut sink);
    topics.on_lane(0, LaneReport::Opened { wid: Wid(1) }, &mut sink);
    let home =
        |own: Option<u16>, is_free, leader| Home { own: own.map(ShardIndex), is_free, leader, epoch: LeaderEpoch(4) };
    let leader = |topics: &mut Topics| topics.take_changed(&[10, 11]).0.pop().map(|image| image.partitions[0].leader);
    let commands = |sink: &mut Sink| sink.drain(Vec::new());
    topics.place(partition(0), home(Some(1), false, Some(20)), &mut sink);
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![], Some(Some(20))), "somebody else leads it");
    topics.place(partition(0), home(Some(1), true, None), &mut sink);
    let lead = LaneCommand::Lead { partitions: vec![(partition(0), ShardIndex(1))] };
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![Effect::Lane(0, lead)], Some(None)));
    let leading = LaneReport::Leading { partition: partition(0), shard: ShardIndex(1), epoch: LeaderEpoch(5) };
    topics.on_lane(0, leading, &mut sink);
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![], Some(Some(11))));
    let moving = Home { epoch: LeaderEpoch(6), ..home(None, false, Some(20)) };
    topics.place(partition(0), moving, &mut sink);
    let release = LaneCommand::Release { partitions: vec![partition(0)] };
    assert_eq!(commands(&mut sink), [Effect::Lane(0, release)]);
    let shown = topics.take_changed(&[10, 11]).0.pop().expect("it changed").partitions[0];
    assert_eq!((shown.leader, shown.epoch), (Some(20), LeaderEpoch(6)), "clients are told where to go at once");
    topics.on_lane(0, LaneReport::NotLeading { partition: partition(0) }, &mut sink);
    topics.place(partition(0), home(None, true, Some(20)), &mut sink);
    assert_eq!((commands(&mut sink), leader(&mut topics)), (vec![], Some(Some(20))), "its home has it in a moment");
    assert_eq!(topics.left_here([partition(0)].into_iter()), 1, "its record names a log of this process");
    assert_eq!(topics.left_here(std::iter::empty()), 0);
}
