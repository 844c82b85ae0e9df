//! DeleteGroups (key 42): forget empty groups and their offsets (KIP-229).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    DeleteGroupsRequest of DeleteGroups 0..=3, flexible 2.., answered by DeleteGroupsResponse;

    /// Asks for groups by id.
    pub struct DeleteGroupsRequest {
        groups_names: Vec<StrBytes> => 0..;
    }
}

message! {
    DeleteGroupsResponse of DeleteGroups 0..=3, flexible 2..;

    /// What became of the groups.
    pub struct DeleteGroupsResponse {
        throttle_time_ms: i32 => 0..;
        results: Vec<DeletableGroupResult> => 0..;
    }

    /// What became of one group.
    pub struct DeletableGroupResult {
        group_id: StrBytes => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = None => 3.., else ignored;
    }
}
