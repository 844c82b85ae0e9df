//! CreateTopics: checked for form here, created by the control task.
//!
//! Any replication factor is taken: how many copies there are is the object store's business, and refusing the 3 that
//! many tools ask for would only break them. Answers say 1, which is what Metadata lists.

use super::metadata::is_legal;
use super::questions::Question;
use super::{RequestContext, message};
use crate::control::{NewTopic, ToControl, TopicAnswer};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_topics::{CreatableTopic, CreatableTopicResult};
use millrace_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use std::collections::BTreeMap;
use std::time::Duration;

/// What admin requests wait for at most, whatever the client allows.
pub(crate) const LONGEST_PATIENCE: Duration = Duration::from_secs(120);
/// Partitions of one topic.
const MOST_PARTITIONS: i32 = 10_000;

/// The results so far; those without one are being created, in this order.
#[derive(Debug)]
pub(crate) struct Asked {
    results: Vec<Entry>,
    validate_only: bool,
}

#[derive(Debug)]
struct Entry {
    name: StrBytes,
    refused: Option<(ErrorCode, &'static str)>,
}

/// Checks the topics and asks the control task for those that are well formed.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: CreateTopicsRequest) {
    let mut new_topics = Vec::new();
    let mut results = Vec::with_capacity(request.topics.len());
    let mut named: BTreeMap<&str, u32> = BTreeMap::new();
    for topic in &request.topics {
        *named.entry(&topic.name).or_default() += 1;
    }
    for topic in &request.topics {
        let times = named.get_mut(&*topic.name).expect("counted above");
        if *times == 0 {
            continue;
        }
        let refused = if *times > 1 {
            // What is named more than once is refused, and answered once.
            *times = 0;
            Some((ErrorCode::InvalidRequest, "the request names this topic more than once"))
        } else {
            match new_topic(core, topic) {
                Ok(new) => {
                    new_topics.push(new);
                    None
                }
                Err(refused) => Some(refused),
            }
        };
        results.push(Entry { name: topic.name.detached(), refused });
    }
    let validate_only = request.validate_only;
    let asked = Asked { results, validate_only };
    if new_topics.is_empty() {
        return answered(core, context, asked, Some(Vec::new()));
    }
    let patience = patience(request.timeout_ms);
    core.ask(now, Question::CreateTopics(context, asked), patience, |token| ToControl::CreateTopics {
        token,
        topics: new_topics,
        validate_only,
        auto: false,
    });
}

/// How long an admin request waits that names this `timeout_ms`.
pub(crate) fn patience(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).min(LONGEST_PATIENCE)
}

fn new_topic(core: &ShardCore, topic: &CreatableTopic) -> Result<NewTopic, (ErrorCode, &'static str)> {
    if !is_legal(&topic.name) {
        return Err((ErrorCode::InvalidTopicException, "a topic has up to 249 of the characters a-z A-Z 0-9 . _ -"));
    }
    if core.image.topics.contains_key(&*topic.name) {
        return Err((ErrorCode::TopicAlreadyExists, "a topic of this name exists"));
    }
    if !topic.assignments.is_empty() && (topic.num_partitions != -1 || topic.replication_factor != -1) {
        return Err((ErrorCode::InvalidRequest, "assignments exclude a number of partitions and a replication factor"));
    }
    let partitions = match topic.num_partitions {
        -1 if topic.assignments.is_empty() => None,
        -1 => Some(assigned_partitions(topic)?),
        1..=MOST_PARTITIONS => Some(topic.num_partitions.unsigned_abs()),
        _ => return Err((ErrorCode::InvalidPartitions, "a topic has 1 to 10000 partitions")),
    };
    if topic.replication_factor == 0 || topic.replication_factor < -1 {
        return Err((ErrorCode::InvalidReplicationFactor, "the replication factor is at least 1"));
    }
    let setting = |config: &millrace_protocol::messages::create_topics::CreatableTopicConfig| {
        let value = config.value.as_ref().ok_or((ErrorCode::InvalidConfig, "a setting without a value"))?;
        Ok((config.name.to_string(), value.to_string()))
    };
    let settings = topic.configs.iter().map(setting).collect::<Result<_, _>>()?;
    Ok(NewTopic { name: topic.name.to_string(), partitions, settings })
}

/// Assignments count as a number of partitions: where each lies is decided here.
fn assigned_partitions(topic: &CreatableTopic) -> Result<u32, (ErrorCode, &'static str)> {
    let mut indexes: Vec<i32> = topic.assignments.iter().map(|assigned| assigned.partition_index).collect();
    indexes.sort_unstable();
    let count = i32::try_from(indexes.len()).unwrap_or(i32::MAX);
    if count > MOST_PARTITIONS || !indexes.into_iter().eq(0..count) {
        return Err((ErrorCode::InvalidReplicaAssignment, "assignments name each partition from 0 on once"));
    }
    Ok(count.unsigned_abs())
}

/// The control task's results are here, or it did not answer in time.
pub(crate) fn answered(core: &mut ShardCore, context: RequestContext, asked: Asked, answers: Option<Vec<TopicAnswer>>) {
    let mut answers = answers.map(Vec::into_iter);
    let mut response = CreateTopicsResponse::default();
    for Entry { name, refused } in asked.results {
        let mut result = CreatableTopicResult { name, error_message: None, ..CreatableTopicResult::default() };
        if let Some((error, message)) = refused {
            result.error_code = error;
            result.error_message = Some(StrBytes::from_static(message));
        } else if let Some(answer) = answers.as_mut().and_then(Iterator::next) {
            result.error_code = answer.error;
            result.error_message = answer.message.map(message);
            if answer.error == ErrorCode::None {
                result.num_partitions = i32::try_from(answer.partitions).unwrap_or(i32::MAX);
                result.replication_factor = 1;
                result.topic_id = answer.id.filter(|_| !asked.validate_only).map_or_else(Default::default, |id| id.0);
            }
        } else {
            result.error_code = ErrorCode::RequestTimedOut;
        }
        response.topics.push(result);
    }
    context.reply(core, &response);
}
