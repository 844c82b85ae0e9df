//! CreateTopics (key 19).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    CreateTopicsRequest of CreateTopics 2..=7, flexible 5.., answered by CreateTopicsResponse;

    /// Topics to create, or only to check.
    pub struct CreateTopicsRequest {
        topics: Vec<CreatableTopic> => 0..;
        timeout_ms: i32 = 60000 => 0..;
        validate_only: bool => 1..;
    }

    /// A topic to create.
    pub struct CreatableTopic {
        name: StrBytes => 0..;
        /// -1: the broker's default, or as many as `assignments` lists.
        num_partitions: i32 => 0..;
        /// -1: the broker's default, or as `assignments` says.
        replication_factor: i16 => 0..;
        assignments: Vec<CreatableReplicaAssignment> => 0..;
        configs: Vec<CreatableTopicConfig> => 0..;
    }

    /// The replicas that the client wants for a partition.
    pub struct CreatableReplicaAssignment {
        partition_index: i32 => 0..;
        broker_ids: Vec<i32> => 0..;
    }

    /// A setting of the topic.
    pub struct CreatableTopicConfig {
        name: StrBytes => 0..;
        value: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}

message! {
    CreateTopicsResponse of CreateTopics 2..=7, flexible 5..;

    /// What became of the topics.
    pub struct CreateTopicsResponse {
        throttle_time_ms: i32 => 2.., else ignored;
        topics: Vec<CreatableTopicResult> => 0..;
    }

    /// What became of one topic.
    pub struct CreatableTopicResult {
        name: StrBytes => 0..;
        topic_id: Uuid => 7.., else ignored;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 1.., else ignored;
        num_partitions: i32 = -1 => 5.., else ignored;
        replication_factor: i16 = -1 => 5.., else ignored;
        configs: Option<Vec<CreatableTopicConfigs>> = Some(Vec::new()) => 5.., else ignored;
    } tagged {
        /// Why the settings below are missing.
        0 topic_config_error_code: ErrorCode => 5.., else ignored;
    }

    /// An effective setting of the new topic (KIP-525).
    pub struct CreatableTopicConfigs {
        name: StrBytes => 5..;
        value: Option<StrBytes> = Some(StrBytes::new()) => 5..;
        read_only: bool => 5..;
        config_source: i8 = -1 => 5.., else ignored;
        is_sensitive: bool => 5..;
    }
}
