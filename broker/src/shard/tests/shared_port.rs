//! Two shards behind one port: requests that concern both are divided, and their answers joined.

use super::*;
use crate::net::budget::Budget;
use crate::quotas::{Quota, QuotaTable};
use crate::shard::split::ToPeer;
use futures::FutureExt;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use millrace_protocol::messages::describe_producers::DescribeProducersTopic;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use millrace_protocol::messages::{
    DeleteRecordsRequest, DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest, JoinGroupRequest,
    ListGroupsRequest, ListOffsetsRequest, MetadataRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
};
use millrace_storage::meta::records::{QuotaEntity, QuotaPart};

/// Shard 0, which the client is connected to and which leads partition 0, and shard 1, which leads partition 1. Both
/// believe that partition 2 is led by shard 1, which has not heard of it.
struct Pair {
    home: World,
    owner: World,
    /// Messages that were exchanged.
    mail: usize,
}

/// One node, whose shards lead as [`Pair`] says.
fn of_two_shards(image: &mut ClusterImage) {
    image.nodes.remove(&2);
    image.slots = vec![Some(1); 64];
    let topic = Arc::make_mut(image.topics.get_mut(TOPIC).unwrap());
    for (led, shard) in topic.partitions.iter_mut().zip([0, 1, 1]) {
        led.shard = ShardIndex(shard);
    }
}

impl Pair {
    fn new() -> Pair {
        let world = |shard: u16| {
            let mut world = World::with(|config| {
                config.shard = ShardIndex(shard);
                config.sharing_port = Some(2);
            });
            world.wid = Wid(7 + u128::from(shard));
            for other in (0..2).filter(|index| *index != u32::from(shard)) {
                world.committed.remove(&partition(other));
                world.lane(ToShard::Revoked { partition: partition(other) });
            }
            world.set_image(of_two_shards);
            for slot in (0..64).filter(|slot| slot % 2 == shard) {
                let granted = FromControl::SlotGranted { slot, slot_epoch: 5, groups: Vec::new(), offsets: Vec::new() };
                world.core.on_control(world.now, granted);
            }
            world.collect();
            world
        };
        Pair { home: world(0), owner: world(1), mail: 0 }
    }

    /// Delivers mail until there is none.
    fn exchange(&mut self) {
        loop {
            let mail: Vec<_> = self.home.core.take_mail();
            let back: Vec<_> = self.owner.core.take_mail();
            if mail.is_empty() && back.is_empty() {
                return;
            }
            self.mail += mail.len() + back.len();
            mail.into_iter().for_each(|message| self.give_owner(message));
            back.into_iter().for_each(|message| self.give_home(message));
        }
    }

    fn give_owner(&mut self, (to, message): (ShardIndex, ToPeer)) {
        assert_eq!(to, ShardIndex(1), "nobody writes to himself");
        self.owner.core.on_peer(self.owner.now, ShardIndex(0), message);
        self.owner.collect();
    }

    fn give_home(&mut self, (to, message): (ShardIndex, ToPeer)) {
        assert_eq!(to, ShardIndex(0), "nobody writes to himself");
        self.home.core.on_peer(self.home.now, ShardIndex(1), message);
        self.home.collect();
    }

    fn produce(&mut self, acks: i16, batches: &[(u32, Bytes)]) -> ReplyTo {
        let to = self.home.produce(acks, batches);
        self.exchange();
        to
    }

    fn commit(&mut self) {
        self.home.commit();
        self.owner.commit();
        self.exchange();
    }

    fn fetch(&mut self, ask: &Ask) -> ReplyTo {
        let to = self.home.fetch(ask);
        self.exchange();
        to
    }

    fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let to = self.home.send(request, version);
        self.exchange();
        self.home.answer::<R>(to, version).expect("answered at once")
    }

    fn write(&mut self, batches: &[(u32, Bytes)]) {
        let to = self.produce(-1, batches);
        self.commit();
        let results = self.home.produced(to).expect("committed");
        assert!(results.iter().all(|result| result.error_code == ErrorCode::None));
    }

    fn disconnect(&mut self) {
        self.home.core.on_disconnect(self.home.now, ConnectionId(1));
        self.home.collect();
        self.exchange();
    }

    fn is_at_rest(&self) -> bool {
        let rests = |world: &World| {
            world.core.splits.as_ref().unwrap().is_empty()
                && world.core.held_bytes() == 0
                && world.core.fetches.by_request.is_empty()
                && world.core.deadlines.next().is_none()
        };
        rests(&self.home) && rests(&self.owner)
    }
}

fn both(wait_ms: i32) -> Ask {
    Ask { partitions: vec![(1, 0, 1 << 20), (0, 0, 1 << 20)], wait_ms, ..Ask::from(0) }
}

fn plain() -> Bytes {
    BatchOf::plain(1, 100)
}

#[test]
fn a_produce_request_over_both_shards_is_answered_in_its_order_once_both_have_committed() {
    let mut pair = Pair::new();
    let to = pair.produce(-1, &[(1, plain()), (0, plain()), (2, plain()), (9, plain())]);
    pair.home.commit();
    pair.exchange();
    assert!(pair.home.produced(to).is_none(), "shard 1 has not committed");
    pair.commit();
    let results = pair.home.produced(to).unwrap();
    let seen: Vec<_> = results.iter().map(|result| (result.index, result.error_code, result.base_offset)).collect();
    let none = ErrorCode::None;
    let (moved, unknown) = (ErrorCode::NotLeaderOrFollower, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(seen, [(1, none, 0), (0, none, 0), (2, moved, -1), (9, unknown, -1)]);
    assert!(pair.is_at_rest());
}

#[test]
fn a_request_for_the_homes_own_partitions_sends_no_message() {
    let mut pair = Pair::new();
    pair.write(&[(0, plain())]);
    let to = pair.fetch(&Ask::from(0));
    assert_eq!(bases(&pair.home.fetched(to).unwrap()[0]), [0]);
    assert_eq!(pair.mail, 0);
}

#[test]
fn batches_of_one_connection_for_one_partition_keep_their_order() {
    let mut pair = Pair::new();
    for sequence in 0..5 {
        pair.home.produce(-1, &[(1, BatchOf::idempotent(1, 7, sequence)), (0, plain())]);
        pair.home.produce(-1, &[(1, BatchOf::idempotent(1, 8, sequence))]);
    }
    pair.exchange();
    pair.commit();
    for to in pair.home.order.clone() {
        assert!(pair.home.produced(to).unwrap().iter().all(|result| result.error_code == ErrorCode::None));
    }
    assert_eq!(pair.home.order.len(), 10);
    assert_eq!(pair.owner.core.logs[&partition(1)].high_watermark(), Offset(10));
}

#[test]
fn without_acks_nothing_is_answered_and_a_failure_closes() {
    let mut pair = Pair::new();
    let well = pair.produce(0, &[(1, plain()), (0, plain())]);
    assert_eq!(pair.home.replies[&well], Reply::Silent);
    let moved = pair.produce(0, &[(2, plain()), (0, plain())]);
    assert!(matches!(pair.home.replies[&moved], Reply::Close(_)));
    let unknown = pair.produce(0, &[(9, plain()), (1, plain())]);
    assert!(matches!(pair.home.replies[&unknown], Reply::Close(_)));
    let leader = pair.produce(1, &[(0, plain()), (1, plain())]);
    assert_eq!(pair.home.produced(leader).unwrap()[1].base_offset, 2, "appended, and not committed");
    pair.commit();
    assert!(pair.is_at_rest());
}

#[test]
fn a_produce_request_that_takes_too_long_is_answered_by_what_each_shard_has() {
    let mut pair = Pair::new();
    let to = pair.produce(-1, &[(0, plain()), (1, plain())]);
    pair.home.commit();
    pair.owner.pass(1000);
    pair.exchange();
    let codes: Vec<ErrorCode> = pair.home.produced(to).unwrap().iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::RequestTimedOut]);
}

