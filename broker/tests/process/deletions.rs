//! Log starts that were raised, by hand or by retention, stay raised, however the process ends.

use crate::kafka::{Client, EARLIEST, LATEST};
use crate::program::{Broker, directory, until};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use millrace_protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsTopic,
};
use millrace_protocol::messages::{CreateTopicsRequest, DeleteRecordsRequest};

const TOPIC: &str = "t";

fn delete(client: &mut Client, offset: i64) -> DeleteRecordsPartitionResult {
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset }];
    let topics = vec![DeleteRecordsTopic { name: TOPIC.into(), partitions }];
    let answer = client.leader(TOPIC, 0).ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 }, 2);
    answer.topics[0].partitions[0].clone()
}

/// The log has the values from `start` on, and nothing below.
fn starts_at(broker: &Broker, start: i64, values: &[&str]) {
    let mut client = Client::new(broker.bootstrap());
    assert_eq!(client.offset(TOPIC, 0, EARLIEST), start);
    assert_eq!(client.offset(TOPIC, 0, LATEST), start + i64::try_from(values.len()).expect("few"));
    assert_eq!(client.read(TOPIC, 0, start), values);
    if start > 0 {
        assert_eq!(client.fetch(TOPIC, 0, start - 1).error_code, ErrorCode::OffsetOutOfRange);
    }
}

#[test]
fn what_was_deleted_stays_deleted_however_the_process_ends() {
    for store in [&[][..], &["--fsync", "false"]] {
        let (_directory, data) = directory();
        let settings = [&["--shards", "2"][..], store].concat();
        let broker = Broker::start(&data, &settings);
        let mut client = Client::new(broker.bootstrap());
        client.create_topic(TOPIC, 1);
        client.write(TOPIC, 0, &["a", "b", "c"]);
        client.write(TOPIC, 0, &["d"]);
        let deleted = delete(&mut client, 2);
        assert_eq!((deleted.low_watermark, deleted.error_code), (2, ErrorCode::None));
        starts_at(&broker, 2, &["c", "d"]);
        broker.kill();

        let broker = Broker::start(&data, &settings);
        starts_at(&broker, 2, &["c", "d"]);
        let mut client = Client::new(broker.bootstrap());
        assert_eq!(delete(&mut client, 1).low_watermark, 2, "it never goes back");
        assert_eq!(delete(&mut client, 5).error_code, ErrorCode::OffsetOutOfRange);
        assert_eq!(delete(&mut client, -1).low_watermark, 4);
        broker.stop();

        let broker = Broker::start(&data, &settings);
        starts_at(&broker, 4, &[]);
        Client::new(broker.bootstrap()).write(TOPIC, 0, &["e"]);
        starts_at(&broker, 4, &["e"]);
        broker.stop();
    }
}

#[test]
fn expired_records_go_by_themselves_and_stay_away() {
    let (_directory, data) = directory();
    let settings = ["--shards", "1", "--retention-check-ms", "100"];
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    let config = |name: &str, value: &str| CreatableTopicConfig { name: name.into(), value: Some(value.into()) };
    let topic = |name: &str, configs| CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        configs,
        ..Default::default()
    };
    let topics = vec![
        topic(TOPIC, vec![config("retention.ms", "1000")]),
        topic("kept", vec![config("retention.ms", "-1"), config("retention.bytes", "-1")]),
    ];
    let created = client.any().ask(&CreateTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() }, 7);
    assert!(created.topics.iter().all(|topic| topic.error_code.is_none()), "{created:?}");
    for topic in [TOPIC, "kept"] {
        // Their timestamps are years old.
        client.write(topic, 0, &["a", "b"]);
    }
    until("the records go", || (client.offset(TOPIC, 0, EARLIEST) == 2).then_some(()));
    assert_eq!(client.offset("kept", 0, EARLIEST), 0);
    broker.kill();
    let broker = Broker::start(&data, &settings);
    starts_at(&broker, 2, &[]);
    assert_eq!(Client::new(broker.bootstrap()).read("kept", 0, 0), ["a", "b"]);
    broker.stop();
}
