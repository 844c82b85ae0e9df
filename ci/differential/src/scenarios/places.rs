//! Where things lie and who leads: DescribeLogDirs, DescribeProducers, DescribeQuorum, ElectLeaders, reassignments,
//! UpdateFeatures.

use crate::pair::{Pair, Side};
use millrace_protocol::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use millrace_protocol::messages::describe_log_dirs::DescribableLogDirTopic;
use millrace_protocol::messages::describe_producers::DescribeProducersTopic;
use millrace_protocol::messages::describe_quorum::{DescribeQuorumPartition, DescribeQuorumTopic};
use millrace_protocol::messages::elect_leaders::ElectLeadersTopic;
use millrace_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsTopics;
use millrace_protocol::messages::update_features::FeatureUpdateKey;
use millrace_protocol::messages::{
    AlterPartitionReassignmentsRequest, DescribeLogDirsRequest, DescribeProducersRequest, DescribeQuorumRequest,
    ElectLeadersRequest, ListPartitionReassignmentsRequest, UpdateFeaturesRequest,
};
use std::io;

/// Its partitions are two.
const TOPIC: &str = "placed";

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 2)?;
    log_dirs(pair)?;
    producers(pair)?;
    quorum(pair)?;
    elections(pair)?;
    reassignments(pair)?;
    features(pair)
}

fn log_dirs(pair: &mut Pair) -> io::Result<()> {
    let of = |side: &Side, name: &str, partitions: &[i32]| DescribableLogDirTopic {
        topic: side.name(name),
        partitions: partitions.to_vec(),
    };
    pair.every("no topic", |_, _| DescribeLogDirsRequest { topics: Some(Vec::new()) })?;
    for partitions in [&[][..], &[0], &[1, 0], &[0, 0], &[0, 2, -1]] {
        pair.every(&format!("partitions {partitions:?}"), |side, _| DescribeLogDirsRequest {
            topics: Some(vec![of(side, TOPIC, partitions)]),
        })?;
    }
    pair.every("an unknown topic", |side, _| DescribeLogDirsRequest { topics: Some(vec![of(side, "nowhere", &[0])]) })
}

fn producers(pair: &mut Pair) -> io::Result<()> {
    pair.every("no topic", |_, _| DescribeProducersRequest::default())?;
    for (name, partition_indexes) in [(TOPIC, vec![0, 1, 2, -1]), (TOPIC, Vec::new()), ("nowhere", vec![0])] {
        pair.every(&format!("{name} {partition_indexes:?}"), |side, _| DescribeProducersRequest {
            topics: vec![DescribeProducersTopic {
                name: side.name(name),
                partition_indexes: partition_indexes.clone(),
            }],
        })?;
    }
    for name in ["", "a/b"] {
        pair.every(&format!("the topic {name:?}"), |_, _| DescribeProducersRequest {
            topics: vec![DescribeProducersTopic { name: name.into(), partition_indexes: vec![0] }],
        })?;
    }
    Ok(())
}

fn quorum(pair: &mut Pair) -> io::Result<()> {
    let of = |topic: &str, indexes: &[i32]| DescribeQuorumTopic {
        topic_name: topic.to_owned().into(),
        partitions: indexes.iter().map(|&partition_index| DescribeQuorumPartition { partition_index }).collect(),
    };
    pair.every("no topic", |_, _| DescribeQuorumRequest::default())?;
    for (topic, indexes) in [("__cluster_metadata", &[0][..]), ("__cluster_metadata", &[1]), ("other", &[0, 1])] {
        pair.every(&format!("{topic} {indexes:?}"), |_, _| DescribeQuorumRequest { topics: vec![of(topic, indexes)] })?;
    }
    Ok(())
}

fn elections(pair: &mut Pair) -> io::Result<()> {
    for kind in [0, 1, 2, -1] {
        let kind_in = move |version: i16| if version >= 1 { kind } else { 0 };
        let topic = |side: &Side, name: &str, partitions: &[i32]| ElectLeadersTopic {
            topic: side.name(name),
            partitions: partitions.to_vec(),
        };
        for (name, partitions) in [(TOPIC, &[0, 1][..]), (TOPIC, &[5, -1]), (TOPIC, &[]), ("nowhere", &[0])] {
            pair.every(&format!("kind {kind}, {name} {partitions:?}"), |side, version| ElectLeadersRequest {
                election_type: kind_in(version),
                topic_partitions: Some(vec![topic(side, name, partitions)]),
                timeout_ms: 5_000,
            })?;
        }
        pair.every(&format!("kind {kind}, every partition"), |_, version| ElectLeadersRequest {
            election_type: kind_in(version),
            topic_partitions: None,
            timeout_ms: 5_000,
        })?;
    }
    Ok(())
}

fn reassignments(pair: &mut Pair) -> io::Result<()> {
    let to = |side: &Side, name: &str, partition_index, replicas| AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: side.name(name),
            partitions: vec![ReassignablePartition { partition_index, replicas }],
        }],
        ..Default::default()
    };
    pair.every("no topic", |_, _| AlterPartitionReassignmentsRequest::default())?;
    pair.every("where it is", |side, _| to(side, TOPIC, 0, Some(vec![side.node()])))?;
    pair.every("nowhere", |side, _| to(side, TOPIC, 0, Some(Vec::new())))?;
    pair.every("to an unknown node", |side, _| to(side, TOPIC, 0, Some(vec![99])))?;
    pair.every("to a node twice", |side, _| to(side, TOPIC, 0, Some(vec![side.node(); 2])))?;
    pair.every("cancelled", |side, _| to(side, TOPIC, 0, None))?;
    pair.every("an unknown partition", |side, _| to(side, TOPIC, 9, Some(vec![side.node()])))?;
    pair.every("an unknown topic", |side, _| to(side, "nowhere", 0, None))?;
    pair.every("of every topic", |_, _| ListPartitionReassignmentsRequest::default())?;
    for name in [TOPIC, "nowhere"] {
        pair.every(&format!("of {name}"), |side, _| ListPartitionReassignmentsRequest {
            topics: Some(vec![ListPartitionReassignmentsTopics {
                name: side.name(name),
                partition_indexes: vec![0, 7],
            }]),
            ..Default::default()
        })?;
    }
    Ok(())
}

fn features(pair: &mut Pair) -> io::Result<()> {
    pair.every("no feature", |_, _| UpdateFeaturesRequest::default())?;
    pair.every("an unknown feature", |_, _| UpdateFeaturesRequest {
        feature_updates: vec![FeatureUpdateKey {
            feature: "nothing".into(),
            max_version_level: 1,
            ..Default::default()
        }],
        ..Default::default()
    })
}
