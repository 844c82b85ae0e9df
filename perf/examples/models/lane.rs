//! A process of one or two lanes with a scripted shard each, and what its requests waited.

use crate::load::{Load, PRODUCER_IN_FLIGHT};
use crate::sink::{Bill, Sink};
use bytes::Bytes;
use millrace_storage::env::{Env, Mono};
use millrace_storage::ids::{BootId, Offset, ShardIndex, TopicId, TopicPartition};
use millrace_storage::lane::{
    BatchDescription, LaneCells, LaneCommand, LaneConfig, LaneEnds, LaneIdentity, LanePump, LaneReport, Seal,
    SealEntry, ShardEnd, ToLane, ToLead, ToShard, TopicSeen,
};
use millrace_storage::mailbox::{Receiver, Sender, mailbox};
use millrace_storage::meta::memory::MemoryMeta;
use millrace_storage::meta::records::{RECORD_VERSION, Record, TopicRecord, TopicState};
use millrace_storage::meta::{MetaStore, Op, Txn, keys};
use millrace_storage::object::memory::MemoryStore;
use millrace_storage::object::model::{Modelled, Parameters, Prices, SharedModel};
use millrace_storage::recovery::Stores;
use millrace_storage::sim::{Ended, Sim};
use millrace_storage::wal::objects::ObjectWal;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Between two looks of a shard at what has come.
const TICK: Duration = Duration::from_millis(1);
/// Acks of requests that came earlier do not count: the governor's burst, and hedging without experience.
const WARM_UP: Duration = Duration::from_secs(5);
/// Messages of a shard that wait for its lane, as in the broker.
const TO_LANE: usize = 16;
/// Other mailboxes.
const MAILBOX: usize = 1_024;
/// What a run may take, in polls: far more than any does.
const STEPS: u64 = 1 << 32;

/// The settings under measurement.
#[derive(Clone, Copy)]
pub(crate) struct Governor {
    pub linger_ms: u64,
    /// Of each lane.
    pub tokens: u32,
    pub lanes: u16,
    pub hedge_percent: u32,
}

/// What a run came to.
pub(crate) struct Outcome {
    /// Nanoseconds, and how many requests took so long; ascending.
    acks: Vec<(u64, u64)>,
    seconds: f64,
    acked_bytes: u64,
    counted_bytes: u64,
    counted_seconds: f64,
    puts: u64,
    dollars: f64,
    pub hedges: u64,
    pub hedges_won: u64,
}

impl Outcome {
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let all: u64 = self.acks.iter().map(|(_, count)| count).sum();
        let mut left = (all as f64 * share) as u64;
        for &(nanos, count) in &self.acks {
            if left < count {
                return nanos as f64 / 1e6;
            }
            left -= count;
        }
        f64::NAN
    }

    pub(crate) fn mean_ms(&self) -> f64 {
        let (mut nanos, mut all) = (0.0, 0);
        for &(each, count) in &self.acks {
            nanos += each as f64 * count as f64;
            all += count;
        }
        nanos / all as f64 / 1e6
    }

    /// Throughput after the warm-up.
    pub(crate) fn mib_per_second(&self) -> f64 {
        self.counted_bytes as f64 / (1 << 20) as f64 / self.counted_seconds
    }

    pub(crate) fn puts_per_second(&self) -> f64 {
        self.puts as f64 / self.seconds
    }

    fn gib(&self) -> f64 {
        self.acked_bytes as f64 / (1 << 30) as f64
    }

    pub(crate) fn puts_per_gib(&self) -> f64 {
        self.puts as f64 / self.gib()
    }

    pub(crate) fn dollars_per_gib(&self) -> f64 {
        self.dollars / self.gib()
    }
}

/// Requests of one moment that share a seal.
struct Cohort {
    seal: u64,
    came: Mono,
    requests: u64,
}

/// The shard's side of one lane.
#[derive(Default)]
struct Shard {
    sealed: RefCell<VecDeque<Cohort>>,
    acks: RefCell<Vec<(u64, u64)>>,
    acked: Cell<u64>,
    /// Of those, the ones that count.
    counted: Cell<u64>,
}

