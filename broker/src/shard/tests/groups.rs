//! The group APIs over frames: shapes by version, tickets, the way to the control task and back.

use super::*;
use crate::control::COORDINATOR_SLOTS;
use crate::groups::slot_of;
use millrace_protocol::messages::find_coordinator::Coordinator;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use millrace_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use millrace_protocol::messages::sync_group::SyncGroupRequestAssignment;
use millrace_protocol::messages::{
    ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest,
    DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};

const GROUP: &str = "readers";

/// A shard that coordinates every slot.
fn coordinator() -> World {
    let mut world = World::new();
    world.set_image(|image| image.slots = vec![Some(1); usize::from(COORDINATOR_SLOTS)]);
    for slot in 0..COORDINATOR_SLOTS {
        let granted = FromControl::SlotGranted { slot, slot_epoch: 5, groups: Vec::new(), offsets: Vec::new() };
        world.core.on_control(world.now, granted);
    }
    world
}

impl World {
    /// Makes every write that waits durable (or fails it) and says how many there were.
    fn persist(&mut self, result: Result<(), ErrorCode>) -> usize {
        let asked: Vec<ToControl> = self.asked.drain(..).collect();
        let count = asked.len();
        for question in asked {
            let ToControl::Persist { token, slot, slot_epoch, writes } = question else { panic!("{question:?}") };
            assert_eq!((slot, slot_epoch), (slot_of(GROUP), 5));
            assert!(!writes.is_empty());
            self.core.on_control(self.now, FromControl::Persisted { token, result });
        }
        self.collect();
        count
    }

    /// A member of a stable group: its id.
    fn stable_member(&mut self, version: i16) -> String {
        let join = JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: if version == 0 { -1 } else { 60_000 },
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"m") }],
            ..Default::default()
        };
        let mut to = self.send(&join, version);
        if version >= 4 {
            let answer = self.answer::<JoinGroupRequest>(to, version).expect("sent back for its id");
            assert_eq!(answer.error_code, ErrorCode::MemberIdRequired);
            to = self.send(&JoinGroupRequest { member_id: answer.member_id, ..join }, version);
        }
        self.pass(3_000);
        let joined = self.answer::<JoinGroupRequest>(to, version).expect("the initial delay is over");
        assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::None, 1));
        assert_eq!((joined.leader.clone(), joined.members.len()), (joined.member_id.clone(), 1));
        let assignment = Bytes::from_static(b"part");
        let named = |text: &'static str| (version >= 5).then(|| text.into());
        let sync = SyncGroupRequest {
            protocol_type: named("consumer"),
            protocol_name: named("range"),
            group_id: GROUP.into(),
            generation_id: 1,
            member_id: joined.member_id.clone(),
            assignments: vec![SyncGroupRequestAssignment { member_id: joined.member_id.clone(), assignment }],
            ..Default::default()
        };
        let sync_version = version.min(5);
        let to = self.send(&sync, sync_version);
        assert_eq!(self.answer::<SyncGroupRequest>(to, sync_version), None, "not before it is durable");
        assert_eq!(self.persist(Ok(())), 1);
        let synced = self.answer::<SyncGroupRequest>(to, sync_version).expect("durable");
        assert_eq!((synced.error_code, &synced.assignment[..]), (ErrorCode::None, &b"part"[..]));
        joined.member_id.as_str().to_owned()
    }

    fn commit_offset(&mut self, member: &str, generation: i32, offset: i64, version: i16) -> ReplyTo {
        let topic = OffsetCommitRequestTopic {
            name: if version < 10 { TOPIC.into() } else { "".into() },
            topic_id: if version < 10 { Uuid::nil() } else { TOPIC_ID.0 },
            partitions: vec![
                OffsetCommitRequestPartition {
                    partition_index: 1,
                    committed_offset: offset,
                    committed_metadata: Some("note".into()),
                    ..Default::default()
                },
                OffsetCommitRequestPartition { partition_index: 99, ..Default::default() },
            ],
        };
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: generation,
            member_id: member.into(),
            topics: vec![topic],
            ..Default::default()
        };
        self.send(&request, version)
    }
}

