//! Drives one shard: events into its core, effects out of it. Knows no runtime: the same code runs on a shard's
//! executor and in the simulator.
//!
//! Invariants:
//! 1. The core is borrowed for one event at a time, never over an await.
//! 2. Effects are carried out in the order in which the core made them. What goes to the lane or to the control task
//!    while their mailbox is full waits in order; at [`OUTBOX_MARK`] such messages no further request is read that
//!    may ask the control task, so they are bounded by what lane and control task themselves cause beyond it.
//! 3. A seal is made when the lane can take it, so that requests gather in the core while it cannot. Another message
//!    to the lane leaves behind a seal of everything appended before it.
//!    What goes to other shards waits likewise, for each in order, and above [`PEERS_MARK`] such messages no request is
//!    read at all. Mail is taken whatever waits, so that two shards with full mailboxes for each other go on; what it
//!    makes this shard ask lane and control task is bounded by the requests that other shards have open.
//! 4. At most [`CONNECTIONS`] connections and [`READS`] reads at a time; more wait, in the listener's backlog and in
//!    order. Searches are bounded by the core.

use crate::cold::reader::{ColdRead, ColdReader, ColdTotals};
use crate::control::{FromControl, ToControl};
use crate::net::budget::{Permit, Pools};
use crate::net::connection::{Connection, Ended, Intake, Limits, Requests};
use crate::net::frame::Frame;
use crate::net::stream::{ByteStream, Listener};
use crate::shard::core::ShardCore;
use crate::shard::counters::Counters;
use crate::shard::events::{ConnectionId, Effect, LookupToken, Now, ReadToken, ReplyTo, RequestNumber};
use crate::shard::lookup::Source;
use crate::shard::search::{SearchError, Seek};
use crate::shard::split::ToPeer;
use crate::signal::{Gauge, Signal};
use bytes::Bytes;
use futures::{FutureExt, select_biased};
use millrace_storage::env::{Env, Mono, WallMs, step_back};
use millrace_storage::ids::{Seq, ShardIndex, Wid};
use millrace_storage::lane::{ToLane, ToShard};
use millrace_storage::mailbox::{Receiver, SendError, Sender};
use millrace_storage::wal::WalStore;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Messages that may wait for room in the mailboxes of lane and control task before requests stop.
pub const OUTBOX_MARK: usize = 4096;
/// Messages that may wait for room in the mailboxes of other shards before requests stop, by [`ToPeer::weight`].
pub const PEERS_MARK: usize = 4096;
/// Messages of another shard in a row after which other tasks get their turn.
const PEER_BURST: usize = 32;
/// Connections of one shard.
pub const CONNECTIONS: usize = 10_000;
/// Reads of write-ahead objects and segments under way.
pub const READS: usize = 32;
/// How often connections are looked at for time limits, and idle memory is given back.
const SWEEP: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How often a stopping shard looks for connections that have nothing under way.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// How long a stopping shard waits for its connections.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// A shard's ends of its mailboxes.
pub struct ShardEnds {
    /// To its lane.
    pub to_lane: Sender<ToLane>,
    /// From its lane.
    pub from_lane: Receiver<ToShard>,
    /// To the control task.
    pub to_control: Sender<ToControl>,
    /// From the control task.
    pub from_control: Receiver<FromControl>,
    /// Those of other shards, where all share a port: one for each of them.
    pub peers: Vec<PeerEnds>,
}

/// A shard's ends of its mailboxes for another shard.
pub struct PeerEnds {
    /// Which.
    pub peer: ShardIndex,
    /// To it.
    pub to: Sender<ToPeer>,
    /// From it.
    pub from: Receiver<ToPeer>,
}

/// What a shard's pump is made from.
pub struct ShardParts {
    /// The state machine.
    pub core: ShardCore,
    /// This thread's handle to the write-ahead logs.
    pub wal: Rc<dyn WalStore>,
    /// Its reader of segments.
    pub cold: ColdReader,
    /// The shard's memory.
    pub pools: Pools,
    /// Bounds of its connections.
    pub limits: Limits,
    /// Mailboxes.
    pub ends: ShardEnds,
}

/// One shard at work. A clone is a handle.
#[derive(Clone)]
pub struct ShardPump(Rc<Pump>);

