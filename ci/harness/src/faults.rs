//! Real faults under verified load: brokers are killed, stopped and cut off from etcd, the store or their clients, etcd and the
//! store are killed, and meanwhile clients append and read.
//!
//! A step: once every broker leads something, one or two faults begin, last as long as the plan says, and heal; then everything
//! that producers have sent must be acknowledged, which shows that every partition is served again, and the part of the log that the
//! step wrote is compared with every acknowledgement and with what readers saw. At the end the whole log is compared once more,
//! and the history of the append-and-poll workload is judged.

mod clients;
mod plan;

use crate::check::check;
use crate::cluster;
use crate::history::Event;
use crate::load::{Load, Plan};
use crate::proxy::Mode;
use crate::trouble::Trouble;
use crate::world::{self, START_LIMIT, World};
use clap::Args;
use clients::Clients;
use plan::{Fault, How, Kind, Step};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The topic of the producers that do not wait for each answer.
const LOADED: &str = "loaded";
/// The topic of the append-and-poll workload.
const APPENDED: &str = "appended";
/// Longest wait for anything that should take a few seconds.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a client waits for an answer before it looks elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How to break.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    world: world::Cluster,
    /// Faults.
    #[arg(long, default_value_t = 200)]
    faults: usize,
    /// Only faults of this kind; may be repeated.
    #[arg(long)]
    only: Vec<Kind>,
    /// Lease of the brokers, in milliseconds: a pause is longer.
    #[arg(long, default_value_t = 5_000)]
    lease_ms: u64,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 12)]
    partitions: usize,
    /// Records offered a second by the producers that do not wait for each answer.
    #[arg(long, default_value_t = 1_000)]
    records_per_second: u64,
    /// Operations a second of each of the nine processes that append and poll, at most.
    #[arg(long, default_value_t = 20)]
    operations_per_second: u32,
    /// Decides faults, their times and what clients do; printed, so that a plan can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the history of the append-and-poll workload.
    #[arg(long)]
    history: Option<PathBuf>,
}

/// Runs the proof.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    let seed = options.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()));
    println!("faults: {}, {} faults, seed {seed}", options.world.describe(), options.faults);
    if options.world.brokers < 3 || options.partitions < options.world.brokers {
        return Err(Trouble::proof("faults need at least 3 brokers and a partition for each"));
    }
    let mut world = World::start(&options.world)?;
    let outcome = prove(options, &mut world, seed);
    if outcome.is_err() {
        world.keep();
    }
    outcome
}

fn prove(options: &Options, world: &mut World, seed: u64) -> Result<(), Trouble> {
    let partitions = options.partitions;
    let bootstrap = world.bootstrap(PATIENCE);
    world.await_members(LIMIT)?;
    for topic in [LOADED, APPENDED] {
        cluster::create_topic(bootstrap.current(), topic, partitions as i32, LIMIT)?;
    }
    let plan =
        Plan { producers: 2, records_per_second: Some(options.records_per_second), record_bytes: 100, readers: 2 };
    let load = Load::start(world.bootstrap(PATIENCE), LOADED, partitions, &plan)?;
    let operations_per_second = options.operations_per_second;
    let plan = clients::Plan { idempotent: 6, plain: 3, partitions, operations_per_second, seed };
    let clients = Clients::start(bootstrap, APPENDED, plan)?;
    let mut proof = Proof { world, load, clients, starts: vec![0; partitions], kinds: BTreeMap::new() };
    let kinds = if options.only.is_empty() { &Kind::ALL[..] } else { &options.only };
    let steps = plan::plan(seed, options.faults, kinds, options.world.brokers, Duration::from_millis(options.lease_ms));
    let outcome = proof.steps(&steps).and_then(|()| proof.finish());
    let kept = proof.world.path().join("history");
    if let Some(file) = options.history.as_ref().or(outcome.is_err().then_some(&kept)) {
        proof.clients.recorder().write(file)?;
    }
    outcome
}

struct Proof<'a> {
    world: &'a mut World,
    load: Load,
    clients: Clients,
    /// Where the step began in each partition.
    starts: Vec<i64>,
    /// Faults so far, by kind.
    kinds: BTreeMap<&'static str, u32>,
}

