//! The command line.

use crate::compare::Compare;
use crate::load::compress::Codec;
use crate::load::keys::Keys;
use crate::report::Output;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures brokers that speak Kafka's protocol.
#[derive(Parser, Debug)]
#[command(name = "millrace-bench", version)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What it gives besides the summary.
    #[command(flatten, next_help_heading = "Output")]
    pub output: Output,
}

/// What the program does.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    #[command(flatten)]
    #[allow(missing_docs, reason = "each workload has its own line")]
    Run(Workload),
    /// The same workload on several brokers in turn, and the ratios of what was measured.
    Compare(Compare),
}

/// A workload.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Workload {
    /// Batches from many connections, as fast as they are acknowledged or at a given rate.
    Produce(Load),
    /// The highest rate of requests that holds a given p99.
    Ramp(Ramp),
    /// From when a batch was due to when a consumer in this process has it, by one clock.
    EndToEnd(Load),
    /// Several groups that each read everything while it is written.
    FanOut(FanOut),
    /// Readers from offset 0 on, over and over, beside the load.
    CatchUp(CatchUp),
    /// Everything that the topic holds, from its start to the end that it has now; nothing is written.
    #[command(mut_arg("seconds", |arg| arg.default_value("3600").help("Seconds that it may take at most; with --again, that it takes")))]
    #[command(mut_arg("warm_up", |arg| arg.default_value("0")))]
    Replay(Replay),
    /// Produce to a thousand partitions.
    #[command(mut_arg("partitions", |arg| arg.default_value("1000")))]
    #[command(mut_arg("batch_bytes", |arg| arg.default_value("4096")))]
    ManyPartitions(Load),
    /// Produce over a thousand connections.
    #[command(mut_arg("connections", |arg| arg.default_value("1000")))]
    #[command(mut_arg("in_flight", |arg| arg.default_value("1")))]
    #[command(mut_arg("batch_bytes", |arg| arg.default_value("4096")))]
    ManyConnections(Load),
    /// One record of 100 bytes a request, 64 connections.
    #[command(mut_arg("connections", |arg| arg.default_value("64")))]
    #[command(mut_arg("in_flight", |arg| arg.default_value("1")))]
    #[command(mut_arg("record_size", |arg| arg.default_value("100")))]
    #[command(mut_arg("batch_bytes", |arg| arg.default_value("1")))]
    SmallProducers(Load),
    /// One idempotent producer on one partition, batches of 16 KiB, five in flight: the Java producer's defaults.
    #[command(mut_arg("partitions", |arg| arg.default_value("1")))]
    #[command(mut_arg("connections", |arg| arg.default_value("1")))]
    #[command(mut_arg("in_flight", |arg| arg.default_value("5")))]
    #[command(mut_arg("batch_bytes", |arg| arg.default_value("16384")))]
    #[command(mut_arg("idempotent", |arg| arg.default_value("true")))]
    OneIdempotent(Load),
    /// From the start of a broker's process to its first acknowledgement.
    ColdStart(ColdStart),
    /// Connections that ask for nothing.
    #[command(mut_arg("connections", |arg| arg.default_value("1000")))]
    #[command(mut_arg("partitions", |arg| arg.default_value("1000")))]
    Idle(Load),
}

/// `millrace-bench ramp`: steps of the load, each with its warm-up and window.
#[derive(Args, Clone, Debug)]
pub(crate) struct Ramp {
    /// The load of a step; its rate, or 1000, is the first one tried.
    #[command(flatten)]
    pub load: Load,
    /// What the p99 must stay below, milliseconds.
    #[arg(long, default_value_t = 10.0, value_parser = milliseconds)]
    pub p99_ms: f64,
}

/// A number of milliseconds up to ten minutes.
fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value <= 600_000.0 => Ok(value),
        _ => Err(format!("{text} is no number of milliseconds above 0 and up to 600000")),
    }
}

/// `millrace-bench fan-out`.
#[derive(Args, Clone, Debug)]
pub(crate) struct FanOut {
    /// What is written.
    #[command(flatten)]
    pub load: Load,
    /// Groups, a thread and a connection to each node for each. They fetch all partitions without a group protocol.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub groups: u32,
}

/// `millrace-bench catch-up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CatchUp {
    /// What is written meanwhile.
    #[command(flatten)]
    pub load: Load,
    /// Readers, a thread and a connection to each node for each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub readers: u32,
}

/// `millrace-bench replay`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Replay {
    /// What is read, by so many --threads for each reader.
    #[command(flatten)]
    pub load: Load,
    /// Readers of everything, each with threads of its own, and of those each with a connection to each node.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub readers: u32,
    /// Over and over, until --seconds are over.
    #[arg(long, conflicts_with = "identify")]
    pub again: bool,
}

/// `millrace-bench cold-start`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ColdStart {
    /// What is written first.
    #[command(flatten)]
    pub load: Load,
    /// The shell command that becomes the broker's process (it runs under `exec`).
    #[arg(long)]
    pub command: String,
    /// How often it is started, and stopped after its first acknowledgement.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub times: u32,
}

