//! Runs one seed, or many.

use crate::{lane, node};
use millrace_storage::sim::{Ended, Sim};
use millrace_storage::wrong::{self, Wrong};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Which world a seed is played in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Scenario {
    /// Real lanes and recovery, scripted shards.
    Lane,
    /// A whole process and clients that speak real frames.
    Node,
    /// The same, its shards behind one address, and clients whose requests are for partitions of several shards.
    SharedPort,
    /// Several processes on one log, killed, suspended beyond their leases, stopped, drained, added.
    Cluster,
    /// The same, but nothing fails and operators are careful: then nobody waits for long.
    Orderly,
}

/// How a seed ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What went wrong, if anything did.
    pub finding: Option<String>,
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// Polls made.
    pub steps: u64,
    /// Virtual nanoseconds passed.
    pub virtual_nanos: u64,
    /// The trace's text, if it was asked for.
    pub trace: Vec<String>,
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

static QUIET: Once = Once::new();

/// Panics of a run are its findings: they are kept, not printed. One that the simulated machine caught was the death of a
/// process; the last is the one that ended the run.
fn keep_panics() {
    QUIET.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            let text = info.payload().downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| info.payload().downcast_ref::<&str>().copied()).unwrap_or("a panic");
            let place = info.location().map_or(String::new(), |l| format!(" ({}:{})", l.file(), l.line()));
            LAST_PANIC.with(|last| last.replace(Some(format!("{text}{place}"))));
        }));
    });
}

/// Plays one seed, with a mistake switched on if one is given.
pub fn run_seed(scenario: Scenario, seed: u64, mistake: Option<Wrong>, keep_trace: bool) -> Outcome {
    keep_panics();
    wrong::choose(mistake);
    LAST_PANIC.take();
    let sim = Sim::new(seed, keep_trace);
    let run = || match scenario {
        Scenario::Lane => sim.run(lane::MAX_STEPS, lane::run(sim.clone())),
        Scenario::Node => sim.run(node::MAX_STEPS, node::run(sim.clone(), false)),
        Scenario::SharedPort => sim.run(node::MAX_STEPS, node::run(sim.clone(), true)),
        Scenario::Cluster => sim.run(node::cluster::MAX_STEPS, node::cluster::run(sim.clone(), false)),
        Scenario::Orderly => sim.run(node::cluster::MAX_STEPS, node::cluster::run(sim.clone(), true)),
    };
    let ended = catch_unwind(AssertUnwindSafe(run));
    let finding = match ended {
        Ok(Ended::Done) => None,
        Ok(other) => Some(format!("FINDING the run ended by {other:?}")),
        Err(_) => Some(LAST_PANIC.take().unwrap_or_else(|| "a panic".to_owned())),
    };
    let outcome = Outcome {
        seed,
        finding,
        trace_hash: sim.trace_hash(),
        steps: sim.steps(),
        virtual_nanos: sim.now(),
        trace: sim.take_trace(),
    };
    // Dropping what a panic left behind may panic again; that is no news.
    drop(catch_unwind(AssertUnwindSafe(|| sim.shut_down())));
    outcome
}
