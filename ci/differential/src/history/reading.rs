//! Fetches of a history: from every offset, with several limits.

use super::batches::Kind;
use crate::client::Outcome;
use crate::pair::{Pair, Side};
use millrace_protocol::api::ApiKey;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::FetchRequest;
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use millrace_protocol::records::{BatchError, Batches, RecordBatch, RecordTimes, TimestampType};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

/// Versions by name, with and without what came with them.
const VERSIONS: [i16; 4] = [4, 5, 11, 12];
/// Limits of a fetch in bytes.
const LIMITS: [i32; 3] = [1, 3_000, 300_000];
/// The same where batches are large.
const LARGE_LIMITS: [i32; 2] = [1, 3 << 20];
/// Everything that there is, as far as it fits into an answer.
const ALL: i32 = 16 << 20;
/// Bytes that a batch of these histories inflates to at most.
const INFLATED: usize = 16 << 20;

/// One batch as it was read.
#[derive(Clone, Debug)]
struct Batch {
    last: i64,
    /// All that must be the same on both sides.
    text: String,
    max_timestamp: i64,
    times: BTreeSet<i64>,
}

/// What a whole log holds on one side.
#[derive(Clone, Debug)]
pub(super) struct Log {
    /// First offset.
    pub(super) start: i64,
    /// The offset after the last.
    pub(super) end: i64,
    /// Timestamps of its records.
    pub(super) times: BTreeSet<i64>,
    /// Largest timestamp of each batch.
    pub(super) batch_times: Vec<i64>,
}

/// The same log on both sides.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// As the reference gives it.
    pub(super) left: Log,
    /// As Millrace does.
    pub(super) right: Log,
    /// Whether its times are the producers', so that both sides have the same.
    pub(super) same_times: bool,
}

/// Compares a log as a whole, then what fetches at every offset give. Gives what was read.
pub(super) fn compare(pair: &mut Pair, log: &str, topic: &str, index: i32, kind: Kind) -> io::Result<Read> {
    let (left, right) = (whole(&mut pair.left, topic, index)?, whole(&mut pair.right, topic, index)?);
    let texts = |log: &(Log, Vec<Batch>)| {
        let texts = log.1.iter().map(|batch| batch.text.clone());
        let mut leaves: BTreeMap<String, String> = texts.enumerate().map(|(at, t)| (format!("{at:05}"), t)).collect();
        leaves.insert("offsets".to_owned(), format!("{} to {}", log.0.start, log.0.end));
        leaves
    };
    pair.compare_leaves(ApiKey::Fetch, 12, log, &texts(&left), &texts(&right));
    let limits = if kind == Kind::Large { &LARGE_LIMITS[..] } else { &LIMITS };
    for offset in left.0.start - 1..=left.0.end + 1 {
        for (at, limit) in limits.iter().enumerate() {
            let version = VERSIONS[(offset.unsigned_abs() as usize + at) % VERSIONS.len()];
            let (left, right) = (
                fetch(&mut pair.left, topic, index, offset, *limit, version)?,
                fetch(&mut pair.right, topic, index, offset, *limit, version)?,
            );
            let (left, right) = leaves(left, right);
            let case = format!("{log}, offset {offset}, {limit} bytes");
            pair.compare_leaves(ApiKey::Fetch, version, &case, &left, &right);
        }
    }
    Ok(Read { left: left.0, right: right.0, same_times: kind != Kind::Appended })
}

/// The end of a log.
pub(super) fn end(side: &mut Side, topic: &str, index: i32) -> io::Result<i64> {
    Ok(fetch(side, topic, index, 0, 1, 12)?.0.high_watermark)
}

/// Reads a log from its start to its end.
fn whole(side: &mut Side, topic: &str, index: i32) -> io::Result<(Log, Vec<Batch>)> {
    let (bounds, _) = fetch(side, topic, index, 0, 1, 12)?;
    let (start, end) = (bounds.log_start_offset, bounds.high_watermark);
    let (mut next, mut read) = (start, Vec::new());
    while next < end {
        let (_, batches) = fetch(side, topic, index, next, ALL, 12)?;
        let last =
            batches.last().ok_or_else(|| io::Error::other(format!("{topic}-{index} gives nothing at {next}")))?;
        next = last.last + 1;
        read.extend(batches);
    }
    let times = read.iter().flat_map(|batch| batch.times.iter().copied()).collect();
    let batch_times = read.iter().map(|batch| batch.max_timestamp).collect();
    Ok((Log { start, end, times, batch_times }, read))
}

