//! Heartbeat: a member is alive.

use super::RequestContext;
use super::group_desk::Held;
use crate::groups::Caller;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

/// Hands the request to the coordinator.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: HeartbeatRequest) {
    let caller = Caller {
        member: request.member_id.as_str().to_owned(),
        instance: request.group_instance_id.as_deref().map(str::to_owned),
        generation: request.generation_id,
    };
    let ticket = core.groups.hold(Held::Heartbeat(context));
    core.groups.coordinator.heartbeat(now.mono, ticket, &request.group_id, &caller);
    core.settle_groups();
}

pub(crate) fn reply(core: &mut ShardCore, context: RequestContext, error_code: ErrorCode) {
    context.reply(core, &HeartbeatResponse { error_code, ..Default::default() });
}
