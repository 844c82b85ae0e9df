//! The broker's own share of an acknowledgement: what is left of it when the flush governor's and the store's time are
//! taken off, which the lane tells with every seal that became durable.
//!
//! 1. One time is recorded for each seal, that of its oldest batch; nothing is kept for a batch or a record.
//! 2. It is never too small: of a backlog of several seals the later ones count from the first batch of all. What a shard
//!    waits while the lane has no place for a seal is its own.
//! 3. It begins when the core has the request and ends when the core has heard of the commit. The socket before and
//!    behind that is not in it; neither is the wait of the lane's thread for a core when the store has answered, which
//!    counts as the store's. [`crate::admin`] shows the time that threads waited for a core beside it.

use millrace_storage::env::Mono;
use millrace_storage::lane::SealWait;
use millrace_storage::meter::Histogram;
use std::collections::VecDeque;
use std::sync::Arc;

/// Seals on their way, and what was recorded of those before.
#[derive(Debug, Default)]
pub(crate) struct AckShare {
    /// When the oldest batch came that is in no seal, if there is one.
    unsealed_since: Mono,
    /// Numbers of seals and when their oldest batch came. As many as lane and mailbox take.
    sealed: VecDeque<(u64, Mono)>,
    recorded: Arc<Histogram>,
}

impl AckShare {
    /// Records in `histogram` from now on.
    pub(crate) fn record_in(&mut self, histogram: Arc<Histogram>) {
        self.recorded = histogram;
    }

    /// A batch came, and everything before is in a seal.
    pub(crate) fn begin(&mut self, now: Mono) {
        self.unsealed_since = now;
    }

    /// Batches went into a seal.
    pub(crate) fn sealed(&mut self, number: u64) {
        self.sealed.push_back((number, self.unsealed_since));
    }

    /// Seals became durable.
    pub(crate) fn committed(&mut self, now: Mono, waits: &[SealWait]) {
        for wait in waits {
            while let Some(&(number, since)) = self.sealed.front().filter(|(number, _)| *number <= wait.number) {
                self.sealed.pop_front();
                if number == wait.number {
                    self.recorded.record(now.since(since).saturating_sub(wait.waited));
                }
            }
        }
    }

    /// The log ended under the lane: what was under way is not acknowledged.
    pub(crate) fn forget_all(&mut self) {
        self.sealed.clear();
    }
}
