//! Produce requests that wait until what they appended is durable.
//!
//! 1. A request leaves this table exactly when its reply is made: by its last partition's commit, by losing the
//!    leadership of it, or by its own timeout.
//! 2. A request's token is in the partitions' lines and among the deadlines only while the request is in this table, so
//!    that a later one may have the same token.
//! 3. A timeout takes nothing out of the log: a retry attaches to the batch that is still on its way.

use super::deadlines::DeadlineId;
use crate::handlers::RequestContext;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::ProduceResponse;
use millrace_protocol::messages::produce::PartitionProduceResponse;
use millrace_storage::ids::TopicPartition;
use slab::Slab;
use smallvec::SmallVec;

/// Names a waiting request; used again once it has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProduceToken(usize);

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
    /// By token: a place that stays while others come and go, since a request is too large to be moved about.
    waiting: Slab<PendingProduce>,
}

impl Produces {
    /// What the next request that is inserted will be called.
    pub(crate) fn next_token(&self) -> ProduceToken {
        ProduceToken(self.waiting.vacant_key())
    }

    /// A request waits from now on, under [`Produces::next_token`].
    pub(crate) fn insert(&mut self, pending: PendingProduce) {
        self.waiting.insert(pending);
    }

    /// One partition of a request is decided. Gives the request back once all are.
    pub(crate) fn decide(&mut self, request: ProduceToken, slot: usize, error: ErrorCode) -> Option<PendingProduce> {
        let pending = self.waiting.get_mut(request.0).expect("who waits in a partition is in the table");
        pending.slots[slot].waits = false;
        if error != ErrorCode::None {
            pending.fail(slot, error);
        }
        pending.is_done().then(|| self.waiting.remove(request.0))
    }

    /// The request's time is over: what still waits gets REQUEST_TIMED_OUT. The caller takes it out of the waiting
    /// lists of the partitions that its slots name.
    pub(crate) fn time_out(&mut self, request: ProduceToken) -> PendingProduce {
        let mut pending = self.waiting.try_remove(request.0).expect("the deadline goes with the request");
        for slot in 0..pending.slots.len() {
            if pending.slots[slot].waits {
                pending.fail(slot, ErrorCode::RequestTimedOut);
            }
        }
        pending
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
