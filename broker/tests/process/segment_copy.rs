//! `millrace segment export` and `segment import`: what one broker wrote another serves, at the same offsets.

use crate::kafka::{Client, EARLIEST, LATEST};
use crate::program::{Broker, directory, run};
use std::fs;
use std::path::Path;

fn segment(command: &str, data: &Path, place: &str, other: &Path, more: &[&str]) -> (Option<i32>, String) {
    let url = format!("file://{}", other.display());
    let data = data.to_str().expect("a plain path");
    let output = run(&[&["segment", command, "--topic", "t", "--data-dir", data, place, &url], more].concat());
    (
        output.status.code(),
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    )
}

#[track_caller]
fn export(data: &Path, target: &Path, more: &[&str]) -> String {
    let (code, text) = segment("export", data, "--target", target, more);
    assert_eq!(code, Some(0), "{text}");
    text
}

fn import(data: &Path, source: &Path, more: &[&str]) -> (Option<i32>, String) {
    // The test's records are of 2023.
    segment("import", data, "--source", source, &[&["--topic-config", "retention.ms=-1"], more].concat())
}

/// Values with their batches: several in one, one alone, and a large one.
fn fill(client: &mut Client, life: usize) {
    let large = "x".repeat(300_000);
    for batch in 0..20 {
        let values = [format!("{life}/{batch}/a"), format!("{life}/{batch}/b"), format!("{life}/{batch}/{large}")];
        let values: Vec<&str> = values[..1 + batch % 3].iter().map(String::as_str).collect();
        client.write("t", 0, &values);
        client.write("t", 2, &values[..1]);
    }
}

/// A topic of three partitions, the middle one empty, written in two lives with an export after each.
fn exported(data: &Path, target: &Path) -> [Vec<String>; 3] {
    for life in 0..2 {
        let broker = Broker::start(data, &[]);
        if life == 0 {
            broker.topic(&["create", "t", "--partitions", "3"]).expect("a new topic");
        }
        fill(&mut Client::new(broker.bootstrap()), life);
        if life == 0 {
            broker.kill()
        } else {
            broker.stop()
        };
        let text = export(data, target, &[]);
        assert!(text.contains("partition 2: 20 records in 1 files"), "{text}");
    }
    let broker = Broker::start(data, &[]);
    let mut client = Client::new(broker.bootstrap());
    let contents = [0, 1, 2].map(|partition| client.read("t", partition, 0));
    broker.stop();
    contents
}

fn files(target: &Path, partition: u32) -> Vec<std::path::PathBuf> {
    let folder = target.join(format!("default/t/{partition}"));
    let mut found: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
    found.retain(|path| path.extension().is_some_and(|kind| kind == "kfs"));
    found.sort();
    found
}

