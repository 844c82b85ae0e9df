//! ApiVersions: which APIs and versions we serve. The first request of most connections.

use super::RequestContext;
use crate::shard::core::ShardCore;
use crate::shard::events::{Now, Reply};
use millrace_protocol::api::{ADVERTISED, AdvertisedApi, ApiKey};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::response_frame;
use millrace_protocol::messages::api_versions::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use millrace_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

/// The feature by which clients and tools see that groups of the consumer protocol are served (KIP-848), and its level.
pub(crate) const GROUP_VERSION: &str = "group.version";
const GROUP_VERSION_LEVEL: i16 = 1;
/// First version that may say that a feature's levels begin at 0; before, clients took that for an error (KAFKA-17011).
const LEVEL_ZERO: i16 = 4;

/// What Kafka takes as a name or version of client software (KIP-511).
fn is_software_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.chars().all(inner) && text.starts_with(edge) && text.ends_with(edge)
}

/// Answers with the whole table.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: ApiVersionsRequest) {
    let names = [&request.client_software_name, &request.client_software_version];
    let mut response = ApiVersionsResponse::default();
    if context.version >= 3 && !names.into_iter().all(|name| is_software_name(name)) {
        response.error_code = ErrorCode::InvalidRequest;
    } else if is_elsewhere(core, &request) {
        response.error_code = ErrorCode::RebootstrapRequired;
    } else {
        response.api_keys = ADVERTISED.iter().map(row).collect();
        add_features(&mut response, context.version);
    }
    context.reply(core, &response);
}

/// The one feature that has levels here, which no request changes.
fn add_features(response: &mut ApiVersionsResponse, version: i16) {
    response.supported_features = vec![SupportedFeatureKey {
        name: GROUP_VERSION.into(),
        min_version: i16::from(version < LEVEL_ZERO),
        max_version: GROUP_VERSION_LEVEL,
    }];
    response.finalized_features_epoch = 0;
    response.finalized_features = vec![FinalizedFeatureKey {
        name: GROUP_VERSION.into(),
        max_version_level: GROUP_VERSION_LEVEL,
        min_version_level: GROUP_VERSION_LEVEL,
    }];
}

/// Whether the client means another cluster or node than this one (KIP-1242).
fn is_elsewhere(core: &ShardCore, request: &ApiVersionsRequest) -> bool {
    // Before the first image we do not know who we are.
    if core.image.cluster_id.is_empty() {
        return false;
    }
    let other_cluster = request.cluster_id.as_ref().is_some_and(|id| **id != *core.image.cluster_id);
    let other_node = request.node_id >= 0 && request.node_id != core.node();
    other_cluster || other_node
}

/// Answers a version above ours: in version 0, which every client reads, with the range that we serve (KIP-511).
pub(crate) fn refuse(core: &mut ShardCore, context: RequestContext) {
    let own = ADVERTISED.iter().filter(|api| api.key == ApiKey::ApiVersions);
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion,
        api_keys: own.map(row).collect(),
        ..ApiVersionsResponse::default()
    };
    let frame = response_frame(&response, 0, context.correlation_id).expect("version 0 says all of it");
    core.end(context.reply_to, Reply::Frame(frame));
}

fn row(api: &AdvertisedApi) -> ApiVersion {
    ApiVersion { api_key: api.key.code(), min_version: api.min, max_version: api.max }
}
