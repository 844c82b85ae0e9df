//! Bytes that are no Kafka, or almost: the broker lives, its memory stays bounded, and where Kafka has an error for it,
//! that error is what comes back.
//!
//! First the named mistakes one by one ([`cases`]), then frames mutated by seed from a corpus of valid ones. At the end
//! what was written before must still be read, and writing must still work.

mod cases;
mod mutate;

use crate::batch::{Identity, encode, identity, record_value};
use crate::cluster;
use crate::connection::Connection;
use crate::consumer;
use crate::process::{Broker, RunDirectory, Setup, Target};
use crate::trouble::Trouble;
use bytes::Bytes;
use clap::Args;
use millrace_protocol::messages::MetadataRequest;
use std::path::PathBuf;
use std::time::Duration;

/// The topic that must survive. The corpus has no frame that names it.
const TOPIC: &str = "precious";
/// Longest wait for anything that should take a second.
const LIMIT: Duration = Duration::from_secs(60);

/// How to mistreat.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Mutated frames.
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Decides the mutations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory of valid request frames without their length.
    #[arg(long, default_value = "protocol/fuzz/corpus/request")]
    corpus: PathBuf,
    /// Connections that each announce a large frame and send little of it.
    #[arg(long, default_value_t = 200)]
    promises: usize,
    /// The broker's memory budget, in MiB.
    #[arg(long, default_value_t = 128)]
    memory_mib: u64,
    /// Resident size allowed beside the budget, in MiB.
    #[arg(long, default_value_t = 160)]
    besides_mib: u64,
}

/// Runs the proof.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    println!("garbage: {}, {} mutated frames, seed {}", options.target.describe(), options.frames, options.seed);
    let directory = RunDirectory::new()?;
    let mut target = options.target.clone();
    target.arguments.extend(["--memory-mib".to_owned(), options.memory_mib.to_string()]);
    let setup = target.setup(directory.path())?;
    let outcome = mistreat(options, &setup);
    if outcome.is_err() {
        println!(
            "--- last output of the broker; its data stay in {}\n{}",
            directory.keep().display(),
            setup.last_output()
        );
    }
    outcome
}

fn mistreat(options: &Options, setup: &Setup) -> Result<(), Trouble> {
    let mut patient = Patient { broker: setup.start_listening(LIMIT)?, setup, options, largest_kib: 0 };
    cluster::create_topic(setup.bootstrap, TOPIC, 1, LIMIT)?;
    patient.write(0)?;
    cases::run(&mut patient)?;
    mutate::run(&mut patient)?;
    patient.write(1)?;
    let leader = cluster::retry(LIMIT, || cluster::leaders(setup.bootstrap, TOPIC))?[0];
    let end = cluster::retry(LIMIT, || cluster::log_end(leader, TOPIC, 0))?;
    let log = consumer::read_range(leader, TOPIC, 0, 0, end)?;
    let found: Vec<_> = log.iter().filter_map(|(_, value)| identity(value)).map(|record| record.number).collect();
    if found != [0, 1] {
        return Err(Trouble::proof(format!("records 0 and 1 were acknowledged, {found:?} are in the log")));
    }
    println!(
        "garbage: alive, resident at most {} MiB (budget {} + {}), records written before and after are read",
        patient.largest_kib / 1024,
        options.memory_mib,
        options.besides_mib
    );
    Ok(())
}

/// The broker under test, with what it must keep up.
struct Patient<'a> {
    broker: Broker,
    setup: &'a Setup,
    options: &'a Options,
    largest_kib: u64,
}

impl Patient<'_> {
    fn connect(&self) -> Result<Connection, Trouble> {
        cluster::greet(self.setup.bootstrap)
    }

    fn write(&self, number: u64) -> Result<(), Trouble> {
        let batch: Bytes = encode(&[record_value(Identity { producer: 0, number }, 64)], None, 0).into();
        cluster::retry(LIMIT, || {
            let leader = cluster::leaders(self.setup.bootstrap, TOPIC)?[0];
            cluster::produce(leader, TOPIC, &[0], &batch)
        })
    }

    /// The process lives, answers, and is no larger than it may be.
    fn examine(&mut self, after: &str) -> Result<(), Trouble> {
        if !self.broker.is_alive()? {
            return Err(Trouble::proof(format!("the broker died of {after}")));
        }
        let kib = self.broker.resident_kib()?;
        self.largest_kib = self.largest_kib.max(kib);
        if kib > (self.options.memory_mib + self.options.besides_mib) * 1024 {
            return Err(Trouble::proof(format!("resident size {} MiB after {after}", kib / 1024)));
        }
        let metadata = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
        let answer = self.connect().and_then(|mut connection| connection.call(&metadata, 9));
        answer.map(|_| ()).map_err(|trouble| Trouble::proof(format!("no Metadata after {after}: {trouble}")))
    }
}
