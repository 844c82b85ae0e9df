//! ListOffsets and OffsetForLeaderEpoch.

use super::fetch::fill;
use crate::pair::{Pair, Side};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use millrace_protocol::messages::{ListOffsetsRequest, OffsetForLeaderEpochRequest};
use std::io;

const TOPIC: &str = "listed";

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    fill(pair, TOPIC, 3)?;
    list(pair)?;
    epochs(pair)
}

pub(super) fn listing(side: &Side, topic: &str, partitions: Vec<ListOffsetsPartition>) -> ListOffsetsRequest {
    let topics = vec![ListOffsetsTopic { name: side.name(topic), partitions }];
    ListOffsetsRequest { replica_id: -1, topics, timeout_ms: 5_000, ..Default::default() }
}

pub(super) fn at(partition_index: i32, timestamp: i64) -> ListOffsetsPartition {
    ListOffsetsPartition { partition_index, timestamp, ..Default::default() }
}

fn list(pair: &mut Pair) -> io::Result<()> {
    for timestamp in [-1, -2, -3, -4, -5, -6, -7, -100, i64::MIN, 0, i64::MAX] {
        for (partition, what) in [(0, "a log"), (1, "an empty log")] {
            pair.every(&format!("timestamp {timestamp} of {what}"), |side, _| {
                listing(side, TOPIC, vec![at(partition, timestamp)])
            })?;
        }
    }
    for (case, later) in [("the first timestamp", 0), ("a later timestamp", 1), ("a time after the log", 100_000)] {
        pair.every(case, |side, _| listing(side, TOPIC, vec![at(0, side.started_ms + later)]))?;
    }
    pair.every("an unknown topic", |side, _| listing(side, "nowhere", vec![at(0, -1)]))?;
    pair.every("an unknown partition", |side, _| listing(side, TOPIC, vec![at(0, -1), at(7, -1), at(-1, -2)]))?;
    pair.every("a partition twice", |side, _| listing(side, TOPIC, vec![at(0, -1), at(0, -2), at(1, -1)]))?;
    pair.every("no partition", |side, _| listing(side, TOPIC, Vec::new()))?;
    pair.every("no topic", |_, _| ListOffsetsRequest { replica_id: -1, ..Default::default() })?;
    pair.every("replica -2", |side, _| ListOffsetsRequest { replica_id: -2, ..listing(side, TOPIC, vec![at(0, -1)]) })?;
    for isolation_level in [1, 9, -1] {
        pair.every(&format!("isolation level {isolation_level}"), |side, version| ListOffsetsRequest {
            isolation_level: if version >= 2 { isolation_level } else { 0 },
            ..listing(side, TOPIC, vec![at(0, -1)])
        })?;
    }
    for above in [0, 1] {
        pair.every(&format!("the leader epoch and {above}"), |side, version| {
            let current_leader_epoch = if version >= 4 { side.epoch + above } else { -1 };
            listing(side, TOPIC, vec![ListOffsetsPartition { current_leader_epoch, ..at(0, -1) }])
        })?;
    }
    Ok(())
}

fn epochs(pair: &mut Pair) -> io::Result<()> {
    let asked = |side: &Side, topic: &str, partitions: Vec<OffsetForLeaderPartition>| OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic { topic: side.name(topic), partitions }],
    };
    let end_of = |partition, leader_epoch| OffsetForLeaderPartition { partition, leader_epoch, ..Default::default() };
    for (case, above) in [("the epoch", 0), ("a later epoch", 1)] {
        for partition in [0, 1] {
            pair.every(&format!("{case} of partition {partition}"), |side, _| {
                asked(side, TOPIC, vec![end_of(partition, side.epoch + above)])
            })?;
        }
        pair.every(&format!("{case} as the client's own"), |side, _| {
            let own = OffsetForLeaderPartition { current_leader_epoch: side.epoch + above, ..end_of(0, side.epoch) };
            asked(side, TOPIC, vec![own])
        })?;
    }
    pair.every("a negative epoch", |side, _| asked(side, TOPIC, vec![end_of(0, -1)]))?;
    pair.every("an unknown topic", |side, _| asked(side, "nowhere", vec![end_of(0, 0)]))?;
    pair.every("unknown partitions", |side, _| asked(side, TOPIC, vec![end_of(9, 0), end_of(-1, 0)]))?;
    pair.every("a partition twice", |side, _| asked(side, TOPIC, vec![end_of(0, side.epoch), end_of(0, side.epoch)]))?;
    pair.every("no topic", |_, _| OffsetForLeaderEpochRequest { replica_id: -1, ..Default::default() })
}
