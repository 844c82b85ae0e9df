//! A process in virtual time: lanes over memory stores on one pool, the test in the place of shards and control task.

use crate::env::{Env, Mono, Runtime, WallMs};
use crate::ids::{BootId, LeaderEpoch, Offset, ShardIndex, TopicId, TopicPartition, Wid};
use crate::lane::{
    BatchDescription, LaneCells, LaneCommand, LaneConfig, LaneEnds, LaneIdentity, LanePump, LaneReport, LaneTotals,
    Seal, SealEntry, ShardEnd, ToLane, ToLead, ToShard, TopicSeen,
};
use crate::mailbox::{Receiver, Sender, mailbox};
use crate::meta::memory::MemoryMeta;
use crate::meta::records::{PartitionRecord, RECORD_VERSION, Record, TopicRecord, TopicState, WalRecord, WalState};
use crate::meta::{MetaStore, Op, Txn, keys};
use crate::object::memory::MemoryStore;
use crate::partition::CommittedPartition;
use crate::recovery::{self, Stores};
use crate::wal::memory::MemoryWal;
use bytes::Bytes;
use futures::executor::LocalPool;
use futures::future::LocalBoxFuture;
use futures::task::LocalSpawnExt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Virtual time: sleepers wake when the pool has nothing else to do.
#[derive(Default)]
struct Clock {
    now: Cell<u64>,
    random: Cell<u64>,
    sleepers: RefCell<BTreeMap<(u64, u64), std::task::Waker>>,
    spawned: RefCell<Vec<LocalBoxFuture<'static, ()>>>,
}

impl Clock {
    fn draw(&self) -> u64 {
        let mut x = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(x);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^ (x >> 27)
    }
}

struct Virtual(Rc<Clock>);

impl Runtime for Virtual {
    fn now(&self) -> Mono {
        Mono(self.0.now.get())
    }
    fn wall(&self) -> WallMs {
        WallMs(1_700_000_000_000 + i64::try_from(self.0.now.get() / 1_000_000).expect("small"))
    }
    fn random(&self) -> u64 {
        self.0.draw()
    }
    fn spawn(&self, _name: &'static str, task: LocalBoxFuture<'static, ()>) {
        self.0.spawned.borrow_mut().push(task);
    }
    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        let (clock, id) = (self.0.clone(), self.0.draw());
        Box::pin(std::future::poll_fn(move |cx| {
            if clock.now.get() >= at.0 {
                clock.sleepers.borrow_mut().remove(&(at.0, id));
                return Poll::Ready(());
            }
            clock.sleepers.borrow_mut().insert((at.0, id), cx.waker().clone());
            Poll::Pending
        }))
    }
}

/// Stores that outlive processes.
#[derive(Clone)]
pub(super) struct World {
    pub wal: MemoryWal,
    pub objects: MemoryStore,
    pub meta: MemoryMeta,
    boots: Rc<Cell<u64>>,
}

/// One life of a process. Dropping it is a crash.
pub(super) struct Life {
    pool: LocalPool,
    clock: Rc<Clock>,
    pub env: Env,
    pub stores: Stores,
    pub boot: BootId,
    world_meta: MemoryMeta,
    pub lanes: Vec<LaneHandle>,
}

/// The test's ends of one lane.
pub(super) struct LaneHandle {
    pub commands: Sender<LaneCommand>,
    pub reports: Receiver<LaneReport>,
    pub shards: BTreeMap<ShardIndex, ShardHandle>,
    pub cells: Arc<LaneCells>,
}

/// The test's ends of one shard.
pub(super) struct ShardHandle {
    pub to: Sender<ToLane>,
    pub from: Receiver<ToShard>,
    seals: u64,
    pub generation: u64,
}

impl World {
    pub(super) fn new() -> World {
        let world = World {
            wal: MemoryWal::new(u64::MAX),
            objects: MemoryStore::new(),
            meta: MemoryMeta::new(uuid::Uuid::from_u128(1)),
            boots: Rc::default(),
        };
        world.put_topic(Some(TopicState::Live));
        world
    }

    /// Makes the topic of every [`partition`] stand so, or be gone.
    pub(super) fn put_topic(&self, state: Option<TopicState>) {
        let topic = topic(state.unwrap_or(TopicState::Live));
        let key = keys::topic(&topic.name);
        let op = if state.is_some() { Op::Put(key, topic.record) } else { Op::Delete(key) };
        futures::executor::block_on(self.meta.txn(Txn { compares: vec![], ops: vec![op] })).expect("memory");
    }

    /// A new life with one lane for shards 0 and 1; what was open before is sealed first.
    pub(super) fn start(&self, config: &LaneConfig) -> Life {
        self.start_lanes(config, &[&[0, 1]])
    }

    /// A new life with a lane per list of shards.
    pub(super) fn start_lanes(&self, config: &LaneConfig, lanes: &[&[u16]]) -> Life {
        self.start_with(config, lanes, |_, _, stores| stores)
    }

