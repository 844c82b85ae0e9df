//! A whole broker on one thread in virtual time, each of its threads a metered account.

use crate::meter::{self, Account, Used, enter};
use crate::store::{CountedWal, Puts};
use crate::wire::Port;
use futures::future::LocalBoxFuture;
use millrace_broker::control::core::ControlConfig;
use millrace_broker::control::start::Process;
use millrace_broker::net::budget::Pools;
use millrace_broker::process::assembly::{self, Wiring};
use millrace_broker::process::housekeeping::Housekeeping;
use millrace_broker::pump::ShardPump;
use millrace_storage::env::{Env, Mono, Runtime, WallMs};
use millrace_storage::ids::{BootId, ShardIndex};
use millrace_storage::lane::{LaneConfig, LaneIdentity, LanePump, ToShard};
use millrace_storage::mailbox::{Receiver, Sender, mailbox};
use millrace_storage::meta::memory::MemoryMeta;
use millrace_storage::object::memory::MemoryStore;
use millrace_storage::recovery::Stores;
use millrace_storage::sim::Sim;
use millrace_storage::wal::memory::MemoryWal;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use uuid::Uuid;

/// Memory of the shard.
const SHARD_BYTES: usize = 256 << 20;
/// Room of the memory store.
const STORE_BYTES: u64 = 2 << 30;
/// Messages between lane and shard, as in the process.
const TO_SHARD: usize = 1_024;

/// How the store and the flush governor are set.
#[derive(Clone, Copy)]
pub(crate) struct Store {
    /// How long a put takes.
    pub put_takes: Duration,
    /// `--linger-ms`.
    pub linger: Duration,
    /// `--max-puts-per-second`.
    pub puts_per_second: Option<u32>,
}

/// Charges an account while the inner future is polled.
struct Metered {
    account: Account,
    future: LocalBoxFuture<'static, ()>,
}

impl Future for Metered {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _account = enter(self.account);
        self.future.as_mut().poll(cx)
    }
}

/// One of the process's threads.
struct Thread {
    inner: Env,
    account: Account,
}

impl Thread {
    fn env(sim: &Sim, account: Account) -> Env {
        let (_, inner) = sim.start_process();
        Env::new(Rc::new(Thread { inner, account }))
    }
}

impl Runtime for Thread {
    fn now(&self) -> Mono {
        self.inner.now()
    }

    fn wall(&self) -> WallMs {
        self.inner.wall()
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn spawn(&self, name: &'static str, task: LocalBoxFuture<'static, ()>) {
        let _unmetered = enter(Account::Nobody);
        self.inner.spawn(name, Metered { account: self.account, future: task });
    }

    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        // The box is the caller's; the executor's books are not.
        let mut sleep = {
            let _unmetered = enter(Account::Nobody);
            self.inner.sleep_until(at)
        };
        Box::pin(std::future::poll_fn(move |cx| {
            let _unmetered = enter(Account::Nobody);
            sleep.as_mut().poll(cx)
        }))
    }
}

/// What was counted up to now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Of the shard's thread.
    pub shard: Used,
    /// Of the lane's thread.
    pub lane: Used,
    /// Reads of sockets, those in vain included.
    pub reads: u64,
    /// Waits for bytes, each ended by a wake.
    pub waits: u64,
    /// Writes to sockets.
    pub writes: u64,
    /// Messages of the shard to the lane.
    pub to_lane: u64,
    /// Messages of the lane to the shard.
    pub to_shard: u64,
    /// Uploads.
    pub puts: u64,
    /// Their bytes.
    pub put_bytes: u64,
}

/// A broker at work.
pub(crate) struct Broker {
    /// Where clients connect.
    pub port: Port,
    pump: ShardPump,
    puts: Rc<Puts>,
    to_shard: Rc<Cell<u64>>,
}

