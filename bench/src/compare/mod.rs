//! The same workload on several brokers in turn, A B A B …, and the ratios of what was measured.
//!
//! 1. Before the first round that counts, every side runs the whole workload [`Compare::warm_up_rounds`] times.
//! 2. Each run has a topic of its own, so that no side reads or appends to what an earlier run left.
//! 3. Only one side is loaded at a time; the others idle. Ratios are of each side to the first one.
//! 4. An error in any run, warm-up included, fails the comparison; what was measured is reported all the same.

mod outcome;
mod ratio;
mod sides;

use crate::arguments::{Arguments, Command, Workload};
use crate::prices::Prices;
use crate::report::{Output, write_file};
use crate::session::Session;
use clap::{Args, Parser};
use outcome::{Outcome, Run};
use sides::Side;
use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

/// Sides at most.
const MOST_SIDES: usize = 8;

/// `millrace-bench compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Compare {
    /// Brokers: the first one is what the others are compared to.
    #[arg(required = true, num_args = 2..=MOST_SIDES, value_name = "NAME=HOST:PORT[,pid=PID][,metrics=URL]")]
    sides: Vec<Side>,
    /// Rounds that count: each runs every side once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Rounds before those, of the same runs, that do not count.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    warm_up_rounds: u32,
    /// The workload and its arguments, as on a command line of its own.
    #[arg(last = true, required = true, value_name = "WORKLOAD ARGS")]
    workload: Vec<String>,
}

/// Why it cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    /// What follows `--` is not one workload.
    #[error("after -- comes a workload with its own arguments; {0} goes before it or to a side")]
    Workload(&'static str),
    /// Two sides could not be told apart.
    #[error("two sides are called {0}")]
    SameName(String),
}

/// Compares, prints and writes what came of it; `true`: without an error.
///
/// # Errors
/// When a run can't start or a file can't be written.
pub(crate) fn run(compare: &Compare, output: &Output) -> Result<bool, Box<dyn Error>> {
    let workload = compare.parse_workload()?;
    let prices = Prices::load(output.prices.as_deref())?;
    let id = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut outcome = Outcome::new(compare, output.label.clone());
    for round in 0..compare.warm_up_rounds + compare.rounds {
        for (number, side) in compare.sides.iter().enumerate() {
            let session = Session {
                label: side.name.clone(),
                metrics: side.metrics.clone(),
                prices: prices.clone(),
                before: format!("{} {}/{} ", side.name, round + 1, compare.warm_up_rounds + compare.rounds),
            };
            let report = session.run(&on_side(&workload, side, &format!("{id}-{round}-{number}")))?;
            outcome.add(Run { side: number, counts: round >= compare.warm_up_rounds, report });
        }
    }
    print!("{outcome}");
    if let Some(file) = &output.json {
        write_file(file, &crate::report::json::text(&outcome.json()))?;
    }
    if let Some(file) = &output.html {
        write_file(file, &outcome.page())?;
    }
    Ok(outcome.errors() == 0)
}

impl Compare {
    fn parse_workload(&self) -> Result<Workload, Box<dyn Error>> {
        let mut names: Vec<&str> = self.sides.iter().map(|side| side.name.as_str()).collect();
        names.sort_unstable();
        if let Some(same) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CompareError::SameName(same[0].to_owned()).into());
        }
        let program = std::iter::once("millrace-bench");
        let parsed = Arguments::try_parse_from(program.chain(self.workload.iter().map(String::as_str)))?;
        if parsed.output != Output::default() {
            return Err(CompareError::Workload("--json and its like").into());
        }
        match parsed.command {
            Command::Run(workload) if workload.load().pid.is_none() => Ok(workload),
            Command::Run(_) => Err(CompareError::Workload("--pid").into()),
            Command::Compare(_) => Err(CompareError::Workload("compare").into()),
        }
    }
}

/// The workload against one side, with a topic of its own.
fn on_side(workload: &Workload, side: &Side, id: &str) -> Workload {
    let mut workload = workload.clone();
    let load = workload.load_mut();
    load.bootstrap.clone_from(&side.bootstrap);
    load.pid = side.pid;
    load.topic = format!("{}-{id}", load.topic);
    workload
}
