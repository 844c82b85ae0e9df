//! Groups with members of both protocols: classic clients played as Java's consumer plays them, beside clients of the
//! consumer protocol, while members change from one to the other.

use super::super::embedded;
use super::*;
use crate::groups::{JoinRequest, Leaver, Protocol, SyncRequest, Ticket};
use bytes::Bytes;

const TOPIC: &str = "t";

/// What a classic client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Waits {
    /// For nothing: it must join.
    Joins,
    ForJoin(Ticket),
    ForSync(Ticket),
    /// For nothing: it is in the group.
    Beats,
}

/// A client of the classic protocol. Cooperative ones keep what they have while they join, eager ones give it up first.
#[derive(Clone, Debug)]
struct Classic {
    id: String,
    instance: Option<String>,
    generation: i32,
    cooperative: bool,
    waits: Waits,
    owned: Partitions,
}

impl Classic {
    fn new(cooperative: bool) -> Classic {
        Classic {
            id: String::new(),
            instance: None,
            generation: -1,
            cooperative,
            waits: Waits::Joins,
            owned: Partitions::new(),
        }
    }

    fn caller(&self) -> Caller {
        Caller { member: self.id.clone(), instance: self.instance.clone(), generation: self.generation }
    }

    fn metadata(&self) -> Bytes {
        let owned: Vec<i32> = self.owned.iter().map(|partition| partition.index as i32).collect();
        embedded::tests::subscribed(&[TOPIC], &[(TOPIC, &owned)])
    }

    fn request(&self) -> JoinRequest {
        JoinRequest {
            group: GROUP.into(),
            member: self.id.clone(),
            instance: self.instance.clone(),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: SESSION,
            rebalance_timeout: REBALANCE,
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "sticky".into(), metadata: self.metadata() }],
            require_known_member: self.instance.is_none(),
            can_skip_assignment: true,
        }
    }

    /// It is out of the group, or fears so.
    fn lose(&mut self, error: ErrorCode) {
        self.owned.clear();
        self.waits = Waits::Joins;
        self.generation = -1;
        if error != ErrorCode::IllegalGeneration {
            self.id.clear();
        }
    }

    /// Takes over its new part; whether it must join again, since it had to give something up.
    fn take(&mut self, part: &Bytes, world: &World) {
        let told = embedded::assignment(part).expect("an assignment");
        let part = embedded::resolve(&told.partitions, &world.image);
        let gave_up = !self.owned.is_subset(&part);
        self.owned = part;
        self.waits = if gave_up { Waits::Joins } else { Waits::Beats };
    }

    /// One more step, as far as there is one.
    fn step(&mut self, world: &mut World) {
        match self.waits {
            Waits::Joins => {
                if !self.cooperative {
                    self.owned.clear();
                }
                self.waits = Waits::ForJoin(world.bench.send_join(self.request()));
            }
            Waits::ForJoin(ticket) => {
                let Some(Answer::Join(answer)) = world.bench.answers.get(&ticket).cloned() else { return };
                match answer.error {
                    ErrorCode::None => {
                        (self.id, self.generation) = (answer.member.clone(), answer.generation);
                        let leads = answer.leader == answer.member && !answer.skip_assignment;
                        let parts = if leads { assign(&answer.members, world) } else { Vec::new() };
                        self.sync(world, parts);
                    }
                    ErrorCode::MemberIdRequired => (self.id, self.waits) = (answer.member, Waits::Joins),
                    ErrorCode::RebalanceInProgress => self.waits = Waits::Joins,
                    error => self.lose(error),
                }
            }
            Waits::ForSync(ticket) => {
                let Some(Answer::Sync(answer)) = world.bench.answers.get(&ticket).cloned() else { return };
                match answer.error {
                    ErrorCode::None => self.take(&answer.assignment, world),
                    ErrorCode::RebalanceInProgress => self.waits = Waits::Joins,
                    error => self.lose(error),
                }
            }
            Waits::Beats => {
                let ticket = world.bench.ticket();
                world.bench.core.heartbeat(world.bench.now, ticket, GROUP, &self.caller());
                world.bench.pump();
                match world.bench.code(ticket) {
                    ErrorCode::None => {}
                    ErrorCode::RebalanceInProgress => self.waits = Waits::Joins,
                    error => self.lose(error),
                }
            }
        }
    }

    fn sync(&mut self, world: &mut World, assignments: Vec<(String, Bytes)>) {
        let ticket = world.bench.ticket();
        let request = SyncRequest {
            group: GROUP.into(),
            caller: self.caller(),
            protocol_type: Some("consumer".into()),
            protocol: Some("sticky".into()),
            assignments,
        };
        world.bench.core.sync(world.bench.now, ticket, request);
        world.bench.pump();
        self.waits = Waits::ForSync(ticket);
    }

    fn leave(&mut self, world: &mut World) {
        let ticket = world.bench.ticket();
        let leaver = Leaver { member: self.id.clone(), instance: self.instance.clone() };
        world.bench.core.leave(world.bench.now, ticket, GROUP, &[leaver]);
        world.bench.pump();
    }
}

