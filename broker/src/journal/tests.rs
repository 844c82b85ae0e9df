//! The journal on the simulated stores: what it copies, what counts, what gives an older metadata store away, and a
//! history of writers that are killed at any step.

use super::PREFIXES;
use super::check::contradiction;
use super::reader::{find, last_given_out, newest};
use super::writer::Journal;
use bytes::Bytes;
use millrace_storage::env::Env;
use millrace_storage::format::checkpoint::{Checkpoint, checkpoint_key};
use millrace_storage::format::snapshot::{MetaSnapshot, generation_base, mark_key, parse_snapshot_key, snapshot_key};
use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::meta::records::{PartitionRecord, RECORD_VERSION, Record};
use millrace_storage::meta::{Compare, Key, MetaStore, Op, Txn, TxnOutcome, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::partition::CommittedPartition;
use millrace_storage::recovery::Stores;
use millrace_storage::side::monotonic_now;
use millrace_storage::sim::{Ended, Faults, ProcessId, Sim, SimBucket, SimMeta, Temper};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Runs `main` on calm stores.
fn calmly<F: Future<Output = ()> + 'static>(main: impl FnOnce(Sim, Env, Stores, SimMeta, SimBucket) -> F) {
    let sim = Sim::new(7, false);
    let faults = sim.dice(|dice| Faults::drawn(Temper::Calm, dice));
    let (meta, bucket) = (SimMeta::new(&sim, faults.clone()), SimBucket::new(&sim, faults));
    let stores = stores(&meta, &bucket);
    let env = sim.env(ProcessId::WORLD);
    let ended = sim.run(1_000_000, main(sim.clone(), env, stores, meta, bucket));
    sim.shut_down();
    assert_eq!(ended, Ended::Done);
}

fn stores(meta: &SimMeta, bucket: &SimBucket) -> Stores {
    let bucket = Rc::new(bucket.clone());
    Stores { wal: bucket.clone(), objects: bucket, meta: Rc::new(meta.clone()) }
}

async fn put(meta: &dyn MetaStore, key: &str, value: &str) {
    let ops = vec![Op::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))];
    meta.txn(Txn { compares: Vec::new(), ops }).await.expect("the store is calm");
}

async fn delete(meta: &dyn MetaStore, key: &str) {
    let ops = vec![Op::Delete(key.to_owned())];
    meta.txn(Txn { compares: Vec::new(), ops }).await.expect("the store is calm");
}

fn copied(meta: &SimMeta) -> Vec<(Key, Bytes)> {
    PREFIXES.iter().flat_map(|prefix| meta.contents(prefix)).collect()
}

async fn snapshot(journal: &Journal) -> Option<u64> {
    journal.snapshot(false).await.expect("the stores are calm").map(|written| written.number)
}

#[test]
fn a_snapshot_holds_every_key_of_its_kinds_and_is_written_only_if_something_changed() {
    calmly(|_, env, stores, meta, bucket| async move {
        let journal = Journal::new(&env, &stores, "a", 0);
        for number in 0..2_500 {
            put(&meta, &format!("/offset/{:02}/g/{number}", number % 64), &number.to_string()).await;
        }
        for key in ["/cluster", "/group/07/g", "/pid", "/setting/*", "/wal/1", "/topic/t", "/slot/07", "/broker/b"] {
            put(&meta, key, "x").await;
        }
        assert_eq!(snapshot(&journal).await, Some(1));
        let read = newest(&bucket).await.expect("calm").snapshot.expect("it was just written");
        assert_eq!((read.entries.len(), &read.entries), (2_504, &copied(&meta)));
        assert_eq!((read.head.number, &*read.head.writer, read.head.stopping), (1, "a", false));

        put(&meta, "/wal/1", "y").await;
        assert_eq!(snapshot(&journal).await, None, "logs are not copied");
        put(&meta, "/group/07/g", "y").await;
        assert_eq!(snapshot(&journal).await, Some(2));
        delete(&meta, "/pid").await;
        assert_eq!(snapshot(&journal).await, Some(3), "one that is gone is a change");
        assert_eq!(bucket.keys("meta/snap/"), [snapshot_key(2), snapshot_key(3)], "the newest two stay");
        let last = journal.snapshot(true).await.expect("calm").expect("who stops writes one anyhow");
        assert_eq!((last.number, last.keys), (4, 2_503));
    });
}

