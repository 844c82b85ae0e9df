//! From the names and ids of requests to partitions, by the cluster's image.

use super::errors::PartitionError;
use crate::control::{ClusterImage, Node, TopicImage};
use millrace_storage::ids::{TopicId, TopicPartition};
use uuid::Uuid;

/// The partition `index` of the topic called `name`.
pub(crate) fn by_name(image: &ClusterImage, name: &str, index: i32) -> Result<TopicPartition, PartitionError> {
    partition_of(image.topics.get(name).ok_or(PartitionError::UnknownName)?, index)
}

/// The partition `index` of the topic with this id.
pub(crate) fn by_id(image: &ClusterImage, id: Uuid, index: i32) -> Result<TopicPartition, PartitionError> {
    partition_of(topic_by_id(image, id).ok_or(PartitionError::UnknownId)?, index)
}

/// The topic with this id.
pub(crate) fn topic_by_id(image: &ClusterImage, id: Uuid) -> Option<&TopicImage> {
    let name = image.names.get(&TopicId(id))?;
    image.topics.get(name).map(|topic| &**topic).filter(|topic| topic.id.0 == id)
}

fn partition_of(topic: &TopicImage, index: i32) -> Result<TopicPartition, PartitionError> {
    let index = u32::try_from(index).map_err(|_| PartitionError::UnknownName)?;
    if topic.deleting || index as usize >= topic.partitions.len() {
        return Err(PartitionError::UnknownName);
    }
    Ok(TopicPartition { topic: topic.id, index })
}

/// Who leads instead (KIP-951): node id, leader epoch and address, if the error says that we do not and the image knows
/// of another. Its epoch is newer than any that we led at, or else the client ignores it.
pub(crate) fn leader_hint(
    image: &ClusterImage,
    own_node: i32,
    partition: TopicPartition,
    error: PartitionError,
) -> Option<(i32, i32, &Node)> {
    if !matches!(error, PartitionError::NotLeader | PartitionError::FencedEpoch) {
        return None;
    }
    let topic = image.topics.get(image.names.get(&partition.topic)?)?;
    let led = topic.partitions.get(partition.index as usize)?;
    let leader = led.leader.filter(|leader| *leader != own_node)?;
    Some((leader, led.epoch.0, image.nodes.get(&leader)?))
}
