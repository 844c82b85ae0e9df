//! DescribeGroups (key 15): state and members of classic groups.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;
use bytes::Bytes;

message! {
    DescribeGroupsRequest of DescribeGroups 0..=6, flexible 5.., answered by DescribeGroupsResponse;

    /// Asks for groups by id.
    pub struct DescribeGroupsRequest {
        groups: Vec<StrBytes> => 0..;
        include_authorized_operations: bool => 3..;
    }
}

message! {
    DescribeGroupsResponse of DescribeGroups 0..=6, flexible 5..;

    /// The groups.
    pub struct DescribeGroupsResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        groups: Vec<DescribedGroup> => 0..;
    }

    /// One group; state `Dead` if there is none.
    pub struct DescribedGroup {
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 6..;
        group_id: StrBytes => 0..;
        group_state: StrBytes => 0..;
        protocol_type: StrBytes => 0..;
        protocol_data: StrBytes => 0..;
        members: Vec<DescribedGroupMember> => 0..;
        authorized_operations: i32 = i32::MIN => 3..;
    }

    /// A member; its bytes are the business of clients.
    pub struct DescribedGroupMember {
        member_id: StrBytes => 0..;
        group_instance_id: Option<StrBytes> = None => 4.., else ignored;
        client_id: StrBytes => 0..;
        client_host: StrBytes => 0..;
        member_metadata: Bytes => 0..;
        member_assignment: Bytes => 0..;
    }
}
