//! CreatePartitions, AlterConfigs, IncrementalAlterConfigs: topics that change while they are in use.

use crate::pair::{Pair, Side, versions};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::alter_configs::{AlterConfigsResource, AlterableConfig};
use millrace_protocol::messages::create_partitions::{CreatePartitionsAssignment, CreatePartitionsTopic};
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};
use std::io;

/// Its partitions are two.
const TOPIC: &str = "altered";
const OF_TOPIC: i8 = 2;
const OF_BROKER: i8 = 4;
/// Operations on a setting.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 2)?;
    partitions(pair)?;
    whole(pair)?;
    incremental(pair)?;
    lists(pair)?;
    described(pair)?;
    nodes(pair)
}

fn enlarge(topics: Vec<CreatePartitionsTopic>, validate_only: bool) -> CreatePartitionsRequest {
    CreatePartitionsRequest { topics, timeout_ms: 10_000, validate_only }
}

fn partitions(pair: &mut Pair) -> io::Result<()> {
    let topic = |name: StrBytes, count| CreatePartitionsTopic { name, count, assignments: None };
    pair.every("no topic", |_, _| enlarge(Vec::new(), false))?;
    for count in [i32::MIN, -1, 0, 1, 2, 3, i32::MAX] {
        pair.every(&format!("to {count}, only checked"), |side, _| {
            enlarge(vec![topic(side.name(TOPIC), count)], true)
        })?;
    }
    for name in ["", "a/b", "nowhere"] {
        pair.every(&format!("the topic {name:?}"), |side, _| {
            let name = if name == "nowhere" { side.name(name) } else { name.into() };
            enlarge(vec![topic(name, 9)], false)
        })?;
    }
    pair.every("a topic twice", |side, _| {
        enlarge(vec![topic(side.name(TOPIC), 8), topic(side.name(TOPIC), 9)], false)
    })?;
    for assigned in [0, 1, 2] {
        pair.every(&format!("one more, {assigned} assigned, only checked"), |side, _| {
            let assignment = CreatePartitionsAssignment { broker_ids: vec![side.node()] };
            let assignments = Some(vec![assignment; assigned]);
            enlarge(vec![CreatePartitionsTopic { assignments, ..topic(side.name(TOPIC), 3) }], true)
        })?;
    }
    pair.every("one more, good and bad topics", |side, version| {
        let good = topic(side.name(TOPIC), 3 + i32::from(version));
        enlarge(vec![good, topic(side.name("nowhere"), 3), topic("a/b".into(), 3)], false)
    })
}

fn replace(resources: Vec<AlterConfigsResource>, validate_only: bool) -> AlterConfigsRequest {
    AlterConfigsRequest { resources, validate_only }
}

fn whole(pair: &mut Pair) -> io::Result<()> {
    let of = |resource_type, resource_name, configs| AlterConfigsResource { resource_type, resource_name, configs };
    let config = |name: &'static str, value: Option<&'static str>| AlterableConfig {
        name: name.into(),
        value: value.map(StrBytes::from_static),
    };
    pair.every("no resource", |_, _| replace(Vec::new(), false))?;
    for (name, value) in SETTINGS {
        pair.every(&format!("{name} = {value:?}, only checked"), |side, _| {
            replace(vec![of(OF_TOPIC, side.name(TOPIC), vec![config(name, *value)])], true)
        })?;
    }
    pair.every("a resource twice", |side, _| {
        let resource = of(OF_TOPIC, side.name(TOPIC), vec![config("retention.ms", Some("5000"))]);
        replace(vec![resource.clone(), resource], false)
    })?;
    pair.every("a setting twice", |side, _| {
        let configs = vec![config("retention.ms", Some("5000")), config("retention.ms", Some("6000"))];
        replace(vec![of(OF_TOPIC, side.name(TOPIC), configs)], true)
    })?;
    for (kind, name) in STRANGE_RESOURCES {
        pair.every(&format!("type {kind}, {name:?}"), |_, _| {
            replace(vec![of(*kind, (*name).into(), Vec::new())], true)
        })?;
    }
    pair.every("an unknown topic", |side, _| replace(vec![of(OF_TOPIC, side.name("nowhere"), Vec::new())], false))?;
    pair.every("two settings", |side, _| {
        let configs = vec![config("retention.ms", Some("5000")), config("flush.ms", Some("7"))];
        replace(vec![of(OF_TOPIC, side.name(TOPIC), configs)], false)
    })?;
    described(pair)?;
    pair.every("one setting, the others to their defaults", |side, _| {
        replace(vec![of(OF_TOPIC, side.name(TOPIC), vec![config("flush.ms", Some("8"))])], false)
    })?;
    described(pair)
}

