//! When the journal is written: in a cluster by the controller, else by the process itself; a snapshot once in the time of
//! the setting, a mark soon after partitions were placed or born, and a last snapshot when the process stops.

use super::writer::{Journal, Written};
use crate::admin::jobs::JobCells;
use futures::FutureExt;
use millrace_storage::env::Env;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks at what the control task says.
const LOOK: Duration = Duration::from_secs(1);
/// A snapshot that failed is tried again after this at the latest, and the first of a life is written by then.
const SOON: Duration = Duration::from_secs(10);
/// How long the end of a process waits for its last snapshot.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// What the control task says to the journal's and to the collectors', on the same thread.
#[derive(Debug, Default)]
pub struct Cues {
    /// Whether this process is the one that writes, and collects: it is alone, or controller.
    pub(crate) writes: Cell<bool>,
    /// Rises whenever partitions are placed or born.
    pub(crate) placements: Cell<u64>,
}

/// Writes for as long as the process runs.
pub(crate) async fn run(env: Env, journal: Journal, every: Duration, cues: Rc<Cues>, jobs: Arc<JobCells>) {
    let mut marked = None;
    let mut due = env.now().plus(every.min(SOON));
    loop {
        env.sleep(LOOK).await;
        if !cues.writes.get() {
            // Whoever takes over writes soon: its predecessor may have died before it did.
            (marked, due) = (None, env.now().plus(every.min(SOON)));
            continue;
        }
        let placements = cues.placements.get();
        if marked != Some(placements) {
            match journal.mark().await {
                Ok(()) => marked = Some(placements),
                Err(error) => tracing::warn!(%error, "no mark could be left in the journal yet"),
            }
        }
        if env.now() < due {
            continue;
        }
        match journal.snapshot(false).await {
            Ok(written) => {
                jobs.journaled(env.wall());
                tell(written);
                due = env.now().plus(every);
            }
            Err(error) => {
                tracing::warn!(%error, "offsets and groups could not be copied to the store yet");
                due = env.now().plus(every.min(SOON));
            }
        }
    }
}

/// The last snapshot of a process that has stopped serving: what it acknowledged is in it, or in one of a greater number.
pub(crate) async fn last(env: &Env, journal: &Journal) {
    let written = futures::select_biased! {
        written = journal.snapshot(true).boxed_local().fuse() => written,
        () = env.sleep(LAST_WITHIN).fuse() => return tracing::warn!("the last snapshot of offsets and groups took too long"),
    };
    match written {
        Ok(written) => tell(written),
        Err(error) => tracing::warn!(%error, "offsets and groups could not be copied to the store at the end"),
    }
}

fn tell(written: Option<Written>) {
    if let Some(Written { number, keys, bytes }) = written {
        tracing::debug!(number, keys, bytes, "copied offsets and groups to the store");
    }
}
