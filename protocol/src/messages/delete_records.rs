//! DeleteRecords (key 21, KIP-107): everything below an offset of a partition goes.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    DeleteRecordsRequest of DeleteRecords 0..=2, flexible 2.., answered by DeleteRecordsResponse;

    /// Where logs are to start.
    pub struct DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic> => 0..;
        /// How long the answer may take.
        timeout_ms: i32 => 0..;
    }

    /// A topic.
    pub struct DeleteRecordsTopic {
        name: StrBytes => 0..;
        partitions: Vec<DeleteRecordsPartition> => 0..;
    }

    /// A partition.
    pub struct DeleteRecordsPartition {
        partition_index: i32 => 0..;
        /// First offset that stays; −1: the high watermark.
        offset: i64 => 0..;
    }
}

message! {
    DeleteRecordsResponse of DeleteRecords 0..=2, flexible 2..;

    /// What became of them.
    pub struct DeleteRecordsResponse {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DeleteRecordsTopicResult> => 0..;
    }

    /// A topic.
    pub struct DeleteRecordsTopicResult {
        name: StrBytes => 0..;
        partitions: Vec<DeleteRecordsPartitionResult> => 0..;
    }

    /// A partition.
    pub struct DeleteRecordsPartitionResult {
        partition_index: i32 => 0..;
        /// Where the log starts now; −1 after an error.
        low_watermark: i64 => 0..;
        error_code: ErrorCode => 0..;
    }
}
