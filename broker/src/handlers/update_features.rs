//! UpdateFeatures: there are no features with levels here, so that none can be changed.

use super::{RequestContext, message};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::update_features::UpdatableFeatureResult;
use millrace_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

/// First version that refuses all features together.
const TOGETHER: i16 = 2;

/// Refuses every feature named.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: UpdateFeaturesRequest) {
    let text = |feature: &str| message(format!("There is no feature {feature} here."));
    let mut response = UpdateFeaturesResponse { error_message: None, ..UpdateFeaturesResponse::default() };
    if context.version >= TOGETHER {
        if let Some(first) = request.feature_updates.first() {
            response.error_code = ErrorCode::InvalidUpdateVersion;
            response.error_message = Some(text(&first.feature));
        }
    } else {
        let refused = request.feature_updates.into_iter().map(|update| UpdatableFeatureResult {
            error_code: ErrorCode::InvalidUpdateVersion,
            error_message: Some(text(&update.feature)),
            feature: update.feature,
        });
        response.results = refused.collect();
    }
    context.reply(core, &response);
}
