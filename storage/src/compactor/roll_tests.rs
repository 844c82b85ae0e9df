//! A roll beside everything that may happen to it.

use super::background::{Background, SegmentTotals};
use super::manifest;
use super::roll::{Roll, RollError, roll};
use crate::env::Env;
use crate::format::manifest::{Manifest, SegmentName, manifest_key};
use crate::ids::{LeaderEpoch, Offset, Seq, TopicId, TopicPartition, Wid};
use crate::meta::memory::MemoryMeta;
use crate::object::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::partition::{EpochHistory, Reference};
use crate::recovery::Stores;
use crate::segment::{WholeSegment, data_key, index_key};
use crate::sim::{Faults, Sim, SimBucket};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix, WalStore};
use bytes::Bytes;
use millrace_protocol::records::BatchBuilder;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

const W: Wid = Wid(5);
/// What stands before the entry in each object here.
const BEFORE: u32 = 64;

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), index: 3 }
}

/// A batch of two records.
fn batch(base: i64) -> Bytes {
    let mut builder = BatchBuilder::new(1_000 + base);
    (0..2).for_each(|_| builder.push(None, Some(b"value")));
    let mut bytes = builder.finish();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes.into()
}

/// The entry that holds `base` and the offset after it.
fn reference(base: i64) -> Reference {
    let length = u32::try_from(batch(base).len()).expect("small");
    let seq = Seq(base.unsigned_abs());
    let last = Offset(base + 1);
    Reference { wid: W, seq, position: BEFORE, length, base: Offset(base), last, max_timestamp: 1_000 + base }
}

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accident {
    /// It is not done.
    Refused,
    /// It is done, but nobody hears of it.
    Unheard,
    /// Nor are all that follow done.
    Outage,
}

/// The bucket, with an accident at one request, or something done by another just before it.
#[derive(Clone)]
struct Shaken {
    bucket: SimBucket,
    requests: Rc<Cell<usize>>,
    accident: Option<(usize, Accident)>,
    before: Rc<RefCell<Option<(String, Interloper)>>>,
}

/// What another does to the bucket.
type Interloper = Box<dyn FnOnce(&SimBucket)>;

fn refused<T>() -> Result<T, StoreError> {
    Err(StoreError::not_done(FailureKind::Unavailable, "as asked"))
}

impl Shaken {
    fn calm(bucket: &SimBucket) -> Shaken {
        Shaken { bucket: bucket.clone(), requests: Rc::default(), accident: None, before: Rc::default() }
    }

    fn ask<T: 'static>(&self, ask: impl FnOnce(&SimBucket) -> StoreFuture<T>) -> StoreFuture<T> {
        let number = self.requests.replace(self.requests.get() + 1);
        match self.accident {
            Some((at, Accident::Refused)) if at == number => Box::pin(async { refused() }),
            Some((at, Accident::Outage)) if at <= number => Box::pin(async { refused() }),
            Some((at, Accident::Unheard)) if at == number => {
                let done = ask(&self.bucket);
                Box::pin(async {
                    done.await?;
                    Err(StoreError::unknown(FailureKind::Timeout, "as asked"))
                })
            }
            _ => ask(&self.bucket),
        }
    }

    /// Lets the other do it before the first request that changes `key`.
    fn interlope(&self, key: &str) {
        let of_it = self.before.borrow().as_ref().is_some_and(|(wanted, _)| wanted == key);
        if of_it && let Some((_, interloper)) = self.before.take() {
            interloper(&self.bucket);
        }
    }
}

impl ObjectStore for Shaken {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.interlope(key);
        self.ask(|bucket| ObjectStore::put_if_absent(bucket, key, slices))
    }
    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.interlope(key);
        self.ask(|bucket| bucket.put_if_match(key, bytes, version))
    }
    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        self.ask(|bucket| bucket.get(key))
    }
    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.ask(|bucket| bucket.get_range(key, range))
    }
    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.ask(|bucket| bucket.get_suffix(key, length))
    }
    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        self.ask(|bucket| ObjectStore::list(bucket, prefix))
    }
    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        self.ask(|bucket| bucket.list_directories(prefix))
    }
    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        self.ask(|bucket| bucket.delete(keys))
    }
}

