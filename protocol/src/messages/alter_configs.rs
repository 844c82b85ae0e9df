//! AlterConfigs (key 33): all settings of a resource at once; what is not named returns to its default.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    AlterConfigsRequest of AlterConfigs 0..=2, flexible 2.., answered by AlterConfigsResponse;

    /// Settings to set, or only to check.
    pub struct AlterConfigsRequest {
        resources: Vec<AlterConfigsResource> => 0..;
        validate_only: bool => 0..;
    }

    /// Whose settings.
    pub struct AlterConfigsResource {
        /// The numbers of `describe_configs`.
        resource_type: i8 => 0..;
        resource_name: StrBytes => 0..;
        configs: Vec<AlterableConfig> => 0..;
    }

    /// One setting.
    pub struct AlterableConfig {
        name: StrBytes => 0..;
        value: Option<StrBytes> = Some(StrBytes::new()) => 0..;
    }
}

message! {
    AlterConfigsResponse of AlterConfigs 0..=2, flexible 2..;

    /// What became of the resources.
    pub struct AlterConfigsResponse {
        throttle_time_ms: i32 => 0..;
        responses: Vec<AlterConfigsResourceResponse> => 0..;
    }

    /// What became of one resource.
    pub struct AlterConfigsResourceResponse {
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        resource_type: i8 => 0..;
        resource_name: StrBytes => 0..;
    }
}
