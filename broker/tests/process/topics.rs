//! `millrace topic …` against a running broker.

use crate::kafka::Client;
use crate::program::{Broker, directory, run};
use millrace_protocol::error_code::ErrorCode;
use std::net::TcpListener;

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2"]);
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok(""));
    let created = broker.topic(&["create", "orders", "--partitions", "3"]).expect("a new topic");
    assert!(created.starts_with("created orders with 3 partitions, id "), "{created}");
    let created = broker.topic(&["create", "plain"]).expect("a new topic");
    assert!(created.starts_with("created plain with 4 partitions, id "), "{created}");
    broker.topic(&["create", "kept", "--partitions", "1", "--config", "retention.ms=1000"]).expect("a setting");
    assert_eq!(
        broker.topic(&["list"]).as_deref(),
        Ok("kept\t1 partition\norders\t3 partitions\nplain\t4 partitions\n")
    );
    let described = broker.topic(&["describe", "orders"]).expect("it is there");
    let lines: Vec<&str> = described.lines().collect();
    assert!(lines[0].starts_with("orders\tid ") && lines[0].ends_with("\t3 partitions"), "{described}");
    assert_eq!(lines.len(), 4);
    for (index, line) in lines[1..].iter().enumerate() {
        assert!(line.starts_with(&format!("  partition {index}\tnode ")), "{described}");
        assert!(broker.banner.kafka.iter().any(|address| line.contains(address.as_str())), "{described}");
    }
    assert_eq!(broker.topic(&["delete", "orders"]).as_deref(), Ok("deleted orders\n"));
    assert!(broker.topic(&["describe", "orders"]).is_err());
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok("kept\t1 partition\nplain\t4 partitions\n"));
    // The name is free again, and the records of its first life are gone.
    broker.topic(&["create", "orders", "--partitions", "1"]).expect("the name is free");
    assert_eq!(Client::new(broker.bootstrap()).read("orders", 0, 0), Vec::<String>::new());
    broker.stop();
}

#[test]
fn what_cannot_be_done_to_a_topic_is_said_by_name_with_status_1() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    broker.topic(&["create", "t", "--partitions", "1"]).expect("a new topic");
    let cases: &[(&[&str], &str)] = &[
        (&["create", "t"], "TopicAlreadyExists"),
        (&["create", "a b"], "InvalidTopicException"),
        (&["create", ".."], "InvalidTopicException"),
        (&["create", "u", "--partitions", "2000000000"], "InvalidPartitions"),
        (&["create", "u", "--config", "no.such.setting=1"], "InvalidConfig"),
        (&["create", "u", "--config", "retention.ms"], "KEY=VALUE"),
        (&["create", "u", "--config", "retention.ms=soon"], "InvalidConfig"),
        (&["describe", "absent"], "UnknownTopicOrPartition"),
        (&["delete", "absent"], "UnknownTopicOrPartition"),
    ];
    for (arguments, word) in cases {
        let refused = broker.topic(arguments).expect_err("refused");
        assert!(refused.starts_with("millrace: ") && refused.contains(word), "{arguments:?}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok("t\t1 partition\n"), "describing creates nothing");
    assert_eq!(run(&["topic", "create"]).status.code(), Some(2));
    assert_eq!(run(&["topic", "create", "t", "--partitions", "0"]).status.code(), Some(2));
    broker.stop();
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let output = run(&["topic", "list", "--bootstrap", &free.to_string()]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains(&free.to_string()) && text.contains("millrace serve"), "{text}");
    let output = run(&["topic", "list", "--bootstrap", "nowhere"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--bootstrap nowhere"));
}

#[test]
fn more_partitions_than_allowed_are_refused_by_the_settings_name() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1", "--max-partitions", "5"]);
    broker.topic(&["create", "t", "--partitions", "3"]).expect("room for it");
    let refused = broker.topic(&["create", "u", "--partitions", "3"]).expect_err("six are too many");
    assert!(refused.contains("PolicyViolation") && refused.contains("--max-partitions 5"), "{refused}");
    let made_on_use = Client::new(broker.bootstrap()).metadata("v", true);
    assert_eq!(made_on_use.topics[0].error_code, ErrorCode::PolicyViolation);
    broker.stop();
}
