//! Classic groups: a member's life in every version, and what is wrong in each state.

use crate::pair::{Pair, Side, versions};
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::leave_group::MemberIdentity;
use millrace_protocol::messages::sync_group::SyncGroupRequestAssignment;
use millrace_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest,
    ListGroupsRequest, SyncGroupRequest,
};
use std::io;

/// From these versions on: MEMBER_ID_REQUIRED; protocol types in SyncGroup; instances in JoinGroup, SyncGroup and
/// Heartbeat; several leavers.
const MEMBER_ID_REQUIRED: i16 = 4;
const SYNC_NAMES_PROTOCOL: i16 = 5;
const JOIN_INSTANCE: i16 = 5;
const INSTANCE: i16 = 3;
const MANY_LEAVERS: i16 = 3;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    without_group(pair)?;
    refused_joins(pair)?;
    // Joining an empty group takes seconds: three versions stand for those between.
    for version in [0, 4, 9] {
        life(pair, version)?;
    }
    static_member(pair)?;
    listing(pair)
}

fn protocol(name: &'static str) -> JoinGroupRequestProtocol {
    JoinGroupRequestProtocol { name: name.into(), metadata: Bytes::from_static(b"topics") }
}

fn joining(group: StrBytes, member_id: StrBytes) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group,
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range"), protocol("sticky")],
        ..Default::default()
    }
}

fn syncing(group: StrBytes, member_id: StrBytes, generation_id: i32) -> SyncGroupRequest {
    SyncGroupRequest { group_id: group, generation_id, member_id, ..Default::default() }
}

fn beating(group: StrBytes, member_id: StrBytes, generation_id: i32) -> HeartbeatRequest {
    HeartbeatRequest { group_id: group, generation_id, member_id, ..Default::default() }
}

fn leaving(version: i16, group_id: StrBytes, member_id: StrBytes, instance: Option<&'static str>) -> LeaveGroupRequest {
    if version < MANY_LEAVERS {
        return LeaveGroupRequest { group_id, member_id, ..Default::default() };
    }
    let members = vec![MemberIdentity { member_id, group_instance_id: instance.map(Into::into), reason: None }];
    LeaveGroupRequest { group_id, members, ..Default::default() }
}

/// What there is to say where there is no such group, or none at all.
fn without_group(pair: &mut Pair) -> io::Result<()> {
    for (case, group) in [("an unknown group", "nobody"), ("an empty group id", "")] {
        let name = move |side: &Side| if group.is_empty() { StrBytes::new() } else { side.name(group) };
        for member in ["", "someone"] {
            let case = format!("{case}, member {member:?}");
            pair.every(&case, |side, _| beating(name(side), member.into(), 1))?;
            pair.every(&case, |side, _| syncing(name(side), member.into(), 1))?;
            pair.every(&case, |side, version| leaving(version, name(side), member.into(), None))?;
        }
        pair.every(&format!("{case}, generation -1"), |side, _| beating(name(side), "someone".into(), -1))?;
        pair.every(&format!("{case}, an instance"), |side, version| HeartbeatRequest {
            group_instance_id: (version >= INSTANCE).then(|| "instance".into()),
            ..beating(name(side), "someone".into(), 1)
        })?;
        pair.every(&format!("{case}, an instance leaves"), |side, version| {
            leaving(version, name(side), StrBytes::new(), Some("instance"))
        })?;
        pair.every(case, |side, _| DeleteGroupsRequest { groups_names: vec![name(side)] })?;
        pair.every(case, |side, version| DescribeGroupsRequest {
            groups: vec![name(side)],
            include_authorized_operations: version >= 3,
        })?;
        pair.every(&format!("{case}, no member"), |side, _| JoinGroupRequest {
            group_id: name(side),
            ..joining(StrBytes::new(), "someone".into())
        })?;
    }
    pair.every("nobody", |_, _| DeleteGroupsRequest::default())?;
    pair.every("nobody", |_, _| DescribeGroupsRequest::default())?;
    pair.every("twice", |side, _| DeleteGroupsRequest { groups_names: vec![side.name("a"), side.name("a")] })?;
    pair.every("twice", |side, _| DescribeGroupsRequest {
        groups: vec![side.name("a"), side.name("a")],
        ..Default::default()
    })?;
    for version in versions::<LeaveGroupRequest>().filter(|version| *version >= MANY_LEAVERS) {
        pair.ask("nobody leaves", version, |side| LeaveGroupRequest {
            group_id: side.name("nobody"),
            ..Default::default()
        })?;
    }
    Ok(())
}

