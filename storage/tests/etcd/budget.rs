//! What a large cluster's metadata cost an etcd: 100,000 partitions and 1,000 groups, and groups that commit for as long
//! as `MILLRACE_METADATA_SECONDS` says (30). Run by `ci/prove metadata`.

use super::server::Etcd;
use bytes::Bytes;
use futures::future::join_all;
use millrace_storage::env::Env;
use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::meta::etcd::{EtcdGauges, EtcdMeta, Upkeep};
use millrace_storage::meta::records::{PartitionRecord, RECORD_VERSION, Record};
use millrace_storage::meta::{Compare, Key, MAX_PAGE, MAX_TXN_OPS, MetaStore, Op, Txn, TxnOutcome, keys};
use millrace_storage::side::SideRuntime;
use std::cell::RefCell;
use std::sync::atomic::Ordering;
use std::time::Duration;
use uuid::Uuid;

const TOPICS: u32 = 100;
const PARTITIONS_PER_TOPIC: u32 = 1_000;
const GROUPS: usize = 1_000;
/// Partitions that each group has committed.
const COMMITTED: u32 = 10;
/// Transactions under way at once, as of several brokers.
const AT_ONCE: usize = 16;
/// Commits that a coordinator puts into one transaction, beside the comparison of its slot.
const COMMITS_PER_TXN: usize = MAX_TXN_OPS / COMMITTED as usize - 1;
const SLOTS: u16 = 64;
const MIB: u64 = 1 << 20;

fn partition(number: u32) -> TopicPartition {
    let topic = TopicId(Uuid::from_u128(0x5eed_0000 + u128::from(number / PARTITIONS_PER_TOPIC)));
    TopicPartition { topic, index: number % PARTITIONS_PER_TOPIC }
}

fn partition_record(number: u32) -> (Key, Bytes) {
    let wid = Wid(0x0123_4567_89ab_cdef_0123_4567_89ab_0000 + u128::from(number % 200));
    let record = PartitionRecord {
        v: RECORD_VERSION,
        epoch: LeaderEpoch(1),
        wid,
        shard: ShardIndex(u16::try_from(number % 8).unwrap()),
        born: 1_700_000_000_000,
        released: None,
    };
    (keys::partition(partition(number)), record.encode())
}

fn slot_of(group: usize) -> u16 {
    u16::try_from(group).unwrap() % SLOTS
}

/// What one group commits: as large as what a coordinator writes.
fn commit_of(group: usize, offset: u64) -> Vec<Op> {
    let name = format!("orders-consumer-{group:04}");
    let value = Bytes::from(format!(
        r#"{{"v":1,"offset":{offset},"epoch":1,"metadata":"","at":1700000000000,"expires":null}}"#
    ));
    let first = u32::try_from(group).unwrap() * 97 % (TOPICS * PARTITIONS_PER_TOPIC);
    (0..COMMITTED)
        .map(|number| partition((first + number) % (TOPICS * PARTITIONS_PER_TOPIC)))
        .map(|at| Op::Put(keys::offset(slot_of(group), &name, at), value.clone()))
        .collect()
}

async fn put_all(store: &EtcdMeta, records: Vec<(Key, Bytes)>) {
    let mut txns = records.chunks(MAX_TXN_OPS).map(|some| Txn {
        compares: Vec::new(),
        ops: some.iter().map(|(key, value)| Op::Put(key.clone(), value.clone())).collect(),
    });
    loop {
        let some: Vec<_> = txns.by_ref().take(AT_ONCE).map(|txn| store.txn(txn)).collect();
        if some.is_empty() {
            return;
        }
        for outcome in join_all(some).await {
            assert!(matches!(outcome, Ok(TxnOutcome::Committed(_))), "{outcome:?}");
        }
    }
}

/// Reads a prefix page by page, as a starting process does; how many keys and bytes there are.
async fn load(store: &EtcdMeta, prefix: &str) -> (usize, usize) {
    let (mut count, mut bytes, mut after) = (0, 0, None);
    loop {
        let page = store.list(prefix, after, MAX_PAGE).await.expect("it lists");
        for (key, found) in &page.entries {
            if prefix == keys::PARTITIONS {
                PartitionRecord::decode(&found.value).expect("it was encoded above");
            }
            bytes += key.len() + found.value.len();
        }
        count += page.entries.len();
        after = page.entries.last().map(|(key, _)| key.clone());
        if !page.more {
            return (count, bytes);
        }
    }
}

async fn size(env: &Env, gauges: &EtcdGauges) -> (u64, u64) {
    // Until it has been looked at.
    while gauges.file.load(Ordering::Relaxed) == 0 {
        env.sleep(Duration::from_millis(100)).await;
    }
    (gauges.file.load(Ordering::Relaxed) / MIB, gauges.used.load(Ordering::Relaxed) / MIB)
}

