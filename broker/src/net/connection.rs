//! One client connection: frames in, replies out, on whatever carries bytes.
//!
//! A request's way: the first bytes (size, API key, version) → permit → body straight into its final memory → the shard
//! core, in order. Replies leave in the same order, as many as are ready with one call.
//!
//! Invariants:
//! 1. A body is read only when its memory is accounted for: a produce request holds a permit of the produce budget (it
//!    travels with the request). Any other one that is kept until it is answered holds one of the reserve until then;
//!    one that is not (JoinGroup and SyncGroup: the coordinator counts what it copies) only until it is handed over,
//!    and none at all if it is small. So neither a slow store, which keeps produce permits, nor whoever waits for
//!    something keeps heartbeats from being read.
//! 2. At most `Limits::in_flight` requests of a connection are open, and at most about `Limits::unsent_bytes` of its
//!    replies wait, [`CROWDED_UNSENT_BYTES`] while replies pile up; beyond that it is not read on, and TCP slows the
//!    client.
//! 3. A size that is negative, above the limit or too small for a header ends the connection, before any memory is
//!    taken for it.
//! 4. An idle connection holds no buffer. What is read ahead is bounded for all of them together (`net::incoming`), and
//!    is not charged: so invariant 1 holds but for that.
//! 5. While it is muted no request of it is handed over, but for those that were before; replies leave.
//! 6. Where replies pile up, requests wait whose replies can be large; where the control task is behind, requests that
//!    ask it. All others go on, so that neither evicts a group's members. Where shards share a port and another one does
//!    not take its mail, all requests wait, since any may be for it.
//!
//! Time limits are not kept by timers per connection: the pump looks at [`Connection::overdue`] now and then.

use crate::net::arena::{Arena, Span};
use crate::net::budget::{Budget, Permit, Pools};
use crate::net::frame::Frame;
use crate::net::incoming::{HEAD_BYTES, Incoming, ReadBuffers};
use crate::net::replies::Replies;
use crate::net::stream::ByteStream;
use crate::shard::events::{ConnectionId, Reply, ReplyTo, RequestNumber};
use crate::signal::{Gauge, Signal};
use bytes::{Buf, Bytes};
use futures::{FutureExt, pin_mut, select_biased};
use millrace_protocol::api::ApiKey;
use millrace_storage::env::{Env, Mono, step_back};
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::Duration;

/// Of the bytes that are read before anything is decided, what belongs to the frame.
const HEAD_IN_FRAME: usize = 4;
/// Key, version and correlation id: no request is shorter.
const SHORTEST_FRAME: usize = 8;
/// Bodies up to this size take no permit if nothing of them is kept: heartbeats are never held up by other requests. A
/// connection has one of them at a time.
const SMALL_BODY: usize = 1 << 10;
/// What a request that waits for its answer takes besides its body: its places in the tables of those who wait.
const KEPT_PER_REQUEST: usize = 256;
/// Bytes of replies that a connection may owe its peer, and read on, while the pool of replies is full.
const CROWDED_UNSENT_BYTES: usize = 4 << 10;
/// How long to wait before asking a full arena again.
const ARENA_RETRY: Duration = Duration::from_millis(2);
/// Slices per write: 64 keep the list on the stack, and a reply rarely has more.
const SLICES_PER_WRITE: usize = 64;
/// Of a large reply, what is sent before all other tasks get their turn: sending is copying, and a peer that reads as fast
/// as it is sent to would never give way.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Requests in a row after which other connections get their turn.
const BURST: usize = 32;

/// While others wait for memory: from the first byte of a request to its last,
const PRESSED_BODY_TIME: Duration = Duration::from_secs(10);
/// without the peer taking a byte of its replies,
const PRESSED_STALL_TIME: Duration = Duration::from_secs(3);
/// and for the peer to take all that waits for it.
const PRESSED_REPLY_TIME: Duration = Duration::from_secs(60);
/// While no further connection has a place: without any request.
const CROWDED_IDLE_TIME: Duration = Duration::from_secs(30);

