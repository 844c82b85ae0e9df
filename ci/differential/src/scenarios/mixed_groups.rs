//! Groups that change between the protocols while they have members, and the members of both protocols in them.
//!
//! The topic has one partition: it stays where it is whatever the brokers' assignors prefer.

use super::alone;
use super::consumer_groups::commit_and_fetch;
use crate::pair::{Pair, Side, versions};
use bytes::{BufMut, Bytes, BytesMut};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::leave_group::MemberIdentity;
use millrace_protocol::messages::sync_group::SyncGroupRequestAssignment;
use millrace_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DescribeGroupsRequest, HeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, SyncGroupRequest,
};
use std::io;

const TOPIC: &str = "mixed";
/// The member of the consumer protocol.
const MODERN: &str = "modern";
const INSTANCE: &str = "mixed-instance";

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 1)?;
    there_and_back(pair)?;
    one_of_two_leaves(pair)?;
    refused_joins(pair)?;
    refused_changes(pair)?;
    taken_out(pair)?;
    static_member(pair)
}

/// A subscription of version 1: topics, and the partitions of the first that the member has.
fn subscription(side: &Side, owned: &[i32]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    put_topics(&mut bytes, side, &[]);
    bytes.put_i32(-1);
    match owned {
        [] => bytes.put_i32(0),
        owned => put_topics(&mut bytes, side, owned),
    }
    bytes.freeze()
}

/// One topic; with its partitions if there are any.
fn put_topics(bytes: &mut BytesMut, side: &Side, partitions: &[i32]) {
    let name = side.name(TOPIC);
    bytes.put_i32(1);
    bytes.put_i16(name.len().try_into().expect("a short name"));
    bytes.put_slice(name.as_bytes());
    if !partitions.is_empty() {
        bytes.put_i32(partitions.len().try_into().expect("few"));
        partitions.iter().for_each(|index| bytes.put_i32(*index));
    }
}

/// The assignment of the only partition, with an assignor's own bytes.
fn assignment(side: &Side, user_data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    put_topics(&mut bytes, side, &[0]);
    bytes.put_i32(user_data.len().try_into().expect("short"));
    bytes.put_slice(user_data);
    bytes.freeze()
}

fn joining(side: &Side, group: &str, member: StrBytes, owned: &[i32]) -> JoinGroupRequest {
    let protocol =
        |name: &'static str| JoinGroupRequestProtocol { name: name.into(), metadata: subscription(side, owned) };
    JoinGroupRequest {
        group_id: side.name(group),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range"), protocol("cooperative-sticky")],
        ..Default::default()
    }
}

fn syncing(side: &Side, group: &str, generation_id: i32) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: side.name(group),
        generation_id,
        member_id: side.member.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        ..Default::default()
    }
}

fn beating(side: &Side, group: &str, generation_id: i32) -> HeartbeatRequest {
    HeartbeatRequest { group_id: side.name(group), generation_id, member_id: side.member.clone(), ..Default::default() }
}

fn modern(side: &Side, group: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: side.name(group),
        member_id: MODERN.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec![side.name(TOPIC)]),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

