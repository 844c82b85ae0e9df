//! `millrace recover`.

use super::moment::{Shown, ago};
use super::{CommandError, say};
use crate::offline::recover::{KeptCounts, Recovered, Source, recover};
use crate::settings::{Effective, add_flags};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::fmt::Write;

pub(super) fn command() -> Command {
    let about = "Rebuild a lost metadata store, or that in an etcd that was restored from an older backup, from the store of the log, while no broker runs";
    let dry_run = Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue);
    let dry_run = dry_run.help("Change nothing: list the topics that there would be, and how old offsets and groups");
    add_flags(Command::new("recover").about(about).arg(dry_run))
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    Ok(say(&text(&recover(&settings, matches.get_flag("dry-run"))?))?)
}

fn text(recovered: &Recovered) -> String {
    let Recovered { dry_run, url, metadata, generation, topics, rebuilt, kept, .. } = recovered;
    let records: i64 = rebuilt.partitions.values().map(|state| state.end.0 - state.log_start.0).sum();
    let begin = if *dry_run { "would recover" } else { "recovered" };
    let logs = if *dry_run { "left as they are".to_owned() } else { format!("{} ended", rebuilt.logs) };
    let mut text = format!(
        "{begin} {} topics with {records} records from {url}\n  metadata   {metadata} (generation {generation})\n  logs       {logs}\n",
        topics.len(),
    );
    let KeptCounts { groups, offsets, dropped, settings, damaged, .. } = kept;
    let mut line = |name: &str, what: String| writeln!(text, "  {name:<10} {what}").expect("a string takes it all");
    line("groups", format!("{groups} with {offsets} committed offsets{}", age(recovered)));
    line("settings", format!("{settings} of groups, brokers and clients; those of topics are their own"));
    if *dropped > 0 {
        line("dropped", format!("{dropped} committed offsets of topics that are deleted"));
    }
    for (key, detail) in damaged {
        line("damaged", format!("{key}: {detail}; an older one was taken"));
    }
    if *dry_run {
        for (name, topic) in topics {
            let ends = rebuilt.partitions.range(of_topic(topic.id));
            let records: i64 = ends.map(|(_, state)| state.end.0 - state.log_start.0).sum();
            line("topic", format!("{name} ({}): {} partitions, {records} records", topic.id, topic.partitions));
        }
    }
    text
}

fn of_topic(topic: millrace_storage::ids::TopicId) -> std::ops::RangeInclusive<millrace_storage::ids::TopicPartition> {
    let at = |index| millrace_storage::ids::TopicPartition { topic, index };
    at(0)..=at(u32::MAX)
}

/// How old they may be.
fn age(recovered: &Recovered) -> String {
    match &recovered.kept.source {
        Source::Nothing => ", since nothing was copied to the store: committed offsets and group state are lost, so groups\n             start where auto.offset.reset says, or where you set their offsets".to_owned(),
        Source::Metadata(_) => " as the etcd had them, which is not older than the store".to_owned(),
        Source::Journal(head) => {
            let (at, age) = (Shown(head.taken_at), ago(head.taken_at, recovered.at));
            let rest = if head.stopping {
                "when it stopped; what others may have committed after that is lost"
            } else {
                "while it ran; what was committed after that is lost"
            };
            format!(" as of {at}, {age} ago, copied by {} {rest}", head.writer)
        }
    }
}