#[test]
fn the_permit_is_charged_once_and_comes_back_with_the_last_shards_commit() {
    let mut pair = Pair::new();
    let budget = Budget::new(1 << 20);
    let mut collecting = Box::pin(budget.collect());
    let frame = request_frame(&produce_request(1, &[(0, plain()), (1, plain())]), PRODUCE, 77, None).unwrap().concat();
    let reply_to = ReplyTo { connection: ConnectionId(1), request: RequestNumber(0) };
    let permit = budget.try_take(frame.len());
    pair.home.core.on_request(pair.home.now, reply_to, Frame::copied(&frame[LENGTH_BYTES..]), permit);
    pair.home.collect();
    pair.exchange();
    let taken = budget.taken();
    assert!(taken > frame.len(), "with what the partitions take besides");
    pair.home.commit();
    assert!(collecting.as_mut().now_or_never().is_none());
    assert_eq!(budget.taken(), taken, "one shard still has its batch");
    pair.owner.commit();
    assert!(collecting.as_mut().now_or_never().is_none());
    assert_eq!(budget.taken(), 0);
}

#[test]
fn a_fetch_over_both_shards_waits_for_either_and_is_answered_in_its_order() {
    let mut pair = Pair::new();
    let parked = pair.fetch(&both(500));
    assert!(pair.home.fetched(parked).is_none());
    pair.write(&[(1, plain())]);
    let data = pair.home.fetched(parked).unwrap();
    assert_eq!(
        data.iter().map(|data| (data.partition_index, bases(data))).collect::<Vec<_>>(),
        [(1, vec![0]), (0, vec![])]
    );
    assert_eq!((data[0].high_watermark, data[1].high_watermark), (1, 0));
    assert!(pair.is_at_rest());
}

#[test]
fn the_bytes_wanted_are_counted_over_both_shards() {
    let mut pair = Pair::new();
    let parked = pair.fetch(&Ask { min_bytes: 2 * plain().len() as i32, ..both(500) });
    pair.write(&[(1, plain())]);
    assert!(pair.home.fetched(parked).is_none());
    pair.write(&[(0, plain())]);
    let data = pair.home.fetched(parked).unwrap();
    assert_eq!((bases(&data[0]), bases(&data[1])), (vec![0], vec![0]));
}

#[test]
fn nobody_waits_for_more_bytes_than_both_shards_may_give() {
    let mut pair = Pair::new();
    pair.write(&[(0, plain()), (1, plain())]);
    let max_bytes = 2 * plain().len() as i32;
    let to = pair.fetch(&Ask { min_bytes: 1 << 20, max_bytes, ..both(500) });
    assert!(pair.home.fetched(to).unwrap().iter().all(|data| bases(data) == [0]));
}

#[test]
fn the_limit_holds_over_both_shards_and_neither_is_starved() {
    let mut pair = Pair::new();
    pair.write(&[(0, plain()), (1, plain())]);
    let mut given = [0, 0];
    for _ in 0..4 {
        let to = pair.fetch(&Ask { max_bytes: 10, ..both(0) });
        let data = pair.home.fetched(to).unwrap();
        let batches: Vec<usize> = data.iter().map(|data| bases(data).len()).collect();
        assert_eq!(batches.iter().sum::<usize>(), 1, "one batch, though larger than the limit");
        given[batches[1]] += 1;
    }
    assert_eq!(given, [2, 2]);
    let to = pair.fetch(&Ask { max_bytes: 2 * plain().len() as i32, ..both(0) });
    assert!(pair.home.fetched(to).unwrap().iter().all(|data| bases(data) == [0]));
}

