//! `millrace audit`.

use super::{CommandError, say};
use crate::offline::audit::{Audited, audit};
use crate::settings::Effective;
use clap::ArgMatches;
use std::time::Duration;

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    let hours = matches.get_one::<u32>("grace").copied().expect("has a default");
    let audited = audit(&settings, Duration::from_secs(3_600 * u64::from(hours)))?;
    say(&text(&audited))?;
    match audited.report.findings.len() {
        0 => Ok(()),
        1 => Err("1 finding".into()),
        many => Err(format!("{many} findings").into()),
    }
}

/// Findings first, one a line, then what was looked at.
fn text(audited: &Audited) -> String {
    let report = &audited.report;
    let mut text: String = report.findings.iter().map(|finding| format!("{finding}\n")).collect();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:13} {value}\n"));
    line("store", audited.url.to_string());
    line("metadata", audited.metadata.clone());
    line("partitions", report.partitions.to_string());
    line("records", format!("{} in {} segments and {} bytes", report.records, report.segments, report.record_bytes));
    line("objects", format!("{} in {} bytes, {} logs", report.objects, report.object_bytes, report.logs));
    line(
        "unreferenced",
        format!(
            "{} in {} bytes: {} of segments, {} write-ahead objects, {} checkpoints",
            report.unreferenced,
            report.unreferenced_bytes,
            report.unreferenced_segments,
            report.unreferenced_wal,
            report.unreferenced_checkpoints
        ),
    );
    text
}
