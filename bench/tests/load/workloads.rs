//! The workloads beside produce.

use crate::broker::{Broker, Manner, number, run};

fn passes(workload: &str, more: &[&str]) -> String {
    let (output, text) = run(Broker::start(Manner::Answers), workload, more);
    assert!(output.status.success() && text.contains("errors      none"), "{workload}: {text}");
    text
}

/// What the summary says below the name of a series.
fn series<'a>(text: &'a str, name: &str) -> &'a str {
    text.split(&format!("{name}\n")).nth(1).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn end_to_end_times_every_batch_once() {
    let text = passes("end-to-end", &["--rate", "100", "--threads", "2"]);
    assert_eq!(number(series(&text, "end to end"), " requests\n"), 100.0, "{text}");
}

#[test]
fn each_group_reads_everything() {
    let text = passes("fan-out", &["--rate", "100", "--groups", "3"]);
    for group in 1..=3 {
        assert_eq!(number(series(&text, &format!("group {group}")), " requests\n"), 100.0, "{text}");
    }
}

#[test]
fn readers_follow_a_leader_that_changes() {
    let (output, text) = run(Broker::start(Manner::Moves), "end-to-end", &["--rate", "200"]);
    assert!(output.status.success(), "{text}");
    assert_eq!(number(series(&text, "end to end"), " requests\n"), 200.0, "{text}");
}

#[test]
fn catching_up_starts_again_at_the_end_of_the_log() {
    let text = passes("catch-up", &["--rate", "20", "--readers", "2"]);
    assert!(number(series(&text, "catch-up"), " requests\n") > 0.0, "{text}");
    assert!(!text.contains("partitions read to their end 0.000"), "{text}");
}

#[test]
fn presets_can_be_overridden() {
    for workload in ["many-partitions", "many-connections", "small-producers", "one-idempotent"] {
        passes(workload, &["--rate", "50", "--connections", "3"]);
    }
}

#[test]
fn a_ramp_says_which_rate_held() {
    // Of the requests 1 to 4, 5 and 6, and 7 the third and the sixth are refused.
    let more = ["--rate", "4", "--p99-ms", "10000"];
    let (output, text) = run(Broker::start(Manner::Refuses), "ramp", &more);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("step 2: 2 requests/s") && text.contains("does not hold"), "{text}");
    assert!(text.contains("highest rate 1.000 requests/s"), "{text}");
}

#[test]
fn idle_connections_are_held_for_the_window() {
    passes("idle", &["--connections", "20"]);
}

#[test]
fn a_cold_start_ends_the_process_that_it_started() {
    let text = passes("cold-start", &["--command", "sleep 1000", "--times", "2"]);
    assert!(text.contains("first acknowledgement"), "{text}");
    let (output, text) = {
        let gone = ["--command", "exit 3", "--bootstrap", "127.0.0.1:1"];
        run(Broker::start(Manner::Answers), "cold-start", &gone)
    };
    assert!(!output.status.success() && text.contains("the process ended before it acknowledged"), "{text}");
}
