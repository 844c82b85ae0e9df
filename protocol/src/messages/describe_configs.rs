//! DescribeConfigs (key 32): settings of topics, brokers and groups.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    DescribeConfigsRequest of DescribeConfigs 1..=4, flexible 4.., answered by DescribeConfigsResponse;

    /// Asks for settings.
    pub struct DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource> => 0..;
        include_synonyms: bool => 1..;
        include_documentation: bool => 3..;
    }

    /// Whose settings.
    pub struct DescribeConfigsResource {
        /// 2: topic; 4: broker; 8: broker logger; 16: client metrics; 32: group.
        resource_type: i8 => 0..;
        resource_name: StrBytes => 0..;
        /// Null means all.
        configuration_keys: Option<Vec<StrBytes>> = Some(Vec::new()) => 0..;
    }
}

message! {
    DescribeConfigsResponse of DescribeConfigs 1..=4, flexible 4..;

    /// The settings.
    pub struct DescribeConfigsResponse {
        throttle_time_ms: i32 => 0..;
        results: Vec<DescribeConfigsResult> => 0..;
    }

    /// Settings of one resource.
    pub struct DescribeConfigsResult {
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        resource_type: i8 => 0..;
        resource_name: StrBytes => 0..;
        configs: Vec<DescribeConfigsResourceResult> => 0..;
    }

    /// One setting.
    pub struct DescribeConfigsResourceResult {
        name: StrBytes => 0..;
        value: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        read_only: bool => 0..;
        /// 1: topic; 2: dynamic broker; 3: dynamic default broker; 4: static broker; 5: default.
        config_source: i8 = -1 => 1.., else ignored;
        is_sensitive: bool => 0..;
        synonyms: Vec<DescribeConfigsSynonym> => 1.., else ignored;
        /// 0: unknown; 1: boolean; 2: string; 3: int; 4: short; 5: long; 6: double; 7: list; 8: class; 9: password.
        config_type: i8 => 3.., else ignored;
        documentation: Option<StrBytes> = Some(StrBytes::new()) => 3.., else ignored;
    }

    /// Where else the setting could come from, in order of precedence.
    pub struct DescribeConfigsSynonym {
        name: StrBytes => 1..;
        value: Option<StrBytes> = Some(StrBytes::new()) => 1..;
        source: i8 => 1..;
    }
}
