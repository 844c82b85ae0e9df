//! Requests that change or page through topics.

use super::*;
use crate::control::{Alteration, SettingChange, SettingsChange, TopicAlteration, TopicAnswer};
use millrace_protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use millrace_protocol::messages::create_partitions::{CreatePartitionsAssignment, CreatePartitionsTopic};
use millrace_protocol::messages::describe_log_dirs::DescribableLogDirTopic;
use millrace_protocol::messages::describe_producers::DescribeProducersTopic;
use millrace_protocol::messages::describe_quorum::DescribeQuorumTopic;
use millrace_protocol::messages::describe_topic_partitions::{RequestCursor, TopicRequest};
use millrace_protocol::messages::elect_leaders::ElectLeadersTopic;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::update_features::FeatureUpdateKey;
use millrace_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, CreatePartitionsRequest, DescribeConfigsRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    ElectLeadersRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest, ListPartitionReassignmentsRequest,
    UpdateFeaturesRequest, alter_configs, describe_configs,
};

fn done(name: &str, error: ErrorCode) -> TopicAnswer {
    TopicAnswer { name: name.into(), id: None, partitions: 0, error, message: None }
}

#[test]
fn partitions_are_added_by_the_control_task_and_malformed_topics_are_refused_at_once() {
    let mut world = World::new();
    let topic = |name: &str, count, assignments| CreatePartitionsTopic { name: name.into(), count, assignments };
    let assigned = |times| Some(vec![CreatePartitionsAssignment { broker_ids: vec![1] }; times]);
    let topics = vec![
        topic("twice", 5, None),
        topic(TOPIC, 5, assigned(2)),
        topic("twice", 6, None),
        topic("unheard-of", -7, None),
    ];
    let request = CreatePartitionsRequest { topics, timeout_ms: 1000, validate_only: false };
    let to = world.send(&request, 3);
    let Some(ToControl::AlterTopics { token, alterations, validate_only: false }) = world.asked.pop_front() else {
        panic!("asked to enlarge")
    };
    let wish = |name: &str, count| TopicAlteration { name: name.into(), change: Alteration::Partitions(count) };
    assert_eq!(alterations, [wish(TOPIC, 5), wish("unheard-of", 0)]);
    let topics = vec![done(TOPIC, ErrorCode::None), done("unheard-of", ErrorCode::UnknownTopicOrPartition)];
    world.core.on_control(world.now, FromControl::Topics { token, topics });
    world.collect();
    let response = world.answer::<CreatePartitionsRequest>(to, 3).unwrap();
    let codes: Vec<_> = response.results.iter().map(|result| (&*result.name, result.error_code)).collect();
    let expected = [
        ("twice", ErrorCode::InvalidRequest),
        (TOPIC, ErrorCode::None),
        ("unheard-of", ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(codes, expected);

    let request =
        CreatePartitionsRequest { topics: vec![topic(TOPIC, 5, assigned(1))], timeout_ms: 1000, validate_only: true };
    assert_eq!(world.ask(&request, 0).results[0].error_code, ErrorCode::InvalidReplicaAssignment);
}

#[test]
fn topics_are_paged_through_with_the_cursor_that_each_page_gives() {
    let mut world = World::new();
    world.set_image(|image| {
        add_topic(image, "a", TopicId(Uuid::from_u128(1)), &[]);
        add_topic(image, "z", TopicId(Uuid::from_u128(2)), &[]);
    });
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let request =
            DescribeTopicPartitionsRequest { response_partition_limit: 2, cursor: cursor.take(), ..Default::default() };
        let page = world.ask(&request, 0);
        assert!(page.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() <= 2);
        for topic in page.topics {
            let name = topic.name.unwrap().to_string();
            seen.extend(topic.partitions.iter().map(|partition| (name.clone(), partition.partition_index)));
        }
        let Some(next) = page.next_cursor else { break };
        cursor = Some(RequestCursor { topic_name: next.topic_name, partition_index: next.partition_index });
    }
    let all: Vec<(String, i32)> =
        ["a", TOPIC, "z"].iter().flat_map(|name| (0..3).map(|index| ((*name).to_owned(), index))).collect();
    assert_eq!(seen, all);
}

#[test]
fn a_cursor_that_points_nowhere_is_refused_and_missing_topics_are_said_so() {
    let mut world = World::new();
    let topics = |names: &[&str]| names.iter().map(|name| TopicRequest { name: (*name).into() }).collect();
    let request = DescribeTopicPartitionsRequest {
        topics: topics(&[TOPIC]),
        cursor: Some(RequestCursor { topic_name: "other".into(), partition_index: 0 }),
        ..Default::default()
    };
    assert_eq!(world.ask(&request, 0).topics[0].error_code, ErrorCode::InvalidRequest);
    let request = DescribeTopicPartitionsRequest { topics: topics(&["a/b", "b", TOPIC]), ..Default::default() };
    let codes: Vec<_> = world.ask(&request, 0).topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidTopicException, ErrorCode::UnknownTopicOrPartition, ErrorCode::None]);
}

