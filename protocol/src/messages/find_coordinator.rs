//! FindCoordinator (key 10): which node coordinates a group or transaction.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    FindCoordinatorRequest of FindCoordinator 0..=6, flexible 3.., answered by FindCoordinatorResponse;

    /// Asks for the coordinator of one key, or of several from version 4 (KIP-699).
    pub struct FindCoordinatorRequest {
        key: StrBytes => 0..=3;
        /// 0: group; 1: transaction; 2: share group.
        key_type: i8 => 1..;
        coordinator_keys: Vec<StrBytes> => 4..;
    }
}

message! {
    FindCoordinatorResponse of FindCoordinator 0..=6, flexible 3..;

    /// The coordinator: in the fields here up to version 3, then one for each key.
    pub struct FindCoordinatorResponse {
        throttle_time_ms: i32 => 1.., else ignored;
        error_code: ErrorCode => 0..=3;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 1..=3, else ignored;
        node_id: i32 => 0..=3;
        host: StrBytes => 0..=3;
        port: i32 => 0..=3;
        coordinators: Vec<Coordinator> => 4..;
    }

    /// The coordinator of one key.
    pub struct Coordinator {
        key: StrBytes => 4..;
        node_id: i32 => 4..;
        host: StrBytes => 4..;
        port: i32 => 4..;
        error_code: ErrorCode => 4..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 4.., else ignored;
    }
}