/// Runs `load` on the store of `parameters` with these settings.
pub(crate) fn measure(parameters: &Parameters, load: Load, governor: Governor) -> Outcome {
    let sim = Sim::new(1, false);
    let (_, env) = sim.start_process();
    let bill = Rc::new(Bill::default());
    let sink = Rc::new(Sink { inner: MemoryStore::new().handle(env.clone()), bill: bill.clone() });
    let objects = Rc::new(Modelled::new(sink, SharedModel::new(parameters.clone()), env.clone()));
    let meta = Rc::new(MemoryMeta::new(Uuid::from_u128(7)));
    let stores = Stores { wal: Rc::new(ObjectWal::new(objects.clone())), objects, meta };
    let (shards, cells) =
        (0..governor.lanes).map(|lane| start(&env, lane, load, governor, &stores)).collect::<(Vec<_>, Vec<_>)>();
    let length = Duration::from_secs(load.seconds());
    let ended = sim.run(STEPS, sim.sleep(length));
    assert!(ended == Ended::Done, "a lane ended: {ended:?}");
    sim.shut_down();
    outcome(parameters.prices, load, &shards, &cells, &bill)
}

fn outcome(prices: Prices, load: Load, shards: &[Rc<Shard>], cells: &[Arc<LaneCells>], bill: &Bill) -> Outcome {
    let mut acks: Vec<(u64, u64)> = shards.iter().flat_map(|shard| shard.acks.take()).collect();
    acks.sort_unstable();
    let requests = |count: fn(&Shard) -> u64| shards.iter().map(|shard| count(shard)).sum::<u64>();
    let bytes = load.request_bytes() as u64;
    Outcome {
        acks,
        seconds: load.seconds() as f64,
        acked_bytes: requests(|shard| shard.acked.get()) * bytes,
        counted_bytes: requests(|shard| shard.counted.get()) * bytes,
        counted_seconds: (Duration::from_secs(load.seconds()) - WARM_UP).as_secs_f64(),
        puts: bill.puts.get(),
        dollars: prices.of(bill.puts.get(), bill.bytes.get()),
        hedges: cells.iter().map(|cells| cells.totals().hedges).sum(),
        hedges_won: cells.iter().map(|cells| cells.totals().hedges_won).sum(),
    }
}

/// Starts lane `lane` and the shard that it serves.
fn start(env: &Env, lane: u16, load: Load, governor: Governor, stores: &Stores) -> (Rc<Shard>, Arc<LaneCells>) {
    let ((commands, from_control), (to_control, reports)) = (mailbox(MAILBOX), mailbox(MAILBOX));
    let ((to_lane, from_shard), (to_shard, from_lane)) = (mailbox(TO_LANE), mailbox(MAILBOX));
    let index = ShardIndex(lane);
    let ends = LaneEnds {
        shards: vec![ShardEnd { shard: index, from: from_shard, to: to_shard }],
        commands: from_control,
        reports: to_control,
    };
    let config = LaneConfig {
        linger: Duration::from_millis(governor.linger_ms),
        puts_per_second: Some(governor.tokens),
        hedge_percent: governor.hedge_percent,
        readers_grace: Duration::from_secs(600),
        ..LaneConfig::default()
    };
    let identity = LaneIdentity { broker: "a".to_owned(), boot: BootId(1), lane };
    let cells = Arc::new(LaneCells::default());
    let pump = LanePump::new(env.clone(), identity, config, stores.clone(), ends).counted(cells.clone());
    env.spawn("lane", pump.run());
    let partition = TopicPartition { topic: TopicId(Uuid::from_u128(7)), index: u32::from(lane) };
    let shard = Rc::new(Shard::default());
    let meta = Rc::clone(&stores.meta);
    let running = shard.clone().run(env.clone(), load, governor.lanes, partition, to_lane, from_lane);
    env.spawn("shard", async move {
        let topic = Arc::new(put_topic(&*meta, partition.topic).await);
        let lead = LaneCommand::Lead { partitions: vec![ToLead { partition, shard: index, topic }] };
        commands.send(lead).expect("an empty mailbox has room");
        futures::join!(running, listen(reports));
    });
    (shard, cells)
}

