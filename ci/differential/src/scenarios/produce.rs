//! Produce: batches that are as they should be, and batches that are not.

use super::batch;
use crate::pair::{Pair, Side, versions};
use bytes::Bytes;
use millrace_protocol::api::ApiKey;
use millrace_protocol::frame::request_frame;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use millrace_protocol::records::{BatchBuilder, BatchProducer, RecordBatch};
use std::io;
use std::ops::Range;

/// Fields of a batch header (KIP-98).
const BASE_OFFSET: Range<usize> = 0..8;
const MAGIC: usize = 16;
const CRC: Range<usize> = 17..21;
const ATTRIBUTES: Range<usize> = 21..23;
const LAST_OFFSET_DELTA: Range<usize> = 23..27;
const COUNT: Range<usize> = 57..61;

/// Partitions of the topic: cases that may be appended have one each, so that a difference does not shift the others.
const PARTITIONS: i32 = 40;
const TOPIC: &str = "produced";

/// From this version on topics are named by id.
const TOPIC_IDS: i16 = 13;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, PARTITIONS)?;
    batches(pair)?;
    places(pair)?;
    acknowledgements(pair)?;
    sequences(pair)
}

/// A request with these records for one partition.
fn request(side: &Side, version: i16, topic: &str, index: i32, records: Option<Bytes>) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![topic_data(side, version, topic, vec![PartitionProduceData { index, records }])],
        ..Default::default()
    }
}

fn topic_data(side: &Side, version: i16, topic: &str, partition_data: Vec<PartitionProduceData>) -> TopicProduceData {
    if version >= TOPIC_IDS {
        TopicProduceData { topic_id: side.id(topic), partition_data, ..Default::default() }
    } else {
        TopicProduceData { name: side.name(topic), partition_data, ..Default::default() }
    }
}

