//! One process life of the lane scenario: real lanes and real recovery, scripted shards, and the least of a control task.

use super::shard::ScriptedShard;
use super::{Cluster, Plan};
use millrace_storage::compactor::collect::{self, SegmentCollector};
use millrace_storage::env::Env;
use millrace_storage::ids::{BootId, ShardIndex, TopicPartition, Wid};
use millrace_storage::lane::{LaneCommand, LaneEnds, LaneIdentity, LanePump, LaneReport, ShardEnd, ToLead};
use millrace_storage::mailbox::{Receiver, Sender, mailbox};
use millrace_storage::recovery::{self, Collector, Stores};
use millrace_storage::sim::{Chance, ProcessId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Messages that wait in a mailbox at most.
const MAILBOX: usize = 64;
/// How often the control task looks whether everything is led.
const LOOK: Duration = Duration::from_millis(50);
/// The same while hours pass in which little happens.
const QUIET_LOOK: Duration = Duration::from_secs(20);
/// Between two collections, then.
pub(super) const QUIET_COLLECT: Duration = Duration::from_secs(600);
/// Readers of segments get this part of the time between two collections.
const GRACES_PER_COLLECTION: u32 = 2;
/// A partition that was asked for and is not led is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

struct LaneState {
    commands: Sender<LaneCommand>,
    open: Cell<Option<Wid>>,
    stopped: Cell<bool>,
}

/// Where the control task wants a partition, and what it knows of it.
#[derive(Clone, Copy)]
struct Placement {
    shard: ShardIndex,
    leading: bool,
    releasing: bool,
    asked: Option<u64>,
}

/// A running process.
pub(super) struct Life {
    cluster: Cluster,
    env: Env,
    pub(super) shards: Vec<ScriptedShard>,
    lanes: Vec<LaneState>,
    placements: RefCell<BTreeMap<TopicPartition, Placement>>,
    stopping: Cell<bool>,
}

impl Life {
    /// Starts a process: seals what is dead, then leads everything.
    pub(super) fn start(cluster: &Cluster) -> Rc<LifeHandle> {
        let (process, env) = cluster.sim.start_process();
        let handle = Rc::new(LifeHandle { process, life: RefCell::new(None) });
        let (cluster, into) = (cluster.clone(), handle.clone());
        env.clone().spawn("start", async move {
            let boot = BootId(env.random());
            let stores = cluster.open_stores();
            while recovery::seal_all_dead(&env, &stores, boot).await.is_err() {}
            env.spawn("collect", collect(env.clone(), stores.clone(), cluster.clone()));
            let life = Life::assemble(cluster, env, boot, &stores);
            into.life.replace(Some(life.clone()));
            life.control().await;
        });
        handle
    }

    fn assemble(cluster: Cluster, env: Env, boot: BootId, stores: &Stores) -> Rc<Life> {
        let Plan { lanes: lane_count, shards: shard_count, .. } = cluster.plan;
        let mut shards = Vec::new();
        let mut ends: Vec<Vec<ShardEnd>> = (0..lane_count).map(|_| Vec::new()).collect();
        for index in 0..shard_count {
            let shard = ShardIndex(index);
            let ((to_lane, from_shard), (to_shard, from_lane)) = (mailbox(MAILBOX), mailbox(MAILBOX));
            ends[usize::from(index % lane_count)].push(ShardEnd { shard, from: from_shard, to: to_shard });
            shards.push(ScriptedShard::start(shard, &env, (&cluster.ledger, &cluster.truth), to_lane, from_lane));
        }
        let mut lanes = Vec::new();
        let mut reports_of = Vec::new();
        for (index, shards) in (0..).zip(ends) {
            let ((commands, from_control), (reports, from_lane)) = (mailbox(MAILBOX), mailbox(MAILBOX));
            let identity = LaneIdentity { broker: "sim".to_owned(), boot, lane: index };
            let ends = LaneEnds { shards, commands: from_control, reports };
            let pump = LanePump::new(env.clone(), identity, cluster.lane_config.clone(), stores.clone(), ends);
            env.spawn("lane", pump.run());
            lanes.push(LaneState { commands, open: Cell::new(None), stopped: Cell::new(false) });
            reports_of.push(from_lane);
        }
        let placements = RefCell::default();
        let stopping = Cell::new(false);
        let life = Rc::new(Life { cluster, env, shards, lanes, placements, stopping });
        for (lane, reports) in reports_of.into_iter().enumerate() {
            life.env.spawn("reports", life.clone().listen(lane, reports));
        }
        life
    }

    /// The shard that leads the partition and takes records for it.
    pub(super) fn leader(&self, p: TopicPartition) -> Option<ScriptedShard> {
        self.shards.iter().find(|shard| shard.leads(p)).cloned()
    }

    /// Whether every partition is led here.
    pub(super) fn leads_all(&self) -> bool {
        self.cluster.plan.partitions().iter().all(|p| self.leader(*p).is_some())
    }

    /// Begins a graceful stop.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
    }

    /// Whether the graceful stop has ended.
    pub(super) fn has_stopped(&self) -> bool {
        self.lanes.iter().all(|lane| lane.stopped.get())
    }

    async fn control(self: Rc<Self>) {
        for (index, p) in self.cluster.plan.partitions().into_iter().enumerate() {
            let shard = ShardIndex(u16::try_from(index).expect("few partitions") % self.cluster.plan.shards);
            let placement = Placement { shard, leading: false, releasing: false, asked: None };
            self.placements.borrow_mut().insert(p, placement);
        }
        while !self.stopping.get() {
            self.lead_missing().await;
            let still = self.cluster.still.get();
            if !still && self.cluster.sim.dice(|d| d.happens(self.cluster.plan.moves)) {
                self.move_one().await;
            }
            if !still && self.cluster.sim.dice(|d| d.happens(self.cluster.plan.log_starts)) {
                self.raise_log_start();
            }
            self.env.sleep(if self.cluster.quiet.get() { QUIET_LOOK } else { LOOK }).await;
        }
        for lane in &self.lanes {
            drop(lane.commands.send_waiting(LaneCommand::Stop).await);
        }
    }

    fn lane_of(&self, shard: ShardIndex) -> usize {
        usize::from(shard.0 % self.cluster.plan.lanes)
    }

    async fn lead_missing(&self) {
        let now = self.cluster.sim.now();
        let again = ASK_AGAIN.as_nanos() as u64;
        let topic = Arc::new(self.cluster.plan.topic());
        for (index, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| lane.open.get().is_some()) {
            let mut wanted = Vec::new();
            for (p, placement) in self.placements.borrow_mut().iter_mut() {
                let created = self.cluster.plan.births_apart.as_nanos() as u64 * u64::from(p.index) <= now;
                let due = created && placement.asked.is_none_or(|asked| asked + again < now);
                if self.lane_of(placement.shard) == index && !placement.leading && !placement.releasing && due {
                    placement.asked = Some(now);
                    let (partition, shard) = (*p, placement.shard);
                    wanted.push(ToLead { partition, shard, topic: Arc::clone(&topic) });
                }
            }
            if !wanted.is_empty() {
                drop(lane.commands.send_waiting(LaneCommand::Lead { partitions: wanted }).await);
            }
        }
    }

    /// Moves a partition to another shard: within a lane by one command, between lanes by a release first.
    async fn move_one(&self) {
        let partitions = self.cluster.plan.partitions();
        let p = partitions[self.cluster.sim.dice(|d| d.index(partitions.len()))];
        let to = ShardIndex(self.cluster.sim.dice(|d| d.index(usize::from(self.cluster.plan.shards))) as u16);
        let from = {
            let mut placements = self.placements.borrow_mut();
            let placement = placements.get_mut(&p).expect("all are placed");
            if !placement.leading || placement.releasing {
                return;
            }
            let from = std::mem::replace(&mut placement.shard, to);
            placement.releasing = self.lane_of(from) != self.lane_of(to);
            placement.leading = from == to;
            placement.asked = None;
            from
        };
        if self.lane_of(from) != self.lane_of(to) {
            let release = LaneCommand::Release { partitions: vec![p] };
            drop(self.lanes[self.lane_of(from)].commands.send_waiting(release).await);
        }
    }

    fn raise_log_start(&self) {
        let partitions = self.cluster.plan.partitions();
        let (p, part) = self.cluster.sim.dice(|d| (partitions[d.index(partitions.len())], d.bits()));
        if let Some(shard) = self.leader(p) {
            shard.raise_log_start(p, part);
        }
    }

    async fn listen(self: Rc<Self>, lane: usize, mut reports: Receiver<LaneReport>) {
        while let Some(report) = reports.recv().await {
            self.cluster.sim.note(format_args!("lane {lane} reports {report:?}"));
            match report {
                LaneReport::Opened { wid } => self.lanes[lane].open.set(Some(wid)),
                LaneReport::Leading { partition, shard, .. } => {
                    if let Some(placement) = self.placements.borrow_mut().get_mut(&partition) {
                        placement.leading = placement.shard == shard;
                    }
                }
                LaneReport::NotLeading { partition } => {
                    if let Some(placement) = self.placements.borrow_mut().get_mut(&partition) {
                        (placement.leading, placement.releasing, placement.asked) = (false, false, None);
                    }
                }
                LaneReport::Fenced => {
                    let wid = self.lanes[lane].open.take().expect("only an open log is fenced");
                    let reason = self.cluster.troubled.get() || self.cluster.truth.is_fenced(wid);
                    assert!(reason, "FINDING {wid} was given up, but nobody fenced it and no request failed for long");
                    for placement in self.placements.borrow_mut().values_mut() {
                        if self.lane_of(placement.shard) == lane || placement.releasing {
                            (placement.leading, placement.releasing, placement.asked) = (false, false, None);
                        }
                    }
                }
                LaneReport::Alarm { partition, detail } => panic!("FINDING alarm for {partition:?}: {detail}"),
                LaneReport::Stopped { .. } => self.lanes[lane].stopped.set(true),
            }
        }
    }
}

async fn collect(env: Env, stores: Stores, cluster: Cluster) {
    let mut collector = Collector::default();
    let mut of_segments = SegmentCollector::new(cluster.plan.collect_every / GRACES_PER_COLLECTION);
    loop {
        env.sleep(if cluster.quiet.get() { QUIET_COLLECT } else { cluster.plan.collect_every }).await;
        drop(collector.pass(&env, &stores).await);
        if let Ok(topics) = collect::topics(&*stores.objects).await {
            drop(of_segments.pass(&env, &stores, &topics, &BTreeSet::new()).await);
        }
    }
}

/// A process as the scenario holds it, from before it has read anything.
pub(super) struct LifeHandle {
    pub(super) process: ProcessId,
    pub(super) life: RefCell<Option<Rc<Life>>>,
}

impl LifeHandle {
    pub(super) fn life(&self) -> Option<Rc<Life>> {
        self.life.borrow().clone()
    }
}

/// How often per look something optional happens: used by plans.
pub(super) const SOMETIMES: Chance = Chance(300);
