//! SyncGroup (key 14): the leader hands out assignments, members wait for theirs.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use bytes::Bytes;

message! {
    SyncGroupRequest of SyncGroup 0..=5, flexible 4.., answered by SyncGroupResponse;

    /// Asks for one's assignment; the leader brings all of them.
    pub struct SyncGroupRequest {
        group_id: StrBytes => 0..;
        generation_id: i32 => 0..;
        member_id: StrBytes => 0..;
        group_instance_id: Option<StrBytes> = None => 3..;
        protocol_type: Option<StrBytes> = None => 5.., else ignored;
        protocol_name: Option<StrBytes> = None => 5.., else ignored;
        assignments: Vec<SyncGroupRequestAssignment> => 0..;
    }

    /// What one member shall read.
    pub struct SyncGroupRequestAssignment {
        member_id: StrBytes => 0..;
        assignment: Bytes => 0..;
    }
}

message! {
    SyncGroupResponse of SyncGroup 0..=5, flexible 4..;

    /// The member's assignment.
    pub struct SyncGroupResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        error_code: ErrorCode => 0..;
        protocol_type: Option<StrBytes> = None => 5.., else ignored;
        protocol_name: Option<StrBytes> = None => 5.., else ignored;
        assignment: Bytes => 0..;
    }
}
