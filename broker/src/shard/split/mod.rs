//! Requests that concern partitions and groups of other shards, where all shards are one node (`--shared-port`;
//! docs/decisions/070-shared-port.md). The shard that read a request is its *home*; it hands the request, or parts of it,
//! to the shards that own what it is about, and joins their answers. An owner serves a part as it does a request, under
//! a name that leads the answer back ([`ConnectionId::at`], and the part's number as that of a request).
//!
//! 1. A request is answered once, when each of its parts has been; a part is answered once, also after its connection
//!    has gone.
//! 2. What a home says to one owner arrives in the order in which it was said.
//! 3. A request that concerns only its home is not divided, and leaves nothing here.
//! 4. Whom a request concerns is decided once, by the home's image. An owner that disagrees says so in its answer.
//!
//! What a home has of its own part it says to itself, at once and without a mailbox.

pub(crate) mod divide;
pub(crate) mod fetch;
pub(crate) mod produce;
pub(crate) mod watch;

use super::core::ShardCore;
use super::events::{ConnectionId, Now, Reply, ReplyTo, RequestNumber};
use crate::control::ClusterImage;
use crate::control::placement::slot_shard;
use crate::groups::slot_of;
use crate::handlers::{self, RequestContext};
use crate::net::budget::Permit;
use crate::net::frame::Frame;
use bytes::Bytes;
use divide::Divide;
use fetch::{Fetched, SplitFetch, WatchedSlot};
use millrace_protocol::api::ApiKey;
use millrace_protocol::frame::{LENGTH_BYTES, PEEK_BYTES, RequestHeader, decode_response, peek, request_frame};
use millrace_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DeleteRecordsRequest,
    DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, ListOffsetsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, SyncGroupRequest,
};
use millrace_protocol::wire::Reader;
use millrace_storage::ids::{ShardIndex, TopicPartition};
use produce::{PartOfProduce, SplitProduce};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Bytes of a request that weigh as much as a message.
const PAGE_BYTES: usize = 4 << 10;

/// Names a part of a request at its home; never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PartId(pub u64);

/// What shards of one process say to each other.
#[derive(Debug)]
pub enum ToPeer {
    /// Home → owner: serve this, and answer with [`ToPeer::Answer`].
    Request {
        /// Names the part.
        part: PartId,
        /// Whose it is.
        connection: ConnectionId,
        /// Where the client is.
        address: Option<IpAddr>,
        /// A whole request, without its length.
        frame: Bytes,
    },
    /// Home → owner: append these batches, and answer with [`ToPeer::Answer`].
    Produce {
        /// Names the part.
        part: PartId,
        /// Whose it is.
        connection: ConnectionId,
        /// The batches.
        produce: PartOfProduce,
    },
    /// Home → owner: say how much there is to read ([`ToPeer::Level`]), now and when that changes.
    Watch {
        /// Names the part.
        part: PartId,
        /// Whose it is.
        connection: ConnectionId,
        /// Most bytes that the answer may have, over all shards.
        max_bytes: usize,
        /// The partitions.
        slots: Vec<WatchedSlot>,
    },
    /// Home → owner: what was said was not enough; say what there is now, when it is something else.
    GoOn {
        /// The part.
        part: PartId,
        /// Whose it is.
        connection: ConnectionId,
    },
    /// Home → owner: read, and answer with [`ToPeer::Fetched`].
    Collect {
        /// The part.
        part: PartId,
        /// Whose it is.
        connection: ConnectionId,
        /// Bytes at most.
        max_bytes: usize,
        /// Whether the first batch may exceed them.
        oversized: bool,
    },
    /// Home → owner: this connection has gone.
    Gone(ConnectionId),
    /// Owner → home: so much there is to read. Nothing more is said before [`ToPeer::GoOn`].
    Level {
        /// The part.
        part: PartId,
        /// Bytes.
        bytes: usize,
        /// Whether something can't be read, which is to be answered at once.
        failed: bool,
    },
    /// Owner → home: what was read, by slot.
    Fetched {
        /// The part, which ends.
        part: PartId,
        /// As many as were asked for.
        slots: Vec<Fetched>,
    },
    /// Owner → home: a part ended.
    Answer {
        /// The part.
        part: PartId,
        /// How.
        reply: Reply,
    },
    /// To all others: requests find no memory here because batches are kept elsewhere.
    Shed,
}

