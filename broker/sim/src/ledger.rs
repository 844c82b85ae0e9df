//! What clients know of every partition: the records that were acknowledged or could be read, by offset.
//!
//! Invariants that it holds against the code under test (each breach is a finding):
//! 1. An offset has one value for ever.
//! 2. What was once readable stays readable: the known log is a prefix of every later log, down to its log start.
//! 3. An acknowledged record is readable at the offset that the acknowledgement named.
//! 4. A record of an idempotent producer stands at one offset.
//! 5. A log starts nowhere that nobody asked for, and not behind a record that was to be kept.
//!
//! Of a topic that somebody wants deleted only the first and the fourth hold.

use millrace_storage::env::WallMs;
use millrace_storage::ids::{Offset, TopicId, TopicPartition};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Names a record of a run: who produced it, and its number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordId {
    /// The producer.
    pub producer: u64,
    /// Which of its records.
    pub number: u64,
}

/// Bytes of a record id in the scripted scenario's batches.
pub const RECORD_BYTES: usize = 16;

/// From this producer on, producers are not idempotent and send a record under a new id when they retry.
pub const PLAIN_PRODUCERS: u64 = 1 << 32;

impl RecordId {
    /// Writes it.
    pub fn write(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.producer.to_le_bytes());
        into.extend_from_slice(&self.number.to_le_bytes());
    }

    /// Reads ids that were written one after the other.
    pub fn read_all(bytes: &[u8]) -> Vec<RecordId> {
        let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
        assert!(rest.is_empty(), "a body of {} bytes", bytes.len());
        let number = |part: &[u8]| u64::from_le_bytes(part.try_into().expect("eight bytes"));
        records.iter().map(|r| RecordId { producer: number(&r[..8]), number: number(&r[8..]) }).collect()
    }
}

#[derive(Default)]
struct Log {
    start: i64,
    /// The highest start that a client was told.
    told_start: i64,
    /// Highest log start that anybody asked for.
    asked: i64,
    /// When records were first sent, Unix milliseconds: their timestamps are no smaller.
    sent: BTreeMap<RecordId, i64>,
    records: BTreeMap<i64, RecordId>,
    offsets: BTreeMap<RecordId, i64>,
    acknowledged: u64,
}

/// All partitions. A clone is another handle.
#[derive(Clone, Default)]
pub struct Ledger {
    logs: Rc<RefCell<BTreeMap<TopicPartition, Log>>>,
    /// By topic, the shortest time that records were ever to be kept, milliseconds.
    limits: Rc<RefCell<BTreeMap<TopicId, i64>>>,
    /// Topics that somebody wants deleted, and since when (virtual nanoseconds) it is known that they are.
    deletions: Rc<RefCell<BTreeMap<TopicId, Option<u64>>>>,
}

impl Ledger {
    /// Records from `base` on are readable.
    pub fn readable(&self, p: TopicPartition, base: Offset, ids: &[RecordId]) {
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry(p).or_default();
        for (offset, &id) in (base.0..).zip(ids) {
            match log.records.insert(offset, id) {
                None => {}
                Some(known) => assert!(known == id, "FINDING offset {offset} of {p} was {known:?} and is now {id:?}"),
            }
            let first = *log.offsets.entry(id).or_insert(offset);
            assert!(first == offset, "FINDING {id:?} stands at {first} and at {offset} of {p}");
        }
    }

    /// An acknowledgement with acks −1 reached a client.
    pub fn acknowledged(&self, p: TopicPartition, base: Offset, ids: &[RecordId]) {
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry(p).or_default();
        log.acknowledged += ids.len() as u64;
        for (offset, id) in (base.0..).zip(ids) {
            if offset < log.start {
                continue;
            }
            let there = log.records.get(&offset);
            assert!(there == Some(id), "FINDING acknowledged {id:?} at {offset} of {p}, where {there:?} is readable");
        }
    }

    /// Somebody wants the log to start at `offset`, if it gets so far.
    pub fn ask_log_start(&self, p: TopicPartition, offset: Offset) {
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry(p).or_default();
        log.asked = log.asked.max(offset.0);
    }

    /// Somebody wants the topic deleted: from now on it may be at any time.
    pub fn ask_deletion(&self, topic: TopicId) {
        self.deletions.borrow_mut().entry(topic).or_default();
    }

