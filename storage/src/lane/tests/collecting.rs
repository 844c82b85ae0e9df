//! Collection beside lanes that are at work.

use super::world::{World, entry, partition};
use crate::env::Env;
use crate::lane::LaneConfig;
use crate::meta::memory::MemoryMeta;
use crate::meta::{Key, MetaStore, Page, Revision, Snapshot, Txn, TxnOutcome, WatchStream};
use crate::recovery::{Collector, Stores};
use crate::wal::StoreFuture;
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
