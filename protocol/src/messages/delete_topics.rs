//! DeleteTopics (key 20).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    DeleteTopicsRequest of DeleteTopics 1..=6, flexible 4.., answered by DeleteTopicsResponse;

    /// Topics to delete: by name up to version 5, then by name or id.
    pub struct DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> => 6..;
        topic_names: Vec<StrBytes> => 0..=5, else ignored;
        timeout_ms: i32 => 0..;
    }

    /// A topic by name, or by id with the name null.
    pub struct DeleteTopicState {
        name: Option<StrBytes> = None => 6..;
        topic_id: Uuid => 6..;
    }
}

message! {
    DeleteTopicsResponse of DeleteTopics 1..=6, flexible 4..;

    /// What became of the topics.
    pub struct DeleteTopicsResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        responses: Vec<DeletableTopicResult> => 0..;
    }

    /// What became of one topic.
    pub struct DeletableTopicResult {
        name: Option<StrBytes> = Some(StrBytes::new()) => 0.., nullable 6..;
        topic_id: Uuid => 6.., else ignored;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 5.., else ignored;
    }
}
