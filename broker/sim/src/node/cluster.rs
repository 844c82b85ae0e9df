//! The cluster scenario: several processes as they are, on one object store and one metadata store, with clients that speak
//! real frames. Processes are killed at any await and come back or do not, are suspended for longer than their leases and
//! live on, are stopped, drained and added, while the stores misbehave. At the end everything is healed: what was
//! acknowledged must be there, once, in order, and everything must be taken and served again.

use super::client::{Consumer, Producer, World};
use super::committer::Committer;
use super::limiter::Limiter;
use super::network::Network;
use super::shortener::Shortener;
use super::{
    Life, MAX_INDEX, Plan, Starting, Weather, address_of, batch, for_real_batches, housekeeping, topic_of_meta,
};
use crate::ledger::{Ledger, PLAIN_PRODUCERS};
use crate::truth::Truth;
use crate::{audit, journal, rebuild};
use bytes::Bytes;
use millrace_broker::control::cluster::ClusterConfig;
use millrace_broker::process::housekeeping::Housekeeping;
use millrace_storage::audit::Bodies;
use millrace_storage::lane::LaneConfig;
use millrace_storage::meta::{MetaStore, Op, Txn, keys};
use millrace_storage::recovery::Stores;
use millrace_storage::sim::{Dice, ProcessId, Sim, SimBucket, SimMeta};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// Polls of one run at most.
pub const MAX_STEPS: u64 = 20_000_000;
/// Virtual time within which a healed cluster must have taken every record and served it.
const LIVENESS: Duration = Duration::from_secs(300);
/// Polls after which a process is killed at the latest, if it is killed by count.
const MAX_POLLS: u64 = 20_000;
/// How long a graceful stop waits for others: longer than its patience, often.
const DRAIN: Duration = Duration::from_secs(8);
/// Hosts at most, those that are added included.
const MOST_HOSTS: u8 = 5;

/// What one seed does besides a node's [`Plan`].
#[derive(Clone)]
struct ClusterPlan {
    hosts: u8,
    accidents: u64,
    lease: Duration,
    /// Whether processes are suspended. Who wakes up may serve for a moment what it knew, log starts too, so that nobody
    /// raises them then.
    pauses: bool,
}

impl ClusterPlan {
    fn drawn(dice: &mut Dice) -> ClusterPlan {
        ClusterPlan {
            hosts: dice.below(2..4) as u8,
            accidents: dice.below(1..6),
            lease: Duration::from_millis(dice.below(1_000..6_000)),
            pauses: dice.index(4) > 0,
        }
    }
}

/// A host: the process that runs on it, if any.
struct Host {
    number: u8,
    life: RefCell<Option<Rc<Life>>>,
    /// Whether a process that died is started again.
    is_kept: Cell<bool>,
    /// Virtual time until which its process is suspended.
    paused_until: Cell<u64>,
}

impl Host {
    fn name(&self) -> String {
        format!("node-{}", self.number)
    }
}

struct Cluster {
    sim: Sim,
    bucket: SimBucket,
    meta: SimMeta,
    network: Network,
    world: World,
    node: Plan,
    plan: ClusterPlan,
    lane_config: LaneConfig,
    housekeeping: Housekeeping,
    hosts: RefCell<Vec<Rc<Host>>>,
}

impl Cluster {
    fn new(sim: &Sim) -> Cluster {
        let Weather { bucket_faults, meta_faults, breaks } = Weather::drawn(sim);
        let network = Network::new(sim, breaks);
        let (node, plan) = sim.dice(|d| (Plan::drawn(d, false), ClusterPlan::drawn(d)));
        let lane_config = sim.dice(crate::lane::lane_config);
        let lane_config = for_real_batches(sim, lane_config);
        let housekeeping = sim.dice(housekeeping);
        let ledger = Ledger::default();
        let (bucket, meta) = (SimBucket::new(sim, bucket_faults), SimMeta::new(sim, meta_faults));
        Truth::watching(&bucket, &meta, &ledger, batch::ids);
        let addresses = (1..=MOST_HOSTS).flat_map(|host| (0..node.shards).map(move |shard| address_of(host, shard)));
        let world = World {
            sim: sim.clone(),
            bucket: bucket.clone(),
            env: sim.env(ProcessId::WORLD),
            network: network.clone(),
            ledger,
            bootstrap: Rc::new(addresses.collect()),
            shared_port: false,
            done: Rc::default(),
            healed: Rc::default(),
            finishing: Rc::default(),
        };
        let hosts = RefCell::default();
        Cluster { sim: sim.clone(), bucket, meta, network, world, node, plan, lane_config, housekeeping, hosts }
    }

