//! `millrace recover`.

use super::{CommandError, say};
use crate::offline::recover::{Recovered, recover};
use crate::settings::Effective;
use clap::ArgMatches;

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    Ok(say(&text(&recover(&settings)?))?)
}

fn text(recovered: &Recovered) -> String {
    let Recovered { url, metadata, generation, topics, rebuilt } = recovered;
    let records: i64 = rebuilt.partitions.values().map(|state| state.end.0 - state.log_start.0).sum();
    format!(
        "recovered {topics} topics with {records} records from {url}\n  metadata   {} (generation {generation})\n  \
         logs       {} ended\n  lost       committed offsets and group state: they were in the metadata store alone, so \
         groups\n             start where auto.offset.reset says, or where you set their offsets\n",
        metadata.display(),
        rebuilt.logs,
    )
}
