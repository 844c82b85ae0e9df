//! OffsetCommit and OffsetFetch outside of a group's protocol.

use crate::pair::{Pair, Side, versions};
use bytes::{BufMut, Bytes, BytesMut};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use millrace_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use millrace_protocol::messages::{
    DeleteGroupsRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use std::io;
use uuid::Uuid;

/// A topic and the partitions of it that are asked for.
type Asked<'a> = (&'a str, &'a [i32]);

const TOPIC: &str = "committed";
const GROUP: &str = "committers";
/// From this version on topics are named by id, and several groups asked for.
const TOPIC_IDS: i16 = 10;
const MANY_GROUPS: i16 = 8;
const NULL_TOPICS: i16 = 2;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 4)?;
    fetch(pair, "before any commit")?;
    commits(pair)?;
    members(pair)?;
    fetch(pair, "after commits")?;
    delete(pair)?;
    delete_beside_members(pair)?;
    fetch(pair, "after deletion of offsets")?;
    pair.every("a group with offsets", |side, version| DeleteGroupsRequest {
        groups_names: if version == 2 { vec![side.name(GROUP)] } else { Vec::new() },
    })?;
    fetch(pair, "after deletion")?;
    // Kafka has it since something was committed to it.
    pair.ask("the group without a name", 2, |_| DeleteGroupsRequest { groups_names: vec![StrBytes::new()] })?;
    Ok(())
}

fn delete(pair: &mut Pair) -> io::Result<()> {
    let of = |side: &Side, group: &str, name: &str, partitions: &[i32]| OffsetDeleteRequest {
        group_id: if group.is_empty() { StrBytes::new() } else { side.name(group) },
        topics: vec![OffsetDeleteRequestTopic {
            name: side.name(name),
            partitions: partitions
                .iter()
                .map(|&partition_index| OffsetDeleteRequestPartition { partition_index })
                .collect(),
        }],
    };
    pair.every("no topic", |side, _| OffsetDeleteRequest { group_id: side.name(GROUP), topics: Vec::new() })?;
    for group in ["", "unheard-of"] {
        pair.every(&format!("the group {group:?}"), |side, _| of(side, group, TOPIC, &[0]))?;
    }
    pair.every("an unknown topic", |side, _| of(side, GROUP, "nowhere", &[0]))?;
    pair.every("good and bad partitions", |side, _| of(side, GROUP, TOPIC, &[0, 9, -1, 0]))?;
    pair.every("what is deleted", |side, _| of(side, GROUP, TOPIC, &[0]))
}

/// Offsets of groups with a member whose subscription is to the topic, to another, or can't be read.
fn delete_beside_members(pair: &mut Pair) -> io::Result<()> {
    for (kind, topic) in
        [("consumer", Some(TOPIC)), ("consumer", Some("nowhere")), ("consumer", None), ("connect", None)]
    {
        let group = format!("of-{kind}-{topic:?}");
        let delete = |side: &Side| OffsetDeleteRequest {
            group_id: side.name(&group),
            topics: vec![OffsetDeleteRequestTopic {
                name: side.name(TOPIC),
                partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
            }],
        };
        let subscription = |side: &Side| {
            let Some(topic) = topic else { return Bytes::from_static(b"?") };
            let mut bytes = BytesMut::new();
            let name = side.name(topic);
            bytes.put_i16(0);
            bytes.put_i32(1);
            bytes.put_i16(name.len().try_into().expect("a short name"));
            bytes.put_slice(name.as_bytes());
            bytes.put_i32(-1);
            bytes.freeze()
        };
        let joined = pair.ask(&format!("a member {group}"), 3, |side| JoinGroupRequest {
            group_id: side.name(&group),
            session_timeout_ms: 30_000,
            rebalance_timeout_ms: 30_000,
            protocol_type: kind.into(),
            protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: subscription(side) }],
            ..Default::default()
        })?;
        joined.keep(pair, |side, answer| side.member = answer.member_id);
        pair.ask(&format!("{group}, that completes a rebalance"), 0, delete)?;
        pair.ask(&format!("the leader {group}"), 3, |side| SyncGroupRequest {
            group_id: side.name(&group),
            generation_id: 1,
            member_id: side.member.clone(),
            ..Default::default()
        })?;
        pair.ask(&format!("{group}, that is stable"), 0, delete)?;
        pair.ask(&format!("a member {group} leaves"), 1, |side| LeaveGroupRequest {
            group_id: side.name(&group),
            member_id: side.member.clone(),
            ..Default::default()
        })?;
        pair.ask(&format!("{group}, that is empty"), 0, delete)?;
    }
    Ok(())
}

