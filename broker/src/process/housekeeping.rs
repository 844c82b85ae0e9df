//! Work beside the control task: collection of sealed logs that hold nothing any more and of segments that no manifest
//! names, and the journal.
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
use millrace_storage::object::ObjectStore;
use millrace_storage::recovery::{Collected, Collector, Stores};
use millrace_storage::store_error::StoreError;
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
    }
}
