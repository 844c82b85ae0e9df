//! ListConfigResources (key 74): what has settings (KIP-1142).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

/// The type of client metrics subscriptions: what version 0 lists.
pub const CLIENT_METRICS: i8 = 16;

message! {
    ListConfigResourcesRequest of ListConfigResources 0..=1, flexible 0.., answered by ListConfigResourcesResponse;

    /// Asks for them.
    pub struct ListConfigResourcesRequest {
        /// The numbers of `describe_configs`; empty: every type.
        resource_types: Vec<i8> => 1..;
    }
}

message! {
    ListConfigResourcesResponse of ListConfigResources 0..=1, flexible 0..;

    /// What there is.
    pub struct ListConfigResourcesResponse {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        config_resources: Vec<ConfigResource> => 0..;
    }

    /// A resource.
    pub struct ConfigResource {
        resource_name: StrBytes => 0..;
        resource_type: i8 = CLIENT_METRICS => 1.., else ignored;
    }
}
