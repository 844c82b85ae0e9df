//! Produce: batches are checked, get their offsets in place, join their partitions' logs, and are acknowledged.
//!
//! 1. acks −1 is answered when every batch is durable, acks 1 when all are appended, acks 0 never (an error closes).
//! 2. A batch is appended once: a retry is answered with the original's offset, when the original is durable.
//! 3. A batch of a producer that there is no room to remember is refused: it could not be told from its own retry.
//! 4. While the store has no room nothing new is appended for who wants to hear of it, so that KAFKA_STORAGE_ERROR means
//!    what it says: the batch is not in the log. What was appended waits, and may time out, as in an outage.
//! 5. A client above its quota is told so and held back from here on; what it sent is taken (KIP-219).
//! 6. Nothing of a batch is changed but what its CRC leaves out (base offset, leader epoch), unless the topic keeps
//!    the time of appending.

use super::errors::{PartitionError, append_error, partition_error};
use super::topics::{self, leader_hint};
use super::{RequestContext, close};
use crate::net::budget::Permit;
use crate::net::frame::Frame;
use crate::quotas::Quota;
use crate::shard::core::ShardCore;
use crate::shard::deadlines::Due;
use crate::shard::events::{Now, Reply};
use crate::shard::partition_log::{LogBatch, Waiting};
use crate::shard::produces::{OpenSlot, PendingProduce, ProduceToken};
use crate::shard::split::produce::PartOfProduce;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::ProduceResponse;
use millrace_protocol::messages::produce::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use millrace_protocol::messages::produce_view::{PartitionView, ProduceView, TopicRef, TopicView, text_at};
use millrace_protocol::records::{BatchError, Compression, Produced, TimestampType, check_produced, only_batch};
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::lane::BatchDescription;
use millrace_storage::partition::{AppendError, ProducerStamp, Sequenced};
use millrace_storage::wrong::{Wrong, wrong};
use smallvec::SmallVec;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Version from which zstd is allowed (KIP-110).
const ZSTD_FROM: i16 = 7;
/// Version from which a response says who leads instead (KIP-951).
const HINTS_FROM: i16 = 10;

/// Memory that a partition of a request takes besides its bytes until it is answered: its place in the log, in the line
/// of those who wait, and in the answer. For the smallest batches that is several times their bytes.
pub(crate) const KEPT_PER_PARTITION: usize =
    size_of::<LogBatch>() + size_of::<Waiting>() + size_of::<OpenSlot>() + size_of::<PartitionProduceResponse>();

/// Why a connection is closed.
pub(crate) const FAILED_WITHOUT_ACKS: &str = "a produce request without acks failed";

/// What became of one partition's batches when they were looked at.
enum Outcome {
    /// Appended: durable when the high watermark reaches `end`.
    Appended { base: Offset, end: Offset, appended_at: i64 },
    /// In the log already and durable.
    Committed { base: Offset },
    /// Refused, with words for people where Kafka has some.
    Refused(ErrorCode, Option<BatchError>),
}

/// A batch that got its offset, still in the frame.
struct Placed {
    partition: TopicPartition,
    base: Offset,
    description: BatchDescription,
    range: Range<usize>,
}

/// One produce request while it is handled.
struct Handling {
    context: RequestContext,
    acks: i16,
    frame: Frame,
    placed: SmallVec<[Placed; 4]>,
    slots: SmallVec<[OpenSlot; 4]>,
    waits: SmallVec<[Offset; 4]>,
    response: ProduceResponse,
    failed: bool,
}

/// Appends what can be appended; answers, or leaves the request waiting for its commit.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, frame: Frame, permit: Option<Permit>) {
    // Versions 0 to 2 are advertised for the sake of old clients' guesses, and refused here.
    let Ok(view) = ProduceView::decode(frame.bytes()) else {
        return close(core, context.reply_to, "a broken produce request");
    };
    handle_view(core, now, context, frame, &view, permit);
}

/// The same for a frame that has been looked at.
pub(crate) fn handle_view(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    frame: Frame,
    view: &ProduceView,
    mut permit: Option<Permit>,
) {
    if let Some(permit) = &mut permit {
        permit.grow(view.partitions.len() * KEPT_PER_PARTITION);
    }
    let mut handling = Handling::new(context, view.acks, frame);
    handling.response.throttle_time_ms = throttle(core, now, context, view, handling.frame.bytes());
    for topic in &view.topics {
        handling.topic(core, now, topic, &view.partitions[topic.partitions.clone()]);
    }
    handling.push_batches(core, now, permit.map(Rc::new));
    handling.finish(core, now, view.timeout_ms);
}