fn leaving(side: &Side, group: &str, leavers: &[(Option<StrBytes>, Option<&'static str>)]) -> LeaveGroupRequest {
    let leaver = |(member, instance): &(Option<StrBytes>, Option<&'static str>)| MemberIdentity {
        member_id: member.clone().unwrap_or_default(),
        group_instance_id: instance.map(Into::into),
        reason: None,
    };
    LeaveGroupRequest {
        group_id: side.name(group),
        members: leavers.iter().map(leaver).collect(),
        ..Default::default()
    }
}

/// A stable classic group of one member, which has the partition.
fn classic_group(pair: &mut Pair, group: &str, user_data: &'static [u8]) -> io::Result<()> {
    let joined = pair.ask("a classic member", 3, |side| joining(side, group, StrBytes::new(), &[]))?;
    joined.keep(pair, |side, answer| side.member = answer.member_id);
    pair.ask("a classic leader", 5, |side| SyncGroupRequest {
        assignments: vec![SyncGroupRequestAssignment {
            member_id: side.member.clone(),
            assignment: assignment(side, user_data),
        }],
        ..syncing(side, group, 1)
    })?;
    Ok(())
}

fn described(pair: &mut Pair, group: &str, state: &str) -> io::Result<()> {
    pair.every(&format!("a mixed group {state}"), |side, _| ConsumerGroupDescribeRequest {
        group_ids: vec![side.name(group)],
        ..Default::default()
    })?;
    pair.ask(&format!("a mixed group {state}"), 6, |side| DescribeGroupsRequest {
        groups: vec![side.name(group)],
        ..Default::default()
    })?;
    for kind in ["classic", "consumer"] {
        let request = |_: &Side| ListGroupsRequest { types_filter: vec![kind.into()], ..Default::default() };
        pair.ask_and_clean(&format!("{kind}, a mixed group {state}"), 5, request, alone(group))?;
    }
    Ok(())
}

/// A classic member, beside which a member of the consumer protocol comes and goes.
fn there_and_back(pair: &mut Pair) -> io::Result<()> {
    const GROUP: &str = "there-and-back";
    classic_group(pair, GROUP, &[])?;
    pair.ask("into a classic group", 1, |side| modern(side, GROUP, 0))?;
    described(pair, GROUP, "that changed over")?;
    for generation in [1, 2, 3, 0, -1] {
        pair.every(&format!("a classic member beside another, generation {generation}"), |side, _| {
            beating(side, GROUP, generation)
        })?;
        pair.ask(&format!("a classic member beside another, generation {generation}"), 5, |side| {
            syncing(side, GROUP, generation)
        })?;
        offsets(pair, GROUP, generation)?;
    }
    pair.ask("a classic member joins again", 9, |side| joining(side, GROUP, side.member.clone(), &[0]))?;
    for generation in [1, 2] {
        pair.ask(&format!("a classic member syncs, generation {generation}"), 5, |side| {
            syncing(side, GROUP, generation)
        })?;
        pair.every(&format!("a classic member that synced, generation {generation}"), |side, _| {
            beating(side, GROUP, generation)
        })?;
    }
    for (case, kind, protocol) in [("type", "connect", "range"), ("protocol", "consumer", "cooperative-sticky")] {
        pair.ask(&format!("another {case} beside others"), 5, |side| SyncGroupRequest {
            protocol_type: Some(kind.into()),
            protocol_name: Some(protocol.into()),
            ..syncing(side, GROUP, 2)
        })?;
    }
    pair.ask("the classic member's id by a heartbeat of its own", 1, |side| ConsumerGroupHeartbeatRequest {
        member_id: side.member.clone(),
        topic_partitions: None,
        ..modern(side, GROUP, 7)
    })?;
    pair.every("the other's id by a classic heartbeat", |side, _| HeartbeatRequest {
        member_id: MODERN.into(),
        ..beating(side, GROUP, 2)
    })?;
    pair.ask("the other's id by a sync", 5, |side| SyncGroupRequest {
        member_id: MODERN.into(),
        ..syncing(side, GROUP, 2)
    })?;
    described(pair, GROUP, "that is settled")?;
    pair.ask("out of a mixed group", 1, |side| modern(side, GROUP, -1))?;
    described(pair, GROUP, "that changed back")?;
    for generation in [1, 2, 3] {
        pair.every(&format!("a classic member that is left, generation {generation}"), |side, _| {
            beating(side, GROUP, generation)
        })?;
    }
    pair.ask("a classic member that is left joins again", 9, |side| joining(side, GROUP, side.member.clone(), &[0]))?;
    pair.ask("a classic member that is left leaves", 5, |side| {
        leaving(side, GROUP, &[(Some(side.member.clone()), None)])
    })?;
    Ok(())
}

/// Members of the consumer protocol leave a group one by one, in which a classic member is too.
fn one_of_two_leaves(pair: &mut Pair) -> io::Result<()> {
    const GROUP: &str = "one-of-two-leaves";
    pair.ask("the first of two", 1, |side| modern(side, GROUP, 0))?;
    let second =
        |side: &Side, epoch| ConsumerGroupHeartbeatRequest { member_id: "second".into(), ..modern(side, GROUP, epoch) };
    pair.ask("the second of two", 1, |side| second(side, 0))?;
    let joined = pair.ask("a classic member beside two", 3, |side| joining(side, GROUP, StrBytes::new(), &[]))?;
    joined.keep(pair, |side, answer| side.member = answer.member_id);
    pair.ask("a classic member beside two syncs", 5, |side| syncing(side, GROUP, 4))?;
    pair.ask("a classic member beside two, at its generation", 4, |side| beating(side, GROUP, 4))?;
    pair.ask("the second of two leaves", 1, |side| second(side, -1))?;
    pair.ask("a classic member beside one that is left", 4, |side| beating(side, GROUP, 4))?;
    pair.ask("a classic member beside one that is left syncs", 5, |side| syncing(side, GROUP, 4))?;
    pair.ask("a classic member beside one that is left joins again", 9, |side| {
        joining(side, GROUP, side.member.clone(), &[])
    })?;
    pair.ask("a classic member beside one that is left, at its next generation", 4, |side| beating(side, GROUP, 5))?;
    pair.ask("the classic member beside one leaves", 5, |side| {
        leaving(side, GROUP, &[(Some(side.member.clone()), None)])
    })?;
    pair.ask("the one that is left leaves", 1, |side| modern(side, GROUP, -1))?;
    Ok(())
}

/// Offsets of the classic member of a mixed group.
fn offsets(pair: &mut Pair, group: &str, generation: i32) -> io::Result<()> {
    let case = format!("a classic member beside another, generation {generation}");
    commit_and_fetch(pair, &case, [7, 9], (group, TOPIC), |side| side.member.clone(), generation)
}

/// Classic members that join a group of the consumer protocol, and may not, or not yet.
fn refused_joins(pair: &mut Pair) -> io::Result<()> {
    const GROUP: &str = "joined-by-classic";
    pair.ask("the first of a group", 1, |side| modern(side, GROUP, 0))?;
    for version in versions::<JoinGroupRequest>().filter(|version| *version >= 4) {
        pair.ask("a classic member without an id", version, |side| joining(side, GROUP, StrBytes::new(), &[]))?;
    }
    pair.every("another protocol type beside consumers", |side, _| JoinGroupRequest {
        protocol_type: "connect".into(),
        ..joining(side, GROUP, "someone".into(), &[])
    })?;
    pair.every("no protocols beside consumers", |side, _| JoinGroupRequest {
        protocols: Vec::new(),
        ..joining(side, GROUP, "someone".into(), &[])
    })?;
    pair.every("no subscription beside consumers", |side, _| JoinGroupRequest {
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"x") }],
        ..joining(side, GROUP, "someone".into(), &[])
    })?;
    pair.ask("an unknown instance beside consumers", 9, |side| JoinGroupRequest {
        group_instance_id: Some(INSTANCE.into()),
        ..joining(side, GROUP, "someone".into(), &[])
    })?;
    let joined = pair.ask("a classic member beside consumers", 3, |side| joining(side, GROUP, StrBytes::new(), &[]))?;
    joined.keep(pair, |side, answer| side.member = answer.member_id);
    pair.ask("other protocols beside a classic member", 9, |side| JoinGroupRequest {
        protocols: vec![JoinGroupRequestProtocol { name: "other".into(), metadata: subscription(side, &[]) }],
        ..joining(side, GROUP, "someone".into(), &[])
    })?;
    pair.ask("the classic member leaves", 5, |side| leaving(side, GROUP, &[(Some(side.member.clone()), None)]))?;
    pair.ask("the last leaves", 1, |side| modern(side, GROUP, -1))?;
    Ok(())
}

