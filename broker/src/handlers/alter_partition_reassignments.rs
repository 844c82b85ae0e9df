//! AlterPartitionReassignments: where a partition lies is decided by the broker, so that only what is so already can be
//! asked for.

use super::{RequestContext, topics};
use crate::control::ClusterImage;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::alter_partition_reassignments::{
    ReassignablePartition, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use millrace_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

/// Answers for every partition named.
pub(crate) fn handle(
    core: &mut ShardCore,
    _now: Now,
    context: RequestContext,
    request: AlterPartitionReassignmentsRequest,
) {
    let image = core.image.clone();
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        error_message: None,
        ..AlterPartitionReassignmentsResponse::default()
    };
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|partition| reassign(&image, &topic.name, partition)).collect();
        response.responses.push(ReassignableTopicResponse { name: topic.name, partitions });
    }
    context.reply(core, &response);
}

fn reassign(image: &ClusterImage, name: &str, partition: &ReassignablePartition) -> ReassignablePartitionResponse {
    let (error_code, text) = outcome(image, name, partition);
    ReassignablePartitionResponse {
        partition_index: partition.partition_index,
        error_code,
        error_message: text.map(StrBytes::from_static),
    }
}

fn outcome(image: &ClusterImage, name: &str, partition: &ReassignablePartition) -> (ErrorCode, Option<&'static str>) {
    let Ok(found) = topics::by_name(image, name, partition.partition_index) else {
        return (ErrorCode::UnknownTopicOrPartition, Some("No such topic or partition."));
    };
    let Some(replicas) = &partition.replicas else {
        return (ErrorCode::NoReassignmentInProgress, Some("Nothing of it is being reassigned."));
    };
    let index = usize::try_from(found.index).expect("32 bits fit");
    let leader = image.topics[name].partitions[index].leader;
    if leader.is_some_and(|leader| replicas[..] == [leader]) {
        return (ErrorCode::None, None);
    }
    (ErrorCode::InvalidReplicaAssignment, Some("The broker decides where a partition lies: on one node at a time."))
}
