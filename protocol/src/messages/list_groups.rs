//! ListGroups (key 16): the groups that a broker coordinates.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    ListGroupsRequest of ListGroups 0..=5, flexible 3.., answered by ListGroupsResponse;

    /// Asks for the groups in some states (KIP-518) and of some types (KIP-848); empty lists mean all.
    pub struct ListGroupsRequest {
        states_filter: Vec<StrBytes> => 4..;
        types_filter: Vec<StrBytes> => 5..;
    }
}

message! {
    ListGroupsResponse of ListGroups 0..=5, flexible 3..;

    /// The groups.
    pub struct ListGroupsResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        error_code: ErrorCode => 0..;
        groups: Vec<ListedGroup> => 0..;
    }

    /// One group.
    pub struct ListedGroup {
        group_id: StrBytes => 0..;
        protocol_type: StrBytes => 0..;
        group_state: StrBytes => 4.., else ignored;
        group_type: StrBytes => 5.., else ignored;
    }
}
