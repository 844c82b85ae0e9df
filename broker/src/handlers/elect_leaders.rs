//! ElectLeaders: a partition's only replica leads it, so that no election is needed; one without a leader gets one
//! without being asked.

use super::RequestContext;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::elect_leaders::{ElectLeadersTopic, PartitionElectionResult, ReplicaElectionResult};
use millrace_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

/// The kinds of election.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Answers from the image.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: ElectLeadersRequest) {
    let mut response = ElectLeadersResponse::default();
    if !matches!(request.election_type, PREFERRED | UNCLEAN) {
        response.error_code = ErrorCode::InvalidRequest;
        return context.reply(core, &response);
    }
    // Of all partitions only those are listed of which there is something to say: none.
    for topic in request.topic_partitions.unwrap_or_default() {
        response.replica_election_results.push(elect(core, request.election_type, topic));
    }
    context.reply(core, &response);
}

fn elect(core: &ShardCore, election_type: i8, topic: ElectLeadersTopic) -> ReplicaElectionResult {
    let found = core.image.topics.get(&*topic.topic).filter(|found| !found.deleting);
    let result = |partition_id| {
        let index = usize::try_from(partition_id).ok();
        let partition = found.zip(index).and_then(|(found, index)| found.partitions.get(index));
        let (error_code, text) = match partition {
            None => (ErrorCode::UnknownTopicOrPartition, "No such topic or partition."),
            Some(partition) if partition.leader.is_some() => {
                (ErrorCode::ElectionNotNeeded, "Its only replica leads it.")
            }
            Some(_) if election_type == PREFERRED => {
                (ErrorCode::PreferredLeaderNotAvailable, "It is being recovered and gets its leader then.")
            }
            Some(_) => (ErrorCode::EligibleLeadersNotAvailable, "It is being recovered and gets its leader then."),
        };
        PartitionElectionResult { partition_id, error_code, error_message: Some(StrBytes::from_static(text)) }
    };
    ReplicaElectionResult { topic: topic.topic, partition_result: topic.partitions.into_iter().map(result).collect() }
}
