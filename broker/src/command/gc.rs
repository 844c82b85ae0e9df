//! `millrace gc --dry-run`.

use super::{CommandError, say};
use crate::offline::gc::{Orphans, orphans};
use crate::settings::Effective;
use clap::ArgMatches;

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    if !matches.get_flag("dry-run") {
        return Err("a running broker collects by itself; --dry-run lists what it would look at".into());
    }
    let settings = Effective::load(matches)?.settings()?;
    Ok(say(&text(&orphans(&settings)?))?)
}

/// One line for each segment, then the sum.
fn text(found: &Orphans) -> String {
    let mut text = String::new();
    for orphan in &found.orphans {
        let stored = &orphan.stored;
        for key in &stored.keys {
            text.push_str(&format!("{key}: {}\n", orphan.because));
        }
    }
    let bytes: u64 = found.orphans.iter().map(|orphan| orphan.stored.bytes).sum();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:13} {value}\n"));
    line("store", found.url.to_string());
    line("metadata", found.metadata.clone());
    line("orphans", format!("{} segments in {bytes} bytes", found.orphans.len()));
    text
}