impl ToPeer {
    /// How much it counts towards what may wait for other shards: a request as many messages as its bytes have pages,
    /// since they may be nobody's charge. Batches are charged where they came in.
    pub fn weight(&self) -> usize {
        match self {
            ToPeer::Request { frame, .. } => 1 + frame.len() / PAGE_BYTES,
            _ => 1,
        }
    }
}

/// A part that was handed out.
#[derive(Clone, Copy, Debug)]
struct Part {
    request: ReplyTo,
    /// Its place among the request's parts.
    place: usize,
}

/// A request in parts.
struct Split {
    /// The parts in order, each with its owner.
    parts: Vec<(PartId, ShardIndex)>,
    /// Parts that have not been answered.
    open: usize,
    how: How,
}

/// What becomes of the parts' answers.
enum How {
    /// There is one part, whose answer it is.
    Whole,
    /// Frames are put together.
    Join {
        context: RequestContext,
        join: Join,
        replies: Vec<Option<Reply>>,
    },
    Produce(SplitProduce),
    Fetch(Box<SplitFetch>),
}

/// Makes one frame of many.
type Join = fn(RequestContext, Vec<Vec<Bytes>>) -> Vec<Bytes>;

/// The divided requests of one shard's connections.
pub(crate) struct Splits {
    shards: u16,
    next_part: u64,
    parts: BTreeMap<PartId, Part>,
    requests: BTreeMap<ReplyTo, Split>,
    /// One higher with each fetch: who may give first.
    rotation: usize,
    /// Bytes that owners gave for fetches whose other owners have not.
    held: usize,
    /// Messages to other shards, in order.
    mail: Vec<(ShardIndex, ToPeer)>,
}

impl Splits {
    /// Of one of `shards` shards that share a port.
    pub(crate) fn new(shards: u16) -> Splits {
        Splits {
            shards,
            next_part: 0,
            parts: BTreeMap::new(),
            requests: BTreeMap::new(),
            rotation: 0,
            held: 0,
            mail: Vec::new(),
        }
    }

    /// A request has these parts from now on. They are numbered as their owners stand in the list.
    fn open(&mut self, request: ReplyTo, owners: impl IntoIterator<Item = ShardIndex>, how: How) -> Vec<PartId> {
        let mut parts = Vec::new();
        for (place, owner) in owners.into_iter().enumerate() {
            let part = PartId(self.next_part);
            self.next_part += 1;
            self.parts.insert(part, Part { request, place });
            parts.push((part, owner));
        }
        let ids = parts.iter().map(|(part, _)| *part).collect();
        let replaced = self.requests.insert(request, Split { open: parts.len(), parts, how });
        assert!(replaced.is_none(), "a request is divided once");
        ids
    }

    /// A part has ended. Gives its place and the request that it is of.
    fn part_ended(&mut self, part: PartId) -> (ReplyTo, usize, &mut Split) {
        let Part { request, place } = self.parts.remove(&part).expect("a part ends once (invariant 1)");
        let split = self.requests.get_mut(&request).expect("it ends with its last part");
        split.open -= 1;
        (request, place, split)
    }

    /// Whether no request is in parts.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.parts.is_empty()
    }

    /// The divided requests of a connection.
    fn of(&self, connection: ConnectionId) -> impl Iterator<Item = (&ReplyTo, &Split)> {
        let of = |request| ReplyTo { connection, request: RequestNumber(request) };
        self.requests.range(of(0)..=of(u64::MAX))
    }
}

