//! `millrace serve`.

use super::CommandError;
use crate::settings::Effective;
use clap::ArgMatches;

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    crate::logging::start();
    drop(settings);
    Ok(())
}
