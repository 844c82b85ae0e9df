//! ConsumerGroupHeartbeat: a member of a group of the consumer protocol joins, keeps up, leaves (KIP-848).

use super::group_desk::Held;
use super::{RequestContext, message};
use crate::groups::consumer::{ConsumerHeartbeat, HeartbeatAnswer, Partitions};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::consumer_group_heartbeat::{
    AssignedTopicPartitions, HeartbeatAssignment, OwnedTopicPartitions,
};
use millrace_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use millrace_storage::ids::{TopicId, TopicPartition};
use std::time::Duration;

/// First version whose members make their ids themselves.
const BRINGS_ID: i16 = 1;

/// Hands the request to the coordinator. What it keeps is copied out of the frame.
pub(crate) fn handle(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    request: ConsumerGroupHeartbeatRequest,
    client_id: Option<StrBytes>,
) {
    let text = |text: &Option<StrBytes>| text.as_deref().map(str::to_owned);
    let topics = request.subscribed_topic_names.as_ref();
    let heartbeat = ConsumerHeartbeat {
        group: request.group_id.as_str().to_owned(),
        member: request.member_id.as_str().to_owned(),
        brings_id: context.version >= BRINGS_ID,
        epoch: request.member_epoch,
        instance: text(&request.instance_id),
        rack: text(&request.rack_id),
        rebalance_timeout: u64::try_from(request.rebalance_timeout_ms).ok().map(Duration::from_millis),
        topics: topics.map(|topics| topics.iter().map(|topic| topic.as_str().to_owned()).collect()),
        regex: text(&request.subscribed_topic_regex),
        assignor: text(&request.server_assignor),
        owned: request.topic_partitions.as_deref().map(partitions),
        client_id: client_id.as_deref().unwrap_or_default().to_owned(),
        client_host: core.host_of(context.reply_to.connection),
    };
    let ticket = core.groups.hold(Held::ConsumerHeartbeat(context));
    core.groups.coordinator.consumer_heartbeat(now.mono, ticket, &heartbeat);
    core.settle_groups();
}

/// Negative indexes name no partition.
fn partitions(owned: &[OwnedTopicPartitions]) -> Partitions {
    let of = |topic: &OwnedTopicPartitions| {
        let id = TopicId(topic.topic_id);
        let indexes = topic.partitions.iter().filter_map(|index| u32::try_from(*index).ok());
        indexes.map(move |index| TopicPartition { topic: id, index }).collect::<Vec<_>>()
    };
    owned.iter().flat_map(of).collect()
}

pub(crate) fn reply(core: &mut ShardCore, context: RequestContext, answer: HeartbeatAnswer) {
    let response = ConsumerGroupHeartbeatResponse {
        error_code: answer.error,
        error_message: answer.message.map(message),
        member_id: answer.member.map(StrBytes::from),
        member_epoch: answer.epoch,
        heartbeat_interval_ms: i32::try_from(answer.interval.as_millis()).expect("an interval of seconds"),
        assignment: answer.assignment.as_ref().map(assignment),
        ..Default::default()
    };
    context.reply(core, &response);
}

fn assignment(partitions: &Partitions) -> HeartbeatAssignment {
    let mut topics: Vec<AssignedTopicPartitions> = Vec::new();
    // Partitions come topic by topic.
    for partition in partitions {
        let index = i32::try_from(partition.index).expect("a topic has at most 2^31 partitions");
        match topics.last_mut().filter(|topic| topic.topic_id == partition.topic.0) {
            Some(topic) => topic.partitions.push(index),
            None => {
                topics.push(AssignedTopicPartitions { topic_id: partition.topic.0, partitions: vec![index] });
            }
        }
    }
    HeartbeatAssignment { topic_partitions: topics }
}
