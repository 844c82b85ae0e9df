//! Sends the same requests to two brokers and compares the answers: every API and version that Millrace serves.
//!
//! ```text
//! millrace-differential --left HOST:PORT --right HOST:PORT [--rounds N] [--seed N] [--only TEXT]
//!                       [--store DIR] [--tag N] [--part all|requests|history|cold] [--accepted hide|show]
//! ```
//! The left broker is the reference, the right one Millrace; each a cluster of one node. Both get hand-written scenarios
//! (one file for each family of APIs) and generated requests (`generated`); responses are decoded, what differs by
//! nature is replaced by words (`names`), the rest compared field by field. A connection that closes is an outcome too.
//! Differences accepted on purpose stand in `accepted.txt` with a reason; any other makes the program fail.
//!
//! With the directory of Millrace's object store, in which it must be rolling segments, a long history is written to both
//! and compared offset by offset (`history`); `--part cold` compares that of an earlier run with the same tag.
//!
//! Not compared: the order of elements that have keys, texts for people, whether throttle times are zero.

mod accepted;
mod client;
mod dice;
mod generated;
mod history;
mod names;
mod pair;
mod report;
mod scenarios;
mod tree;

use pair::Pair;
use report::Report;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

const USAGE: &str = "millrace-differential --left HOST:PORT --right HOST:PORT [--rounds N] [--seed N] [--only TEXT] \
                     [--store DIR] [--tag N] [--part all|requests|history|cold] [--accepted hide|show]";

/// Generated requests for each API and version.
const DEFAULT_ROUNDS: u64 = 20;

struct Arguments {
    left: String,
    right: String,
    rounds: u64,
    seed: u64,
    /// Only cases whose `API case` contains this are compared; all are sent.
    only: Option<String>,
    /// Where Millrace's objects are.
    store: Option<PathBuf>,
    /// Names the run.
    tag: u32,
    part: Part,
    /// Whether what was accepted is printed too.
    accepted: bool,
}

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Everything but [`Part::Cold`].
    All,
    /// Hand-written scenarios and generated requests.
    Requests,
    /// A history is written and compared.
    History,
    /// The history of an earlier run is compared.
    Cold,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut parsed = Arguments {
        left: String::new(),
        right: String::new(),
        rounds: DEFAULT_ROUNDS,
        seed: 1,
        only: None,
        store: None,
        tag: std::process::id(),
        part: Part::All,
        accepted: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match flag.as_str() {
            "--left" => parsed.left = value,
            "--right" => parsed.right = value,
            "--rounds" => parsed.rounds = value.parse()?,
            "--seed" => parsed.seed = value.parse()?,
            "--only" => parsed.only = Some(value),
            "--store" => parsed.store = Some(value.into()),
            "--tag" => parsed.tag = value.parse()?,
            "--part" => {
                parsed.part = match value.as_str() {
                    "all" => Part::All,
                    "requests" => Part::Requests,
                    "history" => Part::History,
                    "cold" => Part::Cold,
                    _ => return Err(USAGE.into()),
                }
            }
            "--accepted" => parsed.accepted = value == "show",
            _ => return Err(USAGE.into()),
        }
    }
    if parsed.left.is_empty() || parsed.right.is_empty() { Err(USAGE.into()) } else { Ok(parsed) }
}

fn run() -> Result<bool, Box<dyn Error>> {
    let arguments = arguments()?;
    let accepted = accepted::parse(include_str!("../accepted.txt"))?;
    #[expect(clippy::disallowed_methods, reason = "records need timestamps that brokers take for recent")]
    let started_ms = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let part = arguments.part;
    let whole = arguments.only.is_none() && part == Part::All && arguments.store.is_some();
    let run = (arguments.tag, started_ms);
    let mut pair = Pair::new(&arguments.left, &arguments.right, run, Report::new(accepted), arguments.only)?;
    if matches!(part, Part::All | Part::Requests) {
        scenarios::run(&mut pair)?;
        generated::run(&mut pair, arguments.seed, arguments.rounds)?;
    }
    if let Some(store) = arguments.store.filter(|_| part != Part::Requests) {
        match part {
            Part::Cold => history::go_on(&mut pair, arguments.seed, &store)?,
            Part::All | Part::History | Part::Requests => history::write(&mut pair, arguments.seed, &store)?,
        }
    }
    if arguments.accepted {
        print!("{}", pair.report.render_accepted());
    }
    print!("{}", pair.report.render(whole));
    Ok(pair.report.is_clean(whole) && (!whole || pair.report.is_complete()))
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}