#[test]
fn a_group_consumer_joins_commits_leaves_and_reads_back_in_old_and_new_versions() {
    for (join, commit) in [(0, 2), (4, 7), (9, 9), (9, 10)] {
        let mut world = coordinator();
        let member = world.stable_member(join);
        let to = world.commit_offset(&member, 1, 42, commit);
        assert_eq!(world.answer::<OffsetCommitRequest>(to, commit), None, "not before it is durable");
        world.persist(Ok(()));
        let committed = world.answer::<OffsetCommitRequest>(to, commit).expect("durable");
        let codes: Vec<ErrorCode> = committed.topics[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);

        let beat = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: 1,
            member_id: member.as_str().into(),
            ..Default::default()
        };
        assert_eq!(world.ask(&beat, 4).error_code, ErrorCode::None);

        let topics = vec![OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: vec![0, 1] }];
        let fetch = OffsetFetchRequest { group_id: GROUP.into(), topics: Some(topics), ..Default::default() };
        let fetched = world.ask(&fetch, 5);
        let offsets: Vec<i64> = fetched.topics[0].partitions.iter().map(|p| p.committed_offset).collect();
        assert_eq!(offsets, [-1, 42]);
        assert_eq!(fetched.topics[0].partitions[1].metadata.as_deref(), Some("note"));

        let all = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: None, ..Default::default() };
        let fetched = world.ask(&OffsetFetchRequest { groups: vec![all], ..Default::default() }, 8);
        assert_eq!(fetched.groups[0].topics.len(), 1);
        assert_eq!(fetched.groups[0].topics[0].partitions[0].committed_offset, 42);

        let leave = LeaveGroupRequest { group_id: GROUP.into(), member_id: member.into(), ..Default::default() };
        assert_eq!(world.ask(&leave, 2).error_code, ErrorCode::None);
    }
}

#[test]
fn offsets_by_topic_id_say_which_ids_are_unknown() {
    let mut world = coordinator();
    let topic = |topic_id| OffsetFetchRequestTopics { topic_id, partition_indexes: vec![0], ..Default::default() };
    let group = OffsetFetchRequestGroup {
        group_id: GROUP.into(),
        topics: Some(vec![topic(TOPIC_ID.0), topic(Uuid::from_u128(9))]),
        ..Default::default()
    };
    let fetched = world.ask(&OffsetFetchRequest { groups: vec![group], ..Default::default() }, 10);
    let codes: Vec<ErrorCode> = fetched.groups[0].topics.iter().map(|t| t.partitions[0].error_code).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicId]);
}

#[test]
fn a_commit_that_can_not_be_stored_is_answered_with_the_error() {
    let mut world = coordinator();
    let to = world.commit_offset("", -1, 7, 8);
    world.persist(Err(ErrorCode::CoordinatorNotAvailable));
    let committed = world.answer::<OffsetCommitRequest>(to, 8).expect("answered");
    assert_eq!(committed.topics[0].partitions[0].error_code, ErrorCode::CoordinatorNotAvailable);
}

#[test]
fn a_group_is_described_listed_and_deleted() {
    let mut world = coordinator();
    let member = world.stable_member(9);
    let describe = DescribeGroupsRequest { groups: vec![GROUP.into(), "none".into()], ..Default::default() };
    let described = world.ask(&describe, 5).groups;
    assert_eq!((described[0].group_state.as_str(), described[1].group_state.as_str()), ("Stable", "Dead"));
    assert_eq!(described[0].members[0].member_id.as_str(), member);
    assert_eq!(world.ask(&describe, 6).groups[1].error_code, ErrorCode::GroupIdNotFound);

    let listed = world.ask(&ListGroupsRequest::default(), 5).groups;
    assert_eq!((listed.len(), listed[0].group_id.as_str(), listed[0].group_type.as_str()), (1, GROUP, "classic"));
    let empty_ones = ListGroupsRequest { states_filter: vec!["Empty".into()], ..Default::default() };
    assert_eq!(world.ask(&empty_ones, 5).groups.len(), 0);

    let delete = DeleteGroupsRequest { groups_names: vec![GROUP.into(), "none".into()] };
    let results = world.ask(&delete, 2).results;
    let codes: Vec<ErrorCode> = results.iter().map(|r| r.error_code).collect();
    assert_eq!(codes, [ErrorCode::NonEmptyGroup, ErrorCode::GroupIdNotFound]);

    world.pass(11_000);
    world.persist(Ok(()));
    let to = world.send(&delete, 2);
    world.persist(Ok(()));
    let results = world.answer::<DeleteGroupsRequest>(to, 2).expect("durable").results;
    assert_eq!(results[0].error_code, ErrorCode::None);
}

