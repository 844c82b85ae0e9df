//! Produce requests that wait until what they appended is durable.
//!
//! 1. A request leaves this table exactly when its reply is made: by its last partition's commit, by losing the
//!    leadership of it, or by its own timeout.
//! 2. A timeout takes nothing out of the log: a retry attaches to the batch that is still on its way.

use super::deadlines::DeadlineId;
use super::events::ReplyTo;
use crate::handlers::RequestContext;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::ProduceResponse;
use millrace_protocol::messages::produce::PartitionProduceResponse;
use millrace_storage::ids::TopicPartition;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A partition of a request, and where its result stands in the response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenSlot {
    /// The partition.
    pub partition: TopicPartition,
    /// Index into the response's topics.
    pub topic_at: usize,
    /// Index into that topic's partitions.
    pub partition_at: usize,
    /// Whether it still waits.
    pub waits: bool,
}

/// A produce request in progress.
#[derive(Debug)]
pub(crate) struct PendingProduce {
    /// How to answer.
    pub context: RequestContext,
    /// The answer if all that still waits succeeds.
    pub response: ProduceResponse,
    /// The partitions that waited when it was parked.
    pub slots: SmallVec<[OpenSlot; 4]>,
    /// Its timeout.
    pub deadline: DeadlineId,
}

impl PendingProduce {
    fn result_mut(&mut self, slot: usize) -> &mut PartitionProduceResponse {
        let OpenSlot { topic_at, partition_at, .. } = self.slots[slot];
        &mut self.response.responses[topic_at].partition_responses[partition_at]
    }

    /// Makes the result of `slot` an error.
    fn fail(&mut self, slot: usize, error: ErrorCode) {
        let result = self.result_mut(slot);
        *result = PartitionProduceResponse {
            index: result.index,
            error_code: error,
            base_offset: -1,
            ..PartitionProduceResponse::default()
        };
    }

    fn is_done(&self) -> bool {
        self.slots.iter().all(|slot| !slot.waits)
    }
}

/// The waiting requests of one shard.
#[derive(Debug, Default)]
pub(crate) struct Produces {
    by_request: BTreeMap<ReplyTo, PendingProduce>,
}

impl Produces {
    /// A request waits from now on.
    pub(crate) fn insert(&mut self, pending: PendingProduce) {
        let before = self.by_request.insert(pending.context.reply_to, pending);
        assert!(before.is_none(), "a request is taken once");
    }

    /// One partition of a request is decided. Gives the request back once all are.
    pub(crate) fn decide(&mut self, request: ReplyTo, slot: usize, error: ErrorCode) -> Option<PendingProduce> {
        let pending = self.by_request.get_mut(&request).expect("who waits in a partition is in the table");
        pending.slots[slot].waits = false;
        if error != ErrorCode::None {
            pending.fail(slot, error);
        }
        if pending.is_done() { self.by_request.remove(&request) } else { None }
    }

    /// The request's time is over: what still waits gets REQUEST_TIMED_OUT. The caller takes it out of the waiting
    /// lists of the partitions that its slots name.
    pub(crate) fn time_out(&mut self, request: ReplyTo) -> PendingProduce {
        let mut pending = self.by_request.remove(&request).expect("the deadline goes with the request");
        for slot in 0..pending.slots.len() {
            if pending.slots[slot].waits {
                pending.fail(slot, ErrorCode::RequestTimedOut);
            }
        }
        pending
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_request.is_empty()
    }
}
