//! What many brokers cost: keys and bytes of metadata, what is written to the metadata store, what the controller computes.
//!
//! Two worlds. In a [`fleet`] two real control tasks see a cluster of up to thousands whose other brokers do no more than what
//! their lanes and control tasks would write: for what a controller and a bystander compute, and what is written at each
//! event. In [`crate::node::many`] every broker is a whole real process, on the simulated stores: for what is written while
//! nothing happens. Counts repeat exactly; times are of the thread that computes, on the machine that it runs on.

pub mod counted;
pub mod fleet;
mod lanes;
mod seen;

use crate::node::many;
use counted::Counts;
use fleet::{Event, Fleet};
use millrace_storage::sim::{Ended, Sim};
use std::time::Duration;

/// Partitions of each topic.
const PER_TOPIC: u32 = 100;

/// The cluster's size in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Brokers, of two shards each.
    pub brokers: u16,
    /// Partitions of all topics.
    pub partitions: u32,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Plays a fleet's events and prints what each came to.
pub fn play_fleet(size: Size) {
    let Size { brokers, partitions } = size;
    println!("== {brokers} brokers of 2 shards, {partitions} partitions in topics of {PER_TOPIC}");
    let mut fleet = Fleet::new(brokers);
    print(&fleet.join_all());
    print(&fleet.place_first(partitions.div_ceil(PER_TOPIC), PER_TOPIC));
    print_contents(&fleet);
    print_metadata(&fleet);
    print(&fleet.kill_one());
    print(&fleet.add_one());
    print(&fleet.drain_one());
}

fn print(event: &Event) {
    let Event { name, moved, virtual_time, controller, bystander, counts } = event;
    let written = counts.written();
    println!(
        "{name:<18} {moved:>7} moved in {:>6.2} s: {:>6} transactions, {:>8} keys, {:>10} bytes; controller {:>8.1} ms in all, \
         {:>6.1} ms its longest turn; another broker is told {:>7} changes, {:>10} bytes, and takes {:>8.1} ms, {:>6.1} ms its \
         longest turn",
        virtual_time.as_secs_f64(),
        written.calls,
        written.keys,
        written.bytes,
        ms(controller.busy),
        ms(controller.longest),
        bystander.told.keys,
        bystander.told.bytes,
        ms(bystander.busy),
        ms(bystander.longest),
    );
    let kinds: Vec<String> = counts.by_kind().map(|(kind, amount)| format!("{kind} {}", amount.calls)).collect();
    println!("{:<18} transactions by what they write first: {}", "", kinds.join(", "));
}

fn print_contents(fleet: &Fleet) {
    let (mut all_keys, mut all_bytes) = (0, 0);
    for (kind, amount) in fleet.contents() {
        println!("    {kind:<14} {:>8} keys {:>10} bytes, {:>6.1} a key", amount.keys, amount.bytes, amount.a_key());
        (all_keys, all_bytes) = (all_keys + amount.keys, all_bytes + amount.bytes);
    }
    println!("    {:<14} {all_keys:>8} keys {all_bytes:>10} bytes", "all");
}

fn print_metadata(fleet: &Fleet) {
    let (bytes, took) = fleet.metadata_response();
    println!("    a Metadata response for all topics: {bytes} bytes, made and encoded in {:.1} ms", ms(took));
}

/// Runs a cluster of whole processes and prints what its metadata store sees; what went wrong, if anything did.
pub fn play_many(size: Size, minutes: u32) -> Result<(), String> {
    let Size { brokers, partitions } = size;
    println!("== {brokers} whole processes of 1 shard, {partitions} partitions, {minutes} minutes each");
    let sim = Sim::new(1, false);
    let ended = sim.run(u64::MAX / 2, many::run(sim.clone(), size, minutes));
    sim.shut_down();
    if ended == Ended::Done { Ok(()) } else { Err(format!("the run ended by {ended:?}")) }
}

/// Prints what a metadata store saw in so many seconds.
pub fn print_rates(what: &str, counts: &Counts, seconds: f64) {
    let rate = |number: u64| number as f64 / seconds;
    let (written, told) = (counts.written(), counts.told());
    println!(
        "{what:<8} writes {:>8.2}/s of {:>9.0} B/s, keep-alives {:>7.1}/s, reads {:>6.2}/s, listings {:>6.2}/s; changes told \
         to watches {:>9.1}/s, {:>10.0} B/s",
        rate(written.calls),
        rate(written.bytes),
        rate(counts.keep_alives()),
        rate(counts.reads()),
        rate(counts.listings()),
        rate(told.keys),
        rate(told.bytes),
    );
    let kinds: Vec<String> =
        counts.by_kind().map(|(kind, amount)| format!("{kind} {:.2}/s", rate(amount.calls))).collect();
    println!("{:<8} writes by kind: {}", "", kinds.join(", "));
}