/// The load of a workload, borrowed as the workload is.
macro_rules! load_of {
    ($workload:expr) => {
        match $workload {
            Workload::Ramp(Ramp { load, .. })
            | Workload::FanOut(FanOut { load, .. })
            | Workload::CatchUp(CatchUp { load, .. })
            | Workload::Replay(Replay { load, .. })
            | Workload::ColdStart(ColdStart { load, .. })
            | Workload::Produce(load)
            | Workload::EndToEnd(load)
            | Workload::ManyPartitions(load)
            | Workload::ManyConnections(load)
            | Workload::SmallProducers(load)
            | Workload::OneIdempotent(load)
            | Workload::Idle(load) => load,
        }
    };
}

impl Workload {
    /// As on the command line.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Workload::Produce(_) => "produce",
            Workload::Ramp(_) => "ramp",
            Workload::EndToEnd(_) => "end-to-end",
            Workload::FanOut(_) => "fan-out",
            Workload::CatchUp(_) => "catch-up",
            Workload::Replay(_) => "replay",
            Workload::ManyPartitions(_) => "many-partitions",
            Workload::ManyConnections(_) => "many-connections",
            Workload::SmallProducers(_) => "small-producers",
            Workload::OneIdempotent(_) => "one-idempotent",
            Workload::ColdStart(_) => "cold-start",
            Workload::Idle(_) => "idle",
        }
    }

    /// What it has in common with the others.
    pub(crate) fn load(&self) -> &Load {
        load_of!(self)
    }

    /// The same, to change.
    pub(crate) fn load_mut(&mut self) -> &mut Load {
        load_of!(self)
    }
}

/// What producers ask for.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acks {
    /// Durable.
    All,
    /// Appended by the leader.
    Leader,
    /// Never: what the kernel took counts as answered.
    None,
}

impl Acks {
    /// As Kafka spells it.
    pub(crate) fn code(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::None => 0,
        }
    }
}

/// What every workload sends, where, and how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct Load {
    /// A broker, HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:9092", overrides_with = "bootstrap")]
    pub bootstrap: String,
    /// Topic; created if it is missing.
    #[arg(long, default_value = "bench")]
    pub topic: String,
    /// Partitions to write to, of a topic that has as many.
    #[arg(long, default_value_t = 12, overrides_with = "partitions", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Producers, each with a connection to one of the nodes that lead partitions; more if a leader changes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Requests that a connection leaves unanswered at a time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub in_flight: u32,
    /// Threads that send, and as many that read if the workload does; connections are dealt out over them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// CPUs that threads are pinned to in turn, as 0,2,3 (default: where the kernel puts them).
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Bytes of a record's value (no headers).
    #[arg(long, default_value_t = 1024, overrides_with = "record_size", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub record_size: u32,
    /// Bytes of a batch at most; one batch a request, at least one record.
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub batch_bytes: u32,
    /// When a request is answered.
    #[arg(long, value_enum, default_value_t = Acks::All)]
    pub acks: Acks,
    /// How records are compressed, once before the run.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    pub compression: Codec,
    /// Of a value, how many bytes in a hundred are zeros; the others do not compress.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub compressibility: u32,
    /// Keys, and by them partitions as Kafka's default partitioner chooses them: none, uniform:KEYS or
    /// zipf:KEYS:EXPONENT.
    #[arg(long, default_value_t = Keys::None)]
    pub keys: Keys,
    /// Idempotent producers (KIP-98), one for each connection, at most five requests in flight to a partition.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pub idempotent: bool,
    /// With produce: every record carries who it is and a checksum, and all are read back meanwhile to prove that none
    /// is lost, doubled, reordered or changed. The topic must have no other writer.
    #[arg(long)]
    pub validate: bool,
    /// With produce: every record carries who it is, in a run of this number, and a checksum. With replay: what is read
    /// is held against that, and summed up in a digest that does not depend on the broker.
    #[arg(long)]
    pub identify: Option<u64>,
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
        let cpus = self.cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let identify = self.identify.map_or_else(|| "no".to_owned(), |run| run.to_string());
        let compression = format!("{:?}", self.compression).to_lowercase();
        let all: [(&str, &dyn ToString); 19] = [
            ("bootstrap", &self.bootstrap),
            ("topic", &self.topic),
            ("partitions", &self.partitions),
            ("connections", &self.connections),
            ("threads", &self.threads),
            ("cpus", &cpus),
            ("in-flight", &self.in_flight),
            ("record-size", &self.record_size),
            ("batch-bytes", &self.batch_bytes),
            ("acks", &self.acks.code()),
            ("compression", &compression),
            ("compressibility", &self.compressibility),
            ("keys", &self.keys),
            ("idempotent", &self.idempotent),
            ("validate", &self.validate),
            ("identify", &identify),
            ("seconds", &self.seconds),
            ("warm-up", &self.warm_up),
            ("rate", &rate),
        ];
        all.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
    }
}