#[test]
fn settings_are_changed_by_the_control_task_and_answers_keep_the_order_of_the_request() {
    let mut world = World::new();
    let resource = |resource_type, name: &str, config_operation| IncrementalResource {
        resource_type,
        resource_name: name.into(),
        configs: vec![IncrementalConfig { name: "retention.ms".into(), config_operation, value: Some("5".into()) }],
    };
    let resources = vec![
        resource(4, "9", 0),
        resource(2, TOPIC, 0),
        resource(2, "twice", 0),
        resource(2, "a/b", 0),
        resource(2, "other", 9),
        resource(2, "twice", 1),
        resource(2, "unheard-of", 1),
    ];
    let to = world.send(&IncrementalAlterConfigsRequest { resources, validate_only: true }, 1);
    let Some(ToControl::AlterTopics { token, alterations, validate_only: true }) = world.asked.pop_front() else {
        panic!("asked to change")
    };
    let wish = |name: &str, change| TopicAlteration {
        name: name.into(),
        change: Alteration::Settings(SettingsChange::Each([("retention.ms".to_owned(), change)].into())),
    };
    assert_eq!(alterations, [wish(TOPIC, SettingChange::Set("5".into())), wish("unheard-of", SettingChange::Delete)]);
    let topics = vec![done(TOPIC, ErrorCode::InvalidConfig), done("unheard-of", ErrorCode::UnknownTopicOrPartition)];
    world.core.on_control(world.now, FromControl::Topics { token, topics });
    world.collect();
    let response = world.answer::<IncrementalAlterConfigsRequest>(to, 1).unwrap();
    let codes: Vec<_> = response.responses.iter().map(|result| (&*result.resource_name, result.error_code)).collect();
    let expected = [
        ("9", ErrorCode::InvalidRequest),
        (TOPIC, ErrorCode::InvalidConfig),
        ("twice", ErrorCode::InvalidRequest),
        ("a/b", ErrorCode::InvalidTopicException),
        ("other", ErrorCode::InvalidRequest),
        ("unheard-of", ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(codes, expected);
}

#[test]
fn all_settings_at_once_are_replaced_and_null_or_repeated_ones_refused() {
    use alter_configs::{AlterConfigsResource, AlterableConfig};
    let mut world = World::new();
    let request = |configs: &[(&str, Option<&str>)]| AlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: TOPIC.into(),
            configs: configs
                .iter()
                .map(|(k, v)| AlterableConfig { name: (*k).into(), value: v.map(Into::into) })
                .collect(),
        }],
        validate_only: false,
    };
    world.send(&request(&[("flush.ms", Some("5"))]), 0);
    let Some(ToControl::AlterTopics { alterations, .. }) = world.asked.pop_front() else { panic!("asked to change") };
    let replaced = SettingsChange::Replace([("flush.ms".to_owned(), "5".to_owned())].into());
    assert_eq!(alterations, [TopicAlteration { name: TOPIC.into(), change: Alteration::Settings(replaced) }]);
    for bad in [&[("flush.ms", None)][..], &[("flush.ms", Some("5")), ("flush.ms", Some("6"))]] {
        assert_eq!(world.ask(&request(bad), 2).responses[0].error_code, ErrorCode::InvalidRequest, "{bad:?}");
    }
    assert!(world.asked.is_empty());
}

