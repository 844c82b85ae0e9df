//! A real control task of a fleet, and the time that it computes.

use super::counted::{Amount, Counted, Counts};
use futures::StreamExt as _;
use futures::executor::block_on;
use millrace_broker::control::cluster::observer::Pong;
use millrace_broker::control::core::ControlCore;
use millrace_broker::control::effects::{CallId, Effect, StoreAnswer, StoreCall};
use millrace_broker::control::{ClusterImage, FromControl, ToControl};
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::Wid;
use millrace_storage::lane::{LaneCommand, LaneReport};
use millrace_storage::meta::{MetaStore, WatchStream};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What it computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Computed {
    /// In all.
    pub busy: Duration,
    /// In its longest turn: so long it heard of nothing else.
    pub longest: Duration,
    /// What its watches told.
    pub told: Amount,
}

/// What its lane, or a fleet, is to do.
pub(super) enum Wanted {
    Lane(LaneCommand),
    Seal(Wid),
}

/// See the module.
pub(super) struct Seen {
    core: ControlCore,
    store: Counted,
    counts: Counts,
    watches: Vec<(&'static str, WatchStream)>,
    computed: Computed,
    turn: Duration,
    pub(super) image: Option<Arc<ClusterImage>>,
}

/// Time that this thread has computed.
pub(super) fn thread_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).expect("since the thread began");
    Duration::new(seconds, u32::try_from(now.tv_nsec).expect("less than a second"))
}

impl Seen {
    pub(super) fn new(core: ControlCore, store: Rc<dyn MetaStore>) -> Seen {
        let counts = Counts::default();
        let (computed, turn) = Default::default();
        Seen { core, store: Counted::new(store, &counts), counts, watches: Vec::new(), computed, turn, image: None }
    }

    /// What it computed since this was last asked.
    pub(super) fn take_computed(&mut self) -> Computed {
        let told = self.counts.take().told();
        Computed { told, ..std::mem::take(&mut self.computed) }
    }

    fn timed<T>(&mut self, work: impl FnOnce(&mut ControlCore) -> T) -> T {
        let before = thread_time();
        let done = work(&mut self.core);
        self.turn += thread_time().saturating_sub(before);
        done
    }

    fn end_turn(&mut self) {
        let turn = std::mem::take(&mut self.turn);
        self.computed.busy += turn;
        self.computed.longest = self.computed.longest.max(turn);
    }

    pub(super) fn on_lane(&mut self, now: Mono, report: LaneReport) {
        self.timed(|core| core.on_lane(now, 0, report));
    }

    pub(super) fn on_sealed(&mut self, now: Mono, wid: Wid) {
        self.timed(|core| core.on_sealed(now, wid, true));
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.core.next_deadline()
    }

    pub(super) fn on_time(&mut self, now: Mono) {
        self.timed(|core| core.on_time(now));
    }

    /// One turn: what has come goes in, what is asked for is carried out as far as it is the store's; whether anything was.
    /// The rest comes out.
    pub(super) fn turn(&mut self, now: Mono, answers: impl Fn(&str) -> bool) -> (bool, Vec<Wanted>) {
        let wall = WallMs(i64::try_from(now.0 / 1_000_000).expect("a short time"));
        self.core.set_wall(wall);
        let mut progress = self.hear(now);
        let effects = self.timed(ControlCore::take_effects);
        self.end_turn();
        progress |= !effects.is_empty();
        let mut wanted = Vec::new();
        for effect in effects {
            match effect {
                Effect::Call(id, call) => self.call(now, id, call),
                Effect::Lane(_, command) => wanted.push(Wanted::Lane(command)),
                Effect::Seal(wid) => wanted.push(Wanted::Seal(wid)),
                Effect::Watch(prefix, after) => {
                    self.watches.retain(|(watched, _)| *watched != prefix);
                    self.watches.push((prefix, self.store.watch(prefix, after)));
                }
                Effect::Ping(ping) => {
                    let pong = if answers(&ping.broker) { Pong::Answered } else { Pong::Refused };
                    self.timed(|core| core.on_pong(now, &ping, pong));
                }
                Effect::Shard(_, FromControl::Image(image)) => self.image = Some(image),
                Effect::Shard(shard, FromControl::SlotRevoked { slot }) => {
                    self.timed(|core| core.on_shard(now, shard, ToControl::SlotLeft { slot }));
                }
                Effect::Shard(..) => {}
                Effect::Replaced | Effect::Stopped { .. } => panic!("nobody has stopped or replaced it"),
            }
        }
        (progress, wanted)
    }

    /// As many changes of each watch as a pump takes in one turn.
    fn hear(&mut self, now: Mono) -> bool {
        const TAKEN_PER_TURN: usize = 256;
        let mut cx = Context::from_waker(Waker::noop());
        let mut heard = Vec::new();
        for (prefix, watch) in &mut self.watches {
            for _ in 0..TAKEN_PER_TURN {
                let Poll::Ready(Some(changes)) = watch.poll_next_unpin(&mut cx) else { break };
                heard.push((*prefix, changes));
            }
        }
        let progress = !heard.is_empty();
        for (prefix, changes) in heard {
            if changes.is_err() {
                self.watches.retain(|(watched, _)| *watched != prefix);
            }
            self.timed(|core| core.on_watch(now, prefix, changes));
        }
        progress
    }

    fn call(&mut self, now: Mono, id: CallId, call: StoreCall) {
        let store = &self.store;
        let answer = match call {
            StoreCall::Txn(txn) => StoreAnswer::Txn(block_on(store.txn(txn))),
            StoreCall::Get(keys) => StoreAnswer::Get(block_on(store.get(keys))),
            StoreCall::List { prefix, after, limit } => StoreAnswer::List(block_on(store.list(&prefix, after, limit))),
            StoreCall::Grant(ttl) => StoreAnswer::Grant(block_on(store.grant(ttl))),
            StoreCall::KeepAlive(lease) => StoreAnswer::KeepAlive(block_on(store.keep_alive(lease))),
            StoreCall::Revoke(lease) => StoreAnswer::Revoke(block_on(store.revoke(lease))),
            StoreCall::PutObject { .. } | StoreCall::GetObject { .. } | StoreCall::ReplaceObject { .. } => {
                unreachable!("no topic is made or changed through it")
            }
        };
        self.timed(|core| core.on_store(now, id, answer));
    }
}