/// What a leader does: evenly, sticky, and nothing to anyone that another has not given up.
fn assign(roster: &[(String, Option<String>, Bytes)], world: &World) -> Vec<(String, Bytes)> {
    let count = world.image.topics[TOPIC].partitions.len();
    let topic = world.image.topics[TOPIC].id;
    let all: Partitions = (0..count as u32).map(|index| TopicPartition { topic, index }).collect();
    let owned: Vec<Partitions> = roster
        .iter()
        .map(|(_, _, metadata)| {
            let subscription = embedded::subscription(metadata).expect("written above");
            embedded::resolve(&subscription.owned, &world.image)
        })
        .collect();
    let (least, more) = (count / roster.len(), count % roster.len());
    let mut free: Vec<TopicPartition> =
        all.iter().filter(|p| !owned.iter().any(|owned| owned.contains(p))).copied().collect();
    let share = |at: usize| least + usize::from(at < more);
    let kept: Vec<Partitions> =
        owned.iter().enumerate().map(|(at, owned)| owned.iter().take(share(at)).copied().collect()).collect();
    let parts = kept.into_iter().enumerate().map(|(at, mut part)| {
        while part.len() < share(at)
            && let Some(partition) = free.pop()
        {
            part.insert(partition);
        }
        part
    });
    let encode = |part: Partitions| embedded::encode(&part, &roster[0].2, &world.image);
    roster.iter().zip(parts).map(|((id, _, _), part)| (id.clone(), encode(part))).collect()
}

/// A client of either protocol.
#[derive(Clone, Debug)]
enum Either {
    Consumer(Client),
    Classic(Classic),
}

impl Either {
    fn owned(&self) -> &Partitions {
        match self {
            Either::Consumer(client) => &client.owned,
            Either::Classic(client) => &client.owned,
        }
    }

    fn id(&self) -> &str {
        match self {
            Either::Consumer(client) => &client.id,
            Either::Classic(client) => &client.id,
        }
    }

    fn step(&mut self, world: &mut World) {
        match self {
            Either::Consumer(client) => {
                world.beat(client);
            }
            Either::Classic(client) => client.step(world),
        }
    }

    /// It starts again with the other protocol.
    fn change(&mut self, world: &mut World, number: usize, cooperative: bool) {
        *self = match self {
            Either::Consumer(client) => {
                world.send(&ConsumerHeartbeat { epoch: LEAVES, ..client.request() });
                Either::Classic(Classic::new(cooperative))
            }
            Either::Classic(client) => {
                client.leave(world);
                Either::Consumer(Client::new(&format!("m{number}-{}", client.generation)))
            }
        };
    }

    /// It is out and does not know yet: it must have stopped by its own clock.
    fn stop(&mut self) {
        match self {
            Either::Consumer(client) => client.owned.clear(),
            Either::Classic(client) => {
                client.owned.clear();
                // An answer that it did not hear in time it takes no more.
                if matches!(client.waits, Waits::ForSync(_)) {
                    client.waits = Waits::Joins;
                }
            }
        }
    }
}

fn check(clients: &[Either]) {
    let mut seen = Partitions::new();
    for partition in clients.iter().flat_map(Either::owned) {
        assert!(seen.insert(*partition), "{partition:?} is owned twice: {clients:#?}");
    }
}

