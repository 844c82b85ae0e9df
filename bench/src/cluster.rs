//! What a run asks before it starts: makes the topic, finds out where its partitions are led. Blocking, one connection.

use crate::load::template::PRODUCE_VERSION;
use bytes::Bytes;
use millrace_protocol::codec::Request;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::{LENGTH_BYTES, decode_response, request_frame};
use millrace_protocol::messages::ProduceRequest;
use millrace_protocol::messages::create_topics::CreatableTopic;
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{CreateTopicsRequest, MetadataRequest, MetadataResponse};
use millrace_protocol::messages::{InitProducerIdRequest, ListOffsetsRequest};
use millrace_protocol::string::StrBytes;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Versions that Kafka 4 and everything newer than Kafka 2.4 serve.
const METADATA_VERSION: i16 = 8;
const CREATE_TOPICS_VERSION: i16 = 4;
const INIT_PRODUCER_ID_VERSION: i16 = 1;
const LIST_OFFSETS_VERSION: i16 = 4;
/// The timestamp that asks where a log ends.
const LOG_END: i64 = -1;
/// How long each read or write may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a new topic may take until all of its partitions are led, and a broker until it has producer ids.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Between two questions about that.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// The largest answer that is read, bytes.
const ANSWER_LIMIT: usize = 64 << 20;

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A connection failed.
    #[error("{address}: {source}")]
    Connection {
        /// To whom.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// What came back is no answer.
    #[error("{address} does not answer as a Kafka broker: {problem}")]
    Protocol {
        /// Who.
        address: String,
        /// What is wrong.
        problem: String,
    },
    /// The topic can't be used.
    #[error("topic {topic}: {problem}")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong.
        problem: String,
    },
}

/// A connection that is asked one thing at a time.
pub(crate) struct Cluster {
    address: String,
    stream: TcpStream,
    correlation: i32,
}

impl Cluster {
    /// Connects to `bootstrap`, HOST:PORT.
    pub(crate) fn connect(bootstrap: &str) -> Result<Cluster, ClusterError> {
        let failed = |source| ClusterError::Connection { address: bootstrap.to_owned(), source };
        let stream = TcpStream::connect(bootstrap).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        Ok(Cluster { address: bootstrap.to_owned(), stream, correlation: 0 })
    }

