//! The simulator itself: replays are exact, honest code passes, each mistake is seen.

use clap::ValueEnum;
use millrace_sim::seeds::{Scenario, run_seed};
use millrace_sim::table::{BOUND, CAUGHT, seeds_to_catch};

/// Seeds of each scenario that every change must pass; longer runs are `millrace-sim run`.
const CLEAN_SEEDS: u64 = 120;
/// The same of several processes, which take longer.
const CLEAN_CLUSTER_SEEDS: u64 = 60;
/// Seeds that are played twice.
const TWICE: u64 = 12;

#[test]
fn the_same_seed_twice_gives_the_same_trace_hash() {
    for &scenario in Scenario::value_variants() {
        for seed in 0..TWICE {
            let (first, second) = (run_seed(scenario, seed, None, false), run_seed(scenario, seed, None, false));
            assert_eq!(first, second, "{scenario:?}");
        }
    }
}

#[test]
fn keeping_the_trace_changes_nothing_but_the_text() {
    let (without, with) = (run_seed(Scenario::Lane, 3, None, false), run_seed(Scenario::Lane, 3, None, true));
    assert_eq!(without.trace_hash, with.trace_hash);
    assert!(without.trace.is_empty() && !with.trace.is_empty());
}

#[test]
fn lanes_and_recovery_survive_every_accident() {
    clean(Scenario::Lane, CLEAN_SEEDS);
}

#[test]
fn a_whole_node_survives_every_accident() {
    clean(Scenario::Node, CLEAN_SEEDS);
}

#[test]
fn several_processes_on_one_log_survive_every_accident() {
    clean(Scenario::Cluster, CLEAN_CLUSTER_SEEDS);
}

#[test]
fn nobody_waits_for_long_where_nothing_fails() {
    clean(Scenario::Orderly, CLEAN_CLUSTER_SEEDS);
}

#[test]
fn a_whole_node_behind_one_address_survives_every_accident() {
    clean(Scenario::SharedPort, CLEAN_SEEDS);
}

#[test]
fn a_log_start_that_is_stored_and_that_nobody_has_heard_of_is_no_promise() {
    assert_eq!(run_seed(Scenario::SharedPort, 1730, None, false).finding, None);
}

#[test]
fn a_change_of_settings_that_a_dead_process_sent_does_not_hide_its_topic() {
    assert_eq!(run_seed(Scenario::Node, 403, None, false).finding, None);
}

fn clean(scenario: Scenario, seeds: u64) {
    for seed in 0..seeds {
        let outcome = run_seed(scenario, seed, None, false);
        assert_eq!(outcome.finding, None, "{scenario:?} seed {seed}");
    }
}

#[test]
fn each_mistake_of_a_lane_is_caught_within_its_bound() {
    caught(|scenario| scenario == Scenario::Lane);
}

#[test]
fn each_mistake_of_a_process_and_of_a_cluster_is_caught_within_its_bound() {
    caught(|scenario| scenario != Scenario::Lane);
}

fn caught(is_played_here: impl Fn(Scenario) -> bool) {
    for mistake in CAUGHT.iter().filter(|mistake| is_played_here(mistake.scenario)) {
        assert!(seeds_to_catch(mistake, BOUND).is_some(), "{} is not caught in {BOUND} seeds", mistake.name);
    }
}