#[test]
fn a_fetch_ends_at_its_deadline_or_when_a_reply_waits_behind_it_or_when_something_failed() {
    let mut pair = Pair::new();
    let timed = pair.fetch(&both(500));
    pair.home.pass(500);
    pair.exchange();
    assert!(pair.home.fetched(timed).unwrap().iter().all(|data| bases(data).is_empty()));
    let blocking = pair.fetch(&both(500));
    pair.home.core.on_queued_behind(pair.home.now, blocking.connection, blocking.request);
    pair.exchange();
    assert!(pair.home.fetched(blocking).is_some());
    let failing = pair.fetch(&both(500));
    pair.owner.lane(ToShard::Revoked { partition: partition(1) });
    pair.exchange();
    assert_eq!(pair.home.fetched(failing).unwrap()[0].error_code, ErrorCode::NotLeaderOrFollower);
    let unknown = pair.fetch(&Ask { partitions: vec![(9, 0, 100), (1, 0, 100), (0, 0, 100)], ..both(500) });
    assert_eq!(pair.home.fetched(unknown).unwrap()[0].error_code, ErrorCode::UnknownTopicOrPartition);
    assert!(pair.is_at_rest());
}

#[test]
fn a_second_fetch_of_a_connection_ends_the_first() {
    let mut pair = Pair::new();
    let first = pair.fetch(&both(500));
    let second = pair.fetch(&both(500));
    assert!(pair.home.fetched(first).is_some() && pair.home.fetched(second).is_none());
}

#[test]
fn however_many_commits_there_are_one_level_is_under_way() {
    let mut pair = Pair::new();
    pair.fetch(&Ask { min_bytes: 1 << 20, ..both(500) });
    for _ in 0..20 {
        pair.owner.write(1, plain());
    }
    let told = pair.owner.core.take_mail();
    assert!(matches!(told[..], [(_, ToPeer::Level { .. })]), "{told:?}");
    told.into_iter().for_each(|message| pair.give_home(message));
    pair.exchange();
    let more = pair.mail;
    pair.exchange();
    assert_eq!(pair.mail, more, "and what was not told then is told once");
}

#[test]
fn a_connection_that_goes_takes_its_parts_along() {
    let mut pair = Pair::new();
    pair.fetch(&both(500));
    assert_eq!(pair.owner.core.fetches.by_request.len(), 1);
    pair.disconnect();
    assert!(pair.is_at_rest());
    assert!(pair.home.replies.values().all(|reply| *reply == Reply::Silent));
    // A level that was under way, and a word that comes too late.
    pair.fetch(&both(500));
    pair.owner.write(1, plain());
    pair.disconnect();
    assert!(pair.is_at_rest());
}

#[test]
fn batches_that_were_handed_over_are_appended_though_their_connection_goes() {
    let mut pair = Pair::new();
    pair.home.produce(-1, &[(0, plain()), (1, plain())]);
    pair.disconnect();
    pair.commit();
    assert!(pair.is_at_rest());
    assert_eq!(pair.home.core.logs[&partition(0)].high_watermark(), Offset(1));
    assert_eq!(pair.owner.core.logs[&partition(1)].high_watermark(), Offset(1));
}

#[test]
fn an_owner_that_stops_refuses_its_part_alone() {
    let mut pair = Pair::new();
    pair.owner.core.on_control(pair.owner.now, FromControl::Stopping);
    let to = pair.produce(-1, &[(0, plain()), (1, plain())]);
    pair.commit();
    let codes: Vec<ErrorCode> = pair.home.produced(to).unwrap().iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::NotLeaderOrFollower]);
}

#[test]
fn what_one_shard_gave_is_counted_while_the_other_still_reads() {
    let mut pair = Pair::new();
    pair.write(&[(0, plain()), (1, plain())]);
    (0..100).for_each(|_| pair.owner.core.shed_tail());
    let to = pair.fetch(&both(0));
    assert_eq!(pair.home.core.held_bytes(), plain().len(), "its own part");
    pair.owner.serve_reads();
    pair.exchange();
    assert!(pair.home.fetched(to).is_some() && pair.is_at_rest());
    // The same when nobody wants the answer any more.
    pair.fetch(&both(0));
    pair.disconnect();
    assert_eq!(pair.home.core.held_bytes(), plain().len());
    pair.owner.serve_reads();
    pair.exchange();
    assert!(pair.is_at_rest());
}