/// Whom requests concern.
pub(crate) struct Routes {
    image: Arc<ClusterImage>,
    own: ShardIndex,
    shards: u16,
}

impl Routes {
    /// The owner of a partition; of one that nobody leads, the asker, who says so.
    pub(crate) fn partition(&self, partition: TopicPartition) -> ShardIndex {
        let topic = self.image.names.get(&partition.topic).and_then(|name| self.image.topics.get(name));
        let led = topic.and_then(|topic| topic.partitions.get(partition.index as usize));
        led.filter(|led| led.leader.is_some()).map_or(self.own, |led| led.shard)
    }

    /// The owner of a partition that may not exist.
    fn found<E>(&self, found: Result<TopicPartition, E>) -> ShardIndex {
        found.map_or(self.own, |partition| self.partition(partition))
    }

    /// The coordinator of a group; of one that nobody coordinates, the asker.
    fn group(&self, group: &str) -> ShardIndex {
        let slot = slot_of(group);
        let granted = self.image.slots.get(usize::from(slot)).is_some_and(Option::is_some);
        if granted { slot_shard(slot, self.shards) } else { self.own }
    }

    /// All shards.
    fn all(&self) -> impl Iterator<Item = ShardIndex> + use<> {
        (0..self.shards).map(ShardIndex)
    }
}

/// Hands a request of one of our own connections to those that it concerns.
pub(crate) fn dispatch(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    key: ApiKey,
    frame: Frame,
    permit: Option<Permit>,
) {
    if key == ApiKey::Produce {
        return produce::dispatch(core, now, context, frame, permit);
    }
    drop(permit);
    let frame = &frame.freeze();
    let to = (core, now, context);
    match key {
        ApiKey::ListOffsets => divide::<ListOffsetsRequest>(to, frame),
        ApiKey::OffsetForLeaderEpoch => divide::<OffsetForLeaderEpochRequest>(to, frame),
        ApiKey::DeleteRecords => divide::<DeleteRecordsRequest>(to, frame),
        ApiKey::DescribeProducers => divide::<DescribeProducersRequest>(to, frame),
        ApiKey::DescribeLogDirs => divide::<DescribeLogDirsRequest>(to, frame),
        ApiKey::ListGroups => divide::<ListGroupsRequest>(to, frame),
        ApiKey::DescribeGroups => divide::<DescribeGroupsRequest>(to, frame),
        ApiKey::DeleteGroups => divide::<DeleteGroupsRequest>(to, frame),
        ApiKey::ConsumerGroupDescribe => divide::<ConsumerGroupDescribeRequest>(to, frame),
        ApiKey::OffsetFetch => divide::<OffsetFetchRequest>(to, frame),
        ApiKey::OffsetCommit => divide::<OffsetCommitRequest>(to, frame),
        ApiKey::OffsetDelete => divide::<OffsetDeleteRequest>(to, frame),
        ApiKey::JoinGroup => divide::<JoinGroupRequest>(to, frame),
        ApiKey::SyncGroup => divide::<SyncGroupRequest>(to, frame),
        ApiKey::Heartbeat => divide::<HeartbeatRequest>(to, frame),
        ApiKey::LeaveGroup => divide::<LeaveGroupRequest>(to, frame),
        ApiKey::ConsumerGroupHeartbeat => divide::<ConsumerGroupHeartbeatRequest>(to, frame),
        // Fetch divides itself, once its session has said what it is about. All others are answered from the image or
        // by the control task.
        _ => handlers::dispatch_decoded(to.0, now, context, key, frame),
    }
}

