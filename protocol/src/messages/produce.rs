//! Produce (key 0): batches to append. Versions 0 to 2 are advertised but have no declared form: they carry the message
//! formats before version 2.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use bytes::Bytes;
use uuid::Uuid;

message! {
    ProduceRequest of Produce 3..=13, flexible 9.., answered by ProduceResponse;

    /// Batches for partitions. The broker reads [`super::produce_view::ProduceView`] instead, which allocates less.
    pub struct ProduceRequest {
        transactional_id: Option<StrBytes> = None => 3..;
        /// 0: no answer; 1: answer when appended; -1: answer when durable.
        acks: i16 => 0..;
        timeout_ms: i32 => 0..;
        topic_data: Vec<TopicProduceData> => 0..;
    }

    /// Batches for one topic, named up to version 12 and by id from 13.
    pub struct TopicProduceData {
        name: StrBytes => 0..=12, else ignored;
        topic_id: Uuid => 13.., else ignored;
        partition_data: Vec<PartitionProduceData> => 0..;
    }

    /// Batches for one partition.
    pub struct PartitionProduceData {
        index: i32 => 0..;
        records: Option<Bytes> = None => 0..;
    }
}

message! {
    ProduceResponse of Produce 3..=13, flexible 9..;

    /// What became of the batches.
    pub struct ProduceResponse {
        responses: Vec<TopicProduceResponse> => 0..;
        throttle_time_ms: i32 => 1.., else ignored;
    } tagged {
        0 node_endpoints: Vec<NodeEndpoint> => 10..;
    }

    /// Results of one topic.
    pub struct TopicProduceResponse {
        name: StrBytes => 0..=12, else ignored;
        topic_id: Uuid => 13.., else ignored;
        partition_responses: Vec<PartitionProduceResponse> => 0..;
    }

    /// The result of one partition.
    pub struct PartitionProduceResponse {
        index: i32 => 0..;
        error_code: ErrorCode => 0..;
        /// Offset of the first record, -1 on error.
        base_offset: i64 => 0..;
        /// -1 for topics that keep the time of creation.
        log_append_time_ms: i64 = -1 => 2.., else ignored;
        log_start_offset: i64 = -1 => 5.., else ignored;
        record_errors: Vec<BatchIndexAndErrorMessage> => 8.., else ignored;
        error_message: Option<StrBytes> = None => 8.., else ignored;
    } tagged {
        /// Where to go instead (KIP-951).
        0 current_leader: LeaderIdAndEpoch => 10..;
    }

    /// A record that was refused (KIP-467).
    pub struct BatchIndexAndErrorMessage {
        batch_index: i32 => 8..;
        batch_index_error_message: Option<StrBytes> = None => 8..;
    }

    /// A leader and its epoch, both -1 when unknown.
    pub struct LeaderIdAndEpoch {
        leader_id: i32 = -1 => 10..;
        leader_epoch: i32 = -1 => 10..;
    }

    /// Where a leader that the response names is reached.
    pub struct NodeEndpoint {
        node_id: i32 => 10..;
        host: StrBytes => 10..;
        port: i32 => 10..;
        rack: Option<StrBytes> = None => 10..;
    }
}
