//! ListGroups: the groups that this shard coordinates.

use super::RequestContext;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::list_groups::ListedGroup;
use millrace_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

/// Lists, filtered by state and type without regard to case, as Kafka does.
pub(crate) fn handle(core: &mut ShardCore, _: Now, context: RequestContext, request: ListGroupsRequest) {
    let matches = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let groups = core.groups.coordinator.list().into_iter();
    let groups = groups
        .filter(|listed| matches(&request.states_filter, listed.state) && matches(&request.types_filter, listed.kind));
    let groups = groups.map(|listed| ListedGroup {
        group_id: listed.group.into(),
        protocol_type: listed.protocol_type.into(),
        group_state: StrBytes::from_static(listed.state),
        group_type: StrBytes::from_static(listed.kind),
    });
    let groups = groups.collect();
    context.reply(core, &ListGroupsResponse { groups, ..Default::default() });
}