/// Divides a request by its partitions or groups.
fn divide<R: Divide>((core, now, context): (&mut ShardCore, Now, RequestContext), frame: &Bytes) {
    let routes = core.routes().expect("only who shares a port divides");
    let mut body = Reader::new(frame);
    let decoded = RequestHeader::decode(&mut body)
        .and_then(|header| Ok((header, R::decode(&mut body, context.version)?.divide(&routes))));
    let (header, parts) = match decoded {
        Ok((header, parts)) if parts.keys().any(|owner| *owner != routes.own) => (header, parts),
        // Our own, or broken: then the usual way refuses it.
        _ => return handlers::dispatch_decoded(core, now, context, R::KEY, frame),
    };
    let owners: Vec<ShardIndex> = parts.keys().copied().collect();
    let request = context.reply_to;
    if let [owner] = owners[..] {
        let part = core.splits().open(request, owners, How::Whole)[0];
        return core.hand_out(now, owner, part, request, frame.clone());
    }
    let replies = owners.iter().map(|_| None).collect();
    let ids = core.splits().open(request, owners, How::Join { context, join: join::<R>, replies });
    for ((owner, asked), part) in parts.into_iter().zip(ids) {
        let whole = request_frame(&asked, context.version, context.correlation_id, header.client_id.clone());
        let whole = whole.expect("what was read in this version has a form in it").concat();
        core.hand_out(now, owner, part, request, Bytes::from(whole).slice(LENGTH_BYTES..));
    }
}

fn join<R: Divide>(context: RequestContext, frames: Vec<Vec<Bytes>>) -> Vec<Bytes> {
    let decode = |slices: Vec<Bytes>| decode_answer::<R::Response>(&slices, context.version);
    context.encode(&R::join(frames.into_iter().map(decode).collect()))
}

/// Reads what an owner's handler wrote.
fn decode_answer<M: millrace_protocol::codec::Message>(slices: &[Bytes], version: i16) -> M {
    let frame = Bytes::from(slices.concat()).slice(LENGTH_BYTES..);
    let (_, answer) = decode_response(&frame, version).expect("a shard of this process wrote it");
    answer
}

impl ShardCore {
    /// Whom requests concern, if this shard shares its port.
    pub(crate) fn routes(&self) -> Option<Routes> {
        let shards = self.splits.as_ref()?.shards;
        Some(Routes { image: self.image.clone(), own: self.config().shard, shards })
    }

    fn splits(&mut self) -> &mut Splits {
        self.splits.as_mut().expect("only shards that share a port have to do with parts")
    }

    /// Messages to other shards since this was last asked, in order.
    pub fn take_mail(&mut self) -> Vec<(ShardIndex, ToPeer)> {
        self.splits.as_mut().map(|splits| std::mem::take(&mut splits.mail)).unwrap_or_default()
    }

    /// Bytes that other shards, and this one, gave for fetches that are not answered yet.
    pub fn held_bytes(&self) -> usize {
        self.splits.as_ref().map_or(0, |splits| splits.held)
    }

    /// A message of another shard.
    pub fn on_peer(&mut self, now: Now, from: ShardIndex, message: ToPeer) {
        match message {
            ToPeer::Request { part, connection, address, frame } => {
                self.serve_part(now, name(from, connection, part), address, &frame);
            }
            ToPeer::Produce { part, connection, produce } => {
                produce::serve(self, now, name(from, connection, part), produce);
            }
            ToPeer::Watch { part, connection, max_bytes, slots } => {
                self.watch(now, name(from, connection, part), max_bytes, slots);
            }
            ToPeer::GoOn { part, connection } => self.go_on_watching(now, name(from, connection, part)),
            ToPeer::Collect { part, connection, max_bytes, oversized } => {
                self.collect_watched(now, name(from, connection, part), max_bytes, oversized);
            }
            ToPeer::Gone(connection) => self.drop_waiting_of(connection.at(from)),
            ToPeer::Level { part, bytes, failed } => self.level_told(now, part, bytes, failed),
            ToPeer::Fetched { part, slots } => self.part_fetched(now, part, slots),
            ToPeer::Answer { part, reply } => self.part_answered(part, reply),
            ToPeer::Shed => self.shed_tail(),
        }
    }