#[test]
fn a_partition_that_was_lost_and_came_back_before_its_level_was_heard_still_ends_the_fetch() {
    let mut pair = Pair::new();
    let parked = pair.home.fetch(&both(500));
    pair.home.core.take_mail().into_iter().for_each(|message| pair.give_owner(message));
    // Its level is under way.
    let back = pair.owner.committed[&partition(1)].clone().next_epoch();
    pair.owner.lane(ToShard::Revoked { partition: partition(1) });
    pair.owner.acquire(partition(1), back);
    pair.exchange();
    assert!(pair.home.fetched(parked).is_none());
    pair.owner.write(1, plain());
    pair.exchange();
    assert_eq!(bases(&pair.home.fetched(parked).expect("there is something to read")[0]), [0]);
    assert!(pair.is_at_rest());
}

#[test]
fn a_session_over_both_shards_tells_only_what_is_new_of_either() {
    let mut pair = Pair::new();
    let full = FetchRequest { session_epoch: 0, ..both(0).request() };
    let first = pair.ask(&full, FETCH);
    assert!(first.session_id > 0);
    assert_eq!(first.responses[0].partitions.len(), 2);
    let next = |session_epoch| FetchRequest {
        session_id: first.session_id,
        session_epoch,
        topics: Vec::new(),
        ..full.clone()
    };
    let news = |answer: &FetchResponse| {
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|data| (data.partition_index, bases(data))).collect::<Vec<_>>()
    };
    assert_eq!(news(&pair.ask(&next(1), FETCH)), []);
    pair.write(&[(1, plain())]);
    assert_eq!(news(&pair.ask(&next(2), FETCH)), [(1, vec![0])]);
    pair.write(&[(0, plain())]);
    let mut moved = next(3);
    moved.topics = Ask { partitions: vec![(1, 1, 1 << 20)], ..both(0) }.request().topics;
    let answer = pair.ask(&moved, FETCH);
    assert_eq!((answer.session_id, news(&answer)), (first.session_id, vec![(0, vec![0])]));
    assert!(pair.is_at_rest());
}

#[test]
fn batches_are_read_back_from_the_store_of_the_shard_that_owns_them() {
    let mut pair = Pair::new();
    pair.write(&[(0, plain()), (1, plain())]);
    (0..100).for_each(|_| pair.owner.core.shed_tail());
    let to = pair.fetch(&both(0));
    assert!(pair.home.fetched(to).is_none());
    assert_eq!((pair.home.serve_reads(), pair.owner.serve_reads()), (0, 1));
    pair.exchange();
    assert!(pair.home.fetched(to).unwrap().iter().all(|data| bases(data) == [0]));
    assert!(pair.is_at_rest());
}

