//! `millrace-bench`: measures brokers that speak Kafka's protocol, from outside.
//!
//! A run of a [`workload`] is a few threads that own their connections ([`load`]): batches are encoded once, sent as the
//! schedule asks ([`pace`]), every answer is checked and counted; what came of it is a [`result::RunResult`]. Where
//! partitions are led is asked before and when it changes ([`cluster`]); what the broker used comes from the kernel
//! ([`usage`]).
//!
//! 1. Latency under a given rate counts from the moment at which a request was due, not from when it could be sent, so
//!    that a broker that stalls is charged for everything that piled up meanwhile.
//! 2. An answer that is an error, is missing or contradicts an earlier one is counted, printed, and fails the run.
//!
//! Reports are made in [`report`], several brokers laid side by side in [`compare`]. It does not start brokers and asserts
//! no time.

#![allow(clippy::disallowed_methods, reason = "a program that measures real time; it has no simulated form")]

mod ack_share;
mod arguments;
mod cluster;
mod compare;
mod load;
mod machine;
mod metrics;
mod pace;
mod prices;
mod report;
mod result;
mod session;
mod usage;
mod validate;
mod wire;
mod workload;

use arguments::{Arguments, Command, Workload};
use clap::Parser;
use prices::Prices;
use report::{Output, terminal::Summary};
use session::Session;
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.command {
        Command::Run(workload) => run(workload, &arguments.output),
        Command::Compare(compare) => compare::run(compare, &arguments.output),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("millrace-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One workload against one broker; `true`: without an error.
fn run(workload: &Workload, output: &Output) -> Result<bool, Box<dyn Error>> {
    let session = Session {
        label: output.label.clone().unwrap_or_else(|| workload.load().bootstrap.clone()),
        metrics: output.metrics.as_deref().map(str::parse).transpose()?,
        prices: Prices::load(output.prices.as_deref())?,
        before: String::new(),
    };
    let report = session.run(workload)?;
    print!("{}", Summary(&report));
    report::write(&report, output)?;
    Ok(report.result.errors.is_empty())
}
