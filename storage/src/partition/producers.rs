//! Idempotent producers: what the log holds of each (KIP-98).
//!
//! The table is a pure function of the batches that were recorded and of the broker times they came with, so that the
//! live lane, recovery and a shard's appended state agree. A producer that has been silent for [`PRODUCER_EXPIRY_MS`] is
//! unknown from then on, whether or not its entry is still there.
//!
//! A leader that runs out of memory may forget producers that have been silent for minutes ([`ProducerTable::forget`]).
//! Recovery folds them anew, so that what it knows of a producer is never less than what the leader knew.
//!
//! Invariants:
//! 1. A producer's batches are consecutive in sequence and all of its current epoch; at most [`WINDOW`] of them.
//! 2. At most [`MAX_PRODUCERS`]: above, expired ones go, then those silent for longest.
//! 3. Recording a batch of a known producer allocates nothing.

use super::ProducerStamp;
use crate::env::WallMs;
use crate::ids::Offset;
use std::collections::BTreeMap;

/// Batches remembered per producer: Kafka's, and the most that a Java or librdkafka producer keeps in flight.
pub const WINDOW: usize = 5;
/// Producers remembered per partition, about 1 MiB.
pub const MAX_PRODUCERS: usize = 10_000;
/// Milliseconds of silence after which a producer is forgotten: Kafka's default `producer.id.expiration.ms`.
pub const PRODUCER_EXPIRY_MS: i64 = 86_400_000;
/// When a producer is new, expired ones are looked for each time the table has grown by this many.
const SWEEP_EVERY: usize = 64;
/// The share of a full table that makes room at once, so that the cost of choosing them is spread.
const EVICTED_SHARE: usize = 8;

/// One of the last five batches of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CommittedBatch {
    /// Its first offset.
    pub base: Offset,
    /// Records less one: from the first to the last offset, and sequence.
    pub last_delta: u32,
    /// Sequence of its last record.
    pub last_sequence: i32,
}

impl CommittedBatch {
    /// Sequence of its first record.
    pub fn first_sequence(&self) -> i32 {
        advance_sequence(self.last_sequence, -i64::from(self.last_delta))
    }
    /// Its last offset, inclusive.
    pub fn last(&self) -> Offset {
        self.base.plus(i64::from(self.last_delta))
    }
}

/// The sequence `by` records further on; 0 follows 2^31 − 1.
fn advance_sequence(sequence: i32, by: i64) -> i32 {
    let wrapped = (i64::from(sequence) + by).rem_euclid(1 << 31);
    i32::try_from(wrapped).expect("below 2^31")
}

/// One producer. 96 bytes.
#[derive(Clone, Copy, Debug)]
pub struct ProducerState {
    /// Its epoch.
    pub epoch: i16,
    /// Broker time of its newest batch.
    pub updated: WallMs,
    batches: [CommittedBatch; WINDOW],
    len: u8,
}

impl ProducerState {
    /// A producer with no batch yet.
    pub fn new(epoch: i16, updated: WallMs) -> ProducerState {
        ProducerState { epoch, updated, batches: Default::default(), len: 0 }
    }

    /// Its last batches, the oldest first; at least one in a table.
    pub fn batches(&self) -> &[CommittedBatch] {
        &self.batches[..usize::from(self.len)]
    }

    /// Adds a batch, forgetting the oldest beyond [`WINDOW`].
    pub fn push(&mut self, batch: CommittedBatch) {
        if usize::from(self.len) == WINDOW {
            self.batches.copy_within(1.., 0);
            self.len -= 1;
        }
        self.batches[usize::from(self.len)] = batch;
        self.len += 1;
    }

    /// The sequence that its next batch starts with.
    pub fn next_sequence(&self) -> Option<i32> {
        self.batches().last().map(|last| advance_sequence(last.last_sequence, 1))
    }

    /// Among the last batches, the one with exactly these sequences.
    pub fn duplicate_of(&self, first_sequence: i32, count: u32) -> Option<CommittedBatch> {
        let last_delta = count - 1;
        let same = |batch: &&CommittedBatch| batch.last_delta == last_delta && batch.first_sequence() == first_sequence;
        self.batches().iter().find(same).copied()
    }

    fn is_expired(&self, now: WallMs) -> bool {
        now.0.saturating_sub(self.updated.0) >= PRODUCER_EXPIRY_MS
    }
}

impl PartialEq for ProducerState {
    fn eq(&self, other: &ProducerState) -> bool {
        (self.epoch, self.updated, self.batches()) == (other.epoch, other.updated, other.batches())
    }
}

impl Eq for ProducerState {}

/// Producers by id, with a cap and expiry by broker time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProducerTable {
    by_id: BTreeMap<i64, ProducerState>,
}

impl ProducerTable {
    /// How many there are, expired ones that nobody has looked for included.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Memory that one takes, by estimate: the nodes of the tree are two thirds full.
    pub const BYTES_EACH: usize = size_of::<(i64, ProducerState)>() * 3 / 2;

    /// Bytes of memory that they take, by estimate.
    pub fn memory(&self) -> usize {
        self.by_id.len() * ProducerTable::BYTES_EACH
    }

    /// The producer, unless it is unknown or expired at `now`.
    pub fn get(&self, id: i64, now: WallMs) -> Option<&ProducerState> {
        self.by_id.get(&id).filter(|state| !state.is_expired(now))
    }

