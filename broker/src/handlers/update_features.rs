//! UpdateFeatures: there are no features with levels here, so that none can be changed.

use super::{RequestContext, message};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

/// Refuses the request if it names a feature.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: UpdateFeaturesRequest) {
    let mut response = UpdateFeaturesResponse { error_message: None, ..UpdateFeaturesResponse::default() };
    if let Some(first) = request.feature_updates.first() {
        response.error_code = ErrorCode::InvalidUpdateVersion;
        response.error_message = Some(message(format!("There is no feature {} here.", first.feature)));
    }
    context.reply(core, &response);
}
