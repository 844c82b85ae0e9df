//! DeleteRecords (KIP-107): log starts are raised, durably, and everything below is never read again.
//!
//! What is below may stay in the store for a while: whole objects and segments go once nothing above needs them.

use super::create_topics::patience;
use super::errors::{PartitionError, partition_error};
use super::{RequestContext, topics};
use crate::shard::core::ShardCore;
use crate::shard::deletions::{DeletionSlot, NewDeletion};
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use millrace_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use millrace_storage::ids::{Offset, TopicPartition};
use std::collections::BTreeMap;

/// Asks for everything that can be read now to go.
const HIGH_WATERMARK: i64 = -1;

/// Answers what is decided at once; the rest waits for its log starts.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: DeleteRecordsRequest) {
    // Of what is named twice the last counts, and is answered once.
    let mut wanted: BTreeMap<StrBytes, BTreeMap<i32, i64>> = BTreeMap::new();
    for topic in request.topics.iter().filter(|topic| !topic.partitions.is_empty()) {
        let offsets = topic.partitions.iter().map(|partition| (partition.partition_index, partition.offset));
        wanted.entry(topic.name.detached()).or_default().extend(offsets);
    }
    let mut response = DeleteRecordsResponse::default();
    let mut slots = Vec::new();
    for (name, offsets) in wanted {
        let mut partitions = Vec::with_capacity(offsets.len());
        for (partition_index, offset) in offsets {
            let mut result = DeleteRecordsPartitionResult { partition_index, ..Default::default() };
            match find(core, &name, partition_index, offset) {
                Ok(Found::Already(start)) => set_result(&mut result, Ok(start)),
                // As if it had waited: clients try again.
                Ok(Found::Raise(..)) if slots.len() >= core.deletions.room() => {
                    set_result(&mut result, Err(PartitionError::TimedOut));
                }
                Ok(Found::Raise(partition, wanted)) => {
                    let (topic_at, partition_at) = (response.topics.len(), partitions.len());
                    slots.push(DeletionSlot { partition, wanted, topic_at, partition_at });
                }
                Err(error) => set_result(&mut result, Err(error)),
            }
            partitions.push(result);
        }
        response.topics.push(DeleteRecordsTopicResult { name, partitions });
    }
    if slots.is_empty() {
        return context.reply(core, &response);
    }
    let patience = patience(request.timeout_ms);
    core.start_deletion(now, NewDeletion { context, response, slots, patience });
}

/// What a partition's log start has to do.
enum Found {
    /// Nothing: it is there, or above.
    Already(Offset),
    /// Rise to this offset, once the high watermark is there.
    Raise(TopicPartition, Offset),
}

fn find(core: &ShardCore, topic: &str, index: i32, offset: i64) -> Result<Found, PartitionError> {
    let partition = topics::by_name(&core.image, topic, index)?;
    let log = core.logs.get(&partition).filter(|log| !log.draining()).ok_or(PartitionError::NotLeader)?;
    // Kafka refuses where the newest record of each key is what stays, and not where everything does.
    if log.settings.produce.keys_required && !log.settings.retention.delete {
        return Err(PartitionError::Policy);
    }
    let wanted = if offset == HIGH_WATERMARK { log.high_watermark() } else { Offset(offset) };
    if wanted < Offset(0) || wanted > log.log_end() {
        return Err(PartitionError::OutOfRange);
    }
    let start = log.log_start();
    Ok(if wanted <= start { Found::Already(start) } else { Found::Raise(partition, wanted) })
}

/// Puts into the response where a log starts, or why it does not start where it should.
pub(crate) fn set_result(result: &mut DeleteRecordsPartitionResult, outcome: Result<Offset, PartitionError>) {
    match outcome {
        Ok(start) => result.low_watermark = start.0,
        Err(error) => {
            result.low_watermark = -1;
            result.error_code = partition_error(error);
        }
    }
}