const SETTINGS: &[(&str, Option<&str>)] = &[
    ("retention.ms", Some("1000")),
    ("retention.ms", Some("-2")),
    ("retention.ms", Some("soon")),
    ("retention.ms", Some("")),
    ("retention.ms", None),
    ("no.such.setting", Some("1")),
    ("", Some("1")),
    ("cleanup.policy", Some("")),
    ("cleanup.policy", Some("compact,delete")),
    ("cleanup.policy", Some("keep")),
    ("compression.type", Some("zstd")),
    ("max.message.bytes", Some("-1")),
    ("min.insync.replicas", Some("0")),
];

const STRANGE_RESOURCES: &[(i8, &str)] =
    &[(0, "some"), (1, "some"), (OF_TOPIC, ""), (OF_TOPIC, "a/b"), (OF_BROKER, "first"), (99, "some"), (-1, "")];

fn change(resources: Vec<IncrementalResource>, validate_only: bool) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest { resources, validate_only }
}

fn of_topic(side: &Side, configs: Vec<IncrementalConfig>) -> IncrementalResource {
    IncrementalResource { resource_type: OF_TOPIC, resource_name: side.name(TOPIC), configs }
}

fn operation(name: &'static str, config_operation: i8, value: Option<&'static str>) -> IncrementalConfig {
    IncrementalConfig { name: name.into(), config_operation, value: value.map(StrBytes::from_static) }
}

fn incremental(pair: &mut Pair) -> io::Result<()> {
    pair.every("no resource", |_, _| change(Vec::new(), false))?;
    for (name, value) in SETTINGS {
        for kind in [SET, DELETE, APPEND, SUBTRACT, 4, -1] {
            pair.every(&format!("{name} = {value:?} by operation {kind}, only checked"), |side, _| {
                change(vec![of_topic(side, vec![operation(name, kind, *value)])], true)
            })?;
        }
    }
    pair.every("a resource twice", |side, _| {
        let resource = of_topic(side, vec![operation("retention.ms", SET, Some("5000"))]);
        change(vec![resource.clone(), resource], false)
    })?;
    pair.every("a setting twice", |side, _| {
        let configs = vec![operation("retention.ms", SET, Some("5000")), operation("retention.ms", DELETE, None)];
        change(vec![of_topic(side, configs)], true)
    })?;
    for (kind, name) in STRANGE_RESOURCES {
        pair.every(&format!("type {kind}, {name:?}"), |_, _| {
            let resource_name = (*name).into();
            change(vec![IncrementalResource { resource_type: *kind, resource_name, configs: Vec::new() }], true)
        })?;
    }
    pair.every("an unknown topic", |side, _| {
        let resource_name = side.name("nowhere");
        change(vec![IncrementalResource { resource_type: OF_TOPIC, resource_name, configs: Vec::new() }], false)
    })
}

/// What settings of brokers can be changed to, and what they are then. In the end they are what they were.
fn nodes(pair: &mut Pair) -> io::Result<()> {
    let all = |_: &Side| StrBytes::new();
    let own = |side: &Side| StrBytes::from(side.node().to_string());
    let of = |name: StrBytes, configs| IncrementalResource { resource_type: OF_BROKER, resource_name: name, configs };
    for (whose, name) in [("all brokers", &all as &dyn Fn(&Side) -> StrBytes), ("a broker", &own)] {
        for (setting, value) in NODE_SETTINGS {
            for kind in [SET, DELETE, APPEND, SUBTRACT] {
                let case = format!("{setting} = {value:?} of {whose} by operation {kind}, only checked");
                pair.every(&case, |side, _| {
                    change(vec![of(name(side), vec![operation(setting, kind, *value)])], true)
                })?;
            }
            for version in versions::<AlterConfigsRequest>() {
                let case = format!("{setting} = {value:?} of {whose}, only checked");
                let make = |side: &Side, is_left| {
                    let resource_name = name(side);
                    let set = |name: &'static str, value| AlterableConfig { name: name.into(), value };
                    let mut configs = vec![set(setting, value.map(StrBytes::from_static))];
                    if is_left && resource_name.is_empty() {
                        // Kafka sets it itself for all nodes, and refuses to have it taken away.
                        configs.push(set("min.insync.replicas", Some("1".into())));
                    }
                    replace(vec![AlterConfigsResource { resource_type: OF_BROKER, resource_name, configs }], true)
                };
                pair.ask_each(&case, version, make, |_| {})?;
            }
        }
        pair.every(&format!("a setting of {whose} twice, only checked"), |side, _| {
            let configs = vec![
                operation("log.retention.ms", SET, Some("5000")),
                operation("log.retention.ms", SET, Some("6000")),
            ];
            change(vec![of(name(side), configs)], true)
        })?;
        pair.every(&format!("good and bad settings of {whose}, only checked"), |side, _| {
            let configs =
                vec![operation("log.retention.ms", SET, Some("5000")), operation("num.partitions", SET, Some("2"))];
            change(vec![of(name(side), configs)], true)
        })?;
    }
    for name in ["999", "-1", " ", "first"] {
        pair.every(&format!("the broker {name:?}, only checked"), |_, _| {
            change(vec![of(name.into(), vec![operation("log.retention.ms", SET, Some("5000"))])], true)
        })?;
    }
    let steps = [
        (true, SET, "log.retention.ms", Some("90000000")),
        (false, SET, "log.retention.ms", Some("80000000")),
        (true, SET, "message.max.bytes", Some("2000000")),
        (false, DELETE, "log.retention.ms", None),
        (true, DELETE, "log.retention.ms", None),
        (true, DELETE, "message.max.bytes", None),
    ];
    for (at, (of_all, kind, setting, value)) in steps.into_iter().enumerate() {
        pair.ask(&format!("step {at}: {setting} of all brokers {of_all}"), 1, |side| {
            let name = if of_all { all(side) } else { own(side) };
            change(vec![of(name, vec![operation(setting, kind, value)])], false)
        })?;
        described_nodes(pair, at)?;
    }
    Ok(())
}