    /// Says something to a shard of this process, which may be this one.
    pub(crate) fn post(&mut self, now: Now, to: ShardIndex, message: ToPeer) {
        if to == self.config().shard {
            self.on_peer(now, to, message);
        } else {
            self.splits().mail.push((to, message));
        }
    }

    /// The end of a part that `home` handed out.
    pub(crate) fn answer_part(&mut self, home: ShardIndex, part: PartId, reply: Reply) {
        if home == self.config().shard {
            self.part_answered(part, reply);
        } else {
            self.splits().mail.push((home, ToPeer::Answer { part, reply }));
        }
    }

    fn hand_out(&mut self, now: Now, owner: ShardIndex, part: PartId, request: ReplyTo, frame: Bytes) {
        let connection = request.connection;
        let address = self.address_of(connection);
        self.post(now, owner, ToPeer::Request { part, connection, address, frame });
    }

    /// Serves a part as a request of a connection that exists for as long as that takes.
    fn serve_part(&mut self, now: Now, reply_to: ReplyTo, address: Option<IpAddr>, frame: &Bytes) {
        let fixed = peek(frame.first_chunk::<PEEK_BYTES>().expect("its home has read it"));
        let key = ApiKey::from_code(fixed.api_key).expect("its home has read it");
        let context = RequestContext { reply_to, version: fixed.api_version, correlation_id: fixed.correlation_id };
        self.with_address(reply_to.connection, address, |core| {
            handlers::dispatch_decoded(core, now, context, key, frame);
        });
    }

    fn part_answered(&mut self, part: PartId, reply: Reply) {
        let (request, place, split) = self.splits().part_ended(part);
        match &mut split.how {
            How::Whole => {
                self.splits().requests.remove(&request);
                return self.end(request, reply);
            }
            How::Join { replies, .. } => replies[place] = Some(reply),
            How::Produce(produce) => produce.answered(place, reply),
            How::Fetch(fetch) => fetch.dropped(place),
        }
        if split.open > 0 {
            return;
        }
        let split = self.splits().requests.remove(&request).expect("just looked at");
        match split.how {
            How::Whole => unreachable!("answered above"),
            How::Join { context, join, replies } => self.end(request, joined(context, join, replies)),
            How::Produce(produce) => produce.finish(self),
            How::Fetch(fetch) => self.end_dropped_fetch(*fetch),
        }
    }

    /// One of our own connections is gone: what waits for it elsewhere waits no longer.
    pub(crate) fn drop_parts_of(&mut self, now: Now, connection: ConnectionId) {
        let Some(splits) = &self.splits else { return };
        let parts = splits.of(connection).flat_map(|(_, split)| &split.parts);
        let open = parts.filter(|(part, _)| splits.parts.contains_key(part));
        let owners: BTreeSet<ShardIndex> = open.map(|(_, owner)| *owner).collect();
        for owner in owners {
            self.post(now, owner, ToPeer::Gone(connection));
        }
    }
}

/// What an owner calls the request of which it serves a part.
fn name(home: ShardIndex, connection: ConnectionId, part: PartId) -> ReplyTo {
    ReplyTo { connection: connection.at(home), request: RequestNumber(part.0) }
}

/// One end of many: a connection that one of them closes is closed, and nobody hears an answer that lacks a part.
fn joined(context: RequestContext, join: Join, replies: Vec<Option<Reply>>) -> Reply {
    let mut frames = Vec::with_capacity(replies.len());
    let mut silent = false;
    for reply in replies {
        match reply.expect("every part has ended") {
            Reply::Frame(slices) => frames.push(slices),
            Reply::Silent => silent = true,
            Reply::Close(why) => return Reply::Close(why),
        }
    }
    if silent { Reply::Silent } else { Reply::Frame(join(context, frames)) }
}
