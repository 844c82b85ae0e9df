//! Topics that are changed while they are in use, over a restart.

use crate::kafka::{Client, batch};
use crate::program::{Broker, directory, until};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_partitions::CreatePartitionsTopic;
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::describe_topic_partitions::TopicRequest;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::{
    CreatePartitionsRequest, DescribeConfigsRequest, DescribeTopicPartitionsRequest, IncrementalAlterConfigsRequest,
};

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

#[test]
fn a_changed_setting_is_obeyed_at_once_and_after_a_restart() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 2);
    let config =
        IncrementalConfig { name: "max.message.bytes".into(), value: Some("100".into()), ..Default::default() };
    let resource = IncrementalResource { resource_type: 2, resource_name: "t".into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    assert_eq!(client.any().ask(&request, 1).responses[0].error_code, ErrorCode::None);
    let large = "x".repeat(100);
    assert_eq!(client.produce("t", 0, batch(&["small"])).error_code, ErrorCode::None);
    until("the change reaches every shard", || {
        let refused = |partition| client_of(&broker).produce("t", partition, batch(&[&large])).error_code;
        (0..2).all(|partition| refused(partition) == ErrorCode::MessageTooLarge).then_some(())
    });
    broker.stop();

    let broker = Broker::start(&data, &["--shards", "2"]);
    let mut client = client_of(&broker);
    assert_eq!(client.produce("t", 1, batch(&[&large])).error_code, ErrorCode::MessageTooLarge);
    let resource = DescribeConfigsResource { resource_type: 2, resource_name: "t".into(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = client.any().ask(&request, 4);
    let config = answer.results[0].configs.iter().find(|config| config.name == "max.message.bytes");
    assert_eq!(config.and_then(|config| config.value.as_deref()), Some("100"));
    broker.stop();
}

fn client_of(broker: &Broker) -> Client {
    Client::new(broker.bootstrap())
}