/// Classic groups that do not change over.
fn refused_changes(pair: &mut Pair) -> io::Result<()> {
    const CUSTOM: &str = "of-a-custom-assignor";
    classic_group(pair, CUSTOM, b"more")?;
    pair.ask("into a group of a custom assignor", 1, |side| modern(side, CUSTOM, 0))?;
    pair.ask("it is as it was", 4, |side| beating(side, CUSTOM, 1))?;
    pair.ask("its member leaves", 5, |side| leaving(side, CUSTOM, &[(Some(side.member.clone()), None)]))?;
    const CONNECT: &str = "of-another-type";
    let joined = pair.ask("a member of another type", 3, |side| JoinGroupRequest {
        protocol_type: "connect".into(),
        ..joining(side, CONNECT, StrBytes::new(), &[])
    })?;
    joined.keep(pair, |side, answer| side.member = answer.member_id);
    pair.ask("into a group of another type", 1, |side| modern(side, CONNECT, 0))?;
    pair.ask("a heartbeat into a group of another type", 1, |side| modern(side, CONNECT, 1))?;
    pair.ask("a leave from a group of another type", 1, |side| modern(side, CONNECT, -1))?;
    pair.ask("its member leaves", 5, |side| leaving(side, CONNECT, &[(Some(side.member.clone()), None)]))?;
    pair.ask("into an empty group of another type", 1, |side| modern(side, CONNECT, 0))?;
    pair.ask("out of it", 1, |side| modern(side, CONNECT, -1))?;
    Ok(())
}

