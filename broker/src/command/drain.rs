//! `millrace drain`.

use super::{CommandError, say};
use crate::offline::drain::{self, Left, Order};
use crate::settings::{Effective, add_flags};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::time::Duration;

pub(super) fn command() -> Command {
    let name =
        Arg::new("broker").value_name("NAME").required(true).help("Name of the process, as its start-up text says");
    let undo = Arg::new("undo").long("undo").action(ArgAction::SetTrue).help("Let it take work again");
    let wait = Arg::new("wait").long("wait").action(ArgAction::SetTrue).conflicts_with("undo");
    let wait = wait.help("Wait until nothing is left there");
    let timeout = Arg::new("timeout")
        .long("timeout")
        .value_name("SECONDS")
        .default_value("600")
        .value_parser(clap::value_parser!(u32).range(1..))
        .help("With --wait: how long at most");
    let about = "Have a process of a cluster left: its partitions and groups go to the others, until this is undone";
    add_flags(Command::new("drain").about(about).arg(name).arg(undo).arg(wait).arg(timeout))
}

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let settings = Effective::load(matches)?.settings()?;
    let name = matches.get_one::<String>("broker").expect("required");
    let seconds = *matches.get_one::<u32>("timeout").expect("has a default");
    let wait = matches.get_flag("wait").then(|| Duration::from_secs(seconds.into()));
    let order = if matches.get_flag("undo") { Order::Undo } else { Order::Leave { wait } };
    // Nobody may be reading it.
    let told = |left: Left| drop(say(&format!("{name} has {left}\n")));
    drain::drain(&settings, name, order, told)?;
    let done = match order {
        Order::Undo => format!("{name} is given work again\n"),
        Order::Leave { wait: None } => {
            format!("{name} hands over what it has; it is given nothing until `millrace drain --undo`\n")
        }
        Order::Leave { wait: Some(_) } => {
            format!("nothing is left at {name}; it is given nothing until `millrace drain --undo`\n")
        }
    };
    Ok(say(&done)?)
}
