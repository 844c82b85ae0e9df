//! What is named twice in one request, of those APIs whose own file has no such case.

use super::alone;
use crate::pair::{Pair, Side, versions};
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use millrace_protocol::messages::consumer_group_heartbeat::OwnedTopicPartitions;
use millrace_protocol::messages::describe_log_dirs::DescribableLogDirTopic;
use millrace_protocol::messages::describe_producers::DescribeProducersTopic;
use millrace_protocol::messages::describe_quorum::{DescribeQuorumPartition, DescribeQuorumTopic};
use millrace_protocol::messages::elect_leaders::ElectLeadersTopic;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_delete::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, OffsetDeleteResponseTopic,
};
use millrace_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use millrace_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use millrace_protocol::messages::sync_group::SyncGroupRequestAssignment;
use millrace_protocol::messages::update_features::FeatureUpdateKey;
use millrace_protocol::messages::{
    AlterPartitionReassignmentsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest, ElectLeadersRequest, JoinGroupRequest,
    LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, SyncGroupRequest, UpdateFeaturesRequest,
};
use std::io;
use uuid::Uuid;

/// Its partitions are three, and empty.
const TOPIC: &str = "repeated";
const GROUP: &str = "repeaters";
/// A topic, and partitions of it.
type Asked<'a> = (&'a str, &'a [i32]);

/// From this version on offsets are committed and asked for by the ids of topics; from that one of several groups.
const TOPIC_IDS: i16 = 10;
const MANY_GROUPS: i16 = 8;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 3)?;
    logs(pair)?;
    places(pair)?;
    offsets(pair)?;
    groups(pair)?;
    pair.every("a feature twice", |_, _| {
        let feature = FeatureUpdateKey { feature: "nothing".into(), max_version_level: 1, ..Default::default() };
        UpdateFeaturesRequest { feature_updates: vec![feature.clone(), feature], ..Default::default() }
    })?;
    pair.ask("a type twice", 1, |_| ListConfigResourcesRequest { resource_types: vec![2, 2] })?;
    for version in versions::<ListGroupsRequest>() {
        let request = |_: &Side| ListGroupsRequest {
            states_filter: if version >= 4 { vec!["Empty".into(); 2] } else { Vec::new() },
            types_filter: if version >= 5 { vec!["classic".into(); 2] } else { Vec::new() },
        };
        pair.ask_and_clean("a state and a type twice", version, request, alone(GROUP))?;
    }
    Ok(())
}

fn logs(pair: &mut Pair) -> io::Result<()> {
    pair.every("a topic twice", |side, _| {
        let topic = |partition_index| ListOffsetsTopic {
            name: side.name(TOPIC),
            partitions: vec![ListOffsetsPartition { partition_index, timestamp: -1, ..Default::default() }],
        };
        ListOffsetsRequest { replica_id: -1, topics: vec![topic(0), topic(1)], ..Default::default() }
    })?;
    pair.every("a topic twice", |side, _| {
        let topic = |partition| OffsetForLeaderTopic {
            topic: side.name(TOPIC),
            partitions: vec![OffsetForLeaderPartition { partition, leader_epoch: side.epoch, ..Default::default() }],
        };
        OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic(0), topic(1)] }
    })?;
    for (case, indexes) in [("a partition twice", [0, 0]), ("a topic twice", [0, 1])] {
        pair.every(case, |side, _| {
            let topic = |partition_indexes| DescribeProducersTopic { name: side.name(TOPIC), partition_indexes };
            let topics = if indexes[1] == 0 {
                vec![topic(indexes.to_vec())]
            } else {
                indexes.iter().map(|index| topic(vec![*index])).collect()
            };
            DescribeProducersRequest { topics }
        })?;
    }
    Ok(())
}

