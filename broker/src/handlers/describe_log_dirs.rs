//! DescribeLogDirs: the bytes that are stored of the partitions that this node leads. There is one place, the store.
//!
//! Sizes are those of the batches in write-ahead objects and of the files of segments; the size of the store itself is not
//! known. Where a manifest must be read first, the answer waits for it (`shard::stored_bytes`).

use super::{RequestContext, topics};
use crate::control::ClusterImage;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use crate::shard::partition_log::PartitionLog;
use crate::shard::stored_bytes::Wanted;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use millrace_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};

/// The name of the one place.
const PLACE: &str = "/millrace/store";

/// Answers for the partitions asked for, or for all, once it is known what their segments hold.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: DescribeLogDirsRequest) {
    let wanted: Wanted = request.topics.map(|topics| {
        let named = topics.iter().flat_map(|topic| {
            let indexes = topic.partitions.iter();
            indexes.filter_map(|index| topics::by_name(&core.image, &topic.topic, *index).ok())
        });
        named.collect()
    });
    let unknown = asked_for(core, wanted.as_ref()).filter(|(_, log)| !log.knows_segments());
    let missing = unknown.map(|(partition, _)| *partition).collect();
    core.await_manifests(now, context, wanted, missing);
}

/// Answers with what is known, and `found` of those of which it is not.
pub(crate) fn answer(
    core: &mut ShardCore,
    context: RequestContext,
    wanted: Option<&BTreeSet<TopicPartition>>,
    found: &BTreeMap<TopicPartition, u64>,
) {
    let mut by_topic: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (partition, log) in asked_for(core, wanted) {
        let Some(name) = name_of(&core.image, partition) else { continue };
        let size = match (log.pieces(), found.get(partition)) {
            (Some(pieces), _) => pieces.map(|piece| piece.bytes).sum(),
            (None, Some(bytes)) => *bytes,
            (None, None) => log.references().iter().map(|reference| u64::from(reference.length)).sum(),
        };
        by_topic.entry(name).or_default().push(DescribeLogDirsPartition {
            partition_index: i32::try_from(partition.index).expect("partitions are counted in i32"),
            partition_size: i64::try_from(size).unwrap_or(i64::MAX),
            offset_lag: 0,
            is_future_key: false,
        });
    }
    let topic = |(name, partitions)| DescribeLogDirsTopic { name: StrBytes::from(name), partitions };
    let place = DescribeLogDirsResult {
        log_dir: StrBytes::from_static(PLACE),
        topics: by_topic.into_iter().map(topic).collect(),
        ..DescribeLogDirsResult::default()
    };
    context.reply(core, &DescribeLogDirsResponse { results: vec![place], ..Default::default() });
}

/// The partitions that this node leads, those of them that are wanted.
fn asked_for<'a>(
    core: &'a ShardCore,
    wanted: Option<&'a BTreeSet<TopicPartition>>,
) -> impl Iterator<Item = (&'a TopicPartition, &'a PartitionLog)> {
    core.logs.iter().filter(move |(partition, _)| wanted.is_none_or(|wanted| wanted.contains(partition)))
}

fn name_of<'a>(image: &'a ClusterImage, partition: &TopicPartition) -> Option<&'a str> {
    image.names.get(&partition.topic).map(String::as_str)
}
