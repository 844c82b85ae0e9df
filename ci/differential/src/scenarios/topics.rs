//! CreateTopics and DeleteTopics.

use crate::pair::{Pair, Side, versions};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::create_topics::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use millrace_protocol::messages::delete_topics::DeleteTopicState;
use millrace_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use std::io;
use uuid::Uuid;

const TOPIC: &str = "existing";
/// From this version on topics to delete are named by structs, and can be by id.
const DELETED_BY_ID: i16 = 6;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 2)?;
    names(pair)?;
    numbers(pair)?;
    settings(pair)?;
    existing(pair)?;
    delete(pair)
}

fn topic(name: StrBytes) -> CreatableTopic {
    CreatableTopic { name, num_partitions: 1, replication_factor: 1, ..Default::default() }
}

fn creation(topics: Vec<CreatableTopic>, validate_only: bool) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only }
}

/// Only checks: nothing is left behind, so that every version finds the same.
fn checked(pair: &mut Pair, case: &str, change: impl Fn(&Side, CreatableTopic) -> CreatableTopic) -> io::Result<()> {
    pair.every(case, |side, _| creation(vec![change(side, topic(side.name("new")))], true))
}

fn names(pair: &mut Pair) -> io::Result<()> {
    for illegal in ["", ".", "..", "a b", "a/b", "ä", "a\n", "__consumer_offsets", "__transaction_state"] {
        checked(pair, &format!("the name {illegal:?}"), |_, new| CreatableTopic { name: illegal.into(), ..new })?;
    }
    checked(pair, "a name of 250 characters", |_, new| CreatableTopic { name: "x".repeat(250).into(), ..new })?;
    checked(pair, "a name of 249 characters", |_, new| CreatableTopic { name: "x".repeat(249).into(), ..new })?;
    checked(pair, "a legal name", |_, new| new)?;
    pair.every("no topic", |_, _| creation(Vec::new(), false))?;
    pair.every("a topic twice", |side, _| {
        creation(vec![topic(side.name("twice")), topic(side.name("once")), topic(side.name("twice"))], true)
    })
}

fn numbers(pair: &mut Pair) -> io::Result<()> {
    for num_partitions in [0, -2, i32::MIN] {
        checked(pair, &format!("{num_partitions} partitions"), |_, new| CreatableTopic { num_partitions, ..new })?;
    }
    for replication_factor in [-1, 0, 1, 2, 3, -2, i16::MAX, i16::MIN] {
        checked(pair, &format!("replication factor {replication_factor}"), |_, new| CreatableTopic {
            replication_factor,
            ..new
        })?;
    }
    let assigned = |side: &Side, indexes: &[i32], node: i32| -> Vec<CreatableReplicaAssignment> {
        let broker_ids = vec![if node == 0 { side.node() } else { node }];
        let assign = |&partition_index| CreatableReplicaAssignment { partition_index, broker_ids: broker_ids.clone() };
        indexes.iter().map(assign).collect()
    };
    for (case, indexes) in [
        ("one partition", &[0][..]),
        ("three partitions", &[2, 0, 1]),
        ("a gap", &[0, 2]),
        ("a partition twice", &[0, 0]),
        ("a negative partition", &[-1, 0]),
    ] {
        checked(pair, &format!("assignments: {case}"), |side, new| CreatableTopic {
            num_partitions: -1,
            replication_factor: -1,
            assignments: assigned(side, indexes, 0),
            ..new
        })?;
    }
    checked(pair, "assignments: an unknown broker", |side, new| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: assigned(side, &[0], 999),
        ..new
    })?;
    checked(pair, "assignments: no replica", |_, new| CreatableTopic {
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![CreatableReplicaAssignment::default()],
        ..new
    })?;
    checked(pair, "assignments beside a number of partitions", |side, new| CreatableTopic {
        assignments: assigned(side, &[0], 0),
        ..new
    })?;
    checked(pair, "assignments beside a replication factor", |side, new| CreatableTopic {
        num_partitions: -1,
        assignments: assigned(side, &[0], 0),
        ..new
    })
}

