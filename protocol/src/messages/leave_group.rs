//! LeaveGroup (key 13): members leave a classic group.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    LeaveGroupRequest of LeaveGroup 0..=5, flexible 4.., answered by LeaveGroupResponse;

    /// Who leaves: one up to version 2, several from version 3 (KIP-345).
    pub struct LeaveGroupRequest {
        group_id: StrBytes => 0..;
        member_id: StrBytes => 0..=2;
        members: Vec<MemberIdentity> => 3..;
    }

    /// A member that leaves.
    pub struct MemberIdentity {
        member_id: StrBytes => 3..;
        group_instance_id: Option<StrBytes> = None => 3..;
        reason: Option<StrBytes> = None => 5.., else ignored;
    }
}

message! {
    LeaveGroupResponse of LeaveGroup 0..=5, flexible 4..;

    /// What became of it.
    pub struct LeaveGroupResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        error_code: ErrorCode => 0..;
        members: Vec<MemberResponse> => 3..;
    }

    /// What became of one member.
    pub struct MemberResponse {
        member_id: StrBytes => 3..;
        group_instance_id: Option<StrBytes> = Some(StrBytes::new()) => 3..;
        error_code: ErrorCode => 3..;
    }
}
