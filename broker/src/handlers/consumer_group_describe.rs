//! ConsumerGroupDescribe: state, members and assignments of groups of the consumer protocol (KIP-848).

use super::{RequestContext, message, operations};
use crate::control::ClusterImage;
use crate::groups::consumer::Partitions;
use crate::groups::consumer::view::{ConsumerGroupView, ConsumerMemberView};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::consumer_group_describe::{
    DescribedAssignment, DescribedConsumerGroup, DescribedConsumerMember, DescribedTopicPartitions,
};
use millrace_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use std::collections::BTreeSet;

/// The numbers of members that speak the classic protocol, and of those that speak this one.
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;

/// Describes each group.
pub(crate) fn handle(core: &mut ShardCore, _: Now, context: RequestContext, request: ConsumerGroupDescribeRequest) {
    // A group that is named many times is described once: its description may be long.
    let mut seen = BTreeSet::new();
    let groups = request.group_ids.into_iter().filter(|name| seen.insert(name.clone())).map(|name| {
        match core.groups.coordinator.describe_consumers(&name) {
            Ok(view) => {
                let mut described = DescribedConsumerGroup { group_id: name, ..describe(&core.image, view) };
                if request.include_authorized_operations {
                    described.authorized_operations = operations::ON_GROUP;
                }
                described
            }
            Err((error_code, text)) => DescribedConsumerGroup {
                error_code,
                error_message: text.map(message),
                group_id: name,
                ..Default::default()
            },
        }
    });
    let groups = groups.collect();
    context.reply(core, &ConsumerGroupDescribeResponse { groups, ..Default::default() });
}

fn describe(image: &ClusterImage, view: ConsumerGroupView) -> DescribedConsumerGroup {
    let member = |member: ConsumerMemberView| DescribedConsumerMember {
        assignment: assignment(image, &member.assigned),
        target_assignment: assignment(image, &member.target),
        member_id: member.member.into(),
        instance_id: member.instance.map(StrBytes::from),
        rack_id: member.rack.map(StrBytes::from),
        member_epoch: member.epoch,
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        subscribed_topic_names: member.topics.into_iter().map(StrBytes::from).collect(),
        // None is told as an empty one, as Kafka tells it.
        subscribed_topic_regex: Some(StrBytes::from(member.regex.unwrap_or_default())),
        member_type: if member.is_classic { CLASSIC } else { CONSUMER },
    };
    DescribedConsumerGroup {
        group_state: StrBytes::from_static(view.state),
        group_epoch: view.epoch,
        assignment_epoch: view.assignment_epoch,
        assignor_name: StrBytes::from_static(view.assignor),
        members: view.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}

/// Topics that are gone have no name, and are left out as Kafka leaves them out.
fn assignment(image: &ClusterImage, partitions: &Partitions) -> DescribedAssignment {
    let mut topics: Vec<DescribedTopicPartitions> = Vec::new();
    // Partitions come topic by topic.
    for partition in partitions {
        let Some(name) = image.names.get(&partition.topic) else { continue };
        let index = i32::try_from(partition.index).expect("a topic has at most 2^31 partitions");
        match topics.last_mut().filter(|topic| topic.topic_id == partition.topic.0) {
            Some(topic) => topic.partitions.push(index),
            None => topics.push(DescribedTopicPartitions {
                topic_id: partition.topic.0,
                topic_name: StrBytes::from(name.as_str()),
                partitions: vec![index],
            }),
        }
    }
    DescribedAssignment { topic_partitions: topics }
}
