//! ListOffsets: the ends of a partition's log, and offsets by time.
//!
//! By time, what can be said without looking into batches is exact: that nothing is as new as asked for, and that the
//! log is empty. Anything else is refused with Kafka's error for logs without a time index.

use super::errors::partition_error;
use super::{RequestContext, topics};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use crate::shard::partition_log::PartitionLog;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use millrace_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use millrace_storage::ids::Offset;
use std::collections::BTreeSet;

/// The first offset not yet readable.
const LATEST: i64 = -1;
/// The log start.
const EARLIEST: i64 = -2;
/// The record with the largest timestamp (KIP-734).
const MAX_TIMESTAMP: i64 = -3;
/// The first offset on the broker itself (KIP-405): without tiered storage, the log start.
const EARLIEST_LOCAL: i64 = -4;
/// The last offset in tiered storage (KIP-1005): without it, none.
const LATEST_TIERED: i64 = -5;
/// The first offset not yet uploaded (KIP-1023): without tiered storage, none.
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// Answers from memory.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: ListOffsetsRequest) {
    let mut response = ListOffsetsResponse::default();
    for topic in request.topics {
        let mut seen = BTreeSet::new();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let twice = !seen.insert(asked.partition_index);
            let mut answer = ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                ..ListOffsetsPartitionResponse::default()
            };
            match find(core, context.version, &topic.name, asked) {
                _ if twice => answer.error_code = ErrorCode::InvalidRequest,
                Ok(Some((offset, epoch))) => {
                    answer.offset = offset.0;
                    answer.leader_epoch = if context.version >= 4 { epoch } else { -1 };
                }
                Ok(None) => {}
                Err(error) => answer.error_code = error,
            }
            partitions.push(answer);
        }
        response.topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    context.reply(core, &response);
}

/// The offset and its leader epoch; `None` if there is no such record.
fn find(
    core: &ShardCore,
    version: i16,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> Result<Option<(Offset, i32)>, ErrorCode> {
    if version < first_version(asked.timestamp) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let found = topics::by_name(&core.image, topic, asked.partition_index);
    let log = found.and_then(|partition| core.leading(partition, asked.current_leader_epoch));
    let log = log.map_err(partition_error)?;
    match asked.timestamp {
        LATEST => Ok(Some((log.high_watermark(), log.epoch().0))),
        EARLIEST | EARLIEST_LOCAL => {
            let start = log.log_start();
            Ok(Some((start, log.epochs().epoch_at(start).map_or(-1, |epoch| epoch.0))))
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(None),
        MAX_TIMESTAMP | 0.. => by_time(log, asked.timestamp),
        _ => unreachable!("no version has this timestamp"),
    }
}

/// The version that brought a special timestamp; none has those that mean nothing.
fn first_version(timestamp: i64) -> i16 {
    match timestamp {
        EARLIEST.. => 1,
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => i16::MAX,
    }
}

fn by_time(log: &PartitionLog, timestamp: i64) -> Result<Option<(Offset, i32)>, ErrorCode> {
    let newest = log.references().iter().map(|reference| reference.max_timestamp).max().unwrap_or(-1);
    if log.log_start() == log.high_watermark() || newest < timestamp {
        return Ok(None);
    }
    Err(ErrorCode::UnsupportedForMessageFormat)
}
