//! Produce, consume and retention at a steady rate for as long as told, with kills: what the broker keeps must stay flat.
//!
//! Two topics, of which one loses its records by age and the other by size, are written and read; the sizes at which
//! records are rolled and the times after which things are deleted are small, so that everything that a broker does in weeks
//! happens many times. Sixty times in the run the disk, the objects, the resident memory and the checkpoint are measured.
//! Six times the broker is killed under load and started again; then all is drained, and what the reader saw is held against
//! what was sent: every record once, in order, where it was acknowledged.
//!
//! Flat: see [`Flat`], applied to what was measured after the first quarter of the run, and to all restarts.

use crate::batch::{Identity, encode, record_value};
use crate::cluster;
use crate::load::{Load, Plan};
use crate::process::{Broker, RunDirectory, Setup, Target};
use crate::sizes::{Flat, Kept, kept};
use crate::trouble::Trouble;
use bytes::Bytes;
use clap::Args;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The topic that tells when a restarted broker accepts produce.
const PROBE: &str = "probe";
/// Longest wait for anything that should take a second, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(120);
/// How often the sizes are measured, and the broker killed, in the run.
const SAMPLES: u32 = 60;
const KILLS: u32 = 6;
/// Rolled in pieces of a MiB, or after some seconds; looked after, collected and deleted within half a minute.
const SERVE: [&str; 12] = [
    "--roll-segments",
    "true",
    "--roll-bytes",
    "1048576",
    "--roll-after-ms",
    "3000",
    "--retention-check-ms",
    "3000",
    "--segment-check-ms",
    "10000",
    "--segment-grace-ms",
    "20000",
];

/// How to soak.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// How long. In a shorter run than ten minutes no life of the broker would last until it collects what an earlier one
    /// left.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(600..=604_800))]
    seconds: u64,
    /// Records a second, over both topics.
    #[arg(long, default_value_t = 3000)]
    records_per_second: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 2000)]
    record_bytes: usize,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// How long records of the one topic stay, milliseconds.
    #[arg(long, default_value_t = 60_000)]
    retention_ms: u64,
    /// How many bytes of each partition of the other stay.
    #[arg(long, default_value_t = 16 << 20)]
    retention_bytes: u64,
    /// With an object store: the directory below which its server keeps what it stores.
    #[arg(long)]
    store_directory: Option<PathBuf>,
}

/// What is measured at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    kept: Kept,
    resident_kib: u64,
}

/// Runs the proof.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    println!("soak: {}, {} s", options.target.describe(), options.seconds);
    if options.target.object_store.is_some() && options.store_directory.is_none() {
        return Err(Trouble::proof("--store-directory is needed to see what an object store holds"));
    }
    let directory = RunDirectory::new()?;
    let mut target = options.target.clone();
    target.arguments.splice(0..0, SERVE.map(str::to_owned));
    let setup = target.setup(directory.path())?;
    let outcome = soak(options, &setup, directory.path());
    if outcome.is_err() {
        println!(
            "--- last output of the broker; its data stay in {}\n{}",
            directory.keep().display(),
            setup.last_output()
        );
    }
    outcome
}

fn soak(options: &Options, setup: &Setup, directory: &Path) -> Result<(), Trouble> {
    let broker = setup.start_listening(LIMIT)?;
    cluster::create_topic(setup.bootstrap, PROBE, 1, LIMIT)?;
    let by_age = [("retention.ms", options.retention_ms.to_string())];
    let by_size = [("retention.bytes", options.retention_bytes.to_string()), ("retention.ms", "-1".to_owned())];
    let mut loads = Vec::new();
    for (topic, settings) in [("by-age", &by_age[..]), ("by-size", &by_size[..])] {
        cluster::create_topic_with(setup.bootstrap, topic, options.partitions, settings, LIMIT)?;
        let plan = Plan {
            producers: 1,
            records_per_second: Some(options.records_per_second / 2),
            record_bytes: options.record_bytes,
            readers: 1,
        };
        loads.push(Load::start(setup.bootstrap, topic, options.partitions as usize, &plan)?);
    }
    let mut directories = vec![directory.to_path_buf()];
    directories.extend(options.store_directory.clone());
    let mut soak =
        Soak { options, setup, directories, broker, loads, began: Instant::now(), samples: vec![], restarts: vec![] };
    println!("      at s  disk MiB  files  segments  checkpoint B  resident MiB  acknowledged");
    soak.through()?;
    soak.settle()?;
    let verdict = soak.verdict();
    for load in soak.loads {
        load.stop()?;
    }
    verdict
}

