//! ListPartitionReassignments: nothing is ever being reassigned, partitions have one replica.

use super::RequestContext;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::messages::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

/// Answers with the empty list.
pub(crate) fn handle(
    core: &mut ShardCore,
    _now: Now,
    context: RequestContext,
    _request: ListPartitionReassignmentsRequest,
) {
    context.reply(core, &ListPartitionReassignmentsResponse { error_message: None, ..Default::default() });
}
