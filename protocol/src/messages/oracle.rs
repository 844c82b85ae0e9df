//! The codec against the kafka-protocol crate: random messages of every version that both have.

use crate::codec::sample::{Sample, Sampler};
use crate::codec::{Message, Version};
use crate::wire::{Reader, Writer};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message as TheirMessage};

/// Random messages of each version.
const ROUNDS: u64 = 100;

/// Versions that we declare and kafka-protocol 0.18 lacks: it is behind Kafka 4.4. `golden` has bytes
/// of Kafka's own for them.
const NOT_IN_ORACLE: &[(&str, i16)] = &[
    ("ApiVersionsRequest", 5),
    ("ApiVersionsResponse", 5),
    ("DeleteGroupsRequest", 3),
    ("DeleteGroupsResponse", 3),
    ("DescribeLogDirsRequest", 5),
    ("DescribeLogDirsResponse", 5),
    ("InitProducerIdRequest", 6),
    ("ListOffsetsRequest", 11),
    ("ListOffsetsResponse", 11),
    ("OffsetCommitRequest", 10),
    ("OffsetFetchRequest", 10),
];

fn encode<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("a sample has a form in its version");
    writer.concat()
}

fn their_encode<T: Encodable>(message: &T, version: i16) -> Bytes {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes, version).expect("the oracle writes what it read");
    bytes.freeze()
}

/// Ours → bytes → theirs → bytes → ours: the same bytes and the same message. Both sides' defaults too.
fn compare<M: Message + Sample, T: TheirMessage + Encodable + Decodable + Default>(name: &str) {
    for number in M::VERSIONS {
        if number < T::VERSIONS.min || number > T::VERSIONS.max {
            assert!(NOT_IN_ORACLE.contains(&(name, number)), "{name} version {number} has no oracle");
            continue;
        }
        assert_eq!(
            encode(&M::default(), number),
            their_encode(&T::default(), number),
            "default of {name} version {number}"
        );
        let version = Version { number, flexible: M::KEY.is_flexible(number) };
        for round in 0..ROUNDS {
            let message = M::sample(&mut Sampler(round), version);
            let ours = encode(&message, number);
            let mut rest = ours.clone();
            let their_message = T::decode(&mut rest, number)
                .unwrap_or_else(|error| panic!("{name} version {number} round {round}: {error}\n{message:#?}"));
            assert!(rest.is_empty(), "{name} version {number} round {round}: {} bytes left", rest.len());
            let back = their_encode(&their_message, number);
            assert_eq!(ours, back, "{name} version {number} round {round}");
            let mut reader = Reader::new(&back);
            assert_eq!(M::decode(&mut reader, number), Ok(message), "{name} version {number} round {round}");
            assert_eq!(reader.remaining(), 0);
        }
    }
}

macro_rules! oracle_tests {
    ($($test:ident: $request:ident, $response:ident;)*) => {
        $(
            #[test]
            fn $test() {
                compare::<super::$request, theirs::$request>(stringify!($request));
                compare::<super::$response, theirs::$response>(stringify!($response));
            }
        )*
    };
}

