//! Producers that offer more than the store takes, for as long as told.
//!
//! The object store stands behind a proxy that lets few bytes through. Meanwhile the resident size is watched, a group
//! member heartbeats on the same shard, and the producers must be slowed to what the store takes. Then the bound is
//! lifted, everything under way must be acknowledged, and the whole log is compared with what was promised.

use crate::cluster;
use crate::load::{Load, Plan};
use crate::member::Member;
use crate::process::{RunDirectory, Setup, Target};
use crate::proxy::{Mode, Proxy};
use crate::trouble::Trouble;
use clap::Args;
use std::env;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

/// The topic of the load.
const TOPIC: &str = "backpressure";
/// Its partitions.
const PARTITIONS: usize = 4;
/// Where the object store is.
const ENDPOINT: &str = "AWS_ENDPOINT_URL";
/// Longest wait for anything that should take a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for what piled up to be stored once the store is fast.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);
/// A heartbeat may wait so long for its answer; a session ends after 6 seconds.
const SLOWEST_HEARTBEAT: Duration = Duration::from_secs(2);
/// Producers may have so many bytes acknowledged for each byte that reached the store.
const MAX_ACKNOWLEDGED_PER_STORED: f64 = 1.0;

/// How to press.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// What the store takes, in KiB a second.
    #[arg(long, default_value_t = 4096)]
    store_kib_per_second: u64,
    /// How long to press.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The broker's memory budget, in MiB.
    #[arg(long, default_value_t = 128)]
    memory_mib: u64,
    /// Resident size allowed beside the budget: program, stacks, metadata; in MiB.
    #[arg(long, default_value_t = 96)]
    besides_mib: u64,
    /// Producers, each as fast as it is answered.
    #[arg(long, default_value_t = 8)]
    producers: usize,
    /// Bytes of a record's value.
    #[arg(long, default_value_t = 4096)]
    record_bytes: usize,
}

/// Runs the proof.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    println!("backpressure: {}, store at {} KiB/s", options.target.describe(), options.store_kib_per_second);
    let store = store_address()?;
    let proxy = Proxy::start(store)?;
    proxy.set(Mode::Slow(options.store_kib_per_second << 10));
    let directory = RunDirectory::new()?;
    let mut target = options.target.clone();
    target.arguments.extend(["--memory-mib".to_owned(), options.memory_mib.to_string()]);
    let setup = target.setup(directory.path())?.with_variable(ENDPOINT, format!("http://{}", proxy.address));
    let outcome = press(options, &setup, &proxy);
    if outcome.is_err() {
        println!(
            "--- last output of the broker; its data stay in {}\n{}",
            directory.keep().display(),
            setup.last_output()
        );
    }
    outcome
}

fn store_address() -> Result<SocketAddr, Trouble> {
    let unusable = || Trouble::proof(format!("{ENDPOINT} must be http://HOST:PORT of the object store"));
    let endpoint = env::var(ENDPOINT).map_err(|_| unusable())?;
    let host = endpoint.strip_prefix("http://").map(|host| host.trim_end_matches('/')).ok_or_else(unusable)?;
    host.to_socket_addrs()?.next().ok_or_else(unusable)
}

fn press(options: &Options, setup: &Setup, proxy: &Proxy) -> Result<(), Trouble> {
    let broker = setup.start_listening(LIMIT)?;
    cluster::create_topic(setup.bootstrap, TOPIC, PARTITIONS as i32, LIMIT)?;
    let member = Member::start(setup.bootstrap, "pressed")?;
    let plan =
        Plan { producers: options.producers, records_per_second: None, record_bytes: options.record_bytes, readers: 0 };
    let load = Load::start(setup.bootstrap, TOPIC, PARTITIONS, &plan)?;

    let stored_before = proxy.passed();
    let resident = broker.watch_resident()?;
    thread::sleep(Duration::from_secs(options.seconds));
    let acknowledged = load.shared().ledger().acknowledged() * options.record_bytes as u64;
    let stored = proxy.passed() - stored_before;
    println!(
        "backpressure: {} s, {} MiB acknowledged, {} MiB reached the store",
        options.seconds,
        acknowledged >> 20,
        stored >> 20,
    );
    proxy.set(Mode::Pass);
    let heartbeats = member.stop()?;
    println!(
        "backpressure: {} heartbeats answered, the slowest in {} ms",
        heartbeats.answered,
        heartbeats.slowest.as_millis()
    );
    load.drain(DRAIN_LIMIT)?;
    load.verify(&[0; PARTITIONS], LIMIT)?;
    let (verdict, records, found) = {
        let ledger = load.shared().ledger();
        (ledger.verdict(), ledger.acknowledged(), ledger.findings().join("\n"))
    };
    let largest_kib = resident.stop()?;
    println!(
        "backpressure: {records} records acknowledged and read back, resident at most {} MiB all the while (budget {} + \
         {}); {verdict}",
        largest_kib / 1024,
        options.memory_mib,
        options.besides_mib,
    );
    load.stop()?;

    let bounds = [
        (verdict.is_clean(), found),
        (largest_kib <= (options.memory_mib + options.besides_mib) * 1024, "resident size above the bound".to_owned()),
        (acknowledged > 0, "nothing was acknowledged".to_owned()),
        (
            acknowledged as f64 <= stored as f64 * MAX_ACKNOWLEDGED_PER_STORED,
            "more acknowledged than reached the store".to_owned(),
        ),
        (heartbeats.slowest <= SLOWEST_HEARTBEAT, "a heartbeat waited too long".to_owned()),
    ];
    bounds.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, broken)| Err(Trouble::proof(broken)))
}
