//! Groups of the consumer protocol (KIP-848): a member's life, two members that share, and what is wrong in each state.

use super::alone;
use crate::pair::{Pair, Side};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::consumer_group_heartbeat::OwnedTopicPartitions;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use millrace_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DescribeGroupsRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use std::io;

const GROUP: &str = "consumers";
const TOPIC: &str = "consumed";
const PARTITIONS: i32 = 4;
/// The member that is there first, and the one that comes to it.
const FIRST: &str = "first";
const SECOND: &str = "second";

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, PARTITIONS)?;
    refused(pair)?;
    life(pair)?;
    static_member(pair)
}

/// The first heartbeat of a member, with all that it must say.
fn joining(side: &Side, group: &str, member: &'static str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: side.name(group),
        member_id: member.into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![side.name(TOPIC)]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

/// A later one; `None`: nothing is said of what it owns.
fn beating(side: &Side, member: &'static str, epoch: i32, owned: Option<&[i32]>) -> ConsumerGroupHeartbeatRequest {
    let partitions = |owned: &[i32]| match owned {
        [] => Vec::new(),
        owned => vec![OwnedTopicPartitions { topic_id: side.id(TOPIC), partitions: owned.to_vec() }],
    };
    ConsumerGroupHeartbeatRequest {
        group_id: side.name(GROUP),
        member_id: member.into(),
        member_epoch: epoch,
        topic_partitions: owned.map(partitions),
        ..Default::default()
    }
}

fn refused(pair: &mut Pair) -> io::Result<()> {
    let join = |side: &Side| joining(side, "refused", FIRST);
    pair.every("no group id", |side, _| ConsumerGroupHeartbeatRequest { group_id: StrBytes::new(), ..join(side) })?;
    pair.ask("no member id", 1, |side| ConsumerGroupHeartbeatRequest { member_id: StrBytes::new(), ..join(side) })?;
    pair.every("no member id, epoch 1", |side, _| ConsumerGroupHeartbeatRequest {
        member_id: StrBytes::new(),
        member_epoch: 1,
        ..join(side)
    })?;
    pair.every("an empty instance id", |side, _| ConsumerGroupHeartbeatRequest {
        instance_id: Some(StrBytes::new()),
        ..join(side)
    })?;
    pair.every("an empty rack", |side, _| ConsumerGroupHeartbeatRequest {
        rack_id: Some(StrBytes::new()),
        ..join(side)
    })?;
    pair.every("no rebalance timeout", |side, _| ConsumerGroupHeartbeatRequest {
        rebalance_timeout_ms: -1,
        ..join(side)
    })?;
    pair.every("no partitions", |side, _| ConsumerGroupHeartbeatRequest { topic_partitions: None, ..join(side) })?;
    pair.every("no subscription", |side, _| ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        ..join(side)
    })?;
    pair.every("an unknown assignor", |side, _| ConsumerGroupHeartbeatRequest {
        server_assignor: Some("nonsense".into()),
        ..join(side)
    })?;
    pair.ask("a broken expression", 1, |side| ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("(".into()),
        ..join(side)
    })?;
    for epoch in [1, -1, -2, -3, i32::MAX, i32::MIN] {
        pair.every(&format!("an unheard-of group, epoch {epoch}"), |side, _| ConsumerGroupHeartbeatRequest {
            member_epoch: epoch,
            ..joining(side, "unheard-of", FIRST)
        })?;
    }
    pair.every("an unheard-of group", |side, _| ConsumerGroupDescribeRequest {
        group_ids: vec![side.name("unheard-of")],
        include_authorized_operations: true,
    })?;
    pair.every("no name", |_, _| ConsumerGroupDescribeRequest {
        group_ids: vec![StrBytes::new()],
        ..Default::default()
    })
}

/// Two members, the first of which gives half of what it has to the second; then both leave.
fn life(pair: &mut Pair) -> io::Result<()> {
    pair.ask("a first member joins", 1, |side| joining(side, GROUP, FIRST))?;
    described(pair, "with a member")?;
    for epoch in [1, 3, i32::MAX] {
        pair.every(&format!("a member, epoch {epoch}"), |side, _| beating(side, FIRST, epoch, None))?;
    }
    pair.every("a member keeps up", |side, _| beating(side, FIRST, 2, Some(&[0, 1, 2, 3])))?;
    pair.every("a member keeps up and says no more", |side, _| beating(side, FIRST, 2, None))?;
    pair.every("an unknown member", |side, _| beating(side, "someone", 1, None))?;
    pair.every("an unknown member leaves", |side, _| beating(side, "someone", -1, None))?;
    pair.every("an unknown instance", |side, _| ConsumerGroupHeartbeatRequest {
        instance_id: Some("instance".into()),
        ..beating(side, FIRST, 2, None)
    })?;
    commits(pair)?;
    pair.every("with a member", |side, _| DeleteGroupsRequest { groups_names: vec![side.name(GROUP)] })?;
    pair.ask("a member leaves", 1, |side| beating(side, FIRST, -1, None))?;
    pair.every("a member that left", |side, _| beating(side, FIRST, 2, None))?;
    described(pair, "that its member left")?;
    pair.ask("a second member joins the empty group", 1, |side| joining(side, GROUP, SECOND))?;
    pair.ask("the second member leaves", 1, |side| beating(side, SECOND, -1, None))?;
    pair.ask("an empty group", 2, |side| DeleteGroupsRequest { groups_names: vec![side.name(GROUP)] })?;
    described(pair, "that is deleted")
}

