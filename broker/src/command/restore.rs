//! `millrace restore`.

use super::moment::moment;
use super::{CommandError, say};
use crate::control::messages::NewTopic;
use crate::offline::restore::{Restore, restore};
use crate::settings::{Effective, add_flags};
use clap::{Arg, ArgAction, ArgMatches, Command};
use millrace_storage::ids::Offset;
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub(super) fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let at = "Take nothing later than this by the records' timestamps: RFC 3339 or Unix milliseconds (default: all)";
    let to = "First offset of a partition that is not wanted; may be given again";
    let command = Command::new("restore")
        .about("Make a new topic of what another held at a point in time, offsets preserved, while no broker runs")
        .arg(text("topic", "NAME", "The topic that is read, and stays as it is").required(true))
        .arg(text("as", "NAME", "Name of the new topic").required(true))
        .arg(text("at", "TIME", at).value_parser(moment))
        .arg(text("to", "PARTITION:OFFSET", to).action(ArgAction::Append).value_parser(place))
        .arg(
            Arg::new("include-expired")
                .long("include-expired")
                .action(ArgAction::SetTrue)
                .help("Take what has expired or was deleted too, as far as segments of it are still stored"),
        )
        .arg(
            text(
                "topic-config",
                "KEY=VALUE",
                "A setting of the new topic beside those of the other; may be given again",
            )
            .action(ArgAction::Append),
        );
    add_flags(command)
}

/// A partition and an offset.
fn place(text: &str) -> Result<(u32, i64), String> {
    let read = || {
        let (partition, offset) = text.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok().filter(|offset| *offset >= 0)?))
    };
    read().ok_or_else(|| "expected PARTITION:OFFSET".to_owned())
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    let pairs = matches.get_many::<String>("topic-config").unwrap_or_default().map(|pair| match pair.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("--topic-config {pair}: expected KEY=VALUE")),
    });
    let required = |name: &str| matches.get_one::<String>(name).expect("clap requires it").clone();
    let ends: BTreeMap<u32, Offset> = matches
        .get_many::<(u32, i64)>("to")
        .unwrap_or_default()
        .map(|&(partition, offset)| (partition, Offset(offset)))
        .collect();
    let new = NewTopic { name: required("as"), partitions: None, settings: pairs.collect::<Result<_, _>>()? };
    let asked = Restore {
        topic: required("topic"),
        new,
        at: matches.get_one("at").copied(),
        ends,
        expired: matches.get_flag("include-expired"),
    };
    let restored = restore(&settings, &asked)?;
    let mut out = format!("restored {} as {}\n", asked.topic, asked.new.name);
    for one in &restored {
        // Writing to a string does not fail.
        let _ = write!(out, "  partition {}: {} records, offsets {} to {}", one.index, one.records, one.start, one.end);
        let _ = match one.left_out_from {
            Some(offset) => writeln!(out, "; left out from offset {offset}"),
            None => writeln!(out),
        };
    }
    out.push_str("  retention   off unless --topic-config says otherwise; set it when this topic may go\n");
    Ok(say(&out)?)
}
