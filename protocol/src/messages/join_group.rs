//! JoinGroup (key 11): enter a classic group, or its next generation.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use bytes::Bytes;

message! {
    JoinGroupRequest of JoinGroup 0..=9, flexible 6.., answered by JoinGroupResponse;

    /// Asks to be a member.
    pub struct JoinGroupRequest {
        group_id: StrBytes => 0..;
        session_timeout_ms: i32 => 0..;
        /// How long members may take to rejoin; version 0 uses the session timeout.
        rebalance_timeout_ms: i32 = -1 => 1.., else ignored;
        member_id: StrBytes => 0..;
        group_instance_id: Option<StrBytes> = None => 5..;
        protocol_type: StrBytes => 0..;
        protocols: Vec<JoinGroupRequestProtocol> => 0..;
        reason: Option<StrBytes> = None => 8.., else ignored;
    }

    /// An assignor that the member knows, with its subscription.
    pub struct JoinGroupRequestProtocol {
        name: StrBytes => 0..;
        metadata: Bytes => 0..;
    }
}

message! {
    JoinGroupResponse of JoinGroup 0..=9, flexible 6..;

    /// The generation joined.
    pub struct JoinGroupResponse {
        throttle_time_ms: i32 => 2.., else ignored;
        error_code: ErrorCode => 0..;
        generation_id: i32 = -1 => 0..;
        protocol_type: Option<StrBytes> = None => 7.., else ignored;
        protocol_name: Option<StrBytes> = Some(StrBytes::new()) => 0.., nullable 7..;
        leader: StrBytes => 0..;
        skip_assignment: bool => 9..;
        member_id: StrBytes => 0..;
        /// Everyone, in the answer to the leader; empty for others.
        members: Vec<JoinGroupResponseMember> => 0..;
    }

    /// A member of the generation.
    pub struct JoinGroupResponseMember {
        member_id: StrBytes => 0..;
        group_instance_id: Option<StrBytes> = None => 5.., else ignored;
        metadata: Bytes => 0..;
    }
}