fn settings(pair: &mut Pair) -> io::Result<()> {
    let cases: &[(&str, Option<&str>)] = &[
        ("no.such.setting", Some("1")),
        ("", Some("1")),
        ("retention.ms", None),
        ("retention.ms", Some("")),
        ("retention.ms", Some("soon")),
        ("retention.ms", Some("-1")),
        ("retention.ms", Some("-2")),
        ("retention.ms", Some(" 1000 ")),
        ("retention.bytes", Some("-2")),
        ("retention.bytes", Some("-1")),
        ("cleanup.policy", Some("compact")),
        ("cleanup.policy", Some("compact,delete")),
        ("cleanup.policy", Some("keep")),
        ("cleanup.policy", Some("")),
        ("compression.type", Some("brotli")),
        ("compression.type", Some("zstd")),
        ("compression.gzip.level", Some("0")),
        ("compression.gzip.level", Some("9")),
        ("max.message.bytes", Some("-1")),
        ("max.message.bytes", Some("0")),
        ("max.message.bytes", Some("1000000")),
        ("max.message.bytes", Some("99999999999")),
        ("message.timestamp.type", Some("LogAppendTime")),
        ("message.timestamp.type", Some("Never")),
        ("message.timestamp.after.max.ms", Some("-1")),
        ("message.format.version", Some("3.0")),
        ("message.downconversion.enable", Some("true")),
        ("min.insync.replicas", Some("0")),
        ("min.insync.replicas", Some("3")),
        ("min.cleanable.dirty.ratio", Some("1.5")),
        ("preallocate", Some("yes")),
        ("preallocate", Some("TRUE")),
        ("segment.bytes", Some("1")),
        ("segment.bytes", Some("13")),
        ("segment.bytes", Some("14")),
        ("segment.bytes", Some("1000")),
        ("segment.bytes", Some("1048576")),
        ("segment.ms", Some("0")),
        ("segment.index.bytes", Some("3")),
        ("flush.messages", Some("0")),
        ("max.compaction.lag.ms", Some("0")),
        ("min.compaction.lag.ms", Some("-1")),
        ("remote.storage.enable", Some("true")),
        ("leader.replication.throttled.replicas", Some("*")),
        ("leader.replication.throttled.replicas", Some("nonsense")),
        ("local.retention.ms", Some("-3")),
        ("unclean.leader.election.enable", Some("true")),
    ];
    for (name, value) in cases {
        checked(pair, &format!("{name} = {value:?}"), |_, new| CreatableTopic {
            configs: vec![CreatableTopicConfig { name: (*name).into(), value: value.map(Into::into) }],
            ..new
        })?;
    }
    checked(pair, "a setting twice", |_, new| {
        let setting =
            |value: &'static str| CreatableTopicConfig { name: "retention.ms".into(), value: Some(value.into()) };
        CreatableTopic { configs: vec![setting("1000"), setting("2000")], ..new }
    })
}

fn existing(pair: &mut Pair) -> io::Result<()> {
    for validate_only in [true, false] {
        pair.every(&format!("an existing topic, validate only {validate_only}"), |side, _| {
            creation(vec![topic(side.name(TOPIC))], validate_only)
        })?;
    }
    pair.every("a name that collides", |side, _| {
        creation(vec![topic(side.name("a.b")), topic(side.name("a_b"))], true)
    })?;
    pair.every("good and bad topics", |side, version| {
        let good = CreatableTopic { num_partitions: 2, ..topic(side.name(&format!("made-{version}"))) };
        let bad = CreatableTopic { num_partitions: 0, ..topic(side.name("none")) };
        creation(vec![good, bad, topic(side.name(TOPIC)), topic("a/b".into())], false)
    })?;
    pair.every("what exists by now", |side, version| {
        creation(vec![topic(side.name(&format!("made-{version}")))], false)
    })?;
    pair.every("an unknown setting beside an existing name", |side, _| {
        let configs = vec![CreatableTopicConfig { name: "no.such.setting".into(), value: Some("1".into()) }];
        creation(vec![CreatableTopic { configs, ..topic(side.name(TOPIC)) }], true)
    })
}

fn by_name(version: i16, names: Vec<StrBytes>) -> DeleteTopicsRequest {
    if version < DELETED_BY_ID {
        return DeleteTopicsRequest { topic_names: names, timeout_ms: 10_000, ..Default::default() };
    }
    let state = |name| DeleteTopicState { name: Some(name), ..Default::default() };
    DeleteTopicsRequest { topics: names.into_iter().map(state).collect(), timeout_ms: 10_000, ..Default::default() }
}

fn delete(pair: &mut Pair) -> io::Result<()> {
    pair.every("no topic", |_, version| by_name(version, Vec::new()))?;
    pair.every("an unknown topic", |side, version| by_name(version, vec![side.name("nowhere")]))?;
    pair.every("an empty name", |_, version| by_name(version, vec![StrBytes::new()]))?;
    pair.every("an illegal name", |_, version| by_name(version, vec!["a/b".into()]))?;
    pair.every("an unknown topic twice", |side, version| {
        by_name(version, vec![side.name("nowhere"), side.name("nowhere")])
    })?;
    for version in versions::<DeleteTopicsRequest>() {
        let name = format!("deleted-{version}");
        pair.make_topic(&name, 1)?;
        pair.ask("a topic twice", version, |side| by_name(version, vec![side.name(&name), side.name(&name)]))?;
        pair.ask("good and bad topics", version, |side| {
            by_name(version, vec![side.name(&name), side.name("nowhere")])
        })?;
        pair.ask("a deleted topic", version, |side| by_name(version, vec![side.name(&name)]))?;
    }
    let ids = |topics| DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    let state = |topic_id, name| DeleteTopicState { name, topic_id };
    let version = DELETED_BY_ID;
    pair.make_topic("by-id", 1)?;
    pair.ask("an unknown id", version, |side| ids(vec![state(side.id("nowhere"), None)]))?;
    pair.ask("neither name nor id", version, |_| ids(vec![state(Uuid::nil(), None)]))?;
    pair.ask("name and id", version, |side| ids(vec![state(side.id("by-id"), Some(side.name("by-id")))]))?;
    pair.ask("an id twice", version, |side| ids(vec![state(side.id("by-id"), None), state(side.id("by-id"), None)]))?;
    pair.ask("a topic by name and by id", version, |side| {
        ids(vec![state(side.id("by-id"), None), state(Uuid::nil(), Some(side.name("by-id")))])
    })?;
    pair.ask("an id", version, |side| ids(vec![state(side.id("by-id"), None)]))?;
    pair.ask("a deleted id", version, |side| ids(vec![state(side.id("by-id"), None)])).map(drop)
}
