//! The node scenario: the real process assembly (control task, lanes, shards, connections) on the simulated stores and
//! network, with clients that speak real frames; one process at a time, killed at any await and started again.

pub mod batch;
mod client;
pub mod cluster;
mod committer;
mod connection;
mod deleter;
mod limiter;
pub mod many;
mod network;
mod shortener;

use crate::ledger::{Ledger, PLAIN_PRODUCERS};
use crate::truth::Truth;
use crate::{audit, journal, litter, rebuild, segments};
use client::{Consumer, Producer, World};
use connection::Connection;
use deleter::Deleter;
use futures::future::LocalBoxFuture;
use limiter::Limiter;
use millrace_broker::control::cluster::observer::Pong;
use millrace_broker::control::cluster::{self as joining, ClusterConfig};
use millrace_broker::control::core::ControlConfig;
use millrace_broker::control::pump::Pinger;
use millrace_broker::control::start::{Process, StartError};
use millrace_broker::control::ticks::Thread;
use millrace_broker::net::budget::Pools;
use millrace_broker::process::assembly::{self, Wiring};
use millrace_broker::process::housekeeping::Housekeeping;
use millrace_protocol::messages::ApiVersionsRequest;
use millrace_storage::audit::Bodies;
use millrace_storage::env::Env;
use millrace_storage::ids::{BootId, TopicPartition};
use millrace_storage::lane::{LaneConfig, LaneIdentity, LanePump};
use millrace_storage::mailbox::Sender;
use millrace_storage::meta::MetaStore;
use millrace_storage::recovery::Stores;
use millrace_storage::sim::{Chance, Dice, Faults, ProcessId, Sim, SimBucket, SimMeta, Temper, ThreadId};
use network::Network;
use shortener::Shortener;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Polls of one run at most.
pub const MAX_STEPS: u64 = 5_000_000;
/// Virtual time within which a healed node must have taken every record and served it.
const LIVENESS: Duration = Duration::from_secs(240);
/// Polls after which a process is killed at the latest, if it is killed by count.
const MAX_POLLS: u64 = 10_000;
/// Partitions of an auto-created topic at most that clients use.
const MAX_INDEX: u64 = 4;
/// Memory of one shard: small, so that reads leave the tail.
const SHARD_BYTES: usize = 16 << 20;
/// Longer than whoever asks another process waits.
const PING: Duration = Duration::from_secs(60);
/// Partitions of all topics: more than any seed makes.
const MAX_PARTITIONS: u32 = 10_000;

struct Plan {
    shards: u16,
    /// Whether they are one node, behind one address: places of their mailboxes for each other.
    to_peer: Option<usize>,
    lanes: u16,
    topics: u64,
    lives: u64,
    batches: u64,
    expire_every: Duration,
}

impl Plan {
    fn drawn(dice: &mut Dice, shared_port: bool) -> Plan {
        let shards = if shared_port { dice.below(2..4) } else { dice.below(1..3) } as u16;
        let lanes = dice.below(1..u64::from(shards) + 1) as u16;
        let (topics, lives, batches) = (dice.below(1..3), dice.below(1..4), dice.below(3..20));
        let expire_every = Duration::from_millis(dice.below(50..3_000));
        let to_peer = shared_port.then(|| [1, 2, assembly::TO_PEER][dice.index(3)]);
        Plan { shards, to_peer, lanes, topics, lives, batches, expire_every }
    }
}

/// Collects often, and gives readers little time.
fn housekeeping(dice: &mut Dice) -> Housekeeping {
    let ms = Duration::from_millis;
    Housekeeping {
        segments_every: ms(dice.below(100..5_000)),
        segments_grace: ms(dice.below(0..2_000)),
        journal_every: Some(ms(dice.below(1_000..20_000))),
        jobs: Arc::default(),
    }
}

/// Another partition than this one of a topic that was created on first use.
fn neighbour(index: u32) -> u32 {
    (index + 1) % u32::try_from(MAX_INDEX).expect("small")
}

