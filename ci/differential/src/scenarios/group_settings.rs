//! Settings of groups: altered, described, listed, and what a group does by them.

use crate::pair::{Pair, Side};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::alter_configs::{AlterConfigsResource, AlterableConfig};
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::list_config_resources::ConfigResource;
use millrace_protocol::messages::{
    AlterConfigsRequest, ConsumerGroupHeartbeatRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    ListConfigResourcesRequest,
};
use std::io;

const GROUP: &str = "set";
const OF_GROUP: i8 = 32;
const SESSION: &str = "consumer.session.timeout.ms";
const INTERVAL: &str = "consumer.heartbeat.interval.ms";
/// Operations on a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Values that are only checked; what is wrong with them is an error of the resource.
const CHECKED: &[(&str, &str)] = &[
    (SESSION, "45000"),
    (SESSION, "60000"),
    (SESSION, "44999"),
    (SESSION, "60001"),
    (SESSION, "x"),
    (SESSION, ""),
    (SESSION, "-1"),
    (INTERVAL, "5000"),
    (INTERVAL, "15000"),
    (INTERVAL, "4999"),
    (INTERVAL, "15001"),
    ("retention.ms", "1"),
    ("no.such.setting", "1"),
];

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    for (name, value) in CHECKED {
        pair.every(&format!("of a group, {name} = {value:?}, only checked"), |side, _| {
            change(side.name(GROUP), &[(*name, SET, Some(*value))], true)
        })?;
    }
    for (case, operation, value) in [
        ("append", APPEND, Some("1")),
        ("subtract", SUBTRACT, Some("1")),
        ("null", SET, None),
        ("delete", DELETE, None),
    ] {
        pair.every(&format!("of a group, {case}"), |side, _| {
            change(side.name(GROUP), &[(SESSION, operation, value)], true)
        })?;
    }
    pair.every("of a group without a name", |_, _| change(StrBytes::new(), &[(SESSION, SET, Some("50000"))], false))?;
    pair.every("of a group, nothing", |side, _| change(side.name(GROUP), &[], false))?;
    pair.every("of a group, two settings", |side, _| {
        change(side.name(GROUP), &[(SESSION, SET, Some("50000")), (INTERVAL, SET, Some("7000"))], false)
    })?;
    described(pair, "with settings of its own")?;
    pair.settle("of a group with settings of its own", 1, |side| ConsumerGroupHeartbeatRequest {
        group_id: side.name(GROUP),
        member_id: "one".into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(Vec::new()),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    })?;
    pair.ask("a member of a group with settings leaves", 1, |side| ConsumerGroupHeartbeatRequest {
        group_id: side.name(GROUP),
        member_id: "one".into(),
        member_epoch: -1,
        ..Default::default()
    })?;
    pair.every("of a group, whole", |side, _| AlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: OF_GROUP,
            resource_name: side.name(GROUP),
            configs: vec![AlterableConfig { name: INTERVAL.into(), value: Some("8000".into()) }],
        }],
        validate_only: false,
    })?;
    described(pair, "with one setting of its own")?;
    pair.every("of a group, deleted", |side, _| change(side.name(GROUP), &[(INTERVAL, DELETE, None)], false))?;
    described(pair, "whose settings were deleted")
}

fn change(
    resource_name: StrBytes,
    settings: &[(&'static str, i8, Option<&'static str>)],
    validate_only: bool,
) -> IncrementalAlterConfigsRequest {
    let config = |(name, config_operation, value): &(&'static str, i8, Option<&'static str>)| IncrementalConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(StrBytes::from_static),
    };
    let configs = settings.iter().map(config).collect();
    let resources = vec![IncrementalResource { resource_type: OF_GROUP, resource_name, configs }];
    IncrementalAlterConfigsRequest { resources, validate_only }
}

fn described(pair: &mut Pair, state: &str) -> io::Result<()> {
    pair.settle(&format!("a group {state}"), 4, |side: &Side| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: OF_GROUP,
            resource_name: side.name(GROUP),
            configuration_keys: Some(vec![SESSION.into(), INTERVAL.into()]),
        }],
        include_synonyms: true,
        include_documentation: false,
    })?;
    // Groups of other runs may have settings on one of the brokers only.
    pair.ask_and_clean(
        &format!("groups, one {state}"),
        1,
        |_| ListConfigResourcesRequest { resource_types: vec![OF_GROUP] },
        |answer| answer.config_resources.retain(|found: &ConfigResource| found.resource_name.ends_with(GROUP)),
    )?;
    Ok(())
}
