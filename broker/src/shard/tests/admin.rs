//! Requests that change or page through topics.

use super::*;
use crate::control::{Alteration, TopicAlteration, TopicAnswer};
use millrace_protocol::messages::create_partitions::{CreatePartitionsAssignment, CreatePartitionsTopic};
use millrace_protocol::messages::describe_topic_partitions::{RequestCursor, TopicRequest};
use millrace_protocol::messages::{CreatePartitionsRequest, DescribeTopicPartitionsRequest};

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
