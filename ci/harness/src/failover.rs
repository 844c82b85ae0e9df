//! How long partitions are not served when a broker of three is killed, stopped, told to end, or all are restarted in turn.
//!
//! Each run is a cluster of its own: a topic is made and filled, nothing of it is rolled into segments, every partition is produced
//! to and fetched from all the while. For a kill and a pause the time is from the fault to the first accepted produce and to the
//! first fetch that brings a record, of each partition that the broker led. For a broker that is told to end, and for three that are
//! restarted in turn, it is the longest wait between two accepted produces (or fetches) of each partition, since the broker serves
//! until it has handed over. All of it includes the client's looking for the leader, the store's time and the 50 ms between two tries.

mod probe;
mod samples;

use crate::batch::{Identity, encode, record_value};
use crate::cluster;
use crate::process::Broker;
use crate::trouble::{Trouble, is_retriable};
use crate::world::{self, Node, START_LIMIT, World};
use bytes::Bytes;
use clap::Args;
use probe::{Probe, What};
use rustix::process::Signal;
use samples::Sample;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// The topic.
const TOPIC: &str = "failover";
/// Longest wait for anything that should take a few seconds.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Bytes of a batch that fills the log.
const FILL_BYTES: usize = 64 << 10;
/// Batches in one request that fills the log.
const FILL_BATCHES: usize = 16;
/// A broker leads its share if it leads no less than this part of it, in percent.
const SHARE_PERCENT: usize = 80;

/// What happens.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// Kill -9 of one broker.
    Kill,
    /// SIGSTOP of one broker.
    Pause,
    /// SIGTERM to one broker.
    Drain,
    /// SIGTERM to each broker in turn, which is started again.
    Rolling,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Kill, Kind::Pause, Kind::Drain, Kind::Rolling];

    fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9",
            Kind::Pause => "SIGSTOP",
            Kind::Drain => "SIGTERM",
            Kind::Rolling => "rolling restart",
        }
    }

    fn by_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    world: world::Cluster,
    /// What to do to the cluster; may be repeated. Nothing given: each.
    #[arg(long = "kind")]
    kinds: Vec<Kind>,
    /// Runs of each kind.
    #[arg(long, default_value_t = 30)]
    runs: usize,
    /// Partitions.
    #[arg(long, default_value_t = 1_000)]
    partitions: usize,
    /// Bytes in the write-ahead logs that are in no segment, in MiB.
    #[arg(long, default_value_t = 256)]
    uncompacted_mib: usize,
    /// A file to which each run is added; the table is of all runs in it.
    #[arg(long)]
    samples: Option<PathBuf>,
}

/// Measures.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    let kinds = if options.kinds.is_empty() { Kind::ALL.to_vec() } else { options.kinds.clone() };
    println!(
        "failover: {}, {} partitions, {} MiB in no segment",
        options.world.describe(),
        options.partitions,
        options.uncompacted_mib
    );
    let mut measured = options.samples.as_ref().map_or(Ok(Vec::new()), |path| samples::read(path))?;
    let mut world_options = options.world.clone();
    world_options.arguments.extend(["--roll-segments".to_owned(), "false".to_owned()]);
    for run in 0..options.runs {
        for &kind in &kinds {
            let mut world = World::start(&world_options)?;
            let sample = match measure(options, &mut world, kind, run) {
                Ok(sample) => sample,
                Err(trouble) => {
                    world.keep();
                    return Err(Trouble::proof(format!("{}: {trouble}", kind.name())));
                }
            };
            if let Some(path) = &options.samples {
                samples::append(path, &sample)?;
            }
            println!("run {}: {}", run + 1, samples::row(&sample));
            measured.push(sample);
        }
    }
    print!("{}", samples::table(&measured));
    Ok(())
}

fn measure(options: &Options, world: &mut World, kind: Kind, run: usize) -> Result<Sample, Trouble> {
    let began = Instant::now();
    let partitions = options.partitions;
    let bootstrap = world.bootstrap(PATIENCE);
    world.await_members(LIMIT)?;
    cluster::create_topic(bootstrap.current(), TOPIC, partitions as i32, LIMIT)?;
    await_shares(world, partitions)?;
    fill(world, options)?;
    let prepared = began.elapsed();
    let addresses: Vec<_> = world.nodes.iter().map(Node::address).collect();
    let probe = Probe::start(bootstrap, &addresses, TOPIC, partitions)?;
    let every: Vec<usize> = (0..partitions).collect();
    // All is well: leaders are known, each partition is produced to and read.
    await_served(&probe, &every, Instant::now())?;
    let victim = run % world.nodes.len();
    let leaders = probe.leaders();
    let is_hit = |&partition: &usize| leaders[partition].is_some_and(|leader| leader.address == addresses[victim]);
    let hit: Vec<usize> = every.iter().copied().filter(is_hit).collect();
    let sample = match kind {
        Kind::Kill => {
            world.nodes[victim].kill()?;
            probe.fault();
            await_served(&probe, &hit, Instant::now())?;
            first(&probe, &hit, kind)
        }
        Kind::Pause => {
            signal(&world.nodes[victim], Signal::STOP)?;
            probe.fault();
            await_served(&probe, &hit, Instant::now())?;
            first(&probe, &hit, kind)
        }
        Kind::Drain => {
            probe.fault();
            drop(end(&mut world.nodes[victim])?);
            await_served(&probe, &hit, Instant::now())?;
            longest(&probe, &hit, kind)
        }
        Kind::Rolling => {
            probe.fault();
            for (node, &address) in world.nodes.iter_mut().zip(&addresses) {
                drop(end(node)?);
                node.run()?;
                await_leading(&probe, address)?;
            }
            await_served(&probe, &every, Instant::now())?;
            longest(&probe, &every, kind)
        }
    };
    probe.stop()?;
    println!(
        "broker {victim} led {} of {partitions} partitions; prepared in {:.1} s, measured in {:.1} s",
        hit.len(),
        prepared.as_secs_f64(),
        (began.elapsed() - prepared).as_secs_f64()
    );
    Ok(sample)
}

