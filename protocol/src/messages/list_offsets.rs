//! ListOffsets (key 2): the offset at a timestamp or at an end of the log.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    ListOffsetsRequest of ListOffsets 1..=11, flexible 6.., answered by ListOffsetsResponse;

    /// Asks for one offset of each partition.
    pub struct ListOffsetsRequest {
        replica_id: i32 => 0..;
        isolation_level: i8 => 2..;
        topics: Vec<ListOffsetsTopic> => 0..;
        timeout_ms: i32 => 10.., else ignored;
    }

    /// Partitions of one topic.
    pub struct ListOffsetsTopic {
        name: StrBytes => 0..;
        partitions: Vec<ListOffsetsPartition> => 0..;
    }

    /// What to look for in one partition.
    pub struct ListOffsetsPartition {
        partition_index: i32 => 0..;
        current_leader_epoch: i32 = -1 => 4.., else ignored;
        /// Unix ms, or -1: log end, -2: log start, -3: record with the largest timestamp (KIP-734), -4: local log start
        /// (KIP-405), -5: end of tiered storage (KIP-1005), -6: earliest not yet uploaded (KIP-1023).
        timestamp: i64 => 0..;
    }
}

message! {
    ListOffsetsResponse of ListOffsets 1..=11, flexible 6..;

    /// The offsets found.
    pub struct ListOffsetsResponse {
        throttle_time_ms: i32 => 2.., else ignored;
        topics: Vec<ListOffsetsTopicResponse> => 0..;
    }

    /// Partitions of one topic.
    pub struct ListOffsetsTopicResponse {
        name: StrBytes => 0..;
        partitions: Vec<ListOffsetsPartitionResponse> => 0..;
    }

    /// What was found in one partition: -1 in timestamp and offset if nothing.
    pub struct ListOffsetsPartitionResponse {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        timestamp: i64 = -1 => 1..;
        offset: i64 = -1 => 1..;
        leader_epoch: i32 = -1 => 4..;
    }
}
