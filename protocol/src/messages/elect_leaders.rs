//! ElectLeaders (key 43, KIP-460).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    ElectLeadersRequest of ElectLeaders 0..=2, flexible 2.., answered by ElectLeadersResponse;

    /// Asks for elections.
    pub struct ElectLeadersRequest {
        /// 0: the preferred replica; 1: any live one.
        election_type: i8 => 1..;
        /// Null: every partition.
        topic_partitions: Option<Vec<ElectLeadersTopic>> = Some(Vec::new()) => 0..;
        timeout_ms: i32 = 60000 => 0..;
    }

    /// A topic.
    pub struct ElectLeadersTopic {
        topic: StrBytes => 0..;
        partitions: Vec<i32> => 0..;
    }
}

message! {
    ElectLeadersResponse of ElectLeaders 0..=2, flexible 2..;

    /// What became of them.
    pub struct ElectLeadersResponse {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 1.., else ignored;
        replica_election_results: Vec<ReplicaElectionResult> => 0..;
    }

    /// A topic.
    pub struct ReplicaElectionResult {
        topic: StrBytes => 0..;
        partition_result: Vec<PartitionElectionResult> => 0..;
    }

    /// A partition.
    pub struct PartitionElectionResult {
        partition_id: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}
