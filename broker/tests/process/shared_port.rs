//! One port for all shards: what clients are told, and requests that concern partitions of all of them.

use crate::kafka::{Client, Connection, batch, fetch_request, produce_request, records};
use crate::program::{Broker, directory, until};
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::fetch::FetchPartition;
use millrace_protocol::messages::produce::PartitionProduceData;
use millrace_protocol::messages::{DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest, ProduceRequest};

/// Partitions of the topic: more than shards.
const PARTITIONS: i32 = 7;
const SETTINGS: [&str; 4] = ["--shards", "3", "--shared-port", "true"];

fn produce_to_all(acks: i16, value: &str) -> ProduceRequest {
    let mut request = produce_request("t", 0, acks, batch(&[value]));
    let data = |index| PartitionProduceData { index, records: Some(batch(&[value]).into()) };
    request.topic_data[0].partition_data = (0..PARTITIONS).rev().map(data).collect();
    request
}

fn fetch_of_all(offset: i64, max_wait_ms: i32, min_bytes: i32) -> FetchRequest {
    let mut request = fetch_request("t", 0, offset, max_wait_ms);
    request.min_bytes = min_bytes;
    let partitions = &mut request.topics[0].partitions;
    *partitions = (0..PARTITIONS).map(|partition| FetchPartition { partition, ..partitions[0].clone() }).collect();
    request
}

fn started(data: &std::path::Path) -> (Broker, Vec<Connection>) {
    let broker = Broker::start_command(crate::program::serve_alone(data).args(SETTINGS));
    Client::new(broker.bootstrap()).create_topic("t", PARTITIONS);
    // One connection for each shard, since they are dealt in turn.
    let connections = (0..3).map(|_| Connection::open(broker.bootstrap())).collect();
    (broker, connections)
}

#[test]
fn clients_are_told_of_one_node_at_one_address_that_leads_and_coordinates_everything() {
    let (_directory, data) = directory();
    let (broker, mut connections) = started(&data);
    assert_eq!(broker.banner.kafka.len(), 1);
    let metadata = Client::new(broker.bootstrap()).metadata("t", false);
    let [node] = &metadata.brokers[..] else { panic!("{metadata:?}") };
    assert_eq!(format!("{}:{}", node.host, node.port), broker.bootstrap());
    assert!(metadata.topics[0].partitions.iter().all(|partition| partition.leader_id == node.node_id));
    for (at, connection) in connections.iter_mut().enumerate() {
        let key = format!("group-{at}");
        let found = connection.ask(&FindCoordinatorRequest { key: key.as_str().into(), ..Default::default() }, 2);
        assert_eq!((found.error_code, found.node_id), (ErrorCode::None, node.node_id));
    }
    broker.stop();
}

#[test]
fn one_request_writes_and_one_reads_partitions_of_all_shards_on_any_connection_also_after_kill_9() {
    let (_directory, data) = directory();
    let (broker, mut connections) = started(&data);
    for (base, connection) in connections.iter_mut().enumerate() {
        let answer = connection.ask(&produce_to_all(-1, "a"), 11);
        let results = &answer.responses[0].partition_responses;
        let seen: Vec<_> = results.iter().map(|result| (result.index, result.error_code, result.base_offset)).collect();
        let expected: Vec<_> = (0..PARTITIONS).rev().map(|index| (index, ErrorCode::None, base as i64)).collect();
        assert_eq!(seen, expected);
    }
    broker.kill();
    let broker = Broker::start_command(crate::program::serve_alone(&data).args(SETTINGS));
    for _ in 0..3 {
        let mut connection = Connection::open(broker.bootstrap());
        let answer = connection.ask(&fetch_of_all(0, 0, 0), 12);
        let read: Vec<_> =
            answer.responses[0].partitions.iter().map(|one| (one.partition_index, records(one))).collect();
        let values = || (0..3).map(|offset| (offset, "a".to_owned())).collect::<Vec<_>>();
        assert_eq!(read, (0..PARTITIONS).map(|partition| (partition, values())).collect::<Vec<_>>());
    }
    broker.stop();
}

#[test]
fn a_fetch_of_all_partitions_waits_for_bytes_of_any_of_them_together() {
    let (_directory, data) = directory();
    let (broker, mut connections) = started(&data);
    let (reader, writers) = connections.split_first_mut().expect("three were made");
    let bytes = batch(&["a"]).len() as i32;
    reader.send(&fetch_of_all(0, 60_000, 3 * bytes), 12);
    until("the fetch is parked", || (broker.metric("millrace_parked_fetches_total") > 0).then_some(()));
    for (partition, writer) in [(0, 0), (1, 1), (2, 0)] {
        writers[writer].ask(&produce_request("t", partition, -1, batch(&["a"])), 11);
    }
    let (_, answer) = reader.receive::<FetchRequest>(12);
    let partitions = &answer.responses[0].partitions;
    assert_eq!(partitions.iter().map(|one| records(one).len()).collect::<Vec<_>>(), [1, 1, 1, 0, 0, 0, 0]);
    broker.stop();
}

#[test]
fn a_connection_that_goes_leaves_no_fetch_behind_and_answers_come_in_order() {
    let (_directory, data) = directory();
    let (broker, mut connections) = started(&data);
    let mut gone = connections.remove(0);
    gone.send(&fetch_of_all(0, 300_000, 1 << 20), 12);
    until("the fetch is parked", || (broker.metric("millrace_parked_fetches_total") > 0).then_some(()));
    drop(gone);
    let connection = &mut connections[0];
    let sent: Vec<i32> = (0..20)
        .map(|round| match round % 4 {
            0 => connection.send(&produce_to_all(1, "b"), 11),
            1 => connection.send(&fetch_of_all(0, 1000, 1 << 20), 12),
            2 => {
                let groups = (0..9).map(|group| format!("group-{group}").as_str().into()).collect();
                connection.send(&DescribeGroupsRequest { groups, ..Default::default() }, 5)
            }
            _ => connection.send(&produce_to_all(-1, "b"), 11),
        })
        .collect();
    for (round, sent) in sent.into_iter().enumerate() {
        let answered = match round % 4 {
            0 | 3 => connection.receive::<ProduceRequest>(11).0,
            1 => connection.receive::<FetchRequest>(12).0,
            _ => {
                let (answered, described) = connection.receive::<DescribeGroupsRequest>(5);
                assert!(described.groups.len() == 9 && described.groups.iter().all(|group| group.error_code.is_none()));
                answered
            }
        };
        assert_eq!(answered, sent);
    }
    broker.stop();
}