#[test]
fn a_number_that_was_kept_is_not_used_once_others_have_greater_ones() {
    calmly(|_, env, stores, meta, bucket| async move {
        let (one, other) = (Journal::new(&env, &stores, "a", 0), Journal::new(&env, &stores, "b", 0));
        put(&meta, "/pid", "1").await;
        assert_eq!(snapshot(&one).await, Some(1));
        assert_eq!(snapshot(&one).await, None);
        put(&meta, "/pid", "2").await;
        assert_eq!(snapshot(&one).await, Some(2), "the number that was not used");
        assert_eq!(snapshot(&one).await, None);
        assert_eq!(snapshot(&other).await, Some(4));
        put(&meta, "/pid", "3").await;
        assert_eq!(snapshot(&one).await, Some(5));
        let read = newest(&bucket).await.expect("calm").snapshot.expect("there is one");
        assert_eq!(read.entries, copied(&meta));
    });
}

#[test]
fn a_later_generation_counts_whatever_an_earlier_one_still_writes() {
    calmly(|sim, env, stores, meta, bucket| async move {
        let zombie = Journal::new(&env, &stores, "zombie", 0);
        put(&meta, "/pid", "1").await;
        assert_eq!(snapshot(&zombie).await, Some(1));
        let sim_meta = rebuilt(&sim, &meta).await;
        let now = Journal::new(&env, &stores_of(&sim_meta, &stores), "now", generation_base(1));
        assert_eq!(snapshot(&now).await, Some(generation_base(1) + 1));
        for number in 2..6 {
            put(&meta, "/pid", &number.to_string()).await;
            assert_eq!(snapshot(&zombie).await, Some(number));
        }
        let read = newest(&bucket).await.expect("calm").snapshot.expect("there is one");
        assert_eq!(&*read.head.writer, "now");
        assert_eq!(contradiction(&sim_meta, &bucket, generation_base(1)).await.expect("calm"), None);
    });
}

/// Another metadata store that holds what this one does, without the journal's number.
async fn rebuilt(sim: &Sim, meta: &SimMeta) -> SimMeta {
    let other = SimMeta::new(sim, Faults::none());
    other
        .txn(Txn {
            compares: Vec::new(),
            ops: copied(meta).into_iter().map(|(key, value)| Op::Put(key, value)).collect(),
        })
        .await
        .expect("calm");
    other
}

fn stores_of(meta: &SimMeta, stores: &Stores) -> Stores {
    Stores { meta: Rc::new(meta.clone()), ..stores.clone() }
}

#[test]
fn a_metadata_store_that_went_back_is_given_away_by_what_was_written_since() {
    calmly(|_, env, stores, meta, bucket| async move {
        let journal = Journal::new(&env, &stores, "a", 0);
        assert_eq!(contradiction(&meta, &bucket, 0).await.expect("calm"), None, "nothing was ever written");
        journal.mark().await.expect("calm");
        put(&meta, "/pid", "1").await;
        assert_eq!(snapshot(&journal).await, Some(2));
        assert_eq!(contradiction(&meta, &bucket, 0).await.expect("calm"), None);
        // As of a backup, after which only a mark was left.
        let (before, _) = last_given_out(&meta, 0).await.expect("calm");
        journal.mark().await.expect("calm");
        assert_eq!(bucket.keys("meta/snap/"), [snapshot_key(2), mark_key(3)], "a mark replaces the one before");
        put(&meta, keys::JOURNAL, &before.to_string()).await;
        let found = contradiction(&meta, &bucket, 0).await.expect("calm").expect("it is older");
        assert_eq!(found, "the journal is at 3, the metadata store at 2");
        // A number that was given out and never arrived contradicts nothing.
        put(&meta, keys::JOURNAL, "9").await;
        assert_eq!(contradiction(&meta, &bucket, 0).await.expect("calm"), None);
    });
}

