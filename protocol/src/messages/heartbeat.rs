//! Heartbeat (key 12): a member of a classic group is alive.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    HeartbeatRequest of Heartbeat 0..=4, flexible 4.., answered by HeartbeatResponse;

    /// Says so.
    pub struct HeartbeatRequest {
        group_id: StrBytes => 0..;
        generation_id: i32 => 0..;
        member_id: StrBytes => 0..;
        group_instance_id: Option<StrBytes> = None => 3..;
    }
}

message! {
    HeartbeatResponse of Heartbeat 0..=4, flexible 4..;

    /// No error, or a rebalance is on.
    pub struct HeartbeatResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        error_code: ErrorCode => 0..;
    }
}
