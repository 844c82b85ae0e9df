//! What Kafka refuses, and with which code: found by comparing with it (`ci/differential`).

use super::*;
use millrace_protocol::messages::delete_topics::DeleteTopicState;
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::*;

#[test]
fn special_timestamps_need_the_version_that_brought_them() {
    let mut world = World::new();
    let mut error_at = |timestamp, version| {
        let partition = ListOffsetsPartition { partition_index: 0, timestamp, ..Default::default() };
        let topics = vec![ListOffsetsTopic { name: TOPIC.into(), partitions: vec![partition] }];
        let request = ListOffsetsRequest { replica_id: -1, topics, ..Default::default() };
        world.ask(&request, version).topics[0].partitions[0].error_code
    };
    for (timestamp, from) in [(-3, 7), (-4, 8), (-5, 9), (-6, 11)] {
        assert_eq!(error_at(timestamp, from - 1), ErrorCode::UnsupportedVersion, "{timestamp}");
        assert_eq!(error_at(timestamp, from), ErrorCode::None, "{timestamp}");
    }
    for timestamp in [-7, i64::MIN] {
        assert_eq!(error_at(timestamp, 11), ErrorCode::UnsupportedVersion, "{timestamp}");
    }
}

#[test]
fn endpoint_types_that_do_not_exist_are_told_from_those_that_are_elsewhere() {
    let mut world = World::new();
    for (endpoint_type, error) in [
        (0, ErrorCode::UnsupportedEndpointType),
        (1, ErrorCode::None),
        (2, ErrorCode::MismatchedEndpointType),
        (3, ErrorCode::UnsupportedEndpointType),
    ] {
        let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
        assert_eq!(world.ask(&request, 1).error_code, error, "{endpoint_type}");
    }
}

#[test]
fn operations_on_the_cluster_are_told_on_demand() {
    let mut world = World::new();
    let request = DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() };
    assert_eq!(world.ask(&request, 0).cluster_authorized_operations, 8_096);
    assert_eq!(world.ask(&DescribeClusterRequest::default(), 0).cluster_authorized_operations, i32::MIN);
    for asked in [true, false] {
        let request = MetadataRequest {
            topics: None,
            allow_auto_topic_creation: false,
            include_cluster_authorized_operations: asked,
            include_topic_authorized_operations: asked,
        };
        let answer = world.ask(&request, 8);
        let expected = if asked { (8_096, 3_576) } else { (i32::MIN, i32::MIN) };
        let told = (answer.cluster_authorized_operations, answer.topics[0].topic_authorized_operations);
        assert_eq!(told, expected);
    }
}

#[test]
fn a_producer_id_without_epoch_or_the_other_way_round_is_refused() {
    let mut world = World::new();
    for (producer_id, producer_epoch) in [(5, -1), (-1, 3)] {
        let request =
            InitProducerIdRequest { transactional_id: None, producer_id, producer_epoch, ..Default::default() };
        assert_eq!(world.ask(&request, 3).error_code, ErrorCode::InvalidRequest);
    }
}

#[test]
fn from_version_5_on_a_member_that_syncs_names_its_protocol() {
    let mut world = World::new();
    let request = SyncGroupRequest { group_id: "g".into(), member_id: "m".into(), ..Default::default() };
    assert_eq!(world.ask(&request, 5).error_code, ErrorCode::InconsistentGroupProtocol);
    assert_ne!(world.ask(&request, 4).error_code, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn a_group_without_a_name_does_not_exist() {
    let mut world = World::new();
    let delete = DeleteGroupsRequest { groups_names: vec!["".into()] };
    assert_eq!(world.ask(&delete, 2).results[0].error_code, ErrorCode::GroupIdNotFound);
    let describe = DescribeGroupsRequest { groups: vec!["".into()], ..Default::default() };
    let described = world.ask(&describe, 5).groups.remove(0);
    assert_eq!((described.error_code, described.group_state.as_str()), (ErrorCode::None, "Dead"));
}

#[test]
fn a_topic_to_delete_that_is_named_twice_is_refused_once_and_kept() {
    let mut world = World::new();
    let named = |name: &str| DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let topics = vec![named(TOPIC), named("nowhere"), named(TOPIC)];
    let responses = world.ask(&DeleteTopicsRequest { topics, ..Default::default() }, 6).responses;
    let codes: Vec<_> = responses.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest, ErrorCode::UnknownTopicOrPartition]);
    assert!(world.asked.is_empty(), "nothing is deleted");
}

