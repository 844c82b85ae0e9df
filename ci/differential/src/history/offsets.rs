//! ListOffsets of a history: every timestamp that it has, those beside them, the newest, both ends.

use super::reading::Read;
use crate::pair::{Pair, Side, versions};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use millrace_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest};
use std::collections::BTreeSet;
use std::io;

/// The ends, the newest record, and the ends of what tiered storage would have; each with its first version.
const SPECIAL: [(i64, i16); 6] = [(-1, 1), (-2, 1), (-3, 7), (-4, 8), (-5, 9), (-6, 11)];
/// Versions by name, with and without what came with them.
const VERSIONS: [i16; 4] = [1, 4, 7, 10];

/// Compares what both say of times.
pub(super) fn compare(pair: &mut Pair, log: &str, topic: &str, index: i32, read: &Read) -> io::Result<()> {
    for version in versions::<ListOffsetsRequest>() {
        for (timestamp, _) in SPECIAL.iter().filter(|(_, since)| version >= *since) {
            let case = format!("{log}, {timestamp}");
            let make = |side: &Side| listing(side, topic, index, *timestamp);
            pair.ask_and_clean(&case, version, make, |answer| clean(answer, !read.same_times))?;
        }
    }
    if read.same_times {
        let times: BTreeSet<i64> = read.left.times.iter().flat_map(|time| [time - 1, *time, time + 1]).collect();
        for (at, time) in times.into_iter().chain([0, i64::MAX]).enumerate() {
            let case = format!("{log}, time {time}");
            pair.ask(&case, VERSIONS[at % VERSIONS.len()], |side| listing(side, topic, index, time))?;
        }
    } else {
        let (left, right) = (&read.left.batch_times, &read.right.batch_times);
        for (at, (left, right)) in left.iter().zip(right).enumerate() {
            for later in [0, 1] {
                let case = format!("{log}, {later} ms after batch {at}");
                let time = |side: &Side, is_left: bool| {
                    listing(side, topic, index, later + if is_left { *left } else { *right })
                };
                pair.ask_each(&case, VERSIONS[at % VERSIONS.len()], time, |answer| clean(answer, true))?;
            }
        }
    }
    epochs(pair, log, topic, index)
}

/// Where the present leader epoch ends, and one that there was not yet.
fn epochs(pair: &mut Pair, log: &str, topic: &str, partition: i32) -> io::Result<()> {
    for (case, later) in [("the present epoch", 0), ("a later epoch", 1_000)] {
        for version in versions::<OffsetForLeaderEpochRequest>() {
            pair.ask(&format!("{log}, {case}"), version, |side| {
                let asked =
                    OffsetForLeaderPartition { partition, current_leader_epoch: -1, leader_epoch: side.epoch + later };
                let topic = OffsetForLeaderTopic { topic: side.name(topic), partitions: vec![asked] };
                OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] }
            })?;
        }
    }
    Ok(())
}

fn listing(side: &Side, topic: &str, partition_index: i32, timestamp: i64) -> ListOffsetsRequest {
    let asked = ListOffsetsPartition { partition_index, timestamp, current_leader_epoch: -1 };
    let topics = vec![ListOffsetsTopic { name: side.name(topic), partitions: vec![asked] }];
    ListOffsetsRequest { replica_id: -1, topics, timeout_ms: 5_000, ..Default::default() }
}

/// Which time was found differs where brokers give the times; whether one was found does not.
fn clean(answer: &mut ListOffsetsResponse, hide: bool) {
    if hide {
        let partitions = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        partitions.for_each(|partition| partition.timestamp = partition.timestamp.signum());
    }
}