fn partition(partition_index: i32, committed_offset: i64) -> OffsetCommitRequestPartition {
    OffsetCommitRequestPartition { partition_index, committed_offset, ..Default::default() }
}

fn topic(
    side: &Side,
    version: i16,
    topic: &str,
    partitions: Vec<OffsetCommitRequestPartition>,
) -> OffsetCommitRequestTopic {
    if version >= TOPIC_IDS {
        OffsetCommitRequestTopic { topic_id: side.id(topic), partitions, ..Default::default() }
    } else {
        OffsetCommitRequestTopic { name: side.name(topic), partitions, ..Default::default() }
    }
}

fn commit(side: &Side, topics: Vec<OffsetCommitRequestTopic>) -> OffsetCommitRequest {
    OffsetCommitRequest { group_id: side.name(GROUP), topics, ..Default::default() }
}

fn commits(pair: &mut Pair) -> io::Result<()> {
    for offset in [0, 7, i64::MAX, -1, -2, i64::MIN] {
        pair.every(&format!("offset {offset}"), |side, version| {
            commit(side, vec![topic(side, version, TOPIC, vec![partition(0, offset)])])
        })?;
    }
    for (case, metadata) in [
        ("null metadata", None),
        ("empty metadata", Some(String::new())),
        ("some metadata", Some("noted".to_owned())),
        ("metadata at the limit", Some("m".repeat(4_096))),
        ("metadata above the limit", Some("m".repeat(4_097))),
    ] {
        pair.every(case, |side, version| {
            let committed_metadata = metadata.clone().map(StrBytes::from);
            let partition = OffsetCommitRequestPartition { committed_metadata, ..partition(1, 5) };
            commit(side, vec![topic(side, version, TOPIC, vec![partition])])
        })?;
    }
    pair.every("a leader epoch", |side, version| {
        let committed_leader_epoch = if version >= 6 { 3 } else { -1 };
        let partition = OffsetCommitRequestPartition { committed_leader_epoch, ..partition(2, 9) };
        commit(side, vec![topic(side, version, TOPIC, vec![partition])])
    })?;
    pair.every("a retention time", |side, version| OffsetCommitRequest {
        retention_time_ms: if version <= 4 { 1_000 } else { -1 },
        ..commit(side, vec![topic(side, version, TOPIC, vec![partition(0, 4)])])
    })?;
    pair.every("an unknown topic", |side, version| {
        commit(side, vec![topic(side, version, "nowhere", vec![partition(0, 1)])])
    })?;
    pair.every("good and bad partitions", |side, version| {
        let known = topic(side, version, TOPIC, vec![partition(0, 2), partition(99, 2), partition(-1, 2)]);
        commit(side, vec![known, topic(side, version, "nowhere", vec![partition(0, 1)])])
    })?;
    pair.every("a partition twice", |side, version| {
        commit(side, vec![topic(side, version, TOPIC, vec![partition(3, 2), partition(3, 6)])])
    })?;
    pair.every("an empty name or id", |side, _| {
        let nameless = OffsetCommitRequestTopic { partitions: vec![partition(0, 1)], ..Default::default() };
        commit(side, vec![nameless])
    })?;
    pair.every("a topic without partitions", |side, version| {
        commit(side, vec![topic(side, version, TOPIC, Vec::new())])
    })?;
    pair.every("no topic", |side, _| commit(side, Vec::new()))
}

fn members(pair: &mut Pair) -> io::Result<()> {
    let one = |side: &Side, version| commit(side, vec![topic(side, version, TOPIC, vec![partition(0, 3)])]);
    for generation in [0, 1, -1, -2] {
        for member in ["", "someone"] {
            pair.every(&format!("generation {generation}, member {member:?}"), |side, version| OffsetCommitRequest {
                generation_id_or_member_epoch: generation,
                member_id: member.into(),
                ..one(side, version)
            })?;
            pair.every(&format!("an unknown group, generation {generation}, member {member:?}"), |side, version| {
                OffsetCommitRequest {
                    group_id: side.name(&format!("new-{version}-{generation}-{member}")),
                    generation_id_or_member_epoch: generation,
                    member_id: member.into(),
                    ..one(side, version)
                }
            })?;
        }
    }
    pair.every("an unknown instance", |side, version| OffsetCommitRequest {
        group_instance_id: (version >= 7).then(|| "instance".into()),
        ..one(side, version)
    })?;
    pair.every("an empty group id", |side, version| OffsetCommitRequest {
        group_id: StrBytes::new(),
        ..one(side, version)
    })?;
    pair.every("an empty group id and an unknown topic", |side, version| OffsetCommitRequest {
        group_id: StrBytes::new(),
        ..commit(side, vec![topic(side, version, "nowhere", vec![partition(0, 1)])])
    })
}

