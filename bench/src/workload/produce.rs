//! Batches from many connections, as fast as they are acknowledged or on a fixed schedule.

use super::{RunError, failed};
use crate::arguments::Load;
use crate::load::compress::Codec;
use crate::load::crew::Crew;
use crate::load::team::{self, Shared};
use crate::load::template::Content;
use crate::result::{Progress, RunResult};
use std::time::Duration;

/// Runs it. Answers that take longer than `drain` after the window are missing.
pub(crate) fn run(
    name: &str,
    load: &Load,
    drain: Option<Duration>,
    show: &mut dyn FnMut(&Progress),
) -> Result<RunResult, RunError> {
    let content = if load.identify.is_some() { Content::Identified } else { Content::Plain };
    if content == Content::Identified && load.compression != Codec::None {
        return Err(RunError::Settings("--identify needs uncompressed batches: leave out --compression"));
    }
    let crew = Crew::gather(load, content, load.identify.unwrap_or_default())?;
    let shared = Shared::start(load, drain);
    let members = crew.members(load, &shared, None);
    team::run(name, load, &shared, members, show).map_err(failed)
}
