//! `millrace recover`: the metadata directory is lost, and all that was written is served again.

use crate::groups::{commit, committed, heartbeat, join};
use crate::kafka::{Client, EARLIEST, LATEST, sequenced};
use crate::program::{Broker, Running, Signal, directory, millrace, refusal, run, serve, until};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::DeleteRecordsRequest;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use std::fs;
use std::path::Path;
use std::process::Output;

const SETTINGS: [&str; 2] = ["--shards", "2"];

fn command(name: &str, data: &Path) -> Output {
    run(&[name, "--data-dir", data.to_str().expect("a plain path")])
}

#[track_caller]
fn succeeds(name: &str, data: &Path) -> String {
    let output = command(name, data);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    out.into_owned()
}

fn lose_metadata(data: &Path) {
    fs::remove_dir_all(data.join("metadata")).expect("it was there");
}

/// What a broker wrote before its metadata were lost.
struct Written {
    producer: i64,
    epoch: i32,
}

/// Three topics, one with settings, one without records, one deleted; two lives; an idempotent producer.
fn write(data: &Path, end: fn(Broker)) -> Written {
    let broker = Broker::start(data, &SETTINGS);
    broker.topic(&["create", "plain", "--partitions", "3"]).expect("a new topic");
    broker.topic(&["create", "set", "--partitions", "1", "--config", "retention.ms=123456789"]).expect("a new topic");
    broker.topic(&["create", "empty", "--partitions", "2"]).expect("a new topic");
    broker.topic(&["create", "gone"]).expect("a new topic");
    let mut client = Client::new(broker.bootstrap());
    client.write("plain", 2, &["a", "b"]);
    client.write("gone", 0, &["never again"]);
    let producer = client.producer();
    assert_eq!(client.produce("set", 0, sequenced(producer, 0, &["p", "q"])).error_code, ErrorCode::None);
    broker.topic(&["delete", "gone"]).expect("it is there");
    broker.kill();
    let broker = Broker::start(data, &SETTINGS);
    let mut client = Client::new(broker.bootstrap());
    client.write("plain", 2, &["c"]);
    assert_eq!(client.produce("set", 0, sequenced(producer, 2, &["r"])).base_offset, 2);
    let epoch = epoch(&mut client, "plain", 2);
    end(broker);
    Written { producer, epoch }
}

fn epoch(client: &mut Client, topic: &str, partition: i32) -> i32 {
    let metadata = client.metadata(topic, false);
    let partitions = &metadata.topics[0].partitions;
    partitions.iter().find(|one| one.partition_index == partition).expect("it exists").leader_epoch
}

/// Everything is served, and producing goes on where it was.
fn check(data: &Path, written: &Written) {
    let broker = Broker::start(data, &SETTINGS);
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok("empty\t2 partitions\nplain\t3 partitions\nset\t1 partition\n"));
    let mut client = Client::new(broker.bootstrap());
    assert_eq!(client.read("plain", 2, 0), ["a", "b", "c"]);
    assert_eq!(client.read("set", 0, 0), ["p", "q", "r"]);
    assert_eq!((client.offset("plain", 2, EARLIEST), client.offset("plain", 2, LATEST)), (0, 3));
    assert!(epoch(&mut client, "plain", 2) > written.epoch, "an epoch is used once");
    let again = client.produce("set", 0, sequenced(written.producer, 2, &["r"]));
    assert_eq!((again.error_code, again.base_offset), (ErrorCode::None, 2), "the duplicate is known");
    let gap = client.produce("set", 0, sequenced(written.producer, 9, &["x"]));
    assert_eq!(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(client.produce("set", 0, sequenced(written.producer, 3, &["s"])).base_offset, 3);
    assert!(client.producer() > written.producer, "an id is given out once");
    for partition in 0..2 {
        assert_eq!(client.write("empty", partition, &["first"]), 0);
    }
    assert_eq!(client.write("plain", 2, &["d"]), 3);
    broker.kill();
    let broker = Broker::start(data, &SETTINGS);
    assert_eq!(Client::new(broker.bootstrap()).read("set", 0, 0), ["p", "q", "r", "s"]);
    broker.stop();
}

#[test]
fn a_lost_metadata_directory_is_rebuilt_and_everything_goes_on() {
    for end in [Broker::stop, Broker::kill] {
        let (_directory, data) = directory();
        let written = write(&data, end);
        lose_metadata(&data);
        let text = succeeds("recover", &data);
        assert!(text.starts_with("recovered 3 topics with 6 records from file://"), "{text}");
        assert!(text.contains("(generation 1)") && text.contains("0 with 0 committed offsets"), "{text}");
        succeeds("audit", &data);
        check(&data, &written);
        succeeds("audit", &data);
    }
}

#[test]
fn groups_and_offsets_come_back_as_the_process_left_them_or_as_they_were_copied_last() {
    let (_directory, data) = directory();
    let settings = [&SETTINGS[..], &["--journal-ms", "1000"]].concat();
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let member = join(&mut client);
    assert_eq!(commit(&mut client, &member, 1), ErrorCode::None);
    broker.stop();
    lose_metadata(&data);
    let text = succeeds("recover", &data);
    assert!(text.contains("1 with 1 committed offsets as of 20") && text.contains("when it stopped"), "{text}");

    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!((heartbeat(&mut client, &member), committed(&mut client)), (ErrorCode::None, 1));
    assert_eq!(commit(&mut client, &member, 2), ErrorCode::None);
    // Each snapshot has a greater number, and one that begins after the commit holds it.
    let newest = || {
        let files = fs::read_dir(data.join("log/meta/snap")).expect("it is there").flatten();
        files.filter_map(|one| one.file_name().to_str()?.parse::<u64>().ok()).max()
    };
    let before = newest();
    until("it is copied", || (newest() > before).then_some(()));
    assert_eq!(commit(&mut client, &member, 3), ErrorCode::None);
    let between = newest();
    until("the last is copied", || (newest() > between).then_some(()));
    broker.kill();
    lose_metadata(&data);
    let text = succeeds("recover", &data);
    assert!(text.contains("while it ran; what was committed after that is lost"), "{text}");
    let broker = Broker::start(&data, &settings);
    assert!([2, 3].contains(&committed(&mut Client::new(broker.bootstrap()))));
    broker.stop();
    succeeds("audit", &data);
}

