//! Every message that we speak, one file for each API, declared as Kafka 4.4 specifies it.
//!
//! Does not decide which versions are served (`api`) nor what an answer says (the broker's handlers).

use crate::codec::Message;
use crate::frame::RequestHeader;
use crate::fuzz;
use crate::wire::Reader;

pub mod produce_view;

/// Declares the modules and what goes over all APIs from one list.
macro_rules! apis {
    ($($module:ident: $request:ident, $response:ident;)*) => {
        $(
            pub mod $module;
            pub use $module::{$request, $response};
        )*

        /// Reads a request's body and checks that what was read survives being written and read again; for
        /// [`crate::fuzz`].
        pub(crate) fn check_body(header: &RequestHeader, reader: &mut Reader<'_>) {
            match header.api_key {
                $(<$request as Message>::KEY => fuzz::check_message::<$request>(reader, header.api_version),)*
                _ => {}
            }
        }

        /// Hands every declared message to `visitor`: requests and responses.
        #[cfg(test)]
        pub(crate) fn visit_messages(visitor: &mut impl MessageVisitor) {
            $(
                visitor.visit::<$request>();
                visitor.visit::<$response>();
            )*
        }
    };
}

apis! {
    alter_client_quotas: AlterClientQuotasRequest, AlterClientQuotasResponse;
    alter_configs: AlterConfigsRequest, AlterConfigsResponse;
    alter_partition_reassignments: AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse;
    api_versions: ApiVersionsRequest, ApiVersionsResponse;
    consumer_group_describe: ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse;
    consumer_group_heartbeat: ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse;
    create_partitions: CreatePartitionsRequest, CreatePartitionsResponse;
    create_topics: CreateTopicsRequest, CreateTopicsResponse;
    delete_groups: DeleteGroupsRequest, DeleteGroupsResponse;
    delete_records: DeleteRecordsRequest, DeleteRecordsResponse;
    delete_topics: DeleteTopicsRequest, DeleteTopicsResponse;
    describe_client_quotas: DescribeClientQuotasRequest, DescribeClientQuotasResponse;
    describe_cluster: DescribeClusterRequest, DescribeClusterResponse;
    describe_configs: DescribeConfigsRequest, DescribeConfigsResponse;
    describe_groups: DescribeGroupsRequest, DescribeGroupsResponse;
    describe_log_dirs: DescribeLogDirsRequest, DescribeLogDirsResponse;
    describe_producers: DescribeProducersRequest, DescribeProducersResponse;
    describe_quorum: DescribeQuorumRequest, DescribeQuorumResponse;
    describe_topic_partitions: DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse;
    elect_leaders: ElectLeadersRequest, ElectLeadersResponse;
    fetch: FetchRequest, FetchResponse;
    find_coordinator: FindCoordinatorRequest, FindCoordinatorResponse;
    heartbeat: HeartbeatRequest, HeartbeatResponse;
    incremental_alter_configs: IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse;
    init_producer_id: InitProducerIdRequest, InitProducerIdResponse;
    join_group: JoinGroupRequest, JoinGroupResponse;
    leave_group: LeaveGroupRequest, LeaveGroupResponse;
    list_config_resources: ListConfigResourcesRequest, ListConfigResourcesResponse;
    list_groups: ListGroupsRequest, ListGroupsResponse;
    list_offsets: ListOffsetsRequest, ListOffsetsResponse;
    list_partition_reassignments: ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse;
    metadata: MetadataRequest, MetadataResponse;
    offset_commit: OffsetCommitRequest, OffsetCommitResponse;
    offset_delete: OffsetDeleteRequest, OffsetDeleteResponse;
    offset_fetch: OffsetFetchRequest, OffsetFetchResponse;
    offset_for_leader_epoch: OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse;
    produce: ProduceRequest, ProduceResponse;
    sync_group: SyncGroupRequest, SyncGroupResponse;
    update_features: UpdateFeaturesRequest, UpdateFeaturesResponse;
}

/// What a test does with each message.
#[cfg(test)]
pub(crate) trait MessageVisitor {
    /// Called with requests and responses in turn.
    fn visit<M: Message + crate::codec::sample::Sample>(&mut self);
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod kafka_classes;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