/// The threads of a process by number: the control task's, then those of its lanes and of its shards.
fn number_of(thread: Thread, lanes: u16) -> ThreadId {
    ThreadId(match thread {
        Thread::Lane(lane) => 1 + u32::from(lane),
        Thread::Shard(shard) => 1 + u32::from(lanes) + u32::from(shard.0),
    })
}

/// The stores of a process whose whole log is in a bucket.
pub(crate) fn stores(bucket: &SimBucket, meta: impl MetaStore + 'static) -> Stores {
    Stores { wal: Rc::new(bucket.clone()), objects: Rc::new(bucket.clone()), meta: Rc::new(meta) }
}

/// A running process.
struct Life {
    process: ProcessId,
    stop: RefCell<Option<Sender<()>>>,
}

struct Node {
    sim: Sim,
    bucket: SimBucket,
    meta: SimMeta,
    network: Network,
    world: World,
    plan: Plan,
    lane_config: LaneConfig,
    housekeeping: Housekeeping,
}

fn address(shard: u16) -> SocketAddr {
    address_of(1, shard)
}

/// Where a shard of the process on this host listens.
fn address_of(host: u16, shard: u16) -> SocketAddr {
    let [high, low] = host.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 9_092 + shard))
}

/// How bad a history is: the faults of its stores, and how often a connection breaks.
struct Weather {
    bucket_faults: Faults,
    meta_faults: Faults,
    breaks: Chance,
}

impl Weather {
    fn drawn(sim: &Sim) -> Weather {
        Weather::of([Temper::Calm, Temper::Fair, Temper::Fair, Temper::Rough][sim.dice(|d| d.index(4))], sim)
    }

    fn of(temper: Temper, sim: &Sim) -> Weather {
        let (bucket_faults, meta_faults) = sim.dice(|d| (Faults::drawn(temper, d), Faults::drawn(temper, d)));
        let breaks = if temper == Temper::Calm { Chance::NEVER } else { Chance(1_500) };
        Weather { bucket_faults, meta_faults, breaks }
    }
}

/// Of settings drawn for the scripted scenario, those for real batches, which are larger: objects hold at least one.
fn for_real_batches(sim: &Sim, lane_config: LaneConfig) -> LaneConfig {
    let compaction = sim.dice(|d| (d.index(4) > 0).then(|| super::lane::compaction(d)));
    let roll_memory = sim.dice(super::lane::roll_memory);
    LaneConfig { object_limit_bytes: 1 << 20, in_flight_bytes: 1 << 20, compaction, roll_memory, ..lane_config }
}

impl Node {
    fn new(sim: &Sim, shared_port: bool) -> Node {
        let Weather { bucket_faults, meta_faults, breaks } = Weather::drawn(sim);
        let mut network = Network::new(sim, breaks);
        let (plan, lane_config) = sim.dice(|d| (Plan::drawn(d, shared_port), super::lane::lane_config(d)));
        if shared_port {
            network = network.dealing(address(0), (0..plan.shards).map(address).collect());
        }
        let lane_config = for_real_batches(sim, lane_config);
        let housekeeping = sim.dice(housekeeping);
        let ledger = Ledger::default();
        let (bucket, meta) = (SimBucket::new(sim, bucket_faults), SimMeta::new(sim, meta_faults));
        Truth::watching(&bucket, &meta, &ledger, batch::ids);
        let world = World {
            sim: sim.clone(),
            bucket: bucket.clone(),
            env: sim.env(ProcessId::WORLD),
            network: network.clone(),
            ledger: ledger.clone(),
            bootstrap: Rc::new((0..if shared_port { 1 } else { plan.shards }).map(address).collect()),
            pace: Duration::from_millis(200),
            is_cluster: false,
            patience: None,
            shared_port,
            done: Rc::default(),
            healed: Rc::default(),
            finishing: Rc::default(),
        };
        Node { sim: sim.clone(), bucket, meta, network, world, plan, lane_config, housekeeping }
    }

