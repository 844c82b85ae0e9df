//! Workloads that read while they write: end to end, fan-out, catch-up.

use super::{RunError, failed};
use crate::arguments::{Acks, CatchUp, FanOut, Load};
use crate::load::compress::Codec;
use crate::load::crew::Crew;
use crate::load::intake::{Look, Position, Way};
use crate::load::readers;
use crate::load::team::{self, Shared};
use crate::load::template::Content;
use crate::result::{Finding, Progress, RunResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// From when a batch was due to when a consumer in this process has it.
pub(crate) fn end_to_end(name: &str, load: &Load, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    stamped(load)?;
    let crew = Crew::gather(load, Content::Stamped, 0)?;
    let (routes, ends) = (crew.routes.clone(), readers::ends(load, &crew.routes)?);
    let shared = Shared::start(load, None);
    let mut members = crew.members(load, &shared, None);
    for positions in readers::deal(&ends, load.threads) {
        let what = (positions, Way::Everything, Look::Stamps);
        members.push(readers::member("end to end", load, &shared, &routes, what, |_, _| ()));
    }
    team::run(name, load, &shared, members, show).map_err(failed)
}

/// Several groups that each read everything while it is written. They fetch by assignment: the group protocol takes no
/// part in what is measured.
pub(crate) fn fan_out(name: &str, asked: &FanOut, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let load = &asked.load;
    stamped(load)?;
    let crew = Crew::gather(load, Content::Stamped, 0)?;
    let (routes, ends) = (crew.routes.clone(), readers::ends(load, &crew.routes)?);
    let shared = Shared::start(load, None);
    let mut members = crew.members(load, &shared, None);
    for group in 1..=asked.groups {
        let what = (ends.clone(), Way::Everything, Look::Stamps);
        members.push(readers::member(&format!("group {group}"), load, &shared, &routes, what, |_, _| ()));
    }
    let mut result = team::run(name, load, &shared, members, show).map_err(failed)?;
    result.settings.push(("groups".to_owned(), asked.groups.to_string()));
    Ok(result)
}

/// Readers from offset 0 on, over and over, beside the load.
pub(crate) fn catch_up(name: &str, asked: &CatchUp, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let load = &asked.load;
    let crew = Crew::gather(load, Content::Plain, 0)?;
    let routes = crew.routes.clone();
    let start: Vec<Position> = (0..load.partitions).map(|partition| Position { partition, offset: 0 }).collect();
    let shared = Shared::start(load, None);
    let mut members = crew.members(load, &shared, None);
    let passes = Arc::new(AtomicU64::new(0));
    for _ in 0..asked.readers {
        let what = (start.clone(), Way::Again, Look::Headers);
        let sum = passes.clone();
        let done = move |_, more| {
            sum.fetch_add(more, Ordering::Relaxed);
        };
        members.push(readers::member("catch-up", load, &shared, &routes, what, done));
    }
    let mut result = team::run(name, load, &shared, members, show).map_err(failed)?;
    result.settings.push(("readers".to_owned(), asked.readers.to_string()));
    let value = passes.load(Ordering::Relaxed) as f64;
    result.findings.push(Finding { name: "partitions read to their end".to_owned(), value, unit: "" });
    Ok(result)
}

/// Whether a reader can find the stamps and learns what was acknowledged.
fn stamped(load: &Load) -> Result<(), RunError> {
    if load.compression != Codec::None {
        return Err(RunError::Settings("stamps stand in uncompressed batches: leave out --compression"));
    }
    if load.acks == Acks::None {
        return Err(RunError::Settings(
            "without acknowledgements nobody knows what must be read: leave out --acks none",
        ));
    }
    Ok(())
}
