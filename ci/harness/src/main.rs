//! Programs that prove a running broker from outside: they start the real binary, speak Kafka's protocol over plain
//! sockets, kill, starve and mistreat the process, and compare what they were told with what the log holds.
//!
//! 1. Every program ends by itself: each wait has a deadline, and the broker it started dies with it.
//! 2. Exit status 0 means that the proof holds; what breaks it is printed.
//! 3. Nothing here shares code with the broker but the wire messages: batches and checks are written a second time, so
//!    that a mistake of the broker is not mirrored.
#![expect(clippy::disallowed_methods, reason = "a program with real clocks and threads, never simulated")]

mod backpressure;
mod batch;
mod check;
mod cluster;
mod commits;
mod connection;
mod consumer;
mod crash;
mod failover;
mod faults;
mod garbage;
mod history;
mod idle;
mod ledger;
mod load;
mod member;
mod process;
mod producer;
mod proxy;
mod random;
mod route;
mod sizes;
mod soak;
mod trouble;
mod world;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Proofs against a real broker process.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand)]
enum Proof {
    /// Kill -9 under load, again and again: nothing acknowledged is lost, nothing read vanishes.
    Crash(crash::Options),
    /// Brokers of a cluster, etcd and the store are killed, stopped and cut off from each other under load: nothing acknowledged is
    /// lost, doubled or reordered.
    Faults(faults::Options),
    /// How long partitions are not served when a broker is killed, stopped or told to end, or all are restarted in turn.
    Failover(failover::Options),
    /// Judges a history that `faults` wrote.
    Check(check::Options),
    /// Producers faster than the store: memory stays bounded, heartbeats go on, nothing is lost.
    Backpressure(backpressure::Options),
    /// Bytes that are no Kafka: the process lives, memory stays bounded, errors are Kafka's.
    Garbage(garbage::Options),
    /// Produce, consume and retention at a steady rate, with kills: nothing grows.
    Soak(soak::Options),
    /// Offsets of many groups committed at once, kill -9 in between: how many a second, and none lost that was acknowledged.
    Commits(commits::Options),
    /// Resident size of an idle broker, without and with partitions.
    Idle(idle::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().proof {
        Proof::Crash(options) => crash::run(&options),
        Proof::Faults(options) => faults::run(&options),
        Proof::Failover(options) => failover::run(&options),
        Proof::Check(options) => check::run(&options),
        Proof::Backpressure(options) => backpressure::run(&options),
        Proof::Garbage(options) => garbage::run(&options),
        Proof::Soak(options) => soak::run(&options),
        Proof::Commits(options) => commits::run(&options),
        Proof::Idle(options) => idle::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(trouble) => {
            println!("FAILED: {trouble}");
            ExitCode::FAILURE
        }
    }
}
