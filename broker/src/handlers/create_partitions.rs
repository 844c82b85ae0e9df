//! CreatePartitions: checked for form here, carried out by the control task.
//!
//! Assignments count as a number of partitions: where the new ones lie is decided here, as at creation.

use super::create_topics::patience;
use super::questions::Question;
use super::{RequestContext, message};
use crate::control::{Alteration, ToControl, TopicAlteration, TopicAnswer};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_partitions::{CreatePartitionsTopic, CreatePartitionsTopicResult};
use millrace_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use std::collections::BTreeMap;

/// The results so far; those without an error are being carried out, in this order.
#[derive(Debug)]
pub(crate) struct Asked(Vec<CreatePartitionsTopicResult>);

/// Checks the topics and asks the control task to enlarge those that are well formed.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: CreatePartitionsRequest) {
    let mut named: BTreeMap<&str, u32> = BTreeMap::new();
    for topic in &request.topics {
        *named.entry(&topic.name).or_default() += 1;
    }
    let mut results: Vec<CreatePartitionsTopicResult> = Vec::with_capacity(named.len());
    let mut alterations = Vec::new();
    for topic in &request.topics {
        let mut result = CreatePartitionsTopicResult { name: topic.name.detached(), ..Default::default() };
        let times = named.get_mut(&*topic.name).expect("counted above");
        if *times == 0 {
            continue;
        }
        if *times > 1 {
            // What is named more than once is refused, and answered once.
            *times = 0;
            result.error_code = ErrorCode::InvalidRequest;
            result.error_message = Some(StrBytes::from_static("Duplicate topic name."));
        } else {
            match partitions(core, topic) {
                Ok(count) => {
                    let name = topic.name.to_string();
                    alterations.push(TopicAlteration { name, change: Alteration::Partitions(count) });
                }
                Err((error, text)) => {
                    result.error_code = error;
                    result.error_message = Some(message(text));
                }
            }
        }
        results.push(result);
    }
    let asked = Asked(results);
    if alterations.is_empty() {
        return answered(core, context, asked, Some(Vec::new()));
    }
    let (patience, validate_only) = (patience(request.timeout_ms), request.validate_only);
    core.ask(now, Question::CreatePartitions(context, asked), patience, |token| ToControl::AlterTopics {
        token,
        alterations,
        validate_only,
    });
}

/// How many partitions there shall be. What depends on how many there are is decided by the control task, but for a
/// mismatch of assignments, which is found by this shard's image.
fn partitions(core: &ShardCore, topic: &CreatePartitionsTopic) -> Result<u32, (ErrorCode, String)> {
    let Some(found) = core.image.topics.get(&*topic.name).filter(|found| !found.deleting) else {
        // Perhaps it was made just now: the control task knows.
        return Ok(topic.count.try_into().unwrap_or(0));
    };
    // At most 10,000: the topic's rule.
    let there = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
    let assigned = topic.assignments.as_ref().map(|assignments| assignments.len());
    let added = topic.count.saturating_sub(there);
    if let Some(assigned) = assigned
        && let Ok(added) = usize::try_from(added)
        && added > 0
        && assigned != added
    {
        let text = format!(
            "Attempted to add {added} additional partition(s), but only {assigned} assignment(s) were specified."
        );
        return Err((ErrorCode::InvalidReplicaAssignment, text));
    }
    Ok(topic.count.try_into().unwrap_or(0))
}

/// The control task's results are here, or it did not answer in time.
pub(crate) fn answered(core: &mut ShardCore, context: RequestContext, asked: Asked, answers: Option<Vec<TopicAnswer>>) {
    let mut answers = answers.map(Vec::into_iter);
    let mut results = asked.0;
    for result in results.iter_mut().filter(|result| result.error_code.is_none()) {
        match answers.as_mut().and_then(Iterator::next) {
            Some(answer) => {
                result.error_code = answer.error;
                result.error_message = answer.message.map(message);
            }
            None => result.error_code = ErrorCode::RequestTimedOut,
        }
    }
    context.reply(core, &CreatePartitionsResponse { throttle_time_ms: 0, results });
}
