//! A small broker that keeps records in memory and answers, refuses, moves its partitions or lies as told.

use bytes::Bytes;
use millrace_protocol::api::ApiKey;
use millrace_protocol::codec::Message;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::{LENGTH_BYTES, RequestHeader, response_frame};
use millrace_protocol::messages::create_topics::CreatableTopicResult;
use millrace_protocol::messages::fetch::{FetchableTopicResponse, PartitionData};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use millrace_protocol::messages::metadata::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use millrace_protocol::messages::produce::{PartitionProduceResponse, TopicProduceResponse};
use millrace_protocol::messages::{
    CreateTopicsResponse, FetchRequest, FetchResponse, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse,
    MetadataResponse, ProduceRequest, ProduceResponse,
};
use millrace_protocol::record_set::RecordSet;
use millrace_protocol::records::{BatchBuilder, RecordBatch};
use millrace_protocol::wire::Reader;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

pub(crate) const PARTITIONS: i32 = 2;
pub(crate) const TOPIC: &str = "t";
/// How long a fetch at the end of the log waits for more.
const LONG_POLL: Duration = Duration::from_millis(100);
/// Bytes of a partition in one answer at most, and one batch at least.
const FETCH_BYTES: usize = 64 << 10;

/// What the broker does beside what a broker should.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Manner {
    /// Nothing.
    Answers,
    /// Refuses every third produce request for good.
    Refuses,
    /// Closes each connection at its fortieth produce request.
    Leaves,
    /// Hands its partitions to the other node after forty produce requests.
    Moves,
    /// Acknowledges one batch without keeping it.
    Loses,
    /// Keeps one batch twice.
    Doubles,
    /// Exchanges two records of one batch.
    Swaps,
    /// Changes one byte of one record, checksum of the batch adapted.
    Corrupts,
}

#[derive(Default)]
struct Log {
    batches: Vec<(i64, Bytes)>,
    end: i64,
    /// By producer id: the next sequence, and the batches remembered: their sequences and offsets.
    producers: BTreeMap<i64, (i32, Vec<(i32, i64)>)>,
}

#[derive(Default)]
struct State {
    logs: [Log; PARTITIONS as usize],
    produced: u64,
    producer_ids: i64,
    asked_for_ends: bool,
}

pub(crate) struct Broker {
    /// Of two nodes that serve the same logs.
    ports: [u16; 2],
    manner: Manner,
    state: Mutex<State>,
    grown: Condvar,
}

