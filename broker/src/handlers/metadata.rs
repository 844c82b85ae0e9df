//! Metadata: nodes, topics, partitions and their leaders, from the cluster's image. May create topics.
//!
//! 1. Every shard is a node; a partition's only replica is its leader.
//! 2. A partition without a leader keeps its topic listed without an error and says LEADER_NOT_AVAILABLE itself, so
//!    that clients ask again instead of giving the topic up.

use super::questions::Question;
use super::topics::topic_by_id;
use super::{RequestContext, operations};
use crate::control::{ClusterImage, NewTopic, Node, ToControl, TopicAnswer, TopicImage};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use millrace_protocol::messages::{MetadataRequest, MetadataResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a request waits for topics that it creates; afterwards they are LEADER_NOT_AVAILABLE and the client asks
/// again.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);

/// Topics that one request may create: a client that asks for more learns of the rest when it asks again.
const CREATED_PER_REQUEST: usize = 100;

/// First version whose topics may be named by id: version 10 has the field, and no form for the answer.
const IDS_FROM: i16 = 12;

/// Longest topic name (Kafka's, from its directory names).
const LONGEST_NAME: usize = 249;

/// What a request asked for that waits for its topics.
#[derive(Debug)]
pub(crate) struct Asked {
    topics: Vec<MetadataRequestTopic>,
    created: Vec<String>,
    operations: Operations,
}

/// Of what the client wants to know what it may do (KIP-430).
#[derive(Clone, Copy, Debug)]
struct Operations {
    cluster: bool,
    topics: bool,
}

/// Answers from the image, or first has the missing topics created.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: MetadataRequest) {
    let operations = Operations {
        cluster: request.include_cluster_authorized_operations,
        topics: request.include_topic_authorized_operations,
    };
    // In version 0 the empty list means all topics, later the null list does.
    let topics = match request.topics {
        None => return respond(core, context, operations, None, &[]),
        Some(topics) if topics.is_empty() && context.version == 0 => {
            return respond(core, context, operations, None, &[]);
        }
        Some(topics) => topics,
    };
    if context.version < IDS_FROM && topics.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil()) {
        return refuse(core, context, topics);
    }
    let may_create = core.config().auto_create && (context.version < 4 || request.allow_auto_topic_creation);
    let created = if may_create { missing(core, &topics) } else { Vec::new() };
    if created.is_empty() {
        return respond(core, context, operations, Some(topics), &[]);
    }
    let new_topic = |name: &String| NewTopic { name: name.clone(), partitions: None, settings: BTreeMap::new() };
    let new_topics = created.iter().map(new_topic).collect();
    core.ask(now, Question::AutoCreate(context, Asked { topics, created, operations }), CREATION_PATIENCE, |token| {
        ToControl::CreateTopics { token, topics: new_topics, validate_only: false, auto: true }
    });
}

/// Answers a request that names topics as its version does not allow, as Kafka does: every topic is refused.
fn refuse(core: &mut ShardCore, context: RequestContext, topics: Vec<MetadataRequestTopic>) {
    let refused = |topic: MetadataRequestTopic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest,
        name: Some(topic.name.unwrap_or_default()),
        topic_id: topic.topic_id,
        ..MetadataResponseTopic::default()
    };
    let topics = topics.into_iter().map(refused).collect();
    context.reply(core, &MetadataResponse { topics, ..MetadataResponse::default() });
}

/// The topics asked for by name that do not exist and could.
fn missing(core: &ShardCore, topics: &[MetadataRequestTopic]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in topics.iter().filter(|topic| topic.topic_id.is_nil()).filter_map(|topic| topic.name.as_deref()) {
        let known = core.image.topics.contains_key(name);
        if !known && is_legal(name) && !names.iter().any(|other| other == name) && names.len() < CREATED_PER_REQUEST {
            names.push(name.to_owned());
        }
    }
    names
}

/// Whether a topic can have this name (Kafka's rule).
pub(crate) fn is_legal(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= LONGEST_NAME && name != "." && name != ".." && name.chars().all(legal)
}

/// The control task has created the topics, or refused, or did not answer in time.
pub(crate) fn created(core: &mut ShardCore, context: RequestContext, asked: Asked, answers: Option<Vec<TopicAnswer>>) {
    let mut outcomes: Vec<(String, ErrorCode)> = Vec::with_capacity(asked.created.len());
    for (at, name) in asked.created.into_iter().enumerate() {
        let answer = answers.as_ref().and_then(|answers| answers.get(at));
        let error = answer.map_or(ErrorCode::LeaderNotAvailable, |answer| answer.error);
        // Created, by this process or by another one, but not in our image yet: the client asks again.
        let is_there = matches!(error, ErrorCode::None | ErrorCode::TopicAlreadyExists);
        let error = if is_there { ErrorCode::LeaderNotAvailable } else { error };
        outcomes.push((name, error));
    }
    respond(core, context, asked.operations, Some(asked.topics), &outcomes);
}

