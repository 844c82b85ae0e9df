//! Sends the same requests to two brokers and compares the answers: every API and version that Millrace serves.
//!
//! ```text
//! millrace-differential --left HOST:PORT --right HOST:PORT [--rounds N] [--seed N] [--only TEXT]
//! ```
//! The left broker is the reference, the right one Millrace; each a cluster of one node. Both get hand-written scenarios
//! (one file for each family of APIs) and generated requests (`generated`); responses are decoded, what differs by
//! nature is replaced by words (`names`), the rest compared field by field. A connection that closes is an outcome too.
//! Differences accepted on purpose stand in `accepted.txt` with a reason; any other makes the program fail.
//!
//! Not compared: the order of elements that have keys, texts for people, whether throttle times are zero.

mod accepted;
mod client;
mod generated;
mod names;
mod pair;
mod report;
mod scenarios;
mod tree;

use pair::Pair;
use report::Report;
use std::error::Error;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

const USAGE: &str = "millrace-differential --left HOST:PORT --right HOST:PORT [--rounds N] [--seed N] [--only TEXT]";

/// Generated requests for each API and version.
const DEFAULT_ROUNDS: u64 = 20;

struct Arguments {
    left: String,
    right: String,
    rounds: u64,
    seed: u64,
    /// Only cases whose `API case` contains this are compared; all are sent.
    only: Option<String>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let mut parsed =
        Arguments { left: String::new(), right: String::new(), rounds: DEFAULT_ROUNDS, seed: 1, only: None };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match flag.as_str() {
            "--left" => parsed.left = value,
            "--right" => parsed.right = value,
            "--rounds" => parsed.rounds = value.parse()?,
            "--seed" => parsed.seed = value.parse()?,
            "--only" => parsed.only = Some(value),
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
    let whole = arguments.only.is_none();
    let run = (std::process::id(), started_ms);
    let mut pair = Pair::new(&arguments.left, &arguments.right, run, Report::new(accepted), arguments.only)?;
    scenarios::run(&mut pair)?;
    generated::run(&mut pair, arguments.seed, arguments.rounds)?;
    print!("{}", pair.report.render(whole));
    Ok(pair.report.is_clean(whole))
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
