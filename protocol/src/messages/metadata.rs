//! Metadata (key 3): brokers, topics, partitions and their leaders. May create topics.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    MetadataRequest of Metadata 0..=13, flexible 9.., answered by MetadataResponse;

    /// Asks for some topics or for all.
    pub struct MetadataRequest {
        /// Null means all topics; in version 0 the empty list does.
        topics: Option<Vec<MetadataRequestTopic>> = Some(Vec::new()) => 0.., nullable 1..;
        allow_auto_topic_creation: bool = true => 4..;
        include_cluster_authorized_operations: bool => 8..=10;
        include_topic_authorized_operations: bool => 8..;
    }

    /// A topic by name, or by id with the name null.
    pub struct MetadataRequestTopic {
        topic_id: Uuid => 10.., else ignored;
        name: Option<StrBytes> = Some(StrBytes::new()) => 0.., nullable 10..;
    }
}

message! {
    MetadataResponse of Metadata 0..=13, flexible 9..;

    /// The cluster as this broker knows it.
    pub struct MetadataResponse {
        throttle_time_ms: i32 => 3.., else ignored;
        brokers: Vec<MetadataResponseBroker> => 0..;
        cluster_id: Option<StrBytes> = None => 2.., else ignored;
        /// A live node: clients send admin calls there.
        controller_id: i32 = -1 => 1.., else ignored;
        topics: Vec<MetadataResponseTopic> => 0..;
        /// A bit set of ACL operations, `i32::MIN` if not asked for.
        cluster_authorized_operations: i32 = i32::MIN => 8..=10;
        error_code: ErrorCode => 13.., else ignored;
    }

    /// A node that clients can connect to.
    pub struct MetadataResponseBroker {
        node_id: i32 => 0..;
        host: StrBytes => 0..;
        port: i32 => 0..;
        rack: Option<StrBytes> = None => 1.., else ignored;
    }

    /// A topic or why there is none.
    pub struct MetadataResponseTopic {
        error_code: ErrorCode => 0..;
        name: Option<StrBytes> = Some(StrBytes::new()) => 0.., nullable 12..;
        topic_id: Uuid => 10.., else ignored;
        is_internal: bool => 1.., else ignored;
        partitions: Vec<MetadataResponsePartition> => 0..;
        /// A bit set of ACL operations, `i32::MIN` if not asked for.
        topic_authorized_operations: i32 = i32::MIN => 8..;
    }

    /// A partition and its leader.
    pub struct MetadataResponsePartition {
        error_code: ErrorCode => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 = -1 => 7.., else ignored;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        offline_replicas: Vec<i32> => 5.., else ignored;
    }
}