struct World {
    sim: Sim,
    env: Env,
    bucket: SimBucket,
    background: Rc<Background>,
    rolls: u64,
}

impl World {
    /// Offsets 0 to 9 in five write-ahead objects.
    fn new() -> World {
        let sim = Sim::new(1, false);
        let bucket = SimBucket::new(&sim, Faults::none());
        let (_, env) = sim.start_process();
        let mut world = World { sim, env, bucket, background: Rc::default(), rolls: 0 };
        for base in [0, 2, 4, 6, 8] {
            let object = vec![Bytes::from(vec![0; BEFORE as usize]), batch(base), Bytes::from_static(b"what follows")];
            let put = WalStore::put_if_absent(&world.bucket, W, Seq(base.unsigned_abs()), object);
            assert_eq!(world.wait(put), Ok(PutOutcome::Stored));
        }
        world
    }

    fn wait<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let done = Rc::new(RefCell::new(None));
        let into = done.clone();
        self.sim.run(100_000, async move { *into.borrow_mut() = Some(future.await) });
        done.take().expect("it ends")
    }

    /// A roll of the entries with these bases.
    fn of(&mut self, bases: &[i64]) -> Roll {
        self.rolls += 1;
        let mut epochs = EpochHistory::default();
        epochs.append(LeaderEpoch(1), Offset(0));
        Roll {
            partition: partition(),
            log_start: Offset(0),
            epochs,
            references: bases.iter().map(|base| reference(*base)).collect(),
            held: BTreeMap::new(),
            name: SegmentName { wid: Wid(9), number: self.rolls },
        }
    }

    fn roll_in(&mut self, shaken: &Shaken, what: Roll) -> Result<Offset, RollError> {
        let meta = Rc::new(MemoryMeta::new(uuid::Uuid::from_u128(1)));
        let stores = Stores { wal: Rc::new(self.bucket.clone()), objects: Rc::new(shaken.clone()), meta };
        let (env, background) = (self.env.clone(), self.background.clone());
        self.wait(async move { Ok(roll(&env, &stores, &background, what).await?.covered) })
    }

    fn roll(&mut self, what: Roll) -> Result<Offset, RollError> {
        let calm = Shaken::calm(&self.bucket);
        self.roll_in(&calm, what)
    }

    fn manifest(&self) -> Manifest {
        let found = self.bucket.peek(&manifest_key(partition()));
        found.map_or(Manifest::empty(partition()), |bytes| Manifest::decode(&bytes).expect("ours"))
    }

    /// The manifest names segments that hold exactly what was written from `from` up to where it says.
    fn assert_covered(&self, from: i64, covered: i64) {
        let manifest = self.manifest();
        assert_eq!(manifest.covered, Offset(covered));
        let mut held = Vec::new();
        for named in &manifest.segments {
            let file = self.bucket.peek(&data_key(partition(), named.name, named.segment.base)).expect("named");
            assert!(self.bucket.peek(&index_key(partition(), named.name, named.segment.base)).is_some());
            let whole = WholeSegment::read(&file).expect("whole");
            held.extend(whole.batches.iter().flat_map(|placed| placed.batch.bytes().to_vec()));
        }
        let written: Vec<u8> = (from..covered).step_by(2).flat_map(|base| batch(base).to_vec()).collect();
        assert_eq!(held, written);
    }

    fn totals(&self) -> SegmentTotals {
        self.background.meter.totals()
    }
}

#[test]
fn rolls_follow_each_other_and_count_what_they_do() {
    let mut world = World::new();
    let first = world.of(&[0, 2]);
    assert_eq!(world.roll(first), Ok(Offset(4)));
    let second = world.of(&[4, 6, 8]);
    assert_eq!(world.roll(second), Ok(Offset(10)));
    world.assert_covered(0, 10);
    let bytes = u64::from(reference(0).length);
    let totals = world.totals();
    assert_eq!((totals.rolls, totals.segments, totals.manifests), (2, 2, 2));
    assert_eq!((totals.roll_reads, totals.roll_read_bytes, totals.roll_held_bytes), (5, 5 * bytes, 0));
    assert_eq!(totals.segment_bytes, 5 * bytes + 2 * 48);
}