struct Pump {
    env: Env,
    core: RefCell<ShardCore>,
    wal: Rc<dyn WalStore>,
    cold: ColdReader,
    intake: Rc<Intake>,
    pools: Pools,
    connections: RefCell<BTreeMap<ConnectionId, Rc<Connection>>>,
    next_connection: Cell<u64>,
    /// A connection ended.
    left: Signal,
    /// Kept between turns so that a turn allocates nothing.
    effects: Cell<Vec<Effect>>,
    /// Messages in the two queues below.
    outbox: Rc<Gauge>,
    for_lane: RefCell<VecDeque<ToLane>>,
    lane_due: Signal,
    for_control: RefCell<VecDeque<ToControl>>,
    control_due: Signal,
    /// What other shards have not taken.
    peers: BTreeMap<ShardIndex, PeerQueue>,
    to_peers: Rc<Gauge>,
    /// Bytes counted as replies that the core holds until other shards have given theirs.
    held: Cell<usize>,
    reading: Cell<usize>,
    reads: RefCell<VecDeque<Read>>,
    /// When the timer task wakes, if it sleeps.
    armed: Cell<Option<Mono>>,
    rearm: Signal,
    stopping: Signal,
    stop: Cell<Stop>,
}

/// Messages for another shard.
#[derive(Default)]
struct PeerQueue {
    waiting: RefCell<VecDeque<ToPeer>>,
    due: Signal,
    /// A [`ToPeer::Shed`] is among them: one says as much as many.
    sheds: Cell<bool>,
}

/// How far a graceful stop is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// None was asked for.
    No,
    /// Asked for; the control task waits for [`ToControl::Drained`].
    Asked,
    /// Said.
    Drained,
}

/// A read that the core asked for.
enum Read {
    /// Of a write-ahead object.
    Object { token: ReadToken, wid: Wid, seq: Seq, range: Range<u64> },
    /// Of segments.
    Cold { token: ReadToken, read: ColdRead },
}

impl ShardPump {
    /// Starts a shard's tasks, on this thread. It takes mail at once; connections come with [`ShardPump::run`].
    pub fn start(env: Env, parts: ShardParts) -> ShardPump {
        let outbox = Rc::new(Gauge::new(OUTBOX_MARK));
        let to_peers = Rc::new(Gauge::new(PEERS_MARK));
        let mut intake = Intake::new(env.clone(), &parts.pools, parts.limits, outbox.clone());
        if !parts.ends.peers.is_empty() {
            intake = intake.with_peers(to_peers.clone());
        }
        let pump = Rc::new(Pump {
            intake: Rc::new(intake),
            peers: parts.ends.peers.iter().map(|ends| (ends.peer, PeerQueue::default())).collect(),
            to_peers,
            held: Cell::new(0),
            pools: parts.pools,
            env: env.clone(),
            core: RefCell::new(parts.core),
            wal: parts.wal,
            cold: parts.cold,
            connections: RefCell::default(),
            next_connection: Cell::new(0),
            left: Signal::default(),
            effects: Cell::default(),
            outbox,
            for_lane: RefCell::default(),
            lane_due: Signal::default(),
            for_control: RefCell::default(),
            control_due: Signal::default(),
            reading: Cell::new(0),
            reads: RefCell::default(),
            armed: Cell::default(),
            rearm: Signal::default(),
            stopping: Signal::default(),
            stop: Cell::new(Stop::No),
        });
        let ends = parts.ends;
        env.spawn("lane mail", pump.clone().take_lane_mail(ends.from_lane));
        env.spawn("control mail", pump.clone().take_control_mail(ends.from_control));
        env.spawn("to lane", pump.clone().feed_lane(ends.to_lane));
        env.spawn("to control", pump.clone().feed_control(ends.to_control));
        if !ends.peers.is_empty() {
            let intake = pump.intake.clone();
            env.spawn("loans", async move { intake.collect_loans().await });
        }
        for PeerEnds { peer, to, from } in ends.peers {
            env.spawn("peer mail", pump.clone().take_peer_mail(peer, from));
            env.spawn("to peer", pump.clone().feed_peer(peer, to));
        }
        env.spawn("timer", pump.clone().keep_time());
        env.spawn("sweep", pump.clone().sweep());
        ShardPump(pump)
    }

    /// Serves the listener's connections until the control task says [`FromControl::Stopping`] and what was under way
    /// has ended, or [`DRAIN_LIMIT`] has passed. The shard's other tasks go on.
    pub async fn run(&self, listener: Box<dyn Listener>) {
        self.0.accept(&*listener).await;
        drop(listener);
        self.0.drain().await;
    }

