//! DescribeConfigs: the settings of topics and of this node, defaults included, so that tools find what they look for.

use super::RequestContext;
use super::metadata::is_legal;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult,
};
use millrace_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use std::collections::{BTreeMap, BTreeSet};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// Where a value comes from: the topic, the broker's start-up settings, the default.
const FROM_TOPIC: i8 = 1;
const FROM_BROKER: i8 = 4;
const FROM_DEFAULT: i8 = 5;

/// What a value is, by Kafka's numbers.
#[derive(Clone, Copy)]
enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Settings of topics: name, Kafka's default, kind.
const TOPIC_SETTINGS: &[(&str, &str, Kind)] = &[
    ("cleanup.policy", "delete", Kind::List),
    ("compression.type", "producer", Kind::Text),
    ("delete.retention.ms", "86400000", Kind::Long),
    ("file.delete.delay.ms", "60000", Kind::Long),
    ("flush.messages", "9223372036854775807", Kind::Long),
    ("flush.ms", "9223372036854775807", Kind::Long),
    ("index.interval.bytes", "4096", Kind::Int),
    ("max.compaction.lag.ms", "9223372036854775807", Kind::Long),
    ("max.message.bytes", "1048588", Kind::Int),
    ("message.timestamp.after.max.ms", "3600000", Kind::Long),
    ("message.timestamp.before.max.ms", "9223372036854775807", Kind::Long),
    ("message.timestamp.type", "CreateTime", Kind::Text),
    ("min.cleanable.dirty.ratio", "0.5", Kind::Double),
    ("min.compaction.lag.ms", "0", Kind::Long),
    ("min.insync.replicas", "1", Kind::Int),
    ("preallocate", "false", Kind::Boolean),
    ("retention.bytes", "-1", Kind::Long),
    ("retention.ms", "604800000", Kind::Long),
    ("segment.bytes", "1073741824", Kind::Int),
    ("segment.index.bytes", "10485760", Kind::Int),
    ("segment.jitter.ms", "0", Kind::Long),
    ("segment.ms", "604800000", Kind::Long),
    ("unclean.leader.election.enable", "false", Kind::Boolean),
];

/// Answers for every resource asked for.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: DescribeConfigsRequest) {
    // A resource that is named many times is described once: the request is short and the description long.
    let mut seen = BTreeSet::new();
    let first =
        |resource: &DescribeConfigsResource| seen.insert((resource.resource_type, resource.resource_name.clone()));
    let results = request.resources.into_iter().filter(first).map(|resource| describe(core, resource)).collect();
    context.reply(core, &DescribeConfigsResponse { throttle_time_ms: 0, results });
}

fn describe(core: &ShardCore, resource: DescribeConfigsResource) -> DescribeConfigsResult {
    let found = match resource.resource_type {
        TOPIC => match core.image.topics.get(&*resource.resource_name) {
            Some(topic) => Ok(topic_settings(&topic.settings)),
            None if !is_legal(&resource.resource_name) => Err(ErrorCode::InvalidTopicException),
            None => Err(ErrorCode::UnknownTopicOrPartition),
        },
        BROKER if is_node(core, &resource.resource_name) => Ok(node_settings(core)),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let (error_code, mut configs) = match found {
        Ok(configs) => (ErrorCode::None, configs),
        Err(error) => (error, Vec::new()),
    };
    if let Some(wanted) = &resource.configuration_keys
        && !wanted.is_empty()
    {
        configs.retain(|config| wanted.contains(&config.name));
    }
    DescribeConfigsResult {
        error_code,
        error_message: None,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        configs,
    }
}

/// The empty name stands for the defaults of all nodes.
fn is_node(core: &ShardCore, name: &str) -> bool {
    name.is_empty() || name.parse().is_ok_and(|id| core.image.nodes.contains_key(&id))
}

fn topic_settings(set: &BTreeMap<String, String>) -> Vec<DescribeConfigsResourceResult> {
    let known = TOPIC_SETTINGS.iter().map(|&(name, default, kind)| match set.get(name) {
        Some(value) => setting(name, value, FROM_TOPIC, kind, false),
        None => setting(name, default, FROM_DEFAULT, kind, false),
    });
    let is_unknown = |name: &str| TOPIC_SETTINGS.iter().all(|(known, _, _)| *known != name);
    let others = set.iter().filter(|(name, _)| is_unknown(name));
    known.chain(others.map(|(name, value)| setting(name, value, FROM_TOPIC, Kind::Text, false))).collect()
}

fn node_settings(core: &ShardCore) -> Vec<DescribeConfigsResourceResult> {
    let create = if core.config().auto_create { "true" } else { "false" };
    vec![
        setting("auto.create.topics.enable", create, FROM_BROKER, Kind::Boolean, true),
        setting("default.replication.factor", "1", FROM_DEFAULT, Kind::Int, true),
        setting("message.max.bytes", "1048588", FROM_DEFAULT, Kind::Int, true),
        setting("transaction.state.log.replication.factor", "1", FROM_DEFAULT, Kind::Int, true),
    ]
}

fn setting(name: &str, value: &str, source: i8, kind: Kind, read_only: bool) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: StrBytes::from(name),
        value: Some(StrBytes::from(value)),
        read_only,
        config_source: source,
        config_type: kind as i8,
        documentation: None,
        ..DescribeConfigsResourceResult::default()
    }
}
