//! Fetch: batches from an offset on, with long polling.
//!
//! With a session (KIP-227) a request names what changed since the one before, and the answer holds what is new:
//! [`crate::shard::fetch_sessions`].
//!
//! A client that is above its quota is answered at once, with nothing but how long it is held back (KIP-219). One that
//! this answer brings above it gets the records, and is held back behind them: so a batch that is larger than the quota
//! lets pass at once is passed all the same, where Kafka's client would wait for ever.

use super::errors::{PartitionError, partition_error};
use super::topics::{self, leader_hint};
use super::{RequestContext, close};
use crate::quotas::Quota;
use crate::shard::core::ShardCore;
use crate::shard::events::{Now, Reply};
use crate::shard::fetch_sessions::{Named, Told, Wanted};
use crate::shard::fetches::{FetchSlot, NewFetch, SlotState};
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::fetch::{
    FetchTopic, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use millrace_protocol::messages::{FetchRequest, FetchResponse};
use millrace_protocol::record_set::RecordSet;
use millrace_storage::ids::{Offset, ShardIndex, TopicPartition};
use std::time::Duration;

/// Version from which topics are named by id.
const TOPIC_IDS_FROM: i16 = 13;
/// Version from which a response names the endpoints of leaders elsewhere (KIP-951).
const ENDPOINTS_FROM: i16 = 16;
/// Version from which there are sessions.
const SESSIONS_FROM: i16 = 7;
/// Longest wait honoured, so that a parked fetch does not outlive any client's patience.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The session epoch that asks for no session, and the one that asks for a new one.
const FINAL_EPOCH: i32 = -1;
const INITIAL_EPOCH: i32 = 0;

/// What of its session a fetch's answer needs.
#[derive(Debug)]
pub(crate) enum SessionUse {
    /// There is none.
    None,
    /// One is to be made of the partitions asked for, in the order of the slots.
    New {
        /// What was asked.
        asked: Vec<(Named, Wanted)>,
    },
    /// The answer leaves out what is not new.
    Incremental {
        /// The session.
        id: i32,
        /// What the slots are of, in their order.
        asked: Vec<Named>,
    },
}

/// Starts a fetch: it is answered at once, or parked.
pub(crate) fn handle(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    request: FetchRequest,
    client_id: Option<StrBytes>,
) {
    let replica = if context.version >= 15 { request.replica_state.replica_id } else { request.replica_id };
    if replica >= 0 {
        // Replicas of other systems have no business here.
        return close(core, context.reply_to, "a fetch by a replica");
    }
    let (asked, session) = match begin(core, now, context.version, &request) {
        Ok(begun) => begun,
        Err(error_code) => {
            let response = FetchResponse { error_code, ..FetchResponse::default() };
            return context.reply(core, &response);
        }
    };
    let client = (context.reply_to.connection, client_id.as_deref().unwrap_or_default());
    let mut most_bytes = usize::MAX;
    if let Some((pause, most)) = core.quotas.standing(now.mono, Quota::Fetch, client) {
        if !pause.is_zero() {
            return hold_back(core, now, context, &session, pause);
        }
        most_bytes = most;
    }
    let mut topics: Vec<(StrBytes, uuid::Uuid)> = Vec::new();
    let mut slots = Vec::with_capacity(asked.len());
    for (named, wanted) in asked {
        if topics.last().is_none_or(|(topic, id)| (topic, *id) != (&named.topic, named.topic_id)) {
            topics.push((named.topic.clone(), named.topic_id));
        }
        slots.push(slot(core, context.version, topics.len() - 1, &named, wanted));
    }
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let new = NewFetch {
        context,
        topics,
        slots,
        session,
        min_bytes: usize::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(request.max_bytes).unwrap_or(0).min(most_bytes),
        wait,
    };
    match other_owners(core, &new.slots) {
        Some(owners) => core.start_split_fetch(now, new, &owners),
        None => core.start_fetch(now, new),
    }
}

/// The owner of each partition, if shards share a port and one of them is another shard's.
fn other_owners(core: &ShardCore, slots: &[FetchSlot]) -> Option<Vec<ShardIndex>> {
    let routes = core.routes()?;
    let own = core.config().shard;
    let owner = |slot: &FetchSlot| slot.partition.map_or(own, |partition| routes.partition(partition));
    let owners: Vec<ShardIndex> = slots.iter().map(owner).collect();
    owners.iter().any(|owner| *owner != own).then_some(owners)
}

/// Answers with nothing: the session, if there is one, stays as it is.
fn hold_back(core: &mut ShardCore, now: Now, context: RequestContext, session: &SessionUse, pause: Duration) {
    let throttle_time_ms = core.hold_back(now, context.reply_to.connection, pause);
    let session_id = if let SessionUse::Incremental { id, .. } = session { *id } else { 0 };
    context.reply(core, &FetchResponse { throttle_time_ms, session_id, ..FetchResponse::default() });
}

/// What is fetched, and for which session.
fn begin(
    core: &mut ShardCore,
    now: Now,
    version: i16,
    request: &FetchRequest,
) -> Result<(Vec<(Named, Wanted)>, SessionUse), ErrorCode> {
    let asked = all_of(request);
    let (id, epoch) = (request.session_id, request.session_epoch);
    match epoch {
        FINAL_EPOCH | INITIAL_EPOCH => {
            // A full fetch, which closes the session that it names.
            core.fetch_sessions.close(id);
            let session = if epoch == INITIAL_EPOCH && version >= SESSIONS_FROM {
                SessionUse::New { asked: asked.clone() }
            } else {
                SessionUse::None
            };
            Ok((asked, session))
        }
        _ => {
            let forgotten: Vec<Named> = forgotten_of(request).collect();
            let by_id = version >= TOPIC_IDS_FROM;
            let all = core.fetch_sessions.update(now.mono, (id, epoch), by_id, asked, &forgotten)?;
            if all.is_empty() {
                return Ok((all, SessionUse::None));
            }
            let asked = all.iter().map(|(named, _)| named.clone()).collect();
            Ok((all, SessionUse::Incremental { id, asked }))
        }
    }
}

/// The partitions that a request names, in order.
fn all_of(request: &FetchRequest) -> Vec<(Named, Wanted)> {
    let of_topic = |topic: &FetchTopic| {
        let (topic, topic_id, partitions) = (topic.topic.clone(), topic.topic_id, topic.partitions.clone());
        partitions.into_iter().map(move |asked| {
            let named = Named { topic: topic.clone(), topic_id, index: asked.partition };
            let (max_bytes, leader_epoch) = (asked.partition_max_bytes, asked.current_leader_epoch);
            (named, Wanted { from: asked.fetch_offset, max_bytes, leader_epoch })
        })
    };
    request.topics.iter().flat_map(of_topic).collect()
}

fn forgotten_of(request: &FetchRequest) -> impl Iterator<Item = Named> + '_ {
    request.forgotten_topics_data.iter().flat_map(|topic| {
        let named = |&index: &i32| Named { topic: topic.topic.clone(), topic_id: topic.topic_id, index };
        topic.partitions.iter().map(named)
    })
}