    /// A new life whose stores are what `wrap` makes of the world's.
    pub(super) fn start_with(
        &self,
        config: &LaneConfig,
        lanes: &[&[u16]],
        wrap: impl FnOnce(&Env, &World, Stores) -> Stores,
    ) -> Life {
        self.boots.set(self.boots.get() + 1);
        let clock = Rc::new(Clock { random: Cell::new(self.boots.get() << 40), ..Clock::default() });
        let env = Env::new(Rc::new(Virtual(clock.clone())));
        let plain = Stores {
            wal: Rc::new(self.wal.clone()),
            objects: Rc::new(self.objects.handle(env.clone())),
            meta: Rc::new(self.meta.clone()),
        };
        let stores = wrap(&env, self, plain);
        let boot = BootId(self.boots.get());
        let mut life =
            Life { pool: LocalPool::new(), clock, env, stores, boot, world_meta: self.meta.clone(), lanes: Vec::new() };
        let sealed = || {
            let (env, stores) = (life.env.clone(), life.stores.clone());
            async move { while recovery::seal_all_dead(&env, &stores, boot).await.is_err() {} }
        };
        let sealed = sealed();
        life.run(sealed);
        for (index, shards) in lanes.iter().enumerate() {
            life.add_lane(config, u16::try_from(index).expect("few"), shards);
        }
        life
    }
}

impl Life {
    fn add_lane(&mut self, config: &LaneConfig, lane: u16, shards: &[u16]) {
        let (commands, command_end) = mailbox(64);
        let (report_end, reports) = mailbox(4096);
        let mut handles = BTreeMap::new();
        let mut ends = Vec::new();
        for &shard in shards {
            let (to, from_shard) = mailbox(256);
            let (to_shard, from) = mailbox(4096);
            let shard = ShardIndex(shard);
            ends.push(ShardEnd { shard, from: from_shard, to: to_shard });
            handles.insert(shard, ShardHandle { to, from, seals: 0, generation: 0 });
        }
        let identity = LaneIdentity { broker: "test".into(), boot: self.boot, lane };
        let ends = LaneEnds { shards: ends, commands: command_end, reports: report_end };
        let cells: Arc<LaneCells> = Arc::default();
        let pump = LanePump::new(self.env.clone(), identity, config.clone(), self.stores.clone(), ends);
        self.pool.spawner().spawn_local(pump.counted(cells.clone()).run()).expect("the pool lives");
        self.lanes.push(LaneHandle { commands, reports, shards: handles, cells });
    }

    /// What a lane has counted.
    pub(super) fn totals(&self, lane: usize) -> LaneTotals {
        self.lanes[lane].cells.totals()
    }

    /// Runs until nothing can go on at this instant.
    pub(super) fn settle(&mut self) {
        loop {
            self.pool.run_until_stalled();
            let spawned = std::mem::take(&mut *self.clock.spawned.borrow_mut());
            if spawned.is_empty() {
                return;
            }
            for task in spawned {
                self.pool.spawner().spawn_local(task).expect("the pool lives");
            }
        }
    }

