//! Drives a [`ControlCore`]: mailboxes, store answers and timers in; store calls and messages out.
//!
//! Invariants:
//! 1. Messages to one shard or lane leave in the order of the effects. While its mailbox is full they wait here, and
//!    while more than [`OUTBOX_LIMIT`] wait anywhere no question is taken from a shard: every message answers something.
//! 2. Lane reports are always taken, so a lane never waits for the control task while that waits for the lane.
//! 3. Where many processes serve one log: one watch of each prefix, and as many seals under way as the core asks for.
//!    Likewise questions to other brokers, each with a limit to its time.
//! 4. At most [`STORE_CALLS`] store calls are under way; the others wait in the order asked for.
//! 5. Where many processes serve one log the core hears before every event whether a thread of this one is stuck.

use super::cluster::observer::{Ping, Pong};
use super::core::{ControlConfig, ControlCore};
use super::effects::{CallId, Effect, StoreAnswer, StoreCall};
use super::messages::{FromControl, ToControl};
use super::start::{self, Loaded, kafka_uuid};
use super::ticks::{News, Ticks, Watch};
use crate::journal::task::Cues;
use futures::StreamExt as _;
use futures::future::{Either, LocalBoxFuture, select};
use futures::stream::FuturesUnordered;
use millrace_storage::env::{Env, Mono};
use millrace_storage::ids::{BootId, ShardIndex, TopicId, Wid};
use millrace_storage::lane::{LaneCommand, LaneReport};
use millrace_storage::mailbox::{Receiver, SendError, Sender};
use millrace_storage::meta::{MetaStore, WatchError, WatchStream};
use millrace_storage::object::ObjectStore;
use millrace_storage::recovery::{self, Stores};
use millrace_storage::store_error::{FailureKind, StoreError};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Messages to one receiver that may wait before no more questions are taken.
pub const OUTBOX_LIMIT: usize = 1_024;

/// Store calls under way at most.
pub const STORE_CALLS: usize = 256;

/// Messages taken from one mailbox in one turn.
const TAKEN_PER_TURN: usize = 256;

/// Turns in one poll: then other tasks of the thread have theirs.
const TURNS_PER_POLL: usize = 16;

/// The control task's ends of the mailboxes to one shard.
pub struct ShardEnd {
    /// From it.
    pub from: Receiver<ToControl>,
    /// To it.
    pub to: Sender<FromControl>,
}

/// The control task's ends of the mailboxes to one lane.
pub struct LaneEnd {
    /// From it.
    pub reports: Receiver<LaneReport>,
    /// To it.
    pub commands: Sender<LaneCommand>,
}

/// All mailboxes of the control task.
pub struct ControlEnds {
    /// One per shard, by index.
    pub shards: Vec<ShardEnd>,
    /// One per lane, by index.
    pub lanes: Vec<LaneEnd>,
    /// A message here stops the process gracefully.
    pub stop: Receiver<()>,
    /// When each of these threads turned last.
    pub ticks: Ticks,
}

/// The stores that the control task uses.
#[derive(Clone)]
pub struct ControlStores {
    /// Metadata.
    pub meta: Rc<dyn MetaStore>,
    /// Objects under the cluster's prefix.
    pub objects: Rc<dyn ObjectStore>,
}

/// What asks another process whether it lives.
pub trait Pinger {
    /// Asks whoever listens there for anything. Whether that takes too long is the caller's business.
    fn ping(&self, host: &str, port: u16) -> LocalBoxFuture<'static, Pong>;
}

/// How the control task ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// By a graceful stop; `sealed`: a restart finds nothing to fence.
    Stopped {
        /// Whether every lane sealed its write-ahead log.
        sealed: bool,
    },
    /// A shard or lane is gone: the process shares its fate.
    Abandoned,
    /// A later life has this process's name.
    Replaced,
}

/// A queue of messages before a mailbox.
struct Outbox<T> {
    waiting: VecDeque<T>,
    to: Sender<T>,
    /// The receiver ended in the course of a graceful stop: nothing is sent any more.
    ended: bool,
}

/// The receiver is gone.
struct Gone;

impl<T> Outbox<T> {
    fn new(to: Sender<T>) -> Outbox<T> {
        Outbox { waiting: VecDeque::new(), to, ended: false }
    }

