//! `millrace recover` on a copy of the bucket: killed on its way, made again, and compared with what was served.

use crate::node::stores;
use millrace_storage::ids::{BootId, TopicPartition};
use millrace_storage::lane::events::Found;
use millrace_storage::partition::CommittedPartition;
use millrace_storage::recovery::{Rebuilt, Stores, look_up, rebuild};
use millrace_storage::sim::{Faults, ProcessId, Sim, SimBucket, SimMeta};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// A rebuild may be killed in the first of its polls up to this.
const MAX_POLLS: u64 = 300;
/// Virtual time that a rebuild may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rebuilds the metadata store from the bucket alone; what can then be acquired must be what was `served`.
pub async fn check(sim: &Sim, bucket: &SimBucket, served: &BTreeMap<TopicPartition, CommittedPartition>) {
    let bucket = bucket.copied(sim);
    let (killed, _) = begin(sim, &bucket);
    let polls = sim.dice(|dice| dice.below(1..MAX_POLLS));
    sim.kill_after(killed.process, polls);
    sim.within(PATIENCE, || !sim.is_alive(killed.process) || killed.result.borrow().is_some()).await;
    sim.kill(killed.process);
    let (again, stores) = begin(sim, &bucket);
    sim.within(PATIENCE, || again.result.borrow().is_some()).await;
    let rebuilt = again.result.take().expect("FINDING liveness: a rebuild does not end");
    let rebuilt = rebuilt.unwrap_or_else(|error| panic!("FINDING recover: {error}"));
    let found = look_up(&stores, served.keys().copied().collect()).await.expect("this store has no faults");
    for (partition, state) in served {
        let (epoch, acquired) = match &found[partition] {
            // Births leave nothing in the bucket.
            Found::Unborn if state.end.0 == 0 => continue,
            Found::State { record, state } => (record.epoch, state),
            other => panic!("FINDING recover: {partition} is {other:?}"),
        };
        assert!(epoch > state.epoch, "FINDING recover: {partition} at epoch {epoch}, was at {}", state.epoch);
        assert!(acquired.end == state.end, "FINDING recover: {partition} ends at {}, not {}", acquired.end, state.end);
        assert!(
            acquired.log_start == state.log_start
                && acquired.covered >= state.covered
                && acquired.references.iter().eq(state.references.from_offset(acquired.referenced_from())),
            "FINDING recover: {partition} holds {:?} from {}, not {:?} from {}",
            acquired.references,
            acquired.log_start,
            state.references,
            state.log_start
        );
        assert!(acquired.producers == state.producers, "FINDING recover: other producers of {partition}");
        let ids = state.producers.iter().all(|(id, _)| id < rebuilt.producer_ids);
        assert!(ids, "FINDING recover: producer ids of {partition} would be given out again");
    }
}

struct Running {
    process: ProcessId,
    result: Rc<RefCell<Option<Result<Rebuilt, String>>>>,
}

/// Starts a rebuild into a new metadata store.
fn begin(sim: &Sim, bucket: &SimBucket) -> (Running, Stores) {
    let (process, env) = sim.start_process();
    let meta = SimMeta::new(sim, Faults::none());
    let stores = stores(bucket, meta);
    let result = Rc::new(RefCell::new(None));
    let (into, boot) = (result.clone(), BootId(env.random()));
    let (task_env, task_stores) = (env.clone(), stores.clone());
    env.spawn("rebuild", async move {
        let rebuilt = rebuild(&task_env, &task_stores, boot, |_| true).await;
        into.replace(Some(rebuilt.map_err(|error| error.to_string())));
    });
    (Running { process, result }, stores)
}
