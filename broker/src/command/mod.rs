//! The command line: `serve`, `config`, `topic`, `status`, `drain`, `audit`, `gc`, `recover`, `restore`, `segment`.
//!
//! Every error ends the program with one line on standard error that names what the user can do, and status 1
//! (2 for a wrong command line, as clap does).

mod audit;
mod client;
mod drain;
mod gc;
mod moment;
mod recover;
mod restore;
mod segment;
mod segment_copy;
mod serve;
mod status;
mod topic;

use crate::settings::{Effective, add_flags};
use clap::{Arg, ArgMatches, Command};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// The program's arguments.
pub fn command() -> Command {
    let serve = add_flags(Command::new("serve").about("Run the broker"));
    let config = add_flags(Command::new("config").about("Print the effective settings with units and origin"));
    Command::new("millrace")
        .about("A Kafka-compatible broker whose log lives in object storage")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve)
        .subcommand(config)
        .subcommand(topic_command())
        .subcommand(status::command())
        .subcommand(drain::command())
        .subcommand(audit_command())
        .subcommand(gc_command())
        .subcommand(recover::command())
        .subcommand(restore::command())
        .subcommand(segment_command())
}

fn audit_command() -> Command {
    let grace = Arg::new("grace")
        .long("grace")
        .value_name("HOURS")
        .default_value("24")
        .value_parser(clap::value_parser!(u32))
        .help("How long something may stay that nothing refers to");
    let about = "Prove that a store holds every partition's log whole; list what is not as it must be";
    add_flags(Command::new("audit").about(about).arg(grace))
}

fn gc_command() -> Command {
    let dry_run = Arg::new("dry-run")
        .long("dry-run")
        .action(clap::ArgAction::SetTrue)
        .help("Only list: needed, since a running broker collects by itself");
    let about = "List what in a store nothing needs: segments, write-ahead objects and checkpoints, expired, replaced or on their way";
    add_flags(Command::new("gc").about(about).arg(dry_run))
}

fn segment_command() -> Command {
    let file = || {
        let file = Arg::new("file").value_name("FILE").required(true).value_parser(clap::value_parser!(PathBuf));
        file.help("A segment's .kfs file; its .index is compared with it if it lies beside it")
    };
    Command::new("segment")
        .about("Look into segments, and copy them to and from KafScale's layout")
        .subcommand_required(true)
        .subcommand(Command::new("dump").about("Print each batch").arg(file()))
        .subcommand(Command::new("verify").about("Check all of it and print a summary").arg(file()))
        .subcommand(segment_copy::export_command())
        .subcommand(segment_copy::import_command())
}

fn topic_command() -> Command {
    let bootstrap = Arg::new("bootstrap")
        .long("bootstrap")
        .env("MILLRACE_BOOTSTRAP")
        .value_name("HOST:PORT")
        .default_value("127.0.0.1:9092")
        .global(true)
        .help("Any broker of the cluster");
    let name = || Arg::new("name").value_name("NAME").required(true);
    let partitions = Arg::new("partitions")
        .long("partitions")
        .value_name("N")
        .value_parser(clap::value_parser!(i32).range(1..))
        .help("Number of partitions (default: the broker's)");
    let setting = Arg::new("config")
        .long("config")
        .value_name("KEY=VALUE")
        .action(clap::ArgAction::Append)
        .help("A topic setting by Kafka's name; may be given again");
    Command::new("topic")
        .about("Create, list, describe and delete topics of a running broker")
        .subcommand_required(true)
        .arg(bootstrap)
        .subcommand(Command::new("create").about("Create a topic").arg(name()).arg(partitions).arg(setting))
        .subcommand(Command::new("list").about("List the topics"))
        .subcommand(Command::new("describe").about("Show a topic's partitions and their leaders").arg(name()))
        .subcommand(Command::new("delete").about("Delete a topic and its records").arg(name()))
}

/// Runs the program.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    let result = match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches),
        Some(("config", matches)) => config(matches),
        Some(("topic", matches)) => topic::run(matches),
        Some(("status", matches)) => status::run(matches),
        Some(("drain", matches)) => drain::run(matches),
        Some(("audit", matches)) => audit::run(matches),
        Some(("gc", matches)) => gc::run(matches),
        Some(("recover", matches)) => recover::run(matches),
        Some(("restore", matches)) => restore::run(matches),
        Some(("segment", matches)) => segment::run(matches),
        _ => unreachable!("clap requires one of the subcommands"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reader_left = error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
            if !reader_left {
                // Not `eprintln!`: that panics when standard error is closed.
                let _ = writeln!(io::stderr(), "millrace: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// What a command can fail with; its text is for the user.
type CommandError = Box<dyn std::error::Error>;

/// Writes to standard output. An error, not a panic, when its reader left: `millrace topic list | head -1` is no bug.
fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn config(matches: &ArgMatches) -> Result<(), CommandError> {
    let effective = Effective::load(matches)?;
    effective.settings()?;
    Ok(say(&effective.table())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn topic_create_takes_partitions_and_a_bootstrap_in_any_order() {
        let line = "millrace topic create t --partitions 3 --bootstrap h:1";
        let matches = command().try_get_matches_from(line.split(' ')).expect("a valid command line");
        let (_, topic) = matches.subcommand().expect("topic");
        let (name, create) = topic.subcommand().expect("create");
        assert_eq!(name, "create");
        assert_eq!(create.get_one::<i32>("partitions"), Some(&3));
        assert_eq!(create.get_one::<String>("bootstrap").map(String::as_str), Some("h:1"));
    }
}
