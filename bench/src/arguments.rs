//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures brokers that speak Kafka's protocol.
#[derive(Parser, Debug)]
#[command(name = "millrace-bench", version)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    #[command(flatten)]
    #[allow(missing_docs, reason = "each workload has its own line")]
    Run(Workload),
}

/// A workload.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Workload {
    /// Batches from many connections, as fast as they are acknowledged or at a given rate.
    Produce(Load),
}

impl Workload {
    /// As on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Workload::Produce(_) => "produce",
        }
    }

    /// What it has in common with the others.
    pub(crate) fn load(&self) -> &Load {
        match self {
            Workload::Produce(load) => load,
        }
    }

    /// The same, to change.
    pub(crate) fn load_mut(&mut self) -> &mut Load {
        match self {
            Workload::Produce(load) => load,
        }
    }
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

/// What every workload sends, where, and how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
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

impl Load {
    /// The names and values that a result states.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let rate = self.rate.map_or_else(|| "as fast as answered".to_owned(), |rate| rate.to_string());
        let all: [(&str, &dyn ToString); 11] = [
            ("bootstrap", &self.bootstrap),
            ("topic", &self.topic),
            ("partitions", &self.partitions),
            ("connections", &self.connections),
            ("in-flight", &self.in_flight),
            ("record-size", &self.record_size),
            ("batch-bytes", &self.batch_bytes),
            ("acks", &self.acks.code()),
            ("seconds", &self.seconds),
            ("warm-up", &self.warm_up),
            ("rate", &rate),
        ];
        all.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
    }
}