#[test]
fn an_unknown_log_gives_an_older_store_away_only_if_it_is_ahead_of_what_is_known() {
    calmly(|_, _, _, meta, bucket| async move {
        let partition = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), index: 3 };
        let record = |epoch| PartitionRecord {
            v: RECORD_VERSION,
            epoch: LeaderEpoch(epoch),
            wid: Wid(1),
            shard: ShardIndex(0),
            born: 0,
            released: None,
        };
        let text = |record: &PartitionRecord| String::from_utf8(record.encode().to_vec()).expect("JSON");
        put(&meta, &keys::partition(partition), &text(&record(4))).await;
        let checkpoint = |epoch| Checkpoint {
            number: 1,
            partitions: [(partition, CommittedPartition::born(LeaderEpoch(epoch)))].into(),
            ..Checkpoint::empty(Wid(epoch as u128))
        };
        for epoch in [3, 4, 5] {
            let (wid, bytes) = (Wid(epoch as u128), checkpoint(epoch).encode());
            bucket.put_own(&checkpoint_key(wid, 1), vec![bytes]).await.expect("calm");
            let found = contradiction(&meta, &bucket, 0).await.expect("calm");
            assert_eq!(found.is_some(), epoch == 5, "{found:?}");
        }
        put(&meta, &keys::wal(Wid(5)), "known").await;
        assert_eq!(contradiction(&meta, &bucket, 0).await.expect("calm"), None, "a claim that is not decided yet");
    });
}

#[test]
fn a_snapshot_of_a_large_cluster_is_small_and_quick() {
    calmly(|_, env, stores, meta, bucket| async move {
        // A hundred topics of a thousand partitions, and a group for each ten topics' hundredth: every partition once.
        for group in 0..1_000u32 {
            let name = format!("group-{group:04}");
            let slot = u16::try_from(group % 64).expect("small");
            let put = |index: u32| {
                let topic =
                    TopicId(uuid::Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_0000 | u128::from(group / 10)));
                let partition = TopicPartition { topic, index: group % 10 * 100 + index };
                Op::Put(keys::offset(slot, &name, partition), Bytes::from(vec![7; 40]))
            };
            meta.txn(Txn { compares: Vec::new(), ops: (0..100).map(put).collect() }).await.expect("calm");
            let state = Op::Put(keys::group(slot, &name), Bytes::from(vec![9; 2_000]));
            meta.txn(Txn { compares: Vec::new(), ops: vec![state] }).await.expect("calm");
        }
        let journal = Journal::new(&env, &stores, "a", 0);
        let begun = monotonic_now();
        let written = journal.snapshot(false).await.expect("calm").expect("the first");
        let took = monotonic_now().since(begun);
        println!("{} keys: {} bytes, {} ms of one thread", written.keys, written.bytes, took.as_millis());
        assert_eq!(written.keys, 101_000);
        let values = 100_000 * 40 + 1_000 * 2_000;
        assert!(written.bytes < values + 100_000 * 20, "{} bytes for {values}", written.bytes);
        assert_eq!(snapshot(&journal).await, None);
        let read = newest(&bucket).await.expect("calm").snapshot.expect("it is there");
        assert_eq!(read.entries.len(), 101_000);
    });
}

fn decimal(value: &[u8]) -> u64 {
    std::str::from_utf8(value).expect("decimal").parse().expect("decimal")
}

fn pid_of(snapshot: &MetaSnapshot) -> u64 {
    snapshot.entries.iter().find(|(key, _)| key == "/pid").map_or(0, |(_, value)| decimal(value))
}

/// Raises what is copied, until the end of the run.
async fn tick(world: Sim, meta: SimMeta, shown: Rc<Cell<u64>>) {
    loop {
        let now = meta.peek("/pid");
        let key = || "/pid".to_owned();
        let compares = vec![now.clone().map_or(Compare::Absent(key()), |now| Compare::Value(key(), now))];
        let next = now.map_or(0, |now| decimal(&now)) + 1;
        let ops = vec![Op::Put(key(), Bytes::from(next.to_string()))];
        if let Ok(TxnOutcome::Committed(_)) = meta.txn(Txn { compares, ops }).await {
            shown.set(next);
        }
        world.sleep(Duration::from_millis(1)).await;
    }
}

