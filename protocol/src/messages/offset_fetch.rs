//! OffsetFetch (key 9): how far groups have read.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    OffsetFetchRequest of OffsetFetch 1..=10, flexible 6.., answered by OffsetFetchResponse;

    /// Asks for offsets of one group up to version 7, of several from 8 (KIP-709).
    pub struct OffsetFetchRequest {
        group_id: StrBytes => 0..=7;
        /// Null means all.
        topics: Option<Vec<OffsetFetchRequestTopic>> = Some(Vec::new()) => 0..=7, nullable 2..=7;
        groups: Vec<OffsetFetchRequestGroup> => 8..;
        require_stable: bool => 7..;
    }

    /// Partitions of one topic.
    pub struct OffsetFetchRequestTopic {
        name: StrBytes => 0..=7;
        partition_indexes: Vec<i32> => 0..=7;
    }

    /// One group.
    pub struct OffsetFetchRequestGroup {
        group_id: StrBytes => 8..;
        member_id: Option<StrBytes> = None => 9.., else ignored;
        member_epoch: i32 = -1 => 9.., else ignored;
        /// Null means all.
        topics: Option<Vec<OffsetFetchRequestTopics>> = Some(Vec::new()) => 8..;
    }

    /// Partitions of one topic, named up to version 9 and by id from 10.
    pub struct OffsetFetchRequestTopics {
        name: StrBytes => 8..=9, else ignored;
        topic_id: Uuid => 10.., else ignored;
        partition_indexes: Vec<i32> => 8..;
    }
}

message! {
    OffsetFetchResponse of OffsetFetch 1..=10, flexible 6..;

    /// The offsets, in the same shape as they were asked for.
    pub struct OffsetFetchResponse {
        throttle_time_ms: i32 => 3.., else ignored;
        topics: Vec<OffsetFetchResponseTopic> => 0..=7;
        error_code: ErrorCode => 2..=7, else ignored;
        groups: Vec<OffsetFetchResponseGroup> => 8..;
    }

    /// Partitions of one topic.
    pub struct OffsetFetchResponseTopic {
        name: StrBytes => 0..=7;
        partitions: Vec<OffsetFetchResponsePartition> => 0..=7;
    }

    /// How far one partition has been read; -1 if nothing was committed.
    pub struct OffsetFetchResponsePartition {
        partition_index: i32 => 0..=7;
        committed_offset: i64 => 0..=7;
        committed_leader_epoch: i32 = -1 => 5..=7, else ignored;
        metadata: Option<StrBytes> = Some(StrBytes::new()) => 0..=7;
        error_code: ErrorCode => 0..=7;
    }

    /// One group.
    pub struct OffsetFetchResponseGroup {
        group_id: StrBytes => 8..;
        topics: Vec<OffsetFetchResponseTopics> => 8..;
        error_code: ErrorCode => 8..;
    }

    /// Partitions of one topic.
    pub struct OffsetFetchResponseTopics {
        name: StrBytes => 8..=9, else ignored;
        topic_id: Uuid => 10.., else ignored;
        partitions: Vec<OffsetFetchResponsePartitions> => 8..;
    }

    /// How far one partition has been read; -1 if nothing was committed.
    pub struct OffsetFetchResponsePartitions {
        partition_index: i32 => 8..;
        committed_offset: i64 => 8..;
        committed_leader_epoch: i32 = -1 => 8.., else ignored;
        metadata: Option<StrBytes> = Some(StrBytes::new()) => 8..;
        error_code: ErrorCode => 8..;
    }
}
