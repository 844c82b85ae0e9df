//! `millrace-sim`: plays seeds, replays one, and proves that each wrong variant is caught.

use clap::{Parser, Subcommand};
use millrace_sim::scale::{self, Size};
use millrace_sim::seeds::{Outcome, Scenario, run_seed};
use millrace_sim::table::{self, BOUND, by_name, seeds_to_catch, seeds_to_catch_in};
use millrace_storage::wrong::Wrong;
use std::ops::Range;
use std::process::ExitCode;

// A history is millions of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Millrace in a world that a seed decides.
#[derive(Parser)]
#[command(name = "millrace-sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays many seeds and prints the findings.
    Run {
        /// First seed and the one after the last: A..B.
        #[arg(long, default_value = "0..1000", value_parser = parse_range)]
        seeds: Range<u64>,
        /// The world.
        #[arg(long, value_enum, default_value = "lane")]
        scenario: Scenario,
        /// A mistake to switch on, by its name in the table.
        #[arg(long, value_parser = parse_wrong)]
        wrong: Option<Wrong>,
        /// Threads; each plays a part of the seeds.
        #[arg(long, default_value_t = 1)]
        threads: u64,
    },
    /// Plays one seed again.
    Replay {
        /// The seed.
        seed: u64,
        /// The world.
        #[arg(long, value_enum, default_value = "lane")]
        scenario: Scenario,
        /// A mistake to switch on.
        #[arg(long, value_parser = parse_wrong)]
        wrong: Option<Wrong>,
        /// Print everything that happened.
        #[arg(long)]
        trace: bool,
    },
    /// Prints what many brokers cost: their metadata, what is written of it, what the controller computes.
    Scale {
        /// Brokers and partitions of clusters whose controller is real: N:P, several times.
        #[arg(long, value_parser = parse_size)]
        fleet: Vec<Size>,
        /// Brokers and partitions of clusters of whole processes: N:P, several times.
        #[arg(long, value_parser = parse_size)]
        whole: Vec<Size>,
        /// Virtual minutes that those are counted for, idle and busy.
        #[arg(long, default_value_t = 5)]
        minutes: u32,
    },
    /// Prints for each mistake how many seeds it takes to catch it; fails if one is not caught.
    Table {
        /// Seeds to try at most.
        #[arg(long, default_value_t = BOUND)]
        bound: u64,
        /// Plays them all in this world instead of where each must be caught; what is not caught there is no failure.
        #[arg(long, value_enum)]
        scenario: Option<Scenario>,
    },
}

fn parse_size(text: &str) -> Result<Size, String> {
    let parts = text.split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let size = parts.map(|(brokers, partitions)| Size { brokers, partitions });
    size.filter(|size| size.brokers > 2 && size.partitions > 0)
        .ok_or_else(|| "expected BROKERS:PARTITIONS, three brokers at least".to_owned())
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    parts.filter(|range| range.start < range.end).ok_or_else(|| "expected A..B with A < B".to_owned())
}

fn parse_wrong(name: &str) -> Result<Wrong, String> {
    let names = || table::all().map(|mistake| mistake.name).collect::<Vec<_>>().join(", ");
    by_name(name).ok_or_else(|| format!("one of: {}", names()))
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { seeds, scenario, wrong, threads } => run(seeds, scenario, wrong, threads),
        Command::Replay { seed, scenario, wrong, trace } => replay(seed, scenario, wrong, trace),
        Command::Scale { fleet, whole, minutes } => print_scale(&fleet, &whole, minutes),
        Command::Table { bound, scenario: None } => print_table(bound),
        Command::Table { bound, scenario: Some(scenario) } => print_caught_in(scenario, bound),
    }
}

#[expect(clippy::disallowed_methods, reason = "measures the simulator itself, outside every run")]
fn run(seeds: Range<u64>, scenario: Scenario, wrong: Option<Wrong>, threads: u64) -> ExitCode {
    let started = std::time::Instant::now();
    let count = seeds.end - seeds.start;
    let part = |thread: u64| seeds.clone().skip(thread as usize).step_by(threads.max(1) as usize);
    let play = |seed| report(run_seed(scenario, seed, wrong, false));
    let findings: u64 = std::thread::scope(|scope| {
        let playing: Vec<_> = (0..threads.max(1))
            .map(|t| scope.spawn(move || part(t).filter(|seed| play(*seed)).count() as u64))
            .collect();
        playing.into_iter().map(|thread| thread.join().expect("findings do not leave their seed")).sum()
    });
    let per_minute = count as f64 / started.elapsed().as_secs_f64() * 60.0;
    println!("{count} seeds, {findings} findings, {per_minute:.0} seeds a minute");
    if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a finding; whether there was one.
fn report(outcome: Outcome) -> bool {
    if let Some(finding) = &outcome.finding {
        println!("seed {}: {finding}", outcome.seed);
    }
    outcome.finding.is_some()
}

fn replay(seed: u64, scenario: Scenario, wrong: Option<Wrong>, trace: bool) -> ExitCode {
    let outcome = run_seed(scenario, seed, wrong, trace);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    println!(
        "seed {seed}: trace hash {:016x}, {} polls, {:.3} virtual seconds",
        outcome.trace_hash,
        outcome.steps,
        outcome.virtual_nanos as f64 / 1e9
    );
    if report(outcome) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print_scale(fleet: &[Size], whole: &[Size], minutes: u32) -> ExitCode {
    fleet.iter().for_each(|size| scale::play_fleet(*size));
    for size in whole {
        if let Err(problem) = scale::play_many(*size, minutes) {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn print_table(bound: u64) -> ExitCode {
    let mut missed = 0;
    print_row("mistake", "in", "seeds", "seen as");
    for mistake in table::CAUGHT {
        let world = format!("{:?}", mistake.scenario);
        match seeds_to_catch(mistake, bound) {
            Some((seeds, finding)) => print_row(mistake.name, &world, &seeds.to_string(), &finding),
            None => {
                missed += 1;
                print_row(mistake.name, &world, "-", "not caught");
            }
        }
    }
    for hidden in table::HIDDEN {
        print_row(hidden.mistake.name, "-", "-", &format!("hidden: {}", hidden.because));
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_row(name: &str, world: &str, seeds: &str, seen: &str) {
    println!("{name:<32} {world:<10} {seeds:>6}  {seen}");
}

fn print_caught_in(scenario: Scenario, bound: u64) -> ExitCode {
    let world = format!("{scenario:?}");
    print_row("mistake", "in", "seeds", "seen as");
    for mistake in table::all() {
        match seeds_to_catch_in(scenario, mistake.wrong, bound) {
            Some((seeds, finding)) => print_row(mistake.name, &world, &seeds.to_string(), &finding),
            None => print_row(mistake.name, &world, "-", "not caught"),
        }
    }
    ExitCode::SUCCESS
}