/// Those that the group does not know any more stop by their own clocks, if they do not hear of it before.
fn stop_those_who_are_out(world: &World, clients: &mut [Either]) {
    let classic = world.bench.core.describe(GROUP).expect("ours").map(|view| view.members).unwrap_or_default();
    let modern = world.bench.core.describe_consumers(GROUP).map(|view| view.members).unwrap_or_default();
    for client in clients {
        let mut ids = classic.iter().map(|member| &member.member).chain(modern.iter().map(|member| &member.member));
        if !ids.any(|id| id == client.id()) {
            client.stop();
        }
    }
}

/// Steps until nobody gets anything else, and everything is owned.
fn settle(world: &mut World, clients: &mut [Either]) {
    let count = world.image.topics[TOPIC].partitions.len();
    let mut quiet = 0;
    for _ in 0..400 {
        let before: Vec<Partitions> = clients.iter().map(|client| client.owned().clone()).collect();
        for client in clients.iter_mut() {
            client.step(world);
        }
        check(clients);
        world.bench.pass(Duration::from_secs(1));
        stop_those_who_are_out(world, clients);
        let is_same = clients.iter().map(Either::owned).eq(&before);
        let all = before.iter().map(BTreeSet::len).sum::<usize>() == count;
        quiet = if is_same && all { quiet + 1 } else { 0 };
        if quiet == 10 {
            return;
        }
    }
    panic!("the group does not settle: {clients:#?}");
}

fn world(partitions: u32) -> World {
    let limits = Limits { initial_rebalance_delay: Duration::ZERO, ..Limits::default() };
    let mut world = World { bench: Bench::with(limits), image: image(&[(TOPIC, partitions)]) };
    world.bench.core.on_image(world.image.clone());
    world
}

fn kinds(world: &World) -> Vec<&'static str> {
    world.bench.core.list().into_iter().map(|listed| listed.kind).collect()
}

#[test]
fn a_classic_group_rolls_over_to_the_consumer_protocol_and_back_and_nobody_s_assignment_is_lost_or_doubled() {
    for cooperative in [true, false] {
        let mut world = world(6);
        let mut clients: Vec<Either> = (0..3).map(|_| Either::Classic(Classic::new(cooperative))).collect();
        settle(&mut world, &mut clients);
        assert_eq!(kinds(&world), ["classic"]);
        for (at, mixed) in [(0, true), (1, true), (2, false)] {
            clients[at].change(&mut world, at, cooperative);
            settle(&mut world, &mut clients);
            assert_eq!(kinds(&world), ["consumer"]);
            let view = world.bench.core.describe_consumers(GROUP).expect("it is one");
            assert_eq!(view.members.iter().any(|member| member.is_classic), mixed);
            assert_eq!(clients.iter().map(|client| client.owned().len()).collect::<Vec<_>>(), [2, 2, 2]);
        }
        for (at, kind) in [(2, "consumer"), (0, "consumer"), (1, "classic")] {
            clients[at].change(&mut world, at, cooperative);
            settle(&mut world, &mut clients);
            assert_eq!(kinds(&world), [kind]);
            assert_eq!(clients.iter().map(|client| client.owned().len()).collect::<Vec<_>>(), [2, 2, 2]);
        }
    }
}

#[test]
fn who_waits_in_a_classic_rebalance_when_the_group_changes_over_is_told_to_join_again() {
    let mut world = world(4);
    let mut first = Classic::new(true);
    for _ in 0..5 {
        first.step(&mut world);
    }
    assert_eq!((first.waits, first.owned.len()), (Waits::Beats, 4));
    let mut second = Classic::new(true);
    for _ in 0..3 {
        second.step(&mut world);
    }
    assert!(matches!(second.waits, Waits::ForJoin(_)), "the first has not joined again");
    let mut third = Client::new("m");
    assert_eq!(world.beat(&mut third), ErrorCode::None);
    assert!(third.owned.is_empty(), "the first has everything still");
    second.step(&mut world);
    assert_eq!((second.waits, second.id.is_empty()), (Waits::Joins, false));
    let mut clients = [Either::Classic(first), Either::Classic(second), Either::Consumer(third)];
    settle(&mut world, &mut clients);
}

