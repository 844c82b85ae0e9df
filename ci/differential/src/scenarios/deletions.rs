//! DeleteRecords, and what fetches and listings say afterwards.

use super::fetch::{self, fill};
use super::offsets::{at, listing};
use crate::pair::{Pair, Side};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::DeleteRecordsRequest;
use millrace_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use millrace_protocol::messages::{CreateTopicsRequest, ListOffsetsRequest};
use std::io;

/// Three batches of two records in partition 0, nothing in partition 1.
const TOPIC: &str = "shortened";

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    fill(pair, TOPIC, 3)?;
    refusals(pair)?;
    policies(pair)?;
    // Within a batch, where it is already, below that, and everything.
    for offset in [0, 1, 1, 0, 3, -1, -1, 6, 7] {
        pair.every(&format!("below {offset}"), |side, _| request(vec![topic(side, TOPIC, &[(0, offset)])]))?;
        for timestamp in [-2, -1, -3, 0] {
            pair.every(&format!("timestamp {timestamp} after {offset}"), |side, _| -> ListOffsetsRequest {
                listing(side, TOPIC, vec![at(0, timestamp)])
            })?;
        }
        for from in 0..=6 {
            fetch::every(pair, &format!("from {from} after {offset}"), |side, version| {
                fetch::request(side, version, TOPIC, fetch::from(from))
            })?;
        }
    }
    Ok(())
}

fn request(topics: Vec<DeleteRecordsTopic>) -> DeleteRecordsRequest {
    DeleteRecordsRequest { topics, timeout_ms: 10_000 }
}

fn topic(side: &Side, name: &str, offsets: &[(i32, i64)]) -> DeleteRecordsTopic {
    let partitions =
        offsets.iter().map(|&(partition_index, offset)| DeleteRecordsPartition { partition_index, offset });
    DeleteRecordsTopic { name: side.name(name), partitions: partitions.collect() }
}

fn refusals(pair: &mut Pair) -> io::Result<()> {
    pair.every("no topic", |_, _| request(Vec::new()))?;
    pair.every("no partition", |side, _| request(vec![topic(side, TOPIC, &[])]))?;
    for offset in [-2, 7, i64::MIN, i64::MAX] {
        pair.every(&format!("offset {offset}"), |side, _| request(vec![topic(side, TOPIC, &[(0, offset)])]))?;
    }
    pair.every("an empty log", |side, _| request(vec![topic(side, TOPIC, &[(1, -1)])]))?;
    pair.every("beyond an empty log", |side, _| request(vec![topic(side, TOPIC, &[(1, 1)])]))?;
    pair.every("unknown partitions", |side, _| request(vec![topic(side, TOPIC, &[(2, 0), (-1, 0), (0, 0)])]))?;
    pair.every("an unknown topic", |side, _| request(vec![topic(side, "nowhere", &[(0, 0)])]))?;
    for name in ["", "a/b"] {
        let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 0 }];
        pair.every(&format!("the topic {name:?}"), |_, _| {
            request(vec![DeleteRecordsTopic { name: StrBytes::from(name), partitions: partitions.clone() }])
        })?;
    }
    pair.every("a partition twice", |side, _| request(vec![topic(side, TOPIC, &[(0, 99), (0, 0)])]))?;
    pair.every("a topic twice", |side, _| {
        request(vec![topic(side, TOPIC, &[(0, 0)]), topic(side, TOPIC, &[(0, 99), (1, 0)])])
    })
}

/// Of topics that are compacted, or not cleaned at all.
fn policies(pair: &mut Pair) -> io::Result<()> {
    for (name, policy) in [("compacted", "compact"), ("both", "compact,delete"), ("kept", "")] {
        pair.ask("with a policy", 7, |side| {
            let config = CreatableTopicConfig { name: "cleanup.policy".into(), value: Some(policy.into()) };
            let topic = CreatableTopic {
                name: side.name(name),
                num_partitions: 1,
                replication_factor: 1,
                configs: vec![config],
                ..Default::default()
            };
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() }
        })?;
        pair.make_topic(name, 1)?;
        for offset in [0, -1, 1] {
            pair.every(&format!("policy {policy:?}, offset {offset}"), |side, _| {
                request(vec![topic(side, name, &[(0, offset)])])
            })?;
        }
    }
    Ok(())
}