fn slot(core: &ShardCore, version: i16, topic_at: usize, named: &Named, wanted: Wanted) -> FetchSlot {
    let found = if version >= TOPIC_IDS_FROM {
        topics::by_id(&core.image, named.topic_id, named.index)
    } else {
        topics::by_name(&core.image, &named.topic, named.index)
    };
    let known = found.and_then(|partition| {
        core.leading(partition, wanted.leader_epoch)?;
        Ok(partition)
    });
    FetchSlot {
        topic_at,
        index: named.index,
        from: Offset(wanted.from),
        max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0),
        current_epoch: wanted.leader_epoch,
        partition: found.ok(),
        state: known.map_or_else(SlotState::Failed, |_| SlotState::Idle),
    }
}

/// What of a log can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// From here,
    pub log_start: Offset,
    /// up to here, exclusive.
    pub high_watermark: Offset,
}

/// What one slot amounts to when the response is made.
pub(crate) struct SlotResult {
    /// Its topic's place in the request.
    pub(crate) topic_at: usize,
    /// The partition's index.
    pub(crate) index: i32,
    /// Which partition, if it is known.
    pub(crate) partition: Option<TopicPartition>,
    /// Where its log begins and ends, if it is led.
    pub(crate) bounds: Option<Bounds>,
    /// Its batches, maybe none.
    pub(crate) result: Result<RecordSet, PartitionError>,
}

