//! Random histories over stores that lose answers: whatever was acknowledged is read back, in order, without a gap.
//!
//! A smaller relative of the simulator: it drives lanes and recovery alone and names its seed when it fails.

use super::world::{Life, World, entry, lead, partition};
use crate::ids::{Seq, ShardIndex, TopicPartition, Wid};
use crate::lane::{LaneCommand, LaneConfig, ToLane, ToShard};
use crate::meta::memory::MemoryMeta;
use crate::meta::{KeptAlive, Key, Lease, LeaseId, MetaStore, Page, Revision, Snapshot, Txn, TxnOutcome, WatchStream};
use crate::object::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::recovery;
use crate::store_error::{FailureKind, StoreError};
use crate::wal::memory::MemoryWal;
use crate::wal::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

const PARTITIONS: u32 = 3;

/// Fate of one request.
enum Fate {
    Answered,
    AnswerLost,
    RequestLost,
}

/// Decides fates and delays; shared by the three stores.
pub(super) struct Dice {
    state: Cell<u64>,
    faulty: Cell<bool>,
    env: RefCell<Option<crate::env::Env>>,
}

impl Dice {
    fn draw(&self, below: u64) -> u64 {
        let mut x = self.state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.set(x);
        (x >> 11) % below
    }

    fn fate(&self) -> Fate {
        match self.draw(10) {
            0 if self.faulty.get() => Fate::AnswerLost,
            1 if self.faulty.get() => Fate::RequestLost,
            _ => Fate::Answered,
        }
    }

    fn wrap<T: 'static>(self: &Rc<Self>, request: impl FnOnce() -> StoreFuture<T> + 'static) -> StoreFuture<T> {
        let (dice, env) = (self.clone(), self.env.borrow().clone().expect("a life has begun"));
        Box::pin(async move {
            env.sleep(Duration::from_micros(dice.draw(3000))).await;
            let fate = dice.fate();
            let lost = || StoreError::unknown(FailureKind::Timeout, "lost");
            if matches!(fate, Fate::RequestLost) {
                return Err(lost());
            }
            let result = request().await;
            env.sleep(Duration::from_micros(dice.draw(3000))).await;
            if matches!(fate, Fate::AnswerLost) { Err(lost()) } else { result }
        })
    }
}

struct FaultyWal(MemoryWal, Rc<Dice>);
struct FaultyObjects(Rc<dyn ObjectStore>, Rc<Dice>);
struct FaultyMeta(MemoryMeta, Rc<Dice>);

impl WalStore for FaultyWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let wal = self.0.clone();
        self.1.wrap(move || wal.put_if_absent(wid, seq, slices))
    }
    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        let wal = self.0.clone();
        self.1.wrap(move || wal.header(wid, seq))
    }
    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.0.read(wid, seq, range)
    }
    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        let wal = self.0.clone();
        self.1.wrap(move || wal.suffix(wid, seq, length))
    }
    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        let wal = self.0.clone();
        self.1.wrap(move || wal.list(wid, from))
    }
    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        self.0.list_wids()
    }
    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.0.delete_below(wid, below)
    }
    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        self.0.retain_only_fence(wid, end)
    }
    fn sync_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.0.sync_below(wid, below)
    }
}

impl ObjectStore for FaultyObjects {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let (objects, key) = (self.0.clone(), key.to_owned());
        self.1.wrap(move || objects.put_if_absent(&key, slices))
    }
    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.0.put_if_match(key, bytes, version)
    }
    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        let (objects, key) = (self.0.clone(), key.to_owned());
        self.1.wrap(move || objects.get(&key))
    }
    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.0.get_range(key, range)
    }
    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.0.get_suffix(key, length)
    }
    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        self.0.list(prefix)
    }
    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        self.0.list_directories(prefix)
    }
    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        self.0.delete(keys)
    }
}

impl MetaStore for FaultyMeta {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        self.0.cluster_id()
    }
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        let meta = self.0.clone();
        self.1.wrap(move || meta.txn(txn))
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        let meta = self.0.clone();
        self.1.wrap(move || meta.get(keys))
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        self.0.list(prefix, after, limit)
    }
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        self.0.watch(prefix, after)
    }
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        self.0.grant(ttl)
    }
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        self.0.keep_alive(lease)
    }
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        self.0.revoke(lease)
    }
}

/// A shard's view of one partition.
struct Leading {
    lane: usize,
    shard: u16,
    epoch: i32,
    next: i64,
    draining: bool,
}

/// What clients know.
#[derive(Default)]
struct History {
    /// Text of every offset that was acknowledged or read.
    known: BTreeMap<(TopicPartition, i64), Vec<u8>>,
    acknowledged: usize,
    acquired: usize,
}

