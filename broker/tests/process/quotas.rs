//! Client quotas and settings of nodes, of a real process. Rates are judged by counts: a slow machine only makes the time
//! longer in which as many bytes may pass.

use crate::kafka::{Client, Connection, batch, fetch_request, produce_request, records};
use crate::program::{Broker, directory, now, until};
use millrace_protocol::Double;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::alter_client_quotas::{EntityData, EntryData, OpData};
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::fetch::FetchPartition;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::produce::PartitionProduceData;
use millrace_protocol::messages::{
    AlterClientQuotasRequest, DescribeClientQuotasRequest, DescribeConfigsRequest, FetchRequest,
    IncrementalAlterConfigsRequest, ProduceRequest,
};

/// Bytes a second.
const RATE: f64 = 100_000.0;
/// What passes at once.
const AT_ONCE_SECONDS: f64 = 10.0;
/// Bytes of one value, and how many are sent: more than a second above what passes at once.
const VALUE_BYTES: usize = 90_000;
const VALUES: usize = 14;

/// Sets (or with `None` takes away) both quotas of the client id that the tests' connections have.
fn limit(client: &mut Client, rate: Option<f64>) {
    let op = |key: &str| OpData { key: key.into(), value: Double(rate.unwrap_or(0.0)), remove: rate.is_none() };
    let entity = vec![EntityData { entity_type: "client-id".into(), entity_name: Some("test".into()) }];
    let entries = vec![EntryData { entity, ops: vec![op("producer_byte_rate"), op("consumer_byte_rate")] }];
    let answer = client.any().ask(&AlterClientQuotasRequest { entries, validate_only: false }, 1);
    assert_eq!(answer.entries[0].error_code, ErrorCode::None, "{answer:?}");
}

#[test]
fn a_client_that_does_not_pause_by_itself_is_held_to_its_quota_in_both_directions() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    limit(&mut client, Some(RATE));
    let value = "x".repeat(VALUE_BYTES);

    // All at once, whatever the answers say.
    let begun = now();
    let mut producer = Connection::open(broker.bootstrap());
    for _ in 0..VALUES {
        producer.send(&produce_request("t", 0, -1, batch(&[&value])), 11);
    }
    let mut told = Vec::new();
    for at in 1..=VALUES {
        let (_, answer) = producer.receive::<ProduceRequest>(11);
        assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::None);
        told.push(answer.throttle_time_ms);
        let allowed = RATE * (begun.elapsed().as_secs_f64() + AT_ONCE_SECONDS);
        // The last request is taken whole.
        assert!(((at - 1) * VALUE_BYTES) as f64 <= allowed, "{at} of {VALUE_BYTES} bytes, {allowed} allowed");
    }
    assert!(told.iter().any(|ms| *ms > 0), "the client was told: {told:?}");

    let begun = now();
    let mut reader = Connection::open(broker.bootstrap());
    let (mut read, mut bytes, mut held_back) = (0, 0, 0);
    while read < VALUES {
        let mut request = fetch_request("t", 0, i64::try_from(read).expect("few"), 0);
        request.topics[0].partitions[0].partition_max_bytes = 1;
        let answer = reader.ask::<FetchRequest>(&request, 12);
        held_back += usize::from(answer.throttle_time_ms > 0);
        let Some(topic) = answer.responses.first() else { continue };
        let found = records(&topic.partitions[0]);
        assert!(found.iter().all(|(_, found)| *found == value));
        let allowed = RATE * (begun.elapsed().as_secs_f64() + AT_ONCE_SECONDS);
        assert!(bytes as f64 <= allowed, "{bytes} bytes before this answer, {allowed} allowed");
        (read, bytes) = (read + found.len(), bytes + found.len() * VALUE_BYTES);
    }
    assert!(held_back > 0, "the client was told");
    until("what was held back is counted", || (broker.metric("millrace_throttled_total") > 0).then_some(()));
    broker.stop();

    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    let all = DescribeClientQuotasRequest::default();
    let kept = client.any().ask(&all, 1).entries.expect("no error");
    let values: Vec<_> = kept[0].values.iter().map(|value| (&*value.key, value.value.0)).collect();
    assert_eq!(values, [("consumer_byte_rate", RATE), ("producer_byte_rate", RATE)]);
    limit(&mut client, None);
    assert_eq!(client.any().ask(&all, 1).entries, Some(Vec::new()));
    broker.stop();
}

/// Parts of a request that is divided, and the bytes of a request beside its values, at most.
const PARTS: usize = 4;
const BESIDE_VALUES: usize = 1_000;

