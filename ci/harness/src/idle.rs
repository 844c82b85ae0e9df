//! Resident size of a broker that nobody uses.

use crate::cluster;
use crate::process::{Broker, RunDirectory, Target};
use crate::trouble::Trouble;
use clap::Args;
use std::thread;
use std::time::Duration;

/// Longest wait for anything that should take a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Sizes are taken when this has passed without work.
const SETTLE: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Partitions of the second measurement.
    #[arg(long, default_value_t = 1000)]
    partitions: i32,
    /// Fail above this resident size with partitions, in MiB.
    #[arg(long)]
    limit_mib: Option<u64>,
}

/// Runs the measurement.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    println!("idle: {}", options.target.describe());
    let directory = RunDirectory::new()?;
    let setup = options.target.setup(directory.path())?;
    let broker = setup.start_listening(LIMIT)?;
    let empty = settled_kib(&broker)?;
    cluster::create_topic(setup.bootstrap, "idle", options.partitions, LIMIT)?;
    let full = settled_kib(&broker)?;
    println!(
        "idle: resident {:.1} MiB with 0 partitions, {:.1} MiB with {}",
        empty as f64 / 1024.0,
        full as f64 / 1024.0,
        options.partitions
    );
    match options.limit_mib {
        Some(limit) if full > limit * 1024 => Err(Trouble::proof(format!("above {limit} MiB"))),
        _ => Ok(()),
    }
}

fn settled_kib(broker: &Broker) -> Result<u64, Trouble> {
    thread::sleep(SETTLE);
    broker.resident_kib()
}