/// What the committing workers share.
struct Tally {
    commits: u64,
    latencies: Vec<Duration>,
}

async fn commit_until(
    env: &Env,
    store: &EtcdMeta,
    end: millrace_storage::env::Mono,
    worker: usize,
    tally: &RefCell<Tally>,
) {
    let of_worker: Vec<usize> = (0..GROUPS).filter(|group| usize::from(slot_of(*group)) % AT_ONCE == worker).collect();
    let mut round = 0;
    while env.now() < end {
        for groups in of_worker.chunks(COMMITS_PER_TXN) {
            round += 1;
            let slot = keys::slot(slot_of(groups[0]));
            let ops = groups.iter().flat_map(|group| commit_of(*group, round)).collect();
            let compares = vec![Compare::Value(slot, Bytes::from_static(b"owner"))];
            let sent = env.now();
            let outcome = store.txn(Txn { compares, ops }).await;
            assert!(matches!(outcome, Ok(TxnOutcome::Committed(_))), "{outcome:?}");
            let mut tally = tally.borrow_mut();
            tally.commits += groups.len() as u64;
            tally.latencies.push(env.now().since(sent));
            if env.now() >= end {
                return;
            }
        }
    }
}

fn at_percent(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

pub(crate) async fn prove(etcd: &Etcd, side: SideRuntime, env: Env, seconds: u64) {
    let store = etcd.open("budget", &side);
    let start = env.now();
    put_all(&store, (0..TOPICS * PARTITIONS_PER_TOPIC).map(partition_record).collect()).await;
    let offsets = (0..GROUPS).flat_map(|group| commit_of(group, 0)).map(|op| match op {
        Op::Put(key, value) => (key, value),
        other => unreachable!("only puts are made: {other:?}"),
    });
    put_all(&store, offsets.collect()).await;
    put_all(&store, (0..SLOTS).map(|slot| (keys::slot(slot), Bytes::from_static(b"owner"))).collect()).await;
    let filled = env.now().since(start);
    let gauges = store.keep_up(Upkeep { history: Some(Duration::from_secs(600)), quota: None });
    let (file, used) = size(&env, &gauges).await;
    println!(
        "metadata: {} partitions and {GROUPS} groups with {COMMITTED} offsets each written in {:.1} s; etcd's file {file} \
         MiB, {used} MiB in use",
        TOPICS * PARTITIONS_PER_TOPIC,
        filled.as_secs_f64()
    );
    for prefix in [keys::PARTITIONS, "/offset/"] {
        let start = env.now();
        let (count, bytes) = load(&store, prefix).await;
        println!(
            "metadata: {count} keys, {bytes} bytes under {prefix} loaded in {:.2} s",
            env.now().since(start).as_secs_f64()
        );
    }
    let tally = RefCell::new(Tally { commits: 0, latencies: Vec::new() });
    let start = env.now();
    let end = start.plus(Duration::from_secs(seconds));
    let workers = join_all((0..AT_ONCE).map(|worker| commit_until(&env, &store, end, worker, &tally)));
    let watch = async {
        let (mut most, mut before) = (0, 0);
        while env.now() < end {
            env.sleep(Duration::from_secs(10).min(end.since(env.now()))).await;
            let commits = tally.borrow().commits;
            let (file, used) = size(&env, &gauges).await;
            most = most.max(file);
            println!(
                "metadata: {:>5.0} s: {:>6} commits in the last 10 s, file {file} MiB, {used} MiB in use, {} compactions",
                env.now().since(start).as_secs_f64(),
                commits - before,
                gauges.compactions.load(Ordering::Relaxed)
            );
            before = commits;
        }
        most
    };
    let (_, most) = futures::join!(workers, watch);
    let Tally { commits, mut latencies } = tally.into_inner();
    latencies.sort_unstable();
    let took = env.now().since(start).as_secs_f64();
    println!(
        "metadata: {commits} commits of {COMMITTED} offsets in {took:.0} s, {:.0} a second ({:.0} offsets); a transaction \
         of {COMMITS_PER_TXN}: p50 {:?}, p99 {:?}, max {:?}",
        commits as f64 / took,
        commits as f64 / took * f64::from(COMMITTED),
        at_percent(&latencies, 50),
        at_percent(&latencies, 99),
        at_percent(&latencies, 100)
    );
    let quota = gauges.quota.load(Ordering::Relaxed) / MIB;
    assert!(most * 100 < quota * 70, "the file grew to {most} MiB of {quota}");
}