    /// Lets `time` pass, timer by timer.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.clock.now.get() + u64::try_from(time.as_nanos()).expect("short");
        loop {
            self.settle();
            let next = self.clock.sleepers.borrow().keys().next().copied().filter(|(at, _)| *at <= end);
            let Some((at, id)) = next else { break };
            let waker = self.clock.sleepers.borrow_mut().remove(&(at, id)).expect("just seen");
            self.clock.now.set(self.clock.now.get().max(at));
            waker.wake();
        }
        self.clock.now.set(end);
        self.settle();
    }

    /// Runs a future on the side.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.pool.spawner().spawn_local(future).expect("the pool lives");
    }

    /// Logs that lanes of this life reported to be open.
    pub(super) fn open_wids(&mut self) -> Vec<Wid> {
        let page = futures::executor::block_on(self.world_meta.list(keys::WALS, None, 1000)).expect("memory");
        let open = |value: &[u8]| WalRecord::decode(value).is_ok_and(|record| record.state == WalState::Open);
        page.entries
            .iter()
            .filter(|(_, found)| open(&found.value))
            .filter_map(|(key, _)| keys::parse_wal(key))
            .collect()
    }

    /// Runs a future to its end; time passes as it needs.
    pub(super) fn run<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.pool
            .spawner()
            .spawn_local(async move { *slot.borrow_mut() = Some(future.await) })
            .expect("the pool lives");
        for _ in 0..100_000 {
            self.settle();
            if let Some(done) = result.borrow_mut().take() {
                return done;
            }
            self.pass(Duration::from_millis(1));
        }
        panic!("the future never ends");
    }

    pub(super) fn command(&self, lane: usize, command: LaneCommand) {
        self.lanes[lane].commands.send(command).expect("room");
    }

    /// All messages for a shard of lane 0 so far.
    pub(super) fn heard(&mut self, shard: u16) -> Vec<ToShard> {
        self.heard_of(0, shard)
    }

    pub(super) fn heard_of(&mut self, lane: usize, shard: u16) -> Vec<ToShard> {
        let handle = self.lanes[lane].shards.get_mut(&ShardIndex(shard)).expect("a shard of the lane");
        std::iter::from_fn(|| handle.from.try_recv()).collect()
    }

    pub(super) fn reports(&mut self, lane: usize) -> Vec<LaneReport> {
        std::iter::from_fn(|| self.lanes[lane].reports.try_recv()).collect()
    }

    /// Has lane 0 lead `partition` for `shard`, gives its state.
    pub(super) fn lead(&mut self, partition: TopicPartition, shard: u16) -> CommittedPartition {
        self.lead_on(0, partition, shard)
    }

    pub(super) fn lead_on(&mut self, lane: usize, partition: TopicPartition, shard: u16) -> CommittedPartition {
        self.command(lane, lead([(partition, ShardIndex(shard))]));
        self.pass(Duration::from_secs(2));
        self.heard_of(lane, shard)
            .into_iter()
            .find_map(|message| match message {
                ToShard::Acquired { partition: acquired, state, .. } if acquired == partition => Some(*state),
                _ => None,
            })
            .expect("led within two seconds")
    }

    /// Sends a seal with one batch of `count` records of `text`.
    pub(super) fn seal(&mut self, shard: u16, entry: SealEntry) -> u64 {
        self.seal_on(0, shard, vec![entry])
    }

    pub(super) fn seal_on(&mut self, lane: usize, shard: u16, entries: Vec<SealEntry>) -> u64 {
        let handle = self.lanes[lane].shards.get_mut(&ShardIndex(shard)).expect("a shard of the lane");
        let number = handle.seals;
        handle.seals += 1;
        let seal = Seal { number, generation: handle.generation, entries };
        handle.to.send(ToLane::Seal(seal)).expect("room");
        number
    }

    pub(super) fn drained(&self, lane: usize, shard: u16, partition: TopicPartition) {
        self.drained_at(lane, shard, partition, 1);
    }

    pub(super) fn drained_at(&self, lane: usize, shard: u16, partition: TopicPartition, epoch: i32) {
        let handle = &self.lanes[lane].shards[&ShardIndex(shard)];
        handle.to.send(ToLane::Drain { partition, epoch: LeaderEpoch(epoch) }).expect("room");
    }

    /// The record of a partition.
    pub(super) fn record(&mut self, partition: TopicPartition) -> PartitionRecord {
        let meta = self.stores.meta.clone();
        let read = self.run(async move { meta.get(vec![keys::partition(partition)]).await }).expect("memory");
        PartitionRecord::decode(&read.values[0].as_ref().expect("born").value).expect("valid")
    }

    /// The record of a log.
    pub(super) fn wal_record(&mut self, wid: Wid) -> Option<WalRecord> {
        let meta = self.stores.meta.clone();
        let read = self.run(async move { meta.get(vec![keys::wal(wid)]).await }).expect("memory");
        read.values[0].as_ref().map(|found| WalRecord::decode(&found.value).expect("valid"))
    }

    /// The bytes of everything that a state refers to.
    pub(super) fn content(&mut self, state: &CommittedPartition) -> Vec<u8> {
        let mut all = Vec::new();
        for one in state.references.iter() {
            let range = u64::from(one.position)..u64::from(one.position + one.length);
            let read = self.stores.wal.read(one.wid, one.seq, range);
            all.extend_from_slice(&self.run(read).expect("memory").expect("referenced objects exist"));
        }
        all
    }
}

/// The topic of every [`partition`], as the control task sees it.
pub(super) fn topic(state: TopicState) -> TopicSeen {
    let (id, settings) = (partition(0).topic, BTreeMap::new());
    let record = TopicRecord { v: RECORD_VERSION, id, state, partitions: 10_000, settings };
    TopicSeen { name: "t".to_owned(), record: record.encode() }
}

/// What has a lane lead partitions of that topic, which is LIVE.
pub(super) fn lead(partitions: impl IntoIterator<Item = (TopicPartition, ShardIndex)>) -> LaneCommand {
    let seen = Arc::new(topic(TopicState::Live));
    let to_lead = |(partition, shard)| ToLead { partition, shard, topic: Arc::clone(&seen) };
    LaneCommand::Lead { partitions: partitions.into_iter().map(to_lead).collect() }
}

pub(super) fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), index }
}

/// One batch of `count` records whose bytes are `text`.
pub(super) fn entry(partition: TopicPartition, epoch: i32, base: i64, count: u32, text: &str) -> SealEntry {
    let batch =
        BatchDescription { length: u32::try_from(text.len()).expect("short"), count, max_timestamp: 5, producer: None };
    SealEntry {
        partition,
        epoch: LeaderEpoch(epoch),
        base: Offset(base),
        batches: vec![batch],
        slices: vec![Bytes::copy_from_slice(text.as_bytes())],
    }
}

/// The highest `through` of some messages and the number of objects committed.
pub(super) fn committed(messages: &[ToShard]) -> (u64, usize) {
    messages.iter().fold((0, 0), |(through, objects), message| match message {
        ToShard::Committed { through: higher, objects: more, .. } => (through.max(*higher), objects + more.len()),
        _ => (through, objects),
    })
}