    /// Makes `topic` with `partitions` partitions if it is missing; gives where each partition is led, by index.
    pub(crate) fn topic(&mut self, topic: &str, partitions: u32) -> Result<Vec<SocketAddr>, ClusterError> {
        let wrong = |problem: String| ClusterError::Topic { topic: topic.to_owned(), problem };
        let wanted = i32::try_from(partitions).expect("the command line bounds it");
        let creation = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: StrBytes::from(topic),
                num_partitions: wanted,
                replication_factor: -1,
                ..CreatableTopic::default()
            }],
            ..CreateTopicsRequest::default()
        };
        let created = self.ask(&creation, CREATE_TOPICS_VERSION)?;
        match created.topics.first().map(|result| result.error_code) {
            Some(ErrorCode::None | ErrorCode::TopicAlreadyExists) => {}
            other => return Err(wrong(format!("not created: {other:?}"))),
        }
        let asked = Instant::now();
        loop {
            if let Some(leaders) = self.leaders(topic, partitions)? {
                return Ok(leaders);
            }
            if asked.elapsed() > READY_WITHIN {
                return Err(wrong("some of its partitions have no leader that can be reached".to_owned()));
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// Where each partition of a topic is led, by index; `None` unless all are.
    pub(crate) fn leaders(&mut self, topic: &str, partitions: u32) -> Result<Option<Vec<SocketAddr>>, ClusterError> {
        let question = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(StrBytes::from(topic)),
                ..MetadataRequestTopic::default()
            }]),
            ..MetadataRequest::default()
        };
        let answer = self.ask(&question, METADATA_VERSION)?;
        let found = answer.topics.first().map_or(0, |topic| topic.partitions.len());
        if found != 0 && found != partitions as usize {
            let problem = format!("it has {found} partitions, not {partitions}: choose another --topic");
            return Err(ClusterError::Topic { topic: topic.to_owned(), problem });
        }
        Ok(leaders(&answer, i32::try_from(partitions).expect("the command line bounds it")))
    }

    /// A producer id and epoch (KIP-98).
    pub(crate) fn producer_id(&mut self) -> Result<(i64, i16), ClusterError> {
        let question = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: PATIENCE.as_millis() as i32,
            ..InitProducerIdRequest::default()
        };
        let asked = Instant::now();
        loop {
            let answer = self.ask(&question, INIT_PRODUCER_ID_VERSION)?;
            match answer.error_code {
                ErrorCode::None => return Ok((answer.producer_id, answer.producer_epoch)),
                // Apache Kafka says so until its first block of ids has come.
                ErrorCode::CoordinatorLoadInProgress if asked.elapsed() < READY_WITHIN => std::thread::sleep(ASK_AGAIN),
                code => return Err(self.broken(format!("{code:?} for a producer id"))),
            }
        }
    }

    /// Where partitions that this node leads end: the offsets of the next records, in the order asked for.
    pub(crate) fn ends(&mut self, topic: &str, partitions: &[u32]) -> Result<Vec<i64>, ClusterError> {
        let partition = |&index: &u32| ListOffsetsPartition {
            partition_index: i32::try_from(index).expect("the command line bounds it"),
            timestamp: LOG_END,
            ..ListOffsetsPartition::default()
        };
        let topics = vec![ListOffsetsTopic {
            name: StrBytes::from(topic),
            partitions: partitions.iter().map(partition).collect(),
        }];
        let question = ListOffsetsRequest { replica_id: -1, topics, ..ListOffsetsRequest::default() };
        let asked = Instant::now();
        loop {
            let answer = self.ask(&question, LIST_OFFSETS_VERSION)?;
            let found = answer.topics.iter().flat_map(|topic| &topic.partitions);
            let found: BTreeMap<i32, i64> = found
                .filter(|partition| partition.error_code == ErrorCode::None)
                .map(|partition| (partition.partition_index, partition.offset))
                .collect();
            let end = |&index: &u32| found.get(&i32::try_from(index).ok()?).copied();
            if let Some(ends) = partitions.iter().map(end).collect() {
                return Ok(ends);
            }
            // Of a new topic Metadata may name a leader that does not lead yet.
            if asked.elapsed() > READY_WITHIN {
                return Err(self.broken("no end of a partition that it leads".to_owned()));
            }
            std::thread::sleep(ASK_AGAIN);
        }
    }

    /// Has one batch appended to partition 0, which this node leads.
    pub(crate) fn produce(&mut self, topic: &str, acks: i16, records: Bytes) -> Result<(), ClusterError> {
        let partition = PartitionProduceData { index: 0, records: Some(records) };
        let data = TopicProduceData {
            name: StrBytes::from(topic),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        let timeout_ms = PATIENCE.as_millis() as i32;
        let question = ProduceRequest { acks, timeout_ms, topic_data: vec![data], ..ProduceRequest::default() };
        let answer = self.ask(&question, PRODUCE_VERSION)?;
        let result = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        match result.map(|result| result.error_code) {
            Some(ErrorCode::None) => Ok(()),
            other => Err(ClusterError::Topic { topic: topic.to_owned(), problem: format!("not appended: {other:?}") }),
        }
    }

    fn broken(&self, problem: String) -> ClusterError {
        ClusterError::Protocol { address: self.address.clone(), problem }
    }

    fn ask<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, ClusterError> {
        self.correlation += 1;
        let name = Some(StrBytes::from_static("millrace-bench"));
        let broken = |problem: String| ClusterError::Protocol { address: self.address.clone(), problem };
        let frame =
            request_frame(request, version, self.correlation, name).map_err(|error| broken(error.to_string()))?;
        let mut exchange = || -> io::Result<Bytes> {
            self.stream.write_all(&frame.concat())?;
            let mut length = [0; LENGTH_BYTES];
            self.stream.read_exact(&mut length)?;
            let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if length > ANSWER_LIMIT {
                return Err(io::Error::other(format!("an answer of {length} bytes")));
            }
            let mut answer = vec![0; length];
            self.stream.read_exact(&mut answer)?;
            Ok(Bytes::from(answer))
        };
        let answer = exchange().map_err(|source| ClusterError::Connection { address: self.address.clone(), source })?;
        let (correlation, response) =
            decode_response::<R::Response>(&answer, version).map_err(|error| broken(error.to_string()))?;
        if correlation != self.correlation {
            return Err(broken(format!("correlation id {correlation} answers {}", self.correlation)));
        }
        Ok(response)
    }
}

/// Where partitions 0 to `partitions` of the only topic are led; `None` unless all are.
fn leaders(answer: &MetadataResponse, partitions: i32) -> Option<Vec<SocketAddr>> {
    let topic = answer.topics.first()?;
    let leader = |index| {
        let partition = topic.partitions.iter().find(|partition| partition.partition_index == index)?;
        let node = answer.brokers.iter().find(|broker| broker.node_id == partition.leader_id)?;
        let port = u16::try_from(node.port).ok()?;
        (node.host.as_str(), port).to_socket_addrs().ok()?.next()
    };
    (0..partitions).map(leader).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_protocol::messages::metadata::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };

    #[test]
    fn partitions_are_routed_to_their_leaders_once_all_have_one() {
        let broker = |node_id, port| MetadataResponseBroker {
            node_id,
            host: "127.0.0.1".into(),
            port,
            ..MetadataResponseBroker::default()
        };
        let led = |partition_index, leader_id| MetadataResponsePartition {
            partition_index,
            leader_id,
            ..MetadataResponsePartition::default()
        };
        let mut answer = MetadataResponse {
            brokers: vec![broker(1, 9092), broker(2, 9093)],
            topics: vec![MetadataResponseTopic {
                partitions: vec![led(1, 1), led(0, 2)],
                ..MetadataResponseTopic::default()
            }],
            ..MetadataResponse::default()
        };
        let ports: Vec<u16> = leaders(&answer, 2).unwrap().iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [9093, 9092]);
        assert_eq!(leaders(&answer, 3), None);
        answer.topics[0].partitions[0].leader_id = -1;
        assert_eq!(leaders(&answer, 2), None);
    }
}