impl Broker {
    /// Serves on two free ports until the process ends.
    pub(crate) fn start(manner: Manner) -> &'static Broker {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = [0, 1].map(|node| listeners[node].local_addr().unwrap().port());
        let broker: &Broker =
            Box::leak(Box::new(Broker { ports, manner, state: Mutex::default(), grown: Condvar::new() }));
        for (node, listener) in listeners.into_iter().enumerate() {
            spawn(move || {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    spawn(move || broker.serve(node, stream));
                }
            });
        }
        broker
    }

    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Serves one connection until it ends.
    fn serve(&self, node: usize, mut stream: TcpStream) {
        let mut produced = 0;
        let mut length = [0; LENGTH_BYTES];
        while stream.read_exact(&mut length).is_ok() {
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            if stream.read_exact(&mut frame).is_err() {
                return;
            }
            let frame = Bytes::from(frame);
            let mut reader = Reader::new(&frame);
            let header = RequestHeader::decode(&mut reader).unwrap();
            produced += i64::from(header.api_key == ApiKey::Produce);
            let answer = self.answer(node, &header, &mut reader);
            // It has taken the batch and does not say so.
            if self.manner == Manner::Leaves && produced == 40 {
                return;
            }
            if answer.is_some_and(|answer| stream.write_all(&answer).is_err()) {
                return;
            }
        }
    }

    fn answer(&self, node: usize, header: &RequestHeader, reader: &mut Reader<'_>) -> Option<Vec<u8>> {
        let (version, id) = (header.api_version, header.correlation_id);
        let frame = match header.api_key {
            ApiKey::CreateTopics => {
                let result = CreatableTopicResult { name: TOPIC.into(), ..CreatableTopicResult::default() };
                let response = CreateTopicsResponse { topics: vec![result], ..CreateTopicsResponse::default() };
                response_frame(&response, version, id)
            }
            ApiKey::Metadata => response_frame(&self.metadata(), version, id),
            ApiKey::InitProducerId => {
                let mut state = self.state.lock().unwrap();
                state.producer_ids += 1;
                let response =
                    InitProducerIdResponse { producer_id: state.producer_ids, ..InitProducerIdResponse::default() };
                response_frame(&response, version, id)
            }
            ApiKey::Produce => {
                let request = ProduceRequest::decode(reader, version).unwrap();
                let response = self.produce(node, &request);
                if request.acks == 0 {
                    return None;
                }
                response_frame(&response, version, id)
            }
            ApiKey::Fetch => response_frame(&self.fetch(&FetchRequest::decode(reader, version).unwrap()), version, id),
            ApiKey::ListOffsets => {
                let request = ListOffsetsRequest::decode(reader, version).unwrap();
                response_frame(&self.ends(&request), version, id)
            }
            other => panic!("{other:?} was not expected"),
        };
        Some(frame.unwrap().concat())
    }

    /// The node that leads after so many produce requests.
    fn leader(&self, produced: u64) -> usize {
        usize::from(self.manner == Manner::Moves && produced >= 40)
    }

    fn metadata(&self) -> MetadataResponse {
        let leader = self.leader(self.state.lock().unwrap().produced);
        let partition = |partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: leader as i32,
            ..MetadataResponsePartition::default()
        };
        let broker = |node: usize| MetadataResponseBroker {
            node_id: node as i32,
            host: "127.0.0.1".into(),
            port: i32::from(self.ports[node]),
            ..MetadataResponseBroker::default()
        };
        MetadataResponse {
            brokers: vec![broker(0), broker(1)],
            topics: vec![MetadataResponseTopic {
                name: Some(TOPIC.into()),
                partitions: (0..PARTITIONS).map(partition).collect(),
                ..MetadataResponseTopic::default()
            }],
            ..MetadataResponse::default()
        }
    }

    fn produce(&self, node: usize, request: &ProduceRequest) -> ProduceResponse {
        let partition = &request.topic_data[0].partition_data[0];
        let mut state = self.state.lock().unwrap();
        state.produced += 1;
        let produced = state.produced;
        let (error_code, base_offset) = if self.leader(produced) != node {
            (ErrorCode::NotLeaderOrFollower, -1)
        } else if self.manner == Manner::Refuses && produced.is_multiple_of(3) {
            (ErrorCode::InvalidRecord, -1)
        } else {
            let log = &mut state.logs[usize::try_from(partition.index).unwrap()];
            self.append(log, partition.records.as_ref().unwrap(), produced)
        };
        drop(state);
        self.grown.notify_all();
        let result = PartitionProduceResponse {
            index: partition.index,
            error_code,
            base_offset,
            ..PartitionProduceResponse::default()
        };
        let topic = TopicProduceResponse {
            name: TOPIC.into(),
            partition_responses: vec![result],
            ..TopicProduceResponse::default()
        };
        ProduceResponse { responses: vec![topic], ..ProduceResponse::default() }
    }

    fn append(&self, log: &mut Log, records: &Bytes, produced: u64) -> (ErrorCode, i64) {
        let (batch, rest) = RecordBatch::split(records).unwrap().unwrap();
        assert!(rest.is_empty() && batch.crc() == batch.computed_crc(), "a batch is whole and its checksum right");
        let (count, base) = (batch.count(), log.end);
        if batch.producer_id() >= 0 {
            let (next, known) = log.producers.entry(batch.producer_id()).or_default();
            if let Some((_, offset)) = known.iter().find(|(sequence, _)| *sequence == batch.base_sequence()) {
                return (ErrorCode::None, *offset);
            }
            if batch.base_sequence() != *next {
                return (ErrorCode::OutOfOrderSequenceNumber, -1);
            }
            *next += count;
            known.push((batch.base_sequence(), base));
        }
        let lies = produced == 30;
        let mut kept = records.to_vec();
        match self.manner {
            Manner::Swaps if lies => kept = changed(&batch, |values| values.swap(1, 2)),
            Manner::Corrupts if lies => kept = changed(&batch, |values| *values[1].last_mut().unwrap() ^= 1),
            _ => {}
        }
        let mut keep = |log: &mut Log| {
            kept[..8].copy_from_slice(&log.end.to_be_bytes());
            log.batches.push((log.end, Bytes::from(kept.clone())));
            log.end += i64::from(count);
        };
        match self.manner {
            // The next batch takes its offsets.
            Manner::Loses if lies => {}
            Manner::Doubles if lies => {
                keep(log);
                keep(log);
            }
            _ => keep(log),
        }
        (ErrorCode::None, base)
    }

    /// The first question comes too early, as at a Kafka broker whose new topic has a leader by name only.
    fn ends(&self, request: &ListOffsetsRequest) -> ListOffsetsResponse {
        let mut state = self.state.lock().unwrap();
        let early = !std::mem::replace(&mut state.asked_for_ends, true);
        let end = |index: i32| ListOffsetsPartitionResponse {
            partition_index: index,
            error_code: if early { ErrorCode::NotLeaderOrFollower } else { ErrorCode::None },
            offset: state.logs[usize::try_from(index).unwrap()].end,
            ..ListOffsetsPartitionResponse::default()
        };
        let partitions = request.topics[0].partitions.iter().map(|asked| end(asked.partition_index)).collect();
        let topic = ListOffsetsTopicResponse { name: TOPIC.into(), partitions };
        ListOffsetsResponse { topics: vec![topic], ..ListOffsetsResponse::default() }
    }

    fn fetch(&self, request: &FetchRequest) -> FetchResponse {
        let asked = &request.topics[0].partitions;
        let log = |state: &State, index: i32| state.logs[usize::try_from(index).unwrap()].end;
        let state = self.state.lock().unwrap();
        let nothing =
            |state: &mut State| asked.iter().all(|partition| log(state, partition.partition) <= partition.fetch_offset);
        let (state, _) = self.grown.wait_timeout_while(state, LONG_POLL, nothing).unwrap();
        let answer = |index: i32, offset: i64| {
            let log = &state.logs[usize::try_from(index).unwrap()];
            let first = log.batches.partition_point(|(base, _)| *base <= offset).saturating_sub(1);
            let mut records = RecordSet::new();
            if offset < log.end {
                let mut batches = log.batches[first..].iter().map(|(_, batch)| batch);
                while records.len() < FETCH_BYTES
                    && let Some(batch) = batches.next()
                {
                    records.push(batch.clone());
                }
            }
            PartitionData {
                partition_index: index,
                high_watermark: log.end,
                records: Some(records),
                ..PartitionData::default()
            }
        };
        let partitions = asked.iter().map(|asked| answer(asked.partition, asked.fetch_offset)).collect();
        let topic = FetchableTopicResponse { topic: TOPIC.into(), partitions, ..FetchableTopicResponse::default() };
        FetchResponse { responses: vec![topic], ..FetchResponse::default() }
    }
}

