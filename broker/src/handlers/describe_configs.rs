//! DescribeConfigs: the settings of topics and of this node, defaults included, so that tools find what they look for;
//! with synonyms and documentation where they are asked for.

use super::RequestContext;
use super::metadata::is_legal;
use crate::control::group_settings::{GROUP_SETTINGS, INTERVAL};
use crate::control::topic_settings::{SettingType, TOPIC_SETTINGS, TopicSetting};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use millrace_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The numbers of what has settings.
pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;
pub(crate) const GROUP: i8 = 32;
/// Where a value comes from: the topic, the group, the broker's start-up settings, the default.
const FROM_TOPIC: i8 = 1;
const FROM_GROUP: i8 = 8;
const FROM_BROKER: i8 = 4;
const FROM_DEFAULT: i8 = 5;

/// The numbers of Kafka's types.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const INT: i8 = 3;
const SHORT: i8 = 4;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

fn type_number(of: SettingType) -> i8 {
    match of {
        SettingType::Boolean => BOOLEAN,
        SettingType::Int { .. } => INT,
        SettingType::Long { .. } => LONG,
        SettingType::Ratio => DOUBLE,
        SettingType::OneOf(_) | SettingType::Text => STRING,
        SettingType::AnyOf(_) | SettingType::Replicas => LIST,
    }
}

/// What of a description the client wants.
#[derive(Clone, Copy)]
struct Wanted {
    synonyms: bool,
    documentation: bool,
}

/// Answers for every resource asked for.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: DescribeConfigsRequest) {
    // A resource that is named many times is described once: the request is short and the description long.
    let mut seen = BTreeSet::new();
    let first =
        |resource: &DescribeConfigsResource| seen.insert((resource.resource_type, resource.resource_name.clone()));
    let wanted = Wanted { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let results = request.resources.into_iter().filter(first);
    let results = results.map(|resource| describe(core, resource, wanted)).collect();
    context.reply(core, &DescribeConfigsResponse { throttle_time_ms: 0, results });
}