/// Answers from the image. `created` says what a name that is not in the image gets instead of
/// UNKNOWN_TOPIC_OR_PARTITION. No list means all topics.
fn respond(
    core: &mut ShardCore,
    context: RequestContext,
    operations: Operations,
    topics: Option<Vec<MetadataRequestTopic>>,
    created: &[(String, ErrorCode)],
) {
    let image = core.image.clone();
    let mut response = match topics {
        None => of_all(&image),
        Some(topics) => {
            // A topic that is named many times is described once, as in Kafka: its description may be long.
            let mut seen = BTreeSet::new();
            let first = |topic: &MetadataRequestTopic| seen.insert((topic.topic_id, topic.name.clone()));
            let topics = topics.into_iter().filter(first).map(|topic| answer_one(core, topic, created)).collect();
            MetadataResponse { topics, ..without_topics(&image) }
        }
    };
    if operations.cluster {
        response.cluster_authorized_operations = operations::ON_CLUSTER;
    }
    if operations.topics {
        // As in Kafka of those too that are not there, if they were named.
        let named = response.topics.iter_mut().filter(|topic| topic.error_code != ErrorCode::UnknownTopicId);
        named.for_each(|topic| topic.topic_authorized_operations = operations::ON_TOPIC);
    }
    context.reply(core, &response);
}

/// What a request for all topics is answered with.
pub fn of_all(image: &ClusterImage) -> MetadataResponse {
    let topics = image.topics.values().filter(|topic| !topic.deleting).map(|topic| describe(topic)).collect();
    MetadataResponse { topics, ..without_topics(image) }
}

fn without_topics(image: &ClusterImage) -> MetadataResponse {
    MetadataResponse {
        brokers: image.nodes.values().map(broker).collect(),
        cluster_id: Some(StrBytes::from(image.cluster_id.as_str())),
        controller_id: image.controller,
        ..MetadataResponse::default()
    }
}

fn answer_one(core: &ShardCore, asked: MetadataRequestTopic, created: &[(String, ErrorCode)]) -> MetadataResponseTopic {
    let MetadataRequestTopic { topic_id, name } = asked;
    let failed = |error_code, name, topic_id| MetadataResponseTopic {
        error_code,
        name,
        topic_id,
        ..MetadataResponseTopic::default()
    };
    let Some(name) = name.filter(|_| topic_id.is_nil()) else {
        return match topic_by_id(&core.image, topic_id).filter(|topic| !topic.deleting) {
            Some(topic) => describe(topic),
            None => failed(ErrorCode::UnknownTopicId, None, topic_id),
        };
    };
    if let Some(topic) = core.image.topics.get(&*name).filter(|topic| !topic.deleting) {
        return describe(topic);
    }
    let error = if !is_legal(&name) {
        ErrorCode::InvalidTopicException
    } else {
        let outcome = created.iter().find(|(created, _)| *created == *name);
        outcome.map_or(ErrorCode::UnknownTopicOrPartition, |(_, error)| *error)
    };
    failed(error, Some(name), topic_id)
}

fn broker(node: &Node) -> MetadataResponseBroker {
    MetadataResponseBroker {
        node_id: node.id,
        host: StrBytes::from(node.host.as_str()),
        port: i32::from(node.port),
        rack: node.rack.as_deref().map(StrBytes::from),
    }
}

fn describe(topic: &TopicImage) -> MetadataResponseTopic {
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for (index, partition) in topic.partitions.iter().enumerate() {
        let replicas: Vec<i32> = partition.leader.into_iter().collect();
        partitions.push(MetadataResponsePartition {
            error_code: if partition.leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable },
            partition_index: i32::try_from(index).expect("partitions are counted in i32"),
            leader_id: partition.leader.unwrap_or(-1),
            leader_epoch: partition.epoch.0,
            replica_nodes: replicas.clone(),
            isr_nodes: replicas,
            offline_replicas: Vec::new(),
        });
    }
    MetadataResponseTopic {
        name: Some(StrBytes::from(topic.name.as_str())),
        topic_id: topic.id.0,
        partitions,
        ..MetadataResponseTopic::default()
    }
}
