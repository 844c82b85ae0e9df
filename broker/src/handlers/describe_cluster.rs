//! DescribeCluster: cluster id, controller and nodes, from the cluster's image (KIP-700).

use super::{RequestContext, operations};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_cluster::DescribeClusterBroker;
use millrace_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};

/// The endpoint type that asks for brokers (KIP-919).
const BROKERS: i8 = 1;
/// The one that asks for controllers.
const CONTROLLERS: i8 = 2;

/// Answers with every node.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: DescribeClusterRequest) {
    let image = core.image.clone();
    let mut response = DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: StrBytes::from(image.cluster_id.as_str()),
        ..DescribeClusterResponse::default()
    };
    if context.version >= 1 && request.endpoint_type != BROKERS {
        (response.error_code, response.error_message) = if request.endpoint_type == CONTROLLERS {
            (ErrorCode::MismatchedEndpointType, Some(StrBytes::from_static("this is a broker's listener")))
        } else {
            (ErrorCode::UnsupportedEndpointType, Some(StrBytes::from_static("no such type of endpoint")))
        };
        return context.reply(core, &response);
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = operations::ON_CLUSTER;
    }
    response.controller_id = image.controller;
    response.brokers.extend(image.nodes.values().map(|node| DescribeClusterBroker {
        broker_id: node.id,
        host: StrBytes::from(node.host.as_str()),
        port: i32::from(node.port),
        rack: node.rack.as_deref().map(StrBytes::from),
        is_fenced: false,
    }));
    context.reply(core, &response);
}
