//! DescribeConfigs: the settings of topics and of nodes, defaults included, so that tools find what they look for;
//! with synonyms and documentation where they are asked for.

use super::metadata::is_legal;
use super::{RequestContext, node_configs};
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

/// The numbers of what has settings.
pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;
pub(crate) const GROUP: i8 = 32;
/// Where a value comes from: the topic; what was set of this node, or of all nodes, while they ran; the node's flags; the
/// default.
const FROM_TOPIC: i8 = 1;
pub(super) const FROM_NODE: i8 = 2;
pub(super) const FROM_NODES: i8 = 3;
pub(super) const FROM_BROKER: i8 = 4;
pub(super) const FROM_DEFAULT: i8 = 5;
pub(super) const FROM_GROUP: i8 = 8;

/// The numbers of Kafka's types.
pub(super) const BOOLEAN: i8 = 1;
pub(super) const STRING: i8 = 2;
pub(super) const INT: i8 = 3;
pub(super) const SHORT: i8 = 4;
pub(super) const LONG: i8 = 5;
const DOUBLE: i8 = 6;
pub(super) const LIST: i8 = 7;

pub(super) fn type_number(of: SettingType) -> i8 {
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
pub(super) struct Wanted {
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
    let found = match resource.resource_type {
        TOPIC => match core.image.topics.get(&*resource.resource_name) {
            Some(topic) => Ok(topic_settings(core, &topic.settings, wanted)),
            None if !is_legal(&resource.resource_name) => Err(ErrorCode::InvalidTopicException),
            None => Err(ErrorCode::UnknownTopicOrPartition),
        },
        // The empty name stands for what all nodes were told while they ran.
        BROKER if resource.resource_name.is_empty() => Ok(node_configs::of_all_nodes(core, wanted)),
        BROKER => match resource.resource_name.parse() {
            Ok(id) if is_node(core, &resource.resource_name) => Ok(node_configs::of_node(core, id, wanted)),
            _ => Err(ErrorCode::InvalidRequest),
        },
        GROUP if !resource.resource_name.is_empty() => {
            Ok(node_configs::of_group(core, &resource.resource_name, wanted))
        }
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
fn topic_settings(
    core: &ShardCore,
    set: &BTreeMap<String, String>,
    wanted: Wanted,
) -> Vec<DescribeConfigsResourceResult> {
    let shown = TOPIC_SETTINGS.iter().filter(|row| row.is_current() || set.contains_key(row.name));
    shown.map(|row| topic_setting(core, row, set.get(row.name)).result(wanted)).collect()
}

fn topic_setting(core: &ShardCore, row: &'static TopicSetting, own: Option<&String>) -> DescribedSetting {
    let own = own.map(|own| (row.name, own.clone(), FROM_TOPIC));
    let of_nodes = node_configs::set_of_nodes(core, core.node(), row);
    let synonyms: Vec<_> = own.into_iter().chain(of_nodes).chain(node_configs::default_synonym(row)).collect();
    let first = synonyms.first();
    DescribedSetting {
        name: row.name,
        value: Some(first.map_or_else(|| row.default.to_owned(), |(_, value, _)| value.clone())),
        source: first.map_or(FROM_DEFAULT, |(_, _, source)| *source),
        config_type: type_number(row.of),
        read_only: false,
        synonyms,
        about: row.about,
    }
}

/// A setting with all that can be said of it.
pub(super) struct DescribedSetting {
    pub(super) name: &'static str,
    pub(super) value: Option<String>,
    pub(super) source: i8,
    pub(super) config_type: i8,
    pub(super) read_only: bool,
    /// Where the value could come from, in order of precedence: name, value, source.
    pub(super) synonyms: Vec<(&'static str, String, i8)>,
    pub(super) about: &'static str,
}

impl DescribedSetting {
    pub(super) fn result(self, wanted: Wanted) -> DescribeConfigsResourceResult {
        let synonym = |(name, value, source): (&'static str, String, i8)| DescribeConfigsSynonym {
            name: StrBytes::from_static(name),
            value: Some(StrBytes::from(value)),
            source,
        };
        let synonyms = if wanted.synonyms { self.synonyms } else { Vec::new() };
        DescribeConfigsResourceResult {
            name: StrBytes::from_static(self.name),
            value: self.value.map(StrBytes::from),
            read_only: self.read_only,
            config_source: self.source,
            is_sensitive: false,
            synonyms: synonyms.into_iter().map(synonym).collect(),
            config_type: self.config_type,
            documentation: wanted.documentation.then(|| StrBytes::from_static(self.about)),
        }
    }
}
