//! The 64 coordinator slots: who coordinates the groups of each, and their durable writes.
//!
//! A slot is granted by raising the epoch of its record and reading its groups and offsets afterwards; every write
//! compares the record. So whatever a former coordinator still has under way can't be applied after the grant.
//!
//! Invariants:
//! 1. Writes of a slot are applied in the order asked for: one transaction of a slot is under way at a time. (Those of
//!    different slots run side by side, and the embedded store makes one commit of what comes together.)
//! 2. `Persisted { Ok }` leaves only when all writes of that question are known to be durable.
//! 3. After a failed or unknown write the slot is revoked and granted anew from what is durable: nobody guesses.

use super::effects::{Owner, Sink, StoreAnswer, StoreCall};
use super::messages::{COORDINATOR_SLOTS, FromControl, Token};
use super::placement::slot_shard;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::{BootId, ShardIndex};
use millrace_storage::meta::records::{RECORD_VERSION, Record, SlotRecord};
use millrace_storage::meta::{
    Compare, Key, MAX_PAGE, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Page, Txn, TxnOutcome, Versioned, keys,
};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of one write (key and value) at most; a larger one is refused with MESSAGE_TOO_LARGE, alone.
pub(super) const MAX_WRITE_BYTES: usize = MAX_TXN_BYTES / 2;

/// One `Persist` question.
struct Persist {
    shard: ShardIndex,
    token: Token,
    /// What is not yet in a transaction.
    writes: VecDeque<(Key, Option<Bytes>)>,
}

enum Step {
    /// Until the timer.
    Pausing,
    ReadingRecord,
    /// The record that the transaction under way puts.
    Raising(SlotRecord),
    ReadingGroups,
    ReadingOffsets,
    Granted,
    /// The questions that are answered when the transaction under way commits.
    Writing(Vec<(ShardIndex, Token)>),
}

struct Slot {
    number: u16,
    step: Step,
    failures: u32,
    /// The record that this life put last.
    record: Option<SlotRecord>,
    groups: Vec<(Key, Bytes)>,
    offsets: Vec<(Key, Bytes)>,
    queue: VecDeque<Persist>,
}

/// The part of the core that grants slots and writes for them.
pub(super) struct Slots {
    broker: String,
    boot: BootId,
    shards: u16,
    slots: Vec<Slot>,
    /// Whether a slot's coordinator changed since [`Slots::take_changed`].
    changed: bool,
}

impl Slots {
    /// Starts to grant every slot.
    pub(super) fn new(broker: String, boot: BootId, shards: u16, sink: &mut Sink) -> Slots {
        let slots = (0..COORDINATOR_SLOTS).map(|number| Slot {
            number,
            step: Step::ReadingRecord,
            failures: 0,
            record: None,
            groups: Vec::new(),
            offsets: Vec::new(),
            queue: VecDeque::new(),
        });
        let mut slots = Slots { broker, boot, shards, slots: slots.collect(), changed: true };
        slots.slots.iter_mut().for_each(|slot| slot.read_record(sink));
        slots
    }

    /// The shard of each slot that is granted.
    pub(super) fn granted(&self) -> impl Iterator<Item = Option<ShardIndex>> {
        self.slots.iter().map(|slot| slot.is_granted().then(|| slot_shard(slot.number, self.shards)))
    }

    /// Whether a slot was granted or revoked since the last time this was asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether every slot is granted.
    pub(super) fn all_granted(&self) -> bool {
        self.slots.iter().all(Slot::is_granted)
    }

    /// Questions that wait for a transaction.
    pub(super) fn waiting(&self) -> usize {
        self.slots.iter().map(|slot| slot.queue.len()).sum()
    }

    /// A coordinator wants writes made durable.
    pub(super) fn persist(
        &mut self,
        shard: ShardIndex,
        token: Token,
        (number, epoch): (u16, u64),
        writes: Vec<(Key, Option<Bytes>)>,
        sink: &mut Sink,
    ) {
        let slot = self.slots.get_mut(usize::from(number));
        let holds = slot.as_ref().is_some_and(|slot| {
            slot.is_granted()
                && slot.record.as_ref().is_some_and(|record| record.epoch == epoch && record.shard == shard)
        });
        let Some(slot) = slot.filter(|_| holds) else {
            return answer(shard, token, Err(ErrorCode::NotCoordinator), sink);
        };
        if writes.iter().any(|write| bytes_of(write) > MAX_WRITE_BYTES) {
            return answer(shard, token, Err(ErrorCode::MessageTooLarge), sink);
        }
        slot.queue.push_back(Persist { shard, token, writes: writes.into() });
        slot.write(sink);
    }