/// The batch with its values changed, and a checksum that is right.
fn changed(batch: &RecordBatch<'_>, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<u8> {
    let mut values: Vec<Vec<u8>> = batch.records().map(|record| record.unwrap().value.unwrap().to_vec()).collect();
    change(&mut values);
    let mut builder = BatchBuilder::new(batch.base_timestamp());
    values.iter().for_each(|value| builder.push(None, Some(value)));
    builder.finish()
}

#[expect(clippy::disallowed_methods, reason = "a server of this test; it ends with the process")]
pub(crate) fn spawn(serve: impl FnOnce() + Send + 'static) {
    std::thread::spawn(serve);
}

/// Runs the program against a broker, small records for a second.
pub(crate) fn run(broker: &Broker, workload: &str, more: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-bench"));
    command.args([workload, "--bootstrap", &broker.bootstrap(), "--topic", TOPIC, "--partitions", "2"]);
    command.args(["--seconds", "1", "--warm-up", "0", "--record-size", "100", "--batch-bytes", "1000"]);
    let output = command.args(more).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

/// The number before `unit` in the text.
pub(crate) fn number(text: &str, unit: &str) -> f64 {
    let before = text.split(unit).next().unwrap();
    before.rsplit(' ').find(|word| !word.is_empty()).unwrap().parse().unwrap()
}