#[test]
fn settings_are_described_with_synonyms_and_documentation_for_those_who_ask() {
    use describe_configs::DescribeConfigsResource;
    let mut world = World::new();
    world.set_image(|image| add_topic(image, TOPIC, TOPIC_ID, &[("max.message.bytes", "12")]));
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: TOPIC.into(),
        configuration_keys: Some(vec!["max.message.bytes".into()]),
    };
    let mut request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, include_documentation: true };
    let config = world.ask(&request, 4).results[0].configs[0].clone();
    let synonyms: Vec<_> =
        config.synonyms.iter().map(|synonym| (&*synonym.name, synonym.value.as_deref(), synonym.source)).collect();
    assert_eq!(synonyms, [("max.message.bytes", Some("12"), 1), ("message.max.bytes", Some("1048588"), 5)]);
    assert!(config.documentation.unwrap().contains("largest batch"));
    (request.include_synonyms, request.include_documentation) = (false, false);
    let config = world.ask(&request, 4).results[0].configs[0].clone();
    assert_eq!((config.synonyms.len(), config.documentation), (0, None));
}

#[test]
fn topics_and_nodes_are_the_resources_with_settings() {
    let mut world = World::new();
    let response = world.ask(&ListConfigResourcesRequest::default(), 1);
    let all: Vec<_> = response.config_resources.iter().map(|r| (r.resource_type, &*r.resource_name)).collect();
    assert_eq!(all, [(2, TOPIC), (4, "1"), (4, "2")]);
    assert!(world.ask(&ListConfigResourcesRequest::default(), 0).config_resources.is_empty());
    let unknown = ListConfigResourcesRequest { resource_types: vec![99] };
    assert_eq!(world.ask(&unknown, 1).error_code, ErrorCode::UnsupportedVersion);
}

#[test]
fn log_directories_hold_the_bytes_of_the_partitions_that_this_shard_leads() {
    let mut world = World::new();
    world.write(0, BatchOf::plain(3, 10));
    let size = |world: &mut World, topics| -> Vec<(i32, i64)> {
        let answer = world.ask(&DescribeLogDirsRequest { topics }, 5);
        assert_eq!((answer.error_code, answer.results.len()), (ErrorCode::None, 1));
        let partitions = answer.results[0].topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| (partition.partition_index, partition.partition_size)).collect()
    };
    let all = size(&mut world, None);
    assert_eq!(all.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1], "the third is another shard's");
    assert!(all[0].1 > 60 && all[1].1 == 0, "{all:?}");
    world.write(0, BatchOf::plain(3, 10));
    let topic = DescribableLogDirTopic { topic: TOPIC.into(), partitions: vec![0, 2, 99] };
    assert_eq!(size(&mut world, Some(vec![topic])), [(0, 2 * all[0].1)]);
    assert_eq!(size(&mut world, Some(Vec::new())), []);
}

#[test]
fn producers_of_a_partition_are_described_by_its_leader() {
    let mut world = World::new();
    world.write(0, BatchOf::idempotent(3, 77, 0));
    let topic = DescribeProducersTopic { name: TOPIC.into(), partition_indexes: vec![0, 2, 99] };
    let answer = world.ask(&DescribeProducersRequest { topics: vec![topic] }, 0);
    let partitions = &answer.topics[0].partitions;
    let codes: Vec<_> = partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::NotLeaderOrFollower, ErrorCode::UnknownTopicOrPartition]);
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id, producer.last_sequence), (77, 2));
}