struct Run {
    dice: Rc<Dice>,
    world: World,
    life: Life,
    leading: BTreeMap<TopicPartition, Leading>,
    sent: BTreeMap<(TopicPartition, i32, i64), Vec<u8>>,
    history: History,
    texts: u32,
}

fn config() -> LaneConfig {
    LaneConfig {
        checkpoint_every: Duration::from_millis(300),
        checkpoint_gap: Duration::from_millis(50),
        hedge_percent: 100,
        ..LaneConfig::default()
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let dice = Rc::new(Dice {
            state: Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            faulty: Cell::new(true),
            env: RefCell::default(),
        });
        let world = World::new();
        let life = Run::begin(&world, &dice);
        Run {
            dice,
            world,
            life,
            leading: BTreeMap::new(),
            sent: BTreeMap::new(),
            history: History::default(),
            texts: 0,
        }
    }

    fn begin(world: &World, dice: &Rc<Dice>) -> Life {
        world.start_with(&config(), &[&[0, 1], &[2]], |env, world, plain| {
            *dice.env.borrow_mut() = Some(env.clone());
            recovery::Stores {
                wal: Rc::new(FaultyWal(world.wal.clone(), dice.clone())),
                objects: Rc::new(FaultyObjects(plain.objects, dice.clone())),
                meta: Rc::new(FaultyMeta(world.meta.clone(), dice.clone())),
            }
        })
    }

    fn crash(&mut self) {
        self.leading.clear();
        self.life = Run::begin(&self.world, &self.dice);
    }

    fn lane_of(shard: u16) -> usize {
        usize::from(shard == 2)
    }

    fn step(&mut self) {
        let target = partition(u32::try_from(self.dice.draw(u64::from(PARTITIONS))).expect("small"));
        match self.dice.draw(100) {
            0 => self.crash(),
            1..=8 => {
                let shard = u16::try_from(self.dice.draw(3)).expect("small");
                let lane = Run::lane_of(shard);
                let elsewhere = self.leading.get(&target).is_some_and(|led| led.lane != lane);
                if elsewhere {
                    let from = self.leading[&target].lane;
                    self.life.command(from, LaneCommand::Release { partitions: vec![target] });
                }
                for other in [0, 1] {
                    if other != lane && !elsewhere {
                        self.life.command(other, LaneCommand::Release { partitions: vec![target] });
                    }
                }
                self.life.command(lane, lead([(target, ShardIndex(shard))]));
            }
            9 => self.seal_somebody(),
            10..=60 => self.produce(target),
            _ => self.life.pass(Duration::from_millis(1 + self.dice.draw(40))),
        }
        self.listen();
    }

    /// Somebody believes that a lane is dead.
    fn seal_somebody(&mut self) {
        let wids = self.life.open_wids();
        if wids.is_empty() {
            return;
        }
        let wid = wids[usize::try_from(self.dice.draw(wids.len() as u64)).expect("small")];
        let (env, stores, boot) = (self.life.env.clone(), self.life.stores.clone(), self.life.boot);
        self.life.spawn(async move { drop(recovery::seal(&env, &stores, boot, wid).await) });
    }

    fn produce(&mut self, target: TopicPartition) {
        let Some(led) = self.leading.get_mut(&target).filter(|led| !led.draining) else { return };
        self.texts += 1;
        let text = format!("{:06}", self.texts);
        let base = led.next;
        led.next += 1;
        self.sent.insert((target, led.epoch, base), text.clone().into_bytes());
        let (lane, shard, epoch) = (led.lane, led.shard, led.epoch);
        self.life.seal_on(lane, shard, vec![entry(target, epoch, base, 1, &text)]);
    }

    fn listen(&mut self) {
        self.life.settle();
        for shard in 0..3 {
            let lane = Run::lane_of(shard);
            for message in self.life.heard_of(lane, shard) {
                self.hear(lane, shard, message);
            }
        }
        for lane in 0..2 {
            for report in self.life.reports(lane) {
                assert!(!matches!(report, crate::lane::LaneReport::Alarm { .. }), "{report:?}");
            }
        }
    }

    fn hear(&mut self, lane: usize, shard: u16, message: ToShard) {
        match message {
            ToShard::Committed { objects, .. } => {
                for entry in objects.iter().flat_map(|object| &object.footer.partitions) {
                    if self.leading.get(&entry.partition).is_none_or(|led| led.shard != shard) {
                        continue;
                    }
                    for offset in entry.base.0..=entry.last.0 {
                        let text = self.sent[&(entry.partition, entry.epoch.0, offset)].clone();
                        let known = self.history.known.entry((entry.partition, offset)).or_insert_with(|| text.clone());
                        assert_eq!(*known, text, "offset {offset} of {} given twice", entry.partition);
                        self.history.acknowledged += 1;
                    }
                }
            }
            ToShard::Covered { .. } => unreachable!("these lanes roll nothing"),
            ToShard::Acquired { partition, epoch, state } => {
                self.history.acquired += 1;
                let content = self.life.content(&state);
                assert_eq!(content.len() as i64, state.end.0 * 6, "references without a gap");
                for (&(_, offset), text) in self.history.known.range((partition, 0)..(partition, i64::MAX)) {
                    let at = usize::try_from(offset).expect("positive") * 6;
                    assert_eq!(content.get(at..at + 6), Some(text.as_slice()), "{partition} lost offset {offset}");
                }
                for (offset, text) in content.chunks(6).enumerate() {
                    self.history.known.insert((partition, i64::try_from(offset).expect("small")), text.to_vec());
                }
                let led = Leading { lane, shard, epoch: epoch.0, next: state.end.0, draining: false };
                self.leading.insert(partition, led);
            }
            ToShard::Drain { partition, epoch } => {
                if let Some(led) = self.leading.get_mut(&partition).filter(|led| led.shard == shard) {
                    led.draining = true;
                }
                let to = &self.life.lanes[lane].shards[&ShardIndex(shard)].to;
                to.send(ToLane::Drain { partition, epoch }).expect("room");
            }
            ToShard::Revoked { partition } => {
                self.leading.retain(|&led, by| led != partition || by.shard != shard);
            }
            ToShard::StoreFull(_) => {}
            ToShard::Looked { .. } => panic!("nobody asked"),
            ToShard::Fenced { generation } => {
                self.leading.retain(|_, led| led.shard != shard);
                let shard = self.life.lanes[lane].shards.get_mut(&ShardIndex(shard)).expect("of the lane");
                shard.generation = generation;
            }
        }
    }

    /// Heals everything: every partition must be led and take records.
    fn heal(&mut self) {
        self.dice.faulty.set(false);
        self.crash();
        for index in 0..PARTITIONS {
            self.life.command(0, lead([(partition(index), ShardIndex(0))]));
        }
        for _ in 0..20 {
            self.life.pass(Duration::from_millis(200));
            self.listen();
        }
        let before = self.history.acknowledged;
        for index in 0..PARTITIONS {
            assert!(self.leading.contains_key(&partition(index)), "{index} has no leader");
            self.produce(partition(index));
        }
        self.life.pass(Duration::from_secs(1));
        self.listen();
        assert_eq!(self.history.acknowledged - before, PARTITIONS as usize);
    }
}

