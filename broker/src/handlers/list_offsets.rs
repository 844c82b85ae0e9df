//! ListOffsets: the ends of a partition's log, and offsets by time.
//!
//! The ends are known and told at once. A record by its timestamp is looked up in the batches (`shard::lookups`): a
//! request with such a partition is answered when all of its lookups have ended, or its time is over.

use super::errors::{PartitionError, partition_error};
use super::{RequestContext, topics};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use crate::shard::lookup::{Lookup, Wanted};
use crate::shard::lookups::{LookupSlot, NewLookups};
use crate::shard::search::Found;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use millrace_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use millrace_storage::ids::TopicPartition;
use std::collections::BTreeMap;
use std::time::Duration;

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

/// Version from which the leader epoch is told.
const LEADER_EPOCH_FROM: i16 = 4;
/// Version from which OFFSET_NOT_AVAILABLE is understood.
const NOT_AVAILABLE_FROM: i16 = 5;
/// Version from which the client says how long it waits (KIP-1075).
const TIMEOUT_FROM: i16 = 10;
/// How long lookups may take where the client does not say: less than clients wait for an answer by default.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest wait honoured.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What is to be told of one partition.
enum Asked {
    /// This.
    Known(Found),
    /// That there is no such record.
    Nothing,
    /// A record of this partition that is looked up.
    ByTime(TopicPartition, Wanted),
}

/// Answers what is known, looks up the rest.
///
/// As in Kafka a partition has one answer: if it is named twice, that this is wrong. Nor has a topic more than one, and
/// none if none of its partitions is named.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: ListOffsetsRequest) {
    let mut response = ListOffsetsResponse::default();
    let mut slots: Vec<LookupSlot> = Vec::new();
    let mut topics: BTreeMap<StrBytes, usize> = BTreeMap::new();
    let mut named: BTreeMap<(usize, i32), usize> = BTreeMap::new();
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let topic_at = *topics.entry(topic.name.clone()).or_insert(response.topics.len());
        if topic_at == response.topics.len() {
            response.topics.push(ListOffsetsTopicResponse { name: topic.name, partitions: Vec::new() });
        }
        let ListOffsetsTopicResponse { name, partitions } = &mut response.topics[topic_at];
        for asked in &topic.partitions {
            let mut answer = ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                ..ListOffsetsPartitionResponse::default()
            };
            let partition_at = *named.entry((topic_at, asked.partition_index)).or_insert(partitions.len());
            if partition_at < partitions.len() {
                answer.error_code = ErrorCode::InvalidRequest;
                partitions[partition_at] = answer;
                continue;
            }
            match find(core, context.version, name, asked) {
                Ok(Asked::Known(found)) => set_result(&mut answer, context.version, Ok(Some(found))),
                Ok(Asked::Nothing) => {}
                Ok(Asked::ByTime(..)) if slots.len() >= core.lookups.room() => {
                    let understood = context.version >= NOT_AVAILABLE_FROM;
                    let busy = if understood { ErrorCode::OffsetNotAvailable } else { ErrorCode::LeaderNotAvailable };
                    answer.error_code = busy;
                }
                Ok(Asked::ByTime(partition, wanted)) => slots.push(LookupSlot {
                    partition,
                    current_epoch: asked.current_leader_epoch,
                    topic_at,
                    partition_at,
                    lookup: Some(Lookup::new(wanted)),
                }),
                Err(error) => answer.error_code = error,
            }
            partitions.push(answer);
        }
    }
    slots.retain(|slot| response.topics[slot.topic_at].partitions[slot.partition_at].error_code.is_none());
    if slots.is_empty() {
        return context.reply(core, &response);
    }
    let asked = u64::try_from(request.timeout_ms).ok().filter(|ms| context.version >= TIMEOUT_FROM && *ms > 0);
    let patience = asked.map_or(PATIENCE, Duration::from_millis).min(LONGEST_WAIT);
    core.start_lookups(now, NewLookups { context, response, slots, patience });
}

/// What there is to tell, or to look up.
fn find(core: &ShardCore, version: i16, topic: &str, asked: &ListOffsetsPartition) -> Result<Asked, ErrorCode> {
    if version < first_version(asked.timestamp) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let partition = topics::by_name(&core.image, topic, asked.partition_index).map_err(partition_error)?;
    let log = core.leading(partition, asked.current_leader_epoch).map_err(partition_error)?;
    let known = |offset, leader_epoch| Asked::Known(Found { offset, timestamp: -1, leader_epoch });
    Ok(match asked.timestamp {
        LATEST => known(log.high_watermark(), log.epoch().0),
        EARLIEST | EARLIEST_LOCAL => {
            let start = log.log_start();
            known(start, log.epochs().epoch_at(start).map_or(-1, |epoch| epoch.0))
        }
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Asked::Nothing,
        MAX_TIMESTAMP => Asked::ByTime(partition, Wanted::Newest),
        since @ 0.. => Asked::ByTime(partition, Wanted::Since(since)),
        _ => unreachable!("no version has this timestamp"),
    })
}

/// Puts into the response what was found of one partition.
pub(crate) fn set_result(
    answer: &mut ListOffsetsPartitionResponse,
    version: i16,
    result: Result<Option<Found>, PartitionError>,
) {
    match result {
        Ok(Some(Found { offset, timestamp, leader_epoch })) => {
            (answer.offset, answer.timestamp) = (offset.0, timestamp);
            answer.leader_epoch = if version >= LEADER_EPOCH_FROM { leader_epoch } else { -1 };
        }
        Ok(None) => {}
        Err(error) => answer.error_code = partition_error(error),
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