#[test]
fn requests_by_partition_are_answered_for_all_of_them() {
    let mut pair = Pair::new();
    pair.write(&[(0, plain()), (1, BatchOf::idempotent(2, 7, 0))]);
    let name = || TOPIC.into();
    let asked = |partition_index| ListOffsetsPartition { partition_index, timestamp: -1, current_leader_epoch: -1 };
    let topics = vec![ListOffsetsTopic { name: name(), partitions: [0, 1, 9, 1].map(asked).to_vec() }];
    let listed = pair.ask(&ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }, 7);
    let mut seen: Vec<_> =
        listed.topics[0].partitions.iter().map(|p| (p.partition_index, p.error_code, p.offset)).collect();
    seen.sort_by_key(|(index, ..)| *index);
    let (invalid, unknown) = (ErrorCode::InvalidRequest, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(seen, [(0, ErrorCode::None, 1), (1, invalid, -1), (9, unknown, -1)], "twice is once, and wrong");
    assert_eq!(listed.topics.len(), 1);

    let asked = |partition| OffsetForLeaderPartition { partition, current_leader_epoch: -1, leader_epoch: 1 };
    let topics = vec![OffsetForLeaderTopic { topic: name(), partitions: [0, 1].map(asked).to_vec() }];
    let ends = pair.ask(&OffsetForLeaderEpochRequest { topics, ..Default::default() }, 4);
    let mut seen: Vec<_> = ends.topics[0].partitions.iter().map(|p| (p.partition, p.end_offset)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(0, 1), (1, 2)]);

    let topics = vec![DescribeProducersTopic { name: name(), partition_indexes: vec![0, 1] }];
    let producers = pair.ask(&DescribeProducersRequest { topics }, 0);
    let mut seen: Vec<_> =
        producers.topics[0].partitions.iter().map(|p| (p.partition_index, p.active_producers.len())).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(0, 0), (1, 1)]);

    let dirs = pair.ask(&DescribeLogDirsRequest { topics: None }, 4);
    let topic = &dirs.results[0].topics[0];
    assert_eq!((dirs.results.len(), dirs.results[0].topics.len(), topic.partitions.len()), (1, 1, 2));

    let asked = |partition_index| DeleteRecordsPartition { partition_index, offset: 0 };
    let topics = vec![DeleteRecordsTopic { name: name(), partitions: [0, 1, 9].map(asked).to_vec() }];
    let deleted = pair.ask(&DeleteRecordsRequest { topics, timeout_ms: 1000 }, 2);
    let mut seen: Vec<_> = deleted.topics[0].partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
    seen.sort_by_key(|(index, _)| *index);
    assert_eq!(seen, [(0, ErrorCode::None), (1, ErrorCode::None), (9, unknown)]);
    assert!(pair.is_at_rest());
}

/// Two groups that a shard coordinates.
fn coordinated(shard: u16) -> Vec<String> {
    let names = (0..).map(|n| format!("group-{n}"));
    names.filter(|name| crate::groups::slot_of(name) % 2 == shard).take(2).collect()
}

#[test]
fn a_member_of_a_group_of_another_shard_joins_from_where_its_client_is() {
    let mut pair = Pair::new();
    let group = coordinated(1).remove(0);
    let client = std::net::SocketAddr::from(([192, 0, 2, 7], 50_000));
    pair.home.core.on_connection(pair.home.now, ConnectionId(1), client);
    let protocols = vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"m") }];
    let join = JoinGroupRequest {
        group_id: group.as_str().into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols,
        ..Default::default()
    };
    let answer = pair.ask(&join, 9);
    assert_eq!(answer.error_code, ErrorCode::MemberIdRequired);
    let to = pair.home.send(&JoinGroupRequest { member_id: answer.member_id, ..join }, 9);
    pair.exchange();
    assert!(pair.home.answer::<JoinGroupRequest>(to, 9).is_none(), "the group waits for more members");
    pair.owner.pass(3_000);
    pair.exchange();
    let joined = pair.home.answer::<JoinGroupRequest>(to, 9).expect("the initial delay is over");
    assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::None, 1));
    let groups = vec![group.as_str().into()];
    let described = pair.ask(&DescribeGroupsRequest { groups, include_authorized_operations: false }, 5);
    let member = &described.groups[0].members[0];
    assert_eq!((member.client_host.as_str(), member.client_id.as_str()), ("/192.0.2.7", "test"));
}

#[test]
fn requests_of_groups_go_to_the_shard_that_coordinates_them() {
    let mut pair = Pair::new();
    let groups: Vec<String> = [coordinated(0), coordinated(1)].concat();
    let names = || groups.iter().map(|name| name.as_str().into()).collect();
    let described = pair.ask(&DescribeGroupsRequest { groups: names(), include_authorized_operations: false }, 5);
    assert_eq!(described.groups.len(), 4);
    assert!(described.groups.iter().all(|group| group.error_code == ErrorCode::None && group.group_state == "Dead"));
    for name in &groups {
        let request = OffsetFetchRequest { group_id: name.as_str().into(), topics: None, ..Default::default() };
        assert_eq!(pair.ask(&request, 7).error_code, ErrorCode::None, "{name}");
    }
    let fetched = |name: &String| millrace_protocol::messages::offset_fetch::OffsetFetchRequestGroup {
        group_id: name.as_str().into(),
        topics: None,
        ..Default::default()
    };
    let all = OffsetFetchRequest { groups: groups.iter().map(fetched).collect(), ..Default::default() };
    let answered = pair.ask(&all, 8);
    assert!(answered.groups.len() == 4 && answered.groups.iter().all(|group| group.error_code == ErrorCode::None));
    assert_eq!(pair.ask(&ListGroupsRequest::default(), 4).error_code, ErrorCode::None);
    assert!(pair.home.core.splits.as_ref().unwrap().is_empty());
}

