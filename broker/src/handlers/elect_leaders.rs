//! ElectLeaders: a partition's only replica leads it, so that no election is needed; one without a leader gets one
//! without being asked.

use super::RequestContext;
use crate::control::TopicImage;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::elect_leaders::{ElectLeadersTopic, PartitionElectionResult, ReplicaElectionResult};
use millrace_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

/// The kinds of election.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// What an election amounts to.
type Outcome = (ErrorCode, &'static str);

/// Answers from the image.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: ElectLeadersRequest) {
    let mut response = ElectLeadersResponse::default();
    let kind = request.election_type;
    let is_known = matches!(kind, PREFERRED | UNCLEAN);
    if !is_known {
        response.error_code = ErrorCode::InvalidRequest;
    }
    let image = core.image.clone();
    let elect = |topic: ElectLeadersTopic| {
        let found = image.topics.get(&*topic.topic).filter(|found| !found.deleting);
        let outcome = |index: i32| {
            if is_known {
                outcome(found.map(|found| &**found), index, kind)
            } else {
                (ErrorCode::InvalidRequest, "No such election.")
            }
        };
        let partition_result = topic.partitions.into_iter().map(|index| result(index, outcome(index))).collect();
        ReplicaElectionResult { topic: topic.topic, partition_result }
    };
    response.replica_election_results = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(elect).collect(),
        None if is_known => image.topics.values().map(|topic| elect_all(topic, kind)).collect(),
        None => Vec::new(),
    };
    context.reply(core, &response);
}

/// Of all partitions only those are listed of which there is something to say.
fn elect_all(topic: &TopicImage, kind: i8) -> ReplicaElectionResult {
    let indexes = 0..i32::try_from(topic.partitions.len()).expect("partitions are counted in i32");
    let outcomes = indexes.map(|index| (index, outcome(Some(topic), index, kind)));
    let wanting = outcomes.filter(|(_, (error, _))| *error != ErrorCode::ElectionNotNeeded);
    ReplicaElectionResult {
        topic: StrBytes::from(topic.name.as_str()),
        partition_result: wanting.map(|(index, outcome)| result(index, outcome)).collect(),
    }
}

fn result(partition_id: i32, (error_code, text): Outcome) -> PartitionElectionResult {
    PartitionElectionResult { partition_id, error_code, error_message: Some(StrBytes::from_static(text)) }
}

fn outcome(topic: Option<&TopicImage>, index: i32, kind: i8) -> Outcome {
    let partition = topic.zip(usize::try_from(index).ok()).and_then(|(topic, index)| topic.partitions.get(index));
    match partition {
        None => (ErrorCode::UnknownTopicOrPartition, "No such topic or partition."),
        Some(partition) if partition.leader.is_some() => (ErrorCode::ElectionNotNeeded, "Its only replica leads it."),
        Some(_) if kind == PREFERRED => (ErrorCode::PreferredLeaderNotAvailable, RECOVERING),
        Some(_) => (ErrorCode::EligibleLeadersNotAvailable, RECOVERING),
    }
}

const RECOVERING: &str = "It is being recovered and gets its leader then.";
