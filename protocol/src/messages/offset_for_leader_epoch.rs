//! OffsetForLeaderEpoch (key 23): where a leader epoch ends (KIP-320).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    OffsetForLeaderEpochRequest of OffsetForLeaderEpoch 2..=4, flexible 4.., answered by OffsetForLeaderEpochResponse;

    /// Asks for the end of one epoch of each partition.
    pub struct OffsetForLeaderEpochRequest {
        /// -1: consumer; -2: debugging.
        replica_id: i32 = -2 => 3.., else ignored;
        topics: Vec<OffsetForLeaderTopic> => 0..;
    }

    /// Partitions of one topic.
    pub struct OffsetForLeaderTopic {
        topic: StrBytes => 0..;
        partitions: Vec<OffsetForLeaderPartition> => 0..;
    }

    /// The epoch to look up.
    pub struct OffsetForLeaderPartition {
        partition: i32 => 0..;
        current_leader_epoch: i32 = -1 => 2.., else ignored;
        leader_epoch: i32 => 0..;
    }
}

message! {
    OffsetForLeaderEpochResponse of OffsetForLeaderEpoch 2..=4, flexible 4..;

    /// The ends.
    pub struct OffsetForLeaderEpochResponse {
        throttle_time_ms: i32 => 2.., else ignored;
        topics: Vec<OffsetForLeaderTopicResult> => 0..;
    }

    /// Partitions of one topic.
    pub struct OffsetForLeaderTopicResult {
        topic: StrBytes => 0..;
        partitions: Vec<EpochEndOffset> => 0..;
    }

    /// The largest epoch not above the one asked for and its end; -1 in both if there is none.
    pub struct EpochEndOffset {
        error_code: ErrorCode => 0..;
        partition: i32 => 0..;
        leader_epoch: i32 = -1 => 1.., else ignored;
        end_offset: i64 = -1 => 0..;
    }
}