/// The topic that the partitions are of; each lane puts the same.
async fn put_topic(meta: &dyn MetaStore, id: TopicId) -> TopicSeen {
    let (state, partitions, settings) = (TopicState::Live, u32::from(u16::MAX), BTreeMap::new());
    let record = TopicRecord { v: RECORD_VERSION, id, state, partitions, settings }.encode();
    let put = Op::Put(keys::topic("t"), record.clone());
    meta.txn(Txn { compares: Vec::new(), ops: vec![put] }).await.expect("a store in memory");
    TopicSeen { name: "t".to_owned(), record }
}

/// The control task's part: nothing but to take what it is told.
async fn listen(mut reports: Receiver<LaneReport>) {
    while let Some(report) = reports.recv().await {
        assert!(!matches!(report, LaneReport::Alarm { .. } | LaneReport::Fenced), "{report:?}");
    }
}

impl Shard {
    async fn run(
        self: Rc<Self>,
        env: Env,
        load: Load,
        shards: u16,
        partition: TopicPartition,
        to: Sender<ToLane>,
        mut from: Receiver<ToShard>,
    ) {
        let epoch = loop {
            match from.recv().await {
                Some(ToShard::Acquired { epoch, .. }) => break epoch,
                Some(_) => {}
                None => return,
            }
        };
        let start = env.now();
        let free = Rc::new(Cell::new(if load == Load::Producer { PRODUCER_IN_FLIGHT as u64 } else { 0 }));
        env.spawn("acks", self.clone().take_acks(env.clone(), start, load, free.clone(), from));
        let slice = Bytes::from(vec![0; load.request_bytes()]);
        let (mut offset, mut seal, mut taken) = (Offset(0), 0, 0);
        loop {
            let now = env.now();
            // Each shard takes its part of the schedule.
            let due = load.due(now.since(start).as_nanos() as u64) / u64::from(shards);
            let requests = (due - taken) + free.take();
            taken = due;
            if requests > 0 {
                self.sealed.borrow_mut().push_back(Cohort { seal, came: now, requests });
                let batch = BatchDescription {
                    length: u32::try_from(slice.len()).expect("a small request"),
                    count: 1,
                    max_timestamp: -1,
                    producer: None,
                };
                let count = usize::try_from(requests).expect("of one tick");
                let entry = SealEntry {
                    partition,
                    epoch,
                    base: offset,
                    batches: vec![batch; count],
                    slices: vec![slice.clone(); count],
                };
                let message = ToLane::Seal(Seal { number: seal, generation: 0, entries: vec![entry] });
                if to.send_waiting(message).await.is_err() {
                    return;
                }
                offset = offset.plus(i64::try_from(requests).expect("of one tick"));
                seal += 1;
            }
            env.sleep_until(now.plus(TICK)).await;
        }
    }

    async fn take_acks(
        self: Rc<Self>,
        env: Env,
        start: Mono,
        load: Load,
        free: Rc<Cell<u64>>,
        mut from: Receiver<ToShard>,
    ) {
        while let Some(message) = from.recv().await {
            let ToShard::Committed { through, .. } = message else { continue };
            let now = env.now();
            let mut sealed = self.sealed.borrow_mut();
            while sealed.front().is_some_and(|cohort| cohort.seal < through) {
                let cohort = sealed.pop_front().expect("just seen");
                self.acked.set(self.acked.get() + cohort.requests);
                if cohort.came.since(start) >= WARM_UP {
                    self.acks.borrow_mut().push((now.since(cohort.came).as_nanos() as u64, cohort.requests));
                    self.counted.set(self.counted.get() + cohort.requests);
                }
                if load == Load::Producer {
                    free.set(free.get() + cohort.requests);
                }
            }
        }
    }
}
