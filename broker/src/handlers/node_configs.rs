//! What DescribeConfigs says of nodes: settings that tools look for, as far as they mean something here, and those that
//! topics take their defaults from, which alone can be changed while nodes run.

use super::describe_configs::{
    BOOLEAN, DescribedSetting, FROM_BROKER, FROM_DEFAULT, FROM_GROUP, FROM_NODE, FROM_NODES, INT, LIST, LONG, SHORT,
    STRING, Wanted, type_number,
};
use crate::control::group_settings::{GROUP_SETTINGS, INTERVAL};
use crate::control::topic_settings::{TOPIC_SETTINGS, TopicSetting};
use crate::control::{Node, node_settings};
use crate::process::assembly::FRAME_BYTES;
use crate::shard::core::ShardCore;
use crate::shard::fetch_sessions::MOST_SESSIONS;
use crate::shard::fetches::MOST_BYTES;
use millrace_protocol::messages::describe_configs::DescribeConfigsResourceResult;
use millrace_storage::partition::PRODUCER_EXPIRY_MS;
use std::time::Duration;

/// Documentation of what nodes show and no request changes.
const READ_ONLY: &str = "Shown for tools that look for it; flags of a node change with a restart.";

/// Settings of nodes from which topics take theirs only if those in the smaller unit are not set.
const LARGER_UNITS: [(&str, Option<&str>); 4] = [
    ("log.retention.hours", Some("168")),
    ("log.retention.minutes", None),
    ("log.roll.hours", Some("168")),
    ("log.roll.jitter.hours", Some("0")),
];

/// The settings of a node.
pub(super) fn of_node(core: &ShardCore, id: i32, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let mut settings = fixed(core, id);
    settings.extend(consumer_groups(core));
    settings.extend(classic_groups(core));
    settings.extend(LARGER_UNITS.map(|(name, value)| fixed_setting(name, value.map(str::to_owned), INT)));
    settings.extend(TOPIC_SETTINGS.iter().filter_map(|row| default_of_topics(core, id, row)));
    settings.into_iter().map(|setting| setting.result(wanted)).collect()
}

/// What was set of all nodes together.
pub(super) fn of_all_nodes(core: &ShardCore, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let settings = core.image.node_settings.clone();
    let set = settings.own(None).into_iter().flatten();
    let shown = set.filter_map(|(name, value)| {
        let row = node_settings::find(name)?;
        let setting = DescribedSetting {
            name: row.dynamic_name()?,
            value: Some(value.clone()),
            source: FROM_NODES,
            config_type: type_number(row.of),
            read_only: false,
            synonyms: vec![(row.dynamic_name()?, value.clone(), FROM_NODES)],
            about: row.about,
        };
        Some(setting.result(wanted))
    });
    shown.collect()
}

/// The settings of a group, whether or not it exists: its own, or those of the node.
pub(super) fn of_group(core: &ShardCore, group: &str, wanted: Wanted) -> Vec<DescribeConfigsResourceResult> {
    let limits = core.groups.coordinator.limits();
    let own = core.image.group_settings.get(group);
    let shown = GROUP_SETTINGS.iter().map(|row| {
        let of_node = if row.name == INTERVAL { limits.consumer_interval } else { limits.consumer_session };
        let of_node = (row.of_broker, milliseconds(of_node), FROM_DEFAULT);
        let own = own.and_then(|own| own.get(row.name)).map(|own| (row.name, own.clone(), FROM_GROUP));
        let synonyms: Vec<_> = own.into_iter().chain([of_node]).collect();
        let (_, value, source) = synonyms[0].clone();
        let (name, about) = (row.name, row.about);
        DescribedSetting { name, value: Some(value), source, config_type: INT, read_only: false, synonyms, about }
    });
    shown.map(|setting| setting.result(wanted)).collect()
}

fn milliseconds(time: Duration) -> String {
    time.as_millis().to_string()
}

/// One that no request changes.
fn fixed_setting(name: &'static str, value: Option<String>, config_type: i8) -> DescribedSetting {
    let synonyms = value.iter().map(|value| (name, value.clone(), FROM_DEFAULT)).collect();
    DescribedSetting { name, value, source: FROM_DEFAULT, config_type, read_only: true, synonyms, about: READ_ONLY }
}

/// The same, if it comes from the flags of the node.
fn flag(name: &'static str, value: Option<String>, config_type: i8) -> DescribedSetting {
    let mut setting = fixed_setting(name, value, config_type);
    if setting.value.is_some() {
        setting.source = FROM_BROKER;
        setting.synonyms.iter_mut().for_each(|(_, _, source)| *source = FROM_BROKER);
    }
    setting
}

