//! A log of which one part is in segments, one in write-ahead objects and one in memory reads as what was written, from
//! every offset and at every timestamp. (`ci/prove-differential.sh` holds a larger one against Apache Kafka.)

use crate::kafka::{Client, Connection, produce_request};
use crate::program::{Broker, directory, until};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::{DeleteRecordsRequest, DescribeLogDirsRequest, FetchRequest, ListOffsetsRequest};
use millrace_protocol::records::{BatchBuilder, Batches, Compression};
use millrace_storage::format::manifest::Manifest;
use std::fs;
use std::path::Path;

const TOPIC: &str = "t";
const PARTITIONS: i32 = 2;
/// Segments of the least size, by size alone, and next to no memory.
const SETTINGS: [&str; 12] = [
    "--shards",
    "1",
    "--memory-mib",
    "64",
    "--roll-segments",
    "true",
    "--roll-bytes",
    "65536",
    "--roll-after-ms",
    "86400000",
    "--retention-check-ms",
    "86400000",
];
/// Limits of a fetch: one batch, and some.
const LIMITS: [i32; 2] = [1, 20_000];
const NEWEST: i64 = -3;
const BATCHES: u64 = 120;

/// A batch as it must be read: but for offset and leader epoch as it was written.
struct Written {
    base: i64,
    times: Vec<i64>,
    bytes: Vec<u8>,
}

/// One log.
#[derive(Default)]
struct Log {
    batches: Vec<Written>,
    start: i64,
}

/// Numbers with a seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

impl Log {
    fn end(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.base + batch.times.len() as i64)
    }

    /// Readable records: offset and timestamp.
    fn records(&self) -> impl Iterator<Item = (i64, i64)> {
        let of = |batch: &Written| (batch.base..).zip(batch.times.clone()).collect::<Vec<_>>();
        self.batches.iter().flat_map(of).filter(|(offset, _)| *offset >= self.start)
    }

    /// The first record with this timestamp or a larger one.
    fn since(&self, timestamp: i64) -> (i64, i64) {
        self.records().find(|record| record.1 >= timestamp).unwrap_or((-1, -1))
    }

    /// The first record with the largest timestamp.
    fn newest(&self) -> (i64, i64) {
        self.since(self.records().map(|record| record.1).max().expect("records"))
    }

    fn append(&mut self, connection: &mut Connection, partition: i32, dice: &mut Dice) {
        let codec = Compression::ALL[dice.below(5) as usize];
        let times: Vec<i64> = (0..=dice.below(5)).map(|_| 1_000_000 + dice.below(300) as i64).collect();
        let mut batch = BatchBuilder::new(times[0]).compressed(codec);
        for &time in &times {
            let value: Vec<u8> = (0..[0, 40, 2_000][dice.below(3) as usize]).map(|_| dice.below(256) as u8).collect();
            batch.push_record(time, None, Some(&value), &[]);
        }
        let bytes = batch.finish();
        let request = produce_request(TOPIC, partition, -1, bytes.clone());
        let answer = connection.ask(&request, 11).responses[0].partition_responses[0].clone();
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::None, self.end()));
        self.batches.push(Written { base: answer.base_offset, times, bytes });
    }

    /// Reads it in every way.
    fn compare(&self, connection: &mut Connection, partition: i32) {
        for offset in self.start..self.end() {
            for limit in LIMITS {
                let data = fetch(connection, partition, offset, limit);
                assert_eq!((data.error_code, data.high_watermark), (ErrorCode::None, self.end()), "at {offset}");
                let bytes = data.records.as_ref().map(|records| records.concat()).unwrap_or_default();
                let first = self.batches.partition_point(|batch| batch.base <= offset) - 1;
                let mut given = 0;
                for (batch, written) in Batches::new(&bytes).zip(&self.batches[first..]) {
                    let batch = batch.expect("whole batches");
                    assert_eq!((batch.base_offset(), batch.crc()), (written.base, batch.computed_crc()));
                    assert_eq!(batch.bytes()[16..], written.bytes[16..], "the batch at {}", written.base);
                    given += batch.bytes().len();
                }
                assert!(given > 0 && given == bytes.len(), "from {offset}");
            }
        }
        assert_eq!(fetch(connection, partition, self.start - 1, 1).error_code, ErrorCode::OffsetOutOfRange);
        for timestamp in 1_000_000 - 2..1_000_000 + 302 {
            assert_eq!(offset(connection, partition, timestamp), self.since(timestamp), "at {timestamp}");
        }
        assert_eq!(offset(connection, partition, NEWEST), self.newest());
    }
}

