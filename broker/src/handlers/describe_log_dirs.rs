//! DescribeLogDirs: the bytes that are stored of the partitions that this node leads. There is one place, the store.
//!
//! Sizes are those of the batches in write-ahead objects, and of segments once retention has read what they hold; the size
//! of the store itself is not known.

use super::{RequestContext, topics};
use crate::control::ClusterImage;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use millrace_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};

/// The name of the one place.
const PLACE: &str = "/millrace/store";

/// Answers for the partitions asked for, or for all.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: DescribeLogDirsRequest) {
    let wanted = request.topics.map(|topics| {
        let named = topics.iter().flat_map(|topic| {
            let indexes = topic.partitions.iter();
            indexes.filter_map(|index| topics::by_name(&core.image, &topic.topic, *index).ok())
        });
        named.collect::<BTreeSet<TopicPartition>>()
    });
    let mut by_topic: BTreeMap<&str, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (partition, log) in &core.logs {
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(partition)) {
            continue;
        }
        let Some(name) = name_of(&core.image, partition) else { continue };
        let size: u64 = match log.pieces() {
            Some(pieces) => pieces.map(|piece| piece.bytes).sum(),
            None => log.references().iter().map(|reference| u64::from(reference.length)).sum(),
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

fn name_of<'a>(image: &'a ClusterImage, partition: &TopicPartition) -> Option<&'a str> {
    image.names.get(&partition.topic).map(String::as_str)
}
