//! What a history is made of: batches of every kind, the same for both brokers.

use crate::client::Outcome;
use crate::dice::Dice;
use crate::pair::{Pair, Side, pause};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{InitProducerIdRequest, ProduceRequest};
use millrace_protocol::records::{BatchBuilder, BatchProducer, Compression};
use std::io;

/// Kafka's default `max.message.bytes`.
const LARGEST_BATCH: usize = 1_048_588;
/// Timestamps wander by so many milliseconds.
const WANDERING: u64 = 40;
/// Tries of a produce request that a broker is not ready for.
const TRIES: usize = 200;

/// What a log holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Nothing.
    None,
    /// Every codec, any number of records of any size, keys, headers, nulls; timestamps out of order and equal.
    Mixed,
    /// The same by several idempotent producers.
    Idempotent,
    /// Records of next to nothing, one in a batch or dozens.
    Tiny,
    /// Batches of the largest size, and small ones that inflate to megabytes.
    Large,
    /// As [`Kind::Mixed`], where the broker sets the times.
    Appended,
}

impl Kind {
    /// How many batches a log of this kind begins with.
    pub(super) fn batches(self) -> usize {
        match self {
            Kind::None => 0,
            Kind::Mixed | Kind::Idempotent => 200,
            Kind::Tiny => 1_000,
            Kind::Large => 16,
            Kind::Appended => 120,
        }
    }
}

/// Writes `count` batches to one partition of both.
pub(super) fn write(
    pair: &mut Pair,
    topic: &str,
    index: i32,
    kind: Kind,
    count: usize,
    dice: &mut Dice,
) -> io::Result<()> {
    let (mut after, mut producers) = (0, Vec::new());
    for at in 0..count {
        let seed = dice.next();
        after = (after + dice.below(WANDERING) as i64 - dice.below(WANDERING * 2 / 3) as i64).max(0);
        if kind == Kind::Idempotent && at % 50 == 0 {
            producers.push(Producer::new(pair)?);
        }
        let by = (seed % producers.len().max(1) as u64) as usize;
        let builder = |producer: Option<BatchProducer>| {
            move |first: i64| {
                let builder = BatchBuilder::new(first);
                producer.map_or_else(|| BatchBuilder::new(first), |producer| builder.producer(producer))
            }
        };
        let make = |side: &Side, producer| batch(kind, &mut Dice(seed), side.started_ms + after, builder(producer));
        let (left, right) = match producers.get_mut(by) {
            Some(producer) => {
                let sequence = producer.next;
                let of = |id| Some(BatchProducer { id, epoch: 0, base_sequence: sequence });
                let (left, count) = make(&pair.left, of(producer.left));
                producer.next += count;
                (left, make(&pair.right, of(producer.right)).0)
            }
            None => (make(&pair.left, None).0, make(&pair.right, None).0),
        };
        produce(&mut pair.left, topic, index, left)?;
        produce(&mut pair.right, topic, index, right)?;
        if kind == Kind::Appended && at % 3 > 0 {
            // Otherwise a broker may give two batches the same time, and the other does not.
            pair.until_the_clock_moves();
        }
    }
    Ok(())
}

/// A producer as each side knows it.
struct Producer {
    left: i64,
    right: i64,
    /// Its next sequence.
    next: i32,
}

impl Producer {
    fn new(pair: &mut Pair) -> io::Result<Producer> {
        let new = |side: &mut Side| {
            let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
            let answer = side.send(&request, 4)?.answer().filter(|answer| answer.error_code.is_none());
            answer.map(|answer| answer.producer_id).ok_or_else(|| io::Error::other("no producer id"))
        };
        Ok(Producer { left: new(&mut pair.left)?, right: new(&mut pair.right)?, next: 0 })
    }
}

/// A batch of a kind with times from `time` on, and the number of its records.
fn batch(kind: Kind, dice: &mut Dice, time: i64, builder: impl Fn(i64) -> BatchBuilder) -> (Bytes, i32) {
    let codec = dice.pick(&Compression::ALL);
    let mut batch = builder(time).compressed(codec);
    match kind {
        Kind::None => {}
        Kind::Mixed | Kind::Idempotent | Kind::Appended => {
            for _ in 0..1 + dice.below(8) {
                let time = time + dice.below(WANDERING) as i64 - WANDERING as i64 / 2;
                let time = if dice.below(4) == 0 { time } else { time / 8 * 8 };
                let key = dice.flip().then(|| random(dice, 8));
                let length = dice.pick(&[0, 20, 200, 1_500]);
                let value = (dice.below(8) > 0).then(|| random(dice, length));
                let header: &[(&[u8], Option<&[u8]>)] = if dice.flip() { &[(b"h", Some(b"v"))] } else { &[] };
                batch.push_record(time, key.as_deref(), value.as_deref(), header);
            }
        }
        Kind::Tiny => {
            let count = if dice.below(60) == 0 { 80 } else { 1 + dice.below(2) };
            (0..count).for_each(|at| batch.push_record(time + at as i64 / 4, None, Some(&[]), &[]));
        }
        Kind::Large if dice.below(3) == 0 => {
            batch = builder(time).compressed(dice.pick(&[Compression::Gzip, Compression::Zstd, Compression::Lz4]));
            (0..4).for_each(|at| batch.push_record(time + at, None, Some(&vec![b'z'; 1 << 20]), &[]));
        }
        Kind::Large => return (largest(dice, time), 1),
    }
    let count = batch.count();
    (batch.finish().into(), i32::try_from(count).expect("a few"))
}

/// A batch of exactly the size that is allowed.
fn largest(dice: &mut Dice, time: i64) -> Bytes {
    let one = |value: &[u8]| {
        let mut batch = BatchBuilder::new(time);
        batch.push_record(time, None, Some(value), &[]);
        Bytes::from(batch.finish())
    };
    let value = random(dice, LARGEST_BATCH - 200);
    let less = LARGEST_BATCH - one(&value).len();
    let batch = one(&[value.as_slice(), &vec![0; less]].concat());
    assert_eq!(batch.len(), LARGEST_BATCH, "lengths are of the same size");
    batch
}

fn random(dice: &mut Dice, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for chunk in bytes.chunks_mut(8) {
        let length = chunk.len();
        chunk.copy_from_slice(&dice.next().to_be_bytes()[..length]);
    }
    bytes
}

/// Writes a batch; a broker that does not know yet that it leads is asked again.
fn produce(side: &mut Side, topic: &str, index: i32, records: Bytes) -> io::Result<()> {
    let partition_data = vec![PartitionProduceData { index, records: Some(records) }];
    let topic_data = vec![TopicProduceData { name: side.name(topic), partition_data, ..Default::default() }];
    let request = ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data, ..Default::default() };
    let mut last = None;
    for _ in 0..TRIES {
        let outcome = side.send(&request, 9)?;
        let Outcome::Answered(answer) = outcome else {
            return Err(io::Error::other(format!("{topic}-{index}: {outcome:?} to a batch of a history")));
        };
        match answer.responses[0].partition_responses[0].error_code {
            ErrorCode::None => return Ok(()),
            error @ (ErrorCode::UnknownTopicOrPartition | ErrorCode::NotLeaderOrFollower) => last = Some(error),
            error => return Err(io::Error::other(format!("{topic}-{index} refuses a batch of a history: {error:?}"))),
        }
        pause();
    }
    Err(io::Error::other(format!("{topic}-{index} takes no batch: {last:?}")))
}
