//! DescribeTopicPartitions (key 75): topics page by page (KIP-966).

use crate::codec::{message, nullable_struct};
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    DescribeTopicPartitionsRequest of DescribeTopicPartitions 0..=0, flexible 0..,
        answered by DescribeTopicPartitionsResponse;

    /// Asks for a page.
    pub struct DescribeTopicPartitionsRequest {
        /// Empty: every topic.
        topics: Vec<TopicRequest> => 0..;
        response_partition_limit: i32 = 2000 => 0..;
        /// Where the page before ended.
        cursor: Option<RequestCursor> = None => 0..;
    }

    /// A topic.
    pub struct TopicRequest {
        name: StrBytes => 0..;
    }

    /// The first partition wanted.
    pub struct RequestCursor {
        topic_name: StrBytes => 0..;
        partition_index: i32 => 0..;
    }
}

message! {
    DescribeTopicPartitionsResponse of DescribeTopicPartitions 0..=0, flexible 0..;

    /// A page.
    pub struct DescribeTopicPartitionsResponse {
        throttle_time_ms: i32 => 0..;
        topics: Vec<DescribedTopic> => 0..;
        /// Null: this is the last page.
        next_cursor: Option<NextCursor> = None => 0..;
    }

    /// A topic.
    pub struct DescribedTopic {
        error_code: ErrorCode => 0..;
        name: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        topic_id: Uuid => 0..;
        is_internal: bool => 0..;
        partitions: Vec<DescribedPartition> => 0..;
        topic_authorized_operations: i32 = i32::MIN => 0..;
    }

    /// A partition.
    pub struct DescribedPartition {
        error_code: ErrorCode => 0..;
        partition_index: i32 => 0..;
        leader_id: i32 => 0..;
        leader_epoch: i32 = -1 => 0..;
        replica_nodes: Vec<i32> => 0..;
        isr_nodes: Vec<i32> => 0..;
        eligible_leader_replicas: Option<Vec<i32>> = None => 0..;
        last_known_elr: Option<Vec<i32>> = None => 0..;
        offline_replicas: Vec<i32> => 0..;
    }

    /// The first partition of the next page.
    pub struct NextCursor {
        topic_name: StrBytes => 0..;
        partition_index: i32 => 0..;
    }
}

nullable_struct!(RequestCursor, NextCursor);
