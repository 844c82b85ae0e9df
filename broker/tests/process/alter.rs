//! Topics that are changed while they are in use, over a restart.

use crate::kafka::Client;
use crate::program::{Broker, directory};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_partitions::CreatePartitionsTopic;
use millrace_protocol::messages::describe_topic_partitions::TopicRequest;
use millrace_protocol::messages::{CreatePartitionsRequest, DescribeTopicPartitionsRequest};

#[test]
fn partitions_are_added_to_a_topic_in_use_and_are_there_after_a_restart() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    client.write("t", 0, &["a"]);
    let topic = CreatePartitionsTopic { name: "t".into(), count: 3, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: 10_000, validate_only: false };
    assert_eq!(client.any().ask(&request, 3).results[0].error_code, ErrorCode::None);
    client.write("t", 2, &["b"]);
    assert_eq!(client.any().ask(&request, 3).results[0].error_code, ErrorCode::InvalidPartitions);
    broker.stop();

    let broker = Broker::start(&data, &["--shards", "2"]);
    let mut client = Client::new(broker.bootstrap());
    let request =
        DescribeTopicPartitionsRequest { topics: vec![TopicRequest { name: "t".into() }], ..Default::default() };
    assert_eq!(client.any().ask(&request, 0).topics[0].partitions.len(), 3);
    assert_eq!(client.read("t", 0, 0), ["a"]);
    assert_eq!(client.read("t", 2, 0), ["b"]);
    client.write("t", 1, &["c"]);
    broker.stop();
}
