//! ConsumerGroupDescribe (key 69): state and members of groups of the consumer protocol (KIP-848).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use uuid::Uuid;

message! {
    ConsumerGroupDescribeRequest of ConsumerGroupDescribe 0..=1, flexible 0..,
        answered by ConsumerGroupDescribeResponse;

    /// Asks for groups by id.
    pub struct ConsumerGroupDescribeRequest {
        group_ids: Vec<StrBytes> => 0..;
        include_authorized_operations: bool => 0..;
    }
}

message! {
    ConsumerGroupDescribeResponse of ConsumerGroupDescribe 0..=1, flexible 0..;

    /// The groups.
    pub struct ConsumerGroupDescribeResponse {
        throttle_time_ms: i32 => 0..;
        groups: Vec<DescribedConsumerGroup> => 0..;
    }

    /// One group.
    pub struct DescribedConsumerGroup {
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 0..;
        group_id: StrBytes => 0..;
        group_state: StrBytes => 0..;
        group_epoch: i32 => 0..;
        assignment_epoch: i32 => 0..;
        assignor_name: StrBytes => 0..;
        members: Vec<DescribedConsumerMember> => 0..;
        authorized_operations: i32 = i32::MIN => 0..;
    }

    /// A member.
    pub struct DescribedConsumerMember {
        member_id: StrBytes => 0..;
        instance_id: Option<StrBytes> = None => 0..;
        rack_id: Option<StrBytes> = None => 0..;
        member_epoch: i32 => 0..;
        client_id: StrBytes => 0..;
        client_host: StrBytes => 0..;
        subscribed_topic_names: Vec<StrBytes> => 0..;
        subscribed_topic_regex: Option<StrBytes> = None => 0..;
        assignment: DescribedAssignment => 0..;
        target_assignment: DescribedAssignment => 0..;
        /// 0: classic, 1: consumer, -1: unknown.
        member_type: i8 = -1 => 1.., else ignored;
    }

    /// What a member owns, or shall own.
    pub struct DescribedAssignment {
        topic_partitions: Vec<DescribedTopicPartitions> => 0..;
    }

    /// Partitions of a topic.
    pub struct DescribedTopicPartitions {
        topic_id: Uuid => 0..;
        topic_name: StrBytes => 0..;
        partitions: Vec<i32> => 0..;
    }
}