fn places(pair: &mut Pair) -> io::Result<()> {
    pair.every("a topic twice", |side, _| {
        let topic = |partition| DescribableLogDirTopic { topic: side.name(TOPIC), partitions: vec![partition] };
        DescribeLogDirsRequest { topics: Some(vec![topic(0), topic(1)]) }
    })?;
    pair.every("a topic twice", |_, _| {
        let topic = |partition_index| DescribeQuorumTopic {
            topic_name: "other".into(),
            partitions: vec![DescribeQuorumPartition { partition_index }],
        };
        DescribeQuorumRequest { topics: vec![topic(0), topic(1)] }
    })?;
    let cases: [(&str, &[&[i32]]); 2] = [("a partition twice", &[&[0, 0]]), ("a topic twice", &[&[0], &[1]])];
    for (case, indexes) in cases {
        pair.every(case, |side, _| ElectLeadersRequest {
            topic_partitions: Some(
                indexes
                    .iter()
                    .map(|indexes| ElectLeadersTopic { topic: side.name(TOPIC), partitions: indexes.to_vec() })
                    .collect(),
            ),
            timeout_ms: 5_000,
            ..Default::default()
        })?;
        pair.every(case, |side, _| AlterPartitionReassignmentsRequest {
            topics: indexes
                .iter()
                .map(|indexes| ReassignableTopic {
                    name: side.name(TOPIC),
                    partitions: indexes
                        .iter()
                        .map(|&partition_index| ReassignablePartition { partition_index, replicas: None })
                        .collect(),
                })
                .collect(),
            ..Default::default()
        })?;
        pair.every(case, |side, _| ListPartitionReassignmentsRequest {
            topics: Some(
                indexes
                    .iter()
                    .map(|indexes| ListPartitionReassignmentsTopics {
                        name: side.name(TOPIC),
                        partition_indexes: indexes.to_vec(),
                    })
                    .collect(),
            ),
            ..Default::default()
        })?;
    }
    Ok(())
}

/// A topic by the name or id that a version takes.
fn named(side: &Side, version: i16) -> (StrBytes, Uuid) {
    if version >= TOPIC_IDS { (StrBytes::new(), side.id(TOPIC)) } else { (side.name(TOPIC), Uuid::nil()) }
}

