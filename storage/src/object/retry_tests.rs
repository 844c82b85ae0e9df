//! Reads, deletions and own objects get through faults that pass, in virtual time; conditional puts are sent once.

use super::*;
use crate::meter::StoreMeter;
use crate::object::counted::Counted;
use crate::sim::{Ended, ProcessId, Sim};
use futures::future::{join_all, ready};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// How a store takes one request: after what time it answers, and what.
type Manner = Box<dyn Fn(u64, Mono) -> (Duration, Result<(), StoreError>)>;

/// A store whose every request, numbered from 0, goes as a function of its number and the time says.
struct Faulty {
    env: Env,
    manner: Manner,
    requests: Cell<u64>,
    inside: Rc<Cell<u64>>,
    most_inside: Rc<Cell<u64>>,
}

impl Faulty {
    fn take<T: 'static>(&self, answer: T) -> StoreFuture<T> {
        let number = self.requests.replace(self.requests.get() + 1);
        let (after, result) = (self.manner)(number, self.env.now());
        let (env, inside, most) = (self.env.clone(), self.inside.clone(), self.most_inside.clone());
        inside.set(inside.get() + 1);
        most.set(most.get().max(inside.get()));
        Box::pin(async move {
            env.sleep(after).await;
            inside.set(inside.get() - 1);
            result.map(|()| answer)
        })
    }
}

#[rustfmt::skip]
impl ObjectStore for Faulty {
    fn put_if_absent(&self, _: &str, _: Vec<Bytes>) -> StoreFuture<PutOutcome> { self.take(PutOutcome::AlreadyExists) }
    fn put_if_match(&self, _: &str, _: Bytes, _: Version) -> StoreFuture<MatchOutcome> { self.take(MatchOutcome::Changed) }
    fn get(&self, _: &str) -> StoreFuture<Option<Object>> { self.take(None) }
    fn get_range(&self, _: &str, _: Range<u64>) -> StoreFuture<Option<Bytes>> { self.take(None) }
    fn get_suffix(&self, _: &str, _: u64) -> StoreFuture<Option<Suffix>> { self.take(None) }
    fn list(&self, _: &str) -> StoreFuture<Vec<ListedObject>> { self.take(Vec::new()) }
    fn list_directories(&self, _: &str) -> StoreFuture<Vec<String>> { self.take(Vec::new()) }
    fn delete(&self, _: Vec<String>) -> StoreFuture<()> { self.take(()) }
}

struct World {
    env: Env,
    faulty: Rc<Faulty>,
    store: Retrying,
    meter: Arc<StoreMeter>,
}

impl World {
    fn requests(&self) -> u64 {
        self.faulty.requests.get()
    }

    fn extras(&self, operation: Operation) -> [u64; Extra::ALL.len()] {
        Extra::ALL.map(|extra| self.meter.extras(operation, extra))
    }
}

/// Runs `scenario` in virtual time with a store of this manner, of whose calls at most `percent` of a hundred are hedged.
fn run<F: Future<Output = ()> + 'static>(
    percent: u32,
    manner: impl Fn(u64, Mono) -> (Duration, Result<(), StoreError>) + 'static,
    scenario: impl FnOnce(World) -> F + 'static,
) {
    let sim = Sim::new(7, false);
    let env = sim.env(ProcessId::WORLD);
    let faulty = Rc::new(Faulty {
        env: env.clone(),
        manner: Box::new(manner),
        requests: Cell::new(0),
        inside: Rc::default(),
        most_inside: Rc::default(),
    });
    let meter = Arc::new(StoreMeter::default());
    let counting = Counting::new(meter.clone(), env.clone());
    let counted = Rc::new(Counted::new(faulty.clone(), counting.clone()));
    let store = Retrying::new(counted, env.clone(), counting, percent);
    let ended = sim.run(10_000_000, scenario(World { env, faulty, store, meter }));
    assert_eq!(ended, Ended::Done);
    sim.shut_down();
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn fails(kind: FailureKind) -> Result<(), StoreError> {
    Err(StoreError::unknown(kind, "as asked"))
}

/// Answers after a millisecond, but fails in this way until `until`.
fn until(until: Duration, kind: FailureKind) -> impl Fn(u64, Mono) -> (Duration, Result<(), StoreError>) {
    let mut begun = None;
    let begun = RefCell::new(move |now: Mono| *begun.get_or_insert(now));
    move |_, now| {
        let begun = begun.borrow_mut()(now);
        (ms(1), if now.since(begun) < until { fails(kind) } else { Ok(()) })
    }
}

#[test]
fn a_crowd_of_reads_outlasts_a_minute_of_refusals() {
    run(5, until(Duration::from_secs(60), FailureKind::Throttled), async |world: World| {
        let reads = join_all((0..300).map(|n| world.store.get(&format!("{n}")))).await;
        assert!(reads.iter().all(Result::is_ok), "{reads:?}");
        // 300 calls, each with a pause that grows to 2 s, of which few are at the store at once.
        assert!(world.requests() < 300 * 80, "{}", world.requests());
        let [retries, hedges, ..] = world.extras(Operation::Get);
        assert_eq!((retries, hedges), (world.requests() - 300, 0));
    });
}

#[test]
fn every_kind_of_call_outlasts_half_a_minute_of_refusals() {
    run(5, until(Duration::from_secs(30), FailureKind::Throttled), async |world: World| {
        let store = &world.store;
        let keys = || vec!["k".to_owned()];
        let all = futures::join!(
            store.get("k"),
            store.get_range("k", 0..9),
            store.get_suffix("k", 9),
            store.list("k/"),
            store.list_directories("k/"),
            store.delete(keys()),
            store.put_own("k", vec![Bytes::from_static(b"own")]),
        );
        assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok() && all.3.is_ok() && all.4.is_ok());
        assert!(all.5.is_ok() && all.6.is_ok());
    });
}

