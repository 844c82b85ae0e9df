//! ListConfigResources: topics, nodes, and the groups that have settings of their own (KIP-1142).

use super::RequestContext;
use super::describe_configs::{BROKER, GROUP, TOPIC};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::list_config_resources::{CLIENT_METRICS, ConfigResource};
use millrace_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

/// The types that Kafka lists: topics, brokers, their loggers, client metrics, groups.
const LISTED: [i8; 5] = [TOPIC, BROKER, 8, CLIENT_METRICS, GROUP];

/// Answers from the image.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: ListConfigResourcesRequest) {
    let types = request.resource_types;
    // Version 0 asks for client metrics alone, of which there are none.
    let wants = |kind| context.version >= 1 && (types.is_empty() || types.contains(&kind));
    let mut response = ListConfigResourcesResponse::default();
    if types.iter().any(|kind| !LISTED.contains(kind)) {
        response.error_code = ErrorCode::UnsupportedVersion;
        return context.reply(core, &response);
    }
    let image = core.image.clone();
    let resource = |resource_name, resource_type| ConfigResource { resource_name, resource_type };
    if wants(TOPIC) {
        let shown = image.topics.values().filter(|topic| !topic.deleting);
        response.config_resources.extend(shown.map(|topic| resource(StrBytes::from(topic.name.as_str()), TOPIC)));
    }
    if wants(BROKER) {
        let nodes = image.nodes.keys().map(|id| resource(StrBytes::from(id.to_string()), BROKER));
        response.config_resources.extend(nodes);
    }
    if wants(GROUP) {
        let groups = image.group_settings.keys().map(|group| resource(StrBytes::from(group.as_str()), GROUP));
        response.config_resources.extend(groups);
    }
    context.reply(core, &response);
}
