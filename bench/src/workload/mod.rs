//! The workloads, one a file, and the way into all of them.

mod cold_start;
mod consume;
mod idle;
mod produce;
mod ramp;
mod replay;
mod validated;

use crate::arguments::Workload;
use crate::cluster::ClusterError;
use crate::result::{Progress, RunResult};
use std::io;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The cluster can't be used.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A connection or a descriptor could not be made.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// Partitions would be left out.
    #[error("{0} nodes lead partitions of the topic: give at least as many --connections")]
    TooFewConnections(usize),
    /// Settings that don't go together, or that nothing satisfies.
    #[error("{0}")]
    Settings(&'static str),
}

/// Runs a workload from its connections to their end; `show` is called about once a second meanwhile, and when the
/// window begins.
///
/// # Errors
/// When there is nothing to report: the cluster can't be used or the machine lacks something. What goes wrong after the
/// start is counted in the result.
pub(crate) fn run(workload: &Workload, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let name = workload.name();
    if workload.load().validate && !matches!(workload, Workload::Produce(_)) {
        return Err(RunError::Settings("--validate goes with produce"));
    }
    let load = workload.load();
    if load.identify.is_some() && (load.validate || !matches!(workload, Workload::Produce(_) | Workload::Replay(_))) {
        return Err(RunError::Settings("--identify goes with produce without --validate, and with replay"));
    }
    match workload {
        Workload::Produce(load) if load.validate => validated::run(name, load, show),
        Workload::Produce(load)
        | Workload::ManyPartitions(load)
        | Workload::ManyConnections(load)
        | Workload::SmallProducers(load)
        | Workload::OneIdempotent(load) => produce::run(name, load, None, show),
        Workload::Ramp(ramp) => ramp::run(name, ramp, show),
        Workload::EndToEnd(load) => consume::end_to_end(name, load, show),
        Workload::FanOut(fan_out) => consume::fan_out(name, fan_out, show),
        Workload::CatchUp(catch_up) => consume::catch_up(name, catch_up, show),
        Workload::Replay(replay) => replay::run(name, replay, show),
        Workload::ColdStart(cold_start) => cold_start::run(name, cold_start, show),
        Workload::Idle(load) => idle::run(name, load, show),
    }
}

/// Why a thread of a run failed.
fn failed(error: io::Error) -> RunError {
    RunError::Io("the run".to_owned(), error)
}
