//! Batches from many connections, as fast as they are acknowledged or on a fixed schedule.

use super::{RunError, failed};
use crate::arguments::Load;
use crate::load::crew::Crew;
use crate::load::team::{self, Shared};
use crate::load::template::Content;
use crate::result::{Progress, RunResult};

/// Runs it.
pub(crate) fn run(name: &str, load: &Load, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let crew = Crew::gather(load, Content::Plain, 0)?;
    let shared = Shared::start(load);
    let members = crew.members(load, &shared, None);
    team::run(name, load, &shared, members, show).map_err(failed)
}