    /// The call of a slot ended.
    pub(super) fn on_store(&mut self, number: u16, ended: StoreAnswer, sink: &mut Sink) {
        let was_granted = self.slots[usize::from(number)].is_granted();
        self.advance(number, ended, sink);
        self.changed |= was_granted != self.slots[usize::from(number)].is_granted();
    }

    fn advance(&mut self, number: u16, ended: StoreAnswer, sink: &mut Sink) {
        let slot = &mut self.slots[usize::from(number)];
        match (std::mem::replace(&mut slot.step, Step::Pausing), ended) {
            (Step::ReadingRecord, StoreAnswer::Get(Ok(mut snapshot))) => {
                let found = snapshot.values.remove(0);
                let (broker, boot) = (self.broker.clone(), self.boot);
                slot.raise(broker, boot, slot_shard(number, self.shards), found, sink);
            }
            (Step::Raising(record), StoreAnswer::Txn(Ok(TxnOutcome::Committed(_)))) => slot.load(record, sink),
            // Perhaps an earlier try of this life whose outcome was unknown: the epoch rises once more.
            (Step::Raising(_), StoreAnswer::Txn(Ok(TxnOutcome::Conflict(_)))) => slot.read_record(sink),
            (Step::ReadingGroups, StoreAnswer::List(Ok(page))) => slot.loaded_groups(page, sink),
            (Step::ReadingOffsets, StoreAnswer::List(Ok(page))) => slot.loaded_offsets(page, sink),
            (Step::Writing(answered), StoreAnswer::Txn(Ok(TxnOutcome::Committed(_)))) => {
                slot.step = Step::Granted;
                answered.into_iter().for_each(|(shard, token)| answer(shard, token, Ok(()), sink));
                slot.write(sink);
            }
            (Step::Writing(answered), StoreAnswer::Txn(outcome)) => {
                let error = match outcome {
                    Ok(_) => ErrorCode::NotCoordinator,
                    Err(_) => ErrorCode::CoordinatorNotAvailable,
                };
                slot.revoke(answered, error, sink);
                slot.pause(sink);
            }
            (_, StoreAnswer::Txn(Err(_)) | StoreAnswer::Get(Err(_)) | StoreAnswer::List(Err(_))) => slot.pause(sink),
            (_, other) => unreachable!("slot {number} never asked for {other:?}"),
        }
    }

    /// A slot's pause is over.
    pub(super) fn on_timer(&mut self, number: u16, sink: &mut Sink) {
        let slot = &mut self.slots[usize::from(number)];
        if matches!(slot.step, Step::Pausing) {
            slot.read_record(sink);
        }
    }
}

impl Slot {
    fn is_granted(&self) -> bool {
        matches!(self.step, Step::Granted | Step::Writing(_))
    }

    fn owner(&self) -> Owner {
        Owner::Slot(self.number)
    }

    fn pause(&mut self, sink: &mut Sink) {
        self.failures += 1;
        self.step = Step::Pausing;
        sink.retry(self.owner(), self.failures);
    }

    fn read_record(&mut self, sink: &mut Sink) {
        self.step = Step::ReadingRecord;
        sink.call(self.owner(), StoreCall::Get(vec![keys::slot(self.number)]));
    }

    fn raise(&mut self, broker: String, boot: BootId, shard: ShardIndex, found: Option<Versioned>, sink: &mut Sink) {
        let key = keys::slot(self.number);
        let (compare, before) = match found {
            None => (Compare::Absent(key.clone()), 0),
            Some(found) => match SlotRecord::decode(&found.value) {
                Ok(record) => (Compare::Value(key.clone(), found.value), record.epoch),
                Err(error) => {
                    tracing::error!(slot = self.number, %error, "the record of a coordinator slot can't be read");
                    return self.pause(sink);
                }
            },
        };
        let record = SlotRecord { v: RECORD_VERSION, epoch: before + 1, broker, boot, shard };
        let ops = vec![Op::Put(key, record.encode())];
        sink.txn(self.owner(), Txn { compares: vec![compare], ops });
        self.step = Step::Raising(record);
    }

