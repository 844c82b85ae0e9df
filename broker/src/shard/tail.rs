//! The tail budget: how much memory the recently committed batches of one shard may pin.
//!
//! 1. Batches leave in the order in which they were committed, over all partitions, so that a partition's tail always
//!    ends at its high watermark and has no hole.
//! 2. What is charged is what a batch keeps from being reused: its share of the chunk that it lies in, plus its
//!    bookkeeping, so that many tiny batches can't take more than the budget either.
//! 3. Losing a partition costs its own batches, not those of all others: its places in the order are passed over later.

use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, VecDeque};

/// Bookkeeping of one batch in bytes, an upper estimate.
const OVERHEAD_BYTES: usize = 192;

/// Who is next to leave, and how much is pinned.
#[derive(Debug)]
pub struct TailBudget {
    limit: usize,
    used: usize,
    order: VecDeque<(TopicPartition, usize)>,
    /// How many of a partition's oldest places in the order are of a tail that is gone.
    gone: BTreeMap<TopicPartition, usize>,
    /// The sum of those.
    stale: usize,
}

impl TailBudget {
    /// A budget of `limit` bytes with nothing charged.
    pub fn new(limit: usize) -> TailBudget {
        TailBudget { limit, used: 0, order: VecDeque::new(), gone: BTreeMap::new(), stale: 0 }
    }

    /// Charges the batch that was just put at the end of the tail of `partition`; it pins `pinned` bytes.
    pub fn charge(&mut self, partition: TopicPartition, pinned: usize) {
        let charged = pinned + OVERHEAD_BYTES;
        self.used += charged;
        self.order.push_back((partition, charged));
    }

    /// While the budget is exceeded: whose oldest batch has to go. Its charge is already given back.
    pub fn evict(&mut self) -> Option<TopicPartition> {
        if self.used <= self.limit { None } else { self.evict_oldest() }
    }

    /// Whose oldest batch goes next, whatever the budget; `None` if nothing is charged.
    pub fn evict_oldest(&mut self) -> Option<TopicPartition> {
        while let Some((partition, charged)) = self.order.pop_front() {
            if !self.passes_over(partition) {
                self.used -= charged;
                return Some(partition);
            }
        }
        None
    }

    /// Whether the oldest place of `partition`, which just left the order, is of a tail that is gone.
    fn passes_over(&mut self, partition: TopicPartition) -> bool {
        let Some(places) = self.gone.get_mut(&partition) else { return false };
        *places -= 1;
        self.stale -= 1;
        if *places == 0 {
            self.gone.remove(&partition);
        }
        true
    }

    /// The whole tail of `partition` is gone; its batches pinned these bytes.
    pub fn forget(&mut self, partition: TopicPartition, pinned: impl Iterator<Item = usize>) {
        let mut places = 0;
        for bytes in pinned {
            self.used -= bytes + OVERHEAD_BYTES;
            places += 1;
        }
        if places == 0 {
            return;
        }
        *self.gone.entry(partition).or_default() += places;
        self.stale += places;
        // Each place is looked at for at most one that was forgotten.
        if self.stale * 2 > self.order.len() {
            let order = std::mem::take(&mut self.order);
            self.order = order.into_iter().filter(|(partition, _)| !self.passes_over(*partition)).collect();
        }
    }

    /// Every tail is gone.
    pub fn forget_all(&mut self) {
        *self = TailBudget::new(self.limit);
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
        budget.forget(partition(1), [100].into_iter());
        assert_eq!(budget.used(), 100 + OVERHEAD_BYTES);
    }

    #[test]
    fn a_partition_that_was_lost_and_came_back_is_evicted_by_its_new_batches_only() {
        let mut budget = TailBudget::new(0);
        for index in [1, 2, 3, 4, 1] {
            budget.charge(partition(index), 100);
        }
        budget.forget(partition(1), [100, 100].into_iter());
        budget.charge(partition(1), 7);
        let evicted: Vec<u32> = std::iter::from_fn(|| budget.evict()).map(|partition| partition.index).collect();
        assert_eq!((evicted, budget.used()), (vec![2, 3, 4, 1], 0));
    }

    #[test]
    fn places_of_lost_tails_are_not_kept_for_ever() {
        let mut budget = TailBudget::new(1 << 20);
        for _ in 0..1000 {
            budget.charge(partition(1), 1);
            budget.forget(partition(1), [1].into_iter());
        }
        assert_eq!((budget.used(), budget.order.len(), budget.gone.len()), (0, 0, 0));
    }
}