fn described(pair: &mut Pair, state: &str) -> io::Result<()> {
    for version in [0, 1] {
        pair.settle(&format!("a consumer group {state}"), version, |side| ConsumerGroupDescribeRequest {
            group_ids: vec![side.name(GROUP)],
            include_authorized_operations: true,
        })?;
    }
    for version in [4, 5, 6] {
        pair.settle(&format!("a consumer group {state}"), version, |side| DescribeGroupsRequest {
            groups: vec![side.name(GROUP)],
            ..Default::default()
        })?;
    }
    for kind in ["consumer", "Consumer", "classic"] {
        let request = |_: &Side| ListGroupsRequest { types_filter: vec![kind.into()], ..Default::default() };
        pair.settle_and_clean(&format!("{kind}, a consumer group {state}"), 5, request, alone(GROUP))?;
    }
    Ok(())
}

/// Commits and fetches of offsets by members and others.
fn commits(pair: &mut Pair) -> io::Result<()> {
    for (member, epoch) in
        [(FIRST, 2), (FIRST, 0), (FIRST, 1), (FIRST, 3), (FIRST, -1), ("someone", 1), ("", -1), ("", 1)]
    {
        let case = format!("a consumer group, member {member:?}, epoch {epoch}");
        commit_and_fetch(pair, &case, [8, 9], (GROUP, TOPIC), |_| member.into(), epoch)?;
    }
    Ok(())
}

/// Offset 7 committed to partition 0 of a topic, and asked for, by a member of a group, or by nobody.
pub(super) fn commit_and_fetch(
    pair: &mut Pair,
    case: &str,
    versions: [i16; 2],
    (group, topic): (&str, &str),
    member: impl Fn(&Side) -> StrBytes,
    epoch: i32,
) -> io::Result<()> {
    for version in versions {
        pair.ask(case, version, |side| OffsetCommitRequest {
            group_id: side.name(group),
            member_id: member(side),
            generation_id_or_member_epoch: epoch,
            topics: vec![OffsetCommitRequestTopic {
                name: side.name(topic),
                partitions: vec![OffsetCommitRequestPartition { committed_offset: 7, ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        })?;
    }
    pair.ask(case, 9, |side| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: side.name(group),
            member_id: Some(member(side)).filter(|member| !member.is_empty()),
            member_epoch: epoch,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: side.name(topic),
                partition_indexes: vec![0],
                ..Default::default()
            }]),
        }],
        ..Default::default()
    })?;
    Ok(())
}

/// A member with an instance id: it leaves for a while, comes back under another id, and its old self is fenced.
fn static_member(pair: &mut Pair) -> io::Result<()> {
    const GROUP: &str = "static-consumers";
    let of = |side: &Side, member: &'static str, epoch: i32| ConsumerGroupHeartbeatRequest {
        member_epoch: epoch,
        instance_id: Some("instance".into()),
        ..joining(side, GROUP, member)
    };
    pair.ask("a static member joins", 1, |side| of(side, FIRST, 0))?;
    pair.ask("another under its instance", 1, |side| of(side, SECOND, 0))?;
    pair.ask("another under its instance, epoch 1", 1, |side| of(side, SECOND, 1))?;
    pair.ask("another leaves under its instance", 1, |side| of(side, SECOND, -2))?;
    pair.ask("it leaves for a while", 1, |side| of(side, FIRST, -2))?;
    pair.ask("it is back under another id", 1, |side| of(side, SECOND, 0))?;
    pair.ask("its old self", 1, |side| of(side, FIRST, 2))?;
    pair.ask("it leaves for good", 1, |side| of(side, SECOND, -1))?;
    pair.ask("an empty group", 2, |side| DeleteGroupsRequest { groups_names: vec![side.name(GROUP)] })?;
    Ok(())
}