    fn load(&mut self, record: SlotRecord, sink: &mut Sink) {
        self.record = Some(record);
        self.groups.clear();
        self.offsets.clear();
        self.step = Step::ReadingGroups;
        self.list(keys::groups_of(self.number), None, sink);
    }

    fn list(&self, prefix: Key, after: Option<Key>, sink: &mut Sink) {
        sink.call(self.owner(), StoreCall::List { prefix, after, limit: MAX_PAGE });
    }

    fn loaded_groups(&mut self, page: Page, sink: &mut Sink) {
        if take_page(&mut self.groups, page) {
            self.step = Step::ReadingGroups;
            let after = self.groups.last().map(|(key, _)| key.clone());
            self.list(keys::groups_of(self.number), after, sink);
        } else {
            self.step = Step::ReadingOffsets;
            self.list(keys::offsets_of(self.number), None, sink);
        }
    }

    fn loaded_offsets(&mut self, page: Page, sink: &mut Sink) {
        if take_page(&mut self.offsets, page) {
            self.step = Step::ReadingOffsets;
            let after = self.offsets.last().map(|(key, _)| key.clone());
            return self.list(keys::offsets_of(self.number), after, sink);
        }
        let record = self.record.as_ref().expect("loading starts with a record of ours");
        let grant = FromControl::SlotGranted {
            slot: self.number,
            slot_epoch: record.epoch,
            groups: std::mem::take(&mut self.groups),
            offsets: std::mem::take(&mut self.offsets),
        };
        sink.shard(record.shard, grant);
        self.failures = 0;
        self.step = Step::Granted;
    }

    /// Puts the next transaction of writes under way, if one is due.
    fn write(&mut self, sink: &mut Sink) {
        if !matches!(self.step, Step::Granted) || self.queue.is_empty() {
            return;
        }
        let record = self.record.as_ref().expect("a granted slot has a record");
        let compare = Compare::Value(keys::slot(self.number), record.encode());
        let mut answered = Vec::new();
        // One change per key: the last one counts.
        let mut changes: BTreeMap<Key, Option<Bytes>> = BTreeMap::new();
        let mut bytes = 0;
        'full: while let Some(persist) = self.queue.front_mut() {
            while let Some(write) = persist.writes.front() {
                bytes += bytes_of(write);
                if changes.len() + 2 > MAX_TXN_OPS || bytes > MAX_TXN_BYTES {
                    break 'full;
                }
                let (key, value) = persist.writes.pop_front().expect("just looked at");
                changes.insert(key, value);
            }
            let done = self.queue.pop_front().expect("just looked at");
            answered.push((done.shard, done.token));
        }
        let op = |(key, value)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        };
        sink.txn(self.owner(), Txn { compares: vec![compare], ops: changes.into_iter().map(op).collect() });
        self.step = Step::Writing(answered);
    }

    /// Takes the slot from its shard; whoever waits for writes is told.
    fn revoke(&mut self, answered: Vec<(ShardIndex, Token)>, error: ErrorCode, sink: &mut Sink) {
        let record = self.record.as_ref().expect("a granted slot has a record");
        sink.shard(record.shard, FromControl::SlotRevoked { slot: self.number });
        answered.into_iter().for_each(|(shard, token)| answer(shard, token, Err(error), sink));
        self.queue.drain(..).for_each(|persist| answer(persist.shard, persist.token, Err(error), sink));
    }
}

/// Adds a page; whether another one follows.
fn take_page(records: &mut Vec<(Key, Bytes)>, page: Page) -> bool {
    records.extend(page.entries.into_iter().map(|(key, found)| (key, found.value)));
    page.more
}

fn bytes_of((key, value): &(Key, Option<Bytes>)) -> usize {
    key.len() + value.as_ref().map_or(0, Bytes::len)
}

fn answer(shard: ShardIndex, token: Token, result: Result<(), ErrorCode>, sink: &mut Sink) {
    sink.answer(shard, FromControl::Persisted { token, result });
}
