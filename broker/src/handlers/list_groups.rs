//! ListGroups: the groups that this shard coordinates.

use super::RequestContext;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::list_groups::ListedGroup;
use millrace_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

/// The only type of group served, by KIP-848's name.
const CLASSIC: &str = "classic";

/// Lists, filtered by state and type without regard to case, as Kafka does.
pub(crate) fn handle(core: &mut ShardCore, _: Now, context: RequestContext, request: ListGroupsRequest) {
    let matches = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let groups = core.groups.coordinator.list().into_iter();
    let groups = groups.filter(|(_, _, state)| {
        matches(&request.states_filter, state.name()) && matches(&request.types_filter, CLASSIC)
    });
    let groups = groups.map(|(name, protocol_type, state)| ListedGroup {
        group_id: name.into(),
        protocol_type: protocol_type.into(),
        group_state: StrBytes::from_static(state.name()),
        group_type: StrBytes::from_static(CLASSIC),
    });
    let groups = groups.collect();
    context.reply(core, &ListGroupsResponse { groups, ..Default::default() });
}