    /// Looks so often for records that have expired; `looked` is told of each look at all logs.
    pub fn expire_every(&self, pause: Duration, looked: impl Fn(WallMs) + 'static) {
        let pump = self.0.clone();
        self.0.env.spawn("retention", async move {
            loop {
                pump.env.sleep(pause).await;
                pump.turn(ShardCore::expire);
                looked(pump.env.wall());
            }
        });
    }

    /// Tells the control task so often what partitions cost: for a process among others.
    pub fn tell_loads_every(&self, pause: Duration) {
        let pump = self.0.clone();
        self.0.env.spawn("loads", async move {
            loop {
                pump.env.sleep(pause).await;
                pump.turn(ShardCore::tell_loads);
            }
        });
    }

    /// The core, to look at between events.
    pub fn core(&self) -> &RefCell<ShardCore> {
        &self.0.core
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.0.connections.borrow().len()
    }

    /// What the shard counted, its reader of segments included.
    pub fn counters(&self) -> Counters {
        let ColdTotals { gets, bytes } = self.0.cold.totals();
        let disk = self.0.cold.disk_totals();
        Counters {
            segment_gets: gets,
            segment_get_bytes: bytes,
            segment_disk_hits: disk.hits,
            segment_disk_writes: disk.writes,
            segment_disk_damaged: disk.damaged,
            segment_disk_skipped: disk.skipped,
            segment_disk_stopped: disk.stopped,
            ..*self.0.core.borrow().counters()
        }
    }

    /// Bytes that are cached of segments.
    pub fn cold_bytes(&self) -> usize {
        self.0.cold.used()
    }

    /// How the shard's memory is divided.
    pub fn pools(&self) -> &Pools {
        &self.0.pools
    }

    /// What its connections share, to look at.
    pub fn intake(&self) -> &Intake {
        &self.0.intake
    }
}

impl Pump {
    fn now(&self) -> Now {
        Now { mono: self.env.now(), wall: self.env.wall() }
    }

    /// One event: into the core, then its effects carried out (invariants 1 and 2).
    fn turn(self: &Rc<Self>, event: impl FnOnce(&mut ShardCore, Now)) {
        let now = self.now();
        let mut effects = self.effects.take();
        let (deadline, mail, held) = {
            let mut core = self.core.borrow_mut();
            event(&mut core, now);
            core.take_effects(&mut effects);
            (core.next_deadline(), core.take_mail(), core.held_bytes())
        };
        for (peer, message) in mail {
            self.post_to_peer(peer, message);
        }
        for effect in effects.drain(..) {
            self.carry_out(now, effect);
        }
        self.effects.set(effects);
        self.intake.hold(self.held.replace(held), held);
        self.lane_due.raise();
        if deadline.is_some_and(|at| self.armed.get().is_none_or(|armed| at < armed)) {
            self.rearm.raise();
        }
    }

    fn carry_out(self: &Rc<Self>, now: Now, effect: Effect) {
        match effect {
            Effect::Reply(to, reply) => {
                // A connection that has gone needs no answer.
                if let Some(connection) = self.connections.borrow().get(&to.connection) {
                    connection.answer(to.request, reply);
                }
            }
            Effect::Mute { connection, until } => {
                if let Some(connection) = self.connections.borrow().get(&connection) {
                    connection.mute(until);
                }
            }
            Effect::ToLane(message) => {
                while let Some(seal) = self.core.borrow_mut().take_seal(now) {
                    self.post_to_lane(ToLane::Seal(seal));
                }
                self.post_to_lane(message);
            }
            Effect::ToControl(message) => self.post_to_control(message),
            Effect::Read { token, wid, seq, range } => {
                self.reads.borrow_mut().push_back(Read::Object { token, wid, seq, range });
                self.start_reads();
            }
            Effect::ColdRead { token, read } => {
                self.reads.borrow_mut().push_back(Read::Cold { token, read });
                self.start_reads();
            }
            Effect::ReadManifest { partition, epoch } => {
                let pump = self.clone();
                self.env.spawn("manifest", async move {
                    let result = pump.cold.manifest_from_store(partition).await;
                    let result = result.as_deref().map_err(Clone::clone);
                    pump.turn(|core, now| core.on_manifest(now, (partition, epoch), result));
                });
            }
            Effect::FindSegments { token, partition, stale } => {
                let pump = self.clone();
                self.env.spawn("segments", async move {
                    let result = pump.cold.manifest_after(partition, stale).await;
                    pump.turn(|core, now| core.on_segments(now, token, result));
                });
            }
            Effect::Search { token, source, seek } => self.search(token, source, seek),
        }
    }