    fn start(&self) -> Rc<Life> {
        let (process, env) = self.sim.start_process();
        let life = Rc::new(Life { process, stop: RefCell::default() });
        let stores = stores(&self.bucket, self.meta.clone());
        let starting = Starting {
            name: "node".to_owned(),
            host: 1,
            cluster: None,
            env: env.clone(),
            sim: self.sim.clone(),
            process,
            network: self.network.clone(),
            stores,
            lane_config: self.lane_config.clone(),
            housekeeping: self.housekeeping.clone(),
            expire_every: self.plan.expire_every,
            shards: self.plan.shards,
            to_peer: self.plan.to_peer,
            lanes: self.plan.lanes,
            max_partitions: MAX_PARTITIONS,
        };
        env.spawn("start", starting.run(life.clone()));
        life
    }

    /// Starts processes, one after the other whenever one has died, until `stop` is set.
    async fn supervise(self: Rc<Self>, current: Rc<RefCell<Rc<Life>>>) {
        loop {
            let life = current.borrow().clone();
            self.sim.died(life.process).await;
            let pause = Duration::from_millis(self.sim.dice(|d| d.below(0..500)));
            self.sim.sleep(pause).await;
            current.replace(self.start());
        }
    }

    async fn accident(&self, life: &Life) {
        let sim = &self.sim;
        let ms = |range| Duration::from_millis(sim.dice(|d| d.below(range)));
        match sim.dice(|d| d.index(5)) {
            0..=1 => {
                sim.kill_after(life.process, sim.dice(|d| d.below(1..MAX_POLLS)));
                self.sim.within(Duration::from_secs(20), || !sim.is_alive(life.process)).await;
            }
            2 => sim.sleep(ms(0..5_000)).await,
            3 => {
                sim.sleep(ms(0..3_000)).await;
                let outage = ms(0..20_000);
                match sim.dice(|d| d.index(3)) {
                    0 => self.bucket.outage(outage),
                    1 => self.bucket.fill(outage),
                    _ => self.meta.outage(outage),
                }
                sim.sleep(outage + ms(0..3_000)).await;
            }
            _ => {
                sim.sleep(ms(0..4_000)).await;
                if let Some(stop) = life.stop.borrow().as_ref() {
                    drop(stop.send(()));
                }
                let patience = ms(0..15_000);
                self.sim.within(patience, || !sim.is_alive(life.process)).await;
            }
        }
        sim.kill(life.process);
    }
}

/// What a process is made from.
struct Starting {
    name: String,
    host: u16,
    cluster: Option<ClusterConfig>,
    env: Env,
    sim: Sim,
    process: ProcessId,
    network: Network,
    stores: Stores,
    lane_config: LaneConfig,
    housekeeping: Housekeeping,
    expire_every: Duration,
    shards: u16,
    to_peer: Option<usize>,
    lanes: u16,
    /// Partitions of all topics at most.
    max_partitions: u32,
}

