//! LeaveGroup: members leave, or an operator takes static ones out (KIP-345).

use super::RequestContext;
use super::group_desk::Held;
use crate::groups::Leaver;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::leave_group::MemberResponse;
use millrace_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

/// First version with several members.
const MANY_MEMBERS: i16 = 3;

/// Hands the request to the coordinator.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: LeaveGroupRequest) {
    let leavers: Vec<Leaver> = if context.version < MANY_MEMBERS {
        vec![Leaver { member: request.member_id.as_str().to_owned(), instance: None }]
    } else {
        let leaver = |m: &millrace_protocol::messages::leave_group::MemberIdentity| Leaver {
            member: m.member_id.as_str().to_owned(),
            instance: m.group_instance_id.as_deref().map(str::to_owned),
        };
        request.members.iter().map(leaver).collect()
    };
    let ticket = core.groups.hold(Held::Leave(context, leavers.clone()));
    core.groups.coordinator.leave(now.mono, ticket, &request.group_id, &leavers);
    core.settle_groups();
}

/// `error` for the whole request, or `codes` by member.
pub(crate) fn reply(
    core: &mut ShardCore,
    context: RequestContext,
    leavers: &[Leaver],
    error: ErrorCode,
    codes: &[ErrorCode],
) {
    let response = if context.version < MANY_MEMBERS {
        LeaveGroupResponse { error_code: codes.first().copied().unwrap_or(error), ..Default::default() }
    } else {
        let members = leavers.iter().zip(codes).map(|(leaver, code)| MemberResponse {
            member_id: leaver.member.as_str().into(),
            group_instance_id: leaver.instance.as_deref().map(StrBytes::from),
            error_code: *code,
        });
        LeaveGroupResponse { error_code: error, members: members.collect(), ..Default::default() }
    };
    context.reply(core, &response);
}