#[test]
fn reads_outlast_twenty_seconds_without_a_server_behind_the_proxy() {
    run(5, until(Duration::from_secs(20), FailureKind::Unavailable), async |world: World| {
        let reads = join_all((0..64).map(|n| world.store.get_range(&format!("{n}"), 0..100))).await;
        assert!(reads.iter().all(Result::is_ok), "{reads:?}");
        let begun = world.env.now();
        assert!(world.store.get("k").await.is_ok());
        assert!(world.env.now().since(begun) < ms(10));
    });
}

#[test]
fn a_store_that_only_fails_fails_the_call_within_its_window() {
    for (kind, seconds) in [(FailureKind::Throttled, 120), (FailureKind::Unavailable, 30), (FailureKind::Timeout, 30)] {
        run(
            5,
            move |_, _| (ms(1), fails(kind)),
            async move |world: World| {
                let begun = world.env.now();
                assert_eq!(world.store.get("k").await.unwrap_err().kind, kind);
                assert!(world.env.now().since(begun) <= Duration::from_secs(seconds), "{kind:?}");
                assert!((10..=240).contains(&world.requests()), "{kind:?}: {}", world.requests());
            },
        );
    }
}

#[test]
fn what_will_not_pass_is_tried_once() {
    for kind in [FailureKind::Denied, FailureKind::Corrupt, FailureKind::Full] {
        run(
            5,
            move |_, _| (ms(1), fails(kind)),
            async |world: World| {
                world.store.list("k/").await.unwrap_err();
                assert_eq!(world.requests(), 1);
            },
        );
    }
}

#[test]
fn conditional_puts_are_sent_once_and_their_refusal_slows_own_objects_down() {
    run(
        100,
        |_, _| (ms(1), fails(FailureKind::Throttled)),
        async |world: World| {
            world.store.put_if_absent("k", vec![]).await.unwrap_err();
            world.store.put_if_match("k", Bytes::new(), Version("1".to_owned())).await.unwrap_err();
            assert_eq!(world.requests(), 2);
        },
    );
    // The first is refused, all others are taken after ten milliseconds.
    let manner = |number, _| (ms(10), if number == 0 { fails(FailureKind::Throttled) } else { Ok(()) });
    run(0, manner, async |world: World| {
        world.store.put_if_absent("k", vec![]).await.unwrap_err();
        let own = |n| world.store.put_own(&format!("{n}"), vec![]);
        assert!(join_all((0..10).map(own)).await.iter().all(Result::is_ok));
        assert!(world.faulty.most_inside.get() < 6, "{}", world.faulty.most_inside.get());
        let [.., waits] = world.extras(Operation::Put);
        assert!(waits > 0);
    });
}

#[test]
fn an_own_object_that_is_there_already_is_stored() {
    // Its first put was carried out, and the answer lost.
    let manner = |number, _| (ms(1), if number == 0 { fails(FailureKind::Timeout) } else { Ok(()) });
    run(0, manner, async |world: World| {
        assert_eq!(world.store.put_own("k", vec![]).await, Ok(()));
        assert_eq!(world.requests(), 2);
    });
}