    /// Somebody was told that the topic is deleted.
    pub fn deleted(&self, topic: TopicId, now: u64) {
        self.deletions.borrow_mut().entry(topic).or_default().get_or_insert(now);
    }

    /// Whether anybody wanted the topic deleted.
    pub fn may_be_deleted(&self, topic: TopicId) -> bool {
        self.deletions.borrow().contains_key(&topic)
    }

    /// Since when it is known that the topic is deleted.
    pub fn deleted_since(&self, topic: TopicId) -> Option<u64> {
        self.deletions.borrow().get(&topic).copied().flatten()
    }

    /// Records of this topic are to be kept for so long, if it gets so far.
    pub fn limit(&self, topic: TopicId, ms: i64) {
        let mut limits = self.limits.borrow_mut();
        let limit = limits.entry(topic).or_insert(ms);
        *limit = ms.min(*limit);
    }

    /// Records are sent, perhaps again.
    pub fn sent(&self, p: TopicPartition, ids: &[RecordId], now: WallMs) {
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry(p).or_default();
        for &id in ids {
            log.sent.entry(id).or_insert(now.0);
        }
    }

    /// A log start of an object sealed `at` is about to be committed: nobody may lose more than was asked for, or than
    /// has expired.
    pub fn check_asked(&self, p: TopicPartition, offset: Offset, at: WallMs) {
        let (logs, limit) = (self.logs.borrow(), self.limits.borrow().get(&p.topic).copied());
        let log = logs.get(&p);
        let asked = log.map_or(0, |log| log.asked);
        if offset.0 <= asked {
            return;
        }
        let limit = limit.unwrap_or_else(|| panic!("FINDING {p} shall start at {offset}, asked for was {asked}"));
        let last = log.and_then(|log| log.sent.get(log.records.get(&(offset.0 - 1))?));
        let kept = last.is_some_and(|sent| sent + limit >= at.0);
        assert!(
            !kept,
            "FINDING {p} shall start at {offset} at {at:?}; kept for {limit} ms, its last was sent at {last:?}"
        );
    }

    /// The log start rose.
    pub fn log_start(&self, p: TopicPartition, start: Offset) {
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry(p).or_default();
        log.start = log.start.max(start.0);
    }

    /// A client was told that the log starts there.
    pub fn told_start(&self, p: TopicPartition, start: Offset) {
        self.log_start(p, start);
        let mut logs = self.logs.borrow_mut();
        let log = logs.entry(p).or_default();
        log.told_start = log.told_start.max(start.0);
    }

    /// The highest log start that a client was told. Below [`Ledger::start`] while a higher one is stored and nobody has
    /// heard of it.
    pub fn highest_told_start(&self, p: TopicPartition) -> Offset {
        Offset(self.logs.borrow().get(&p).map_or(0, |log| log.told_start))
    }

    /// The known log start.
    pub fn start(&self, p: TopicPartition) -> Offset {
        Offset(self.logs.borrow().get(&p).map_or(0, |log| log.start))
    }

    /// First offset above everything readable.
    pub fn end(&self, p: TopicPartition) -> Offset {
        let logs = self.logs.borrow();
        Offset(logs.get(&p).and_then(|log| log.records.last_key_value()).map_or(0, |(last, _)| last + 1))
    }

    /// A later log of the partition ends at `end`: nothing that was readable may be missing.
    pub fn check_end(&self, p: TopicPartition, end: Offset, where_: &str) {
        let known = self.end(p);
        assert!(
            end >= known || self.may_be_deleted(p.topic),
            "FINDING {where_}: {p} ends at {end}, but was readable up to {known}"
        );
    }

    /// The record at an offset, if it is known and not below the log start.
    pub fn record_at(&self, p: TopicPartition, offset: Offset) -> Option<RecordId> {
        let logs = self.logs.borrow();
        logs.get(&p).filter(|log| offset.0 >= log.start)?.records.get(&offset.0).copied()
    }

    /// Acknowledged records of all partitions.
    pub fn total_acknowledged(&self) -> u64 {
        self.logs.borrow().values().map(|log| log.acknowledged).sum()
    }

    /// Partitions that hold something and that nobody wants deleted.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        self.logs.borrow().keys().copied().filter(|p| !self.may_be_deleted(p.topic)).collect()
    }
}
