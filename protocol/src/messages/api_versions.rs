//! ApiVersions (key 18): which APIs and versions the broker speaks. The first request of most connections.

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    ApiVersionsRequest of ApiVersions 0..=5, flexible 3.., answered by ApiVersionsResponse;

    /// Asks what the broker speaks and says what the client is (KIP-511).
    pub struct ApiVersionsRequest {
        client_software_name: StrBytes => 3.., else ignored;
        client_software_version: StrBytes => 3.., else ignored;
        /// The cluster and node that the client means to reach; another one answers REBOOTSTRAP_REQUIRED.
        cluster_id: Option<StrBytes> = None => 5.., else ignored;
        node_id: i32 = -1 => 5.., else ignored;
    }
}

message! {
    ApiVersionsResponse of ApiVersions 0..=5, flexible 3..;

    /// The versions served. A request of a version above ours gets this in version 0 with UNSUPPORTED_VERSION.
    pub struct ApiVersionsResponse {
        error_code: ErrorCode => 0..;
        api_keys: Vec<ApiVersion> => 0..;
        throttle_time_ms: i32 => 1.., else ignored;
    } tagged {
        0 supported_features: Vec<SupportedFeatureKey> => 3.., else ignored;
        1 finalized_features_epoch: i64 = -1 => 3.., else ignored;
        2 finalized_features: Vec<FinalizedFeatureKey> => 3.., else ignored;
        3 zk_migration_ready: bool => 3.., else ignored;
    }

    /// The versions of one API.
    pub struct ApiVersion {
        api_key: i16 => 0..;
        min_version: i16 => 0..;
        max_version: i16 => 0..;
    }

    /// A feature and the levels that this broker could serve (KIP-584).
    pub struct SupportedFeatureKey {
        name: StrBytes => 3..;
        min_version: i16 => 3..;
        max_version: i16 => 3..;
    }

    /// A feature and the levels that the cluster has agreed on.
    pub struct FinalizedFeatureKey {
        name: StrBytes => 3..;
        max_version_level: i16 => 3..;
        min_version_level: i16 => 3..;
    }
}