fn fixed(core: &ShardCore, id: i32) -> Vec<DescribedSetting> {
    let create = core.config().auto_create;
    let created = if create { fixed_setting } else { flag };
    let node = core.image.nodes.get(&id);
    let listener = |node: &Node| format!("PLAINTEXT://{}:{}", node.host, node.port);
    let fixed = |name, value: String, kind| fixed_setting(name, Some(value), kind);
    vec![
        flag("advertised.listeners", node.map(listener), LIST),
        created("auto.create.topics.enable", Some(create.to_string()), BOOLEAN),
        flag("broker.id", Some(id.to_string()), INT),
        flag("broker.rack", node.and_then(|node| node.rack.clone()), STRING),
        fixed("default.replication.factor", "1".to_owned(), INT),
        fixed("delete.topic.enable", "true".to_owned(), BOOLEAN),
        fixed("fetch.max.bytes", MOST_BYTES.to_string(), INT),
        fixed("max.incremental.fetch.session.cache.slots", MOST_SESSIONS.to_string(), INT),
        flag("node.id", Some(id.to_string()), INT),
        fixed("num.partitions", core.image.default_partitions.to_string(), INT),
        fixed("offsets.topic.replication.factor", "1".to_owned(), SHORT),
        fixed("producer.id.expiration.ms", PRODUCER_EXPIRY_MS.to_string(), INT),
        fixed("socket.request.max.bytes", FRAME_BYTES.to_string(), INT),
        fixed("transaction.state.log.replication.factor", "1".to_owned(), SHORT),
    ]
}

/// What a node says of groups of the classic protocol, and of offsets.
fn classic_groups(core: &ShardCore) -> Vec<DescribedSetting> {
    let limits = core.groups.coordinator.limits();
    let shown = [
        ("group.initial.rebalance.delay.ms", milliseconds(limits.initial_rebalance_delay)),
        ("group.max.session.timeout.ms", milliseconds(limits.max_session)),
        ("group.max.size", limits.members.to_string()),
        ("group.min.session.timeout.ms", milliseconds(limits.min_session)),
        ("offset.metadata.max.bytes", limits.offset_metadata_bytes.to_string()),
        ("offsets.retention.minutes", (limits.offset_retention.as_secs() / 60).to_string()),
    ];
    shown.into_iter().map(|(name, value)| fixed_setting(name, Some(value), INT)).collect()
}

/// What a node says of groups of the consumer protocol.
fn consumer_groups(core: &ShardCore) -> Vec<DescribedSetting> {
    let limits = core.groups.coordinator.limits();
    let fixed = |name, value: String, kind| fixed_setting(name, Some(value), kind);
    vec![
        fixed("group.consumer.assignors", "uniform,range".to_owned(), LIST),
        fixed("group.consumer.heartbeat.interval.ms", milliseconds(limits.consumer_interval), INT),
        fixed("group.consumer.max.size", limits.members.to_string(), INT),
        fixed("group.consumer.migration.policy", "bidirectional".to_owned(), STRING),
        fixed("group.consumer.session.timeout.ms", milliseconds(limits.consumer_session), INT),
    ]
}

/// The setting of a node that topics take their default from.
fn default_of_topics(core: &ShardCore, id: i32, row: &'static TopicSetting) -> Option<DescribedSetting> {
    let name = row.dynamic_name()?;
    let synonyms = set_of_nodes(core, id, row).chain(default_synonym(row)).collect::<Vec<_>>();
    let first = synonyms.first();
    Some(DescribedSetting {
        name,
        value: first.map(|(_, value, _)| value.clone()),
        source: first.map_or(FROM_DEFAULT, |(_, _, source)| *source),
        // Times in the smaller unit are longer numbers.
        config_type: if row.of_broker.is_empty() { LONG } else { type_number(row.of) },
        read_only: false,
        synonyms,
        about: row.about,
    })
}

/// What was set while nodes ran that this topic setting's default comes from, in order of precedence.
pub(super) fn set_of_nodes(
    core: &ShardCore,
    id: i32,
    row: &'static TopicSetting,
) -> impl Iterator<Item = (&'static str, String, i8)> {
    let name = row.dynamic_name();
    let (own, of_all) = name.map_or((None, None), |name| core.image.node_settings.set_values(id, name));
    let set = [(own.cloned(), FROM_NODE), (of_all.cloned(), FROM_NODES)];
    set.into_iter().filter_map(move |(value, source)| Some((name?, value?, source)))
}

/// The default of a setting of nodes that a topic's default comes from.
pub(super) fn default_synonym(row: &'static TopicSetting) -> Option<(&'static str, String, i8)> {
    (!row.of_broker.is_empty()).then(|| (row.of_broker, row.default.to_owned(), FROM_DEFAULT))
}
