//! `millrace audit` and what it says of whole and of damaged directories.

use crate::kafka::Client;
use crate::program::{Broker, directory, run};
use std::fs;
use std::path::{Path, PathBuf};

/// Status and standard output.
fn audit(data: &Path) -> (Option<i32>, String) {
    let output = run(&["audit", "--data-dir", data.to_str().expect("a plain path")]);
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), text + &String::from_utf8(output.stderr).expect("text"))
}

#[track_caller]
fn assert_whole(data: &Path, partitions: u32, records: u32) {
    let (status, text) = audit(data);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(&format!("\npartitions    {partitions}\nrecords       {records} in ")), "{text}");
}

/// A broker that has written into two topics, in two lives.
fn written(data: &Path) -> Broker {
    let broker = Broker::start(data, &["--shards", "2"]);
    let mut client = Client::new(broker.bootstrap());
    for (topic, partitions) in [("a", 3), ("b", 1)] {
        client.create_topic(topic, partitions);
        for partition in 0..partitions {
            client.write(topic, partition, &["x", "y"]);
        }
    }
    broker.kill();
    let broker = Broker::start(data, &["--shards", "2"]);
    Client::new(broker.bootstrap()).write("a", 1, &["z"]);
    broker
}

/// The files below a directory.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a directory").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

#[test]
fn a_store_is_whole_however_its_process_ended_and_an_audit_changes_nothing() {
    for end in [Broker::stop, Broker::kill] {
        let (_directory, data) = directory();
        end(written(&data));
        let contents = || files(&data).into_iter().map(|path| (fs::read(&path).expect("readable"), path));
        let before: Vec<_> = contents().collect();
        assert_whole(&data, 4, 9);
        assert!(contents().eq(before), "an audit only reads");
        let broker = Broker::start(&data, &[]);
        assert_eq!(Client::new(broker.bootstrap()).read("a", 1, 0), ["x", "y", "z"]);
        broker.stop();
        assert_whole(&data, 4, 9);
    }
}

#[test]
fn a_directory_in_use_or_without_a_cluster_is_refused() {
    let (_directory, data) = directory();
    let broker = written(&data);
    let (status, text) = audit(&data);
    assert_eq!(status, Some(1));
    assert!(text.contains("another process uses "), "{text}");
    broker.stop();
    let (_empty, data) = directory();
    fs::create_dir_all(data.join("log")).expect("a fresh directory");
    let (status, text) = audit(&data);
    assert_eq!(status, Some(1));
    assert!(text.contains("there is no cluster at "), "{text}");
}

#[test]
fn each_damage_is_found() {
    type Damage = (&'static str, fn(&Path), &'static str);
    let remove_first = |folder: &str, data: &Path| {
        let doomed = files(&data.join(folder)).into_iter().next().expect("there is one");
        fs::remove_file(doomed).expect("it is there");
    };
    let damages: [Damage; 5] = [
        ("a log's files are gone", |data| remove_all(&data.join("log/wal")), "missing: wal/"),
        ("a bit of a body is another", flip_in_a_body, "damaged: wal/"),
        ("a checkpoint is gone", |data| remove_all(&data.join("log/ckpt")), "missing: ckpt/"),
        ("a checkpoint is cut", |data| cut_all(&data.join("log/ckpt")), "damaged: ckpt/"),
        ("the fences are gone", |data| remove_all(&data.join("log/wal")), "missing: the fence at "),
    ];
    for (what, damage, found) in damages {
        let (_directory, data) = directory();
        written(&data).stop();
        damage(&data);
        let (status, text) = audit(&data);
        assert_eq!(status, Some(1), "{what}: {text}");
        assert!(text.contains(found), "{what}: {text}");
    }
    let (_directory, data) = directory();
    written(&data).stop();
    remove_first("log/meta/topics", &data);
    let (status, text) = audit(&data);
    assert_eq!(status, Some(1));
    assert!(text.contains("missing: meta/topics/"), "{text}");
}

fn remove_all(folder: &Path) {
    files(folder).iter().for_each(|path| fs::remove_file(path).expect("it is there"));
}

fn cut_all(folder: &Path) {
    for path in files(folder) {
        let bytes = fs::read(&path).expect("readable");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("writable");
    }
}

/// Another last byte of a record's value: the frames around it stay as they are.
fn flip_in_a_body(data: &Path) {
    for path in files(&data.join("log/wal")) {
        let mut bytes = fs::read(&path).expect("readable");
        let Some(at) = bytes.windows(2).position(|two| two == b"\x02x") else { continue };
        bytes[at + 1] = b'?';
        fs::write(&path, &bytes).expect("writable");
        return;
    }
    panic!("no record was written");
}
