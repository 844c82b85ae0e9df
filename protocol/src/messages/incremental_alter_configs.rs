//! IncrementalAlterConfigs (key 44): single settings of a resource (KIP-339).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    IncrementalAlterConfigsRequest of IncrementalAlterConfigs 0..=1, flexible 1..,
        answered by IncrementalAlterConfigsResponse;

    /// Settings to change, or only to check.
    pub struct IncrementalAlterConfigsRequest {
        resources: Vec<IncrementalResource> => 0..;
        validate_only: bool => 0..;
    }

    /// Whose settings.
    pub struct IncrementalResource {
        /// The numbers of `describe_configs`.
        resource_type: i8 => 0..;
        resource_name: StrBytes => 0..;
        configs: Vec<IncrementalConfig> => 0..;
    }

    /// One change.
    pub struct IncrementalConfig {
        name: StrBytes => 0..;
        /// 0: set; 1: delete; 2: append to a list; 3: subtract from a list.
        config_operation: i8 => 0..;
        value: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}

message! {
    IncrementalAlterConfigsResponse of IncrementalAlterConfigs 0..=1, flexible 1..;

    /// What became of the resources.
    pub struct IncrementalAlterConfigsResponse {
        throttle_time_ms: i32 => 0..;
        responses: Vec<IncrementalResourceResponse> => 0..;
    }

    /// What became of one resource.
    pub struct IncrementalResourceResponse {
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        resource_type: i8 => 0..;
        resource_name: StrBytes => 0..;
    }
}
