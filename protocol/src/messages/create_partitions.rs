//! CreatePartitions (key 37): more partitions for existing topics (KIP-195).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    CreatePartitionsRequest of CreatePartitions 0..=3, flexible 2.., answered by CreatePartitionsResponse;

    /// Topics to enlarge, or only to check.
    pub struct CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic> => 0..;
        timeout_ms: i32 => 0..;
        validate_only: bool => 0..;
    }

    /// A topic to enlarge.
    pub struct CreatePartitionsTopic {
        name: StrBytes => 0..;
        /// How many there shall be, those that exist included.
        count: i32 => 0..;
        /// Null: the broker decides where the new ones lie.
        assignments: Option<Vec<CreatePartitionsAssignment>> = Some(Vec::new()) => 0..;
    }

    /// The replicas that the client wants for a new partition.
    pub struct CreatePartitionsAssignment {
        broker_ids: Vec<i32> => 0..;
    }
}

message! {
    CreatePartitionsResponse of CreatePartitions 0..=3, flexible 2..;

    /// What became of the topics.
    pub struct CreatePartitionsResponse {
        throttle_time_ms: i32 => 0..;
        results: Vec<CreatePartitionsTopicResult> => 0..;
    }

    /// What became of one topic.
    pub struct CreatePartitionsTopicResult {
        name: StrBytes => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 0..;
    }
}
