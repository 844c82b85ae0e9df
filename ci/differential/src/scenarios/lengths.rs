//! Names that are too long, in every API that takes a name.

use crate::pair::{Pair, Side, versions};
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::alter_configs::AlterConfigsResource;
use millrace_protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use millrace_protocol::messages::create_partitions::CreatePartitionsTopic;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use millrace_protocol::messages::delete_topics::DeleteTopicState;
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::describe_log_dirs::DescribableLogDirTopic;
use millrace_protocol::messages::describe_producers::DescribeProducersTopic;
use millrace_protocol::messages::elect_leaders::ElectLeadersTopic;
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic};
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::leave_group::MemberIdentity;
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use millrace_protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use millrace_protocol::messages::offset_fetch::{OffsetFetchRequestTopic, OffsetFetchRequestTopics};
use millrace_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::*;
use std::io;

/// From these versions on topics are named by ids in Produce and Fetch; in requests of offsets.
const TOPIC_IDS: i16 = 13;
const OFFSET_TOPIC_IDS: i16 = 10;
/// From this version on offsets of several groups are asked for; before that of one.
const MANY_GROUPS: i16 = 8;
/// From this version on topics to delete are named by structs.
const DELETED_BY_ID: i16 = 6;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    for chars in [250, 20_000] {
        topics(pair, chars)?;
        resources(pair, chars)?;
        groups(pair, chars)?;
        members(pair, chars)?;
    }
    Ok(())
}

fn long(chars: usize) -> StrBytes {
    "x".repeat(chars).into()
}

fn topics(pair: &mut Pair, chars: usize) -> io::Result<()> {
    let case = &format!("a topic of {chars} characters");
    let name = || long(chars);
    for version in versions::<ProduceRequest>().filter(|version| *version < TOPIC_IDS) {
        pair.ask(case, version, |side| {
            let records = Some(super::batch(side.started_ms, 1));
            let partition_data = vec![PartitionProduceData { index: 0, records }];
            let topic = TopicProduceData { name: name(), partition_data, ..Default::default() };
            ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![topic], ..Default::default() }
        })?;
    }
    for version in versions::<FetchRequest>().filter(|version| *version < TOPIC_IDS) {
        pair.ask(case, version, |_| {
            let partitions = vec![FetchPartition { partition_max_bytes: 1, ..Default::default() }];
            let topic = FetchTopic { topic: name(), partitions, ..Default::default() };
            FetchRequest { max_bytes: 1, topics: vec![topic], ..Default::default() }
        })?;
    }
    pair.every(case, |_, _| {
        let partitions = vec![ListOffsetsPartition { timestamp: -1, ..Default::default() }];
        ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic { name: name(), partitions }],
            ..Default::default()
        }
    })?;
    pair.every(case, |_, _| {
        let partitions = vec![OffsetForLeaderPartition::default()];
        OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![OffsetForLeaderTopic { topic: name(), partitions }] }
    })?;
    pair.every(case, |_, _| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: name(),
            partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }],
        }],
        timeout_ms: 5_000,
    })?;
    pair.every(case, |_, version| {
        if version < DELETED_BY_ID {
            return DeleteTopicsRequest { topic_names: vec![name()], timeout_ms: 5_000, ..Default::default() };
        }
        let topics = vec![DeleteTopicState { name: Some(name()), ..Default::default() }];
        DeleteTopicsRequest { topics, timeout_ms: 5_000, ..Default::default() }
    })?;
    pair.every(case, |_, _| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: name(), count: 2, assignments: None }],
        timeout_ms: 5_000,
        validate_only: true,
    })?;
    pair.every(case, |_, _| DescribeProducersRequest {
        topics: vec![DescribeProducersTopic { name: name(), partition_indexes: vec![0] }],
    })?;
    pair.every(case, |_, _| DescribeLogDirsRequest {
        topics: Some(vec![DescribableLogDirTopic { topic: name(), partitions: vec![0] }]),
    })?;
    pair.every(case, |_, _| ElectLeadersRequest {
        topic_partitions: Some(vec![ElectLeadersTopic { topic: name(), partitions: vec![0] }]),
        timeout_ms: 5_000,
        ..Default::default()
    })?;
    pair.every(case, |_, _| AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: name(),
            partitions: vec![ReassignablePartition { partition_index: 0, replicas: None }],
        }],
        ..Default::default()
    })?;
    pair.every(case, |_, _| ListPartitionReassignmentsRequest {
        topics: Some(vec![ListPartitionReassignmentsTopics { name: name(), partition_indexes: vec![0] }]),
        ..Default::default()
    })?;
    offsets(pair, case, chars)
}