const NODE_SETTINGS: &[(&str, Option<&str>)] = &[
    ("log.retention.ms", Some("80000000")),
    ("log.retention.ms", Some("-2")),
    ("log.retention.ms", Some("soon")),
    ("log.retention.ms", Some("")),
    ("log.retention.ms", None),
    ("log.cleanup.policy", Some("compact")),
    ("log.cleanup.policy", Some("keep")),
    ("log.message.timestamp.type", Some("LogAppendTime")),
    ("compression.type", Some("producer")),
    ("compression.type", Some("zstd")),
    ("message.max.bytes", Some("-1")),
    ("unclean.leader.election.enable", Some("true")),
    ("num.partitions", Some("3")),
    ("log.retention.hours", Some("3")),
    ("broker.id", Some("3")),
    ("node.id", Some("3")),
    ("auto.create.topics.enable", Some("false")),
    ("retention.ms", Some("80000000")),
    ("no.such.setting", Some("1")),
    ("", Some("1")),
];

/// What the settings of brokers, and of a topic that takes them, are by now.
fn described_nodes(pair: &mut Pair, at: usize) -> io::Result<()> {
    let of = |resource_type, resource_name, keys: &[&'static str]| DescribeConfigsResource {
        resource_type,
        resource_name,
        configuration_keys: Some(keys.iter().map(|key| (*key).into()).collect()),
    };
    let keys = ["log.retention.ms", "message.max.bytes"];
    let request = |side: &Side| DescribeConfigsRequest {
        resources: vec![
            of(OF_BROKER, side.node().to_string().into(), &keys),
            of(OF_BROKER, StrBytes::new(), &keys),
            of(OF_TOPIC, side.name(TOPIC), &["retention.ms", "max.message.bytes"]),
        ],
        include_synonyms: true,
        ..Default::default()
    };
    pair.settle(&format!("the brokers' settings after step {at}"), 4, request)
}

fn lists(pair: &mut Pair) -> io::Result<()> {
    let steps: &[(i8, Option<&'static str>)] = &[
        (APPEND, Some("compact")),
        (APPEND, Some("compact")),
        (SUBTRACT, Some("delete")),
        (SUBTRACT, Some("delete")),
        (APPEND, Some("delete,compact")),
        (DELETE, None),
        (SUBTRACT, Some("delete")),
        (SET, Some("compact")),
        (DELETE, Some("ignored")),
    ];
    for (at, (kind, value)) in steps.iter().enumerate() {
        pair.ask(&format!("step {at} of a list"), 1, |side| {
            change(vec![of_topic(side, vec![operation("cleanup.policy", *kind, *value)])], false)
        })?;
        described(pair)?;
    }
    Ok(())
}

/// What the topic's settings are by now.
fn described(pair: &mut Pair) -> io::Result<()> {
    let keys = ["cleanup.policy", "retention.ms", "flush.ms"].map(Into::into).to_vec();
    let request = |side: &Side| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: OF_TOPIC,
            resource_name: side.name(TOPIC),
            configuration_keys: Some(keys.clone()),
        }],
        include_synonyms: true,
        ..Default::default()
    };
    pair.settle("the altered topic", 4, request)
}
