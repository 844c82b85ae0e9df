//! The APIs that answer from the cluster's image or through the control task, and what is not served.

use super::*;
use crate::control::{TopicAnswer, TopicDeletion};
use crate::shard::events::Reply;
use millrace_protocol::api::{ADVERTISED, ApiKey};
use millrace_protocol::messages::create_topics::CreatableTopic;
use millrace_protocol::messages::delete_topics::DeleteTopicState;
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::*;

#[test]
fn api_versions_above_ours_are_answered_in_version_0_with_our_range() {
    let mut world = World::new();
    let to = world.send_bytes(&[0, 18, 0, 99, 0, 0, 0, 77, 0xff, 0xff]);
    let response = world.answer::<ApiVersionsRequest>(to, 0).unwrap();
    assert_eq!(response.error_code, ErrorCode::UnsupportedVersion);
    assert_eq!(response.api_keys.len(), 1);
    assert_eq!(response.api_keys[0].api_key, ApiKey::ApiVersions.code());
    let request = ApiVersionsRequest {
        client_software_name: "millrace".into(),
        client_software_version: "1.0".into(),
        ..Default::default()
    };
    assert_eq!(world.ask(&request, 3).api_keys.len(), ADVERTISED.len());
}

#[test]
fn unknown_keys_and_versions_and_garbage_close_the_connection() {
    let mut world = World::new();
    for frame in [&[0, 99, 0, 0, 0, 0, 0, 1][..], &[0, 3, 0, 99, 0, 0, 0, 1], &[0, 3], &[], &[0, 3, 0, 1, 0, 0, 0, 1]] {
        let to = world.send_bytes(frame);
        assert!(matches!(world.replies[&to], Reply::Close(_)), "{frame:?}");
    }
}

fn metadata_of(name: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic { name: Some(name.into()), ..Default::default() };
    MetadataRequest { topics: Some(vec![topic]), ..Default::default() }
}

#[test]
fn metadata_is_answered_in_every_version() {
    let mut world = World::new();
    for version in 0..=13 {
        let response = world.ask(&metadata_of(TOPIC), version);
        assert_eq!(response.brokers.len(), 2);
        assert_eq!(response.topics[0].error_code, ErrorCode::None);
        assert_eq!(response.topics[0].partitions.len(), 3);
        assert_eq!(response.topics[0].partitions[1].leader_id, 1);
    }
    let all = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(world.ask(&all, 1).topics.len(), 1);
    let none = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    assert_eq!(world.ask(&none, 1).topics.len(), 0);
    assert_eq!(world.ask(&none, 0).topics.len(), 1, "in version 0 the empty list means all");
}

#[test]
fn a_partition_without_a_leader_says_so_and_its_topic_is_listed() {
    let mut world = World::new();
    world.set_image(|image| {
        let topic = Arc::make_mut(image.topics.get_mut(TOPIC).unwrap());
        topic.partitions[1].leader = None;
    });
    let response = world.ask(&metadata_of(TOPIC), 12);
    assert_eq!(response.topics[0].error_code, ErrorCode::None);
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::LeaderNotAvailable, ErrorCode::None]);
}

#[test]
fn metadata_of_a_missing_topic_creates_it_and_answers_when_it_is_there() {
    let mut world = World::new();
    let to = world.send(&metadata_of("new"), 12);
    let Some(ToControl::CreateTopics { token, topics, auto: true, validate_only: false }) = world.asked.pop_front()
    else {
        panic!("asked to create")
    };
    assert_eq!((topics[0].name.as_str(), topics[0].partitions), ("new", None));
    let id = TopicId(Uuid::from_u128(0x77));
    world.set_image(|image| add_topic(image, "new", id, &[]));
    let answer = TopicAnswer { name: "new".into(), id: Some(id), partitions: 3, error: ErrorCode::None, message: None };
    world.core.on_control(world.now, FromControl::Topics { token, topics: vec![answer] });
    world.collect();
    let response = world.answer::<MetadataRequest>(to, 12).unwrap();
    assert_eq!((response.topics[0].error_code, response.topics[0].topic_id), (ErrorCode::None, id.0));
}

#[test]
fn a_creation_that_takes_too_long_is_leader_not_available() {
    let mut world = World::new();
    let to = world.send(&metadata_of("new"), 12);
    world.pass(5_000);
    let response = world.answer::<MetadataRequest>(to, 12).unwrap();
    assert_eq!(response.topics[0].error_code, ErrorCode::LeaderNotAvailable);
    let Some(ToControl::CreateTopics { token, .. }) = world.asked.pop_front() else { panic!("asked to create") };
    world.core.on_control(world.now, FromControl::Topics { token, topics: Vec::new() });
    world.collect();
}

