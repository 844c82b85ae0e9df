//! The program against a small broker in this file that answers, refuses or stalls as told.

use bytes::Bytes;
use millrace_protocol::api::ApiKey;
use millrace_protocol::codec::Message;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::{LENGTH_BYTES, RequestHeader, response_frame};
use millrace_protocol::messages::create_topics::CreatableTopicResult;
use millrace_protocol::messages::metadata::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic};
use millrace_protocol::messages::produce::{PartitionProduceResponse, TopicProduceResponse};
use millrace_protocol::messages::{CreateTopicsResponse, MetadataResponse, ProduceRequest, ProduceResponse};
use millrace_protocol::wire::Reader;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicI64, Ordering};

const PARTITIONS: i32 = 2;
const TOPIC: &str = "t";

/// How the broker treats produce requests.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    /// Every third one gets an error.
    Refuses,
    /// Closes the connection at the tenth.
    Leaves,
}

struct Broker {
    port: u16,
    manner: Manner,
    next_offset: [AtomicI64; PARTITIONS as usize],
}

impl Broker {
    /// Serves one connection until it ends.
    fn serve(&self, mut stream: TcpStream) {
        let mut produced = 0;
        let mut length = [0; LENGTH_BYTES];
        while stream.read_exact(&mut length).is_ok() {
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).unwrap();
            let frame = Bytes::from(frame);
            let mut reader = Reader::new(&frame);
            let header = RequestHeader::decode(&mut reader).unwrap();
            produced += i64::from(header.api_key == ApiKey::Produce);
            if self.manner == Manner::Leaves && produced == 10 {
                return;
            }
            let answer = self.answer(&header, &mut reader, produced);
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }

    fn answer(&self, header: &RequestHeader, reader: &mut Reader<'_>, produced: i64) -> Vec<u8> {
        let (version, id) = (header.api_version, header.correlation_id);
        match header.api_key {
            ApiKey::CreateTopics => {
                let result = CreatableTopicResult { name: TOPIC.into(), ..CreatableTopicResult::default() };
                let response = CreateTopicsResponse { topics: vec![result], ..CreateTopicsResponse::default() };
                response_frame(&response, version, id)
            }
            ApiKey::Metadata => response_frame(&self.metadata(), version, id),
            ApiKey::Produce => {
                let request = ProduceRequest::decode(reader, version).unwrap();
                response_frame(&self.produce(&request, produced), version, id)
            }
            other => panic!("{other:?} was not expected"),
        }
        .unwrap()
        .concat()
    }

    fn metadata(&self) -> MetadataResponse {
        let partition = |partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: 1,
            ..MetadataResponsePartition::default()
        };
        MetadataResponse {
            brokers: vec![MetadataResponseBroker {
                node_id: 1,
                host: "127.0.0.1".into(),
                port: i32::from(self.port),
                ..MetadataResponseBroker::default()
            }],
            topics: vec![MetadataResponseTopic {
                name: Some(TOPIC.into()),
                partitions: (0..PARTITIONS).map(partition).collect(),
                ..MetadataResponseTopic::default()
            }],
            ..MetadataResponse::default()
        }
    }

    fn produce(&self, request: &ProduceRequest, produced: i64) -> ProduceResponse {
        let index = request.topic_data[0].partition_data[0].index;
        let refused = self.manner == Manner::Refuses && produced % 3 == 0;
        let result = PartitionProduceResponse {
            index,
            error_code: if refused { ErrorCode::NotLeaderOrFollower } else { ErrorCode::None },
            // Far more than a batch has records, so that offsets never overlap.
            base_offset: self.next_offset[usize::try_from(index).unwrap()].fetch_add(1_000, Ordering::SeqCst),
            ..PartitionProduceResponse::default()
        };
        let topic = TopicProduceResponse {
            name: TOPIC.into(),
            partition_responses: vec![result],
            ..TopicProduceResponse::default()
        };
        ProduceResponse { responses: vec![topic], ..ProduceResponse::default() }
    }
}

/// Runs the program against such a broker for a second.
fn run(manner: Manner, more: &[&str]) -> (Output, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker: &Broker = Box::leak(Box::new(Broker { port, manner, next_offset: Default::default() }));
    #[expect(clippy::disallowed_methods, reason = "a server of this test; it ends with the process")]
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || broker.serve(stream));
        }
    });
    let bootstrap = format!("127.0.0.1:{port}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace-bench"));
    command.args(["produce", "--bootstrap", &bootstrap, "--topic", TOPIC, "--seconds", "1", "--warm-up", "0"]);
    let output = command.args(["--record-size", "100", "--batch-bytes", "1000"]).args(more).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// The number before `unit` in the text.
fn number(text: &str, unit: &str) -> f64 {
    let before = text.split(unit).next().unwrap();
    before.rsplit(' ').find(|word| !word.is_empty()).unwrap().parse().unwrap()
}

#[test]
fn a_rate_is_kept_and_every_answer_counted() {
    let pid = std::process::id().to_string();
    let (output, text) = run(Manner::Answers, &["--partitions", "2", "--rate", "500", "--pid", &pid]);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(number(&text, " requests\n"), 500.0, "{text}");
    assert!(text.contains("errors      none") && text.contains("broker "), "{text}");
}

#[test]
fn without_a_rate_it_sends_as_fast_as_it_is_answered() {
    let (output, text) = run(Manner::Answers, &["--partitions", "2", "--connections", "3", "--in-flight", "2"]);
    assert!(output.status.success(), "{text}");
    assert!(number(&text, " requests/s") > 0.0, "{text}");
}

#[test]
fn refused_requests_fail_the_run_and_are_counted() {
    let (output, text) = run(Manner::Refuses, &["--partitions", "2", "--rate", "90", "--connections", "1"]);
    assert!(!output.status.success());
    assert!(text.contains("30 × NotLeaderOrFollower"), "{text}");
}

#[test]
fn a_lost_connection_fails_the_run_and_what_it_owed_is_counted() {
    let (output, text) =
        run(Manner::Leaves, &["--partitions", "2", "--rate", "100", "--connections", "1", "--in-flight", "100"]);
    assert!(!output.status.success());
    assert!(text.contains("1 × connection lost"), "{text}");
    assert!(text.contains("× no connection"), "{text}");
}

#[test]
fn a_topic_with_another_number_of_partitions_is_refused_before_anything_is_sent() {
    let (output, _) = run(Manner::Answers, &["--partitions", "3"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("it has 2 partitions, not 3"), "{error}");
}
