//! The lane scenario: real lanes, real recovery and the simulated stores, with scripted shards and producers.
//!
//! Processes start, are killed at some await, stopped gracefully (and killed while they stop), or suspended while another
//! process takes over and they live on as zombies. At the end everything is healed: each partition must be led and take
//! records within bounded time, a cold start must find the state that was live, and a rebuild from the bucket alone too.

mod life;
mod producer;
mod shard;

use crate::ledger::{Ledger, PLAIN_PRODUCERS};
use crate::node::batch;
use crate::truth::Truth;
use crate::{audit, litter, rebuild, recovery, segments};
use life::{Life, LifeHandle, QUIET_COLLECT, SOMETIMES};
use millrace_storage::audit::Bodies;
use millrace_storage::compaction::PlannerConfig;
use millrace_storage::ids::{Offset, TopicId, TopicPartition};
use millrace_storage::lane::{LaneConfig, RollMemory, TopicSeen};
use millrace_storage::meta::keys;
use millrace_storage::meta::records::{RECORD_VERSION, Record, TopicRecord, TopicState};
use millrace_storage::partition::CommittedPartition;
use millrace_storage::recovery::Stores;
use millrace_storage::sim::{Chance, Dice, Ended, Faults, ProcessId, Sim, SimBucket, SimDisk, SimMeta, Temper};
use millrace_storage::wal::WalStore;
use producer::Producer;
use shard::ScriptedShard;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Virtual time within which a living process takes records again once its disk has room.
const ROOM_IS_SEEN: Duration = Duration::from_secs(30);
/// Polls of one run at most.
pub const MAX_STEPS: u64 = 3_000_000;
/// Virtual time within which a healed cluster must lead everything and take records.
const LIVENESS: Duration = Duration::from_secs(180);
/// Time after the end beyond what faults delay a request by.
const AFTERMATH: Duration = Duration::from_secs(60);
/// A process is never killed in the last of its polls counted from its start beyond this.
const MAX_POLLS: u64 = 6_000;

/// What all partitions are of.
const TOPIC: TopicId = TopicId(uuid::Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888));

/// What one seed does.
#[derive(Clone)]
struct Plan {
    lanes: u16,
    shards: u16,
    partitions: u32,
    lives: u64,
    batches: u64,
    zombies: bool,
    moves: Chance,
    log_starts: Chance,
    collect_every: Duration,
    // Partition i is created at i times this.
    births_apart: Duration,
    // Write-ahead logs lie in local extents; then no process outlives its successor's start.
    local: bool,
}

impl Plan {
    fn drawn(dice: &mut Dice) -> Plan {
        let mut flag = || dice.below(0..2) == 1;
        let (zombies, moves, log_starts) = (flag(), flag(), flag());
        let births_apart = Duration::from_millis([0, 2_000][usize::from(flag())]);
        let local = flag() && flag();
        Plan {
            births_apart,
            local,
            lanes: dice.below(1..3) as u16,
            shards: dice.below(1..4) as u16,
            partitions: dice.below(1..6) as u32,
            lives: dice.below(1..6),
            batches: dice.below(5..40),
            zombies: zombies && !local,
            moves: if moves { SOMETIMES } else { Chance::NEVER },
            log_starts: if log_starts { SOMETIMES } else { Chance::NEVER },
            collect_every: Duration::from_millis(dice.below(100..10_000)),
        }
        .fitting()
    }

    /// A lane without a shard has nothing to do.
    fn fitting(mut self) -> Plan {
        self.shards = self.shards.max(self.lanes);
        self
    }

    fn partitions(&self) -> Vec<TopicPartition> {
        (0..self.partitions).map(|index| TopicPartition { topic: TOPIC, index }).collect()
    }

    /// The topic that they are of, as it stands throughout.
    fn topic(&self) -> TopicSeen {
        let (state, partitions, settings) = (TopicState::Live, self.partitions, BTreeMap::new());
        let record = TopicRecord { v: RECORD_VERSION, id: TOPIC, state, partitions, settings };
        TopicSeen { name: "topic".to_owned(), record: record.encode() }
    }
}