    fn add_host(self: &Rc<Self>) {
        let number = u8::try_from(self.hosts.borrow().len() + 1).expect("a handful");
        let (is_kept, paused_until) = (Cell::new(true), Cell::new(0));
        let host = Rc::new(Host { number, life: RefCell::default(), is_kept, paused_until });
        self.hosts.borrow_mut().push(host.clone());
        self.sim.spawn(ProcessId::WORLD, "supervisor", self.clone().supervise(host));
    }

    /// Starts processes of a host, one after the other whenever one has died.
    async fn supervise(self: Rc<Self>, host: Rc<Host>) {
        loop {
            if !host.is_kept.get() {
                self.sim.sleep(Duration::from_millis(100)).await;
                continue;
            }
            let life = self.start(&host);
            host.life.replace(Some(life.clone()));
            self.sim.died(life.process).await;
            host.life.replace(None);
            let pause = self.sim.dice(|d| [d.below(0..500), d.below(0..15_000)][d.index(2)]);
            self.sim.sleep(Duration::from_millis(pause)).await;
        }
    }

    fn start(&self, host: &Host) -> Rc<Life> {
        let (process, env) = self.sim.start_process();
        let life = Rc::new(Life { process, stop: RefCell::default() });
        let starting = Starting {
            name: host.name(),
            host: host.number,
            cluster: Some(ClusterConfig { zone: None, lease: self.plan.lease, drain: DRAIN, admin: None }),
            env: env.clone(),
            sim: self.sim.clone(),
            process,
            network: self.network.clone(),
            stores: Stores {
                wal: Rc::new(self.bucket.clone()),
                objects: Rc::new(self.bucket.clone()),
                meta: Rc::new(self.meta.clone()),
            },
            lane_config: self.lane_config.clone(),
            housekeeping: self.housekeeping.clone(),
            expire_every: self.node.expire_every,
            shards: self.node.shards,
            to_peer: None,
            lanes: self.node.lanes,
        };
        env.spawn("start", starting.run(life.clone()));
        life
    }

    fn any_host(&self) -> Rc<Host> {
        let hosts = self.hosts.borrow();
        hosts[self.sim.dice(|d| d.index(hosts.len()))].clone()
    }

    async fn accident(self: &Rc<Self>) {
        let sim = &self.sim;
        let ms = |range| Duration::from_millis(sim.dice(|d| d.below(range)));
        let host = self.any_host();
        let life = host.life.borrow().clone();
        sim.note(format_args!("an accident of {}", host.name()));
        match (sim.dice(|d| d.index(8)), life) {
            (0..=1, Some(life)) => {
                sim.kill_after(life.process, sim.dice(|d| d.below(1..MAX_POLLS)));
                sim.within(Duration::from_secs(20), || !sim.is_alive(life.process)).await;
                sim.kill(life.process);
            }
            // Longer than its lease, mostly: it wakes up beside its successors.
            (2..=3, Some(life)) if self.plan.pauses => {
                let length = ms(0..20_000);
                host.paused_until.set(sim.now() + length.as_nanos() as u64);
                sim.pause(life.process, length);
            }
            (4, Some(life)) => {
                if let Some(stop) = life.stop.borrow().as_ref() {
                    drop(stop.send(()));
                }
                let patience = ms(0..15_000);
                sim.within(patience, || !sim.is_alive(life.process)).await;
                sim.kill(life.process);
            }
            (5, _) => {
                let outage = ms(0..20_000);
                match sim.dice(|d| d.index(2)) {
                    0 => self.bucket.outage(outage),
                    _ => self.meta.outage(outage),
                }
                sim.sleep(outage).await;
            }
            (6, _) if self.hosts.borrow().len() < usize::from(MOST_HOSTS) => self.add_host(),
            (6, Some(life)) => {
                host.is_kept.set(false);
                sim.kill(life.process);
                sim.sleep(ms(0..20_000)).await;
                host.is_kept.set(true);
            }
            (7, _) => self.drain(&host).await,
            _ => {}
        }
        sim.sleep(ms(0..10_000)).await;
    }

    /// An operator has a broker left, for a while.
    async fn drain(&self, host: &Host) {
        let key = keys::drain(&host.name());
        let txn = |op| Txn { compares: Vec::new(), ops: vec![op] };
        drop(self.meta.txn(txn(Op::Put(key.clone(), Bytes::new()))).await);
        self.sim.sleep(Duration::from_millis(self.sim.dice(|d| d.below(0..20_000)))).await;
        drop(self.meta.txn(txn(Op::Delete(key))).await);
    }