/// Counts a request towards its client's quota; what the client is told of it, in milliseconds.
pub(crate) fn throttle(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    view: &ProduceView,
    frame: &[u8],
) -> i32 {
    let client_id = view.client_id.as_ref().map_or("", |range| text_at(frame, range));
    let client = (context.reply_to.connection, client_id);
    let pause = core.quotas.count(now.mono, Quota::Produce, client, frame.len());
    core.hold_back(now, context.reply_to.connection, pause)
}

/// The part of a request of another shard's connection: its batches are in frames of their own, and its results, in
/// their order, in a topic without a name.
pub(crate) fn handle_part(core: &mut ShardCore, now: Now, context: RequestContext, part: PartOfProduce) {
    let permit = part.permit.map(|loan| Rc::new(Permit::of_loan(loan)));
    let acks = if wrong(Wrong::PartAckedBeforeDurable) && part.acks == -1 { 1 } else { part.acks };
    let mut handling = Handling::new(context, acks, Frame::copied(&[]));
    let mut answer = TopicProduceResponse::default();
    for (partition, batches) in part.batches {
        let records = 0..batches.bytes().len();
        handling.frame = batches;
        let outcome = handling.partition(core, now, partition, Some(records));
        let index = i32::try_from(partition.index).expect("partitions are counted in i32");
        let places = (0, answer.partition_responses.len());
        let result = handling.result(core, index, Ok(partition), outcome, places);
        answer.partition_responses.push(result);
        handling.push_batches(core, now, permit.clone());
    }
    handling.response.responses.push(answer);
    handling.finish(core, now, part.timeout_ms);
}

impl Handling {
    fn new(context: RequestContext, acks: i16, frame: Frame) -> Handling {
        Handling {
            context,
            acks,
            frame,
            placed: SmallVec::new(),
            slots: SmallVec::new(),
            waits: SmallVec::new(),
            response: ProduceResponse::default(),
            failed: false,
        }
    }

    fn topic(&mut self, core: &mut ShardCore, now: Now, topic: &TopicView, partitions: &[PartitionView]) {
        let mut answer = TopicProduceResponse::default();
        match &topic.topic {
            TopicRef::Name(name) => answer.name = StrBytes::from(text_at(self.frame.bytes(), name)),
            TopicRef::Id(id) => answer.topic_id = *id,
        }
        let topic_at = self.response.responses.len();
        answer.partition_responses.reserve_exact(partitions.len());
        for (partition_at, asked) in partitions.iter().enumerate() {
            let found = match &topic.topic {
                TopicRef::Name(_) => topics::by_name(&core.image, &answer.name, asked.index),
                TopicRef::Id(id) => topics::by_id(&core.image, *id, asked.index),
            };
            let outcome = match found {
                Ok(partition) => self.partition(core, now, partition, asked.records.clone()),
                Err(error) => Outcome::Refused(partition_error(error), None),
            };
            let result = self.result(core, asked.index, found, outcome, (topic_at, partition_at));
            answer.partition_responses.push(result);
        }
        self.response.responses.push(answer);
    }

    /// What the response says of a partition unless a commit that it waits for fails.
    fn result(
        &mut self,
        core: &ShardCore,
        index: i32,
        found: Result<TopicPartition, PartitionError>,
        outcome: Outcome,
        (topic_at, partition_at): (usize, usize),
    ) -> PartitionProduceResponse {
        let mut result = PartitionProduceResponse { index, ..Default::default() };
        match outcome {
            Outcome::Appended { base, end, appended_at } => {
                result.base_offset = base.0;
                result.log_append_time_ms = appended_at;
                let partition = found.expect("only a partition that was found is appended to");
                self.slots.push(OpenSlot { partition, topic_at, partition_at, waits: true });
                self.waits.push(end);
            }
            Outcome::Committed { base } => result.base_offset = base.0,
            Outcome::Refused(error, why) => {
                self.failed = true;
                result.error_code = error;
                result.error_message = why.map(|why| StrBytes::from(why.to_string()));
                result.base_offset = -1;
            }
        }
        let log = found.ok().and_then(|partition| core.logs.get(&partition));
        if let Some(log) = log.filter(|_| result.error_code == ErrorCode::None) {
            result.log_start_offset = log.log_start().0;
        }
        result
    }