/// A consumer that joins now gets nothing that one of `others` may have; then all settle.
fn join_amid(world: &mut World, others: Vec<Classic>) {
    let mut clients: Vec<Either> = others.into_iter().map(Either::Classic).collect();
    let mut consumer = Client::new("late");
    for _ in 0..3 {
        assert_eq!(world.beat(&mut consumer), ErrorCode::None);
        clients.push(Either::Consumer(consumer));
        check(&clients);
        let Some(Either::Consumer(same)) = clients.pop() else { unreachable!("pushed above") };
        consumer = same;
    }
    clients.push(Either::Consumer(consumer));
    settle(world, &mut clients);
}

#[test]
fn what_a_classic_member_is_to_give_up_and_has_not_heard_of_goes_to_nobody_when_the_group_changes_over() {
    for crashes in [false, true] {
        let mut world = world(4);
        let mut first = Classic::new(true);
        for _ in 0..5 {
            first.step(&mut world);
        }
        let mut second = Classic::new(true);
        for _ in 0..20 {
            if matches!(first.waits, Waits::ForSync(_)) && matches!(second.waits, Waits::ForSync(_)) {
                break;
            }
            for client in [&mut first, &mut second] {
                if !matches!(client.waits, Waits::ForSync(_)) {
                    client.step(&mut world);
                }
            }
        }
        let Waits::ForSync(ticket) = first.waits else { panic!("no second generation: {first:?}") };
        assert!(world.bench.answers.contains_key(&ticket), "it is told to give up half");
        assert_eq!(first.owned.len(), 4);
        if crashes {
            world.restart();
            (first.waits, second.waits) = (Waits::Joins, Waits::Joins);
        }
        join_amid(&mut world, vec![first, second]);
    }
}

#[test]
fn what_a_classic_member_was_to_give_up_before_the_way_back_goes_to_nobody_when_the_group_changes_over_again() {
    let mut world = world(6);
    let mut clients = vec![Either::Consumer(Client::new("a")), Either::Classic(Classic::new(true))];
    settle(&mut world, &mut clients);
    let mut other = Client::new("b");
    assert_eq!(world.beat(&mut other), ErrorCode::None);
    let Some(Either::Classic(classic)) = clients.pop() else { unreachable!("made above") };
    let Some(Either::Consumer(first)) = clients.pop() else { unreachable!("made above") };
    for client in [first, other] {
        assert_eq!(world.send(&ConsumerHeartbeat { epoch: LEAVES, ..client.request() }).error, ErrorCode::None);
    }
    assert_eq!((kinds(&world), classic.owned.len()), (vec!["classic"], 3));
    join_amid(&mut world, vec![classic]);
}