fn offsets(pair: &mut Pair) -> io::Result<()> {
    pair.every("a topic twice", |side, version| {
        let (name, topic_id) = named(side, version);
        let topic = |partition_index, committed_offset| OffsetCommitRequestTopic {
            name: name.clone(),
            topic_id,
            partitions: vec![OffsetCommitRequestPartition { partition_index, committed_offset, ..Default::default() }],
        };
        // The last one stays, so that the group does.
        let topics = vec![topic(0, 3), topic(0, 5), topic(2, 7)];
        OffsetCommitRequest { group_id: side.name(GROUP), topics, ..Default::default() }
    })?;
    for version in versions::<OffsetFetchRequest>() {
        pair.ask("a topic twice", version, |side| {
            let (name, topic_id) = named(side, version);
            if version < MANY_GROUPS {
                let topic = |index| OffsetFetchRequestTopic { name: name.clone(), partition_indexes: vec![index] };
                let topics = Some(vec![topic(0), topic(1), topic(0)]);
                return OffsetFetchRequest { group_id: side.name(GROUP), topics, ..Default::default() };
            }
            let topic =
                |index| OffsetFetchRequestTopics { name: name.clone(), topic_id, partition_indexes: vec![index] };
            let topics = Some(vec![topic(0), topic(1), topic(0)]);
            let group = OffsetFetchRequestGroup { group_id: side.name(GROUP), topics, ..Default::default() };
            OffsetFetchRequest { groups: vec![group], ..Default::default() }
        })?;
    }
    let deleting = |side: &Side, topics: &[Asked<'_>]| OffsetDeleteRequest {
        group_id: side.name(GROUP),
        topics: topics
            .iter()
            .map(|(name, indexes)| OffsetDeleteRequestTopic {
                name: side.name(name),
                partitions: indexes
                    .iter()
                    .map(|&partition_index| OffsetDeleteRequestPartition { partition_index })
                    .collect(),
            })
            .collect(),
    };
    let cases: [(&str, &[Asked<'_>]); 4] = [
        ("topics without partitions", &[(TOPIC, &[]), ("nowhere", &[])]),
        ("a topic twice", &[(TOPIC, &[0]), (TOPIC, &[1, 7])]),
        ("a topic twice, the partition too", &[(TOPIC, &[0]), (TOPIC, &[0])]),
        ("an unknown topic twice", &[("nowhere", &[0]), ("nowhere", &[1])]),
    ];
    for (case, topics) in cases {
        pair.ask_and_clean(case, 0, |side| deleting(side, topics), gathered)?;
    }
    Ok(())
}

/// Puts the partitions of each topic together: Kafka does where one of them is refused at once, and only there.
fn gathered(response: &mut OffsetDeleteResponse) {
    let mut topics: Vec<OffsetDeleteResponseTopic> = Vec::new();
    for mut topic in std::mem::take(&mut response.topics) {
        match topics.iter_mut().find(|known| known.name == topic.name) {
            Some(known) => known.partitions.append(&mut topic.partitions),
            None => topics.push(topic),
        }
    }
    response.topics = topics;
}

fn groups(pair: &mut Pair) -> io::Result<()> {
    const PROTOCOLS: &str = "repeated-protocols";
    const ASSIGNMENTS: &str = "repeated-assignments";
    pair.every("twice", |side, _| ConsumerGroupDescribeRequest {
        group_ids: vec![side.name("a"), side.name("a")],
        ..Default::default()
    })?;
    let protocol = |metadata: &'static [u8]| JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Bytes::from_static(metadata),
    };
    let joining = |side: &Side, group: &str, protocols: &[&'static [u8]]| JoinGroupRequest {
        group_id: side.name(group),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: side.member.clone(),
        protocol_type: "custom".into(),
        protocols: protocols.iter().map(|&metadata| protocol(metadata)).collect(),
        ..Default::default()
    };
    let leaving = |side: &Side, group: &str| LeaveGroupRequest {
        group_id: side.name(group),
        member_id: side.member.clone(),
        ..Default::default()
    };
    let cases: [(&str, &str, &[&'static [u8]]); 2] =
        [("a protocol twice", PROTOCOLS, &[b"first", b"second"]), ("a protocol", ASSIGNMENTS, &[b"first"])];
    for (case, group, protocols) in cases {
        (pair.left.member, pair.right.member) = (StrBytes::new(), StrBytes::new());
        let joined = pair.ask(&format!("{case}, without an id"), 4, |side| joining(side, group, protocols))?;
        joined.keep(pair, |side, answer| side.member = answer.member_id);
        pair.ask(case, 4, |side| joining(side, group, protocols))?;
        if group == ASSIGNMENTS {
            pair.ask("an assignment twice", 3, |side| {
                let assigned = |assignment: &'static [u8]| SyncGroupRequestAssignment {
                    member_id: side.member.clone(),
                    assignment: Bytes::from_static(assignment),
                };
                SyncGroupRequest {
                    group_id: side.name(group),
                    generation_id: 1,
                    member_id: side.member.clone(),
                    assignments: vec![assigned(b"first"), assigned(b"second")],
                    ..Default::default()
                }
            })?;
        }
        pair.ask(&format!("{case}, who leaves"), 1, |side| leaving(side, group))?;
    }
    let beating = |side: &Side, member_epoch, owned: &[&[i32]]| ConsumerGroupHeartbeatRequest {
        group_id: side.name("repeated-topics"),
        member_id: "member".into(),
        member_epoch,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec![side.name(TOPIC), side.name(TOPIC)]),
        topic_partitions: Some(
            owned
                .iter()
                .map(|partitions| OwnedTopicPartitions { topic_id: side.id(TOPIC), partitions: partitions.to_vec() })
                .collect(),
        ),
        ..Default::default()
    };
    pair.ask("a topic twice", 1, |side| beating(side, 0, &[]))?;
    pair.ask("an owned partition twice", 1, |side| beating(side, 2, &[&[0, 0]]))?;
    pair.ask("an owned topic twice", 1, |side| beating(side, 2, &[&[0], &[1]]))?;
    pair.ask("one of a repeated topic leaves", 1, |side| beating(side, -1, &[]))?;
    Ok(())
}
