//! UpdateFeatures: the one feature with levels is at the only one that we serve, so that none can be changed.

use super::api_versions::GROUP_VERSION;
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
        let why = match first.feature.as_str() {
            GROUP_VERSION => format!("The level of {GROUP_VERSION} is fixed here."),
            other => format!("There is no feature {other} here."),
        };
        response.error_message = Some(message(why));
    }
    context.reply(core, &response);
}
