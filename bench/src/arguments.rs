//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures brokers that speak Kafka's protocol.
#[derive(Parser, Debug)]
#[command(name = "millrace-bench", version)]
pub(crate) struct Arguments {
    /// What to run.
    #[command(subcommand)]
    pub workload: Workload,
}

/// A workload.
#[derive(Subcommand, Debug)]
pub(crate) enum Workload {
    /// Batches from many connections, as fast as they are acknowledged or at a given rate.
    Produce(Produce),
}

/// What producers ask for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acks {
    /// Durable.
    All,
    /// Appended by the leader.
    Leader,
}

impl Acks {
    /// As Kafka spells it.
    pub(crate) fn code(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
        }
    }
}

/// `millrace-bench produce`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Produce {
    /// A broker, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// Topic; created if it is missing.
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Partitions to write to, of a topic that has as many.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Connections, dealt out over the nodes that lead partitions.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Requests that a connection leaves unanswered at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,
    /// Bytes of a record's value (no key, no headers).
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub record_size: u32,
    /// Bytes of a batch at most; one batch a request, at least one record.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub batch_bytes: u32,
    /// When a request is answered.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub acks: Acks,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Seconds of the same load before that.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub warm_up: u64,
    /// Requests a second over all connections, on a fixed schedule (default: as fast as they are answered).
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub rate: Option<u64>,
    /// Process whose CPU time and memory to report (the broker's).
    #[arg(long)]
    pub pid: Option<u32>,
}
