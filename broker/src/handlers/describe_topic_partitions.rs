//! DescribeTopicPartitions: topics in the order of their names, a page of partitions at a time (KIP-966).
//!
//! 1. No page has more than [`MOST_PARTITIONS`] partitions, and every page but the last says where the next begins.

use super::metadata::is_legal;
use super::{RequestContext, operations};
use crate::control::TopicImage;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_topic_partitions::{
    DescribedPartition, DescribedTopic, NextCursor, RequestCursor,
};
use millrace_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use std::collections::BTreeSet;
use std::ops::{Bound, Range};

/// Partitions in one page (Kafka's `max.request.partition.size.limit`).
const MOST_PARTITIONS: usize = 2_000;

/// Answers with a page.
pub(crate) fn handle(
    core: &mut ShardCore,
    _now: Now,
    context: RequestContext,
    request: DescribeTopicPartitionsRequest,
) {
    let image = core.image.clone();
    let cursor = request.cursor.as_ref();
    let from = cursor.map_or("", |cursor| &*cursor.topic_name);
    let every = request.topics.is_empty();
    let names: BTreeSet<&str> = if every {
        let shown = image
            .topics
            .range::<str, _>((Bound::Included(from), Bound::Unbounded))
            .filter(|(_, topic)| !topic.deleting);
        shown.map(|(name, _)| name.as_str()).collect()
    } else {
        request.topics.iter().map(|topic| &*topic.name).filter(|name| *name >= from).collect()
    };
    if is_invalid(cursor, every, &names) {
        return refuse(core, context, &request);
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, MOST_PARTITIONS);
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for name in names {
        if left == 0 {
            response.next_cursor = Some(NextCursor { topic_name: name.into(), partition_index: 0 });
            break;
        }
        let Some(topic) = image.topics.get(name).filter(|topic| !topic.deleting) else {
            response.topics.push(missing(name));
            continue;
        };
        let first = cursor.filter(|cursor| *cursor.topic_name == *name).map_or(0, |cursor| cursor.partition_index);
        let first = usize::try_from(first).expect("a negative cursor is refused above");
        let end = topic.partitions.len().min(first.saturating_add(left));
        response.topics.push(describe(topic, first.min(end)..end));
        if end < topic.partitions.len() {
            let partition_index = i32::try_from(end).expect("partitions are counted in i32");
            response.next_cursor = Some(NextCursor { topic_name: name.into(), partition_index });
            break;
        }
        left -= end.saturating_sub(first);
    }
    context.reply(core, &response);
}

/// A cursor names one of the topics that the client lists, and a partition that there can be.
fn is_invalid(cursor: Option<&RequestCursor>, every: bool, names: &BTreeSet<&str>) -> bool {
    cursor.is_some_and(|cursor| cursor.partition_index < 0 || !every && !names.contains(&*cursor.topic_name))
}

fn refuse(core: &mut ShardCore, context: RequestContext, request: &DescribeTopicPartitionsRequest) {
    let refused = |name: &StrBytes| DescribedTopic {
        error_code: ErrorCode::InvalidRequest,
        name: Some(name.clone()),
        ..DescribedTopic::default()
    };
    let topics = request.topics.iter().map(|topic| refused(&topic.name)).collect();
    context.reply(core, &DescribeTopicPartitionsResponse { topics, ..Default::default() });
}

fn missing(name: &str) -> DescribedTopic {
    DescribedTopic {
        error_code: if is_legal(name) { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException },
        name: Some(name.into()),
        topic_authorized_operations: operations::ON_TOPIC,
        ..DescribedTopic::default()
    }
}

fn describe(topic: &TopicImage, shown: Range<usize>) -> DescribedTopic {
    let partitions = shown.map(|index| {
        let partition = &topic.partitions[index];
        let replicas: Vec<i32> = partition.leader.into_iter().collect();
        DescribedPartition {
            error_code: if partition.leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable },
            partition_index: i32::try_from(index).expect("partitions are counted in i32"),
            leader_id: partition.leader.unwrap_or(-1),
            leader_epoch: partition.epoch.0,
            replica_nodes: replicas.clone(),
            isr_nodes: replicas,
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: Vec::new(),
        }
    });
    DescribedTopic {
        name: Some(StrBytes::from(topic.name.as_str())),
        topic_id: topic.id.0,
        partitions: partitions.collect(),
        topic_authorized_operations: operations::ON_TOPIC,
        ..DescribedTopic::default()
    }
}
