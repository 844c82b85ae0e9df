//! DescribeLogDirs (key 35): bytes of partitions by where they are stored (KIP-113, KIP-827).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    DescribeLogDirsRequest of DescribeLogDirs 1..=5, flexible 2.., answered by DescribeLogDirsResponse;

    /// Asks for partitions.
    pub struct DescribeLogDirsRequest {
        /// Null: every partition.
        topics: Option<Vec<DescribableLogDirTopic>> = Some(Vec::new()) => 0..;
    }

    /// A topic.
    pub struct DescribableLogDirTopic {
        topic: StrBytes => 0..;
        partitions: Vec<i32> => 0..;
    }
}

message! {
    DescribeLogDirsResponse of DescribeLogDirs 1..=5, flexible 2..;

    /// What is stored.
    pub struct DescribeLogDirsResponse {
        throttle_time_ms: i32 => 0.., else ignored;
        error_code: ErrorCode => 3.., else ignored;
        results: Vec<DescribeLogDirsResult> => 0..;
    }

    /// One place.
    pub struct DescribeLogDirsResult {
        error_code: ErrorCode => 0..;
        log_dir: StrBytes => 0..;
        topics: Vec<DescribeLogDirsTopic> => 0..;
        /// -1: not known.
        total_bytes: i64 = -1 => 4.., else ignored;
        usable_bytes: i64 = -1 => 4.., else ignored;
        is_cordoned: bool => 5.., else ignored;
    }

    /// A topic.
    pub struct DescribeLogDirsTopic {
        name: StrBytes => 0..;
        partitions: Vec<DescribeLogDirsPartition> => 0..;
    }

    /// A partition.
    pub struct DescribeLogDirsPartition {
        partition_index: i32 => 0..;
        /// In bytes.
        partition_size: i64 => 0..;
        offset_lag: i64 => 0..;
        is_future_key: bool => 0..;
    }
}