fn history(seed: u64, steps: u32) -> History {
    let mut run = Run::new(seed);
    for _ in 0..steps {
        run.step();
    }
    run.heal();
    run.history
}

#[test]
fn nothing_acknowledged_is_lost_in_random_histories() {
    let seeds = std::env::var("LANE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let (mut acknowledged, mut acquired) = (0, 0);
    for seed in 1..=seeds {
        let outcome = std::panic::catch_unwind(|| history(seed, 400));
        let history = outcome.unwrap_or_else(|_| panic!("seed {seed}"));
        acknowledged += history.acknowledged;
        acquired += history.acquired;
    }
    assert!(acknowledged > 10 * usize::try_from(seeds).expect("few"), "only {acknowledged} acknowledged");
    assert!(acquired > 4 * usize::try_from(seeds).expect("few"), "only {acquired} acquired");
}

/// Mistakes of the lane and of recovery that these histories must find. The others need what only the simulator has:
/// producers with sequences, requests that land late, deletion in the middle of a seal.
#[cfg(feature = "wrong-variants")]
#[test]
fn random_histories_find_the_mistakes_of_the_lane() {
    use crate::wrong::{Wrong, choose};
    let variants = [
        Wrong::AckBeforeDurable,
        Wrong::AckOutOfSequenceOrder,
        Wrong::AmbiguousErrorTakenForSuccess,
        Wrong::FenceAtFirstGapOfListing,
        Wrong::LowestFenceTakenForEnd,
        Wrong::ObjectDeletedBeforeManifest,
        Wrong::ClaimsBeforeCheckpointTxn,
        Wrong::UnchangedRecordTakenForLost,
        Wrong::CheckpointBetweenClaims,
        Wrong::CheckpointOfAppended,
        Wrong::CheckpointDropsReleased,
        Wrong::MoveBumpsEpochOnly,
        Wrong::DeadVolleyTakenForData,
        Wrong::BytesChangedOnRetry,
        Wrong::DrainedBatchesDropped,
        Wrong::NoFence,
    ];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for variant in variants {
        choose(Some(variant));
        let caught = (1..=100_u64).any(|seed| std::panic::catch_unwind(|| history(seed, 400)).is_err());
        choose(None);
        if !caught {
            missed.push(variant);
        }
    }
    std::panic::set_hook(hook);
    assert_eq!(missed, [], "not found within a hundred seeds");
}
