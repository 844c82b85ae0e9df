//! OffsetForLeaderEpoch: where a leader epoch ended, for clients that check whether what they read still stands
//! (KIP-320).

use super::errors::partition_error;
use super::{RequestContext, topics};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use millrace_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use millrace_storage::ids::LeaderEpoch;

/// Answers from the epoch history of each partition.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: OffsetForLeaderEpochRequest) {
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|asked| end_of(core, &topic.topic, asked)).collect();
        response.topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    context.reply(core, &response);
}

fn end_of(core: &ShardCore, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let mut answer = EpochEndOffset { partition: asked.partition, ..EpochEndOffset::default() };
    let found = topics::by_name(&core.image, topic, asked.partition);
    match found.and_then(|partition| core.leading(partition, asked.current_leader_epoch)) {
        // The present epoch ends where consumers can read to: what lies beyond may yet be lost.
        Ok(log) => {
            if let Some(end) = log.epochs().end_of(LeaderEpoch(asked.leader_epoch), log.high_watermark()) {
                answer.leader_epoch = end.epoch.0;
                answer.end_offset = end.end.0;
            }
        }
        Err(error) => answer.error_code = partition_error(error),
    }
    answer
}
