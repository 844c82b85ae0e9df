//! OffsetDelete: takes committed offsets from a group, durably when answered (KIP-496).

use super::errors::partition_error;
use super::group_desk::Held;
use super::{RequestContext, topics};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::offset_delete::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use millrace_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

/// The response but for the code of the partitions that the coordinator decides: NONE.
#[derive(Debug)]
pub(crate) struct Asked(Vec<OffsetDeleteResponseTopic>);

/// Refuses what no offset can be deleted of, hands the rest to the coordinator.
pub(crate) fn handle(core: &mut ShardCore, _now: Now, context: RequestContext, request: OffsetDeleteRequest) {
    let group = request.group_id;
    let mut partitions = Vec::new();
    let mut asked = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        if topic.partitions.is_empty() && core.image.topics.contains_key(&*topic.name) {
            // Nothing was asked of it, and as in Kafka nothing is said.
            continue;
        }
        let subscribed = core.groups.coordinator.subscribes(&group, &topic.name);
        let decide = |index: i32| match topics::by_name(&core.image, &topic.name, index) {
            Err(error) => partition_error(error),
            Ok(_) if subscribed => ErrorCode::GroupSubscribedToTopic,
            Ok(partition) => {
                partitions.push(partition);
                ErrorCode::None
            }
        };
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let codes: Vec<_> = indexes.clone().map(decide).collect();
        let results = indexes.zip(codes);
        asked.push(OffsetDeleteResponseTopic {
            name: topic.name.detached(),
            partitions: results
                .map(|(partition_index, error_code)| OffsetDeleteResponsePartition { partition_index, error_code })
                .collect(),
        });
    }
    let ticket = core.groups.hold(Held::DeleteOffsets(context, Asked(asked)));
    core.groups.coordinator.delete_offsets(ticket, &group, partitions);
    core.settle_groups();
}

pub(crate) fn reply(core: &mut ShardCore, context: RequestContext, asked: Asked, decided: ErrorCode) {
    // What is wrong with the group is said once, without its partitions.
    let topics = if decided.is_none() { asked.0 } else { Vec::new() };
    context.reply(core, &OffsetDeleteResponse { error_code: decided, topics, ..Default::default() });
}
