//! ListPartitionReassignments (key 46, KIP-455).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    ListPartitionReassignmentsRequest of ListPartitionReassignments 0..=0, flexible 0..,
        answered by ListPartitionReassignmentsResponse;

    /// Asks for reassignments under way.
    pub struct ListPartitionReassignmentsRequest {
        timeout_ms: i32 = 60000 => 0..;
        /// Null: of every partition.
        topics: Option<Vec<ListPartitionReassignmentsTopics>> = None => 0..;
    }

    /// A topic.
    pub struct ListPartitionReassignmentsTopics {
        name: StrBytes => 0..;
        partition_indexes: Vec<i32> => 0..;
    }
}

message! {
    ListPartitionReassignmentsResponse of ListPartitionReassignments 0..=0, flexible 0..;

    /// The reassignments.
    pub struct ListPartitionReassignmentsResponse {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        topics: Vec<OngoingTopicReassignment> => 0..;
    }

    /// A topic.
    pub struct OngoingTopicReassignment {
        name: StrBytes => 0..;
        partitions: Vec<OngoingPartitionReassignment> => 0..;
    }

    /// A partition.
    pub struct OngoingPartitionReassignment {
        partition_index: i32 => 0..;
        replicas: Vec<i32> => 0..;
        adding_replicas: Vec<i32> => 0..;
        removing_replicas: Vec<i32> => 0..;
    }
}