    /// Nothing fails any more, every host has a process, none is suspended.
    async fn heal(&self) {
        self.bucket.heal();
        self.meta.heal();
        self.network.heal();
        for host in self.hosts.borrow().iter() {
            host.is_kept.set(true);
        }
        let paused = || self.hosts.borrow().iter().map(|host| host.paused_until.get()).max().unwrap_or(0);
        self.sim.sleep_until(paused()).await;
        let runs = || self.hosts.borrow().iter().all(|host| host.life.borrow().is_some());
        assert!(self.sim.within(LIVENESS, runs).await, "FINDING liveness: a process is not started");
        // Whoever was suspended learns that it was replaced.
        self.sim.sleep(2 * self.plan.lease + Duration::from_secs(10)).await;
        self.world.healed.set(true);
    }

    fn check(&self) {
        rebuild::check_nothing_lost(&self.bucket, &self.world.ledger);
        audit::check(&self.bucket, &self.meta, Bodies::Batches);
        journal::check(&self.bucket, &self.meta);
    }
}

/// Runs the scenario as the main task of `sim`.
pub async fn run(sim: Sim) {
    let cluster = Rc::new(Cluster::new(&sim));
    let world = &cluster.world;
    (0..cluster.plan.hosts).for_each(|_| cluster.add_host());
    let (mut clients, mut committers) = (0, 0);
    for topic in 0..cluster.node.topics {
        let name = format!("topic-{topic}");
        for group in 0..sim.dice(|d| d.below(0..3)) {
            committers += 1;
            let committer = Committer::new(world, &format!("group-{topic}-{group}"), &name);
            sim.spawn(ProcessId::WORLD, "committer", committer.run());
        }
        if !cluster.plan.pauses && sim.dice(|d| d.index(4)) == 0 {
            sim.spawn(ProcessId::WORLD, "limiter", Limiter::new(world, &name).run());
        }
        for index in 0..sim.dice(|d| d.below(1..MAX_INDEX + 1)) {
            clients += 2;
            let id = topic * MAX_INDEX + index;
            let id = if sim.dice(|d| d.index(4)) == 0 { id + PLAIN_PRODUCERS } else { id };
            let index = u32::try_from(index).expect("small");
            let producer = Producer::new(world, &name, index, id);
            sim.spawn(ProcessId::WORLD, "producer", producer.run(cluster.node.batches));
            sim.spawn(ProcessId::WORLD, "consumer", Consumer::new(world, &name, index).run());
            if !cluster.plan.pauses && sim.dice(|d| d.index(3)) == 0 {
                sim.spawn(ProcessId::WORLD, "shortener", Shortener::new(world, &name, index).run());
            }
        }
    }
    let mut backups = Vec::new();
    for _ in 0..cluster.plan.accidents {
        backups.push(journal::backup(&cluster.meta));
        cluster.accident().await;
        cluster.check();
    }
    cluster.heal().await;
    let done: &Cell<u64> = &world.done;
    let produced = sim.within(LIVENESS, || done.get() >= clients / 2).await;
    assert!(
        produced,
        "FINDING liveness: {} of {} producers are done {LIVENESS:?} after all was healed",
        done.get(),
        clients / 2
    );
    world.finishing.set(true);
    let all = clients + committers;
    let read = sim.within(LIVENESS, || done.get() == all).await;
    assert!(read, "FINDING liveness: {} of {all} clients are done {LIVENESS:?} after all was healed", done.get());
    journal::check_backups(&sim, &cluster.bucket, &cluster.meta, backups).await;
    cluster.check();
    cold_start(&cluster).await;
}

/// Every process dies at once; those that come after serve the same logs from their beginning.
async fn cold_start(cluster: &Cluster) {
    let (sim, world) = (&cluster.sim, &cluster.world);
    for host in cluster.hosts.borrow().iter() {
        if let Some(life) = host.life.borrow().as_ref() {
            sim.kill(life.process);
        }
    }
    let partitions = world.ledger.partitions();
    world.done.set(0);
    let topics: BTreeSet<String> = partitions.iter().map(|p| topic_of_meta(&cluster.meta, *p)).collect();
    assert!(topics.len() as u64 <= cluster.node.topics, "FINDING more topics than were asked for: {topics:?}");
    for p in &partitions {
        let again = topic_of_meta(&cluster.meta, *p);
        sim.spawn(ProcessId::WORLD, "reader", Consumer::new(world, &again, p.index).run());
    }
    let done: &Cell<u64> = &world.done;
    let read = sim.within(LIVENESS, || done.get() == partitions.len() as u64).await;
    assert!(read, "FINDING liveness: {} of {} logs can be read after a cold start", done.get(), partitions.len());
    cluster.check();
}
