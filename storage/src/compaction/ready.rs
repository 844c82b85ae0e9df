//! Partitions that may be rolled now, in the three orders in which the planner asks for one. Pure.
//!
//! Invariants:
//! 1. A partition stands in all three orders or in none.
//! 2. The first of each order is found, and a partition is moved, in logarithmic time: a decision does not look at every
//!    partition.

use crate::env::Mono;
use crate::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};

/// What the orders go by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// When its oldest uncovered record was committed.
    pub oldest: Mono,
    /// Uncovered bytes.
    pub bytes: u64,
    /// When it is to be rolled whatever that costs.
    pub deadline: Mono,
}

/// The orders.
#[derive(Default)]
pub(super) struct Ready {
    places: BTreeMap<TopicPartition, Place>,
    by_age: BTreeSet<(Mono, TopicPartition)>,
    by_bytes: BTreeSet<(u64, TopicPartition)>,
    by_deadline: BTreeSet<(Mono, TopicPartition)>,
}

impl Ready {
    /// Puts a partition where it belongs, or (`None`) takes it out.
    pub(super) fn put(&mut self, partition: TopicPartition, place: Option<Place>) {
        let before = match place {
            Some(place) => self.places.insert(partition, place),
            None => self.places.remove(&partition),
        };
        if before == place {
            return;
        }
        if let Some(before) = before {
            self.by_age.remove(&(before.oldest, partition));
            self.by_bytes.remove(&(before.bytes, partition));
            self.by_deadline.remove(&(before.deadline, partition));
        }
        if let Some(place) = place {
            self.by_age.insert((place.oldest, partition));
            self.by_bytes.insert((place.bytes, partition));
            self.by_deadline.insert((place.deadline, partition));
        }
    }

    /// The one with the oldest uncovered record.
    pub(super) fn oldest(&self) -> Option<(TopicPartition, Place)> {
        self.by_age.first().map(|&(_, partition)| (partition, self.places[&partition]))
    }

    /// The one with the most uncovered bytes.
    pub(super) fn largest(&self) -> Option<(TopicPartition, Place)> {
        self.by_bytes.last().map(|&(_, partition)| (partition, self.places[&partition]))
    }

    /// The one whose deadline comes first.
    pub(super) fn most_urgent(&self) -> Option<(TopicPartition, Place)> {
        self.by_deadline.first().map(|&(_, partition)| (partition, self.places[&partition]))
    }
}
