//! Fetch: batches from an offset on, with long polling.
//!
//! Sessions (KIP-227) are not kept: every answer has session id 0, which makes clients send full requests. A request
//! that names a session gets what Kafka answers for one that it has evicted.

use super::errors::{PartitionError, partition_error};
use super::topics::{self, leader_hint};
use super::{RequestContext, close};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use crate::shard::fetches::{FetchSlot, NewFetch, SlotState};
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::fetch::{
    FetchPartition, FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use millrace_protocol::messages::{FetchRequest, FetchResponse};
use millrace_protocol::record_set::RecordSet;
use millrace_storage::ids::{Offset, TopicPartition};
use std::time::Duration;

/// Version from which topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
/// Version from which a response names the endpoints of leaders elsewhere (KIP-951).
const ENDPOINTS_FROM: i16 = 16;
/// Longest wait honoured, so that a parked fetch does not outlive any client's patience.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The session epoch that asks for no session.
const FINAL_EPOCH: i32 = -1;

/// Starts a fetch: it is answered at once, or parked.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: FetchRequest) {
    let replica = if context.version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    if replica >= 0 {
        // Replicas of other systems have no business here.
        return close(core, context.reply_to, "a fetch by a replica");
    }
    if let Some(error) = session_error(&request) {
        let response = FetchResponse { error_code: error, ..FetchResponse::default() };
        return context.reply(core, &response);
    }
    let mut slots = Vec::new();
    for (topic_at, topic) in request.topics.iter().enumerate() {
        for partition in &topic.partitions {
            slots.push(slot(core, context.version, topic_at, topic, partition));
        }
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    core.start_fetch(
        now,
        NewFetch {
            context,
            topics: request.topics.into_iter().map(|topic| (topic.topic, topic.topic_id)).collect(),
            slots,
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
            max_bytes: usize::try_from(request.max_bytes).unwrap_or(0),
            wait,
        },
    );
}

/// What Kafka answers for a session that it does not hold.
fn session_error(request: &FetchRequest) -> Option<ErrorCode> {
    match (request.session_id, request.session_epoch) {
        // A full fetch, with or without the wish for a session.
        (_, FINAL_EPOCH) | (0, 0) => None,
        // A full fetch that closes the session named and asks for a new one.
        (_, 0) => None,
        (_, _) => Some(ErrorCode::FetchSessionIdNotFound),
    }
}

fn slot(core: &ShardCore, version: i16, topic_at: usize, topic: &FetchTopic, asked: &FetchPartition) -> FetchSlot {
    let found = if version >= TOPIC_IDS_FROM {
        topics::by_id(&core.image, topic.topic_id, asked.partition)
    } else {
        topics::by_name(&core.image, &topic.topic, asked.partition)
    };
    let known = found.and_then(|partition| {
        core.leading(partition, asked.current_leader_epoch)?;
        Ok(partition)
    });
    FetchSlot {
        topic_at,
        index: asked.partition,
        from: Offset(asked.fetch_offset),
        max_bytes: usize::try_from(asked.partition_max_bytes).unwrap_or(0),
        current_epoch: asked.current_leader_epoch,
        partition: found.ok(),
        state: known.map_or_else(SlotState::Failed, |_| SlotState::Idle),
    }
}

/// What one slot amounts to when the response is made.
pub(crate) struct SlotResult {
    /// Its topic's place in the request.
    pub(crate) topic_at: usize,
    /// The partition's index.
    pub(crate) index: i32,
    /// Which partition, if it is known.
    pub(crate) partition: Option<TopicPartition>,
    /// Its batches, maybe none.
    pub(crate) result: Result<RecordSet, PartitionError>,
}

/// Makes the response of a fetch.
pub(crate) fn respond(
    core: &mut ShardCore,
    context: RequestContext,
    topics: Vec<(StrBytes, uuid::Uuid)>,
    results: Vec<SlotResult>,
) {
    let mut response = FetchResponse::default();
    let by_topic =
        topics.into_iter().map(|(topic, topic_id)| FetchableTopicResponse { topic, topic_id, partitions: Vec::new() });
    response.responses = by_topic.collect();
    let mut bytes = 0;
    for SlotResult { topic_at, index, partition, result } in results {
        let log = partition.and_then(|partition| core.logs.get(&partition));
        let (hw, start) = log.map_or((-1, -1), |log| (log.high_watermark().0, log.log_start().0));
        let mut data = PartitionData { partition_index: index, ..PartitionData::default() };
        data.aborted_transactions = None;
        match result {
            Ok(records) => {
                bytes += records.len();
                data.high_watermark = hw;
                data.last_stable_offset = hw;
                data.log_start_offset = start;
                data.records = Some(records);
            }
            Err(error) => {
                data.error_code = partition_error(error);
                data.high_watermark = -1;
                data.records = Some(RecordSet::new());
                if let Some(partition) = partition
                    && context.version >= ENDPOINTS_FROM
                    && let Some((leader, epoch, node)) = leader_hint(&core.image, core.node(), partition, error)
                {
                    data.current_leader = LeaderIdAndEpoch { leader_id: leader, leader_epoch: epoch };
                    if !response.node_endpoints.iter().any(|known| known.node_id == leader) {
                        response.node_endpoints.push(NodeEndpoint {
                            node_id: leader,
                            host: StrBytes::from(node.host.as_str()),
                            port: i32::from(node.port),
                            rack: node.rack.as_deref().map(StrBytes::from),
                        });
                    }
                }
            }
        }
        response.responses[topic_at].partitions.push(data);
    }
    core.counters.fetched_bytes += bytes as u64;
    context.reply(core, &response);
}
