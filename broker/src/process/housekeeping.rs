//! Work beside the control task: collection of sealed logs that hold nothing any more, of segments that no manifest names
//! and of records that a deleted topic left, and the journal.
//!
//! In a cluster only the controller collects: a pass reads every record and every newest checkpoint, and N that do so each
//! minute read N times as much of what has grown N times.

use crate::admin::jobs::JobCells;
use crate::control::topic_object::{self, TopicObject};
use crate::journal::task::{self, Cues};
use crate::journal::writer::Journal;
use millrace_storage::compactor::collect::{self, CollectedSegments, SegmentCollector};
use millrace_storage::env::Env;
use millrace_storage::ids::TopicId;
use millrace_storage::meta::pages::Pages;
use millrace_storage::meta::records::{Record, TopicRecord};
use millrace_storage::meta::{MAX_TXN_OPS, Txn, TxnOutcome, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::recovery::{Collected, Collector, Stores};
use millrace_storage::store_error::{FailureKind, StoreError};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two passes over sealed logs.
const COLLECT_LOGS_EVERY: Duration = Duration::from_secs(60);

/// When segments are collected, and where it is told.
#[derive(Clone, Debug)]
pub struct Housekeeping {
    /// Between two passes: each lists every segment and reads the manifest of every partition that has some.
    pub segments_every: Duration,
    /// How long a segment stays for readers after its manifest stopped naming it.
    pub segments_grace: Duration,
    /// How often what the metadata store alone knows is copied to the store of the log; `None`: never.
    pub journal_every: Option<Duration>,
    /// What the passes come to.
    pub jobs: Arc<JobCells>,
}

impl Housekeeping {
    /// Starts the collectors on this thread, and the journal.
    pub(super) fn start(self, env: &Env, stores: &Stores, journal: &Journal, cues: &Rc<Cues>) {
        if let Some(every) = self.journal_every {
            let (jobs, cues) = (self.jobs.clone(), cues.clone());
            env.spawn("journal", task::run(env.clone(), journal.clone(), every, cues, jobs));
        }
        env.spawn("collector of logs", collect_logs(env.clone(), stores.clone(), cues.clone(), self.jobs.clone()));
        env.spawn("collector of segments", self.collect_segments(env.clone(), stores.clone(), cues.clone()));
    }

    async fn collect_segments(self, env: Env, stores: Stores, cues: Rc<Cues>) {
        let mut collector = SegmentCollector::new(self.segments_grace);
        loop {
            env.sleep(self.segments_every).await;
            if !cues.writes.get() {
                // What was found so long ago is found anew before it goes.
                collector = SegmentCollector::new(self.segments_grace);
                continue;
            }
            match pass(&mut collector, &env, &stores).await {
                Ok(done) => {
                    self.jobs.segments_collected(env.wall(), &done);
                    let CollectedSegments { expired, deleted, .. } = done;
                    if expired + deleted > 0 {
                        tracing::info!(expired, deleted, "collected segments");
                    }
                }
                Err(error) => tracing::warn!(%error, "collection of segments is put off"),
            }
        }
    }
}

async fn pass(collector: &mut SegmentCollector, env: &Env, stores: &Stores) -> Result<CollectedSegments, StoreError> {
    let topics = collect::topics(&*stores.objects).await?;
    let gone = deleted_topics(&*stores.objects, &topics).await?;
    collector.pass(env, stores, &topics, &gone).await
}

/// Those of `topics` that have a tombstone.
pub(crate) async fn deleted_topics(
    objects: &dyn ObjectStore,
    topics: &BTreeSet<TopicId>,
) -> Result<BTreeSet<TopicId>, StoreError> {
    let mut gone = BTreeSet::new();
    for &topic in topics {
        let found = objects.get(&topic_object::key(topic)).await?;
        if found.is_some_and(|object| TopicObject::is_tombstone(&object.bytes)) {
            gone.insert(topic);
        }
    }
    Ok(gone)
}

async fn collect_logs(env: Env, stores: Stores, cues: Rc<Cues>, jobs: Arc<JobCells>) {
    let mut collector = Collector::default();
    loop {
        env.sleep(COLLECT_LOGS_EVERY).await;
        if !cues.writes.get() {
            continue;
        }
        match collector.pass(&env, &stores).await {
            Ok(done) => {
                jobs.logs_collected(env.wall(), &done);
                let Collected { logs, keys, held_back, .. } = done;
                if logs + keys > 0 {
                    tracing::info!(logs, keys, held_back, "collected sealed write-ahead logs");
                }
            }
            Err(error) => tracing::warn!(%error, "collection of sealed write-ahead logs is put off"),
        }
        match remove_strays(&stores, collector.topics()).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed partition records of deleted topics"),
            Err(error) => tracing::warn!(%error, "removal of partition records of deleted topics is put off"),
        }
    }
}

