//! `millrace segment export|import`: what copies segments between a Millrace log and KafScale's own keys.

use super::{CommandError, say};
use crate::control::messages::NewTopic;
use crate::offline::export::{Export, export};
use crate::offline::import::{Import, import};
use crate::settings::{Effective, add_flags};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use millrace_storage::ids::Offset;
use std::fmt::Write as _;

fn text(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn namespace() -> Arg {
    text("namespace", "NAME", "KafScale's namespace: the first part of its keys").default_value("default")
}

pub(super) fn export_command() -> Command {
    let offset = |name, help| text(name, "OFFSET", help).value_parser(value_parser!(i64).range(0..));
    let command = Command::new("export")
        .about("Copy a topic out of a store as segments in KafScale's layout; again to go on where the last file ends")
        .arg(text("topic", "NAME", "The topic").required(true))
        .arg(text("partition", "N", "One partition (default: all)").value_parser(value_parser!(u32)))
        .arg(offset("from", "First offset, with the batch that holds it (default: the log's start)"))
        .arg(offset("to", "First offset not wanted (default: the log's end)"))
        .arg(text("target", "URL", "Where to: file:///directory or s3://bucket/prefix").required(true))
        .arg(namespace());
    add_flags(command)
}

pub(super) fn import_command() -> Command {
    let command = Command::new("import")
        .about("Make a new topic of segments in KafScale's layout, offsets preserved, while no broker runs")
        .arg(text("topic", "NAME", "The topic in the source").required(true))
        .arg(text("as", "NAME", "Name of the new topic (default: the same)"))
        .arg(text("source", "URL", "Where from: file:///directory or s3://bucket/prefix").required(true))
        .arg(namespace())
        .arg(
            text("partitions", "N", "Partitions of the new topic (default: as many as there are files for)")
                .value_parser(value_parser!(u32).range(1..)),
        )
        .arg(
            text(
                "topic-config",
                "KEY=VALUE",
                "A setting of the new topic, such as retention.ms=-1; may be given again",
            )
            .action(ArgAction::Append),
        )
        .arg(
            Arg::new("allow-gaps")
                .long("allow-gaps")
                .action(ArgAction::SetTrue)
                .help("Take what there is where files are missing, or have no index"),
        );
    add_flags(command)
}

fn required(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).expect("required or with a default").clone()
}

pub(super) fn run_export(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    let offset = |name, default| Offset(matches.get_one::<i64>(name).copied().unwrap_or(default));
    let asked = Export {
        topic: required(matches, "topic"),
        partition: matches.get_one("partition").copied(),
        offsets: offset("from", 0)..offset("to", i64::MAX),
        target: required(matches, "target").parse()?,
        namespace: required(matches, "namespace"),
    };
    let mut out = format!("exported {} to {}\n", asked.topic, asked.target);
    for one in export(&settings, &asked)? {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "  partition {}: {} records in {} files; the files end at offset {}",
            one.index, one.records, one.files, one.end
        );
    }
    Ok(say(&out)?)
}

pub(super) fn run_import(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    let pairs = matches.get_many::<String>("topic-config").unwrap_or_default().map(|pair| match pair.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("--topic-config {pair}: expected KEY=VALUE")),
    });
    let topic = required(matches, "topic");
    let name = matches.get_one::<String>("as").unwrap_or(&topic).clone();
    let partitions = matches.get_one("partitions").copied();
    let asked = Import {
        new: NewTopic { name, partitions, settings: pairs.collect::<Result<_, _>>()? },
        topic,
        namespace: required(matches, "namespace"),
        source: required(matches, "source").parse()?,
        gaps: matches.get_flag("allow-gaps"),
    };
    let mut out = format!("imported {} from {}\n", asked.new.name, asked.source);
    for one in import(&settings, &asked)? {
        // As above.
        let _ =
            writeln!(out, "  partition {}: {} records, offsets {} to {}", one.index, one.records, one.start, one.end);
        for file in &one.left_out {
            let _ = writeln!(out, "    left out, without an index: {file}");
        }
    }
    Ok(say(&out)?)
}