/// Bounds of every connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest produce request.
    pub produce_frame_bytes: usize,
    /// Largest request of any other API.
    pub other_frame_bytes: usize,
    /// Requests that are open at a time.
    pub in_flight: usize,
    /// Bytes of replies that may wait before no further request is read.
    pub unsent_bytes: usize,
    /// From the first byte of a request to its last.
    pub body_time: Duration,
    /// Without any request (Kafka's `connections.max.idle.ms`).
    pub idle_time: Duration,
    /// Without the peer taking a byte of replies that wait.
    pub stall_time: Duration,
}

impl Limits {
    /// The defaults, with frames no larger than the pools that they are charged to. `frame_bytes` is Kafka's
    /// `socket.request.max.bytes`.
    pub fn within(pools: &Pools, frame_bytes: usize) -> Limits {
        Limits {
            produce_frame_bytes: frame_bytes.min(pools.produce),
            other_frame_bytes: frame_bytes.min(pools.reserve),
            in_flight: 64,
            unsent_bytes: 1 << 20,
            body_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(600),
            stall_time: Duration::from_secs(60),
        }
    }
}

/// What the connections of one shard share.
pub struct Intake {
    env: Env,
    limits: Limits,
    arena: RefCell<Arena>,
    read_buffers: ReadBuffers,
    produce: Budget,
    reserve: Budget,
    /// Takes turns at an arena that is full, first come, first served.
    arena_turn: Budget,
    replies: Gauge,
    outbox: Rc<Gauge>,
    /// Messages that other shards have not taken, if they share a port.
    to_peers: Option<Rc<Gauge>>,
    /// No further connection has a place.
    crowded: Cell<bool>,
}

impl Intake {
    /// For a shard with these pools. While `outbox` (what the shard has not been able to tell lane and control task)
    /// stands at its mark, no request is read that asks the control task.
    pub fn new(env: Env, pools: &Pools, limits: Limits, outbox: Rc<Gauge>) -> Intake {
        Intake {
            env,
            limits,
            arena: RefCell::new(Arena::new(pools.arena())),
            read_buffers: ReadBuffers::default(),
            produce: Budget::new(pools.produce),
            reserve: Budget::new(pools.reserve),
            arena_turn: Budget::new(1),
            replies: Gauge::new(pools.replies.max(1)),
            outbox,
            to_peers: None,
            crowded: Cell::new(false),
        }
    }

    /// While `to_peers` stands at its mark, no request is read.
    pub fn with_peers(self, to_peers: Rc<Gauge>) -> Intake {
        Intake { to_peers: Some(to_peers), ..self }
    }

    /// As many bytes as `after` instead of `before` wait to become replies: they count as such.
    pub fn hold(&self, before: usize, after: usize) {
        if after > before {
            self.replies.add(after - before);
        } else if before > after {
            self.replies.subtract(before - after);
        }
    }

    /// Takes back the memory that was lent to other shards, for ever.
    pub async fn collect_loans(&self) {
        self.produce.collect().await;
    }

    /// The bounds that connections keep.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of produce permits that are out.
    pub fn produce_bytes(&self) -> usize {
        self.produce.taken()
    }

    /// Bytes of permits of the reserve that are out.
    pub fn reserve_bytes(&self) -> usize {
        self.reserve.taken()
    }

    /// Bytes of replies that wait to be sent.
    pub fn reply_bytes(&self) -> usize {
        self.replies.level()
    }

    /// Says whether idle connections keep others from being accepted.
    pub fn set_crowded(&self, crowded: bool) {
        self.crowded.set(crowded);
    }

    /// Whether requests wait for memory that others hold.
    fn is_pressed(&self) -> bool {
        self.produce.is_waited_for() || self.reserve.is_waited_for() || self.replies.is_at_mark()
    }

    /// The arena, to look at or to trim.
    pub fn arena(&self) -> &RefCell<Arena> {
        &self.arena
    }
}

/// Where requests go: the shard's pump.
pub trait Requests {
    /// A request, in order of arrival on its connection.
    fn request(&self, reply_to: ReplyTo, frame: Frame, permit: Option<Permit>);
    /// `request` is open and replies behind it are ready.
    fn blocked(&self, connection: ConnectionId, request: RequestNumber);
    /// A produce request finds no place in the arena: whatever is kept there only to serve fetches may go.
    fn short_of_memory(&self);
}

/// What a request of an API may weigh on besides its own memory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Burden {
    /// Its reply can be large.
    replies: bool,
    /// It may ask the control task.
    asks: bool,
    /// Its body, or as much of its decoded form, is kept until it is answered, which may take a while.
    keeps: bool,
}