fn describe(core: &ShardCore, resource: DescribeConfigsResource, wanted: Wanted) -> DescribeConfigsResult {
    let repeated = |keys: &Vec<StrBytes>| keys.iter().collect::<BTreeSet<_>>().len() < keys.len();
    let found = match resource.resource_type {
        _ if resource.configuration_keys.as_ref().is_some_and(repeated) => Err(ErrorCode::InvalidRequest),
        TOPIC => match core.image.topics.get(&*resource.resource_name) {
            Some(topic) => Ok(topic_settings(&topic.settings, wanted)),
            None if !is_legal(&resource.resource_name) => Err(ErrorCode::InvalidTopicException),
            None => Err(ErrorCode::UnknownTopicOrPartition),
        },
        // The empty name stands for what all nodes were told while they ran: nothing.
        BROKER if resource.resource_name.is_empty() => Ok(Vec::new()),
        BROKER if is_node(core, &resource.resource_name) => Ok(node_settings(core, &resource.resource_name, wanted)),
        GROUP if !resource.resource_name.is_empty() => Ok(group_settings(core, &resource.resource_name, wanted)),
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

/// Whether this is the id of a node.
pub(crate) fn is_node(core: &ShardCore, name: &str) -> bool {
    name.parse().is_ok_and(|id| core.image.nodes.contains_key(&id))
}

/// The settings of a topic that sets `set`.
fn topic_settings(set: &BTreeMap<String, String>, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let shown = TOPIC_SETTINGS.iter().filter(|row| row.is_current() || set.contains_key(row.name));
    shown.map(|row| topic_setting(row, set.get(row.name), wanted)).collect()
}

fn topic_setting(row: &TopicSetting, own: Option<&String>, wanted: Wanted) -> DescribeConfigsResourceResult {
    let mut synonyms = Vec::new();
    if let Some(own) = own {
        synonyms.push(synonym(row.name, own, FROM_TOPIC));
    }
    if !row.of_broker.is_empty() {
        synonyms.push(synonym(row.of_broker, row.default, FROM_DEFAULT));
    }
    DescribeConfigsResourceResult {
        name: StrBytes::from_static(row.name),
        value: Some(own.map_or(StrBytes::from_static(row.default), |own| StrBytes::from(own.as_str()))),
        config_source: if own.is_some() { FROM_TOPIC } else { FROM_DEFAULT },
        config_type: type_number(row.of),
        synonyms: if wanted.synonyms { synonyms } else { Vec::new() },
        documentation: wanted.documentation.then(|| StrBytes::from_static(row.about)),
        ..DescribeConfigsResourceResult::default()
    }
}

/// The settings of a node: what tools look for, and where topics have their defaults from.
fn node_settings(core: &ShardCore, id: &str, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let (create, told) = if core.config().auto_create { ("true", FROM_DEFAULT) } else { ("false", FROM_BROKER) };
    let mut settings = vec![
        node_setting("auto.create.topics.enable", create, told, BOOLEAN, wanted),
        node_setting("broker.id", id, FROM_BROKER, INT, wanted),
        node_setting("default.replication.factor", "1", FROM_DEFAULT, INT, wanted),
        node_setting("delete.topic.enable", "true", FROM_DEFAULT, BOOLEAN, wanted),
        node_setting("node.id", id, FROM_BROKER, INT, wanted),
        node_setting("offsets.topic.replication.factor", "1", FROM_DEFAULT, SHORT, wanted),
        node_setting("transaction.state.log.replication.factor", "1", FROM_DEFAULT, SHORT, wanted),
    ];
    settings.extend(consumer_group_settings(core, wanted));
    settings.extend(classic_group_settings(core, wanted));
    let defaults = TOPIC_SETTINGS.iter().filter(|row| !row.of_broker.is_empty());
    settings.extend(
        defaults.map(|row| node_setting(row.of_broker, row.default, FROM_DEFAULT, type_number(row.of), wanted)),
    );
    settings
}

/// What a node says of groups of the classic protocol, and of offsets.
fn classic_group_settings(core: &ShardCore, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let limits = core.groups.coordinator.limits();
    let milliseconds = |time: Duration| time.as_millis().to_string();
    let shown = [
        ("group.initial.rebalance.delay.ms", milliseconds(limits.initial_rebalance_delay)),
        ("group.max.session.timeout.ms", milliseconds(limits.max_session)),
        ("group.min.session.timeout.ms", milliseconds(limits.min_session)),
        ("offset.metadata.max.bytes", limits.offset_metadata_bytes.to_string()),
        ("offsets.retention.minutes", (limits.offset_retention.as_secs() / 60).to_string()),
    ];
    shown.iter().map(|(name, value)| node_setting(name, value, FROM_DEFAULT, INT, wanted)).collect()
}

/// What a node says of groups of the consumer protocol.
fn consumer_group_settings(core: &ShardCore, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let limits = core.groups.coordinator.limits();
    let interval = limits.consumer_interval.as_millis().to_string();
    let session = limits.consumer_session.as_millis().to_string();
    vec![
        node_setting("group.consumer.assignors", "uniform,range", FROM_DEFAULT, LIST, wanted),
        node_setting("group.consumer.heartbeat.interval.ms", &interval, FROM_DEFAULT, INT, wanted),
        node_setting("group.consumer.max.size", &limits.members.to_string(), FROM_DEFAULT, INT, wanted),
        node_setting("group.consumer.migration.policy", "bidirectional", FROM_DEFAULT, STRING, wanted),
        node_setting("group.consumer.session.timeout.ms", &session, FROM_DEFAULT, INT, wanted),
    ]
}

/// The settings of a group, whether or not it exists: its own, or those of the node.
fn group_settings(core: &ShardCore, group: &str, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let limits = core.groups.coordinator.limits();
    let own = core.image.group_settings.get(group);
    let shown = GROUP_SETTINGS.iter().map(|row| {
        let of_node = if row.name == INTERVAL { limits.consumer_interval } else { limits.consumer_session };
        let of_node = of_node.as_millis().to_string();
        let own = own.and_then(|own| own.get(row.name));
        let mut synonyms = vec![synonym(row.of_broker, &of_node, FROM_DEFAULT)];
        if let Some(own) = own {
            synonyms.insert(0, synonym(row.name, own, FROM_GROUP));
        }
        DescribeConfigsResourceResult {
            name: StrBytes::from_static(row.name),
            value: Some(StrBytes::from(own.unwrap_or(&of_node).as_str())),
            config_source: if own.is_some() { FROM_GROUP } else { FROM_DEFAULT },
            config_type: INT,
            synonyms: if wanted.synonyms { synonyms } else { Vec::new() },
            documentation: wanted.documentation.then(|| StrBytes::from_static(row.about)),
            ..DescribeConfigsResourceResult::default()
        }
    });
    shown.collect()
}

fn node_setting(
    name: &'static str,
    value: &str,
    config_source: i8,
    config_type: i8,
    wanted: Wanted,
) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult {
        name: StrBytes::from_static(name),
        value: Some(StrBytes::from(value)),
        read_only: true,
        config_source,
        config_type,
        synonyms: if wanted.synonyms { vec![synonym(name, value, config_source)] } else { Vec::new() },
        documentation: wanted.documentation.then(|| StrBytes::from_static(NODE_SETTING)),
        ..DescribeConfigsResourceResult::default()
    }
}

/// Documentation of what a node shows.
const NODE_SETTING: &str = "Shown for tools that look for it; settings of a node change with its flags and a restart.";

fn synonym(name: &'static str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym { name: StrBytes::from_static(name), value: Some(StrBytes::from(value)), source }
}