#[test]
fn what_there_is_only_one_of_is_neither_elected_nor_moved() {
    let mut world = World::new();
    world.set_image(|image| Arc::make_mut(image.topics.get_mut(TOPIC).unwrap()).partitions[2].leader = None);
    let topic = ElectLeadersTopic { topic: TOPIC.into(), partitions: vec![0, 2, 99] };
    let elect = ElectLeadersRequest { topic_partitions: Some(vec![topic]), ..Default::default() };
    let answer = world.ask(&elect, 2);
    let codes: Vec<_> =
        answer.replica_election_results[0].partition_result.iter().map(|partition| partition.error_code).collect();
    use ErrorCode::{ElectionNotNeeded, PreferredLeaderNotAvailable, UnknownTopicOrPartition as Unknown};
    assert_eq!(codes, [ElectionNotNeeded, PreferredLeaderNotAvailable, Unknown]);
    let every = ElectLeadersRequest { topic_partitions: None, ..Default::default() };
    let answer = world.ask(&every, 2).replica_election_results.remove(0);
    let partitions: Vec<_> = answer.partition_result.iter().map(|partition| partition.partition_id).collect();
    assert_eq!((&*answer.topic, partitions), (TOPIC, vec![2]), "those of which there is something to say");
    let strange = world.ask(&ElectLeadersRequest { election_type: 9, ..elect }, 1);
    assert_eq!(strange.error_code, ErrorCode::InvalidRequest);
    let refused = &strange.replica_election_results[0].partition_result;
    assert!(refused.iter().all(|partition| partition.error_code == ErrorCode::InvalidRequest));

    let partition = |partition_index, replicas| ReassignablePartition { partition_index, replicas };
    let partitions =
        vec![partition(0, Some(vec![1])), partition(0, Some(vec![2])), partition(0, None), partition(99, None)];
    let topics = vec![ReassignableTopic { name: TOPIC.into(), partitions }];
    let answer = world.ask(&AlterPartitionReassignmentsRequest { topics, ..Default::default() }, 1);
    let codes: Vec<_> = answer.responses[0].partitions.iter().map(|partition| partition.error_code).collect();
    use ErrorCode::{InvalidReplicaAssignment, NoReassignmentInProgress, None as Done};
    assert_eq!(codes, [Done, InvalidReplicaAssignment, NoReassignmentInProgress, Unknown]);
    let list = world.ask(&ListPartitionReassignmentsRequest::default(), 0);
    assert_eq!((list.error_code, list.topics.len()), (Done, 0));
}

#[test]
fn the_controller_is_the_quorum_and_there_are_no_features() {
    let mut world = World::new();
    let about = |topic: &str| DescribeQuorumRequest {
        topics: vec![DescribeQuorumTopic { topic_name: topic.into(), partitions: vec![Default::default()] }],
    };
    let answer = world.ask(&about("__cluster_metadata"), 2);
    let quorum = &answer.topics[0].partitions[0];
    assert_eq!((quorum.error_code, quorum.leader_id), (ErrorCode::None, 1));
    assert_eq!((quorum.current_voters[0].replica_id, quorum.observers[0].replica_id), (1, 2));
    assert_eq!(answer.nodes[0].listeners[0].port, 9092);
    let other = world.ask(&about(TOPIC), 0);
    assert_eq!(other.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition);

    let feature_updates = vec![FeatureUpdateKey { feature: "metadata.version".into(), ..Default::default() }];
    let request = UpdateFeaturesRequest { feature_updates, ..Default::default() };
    for version in 0..=2 {
        assert_eq!(world.ask(&request, version).error_code, ErrorCode::InvalidUpdateVersion);
    }
    assert_eq!(world.ask(&UpdateFeaturesRequest::default(), 2).error_code, ErrorCode::None);
}