/// Makes the response of a fetch.
pub(crate) fn respond(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    (topics, session): (Vec<(StrBytes, uuid::Uuid)>, SessionUse),
    results: Vec<SlotResult>,
) {
    let mut response = FetchResponse::default();
    let by_topic =
        topics.into_iter().map(|(topic, topic_id)| FetchableTopicResponse { topic, topic_id, partitions: Vec::new() });
    response.responses = by_topic.collect();
    let mut told = Vec::new();
    let mut bytes = 0;
    for (at, slot) in results.into_iter().enumerate() {
        let (topic_at, partition) = (slot.topic_at, slot.partition);
        let failed = slot.result.as_ref().err().copied();
        let data = partition_data(slot);
        let records = data.records.as_ref().map_or(0, RecordSet::len);
        let tell = Told {
            has_records: records > 0,
            failed: failed.is_some(),
            high_watermark: data.high_watermark,
            log_start: data.log_start_offset,
        };
        match &session {
            SessionUse::Incremental { id, asked } if !core.fetch_sessions.tell(*id, &asked[at], tell) => continue,
            SessionUse::New { .. } => told.push(tell),
            SessionUse::Incremental { .. } | SessionUse::None => {}
        }
        bytes += records;
        response.responses[topic_at].partitions.push(data);
        if let (Some(error), Some(partition)) = (failed, partition)
            && context.version >= ENDPOINTS_FROM
        {
            name_leader(core, &mut response, topic_at, partition, error);
        }
    }
    match session {
        SessionUse::None => {}
        SessionUse::New { asked } => {
            let partitions = asked.into_iter().zip(told).map(|((named, wanted), told)| (named, wanted, told));
            let by_id = context.version >= TOPIC_IDS_FROM;
            response.session_id = core.fetch_sessions.create(now.mono, by_id, partitions.collect());
        }
        SessionUse::Incremental { id, .. } => {
            response.session_id = id;
            response.responses.retain(|topic| !topic.partitions.is_empty());
        }
    }
    core.counters.fetched_bytes += bytes as u64;
    let mut frame = context.encode(&response);
    let length = frame.iter().map(Bytes::len).sum();
    let connection = context.reply_to.connection;
    let pause = core.quotas.count_more(now.mono, Quota::Fetch, connection, length);
    if !pause.is_zero() {
        response.throttle_time_ms = core.hold_back(now, connection, pause);
        frame = context.encode(&response);
    }
    core.end(context.reply_to, Reply::Frame(frame));
}

impl ShardCore {
    /// What of a partition's log can be read, if this shard leads it.
    pub(crate) fn bounds_of(&self, partition: Option<TopicPartition>) -> Option<Bounds> {
        let log = self.logs.get(&partition?)?;
        Some(Bounds { log_start: log.log_start(), high_watermark: log.high_watermark() })
    }
}

fn partition_data(slot: SlotResult) -> PartitionData {
    let (hw, start) = slot.bounds.map_or((-1, -1), |bounds| (bounds.high_watermark.0, bounds.log_start.0));
    let mut data =
        PartitionData { partition_index: slot.index, aborted_transactions: None, ..PartitionData::default() };
    match slot.result {
        Ok(records) => {
            data.high_watermark = hw;
            data.last_stable_offset = hw;
            data.log_start_offset = start;
            data.records = Some(records);
        }
        Err(error) => {
            data.error_code = partition_error(error);
            data.high_watermark = -1;
            // Kafka's answer for what it does not know is made of defaults, this list among them.
            if matches!(error, PartitionError::UnknownName | PartitionError::UnknownId) {
                data.aborted_transactions = Some(Vec::new());
            }
            data.records = Some(RecordSet::new());
        }
    }
    data
}

/// Says who leads instead of this shard, of the partition that was put into the response last (KIP-951).
fn name_leader(
    core: &ShardCore,
    response: &mut FetchResponse,
    topic_at: usize,
    partition: TopicPartition,
    error: PartitionError,
) {
    let Some((leader, epoch, node)) = leader_hint(&core.image, core.node(), partition, error) else { return };
    let data = response.responses[topic_at].partitions.last_mut().expect("put there by the caller");
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