    /// Checks the batch for one partition and gives it its offset.
    fn partition(
        &mut self,
        core: &mut ShardCore,
        now: Now,
        partition: TopicPartition,
        records: Option<Range<usize>>,
    ) -> Outcome {
        let range = records.unwrap_or(0..0);
        if !matches!(self.acks, -1..=1) {
            // As in Kafka, what is no batch is said to be none first.
            return match only_batch(&self.frame.bytes()[range]) {
                Ok(_) => Outcome::Refused(ErrorCode::InvalidRequiredAcks, None),
                Err(error) => Outcome::Refused(error.code(), Some(error)),
            };
        }
        let stopping = core.is_stopping();
        let refuses_new = core.store_full() && self.acks != 0;
        let Some(log) = core.logs.get_mut(&partition).filter(|log| !stopping && !log.draining()) else {
            return Outcome::Refused(partition_error(PartitionError::NotLeader), None);
        };
        let version = self.context.version;
        let checked = check_produced(&self.frame.bytes()[range.clone()], &log.settings.produce, now.wall.0);
        let batch = match checked.and_then(|batch| codec_allowed(batch, version)) {
            Ok(batch) => batch,
            Err(error) => return Outcome::Refused(error.code(), Some(error)),
        };
        let producer = batch.producer.map(|producer| ProducerStamp {
            id: producer.id,
            epoch: producer.epoch,
            first_sequence: producer.base_sequence,
        });
        match log.appended.check(producer, batch.count, now.wall) {
            // Out of order: it follows a batch that was refused.
            Ok(Sequenced::Append) | Err(AppendError::OutOfOrderSequence { .. }) if refuses_new => {
                core.counters.refused_full += 1;
                return Outcome::Refused(partition_error(PartitionError::Storage), None);
            }
            Ok(Sequenced::Append) => {}
            Ok(Sequenced::DuplicateCommitted { base, .. }) => {
                core.counters.duplicates += 1;
                return Outcome::Committed { base };
            }
            Ok(Sequenced::DuplicateInFlight { base, last }) => {
                core.counters.duplicates += 1;
                return Outcome::Appended { base, end: last.plus(1), appended_at: -1 };
            }
            Err(error) => return Outcome::Refused(append_error(error), None),
        }
        let is_new = |producer: ProducerStamp| log.appended.producers().get(producer.id, now.wall).is_none();
        if producer.is_some_and(is_new) && !core.has_room_for_producer(now) {
            core.counters.producers_refused += 1;
            // Retriable, and as with a full disk it passes by itself.
            return Outcome::Refused(ErrorCode::KafkaStorageError, None);
        }
        let log = core.logs.get_mut(&partition).expect("looked up above");
        let known = log.appended.producers().len();
        let base = log.appended.append(producer, batch.count, now.wall);
        core.producer_room.changed(known, log.appended.producers().len());
        let range = range.start..range.start + batch.length;
        let keeps_append_time = log.settings.produce.timestamp_type == TimestampType::LogAppendTime;
        let append_time = keeps_append_time.then_some(now.wall.0);
        let bytes = &mut self.frame.bytes_mut()[range.clone()];
        let max_timestamp = batch.patch(bytes, base.0, log.epoch().0, append_time);
        let description = BatchDescription {
            length: u32::try_from(batch.length).expect("a frame is smaller than 4 GiB"),
            count: batch.count,
            max_timestamp,
            producer,
        };
        let appended_at = append_time.unwrap_or(-1);
        self.placed.push(Placed { partition, base, description, range });
        Outcome::Appended { base, end: base.plus(i64::from(batch.count)), appended_at }
    }

