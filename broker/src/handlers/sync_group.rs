//! SyncGroup: a member's part of the assignment, which the leader brings.

use super::RequestContext;
use super::group_desk::Held;
use crate::groups::{Caller, SyncAnswer, SyncRequest};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

/// First version in which a member says type and name of the protocol that it follows (KIP-559).
const NAMES_PROTOCOL: i16 = 5;

/// Hands the request to the coordinator. What it keeps is copied out of the frame.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: SyncGroupRequest) {
    if context.version >= NAMES_PROTOCOL && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        let response = SyncGroupResponse { error_code: ErrorCode::InconsistentGroupProtocol, ..Default::default() };
        return context.reply(core, &response);
    }
    let assignments =
        request.assignments.iter().map(|a| (a.member_id.as_str().to_owned(), Bytes::copy_from_slice(&a.assignment)));
    let sync = SyncRequest {
        group: request.group_id.as_str().to_owned(),
        caller: Caller {
            member: request.member_id.as_str().to_owned(),
            instance: request.group_instance_id.as_deref().map(str::to_owned),
            generation: request.generation_id,
        },
        protocol_type: request.protocol_type.as_deref().map(str::to_owned),
        protocol: request.protocol_name.as_deref().map(str::to_owned),
        assignments: assignments.collect(),
    };
    let ticket = core.groups.hold(Held::Sync(context));
    core.groups.coordinator.sync(now.mono, ticket, sync);
    core.settle_groups();
}

pub(crate) fn reply(core: &mut ShardCore, context: RequestContext, answer: SyncAnswer) {
    let response = SyncGroupResponse {
        error_code: answer.error,
        protocol_type: answer.protocol_type.map(StrBytes::from),
        protocol_name: answer.protocol.map(StrBytes::from),
        assignment: answer.assignment,
        ..Default::default()
    };
    context.reply(core, &response);
}