#[test]
fn settings_of_a_topic_with_an_illegal_name_are_an_invalid_topic() {
    let mut world = World::new();
    let of =
        |name: &str| DescribeConfigsResource { resource_type: 2, resource_name: name.into(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![of("a/b"), of("nowhere")], ..Default::default() };
    let codes: Vec<_> = world.ask(&request, 4).results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidTopicException, ErrorCode::UnknownTopicOrPartition]);
}

#[test]
fn a_session_that_is_not_there_is_not_found() {
    let mut world = World::new();
    for (session_id, session_epoch) in [(0, 1), (0, -2), (77, 1)] {
        let request = FetchRequest { session_id, session_epoch, ..Default::default() };
        assert_eq!(world.ask(&request, 12).error_code, ErrorCode::FetchSessionIdNotFound);
    }
}

#[test]
fn a_topic_to_delete_has_either_a_name_or_an_id() {
    let mut world = World::new();
    let (nil, unknown) = (uuid::Uuid::nil(), uuid::Uuid::from_u128(7));
    for (name, topic_id, error) in [
        (None, nil, ErrorCode::InvalidRequest),
        (None, unknown, ErrorCode::UnknownTopicId),
        (Some("nowhere"), nil, ErrorCode::UnknownTopicOrPartition),
        (Some(TOPIC), TOPIC_ID.0, ErrorCode::InvalidRequest),
    ] {
        let topics = vec![DeleteTopicState { name: name.map(Into::into), topic_id }];
        let responses = world.ask(&DeleteTopicsRequest { topics, ..Default::default() }, 6).responses;
        let told: Vec<_> =
            responses.iter().map(|result| (result.name.as_deref(), result.topic_id, result.error_code)).collect();
        assert_eq!(told, [(name, topic_id, error)]);
        let said = responses[0].error_message.as_deref();
        let expected = match error {
            ErrorCode::UnknownTopicId => Some("This server does not host this topic ID."),
            ErrorCode::UnknownTopicOrPartition => Some("This server does not host this topic-partition."),
            _ => None,
        };
        assert_eq!(said, expected, "as Apache Kafka says it");
    }
    assert!(world.asked.is_empty(), "nothing is deleted");
}

#[test]
fn a_topic_to_delete_that_is_named_twice_is_answered_as_it_was_named() {
    let mut world = World::new();
    let by_name = DeleteTopicState { name: Some(TOPIC.into()), ..Default::default() };
    let by_id = DeleteTopicState { name: None, topic_id: TOPIC_ID.0 };
    let nil = uuid::Uuid::nil();
    for (topics, name, topic_id) in [
        (vec![by_name.clone(); 2], Some(TOPIC), nil),
        (vec![by_id.clone(); 2], None, TOPIC_ID.0),
        (vec![by_name.clone(), by_id.clone()], Some(TOPIC), TOPIC_ID.0),
        (vec![by_id, by_name], Some(TOPIC), TOPIC_ID.0),
    ] {
        let responses = world.ask(&DeleteTopicsRequest { topics, ..Default::default() }, 6).responses;
        let told: Vec<_> =
            responses.iter().map(|result| (result.name.as_deref(), result.topic_id, result.error_code)).collect();
        assert_eq!(told, [(name, topic_id, ErrorCode::InvalidRequest)]);
    }
    assert!(world.asked.is_empty(), "nothing is deleted");
}

#[test]
fn operations_on_a_topic_are_told_of_names_that_are_unknown_and_not_of_ids() {
    let mut world = World::new();
    let by_id = MetadataRequestTopic { topic_id: uuid::Uuid::from_u128(7), name: None };
    let by_name = MetadataRequestTopic { name: Some("nowhere".into()), ..Default::default() };
    let request = MetadataRequest {
        topics: Some(vec![by_id, by_name]),
        allow_auto_topic_creation: false,
        include_topic_authorized_operations: true,
        ..Default::default()
    };
    let topics = world.ask(&request, 12).topics;
    let told: Vec<_> = topics.iter().map(|topic| (topic.error_code, topic.topic_authorized_operations)).collect();
    assert_eq!(told, [(ErrorCode::UnknownTopicId, i32::MIN), (ErrorCode::UnknownTopicOrPartition, 3_576)]);
}

#[test]
fn records_that_are_no_batch_are_refused_before_wrong_acks() {
    let mut world = World::new();
    let batch = BatchOf::plain(1, 10);
    let two = [&batch[..], &batch[..]].concat().into();
    for (records, error) in [
        (batch.slice(..batch.len() / 2), ErrorCode::InvalidRecord),
        (two, ErrorCode::InvalidRecord),
        (batch, ErrorCode::InvalidRequiredAcks),
    ] {
        let to = world.produce(3, &[(0, records)]);
        assert_eq!(world.produced(to).unwrap()[0].error_code, error);
    }
}