fn fetch(
    side: &mut Side,
    topic: &str,
    index: i32,
    offset: i64,
    limit: i32,
    version: i16,
) -> io::Result<(PartitionData, Vec<Batch>)> {
    let partition = FetchPartition {
        partition: index,
        fetch_offset: offset,
        partition_max_bytes: limit,
        current_leader_epoch: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    let asked = FetchTopic { topic: side.name(topic), partitions: vec![partition], ..Default::default() };
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: ALL,
        session_epoch: -1,
        topics: vec![asked],
        ..Default::default()
    };
    let outcome = side.send(&request, version)?;
    let Outcome::Answered(mut answer) = outcome else {
        return Err(io::Error::other(format!("{topic}-{index}: {outcome:?} to a fetch at {offset}")));
    };
    let data = answer.responses.pop().and_then(|mut topic| topic.partitions.pop());
    let data = data.ok_or_else(|| io::Error::other(format!("{topic}-{index}: no partition in the answer")))?;
    let bytes = data.records.as_ref().map(|records| records.concat()).unwrap_or_default();
    let batches: Result<Vec<Batch>, BatchError> =
        Batches::new(&bytes).map(|batch| batch.map(|b| Batch::of(&b))).collect();
    let batches = batches.map_err(|error| io::Error::other(format!("{topic}-{index} at {offset}: {error}")))?;
    Ok((data, batches))
}

/// What is compared of two answers. Millrace's may hold less, but not nothing.
fn leaves(
    (left, mut left_batches): (PartitionData, Vec<Batch>),
    (right, right_batches): (PartitionData, Vec<Batch>),
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let enough = if right_batches.is_empty() { left_batches.len().min(1) } else { right_batches.len() };
    left_batches.truncate(enough);
    let of = |data: &PartitionData, batches: &[Batch]| {
        let mut leaves = BTreeMap::from([
            ("error_code".to_owned(), format!("{:?}", data.error_code)),
            ("high_watermark".to_owned(), data.high_watermark.to_string()),
            ("last_stable_offset".to_owned(), data.last_stable_offset.to_string()),
            ("log_start_offset".to_owned(), data.log_start_offset.to_string()),
        ]);
        leaves.extend(batches.iter().enumerate().map(|(at, batch)| (format!("batch {at}"), batch.text.clone())));
        leaves
    };
    // Nothing is told about a log beside the error.
    let silent = |data: &PartitionData| data.error_code != ErrorCode::None;
    debug_assert!(!silent(&right) || right_batches.is_empty(), "an error comes without records");
    (of(&left, &left_batches), of(&right, &right_batches))
}

impl Batch {
    /// Everything that is the same wherever the batch was written: not its leader epoch, a producer's id, the broker's
    /// time, nor the checksum that follows from those, which must be right.
    fn of(batch: &RecordBatch<'_>) -> Batch {
        let mut hasher = DefaultHasher::new();
        batch.payload().hash(&mut hasher);
        let appended = batch.attributes().timestamp_type() == TimestampType::LogAppendTime;
        let max_timestamp = if appended { -1 } else { batch.max_timestamp() };
        let text = format!(
            "{} to {}, {} records, attributes {:?}, times {} to {max_timestamp}, producer {} {} {}, sound {}, {:016x}",
            batch.base_offset(),
            batch.last_offset(),
            batch.count(),
            batch.attributes(),
            batch.base_timestamp(),
            batch.producer_id() >= 0,
            batch.producer_epoch(),
            batch.base_sequence(),
            batch.computed_crc() == batch.crc(),
            hasher.finish(),
        );
        let times = RecordTimes::new(*batch, INFLATED).map(|times| times.filter_map(|time| Some(time.ok()?.timestamp)));
        let times = times.map(|times| times.collect()).unwrap_or_default();
        Batch { last: batch.last_offset(), text, max_timestamp: batch.max_timestamp(), times }
    }
}
