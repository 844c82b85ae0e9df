//! DescribeProducers (key 61): idempotent producers of partitions (KIP-664).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    DescribeProducersRequest of DescribeProducers 0..=0, flexible 0.., answered by DescribeProducersResponse;

    /// Asks for partitions.
    pub struct DescribeProducersRequest {
        topics: Vec<DescribeProducersTopic> => 0..;
    }

    /// A topic.
    pub struct DescribeProducersTopic {
        name: StrBytes => 0..;
        partition_indexes: Vec<i32> => 0..;
    }
}

message! {
    DescribeProducersResponse of DescribeProducers 0..=0, flexible 0..;

    /// The producers.
    pub struct DescribeProducersResponse {
        throttle_time_ms: i32 => 0.., else ignored;
        topics: Vec<DescribeProducersTopicResponse> => 0..;
    }

    /// A topic.
    pub struct DescribeProducersTopicResponse {
        name: StrBytes => 0..;
        partitions: Vec<DescribeProducersPartition> => 0..;
    }

    /// A partition.
    pub struct DescribeProducersPartition {
        partition_index: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 0..;
        active_producers: Vec<ProducerState> => 0..;
    }

    /// A producer.
    pub struct ProducerState {
        producer_id: i64 => 0..;
        producer_epoch: i32 => 0..;
        last_sequence: i32 = -1 => 0..;
        /// Unix milliseconds.
        last_timestamp: i64 = -1 => 0..;
        coordinator_epoch: i32 => 0..;
        /// -1: no transaction.
        current_txn_start_offset: i64 = -1 => 0..;
    }
}