fn first(probe: &Probe, partitions: &[usize], kind: Kind) -> Sample {
    let [produce, fetch] = [What::Produce, What::Fetch].map(|what| probe.first(partitions, what));
    Sample { kind, produce, fetch }
}

fn longest(probe: &Probe, partitions: &[usize], kind: Kind) -> Sample {
    let [produce, fetch] = [What::Produce, What::Fetch].map(|what| probe.longest(partitions, what));
    Sample { kind, produce, fetch }
}

fn signal(node: &Node, signal: Signal) -> Result<(), Trouble> {
    node.broker.as_ref().map_or(Ok(()), |broker| broker.signal(signal))
}

/// Tells a broker to end and waits until it has.
fn end(node: &mut Node) -> Result<Broker, Trouble> {
    let mut broker = node.broker.take().expect("it runs");
    broker.signal(Signal::TERM)?;
    let status = broker.ended(START_LIMIT)?;
    if !status.success() {
        return Err(Trouble::proof(format!("told to end, the broker ended with {status}")));
    }
    Ok(broker)
}

fn await_condition(what: &str, mut holds: impl FnMut() -> Result<bool, Trouble>) -> Result<(), Trouble> {
    let deadline = Instant::now() + LIMIT;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(Trouble::proof(format!("after {LIMIT:?} not yet so: {what}")));
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn await_served(probe: &Probe, partitions: &[usize], since: Instant) -> Result<(), Trouble> {
    await_condition("every partition is produced to and fetched from", || probe.all_served(partitions, since))
}

fn await_leading(probe: &Probe, broker: SocketAddr) -> Result<(), Trouble> {
    await_condition("the broker that was started again leads something", || {
        Ok(probe.leaders().iter().any(|leader| leader.is_some_and(|leader| leader.address == broker)))
    })
}

/// Waits until every broker leads its share.
fn await_shares(world: &World, partitions: usize) -> Result<(), Trouble> {
    let share = partitions * SHARE_PERCENT / 100 / world.nodes.len();
    let bootstrap = world.bootstrap(PATIENCE);
    await_condition("every broker leads its share", || {
        let leaders = match bootstrap.ask(|address| cluster::leaders(address, TOPIC)) {
            Ok(leaders) => leaders,
            Err(Trouble::Io(_) | Trouble::Code(_)) => return Ok(false),
            Err(other) => return Err(other),
        };
        let led = |node: &Node| leaders.iter().filter(|&&leader| node.is_at(leader)).count();
        Ok(world.nodes.iter().all(|node| led(node) >= share))
    })
}

/// Writes a record at least to each partition, and as much as told to all together.
fn fill(world: &World, options: &Options) -> Result<(), Trouble> {
    let bootstrap = world.bootstrap(PATIENCE);
    let bytes = (options.uncompacted_mib << 20) / options.partitions;
    let mut batches: Vec<Fill> = Vec::new();
    for round in 0..bytes.div_ceil(FILL_BYTES).max(1) {
        let size = bytes.saturating_sub(round * FILL_BYTES).clamp(64, FILL_BYTES);
        batches.extend((0..options.partitions).map(|partition| (partition, size)));
    }
    let deadline = Instant::now() + LIMIT;
    // A partition may move meanwhile: what its former leader refused goes to the next.
    while !batches.is_empty() {
        if Instant::now() > deadline {
            return Err(Trouble::proof(format!("{} batches not written after {LIMIT:?}", batches.len())));
        }
        let leaders = cluster::retry(LIMIT, || bootstrap.ask(|address| cluster::leaders(address, TOPIC)))?;
        batches = thread::scope(|scope| {
            let (batches, leaders) = (&batches, &leaders);
            let fill = |node| scope.spawn(move || fill_node(node, batches, leaders));
            let threads: Vec<_> = world.nodes.iter().map(fill).collect();
            let refused = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
            Ok::<_, Trouble>(refused.collect::<Result<Vec<_>, _>>()?.concat())
        })?;
    }
    Ok(())
}

/// A partition, and the bytes of a record for it.
type Fill = (usize, usize);

/// Writes those whose leader this node is, and gives those that it refused for now.
fn fill_node(node: &Node, batches: &[Fill], leaders: &[SocketAddr]) -> Result<Vec<Fill>, Trouble> {
    let own: Vec<Fill> = batches.iter().copied().filter(|(partition, _)| node.is_at(leaders[*partition])).collect();
    let mut refused = Vec::new();
    for chunk in own.chunk_by(|one, other| one.1 == other.1).flat_map(|same| same.chunks(FILL_BATCHES)) {
        let partitions: Vec<i32> = chunk.iter().map(|(partition, _)| *partition as i32).collect();
        let value = record_value(Identity { producer: 0, number: 0 }, chunk[0].1);
        let batch: Bytes = encode(&[value], None, 0).into();
        match cluster::produce(leaders[chunk[0].0], TOPIC, &partitions, &batch) {
            Ok(()) => {}
            Err(Trouble::Io(_)) => refused.extend(chunk),
            Err(Trouble::Code(code)) if is_retriable(code) => refused.extend(chunk),
            Err(other) => return Err(other),
        }
    }
    Ok(refused)
}