    /// The core bounds how many there are at a time.
    fn search(self: &Rc<Self>, token: LookupToken, source: Source, seek: Seek) {
        let pump = self.clone();
        self.env.spawn("search", async move {
            let result = match pump.bytes_of(source, seek).await {
                Ok((start, bytes)) => pump.env.aside(move || seek.search(start, &bytes)).await,
                Err(error) => Err(error),
            };
            pump.turn(|core, now| core.on_searched(now, token, result));
        });
    }

    /// Bytes to search, and where they begin in their object.
    async fn bytes_of(&self, source: Source, seek: Seek) -> Result<(u64, Bytes), SearchError> {
        match source {
            Source::Memory(bytes) => Ok((0, bytes)),
            Source::Object { wid, seq, range } => {
                let (start, length) = (range.start, range.end - range.start);
                let bytes = self.wal.read(wid, seq, range).await.map_err(SearchError::Store)?;
                let whole = bytes.filter(|bytes| bytes.len() as u64 == length).ok_or(SearchError::Missing)?;
                Ok((start, whole))
            }
            Source::Segment { partition, named, position, needs } => {
                let found = self.cold.batches_at(partition, &named, position, needs, seek.from).await?;
                found.ok_or(SearchError::Missing)
            }
        }
    }

    fn post_to_lane(&self, message: ToLane) {
        self.outbox.add(1);
        self.for_lane.borrow_mut().push_back(message);
    }

    fn post_to_control(&self, message: ToControl) {
        self.outbox.add(1);
        self.for_control.borrow_mut().push_back(message);
        self.control_due.raise();
    }

    fn post_to_peer(&self, peer: ShardIndex, message: ToPeer) {
        let queue = &self.peers[&peer];
        self.to_peers.add(message.weight());
        queue.waiting.borrow_mut().push_back(message);
        queue.due.raise();
    }

    async fn take_peer_mail(self: Rc<Self>, peer: ShardIndex, mut mail: Receiver<ToPeer>) {
        let mut taken = 0_usize;
        while let Some(message) = mail.recv().await {
            self.turn(|core, now| core.on_peer(now, peer, message));
            taken += 1;
            if taken.is_multiple_of(PEER_BURST) {
                step_back().await;
            }
        }
    }

    async fn feed_peer(self: Rc<Self>, peer: ShardIndex, to: Sender<ToPeer>) {
        let queue = &self.peers[&peer];
        loop {
            queue.due.wait().await;
            while let Some(message) = { queue.waiting.borrow_mut().pop_front() } {
                self.to_peers.subtract(message.weight());
                if matches!(message, ToPeer::Shed) {
                    queue.sheds.set(false);
                }
                if to.send_waiting(message).await.is_err() {
                    return;
                }
            }
        }
    }

    fn start_reads(self: &Rc<Self>) {
        while self.reading.get() < READS {
            let Some(read) = self.reads.borrow_mut().pop_front() else { return };
            self.reading.set(self.reading.get() + 1);
            let pump = self.clone();
            self.env.spawn("read", async move {
                match read {
                    Read::Object { token, wid, seq, range } => {
                        let result = pump.wal.read(wid, seq, range).await;
                        pump.turn(|core, now| core.on_read(now, token, result));
                    }
                    Read::Cold { token, read } => {
                        let result = pump.cold.read(&read).await;
                        pump.turn(|core, now| core.on_cold_read(now, token, result));
                    }
                }
                pump.reading.set(pump.reading.get() - 1);
                pump.start_reads();
            });
        }
    }

    async fn take_lane_mail(self: Rc<Self>, mut mail: Receiver<ToShard>) {
        while let Some(message) = mail.recv().await {
            self.turn(|core, now| core.on_lane(now, message));
        }
    }

    async fn take_control_mail(self: Rc<Self>, mut mail: Receiver<FromControl>) {
        while let Some(message) = mail.recv().await {
            let stopping = message == FromControl::Stopping;
            self.turn(|core, now| core.on_control(now, message));
            if stopping {
                self.stop.set(Stop::Asked);
                self.lane_due.raise();
                self.stopping.raise();
            }
        }
    }