struct Soak<'a> {
    options: &'a Options,
    setup: &'a Setup,
    directories: Vec<PathBuf>,
    broker: Broker,
    loads: Vec<Load>,
    began: Instant,
    samples: Vec<Sample>,
    restarts: Vec<Duration>,
}

impl Soak<'_> {
    /// All of the run: samples, and kills between them.
    fn through(&mut self) -> Result<(), Trouble> {
        let whole = Duration::from_secs(self.options.seconds);
        for number in 1..=SAMPLES {
            let due = self.began + whole * number / SAMPLES;
            // The run has a length; nothing is waited for here but its time.
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if !self.broker.is_alive()? {
                return Err(Trouble::proof("the broker ended by itself"));
            }
            self.sample()?;
            if number % (SAMPLES / KILLS) == 0 {
                self.restart()?;
            }
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.loads.iter().map(|load| load.shared().ledger().acknowledged()).sum()
    }

    fn sample(&mut self) -> Result<(), Trouble> {
        let directories: Vec<&Path> = self.directories.iter().map(PathBuf::as_path).collect();
        let sample =
            Sample { at: self.began.elapsed(), kept: kept(&directories)?, resident_kib: self.broker.resident_kib()? };
        let Kept { bytes, files, segments, checkpoint } = sample.kept;
        println!(
            "soak: {:>5}  {:>8.1}  {files:>5}  {segments:>8}  {checkpoint:>12}  {:>12.1}  {:>12}",
            sample.at.as_secs(),
            bytes as f64 / f64::from(1 << 20),
            sample.resident_kib as f64 / 1024.0,
            self.acknowledged(),
        );
        self.samples.push(sample);
        Ok(())
    }

    /// Kill -9 under load; then all that was sent is settled.
    fn restart(&mut self) -> Result<(), Trouble> {
        self.broker.kill()?;
        self.broker = self.setup.start()?;
        let batch: Bytes = encode(&[record_value(Identity { producer: u32::MAX, number: 0 }, 64)], None, 0).into();
        let took = cluster::first_produce(&mut self.broker, self.setup.bootstrap, PROBE, &batch, LIMIT)?;
        self.restarts.push(took);
        println!("soak: killed and started: first produce accepted after {} ms", took.as_millis());
        self.settle()?;
        self.loads.iter().for_each(Load::resume);
        Ok(())
    }

    /// Everything that was sent is acknowledged, and was read once, in order.
    fn settle(&self) -> Result<(), Trouble> {
        for load in &self.loads {
            load.drain(LIMIT)?;
            load.settle(LIMIT)?;
            let ledger = load.shared().ledger();
            if !ledger.verdict().is_clean() {
                let found = ledger.findings().join("\n");
                return Err(Trouble::proof(format!("{}: {}\n{found}", load.shared().topic, ledger.verdict())));
            }
        }
        Ok(())
    }

    fn verdict(&self) -> Result<(), Trouble> {
        let warm = Duration::from_secs(self.options.seconds) / 4;
        let counted: Vec<&Sample> = self.samples.iter().filter(|sample| sample.at > warm).collect();
        let of = |read: fn(&Sample) -> u64| counted.iter().map(|sample| read(sample)).collect::<Vec<_>>();
        let rows = [
            ("disk KiB", of(|sample| sample.kept.bytes >> 10), Flat { percent: 10, besides: 8 << 10 }),
            ("files", of(|sample| sample.kept.files), Flat { percent: 10, besides: 20 }),
            ("checkpoint B", of(|sample| sample.kept.checkpoint), Flat { percent: 20, besides: 4 << 10 }),
            ("resident KiB", of(|sample| sample.resident_kib), Flat { percent: 10, besides: 16 << 10 }),
            (
                "restart ms",
                self.restarts.iter().map(|took| took.as_millis() as u64).collect(),
                Flat { percent: 50, besides: 500 },
            ),
        ];
        println!("soak: {} records acknowledged, each read once and in order", self.acknowledged());
        println!("soak:                 first half: mean, largest   second half: mean, largest   may grow by");
        let mut grown = Vec::new();
        for (name, measured, rule) in rows {
            let [(mean, most), (later_mean, later_most)] = Flat::halves(&measured).unwrap_or_default();
            let holds = rule.holds(&measured);
            println!(
                "soak: {name:<13} {mean:>12} {most:>12} {later_mean:>15} {later_most:>12}   {} % and {}: {}",
                rule.percent,
                rule.besides,
                if holds { "flat" } else { "NOT FLAT" },
            );
            if !holds {
                grown.push(name);
            }
        }
        if grown.is_empty() {
            println!("soak: flat");
            return Ok(());
        }
        Err(Trouble::proof(format!("not flat: {}", grown.join(", "))))
    }
}