impl Starting {
    async fn run(self, life: Rc<Life>) {
        let boot = BootId(self.env.random());
        let shared_port = self.to_peer.is_some();
        let told = |shard| address_of(self.host, if shared_port { 0 } else { shard });
        let addresses = (0..self.shards).map(|shard| (told(shard).ip().to_string(), told(shard).port()));
        let process = Process { name: self.name.clone(), addresses: addresses.collect(), zone: None };
        let alone = self.cluster.is_none();
        let identity = match assembly::prepare(&self.env, &self.stores, boot, &process, alone).await {
            Ok(identity) => identity,
            Err(error @ StartError::OlderMetadata(_)) => panic!("FINDING journal: {error}"),
            Err(_) => return self.sim.kill(self.process),
        };
        let registered = self.cluster.as_ref().map(|cluster| {
            let record = joining::broker_record(cluster, boot, &identity.nodes, shared_port);
            joining::registration(&self.name, &record)
        });
        let lane_config = LaneConfig { registered, ..self.lane_config };
        let Wiring { shards, lanes, control, stop, ticks } = assembly::wire(self.shards, self.lanes, self.to_peer);
        life.stop.replace(Some(stop));
        // One that is alone has no lease, and nothing rests on its threads' ticks.
        let env_of = |thread: Thread| {
            let env = self.sim.thread(self.process, number_of(thread, self.lanes));
            if self.cluster.is_some() {
                env.spawn("tick", ticks.clone().keep(thread, env.clone()));
            }
            env
        };
        for (ends, lane) in lanes.into_iter().zip(0..) {
            let identity = LaneIdentity { broker: process.name.clone(), boot, lane };
            let env = env_of(Thread::Lane(lane));
            let pump = LanePump::new(env.clone(), identity, lane_config.clone(), self.stores.clone(), ends);
            env.spawn("lane", pump.run());
        }
        for (ends, node) in shards.into_iter().zip(&identity.nodes) {
            let shard = node.shard.expect("its own nodes");
            let pools = Pools::split(SHARD_BYTES);
            let id = if shared_port { identity.nodes[0].id } else { node.id };
            let sharing = shared_port.then_some(self.shards);
            let env = env_of(Thread::Shard(shard));
            let pump = assembly::start_shard(env.clone(), (shard, id), sharing, &self.stores, pools, None, ends);
            pump.expire_every(self.expire_every, |_| ());
            if self.cluster.is_some() {
                pump.tell_loads_every(Duration::from_secs(10));
            }
            let listener = self.network.listen(address_of(self.host, shard.0));
            env.spawn("serve", async move { pump.run(listener).await });
        }
        let generation = identity.generation;
        let config = ControlConfig {
            broker: process.name,
            boot,
            cluster_id: identity.cluster_id,
            nodes: identity.nodes,
            shared_port,
            lanes: self.lanes,
            default_partitions: u32::try_from(MAX_INDEX).expect("small"),
            max_partitions: self.max_partitions,
            cluster: self.cluster,
        };
        // Its end, by a stop or because a store gave no answer, is the end of the process.
        let pinger: Rc<dyn Pinger> = Rc::new(SimPinger { sim: self.sim.clone(), network: self.network.clone() });
        let (env, stores, pinger) = (self.env.clone(), self.stores, Some(pinger));
        drop(assembly::run_control(env, config, generation, stores, control, self.housekeeping, pinger).await);
        self.sim.kill(self.process);
    }
}

/// Asks other processes over the network of the simulator.
struct SimPinger {
    sim: Sim,
    network: Network,
}

impl Pinger for SimPinger {
    fn ping(&self, host: &str, port: u16) -> LocalBoxFuture<'static, Pong> {
        let (sim, network) = (self.sim.clone(), self.network.clone());
        let address = SocketAddr::new(host.parse().expect("hosts here are addresses"), port);
        Box::pin(async move {
            let Ok(mut connection) = Connection::open(&sim, &network, address).await else { return Pong::Refused };
            // Who closes it lives, as far as one can know.
            drop(connection.call(&ApiVersionsRequest::default(), 0, PING).await);
            Pong::Answered
        })
    }
}

