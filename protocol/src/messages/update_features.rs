//! UpdateFeatures (key 57, KIP-584).

use crate::codec::message;
use crate::error_code::ErrorCode;
use crate::string::StrBytes;

message! {
    UpdateFeaturesRequest of UpdateFeatures 0..=2, flexible 0.., answered by UpdateFeaturesResponse;

    /// Levels of features.
    pub struct UpdateFeaturesRequest {
        timeout_ms: i32 = 60000 => 0..;
        feature_updates: Vec<FeatureUpdateKey> => 0..;
        validate_only: bool => 1..;
    }

    /// One feature.
    pub struct FeatureUpdateKey {
        feature: StrBytes => 0..;
        max_version_level: i16 => 0..;
        allow_downgrade: bool => 0..=0;
        /// 1: upgrade; 2: safe downgrade; 3: unsafe downgrade.
        upgrade_type: i8 = 1 => 1..;
    }
}

message! {
    UpdateFeaturesResponse of UpdateFeatures 0..=2, flexible 0..;

    /// What became of them.
    pub struct UpdateFeaturesResponse {
        throttle_time_ms: i32 => 0..;
        error_code: ErrorCode => 0..;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..;
        results: Vec<UpdatableFeatureResult> => 0..=1, else ignored;
    }

    /// One feature.
    pub struct UpdatableFeatureResult {
        feature: StrBytes => 0..=1;
        error_code: ErrorCode => 0..=1;
        error_message: Option<StrBytes> = Some(StrBytes::new()) => 0..=1;
    }
}
