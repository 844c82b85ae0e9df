//! What partitions cost everywhere, as the controller knows it: it lists what brokers tell of it ([`super::loads`]).
//!
//! Invariants:
//! 1. Only a controller lists, and once in [`EVERY`]: a watch of each broker would have every broker told of every other's
//!    numbers, which only the controller reads.
//! 2. What is known is from one listing, whole.

use super::super::effects::{Owner, Sink, StoreAnswer, StoreCall};
use millrace_storage::env::Mono;
use millrace_storage::ids::TopicPartition;
use millrace_storage::meta::records::{LoadRecord, Record};
use millrace_storage::meta::{Key, MAX_PAGE, keys};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two listings.
pub(in crate::control) const EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(in crate::control) struct Costs {
    known: BTreeMap<TopicPartition, u64>,
    /// Of the listing under way.
    coming: Option<BTreeMap<TopicPartition, u64>>,
    asked: Option<Mono>,
}

impl Costs {
    /// Bytes a second in and out of a partition; 0: little, or nobody said.
    pub(in crate::control) fn of(&self, partition: TopicPartition) -> u64 {
        self.known.get(&partition).copied().unwrap_or(0)
    }

    /// This process is no controller.
    pub(in crate::control) fn forget(&mut self) {
        (self.known, self.asked) = (BTreeMap::new(), None);
    }

    /// Lists, if it is time.
    pub(in crate::control) fn look(&mut self, sink: &mut Sink) {
        if self.coming.is_some() || self.asked.is_some_and(|at| sink.now.since(at) < EVERY) {
            return;
        }
        self.asked = Some(sink.now);
        self.coming = Some(BTreeMap::new());
        next_page(None, sink);
    }

    /// A page came, or did not; whether what is known is new.
    pub(in crate::control) fn on_page(&mut self, answer: StoreAnswer, sink: &mut Sink) -> bool {
        let StoreAnswer::List(answer) = answer else { unreachable!("a listing is not answered with {answer:?}") };
        let mut coming = self.coming.take().expect("a listing is under way");
        let page = match answer {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%error, "what partitions cost was not listed");
                return false;
            }
        };
        for (key, found) in &page.entries {
            match LoadRecord::decode(&found.value) {
                Ok(record) => add(&mut coming, &record),
                Err(error) => tracing::error!(%error, key, "what a broker tells of its load can't be read"),
            }
        }
        if page.more {
            next_page(page.entries.last().map(|(key, _)| key.clone()), sink);
            self.coming = Some(coming);
            return false;
        }
        self.known = coming;
        true
    }
}

fn next_page(after: Option<Key>, sink: &mut Sink) {
    sink.call(Owner::Costs, StoreCall::List { prefix: keys::LOADS.to_owned(), after, limit: MAX_PAGE });
}

fn add(costs: &mut BTreeMap<TopicPartition, u64>, record: &LoadRecord) {
    for load in &record.partitions {
        // One that moved is told by both for a while.
        let known = costs.entry(TopicPartition { topic: load.topic, index: load.index }).or_insert(0);
        *known = load.rate.max(*known);
    }
}
