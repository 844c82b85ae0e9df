//! OffsetCommit: how far a group has read, durable when answered.

use super::errors::partition_error;
use super::group_desk::Held;
use super::{RequestContext, topics};
use crate::groups::{Caller, CommittedOffset};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::offset_commit::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use millrace_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

/// First version that speaks of member epochs (KIP-848).
const MEMBER_EPOCHS: i16 = 9;
/// First version that names topics by id.
const TOPIC_IDS: i16 = 10;
/// The retention time that leaves it to the broker.
const BROKERS_RETENTION: i64 = -1;

/// The response but for the code of the partitions that the coordinator decides: `None`.
#[derive(Debug)]
pub(crate) struct Asked(Vec<AskedTopic>);

#[derive(Debug)]
struct AskedTopic {
    name: StrBytes,
    id: uuid::Uuid,
    partitions: Vec<(i32, Option<ErrorCode>)>,
}

/// Refuses what no group can commit to, hands the rest to the coordinator.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: OffsetCommitRequest) {
    let metadata_limit = core.groups.coordinator.metadata_limit();
    let image = core.image.clone();
    let own_retention = Some(request.retention_time_ms).filter(|retention| *retention != BROKERS_RETENTION);
    let expires_at = own_retention.map(|retention| now.wall.0.saturating_add(retention));
    let mut offsets = Vec::new();
    let mut asked = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let found = if context.version < TOPIC_IDS {
                topics::by_name(&image, &topic.name, index)
            } else {
                topics::by_id(&image, topic.topic_id, index)
            };
            let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
            let refused = match found {
                Err(error) => Some(partition_error(error)),
                Ok(_) if metadata.len() > metadata_limit => Some(ErrorCode::OffsetMetadataTooLarge),
                Ok(found) => {
                    let value = CommittedOffset {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: metadata.to_owned(),
                        committed_at: now.wall.0,
                        expires_at,
                    };
                    offsets.push((found, value));
                    None
                }
            };
            partitions.push((index, refused));
        }
        asked.push(AskedTopic { name: topic.name.detached(), id: topic.topic_id, partitions });
    }
    let caller = Caller {
        member: request.member_id.as_str().to_owned(),
        instance: request.group_instance_id.as_deref().map(str::to_owned),
        generation: request.generation_id_or_member_epoch,
    };
    let ticket = core.groups.hold(Held::Commit(context, Asked(asked)));
    core.groups.coordinator.commit(
        now.mono,
        ticket,
        &request.group_id,
        &caller,
        context.version >= MEMBER_EPOCHS,
        offsets,
    );
    core.settle_groups();
}

pub(crate) fn reply(core: &mut ShardCore, context: RequestContext, asked: Asked, decided: ErrorCode) {
    let topics = asked.0.into_iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.id,
        partitions: topic
            .partitions
            .into_iter()
            .map(|(partition_index, refused)| OffsetCommitResponsePartition {
                partition_index,
                error_code: refused.unwrap_or(decided),
            })
            .collect(),
    });
    let response = OffsetCommitResponse { topics: topics.collect(), ..Default::default() };
    context.reply(core, &response);
}
