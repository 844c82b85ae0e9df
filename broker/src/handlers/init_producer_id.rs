//! InitProducerId: a fresh producer id for an idempotent producer, from blocks that the control task reserves.
//!
//! 1. An id is given out once in the life of the cluster: a block belongs to one shard, what is left of it when the
//!    process ends is never used.

use super::RequestContext;
use super::questions::Question;
use crate::control::{ToControl, Token};
use crate::shard::core::ShardCore;
use crate::shard::events::Now;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// What stands for no producer id, and for no epoch.
const NONE: i64 = -1;
/// Ids in a block.
const BLOCK: i64 = 1000;
/// How long requests wait for a block; then the client is told to try again.
const BLOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Requests that may wait for a block; more are told to try again.
const MOST_WAITING: usize = 1024;

/// The ids that this shard may give out, and who waits for more.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    left: Range<i64>,
    waiting: VecDeque<RequestContext>,
}

/// Gives out an id, or waits for a block.
pub(crate) fn handle(core: &mut ShardCore, now: Now, context: RequestContext, request: InitProducerIdRequest) {
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return refuse(core, context, ErrorCode::InvalidRequest),
        // Transactions are not offered. Retriable codes would make clients try for a minute; this one they report.
        Some(_) => return refuse(core, context, ErrorCode::TransactionalIdAuthorizationFailed),
    }
    // An id and its epoch are given together or not at all (KIP-360).
    if (request.producer_id == NONE) != (i64::from(request.producer_epoch) == NONE) {
        return refuse(core, context, ErrorCode::InvalidRequest);
    }
    if let Some(id) = core.producer_ids.left.next() {
        return give(core, context, id);
    }
    let waiting = &mut core.producer_ids.waiting;
    if waiting.len() == MOST_WAITING {
        return refuse(core, context, ErrorCode::CoordinatorLoadInProgress);
    }
    waiting.push_back(context);
    if waiting.len() == 1 {
        core.ask(now, Question::ProducerIds, BLOCK_PATIENCE, |token| ToControl::ProducerIds { token });
    }
}

/// The block came, or an error instead.
pub(crate) fn answered(core: &mut ShardCore, token: Token, first: Result<i64, ErrorCode>) {
    // A block that comes too late is used all the same.
    let awaited = core.take_question(token).is_some();
    match first {
        Ok(first) => core.producer_ids.left = first..first + BLOCK,
        Err(error) if awaited => return refuse_all(core, error),
        Err(_) => return,
    }
    while let Some(context) = core.producer_ids.waiting.pop_front() {
        // A block is larger than the rest of the queue but for the smallest overlap: those ask again.
        match core.producer_ids.left.next() {
            Some(id) => give(core, context, id),
            None => refuse(core, context, ErrorCode::CoordinatorLoadInProgress),
        }
    }
}

/// No block came in time.
pub(crate) fn unanswered(core: &mut ShardCore) {
    refuse_all(core, ErrorCode::CoordinatorLoadInProgress);
}

fn refuse_all(core: &mut ShardCore, error: ErrorCode) {
    while let Some(context) = core.producer_ids.waiting.pop_front() {
        refuse(core, context, error);
    }
}

fn give(core: &mut ShardCore, context: RequestContext, producer_id: i64) {
    context.reply(core, &InitProducerIdResponse { producer_id, ..InitProducerIdResponse::default() });
}

fn refuse(core: &mut ShardCore, context: RequestContext, error_code: ErrorCode) {
    let response = InitProducerIdResponse { error_code, producer_epoch: -1, ..InitProducerIdResponse::default() };
    context.reply(core, &response);
}