#[test]
fn nothing_is_created_for_illegal_names_or_clients_that_do_not_want_it() {
    let mut world = World::new();
    assert_eq!(world.ask(&metadata_of("no/slash"), 12).topics[0].error_code, ErrorCode::InvalidTopicException);
    let unwanted = MetadataRequest { allow_auto_topic_creation: false, ..metadata_of("new") };
    assert_eq!(world.ask(&unwanted, 12).topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    assert!(world.asked.is_empty());
}

fn offset_of(world: &mut World, timestamp: i64) -> (ErrorCode, i64, i32) {
    let partition = ListOffsetsPartition { timestamp, ..Default::default() };
    let topic = ListOffsetsTopic { name: TOPIC.into(), partitions: vec![partition] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let answer = &world.ask(&request, 7).topics[0].partitions[0];
    (answer.error_code, answer.offset, answer.leader_epoch)
}

#[test]
fn latest_is_the_high_watermark_and_earliest_the_log_start() {
    let mut world = World::new();
    world.write(0, BatchOf::plain(3, 10));
    world.restart(|_| {});
    world.produce(1, &[(0, BatchOf::plain(3, 10))]);
    assert_eq!(offset_of(&mut world, -1), (ErrorCode::None, 3, 2));
    assert_eq!(offset_of(&mut world, -2), (ErrorCode::None, 0, 1));
    assert_eq!(offset_of(&mut world, 1_000_001), (ErrorCode::None, -1, -1), "nothing is as new");
}

#[test]
fn producer_ids_come_from_a_block_and_transactional_ids_are_refused() {
    let mut world = World::new();
    let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
    let waiting: Vec<ReplyTo> = (0..2).map(|_| world.send(&request, 4)).collect();
    assert_eq!(world.asked.len(), 1, "one block for all who wait");
    let Some(ToControl::ProducerIds { token }) = world.asked.pop_front() else { panic!("asked for a block") };
    world.core.on_control(world.now, FromControl::ProducerIds { token, first: Ok(4000) });
    world.collect();
    let ids: Vec<i64> =
        waiting.iter().map(|to| world.answer::<InitProducerIdRequest>(*to, 4).unwrap().producer_id).collect();
    assert_eq!(ids, [4000, 4001]);
    assert_eq!(world.ask(&request, 4).producer_id, 4002);
    let transactional = InitProducerIdRequest { transactional_id: Some("t".into()), ..Default::default() };
    assert_eq!(world.ask(&transactional, 4).error_code, ErrorCode::TransactionalIdAuthorizationFailed);
}

#[test]
fn topics_are_created_and_deleted_through_the_control_task() {
    let mut world = World::new();
    let topic = |name: &str, num_partitions| CreatableTopic {
        name: name.into(),
        num_partitions,
        replication_factor: 3,
        ..Default::default()
    };
    let request =
        CreateTopicsRequest { topics: vec![topic("a", 0), topic("b", 5)], timeout_ms: 1000, ..Default::default() };
    let to = world.send(&request, 7);
    let Some(ToControl::CreateTopics { token, topics, auto: false, .. }) = world.asked.pop_front() else {
        panic!("asked to create")
    };
    assert_eq!((topics.len(), topics[0].partitions), (1, Some(5)));
    let id = Some(TopicId(Uuid::from_u128(5)));
    let answer = TopicAnswer { name: "b".into(), id, partitions: 5, error: ErrorCode::None, message: None };
    world.core.on_control(world.now, FromControl::Topics { token, topics: vec![answer] });
    world.collect();
    let response = world.answer::<CreateTopicsRequest>(to, 7).unwrap();
    let codes: Vec<_> = response.topics.iter().map(|topic| (topic.error_code, topic.num_partitions)).collect();
    assert_eq!(codes, [(ErrorCode::InvalidPartitions, -1), (ErrorCode::None, 5)]);

    let request =
        DeleteTopicsRequest { topic_names: vec![TOPIC.into(), "x".into()], timeout_ms: 1000, ..Default::default() };
    let to = world.send(&request, 5);
    let Some(ToControl::DeleteTopics { topics, .. }) = world.asked.pop_front() else { panic!("asked to delete") };
    assert_eq!(topics, [TopicDeletion { name: TOPIC.to_owned(), id: None }]);
    world.pass(1000);
    let response = world.answer::<DeleteTopicsRequest>(to, 5).unwrap();
    let codes: Vec<_> = response.responses.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [ErrorCode::RequestTimedOut, ErrorCode::UnknownTopicOrPartition]);
}

#[test]
fn a_topic_that_is_gone_when_it_is_to_be_deleted_by_its_id_is_answered_without_a_name() {
    let mut world = World::new();
    let topics = vec![DeleteTopicState { name: None, topic_id: TOPIC_ID.0 }];
    let to = world.send(&DeleteTopicsRequest { topics, timeout_ms: 1000, ..Default::default() }, 6);
    let Some(ToControl::DeleteTopics { token, topics }) = world.asked.pop_front() else { panic!("asked to delete") };
    assert_eq!(topics, [TopicDeletion { name: TOPIC.to_owned(), id: Some(TOPIC_ID) }]);
    let (error, message) = (ErrorCode::UnknownTopicId, Some("gone".to_owned()));
    let answer = TopicAnswer { name: TOPIC.into(), id: None, partitions: 0, error, message };
    world.core.on_control(world.now, FromControl::Topics { token, topics: vec![answer] });
    world.collect();
    let responses = world.answer::<DeleteTopicsRequest>(to, 6).unwrap().responses;
    assert_eq!((responses[0].name.as_deref(), responses[0].topic_id), (None, TOPIC_ID.0));
    assert_eq!((responses[0].error_code, responses[0].error_message.as_deref()), (error, Some("gone")));
}

#[test]
fn settings_of_topics_are_described_with_their_defaults() {
    use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
    let mut world = World::new();
    world.set_image(|image| add_topic(image, TOPIC, TOPIC_ID, &[("retention.ms", "5")]));
    let resource = DescribeConfigsResource { resource_type: 2, resource_name: TOPIC.into(), configuration_keys: None };
    let response = world.ask(&DescribeConfigsRequest { resources: vec![resource], ..Default::default() }, 4);
    let configs = &response.results[0].configs;
    let find = |name: &str| configs.iter().find(|config| config.name == name).unwrap();
    assert_eq!((find("retention.ms").value.as_deref(), find("retention.ms").config_source), (Some("5"), 1));
    assert_eq!(find("cleanup.policy").value.as_deref(), Some("delete"));
}