#[test]
fn each_attempt_is_counted_once_with_how_it_failed() {
    run(
        0,
        |_, _| (ms(1), fails(FailureKind::Throttled)),
        async |world: World| {
            world.store.get("k").await.unwrap_err();
            let attempts = world.requests();
            world.store.put_if_absent("k", vec![Bytes::from_static(b"four")]).await.unwrap_err();
            let meter = &world.meter;
            for (operation, attempts) in [(Operation::Get, attempts), (Operation::Put, 1), (Operation::List, 0)] {
                assert_eq!(meter.requests(operation), attempts);
                assert_eq!(meter.failures(operation, FailureKind::Throttled), attempts);
            }
            assert_eq!(world.extras(Operation::Get)[0], attempts - 1);
            assert_eq!((meter.sent_bytes(), meter.received_bytes()), (4, 0));
            assert_eq!(meter.puts().snapshot().count() + meter.gets().snapshot().count(), 0);
        },
    );
}

/// Answers after 10 to 19 ms; every request whose number is a multiple of `slow` takes five seconds.
fn mostly(slow: u64) -> impl Fn(u64, Mono) -> (Duration, Result<(), StoreError>) {
    move |number, _| (if number % slow == slow - 1 { ms(5_000) } else { ms(10 + number % 10) }, Ok(()))
}

/// The times of so many reads after each other, sorted.
async fn times(world: &World, reads: u64) -> Vec<Duration> {
    let mut times = Vec::new();
    for n in 0..reads {
        let begun = world.env.now();
        world.store.get_range(&format!("{n}"), 0..1_000).await.unwrap();
        times.push(world.env.now().since(begun));
    }
    times.sort_unstable();
    times
}

#[test]
fn a_read_that_takes_long_is_answered_by_its_hedge() {
    run(5, mostly(50), async |world: World| {
        let times = times(&world, 2_000).await;
        assert!(times[1_990] < ms(100), "{:?}", times[1_990]);
        let [_, hedges, won, ..] = world.extras(Operation::Get);
        assert!(hedges <= 2_000 * 5 / 100 + 4, "{hedges}");
        assert!(won > 30, "{won} of {hedges} were answered first");
    });
    run(0, mostly(50), async |world: World| {
        assert!(times(&world, 500).await[492] > ms(1_000), "without hedges");
        assert_eq!(world.requests() - 500, world.extras(Operation::Get)[0]);
    });
}

#[test]
fn an_own_object_that_takes_long_is_hedged_too() {
    run(5, mostly(50), async |world: World| {
        for n in 0..500 {
            world.store.put_own(&format!("{n}"), vec![Bytes::from_static(b"own")]).await.unwrap();
        }
        assert!(world.extras(Operation::Put)[2] > 5);
    });
}

#[test]
fn of_a_hedged_pair_the_one_that_fails_is_not_the_answer() {
    // The hedge of the first slow read fails at once; the read itself is answered later.
    let manner = |number, _| match number {
        100 => (ms(1_500), Ok(())),
        101 => (ms(1), fails(FailureKind::Unavailable)),
        _ => (ms(10), Ok(())),
    };
    run(5, manner, async |world: World| {
        let times = times(&world, 101).await;
        assert!((ms(1_500)..ms(1_600)).contains(&times[100]), "{:?}", times[100]);
        assert_eq!((world.requests(), world.extras(Operation::Get)), (102, [0, 1, 0, 0, 0]));
    });
}

#[test]
fn a_store_that_is_slow_as_a_whole_is_not_asked_more() {
    // As fast as ever for a second, then everything takes one.
    let manner = |_, now: Mono| (if now.0 < 1_000_000_000 { ms(10) } else { ms(1_000) }, Ok(()));
    run(100, manner, async |world: World| {
        times(&world, 90).await;
        world.env.sleep(ms(2_000)).await;
        let before = world.requests();
        for _ in 0..20 {
            join_all((0..50).map(|n| world.store.get_range(&format!("{n}"), 0..1_000))).await;
        }
        let more = world.requests() - before - 1_000;
        assert!(more <= 100, "{more} of 1,000 reads were sent twice, with a budget that allowed all");
    });
}

#[test]
fn a_request_without_an_answer_is_given_up_when_experience_says_so() {
    let manner = |number, _| (if number == 50 { Duration::from_secs(3_600) } else { ms(10) }, Ok(()));
    run(0, manner, async |world: World| {
        let times = times(&world, 60).await;
        assert!(times[59] < ms(2_500), "{:?}", times[59]);
        assert_eq!(world.extras(Operation::Get), [1, 0, 0, 1, 0]);
    });
}

#[test]
fn a_store_that_becomes_slower_than_any_patience_learned_is_still_read() {
    let manner = |number, _| (if number < 100 { ms(10) } else { Duration::from_secs(15) }, Ok(()));
    run(5, manner, async |world: World| {
        times(&world, 100).await;
        for _ in 0..30 {
            world.store.get_range("k", 0..1_000).await.unwrap();
        }
        let given_up = world.extras(Operation::Get)[3];
        assert!((1..60).contains(&given_up), "until the new times are known: {given_up}");
    });
}

