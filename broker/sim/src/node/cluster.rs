//! The cluster scenario: several processes as they are, on one object store and one metadata store, with clients that speak
//! real frames. Processes are killed at any await and come back or do not, are suspended for longer than their leases, have a
//! thread that is stuck, or are cut off, and live on; are stopped, drained, suspected, added and taken away, while clocks jump
//! and the stores misbehave ([`accidents`]). At the end everything is healed: what was acknowledged must be there, once, in
//! order, everything must be taken and served again, and what nobody needs must go.

mod accidents;

use super::client::{Consumer, Producer, World};
use super::committer::Committer;
use super::deleter::Deleter;
use super::limiter::Limiter;
use super::network::Network;
use super::shortener::Shortener;
use super::{
    Life, MAX_INDEX, MAX_PARTITIONS, Plan, Starting, Weather, address_of, batch, for_real_batches, housekeeping,
    stores, topic_of_meta,
};
use crate::ledger::{Ledger, PLAIN_PRODUCERS};
use crate::truth::Truth;
use crate::{audit, journal, litter, rebuild, segments};
use futures::channel::oneshot;
use futures::future::{Either, select};
use millrace_broker::control::cluster::ClusterConfig;
use millrace_broker::process::housekeeping::Housekeeping;
use millrace_storage::audit::Bodies;
use millrace_storage::lane::LaneConfig;
use millrace_storage::meta::keys;
use millrace_storage::sim::{Dice, ProcessId, Sim, SimBucket, SimMeta, Temper};
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
/// A partition is served again after so long at the latest when all that happened was meant to.
const ORDERLY: Duration = Duration::from_secs(5);
/// How often is looked whether a host that was left shall have a process again.
const LOOK: Duration = Duration::from_millis(500);
/// After so long nothing is under way any more, however late it is.
const HOURS: Duration = Duration::from_secs(4 * 3_600);
/// Hosts at most, those that are added included.
const MOST_HOSTS: u16 = 5;

/// What one seed does besides a node's [`Plan`].
#[derive(Clone)]
struct ClusterPlan {
    hosts: u16,
    accidents: u64,
    lease: Duration,
    /// Whether processes live on beside their successors, or with clocks of their own. Such a one may serve for a moment
    /// what it knew, log starts too, so that nobody raises them then, and takes time for what it is not.
    zombies: bool,
    /// Whether nothing happens but what operators do in good order: then nobody waits for long.
    is_orderly: bool,
}

impl ClusterPlan {
    fn drawn(dice: &mut Dice, is_orderly: bool) -> ClusterPlan {
        ClusterPlan {
            hosts: dice.below(2..4) as u16,
            accidents: dice.below(1..9),
            lease: Duration::from_millis(dice.below(1_000..6_000)),
            zombies: dice.index(4) > 0 && !is_orderly,
            is_orderly,
        }
    }
}

/// A host: the process that runs on it, if any.
struct Host {
    number: u16,
    life: RefCell<Option<Rc<Life>>>,
    /// Whether a process that died is started again.
    is_kept: Cell<bool>,
    /// Whether it was taken away for good.
    is_gone: Cell<bool>,
    /// Virtual time until which a process of it, or a thread of one, stands still.
    stands_until: Cell<u64>,
    /// Told that its process is taken for dead, whether or not it is.
    given_up: RefCell<Option<oneshot::Sender<()>>>,
}

impl Host {
    fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    fn life(&self) -> Option<Rc<Life>> {
        self.life.borrow().clone()
    }

    fn stands_at_least(&self, until: u64) {
        self.stands_until.set(until.max(self.stands_until.get()));
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
    /// Processes in whose place another one of their name was started, with their hosts.
    replaced: RefCell<Vec<(u16, ProcessId)>>,
}

impl Cluster {
    fn new(sim: &Sim, is_orderly: bool) -> Cluster {
        let weather = if is_orderly { Weather::of(Temper::Calm, sim) } else { Weather::drawn(sim) };
        let Weather { bucket_faults, meta_faults, breaks } = weather;
        let network = Network::new(sim, breaks);
        if is_orderly {
            network.keep_power();
        }
        let (node, plan) = sim.dice(|d| (Plan::drawn(d, false), ClusterPlan::drawn(d, is_orderly)));
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
            pace: Duration::from_millis(sim.dice(|d| d.below(200..4_000))),
            is_cluster: true,
            patience: plan.is_orderly.then_some(ORDERLY),
            shared_port: false,
            done: Rc::default(),
            healed: Rc::default(),
            finishing: Rc::default(),
        };
        let (hosts, replaced) = Default::default();
        Cluster {
            sim: sim.clone(),
            bucket,
            meta,
            network,
            world,
            node,
            plan,
            lane_config,
            housekeeping,
            hosts,
            replaced,
        }
    }

    fn add_host(self: &Rc<Self>) {
        let number = u16::try_from(self.hosts.borrow().len() + 1).expect("a handful");
        let (life, given_up) = Default::default();
        let (is_kept, is_gone, stands_until) = (Cell::new(true), Cell::new(false), Cell::new(0));
        let host = Rc::new(Host { number, life, is_kept, is_gone, stands_until, given_up });
        self.hosts.borrow_mut().push(host.clone());
        self.sim.spawn(ProcessId::WORLD, "supervisor", self.clone().supervise(host));
    }