fn refused_joins(pair: &mut Pair) -> io::Result<()> {
    for session_timeout_ms in [0, -1, 5_999, 1_800_001, i32::MAX] {
        pair.every(&format!("session timeout {session_timeout_ms}"), |side, _| JoinGroupRequest {
            session_timeout_ms,
            ..joining(side.name("sessions"), StrBytes::new())
        })?;
    }
    pair.every("an empty group id and a wrong session timeout", |_, _| JoinGroupRequest {
        session_timeout_ms: 0,
        ..joining(StrBytes::new(), StrBytes::new())
    })?;
    pair.every("no protocol", |side, _| JoinGroupRequest {
        protocols: Vec::new(),
        ..joining(side.name("protocols"), StrBytes::new())
    })?;
    pair.every("no protocol type", |side, _| JoinGroupRequest {
        protocol_type: StrBytes::new(),
        ..joining(side.name("protocols"), StrBytes::new())
    })?;
    pair.every("an unknown instance", |side, version| JoinGroupRequest {
        group_instance_id: (version >= JOIN_INSTANCE).then(|| "instance".into()),
        ..joining(side.name("protocols"), "someone".into())
    })
}

/// One member from its first join to its group's end; JoinGroup in `version`, what is asked between in every version.
fn life(pair: &mut Pair, version: i16) -> io::Result<()> {
    let group = format!("life-{version}");
    let name = |side: &Side| side.name(&group);
    let joined = pair.ask("a first join", version, |side| joining(name(side), StrBytes::new()))?;
    joined.keep(pair, |side, answer| side.member = answer.member_id);
    if version >= MEMBER_ID_REQUIRED {
        describe(pair, &group, "with a pending member")?;
        pair.every("a pending member", |side, _| beating(name(side), side.member.clone(), 0))?;
        pair.every("a pending member", |side, _| syncing(name(side), side.member.clone(), 0))?;
        pair.ask("a join with the id given", version, |side| joining(name(side), side.member.clone()))?;
    }
    describe(pair, &group, "that waits for an assignment")?;
    heartbeats(pair, &group, "waiting for an assignment")?;
    wrong_joins(pair, &group, "waiting for an assignment")?;
    for (case, member, generation) in
        [("another generation", None, 2), ("generation -1", None, -1), ("an unknown member", Some("someone"), 1)]
    {
        pair.every(case, |side, _| {
            syncing(name(side), member.map_or(side.member.clone(), StrBytes::from_static), generation)
        })?;
    }
    for (case, kind, protocol) in [("another protocol type", "connect", "range"), ("another protocol", "consumer", "x")]
    {
        pair.ask(case, SYNC_NAMES_PROTOCOL, |side| SyncGroupRequest {
            protocol_type: Some(kind.into()),
            protocol_name: Some(protocol.into()),
            ..syncing(name(side), side.member.clone(), 1)
        })?;
    }
    pair.every("the leader syncs", |side, version| {
        let named = |text: &'static str| (version >= SYNC_NAMES_PROTOCOL).then(|| text.into());
        let own = SyncGroupRequestAssignment { member_id: side.member.clone(), assignment: Bytes::from_static(b"all") };
        let other = SyncGroupRequestAssignment { member_id: "someone".into(), assignment: Bytes::from_static(b"x") };
        SyncGroupRequest {
            protocol_type: named("consumer"),
            protocol_name: named("range"),
            assignments: vec![own, other],
            ..syncing(name(side), side.member.clone(), 1)
        }
    })?;
    describe(pair, &group, "that is stable")?;
    heartbeats(pair, &group, "stable")?;
    wrong_joins(pair, &group, "stable")?;
    pair.every("with a member", |side, _| DeleteGroupsRequest { groups_names: vec![name(side)] })?;
    pair.ask("the leader joins again", version, |side| joining(name(side), side.member.clone()))?;
    heartbeats(pair, &group, "in the second generation")?;
    leave(pair, &group, version)?;
    describe(pair, &group, "that is empty")?;
    heartbeats(pair, &group, "empty")?;
    pair.ask("an unknown member of an empty group", version, |side| joining(name(side), side.member.clone()))?;
    pair.ask("an empty group", 2, |side| DeleteGroupsRequest { groups_names: vec![name(side), name(side)] })?;
    describe(pair, &group, "that is deleted")
}

fn describe(pair: &mut Pair, group: &str, state: &str) -> io::Result<()> {
    pair.every(&format!("a group {state}"), |side, version| DescribeGroupsRequest {
        groups: vec![side.name(group)],
        include_authorized_operations: version >= 3,
    })
}