oracle_tests! {
    alter_client_quotas_is_what_the_oracle_reads_and_writes: AlterClientQuotasRequest, AlterClientQuotasResponse;
    alter_configs_is_what_the_oracle_reads_and_writes: AlterConfigsRequest, AlterConfigsResponse;
    alter_partition_reassignments_is_what_the_oracle_reads_and_writes: AlterPartitionReassignmentsRequest,
        AlterPartitionReassignmentsResponse;
    api_versions_is_what_the_oracle_reads_and_writes: ApiVersionsRequest, ApiVersionsResponse;
    consumer_group_describe_is_what_the_oracle_reads_and_writes: ConsumerGroupDescribeRequest,
        ConsumerGroupDescribeResponse;
    consumer_group_heartbeat_is_what_the_oracle_reads_and_writes: ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatResponse;
    create_partitions_is_what_the_oracle_reads_and_writes: CreatePartitionsRequest, CreatePartitionsResponse;
    create_topics_is_what_the_oracle_reads_and_writes: CreateTopicsRequest, CreateTopicsResponse;
    delete_groups_is_what_the_oracle_reads_and_writes: DeleteGroupsRequest, DeleteGroupsResponse;
    delete_records_is_what_the_oracle_reads_and_writes: DeleteRecordsRequest, DeleteRecordsResponse;
    delete_topics_is_what_the_oracle_reads_and_writes: DeleteTopicsRequest, DeleteTopicsResponse;
    describe_client_quotas_is_what_the_oracle_reads_and_writes: DescribeClientQuotasRequest,
        DescribeClientQuotasResponse;
    describe_cluster_is_what_the_oracle_reads_and_writes: DescribeClusterRequest, DescribeClusterResponse;
    describe_configs_is_what_the_oracle_reads_and_writes: DescribeConfigsRequest, DescribeConfigsResponse;
    describe_groups_is_what_the_oracle_reads_and_writes: DescribeGroupsRequest, DescribeGroupsResponse;
    describe_log_dirs_is_what_the_oracle_reads_and_writes: DescribeLogDirsRequest, DescribeLogDirsResponse;
    describe_producers_is_what_the_oracle_reads_and_writes: DescribeProducersRequest, DescribeProducersResponse;
    describe_quorum_is_what_the_oracle_reads_and_writes: DescribeQuorumRequest, DescribeQuorumResponse;
    describe_topic_partitions_is_what_the_oracle_reads_and_writes: DescribeTopicPartitionsRequest,
        DescribeTopicPartitionsResponse;
    elect_leaders_is_what_the_oracle_reads_and_writes: ElectLeadersRequest, ElectLeadersResponse;
    fetch_is_what_the_oracle_reads_and_writes: FetchRequest, FetchResponse;
    find_coordinator_is_what_the_oracle_reads_and_writes: FindCoordinatorRequest, FindCoordinatorResponse;
    heartbeat_is_what_the_oracle_reads_and_writes: HeartbeatRequest, HeartbeatResponse;
    incremental_alter_configs_is_what_the_oracle_reads_and_writes: IncrementalAlterConfigsRequest,
        IncrementalAlterConfigsResponse;
    init_producer_id_is_what_the_oracle_reads_and_writes: InitProducerIdRequest, InitProducerIdResponse;
    join_group_is_what_the_oracle_reads_and_writes: JoinGroupRequest, JoinGroupResponse;
    leave_group_is_what_the_oracle_reads_and_writes: LeaveGroupRequest, LeaveGroupResponse;
    list_config_resources_is_what_the_oracle_reads_and_writes: ListConfigResourcesRequest, ListConfigResourcesResponse;
    list_groups_is_what_the_oracle_reads_and_writes: ListGroupsRequest, ListGroupsResponse;
    list_offsets_is_what_the_oracle_reads_and_writes: ListOffsetsRequest, ListOffsetsResponse;
    list_partition_reassignments_is_what_the_oracle_reads_and_writes: ListPartitionReassignmentsRequest,
        ListPartitionReassignmentsResponse;
    metadata_is_what_the_oracle_reads_and_writes: MetadataRequest, MetadataResponse;
    offset_commit_is_what_the_oracle_reads_and_writes: OffsetCommitRequest, OffsetCommitResponse;
    offset_delete_is_what_the_oracle_reads_and_writes: OffsetDeleteRequest, OffsetDeleteResponse;
    offset_fetch_is_what_the_oracle_reads_and_writes: OffsetFetchRequest, OffsetFetchResponse;
    offset_for_leader_epoch_is_what_the_oracle_reads_and_writes: OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse;
    produce_is_what_the_oracle_reads_and_writes: ProduceRequest, ProduceResponse;
    sync_group_is_what_the_oracle_reads_and_writes: SyncGroupRequest, SyncGroupResponse;
    update_features_is_what_the_oracle_reads_and_writes: UpdateFeaturesRequest, UpdateFeaturesResponse;
}
