//! ListOffsets by timestamp: every timestamp of logs in every codec, out of order, without timestamps, and with those of
//! the broker.

use crate::pair::{Pair, Side, versions};
use millrace_protocol::messages::create_topics::CreatableTopicConfig;
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, ProduceRequest};
use millrace_protocol::records::{BatchBuilder, Compression};
use std::io;

/// Times of the producer, out of order; partition 1 has none, partition 2 is empty.
const CREATED: &str = "timed";
/// Times of the broker.
const APPENDED: &str = "stamped";
/// Batches of a log.
const BATCHES: i64 = 25;
/// Timestamps of records are spread over so many milliseconds.
const SPREAD: i64 = 60;
/// The record with the largest timestamp.
const NEWEST: i64 = -3;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    created(pair)?;
    appended(pair)
}

/// The timestamps of batch `at`, counted from the start of the run: neither in order nor all different.
fn times(at: i64) -> impl Iterator<Item = i64> {
    (0..1 + at % 4).map(move |record| (at * 37 + record * 101) % SPREAD)
}

fn produce(pair: &mut Pair, topic: &str, index: i32, at: i64, base: impl Fn(&Side) -> Option<i64>) -> io::Result<()> {
    let codec = Compression::ALL[at as usize % Compression::ALL.len()];
    let answers = pair.ask("for times", 9, |side| {
        let started = base(side);
        let time = |after: i64| started.map_or(-1, |started| started + after);
        let first = times(at).next().expect("no batch is empty");
        let mut builder = BatchBuilder::new(time(first)).compressed(codec);
        times(at).for_each(|after| builder.push_record(time(after), Some(b"key"), Some(&[7; 50]), &[]));
        let partition_data = vec![PartitionProduceData { index, records: Some(builder.finish().into()) }];
        let topic = TopicProduceData { name: side.name(topic), partition_data, ..Default::default() };
        ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() }
    })?;
    answers.keep(pair, |side, answer| {
        side.append_times.push(answer.responses[0].partition_responses[0].log_append_time_ms);
    });
    Ok(())
}

fn listing(side: &Side, topic: &str, partition_index: i32, timestamp: i64) -> ListOffsetsRequest {
    let asked = ListOffsetsPartition { partition_index, timestamp, ..Default::default() };
    let topics = vec![ListOffsetsTopic { name: side.name(topic), partitions: vec![asked] }];
    ListOffsetsRequest { replica_id: -1, topics, timeout_ms: 5_000, ..Default::default() }
}

fn created(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(CREATED, 3)?;
    for at in 0..BATCHES {
        produce(pair, CREATED, 0, at, |side| Some(side.started_ms))?;
    }
    for at in 0..3 {
        produce(pair, CREATED, 1, at, |_| None)?;
    }
    for partition in 0..3 {
        for after in -1..=SPREAD {
            pair.ask(&format!("{after} ms into partition {partition}"), 10, |side| {
                listing(side, CREATED, partition, side.started_ms + after)
            })?;
        }
        for (case, timestamp) in [("the newest", NEWEST), ("the epoch", 0), ("the end of time", i64::MAX)] {
            pair.every(&format!("{case} of partition {partition}"), |side, _| {
                listing(side, CREATED, partition, timestamp)
            })?;
        }
    }
    pair.every("the middle", |side, _| listing(side, CREATED, 0, side.started_ms + SPREAD / 2))
}

/// What the brokers' clocks said differs; which offset that leads to does not.
fn appended(pair: &mut Pair) -> io::Result<()> {
    let setting = CreatableTopicConfig { name: "message.timestamp.type".into(), value: Some("LogAppendTime".into()) };
    pair.make_topic_with(APPENDED, 1, &[setting])?;
    (pair.left.append_times, pair.right.append_times) = (Vec::new(), Vec::new());
    for at in 0..BATCHES {
        produce(pair, APPENDED, 0, at, |side| Some(side.started_ms))?;
        pair.until_the_clock_moves();
    }
    let without_times = |response: &mut ListOffsetsResponse| {
        let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.timestamp = partition.timestamp.signum());
    };
    for at in 0..BATCHES as usize {
        for later in [0, 1] {
            let case = format!("{later} ms after append {at}");
            pair.ask_and_clean(
                &case,
                10,
                |side| listing(side, APPENDED, 0, side.append_times[at] + later),
                without_times,
            )?;
        }
    }
    for version in versions::<ListOffsetsRequest>() {
        pair.ask_and_clean("the newest append", version, |side| listing(side, APPENDED, 0, NEWEST), without_times)?;
    }
    Ok(())
}