impl Broker {
    /// Starts one with one shard and one lane. To be awaited on `sim`.
    pub(crate) async fn start(sim: &Sim, store: Store) -> Broker {
        let [shard_env, lane_env, control_env] =
            [Account::Shard, Account::Lane, Account::Control].map(|account| Thread::env(sim, account));
        let puts = Rc::new(Puts::default());
        let (wal, objects) = (MemoryWal::new(STORE_BYTES), MemoryStore::new());
        let meta = MemoryMeta::new(Uuid::from_u128(7));
        let stores = |env: &Env| Stores {
            wal: Rc::new(CountedWal {
                inner: wal.clone(),
                env: env.clone(),
                put_takes: store.put_takes,
                puts: puts.clone(),
            }),
            objects: Rc::new(objects.handle(env.clone())),
            meta: Rc::new(meta.clone()),
        };
        let process = Process { name: "a".to_owned(), addresses: vec![("127.0.0.1".to_owned(), 9092)], zone: None };
        let boot = BootId(1);
        let control_stores = stores(&control_env);
        let identity =
            assembly::prepare(&control_env, &control_stores, boot, &process, true).await.expect("empty stores");
        let Wiring { mut shards, mut lanes, control, stop, .. } = assembly::wire(1, 1, None);
        let mut lane_ends = lanes.remove(0);
        let (to_shard, relayed) = mailbox(TO_SHARD);
        let counted = Rc::new(Cell::new(0));
        let real = std::mem::replace(&mut lane_ends.shards[0].to, to_shard);
        sim.spawn(millrace_storage::sim::ProcessId::WORLD, "relay", relay(relayed, real, counted.clone()));
        let config =
            LaneConfig { linger: store.linger, puts_per_second: store.puts_per_second, ..LaneConfig::default() };
        let lane = LaneIdentity { broker: process.name.clone(), boot, lane: 0 };
        lane_env.spawn("lane", LanePump::new(lane_env.clone(), lane, config, stores(&lane_env), lane_ends).run());
        let control_config = ControlConfig {
            broker: process.name,
            boot,
            cluster_id: identity.cluster_id,
            nodes: identity.nodes.clone(),
            shared_port: false,
            lanes: 1,
            default_partitions: 1,
            max_partitions: 1000,
            cluster: None,
        };
        let (env, generation) = (control_env.clone(), identity.generation);
        control_env.spawn("control", async move {
            let _never_stopped = stop;
            // No pass within a test.
            let hour = Duration::from_secs(3_600);
            let housekeeping =
                Housekeeping { segments_every: hour, segments_grace: hour, journal_every: None, jobs: Arc::default() };
            let ended =
                assembly::run_control(env, control_config, generation, control_stores, control, housekeeping, None)
                    .await;
            panic!("the control task ended: {ended:?}");
        });
        let pump = assembly::start_shard(
            shard_env.clone(),
            (ShardIndex(0), identity.nodes[0].id),
            None,
            &stores(&shard_env),
            Pools::split(SHARD_BYTES),
            None,
            shards.remove(0),
        );
        let port = Port::default();
        let (running, listener) = (pump.clone(), port.clone());
        shard_env.spawn("listener", async move { running.run(Box::new(listener)).await });
        Broker { port, pump, puts, to_shard: counted }
    }

    /// Everything counted so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            shard: meter::used(Account::Shard),
            lane: meter::used(Account::Lane),
            reads: self.port.calls.reads.get(),
            waits: self.port.calls.waits.get(),
            writes: self.port.calls.writes.get(),
            to_lane: self.pump.core().borrow().counters().seals,
            to_shard: self.to_shard.get(),
            puts: self.puts.count.get(),
            put_bytes: self.puts.bytes.get(),
        }
    }
}

/// Passes messages on and counts them.
async fn relay(mut from: Receiver<ToShard>, to: Sender<ToShard>, counted: Rc<Cell<u64>>) {
    while let Some(message) = from.recv().await {
        counted.set(counted.get() + 1);
        if to.send_waiting(message).await.is_err() {
            return;
        }
    }
}
