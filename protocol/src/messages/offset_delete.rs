//! OffsetDelete (key 47): takes committed offsets from a group (KIP-496).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    OffsetDeleteRequest of OffsetDelete 0..=0, flexible i16::MAX.., answered by OffsetDeleteResponse;

    /// Offsets to delete.
    pub struct OffsetDeleteRequest {
        group_id: StrBytes => 0..;
        topics: Vec<OffsetDeleteRequestTopic> => 0..;
    }

    /// Of a topic.
    pub struct OffsetDeleteRequestTopic {
        name: StrBytes => 0..;
        partitions: Vec<OffsetDeleteRequestPartition> => 0..;
    }

    /// Of a partition.
    pub struct OffsetDeleteRequestPartition {
        partition_index: i32 => 0..;
    }
}

message! {
    OffsetDeleteResponse of OffsetDelete 0..=0, flexible i16::MAX..;

    /// What became of them.
    pub struct OffsetDeleteResponse {
        error_code: ErrorCode => 0..;
        throttle_time_ms: i32 => 0.., else ignored;
        topics: Vec<OffsetDeleteResponseTopic> => 0..;
    }

    /// Of a topic.
    pub struct OffsetDeleteResponseTopic {
        name: StrBytes => 0..;
        partitions: Vec<OffsetDeleteResponsePartition> => 0..;
    }

    /// Of a partition.
    pub struct OffsetDeleteResponsePartition {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
    }
}
