//! Producing and fetching over real sockets.

use crate::kafka::{Client, Connection, LATEST, batch, fetch_request, produce_request, records, sequenced};
use crate::program::{Broker, directory, shares_port, until};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::{ApiVersionsRequest, FetchRequest, ProduceRequest};
use std::io::Write;
use std::net::Shutdown;

/// Requests sent before the first answer is read.
const PIPELINED: i32 = 200;

#[test]
fn a_topic_that_is_asked_for_is_made_unless_the_client_says_no() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2"]);
    let mut client = Client::new(broker.bootstrap());
    let refused = client.metadata("auto", false);
    assert_eq!(refused.topics[0].error_code, ErrorCode::UnknownTopicOrPartition);
    until("the topic is there", || {
        let topic = client.metadata("auto", true).topics[0].clone();
        (topic.error_code == ErrorCode::None && topic.partitions.len() == 4).then_some(())
    });
    let leaders =
        client.metadata("auto", false).topics[0].partitions.iter().map(|one| one.leader_id).collect::<Vec<_>>();
    let spread = leaders.iter().any(|leader| *leader != leaders[0]);
    assert_eq!(spread, !shares_port(), "spread over the shards unless they are one node: {leaders:?}");
    let mut leads = || client.produce("auto", 3, batch(&["a"])).error_code == ErrorCode::None;
    until("the partition is led", || leads().then_some(()));
    assert_eq!(client.read("auto", 3, 0), ["a"]);
    broker.stop();
}

#[test]
fn acks_all_and_one_are_answered_and_acks_zero_is_not() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let leader = client.leader("t", 0);
    for (offset, acks) in [(0, -1), (1, 1)] {
        let answer = leader.ask(&produce_request("t", 0, acks, batch(&["a"])), 11);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::None, offset));
    }
    leader.send(&produce_request("t", 0, 0, batch(&["c"])), 11);
    // The next answer on the connection is the next request's.
    let answer = leader.ask(&produce_request("t", 0, -1, batch(&["d"])), 11);
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 3);
    assert_eq!(client.read("t", 0, 0), ["a", "a", "c", "d"]);
    let refused = client.leader("t", 0).ask(&produce_request("t", 0, 2, batch(&["e"])), 11);
    assert_eq!(refused.responses[0].partition_responses[0].error_code, ErrorCode::InvalidRequiredAcks);
    // An error of acks 0 can be told only by closing.
    let mut other = Connection::open(broker.bootstrap());
    other.send(&produce_request("absent", 0, 0, batch(&["f"])), 11);
    assert!(other.is_closed());
    broker.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let leader = client.leader("t", 0);
    let mut sent = Vec::new();
    for number in 0..PIPELINED {
        let value = number.to_string();
        sent.push(leader.send(&produce_request("t", 0, -1, batch(&[&value])), 11));
        // Answered at once by itself, and yet not before the produce in front of it.
        sent.push(leader.send(&ApiVersionsRequest::default(), 0));
    }
    for number in 0..PIPELINED {
        let at = usize::try_from(number).expect("small") * 2;
        let (correlation, answer) = leader.receive::<ProduceRequest>(11);
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((correlation, answer.base_offset), (sent[at], i64::from(number)), "{answer:?}");
        assert_eq!(leader.receive::<ApiVersionsRequest>(0).0, sent[at + 1]);
    }
    assert_eq!(client.read("t", 0, 0), (0..PIPELINED).map(|number| number.to_string()).collect::<Vec<_>>());
    broker.stop();
}

#[test]
fn a_fetch_waits_for_the_record_that_it_asks_for() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let mut reader = Connection::open(broker.bootstrap());
    reader.send(&fetch_request("t", 0, 0, 20_000), 12);
    until("the fetch is parked", || (broker.metric("millrace_parked_fetches_total") > 0).then_some(()));
    client.write("t", 0, &["a"]);
    let (_, answer) = reader.receive::<FetchRequest>(12);
    assert_eq!(records(&answer.responses[0].partitions[0]), [(0, "a".to_owned())]);
    broker.stop();
}

#[test]
fn a_batch_that_an_idempotent_producer_repeats_is_appended_once() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let id = client.producer();
    assert_ne!(client.producer(), id);
    for _ in 0..3 {
        let answer = client.produce("t", 0, sequenced(id, 0, &["a", "b"]));
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::None, 0));
    }
    let gap = client.produce("t", 0, sequenced(id, 5, &["f"]));
    assert_eq!(gap.error_code, ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(client.produce("t", 0, sequenced(id, 2, &["c"])).base_offset, 2);
    assert_eq!(client.read("t", 0, 0), ["a", "b", "c"]);
    broker.stop();
}

#[test]
fn damaged_batches_and_offsets_out_of_range_get_kafkas_errors() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let mut damaged = batch(&["a"]);
    *damaged.last_mut().expect("not empty") ^= 1;
    assert_eq!(client.produce("t", 0, damaged).error_code, ErrorCode::CorruptMessage);
    assert_eq!(client.offset("t", 0, LATEST), 0);
    for offset in [-5, 1, i64::MAX] {
        assert_eq!(client.fetch("t", 0, offset).error_code, ErrorCode::OffsetOutOfRange, "{offset}");
    }
    broker.stop();
}

#[test]
fn what_is_no_request_closes_its_own_connection_only() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let frames: [&[u8]; 5] = [
        // A frame of 2 GiB.
        &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1],
        &[0xff; 64],
        &[0; 64],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        // A whole frame of an API that does not exist.
        &[0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
    ];
    for frame in frames {
        let mut connection = Connection::open(broker.bootstrap());
        connection.stream.write_all(frame).expect("the socket takes it");
        assert!(connection.is_closed(), "{frame:?}");
    }
    // Half a frame, then nothing.
    let mut connection = Connection::open(broker.bootstrap());
    connection.stream.write_all(&[0, 0, 0, 100, 0, 0]).expect("the socket takes it");
    connection.stream.shutdown(Shutdown::Write).expect("open");
    assert!(connection.is_closed());
    assert_eq!(client.write("t", 0, &["a"]), 0);
    broker.stop();
}