    /// Hands the lane one message at a time, each made when there is a place for it (invariant 3). Ends with the lane:
    /// then the process ends.
    async fn feed_lane(self: Rc<Self>, lane: Sender<ToLane>) {
        loop {
            self.lane_due.wait().await;
            while lane.place().await {
                let Some(message) = self.next_for_lane() else {
                    // All that was appended is with the lane, and a stopping core takes no more.
                    if self.stop.get() == Stop::Asked {
                        self.stop.set(Stop::Drained);
                        self.post_to_control(ToControl::Drained);
                    }
                    break;
                };
                match lane.send(message) {
                    Ok(()) => {}
                    Err(SendError::Closed(_)) => return,
                    Err(SendError::Full(_)) => unreachable!("this task alone sends, and saw a place"),
                }
            }
        }
    }

    fn next_for_lane(&self) -> Option<ToLane> {
        let waiting = self.for_lane.borrow_mut().pop_front();
        if waiting.is_some() {
            self.outbox.subtract(1);
            return waiting;
        }
        self.core.borrow_mut().take_seal(self.now()).map(ToLane::Seal)
    }

    async fn feed_control(self: Rc<Self>, control: Sender<ToControl>) {
        loop {
            self.control_due.wait().await;
            while let Some(message) = { self.for_control.borrow_mut().pop_front() } {
                self.outbox.subtract(1);
                if control.send_waiting(message).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn keep_time(self: Rc<Self>) {
        loop {
            let next = self.core.borrow().next_deadline();
            self.armed.set(next);
            let Some(at) = next else {
                self.rearm.wait().await;
                continue;
            };
            let due = select_biased! {
                () = self.env.sleep_until(at).fuse() => true,
                () = self.rearm.wait().fuse() => false,
            };
            if due {
                self.turn(|core, now| core.on_time(now));
            }
        }
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            self.env.sleep(SWEEP).await;
            let now = self.env.now();
            self.intake.set_crowded(self.connections.borrow().len() >= CONNECTIONS);
            for connection in self.connections.borrow().values() {
                if let Some(reason) = connection.overdue(now) {
                    connection.close(reason);
                }
            }
            if self.intake.produce_bytes() == 0 {
                self.intake.arena().borrow_mut().trim();
            }
        }
    }

    async fn accept(self: &Rc<Self>, listener: &dyn Listener) {
        let mut stopping = Box::pin(self.stopping.wait().fuse());
        loop {
            while self.connections.borrow().len() >= CONNECTIONS {
                select_biased! {
                    () = stopping => return,
                    () = self.left.wait().fuse() => {}
                }
            }
            let accepted = select_biased! {
                () = stopping => return,
                accepted = listener.accept().fuse() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.connect(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.env.sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn connect(self: &Rc<Self>, stream: Box<dyn ByteStream>, peer: SocketAddr) {
        let id = ConnectionId(self.next_connection.get());
        self.next_connection.set(id.0 + 1);
        let connection = Rc::new(Connection::new(id, self.intake.clone()));
        self.connections.borrow_mut().insert(id, connection.clone());
        self.turn(|core, now| core.on_connection(now, id, peer));
        let pump = self.clone();
        self.env.spawn("connection", async move {
            match connection.serve(stream, &pump).await {
                Ended::PeerClosed => tracing::debug!(%peer, "connection closed by the peer"),
                Ended::Broken(error) => tracing::debug!(%peer, %error, "connection broke"),
                Ended::Refused(reason) => tracing::debug!(%peer, reason, "connection closed"),
            }
            pump.connections.borrow_mut().remove(&id);
            pump.left.raise();
            pump.turn(|core, now| core.on_disconnect(now, id));
        });
    }

    /// Ends connections as they fall quiet.
    async fn drain(&self) {
        let until = self.env.now().plus(DRAIN_LIMIT);
        while !self.connections.borrow().is_empty() && self.env.now() < until {
            for connection in self.connections.borrow().values().filter(|connection| connection.is_quiet()) {
                connection.close("the process stops");
            }
            self.env.sleep(DRAIN_LOOK).await;
        }
    }
}

impl Requests for Rc<Pump> {
    fn request(&self, reply_to: ReplyTo, frame: Frame, permit: Option<Permit>) {
        self.turn(|core, now| core.on_request(now, reply_to, frame, permit));
    }

    fn blocked(&self, connection: ConnectionId, request: RequestNumber) {
        self.turn(|core, now| core.on_queued_behind(now, connection, request));
    }

    fn short_of_memory(&self) {
        self.core.borrow_mut().shed_tail();
        // Batches that came here may be in the tails of others.
        for (peer, queue) in &self.peers {
            if !queue.sheds.replace(true) {
                self.post_to_peer(*peer, ToPeer::Shed);
            }
        }
    }
}
