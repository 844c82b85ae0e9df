//! ConsumerGroupHeartbeat (key 68): joins, keeps up, follows its assignment and leaves, all in one call (KIP-848).

use crate::codec::{message, nullable_struct};
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    ConsumerGroupHeartbeatRequest of ConsumerGroupHeartbeat 0..=1, flexible 0..,
        answered by ConsumerGroupHeartbeatResponse;

    /// What the member is and has; null and -1 mean unchanged since it last said so.
    pub struct ConsumerGroupHeartbeatRequest {
        group_id: StrBytes => 0..;
        /// Made by the member from version 1 on.
        member_id: StrBytes => 0..;
        /// 0: joins; -1: leaves; -2: a static member leaves and will be back.
        member_epoch: i32 => 0..;
        instance_id: Option<StrBytes> = None => 0..;
        rack_id: Option<StrBytes> = None => 0..;
        rebalance_timeout_ms: i32 = -1 => 0..;
        subscribed_topic_names: Option<Vec<StrBytes>> = None => 0..;
        subscribed_topic_regex: Option<StrBytes> = None => 1..;
        server_assignor: Option<StrBytes> = None => 0..;
        /// What it owns.
        topic_partitions: Option<Vec<OwnedTopicPartitions>> = None => 0..;
    }

    /// Partitions of a topic that the member owns.
    pub struct OwnedTopicPartitions {
        topic_id: Uuid => 0..;
        partitions: Vec<i32> => 0..;
    }
}

message! {
    ConsumerGroupHeartbeatResponse of ConsumerGroupHeartbeat 0..=1, flexible 0..;

    /// The member's epoch, and what it shall own if that is news to it.
    pub struct ConsumerGroupHeartbeatResponse {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 0..;
        member_id: Option<StrBytes> = None => 0..;
        member_epoch: i32 => 0..;
        heartbeat_interval_ms: i32 => 0..;
        assignment: Option<HeartbeatAssignment> = None => 0..;
    }

    /// What a member shall own.
    pub struct HeartbeatAssignment {
        topic_partitions: Vec<AssignedTopicPartitions> => 0..;
    }

    /// Partitions of a topic that the member shall own.
    pub struct AssignedTopicPartitions {
        topic_id: Uuid => 0..;
        partitions: Vec<i32> => 0..;
    }
}

nullable_struct!(HeartbeatAssignment);
