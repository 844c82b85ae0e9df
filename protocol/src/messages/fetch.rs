//! Fetch (key 1): batches from an offset on, with long polling and sessions (KIP-227).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::record_set::RecordSet;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    FetchRequest of Fetch 4..=18, flexible 12.., answered by FetchResponse;

    /// Asks for records of partitions, each after an offset.
    pub struct FetchRequest {
        /// -1 for a consumer; from version 15 in `replica_state`.
        replica_id: i32 = -1 => 0..=14;
        /// How long the answer may wait for `min_bytes`.
        max_wait_ms: i32 => 0..;
        min_bytes: i32 => 0..;
        max_bytes: i32 = i32::MAX => 3.., else ignored;
        /// 0: read uncommitted; 1: read committed.
        isolation_level: i8 => 4.., else ignored;
        session_id: i32 => 7.., else ignored;
        session_epoch: i32 = -1 => 7.., else ignored;
        topics: Vec<FetchTopic> => 0..;
        forgotten_topics_data: Vec<ForgottenTopic> => 7..;
        rack_id: StrBytes => 11.., else ignored;
    } tagged {
        0 cluster_id: Option<StrBytes> = None => 12.., else ignored;
        1 replica_state: ReplicaState => 15..;
    }

    /// Who fetches; -1 in both fields is a consumer.
    pub struct ReplicaState {
        replica_id: i32 = -1 => 15..;
        replica_epoch: i64 = -1 => 15..;
    }

    /// Partitions of one topic, named up to version 12 and by id from 13.
    pub struct FetchTopic {
        topic: StrBytes => 0..=12, else ignored;
        topic_id: Uuid => 13.., else ignored;
        partitions: Vec<FetchPartition> => 0..;
    }

    /// Where to read in one partition.
    pub struct FetchPartition {
        partition: i32 => 0..;
        current_leader_epoch: i32 = -1 => 9.., else ignored;
        fetch_offset: i64 => 0..;
        last_fetched_epoch: i32 = -1 => 12..;
        log_start_offset: i64 = -1 => 5.., else ignored;
        partition_max_bytes: i32 => 0..;
    } tagged {
        0 replica_directory_id: Uuid => 17.., else ignored;
        1 high_watermark: i64 = i64::MAX => 18.., else ignored;
    }

    /// Partitions that leave the session.
    pub struct ForgottenTopic {
        topic: StrBytes => 7..=12, else ignored;
        topic_id: Uuid => 13.., else ignored;
        partitions: Vec<i32> => 7..;
    }
}

message! {
    FetchResponse of Fetch 4..=18, flexible 12..;

    /// Batches of the partitions that have some. Their bytes leave as slices, never joined.
    pub struct FetchResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        error_code: ErrorCode => 7.., else ignored;
        /// 0: no session.
        session_id: i32 => 7..;
        responses: Vec<FetchableTopicResponse> => 0..;
    } tagged {
        0 node_endpoints: Vec<NodeEndpoint> => 16..;
    }

    /// Partitions of one topic.
    pub struct FetchableTopicResponse {
        topic: StrBytes => 0..=12, else ignored;
        topic_id: Uuid => 13.., else ignored;
        partitions: Vec<PartitionData> => 0..;
    }

    /// Batches of one partition.
    pub struct PartitionData {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        high_watermark: i64 => 0..;
        last_stable_offset: i64 = -1 => 4.., else ignored;
        log_start_offset: i64 = -1 => 5.., else ignored;
        aborted_transactions: Option<Vec<AbortedTransaction>> = Some(Vec::new()) => 4.., else ignored;
        preferred_read_replica: i32 = -1 => 11..;
        /// Whole batches; the first may begin before the offset asked for.
        records: Option<RecordSet> = None => 0..;
    } tagged {
        0 diverging_epoch: EpochEndOffset => 12..;
        1 current_leader: LeaderIdAndEpoch => 12..;
        2 snapshot_id: SnapshotId => 12..;
    }

    /// Where the log of the asking replica parts from ours (KIP-595).
    pub struct EpochEndOffset {
        epoch: i32 = -1 => 12..;
        end_offset: i64 = -1 => 12..;
    }

    /// A leader and its epoch, both -1 when unknown.
    pub struct LeaderIdAndEpoch {
        leader_id: i32 = -1 => 12..;
        leader_epoch: i32 = -1 => 12..;
    }

    /// A snapshot to fetch instead (KIP-630).
    pub struct SnapshotId {
        end_offset: i64 = -1 => 0..;
        epoch: i32 = -1 => 0..;
    }

    /// A transaction whose records a read-committed reader drops.
    pub struct AbortedTransaction {
        producer_id: i64 => 4..;
        first_offset: i64 => 4..;
    }

    /// Where a leader that the response names is reached.
    pub struct NodeEndpoint {
        node_id: i32 => 16..;
        host: StrBytes => 16..;
        port: i32 => 16..;
        rack: Option<StrBytes> = None => 16..;
    }
}
