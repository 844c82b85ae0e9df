//! JoinGroup: into a group, or into its next generation.

use super::RequestContext;
use super::group_desk::Held;
use crate::groups::{JoinAnswer, JoinRequest, Protocol};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::join_group::JoinGroupResponseMember;
use millrace_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use std::time::Duration;

/// First version whose new members come back with the id that they are given (KIP-394).
const KNOWN_MEMBERS: i16 = 4;
/// First version that understands `skip_assignment` (KIP-814).
const SKIPS_ASSIGNMENT: i16 = 9;
/// First version with a rebalance timeout of its own.
const REBALANCE_TIMEOUT: i16 = 1;

/// Hands the request to the coordinator. What it keeps is copied out of the frame.
pub(crate) fn handle(
    core: &mut ShardCore,
    now: Now,
    context: RequestContext,
    request: JoinGroupRequest,
    client_id: Option<StrBytes>,
) {
    let session_timeout = milliseconds(request.session_timeout_ms);
    let rebalance_timeout =
        if context.version >= REBALANCE_TIMEOUT { milliseconds(request.rebalance_timeout_ms) } else { session_timeout };
    let protocols = request.protocols.iter().map(|protocol| Protocol {
        name: protocol.name.as_str().to_owned(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    let join = JoinRequest {
        group: request.group_id.as_str().to_owned(),
        member: request.member_id.as_str().to_owned(),
        instance: request.group_instance_id.as_deref().map(str::to_owned),
        client_id: client_id.as_deref().unwrap_or_default().to_owned(),
        client_host: core.host_of(context.reply_to.connection),
        session_timeout,
        rebalance_timeout,
        protocol_type: request.protocol_type.as_str().to_owned(),
        protocols: protocols.collect(),
        require_known_member: context.version >= KNOWN_MEMBERS,
        can_skip_assignment: context.version >= SKIPS_ASSIGNMENT,
    };
    let ticket = core.groups.hold(Held::Join(context));
    core.groups.coordinator.join(now.mono, ticket, join);
    core.settle_groups();
}

pub(crate) fn reply(core: &mut ShardCore, context: RequestContext, answer: JoinAnswer) {
    let member = |(id, instance, metadata): (String, Option<String>, Bytes)| JoinGroupResponseMember {
        member_id: id.into(),
        group_instance_id: instance.map(StrBytes::from),
        metadata,
    };
    // Before version 7 a missing protocol is an empty name.
    let protocol_name = answer.protocol.map(StrBytes::from);
    let protocol_name = if context.version < 7 { Some(protocol_name.unwrap_or_default()) } else { protocol_name };
    let response = JoinGroupResponse {
        error_code: answer.error,
        generation_id: answer.generation,
        protocol_type: answer.protocol_type.map(StrBytes::from),
        protocol_name,
        leader: answer.leader.into(),
        skip_assignment: answer.skip_assignment,
        member_id: answer.member.into(),
        members: answer.members.into_iter().map(member).collect(),
        ..Default::default()
    };
    context.reply(core, &response);
}

/// A timeout of the wire; negative ones are none at all.
fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
