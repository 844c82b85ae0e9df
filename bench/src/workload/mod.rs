//! The workloads, one a file, and the way into all of them.

use crate::arguments::Workload;
use crate::result::{Progress, RunResult};
use crate::run::{self, RunError};

/// Runs a workload from its connections to their end; `show` is called about once a second meanwhile.
///
/// # Errors
/// When there is nothing to report: the cluster can't be used or the machine lacks something. What goes wrong after the
/// start is counted in the result.
pub(crate) fn run(workload: &Workload, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    match workload {
        Workload::Produce(load) => run::produce(load, show),
    }
}
