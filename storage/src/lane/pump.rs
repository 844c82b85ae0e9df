//! Drives a [`LaneCore`]: mailboxes and answers of the stores in, store operations and messages out.
//!
//! Invariants:
//! 1. Nothing is dropped: while the core has no room messages of shards wait in their mailboxes; a full mailbox of a
//!    shard is waited for, in order. (Shards never wait for the lane while they hold messages of it back.)
//! 2. Everything that has come is given to the core before it advances, so that seals of one tick share an object.
//! 3. Store operations under way are bounded by the core: the window of sequences, one checkpoint, one look-up, the gate
//!    of transactions.

use super::config::{LaneConfig, LaneIdentity, backoff};
use super::core::LaneCore;
use super::counters::LaneCells;
use super::deletions::Deletions;
use super::events::{Effect, Event, Now};
use super::messages::{LaneCommand, LaneReport, ToLane, ToShard};
use super::outage::{News, Outage};
use crate::compactor;
use crate::compactor::background::Background;
use crate::env::{Env, Mono};
use crate::ids::{ShardIndex, Wid};
use crate::mailbox::{Receiver, Sender};
use crate::recovery::{self, Stores};
use crate::wrong::{Wrong, wrong};
use futures::FutureExt;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Messages taken from one shard before the core advances.
const BATCH: usize = 256;

/// The lane's ends of the mailboxes to one shard.
pub struct ShardEnd {
    /// Which shard.
    pub shard: ShardIndex,
    /// From it.
    pub from: Receiver<ToLane>,
    /// To it.
    pub to: Sender<ToShard>,
}

/// All mailboxes of a lane.
pub struct LaneEnds {
    /// The shards that it serves, by index.
    pub shards: Vec<ShardEnd>,
    /// From the control task.
    pub commands: Receiver<LaneCommand>,
    /// To the control task.
    pub reports: Sender<LaneReport>,
}

/// A lane at work on its thread.
pub struct LanePump {
    env: Env,
    stores: Stores,
    ends: LaneEnds,
    identity: LaneIdentity,
    core: LaneCore,
    operations: FuturesUnordered<LocalBoxFuture<'static, Event>>,
    outage: Outage,
    background: Rc<Background>,
    deletions: Deletions,
    cells: Arc<LaneCells>,
}

/// What ended the wait.
enum Woken {
    Event(Event),
    Deadline,
    /// The other side of a mailbox is gone: the process ends.
    Closed,
}

/// How executing effects went on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    End,
}

impl LanePump {
    /// A lane that will open a write-ahead log of its own and lead nothing yet.
    pub fn new(env: Env, identity: LaneIdentity, config: LaneConfig, stores: Stores, ends: LaneEnds) -> LanePump {
        let shards = ends.shards.iter().map(|end| end.shard).collect();
        let now = Now { mono: env.now(), wall: env.wall() };
        let core = LaneCore::new(identity.clone(), config, shards, now, env.random());
        let (operations, outage) = (FuturesUnordered::new(), Outage::default());
        let (background, cells) = (Rc::default(), Arc::default());
        let deletions = Deletions::new(Arc::clone(&cells));
        LanePump { env, stores, ends, identity, core, operations, outage, background, deletions, cells }
    }

    /// The same lane, whose totals `cells` shows.
    #[must_use]
    pub fn counted(self, cells: Arc<LaneCells>) -> LanePump {
        let background = Rc::new(Background::new(cells.segments()));
        let deletions = Deletions::new(Arc::clone(&cells));
        LanePump { cells, background, deletions, ..self }
    }