/// Writes snapshots and marks, until it is killed.
async fn write_on(env: Env, journal: Journal) {
    loop {
        if env.random().is_multiple_of(3) {
            let _ = journal.mark().await;
        } else {
            let _ = journal.snapshot(false).await;
        }
        env.sleep(Duration::from_millis(env.random() % 300)).await;
    }
}

/// What was true when each number was given out.
type GivenOut = Rc<RefCell<BTreeMap<u64, u64>>>;

fn watched(meta: &SimMeta) -> GivenOut {
    let given_out = GivenOut::default();
    let (noted, pid) = (given_out.clone(), Cell::new(0));
    meta.observe(move |changes| {
        for change in changes {
            match (change.key, change.after) {
                ("/pid", Some(value)) => pid.set(decimal(value)),
                (keys::JOURNAL, Some(value)) => drop(noted.borrow_mut().insert(decimal(value), pid.get())),
                _ => {}
            }
        }
    });
    given_out
}

/// What the bucket shows at some moment: no number that was not given out, and the greatest is not older than that.
fn check_bucket(bucket: &SimBucket, given_out: &GivenOut) -> u64 {
    let shown = bucket.keys("meta/snap/");
    let newest = shown.iter().filter_map(|key| parse_snapshot_key(key)).map(|(number, _)| number).max();
    let most = given_out.borrow().last_key_value().map(|(number, _)| *number);
    assert!(newest <= most, "{newest:?} of {most:?}");
    let Some(newest) = shown.iter().filter(|key| !key.ends_with(".mark")).max() else { return 0 };
    let bytes = bucket.peek(newest).expect("it was listed");
    let read = MetaSnapshot::decode(&bytes).expect("objects are whole");
    let floor = given_out.borrow()[&read.head.number];
    assert!(pid_of(&read) >= floor, "{newest} has {} after {floor}", pid_of(&read));
    pid_of(&read)
}

async fn history(world: Sim, meta: SimMeta, bucket: SimBucket) {
    let (stores, shown, given_out) = (stores(&meta, &bucket), Rc::new(Cell::new(0)), watched(&meta));
    let (ticker, _) = world.start_process();
    world.spawn(ticker, "tick", tick(world.clone(), meta.clone(), shown.clone()));
    for _ in 0..6 {
        let writers = ["one", "other"].map(|name| {
            let (process, env) = world.start_process();
            env.spawn("writer", write_on(env.clone(), Journal::new(&env, &stores, name, 0)));
            world.kill_after(process, world.dice(|dice| dice.below(1..400)));
            process
        });
        world.sleep(Duration::from_secs(world.dice(|dice| dice.below(1..8)))).await;
        writers.iter().for_each(|process| world.kill(*process));
        check_bucket(&bucket, &given_out);
    }
    bucket.heal();
    meta.heal();
    let before = shown.get();
    let last = Journal::new(&world.env(ProcessId::WORLD), &stores, "last", 0);
    while last.snapshot(true).await.is_err() {}
    assert!(check_bucket(&bucket, &given_out) >= before);
    // What is still on its way arrives one day, and is collected by whoever writes next.
    world.kill(ticker);
    world.sleep(Duration::from_secs(24 * 3_600)).await;
    last.snapshot(true).await.expect("healed");
    let found = find(&bucket).await.expect("healed");
    assert_eq!((found.snapshots.len(), found.objects.len()), (2, 2), "{found:?}");
    check_bucket(&bucket, &given_out);
    assert_eq!(contradiction(&meta, &bucket, 0).await.expect("healed"), None);
}

#[test]
fn killed_writers_never_leave_a_journal_that_is_ahead_or_older_than_its_number() {
    for seed in 0..60 {
        let temper = [Temper::Calm, Temper::Fair, Temper::Rough][seed as usize % 3];
        let sim = Sim::new(seed, false);
        let faults = sim.dice(|dice| Faults::drawn(temper, dice));
        let (meta, bucket) = (SimMeta::new(&sim, faults.clone()), SimBucket::new(&sim, faults));
        let ended = sim.run(4_000_000, history(sim.clone(), meta, bucket));
        sim.shut_down();
        assert_eq!(ended, Ended::Done, "seed {seed}");
    }
}
