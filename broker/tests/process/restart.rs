//! What is kept over the end of a process, graceful or not.

use crate::kafka::{Client, EARLIEST, LATEST, sequenced};
use crate::program::{Broker, Running, Signal, directory, serve, until};
use millrace_protocol::error_code::ErrorCode;
use std::collections::BTreeMap;
use std::path::Path;

/// Partitions of the topics of these tests.
const PARTITIONS: i32 = 4;

/// How a life ends.
const ENDS: [fn(Broker); 2] = [Broker::stop, Broker::kill];

/// What every partition of a topic holds.
fn contents(broker: &Broker, topic: &str) -> BTreeMap<i32, Vec<String>> {
    let mut client = Client::new(broker.bootstrap());
    (0..PARTITIONS).map(|partition| (partition, client.read(topic, partition, 0))).collect()
}

/// One more record in every partition, by life.
fn add(broker: &Broker, expected: &mut BTreeMap<i32, Vec<String>>, life: &str) {
    let mut client = Client::new(broker.bootstrap());
    for partition in 0..PARTITIONS {
        let value = format!("{life}-{partition}");
        let values = expected.entry(partition).or_default();
        let base = client.write("t", partition, &[&value]);
        assert_eq!(usize::try_from(base), Ok(values.len()));
        values.push(value);
    }
}

/// One life after the other on the same directory, each with its settings: everything written stays, in order.
fn lives(data: &Path, settings: &[&[&str]]) {
    let mut expected = BTreeMap::new();
    for (number, settings) in settings.iter().enumerate() {
        let broker = Broker::start(data, settings);
        if number == 0 {
            Client::new(broker.bootstrap()).create_topic("t", PARTITIONS);
        } else {
            assert_eq!(contents(&broker, "t"), expected, "{settings:?}");
        }
        add(&broker, &mut expected, &number.to_string());
        assert_eq!(contents(&broker, "t"), expected, "{settings:?}");
        ENDS[number % ENDS.len()](broker);
    }
}

#[test]
fn a_restart_keeps_records_ids_and_what_producers_sent_however_the_process_ended() {
    for end in ENDS {
        let (_directory, data) = directory();
        let settings = ["--shards", "2"];
        let broker = Broker::start(&data, &settings);
        let mut client = Client::new(broker.bootstrap());
        client.create_topic("t", PARTITIONS);
        let id = client.producer();
        let mut expected = BTreeMap::new();
        add(&broker, &mut expected, "first");
        let base = client.produce("t", 1, sequenced(id, 0, &["x", "y"])).base_offset;
        expected.get_mut(&1).expect("written").extend(["x".to_owned(), "y".to_owned()]);
        let before = client.metadata("t", false);
        let (name, cluster) = (broker.banner.name.clone(), broker.banner.cluster.clone());
        end(broker);

        let broker = Broker::start(&data, &settings);
        assert_eq!((&broker.banner.name, &broker.banner.cluster), (&name, &cluster));
        let mut client = Client::new(broker.bootstrap());
        let after = client.metadata("t", false);
        let nodes = |metadata: &millrace_protocol::messages::MetadataResponse| {
            metadata.brokers.iter().map(|node| node.node_id).collect::<Vec<_>>()
        };
        assert_eq!(nodes(&after), nodes(&before));
        assert_eq!(after.topics[0].topic_id, before.topics[0].topic_id);
        assert_eq!(contents(&broker, "t"), expected);
        let again = client.produce("t", 1, sequenced(id, 0, &["x", "y"]));
        assert_eq!((again.error_code, again.base_offset), (ErrorCode::None, base), "the duplicate is known");
        let gap = client.produce("t", 1, sequenced(id, 7, &["z"]));
        assert_eq!(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(client.produce("t", 1, sequenced(id, 2, &["z"])).base_offset, base + 2);
        assert_ne!(client.producer(), id, "an id is given out once");
        assert_eq!((client.offset("t", 1, EARLIEST), client.offset("t", 1, LATEST)), (0, base + 3));
        broker.stop();
    }
}

#[test]
fn every_record_stays_reachable_when_the_number_of_shards_changes() {
    let (_directory, data) = directory();
    lives(&data, &[&["--shards", "1"], &["--shards", "2"], &["--shards", "1"], &["--shards", "3"], &["--shards", "2"]]);
}

#[test]
fn every_record_stays_reachable_when_the_number_of_lanes_changes() {
    let (_directory, data) = directory();
    let lanes = |count: &'static str| ["--shards", "2", "--wal-lanes", count];
    lives(&data, &[&lanes("1"), &lanes("2"), &lanes("1"), &lanes("2")]);
}

#[test]
fn without_fsync_records_survive_a_killed_process() {
    let (_directory, data) = directory();
    let fsync = |on: &'static str| ["--shards", "1", "--fsync", on];
    lives(&data, &[&fsync("true"), &fsync("false"), &fsync("false"), &fsync("false"), &fsync("true")]);
    let broker = Broker::start(&data, &fsync("false"));
    assert!(broker.banner.text.contains("acks=all   in the kernel: survives kill -9, not a power loss\n"));
    broker.stop();
}

#[test]
fn a_topic_that_was_deleted_stays_deleted() {
    let (_directory, data) = directory();
    let settings = ["--shards", "1"];
    let broker = Broker::start(&data, &settings);
    broker.topic(&["create", "gone"]).expect("a new topic");
    broker.topic(&["create", "kept"]).expect("a new topic");
    Client::new(broker.bootstrap()).write("gone", 0, &["a"]);
    broker.topic(&["delete", "gone"]).expect("it is there");
    broker.kill();
    let broker = Broker::start(&data, &settings);
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok("kept\t4 partitions\n"));
    broker.stop();
}

#[test]
fn a_process_that_is_killed_while_it_starts_is_no_harm() {
    let (_directory, data) = directory();
    // Ended when it shows the first, second … sign of work: its directory, its lock, its metadata, its banner.
    for sign in ["", "lock", "name", "metadata/metadata.redb", "log/meta/cluster"] {
        let mut process = Running::start(&mut serve(&data));
        until(sign, || data.join(sign).exists().then_some(()));
        process.signal(Signal::Kill);
        process.end();
    }
    lives(&data, &[&["--shards", "1"], &["--shards", "1"]]);
}

#[test]
fn a_second_signal_ends_it_and_the_next_start_recovers() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    client.write("t", 0, &["a"]);
    let Broker { mut process, .. } = broker;
    process.signal(Signal::Term);
    // It may have ended by the first one before this comes: both are right.
    process.signal(Signal::Term);
    assert!(matches!(process.end().code(), Some(0 | 130)));
    let broker = Broker::start(&data, &["--shards", "1"]);
    assert_eq!(Client::new(broker.bootstrap()).read("t", 0, 0), ["a"]);
    broker.stop();
}
