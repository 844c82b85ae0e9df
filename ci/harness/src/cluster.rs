//! What a client must know of the cluster: who leads which partition, where logs begin and end.

use crate::connection::{Connection, IO_TIMEOUT};
use crate::process::Broker;
use crate::route::Leader;
use crate::trouble::{Trouble, is_retriable};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

/// Between two tries of something that is not there yet.
const RETRY_EVERY: Duration = Duration::from_millis(2);
/// Timeout that admin requests carry, in milliseconds.
const ADMIN_TIMEOUT_MS: i32 = 30_000;
/// ListOffsets: the end of the log that readers see.
const LATEST: i64 = -1;

const API_VERSIONS_VERSION: i16 = 3;
const METADATA_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;
const INIT_PRODUCER_ID_VERSION: i16 = 4;
/// Of produce requests: topics go by name up to this one.
pub(crate) const PRODUCE_VERSION: i16 = 9;
const LIST_OFFSETS_VERSION: i16 = 7;

/// Who leads each partition of a topic; partition p is entry p.
pub(crate) type Leaders = Vec<SocketAddr>;

/// Tries until it succeeds or the time is over; errors that a client would not retry end it at once.
pub(crate) fn retry<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Err(Trouble::Io(_)) if Instant::now() < deadline => {}
            Err(Trouble::Code(code)) if is_retriable(code) && Instant::now() < deadline => {}
            outcome => return outcome,
        }
        thread::sleep(RETRY_EVERY);
    }
}

/// Greets as clients do: ApiVersions first.
pub(crate) fn greet(address: SocketAddr) -> Result<Connection, Trouble> {
    greet_within(address, IO_TIMEOUT)
}

/// The same, on a connection with this patience.
pub(crate) fn greet_within(address: SocketAddr, patience: Duration) -> Result<Connection, Trouble> {
    let mut connection = Connection::open(address, patience)?;
    let request = ApiVersionsRequest {
        client_software_name: "millrace-harness".into(),
        client_software_version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let answer = connection.call(&request, API_VERSIONS_VERSION)?;
    if answer.error_code.is_none() { Ok(connection) } else { Err(Trouble::Code(answer.error_code)) }
}

/// Who leads the partitions of `topic`, as `bootstrap` tells it.
pub(crate) fn leaders(bootstrap: SocketAddr, topic: &str) -> Result<Leaders, Trouble> {
    let told = described(bootstrap, topic, IO_TIMEOUT)?;
    told.into_iter().map(|leader| leader.map(|leader| leader.address).map_err(Trouble::Code)).collect()
}

/// The same for each partition: its leader, or why there is none.
pub(crate) fn described(
    bootstrap: SocketAddr,
    topic: &str,
    patience: Duration,
) -> Result<Vec<Result<Leader, ErrorCode>>, Trouble> {
    let wanted = MetadataRequestTopic { name: Some(topic.into()), ..Default::default() };
    let request =
        MetadataRequest { topics: Some(vec![wanted]), allow_auto_topic_creation: false, ..Default::default() };
    let answer = greet_within(bootstrap, patience)?.call(&request, METADATA_VERSION)?;
    let mut nodes = BTreeMap::new();
    for broker in &answer.brokers {
        let address = (broker.host.as_str(), broker.port as u16).to_socket_addrs()?.next();
        nodes.insert(broker.node_id, address.ok_or_else(|| Trouble::proof("a node without an address"))?);
    }
    let [found] = answer.topics.as_slice() else {
        return Err(Trouble::proof(format!("{} topics answered for one", answer.topics.len())));
    };
    if !found.error_code.is_none() {
        return Err(Trouble::Code(found.error_code));
    }
    let mut leaders = BTreeMap::new();
    for partition in &found.partitions {
        let leader = if partition.error_code.is_none() {
            let address = nodes.get(&partition.leader_id).copied();
            let no_node = || Trouble::proof(format!("leader {} is no node", partition.leader_id));
            Ok(Leader { address: address.ok_or_else(no_node)?, epoch: partition.leader_epoch })
        } else {
            Err(partition.error_code)
        };
        leaders.insert(partition.partition_index, leader);
    }
    if leaders.keys().copied().ne(0..leaders.len() as i32) {
        return Err(Trouble::proof("partitions are not numbered from 0"));
    }
    Ok(leaders.into_values().collect())
}

/// How many nodes the cluster has, as `bootstrap` tells it.
pub(crate) fn members(bootstrap: SocketAddr) -> Result<usize, Trouble> {
    let request = MetadataRequest { topics: Some(Vec::new()), allow_auto_topic_creation: false, ..Default::default() };
    Ok(greet(bootstrap)?.call(&request, METADATA_VERSION)?.brokers.len())
}

/// Creates a topic and waits until every partition has a leader.
pub(crate) fn create_topic(
    bootstrap: SocketAddr,
    name: &str,
    partitions: i32,
    limit: Duration,
) -> Result<Leaders, Trouble> {
    create_topic_with(bootstrap, name, partitions, &[], limit)
}

/// The same with settings by Kafka's names.
pub(crate) fn create_topic_with(
    bootstrap: SocketAddr,
    name: &str,
    partitions: i32,
    settings: &[(&str, String)],
    limit: Duration,
) -> Result<Leaders, Trouble> {
    let setting = |(name, value): &(&str, String)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some(value.as_str().into()),
    };
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: settings.iter().map(setting).collect(),
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: ADMIN_TIMEOUT_MS, validate_only: false };
    let answer = retry(limit, || greet(bootstrap)?.call(&request, CREATE_TOPICS_VERSION))?;
    if let Some(refused) = answer.topics.iter().find(|topic| !topic.error_code.is_none()) {
        return Err(Trouble::proof(format!(
            "{name} not created: {:?} {:?}",
            refused.error_code, refused.error_message
        )));
    }
    let leaders = retry(limit, || leaders(bootstrap, name))?;
    if leaders.len() != partitions as usize {
        return Err(Trouble::proof(format!("{name} has {} partitions, not {partitions}", leaders.len())));
    }
    Ok(leaders)
}