#[test]
fn a_change_that_can_not_be_stored_is_undone_and_the_classic_members_join_again() {
    let mut world = world(4);
    let mut clients = vec![Either::Classic(Classic::new(true)), Either::Classic(Classic::new(true))];
    settle(&mut world, &mut clients);
    world.bench.hold = true;
    let ticket = world.bench.ticket();
    world.bench.core.consumer_heartbeat(world.bench.now, ticket, &Client::new("m").request());
    world.bench.pump();
    world.bench.release(Err(ErrorCode::CoordinatorNotAvailable));
    world.bench.hold = false;
    world.bench.pump();
    let Some(Answer::ConsumerHeartbeat(answer)) = world.bench.answers.get(&ticket) else { panic!("no answer") };
    assert_eq!(answer.error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(kinds(&world), ["classic"]);
    settle(&mut world, &mut clients);
}

#[test]
fn after_a_crash_amid_the_way_back_the_classic_members_rebalance() {
    let mut world = world(4);
    let mut clients = vec![
        Either::Classic(Classic::new(true)),
        Either::Consumer(Client::new("a")),
        Either::Consumer(Client::new("b")),
    ];
    settle(&mut world, &mut clients);
    let gone = clients.split_off(1);
    for client in gone {
        let Either::Consumer(client) = client else { unreachable!("made above") };
        assert_eq!(world.send(&ConsumerHeartbeat { epoch: LEAVES, ..client.request() }).error, ErrorCode::None);
    }
    assert_eq!(kinds(&world), ["classic"]);
    world.restart();
    settle(&mut world, &mut clients);
    assert_eq!((kinds(&world), clients[0].owned().len()), (vec!["classic"], 4));
}

#[test]
fn a_static_member_changes_its_protocol_under_its_instance_and_keeps_its_part() {
    let mut world = world(4);
    let static_one = Classic { instance: Some("i".into()), ..Classic::new(true) };
    let mut clients = vec![Either::Classic(static_one), Either::Classic(Classic::new(true))];
    settle(&mut world, &mut clients);
    let before = clients[0].owned().clone();
    let Either::Classic(Classic { generation, .. }) = clients[0] else { unreachable!("made above") };
    let mut consumer = Client { instance: Some("i".into()), ..Client::new("s") };
    assert_eq!(world.beat(&mut consumer), ErrorCode::None);
    assert_eq!((&consumer.owned, kinds(&world)), (&before, vec!["consumer"]));
    assert_eq!(consumer.epoch, generation, "as in Kafka nothing changed for anybody");
    clients[0] = Either::Consumer(consumer);
    settle(&mut world, &mut clients);
    // It goes without a word, and comes back with the classic protocol: nobody has anything to do but go on.
    clients[0] = Either::Classic(Classic { instance: Some("i".into()), ..Classic::new(true) });
    for _ in 0..3 {
        clients[0].step(&mut world);
    }
    assert_eq!((clients[0].owned(), kinds(&world)), (&before, vec!["classic"]));
    settle(&mut world, &mut clients);
    assert_eq!(clients[0].owned(), &before);
}

#[test]
fn partitions_that_no_classic_member_has_are_given_out_when_the_group_changes_over() {
    let mut world = world(4);
    let static_one = Classic { instance: Some("i".into()), ..Classic::new(true) };
    let mut clients = vec![Either::Classic(static_one)];
    settle(&mut world, &mut clients);
    world.set_topics(&[(TOPIC, 6)]);
    let mut consumer = Client { instance: Some("i".into()), ..Client::new("s") };
    assert_eq!(world.beat(&mut consumer), ErrorCode::None);
    assert_eq!((consumer.owned.len(), kinds(&world)), (6, vec!["consumer"]));
}

#[test]
fn an_empty_classic_group_begins_anew_when_it_changes_over() {
    let mut world = world(4);
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(Either::Classic(Classic::new(true)));
        settle(&mut world, &mut clients);
    }
    for client in &mut clients {
        let Either::Classic(classic) = client else { unreachable!("made above") };
        assert!(classic.generation > 1);
        classic.leave(&mut world);
    }
    let mut consumer = Client::new("a");
    assert_eq!(world.beat(&mut consumer), ErrorCode::None);
    assert_eq!((consumer.epoch, consumer.owned.len(), kinds(&world)), (2, 4, vec!["consumer"]));
}

#[test]
fn a_classic_member_that_does_not_join_again_or_sync_in_time_is_out() {
    let mut world = world(4);
    let mut clients = vec![Either::Classic(Classic::new(true)), Either::Consumer(Client::new("a"))];
    settle(&mut world, &mut clients);
    let Either::Classic(mut classic) = clients.remove(0) else { unreachable!("made above") };
    let mut other = Client::new("b");
    world.beat(&mut other);
    let silent_for = REBALANCE / 2;
    for _ in 0..3 {
        classic.step(&mut world);
        assert_eq!(classic.waits, Waits::Joins, "it is told to join again, and does not");
        classic.waits = Waits::Beats;
        world.beat(&mut other);
        clients[0].step(&mut world);
        world.bench.pass(silent_for);
    }
    classic.step(&mut world);
    assert!(classic.id.is_empty(), "it is out");
    clients.push(Either::Consumer(other));
    settle(&mut world, &mut clients);
}

#[test]
fn a_classic_member_is_told_to_join_again_as_soon_as_another_left_whoever_else_is_silent() {
    let mut world = world(6);
    let mut clients = vec![
        Either::Classic(Classic::new(true)),
        Either::Consumer(Client::new("a")),
        Either::Consumer(Client::new("b")),
    ];
    settle(&mut world, &mut clients);
    let Some(Either::Consumer(gone)) = clients.pop() else { unreachable!("made above") };
    assert_eq!(world.send(&ConsumerHeartbeat { epoch: LEAVES, ..gone.request() }).error, ErrorCode::None);
    let Either::Classic(classic) = &mut clients[0] else { unreachable!("made above") };
    classic.step(&mut world);
    assert_eq!(classic.waits, Waits::Joins);
    for _ in 0..3 {
        classic.step(&mut world);
    }
    assert_eq!((classic.waits, classic.owned.len()), (Waits::Beats, 3));
    settle(&mut world, &mut clients);
}