/// Settings of a lane, as narrow as the seed says.
pub fn lane_config(dice: &mut Dice) -> LaneConfig {
    let ms = Duration::from_millis;
    LaneConfig {
        linger: ms(dice.below(0..20)),
        object_bytes: dice.below(64..4_096) as usize,
        object_limit_bytes: 16 << 10,
        in_flight_objects: dice.below(1..17) as usize,
        in_flight_bytes: dice.below(1_000..100_000) as usize,
        puts_per_second: (dice.below(0..4) == 0).then_some(200),
        checkpoint_every: ms(dice.below(20..10_000)),
        checkpoint_objects: dice.below(2..100),
        checkpoint_gap: ms(dice.below(0..1_000)),
        readers_grace: ms(dice.below(0..200)),
        put_patience: ms(dice.below(100..10_000)),
        take_back_after: ms(dice.below(500..5_000)),
        hedge_percent: [0, 5, 100][dice.index(3)],
        ..LaneConfig::default()
    }
}

/// Rolls and merges soon and often.
pub fn compaction(dice: &mut Dice) -> PlannerConfig {
    let ms = Duration::from_millis;
    PlannerConfig {
        roll_bytes: dice.below(1..100_000),
        fan_in: dice.below(2..9) as usize,
        roll_after: ms(dice.below(0..2_000)),
        roll_within: ms(dice.below(1_000..20_000)),
        held_bytes: dice.below(1_000..1_000_000),
        paid_bytes: dice.below(1..10_000),
        objects_per_roll: dice.below(1..4),
        effects: dice.below(1..4) as usize,
        ..PlannerConfig::default()
    }
}

/// Keeps everything that waits for a roll, some of it or next to nothing.
pub fn roll_memory(dice: &mut Dice) -> RollMemory {
    let bytes = [0, dice.below(1_000..100_000), 64 << 20][dice.index(3)];
    RollMemory { bytes, entry_bytes: [1_000, u64::MAX][dice.index(2)] }
}

/// The world of a run. A clone is another handle.
#[derive(Clone)]
struct Cluster {
    sim: Sim,
    bucket: SimBucket,
    meta: SimMeta,
    disk: Option<SimDisk>,
    ledger: Ledger,
    truth: Truth,
    plan: Plan,
    lane_config: LaneConfig,
    lives: Rc<RefCell<Vec<Rc<LifeHandle>>>>,
    // Requests may be under way this long after everything was healed.
    aftermath: Duration,
    quiet: Rc<Cell<bool>>,
    // Nothing is moved or deleted any more.
    still: Rc<Cell<bool>>,
    // Requests may have failed for so long that a lane rightly gives up its log.
    troubled: Rc<Cell<bool>>,
}

impl Cluster {
    fn new(sim: &Sim) -> Cluster {
        let temper = [Temper::Calm, Temper::Fair, Temper::Fair, Temper::Rough][sim.dice(|d| d.index(4))];
        let (wal_faults, meta_faults) = sim.dice(|d| (Faults::drawn(temper, d), Faults::drawn(temper, d)));
        let aftermath = wal_faults.late_by.end.max(meta_faults.late_by.end) + AFTERMATH;
        let bucket = SimBucket::new(sim, wal_faults);
        let meta = SimMeta::new(sim, meta_faults);
        let ledger = Ledger::default();
        let truth = Truth::watching(&bucket, &meta, &ledger, batch::ids);
        let (plan, lane_config) = sim.dice(|d| (Plan::drawn(d), lane_config(d)));
        let topic = plan.topic();
        meta.place(keys::topic(&topic.name), topic.record);
        let compaction = sim.dice(|d| (d.index(4) > 0).then(|| compaction(d)));
        let roll_memory = sim.dice(roll_memory);
        let lane_config = LaneConfig { compaction, roll_memory, ..lane_config };
        let disk = plan.local.then(|| SimDisk::new(sim, &bucket));
        Cluster {
            sim: sim.clone(),
            bucket,
            meta,
            disk,
            ledger,
            truth,
            plan,
            lane_config,
            lives: Rc::default(),
            aftermath,
            quiet: Rc::default(),
            still: Rc::default(),
            troubled: Rc::new(Cell::new(temper == Temper::Rough)),
        }
    }