    /// Starts processes of a host, one after the other whenever one has died or is taken for dead.
    async fn supervise(self: Rc<Self>, host: Rc<Host>) {
        loop {
            if host.is_gone.get() {
                return;
            }
            if !host.is_kept.get() {
                self.sim.sleep(LOOK).await;
                continue;
            }
            let life = self.start(&host);
            host.life.replace(Some(life.clone()));
            let (give_up, given_up) = oneshot::channel();
            host.given_up.replace(Some(give_up));
            let died = std::pin::pin!(self.sim.died(life.process));
            let ended = select(died, given_up).await;
            host.life.replace(None);
            if matches!(ended, Either::Right((Ok(()), _))) {
                continue;
            }
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
            stores: stores(&self.bucket, self.meta.clone()),
            lane_config: self.lane_config.clone(),
            housekeeping: self.housekeeping.clone(),
            expire_every: self.node.expire_every,
            shards: self.node.shards,
            to_peer: None,
            lanes: self.node.lanes,
            max_partitions: MAX_PARTITIONS,
        };
        env.spawn("start", starting.run(life.clone()));
        life
    }

    fn any_host(&self) -> Rc<Host> {
        let mut hosts = self.hosts.borrow().clone();
        hosts.retain(|host| !host.is_gone.get());
        hosts[self.sim.dice(|d| d.index(hosts.len()))].clone()
    }

    /// Nothing fails any more, every host has a process, none is suspended; but a shard of one of several may be stuck.
    async fn heal(&self) {
        self.bucket.heal();
        let silent_until = self.meta.heal();
        self.network.heal();
        self.hosts.borrow_mut().retain(|host| !host.is_gone.get());
        for host in self.hosts.borrow().iter() {
            host.is_kept.set(true);
            if let Some(life) = host.life() {
                self.sim.set_wall(life.process, 0);
            }
        }
        // What observers say ends with them; these were none.
        for (suspicion, _) in self.meta.contents(keys::SUSPECTS) {
            self.put(suspicion, None).await;
        }
        let stand_until = self.hosts.borrow().iter().map(|host| host.stands_until.get()).max().unwrap_or(0);
        self.sim.sleep_until(stand_until).await;
        let runs = || self.hosts.borrow().iter().all(|host| host.life.borrow().is_some());
        assert!(self.sim.within(LIVENESS, runs).await, "FINDING liveness: a process is not started");
        if self.plan.zombies && self.hosts.borrow().len() > 1 && self.sim.dice(|d| d.index(2)) == 0 {
            self.stall_for_good();
        }
        // Whoever was suspended learns that it was replaced, and the others that somebody is stuck.
        self.sim.sleep_until(silent_until).await;
        self.sim.sleep(2 * self.plan.lease + Duration::from_secs(10)).await;
        self.world.healed.set(true);
        let replaced = || self.replaced.borrow().iter().all(|(_, process)| !self.sim.is_alive(*process));
        assert!(self.sim.within(LIVENESS, replaced).await, "FINDING liveness: a process outlives the one in its place");
    }

    fn check(&self) {
        rebuild::check_nothing_lost(&self.bucket, &self.world.ledger);
        audit::check(&self.bucket, &self.meta, Bodies::Batches);
        journal::check(&self.bucket, &self.meta);
    }
}

/// Runs the scenario as the main task of `sim`; in an orderly history nothing happens but what careful operators do.
pub async fn run(sim: Sim, is_orderly: bool) {
    let cluster = Rc::new(Cluster::new(&sim, is_orderly));
    let world = &cluster.world;
    (0..cluster.plan.hosts).for_each(|_| cluster.add_host());
    let (mut clients, mut committers) = (0, 0);
    for topic in 0..cluster.node.topics {
        let name = format!("topic-{topic}");
        // Settings, log starts and offsets are asked for by name, so that who asks would not know of which topic.
        // Nor does anybody wait for long in good order, as for a topic that is made again.
        let deletes = sim.dice(|d| d.index(4)) == 0 && !cluster.plan.is_orderly;
        if deletes {
            sim.spawn(ProcessId::WORLD, "deleter", Deleter::new(world, &name).run());
        }
        for group in 0..sim.dice(|d| d.below(0..3)).min(if deletes { 0 } else { u64::MAX }) {
            committers += 1;
            let committer = Committer::new(world, &format!("group-{topic}-{group}"), &name);
            sim.spawn(ProcessId::WORLD, "committer", committer.run());
        }
        if !deletes && !cluster.plan.zombies && sim.dice(|d| d.index(4)) == 0 {
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
            if !deletes && !cluster.plan.zombies && sim.dice(|d| d.index(3)) == 0 {
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
    let (bucket, meta) = (&cluster.bucket, &cluster.meta);
    let objects = || [segments::uncollected(bucket), segments::of_deleted_topics(bucket)].concat();
    litter::gone(&sim, LIVENESS, || [objects(), litter::records_of_no_topic(meta)].concat()).await;
    journal::check_backups(&sim, &cluster.bucket, &cluster.meta, backups).await;
    cluster.check();
    cold_start(&cluster).await;
}

/// Every process dies at once; those that come after serve the same logs from their beginning.
async fn cold_start(cluster: &Cluster) {
    let (sim, world) = (&cluster.sim, &cluster.world);
    for host in cluster.hosts.borrow().iter() {
        host.is_kept.set(false);
        if let Some(life) = host.life() {
            sim.kill(life.process);
        }
    }
    // In some histories what the dead have sent comes to pass hours later, and before anybody is there again.
    if sim.dice(|d| d.index(8)) == 0 {
        sim.sleep(HOURS).await;
        cluster.check();
    }
    cluster.hosts.borrow().iter().for_each(|host| host.is_kept.set(true));
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
