//! DescribeQuorum (key 55): who keeps the cluster's metadata (KIP-595).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    DescribeQuorumRequest of DescribeQuorum 0..=2, flexible 0.., answered by DescribeQuorumResponse;

    /// Asks for the quorum of a partition: of `__cluster_metadata`, there is no other.
    pub struct DescribeQuorumRequest {
        topics: Vec<DescribeQuorumTopic> => 0..;
    }

    /// A topic.
    pub struct DescribeQuorumTopic {
        topic_name: StrBytes => 0..;
        partitions: Vec<DescribeQuorumPartition> => 0..;
    }

    /// A partition.
    pub struct DescribeQuorumPartition {
        partition_index: i32 => 0..;
    }
}

message! {
    DescribeQuorumResponse of DescribeQuorum 0..=2, flexible 0..;

    /// The quorum.
    pub struct DescribeQuorumResponse {
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 2.., else ignored;
        topics: Vec<QuorumTopic> => 0..;
        nodes: Vec<QuorumNode> => 2.., else ignored;
    }

    /// A topic.
    pub struct QuorumTopic {
        topic_name: StrBytes => 0..;
        partitions: Vec<QuorumPartition> => 0..;
    }

    /// A partition.
    pub struct QuorumPartition {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 2.., else ignored;
        leader_id: i32 => 0..;
        leader_epoch: i32 => 0..;
        high_watermark: i64 => 0..;
        current_voters: Vec<ReplicaState> => 0..;
        observers: Vec<ReplicaState> => 0..;
    }

    /// A member.
    pub struct ReplicaState {
        replica_id: i32 => 0..;
        replica_directory_id: Uuid => 2.., else ignored;
        log_end_offset: i64 => 0..;
        /// Unix milliseconds.
        last_fetch_timestamp: i64 = -1 => 1.., else ignored;
        /// Unix milliseconds.
        last_caught_up_timestamp: i64 = -1 => 1.., else ignored;
    }

    /// Where a member is reached.
    pub struct QuorumNode {
        node_id: i32 => 2..;
        listeners: Vec<QuorumListener> => 2..;
    }

    /// One address.
    pub struct QuorumListener {
        name: StrBytes => 2..;
        host: StrBytes => 2..;
        port: u16 => 2..;
    }
}
