//! The workloads, one a file, and the way into all of them.

mod produce;

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
}

/// Runs a workload from its connections to their end; `show` is called about once a second meanwhile.
///
/// # Errors
/// When there is nothing to report: the cluster can't be used or the machine lacks something. What goes wrong after the
/// start is counted in the result.
pub(crate) fn run(workload: &Workload, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    match workload {
        Workload::Produce(load) => produce::run(workload.name(), load, show),
    }
}

/// Why a thread of a run failed.
fn failed(error: io::Error) -> RunError {
    RunError::Io("the run".to_owned(), error)
}