    /// Runs until a graceful stop is done or the mailboxes close.
    ///
    /// # Panics
    /// If an invariant of the protocol is broken: the process must not go on.
    pub async fn run(mut self) {
        loop {
            // Shards answer their clients while the next objects are made, which reads all of their bytes.
            self.core.commit_durable(self.now());
            if self.carry_out().await == Flow::End {
                return;
            }
            self.core.advance(self.now());
            self.cells.publish(self.core.totals());
            self.background.set_busy(self.core.is_busy() && !self.core.is_pressed());
            if self.carry_out().await == Flow::End {
                return;
            }
            match self.wait().await {
                Woken::Event(event) => self.hand_over(self.now(), event),
                Woken::Deadline => {}
                Woken::Closed => return,
            }
            self.take_what_waits();
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.env.now(), wall: self.env.wall() }
    }

    fn hand_over(&mut self, now: Now, event: Event) {
        if let Event::WalPut { result, .. } = &event {
            match (self.outage.on_put(now.mono, result.is_ok()), result) {
                (Some(News::Began), Err(error)) => {
                    tracing::error!(%error, "the write-ahead store takes nothing; producers wait until it does");
                }
                (Some(News::Over(lasted)), _) => {
                    tracing::info!(seconds = lasted.as_secs(), "the write-ahead store takes writes again");
                }
                _ => {}
            }
        }
        self.core.on_event(now, event);
    }