impl Burden {
    fn of(api: Option<ApiKey>) -> Burden {
        use ApiKey::{
            AlterClientQuotas, AlterConfigs, ApiVersions, CreatePartitions, CreateTopics, DeleteGroups, DeleteTopics,
            FindCoordinator, Heartbeat, IncrementalAlterConfigs, InitProducerId, JoinGroup, LeaveGroup, OffsetCommit,
            Produce, SyncGroup,
        };
        let burden = |replies, asks, keeps| Burden { replies, asks, keeps };
        match api {
            Some(Produce | Heartbeat | ApiVersions | FindCoordinator) => burden(false, false, false),
            Some(JoinGroup | SyncGroup | LeaveGroup) => burden(false, true, false),
            Some(OffsetCommit | InitProducerId | CreateTopics | CreatePartitions | DeleteTopics | DeleteGroups) => {
                burden(false, true, true)
            }
            Some(AlterConfigs | IncrementalAlterConfigs | AlterClientQuotas) => burden(false, true, true),
            // Metadata creates topics.
            Some(ApiKey::Metadata) => burden(true, true, true),
            Some(ApiKey::Fetch) => burden(true, false, true),
            _ => burden(true, false, false),
        }
    }

    /// Bytes of the reserve for a body of `size`; `None` if it needs none.
    fn reserved(self, size: usize, capacity: usize) -> Option<usize> {
        if self.keeps {
            // What it is decoded into is about as large as itself.
            return Some((2 * size + KEPT_PER_REQUEST).min(capacity));
        }
        (size > SMALL_BODY).then_some(size)
    }
}

/// A request that was read.
struct Arrived {
    frame: Frame,
    /// Of the produce budget, for produce requests.
    permit: Option<Permit>,
    /// Of the reserve, for others that are kept or not small.
    reserve: Option<Permit>,
    /// Whether it is kept until it is answered.
    kept: bool,
}

/// Why a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// The peer closed it.
    PeerClosed,
    /// It broke.
    Broken(io::Error),
    /// We closed it, for this reason.
    Refused(&'static str),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        if error.kind() == io::ErrorKind::UnexpectedEof { Ended::PeerClosed } else { Ended::Broken(error) }
    }
}

/// The state of a connection that its task and the shard's pump share.
pub struct Connection {
    id: ConnectionId,
    intake: Rc<Intake>,
    replies: RefCell<Replies>,
    /// Permits of the reserve of requests that are open.
    reserved: RefCell<VecDeque<(RequestNumber, Permit)>>,
    /// Bytes of replies given to this connection and not sent.
    unsent: Cell<usize>,
    /// A reply came.
    answered: Signal,
    /// In-flight requests or unsent bytes went down.
    relieved: Signal,
    /// The connection shall end.
    close_asked: Signal,
    close_reason: Cell<&'static str>,
    /// Last time a request arrived or a reply was sent.
    active_at: Cell<Mono>,
    /// When the request that is arriving began.
    arriving_since: Cell<Option<Mono>>,
    /// Since when the peer takes no reply bytes.
    stalled_since: Cell<Option<Mono>>,
    /// Since when there has always been something for the peer to take.
    owing_since: Cell<Option<Mono>>,
    /// A request waits for its memory.
    waits_for_memory: Cell<bool>,
    /// Until when no request is taken.
    muted_until: Cell<Option<Mono>>,
}

impl Connection {
    /// A new connection.
    pub fn new(id: ConnectionId, intake: Rc<Intake>) -> Connection {
        let active_at = Cell::new(intake.env.now());
        Connection {
            id,
            intake,
            replies: RefCell::default(),
            reserved: RefCell::default(),
            unsent: Cell::new(0),
            answered: Signal::default(),
            relieved: Signal::default(),
            close_asked: Signal::default(),
            close_reason: Cell::new(""),
            active_at,
            arriving_since: Cell::default(),
            stalled_since: Cell::default(),
            owing_since: Cell::default(),
            waits_for_memory: Cell::default(),
            muted_until: Cell::default(),
        }
    }

