//! Kill -9 under load, round after round on the same data.
//!
//! A round: producers and readers run until enough was acknowledged, the process is killed at a random moment and
//! started again; producers send what was not acknowledged once more, with the same producer ids and sequences; when
//! all of it is acknowledged, the part of the log that the round wrote is read by a fresh reader and compared with
//! every acknowledgement and with everything that readers saw before and after the kill. At the end the whole log is
//! compared once more.

use crate::batch::{Identity, encode, record_value};
use crate::cluster;
use crate::load::{Load, Plan};
use crate::process::{Broker, RunDirectory, Setup, Target};
use crate::random::Random;
use crate::trouble::Trouble;
use bytes::Bytes;
use clap::Args;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The topic of the load.
const TOPIC: &str = "crash";
/// The topic that tells when a restarted broker accepts produce.
const PROBE: &str = "probe";
/// The topic that makes partitions for the restart to bring back.
const WIDE: &str = "wide";
/// Longest wait for anything that should take a second.
const LIMIT: Duration = Duration::from_secs(60);
/// The kill comes up to so many milliseconds after enough was acknowledged.
const KILL_WITHIN_MS: usize = 700;

/// How to crash.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Kills.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Producers, each with its own producer id.
    #[arg(long, default_value_t = 4)]
    producers: usize,
    /// Threads that read along.
    #[arg(long, default_value_t = 2)]
    readers: usize,
    /// Records offered a second, over all producers.
    #[arg(long, default_value_t = 20_000)]
    records_per_second: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 100)]
    record_bytes: usize,
    /// Records that must be acknowledged in a round before its kill.
    #[arg(long, default_value_t = 10_000)]
    acknowledged_per_round: u64,
    /// Partitions of the topic under load.
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// Partitions of one more topic, one record each, that every restart has to bring back.
    #[arg(long, default_value_t = 0)]
    more_partitions: i32,
    /// Decides the moments of the kills; printed, so that a run can be repeated.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the proof.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    let seed = options.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()));
    println!("crash: {}, {} rounds, seed {seed}", options.target.describe(), options.rounds);
    let directory = RunDirectory::new()?;
    let setup = options.target.setup(directory.path())?;
    let outcome = crash(options, &setup, seed);
    if outcome.is_err() {
        println!(
            "--- last output of the broker; its data stay in {}\n{}",
            directory.keep().display(),
            setup.last_output()
        );
    }
    outcome
}

fn crash(options: &Options, setup: &Setup, seed: u64) -> Result<(), Trouble> {
    let mut random = Random::new(seed);
    let mut broker = setup.start_listening(LIMIT)?;
    make_topics(options, setup.bootstrap)?;
    let plan = Plan {
        producers: options.producers,
        records_per_second: Some(options.records_per_second),
        record_bytes: options.record_bytes,
        readers: options.readers,
    };
    let load = Load::start(setup.bootstrap, TOPIC, options.partitions as usize, &plan)?;
    let mut rounds =
        Rounds { options, setup, load, starts: vec![0; options.partitions as usize], restarts: Vec::new() };
    for round in 1..=options.rounds {
        broker = rounds.round(round, broker, Duration::from_millis(random.below(KILL_WITHIN_MS) as u64))?;
    }
    rounds.finish(&broker)
}

fn make_topics(options: &Options, bootstrap: SocketAddr) -> Result<(), Trouble> {
    cluster::create_topic(bootstrap, TOPIC, options.partitions, LIMIT)?;
    cluster::create_topic(bootstrap, PROBE, 1, LIMIT)?;
    if options.more_partitions > 0 {
        let leaders = cluster::create_topic(bootstrap, WIDE, options.more_partitions, LIMIT)?;
        let mut by_leader: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
        leaders.iter().enumerate().for_each(|(p, leader)| by_leader.entry(*leader).or_default().push(p as i32));
        for (leader, partitions) in by_leader {
            cluster::retry(LIMIT, || cluster::produce(leader, WIDE, &partitions, &probe_batch()))?;
        }
    }
    Ok(())
}

fn probe_batch() -> Bytes {
    encode(&[record_value(Identity { producer: u32::MAX, number: 0 }, 64)], None, 0).into()
}

struct Rounds<'a> {
    options: &'a Options,
    setup: &'a Setup,
    load: Load,
    /// Where the round began in each partition.
    starts: Vec<i64>,
    restarts: Vec<Duration>,
}

impl Rounds<'_> {
    fn round(&mut self, round: u32, mut broker: Broker, after: Duration) -> Result<Broker, Trouble> {
        let began = Instant::now();
        let before = self.load.shared().ledger().acknowledged();
        self.load.resume();
        self.load.await_acknowledged(before + self.options.acknowledged_per_round, LIMIT)?;
        thread::sleep(after);
        if !broker.is_alive()? {
            return Err(Trouble::proof("the broker ended by itself"));
        }
        let at_kill = self.load.shared().ledger().acknowledged() - before;
        broker.kill()?;
        let mut broker = self.setup.start()?;
        let restart = cluster::first_produce(&mut broker, self.setup.bootstrap, PROBE, &probe_batch(), LIMIT)?;
        self.restarts.push(restart);
        self.load.drain(LIMIT)?;
        let ends = self.load.verify(&self.starts, LIMIT)?;
        let ledger = self.load.shared().ledger();
        println!(
            "round {round}: {at_kill} acknowledged before the kill, {} after; restart to first accepted produce {} ms; \
             {:.1} s; {}",
            ledger.acknowledged() - before - at_kill,
            restart.as_millis(),
            began.elapsed().as_secs_f64(),
            ledger.verdict(),
        );
        self.starts = ends;
        if ledger.verdict().is_clean() { Ok(broker) } else { Err(findings(ledger.findings())) }
    }

    fn finish(mut self, broker: &Broker) -> Result<(), Trouble> {
        self.load.verify(&vec![0; self.starts.len()], LIMIT)?;
        let shared = self.load.shared();
        let (verdict, acknowledged, found) = {
            let ledger = shared.ledger();
            (ledger.verdict(), ledger.acknowledged(), ledger.findings().to_vec())
        };
        let retried = shared.retried.load(Ordering::Relaxed);
        self.restarts.sort();
        let restart = |share: usize| self.restarts.get(share).map_or(0, Duration::as_millis);
        println!(
            "crash: {} kills, {acknowledged} records acknowledged and read back, {retried} batches sent again; {verdict}",
            self.restarts.len()
        );
        println!(
            "crash: restart to first accepted produce with {} partitions: p50 {} ms, max {} ms; resident {} MiB at the end",
            self.options.partitions + self.options.more_partitions + 1,
            restart(self.restarts.len() / 2),
            restart(self.restarts.len().saturating_sub(1)),
            broker.resident_kib()? / 1024,
        );
        self.load.stop()?;
        if verdict.is_clean() { Ok(()) } else { Err(findings(&found)) }
    }
}

fn findings(found: &[String]) -> Trouble {
    Trouble::proof(format!("the log does not hold what was promised:\n{}", found.join("\n")))
}