    /// Gives the core everything that has come, without waiting.
    fn take_what_waits(&mut self) {
        // An operation may do its work while it is looked at: its answer is of the time after that.
        while let Some(Some(event)) = self.operations.next().now_or_never() {
            self.hand_over(self.now(), event);
        }
        let now = self.now();
        while let Some(command) = self.ends.commands.try_recv() {
            self.core.on_event(now, Event::Command(command));
        }
        for end in &mut self.ends.shards {
            for _ in 0..BATCH {
                if !self.core.accepts_seals() {
                    break;
                }
                let Some(message) = end.from.try_recv() else { break };
                self.core.on_event(now, Event::FromShard(end.shard, message));
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.core.next_deadline().filter(|at| *at < Mono(u64::MAX));
        if deadline.is_some_and(|at| at <= self.env.now()) {
            return Woken::Deadline;
        }
        let mut timer = deadline.map(|at| self.env.sleep_until(at));
        let seals = self.core.accepts_seals();
        poll_fn(|cx| {
            if let Poll::Ready(woken) = self.poll_messages(cx, seals) {
                return Poll::Ready(woken);
            }
            match &mut timer {
                Some(timer) => timer.as_mut().poll(cx).map(|()| Woken::Deadline),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn poll_messages(&mut self, cx: &mut Context<'_>, seals: bool) -> Poll<Woken> {
        if let Poll::Ready(Some(event)) = self.operations.poll_next_unpin(cx) {
            return Poll::Ready(Woken::Event(event));
        }
        if let Poll::Ready(command) = pin!(self.ends.commands.recv()).poll(cx) {
            return Poll::Ready(command.map_or(Woken::Closed, |command| Woken::Event(Event::Command(command))));
        }
        if seals {
            for end in &mut self.ends.shards {
                if let Poll::Ready(message) = pin!(end.from.recv()).poll(cx) {
                    let event = message.map(|message| Woken::Event(Event::FromShard(end.shard, message)));
                    return Poll::Ready(event.unwrap_or(Woken::Closed));
                }
            }
        }
        Poll::Pending
    }

    async fn carry_out(&mut self) -> Flow {
        loop {
            let effects = self.core.take_effects();
            if effects.is_empty() {
                return Flow::On;
            }
            for effect in effects {
                match effect {
                    Effect::NewWid => {
                        let mut wid = Wid(self.env.random_u128());
                        if wrong(Wrong::WidReopened) {
                            wid = Wid(u128::from(self.identity.lane) + 1);
                        }
                        let now = self.now();
                        self.core.on_event(now, Event::NewWid(wid));
                    }
                    Effect::ToShard(shard, message) => {
                        let end = self.ends.shards.iter().find(|end| end.shard == shard);
                        let to = &end.expect("the core knows the shards of these mailboxes").to;
                        if to.send_waiting(message).await.is_err() {
                            return Flow::End;
                        }
                    }
                    Effect::Report(report) => {
                        let last = matches!(report, LaneReport::Stopped { .. });
                        if self.ends.reports.send_waiting(report).await.is_err() || last {
                            return Flow::End;
                        }
                    }
                    Effect::Abort(why) => panic!("lane {}: {why}", self.identity.lane),
                    operation => self.start(operation),
                }
            }
        }
    }

    /// Starts an operation of a store; its answer becomes an event.
    fn start(&mut self, effect: Effect) {
        let Stores { wal, objects, meta } = &self.stores;
        let operation: LocalBoxFuture<'static, Event> = match effect {
            Effect::PutWal { wid, seq, slices, hedge } => wal
                .put_if_absent(wid, seq, slices)
                .map(move |result| Event::WalPut { wid, seq, hedge, result })
                .boxed_local(),
            Effect::ReadHeader { wid, seq } => {
                wal.header(wid, seq).map(move |result| Event::Header { wid, seq, result }).boxed_local()
            }
            Effect::Txn(token, txn) => meta.txn(txn).map(move |result| Event::Txn(token, result)).boxed_local(),
            Effect::ReadMeta(token, keys) => {
                meta.get(keys).map(move |result| Event::MetaRead(token, result)).boxed_local()
            }
            Effect::PutObject { token, key, bytes } => {
                objects.put_own(&key, vec![bytes]).map(move |result| Event::Stored(token, result)).boxed_local()
            }
            Effect::SyncBelow { token, wid, below } => {
                wal.sync_below(wid, below).map(move |result| Event::Stored(token, result)).boxed_local()
            }
            Effect::LookUp { token, partitions } => {
                let stores = self.stores.clone();
                async move { Event::LookedUp(token, recovery::look_up(&stores, partitions).await) }.boxed_local()
            }
            Effect::Seal(wid) => {
                let (env, stores, boot) = (self.env.clone(), self.stores.clone(), self.identity.boot);
                async move {
                    let mut attempt = 0_u32;
                    while let Err(error) = recovery::seal(&env, &stores, boot, wid).await {
                        tracing::warn!(%wid, %error, "the lane's old log is not sealed yet");
                        attempt = attempt.saturating_add(1);
                        // Without a pause a store that refuses at once would keep the thread from anything else.
                        env.sleep(backoff(attempt, env.random())).await;
                    }
                    Event::Sealed(wid)
                }
                .boxed_local()
            }
            Effect::Roll(roll) => {
                let (env, stores, background) = (self.env.clone(), self.stores.clone(), self.background.clone());
                let (partition, name) = (roll.partition, roll.name);
                async move {
                    let result = compactor::roll::roll(&env, &stores, &background, *roll).await;
                    Event::Rolled(partition, name, result)
                }
                .boxed_local()
            }
            Effect::Merge(merge) => {
                let (env, stores, background) = (self.env.clone(), self.stores.clone(), self.background.clone());
                let (partition, name) = (merge.partition, merge.name);
                async move {
                    let result = compactor::merge::merge(&env, &stores, &background, merge).await;
                    Event::Merged(partition, name, result)
                }
                .boxed_local()
            }
            Effect::LookAtSegments(partition) => {
                let objects = objects.clone();
                async move {
                    let read = compactor::manifest::read(&*objects, partition).await;
                    Event::Looked(partition, read.map(|standing| (&standing.manifest).into()))
                }
                .boxed_local()
            }
            Effect::DeleteWalBelow { wid, below } => return self.deletions.objects(&self.env, wal, wid, below),
            Effect::DeleteObjects(keys) => return self.deletions.checkpoints(&self.env, objects, keys),
            Effect::NewWid | Effect::ToShard(..) | Effect::Report(_) | Effect::Abort(_) => {
                unreachable!("carried out by the caller")
            }
        };
        self.operations.push(operation);
    }
}