#[test]
fn a_group_that_is_named_twice_is_deleted_and_answered_once() {
    let mut world = coordinator();
    let delete = DeleteGroupsRequest { groups_names: vec!["a".into(), "b".into(), "a".into()] };
    let results = world.ask(&delete, 2).results;
    let told: Vec<_> = results.iter().map(|result| (result.group_id.as_str(), result.error_code)).collect();
    assert_eq!(told, [("a", ErrorCode::GroupIdNotFound), ("b", ErrorCode::GroupIdNotFound)]);
}

#[test]
fn offsets_to_delete_of_no_partition_are_answered_for_unknown_topics_alone() {
    let mut world = coordinator();
    let commit = OffsetCommitRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetCommitRequestPartition { committed_offset: 3, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let to = world.send(&commit, 8);
    world.persist(Ok(()));
    let committed = world.answer::<OffsetCommitRequest>(to, 8).expect("it is durable");
    assert_eq!(committed.topics[0].partitions[0].error_code, ErrorCode::None);
    let of = |name: &str| OffsetDeleteRequestTopic { name: name.into(), partitions: Vec::new() };
    let request = OffsetDeleteRequest { group_id: GROUP.into(), topics: vec![of(TOPIC), of("nowhere")] };
    let answer = world.ask(&request, 0);
    assert_eq!((answer.error_code, answer.topics.len()), (ErrorCode::None, 1));
    assert_eq!(answer.topics[0].name, "nowhere");
}

#[test]
fn the_coordinator_of_a_transaction_is_refused_for_good() {
    let mut world = coordinator();
    let request =
        |key_type| FindCoordinatorRequest { key_type, coordinator_keys: vec![GROUP.into()], ..Default::default() };
    let found: Vec<Coordinator> = world.ask(&request(0), 4).coordinators;
    assert_eq!((found[0].error_code, found[0].node_id, found[0].port), (ErrorCode::None, 1, 9092));
    let refused = world.ask(&request(1), 4).coordinators;
    assert_eq!(refused[0].error_code, ErrorCode::TransactionalIdAuthorizationFailed);
    let old = FindCoordinatorRequest { key: GROUP.into(), ..Default::default() };
    assert_eq!(world.ask(&old, 0).port, 9092);
}

#[test]
fn a_shard_without_the_slot_sends_members_on() {
    let mut world = World::new();
    let beat = HeartbeatRequest { group_id: GROUP.into(), ..Default::default() };
    assert_eq!(world.ask(&beat, 4).error_code, ErrorCode::NotCoordinator);
    let find = FindCoordinatorRequest { key: GROUP.into(), ..Default::default() };
    assert_eq!(world.ask(&find, 2).error_code, ErrorCode::CoordinatorNotAvailable);
}

#[test]
fn a_commit_of_an_old_client_says_for_how_long_its_offset_is_kept() {
    for (version, retention_time_ms, is_kept) in [(2, 1_000, false), (4, 1_000, false), (4, -1, true), (5, -1, true)] {
        let mut world = coordinator();
        let partition = OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() };
        let topics =
            vec![OffsetCommitRequestTopic { name: TOPIC.into(), partitions: vec![partition], ..Default::default() }];
        let commit = OffsetCommitRequest { group_id: GROUP.into(), retention_time_ms, topics, ..Default::default() };
        world.send(&commit, version);
        assert_eq!(world.persist(Ok(())), 1);
        world.pass(1_200_000);
        world.persist(Ok(()));
        let topics = vec![OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: vec![0] }];
        let fetch = OffsetFetchRequest { group_id: GROUP.into(), topics: Some(topics), ..Default::default() };
        let offset = world.ask(&fetch, 5).topics[0].partitions[0].committed_offset;
        assert_eq!(offset == 7, is_kept, "version {version}, {retention_time_ms} ms");
    }
}

#[test]
fn committed_offsets_are_deleted_once_that_is_durable() {
    let mut world = coordinator();
    let partition = OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() };
    let topics =
        vec![OffsetCommitRequestTopic { name: TOPIC.into(), partitions: vec![partition], ..Default::default() }];
    let commit = OffsetCommitRequest { group_id: GROUP.into(), topics, ..Default::default() };
    world.send(&commit, 7);
    assert_eq!(world.persist(Ok(())), 1);
    let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
    let topics = vec![
        OffsetDeleteRequestTopic { name: TOPIC.into(), partitions: vec![partition(0), partition(1), partition(99)] },
        OffsetDeleteRequestTopic { name: "absent".into(), partitions: vec![partition(0)] },
    ];
    let delete = OffsetDeleteRequest { group_id: GROUP.into(), topics };
    let to = world.send(&delete, 0);
    assert_eq!(world.answer::<OffsetDeleteRequest>(to, 0), None, "not before it is durable");
    assert_eq!(world.persist(Ok(())), 1);
    let answer = world.answer::<OffsetDeleteRequest>(to, 0).unwrap();
    let codes: Vec<_> =
        answer.topics.iter().flat_map(|t| &t.partitions).map(|partition| partition.error_code).collect();
    use ErrorCode::{None as Done, UnknownTopicOrPartition as Unknown};
    assert_eq!((answer.error_code, codes), (Done, vec![Done, Done, Unknown, Unknown]));
    // Nothing was left of the group but its offsets.
    assert_eq!(world.ask(&delete, 0).error_code, ErrorCode::GroupIdNotFound);
}