    /// Sends what fits; registers for the rest.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        if self.ended {
            self.waiting.clear();
        }
        while let Some(message) = self.waiting.pop_front() {
            match self.to.send(message) {
                Ok(()) => {}
                Err(SendError::Closed(_)) => return Err(Gone),
                Err(SendError::Full(back)) => {
                    self.waiting.push_front(back);
                    if self.to.poll_place(cx).is_pending() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

impl Outbox<FromControl> {
    /// An image that still waits at the end is replaced by its successor.
    fn push(&mut self, message: FromControl) {
        if matches!(message, FromControl::Image(_)) && matches!(self.waiting.back(), Some(FromControl::Image(_))) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(message);
    }
}

/// The control task at work on its thread.
pub struct ControlPump {
    env: Env,
    stores: ControlStores,
    core: ControlCore,
    shards: Vec<(Receiver<ToControl>, Outbox<FromControl>)>,
    lanes: Vec<(Receiver<LaneReport>, Outbox<LaneCommand>)>,
    stop: Option<Receiver<()>>,
    calls: FuturesUnordered<LocalBoxFuture<'static, (CallId, StoreAnswer)>>,
    waiting_calls: VecDeque<(CallId, StoreCall)>,
    watches: Vec<(&'static str, WatchStream)>,
    /// What seals go through, and as whom.
    sealing: Option<(Stores, BootId)>,
    seals: FuturesUnordered<LocalBoxFuture<'static, (Wid, bool)>>,
    /// What asks other brokers; none: nothing comes of the question.
    pinger: Option<Rc<dyn Pinger>>,
    pings: FuturesUnordered<LocalBoxFuture<'static, (Ping, Pong)>>,
    timer: Option<(Mono, LocalBoxFuture<'static, ()>)>,
    /// None are watched where nothing rests on it.
    ticks: Ticks,
    watch: Watch,
    cues: Rc<Cues>,
    ended: Option<Ended>,
}

impl ControlPump {
    /// Reads what the metadata store holds; with [`ControlPump::run`] the early image leaves and lanes are told to lead.
    pub async fn start(
        env: Env,
        config: ControlConfig,
        stores: ControlStores,
        ends: ControlEnds,
    ) -> Result<ControlPump, start::StartError> {
        // What many processes have is learned from the view.
        let loaded = match &config.cluster {
            Some(_) => start::load_settings(&env, stores.meta.as_ref()).await?,
            None => start::load(&env, stores.meta.as_ref()).await?,
        };
        Ok(ControlPump::new(env, config, loaded, stores, ends))
    }

    /// Where many processes serve one log: ends the logs of dead ones through these stores.
    pub fn sealing(self, stores: Stores, boot: BootId) -> ControlPump {
        ControlPump { sealing: Some((stores, boot)), ..self }
    }

    /// Where many processes serve one log: asks the others through this whether they live.
    pub fn asking(self, pinger: Option<Rc<dyn Pinger>>) -> ControlPump {
        ControlPump { pinger, ..self }
    }

    /// A pump that begins with `loaded`.
    pub fn new(
        env: Env,
        config: ControlConfig,
        loaded: Loaded,
        stores: ControlStores,
        ends: ControlEnds,
    ) -> ControlPump {
        assert_eq!(ends.shards.len(), config.nodes.len(), "one pair of mailboxes per shard");
        assert_eq!(ends.lanes.len(), usize::from(config.lanes), "one pair of mailboxes per lane");
        let random = env.clone();
        let new_id = Box::new(move || TopicId(kafka_uuid(|| random.random_u128())));
        let ticks = if config.cluster.is_some() { ends.ticks } else { Ticks::default() };
        let watch = Watch::new(env.now());
        let core = ControlCore::new(env.now(), config, loaded, new_id);
        let shards = ends.shards.into_iter().map(|end| (end.from, Outbox::new(end.to))).collect();
        let lanes = ends.lanes.into_iter().map(|end| (end.reports, Outbox::new(end.commands))).collect();
        ControlPump {
            env,
            stores,
            core,
            shards,
            lanes,
            stop: Some(ends.stop),
            calls: FuturesUnordered::new(),
            waiting_calls: VecDeque::new(),
            watches: Vec::new(),
            sealing: None,
            seals: FuturesUnordered::new(),
            pinger: None,
            pings: FuturesUnordered::new(),
            timer: None,
            ticks,
            watch,
            cues: Rc::default(),
            ended: None,
        }
    }

    /// Says to the journal what it goes by.
    pub fn cueing(self, cues: Rc<Cues>) -> ControlPump {
        ControlPump { cues, ..self }
    }

    /// Runs until a graceful stop is done, or a shard or lane is gone.
    pub async fn run(mut self) -> Ended {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        for _ in 0..TURNS_PER_POLL {
            let Ok(mut progress) = self.take_in(cx) else { return Poll::Ready(Ended::Abandoned) };
            let effects = self.core.take_effects();
            self.cues.writes.set(self.core.is_controller());
            self.cues.placements.set(self.core.placements());
            progress |= !effects.is_empty();
            self.carry_out(effects);
            if self.flush(cx).is_err() {
                return Poll::Ready(Ended::Abandoned);
            }
            if let Some(ended) = self.ended {
                return Poll::Ready(ended);
            }
            if !progress {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands the core what has come; whether anything had.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Result<bool, Gone> {
        self.core.set_wall(self.env.wall());
        self.look_at_threads();
        let mut progress = self.take_stop(cx) | self.take_watched(cx);
        let now = self.env.now();
        for (lane, (reports, outbox)) in (0..).zip(&mut self.lanes) {
            for _ in 0..TAKEN_PER_TURN {
                if outbox.ended {
                    break;
                }
                let Poll::Ready(report) = reports.poll_recv(cx) else { break };
                let report = report.ok_or(Gone)?;
                // A lane's last word.
                outbox.ended = matches!(report, LaneReport::Stopped { .. });
                self.core.on_lane(now, lane, report);
                progress = true;
            }
        }
        while let Poll::Ready(Some((call, answer))) = self.calls.poll_next_unpin(cx) {
            self.core.on_store(now, call, answer);
            progress = true;
        }
        let is_clogged = self.shards.iter().any(|(_, outbox)| outbox.waiting.len() > OUTBOX_LIMIT)
            || self.lanes.iter().any(|(_, outbox)| outbox.waiting.len() > OUTBOX_LIMIT);
        for (shard, (questions, outbox)) in (0..).map(ShardIndex).zip(&mut self.shards) {
            for _ in 0..TAKEN_PER_TURN {
                if is_clogged || outbox.ended || !self.core.wants_questions() {
                    break;
                }
                let Poll::Ready(question) = questions.poll_recv(cx) else { break };
                let question = question.ok_or(Gone)?;
                // A shard's last word.
                outbox.ended = question == ToControl::Drained;
                self.core.on_shard(now, shard, question);
                progress = true;
            }
        }
        Ok(self.take_time(cx) || progress)
    }

    fn look_at_threads(&mut self) {
        let ms = |silent: Duration| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
        for news in self.watch.look(self.env.now(), self.ticks.read()) {
            match news {
                News::Stuck(thread, silent) => {
                    let silent_ms = ms(silent);
                    tracing::error!(%thread, silent_ms, "a thread is stuck; until it goes on the lease is not kept");
                }
                News::Back(thread, silent) => {
                    let silent_ms = ms(silent);
                    tracing::warn!(%thread, silent_ms, "a thread that was stuck goes on");
                }
            }
        }
        self.core.set_stuck(!self.watch.may_keep_lease());
    }

    fn take_watched(&mut self, cx: &mut Context<'_>) -> bool {
        let (now, mut progress) = (self.env.now(), false);
        let mut ended = Vec::new();
        for (place, (prefix, watch)) in self.watches.iter_mut().enumerate() {
            for _ in 0..TAKEN_PER_TURN {
                let Poll::Ready(changes) = watch.poll_next_unpin(cx) else { break };
                progress = true;
                let silent = || StoreError::unknown(FailureKind::Unavailable, "the watch ended");
                let changes = changes.unwrap_or_else(|| Err(WatchError::Store(silent())));
                let is_over = changes.is_err();
                self.core.on_watch(now, prefix, changes);
                if is_over {
                    ended.push(place);
                    break;
                }
            }
        }
        for place in ended.into_iter().rev() {
            drop(self.watches.swap_remove(place));
        }
        while let Poll::Ready(Some((wid, sealed))) = self.seals.poll_next_unpin(cx) {
            self.core.on_sealed(now, wid, sealed);
            progress = true;
        }
        while let Poll::Ready(Some((ping, pong))) = self.pings.poll_next_unpin(cx) {
            self.core.on_pong(now, &ping, pong);
            progress = true;
        }
        progress
    }

    fn take_stop(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stop) = &mut self.stop else { return false };
        match stop.poll_recv(cx) {
            Poll::Pending => false,
            // Whoever could have asked for a stop is gone: nobody will.
            Poll::Ready(asked) => {
                self.stop = None;
                if asked.is_some() {
                    self.core.on_stop(self.env.now());
                }
                asked.is_some()
            }
        }
    }

    fn take_time(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.core.next_deadline() else {
            self.timer = None;
            return false;
        };
        let now = self.env.now();
        if deadline <= now {
            self.core.on_time(now);
            return true;
        }
        if self.timer.as_ref().is_none_or(|(at, _)| *at != deadline) {
            self.timer = Some((deadline, self.env.sleep_until(deadline)));
        }
        let (_, sleep) = self.timer.as_mut().expect("just set");
        let is_over = sleep.as_mut().poll(cx).is_ready();
        if is_over {
            self.timer = None;
        }
        is_over
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Call(id, call) => self.waiting_calls.push_back((id, call)),
                Effect::Lane(lane, command) => self.lanes[usize::from(lane)].1.waiting.push_back(command),
                Effect::Shard(shard, message) => self.shards[usize::from(shard.0)].1.push(message),
                Effect::Watch(prefix, after) => {
                    self.watches.retain(|(watched, _)| *watched != prefix);
                    self.watches.push((prefix, self.stores.meta.watch(prefix, after)));
                }
                Effect::Seal(wid) => self.seal(wid),
                Effect::Ping(ping) => self.ping(ping),
                Effect::Replaced => self.ended = Some(Ended::Replaced),
                Effect::Stopped { sealed } => self.ended = Some(Ended::Stopped { sealed }),
            }
        }
        while self.calls.len() < STORE_CALLS
            && let Some((id, call)) = self.waiting_calls.pop_front()
        {
            self.calls.push(begin(&self.stores, id, call));
        }
    }

    fn seal(&mut self, wid: Wid) {
        let (stores, boot) = self.sealing.clone().expect("a cluster's pump was given stores to seal through");
        let env = self.env.clone();
        self.seals.push(Box::pin(async move {
            let sealed = recovery::seal(&env, &stores, boot, wid).await;
            if let Err(error) = &sealed {
                tracing::warn!(%wid, %error, "a log could not be ended yet");
            }
            (wid, sealed.is_ok())
        }));
    }

    fn ping(&mut self, ping: Ping) {
        let asked = self.pinger.as_ref().map(|pinger| pinger.ping(&ping.host, ping.port));
        let expiry = self.env.sleep(ping.within);
        self.pings.push(Box::pin(async move {
            let Some(asked) = asked else {
                expiry.await;
                return (ping, Pong::Silent);
            };
            match select(asked, expiry).await {
                Either::Left((pong, _)) => (ping, pong),
                Either::Right(_) => (ping, Pong::Silent),
            }
        }));
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        for (_, outbox) in &mut self.shards {
            outbox.flush(cx)?;
        }
        for (_, outbox) in &mut self.lanes {
            outbox.flush(cx)?;
        }
        Ok(())
    }
}

/// Begins a store call.
fn begin(stores: &ControlStores, id: CallId, call: StoreCall) -> LocalBoxFuture<'static, (CallId, StoreAnswer)> {
    let ControlStores { meta, objects } = stores;
    match call {
        StoreCall::Txn(txn) => {
            let done = meta.txn(txn);
            Box::pin(async move { (id, StoreAnswer::Txn(done.await)) })
        }
        StoreCall::Get(keys) => {
            let done = meta.get(keys);
            Box::pin(async move { (id, StoreAnswer::Get(done.await)) })
        }
        StoreCall::List { prefix, after, limit } => {
            let done = meta.list(&prefix, after, limit);
            Box::pin(async move { (id, StoreAnswer::List(done.await)) })
        }
        StoreCall::Grant(ttl) => {
            let done = meta.grant(ttl);
            Box::pin(async move { (id, StoreAnswer::Grant(done.await)) })
        }
        StoreCall::KeepAlive(lease) => {
            let done = meta.keep_alive(lease);
            Box::pin(async move { (id, StoreAnswer::KeepAlive(done.await)) })
        }
        StoreCall::Revoke(lease) => {
            let done = meta.revoke(lease);
            Box::pin(async move { (id, StoreAnswer::Revoke(done.await)) })
        }
        StoreCall::PutObject { key, bytes } => {
            let done = objects.put_if_absent(&key, vec![bytes]);
            Box::pin(async move { (id, StoreAnswer::PutObject(done.await)) })
        }
        StoreCall::GetObject { key } => {
            let done = objects.get(&key);
            Box::pin(async move { (id, StoreAnswer::GetObject(done.await)) })
        }
        StoreCall::ReplaceObject { key, bytes, version } => {
            let done = objects.put_if_match(&key, bytes, version);
            Box::pin(async move { (id, StoreAnswer::ReplaceObject(done.await)) })
        }
    }
}
