//! The controller: the dead, wishes, loads.

use super::*;

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
    /// Times that loads were listed.
    listings: u32,
}

impl Desk {
    fn new(entries: Vec<(Key, Bytes)>) -> Desk {
        let mut sink = Sink::default();
        let membership = Membership::new(("a".to_owned(), BootId(1)), &record(1, 10), (2, 1), &mut sink);
        let own = ControllerRecord { v: RECORD_VERSION, broker: "a".to_owned(), boot: BootId(1) };
        let entries = [entries, vec![(keys::CONTROLLER.to_owned(), own.encode())]].concat();
        let stored = entries.iter().cloned().collect();
        let (controller, view, sealed, txns) = (Controller::default(), view_of(entries), Vec::new(), Vec::new());
        Desk { sink, controller, membership, view, sealed, txns, holds: false, stored, listings: 0 }
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
                    Effect::Call(id, StoreCall::List { prefix, after: None, .. }) => {
                        assert_eq!((self.sink.ended(id), prefix.as_str()), (Owner::Costs, keys::LOADS));
                        let told = self.stored.iter().filter(|(key, _)| key.starts_with(keys::LOADS));
                        let versioned = |value: &Bytes| Versioned { value: value.clone(), modified: Revision(1) };
                        let entries = told.map(|(key, value)| (key.clone(), versioned(value))).collect();
                        let answer = StoreAnswer::List(Ok(Page { revision: Revision(1), entries, more: false }));
                        self.listings += 1;
                        self.controller.on_costs(&self.view, answer, &mut self.sink);
                    }
                    Effect::Seal(wid) => self.sealed.push(wid),
                    Effect::Shard(_, FromControl::Fresh(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn even_loads(&mut self) {
        self.controller.even_loads_now_and_then(&self.view, &self.membership, &mut self.sink);
        self.carry_out();
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
    let mut desk = Desk::new([two_brokers(), vec![(keys::topic("t"), live.encode())], seats.collect()].concat());
    let moved = |desk: &Desk| {
        let ops = desk.txns.concat();
        ops.iter().filter(|op| matches!(op, Op::Put(key, _) if keys::parse_wish(key).is_some())).count()
    };
    desk.look();
    assert_eq!(moved(&desk), 0, "counts are even");
    desk.even_loads();
    desk.pass(Duration::from_secs(1));
    assert_eq!(moved(&desk), 0, "nobody said anything");
    desk.stored.extend(told);
    desk.even_loads();
    desk.pass(Duration::from_secs(58));
    assert_eq!((moved(&desk), desk.listings), (0, 1));
    desk.pass(Duration::from_secs(1));
    desk.even_loads();
    desk.pass(Duration::from_secs(1));
    assert_eq!((moved(&desk), desk.listings), (4, 2), "a swap of each pair of shards");
}

#[test]
fn loads_are_listed_by_the_controller_alone() {
    let mut desk = Desk::new(two_brokers());
    desk.even_loads();
    assert_eq!(desk.listings, 1);
    let other = ControllerRecord { v: RECORD_VERSION, broker: "b".to_owned(), boot: BootId(2) };
    change(&mut desk.view, keys::CONTROLLER.to_owned(), Some(other.encode()), 12);
    desk.pass(Duration::from_secs(100));
    desk.even_loads();
    assert_eq!(desk.listings, 1);
    let own = ControllerRecord { v: RECORD_VERSION, broker: "a".to_owned(), boot: BootId(1) };
    change(&mut desk.view, keys::CONTROLLER.to_owned(), Some(own.encode()), 13);
    desk.even_loads();
    assert_eq!(desk.listings, 2, "at once");
}

#[test]
fn a_process_that_is_not_controller_plans_nothing() {
    let mut desk = Desk::new([two_brokers(), vec![(keys::wal(Wid(3)), wal("gone", 3, WalState::Open))]].concat());
    let other = ControllerRecord { v: RECORD_VERSION, broker: "b".to_owned(), boot: BootId(2) };
    change(&mut desk.view, keys::CONTROLLER.to_owned(), Some(other.encode()), 12);
    desk.look();
    assert!(desk.txns.is_empty() && desk.sealed.is_empty());
}