#[test]
fn a_consumer_group_lives_over_frames_and_is_shown_as_one() {
    let mut world = coordinator();
    let (topic, partitions) = {
        let topic = world.core.image.topics.values().next().expect("the world has a topic");
        (topic.clone(), topic.partitions.len())
    };
    let join = ConsumerGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: "member".into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![topic.name.as_str().into()]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    };
    let to = world.send(&join, 1);
    assert!(world.answer::<ConsumerGroupHeartbeatRequest>(to, 1).is_none(), "it is not durable yet");
    assert_eq!(world.persist(Ok(())), 1);
    let joined = world.answer::<ConsumerGroupHeartbeatRequest>(to, 1).expect("it is durable");
    assert_eq!((joined.error_code, joined.member_epoch), (ErrorCode::None, 2));
    let assigned = joined.assignment.expect("a new member hears of its part").topic_partitions;
    assert_eq!(assigned.len(), 1);
    assert_eq!((assigned[0].topic_id, assigned[0].partitions.len()), (topic.id.0, partitions));
    let keep = ConsumerGroupHeartbeatRequest { member_epoch: 2, ..Default::default() };
    let keep = ConsumerGroupHeartbeatRequest { group_id: GROUP.into(), member_id: "member".into(), ..keep };
    let kept = world.ask(&keep, 0);
    assert_eq!((kept.member_epoch, kept.heartbeat_interval_ms, kept.assignment), (2, 5_000, None));

    let describe = ConsumerGroupDescribeRequest { group_ids: vec![GROUP.into(), "other".into()], ..Default::default() };
    for version in [0, 1] {
        let groups = world.ask(&describe, version).groups;
        assert_eq!((groups[0].group_state.as_str(), groups[0].assignor_name.as_str()), ("Stable", "uniform"));
        assert_eq!(groups[0].members[0].assignment.topic_partitions[0].partitions.len(), partitions);
        assert_eq!(groups[1].error_code, ErrorCode::GroupIdNotFound);
    }
    let classic = DescribeGroupsRequest { groups: vec![GROUP.into()], ..Default::default() };
    assert_eq!(world.ask(&classic, 6).groups[0].error_code, ErrorCode::GroupIdNotFound);
    let list = |kind: &'static str| ListGroupsRequest { types_filter: vec![kind.into()], ..Default::default() };
    assert_eq!(world.ask(&list("Consumer"), 5).groups[0].group_state.as_str(), "Stable");
    assert_eq!(world.ask(&list("classic"), 5).groups, []);
    let old = OffsetCommitRequest { group_id: GROUP.into(), member_id: "member".into(), ..Default::default() };
    assert_eq!(world.ask(&old, 8).topics, []);
    let delete = DeleteGroupsRequest { groups_names: vec![GROUP.into()] };
    assert_eq!(world.ask(&delete, 2).results[0].error_code, ErrorCode::NonEmptyGroup);
    world.pass(45_000);
    world.persist(Ok(()));
    let to = world.send(&delete, 2);
    world.persist(Ok(()));
    assert_eq!(world.answer::<DeleteGroupsRequest>(to, 2).expect("decided").results[0].error_code, ErrorCode::None);
}

#[test]
fn features_say_that_groups_of_the_consumer_protocol_are_served() {
    let mut world = World::new();
    for (version, least) in [(3, 1), (4, 0)] {
        let request = ApiVersionsRequest {
            client_software_name: "c".into(),
            client_software_version: "1".into(),
            ..Default::default()
        };
        let answer = world.ask(&request, version);
        let (supported, finalized) = (&answer.supported_features[0], &answer.finalized_features[0]);
        assert_eq!(
            (supported.name.as_str(), supported.min_version, supported.max_version),
            ("group.version", least, 1)
        );
        assert_eq!((finalized.min_version_level, finalized.max_version_level), (1, 1));
    }
}
