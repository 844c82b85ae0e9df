//! Two brokers side by side.

use crate::broker::{Broker, Manner};
use std::process::{Command, Output};

fn compare(sides: &[String], more: &[&str], workload: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-bench"));
    command.arg("compare").args(sides).args(more).arg("--").args(workload);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

const LOAD: [&str; 9] = [
    "produce",
    "--partitions=2",
    "--topic=t",
    "--seconds=1",
    "--warm-up=0",
    "--rate=100",
    "--record-size=100",
    "--batch-bytes=1",
    "--connections=1",
];

#[test]
fn every_round_runs_each_side_once_and_all_of_it_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (json, html) = (file("c.json"), file("c.html"));
    let side = |name: &str| format!("{name}={},pid={}", Broker::start(Manner::Answers).bootstrap(), std::process::id());
    let more = ["--rounds", "2", "--warm-up-rounds", "0", "--json", &json, "--html", &html];
    let (output, text) = compare(&[side("first"), side("second")], &more, &LOAD);
    assert!(output.status.success(), "{text}");
    assert!(text.lines().next().unwrap().ends_with("second / first"), "{text}");
    assert!(text.contains("broker CPU per request, µs") && text.contains("p99.9, ms"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let runs = json["runs"].as_array().unwrap();
    let labels: Vec<_> = runs.iter().map(|run| run["report"]["label"].as_str().unwrap()).collect();
    assert_eq!(labels, ["first", "second", "first", "second"]);
    let mut topics: Vec<_> = runs.iter().map(|run| run["report"]["settings"]["topic"].to_string()).collect();
    topics.dedup();
    assert_eq!(topics.len(), 4, "a topic for each: {topics:?}");
    assert!(std::fs::read_to_string(html).unwrap().contains("<th>second / first</th>"));
}

#[test]
fn a_side_that_refuses_fails_the_comparison_and_is_named() {
    let good = format!("good={}", Broker::start(Manner::Answers).bootstrap());
    let bad = format!("bad={}", Broker::start(Manner::Refuses).bootstrap());
    let (output, text) = compare(&[good, bad], &["--rounds", "1", "--warm-up-rounds", "0"], &LOAD);
    assert!(!output.status.success());
    assert!(text.contains("errors      bad: ") && !text.contains("errors      good: "), "{text}");
}

#[test]
fn what_makes_no_comparison_is_refused_before_anything_runs() {
    let sides = ["a=127.0.0.1:1".to_owned(), "b=127.0.0.1:1".to_owned()];
    for (more, problem) in
        [("--json=x", "goes before it"), ("--pid=1", "goes before it"), ("--rat=1", "unexpected argument")]
    {
        let (output, text) = compare(&sides, &[], &["produce", more]);
        assert!(!output.status.success() && text.contains(problem), "{more}: {text}");
    }
    let same = ["a=127.0.0.1:1".to_owned(), "a=127.0.0.1:2".to_owned()];
    let (output, text) = compare(&same, &[], &["produce"]);
    assert!(!output.status.success() && text.contains("two sides are called a"), "{text}");
}
