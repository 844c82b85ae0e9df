//! What a month of a thousand partitions costs on an object store, in virtual time, with the real planner.
//!
//! ```text
//! cargo run --release -p millrace-perf --example month > perf/MONTH.md
//! ```
//!
//! The same command prints the same tables on any machine: nothing here reads a clock.

mod log;
mod traffic;

use log::{Month, Policy};
use millrace_storage::compaction::PlannerConfig;
use std::fmt::Write;
use traffic::{Mixture, RECORD_BYTES};

const GIB: f64 = (1u64 << 30) as f64;
/// Dollars, S3 Standard, us-east-1.
const PUT_PRICE: f64 = 5e-6;
const GET_PRICE: f64 = 0.4e-6;
/// Body, index and sidecar.
const PUTS_PER_SEGMENT: u64 = 3;

/// What waits for rolls with the default `--memory-mib`: three quarters of the lane's eighth, and half of it under way.
const HELD_BYTES: u64 = 96 << 20;
const EFFECT_BYTES: u64 = 64 << 20;

const HEAD: &str = include_str!("head.md");

fn main() {
    print!("{HEAD}");
    let config = PlannerConfig { held_bytes: HELD_BYTES, effect_bytes: EFFECT_BYTES, ..PlannerConfig::default() };
    let credit = Policy { name: "with credit", config: config.clone() };
    let by_age = Policy { name: "every partition after 60 s", config: PlannerConfig { paid_bytes: 1, ..config } };
    for mixture in Mixture::ALL {
        println!("\n## {}\n", mixture.name());
        let month = Month::play(mixture, &credit);
        print!("{}", objects(&month));
        let old = Month::play(mixture, &by_age);
        print!("{}", requests(&month, &[(&credit, &month), (&by_age, &old)]));
    }
}

/// What the store holds at the end of some days.
fn objects(month: &Month) -> String {
    let mut text = String::from(
        "| day | segments | of the partition with the most | write-ahead objects | their GiB | references | stored GiB |\n|---|---|---|---|---|---|---|\n",
    );
    for day in &month.days {
        let (wal, stored) = (day.wal_bytes as f64 / GIB, day.segment_bytes as f64 / GIB);
        let row = format!("{} | {} | {}", day.day, day.segments, day.most_segments);
        writeln!(text, "| {row} | {} | {wal:.1} | {} | {stored:.0} |", day.wal_objects, day.references)
            .expect("a string takes all");
    }
    text.push('\n');
    text
}

/// Requests and money beside other layouts of the same traffic.
fn requests(month: &Month, policies: &[(&Policy, &Month)]) -> String {
    let gib = month.produced as f64 / GIB;
    let mut text = format!(
        "{gib:.1} GiB in {} records and {} produce requests.\n\n| layout | PUTs | GETs | PUTs per GiB | dollars a month | dollars per GiB | bytes written for each |\n|---|---|---|---|---|---|---|\n",
        month.produced / RECORD_BYTES,
        month.requests,
    );
    let mut row = |name: &str, puts: u64, gets: u64, written: u64| {
        let dollars = puts as f64 * PUT_PRICE + gets as f64 * GET_PRICE;
        let (per_gib, dollars_per_gib) = (puts as f64 / gib, dollars / gib);
        let amplification = written as f64 / month.produced as f64;
        let costs = format!("{per_gib:.0} | {dollars:.2} | {dollars_per_gib:.5} | {amplification:.2}");
        writeln!(text, "| {name} | {puts} | {gets} | {costs} |").expect("a string takes all");
    };
    for (policy, month) in policies {
        for (what, puts) in [("", PUTS_PER_SEGMENT), (", one PUT a segment", 1)] {
            let segments = month.rolls + month.merges;
            let puts = month.wal_puts + month.checkpoint_puts + segments * (puts + 1) + month.expiries;
            let written = month.produced + month.rolled + month.merged;
            row(&format!("{}{what}", policy.name), puts, month.merge_gets, written);
        }
    }
    row("a segment and an index for each produce request", 2 * month.requests, 0, month.produced);
    row("an object for each partition and 250 ms", month.lingers, 0, month.produced);
    let (name, shipped) = (policies[0].0.name, policies[0].1);
    let parts = [shipped.wal_puts, shipped.checkpoint_puts, shipped.rolls, shipped.merges, shipped.expiries];
    let [wal, checkpoints, rolls, merges, expiries] = parts;
    writeln!(
        text,
        "\nOf {name}: {wal} write-ahead objects, {checkpoints} checkpoints and chunks, {rolls} rolls, {merges} merges, {expiries} expiries. Had the rolls found nothing in memory, {} GETs more.",
        shipped.roll_references,
    )
    .expect("a string takes all");
    text
}
