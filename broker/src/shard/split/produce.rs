//! Produce requests whose partitions several shards own.
//!
//! 1. Batches are not copied: their memory is cut, and each piece goes to its owner, who patches and shares it.
//! 2. The permit stays counted at home, once, until the last batch has been committed or refused.
//! 3. The owner keeps the timeout; the home waits for its owners, which always answer.

use super::{How, PartId, ToPeer, decode_answer};
use crate::handlers::errors::partition_error;
use crate::handlers::topics;
use crate::handlers::{RequestContext, close, produce};
use crate::net::budget::{Loan, Permit};
use crate::net::frame::Frame;
use crate::shard::core::ShardCore;
use crate::shard::events::{Now, Reply, ReplyTo};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::ProduceResponse;
use millrace_protocol::messages::produce::{PartitionProduceResponse, TopicProduceResponse};
use millrace_protocol::messages::produce_view::{ProduceView, TopicRef, text_at};
use millrace_storage::ids::{ShardIndex, TopicPartition};
use millrace_storage::wrong::{Wrong, wrong};
use std::collections::BTreeMap;
use std::ops::Range;

/// What one owner is to append.
#[derive(Debug)]
pub struct PartOfProduce {
    /// Version of request and response.
    pub(crate) version: i16,
    /// As the client asked.
    pub(crate) acks: i16,
    /// As the client asked.
    pub(crate) timeout_ms: i32,
    /// What came for each partition, in the request's order.
    pub(crate) batches: Vec<(TopicPartition, Frame)>,
    /// The memory that the whole request was given.
    pub(crate) permit: Option<Loan>,
}

/// Where a partition's result stands in the response.
#[derive(Clone, Copy, Debug)]
struct Place {
    topic_at: usize,
    partition_at: usize,
}

/// A request whose parts are with their owners.
pub(super) struct SplitProduce {
    context: RequestContext,
    acks: i16,
    /// With the results of what no shard was asked.
    response: ProduceResponse,
    /// By part: where its results go, in order.
    places: Vec<Vec<Place>>,
    /// Why the connection is to be closed, if it is.
    closes: Option<&'static str>,
}

/// A partition that somebody owns.
struct Piece {
    owner: ShardIndex,
    partition: TopicPartition,
    place: Place,
    range: Range<usize>,
}

/// Hands the batches to the shards that own their partitions.
pub(crate) fn dispatch(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    frame: Frame,
    mut permit: Option<Permit>,
) {
    let Ok(view) = ProduceView::decode(frame.bytes()) else {
        return close(core, context.reply_to, "a broken produce request");
    };
    let mut response = ProduceResponse::default();
    let pieces = pieces(core, &view, &frame, &mut response);
    let own = core.config().shard;
    if pieces.iter().all(|piece| piece.owner == own) || !matches!(view.acks, -1..=1) {
        return produce::handle_view(core, now, context, frame, &view, permit);
    }
    response.throttle_time_ms = produce::throttle(core, now, context, &view, frame.bytes());
    let mut results = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let failed = results.any(|result| !result.error_code.is_none());
    if let Some(permit) = &mut permit {
        permit.grow(view.partitions.len() * produce::KEPT_PER_PARTITION);
    }
    let permit = permit.map(Permit::lend);
    let ranges: Vec<Range<usize>> = pieces.iter().map(|piece| piece.range.clone()).collect();
    let mut places: BTreeMap<ShardIndex, Vec<Place>> = BTreeMap::new();
    let mut parts: BTreeMap<ShardIndex, Vec<(TopicPartition, Frame)>> = BTreeMap::new();
    for (piece, batches) in pieces.into_iter().zip(frame.cut(&ranges)) {
        places.entry(piece.owner).or_default().push(piece.place);
        parts.entry(piece.owner).or_default().push((piece.partition, batches));
    }
    let places = places.into_values().collect();
    let closes = (failed && view.acks == 0).then_some(produce::FAILED_WITHOUT_ACKS);
    let split = SplitProduce { context, acks: view.acks, response, places, closes };
    let owners: Vec<ShardIndex> = parts.keys().copied().collect();
    let ids: Vec<PartId> = core.splits().open(context.reply_to, owners, How::Produce(split));
    let connection = context.reply_to.connection;
    for ((owner, batches), part) in parts.into_iter().zip(ids) {
        let (acks, timeout_ms, permit) = (view.acks, view.timeout_ms, permit.clone());
        let produce = PartOfProduce { version: context.version, acks, timeout_ms, batches, permit };
        core.post(now, owner, ToPeer::Produce { part, connection, produce });
    }
}

/// What somebody owns of a request, in its order; the others' results are put into the response.
fn pieces(core: &ShardCore, view: &ProduceView, frame: &Frame, response: &mut ProduceResponse) -> Vec<Piece> {
    let routes = core.routes().expect("only who shares a port divides");
    let mut pieces = Vec::with_capacity(view.partitions.len());
    for (topic_at, topic) in view.topics.iter().enumerate() {
        let mut answer = TopicProduceResponse::default();
        match &topic.topic {
            TopicRef::Name(name) => answer.name = StrBytes::from(text_at(frame.bytes(), name)),
            TopicRef::Id(id) => answer.topic_id = *id,
        }
        for (partition_at, asked) in view.partitions[topic.partitions.clone()].iter().enumerate() {
            let found = match &topic.topic {
                TopicRef::Name(_) => topics::by_name(&core.image, &answer.name, asked.index),
                TopicRef::Id(id) => topics::by_id(&core.image, *id, asked.index),
            };
            let mut result = PartitionProduceResponse { index: asked.index, ..Default::default() };
            match found {
                Ok(partition) => pieces.push(Piece {
                    owner: routes.partition(partition),
                    partition,
                    place: Place { topic_at, partition_at },
                    range: asked.records.clone().unwrap_or(0..0),
                }),
                Err(error) => (result.error_code, result.base_offset) = (partition_error(error), -1),
            }
            answer.partition_responses.push(result);
        }
        response.responses.push(answer);
    }
    pieces
}

/// Serves a part as its owner.
pub(super) fn serve(core: &mut ShardCore, now: Now, reply_to: ReplyTo, part: PartOfProduce) {
    // The home gives the answer its number.
    let context = RequestContext { reply_to, version: part.version, correlation_id: 0 };
    produce::handle_part(core, now, context, part);
}

impl SplitProduce {
    /// A part has ended.
    pub(super) fn answered(&mut self, place: usize, reply: Reply) {
        let slices = match reply {
            Reply::Frame(slices) => slices,
            Reply::Silent => return,
            Reply::Close(why) => return self.closes = Some(why),
        };
        let place = if wrong(Wrong::PartsMixedUp) { (place + 1) % self.places.len() } else { place };
        let answer: ProduceResponse = decode_answer(&slices, self.context.version);
        let results = answer.responses.into_iter().flat_map(|topic| topic.partition_responses);
        for (place, result) in self.places[place].iter().zip(results) {
            let slot = &mut self.response.responses[place.topic_at].partition_responses[place.partition_at];
            *slot = PartitionProduceResponse { index: slot.index, ..result };
        }
    }

    /// All parts have ended.
    pub(super) fn finish(self, core: &mut ShardCore) {
        match self.closes {
            Some(why) => close(core, self.context.reply_to, why),
            None if self.acks == 0 => core.end(self.context.reply_to, Reply::Silent),
            None => produce::reply(core, self.context, self.response),
        }
    }
}
