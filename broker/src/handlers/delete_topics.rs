//! DeleteTopics: names and ids are looked up here, the control task deletes.

use super::create_topics::patience;
use super::questions::Question;
use super::topics::topic_by_id;
use super::{RequestContext, message};
use crate::control::{ToControl, TopicAnswer, TopicDeletion, UNKNOWN_TOPIC, UNKNOWN_TOPIC_ID};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::delete_topics::DeletableTopicResult;
use millrace_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use millrace_storage::ids::TopicId;
use uuid::Uuid;

/// How a topic was named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    Name,
    Id,
}

/// The results so far; those without an error are being deleted, in this order.
#[derive(Debug)]
pub(crate) struct Asked(Vec<DeletableTopicResult>);

/// Asks the control task to delete what could be found.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: DeleteTopicsRequest) {
    let mut results = Vec::new();
    let mut refused = Vec::new();
    for name in request.topic_names {
        results.push((Named::Name, by_name(core, name)));
    }
    for topic in request.topics {
        match topic.name {
            Some(name) if topic.topic_id.is_nil() => results.push((Named::Name, by_name(core, name))),
            None if !topic.topic_id.is_nil() => results.push((Named::Id, by_id(core, topic.topic_id))),
            // Named in two ways, or not at all.
            name => {
                let name = name.map(|name| name.detached());
                refused.push(failed(name, topic.topic_id, ErrorCode::InvalidRequest));
            }
        }
    }
    let results = without_repetitions(results);
    let topics: Vec<TopicDeletion> = results.iter().filter_map(|(named, result)| deletion(*named, result)).collect();
    let mut results: Vec<DeletableTopicResult> = results.into_iter().map(|(_, result)| result).collect();
    results.append(&mut refused);
    if topics.is_empty() {
        return answered(core, context, Asked(results), Some(Vec::new()));
    }
    core.ask(now, Question::DeleteTopics(context, Asked(results)), patience(request.timeout_ms), |token| {
        ToControl::DeleteTopics { token, topics }
    });
}

fn by_name(core: &ShardCore, name: StrBytes) -> DeletableTopicResult {
    match core.image.topics.get(&*name) {
        Some(topic) => DeletableTopicResult {
            name: Some(name.detached()),
            topic_id: topic.id.0,
            ..DeletableTopicResult::default()
        },
        None => DeletableTopicResult {
            error_message: Some(UNKNOWN_TOPIC.into()),
            ..failed(Some(name.detached()), Default::default(), ErrorCode::UnknownTopicOrPartition)
        },
    }
}

fn by_id(core: &ShardCore, topic_id: Uuid) -> DeletableTopicResult {
    match topic_by_id(&core.image, topic_id) {
        Some(topic) => DeletableTopicResult {
            name: Some(StrBytes::from(topic.name.as_str())),
            topic_id,
            ..DeletableTopicResult::default()
        },
        None => DeletableTopicResult {
            error_message: Some(UNKNOWN_TOPIC_ID.into()),
            ..failed(None, topic_id, ErrorCode::UnknownTopicId)
        },
    }
}

/// What is named more than once is refused, and answered once, as it was named.
fn without_repetitions(results: Vec<(Named, DeletableTopicResult)>) -> Vec<(Named, DeletableTopicResult)> {
    let mut kept: Vec<(Named, DeletableTopicResult)> = Vec::with_capacity(results.len());
    for (named, result) in results {
        let same = |(_, other): &&mut (Named, DeletableTopicResult)| {
            other.name == result.name && (result.name.is_some() || other.topic_id == result.topic_id)
        };
        let Some((first, repeated)) = kept.iter_mut().find(same) else {
            kept.push((named, result));
            continue;
        };
        let (name, topic_id) = match (*first, named) {
            (Named::Name, Named::Name) => (result.name, Uuid::nil()),
            (Named::Id, Named::Id) => (None, result.topic_id),
            _ => (result.name, result.topic_id),
        };
        *repeated = failed(name, topic_id, ErrorCode::InvalidRequest);
    }
    kept
}

fn failed(name: Option<StrBytes>, topic_id: Uuid, error_code: ErrorCode) -> DeletableTopicResult {
    DeletableTopicResult { name, topic_id, error_code, error_message: None }
}

/// What the control task is asked for, if it is asked. Of a topic named by its id another may have the name by then.
fn deletion(named: Named, result: &DeletableTopicResult) -> Option<TopicDeletion> {
    let id = (named == Named::Id).then_some(TopicId(result.topic_id));
    to_delete(result).map(|name| TopicDeletion { name: name.to_owned(), id })
}

fn to_delete(result: &DeletableTopicResult) -> Option<&str> {
    if result.error_code == ErrorCode::None { result.name.as_deref() } else { None }
}

/// The control task's results are here, or it did not answer in time.
pub(crate) fn answered(core: &mut ShardCore, context: RequestContext, asked: Asked, answers: Option<Vec<TopicAnswer>>) {
    let mut answers = answers.map(Vec::into_iter);
    let mut responses = asked.0;
    for result in responses.iter_mut().filter(|result| to_delete(result).is_some()) {
        match answers.as_mut().and_then(Iterator::next) {
            Some(answer) => {
                result.error_code = answer.error;
                if answer.error == ErrorCode::UnknownTopicId {
                    result.name = None;
                }
                result.error_message = answer.message.map(message);
            }
            None => result.error_code = ErrorCode::RequestTimedOut,
        }
    }
    context.reply(core, &DeleteTopicsResponse { throttle_time_ms: 0, responses });
}
