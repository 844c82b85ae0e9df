//! DescribeQuorum, for tools that show who keeps the metadata: the node that answers as controller is the quorum, the
//! others watch it. The metadata lies in a store, not in a log, so that there are no offsets to tell.

use super::RequestContext;
use crate::control::{ClusterImage, Node};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_quorum::{
    DescribeQuorumPartition, DescribeQuorumTopic, QuorumListener, QuorumNode, QuorumPartition, QuorumTopic,
    ReplicaState,
};
use millrace_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

/// The one topic that a quorum keeps, of one partition.
const METADATA: &str = "__cluster_metadata";

/// Answers from the image.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: DescribeQuorumRequest) {
    let is_metadata = match request.topics.as_slice() {
        [DescribeQuorumTopic { topic_name, partitions }] => {
            *topic_name == METADATA && matches!(partitions[..], [DescribeQuorumPartition { partition_index: 0 }])
        }
        _ => false,
    };
    let mut response = DescribeQuorumResponse { error_message: None, ..DescribeQuorumResponse::default() };
    if is_metadata {
        let partitions = vec![quorum(&core.image)];
        response.topics.push(QuorumTopic { topic_name: StrBytes::from_static(METADATA), partitions });
        let voter = core.image.nodes.get(&core.image.controller);
        response.nodes = voter.map(listener).into_iter().collect();
    } else {
        response.topics = request.topics.into_iter().map(unknown).collect();
    }
    context.reply(core, &response);
}

fn quorum(image: &ClusterImage) -> QuorumPartition {
    let replica = |replica_id| ReplicaState { replica_id, ..ReplicaState::default() };
    QuorumPartition {
        error_message: None,
        leader_id: image.controller,
        current_voters: vec![replica(image.controller)],
        observers: image.nodes.keys().filter(|id| **id != image.controller).map(|id| replica(*id)).collect(),
        ..QuorumPartition::default()
    }
}

fn listener(node: &Node) -> QuorumNode {
    let listener = QuorumListener {
        name: StrBytes::from_static("PLAINTEXT"),
        host: StrBytes::from(node.host.as_str()),
        port: node.port,
    };
    QuorumNode { node_id: node.id, listeners: vec![listener] }
}

fn unknown(topic: DescribeQuorumTopic) -> QuorumTopic {
    let partition = |partition: DescribeQuorumPartition| QuorumPartition {
        partition_index: partition.partition_index,
        error_code: ErrorCode::UnknownTopicOrPartition,
        error_message: None,
        ..QuorumPartition::default()
    };
    let partitions = topic.partitions.into_iter().map(partition).collect();
    QuorumTopic { topic_name: topic.topic_name, partitions }
}
