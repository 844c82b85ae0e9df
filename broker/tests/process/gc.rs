//! `millrace gc --dry-run`, and what the endpoint says of collection.

use crate::kafka::Client;
use crate::program::{Broker, directory, run, until};
use std::fs;

/// Status and everything that was written.
fn gc(arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(&[&["gc"][..], arguments].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), text + &String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn a_dry_run_lists_what_no_manifest_names_and_changes_nothing() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    client.write("t", 0, &["a"]);
    let topic = client.metadata("t", false).topics[0].topic_id.simple().to_string();
    assert_eq!(broker.metric("millrace_segments_unnamed"), 0);
    broker.stop();
    let path = data.to_str().expect("a plain path");
    let (status, text) = gc(&["--dry-run", "--data-dir", path]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("orphans       0 segments in 0 bytes\n"), "{text}");

    let folder = data.join(format!("log/seg/{topic}/0/{:032x}-4", 7));
    fs::create_dir_all(&folder).expect("the directory is ours");
    let file = folder.join("segment-00000000000000000009.kfs");
    fs::write(&file, "litter").expect("the directory is ours");
    let (status, text) = gc(&["--dry-run", "--data-dir", path]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("segment-00000000000000000009.kfs: no manifest names it: it is on its way"), "{text}");
    assert!(text.contains("orphans       1 segments in 6 bytes\n"), "{text}");
    assert!(file.exists());
    let (status, text) = gc(&["--data-dir", path]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("--dry-run"), "{text}");
}

#[test]
fn a_dry_run_lists_logs_that_nothing_needs_and_stray_checkpoints() {
    let (_directory, data) = directory();
    let rolling = ["--shards", "1", "--roll-segments", "true", "--roll-after-ms", "1"];
    let broker = Broker::start(&data, &rolling);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    client.write("t", 0, &["a"]);
    broker.kill();
    // The log of the first life holds a record until that is rolled; afterwards its fence is all that is needed of it.
    let broker = Broker::start(&data, &rolling);
    Client::new(broker.bootstrap()).write("t", 0, &["b"]);
    until("segments hold everything", || (broker.metric("millrace_uncovered_bytes") == 0).then_some(()));
    assert!(broker.metric("millrace_wal_undeleted_since_seconds") == 0);
    broker.stop();
    let logs: Vec<_> = fs::read_dir(data.join("log/ckpt")).expect("there are checkpoints").collect();
    let stray = logs[0].as_ref().expect("a folder").path().join(format!("{:020}", 99_999));
    fs::write(&stray, "litter").expect("the directory is ours");
    let (status, text) = gc(&["--dry-run", "--data-dir", data.to_str().expect("a plain path")]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(": nothing of their log is needed any more\n"), "{text}");
    assert!(text.contains("/00000000000000099999: no"), "{text}");
    assert!(text.contains("orphans       0 segments in 0 bytes\n"), "{text}");
    assert!(!text.contains(" 0 write-ahead objects") && !text.contains(" 0 checkpoints"), "{text}");
}
