//! OffsetFetch: what groups committed.

use super::{RequestContext, topics};
use crate::control::ClusterImage;
use crate::groups::CommittedOffset;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use millrace_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};
use millrace_storage::ids::TopicPartition;
use std::collections::BTreeMap;

/// First version with several groups (KIP-709).
const MANY_GROUPS: i16 = 8;
/// First version that names topics by id.
const TOPIC_IDS: i16 = 10;
/// First version with an error for the whole group.
const GROUP_ERROR: i16 = 2;

/// Answers from what is durable.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: OffsetFetchRequest) {
    if context.version >= MANY_GROUPS {
        let by_id = context.version >= TOPIC_IDS;
        let fetched = |group| {
            let mut answered = fetch_group(core, now, group, by_id);
            if answered.error_code != ErrorCode::None {
                answered.topics.clear();
            }
            answered
        };
        let groups = request.groups.into_iter().map(fetched).collect();
        return context.reply(core, &OffsetFetchResponse { groups, ..Default::default() });
    }
    let topics = request.topics.map(|topics| {
        let named = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        named.collect()
    });
    let group = OffsetFetchRequestGroup { group_id: request.group_id, topics, ..Default::default() };
    let mut answered = fetch_group(core, now, group, false);
    // Version 1 has no place for the group's error but its partitions.
    if context.version < GROUP_ERROR {
        for partition in answered.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.error_code = answered.error_code;
        }
    }
    let response = OffsetFetchResponse {
        error_code: answered.error_code,
        topics: answered.topics.into_iter().map(as_single_group).collect(),
        ..Default::default()
    };
    context.reply(core, &response);
}

fn fetch_group(core: &ShardCore, now: Now, group: OffsetFetchRequestGroup, by_id: bool) -> OffsetFetchResponseGroup {
    let coordinator = &core.groups.coordinator;
    let member = group.member_id.as_deref();
    let allowed = coordinator.check_offset_fetch(&group.group_id, member, group.member_epoch);
    // Another process may have been put in this one's place, and know of later commits.
    let allowed = if core.is_fresh(now) { allowed } else { Err(ErrorCode::CoordinatorNotAvailable) };
    let result = allowed.and_then(|()| match &group.topics {
        None => coordinator.all_committed(&group.group_id).map(|all| everything(&core.image, all)),
        Some(topics) => topics.iter().map(|topic| fetch_topic(core, &group.group_id, topic, by_id)).collect(),
    });
    let result = result.and_then(|topics: Vec<OffsetFetchResponseTopics>| {
        let nothing = |topic: &OffsetFetchResponseTopics| topic.partitions.iter().any(|p| p.committed_offset < 0);
        let lacks = group.topics.is_none() || topics.iter().any(nothing);
        // To who believes it, that nothing was committed means to begin anew.
        match lacks && coordinator.may_lack_topics_of(now.mono, &group.group_id) {
            true => Err(ErrorCode::CoordinatorLoadInProgress),
            false => Ok(topics),
        }
    });
    let (topics, error_code) = match result {
        Ok(topics) => (topics, ErrorCode::None),
        // Every partition asked for is answered, by version 1 with the error.
        Err(error) => (group.topics.iter().flatten().map(unknown_topic).collect(), error),
    };
    OffsetFetchResponseGroup { group_id: group.group_id, topics, error_code }
}

fn fetch_topic(
    core: &ShardCore,
    group: &str,
    topic: &OffsetFetchRequestTopics,
    by_id: bool,
) -> Result<OffsetFetchResponseTopics, ErrorCode> {
    let id_known = !by_id || topics::topic_by_id(&core.image, topic.topic_id).is_some();
    let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
    for &index in &topic.partition_indexes {
        let found = if by_id {
            topics::by_id(&core.image, topic.topic_id, index)
        } else {
            topics::by_name(&core.image, &topic.name, index)
        };
        let committed = match found {
            Ok(partition) => core.groups.coordinator.committed(group, partition)?,
            // The group's own error goes first.
            Err(_) => core.groups.coordinator.coordinates(group).map(|()| None)?,
        };
        let mut answer = answer(index, committed);
        if !id_known {
            answer.error_code = ErrorCode::UnknownTopicId;
        }
        partitions.push(answer);
    }
    Ok(OffsetFetchResponseTopics { name: topic.name.clone(), topic_id: topic.topic_id, partitions })
}

fn unknown_topic(topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(|&index| answer(index, None)).collect(),
    }
}

/// All offsets of topics that exist, by topic.
fn everything(image: &ClusterImage, all: Vec<(TopicPartition, CommittedOffset)>) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: BTreeMap<&str, OffsetFetchResponseTopics> = BTreeMap::new();
    for (partition, committed) in &all {
        let Some(name) = image.names.get(&partition.topic) else { continue };
        let topic = topics.entry(name).or_insert_with(|| OffsetFetchResponseTopics {
            name: name.as_str().into(),
            topic_id: partition.topic.0,
            partitions: Vec::new(),
        });
        let index = i32::try_from(partition.index).expect("a topic has at most 2^31 partitions");
        topic.partitions.push(answer(index, Some(committed)));
    }
    topics.into_values().collect()
}

fn answer(partition_index: i32, committed: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: committed.map_or(-1, |c| c.offset),
        committed_leader_epoch: committed.map_or(-1, |c| c.leader_epoch),
        metadata: Some(committed.map(|c| StrBytes::from(c.metadata.as_str())).unwrap_or_default()),
        error_code: ErrorCode::None,
    }
}

fn as_single_group(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    });
    OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() }
}