#[test]
fn one_who_is_gone_leaves_nothing_behind() {
    run(5, mostly(1), async |world: World| {
        let left = world.store.get("k");
        let gone = futures::future::select(left, ready(()));
        drop(gone.await);
        assert!(world.store.get("k").await.is_ok());
        assert_eq!(world.store.0.reads.in_flight(), 0);
    });
}

/// A store that does nothing but refuse until a point in time.
struct Busy {
    store: Rc<dyn ObjectStore>,
    env: Env,
    until: Rc<Cell<Mono>>,
    kind: FailureKind,
}

impl Busy {
    fn when_free<T: 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        if self.env.now() < self.until.get() {
            return Box::pin(ready(Err(StoreError::unknown(self.kind, "503, as asked"))));
        }
        call
    }
}

#[rustfmt::skip]
impl ObjectStore for Busy {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> { self.when_free(self.store.put_if_absent(key, slices)) }
    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> { self.when_free(self.store.put_if_match(key, bytes, version)) }
    fn get(&self, key: &str) -> StoreFuture<Option<Object>> { self.when_free(self.store.get(key)) }
    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> { self.when_free(self.store.get_range(key, range)) }
    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> { self.when_free(self.store.get_suffix(key, length)) }
    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> { self.when_free(self.store.list(prefix)) }
    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> { self.when_free(self.store.list_directories(prefix)) }
    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> { self.when_free(self.store.delete(keys)) }
}

/// The start of a process whose earlier life left a log of three objects open, on a store that is busy for `seconds`.
fn starts_on_a_busy_store(kind: FailureKind, seconds: u64) {
    use crate::format::object::{ObjectHeader, ObjectKind, encode_header};
    use crate::ids::{BootId, Seq, Wid, WriterId};
    use crate::meta::memory::MemoryMeta;
    use crate::meta::records::{Record, WalRecord, WalState};
    use crate::meta::{MetaStore, Op, Txn, keys};
    use crate::object::memory::MemoryStore;
    use crate::recovery::{self, Stores};
    use crate::wal::WalStore;
    use crate::wal::objects::ObjectWal;

    let sim = Sim::new(3, false);
    let env = sim.env(ProcessId::WORLD);
    let ended = sim.run(1_000_000, async move {
        let until = Rc::new(Cell::new(Mono(0)));
        let store = Rc::new(MemoryStore::new().handle(env.clone()));
        let busy = Rc::new(Busy { store, env: env.clone(), until: until.clone(), kind });
        let counting = Counting::new(Arc::default(), env.clone());
        let objects: Rc<dyn ObjectStore> = Rc::new(Retrying::new(busy, env.clone(), counting, 5));
        let wal = Rc::new(ObjectWal::new(objects.clone()));
        let meta = Rc::new(MemoryMeta::new(uuid::Uuid::from_u128(1)));
        let (wid, boot) = (Wid(77), BootId(1));
        for seq in 0..3 {
            let writer = WriterId { boot, lane: 0 };
            let header = ObjectHeader { kind: ObjectKind::Data, wid, writer, seq: Seq(seq), sealed_at: env.wall() };
            let slices = vec![encode_header(&header), Bytes::from_static(b"records")];
            wal.put_if_absent(wid, Seq(seq), slices).await.unwrap();
        }
        let record = WalRecord {
            v: 1,
            broker: "b".to_owned(),
            boot,
            lane: 0,
            state: WalState::Open,
            ck: 0,
            lw: Seq(0),
            emptied: None,
        };
        let ops = vec![Op::Put(keys::wal(wid), record.encode())];
        meta.txn(Txn { compares: vec![], ops }).await.unwrap();

        let begun = env.now();
        until.set(begun.plus(Duration::from_secs(seconds)));
        crate::object::race::check(&*objects, &env, "the store").await.unwrap();
        assert!(env.now().since(begun) >= Duration::from_secs(seconds));
        // And once more, in the middle of what follows.
        until.set(env.now().plus(Duration::from_secs(seconds)));
        let stores = Stores { wal, objects: objects.clone(), meta };
        assert_eq!(recovery::seal_all_dead(&env, &stores, BootId(2)).await, Ok(1));
        assert!(objects.get("wal/none").await.is_ok());
    });
    assert_eq!(ended, Ended::Done);
    sim.shut_down();
}

#[test]
fn a_start_in_a_bad_minute_of_the_store_is_slow_and_not_refused() {
    starts_on_a_busy_store(FailureKind::Throttled, 60);
    starts_on_a_busy_store(FailureKind::Unavailable, 25);
}
