//! AlterPartitionReassignments (key 45, KIP-455).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    AlterPartitionReassignmentsRequest of AlterPartitionReassignments 0..=1, flexible 0..,
        answered by AlterPartitionReassignmentsResponse;

    /// Where partitions shall lie.
    pub struct AlterPartitionReassignmentsRequest {
        timeout_ms: i32 = 60000 => 0..;
        allow_replication_factor_change: bool = true => 1.., else ignored;
        topics: Vec<ReassignableTopic> => 0..;
    }

    /// A topic.
    pub struct ReassignableTopic {
        name: StrBytes => 0..;
        partitions: Vec<ReassignablePartition> => 0..;
    }

    /// A partition.
    pub struct ReassignablePartition {
        partition_index: i32 => 0..;
        /// Null: cancels the reassignment under way.
        replicas: Option<Vec<i32>> = None => 0..;
    }
}

message! {
    AlterPartitionReassignmentsResponse of AlterPartitionReassignments 0..=1, flexible 0..;

    /// What became of them.
    pub struct AlterPartitionReassignmentsResponse {
        throttle_time_ms: i32 => 0..;
        allow_replication_factor_change: bool = true => 1.., else ignored;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        responses: Vec<ReassignableTopicResponse> => 0..;
    }

    /// A topic.
    pub struct ReassignableTopicResponse {
        name: StrBytes => 0..;
        partitions: Vec<ReassignablePartitionResponse> => 0..;
    }

    /// A partition.
    pub struct ReassignablePartitionResponse {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}