/// Changes a good batch and makes its CRC right again.
fn changed(timestamp_ms: i64, change: impl Fn(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch(timestamp_ms, 3).to_vec();
    change(&mut bytes);
    seal(&mut bytes);
    bytes.into()
}

fn seal(bytes: &mut [u8]) {
    let crc = match RecordBatch::split(bytes) {
        Ok(Some((batch, _))) => batch.computed_crc(),
        _ => return,
    };
    bytes[CRC].copy_from_slice(&crc.to_be_bytes());
}

/// A message set of one message in the format of Kafka before 0.11: valid but for its CRC, which is not looked at first.
fn old_format(magic: u8) -> Bytes {
    let mut message = vec![0, 0, 0, 0, magic, 0];
    if magic == 1 {
        message.extend_from_slice(&1_600_000_000_000i64.to_be_bytes());
    }
    message.extend_from_slice(&(-1i32).to_be_bytes());
    message.extend_from_slice(&5i32.to_be_bytes());
    message.extend_from_slice(b"value");
    let mut set = vec![0; 8];
    set.extend_from_slice(&i32::try_from(message.len()).expect("a few bytes").to_be_bytes());
    set.extend_from_slice(&message);
    set.into()
}

fn put(bytes: &mut [u8], at: Range<usize>, value: &[u8]) {
    bytes[at].copy_from_slice(value);
}

fn with_attributes(timestamp_ms: i64, attributes: i16) -> Bytes {
    changed(timestamp_ms, |b| put(b, ATTRIBUTES, &attributes.to_be_bytes()))
}

/// What a partition gets, by case.
fn batches(pair: &mut Pair) -> io::Result<()> {
    let now = pair.left.started_ms;
    let good = batch(now, 3);
    let both: Bytes = [&good[..], &good[..]].concat().into();
    let mut bad_crc = good.to_vec();
    bad_crc[CRC.end + 60] ^= 1;
    let mut bad_magic = good.to_vec();
    bad_magic[MAGIC] = 3;
    let trailing: Bytes = [&good[..], &[0; 5]].concat().into();
    let mut large = BatchBuilder::new(now);
    large.push(None, Some(&vec![7; 1_100_000]));
    let large: Bytes = large.finish().into();
    let mut no_timestamp = BatchBuilder::new(-1);
    no_timestamp.push(None, None);
    let hour = 3_600_000;
    let cases: Vec<(&str, Option<Bytes>)> = vec![
        ("a good batch", Some(good.clone())),
        ("null records", None),
        ("no records", Some(Bytes::new())),
        ("two batches", Some(both)),
        ("a wrong CRC", Some(bad_crc.into())),
        ("magic 0", Some(old_format(0))),
        ("magic 1", Some(old_format(1))),
        ("magic 3", Some(bad_magic.into())),
        ("a cut batch", Some(good.slice(..good.len() - 1))),
        ("a cut header", Some(good.slice(..20))),
        ("bytes behind the batch", Some(trailing)),
        ("a count above the records", Some(changed(now, |b| put(b, COUNT, &4i32.to_be_bytes())))),
        ("a count below the records", Some(changed(now, |b| put(b, COUNT, &2i32.to_be_bytes())))),
        (
            "count and last offset above the records",
            Some(changed(now, |b| {
                put(b, COUNT, &4i32.to_be_bytes());
                put(b, LAST_OFFSET_DELTA, &3i32.to_be_bytes());
            })),
        ),
        ("a negative count", Some(changed(now, |b| put(b, COUNT, &(-1i32).to_be_bytes())))),
        ("another last offset", Some(changed(now, |b| put(b, LAST_OFFSET_DELTA, &7i32.to_be_bytes())))),
        ("a negative last offset", Some(changed(now, |b| put(b, LAST_OFFSET_DELTA, &(-1i32).to_be_bytes())))),
        ("another base offset", Some(changed(now, |b| put(b, BASE_OFFSET, &5i64.to_be_bytes())))),
        ("a batch without records", Some(BatchBuilder::new(now).finish().into())),
        ("a control batch", Some(with_attributes(now, 0x20))),
        ("a transactional batch", Some(with_attributes(now, 0x10))),
        ("log append time", Some(with_attributes(now, 0x08))),
        ("an unknown codec", Some(with_attributes(now, 5))),
        ("codec 7", Some(with_attributes(now, 7))),
        ("gzip that is none", Some(with_attributes(now, 1))),
        ("unused attributes", Some(with_attributes(now, 0x100))),
        ("a batch above the limit", Some(large)),
        ("no timestamp", Some(no_timestamp.finish().into())),
        ("a timestamp in half an hour", Some(batch(now + hour / 2, 1))),
        ("a timestamp in two hours", Some(batch(now + 2 * hour, 1))),
        ("an old timestamp", Some(batch(now - 24 * hour, 1))),
    ];
    assert!(cases.len() <= PARTITIONS as usize, "every case has a partition");
    for (index, (case, records)) in (0..).zip(cases) {
        pair.every(case, |side, version| request(side, version, TOPIC, index, records.clone()))?;
    }
    pair.every("zstd that is none", |side, version| {
        request(side, version, TOPIC, PARTITIONS - 1, Some(with_attributes(now, 4)))
    })
}

/// Where batches go.
fn places(pair: &mut Pair) -> io::Result<()> {
    let good = batch(pair.left.started_ms, 1);
    let one = |side: &Side, version, topic: &str, index| request(side, version, topic, index, Some(good.clone()));
    pair.every("an unknown topic", |side, version| one(side, version, "nowhere", 0))?;
    pair.every("an unknown partition", |side, version| one(side, version, TOPIC, 1_000))?;
    pair.every("a negative partition", |side, version| one(side, version, TOPIC, -1))?;
    pair.every("an illegal name", |side, version| one(side, version, "a/b", 0))?;
    pair.every("no topic", |_, _| ProduceRequest { acks: -1, timeout_ms: 1_000, ..Default::default() })?;
    pair.every("a topic without partitions", |side, version| ProduceRequest {
        acks: -1,
        timeout_ms: 1_000,
        topic_data: vec![topic_data(side, version, TOPIC, Vec::new())],
        ..Default::default()
    })?;
    pair.every("an empty name or id", |_, _| {
        let partition_data = vec![PartitionProduceData { index: 0, records: Some(good.clone()) }];
        let topic_data = vec![TopicProduceData { partition_data, ..Default::default() }];
        ProduceRequest { acks: -1, timeout_ms: 1_000, topic_data, ..Default::default() }
    })?;
    pair.every("good and bad partitions", |side, version| {
        let data = |index| PartitionProduceData { index, records: Some(good.clone()) };
        let known = topic_data(side, version, TOPIC, vec![data(0), data(1_000)]);
        let unknown = topic_data(side, version, "nowhere", vec![data(0)]);
        ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![known, unknown], ..Default::default() }
    })?;
    pair.every("a partition twice", |side, version| {
        let data = || PartitionProduceData { index: 1, records: Some(good.clone()) };
        let topic_data = vec![topic_data(side, version, TOPIC, vec![data(), data()])];
        ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data, ..Default::default() }
    })?;
    pair.every("a topic twice", |side, version| {
        let data = |index| vec![PartitionProduceData { index, records: Some(good.clone()) }];
        let topic_data = vec![topic_data(side, version, TOPIC, data(2)), topic_data(side, version, TOPIC, data(3))];
        ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data, ..Default::default() }
    })
}

