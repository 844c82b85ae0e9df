//! Members driven by hand and at random: heartbeats and time in, assignments out.

mod mixed;

use super::super::tests::Bench;
use super::super::{Answer, Caller, Limits};
use super::*;
use crate::control::{ClusterImage, PartitionImage, TopicImage};
use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUP: &str = "g";
const SESSION: Duration = Duration::from_secs(45);
const REBALANCE: Duration = Duration::from_secs(20);

fn image(topics: &[(&str, u32)]) -> Arc<ClusterImage> {
    let mut image = ClusterImage { cluster_id: "c".into(), ..ClusterImage::default() };
    for (number, (name, partitions)) in (1u128..).zip(topics) {
        let id = TopicId(uuid::Uuid::from_u128(number));
        let partition = PartitionImage { leader: None, epoch: LeaderEpoch(0), shard: ShardIndex(0) };
        let topic = TopicImage {
            id,
            name: (*name).into(),
            partitions: vec![partition; *partitions as usize],
            settings: BTreeMap::new(),
            deleting: false,
        };
        image.names.insert(id, (*name).into());
        image.topics.insert((*name).into(), Arc::new(topic));
    }
    Arc::new(image)
}

/// A member's own view of itself.
#[derive(Clone, Debug)]
struct Client {
    id: String,
    epoch: i32,
    instance: Option<String>,
    topics: BTreeSet<String>,
    regex: Option<String>,
    owned: Partitions,
}

impl Client {
    fn new(id: &str) -> Client {
        let topics = BTreeSet::from(["t".to_owned()]);
        Client { id: id.into(), epoch: 0, instance: None, topics, regex: None, owned: Partitions::new() }
    }

    fn request(&self) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            group: GROUP.into(),
            member: self.id.clone(),
            brings_id: true,
            epoch: self.epoch,
            instance: self.instance.clone(),
            rack: None,
            rebalance_timeout: Some(REBALANCE),
            topics: Some(self.topics.clone()),
            regex: self.regex.clone(),
            assignor: None,
            owned: Some(self.owned.clone()),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    /// Does as it is told; one that is out gives everything up and joins anew.
    fn hear(&mut self, answer: HeartbeatAnswer) {
        match answer.error {
            ErrorCode::None => {
                self.epoch = answer.epoch;
                if let Some(assignment) = answer.assignment {
                    self.owned = assignment;
                }
            }
            _ => {
                self.epoch = JOINS;
                self.owned.clear();
            }
        }
    }
}

struct World {
    bench: Bench,
    image: Arc<ClusterImage>,
}

impl World {
    fn new(topics: &[(&str, u32)]) -> World {
        let mut bench = Bench::with(Limits::default());
        let image = image(topics);
        bench.core.on_image(image.clone());
        World { bench, image }
    }

    fn set_topics(&mut self, topics: &[(&str, u32)]) {
        self.image = image(topics);
        self.bench.core.on_image(self.image.clone());
    }

    fn restart(&mut self) {
        self.bench.restart();
        self.bench.core.on_image(self.image.clone());
    }

    fn send(&mut self, request: &ConsumerHeartbeat) -> HeartbeatAnswer {
        let ticket = self.bench.ticket();
        self.bench.core.consumer_heartbeat(self.bench.now, ticket, request);
        self.bench.pump();
        match self.bench.answers.remove(&ticket) {
            Some(Answer::ConsumerHeartbeat(answer)) => answer,
            other => panic!("expected the answer to a heartbeat: {other:?}"),
        }
    }

    fn beat(&mut self, client: &mut Client) -> ErrorCode {
        let answer = self.send(&client.request());
        let error = answer.error;
        client.hear(answer);
        error
    }

    /// Heartbeats until nothing changes any more.
    fn settle(&mut self, clients: &mut [Client]) {
        for _ in 0..200 {
            let before: Vec<(i32, Partitions)> = clients.iter().map(|c| (c.epoch, c.owned.clone())).collect();
            for client in clients.iter_mut() {
                self.beat(client);
            }
            check_disjoint(clients);
            if clients.iter().map(|c| (c.epoch, c.owned.clone())).eq(before) {
                return;
            }
        }
        panic!("the group does not settle");
    }