/// A fresh producer id with its epoch.
pub(crate) fn producer_id(bootstrap: SocketAddr) -> Result<(i64, i16), Trouble> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: ADMIN_TIMEOUT_MS,
        ..Default::default()
    };
    let answer = greet(bootstrap)?.call(&request, INIT_PRODUCER_ID_VERSION)?;
    if answer.error_code.is_none() {
        Ok((answer.producer_id, answer.producer_epoch))
    } else {
        Err(Trouble::Code(answer.error_code))
    }
}

/// Asks for a batch each to be written to partitions of one topic.
pub(crate) fn produce_request(
    topic: &str,
    acks: i16,
    timeout_ms: i32,
    data: impl IntoIterator<Item = (i32, Bytes)>,
) -> ProduceRequest {
    let data = data.into_iter().map(|(index, batch)| PartitionProduceData { index, records: Some(batch) });
    let topic = TopicProduceData { name: topic.into(), partition_data: data.collect(), ..Default::default() };
    ProduceRequest { transactional_id: None, acks, timeout_ms, topic_data: vec![topic] }
}

/// Writes one batch to each of these partitions of one leader, without a producer id, and waits until it is durable.
pub(crate) fn produce(leader: SocketAddr, topic: &str, partitions: &[i32], batch: &Bytes) -> Result<(), Trouble> {
    let data = partitions.iter().map(|&index| (index, batch.clone()));
    let request = produce_request(topic, -1, ADMIN_TIMEOUT_MS, data);
    let answer = greet(leader)?.call(&request, PRODUCE_VERSION)?;
    let results: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partition_responses).collect();
    if results.len() != partitions.len() {
        return Err(Trouble::proof(format!("{} of {} partitions answered", results.len(), partitions.len())));
    }
    results.iter().find(|result| !result.error_code.is_none()).map_or(Ok(()), |bad| Err(Trouble::Code(bad.error_code)))
}

/// Waits until a broker that was started has acknowledged a batch to partition 0 of `topic` as durable, and gives the time
/// since its start.
pub(crate) fn first_produce(
    broker: &mut Broker,
    bootstrap: SocketAddr,
    topic: &str,
    batch: &Bytes,
    limit: Duration,
) -> Result<Duration, Trouble> {
    retry(limit, || {
        if !broker.is_alive()? {
            return Err(Trouble::proof("the broker ended at its restart"));
        }
        produce(leaders(bootstrap, topic)?[0], topic, &[0], batch)
    })?;
    Ok(broker.started.elapsed())
}

/// The high watermark of a partition, asked of its leader.
pub(crate) fn log_end(leader: SocketAddr, topic: &str, partition: i32) -> Result<i64, Trouble> {
    let wanted = ListOffsetsPartition { partition_index: partition, timestamp: LATEST, ..Default::default() };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: topic.into(), partitions: vec![wanted] }],
        ..Default::default()
    };
    let answer = greet(leader)?.call(&request, LIST_OFFSETS_VERSION)?;
    let found = answer.topics.first().and_then(|topic| topic.partitions.first());
    match found {
        Some(found) if found.error_code.is_none() => Ok(found.offset),
        Some(found) => Err(Trouble::Code(found.error_code)),
        None => Err(Trouble::proof("ListOffsets answered nothing")),
    }
}