fn acknowledgements(pair: &mut Pair) -> io::Result<()> {
    let good = batch(pair.left.started_ms, 1);
    for acks in [1, 2, -2, i16::MAX] {
        pair.every(&format!("acks {acks}"), |side, version| ProduceRequest {
            acks,
            ..request(side, version, TOPIC, 0, Some(good.clone()))
        })?;
    }
    pair.every("acks 2 for an unknown topic", |side, version| ProduceRequest {
        acks: 2,
        ..request(side, version, "nowhere", 0, Some(good.clone()))
    })?;
    pair.every("a transactional id", |side, version| ProduceRequest {
        transactional_id: Some(side.name("transaction")),
        ..request(side, version, TOPIC, 0, Some(good.clone()))
    })?;
    for version in versions::<ProduceRequest>() {
        for (case, topic) in [("acks 0", TOPIC), ("acks 0 for an unknown topic", "nowhere")] {
            pair.send_bytes((ApiKey::Produce, version), case, false, |side| {
                let request = ProduceRequest { acks: 0, ..request(side, version, topic, 0, Some(good.clone())) };
                request_frame(&request, version, 1, None).expect("it has this form").concat().into()
            })?;
        }
    }
    // Advertised for the sake of old clients, and refused.
    for version in 0..3i16 {
        pair.send_bytes((ApiKey::Produce, version), "a version before batches", true, |_| {
            let mut frame = vec![0, 0, 0, 20, 0, 0];
            frame.extend_from_slice(&version.to_be_bytes());
            frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0, 0, 0, 0, 0]);
            frame.into()
        })?;
    }
    Ok(())
}

/// What an idempotent producer may send after what. Every step is a request of its own; all versions take it in turn on
/// partitions of their own.
fn sequences(pair: &mut Pair) -> io::Result<()> {
    const SEQUENCED: &str = "sequenced";
    pair.make_topic(SEQUENCED, 16)?;
    let now = pair.left.started_ms;
    let records = |producer: i64, epoch: i16, base_sequence: i32, count: u32| -> Bytes {
        let producer = BatchProducer { id: producer, epoch, base_sequence };
        let mut builder = BatchBuilder::new(now).producer(producer);
        for _ in 0..count {
            builder.push(Some(b"k"), Some(b"v"));
        }
        builder.finish().into()
    };
    // Epoch, first sequence, number of records.
    let steps: &[(&str, i16, i32, u32)] = &[
        ("a first sequence above 0", 0, 5, 2),
        ("sequences 7 and 8", 0, 7, 2),
        ("the same again", 0, 7, 2),
        ("a gap", 0, 20, 1),
        ("sequences below", 0, 3, 1),
        ("a part of an earlier batch", 0, 8, 1),
        ("the batch before the last again", 0, 5, 2),
        ("a negative sequence", 0, -1, 1),
        ("a negative epoch", -1, 9, 1),
        ("a new epoch not from 0", 2, 9, 1),
        ("a new epoch from 0", 2, 0, 1),
        ("an old epoch", 1, 1, 1),
        ("an old epoch from 0", 1, 0, 1),
        ("the new epoch goes on", 2, 1, 1),
        ("the last epoch", i16::MAX, 0, 1),
    ];
    for version in versions::<ProduceRequest>() {
        let init = |_: &Side| InitProducerIdRequest { transactional_id: None, ..Default::default() };
        pair.ask("for sequences", 4, init)?.keep(pair, |side, answer| side.producer = answer.producer_id);
        for &(case, epoch, sequence, count) in steps {
            pair.ask(case, version, |side| {
                let records = records(side.producer, epoch, sequence, count);
                request(side, version, SEQUENCED, version.into(), Some(records))
            })?;
        }
    }
    pair.every("a producer id that nobody was given", |side, version| {
        request(side, version, SEQUENCED, 0, Some(records(1 << 40, 0, i32::from(version), 1)))
    })?;
    pair.every("a negative producer id", |side, version| {
        request(side, version, SEQUENCED, 0, Some(records(-2, 0, 0, 1)))
    })?;
    pair.every("an epoch without producer id", |side, version| {
        request(side, version, SEQUENCED, 0, Some(records(-1, 0, 0, 1)))
    })
}
