//! `millrace restore`: a topic as it was, beside itself.

use crate::kafka::{Client, EARLIEST, LATEST};
use crate::program::{Broker, directory, run, until};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::DeleteRecordsRequest;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use millrace_protocol::records::BatchBuilder;
use std::path::Path;

const ROLLING: [&str; 4] = ["--roll-segments", "true", "--roll-after-ms", "1"];
/// Timestamp of the first batch.
const FIRST_MS: i64 = 1_700_000_000_000;

fn restore(data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let data = data.to_str().expect("a plain path");
    let output = run(&[&["restore", "--topic", "t", "--data-dir", data], more].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

#[track_caller]
fn audit(data: &Path) {
    let output = run(&["audit", "--data-dir", data.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Writes batches of two records, each batch a second later than the one before.
fn write(client: &mut Client, partition: i32, seconds: std::ops::Range<i64>) {
    for second in seconds {
        let mut builder = BatchBuilder::new(FIRST_MS + second * 1_000);
        for which in ["a", "b"] {
            builder.push(None, Some(format!("{second}{which}").as_bytes()));
        }
        let answer = client.produce("t", partition, builder.finish());
        assert_eq!(answer.error_code, ErrorCode::None, "{answer:?}");
    }
}

fn values(seconds: std::ops::Range<i64>) -> Vec<String> {
    seconds.flat_map(|second| [format!("{second}a"), format!("{second}b")]).collect()
}

/// A stopped log: of partition 0 the first ten batches lie in segments and ten more do not, partition 1 has four, and 2 none.
fn filled(data: &Path) {
    let broker = Broker::start(data, &ROLLING);
    broker.topic(&["create", "t", "--partitions", "3", "--config", "retention.ms=-1"]).expect("a new topic");
    let mut client = Client::new(broker.bootstrap());
    write(&mut client, 0, 0..10);
    write(&mut client, 1, 0..4);
    until("segments hold everything", || (broker.metric("millrace_uncovered_bytes") == 0).then_some(()));
    broker.kill();
    let broker = Broker::start(data, &["--roll-segments", "false"]);
    write(&mut Client::new(broker.bootstrap()), 0, 10..20);
    broker.kill();
}

#[test]
fn a_topic_comes_back_as_it_was_at_a_moment_whether_its_records_are_rolled_or_not() {
    let (_directory, data) = directory();
    filled(&data);
    let early = (FIRST_MS + 5_999).to_string();
    let (code, text) = restore(&data, &["--as", "early", "--at", &early]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("partition 0: 12 records, offsets 0 to 12; left out from offset 12\n"), "{text}");
    assert!(text.contains("partition 1: 8 records, offsets 0 to 8\n"), "{text}");
    // 15 seconds after the first batch.
    let (code, text) = restore(&data, &["--as", "late", "--at", "2023-11-14T22:13:35Z", "--to", "1:3"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("partition 0: 32 records, offsets 0 to 32; left out from offset 32\n"), "{text}");
    assert!(text.contains("partition 1: 2 records, offsets 0 to 2; left out from offset 2\n"), "{text}");
    audit(&data);
    let broker = Broker::start(&data, &ROLLING);
    let mut client = Client::new(broker.bootstrap());
    for (topic, expected) in [("early", [values(0..6), values(0..4)]), ("late", [values(0..16), values(0..1)])] {
        for (partition, expected) in (0..).zip(expected) {
            assert_eq!(client.read(topic, partition, 0), expected, "{topic} {partition}");
            let end = i64::try_from(expected.len()).expect("few");
            assert_eq!(client.offset(topic, partition, LATEST), end);
            assert_eq!(client.write(topic, partition, &["behind"]), end);
        }
        assert_eq!(client.write(topic, 2, &["first"]), 0);
    }
    assert_eq!(client.read("t", 0, 0), values(0..20), "what was read stays");
    broker.stop();
    audit(&data);
}

#[test]
fn what_was_deleted_comes_only_if_it_is_asked_for_and_its_segments_are_still_stored() {
    let (_directory, data) = directory();
    filled(&data);
    let broker = Broker::start(&data, &["--roll-segments", "false"]);
    let mut client = Client::new(broker.bootstrap());
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 7 }];
    let topics = vec![DeleteRecordsTopic { name: "t".into(), partitions }];
    let answer = client.leader("t", 0).ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 }, 2);
    assert_eq!(answer.topics[0].partitions[0].low_watermark, 7);
    broker.stop();
    for (name, more) in [("without", &[][..]), ("with", &["--include-expired"])] {
        let (code, text) = restore(&data, &[&["--as", name], more].concat());
        assert_eq!(code, Some(0), "{text}");
    }
    audit(&data);
    let broker = Broker::start(&data, &[]);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!((client.offset("without", 0, EARLIEST), client.offset("with", 0, EARLIEST)), (7, 0));
    assert_eq!(client.read("without", 0, 7), values(0..20)[7..]);
    assert_eq!(client.fetch("without", 0, 6).error_code, ErrorCode::OffsetOutOfRange);
    assert_eq!(client.read("with", 0, 0), values(0..20));
    broker.stop();
}

#[test]
fn what_can_not_be_restored_is_refused_and_leaves_no_topic() {
    let (_directory, data) = directory();
    filled(&data);
    let refused = |more: &[&str], status, what: &str| {
        let (code, text) = restore(&data, more);
        assert_eq!(code, Some(status), "{text}");
        assert!(text.contains(what), "{text}");
    };
    refused(&["--as", "t"], 1, "there is a topic t already");
    refused(&["--as", "u", "--topic", "other"], 2, "--topic");
    refused(&["--as", "u", "--to", "3:5"], 1, "there is no partition 3 of t");
    refused(&["--as", "u", "--at", "yesterday"], 2, "or Unix milliseconds");
    refused(&["--as", "u", "--topic-config", "no.such=1"], 1, "no.such");
    let broker = Broker::start(&data, &[]);
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok("t\t3 partitions\n"));
    refused(&["--as", "u"], 1, "another process uses");
    broker.stop();
}
