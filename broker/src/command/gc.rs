//! `millrace gc --dry-run`.

use super::{CommandError, say};
use crate::offline::gc::{Orphans, orphans};
use crate::settings::Effective;
use clap::ArgMatches;
use millrace_storage::audit::Litter;

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    if !matches.get_flag("dry-run") {
        return Err("a running broker collects by itself; --dry-run lists what it would look at".into());
    }
    let settings = Effective::load(matches)?.settings()?;
    Ok(say(&text(&orphans(&settings)?))?)
}

/// One line for each file of a segment, each checkpoint, and the write-ahead objects of a log that stay for one reason; then
/// the sums.
fn text(found: &Orphans) -> String {
    let mut text = String::new();
    for orphan in &found.segments {
        let stored = &orphan.stored;
        for key in &stored.keys {
            text.push_str(&format!("{key}: {}\n", orphan.because));
        }
    }
    for litter in &found.logs.objects {
        let more = if litter.count > 1 { format!(" and {} more", litter.count - 1) } else { String::new() };
        text.push_str(&format!("{}{more}: {}\n", litter.key, litter.because));
    }
    for litter in &found.logs.checkpoints {
        text.push_str(&format!("{}: {}\n", litter.key, litter.because));
    }
    let bytes: u64 = found.segments.iter().map(|orphan| orphan.stored.bytes).sum();
    let sum = |all: &[Litter]| all.iter().fold((0, 0), |sum, one| (sum.0 + one.count, sum.1 + one.bytes));
    let (objects, checkpoints) = (sum(&found.logs.objects), sum(&found.logs.checkpoints));
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:13} {value}\n"));
    line("store", found.url.to_string());
    line("metadata", found.metadata.clone());
    line("orphans", format!("{} segments in {bytes} bytes", found.segments.len()));
    line("", format!("{} write-ahead objects in {} bytes", objects.0, objects.1));
    line("", format!("{} checkpoints in {} bytes", checkpoints.0, checkpoints.1));
    text
}