#[test]
fn a_request_that_is_broken_closes_its_connection() {
    let mut pair = Pair::new();
    // Version 1 of JoinGroup, cut off.
    let to = pair.home.send_bytes(&[0, 11, 0, 1, 0, 0, 0, 77, 0xff, 0xff, 0, 5, b'g']);
    pair.exchange();
    assert!(matches!(pair.home.replies[&to], Reply::Close(_)));
}

#[test]
fn clients_are_told_of_one_node_that_leads_everything() {
    let mut pair = Pair::new();
    let answer = pair.ask(&MetadataRequest { topics: None, ..Default::default() }, 9);
    assert_eq!(answer.brokers.iter().map(|broker| broker.node_id).collect::<Vec<_>>(), [1]);
    assert!(answer.topics[0].partitions.iter().all(|partition| partition.leader_id == 1));
}

#[test]
fn a_request_in_a_mailbox_weighs_by_its_bytes() {
    let request = |bytes| ToPeer::Request {
        part: crate::shard::split::PartId(0),
        connection: ConnectionId(1),
        address: None,
        frame: Bytes::from(vec![0; bytes]),
    };
    assert_eq!([request(100), request(1 << 20), ToPeer::Shed].map(|message| message.weight()), [1, 257, 1]);
}

#[test]
fn a_shard_that_finds_no_memory_has_the_tails_of_others_shortened() {
    let mut pair = Pair::new();
    pair.write(&[(1, plain())]);
    assert!(pair.owner.core.tail_bytes() > 0);
    pair.owner.core.on_peer(pair.owner.now, ShardIndex(0), ToPeer::Shed);
    assert_eq!(pair.owner.core.tail_bytes(), 0);
}

/// Limits the client of the tests on both shards, as the one image does.
fn limit(pair: &mut Pair, quota: Quota, rate: u64) {
    let client = QuotaEntity { user: QuotaPart::Absent, client_id: QuotaPart::Named("test".to_owned()) };
    let quotas = BTreeMap::from([(quota.name().to_owned(), rate)]);
    let table = Arc::new(QuotaTable(BTreeMap::from([(client, quotas)])));
    for world in [&mut pair.home, &mut pair.owner] {
        world.set_image(|image| {
            of_two_shards(image);
            image.quotas = table.clone();
        });
    }
}

#[test]
fn what_is_produced_to_both_shards_counts_once_towards_a_quota_where_the_connection_is() {
    let mut pair = Pair::new();
    limit(&mut pair, Quota::Produce, 1_000);
    let batches = [(1, BatchOf::plain(1, 6_000)), (0, BatchOf::plain(1, 6_000))];
    let frame = request_frame(&produce_request(-1, &batches), PRODUCE, 77, Some("test".into())).unwrap().concat();
    let to = pair.produce(-1, &batches);
    pair.commit();
    let told = pair.home.answer::<ProduceRequest>(to, PRODUCE).unwrap().throttle_time_ms;
    let expected = frame.len() - LENGTH_BYTES - 10_000;
    assert_eq!(usize::try_from(told).unwrap(), expected, "a byte a millisecond above ten seconds' worth");
    let muted: Vec<_> = pair.home.mutes.iter().map(|(connection, until)| (*connection, until.0)).collect();
    assert_eq!(muted, [(ConnectionId(1), pair.home.now.mono.0 + expected as u64 * 1_000_000)]);
    assert!(pair.owner.mutes.is_empty());
    assert_eq!((pair.home.core.counters().throttled, pair.owner.core.counters().throttled), (1, 0));
}