fn heartbeats(pair: &mut Pair, group: &str, state: &str) -> io::Result<()> {
    for generation in [1, 2, 0, -1] {
        pair.every(&format!("{state}, generation {generation}"), |side, _| {
            beating(side.name(group), side.member.clone(), generation)
        })?;
    }
    pair.every(&format!("{state}, an unknown member"), |side, _| beating(side.name(group), "someone".into(), 1))?;
    pair.every(&format!("{state}, an unknown instance"), |side, version| HeartbeatRequest {
        group_instance_id: (version >= INSTANCE).then(|| "instance".into()),
        ..beating(side.name(group), side.member.clone(), 1)
    })
}

fn wrong_joins(pair: &mut Pair, group: &str, state: &str) -> io::Result<()> {
    for member in ["", "someone"] {
        pair.every(&format!("{state}, member {member:?} with another protocol type"), |side, _| JoinGroupRequest {
            protocol_type: "connect".into(),
            ..joining(side.name(group), member.into())
        })?;
        pair.every(&format!("{state}, member {member:?} with other protocols"), |side, _| JoinGroupRequest {
            protocols: vec![protocol("other")],
            ..joining(side.name(group), member.into())
        })?;
    }
    pair.every(&format!("{state}, an unknown member"), |side, _| joining(side.name(group), "someone".into()))
}

fn leave(pair: &mut Pair, group: &str, version: i16) -> io::Result<()> {
    pair.every("an unknown member", |side, version| leaving(version, side.name(group), "someone".into(), None))?;
    pair.every("an unknown instance", |side, version| {
        leaving(version, side.name(group), side.member.clone(), Some("instance"))
    })?;
    if version < MANY_LEAVERS {
        pair.ask("the member", 1, |side| leaving(1, side.name(group), side.member.clone(), None))?;
    } else {
        pair.ask("the member and others", 5, |side| {
            let member = |member_id: StrBytes| MemberIdentity { member_id, ..Default::default() };
            let members = vec![member("someone".into()), member(side.member.clone()), member(side.member.clone())];
            LeaveGroupRequest { group_id: side.name(group), members, ..Default::default() }
        })?;
    }
    Ok(())
}

/// A member with an instance id (KIP-345).
fn static_member(pair: &mut Pair) -> io::Result<()> {
    const INSTANCE_ID: &str = "differ-instance";
    let name = |side: &Side| side.name("static");
    let join = |side: &Side, member: StrBytes| JoinGroupRequest {
        group_instance_id: Some(INSTANCE_ID.into()),
        ..joining(name(side), member)
    };
    pair.ask("a static member", 9, |side| join(side, StrBytes::new()))?
        .keep(pair, |side, answer| side.member = answer.member_id);
    pair.ask("a static member", 5, |side| SyncGroupRequest {
        group_instance_id: Some(INSTANCE_ID.into()),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: side.member.clone(),
            assignment: Bytes::from_static(b"all"),
        }],
        ..syncing(name(side), side.member.clone(), 1)
    })?;
    describe(pair, "static", "with a static member")?;
    pair.ask("a static member under another id", 9, |side| join(side, "someone".into()))?;
    pair.ask("a static member comes back", 9, |side| join(side, StrBytes::new()))?;
    for version in versions::<HeartbeatRequest>().filter(|version| *version >= INSTANCE) {
        pair.ask("the fenced static member", version, |side| HeartbeatRequest {
            group_instance_id: Some(INSTANCE_ID.into()),
            ..beating(name(side), side.member.clone(), 1)
        })?;
    }
    pair.ask("the fenced static member", 5, |side| leaving(5, name(side), side.member.clone(), Some(INSTANCE_ID)))?;
    pair.ask("an instance", 5, |side| leaving(5, name(side), StrBytes::new(), Some(INSTANCE_ID)))?;
    describe(pair, "static", "that its static member left")
}

fn listing(pair: &mut Pair) -> io::Result<()> {
    pair.every("all groups", |_, _| ListGroupsRequest::default())?;
    for state in ["Stable", "empty", "EMPTY", "Dead", "nonsense", ""] {
        pair.every(&format!("state {state:?}"), |_, version| ListGroupsRequest {
            states_filter: if version >= 4 { vec![state.into()] } else { Vec::new() },
            ..Default::default()
        })?;
    }
    for kind in ["classic", "Classic", "consumer", "share", "nonsense", ""] {
        pair.every(&format!("type {kind:?}"), |_, version| ListGroupsRequest {
            types_filter: if version >= 5 { vec![kind.into()] } else { Vec::new() },
            ..Default::default()
        })?;
    }
    Ok(())
}