#[test]
fn a_classic_member_that_is_refused_hears_no_id_and_bytes_that_are_no_subscription_are_no_consumer_s() {
    let mut world = world(2);
    let mut consumer = Client::new("a");
    assert_eq!(world.beat(&mut consumer), ErrorCode::None);
    let good = JoinRequest { member: "someone".into(), ..Classic::new(true).request() };
    let garbage = vec![Protocol { name: "sticky".into(), metadata: Bytes::from_static(b"x") }];
    let instance = Some("i".to_owned());
    for (request, error) in [
        (JoinRequest { protocols: garbage, ..good.clone() }, ErrorCode::InconsistentGroupProtocol),
        (JoinRequest { protocols: Vec::new(), ..good.clone() }, ErrorCode::InconsistentGroupProtocol),
        (JoinRequest { protocol_type: "connect".into(), ..good.clone() }, ErrorCode::InconsistentGroupProtocol),
        (JoinRequest { instance, ..good }, ErrorCode::UnknownMemberId),
    ] {
        let ticket = world.bench.send_join(request);
        let answer = world.bench.joined(ticket);
        assert_eq!((answer.error, answer.member.as_str()), (error, ""));
    }
}

#[test]
fn an_operator_takes_members_of_both_protocols_out() {
    let mut world = world(4);
    let static_one = Client { instance: Some("i".into()), ..Client::new("a") };
    let mut clients =
        vec![Either::Classic(Classic::new(true)), Either::Consumer(static_one), Either::Consumer(Client::new("b"))];
    settle(&mut world, &mut clients);
    let leaver =
        |member: &str, instance: Option<&str>| Leaver { member: member.into(), instance: instance.map(str::to_owned) };
    let ticket = world.bench.ticket();
    let leavers =
        [leaver("", Some("i")), leaver("b", None), leaver("b", None), leaver("x", None), leaver("x", Some("i"))];
    world.bench.core.leave(world.bench.now, ticket, GROUP, &leavers);
    world.bench.pump();
    let Some(Answer::Leave(codes)) = world.bench.answers.get(&ticket) else { panic!("no answer") };
    let expected =
        [ErrorCode::None, ErrorCode::None, ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::FencedInstanceId];
    assert_eq!(*codes, expected);
    assert_eq!(kinds(&world), ["classic"]);
    clients.truncate(1);
    settle(&mut world, &mut clients);
    assert_eq!(clients[0].owned().len(), 4);
}

#[derive(Clone, Debug)]
enum Event {
    Step(usize),
    Change(usize),
    Crash(usize),
    Restart,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        24 => (0usize..5).prop_map(Event::Step),
        2 => (0usize..5).prop_map(Event::Change),
        1 => (0usize..5).prop_map(Event::Crash),
        1 => Just(Event::Restart),
        2 => (1u64..30).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_members_of_both_protocols_do_no_partition_is_owned_twice_and_in_the_end_all_are_owned(
        cooperative in any::<bool>(),
        events in prop::collection::vec(events(), 0..200),
    ) {
        let mut world = world(7);
        let mut clients: Vec<Either> = (0..5).map(|at| match at % 2 {
            0 => Either::Classic(Classic::new(cooperative)),
            _ => Either::Consumer(Client::new(&format!("m{at}"))),
        }).collect();
        for (number, event) in events.into_iter().enumerate() {
            match event {
                Event::Step(at) => clients[at].step(&mut world),
                Event::Change(at) => clients[at].change(&mut world, number, cooperative),
                Event::Crash(at) => {
                    // Without a word to the group; another starts in its place.
                    clients[at] = Either::Classic(Classic::new(cooperative));
                }
                Event::Restart => {
                    world.restart();
                    for client in &mut clients {
                        // Its connection broke, and with it the request.
                        if let Either::Classic(client) = client
                            && client.waits != Waits::Beats
                        {
                            client.waits = Waits::Joins;
                        }
                    }
                }
                Event::Pass(seconds) => world.bench.pass(Duration::from_secs(seconds)),
            }
            stop_those_who_are_out(&world, &mut clients);
            check(&clients);
        }
        settle(&mut world, &mut clients);
    }
}