/// The longest pause that a client may be told of after so many requests: what is above what passes at once, if no time
/// had gone by. Were the parts of a request counted for the whole, it would be told of more.
fn longest_pause_ms(requests: usize) -> i32 {
    let bytes = requests * (VALUE_BYTES + BESIDE_VALUES);
    ((bytes as f64 / RATE - AT_ONCE_SECONDS).max(0.0) * 1000.0).ceil() as i32
}

#[test]
fn a_request_divided_over_shards_counts_once_in_both_directions() {
    let (_directory, data) = directory();
    let settings = ["--shards", "2", "--shared-port", "true"];
    let broker = Broker::start_command(crate::program::serve_alone(&data).args(settings));
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", PARTS as i32);
    limit(&mut client, Some(RATE));
    let value = "x".repeat(VALUE_BYTES / PARTS);
    let partitions = 0..PARTS as i32;

    let mut request = produce_request("t", 0, -1, Vec::new());
    let data = |index| PartitionProduceData { index, records: Some(batch(&[&value]).into()) };
    request.topic_data[0].partition_data = partitions.clone().map(data).collect();
    let mut producer = Connection::open(broker.bootstrap());
    for _ in 0..VALUES {
        producer.send(&request, 11);
    }
    let mut told = 0;
    for at in 1..=VALUES {
        let (_, answer) = producer.receive::<ProduceRequest>(11);
        let parts = &answer.responses[0].partition_responses;
        assert!(parts.len() == PARTS && parts.iter().all(|part| part.error_code == ErrorCode::None), "{answer:?}");
        let longest = longest_pause_ms(at);
        assert!(answer.throttle_time_ms <= longest, "{} ms after {at}, {longest} at most", answer.throttle_time_ms);
        told = told.max(answer.throttle_time_ms);
    }
    assert!(told > 0, "the client was told");

    let mut reader = Connection::open(broker.bootstrap());
    let mut request = fetch_request("t", 0, 0, 0);
    let part = FetchPartition {
        partition_max_bytes: VALUE_BYTES as i32 / PARTS as i32,
        ..request.topics[0].partitions[0].clone()
    };
    request.topics[0].partitions = partitions.map(|partition| FetchPartition { partition, ..part.clone() }).collect();
    let (mut answers, mut told) = (0, 0);
    while request.topics[0].partitions.iter().any(|part| part.fetch_offset < VALUES as i64) {
        let answer = reader.ask::<FetchRequest>(&request, 12);
        let before = request.topics[0].partitions.iter().map(|part| part.fetch_offset).sum::<i64>();
        for part in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            let found = records(part);
            assert!(found.iter().all(|(_, found)| *found == value));
            let asked = &mut request.topics[0].partitions;
            asked.iter_mut().find(|asked| asked.partition == part.partition_index).expect("asked").fetch_offset +=
                found.len() as i64;
        }
        let after = request.topics[0].partitions.iter().map(|part| part.fetch_offset).sum::<i64>();
        answers += usize::from(after > before);
        // Answers may be smaller than a request was: what was read counts.
        let longest = longest_pause_ms((after as usize).div_ceil(PARTS)) + (answers * BESIDE_VALUES) as i32;
        assert!(answer.throttle_time_ms <= longest, "{} ms after {after}, {longest} at most", answer.throttle_time_ms);
        told = told.max(answer.throttle_time_ms);
    }
    assert!(told > 0, "the client was told");
    broker.stop();
}

#[test]
fn a_setting_of_all_nodes_is_obeyed_by_topics_without_their_own_and_after_a_restart() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 2);
    let change = |name: &str, value: &str| {
        let config = IncrementalConfig { name: name.into(), value: Some(value.into()), ..Default::default() };
        let resource = IncrementalResource { resource_type: 4, resource_name: "".into(), configs: vec![config] };
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
    };
    let answer = client.any().ask(&change("num.partitions", "7"), 1);
    assert_eq!(answer.responses[0].error_code, ErrorCode::InvalidRequest, "it is a flag");
    let answer = client.any().ask(&change("message.max.bytes", "100"), 1);
    assert_eq!(answer.responses[0].error_code, ErrorCode::None, "{answer:?}");
    let large = "x".repeat(100);
    until("the change reaches every shard", || {
        let mut refused = |partition| client.produce("t", partition, batch(&[&large])).error_code;
        (0..2).all(|partition| refused(partition) == ErrorCode::MessageTooLarge).then_some(())
    });
    broker.stop();

    let broker = Broker::start(&data, &["--shards", "2"]);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!(client.produce("t", 1, batch(&[&large])).error_code, ErrorCode::MessageTooLarge);
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configuration_keys: Some(vec!["max.message.bytes".into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = client.any().ask(&request, 4);
    let config = &answer.results[0].configs[0];
    assert_eq!((config.value.as_deref(), config.config_source), (Some("100"), 3), "of all nodes");
    broker.stop();
}