/// Offsets of a topic with a long name.
fn offsets(pair: &mut Pair, case: &str, chars: usize) -> io::Result<()> {
    for version in versions::<OffsetCommitRequest>().filter(|version| *version < OFFSET_TOPIC_IDS) {
        pair.ask(case, version, |side| OffsetCommitRequest {
            group_id: side.name("of-long-topics"),
            topics: vec![OffsetCommitRequestTopic {
                name: long(chars),
                partitions: vec![OffsetCommitRequestPartition { committed_offset: 1, ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        })?;
    }
    for version in versions::<OffsetFetchRequest>().filter(|version| *version < OFFSET_TOPIC_IDS) {
        pair.ask(case, version, |side| {
            let group_id = side.name("of-long-topics");
            if version < MANY_GROUPS {
                let topic = OffsetFetchRequestTopic { name: long(chars), partition_indexes: vec![0] };
                return OffsetFetchRequest { group_id, topics: Some(vec![topic]), ..Default::default() };
            }
            let topic =
                OffsetFetchRequestTopics { name: long(chars), partition_indexes: vec![0], ..Default::default() };
            let group = OffsetFetchRequestGroup { group_id, topics: Some(vec![topic]), ..Default::default() };
            OffsetFetchRequest { groups: vec![group], ..Default::default() }
        })?;
    }
    pair.every(case, |side, _| OffsetDeleteRequest {
        group_id: side.name("of-long-topics"),
        topics: vec![OffsetDeleteRequestTopic {
            name: long(chars),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    })
}

/// What has settings.
fn resources(pair: &mut Pair, chars: usize) -> io::Result<()> {
    for resource_type in [2, 4] {
        let case = &format!("type {resource_type}, a name of {chars} characters");
        pair.every(case, |_, _| {
            let resource =
                DescribeConfigsResource { resource_type, resource_name: long(chars), configuration_keys: None };
            DescribeConfigsRequest { resources: vec![resource], ..Default::default() }
        })?;
        pair.every(case, |_, _| {
            let resource = AlterConfigsResource { resource_type, resource_name: long(chars), configs: Vec::new() };
            AlterConfigsRequest { resources: vec![resource], validate_only: true }
        })?;
        pair.every(case, |_, _| {
            let resource = IncrementalResource { resource_type, resource_name: long(chars), configs: Vec::new() };
            IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true }
        })?;
    }
    pair.every(&format!("a setting of {chars} characters, of all brokers"), |_, _| {
        let set = IncrementalConfig { name: "log.retention.ms".into(), config_operation: 0, value: Some(long(chars)) };
        let resource = IncrementalResource { resource_type: 4, resource_name: StrBytes::new(), configs: vec![set] };
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: true }
    })
}

/// Groups that nobody made.
fn groups(pair: &mut Pair, chars: usize) -> io::Result<()> {
    let case = &format!("a group of {chars} characters");
    let name = || long(chars);
    pair.every(case, |_, version| {
        if version >= 4 {
            return FindCoordinatorRequest { coordinator_keys: vec![name()], ..Default::default() };
        }
        FindCoordinatorRequest { key: name(), ..Default::default() }
    })?;
    pair.every(case, |_, _| HeartbeatRequest {
        group_id: name(),
        generation_id: 1,
        member_id: "someone".into(),
        ..Default::default()
    })?;
    pair.every(case, |_, _| SyncGroupRequest {
        group_id: name(),
        generation_id: 1,
        member_id: "someone".into(),
        ..Default::default()
    })?;
    pair.every(case, |_, _| joining(name(), "someone".into(), "consumer".into()))?;
    pair.every(case, |_, version| {
        let member = MemberIdentity { member_id: "someone".into(), ..Default::default() };
        if version < 3 {
            return LeaveGroupRequest { group_id: name(), member_id: member.member_id, ..Default::default() };
        }
        LeaveGroupRequest { group_id: name(), members: vec![member], ..Default::default() }
    })?;
    pair.every(case, |_, _| DescribeGroupsRequest { groups: vec![name()], ..Default::default() })?;
    pair.every(case, |_, _| DeleteGroupsRequest { groups_names: vec![name()] })?;
    pair.every(case, |_, _| ConsumerGroupDescribeRequest { group_ids: vec![name()], ..Default::default() })?;
    pair.every(case, |_, _| ConsumerGroupHeartbeatRequest {
        group_id: name(),
        member_id: "someone".into(),
        member_epoch: 1,
        ..Default::default()
    })?;
    pair.every(case, |_, version| {
        if version < MANY_GROUPS {
            return OffsetFetchRequest { group_id: name(), topics: Some(Vec::new()), ..Default::default() };
        }
        let group = OffsetFetchRequestGroup { group_id: name(), topics: Some(Vec::new()), ..Default::default() };
        OffsetFetchRequest { groups: vec![group], ..Default::default() }
    })?;
    pair.every(case, |_, _| OffsetDeleteRequest { group_id: name(), topics: Vec::new() })
}

fn joining(group_id: StrBytes, member_id: StrBytes, protocol_type: StrBytes) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"topics") };
    JoinGroupRequest {
        group_id,
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id,
        protocol_type,
        protocols: vec![protocol],
        ..Default::default()
    }
}

/// Members, instances and types of protocols.
fn members(pair: &mut Pair, chars: usize) -> io::Result<()> {
    let group = |side: &Side| side.name("of-long-members");
    let case = &format!("a member of {chars} characters");
    pair.every(case, |side, _| joining(group(side), long(chars), "consumer".into()))?;
    pair.every(case, |side, _| HeartbeatRequest {
        group_id: group(side),
        generation_id: 1,
        member_id: long(chars),
        ..Default::default()
    })?;
    pair.every(case, |side, _| ConsumerGroupHeartbeatRequest {
        group_id: group(side),
        member_id: long(chars),
        member_epoch: 1,
        ..Default::default()
    })?;
    let case = &format!("an instance of {chars} characters");
    for version in versions::<JoinGroupRequest>().filter(|version| *version >= 5) {
        pair.ask(case, version, |side| JoinGroupRequest {
            group_instance_id: Some(long(chars)),
            ..joining(group(side), "someone".into(), "consumer".into())
        })?;
    }
    pair.every(&format!("a protocol type of {chars} characters"), |side, _| {
        joining(group(side), "someone".into(), long(chars))
    })
}