    /// Answers, or waits for what its logs were given.
    fn finish(mut self, core: &mut ShardCore, now: Now, timeout_ms: i32) {
        if wrong(Wrong::AckBeforeDurable) && self.acks == -1 {
            self.acks = 1;
        }
        let context = self.context;
        match self.acks {
            -1 if !self.slots.is_empty() => {
                let request = core.produces.next_token();
                for (slot, (open, &end)) in self.slots.iter().zip(&self.waits).enumerate() {
                    let log = core.logs.get_mut(&open.partition).expect("it was appended to just now");
                    log.wait(Waiting { end, request, slot });
                }
                let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
                let deadline = core.deadlines.set(now.mono.plus(timeout), Due::Produce(request));
                core.produces.insert(PendingProduce { context, response: self.response, slots: self.slots, deadline });
            }
            0 if self.failed => close(core, context.reply_to, FAILED_WITHOUT_ACKS),
            0 => core.end(context.reply_to, Reply::Silent),
            _ => reply(core, context, self.response),
        }
    }

    /// Hands the batches of the frame to their logs.
    fn push_batches(&mut self, core: &mut ShardCore, now: Now, permit: Option<Rc<Permit>>) {
        let frame = std::mem::replace(&mut self.frame, Frame::copied(&[]));
        let total: usize = self.placed.iter().map(|placed| placed.range.len()).sum();
        if total == 0 {
            return;
        }
        let pinned = frame.pinned();
        let shared = frame.freeze();
        for Placed { partition, base, description, range } in self.placed.drain(..) {
            core.counters.batches += 1;
            core.counters.records += u64::from(description.count);
            core.counters.produced_bytes += range.len() as u64;
            let log = core.logs.get_mut(&partition).expect("it was appended to just now");
            let first = log.push(LogBatch {
                base,
                last: base.plus(i64::from(description.count) - 1),
                description,
                // Each batch's share of what the frame keeps from being reused.
                pinned: (pinned as u64 * range.len() as u64 / total as u64) as usize,
                bytes: shared.slice(range),
                permit: permit.clone(),
            });
            if first {
                if core.unsealed.is_empty() {
                    core.ack_share.begin(now.mono);
                }
                core.unsealed.push_back(partition);
            }
        }
    }
}

/// Zstd needs a version whose clients know it.
fn codec_allowed(batch: Produced, version: i16) -> Result<Produced, BatchError> {
    if batch.compression == Compression::Zstd && version < ZSTD_FROM {
        return Err(BatchError::UnknownCompression(batch.compression as u8));
    }
    Ok(batch)
}

/// One partition of a waiting request is durable, or lost its leader.
pub(crate) fn decide(core: &mut ShardCore, waiting: Waiting, error: ErrorCode) {
    if let Some(pending) = core.produces.decide(waiting.request, waiting.slot, error) {
        core.deadlines.clear(pending.deadline);
        reply(core, pending.context, pending.response);
    }
}

/// The client has waited as long as it wanted to. What was appended stays.
pub(crate) fn time_out(core: &mut ShardCore, request: ProduceToken) {
    core.counters.produce_timeouts += 1;
    let pending = core.produces.time_out(request);
    for slot in &pending.slots {
        if let Some(log) = core.logs.get_mut(&slot.partition) {
            log.stop_waiting(request);
        }
    }
    reply(core, pending.context, pending.response);
}

/// Ends a request with its results, and says who leads instead where that is why one failed.
pub(crate) fn reply(core: &mut ShardCore, context: RequestContext, mut response: ProduceResponse) {
    if context.version >= HINTS_FROM {
        add_hints(core, &mut response);
    }
    context.reply(core, &response);
}

/// Says who leads instead, where the image knows.
fn add_hints(core: &ShardCore, response: &mut ProduceResponse) {
    let image = &core.image;
    for topic in &mut response.responses {
        let id = topic.topic_id;
        for result in &mut topic.partition_responses {
            if result.error_code != ErrorCode::NotLeaderOrFollower {
                continue;
            }
            let found = if id.is_nil() {
                topics::by_name(image, &topic.name, result.index)
            } else {
                topics::by_id(image, id, result.index)
            };
            let hint = found.ok().and_then(|found| leader_hint(image, core.node(), found, PartitionError::NotLeader));
            let Some((leader_id, leader_epoch, node)) = hint else { continue };
            result.current_leader = LeaderIdAndEpoch { leader_id, leader_epoch };
            if !response.node_endpoints.iter().any(|known| known.node_id == leader_id) {
                response.node_endpoints.push(NodeEndpoint {
                    node_id: leader_id,
                    host: StrBytes::from(node.host.as_str()),
                    port: i32::from(node.port),
                    rack: node.rack.as_deref().map(StrBytes::from),
                });
            }
        }
    }
}