impl Proof<'_> {
    fn steps(&mut self, steps: &[Step]) -> Result<(), Trouble> {
        let mut count = 0;
        for step in steps {
            let led = self.all_lead()?;
            count += step.faults.len();
            let described: Vec<_> = step.faults.iter().map(Fault::to_string).collect();
            let described = format!("{} for {:.1} s", described.join(" and "), step.hold.as_secs_f64());
            self.step(step).map_err(|trouble| Trouble::proof(format!("fault {count}: {described}: {trouble}")))
                .map(|served| {
                    let ledger = self.load.shared().ledger();
                    println!(
                        "fault {count}: {described} (led {led:?}); served again after {:.1} s; {} records acknowledged; {}",
                        served.as_secs_f64(),
                        ledger.acknowledged(),
                        ledger.verdict()
                    );
                })?;
        }
        Ok(())
    }

    /// Waits until every broker leads something, and says how many partitions each leads.
    fn all_lead(&mut self) -> Result<Vec<usize>, Trouble> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let leaders: Vec<_> = [LOADED, APPENDED]
                .into_iter()
                .flat_map(|topic| self.load.shared().bootstrap.ask(|address| cluster::leaders(address, topic)))
                .flatten()
                .collect();
            let of = |node: &world::Node| leaders.iter().filter(|&&leader| node.is_at(leader)).count();
            let led: Vec<_> = self.world.nodes.iter().map(of).collect();
            if !led.contains(&0) {
                return Ok(led);
            }
            if Instant::now() > deadline {
                return Err(Trouble::proof(format!("partitions of each broker after {LIMIT:?}: {led:?}")));
            }
            self.world.all_live()?;
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Gives the time from the end of the faults until everything sent was acknowledged.
    fn step(&mut self, step: &Step) -> Result<Duration, Trouble> {
        for fault in &step.faults {
            *self.kinds.entry(fault.kind()).or_default() += 1;
            self.clients.recorder().tell(Event::Note(fault.to_string()));
            self.begin(fault)?;
        }
        thread::sleep(step.hold); // how long a fault lasts is the plan's
        let healed = Instant::now();
        // A process that starts or ends needs what it uses.
        let (processes, links): (Vec<_>, Vec<_>) =
            step.faults.iter().partition(|fault| matches!(fault, Fault::Kill { .. } | Fault::Drain { .. }));
        for fault in links.into_iter().chain(processes) {
            self.heal(fault, step.faults.len() == 1)?;
        }
        self.clients.recorder().tell(Event::Note("healed".to_owned()));
        self.load.drain(LIMIT)?;
        let served = healed.elapsed();
        self.starts = self.load.verify(&self.starts, LIMIT)?;
        self.world.all_live()?;
        self.clients.all_live()?;
        self.clean()?;
        self.load.resume();
        Ok(served)
    }

    fn clean(&self) -> Result<(), Trouble> {
        let ledger = self.load.shared().ledger();
        if ledger.verdict().is_clean() {
            return Ok(());
        }
        let found = ledger.findings().join("\n");
        Err(Trouble::proof(format!("the log does not hold what was promised: {}\n{found}", ledger.verdict())))
    }

    fn begin(&mut self, fault: &Fault) -> Result<(), Trouble> {
        let World { etcd, store, nodes, .. } = &mut *self.world;
        let mode = |how| if how == How::Cut { Mode::Cut } else { Mode::Hold };
        match *fault {
            Fault::Kill { broker } => nodes[broker].kill()?,
            Fault::Pause { broker } => signal(&nodes[broker], Signal::STOP)?,
            Fault::Drain { broker } => signal(&nodes[broker], Signal::TERM)?,
            Fault::Etcd { broker, how } => nodes[broker].etcd.set(mode(how)),
            Fault::Store { broker, how } => nodes[broker].store.set(mode(how)),
            Fault::Clients { broker, how } => nodes[broker].set_clients(mode(how)),
            Fault::EtcdKilled => etcd.kill()?,
            Fault::StoreKilled => store.kill()?,
            Fault::StoreSlow { bytes_per_second } => {
                nodes.iter().for_each(|node| node.store.set(Mode::Slow(bytes_per_second)));
            }
        }
        Ok(())
    }

    /// `alone`: no other fault was about at the same time.
    fn heal(&mut self, fault: &Fault, alone: bool) -> Result<(), Trouble> {
        let World { etcd, store, nodes, .. } = &mut *self.world;
        match *fault {
            Fault::Kill { broker } => nodes[broker].run()?,
            Fault::Pause { broker } => signal(&nodes[broker], Signal::CONT)?,
            Fault::Drain { broker } => {
                let mut ending = nodes[broker].broker.take().expect("it was told to end");
                let status = ending.ended(START_LIMIT)?;
                if alone && !status.success() {
                    return Err(Trouble::proof(format!("broker {broker} ended with {status}")));
                }
                nodes[broker].run()?;
            }
            Fault::Etcd { broker, .. } => nodes[broker].etcd.set(Mode::Pass),
            Fault::Store { broker, .. } => nodes[broker].store.set(Mode::Pass),
            Fault::Clients { broker, .. } => nodes[broker].set_clients(Mode::Pass),
            Fault::EtcdKilled => etcd.run()?,
            Fault::StoreKilled => store.run()?,
            Fault::StoreSlow { .. } => nodes.iter().for_each(|node| node.store.set(Mode::Pass)),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Trouble> {
        self.load.drain(LIMIT)?;
        self.load.verify(&vec![0; self.starts.len()], LIMIT)?;
        self.clients.finish(LIMIT)?;
        let kinds: Vec<_> = self.kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        println!("faults: {} in all: {}", self.kinds.values().sum::<u32>(), kinds.join(", "));
        {
            let ledger = self.load.shared().ledger();
            println!("faults: {} records acknowledged and read back; {}", ledger.acknowledged(), ledger.verdict());
        }
        let judgement = check(&self.clients.recorder().told());
        println!("faults: append and poll: {judgement}");
        self.clean()?;
        if judgement.acknowledged() == 0 {
            return Err(Trouble::proof("nothing was acknowledged"));
        }
        judgement.outcome()
    }
}

fn signal(node: &world::Node, signal: Signal) -> Result<(), Trouble> {
    node.broker.as_ref().map_or(Ok(()), |broker| broker.signal(signal))
}
