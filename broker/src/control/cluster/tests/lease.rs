//! The lease of this process, and that it stands for controller.

use super::*;

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
fn while_a_thread_is_stuck_the_lease_is_not_kept_and_at_its_next_look_after_that_it_is() {
    let mut joining = Joining::joined();
    joining.sink.is_stuck = true;
    for _ in 0..8 {
        joining.pass(Duration::from_millis(450));
    }
    assert!(joining.calls.is_empty() && joining.is_fresh(), "{:?}", joining.calls);
    joining.sink.is_stuck = false;
    joining.pass(Duration::from_millis(450));
    joining.kept(0, Ok(KeptAlive::For(LEASE)));
    joining.pass(LEASE - Duration::from_millis(10));
    assert!(joining.is_fresh(), "counted from that keep-alive");
}

#[test]
fn while_a_thread_is_stuck_no_other_lease_is_taken_and_it_is_not_fresh() {
    let mut joining = Joining::joined();
    joining.pass(Duration::from_secs(2));
    joining.sink.is_stuck = true;
    joining.pass(LEASE);
    joining.kept(0, Ok(KeptAlive::Ended));
    joining.pass(LEASE);
    assert!(joining.calls.is_empty() && !joining.is_fresh(), "{:?}", joining.calls);
    assert!(joining.commands > 0, "lanes look for a fence");
    joining.sink.is_stuck = false;
    joining.pass(Duration::from_millis(450));
    joining.granted(2);
    assert_eq!(joining.registers(None), LeaseId(2));
    assert!(joining.is_fresh());
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
