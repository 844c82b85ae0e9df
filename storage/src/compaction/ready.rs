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
    // By nanoseconds, bytes, nanoseconds.
    by_age: BTreeSet<(u64, TopicPartition)>,
    by_bytes: BTreeSet<(u64, TopicPartition)>,
    by_deadline: BTreeSet<(u64, TopicPartition)>,
}

impl Ready {
    /// Puts a partition where it belongs, or (`None`) takes it out.
    pub(super) fn put(&mut self, partition: TopicPartition, place: Option<Place>) {
        let before = match place {
            Some(place) => self.places.insert(partition, place),
            None => self.places.remove(&partition),
        };
        let key = |of: Option<Place>, by: fn(Place) -> u64| of.map(|place| (by(place), partition));
        for (order, by) in [
            (&mut self.by_age, (|place| place.oldest.0) as fn(Place) -> u64),
            (&mut self.by_bytes, |place| place.bytes),
            (&mut self.by_deadline, |place| place.deadline.0),
        ] {
            let (was, is) = (key(before, by), key(place, by));
            if was != is {
                was.map(|was| order.remove(&was));
                order.extend(is);
            }
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