    fn state(&self) -> &'static str {
        self.bench.core.describe_consumers(GROUP).expect("the group is there").state
    }

    fn commit(&mut self, member: &str, generation: i32) -> ErrorCode {
        let ticket = self.bench.ticket();
        let caller = Caller { member: member.into(), instance: None, generation };
        self.bench.core.commit(self.bench.now, ticket, GROUP, &caller, true, Vec::new());
        self.bench.pump();
        self.bench.code(ticket)
    }
}

fn check_disjoint(clients: &[Client]) {
    let mut seen = Partitions::new();
    for partition in clients.iter().flat_map(|client| &client.owned) {
        assert!(seen.insert(*partition), "{partition:?} is owned twice");
    }
}

fn loads(clients: &[Client]) -> Vec<usize> {
    clients.iter().map(|client| client.owned.len()).collect()
}

#[test]
fn the_first_member_gets_everything_with_its_first_heartbeat() {
    let mut world = World::new(&[("t", 4), ("other", 3)]);
    let mut client = Client::new("a");
    assert_eq!(world.beat(&mut client), ErrorCode::None);
    assert_eq!((client.owned.len(), client.epoch, world.state()), (4, 2, "Stable"));
}

#[test]
fn a_member_that_means_no_topics_makes_no_new_epoch() {
    let mut world = World::new(&[("t", 4)]);
    let without = |id: &str| Client { topics: BTreeSet::new(), ..Client::new(id) };
    let mut first = without("a");
    assert_eq!((world.beat(&mut first), first.epoch, world.state()), (ErrorCode::None, 1, "Stable"));
    let mut second = Client::new("b");
    assert_eq!((world.beat(&mut second), second.epoch, second.owned.len()), (ErrorCode::None, 2, 4));
    let mut third = without("c");
    assert_eq!((world.beat(&mut third), third.epoch), (ErrorCode::None, 2));
    assert_eq!((world.beat(&mut second), second.epoch, second.owned.len()), (ErrorCode::None, 2, 4));
    third.topics.insert("t".into());
    assert_eq!((world.beat(&mut third), third.epoch), (ErrorCode::None, 3), "by now it means one");
}