fn fetch(connection: &mut Connection, partition: i32, fetch_offset: i64, limit: i32) -> PartitionData {
    let asked = FetchPartition { partition, fetch_offset, partition_max_bytes: limit, ..Default::default() };
    let topic = FetchTopic { topic: TOPIC.into(), partitions: vec![asked], ..Default::default() };
    let request = FetchRequest { min_bytes: 1, max_bytes: 1 << 20, topics: vec![topic], ..Default::default() };
    connection.ask(&request, 12).responses[0].partitions[0].clone()
}

/// Offset and timestamp of the record that ListOffsets finds.
fn offset(connection: &mut Connection, partition_index: i32, timestamp: i64) -> (i64, i64) {
    let asked = ListOffsetsPartition { partition_index, current_leader_epoch: -1, timestamp };
    let topics = vec![ListOffsetsTopic { name: TOPIC.into(), partitions: vec![asked] }];
    let request = ListOffsetsRequest { replica_id: -1, topics, timeout_ms: 10_000, ..Default::default() };
    let answer = connection.ask(&request, 10).topics[0].partitions[0].clone();
    assert_eq!(answer.error_code, ErrorCode::None, "{answer:?}");
    (answer.offset, answer.timestamp)
}

/// The manifests under a directory.
fn manifests(directory: &Path) -> Vec<Manifest> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let found = entries.filter_map(Result::ok).map(|entry| entry.path());
    let of = |path: &Path| match fs::read(path) {
        Ok(bytes) => Manifest::decode(&Bytes::from(bytes)).ok().into_iter().collect(),
        Err(_) => manifests(path),
    };
    found.flat_map(|path| of(&path)).collect()
}

/// What DescribeLogDirs says of the partitions, in their order.
fn stored_bytes(connection: &mut Connection) -> Vec<i64> {
    let answer = connection.ask(&DescribeLogDirsRequest { topics: None }, 4);
    let partitions = &answer.results[0].topics[0].partitions;
    partitions.iter().map(|partition| partition.partition_size).collect()
}

#[test]
fn a_log_in_segments_and_objects_and_memory_is_what_was_written_at_every_offset_and_timestamp() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &SETTINGS);
    Client::new(broker.bootstrap()).create_topic(TOPIC, PARTITIONS);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut logs: Vec<Log> = (0..PARTITIONS).map(|_| Log::default()).collect();
    let mut connection = Connection::open(broker.bootstrap());
    for _ in 0..BATCHES {
        for (partition, log) in (0..).zip(&mut logs) {
            log.append(&mut connection, partition, &mut dice);
        }
    }
    until("a part of each log is in segments", || {
        (manifests(&data.join("log/man")).len() == PARTITIONS as usize).then_some(())
    });
    for (partition, log) in (0..).zip(&mut logs) {
        // Too few for another segment, most likely.
        (0..10).for_each(|_| log.append(&mut connection, partition, &mut dice));
    }
    for (partition, log) in (0..).zip(&logs) {
        log.compare(&mut connection, partition);
    }
    // In the middle of a batch of a segment.
    let within = logs[1].batches.iter().find(|batch| batch.base > 10 && batch.times.len() > 2).expect("one");
    logs[1].start = within.base + 1;
    let partitions = vec![DeleteRecordsPartition { partition_index: 1, offset: logs[1].start }];
    let topics = vec![DeleteRecordsTopic { name: TOPIC.into(), partitions }];
    let deleted = connection.ask(&DeleteRecordsRequest { topics, timeout_ms: 10_000 }, 2);
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, logs[1].start);
    logs[1].compare(&mut connection, 1);
    broker.kill();

    let broker = Broker::start(&data, &SETTINGS);
    let mut connection = Connection::open(broker.bootstrap());
    let written = |log: &Log| log.batches.iter().map(|batch| batch.bytes.len() as i64).sum::<i64>();
    let sizes = stored_bytes(&mut connection);
    let whole = written(&logs[0]);
    assert!((whole..whole + whole / 20).contains(&sizes[0]), "{sizes:?} bytes of {whole}");
    assert!(sizes[1] > whole / 2, "{sizes:?}");
    for (partition, log) in (0..).zip(&mut logs) {
        log.compare(&mut connection, partition);
        (0..5).for_each(|_| log.append(&mut connection, partition, &mut dice));
        log.compare(&mut connection, partition);
    }
    broker.stop();
}