#[test]
fn what_is_in_memory_is_not_read() {
    let mut world = World::new();
    // Its objects are not even there.
    for seq in [0, 4] {
        world.bucket.damage(&format!("wal/{W}/{seq:020}"), None);
    }
    let what = Roll { held: BTreeMap::from([(Offset(0), batch(0)), (Offset(4), batch(4))]), ..world.of(&[0, 2, 4]) };
    assert_eq!(world.roll(what), Ok(Offset(6)));
    world.assert_covered(0, 6);
    let bytes = u64::from(reference(0).length);
    let totals = world.totals();
    assert_eq!((totals.roll_reads, totals.roll_read_bytes, totals.roll_held_bytes), (1, bytes, 2 * bytes));
}

#[test]
fn an_accident_at_any_step_leaves_litter_at_most_and_the_next_roll_succeeds() {
    for accident in [Accident::Refused, Accident::Unheard, Accident::Outage] {
        let mut at = 0;
        loop {
            let mut world = World::new();
            let first = world.of(&[0, 2]);
            assert_eq!(world.roll(first), Ok(Offset(4)));
            let shaken = Shaken { accident: Some((at, accident)), ..Shaken::calm(&world.bucket) };
            let second = world.of(&[4, 6, 8]);
            let result = world.roll_in(&shaken, second);
            match &result {
                Ok(covered) => assert_eq!(*covered, Offset(10), "{accident:?} at {at}"),
                Err(RollError::Store(_)) => {
                    let again = world.of(&[4, 6, 8]);
                    assert_eq!(world.roll(again), Ok(Offset(10)), "{accident:?} at {at}");
                }
                Err(error) => panic!("{accident:?} at {at}: {error}"),
            }
            world.assert_covered(0, 10);
            if shaken.requests.get() <= at {
                break;
            }
            assert!(accident != Accident::Outage || result.is_err(), "at {at}");
            at += 1;
        }
        assert!(at >= 4, "manifest, segment, index, manifest: {at}");
    }
}

#[test]
fn what_somebody_else_has_rolled_is_not_rolled_again() {
    let mut world = World::new();
    let theirs = world.of(&[0, 2, 4]);
    assert_eq!(world.roll(theirs), Ok(Offset(6)));
    let keys = world.bucket.keys("seg/");
    let ours = world.of(&[0, 2]);
    assert_eq!(world.roll(ours), Ok(Offset(6)));
    assert_eq!(world.bucket.keys("seg/"), keys, "nothing was put");
}

#[test]
fn of_two_that_roll_the_same_the_first_manifest_counts() {
    let mut world = World::new();
    let theirs = world.of(&[0, 2, 4, 6]);
    assert_eq!(world.roll(theirs), Ok(Offset(8)));
    let theirs = world.bucket.peek(&manifest_key(partition())).expect("just put");
    world.bucket.damage(&manifest_key(partition()), None);
    let shaken = Shaken::calm(&world.bucket);
    let put: Interloper = Box::new(move |bucket| bucket.damage(&manifest_key(partition()), Some(theirs)));
    shaken.before.replace(Some((manifest_key(partition()), put)));
    let ours = world.of(&[0, 2]);
    assert_eq!(world.roll_in(&shaken, ours), Ok(Offset(8)));
    world.assert_covered(0, 8);
    assert_eq!(world.totals().manifests, 1, "ours was refused");
}

#[test]
fn a_manifest_that_changed_without_the_offsets_has_the_segment_written_anew() {
    let mut world = World::new();
    let first = world.of(&[0, 2]);
    assert_eq!(world.roll(first), Ok(Offset(4)));
    let mut raised = world.manifest();
    raised.log_start = Offset(1);
    let raised = raised.encode();
    let shaken = Shaken::calm(&world.bucket);
    let put: Interloper = Box::new(move |bucket| bucket.damage(&manifest_key(partition()), Some(raised)));
    shaken.before.replace(Some((manifest_key(partition()), put)));
    let ours = world.of(&[4, 6]);
    let refused = ours.name;
    let error = world.roll_in(&shaken, ours).expect_err("rule R1");
    assert!(matches!(&error, RollError::Store(_)), "{error}");
    let again = world.of(&[4, 6]);
    assert_eq!(world.roll(again), Ok(Offset(8)));
    world.assert_covered(0, 8);
    assert_eq!(world.manifest().log_start, Offset(1), "the change of the other stands");
    assert!(world.manifest().segments.iter().all(|named| named.name != refused));
}