/// Asks for these partitions, `None` for all, in the form of the version.
fn fetching(side: &Side, version: i16, group: StrBytes, topics: Option<&[(&str, &[i32])]>) -> OffsetFetchRequest {
    if version < MANY_GROUPS {
        let named = |(name, indexes): &(&str, &[i32])| OffsetFetchRequestTopic {
            name: side.name(name),
            partition_indexes: indexes.to_vec(),
        };
        let topics = topics.map(|topics| topics.iter().map(named).collect());
        return OffsetFetchRequest { group_id: group, topics, ..Default::default() };
    }
    OffsetFetchRequest { groups: vec![group_of(side, version, group, topics)], ..Default::default() }
}

fn group_of(
    side: &Side,
    version: i16,
    group_id: StrBytes,
    topics: Option<&[(&str, &[i32])]>,
) -> OffsetFetchRequestGroup {
    let named = |(name, indexes): &(&str, &[i32])| {
        let by_id = version >= TOPIC_IDS;
        OffsetFetchRequestTopics {
            name: if by_id { StrBytes::new() } else { side.name(name) },
            topic_id: if by_id { side.id(name) } else { Uuid::nil() },
            partition_indexes: indexes.to_vec(),
        }
    };
    let topics = topics.map(|topics| topics.iter().map(named).collect());
    OffsetFetchRequestGroup { group_id, topics, ..Default::default() }
}

fn fetch(pair: &mut Pair, when: &str) -> io::Result<()> {
    let cases: [(&str, Option<&[Asked<'_>]>); 6] = [
        ("partitions", Some(&[(TOPIC, &[0, 1, 2, 3])])),
        ("unknown partitions", Some(&[(TOPIC, &[0, 99, -1]), ("nowhere", &[0])])),
        ("a partition twice", Some(&[(TOPIC, &[0, 0])])),
        ("no partition", Some(&[(TOPIC, &[])])),
        ("no topic", Some(&[])),
        ("all topics", None),
    ];
    for (case, topics) in cases {
        for version in versions::<OffsetFetchRequest>().filter(|v| topics.is_some() || *v >= NULL_TOPICS) {
            for (of, group) in [("", GROUP), (" of an unknown group", "unheard-of"), (" of no group", "")] {
                pair.ask(&format!("{case}{of}, {when}"), version, |side| {
                    let group = if group.is_empty() { StrBytes::new() } else { side.name(group) };
                    fetching(side, version, group, topics)
                })?;
            }
            pair.ask(&format!("{case}, stable, {when}"), version, |side| OffsetFetchRequest {
                require_stable: version >= 7,
                ..fetching(side, version, side.name(GROUP), topics)
            })?;
        }
    }
    for version in versions::<OffsetFetchRequest>().filter(|version| *version >= MANY_GROUPS) {
        pair.ask(&format!("no group, {when}"), version, |_| OffsetFetchRequest::default())?;
        pair.ask(&format!("several groups, {when}"), version, |side| {
            let of = |group: &str| group_of(side, version, side.name(group), None);
            OffsetFetchRequest { groups: vec![of(GROUP), of("unheard-of"), of(GROUP)], ..Default::default() }
        })?;
    }
    for version in versions::<OffsetFetchRequest>().filter(|version| *version >= 9) {
        for (member, epoch) in [("someone", 3), ("", 0), ("", -1)] {
            pair.ask(&format!("member {member:?} epoch {epoch}, {when}"), version, |side| {
                let group = group_of(side, version, side.name(GROUP), Some(&[(TOPIC, &[0])]));
                let group = OffsetFetchRequestGroup { member_id: Some(member.into()), member_epoch: epoch, ..group };
                OffsetFetchRequest { groups: vec![group], ..Default::default() }
            })?;
        }
    }
    Ok(())
}