/// Runs the scenario as the main task of `sim`.
pub async fn run(sim: Sim, shared_port: bool) {
    let node = Rc::new(Node::new(&sim, shared_port));
    let mut clients = 0;
    for topic in 0..node.plan.topics {
        // Settings and log starts are asked for by name, so that who asks would not know of which topic.
        let deletes = sim.dice(|d| d.index(4)) == 0;
        if deletes {
            sim.spawn(ProcessId::WORLD, "deleter", Deleter::new(&node.world, &format!("topic-{topic}")).run());
        } else if sim.dice(|d| d.index(4)) == 0 {
            sim.spawn(ProcessId::WORLD, "limiter", Limiter::new(&node.world, &format!("topic-{topic}")).run());
        }
        for index in 0..sim.dice(|d| d.below(1..MAX_INDEX + 1)) {
            clients += 2;
            let name = topic * MAX_INDEX + index;
            let name = if sim.dice(|d| d.index(4)) == 0 { name + PLAIN_PRODUCERS } else { name };
            let (topic, index) = (format!("topic-{topic}"), u32::try_from(index).expect("small"));
            let producer = Producer::new(&node.world, &topic, index, name);
            sim.spawn(ProcessId::WORLD, "producer", producer.run(node.plan.batches));
            sim.spawn(ProcessId::WORLD, "consumer", Consumer::new(&node.world, &topic, index).run());
            if !deletes && sim.dice(|d| d.index(3)) == 0 {
                sim.spawn(ProcessId::WORLD, "shortener", Shortener::new(&node.world, &topic, index).run());
            }
        }
    }
    let current = Rc::new(RefCell::new(node.start()));
    sim.spawn(ProcessId::WORLD, "supervisor", node.clone().supervise(current.clone()));
    let mut backups = Vec::new();
    for _ in 0..node.plan.lives {
        backups.push(journal::backup(&node.meta));
        let life = current.borrow().clone();
        node.accident(&life).await;
        rebuild::check_nothing_lost(&node.bucket, &node.world.ledger);
        audit::check(&node.bucket, &node.meta, Bodies::Batches);
        journal::check(&node.bucket, &node.meta);
        node.sim.within(Duration::from_secs(1), || current.borrow().process != life.process).await;
    }
    node.bucket.heal();
    node.meta.heal();
    node.network.heal();
    node.world.healed.set(true);
    let done: &Cell<u64> = &node.world.done;
    let produced = node.sim.within(LIVENESS, || done.get() >= clients / 2).await;
    assert!(
        produced,
        "FINDING liveness: {} of {} producers are done {LIVENESS:?} after all was healed",
        done.get(),
        clients / 2
    );
    node.world.finishing.set(true);
    let read = node.sim.within(LIVENESS, || done.get() == clients).await;
    assert!(read, "FINDING liveness: {} of {clients} clients are done {LIVENESS:?} after all was healed", done.get());
    let (bucket, meta) = (&node.bucket, &node.meta);
    let objects = || [segments::uncollected(bucket), segments::of_deleted_topics(bucket)].concat();
    litter::gone(&sim, LIVENESS, || [objects(), litter::records_of_no_topic(meta)].concat()).await;
    journal::check_backups(&sim, &node.bucket, &node.meta, backups).await;
    // A cold start serves the same log from its beginning.
    sim.kill(current.borrow().process);
    let partitions = node.world.ledger.partitions();
    node.world.done.set(0);
    for p in &partitions {
        let again = topic_of(&node, *p);
        sim.spawn(ProcessId::WORLD, "reader", Consumer::new(&node.world, &again, p.index).run());
    }
    let read = node.sim.within(LIVENESS, || done.get() == partitions.len() as u64).await;
    assert!(read, "FINDING liveness: {} of {} logs can be read after a cold start", done.get(), partitions.len());
    rebuild::check_nothing_lost(&node.bucket, &node.world.ledger);
    audit::check(&node.bucket, &node.meta, Bodies::Batches);
}

fn topic_of(node: &Node, p: TopicPartition) -> String {
    topic_of_meta(&node.meta, p)
}

fn topic_of_meta(meta: &SimMeta, p: TopicPartition) -> String {
    use millrace_storage::meta::keys::TOPICS;
    use millrace_storage::meta::records::{Record, TopicRecord};
    let topics = meta.contents(TOPICS);
    let found = topics.iter().find(|(_, value)| TopicRecord::decode(value).is_ok_and(|record| record.id == p.topic));
    found.map(|(key, _)| key[TOPICS.len()..].to_owned()).unwrap_or_else(|| panic!("FINDING the topic of {p} is gone"))
}