/// What an operator's LeaveGroup does to members of the consumer protocol.
fn taken_out(pair: &mut Pair) -> io::Result<()> {
    const GROUP: &str = "taken-out";
    let named = |member: &'static str| Some(StrBytes::from_static(member));
    pair.ask("one of a group", 1, |side| ConsumerGroupHeartbeatRequest {
        instance_id: Some(INSTANCE.into()),
        ..modern(side, GROUP, 0)
    })?;
    pair.ask("another of a group", 1, |side| ConsumerGroupHeartbeatRequest {
        member_id: "second".into(),
        ..modern(side, GROUP, 0)
    })?;
    pair.every("an unknown member of a consumer group", |side, version| LeaveGroupRequest {
        member_id: if version < 3 { "someone".into() } else { StrBytes::new() },
        members: if version < 3 { Vec::new() } else { leaving(side, GROUP, &[(named("someone"), None)]).members },
        group_id: side.name(GROUP),
    })?;
    pair.ask("an instance of another member", 5, |side| {
        leaving(side, GROUP, &[(named("second"), Some(INSTANCE)), (None, Some("someone")), (None, None)])
    })?;
    described(pair, GROUP, "that nobody left")?;
    pair.ask("members of a consumer group", 5, |side| {
        leaving(side, GROUP, &[(None, Some(INSTANCE)), (named("second"), None), (named("second"), None)])
    })?;
    described(pair, GROUP, "that all were taken out of")?;
    pair.ask("one that was taken out", 1, |side| modern(side, GROUP, 2))?;
    Ok(())
}

/// A member with an instance id that changes its protocol.
fn static_member(pair: &mut Pair) -> io::Result<()> {
    const GROUP: &str = "mixed-static";
    let classic = |side: &Side, member: StrBytes, owned: &[i32]| JoinGroupRequest {
        group_instance_id: Some(INSTANCE.into()),
        ..joining(side, GROUP, member, owned)
    };
    let consumer = |side: &Side, epoch: i32| ConsumerGroupHeartbeatRequest {
        instance_id: Some(INSTANCE.into()),
        ..modern(side, GROUP, epoch)
    };
    let joined = pair.ask("a static classic member", 9, |side| classic(side, StrBytes::new(), &[]))?;
    joined.keep(pair, |side, answer| side.member = answer.member_id);
    pair.ask("a static classic leader", 5, |side| SyncGroupRequest {
        group_instance_id: Some(INSTANCE.into()),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: side.member.clone(),
            assignment: assignment(side, &[]),
        }],
        ..syncing(side, GROUP, 1)
    })?;
    pair.ask("a static member changes over", 1, |side| consumer(side, 0))?;
    described(pair, GROUP, "whose static member changed over")?;
    pair.ask("its former self", 4, |side| HeartbeatRequest {
        group_instance_id: Some(INSTANCE.into()),
        ..beating(side, GROUP, 1)
    })?;
    pair.ask("its former self joins", 9, |side| classic(side, side.member.clone(), &[]))?;
    let joined = pair.ask("a static member changes back", 9, |side| classic(side, StrBytes::new(), &[]))?;
    joined.keep(pair, |side, answer| side.member = answer.member_id);
    described(pair, GROUP, "whose static member changed back")?;
    for generation in [1, 2] {
        pair.ask(&format!("a static member syncs, generation {generation}"), 5, |side| SyncGroupRequest {
            group_instance_id: Some(INSTANCE.into()),
            ..syncing(side, GROUP, generation)
        })?;
    }
    pair.ask("a static member is taken out", 5, |side| leaving(side, GROUP, &[(None, Some(INSTANCE))]))?;
    Ok(())
}