    /// The stores as a new process opens them.
    fn open_stores(&self) -> Stores {
        let power_failed = self.sim.dice(|d| d.index(2)) == 0;
        let wal: Rc<dyn WalStore> = match &self.disk {
            Some(disk) => Rc::new(disk.open(power_failed)),
            None => Rc::new(self.bucket.clone()),
        };
        Stores { wal, objects: Rc::new(self.bucket.clone()), meta: Rc::new(self.meta.clone()) }
    }

    /// Some living process's shard that leads the partition; with zombies there may be several that believe so.
    fn leader(&self, p: TopicPartition) -> Option<ScriptedShard> {
        let lives = self.lives.borrow();
        let alive = lives.iter().filter(|handle| self.sim.is_alive(handle.process));
        let leaders: Vec<ScriptedShard> = alive.filter_map(|handle| handle.life()?.leader(p)).collect();
        if leaders.is_empty() {
            return None;
        }
        Some(leaders[self.sim.dice(|d| d.index(leaders.len()))].clone())
    }

    fn start(&self) -> Rc<LifeHandle> {
        let handle = Life::start(self);
        self.lives.borrow_mut().push(handle.clone());
        handle
    }

    fn kill_all(&self) {
        for handle in self.lives.borrow_mut().drain(..) {
            self.kill(&handle);
        }
    }

    fn kill(&self, handle: &LifeHandle) {
        self.sim.kill(handle.process);
        handle.life.replace(None);
    }
}

/// What a partition's recovered state must satisfy: all that was readable is in it, byte for byte.
fn check_state(ledger: &Ledger, truth: &Truth, p: TopicPartition, state: &CommittedPartition) {
    if truth.is_current(p, state.epoch) {
        ledger.check_end(p, state.end, "in an acquired state");
    }
    ledger.log_start(p, state.log_start);
    let mut next = state.referenced_from();
    for reference in state.references.iter() {
        let ids = truth.ids_at(reference.wid, reference.seq, reference.position, reference.length);
        // A process that was suspended may learn late of what its successors have rolled.
        let Some(ids) = ids.or_else(|| truth.ids_in_segments(p, reference.base, reference.last)) else {
            panic!("FINDING I8: {p} refers to {reference:?}, which is missing");
        };
        assert!(reference.base <= next, "FINDING {p}: a gap before {reference:?}, wanted {next}");
        let count = reference.last.0 - reference.base.0 + 1;
        assert!(ids.len() as i64 == count, "FINDING {reference:?} holds {} records", ids.len());
        ledger.readable(p, reference.base, &ids);
        next = reference.last.plus(1);
    }
    assert!(next >= state.end, "FINDING {p}: references end at {next}, the log at {}", state.end);
}

/// Runs the scenario as the main task of `sim`.
pub async fn run(sim: Sim) {
    play(&Cluster::new(&sim)).await;
}

/// The stores that a seed leaves behind, and what its partitions hold, to be damaged on purpose. Nothing is rolled, so that
/// write-ahead logs hold all of it.
pub fn remains(seed: u64) -> Remains {
    let sim = Sim::new(seed, false);
    let drawn = Cluster::new(&sim);
    let cluster = Cluster { lane_config: LaneConfig { compaction: None, ..drawn.lane_config.clone() }, ..drawn };
    let played = cluster.clone();
    let ended = sim.run(MAX_STEPS, async move { play(&played).await });
    assert!(ended == Ended::Done, "seed {seed} ended by {ended:?}");
    let remains = Remains { bucket: cluster.bucket.copied(&sim), meta: cluster.meta.clone() };
    sim.shut_down();
    remains
}

