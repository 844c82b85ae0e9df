//! Collection beside lanes that are at work.

use super::world::{Life, World, entry, partition};
use crate::env::Env;
use crate::format::checkpoint::checkpoint_key;
use crate::ids::{Offset, Seq, ShardIndex, Wid};
use crate::lane::{LaneConfig, ToLane};
use crate::meta::memory::MemoryMeta;
use crate::meta::{KeptAlive, Key, Lease, LeaseId, MetaStore, Page, Revision, Snapshot, Txn, TxnOutcome, WatchStream};
use crate::recovery::{Collected, Collector, Stores};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::memory::MemoryWal;
use crate::wal::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// How long a listing is on its way.
const LISTING: Duration = Duration::from_secs(10);

/// The world's metadata, to whom listings take their time.
struct SlowListings(MemoryMeta, Env);

impl MetaStore for SlowListings {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        self.0.cluster_id()
    }
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        self.0.txn(txn)
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        self.0.get(keys)
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        let (meta, env, prefix) = (self.0.clone(), self.1.clone(), prefix.to_owned());
        Box::pin(async move {
            env.sleep(LISTING).await;
            meta.list(&prefix, after, limit).await
        })
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

#[test]
fn a_log_whose_partitions_are_acquired_while_a_pass_reads_is_not_collected() {
    // Between any two of the pass's listings the partition changes hands.
    for changes_after in [LISTING / 2, LISTING * 3 / 2, LISTING * 5 / 2] {
        let world = World::new();
        let mut life = world.start(&LaneConfig::default());
        life.lead(partition(0), 0);
        life.seal(0, entry(partition(0), 1, 0, 3, "abc"));
        life.pass(Duration::from_secs(1));
        drop(life);

        let mut life = world.start(&LaneConfig::default());
        life.pass(Duration::from_secs(1));
        let meta = Rc::new(SlowListings(world.meta.clone(), life.env.clone()));
        let (env, stores) = (life.env.clone(), Stores { meta, ..life.stores.clone() });
        life.spawn(async move {
            Collector::default().pass(&env, &stores).await.expect("memory");
        });
        life.pass(changes_after);
        let state = life.lead(partition(0), 0);
        life.pass(LISTING * 4);
        assert_eq!(life.content(&state), b"abc", "acquired {changes_after:?} into the pass");
    }
}

/// The world's write-ahead logs, of which one has lost its fence.
struct WithoutFence(MemoryWal, Wid);

impl WalStore for WithoutFence {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.0.put_if_absent(wid, seq, slices)
    }
    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.0.header(wid, seq)
    }
    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.0.read(wid, seq, range)
    }
    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        self.0.suffix(wid, seq, length)
    }
    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        self.0.list(wid, from)
    }
    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        self.0.list_wids()
    }
    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.0.delete_below(wid, below)
    }
    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        if wid == self.1 {
            return Box::pin(async { Err(StoreError::not_done(FailureKind::Other, "no fence")) });
        }
        self.0.retain_only_fence(wid, end)
    }
    fn sync_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.0.sync_below(wid, below)
    }
}

/// Logs of lives that led nothing.
fn idle_logs(world: &World, count: usize) -> BTreeSet<Wid> {
    (0..count)
        .map(|_| {
            let mut life = world.start(&LaneConfig::default());
            life.pass(Duration::from_secs(1));
            life.open_wids()[0]
        })
        .collect()
}

#[test]
fn a_log_without_its_fence_keeps_no_other_from_being_collected() {
    let world = World::new();
    let logs = idle_logs(&world, 3);
    let mut life = world.start(&LaneConfig::default());
    let wal = Rc::new(WithoutFence(world.wal.clone(), *logs.first().expect("three")));
    let (env, stores) = (life.env.clone(), Stores { wal, ..life.stores.clone() });
    let done = life.run(async move { Collector::default().pass(&env, &stores).await }).expect("memory");
    assert_eq!((done.logs, done.damaged), (2, 1));
}

#[test]
fn a_checkpoint_that_is_gone_keeps_only_logs_that_hold_something_of_its_partitions() {
    let world = World::new();
    let mut life = world.start_lanes(&LaneConfig::default(), &[&[0], &[1]]);
    life.lead_on(0, partition(0), 0);
    life.lead_on(1, partition(1), 1);
    life.seal(0, entry(partition(0), 1, 0, 1, "a"));
    life.seal_on(1, 1, vec![entry(partition(1), 1, 0, 1, "b")]);
    life.pass(Duration::from_secs(1));
    let (hidden, other) = (life.record(partition(0)).wid, life.record(partition(1)).wid);
    drop(life);
    idle_logs(&world, 1);

    let mut life = world.start_lanes(&LaneConfig::default(), &[&[0], &[1]]);
    life.lead_on(0, partition(0), 0);
    life.lead_on(1, partition(1), 1);
    let raise = ToLane::LogStart { partition: partition(1), offset: Offset(1) };
    assert!(life.lanes[1].shards[&ShardIndex(1)].to.send(raise).is_ok());
    life.pass(Duration::from_secs(20));
    let named = life.record(partition(0)).wid;
    let ck = life.wal_record(named).expect("open").ck;
    let objects = life.stores.objects.clone();
    life.run(async move { objects.delete(vec![checkpoint_key(named, ck)]).await }).expect("memory");
    let (env, stores) = (life.env.clone(), life.stores.clone());
    let done = life.run(async move { Collector::default().pass(&env, &stores).await }).expect("memory");
    assert_eq!((done.damaged, done.held_back), (1, 1));
    let emptied = |life: &mut Life, wid| life.wal_record(wid).expect("for a day").emptied.is_some();
    assert!(emptied(&mut life, other), "what partition 1 left behind");
    assert!(!emptied(&mut life, hidden), "partition 0 may refer to it");
    assert!(done.logs >= 2, "the other one, and what led nothing: {done:?}");
}

#[test]
fn the_keys_of_collected_logs_go_a_day_later_though_the_process_starts_again_and_again() {
    let world = World::new();
    let logs = idle_logs(&world, 2);
    let pass = |life: &mut Life| {
        let (env, stores) = (life.env.clone(), life.stores.clone());
        life.run(async move { Collector::default().pass(&env, &stores).await }).expect("memory")
    };
    let mut life = world.start(&LaneConfig::default());
    assert_eq!(pass(&mut life).logs, logs.len());
    life.pass(Duration::from_secs(20 * 3600));
    assert_eq!(pass(&mut life), Collected::default(), "nothing is done twice");
    drop(life);
    // Every life of the test's world begins at the same wall-clock time.
    let mut life = world.start(&LaneConfig::default());
    life.pass(Duration::from_secs(23 * 3600));
    assert_eq!(pass(&mut life).keys, 0);
    life.pass(Duration::from_secs(2 * 3600));
    assert_eq!(pass(&mut life).keys, logs.len());
    assert!(logs.iter().all(|wid| life.wal_record(*wid).is_none()));
}