#[test]
fn what_a_member_has_not_given_up_nobody_else_gets() {
    let mut world = World::new(&[("t", 4)]);
    let mut clients = [Client::new("a"), Client::new("b")];
    world.beat(&mut clients[0]);
    world.beat(&mut clients[1]);
    assert_eq!((loads(&clients), world.state()), (vec![4, 0], "Reconciling"));
    world.beat(&mut clients[0]);
    assert_eq!(loads(&clients), [2, 0]);
    assert_eq!(clients[0].epoch, 2, "it has not said that it gave them up");
    world.beat(&mut clients[1]);
    assert_eq!(loads(&clients), [2, 0]);
    world.beat(&mut clients[0]);
    world.beat(&mut clients[1]);
    assert_eq!((loads(&clients), clients[0].epoch, world.state()), (vec![2, 2], 3, "Stable"));
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_out_and_a_silent_one_too() {
    let mut world = World::new(&[("t", 4)]);
    let mut clients = [Client::new("a"), Client::new("b")];
    world.beat(&mut clients[0]);
    world.beat(&mut clients[1]);
    let stubborn = clients[0].request();
    for _ in 0..3 {
        world.send(&stubborn);
        world.beat(&mut clients[1]);
        world.bench.pass(REBALANCE / 2);
    }
    assert_eq!(world.beat(&mut clients[0]), ErrorCode::UnknownMemberId);
    world.beat(&mut clients[1]);
    assert_eq!(loads(&clients), [0, 4]);
    world.bench.pass(SESSION);
    assert_eq!(world.state(), "Empty");
    assert_eq!(world.beat(&mut clients[1]), ErrorCode::UnknownMemberId);
}

#[test]
fn a_restarted_coordinator_goes_on_where_it_was() {
    let mut world = World::new(&[("t", 6)]);
    let mut clients = [Client::new("a"), Client::new("b"), Client::new("c")];
    clients[2].regex = Some("t.*".into());
    world.settle(&mut clients);
    let before: Vec<(i32, Partitions)> = clients.iter().map(|c| (c.epoch, c.owned.clone())).collect();
    world.restart();
    world.settle(&mut clients);
    assert_eq!(clients.iter().map(|c| (c.epoch, c.owned.clone())).collect::<Vec<_>>(), before);
    assert_eq!(world.commit("a", clients[0].epoch), ErrorCode::None);
}

#[test]
fn what_could_not_be_stored_is_undone_and_all_who_waited_hear_of_it() {
    let mut world = World::new(&[("t", 2)]);
    let mut first = Client::new("a");
    world.beat(&mut first);
    world.bench.hold = true;
    let tickets = ["b", "c"].map(|id| {
        let ticket = world.bench.ticket();
        world.bench.core.consumer_heartbeat(world.bench.now, ticket, &Client::new(id).request());
        world.bench.pump();
        assert!(!world.bench.answers.contains_key(&ticket), "it waits");
        ticket
    });
    world.bench.release(Err(ErrorCode::CoordinatorNotAvailable));
    world.bench.hold = false;
    world.bench.pump();
    for ticket in tickets {
        let Some(Answer::ConsumerHeartbeat(answer)) = world.bench.answers.get(&ticket) else { panic!("no answer") };
        assert_eq!(answer.error, ErrorCode::CoordinatorNotAvailable);
    }
    assert_eq!(world.beat(&mut first), ErrorCode::None);
    assert_eq!((first.owned.len(), first.epoch, world.state()), (2, 2, "Stable"));
}

#[test]
fn members_follow_topics_that_come_grow_and_go() {
    let mut world = World::new(&[("t", 2)]);
    let mut by_name = [Client::new("a")];
    by_name[0].topics.insert("u".into());
    world.settle(&mut by_name);
    assert_eq!(loads(&by_name), [2]);
    world.set_topics(&[("t", 3), ("u", 2), ("x1", 9)]);
    world.settle(&mut by_name);
    assert_eq!(loads(&by_name), [5]);
    world.set_topics(&[("t", 3)]);
    world.settle(&mut by_name);
    assert_eq!(loads(&by_name), [3]);
    let mut by_regex = [Client { topics: BTreeSet::new(), regex: Some("x[0-9]".into()), ..Client::new("r") }];
    world.settle(&mut by_regex);
    assert_eq!(loads(&by_regex), [0]);
    world.set_topics(&[("t", 3), ("u", 2), ("x1", 9), ("x10", 1)]);
    world.settle(&mut by_regex);
    assert_eq!(loads(&by_regex), [9]);
}

#[test]
fn a_static_member_comes_back_under_another_id_to_what_it_had_and_its_old_self_is_fenced() {
    let mut world = World::new(&[("t", 4)]);
    let mut clients = [Client { instance: Some("i".into()), ..Client::new("a") }, Client::new("b")];
    world.settle(&mut clients);
    let mut new = Client { id: "a2".into(), epoch: 0, owned: Partitions::new(), ..clients[0].clone() };
    assert_eq!(world.send(&new.request()).error, ErrorCode::UnreleasedInstanceId);
    let pause = ConsumerHeartbeat { epoch: PAUSES, ..clients[0].request() };
    assert_eq!((world.send(&pause).error, world.send(&pause).epoch), (ErrorCode::None, PAUSES));
    let epoch = clients[1].epoch;
    world.beat(&mut clients[1]);
    assert_eq!((clients[1].owned.len(), clients[1].epoch), (2, epoch), "nobody moves meanwhile");
    assert_eq!(world.beat(&mut new), ErrorCode::None);
    assert_eq!((&new.owned, new.epoch), (&clients[0].owned, epoch));
    assert_eq!(world.send(&clients[0].request()).error, ErrorCode::FencedInstanceId);
    let leave = ConsumerHeartbeat { epoch: LEAVES, ..new.request() };
    assert_eq!(world.send(&leave).error, ErrorCode::None);
    world.beat(&mut clients[1]);
    assert_eq!(clients[1].owned.len(), 4);
}

#[test]
fn a_member_that_joins_again_as_another_instance_gives_its_former_one_free() {
    let mut world = World::new(&[("t", 4)]);
    let of = |id: &str, instance: &str| Client { instance: Some(instance.into()), ..Client::new(id) };
    let mut first = of("a", "i");
    world.beat(&mut first);
    let mut renamed = of("a", "j");
    assert_eq!(world.beat(&mut renamed), ErrorCode::None);
    assert_eq!(world.send(&ConsumerHeartbeat { epoch: LEAVES, ..renamed.request() }).error, ErrorCode::None);
    for instance in ["i", "j"] {
        let mut next = of(&format!("next-{instance}"), instance);
        assert_eq!(world.beat(&mut next), ErrorCode::None);
        assert_eq!(world.send(&ConsumerHeartbeat { epoch: LEAVES, ..next.request() }).error, ErrorCode::None);
    }
    world.restart();
    assert_eq!(world.state(), "Empty");
}

#[test]
fn a_member_that_takes_an_instance_over_keeps_its_own_part_and_gets_what_that_left() {
    let mut world = World::new(&[("t", 4)]);
    let mut clients = [Client { instance: Some("i".into()), ..Client::new("a") }, Client::new("b")];
    world.settle(&mut clients);
    let [paused, mut other] = clients;
    assert_eq!(world.send(&ConsumerHeartbeat { epoch: PAUSES, ..paused.request() }).error, ErrorCode::None);
    other = Client { epoch: JOINS, instance: Some("i".into()), owned: Partitions::new(), ..other };
    assert_eq!(world.beat(&mut other), ErrorCode::None);
    world.beat(&mut other);
    assert_eq!((other.owned.len(), world.state()), (4, "Stable"));
    assert_eq!(world.send(&paused.request()).error, ErrorCode::FencedInstanceId);
    world.restart();
    assert_eq!(world.beat(&mut other), ErrorCode::None);
    assert_eq!(other.owned.len(), 4);
}

#[test]
fn epochs_that_are_not_a_member_s_are_fenced_but_for_the_one_before_with_an_answer_lost() {
    let mut world = World::new(&[("t", 4)]);
    let mut client = Client::new("a");
    world.beat(&mut client);
    let lost = client.clone();
    world.set_topics(&[("t", 5)]);
    world.beat(&mut client);
    assert_eq!((lost.epoch, client.epoch), (2, 3));
    let answer = world.send(&lost.request());
    assert_eq!((answer.error, answer.epoch, answer.assignment), (ErrorCode::None, 3, Some(client.owned.clone())));
    for epoch in [4, i32::MAX] {
        let ahead = ConsumerHeartbeat { epoch, ..client.request() };
        assert_eq!(world.send(&ahead).error, ErrorCode::FencedMemberEpoch);
    }
    let unsaid = ConsumerHeartbeat { owned: None, ..lost.request() };
    assert_eq!(world.send(&unsaid).error, ErrorCode::FencedMemberEpoch);
    assert_eq!(world.commit("a", 2), ErrorCode::StaleMemberEpoch);
    assert_eq!(world.commit("a", 3), ErrorCode::None);
    assert_eq!(world.commit("b", 2), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit("", -1), ErrorCode::UnknownMemberId);
    assert_eq!(world.bench.core.check_offset_fetch(GROUP, Some("a"), 2), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(world.bench.core.check_offset_fetch(GROUP, None, -1), Ok(()));
}

#[test]
fn requests_that_say_too_little_or_nonsense_are_refused_as_kafka_refuses_them() {
    let mut world = World::new(&[("t", 1)]);
    let good = Client::new("a").request();
    let bad = [
        (ConsumerHeartbeat { member: String::new(), ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { group: " ".into(), ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { instance: Some(String::new()), ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { rack: Some(String::new()), ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { rebalance_timeout: None, ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { owned: None, ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { topics: None, ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { epoch: PAUSES, ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { epoch: -3, ..good.clone() }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeat { assignor: Some("x".into()), ..good.clone() }, ErrorCode::UnsupportedAssignor),
        (ConsumerHeartbeat { regex: Some("(".into()), ..good.clone() }, ErrorCode::InvalidRegularExpression),
        (ConsumerHeartbeat { epoch: 1, ..good.clone() }, ErrorCode::GroupIdNotFound),
        (ConsumerHeartbeat { epoch: LEAVES, ..good.clone() }, ErrorCode::GroupIdNotFound),
    ];
    for (request, error) in bad {
        assert_eq!(world.send(&request).error, error, "{request:?}");
    }
    assert_eq!(world.bench.core.list(), [], "none of them leaves a group behind");
    let mut no_id = Client::new("");
    let named = world.send(&ConsumerHeartbeat { brings_id: false, ..no_id.request() });
    no_id.id = named.member.clone().expect("it was given one");
    no_id.hear(named);
    assert_eq!(world.beat(&mut no_id), ErrorCode::None);
    assert_eq!(world.send(&ConsumerHeartbeat { epoch: 1, ..good }).error, ErrorCode::UnknownMemberId);
}

#[test]
fn an_empty_group_changes_over_and_one_that_says_nothing_readable_of_its_subscriptions_does_not() {
    let mut world = World::new(&[("t", 1)]);
    let mut client = Client::new("a");
    world.beat(&mut client);
    let ticket = world.bench.send_join(Bench::request(""));
    assert_eq!(world.bench.joined(ticket).error, ErrorCode::InconsistentGroupProtocol);
    let epoch = client.epoch;
    world.send(&ConsumerHeartbeat { epoch: LEAVES, ..client.request() });
    let ticket = world.bench.send_join(Bench::request(""));
    world.bench.pass(Duration::from_secs(4));
    let joined = world.bench.joined(ticket);
    assert!(joined.error == ErrorCode::None && joined.generation > epoch);
    let refused = world.send(&Client::new("b").request());
    assert_eq!(refused.error, ErrorCode::GroupIdNotFound);
    assert!(refused.message.expect("it is told why").contains("malformed"));
    world.bench.leave(GROUP, &joined.member);
    assert_eq!(world.send(&Client::new("b").request()).error, ErrorCode::None);
}

/// What happens to a group.
#[derive(Clone, Debug)]
enum Event {
    Beat(usize),
    /// A heartbeat whose answer is lost.
    Lost(usize),
    Leave(usize),
    Resubscribe(usize, bool, bool),
    Topics(u32, u32),
    Restart,
    Pass(u64),
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0usize..6).prop_map(Event::Beat),
        3 => (0usize..6).prop_map(Event::Lost),
        1 => (0usize..6).prop_map(Event::Leave),
        1 => (0usize..6, any::<bool>(), any::<bool>()).prop_map(|(at, t, u)| Event::Resubscribe(at, t, u)),
        1 => (0u32..7, 0u32..7).prop_map(|(t, u)| Event::Topics(t, u)),
        1 => Just(Event::Restart),
        2 => (1u64..30).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_partition_is_owned_twice_and_in_the_end_all_are_shared_evenly(
        events in prop::collection::vec(events(), 0..120),
    ) {
        let mut world = World::new(&[("t", 5), ("u", 3)]);
        let mut clients: Vec<Client> = (0..6).map(|at| Client::new(&format!("m{at}"))).collect();
        for event in events {
            match event {
                Event::Beat(at) => {
                    world.beat(&mut clients[at]);
                }
                Event::Lost(at) => {
                    world.send(&clients[at].request());
                }
                Event::Leave(at) => {
                    world.send(&ConsumerHeartbeat { epoch: LEAVES, ..clients[at].request() });
                    clients[at] = Client::new(&clients[at].id);
                }
                Event::Resubscribe(at, t, u) => {
                    let topics = [("t", t), ("u", u)].into_iter().filter(|(_, wanted)| *wanted);
                    clients[at].topics = topics.map(|(name, _)| name.to_owned()).collect();
                }
                Event::Topics(t, u) => world.set_topics(&[("t", t), ("u", u)]),
                Event::Restart => world.restart(),
                Event::Pass(seconds) => {
                    world.bench.pass(Duration::from_secs(seconds));
                    // Who is out does not know yet, and must have stopped by its own clock.
                    let members = world.bench.core.describe_consumers(GROUP).map(|view| view.members).unwrap_or_default();
                    for client in &mut clients {
                        if !members.iter().any(|member| member.member == client.id) {
                            client.owned.clear();
                        }
                    }
                }
            }
            check_disjoint(&clients);
        }
        for client in &mut clients {
            client.topics = BTreeSet::from(["t".to_owned(), "u".to_owned()]);
        }
        world.settle(&mut clients);
        let loads = loads(&clients);
        prop_assert_eq!(world.state(), "Stable");
        prop_assert_eq!(loads.iter().sum::<usize>(), world.image.topics.values().map(|t| t.partitions.len()).sum::<usize>());
        prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
    }
}