/// See [`remains`].
pub struct Remains {
    /// Its objects; without faults.
    pub bucket: SimBucket,
    /// Its records.
    pub meta: SimMeta,
}

async fn play(cluster: &Cluster) {
    let sim = &cluster.sim;
    let producing = Rc::new(Cell::new(0));
    let partitions = cluster.plan.partitions();
    for (index, p) in partitions.iter().enumerate() {
        let plain = sim.dice(|d| d.below(0..4)) == 0;
        for id in [Some(index as u64), plain.then_some(PLAIN_PRODUCERS + index as u64)].into_iter().flatten() {
            let producer = Producer::new(cluster, id, *p);
            let (done, batches) = (producing.clone(), cluster.plan.batches);
            producing.set(producing.get() + 1);
            sim.spawn(ProcessId::WORLD, "producer", async move {
                producer.run(batches).await;
                done.set(done.get() - 1);
            });
        }
    }
    for _ in 0..cluster.plan.lives {
        accident(cluster).await;
    }
    cluster.kill_all();
    cluster.bucket.heal();
    cluster.meta.heal();
    finish(cluster, &producing).await;
}

/// One process life and how it ends.
async fn accident(cluster: &Cluster) {
    let sim = &cluster.sim;
    let handle = cluster.start();
    let ms = |range| Duration::from_millis(sim.dice(|d| d.below(range)));
    if let Some(disk) = &cluster.disk {
        let dies = sim.dice(|d| d.index(2)) == 0;
        let sync_fails = !dies && sim.dice(|d| d.index(2)) == 0;
        if dies || sync_fails {
            sim.sleep(ms(0..2_000)).await;
            cluster.troubled.set(true);
        }
        if dies {
            disk.dies_soon();
        } else if sync_fails {
            disk.next_sync_fails();
        } else if sim.dice(|d| d.index(2)) == 0 {
            full_disk(cluster, disk, &handle).await;
        }
    }
    match sim.dice(|d| d.index(6)) {
        // At some await.
        0..=2 => {
            let polls = sim.dice(|d| d.below(1..MAX_POLLS));
            sim.kill_after(handle.process, polls);
            cluster.sim.within(Duration::from_secs(60), || !sim.is_alive(handle.process)).await;
        }
        // At some time, perhaps after an outage.
        3 => {
            sim.sleep(ms(0..5_000)).await;
            let outage = ms(0..40_000);
            cluster.troubled.set(true);
            if sim.dice(|d| d.below(0..2)) == 0 {
                cluster.bucket.outage(outage)
            } else {
                cluster.meta.outage(outage)
            }
            sim.sleep(outage + ms(0..5_000)).await;
        }
        // Gracefully, perhaps killed on the way.
        4 => {
            cluster.sim.within(Duration::from_secs(30), || handle.life().is_some_and(|life| life.leads_all())).await;
            sim.sleep(ms(0..2_000)).await;
            if let Some(life) = handle.life() {
                life.stop();
                let patience = ms(0..5_000);
                cluster.sim.within(patience, || life.has_stopped()).await;
            }
        }
        // Suspended or merely slow: it lives on beside its successors.
        _ => {
            sim.sleep(ms(0..5_000)).await;
            if cluster.plan.zombies {
                if sim.dice(|d| d.below(0..2)) == 0 {
                    sim.pause(handle.process, ms(0..20_000));
                }
                return;
            }
        }
    }
    cluster.kill(&handle);
    rebuild::check_nothing_lost(&cluster.bucket, &cluster.ledger);
    audit::check(&cluster.bucket, &cluster.meta, Bodies::Batches);
}

/// The disk is full for a while. Then the process must see by itself that there is room.
async fn full_disk(cluster: &Cluster, disk: &SimDisk, handle: &LifeHandle) {
    let sim = &cluster.sim;
    let ms = |range| Duration::from_millis(sim.dice(|d| d.below(range)));
    sim.sleep(ms(0..2_000)).await;
    disk.fill();
    sim.sleep(ms(0..20_000)).await;
    disk.make_room();
    let refuses = || handle.life().is_some_and(|life| life.shards.iter().any(ScriptedShard::refuses_for_room));
    let over = sim.within(ROOM_IS_SEEN, || !refuses()).await;
    assert!(over, "FINDING liveness: produce is refused {ROOM_IS_SEEN:?} after the disk has room again");
}