    /// All by ascending id, expired ones that nobody has looked for included.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerState)> {
        self.by_id.iter().map(|(id, state)| (*id, state))
    }

    /// Takes a batch of `count` ≥ 1 records at `base` into account, as it stands in the log: the checks were made when
    /// it was appended. A new epoch, or a producer that has expired, starts over.
    pub fn record(&mut self, stamp: ProducerStamp, base: Offset, count: u32, at: WallMs) {
        let last_delta = count - 1;
        let last_sequence = advance_sequence(stamp.first_sequence, i64::from(last_delta));
        let batch = CommittedBatch { base, last_delta, last_sequence };
        if let Some(state) = self.by_id.get_mut(&stamp.id) {
            if state.epoch != stamp.epoch || state.is_expired(at) {
                *state = ProducerState::new(stamp.epoch, state.updated);
            }
            state.updated = state.updated.max(at);
            state.push(batch);
            return;
        }
        self.make_room(at);
        let mut state = ProducerState::new(stamp.epoch, at);
        state.push(batch);
        self.by_id.insert(stamp.id, state);
    }

    /// Puts a producer as a checkpoint holds it; more than [`MAX_PRODUCERS`] are the caller's to refuse.
    pub(crate) fn restore(&mut self, id: i64, state: ProducerState) {
        self.by_id.insert(id, state);
    }

    /// Forgets a producer; true if it was there. Its next batch is then judged as that of an unknown one.
    pub fn forget(&mut self, id: i64) -> bool {
        self.by_id.remove(&id).is_some()
    }

    fn make_room(&mut self, now: WallMs) {
        let len = self.by_id.len();
        if len == MAX_PRODUCERS || (len > 0 && len.is_multiple_of(SWEEP_EVERY)) {
            self.by_id.retain(|_, state| !state.is_expired(now));
        }
        if self.by_id.len() < MAX_PRODUCERS {
            return;
        }
        let mut by_age: Vec<(WallMs, i64)> = self.by_id.iter().map(|(id, state)| (state.updated, *id)).collect();
        by_age.sort_unstable();
        for (_, id) in &by_age[..MAX_PRODUCERS / EVICTED_SHARE] {
            self.by_id.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(id: i64, epoch: i16, first_sequence: i32) -> ProducerStamp {
        ProducerStamp { id, epoch, first_sequence }
    }

    #[test]
    fn the_sequence_after_the_largest_is_zero() {
        let mut table = ProducerTable::default();
        table.record(stamp(1, 0, i32::MAX - 1), Offset(0), 4, WallMs(0));
        let state = table.get(1, WallMs(0)).expect("recorded");
        assert_eq!(state.batches()[0].last_sequence, 1);
        assert_eq!(state.batches()[0].first_sequence(), i32::MAX - 1);
        assert_eq!(state.next_sequence(), Some(2));
        assert!(state.duplicate_of(i32::MAX - 1, 4).is_some());
        assert!(state.duplicate_of(i32::MAX - 1, 3).is_none());
    }

    #[test]
    fn five_batches_are_remembered() {
        let mut table = ProducerTable::default();
        for n in 0..7 {
            table.record(stamp(1, 0, n * 10), Offset(i64::from(n) * 10), 10, WallMs(0));
        }
        let state = table.get(1, WallMs(0)).expect("recorded");
        assert_eq!(state.batches().iter().map(|b| b.base.0).collect::<Vec<_>>(), [20, 30, 40, 50, 60]);
    }

    #[test]
    fn a_new_epoch_starts_over() {
        let mut table = ProducerTable::default();
        table.record(stamp(1, 0, 0), Offset(0), 10, WallMs(0));
        table.record(stamp(1, 1, 0), Offset(10), 5, WallMs(0));
        let state = table.get(1, WallMs(0)).expect("recorded");
        assert_eq!((state.epoch, state.batches().len()), (1, 1));
    }

    #[test]
    fn a_silent_producer_expires_by_broker_time() {
        let mut table = ProducerTable::default();
        table.record(stamp(1, 0, 0), Offset(0), 1, WallMs(1000));
        assert!(table.get(1, WallMs(1000 + PRODUCER_EXPIRY_MS - 1)).is_some());
        assert!(table.get(1, WallMs(1000 + PRODUCER_EXPIRY_MS)).is_none());
        assert!(table.get(1, WallMs(0)).is_some(), "a clock that went back expires nobody");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_those_silent_for_longest() {
        let mut table = ProducerTable::default();
        let count = MAX_PRODUCERS as i64 + 1;
        for id in 0..count {
            table.record(stamp(id, 0, 0), Offset(id), 1, WallMs(id));
            table.record(stamp(0, 0, id as i32 + 1), Offset(id), 1, WallMs(id));
        }
        assert_eq!(table.len(), MAX_PRODUCERS - MAX_PRODUCERS / EVICTED_SHARE + 1);
        assert!(table.get(0, WallMs(count)).is_some(), "busy all the time");
        assert!(table.get(1, WallMs(count)).is_none());
        assert!(table.get(count - 1, WallMs(count)).is_some());
    }

    #[test]
    fn expired_producers_make_room_first() {
        let mut table = ProducerTable::default();
        for id in 0..SWEEP_EVERY as i64 {
            table.record(stamp(id, 0, 0), Offset(id), 1, WallMs(0));
        }
        table.record(stamp(-1, 0, 0), Offset(0), 1, WallMs(PRODUCER_EXPIRY_MS));
        assert_eq!(table.len(), 1);
    }
}
