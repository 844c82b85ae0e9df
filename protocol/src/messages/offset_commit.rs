//! OffsetCommit (key 8): store how far a group has read.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    OffsetCommitRequest of OffsetCommit 2..=10, flexible 8.., answered by OffsetCommitResponse;

    /// A group's offsets.
    pub struct OffsetCommitRequest {
        group_id: StrBytes => 0..;
        /// Generation of a classic group, member epoch of a KIP-848 group, -1 for neither.
        generation_id_or_member_epoch: i32 = -1 => 1.., else ignored;
        member_id: StrBytes => 1.., else ignored;
        group_instance_id: Option<StrBytes> = None => 7..;
        retention_time_ms: i64 = -1 => 2..=4, else ignored;
        topics: Vec<OffsetCommitRequestTopic> => 0..;
    }

    /// Partitions of one topic, named up to version 9 and by id from 10.
    pub struct OffsetCommitRequestTopic {
        name: StrBytes => 0..=9, else ignored;
        topic_id: Uuid => 10.., else ignored;
        partitions: Vec<OffsetCommitRequestPartition> => 0..;
    }

    /// How far one partition has been read.
    pub struct OffsetCommitRequestPartition {
        partition_index: i32 => 0..;
        committed_offset: i64 => 0..;
        committed_leader_epoch: i32 = -1 => 6.., else ignored;
        committed_metadata: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}

message! {
    OffsetCommitResponse of OffsetCommit 2..=10, flexible 8..;

    /// What became of the commits.
    pub struct OffsetCommitResponse {
        throttle_time_ms: i32 => 3.., else ignored;
        topics: Vec<OffsetCommitResponseTopic> => 0..;
    }

    /// Partitions of one topic.
    pub struct OffsetCommitResponseTopic {
        name: StrBytes => 0..=9, else ignored;
        topic_id: Uuid => 10.., else ignored;
        partitions: Vec<OffsetCommitResponsePartition> => 0..;
    }

    /// What became of one commit.
    pub struct OffsetCommitResponsePartition {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
    }
}
