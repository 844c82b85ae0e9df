//! What waits for time: an ordered set, so that virtual time can jump to the next entry.

use super::events::ReplyTo;
use super::produces::ProduceToken;
use crate::control::Token;
use millrace_storage::env::Mono;
use std::collections::BTreeMap;

/// What a deadline ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// A produce request's `timeout_ms`.
    Produce(ProduceToken),
    /// A fetch's `max_wait_ms`, or the patience with its reads.
    Fetch(ReplyTo),
    /// The patience with a request's lookups.
    Lookups(ReplyTo),
    /// A DeleteRecords request's `timeout_ms`.
    Deletion(ReplyTo),
    /// The patience with a request's manifests.
    StoredBytes(ReplyTo),
    /// A question to the control task.
    Question(Token),
}

/// Names a deadline that was set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeadlineId {
    at: Mono,
    number: u64,
}

/// The deadlines of one shard; those of one instant end in the order in which they were set.
#[derive(Debug, Default)]
pub struct Deadlines {
    by_time: BTreeMap<DeadlineId, Due>,
    next: u64,
}

impl Deadlines {
    /// Sets a deadline.
    pub fn set(&mut self, at: Mono, due: Due) -> DeadlineId {
        let id = DeadlineId { at, number: self.next };
        self.next += 1;
        self.by_time.insert(id, due);
        id
    }

    /// Forgets a deadline; one that has ended is forgotten already.
    pub fn clear(&mut self, id: DeadlineId) {
        self.by_time.remove(&id);
    }

    /// Takes the next deadline that `now` has reached.
    pub fn take_due(&mut self, now: Mono) -> Option<Due> {
        let first = self.by_time.first_entry()?;
        if first.key().at <= now { Some(first.remove()) } else { None }
    }

    /// The next one.
    pub fn next(&self) -> Option<Mono> {
        self.by_time.first_key_value().map(|(id, _)| id.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_end_in_order_of_time_and_then_of_setting() {
        let mut deadlines = Deadlines::default();
        let question = |number| Due::Question(Token(number));
        deadlines.set(Mono(20), question(1));
        deadlines.set(Mono(10), question(2));
        let cleared = deadlines.set(Mono(10), question(3));
        deadlines.set(Mono(10), question(4));
        deadlines.clear(cleared);
        assert_eq!(deadlines.next(), Some(Mono(10)));
        assert_eq!(deadlines.take_due(Mono(15)), Some(question(2)));
        assert_eq!(deadlines.take_due(Mono(15)), Some(question(4)));
        assert_eq!(deadlines.take_due(Mono(15)), None);
        assert_eq!(deadlines.next(), Some(Mono(20)));
    }
}