/// Removes partition records of those of `topics` that are deleted: they keep a log from collection. A deletion removes
/// what it finds, and a birth compares the topic; but earlier versions compared none, and an import that was cut off leaves
/// records of a topic that never was. As with segments only a tombstone is proof.
async fn remove_strays(stores: &Stores, topics: &BTreeSet<TopicId>) -> Result<usize, StoreError> {
    let mut unknown = topics.clone();
    let mut pages = Pages::of(&*stores.meta, keys::TOPICS);
    while let Some(page) = pages.next_page().await? {
        for (key, found) in &page.entries {
            let corrupt = |error| StoreError::not_done(FailureKind::Corrupt, format!("record {key}: {error}"));
            // Whoever deletes one removes its records.
            unknown.remove(&TopicRecord::decode(&found.value).map_err(corrupt)?.id);
        }
    }
    let mut removed = 0;
    for topic in deleted_topics(&*stores.objects, &unknown).await? {
        let prefix = keys::partitions_of(topic);
        let mut pages = Pages::of(&*stores.meta, &prefix);
        while let Some(page) = pages.next_page().await? {
            for some in page.entries.chunks(MAX_TXN_OPS / 2) {
                let txn = Txn::delete_unchanged(some.iter().map(|(key, found)| (key, &found.value)));
                // After a conflict somebody else removes them, or the next pass.
                if matches!(stores.meta.txn(txn).await?, TxnOutcome::Committed(_)) {
                    removed += some.len();
                }
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::executor::block_on;
    use millrace_storage::ids::{LeaderEpoch, ShardIndex, TopicPartition, Wid};
    use millrace_storage::meta::Op;
    use millrace_storage::meta::memory::MemoryMeta;
    use millrace_storage::meta::records::{PartitionRecord, RECORD_VERSION, TopicState};
    use millrace_storage::object::memory::MemoryStore;
    use millrace_storage::sim::{ProcessId, Sim};
    use millrace_storage::wal::memory::MemoryWal;
    use std::collections::BTreeMap;

    fn id(number: u128) -> TopicId {
        TopicId(uuid::Uuid::from_u128(number))
    }

    fn stores(env: &Env) -> Stores {
        Stores {
            wal: Rc::new(MemoryWal::new(u64::MAX)),
            objects: Rc::new(MemoryStore::new().handle(env.clone())),
            meta: Rc::new(MemoryMeta::new(uuid::Uuid::from_u128(1))),
        }
    }

    async fn put(stores: &Stores, key: String, value: Bytes) {
        let put = Txn { compares: Vec::new(), ops: vec![Op::Put(key, value)] };
        stores.meta.txn(put).await.expect("memory");
    }

    #[test]
    fn records_of_a_topic_go_only_if_it_has_a_tombstone_and_no_record() {
        let sim = Sim::new(1, false);
        let env = sim.env(ProcessId::WORLD);
        let stores = stores(&env);
        let left = block_on(async {
            for (number, index) in (1..=4).flat_map(|number| (0..130).map(move |index| (number, index))) {
                let (epoch, wid, shard) = (LeaderEpoch(1), Wid(9), ShardIndex(0));
                let record = PartitionRecord { v: RECORD_VERSION, epoch, wid, shard, born: 0, released: None };
                put(&stores, keys::partition(TopicPartition { topic: id(number), index }), record.encode()).await;
            }
            // 1 is in use, 2 is being deleted by somebody, of 3 nothing but its records is there, 4 is deleted.
            for (number, state) in [(1, TopicState::Live), (2, TopicState::Deleting)] {
                let (partitions, settings) = (130, BTreeMap::new());
                let record = TopicRecord { v: RECORD_VERSION, id: id(number), state, partitions, settings };
                put(&stores, keys::topic(&format!("t-{number}")), record.encode()).await;
            }
            for number in [2, 4] {
                let (partitions, settings, state) = (130, BTreeMap::new(), TopicState::Deleting);
                let record = TopicRecord { v: RECORD_VERSION, id: id(number), state, partitions, settings };
                let tombstone = TopicObject::encode("t", &record, true);
                let key = topic_object::key(id(number));
                stores.objects.put_if_absent(&key, vec![tombstone]).await.expect("memory");
            }
            let topics = (1..=4).map(id).collect();
            assert_eq!(remove_strays(&stores, &topics).await.expect("memory"), 130);
            assert_eq!(remove_strays(&stores, &topics).await.expect("memory"), 0);
            let page = stores.meta.list(keys::PARTITIONS, None, 1_000).await.expect("memory");
            let left = page.entries.iter().filter_map(|(key, _)| keys::parse_partition(key));
            left.map(|partition| partition.topic).collect::<BTreeSet<TopicId>>()
        });
        assert_eq!(left, (1..=3).map(id).collect());
    }
}
