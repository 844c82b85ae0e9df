//! What a run leaves behind.

use crate::broker::{Broker, Manner, run};
use crate::endpoint::{self, PRODUCED_PER_PUT};

#[test]
fn every_form_of_a_result_that_is_asked_for_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (json, html, log) = (file("r.json"), file("r.html"), file("r.hlog"));
    let more = ["--rate", "500", "--json", &json, "--html", &html, "--log", &log, "--label", "small broker"];
    let (output, text) = run(Broker::start(Manner::Answers), "produce", &more);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no live line where there is no terminal");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!((&json["label"], &json["series"][0]["latencies"]), (&"small broker".into(), &500.into()));
    let command = json["command"].as_str().unwrap();
    assert!(command.starts_with("millrace-bench produce ") && command.contains("'small broker'"), "{command}");
    assert!(std::fs::read_to_string(html).unwrap().contains("small broker: produce"));
    assert!(std::fs::read_to_string(log).unwrap().contains("\nTag=produce,0.000,1.000,"));
}

#[test]
fn metrics_that_cannot_be_read_fail_the_run() {
    let more = ["--rate", "100", "--metrics", "http://127.0.0.1:1/"];
    let (output, _) = run(Broker::start(Manner::Answers), "produce", &more);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("metrics http://127.0.0.1:1/"));
}

#[test]
fn what_millrace_exports_of_its_store_is_counted_and_priced() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("r.json").to_str().unwrap().to_owned();
    let more = ["--rate", "100", "--metrics", &endpoint::start(), "--json", &json];
    let (output, text) = run(Broker::start(Manner::Answers), "produce", &more);
    assert!(output.status.success(), "{text}");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let used = |name: &str| json["store"][name].as_u64().unwrap();
    let puts = used("puts");
    assert!(puts > 0, "{text}");
    assert_eq!((used("produced_bytes"), used("sent_bytes")), (puts * PRODUCED_PER_PUT, puts * 6));
    assert_eq!((used("gets"), used("lists"), used("received_bytes")), (0, 0, 0));
    let share = &json["ack_share"];
    assert_eq!((&share["seals"], &share["p50_ms"], &share["p99_ms"]), (&puts.into(), &0.05.into(), &0.05.into()));
    assert!(text.contains(&format!("p50 0.050 p99 0.050 p99.9 0.050  of {puts} seals")), "{text}");
    // 1,024 puts for each GiB at 0.005 for 1,000.
    let money = json["money"]["requests_per_gib"].as_f64().unwrap();
    assert!((money - 0.005_12).abs() < 1e-9, "{money}");
    assert!(
        text.contains(&format!("store       {puts} PUTs (1024/GiB)")) && text.contains("0.005120 USD/GiB"),
        "{text}"
    );
}
