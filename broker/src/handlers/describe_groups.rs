//! DescribeGroups: state and members.

use super::operations;
use super::{RequestContext, message};
use crate::groups::{GroupView, MemberView};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use millrace_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use std::collections::BTreeSet;

/// First version that says GROUP_ID_NOT_FOUND; before, a group that does not exist is `Dead`.
const NOT_FOUND: i16 = 6;

/// Describes each group.
pub(crate) fn handle(core: &mut ShardCore, _: Now, context: RequestContext, request: DescribeGroupsRequest) {
    // A group that is named many times is described once: its description may be long.
    let mut seen = BTreeSet::new();
    let groups = request.groups.into_iter().filter(|name| seen.insert(name.clone())).map(|name| {
        let described = match core.groups.coordinator.describe(&name) {
            Ok(Some(view)) => describe(view),
            Ok(None) if context.version >= NOT_FOUND => DescribedGroup {
                error_code: ErrorCode::GroupIdNotFound,
                error_message: Some(message(missing(core, &name))),
                group_state: StrBytes::from_static("Dead"),
                ..Default::default()
            },
            Ok(None) => DescribedGroup { group_state: StrBytes::from_static("Dead"), ..Default::default() },
            Err(error_code) => DescribedGroup { error_code, ..Default::default() },
        };
        let mut described = DescribedGroup { group_id: name, ..described };
        if request.include_authorized_operations && described.error_code == ErrorCode::None {
            described.authorized_operations = operations::ON_GROUP;
        }
        described
    });
    let groups = groups.collect();
    context.reply(core, &DescribeGroupsResponse { groups, ..Default::default() });
}

/// Why there is nothing to say about a group.
fn missing(core: &ShardCore, name: &str) -> String {
    if core.groups.coordinator.has_consumer_protocol(name) {
        format!("Group {name} is not a classic group.")
    } else {
        format!("Group {name} not found.")
    }
}

fn describe(view: GroupView) -> DescribedGroup {
    let member = |member: MemberView| DescribedGroupMember {
        member_id: member.member.into(),
        group_instance_id: member.instance.map(StrBytes::from),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    DescribedGroup {
        group_state: StrBytes::from_static(view.state),
        protocol_type: view.protocol_type.into(),
        protocol_data: view.protocol.into(),
        members: view.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}
