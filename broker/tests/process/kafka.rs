//! A Kafka client for tests: frames over a socket, requests routed to the leader.

use crate::program::PATIENCE;
use bytes::Bytes;
use millrace_protocol::codec::Request;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::{decode_response, request_frame};
use millrace_protocol::messages::create_topics::CreatableTopic;
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use millrace_protocol::messages::{
    CreateTopicsRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse,
    ProduceRequest,
};
use millrace_protocol::records::{BatchBuilder, BatchProducer, Batches};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Oldest records are asked for with this timestamp.
pub(crate) const EARLIEST: i64 = -2;
/// The end of the log is asked for with this timestamp.
pub(crate) const LATEST: i64 = -1;

/// How long the broker may take over a request, milliseconds.
const TIMEOUT_MS: i32 = 20_000;
/// Bytes of one fetch.
const FETCH_BYTES: i32 = 8 << 20;

/// One connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    correlation: i32,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Connection {
        Connection::try_open(address).expect("the broker listens")
    }

    pub(crate) fn try_open(address: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, correlation: 0 })
    }

    /// Sends a request and gives its correlation id.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        self.try_send(request, version).expect("the broker reads")
    }

    fn try_send<R: Request>(&mut self, request: &R, version: i16) -> io::Result<i32> {
        self.correlation += 1;
        let frame = request_frame(request, version, self.correlation, Some("test".into())).expect("has a form");
        self.stream.write_all(&frame.concat())?;
        Ok(self.correlation)
    }

    /// The next response, whatever it answers.
    pub(crate) fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        self.try_receive::<R>(version).expect("the broker answers")
    }

    fn try_receive<R: Request>(&mut self, version: i16) -> io::Result<(i32, R::Response)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length")];
        self.stream.read_exact(&mut frame)?;
        Ok(decode_response(&Bytes::from(frame), version).expect("a response of that version"))
    }

    pub(crate) fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.try_ask(request, version).expect("the broker answers")
    }

    /// The answer, unless the connection ends before it.
    pub(crate) fn try_ask<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        let sent = self.try_send(request, version)?;
        let (answered, response) = self.try_receive::<R>(version)?;
        assert_eq!(answered, sent);
        Ok(response)
    }

    /// Whether the broker closes it without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A client with connections to the brokers that it needed so far.
pub(crate) struct Client {
    bootstrap: String,
    connections: BTreeMap<String, Connection>,
}

impl Client {
    pub(crate) fn new(bootstrap: &str) -> Client {
        Client { bootstrap: bootstrap.to_owned(), connections: BTreeMap::new() }
    }

    pub(crate) fn at(&mut self, address: &str) -> &mut Connection {
        self.connections.entry(address.to_owned()).or_insert_with(|| Connection::open(address))
    }

    pub(crate) fn any(&mut self) -> &mut Connection {
        let bootstrap = self.bootstrap.clone();
        self.at(&bootstrap)
    }