/// Everything is healed: liveness, and three ways of recovery that must agree.
async fn finish(cluster: &Cluster, producing: &Cell<u64>) {
    let last = cluster.start();
    let leads_all = |handle: &LifeHandle| handle.life().is_some_and(|life| life.leads_all());
    let led = cluster.sim.within(LIVENESS, || leads_all(&last)).await;
    assert!(led, "FINDING liveness: not every partition is led {LIVENESS:?} after everything was healed");
    let taken = cluster.sim.within(LIVENESS, || producing.get() == 0).await;
    assert!(taken, "FINDING liveness: {} producers wait {LIVENESS:?} after everything was healed", producing.get());
    // What was under way hours ago arrives now, at a living process.
    cluster.still.set(true);
    cluster.quiet.set(true);
    cluster.sim.sleep(cluster.aftermath).await;
    cluster.quiet.set(false);
    assert!(
        cluster.sim.within(LIVENESS, || leads_all(&last)).await,
        "FINDING liveness: what came late ended leaderships"
    );
    litter::gone(&cluster.sim, QUIET_COLLECT + LIVENESS, || segments::uncollected(&cluster.bucket)).await;
    let live = states(cluster, &last);
    cluster.kill(&last);
    rebuild::check(&cluster.bucket, &cluster.ledger, &live);
    let cold = cluster.start();
    assert!(
        cluster.sim.within(LIVENESS, || leads_all(&cold)).await,
        "FINDING liveness: a cold start leads not everything"
    );
    let recovered = states(cluster, &cold);
    for (p, state) in &live {
        let again = &recovered[p];
        check_same(*p, state, again);
        check_state(&cluster.ledger, &cluster.truth, *p, again);
    }
    cluster.kill(&cold);
    rebuild::check(&cluster.bucket, &cluster.ledger, &recovered);
    audit::check(&cluster.bucket, &cluster.meta, Bodies::Batches);
    recovery::check(&cluster.sim, &cluster.bucket, &recovered).await;
}

fn states(cluster: &Cluster, handle: &LifeHandle) -> BTreeMap<TopicPartition, CommittedPartition> {
    let life = handle.life().expect("it leads");
    let state = |p: TopicPartition| life.leader(p)?.committed(p);
    cluster.plan.partitions().into_iter().filter_map(|p| Some((p, state(p)?))).collect()
}

/// A cold recovery finds the live state, one epoch on.
fn check_same(p: TopicPartition, live: &CommittedPartition, recovered: &CommittedPartition) {
    let same_log = live.end == recovered.end && live.log_start == recovered.log_start;
    assert!(
        same_log,
        "FINDING {p}: live {}..{}, recovered {}..{}",
        live.log_start, live.end, recovered.log_start, recovered.end
    );
    assert!(live.producers == recovered.producers, "FINDING {p}: producers differ after a cold start");
    // What was covered last may not be in a checkpoint.
    let from = live.referenced_from().max(recovered.referenced_from());
    let references = |state: &CommittedPartition| state.references.from_offset(from).collect::<Vec<_>>();
    let (was, is) = (references(live), references(recovered));
    assert!(was == is, "FINDING {p}: references differ after a cold start: {was:?} and {is:?}");
    let epochs = live.epochs.starts();
    let again = &recovered.epochs.starts()[..epochs.len().min(recovered.epochs.starts().len())];
    assert!(epochs == again, "FINDING {p}: epochs differ after a cold start: {epochs:?} and {again:?}");
    assert!(recovered.epoch > live.epoch && recovered.end >= Offset(0), "FINDING {p}: epoch {}", recovered.epoch);
}
