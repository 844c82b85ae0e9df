//! Bytes that the message classes of Kafka 4.4.0 (kafka-clients) wrote, one message for each version that the
//! kafka-protocol crate lacks.

use crate::codec::Message;
use crate::error_code::ErrorCode;
use crate::messages::api_versions::{ApiVersion, SupportedFeatureKey};
use crate::messages::delete_groups::DeletableGroupResult;
use crate::messages::describe_log_dirs::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use crate::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopic, ListOffsetsTopicResponse,
};
use crate::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use crate::messages::*;
use crate::wire::{Reader, Writer};
use bytes::Bytes;
use uuid::Uuid;

const TOPIC_ID: Uuid = Uuid::from_u64_pair(1, 2);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("the message has a form in this version");
    writer.concat()
}

/// The message is written as `golden` and read back from it.
fn check<M: Message>(message: M, version: i16, golden: &str) {
    let bytes = encode(&message, version);
    assert_eq!(hex(&bytes), golden);
    assert_eq!(M::decode(&mut Reader::new(&bytes), version), Ok(message));
}

fn api_versions_response() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion,
        api_keys: vec![ApiVersion { api_key: 18, min_version: 0, max_version: 5 }],
        throttle_time_ms: 7,
        supported_features: vec![SupportedFeatureKey { name: "group.version".into(), min_version: 0, max_version: 1 }],
        finalized_features_epoch: 9,
        ..ApiVersionsResponse::default()
    }
}

#[test]
fn golden_api_versions_version_5() {
    let request = ApiVersionsRequest {
        client_software_name: "java".into(),
        client_software_version: "4.4.0".into(),
        cluster_id: Some("c1".into()),
        node_id: 3,
    };
    check(request, 5, "056a61766106342e342e300363310000000300");
    check(
        api_versions_response(),
        5,
        "0023020012000000050000000007020014020e67726f75702e76657273696f6e000000010001080000000000000009",
    );
}

#[test]
fn golden_api_versions_response_version_0_drops_what_it_cannot_say() {
    assert_eq!(hex(&encode(&api_versions_response(), 0)), "002300000001001200000005");
}

#[test]
fn golden_delete_groups_version_3() {
    check(DeleteGroupsRequest { groups_names: vec!["g1".into(), "g2".into()] }, 3, "0303673103673200");
    let response = DeleteGroupsResponse {
        throttle_time_ms: 1,
        results: vec![
            DeletableGroupResult {
                group_id: "g1".into(),
                error_code: ErrorCode::NonEmptyGroup,
                error_message: Some("busy".into()),
            },
            DeletableGroupResult { group_id: "g2".into(), ..DeletableGroupResult::default() },
        ],
    };
    check(response, 3, "000000010303673100440562757379000367320000000000");
}

#[test]
fn golden_describe_log_dirs_version_5() {
    check(DescribeLogDirsRequest { topics: None }, 5, "0000");
    let partition = DescribeLogDirsPartition { partition_index: 1, partition_size: 5, ..Default::default() };
    let topic = DescribeLogDirsTopic { name: "t".into(), partitions: vec![partition] };
    let result = DescribeLogDirsResult {
        log_dir: "d".into(),
        topics: vec![topic],
        is_cordoned: true,
        ..DescribeLogDirsResult::default()
    };
    let response = DescribeLogDirsResponse { throttle_time_ms: 7, results: vec![result], ..Default::default() };
    check(
        response,
        5,
        "00000007000002000002640202740200000001000000000000000500000000000000000000\
         00ffffffffffffffffffffffffffffffff010000",
    );
}

#[test]
fn golden_init_producer_id_request_version_6() {
    let request = InitProducerIdRequest {
        transactional_id: Some("tx".into()),
        transaction_timeout_ms: 60_000,
        producer_id: 5,
        producer_epoch: 2,
        enable2_pc: true,
        keep_prepared_txn: true,
    };
    check(request, 6, "0374780000ea6000000000000000050002010100");
}

#[test]
fn golden_list_offsets_version_11() {
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level: 1,
        topics: vec![ListOffsetsTopic {
            name: "orders".into(),
            partitions: vec![ListOffsetsPartition { partition_index: 4, current_leader_epoch: 6, timestamp: -3 }],
        }],
        timeout_ms: 30_000,
    };
    check(request, 11, "ffffffff0102076f7264657273020000000400000006fffffffffffffffd00000000753000");
    let response = ListOffsetsResponse {
        throttle_time_ms: 2,
        topics: vec![ListOffsetsTopicResponse {
            name: "orders".into(),
            partitions: vec![ListOffsetsPartitionResponse {
                partition_index: 4,
                error_code: ErrorCode::NotLeaderOrFollower,
                timestamp: 1000,
                offset: 77,
                leader_epoch: 6,
            }],
        }],
    };
    check(response, 11, "0000000202076f72646572730200000004000600000000000003e8000000000000004d00000006000000");
}

#[test]
fn golden_offset_commit_request_version_10() {
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 3,
        member_id: "m".into(),
        group_instance_id: Some("i".into()),
        topics: vec![OffsetCommitRequestTopic {
            topic_id: TOPIC_ID,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: 42,
                committed_leader_epoch: 5,
                committed_metadata: Some("note".into()),
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    check(
        request,
        10,
        "026700000003026d026902000000000000000100000000000000020200000001000000000000002a00000005056e6f7465000000",
    );
}

#[test]
fn golden_offset_fetch_request_version_10() {
    let request = OffsetFetchRequest {
        groups: vec![
            OffsetFetchRequestGroup {
                group_id: "g".into(),
                member_id: Some("m".into()),
                member_epoch: 2,
                topics: Some(vec![OffsetFetchRequestTopics {
                    topic_id: TOPIC_ID,
                    partition_indexes: vec![0, 1],
                    ..OffsetFetchRequestTopics::default()
                }]),
            },
            OffsetFetchRequestGroup { group_id: "h".into(), topics: None, ..OffsetFetchRequestGroup::default() },
        ],
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    check(
        request,
        10,
        "030267026d0000000202000000000000000100000000000000020300000000000000010000026800ffffffff00000100",
    );
}
