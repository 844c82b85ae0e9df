//! A long history, written to both brokers and read at every offset and at every timestamp.
//!
//! Millrace runs with small segments and little memory, so that the older part of each log is in segments, the next in
//! write-ahead objects, the newest in memory. [`go_on`] does it again after Millrace was restarted: then all of it is cold
//! but what is written since.
//!
//! 1. The same seed writes the same batches to both, but for what a broker gives: producer ids and append times.
//! 2. What is read must be a part of what Kafka gives: it may end earlier, where a segment or an object ends, but it holds
//!    at least one batch if Kafka's answer does.

mod batches;
mod offsets;
mod reading;
mod segments;

use crate::dice::Dice;
use crate::pair::Pair;
use batches::Kind;
use millrace_protocol::messages::DeleteRecordsRequest;
use millrace_protocol::messages::create_topics::CreatableTopicConfig;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use std::io;
use std::path::Path;

/// Times of the producers.
const CREATED: Topic = Topic {
    name: "history",
    logs: &[Kind::Mixed, Kind::Idempotent, Kind::Tiny, Kind::Large, Kind::Mixed, Kind::Mixed, Kind::None],
};
/// Times of the broker.
const APPENDED: Topic = Topic { name: "history-appended", logs: &[Kind::Appended] };
/// This partition of [`CREATED`] loses the older part of its log, up to the middle of a batch,
const CUT: i32 = 4;
/// and this one all of it.
const EMPTIED: i32 = 5;

/// What is written to the partitions of a topic.
#[derive(Clone, Copy, Debug)]
struct Topic {
    name: &'static str,
    logs: &'static [Kind],
}

impl Topic {
    fn partitions(&self) -> i32 {
        i32::try_from(self.logs.len()).expect("a few")
    }

    fn each(&self) -> impl Iterator<Item = (i32, Kind)> {
        (0..).zip(self.logs.iter().copied())
    }
}

/// Writes a history, waits until its older part is in segments, and compares.
pub(crate) fn write(pair: &mut Pair, seed: u64, store: &Path) -> io::Result<()> {
    pair.make_topic(CREATED.name, CREATED.partitions())?;
    let setting = CreatableTopicConfig { name: "message.timestamp.type".into(), value: Some("LogAppendTime".into()) };
    pair.make_topic_with(APPENDED.name, APPENDED.partitions(), &[setting])?;
    let mut dice = Dice(seed);
    // Large ones last: they take the place of others in Millrace's memory.
    let mut logs: Vec<(Topic, i32, Kind)> = Vec::new();
    for topic in [CREATED, APPENDED] {
        logs.extend(topic.each().map(|(index, kind)| (topic, index, kind)));
    }
    logs.sort_by_key(|(_, _, kind)| *kind == Kind::Large);
    for (topic, index, kind) in logs {
        batches::write(pair, topic.name, index, kind, kind.batches(), &mut dice)?;
    }
    for topic in [CREATED, APPENDED] {
        for (index, _) in topic.each().filter(|(_, kind)| *kind != Kind::None) {
            segments::await_some(pair, store, topic.name, index)?;
        }
    }
    let end = reading::end(&mut pair.left, CREATED.name, CUT)?;
    delete(pair, CUT, end / 3)?;
    delete(pair, EMPTIED, -1)?;
    add_and_compare(pair, &mut dice)
}

/// Compares the history that an earlier run with the same tag wrote.
pub(crate) fn go_on(pair: &mut Pair, seed: u64, store: &Path) -> io::Result<()> {
    for topic in [CREATED, APPENDED] {
        pair.find_topic(topic.name, topic.partitions())?;
        for (index, _) in topic.each().filter(|(_, kind)| *kind != Kind::None) {
            segments::await_some(pair, store, topic.name, index)?;
        }
    }
    compare(pair, "cold")?;
    add_and_compare(pair, &mut Dice(seed ^ 1))
}

/// Something new at the end of each log, which is then in memory.
fn add_and_compare(pair: &mut Pair, dice: &mut Dice) -> io::Result<()> {
    for topic in [CREATED, APPENDED] {
        for (index, kind) in topic.each().filter(|(_, kind)| *kind != Kind::Large) {
            batches::write(pair, topic.name, index, kind, kind.batches() / 40, dice)?;
        }
    }
    compare(pair, "")
}

fn compare(pair: &mut Pair, what: &str) -> io::Result<()> {
    for topic in [CREATED, APPENDED] {
        for (index, kind) in topic.each() {
            let log = format!("{} {index} {what}", topic.name);
            let read = reading::compare(pair, log.trim(), topic.name, index, kind)?;
            offsets::compare(pair, log.trim(), topic.name, index, &read)?;
        }
    }
    Ok(())
}

/// Raises a log start on both.
fn delete(pair: &mut Pair, partition_index: i32, offset: i64) -> io::Result<()> {
    pair.ask(&format!("history {partition_index} before {offset}"), 2, |side| {
        let partitions = vec![DeleteRecordsPartition { partition_index, offset }];
        let topics = vec![DeleteRecordsTopic { name: side.name(CREATED.name), partitions }];
        DeleteRecordsRequest { topics, timeout_ms: 5_000 }
    })?;
    Ok(())
}
