//! DescribeTopicPartitions and ListConfigResources.

use crate::pair::{Pair, Side};
use millrace_protocol::messages::describe_topic_partitions::{RequestCursor, TopicRequest};
use millrace_protocol::messages::{DescribeTopicPartitionsRequest, ListConfigResourcesRequest};
use std::io;

/// Their partitions: three and two.
const TOPICS: [&str; 2] = ["paged-a", "paged-b"];

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPICS[0], 3)?;
    pair.make_topic(TOPICS[1], 2)?;
    pair.every("every topic", |_, _| DescribeTopicPartitionsRequest::default())?;
    for limit in [i32::MIN, 0, 1, 2, 3, 4, 5, i32::MAX] {
        pair.every(&format!("two topics, limit {limit}"), |side, _| page(side, &TOPICS, limit, None))?;
    }
    let cursors = [
        ("paged-a", 0),
        ("paged-a", 2),
        ("paged-a", 3),
        ("paged-a", i32::MAX),
        ("paged-b", 1),
        ("paged-a", -1),
        ("nowhere", 0),
    ];
    for (name, partition) in cursors {
        pair.every(&format!("from {name} {partition}"), |side, _| page(side, &TOPICS, 2, Some((name, partition))))?;
        pair.every(&format!("every topic from {name} {partition}"), |side, _| {
            page(side, &[], 2000, Some((name, partition)))
        })?;
    }
    pair.every("an unknown topic among others", |side, _| page(side, &["nowhere", "paged-a", "paged-a"], 2000, None))?;
    for name in ["", "a/b"] {
        pair.every(&format!("the topic {name:?}"), |_, _| DescribeTopicPartitionsRequest {
            topics: vec![TopicRequest { name: name.into() }],
            ..Default::default()
        })?;
    }
    for kind in [2, 4, 8, 16, 32, 0, 1, 3, -1, 99] {
        pair.ask(&format!("type {kind}"), 1, |_| ListConfigResourcesRequest { resource_types: vec![kind] })?;
    }
    pair.ask("two types", 1, |_| ListConfigResourcesRequest { resource_types: vec![2, 4] })?;
    pair.every("every type", |_, _| ListConfigResourcesRequest::default())
}

fn page(side: &Side, topics: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
    DescribeTopicPartitionsRequest {
        topics: topics.iter().map(|name| TopicRequest { name: side.name(name) }).collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(name, partition_index)| RequestCursor { topic_name: side.name(name), partition_index }),
    }
}