    pub(crate) fn metadata(&mut self, topic: &str, create: bool) -> MetadataResponse {
        let topics = vec![MetadataRequestTopic { name: Some(topic.into()), ..Default::default() }];
        let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: create, ..Default::default() };
        self.any().ask(&request, 12)
    }

    pub(crate) fn create_topic(&mut self, name: &str, partitions: i32) {
        assert_eq!(self.try_create_topic(name, partitions), ErrorCode::None);
    }

    pub(crate) fn try_create_topic(&mut self, name: &str, partitions: i32) -> ErrorCode {
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: -1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
        self.any().ask(&request, 7).topics[0].error_code
    }

    /// The connection to the leader of a partition.
    pub(crate) fn leader(&mut self, topic: &str, partition: i32) -> &mut Connection {
        let metadata = self.metadata(topic, false);
        let found = metadata.topics[0].partitions.iter().find(|one| one.partition_index == partition);
        let leader = found.unwrap_or_else(|| panic!("{topic}-{partition}: {metadata:?}")).leader_id;
        let node = metadata.brokers.iter().find(|broker| broker.node_id == leader).expect("the leader is a broker");
        let address = format!("{}:{}", node.host, node.port);
        self.at(&address)
    }

    pub(crate) fn produce(&mut self, topic: &str, partition: i32, batch: Vec<u8>) -> PartitionProduceResponse {
        let request = produce_request(topic, partition, -1, batch);
        let response = self.leader(topic, partition).ask(&request, 11);
        response.responses[0].partition_responses[0].clone()
    }

    /// Produces values, one batch, acks −1; their base offset.
    pub(crate) fn write(&mut self, topic: &str, partition: i32, values: &[&str]) -> i64 {
        let answer = self.produce(topic, partition, batch(values));
        assert_eq!(answer.error_code, ErrorCode::None, "{answer:?}");
        answer.base_offset
    }

    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let request = fetch_request(topic, partition, offset, 0);
        let response = self.leader(topic, partition).ask(&request, 12);
        response.responses[0].partitions[0].clone()
    }

    /// Every value from `offset` to the high watermark.
    pub(crate) fn read(&mut self, topic: &str, partition: i32, offset: i64) -> Vec<String> {
        let mut values = Vec::new();
        let mut next = offset;
        loop {
            let answer = self.fetch(topic, partition, next);
            assert_eq!(answer.error_code, ErrorCode::None, "at {next}: {answer:?}");
            if next >= answer.high_watermark {
                return values;
            }
            for (at, value) in records(&answer) {
                if at >= next {
                    assert_eq!(at, next, "offsets have no gaps");
                    values.push(value);
                    next += 1;
                }
            }
        }
    }

    pub(crate) fn offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> i64 {
        let asked = ListOffsetsPartition { partition_index: partition, current_leader_epoch: -1, timestamp };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic { name: topic.into(), partitions: vec![asked] }],
            ..Default::default()
        };
        let response = self.leader(topic, partition).ask(&request, 7);
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, ErrorCode::None, "{answer:?}");
        answer.offset
    }

    /// A fresh producer id.
    pub(crate) fn producer(&mut self) -> i64 {
        let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        let response = self.any().ask(&request, 4);
        assert_eq!(response.error_code, ErrorCode::None, "{response:?}");
        response.producer_id
    }
}

pub(crate) fn produce_request(topic: &str, partition: i32, acks: i16, batch: Vec<u8>) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(Bytes::from(batch)) };
    let topic = TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
    ProduceRequest { acks, timeout_ms: TIMEOUT_MS, topic_data: vec![topic], ..Default::default() }
}

/// Asks for a byte at least, and waits for it up to `max_wait_ms`.
pub(crate) fn fetch_request(topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> FetchRequest {
    let asked =
        FetchPartition { partition, fetch_offset: offset, partition_max_bytes: FETCH_BYTES, ..Default::default() };
    let topic = FetchTopic { topic: topic.into(), partitions: vec![asked], ..Default::default() };
    FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: FETCH_BYTES, topics: vec![topic], ..Default::default() }
}

/// A batch of these values.
pub(crate) fn batch(values: &[&str]) -> Vec<u8> {
    fill(BatchBuilder::new(1_700_000_000_000), values)
}

/// A batch of an idempotent producer.
pub(crate) fn sequenced(id: i64, base_sequence: i32, values: &[&str]) -> Vec<u8> {
    let producer = BatchProducer { id, epoch: 0, base_sequence };
    fill(BatchBuilder::new(1_700_000_000_000).producer(producer), values)
}

fn fill(mut builder: BatchBuilder, values: &[&str]) -> Vec<u8> {
    for value in values {
        builder.push(None, Some(value.as_bytes()));
    }
    builder.finish()
}

/// Offsets and values of what a fetch brought.
pub(crate) fn records(answer: &PartitionData) -> Vec<(i64, String)> {
    let bytes = answer.records.as_ref().map(|set| set.concat()).unwrap_or_default();
    let mut found = Vec::new();
    for batch in Batches::new(&bytes) {
        let batch = batch.expect("whole batches");
        assert_eq!(batch.crc(), batch.computed_crc());
        for record in batch.records() {
            let record = record.expect("whole records");
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            found.push((record.offset, value));
        }
    }
    found
}
