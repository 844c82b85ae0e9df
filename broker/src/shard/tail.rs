//! The tail budget: how much memory the recently committed batches of one shard may pin.
//!
//! 1. Batches leave in the order in which they were committed, over all partitions, so that a partition's tail always
//!    ends at its high watermark and has no hole.
//! 2. What is charged is what a batch keeps from being reused: its share of the chunk that it lies in, plus its
//!    bookkeeping, so that many tiny batches can't take more than the budget either.

use millrace_storage::ids::TopicPartition;
use std::collections::VecDeque;

/// Bookkeeping of one batch in bytes, an upper estimate.
const OVERHEAD_BYTES: usize = 192;

/// Who is next to leave, and how much is pinned.
#[derive(Debug)]
pub struct TailBudget {
    limit: usize,
    used: usize,
    order: VecDeque<(TopicPartition, usize)>,
}

impl TailBudget {
    /// A budget of `limit` bytes with nothing charged.
    pub fn new(limit: usize) -> TailBudget {
        TailBudget { limit, used: 0, order: VecDeque::new() }
    }

    /// Charges the batch that was just put at the end of the tail of `partition`; it pins `pinned` bytes.
    pub fn charge(&mut self, partition: TopicPartition, pinned: usize) {
        let charged = pinned + OVERHEAD_BYTES;
        self.used += charged;
        self.order.push_back((partition, charged));
    }

    /// While the budget is exceeded: whose oldest batch has to go. Its charge is already given back.
    pub fn evict(&mut self) -> Option<TopicPartition> {
        if self.used <= self.limit {
            return None;
        }
        let (partition, charged) = self.order.pop_front().expect("what is used was charged to somebody");
        self.used -= charged;
        Some(partition)
    }

    /// The whole tail of `partition` is gone.
    pub fn forget(&mut self, partition: TopicPartition) {
        let used = &mut self.used;
        self.order.retain(|(owner, charged)| {
            let other = *owner != partition;
            if !other {
                *used -= charged;
            }
            other
        });
    }

    /// Bytes charged now.
    pub fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_storage::ids::TopicId;

    fn partition(index: u32) -> TopicPartition {
        TopicPartition { topic: TopicId(Default::default()), index }
    }

    #[test]
    fn the_oldest_batch_of_all_partitions_leaves_first() {
        let mut budget = TailBudget::new(2 * (100 + OVERHEAD_BYTES));
        for index in [1, 2, 1] {
            budget.charge(partition(index), 100);
        }
        assert_eq!(budget.evict(), Some(partition(1)));
        assert_eq!(budget.evict(), None);
        budget.forget(partition(1));
        assert_eq!(budget.used(), 100 + OVERHEAD_BYTES);
    }
}