    /// Answers a request of this connection.
    pub fn answer(&self, request: RequestNumber, reply: Reply) {
        if let Reply::Frame(slices) = &reply {
            let bytes = slices.iter().map(Bytes::len).sum();
            self.unsent.set(self.unsent.get() + bytes);
            self.intake.replies.add(bytes);
        }
        self.replies.borrow_mut().answer(request, reply);
        let mut reserved = self.reserved.borrow_mut();
        let place = reserved.iter().position(|(of, _)| *of == request);
        let permit = place.and_then(|place| reserved.remove(place));
        drop((reserved, permit));
        self.answered.raise();
    }

    /// Takes no further request until then. What is under way goes on.
    pub fn mute(&self, until: Mono) {
        self.muted_until.set(self.muted_until.get().max(Some(until)));
    }

    /// Ends the connection now.
    pub fn close(&self, reason: &'static str) {
        self.close_reason.set(reason);
        self.close_asked.raise();
    }

    /// Whether nothing of it is under way: no request arriving or open, no reply unsent.
    pub fn is_quiet(&self) -> bool {
        self.replies.borrow().in_flight() == 0
            && self.unsent.get() == 0
            && self.arriving_since.get().is_none()
            && !self.waits_for_memory.get()
    }

    /// Why it should be closed at `now`, if it took too long over something.
    pub fn overdue(&self, now: Mono) -> Option<&'static str> {
        let limits = &self.intake.limits;
        let longer = |since: Option<Mono>, limit| since.is_some_and(|since| now.since(since) > limit);
        let pressed = self.intake.is_pressed();
        let body_time = if pressed { limits.body_time.min(PRESSED_BODY_TIME) } else { limits.body_time };
        let stall_time = if pressed { limits.stall_time.min(PRESSED_STALL_TIME) } else { limits.stall_time };
        let crowded = self.intake.crowded.get();
        let idle_time = if crowded { limits.idle_time.min(CROWDED_IDLE_TIME) } else { limits.idle_time };
        if longer(self.arriving_since.get(), body_time) {
            Some("the request arrives too slowly")
        } else if longer(self.stalled_since.get(), stall_time) {
            Some("replies are not taken")
        } else if pressed && longer(self.owing_since.get(), PRESSED_REPLY_TIME) {
            Some("replies are taken too slowly")
        } else if self.is_quiet() && longer(Some(self.active_at.get()), idle_time) {
            Some("idle")
        } else {
            None
        }
    }

    /// Runs the connection until it ends. The caller then forgets it.
    pub async fn serve(&self, stream: Box<dyn ByteStream>, requests: &dyn Requests) -> Ended {
        let stream = RefCell::new(stream);
        let closing = self.close_asked.wait().fuse();
        let writing = self.write_replies(&stream, requests).fuse();
        let reading = self.read_requests(&stream, requests).fuse();
        pin_mut!(closing, writing, reading);
        select_biased! {
            () = closing => Ended::Refused(self.close_reason.get()),
            ended = writing => ended,
            ended = reading => ended,
        }
    }

    async fn read_requests(&self, stream: &RefCell<Box<dyn ByteStream>>, requests: &dyn Requests) -> Ended {
        let mut incoming = Incoming::new(stream, &self.intake.read_buffers);
        loop {
            for _ in 0..BURST {
                self.room().await;
                match self.read_request(&mut incoming, requests).await {
                    Ok(Arrived { frame, permit, mut reserve, kept }) => {
                        let request = self.replies.borrow_mut().open();
                        if let Some(reserve) = reserve.take_if(|_| kept) {
                            self.reserved.borrow_mut().push_back((request, reserve));
                        }
                        requests.request(ReplyTo { connection: self.id, request }, frame, permit);
                    }
                    Err(ended) => return ended,
                }
            }
            step_back().await;
        }
    }

    /// Waits until one more request may be read (invariant 2).
    async fn room(&self) {
        let limits = &self.intake.limits;
        loop {
            let unsent = self.unsent.get();
            if self.replies.borrow().in_flight() >= limits.in_flight || unsent >= limits.unsent_bytes {
                self.relieved.wait().await;
            } else if unsent >= CROWDED_UNSENT_BYTES && self.intake.replies.is_at_mark() {
                let relieved = self.relieved.wait().fuse();
                let below_mark = self.intake.replies.below_mark().fuse();
                pin_mut!(relieved, below_mark);
                select_biased! { () = relieved => {}, () = below_mark => {} }
            } else {
                return;
            }
        }
    }

    /// Waits until the shard can bear one more request of this API (invariants 5 and 6).
    async fn bearable(&self, api: Option<ApiKey>) {
        self.unmuted().await;
        let Burden { replies, asks, .. } = Burden::of(api);
        // A peer that does not take what it has asked for gets no more of it, or it would fill the pool again each time
        // that another one's place comes free.
        while replies && (self.stalled_since.get().is_some() || self.intake.replies.is_at_mark()) {
            if self.stalled_since.get().is_some() {
                self.without_clock(self.relieved.wait()).await;
            } else {
                self.without_clock(self.intake.replies.below_mark()).await;
            }
        }
        if asks && self.intake.outbox.is_at_mark() {
            self.without_clock(self.intake.outbox.below_mark()).await;
        }
        if let Some(to_peers) = self.intake.to_peers.as_ref().filter(|gauge| gauge.is_at_mark()) {
            self.without_clock(to_peers.below_mark()).await;
        }
    }

    /// Waits until the mute is over (invariant 5). A connection that waits here is quiet: a process that stops does not
    /// wait for it.
    async fn unmuted(&self) {
        while let Some(until) = self.muted_until.get() {
            if until <= self.intake.env.now() {
                self.muted_until.set(None);
                return;
            }
            self.arriving_since.set(None);
            self.intake.env.sleep_until(until).await;
            self.arriving_since.set(Some(self.intake.env.now()));
        }
    }

    async fn read_request(&self, incoming: &mut Incoming<'_>, requests: &dyn Requests) -> Result<Arrived, Ended> {
        let limits = &self.intake.limits;
        let mut head = [0; HEAD_BYTES];
        let mut got = 0;
        while got < HEAD_BYTES {
            match incoming.head(&mut head[got..]).await? {
                0 => return Err(Ended::PeerClosed),
                count => got += count,
            }
            if self.arriving_since.get().is_none() {
                self.arriving_since.set(Some(self.intake.env.now()));
            }
            if let Some(prefix) = head[..got].first_chunk() {
                // A size that no request has ends the connection at once, though its sender may send nothing more.
                frame_size(*prefix, limits.produce_frame_bytes.max(limits.other_frame_bytes))?;
            }
        }
        let (prefix, start) = head.split_first_chunk().expect("the head is longer than its size prefix");
        let api = ApiKey::from_code(i16::from_be_bytes([start[0], start[1]]));
        let produce = api == Some(ApiKey::Produce);
        let size = frame_size(*prefix, if produce { limits.produce_frame_bytes } else { limits.other_frame_bytes })?;
        incoming.announced(size);
        self.bearable(api).await;
        let request = if produce {
            let (permit, mut span) = self.produce_memory(size, requests).await;
            let (front, body) = span.bytes_mut().split_at_mut(HEAD_IN_FRAME);
            front.copy_from_slice(start);
            incoming.body_and_next(body, HEAD_BYTES).await?;
            span.truncate(size);
            Arrived { frame: Frame::in_arena(span), permit: Some(permit), reserve: None, kept: false }
        } else {
            let burden = Burden::of(api);
            let reserve = match burden.reserved(size, self.intake.reserve.capacity()) {
                Some(bytes) => Some(self.permit(&self.intake.reserve, bytes).await),
                None => None,
            };
            Arrived { frame: read_growing(incoming, start, size).await?, permit: None, reserve, kept: burden.keeps }
        };
        self.arriving_since.set(None);
        self.active_at.set(self.intake.env.now());
        Ok(request)
    }

    /// A permit, and a place in the arena, which has room for the head of the next request too, should it come along.
    /// The clock of the request stands still meanwhile: the wait is ours.
    async fn produce_memory(&self, size: usize, requests: &dyn Requests) -> (Permit, Span) {
        let permit = self.permit(&self.intake.produce, size).await;
        let _turn = self.permit(&self.intake.arena_turn, 1).await;
        loop {
            let span = self.intake.arena.borrow_mut().take(size + HEAD_BYTES);
            if let Some(span) = span {
                return (permit, span);
            }
            // A few live bytes keep many chunks. Those of commits under way go by themselves, released on other
            // threads, so that nobody here is woken by it. Those of the tail would stay until the next commit, which
            // may be of the very request that waits.
            requests.short_of_memory();
            self.without_clock(self.intake.env.sleep(ARENA_RETRY)).await;
        }
    }

    async fn permit(&self, budget: &Budget, size: usize) -> Permit {
        match budget.try_take(size) {
            Some(permit) => permit,
            None => self.without_clock(budget.take(size)).await,
        }
    }

    async fn without_clock<T>(&self, wait: impl Future<Output = T>) -> T {
        self.arriving_since.set(None);
        self.waits_for_memory.set(true);
        let value = wait.await;
        self.waits_for_memory.set(false);
        self.arriving_since.set(Some(self.intake.env.now()));
        value
    }

    async fn write_replies(&self, stream: &RefCell<Box<dyn ByteStream>>, requests: &dyn Requests) -> Ended {
        let mut out = VecDeque::new();
        loop {
            self.replies.borrow_mut().take_ready(&mut out);
            self.relieved.raise();
            let blocking = self.replies.borrow_mut().newly_blocking();
            if let Some(request) = blocking {
                requests.blocked(self.id, request);
            }
            if !out.is_empty() {
                if self.owing_since.get().is_none() {
                    self.owing_since.set(Some(self.intake.env.now()));
                }
                match self.write_some(stream, &out).await {
                    Ok(count) => self.sent(&mut out, count),
                    Err(error) => return Ended::Broken(error),
                }
                if !out.is_empty() {
                    self.intake.env.last_turn().await;
                }
                continue;
            }
            let closed = self.replies.borrow().closed();
            if let Some(reason) = closed {
                let closing = poll_fn(|cx| stream.borrow_mut().poll_close(cx)).await;
                return closing.map_or_else(Ended::Broken, |()| Ended::Refused(reason));
            }
            self.answered.wait().await;
        }
    }

    async fn write_some(&self, stream: &RefCell<Box<dyn ByteStream>>, out: &VecDeque<Bytes>) -> io::Result<usize> {
        poll_fn(|cx| {
            // Filled where it stands: it is a kilobyte.
            let mut slices: SmallVec<[IoSlice<'_>; SLICES_PER_WRITE]> = SmallVec::new();
            let mut left = PIECE_BYTES;
            for slice in out.iter().take(SLICES_PER_WRITE) {
                let part = &slice[..slice.len().min(left)];
                slices.push(IoSlice::new(part));
                left -= part.len();
                if left == 0 {
                    break;
                }
            }
            let result = stream.borrow_mut().poll_write_vectored(cx, &slices);
            if result.is_pending() && self.stalled_since.get().is_none() {
                self.stalled_since.set(Some(self.intake.env.now()));
            }
            result
        })
        .await
    }

    /// Drops what was sent from the front of `out`.
    fn sent(&self, out: &mut VecDeque<Bytes>, mut count: usize) {
        self.stalled_since.set(None);
        self.unsent.set(self.unsent.get() - count);
        self.intake.replies.subtract(count);
        while count > 0 {
            let front = out.front_mut().expect("no more is sent than was offered");
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            out.pop_front();
        }
        if out.is_empty() {
            self.owing_since.set(None);
            self.active_at.set(self.intake.env.now());
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.intake.replies.subtract(self.unsent.get());
    }
}

/// The size that a prefix announces, which excludes the prefix.
fn frame_size(prefix: [u8; 4], limit: usize) -> Result<usize, Ended> {
    let size = usize::try_from(i32::from_be_bytes(prefix)).map_err(|_| Ended::Refused("a negative frame size"))?;
    if size > limit {
        return Err(Ended::Refused("a frame above the size limit"));
    }
    if size < SHORTEST_FRAME {
        return Err(Ended::Refused("a frame too short for a request header"));
    }
    Ok(size)
}

/// Reads a frame of `size` bytes that begins with `start`, taking no more memory than about twice what has arrived.
async fn read_growing(incoming: &mut Incoming<'_>, start: &[u8], size: usize) -> Result<Frame, Ended> {
    let mut bytes = Vec::with_capacity(size.min(SMALL_BODY));
    bytes.extend_from_slice(start);
    while bytes.len() < size {
        let arrived = bytes.len();
        bytes.resize(size.min(SMALL_BODY.max(2 * arrived)), 0);
        incoming.body(&mut bytes[arrived..]).await?;
    }
    Ok(Frame::owned(bytes))
}