#[test]
fn an_object_that_is_gone_or_cut_off_or_damaged_ends_the_roll_with_damage() {
    let key = format!("wal/{W}/{:020}", 2);
    let whole = World::new().bucket.peek(&key).expect("put");
    let mut flipped = whole.to_vec();
    flipped[BEFORE as usize + 65] ^= 1;
    for bytes in [None, Some(whole.slice(..80)), Some(flipped.into())] {
        let mut world = World::new();
        world.bucket.damage(&key, bytes);
        let what = world.of(&[0, 2]);
        let error = world.roll(what).expect_err("damaged");
        assert!(matches!(&error, RollError::Damage(_)), "{error}");
        assert_eq!((world.manifest(), world.bucket.keys("seg/").len()), (Manifest::empty(partition()), 0));
    }
}

#[test]
fn references_with_a_gap_between_them_are_no_segment() {
    let mut world = World::new();
    let what = world.of(&[0, 4]);
    assert!(matches!(world.roll(what), Err(RollError::Damage(_))));
}

#[test]
fn segments_below_a_log_start_that_was_raised_beyond_them_are_named_no_more() {
    let mut world = World::new();
    let first = world.of(&[0, 2]);
    assert_eq!(world.roll(first), Ok(Offset(4)));
    // The references from 4 to 7 went with the log start.
    let gap = world.of(&[8]);
    assert!(matches!(world.roll(gap), Err(RollError::Damage(_))), "nothing says that 4 to 7 may be gone");
    let raised = Roll { log_start: Offset(8), ..world.of(&[8]) };
    assert_eq!(world.roll(raised), Ok(Offset(10)));
    world.assert_covered(8, 10);
    assert_eq!(world.manifest().log_start, Offset(8));
}

#[test]
fn the_manifest_knows_the_epochs_of_what_it_covers() {
    let mut world = World::new();
    let mut what = world.of(&[0, 2, 4]);
    for (epoch, start) in [(2, 4), (3, 6), (4, 6)] {
        what.epochs.append(LeaderEpoch(epoch), Offset(start));
    }
    let mut rest = world.of(&[6]);
    rest.epochs = what.epochs.clone();
    assert_eq!(world.roll(what), Ok(Offset(6)));
    let starts =
        |manifest: &Manifest| manifest.epochs.starts().iter().map(|one| (one.epoch.0, one.start.0)).collect::<Vec<_>>();
    assert_eq!(starts(&world.manifest()), [(1, 0), (2, 4)]);
    assert_eq!(world.roll(rest), Ok(Offset(8)));
    assert_eq!(starts(&world.manifest())[..2], [(1, 0), (2, 4)]);
    assert_eq!(starts(&world.manifest()).last(), Some(&(4, 6)));
}

#[test]
fn rolls_take_turns_which_are_fewer_while_produce_is_at_work() {
    let mut world = World::new();
    let time_of = |world: &mut World, busy: bool| {
        world.background.set_busy(busy);
        let (env, background) = (world.env.clone(), world.background.clone());
        world.wait(async move {
            let began = env.now();
            for _ in 0..100 {
                background.turn(&env).await;
            }
            env.now().since(began).as_millis()
        })
    };
    let (idle, busy) = (time_of(&mut world, false), time_of(&mut world, true));
    assert!((99..150).contains(&idle) && (297..350).contains(&busy), "{idle} and {busy} ms for 100 MiB");
}

#[test]
fn a_manifest_of_another_partition_is_not_taken_for_ours() {
    let mut world = World::new();
    let other = TopicPartition { index: 4, ..partition() };
    world.bucket.damage(&manifest_key(partition()), Some(Manifest::empty(other).encode()));
    let what = world.of(&[0]);
    let error = world.roll(what).expect_err("corrupt");
    assert!(matches!(&error, RollError::Store(error) if error.kind == FailureKind::Corrupt), "{error}");
    let objects = world.bucket.clone();
    assert!(world.wait(async move { manifest::read(&objects, partition()).await }).is_err());
}
