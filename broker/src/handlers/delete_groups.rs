//! DeleteGroups: each group is deleted on its own; the response leaves when the last is decided.

use super::RequestContext;
use super::group_desk::Held;
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::StrBytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::delete_groups::DeletableGroupResult;
use millrace_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use std::collections::{BTreeMap, BTreeSet};

/// One group of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    request: u64,
    at: usize,
}

/// Requests of which not every group is decided.
#[derive(Debug, Default)]
pub(crate) struct Deletions {
    open: BTreeMap<u64, Deletion>,
    next: u64,
}

#[derive(Debug)]
struct Deletion {
    context: RequestContext,
    results: Vec<DeletableGroupResult>,
    undecided: usize,
}

/// Hands every group to the coordinator, once however often it is named, as in Kafka.
pub(crate) fn handle(core: &mut ShardCore, _: Now, context: RequestContext, request: DeleteGroupsRequest) {
    let mut names = request.groups_names;
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.is_empty() {
        return context.reply(core, &DeleteGroupsResponse::default());
    }
    let number = core.groups.deletions.next;
    core.groups.deletions.next += 1;
    let result = |name: &StrBytes| DeletableGroupResult { group_id: name.detached(), ..Default::default() };
    let deletion = Deletion { context, results: names.iter().map(result).collect(), undecided: names.len() };
    core.groups.deletions.open.insert(number, deletion);
    for (at, name) in names.iter().enumerate() {
        let ticket = core.groups.hold(Held::Delete(Part { request: number, at }));
        core.groups.coordinator.delete(ticket, name);
    }
    core.settle_groups();
}

/// One group is decided.
pub(crate) fn part_done(core: &mut ShardCore, part: Part, code: ErrorCode) {
    let deletion = core.groups.deletions.open.get_mut(&part.request).expect("open until every part is decided");
    deletion.results[part.at].error_code = code;
    deletion.undecided -= 1;
    if deletion.undecided == 0 {
        let done = core.groups.deletions.open.remove(&part.request).expect("looked at above");
        done.context.reply(core, &DeleteGroupsResponse { results: done.results, ..Default::default() });
    }
}