#[test]
fn an_older_copy_of_the_metadata_directory_is_refused() {
    let (directory, data) = directory();
    let broker = Broker::start(&data, &SETTINGS);
    broker.topic(&["create", "t", "--partitions", "1"]).expect("a new topic");
    broker.stop();
    let copy = directory.path().join("copy");
    fs::create_dir(&copy).expect("a directory");
    fs::copy(data.join("metadata/metadata.redb"), copy.join("metadata.redb")).expect("a copy");
    let broker = Broker::start(&data, &SETTINGS);
    Client::new(broker.bootstrap()).write("t", 0, &["a"]);
    broker.kill();
    lose_metadata(&data);
    fs::rename(&copy, data.join("metadata")).expect("the copy takes its place");
    let refused = refusal(serve(&data).args(SETTINGS));
    assert!(refused.contains("is older than the object store") && refused.contains("moved away"), "{refused}");
    lose_metadata(&data);
    succeeds("recover", &data);
    let broker = Broker::start(&data, &SETTINGS);
    assert_eq!(Client::new(broker.bootstrap()).read("t", 0, 0), ["a"]);
    broker.stop();
}

fn delete_below(client: &mut Client, topic: &str, offset: i64) {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions }];
    let answer = client.leader(topic, 0).ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 }, 2);
    assert_eq!(answer.topics[0].partitions[0].low_watermark, offset, "{answer:?}");
}

#[test]
fn what_was_rolled_deleted_and_expired_is_after_a_recovery_what_it_was() {
    // Collection may have let go of what lies below the log starts, or not yet.
    let rolling = ["--roll-segments", "true", "--roll-after-ms", "1", "--retention-check-ms", "100"];
    let settings = [&SETTINGS[..], &rolling, &["--segment-check-ms", "1000", "--segment-grace-ms", "1000"]].concat();
    for end in [Broker::stop, Broker::kill] {
        let (_directory, data) = directory();
        let broker = Broker::start(&data, &settings);
        // The test's records are of 2023.
        broker.topic(&["create", "kept", "--partitions", "1", "--config", "retention.ms=-1"]).expect("a new topic");
        broker.topic(&["create", "short", "--partitions", "1", "--config", "retention.ms=1000"]).expect("a new topic");
        let mut client = Client::new(broker.bootstrap());
        for values in [&["a", "b"][..], &["c"], &["d", "e"]] {
            client.write("kept", 0, values);
            until("segments hold everything", || (broker.metric("millrace_uncovered_bytes") == 0).then_some(()));
        }
        delete_below(&mut client, "kept", 4);
        client.write("short", 0, &["x", "y"]);
        until("the records go", || (client.offset("short", 0, EARLIEST) == 2).then_some(()));
        client.write("kept", 0, &["f"]);
        end(broker);
        lose_metadata(&data);
        let text = succeeds("recover", &data);
        assert!(text.starts_with("recovered 2 topics with 2 records"), "{text}");
        succeeds("audit", &data);
        let broker = Broker::start(&data, &settings);
        let mut client = Client::new(broker.bootstrap());
        assert_eq!((client.offset("kept", 0, EARLIEST), client.offset("kept", 0, LATEST)), (4, 6));
        assert_eq!(client.read("kept", 0, 4), ["e", "f"]);
        assert_eq!(client.fetch("kept", 0, 3).error_code, ErrorCode::OffsetOutOfRange);
        assert_eq!((client.offset("short", 0, EARLIEST), client.offset("short", 0, LATEST)), (2, 2));
        assert_eq!((client.write("kept", 0, &["g"]), client.write("short", 0, &["z"])), (6, 2));
        until("segments hold everything", || (broker.metric("millrace_uncovered_bytes") == 0).then_some(()));
        assert_eq!(client.read("kept", 0, 4), ["e", "f", "g"]);
        broker.stop();
        succeeds("audit", &data);
    }
}

#[test]
fn a_recovery_that_is_killed_is_made_again() {
    let (_directory, data) = directory();
    let written = write(&data, Broker::kill);
    lose_metadata(&data);
    let staged = data.join("metadata.recovering/metadata.redb");
    for round in 0..3 {
        let mut process = Running::start(&mut millrace(&["recover", "--data-dir", data.to_str().expect("plain")]));
        // From the first sign of work to, with luck, the last step: it may also be done before the signal comes.
        until("it began, or has ended", || (staged.exists() || process.ended().is_some()).then_some(()));
        process.signal(Signal::Kill);
        process.end();
        if round < 2 && data.join("metadata").exists() {
            lose_metadata(&data);
        }
    }
    if !data.join("metadata").exists() {
        succeeds("recover", &data);
    }
    succeeds("audit", &data);
    check(&data, &written);
}

#[test]
fn a_recovery_is_refused_where_nothing_is_lost_or_somebody_is_at_work() {
    let (_directory, data) = directory();
    let refused = |data: &Path| {
        let output = command("recover", data);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(refused(&data).contains("there is no cluster at "));
    let broker = Broker::start(&data, &SETTINGS);
    assert!(refused(&data).contains("another process uses "));
    broker.stop();
    assert!(refused(&data).contains("nothing is lost"));
    Broker::start(&data, &SETTINGS).stop();
}