#[test]
fn what_was_exported_and_imported_is_served_record_for_record_at_every_offset() {
    let (_a, ours) = directory();
    let (_b, target) = directory();
    let (_c, theirs) = directory();
    let contents = exported(&ours, &target);
    for path in files(&target, 0) {
        let output = run(&["segment", "verify", path.to_str().expect("plain")]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (code, text) = import(&theirs, &target, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("partition 2: 40 records, offsets 0 to 40"), "{text}");
    for life in 0..2 {
        let broker = Broker::start(&theirs, &[]);
        let mut client = Client::new(broker.bootstrap());
        for (partition, expected) in (0..).zip(&contents) {
            let end = expected.len() as i64;
            assert_eq!((client.offset("t", partition, EARLIEST), client.offset("t", partition, LATEST)), (0, end));
            // From every offset, also from within a batch.
            for offset in (0..end).filter(|offset| offset % 7 == 0 || end < 50) {
                let first = crate::kafka::records(&client.fetch("t", partition, offset));
                let found = first.iter().find(|(at, _)| *at == offset).map(|(_, value)| value);
                assert_eq!(found, expected.get(offset as usize), "{partition} at {offset}");
            }
            assert!(client.read("t", partition, 0) == *expected, "partition {partition}, life {life}");
        }
        broker.stop();
    }
    let broker = Broker::start(&theirs, &[]);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!(client.write("t", 2, &["behind"]), 40, "the log goes on where what was imported ends");
    assert_eq!(client.write("t", 1, &["first"]), 0);
    broker.kill();
    let audit = run(&["audit", "--data-dir", theirs.to_str().expect("plain")]);
    assert_eq!(audit.status.code(), Some(0), "{}", String::from_utf8_lossy(&audit.stdout));
    // Metadata are lost, and the segments are found all the same.
    fs::remove_dir_all(theirs.join("metadata")).expect("it was there");
    let recover = run(&["recover", "--data-dir", theirs.to_str().expect("plain")]);
    assert_eq!(recover.status.code(), Some(0), "{}", String::from_utf8_lossy(&recover.stderr));
    let broker = Broker::start(&theirs, &[]);
    let mut client = Client::new(broker.bootstrap());
    assert!(client.read("t", 2, 0)[..40] == contents[2]);
    assert!(client.read("t", 0, 0) == contents[0]);
    broker.stop();
}

#[test]
fn an_export_of_a_range_holds_the_batches_of_that_range() {
    let (_a, ours) = directory();
    let (_b, target) = directory();
    let (_c, part) = directory();
    let (_d, theirs) = directory();
    let contents = exported(&ours, &target);
    export(&ours, &part, &["--partition", "2", "--from", "5", "--to", "25"]);
    let (code, text) = import(&theirs, &part, &["--as", "part", "--partitions", "4"]);
    assert_eq!(code, Some(0), "{text}");
    let broker = Broker::start(&theirs, &[]);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!((client.offset("part", 2, EARLIEST), client.offset("part", 2, LATEST)), (5, 25));
    assert!(client.read("part", 2, 5) == contents[2][5..25]);
    assert_eq!(client.write("part", 3, &["first"]), 0);
    broker.stop();
}

#[test]
fn what_is_missing_damaged_or_there_already_is_refused_and_leaves_no_topic() {
    let (_a, ours) = directory();
    let (_b, target) = directory();
    let (_c, theirs) = directory();
    exported(&ours, &target);
    let refused = |data: &Path, what: &str| {
        let (code, text) = import(data, &target, &[]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(what), "{text}");
    };
    refused(&ours, "there is a topic t already");
    let first = files(&target, 2).remove(0);
    let index = first.with_extension("index");
    let whole = fs::read(&index).expect("it is there");
    fs::remove_file(&index).expect("it is there");
    refused(&theirs, "has no index beside it");
    fs::write(&index, whole).expect("it can be written");
    let whole = fs::read(&first).expect("it is there");
    let mut flipped = whole.clone();
    flipped[100] ^= 1;
    fs::write(&first, flipped).expect("it can be written");
    refused(&theirs, "checksum");
    fs::write(&first, whole).expect("it can be written");
    let broker = Broker::start(&theirs, &[]);
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok(""), "no attempt left a topic");
    broker.stop();
    let (code, text) = import(&theirs, &target, &[]);
    assert_eq!(code, Some(0), "{text}");
    let audit = run(&["audit", "--data-dir", theirs.to_str().expect("plain")]);
    assert_eq!(audit.status.code(), Some(0), "{}", String::from_utf8_lossy(&audit.stdout));
}

#[test]
fn what_an_import_left_that_was_killed_becomes_that_of_a_deleted_topic() {
    let (_a, ours) = directory();
    let (_b, target) = directory();
    let (_c, theirs) = directory();
    exported(&ours, &target);
    Broker::start(&theirs, &[]).stop();
    // Killed among its segments, and killed before its last step.
    let (early, late) = ("0123456789ab4def8123456789abcdef", "1123456789ab4def8123456789abcdef");
    let segments = theirs.join(format!("log/seg/{early}/0/00000000000000000000000000000001-1"));
    fs::create_dir_all(&segments).expect("a folder");
    fs::copy(files(&target, 0).remove(0), segments.join("segment-00000000000000000000.kfs")).expect("a copy");
    let topics = theirs.join("log/meta/topics");
    fs::create_dir_all(&topics).expect("a folder");
    let alive = format!(r#"{{"v":1,"name":"t","id":"{late}","partitions":1,"settings":{{}},"deleted":false}}"#);
    fs::write(topics.join(late), alive).expect("it can be written");
    let (code, text) = import(&theirs, &target, &[]);
    assert_eq!(code, Some(0), "{text}");
    for id in [early, late] {
        let object = fs::read_to_string(topics.join(id)).expect("it is there");
        assert!(object.contains(r#""deleted":true"#), "{object}");
    }
    let broker = Broker::start(&theirs, &[]);
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok("t\t3 partitions\n"));
    broker.stop();
}
