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
//! 4. Among other processes the epoch of a slot is raised only while its home is here, and nobody else may be answering for
//!    it: whoever its record names has let go, or its key is gone by a read at the same revision (its lease is over, and with
//!    it its right to answer). A slot whose home is elsewhere is taken from its shard first and released then.
//! 5. A read that says that somebody else has a slot is the last word only if the view has shown nothing of the slot since
//!    it was sent: what it may have missed is not shown again.
//! 6. A grant counts under the lease under which its record was raised. Between two leases anybody may have had the slot:
//!    before shards hear that the next one is fresh, all slots are taken from them and granted anew.

use super::cluster::SlotHome;
use super::effects::{Owner, Sink, StoreAnswer, StoreCall};
use super::messages::{COORDINATOR_SLOTS, FromControl, Token};
use super::placement::slot_shard;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::{BootId, ShardIndex};
use millrace_storage::meta::records::{BrokerRecord, RECORD_VERSION, Record, SlotRecord};
use millrace_storage::meta::{
    Compare, Key, MAX_PAGE, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Page, Txn, TxnOutcome, Versioned, keys,
};
use millrace_storage::wrong::{Wrong, wrong};
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
    /// Its home is elsewhere, or somebody else may be answering for it.
    Idle,
    /// Its record of this epoch is put as released.
    Releasing(u64),
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
    /// It was taken from its shard while a transaction is under way.
    Abandoned,
}

struct Slot {
    number: u16,
    step: Step,
    /// The shard that shall coordinate it; `None`: one of another process.
    home: Option<ShardIndex>,
    /// The node of another process that does.
    elsewhere: Option<i32>,
    /// The highest epoch that the view has shown.
    raised_to: u64,
    /// The record of this life that may stand and was not released.
    held: Option<SlotRecord>,
    /// Whose key is read beside the record: whether it lives.
    asked: Option<String>,
    /// Whether the view has shown something of it since its record was read: the read may have missed it.
    is_late: bool,
    /// Whether it is being granted by what was true under an earlier lease.
    is_doubted: bool,
    /// Among other processes: how many times it was taken from a shard that has not said so yet.
    leaving: Option<u32>,
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
    shared: bool,
    slots: Vec<Slot>,
    /// Whether a slot's coordinator changed since [`Slots::take_changed`].
    changed: bool,
}

impl Slots {
    /// Starts to grant every slot.
    pub(super) fn new(broker: String, boot: BootId, shards: u16, sink: &mut Sink) -> Slots {
        let mut slots = Slots { shared: false, ..Slots::among_others(broker, boot) };
        for slot in &mut slots.slots {
            slot.home = Some(slot_shard(slot.number, shards));
            slot.leaving = None;
            slot.read_record(sink);
        }
        slots
    }

    /// Has no slot until it is told.
    pub(super) fn among_others(broker: String, boot: BootId) -> Slots {
        let slots = (0..COORDINATOR_SLOTS).map(|number| Slot {
            number,
            step: Step::Idle,
            home: None,
            elsewhere: None,
            raised_to: 0,
            held: None,
            asked: None,
            is_late: false,
            is_doubted: false,
            leaving: Some(0),
            failures: 0,
            record: None,
            groups: Vec::new(),
            offsets: Vec::new(),
            queue: VecDeque::new(),
        });
        Slots { broker, boot, shared: true, slots: slots.collect(), changed: true }
    }

    /// The node that coordinates each slot; `nodes`: those of one's own shards.
    pub(super) fn coordinators(&self, nodes: &[i32]) -> impl Iterator<Item = Option<i32>> {
        self.slots.iter().map(|slot| match slot.granted_to() {
            Some(shard) => Some(nodes[usize::from(shard.0)]),
            None => slot.elsewhere,
        })
    }

    /// A slot's coordinator is, or shall be, where `home` says.
    pub(super) fn place(&mut self, number: u16, home: SlotHome, sink: &mut Sink) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else { return };
        let was = (slot.granted_to(), slot.elsewhere);
        (slot.home, slot.elsewhere) = (home.own, home.elsewhere);
        slot.raised_to = slot.raised_to.max(home.epoch);
        // One whose outcome was unknown may have come to stand, while an earlier one is released too.
        let released = if let Step::Releasing(epoch) = slot.step { epoch } else { 0 };
        if home.held.as_ref().is_some_and(|held| held.epoch > released) {
            slot.held = home.held;
        }
        match slot.step {
            Step::Granted => slot.move_on(sink),
            Step::Idle => slot.start(sink),
            Step::ReadingRecord => slot.is_late = true,
            // Goes on from what it finds.
            Step::Writing(_)
            | Step::Abandoned
            | Step::Pausing
            | Step::Releasing(_)
            | Step::Raising(_)
            | Step::ReadingGroups
            | Step::ReadingOffsets => {}
        }
        self.changed |= was != (slot.granted_to(), slot.elsewhere);
    }

    /// A shard that a slot was taken from answers nothing of it any more.
    pub(super) fn left(&mut self, number: u16, sink: &mut Sink) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else { return };
        slot.leaving = slot.leaving.map(|times| times.saturating_sub(1));
        if matches!(slot.step, Step::Idle) {
            slot.start(sink);
        }
    }

    /// Another lease was taken (invariant 6): every slot is granted anew, by what its record says now.
    pub(super) fn doubt_all(&mut self, sink: &mut Sink) {
        for slot in &mut self.slots {
            self.changed |= slot.is_granted();
            slot.doubt(sink);
        }
    }

    /// Whether a slot was granted or revoked since the last time this was asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether every slot is granted, here or elsewhere.
    pub(super) fn all_granted(&self) -> bool {
        self.slots.iter().all(|slot| slot.is_granted() || slot.elsewhere.is_some())
    }

    /// Slots that this process has, or is about to take or let go.
    pub(super) fn here(&self) -> usize {
        self.slots.iter().filter(|slot| slot.home.is_some() || !matches!(slot.step, Step::Idle)).count()
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
            (Step::ReadingRecord, StoreAnswer::Get(Ok(snapshot))) => {
                let mut values = snapshot.values.into_iter();
                let (found, owner) = (values.next().flatten(), values.next().flatten());
                slot.step = Step::Idle;
                let Some(shard) = slot.home else { return slot.start(sink) };
                let (broker, boot) = (self.broker.clone(), self.boot);
                let own = |record: &SlotRecord| record.broker == broker && record.boot == boot;
                match slot.holder(found.as_ref(), own).filter(|_| self.shared) {
                    // Read again, with the key of whom it names.
                    Some(other) if slot.asked.as_ref() != Some(&other.broker) => {
                        slot.asked = Some(other.broker);
                        slot.read_record(sink);
                    }
                    // What the view has shown meanwhile is not shown again.
                    Some(_) if slot.is_late && !wrong(Wrong::LateReadTakenForNewest) => slot.read_record(sink),
                    Some(other) if lives(&other, owner.as_ref()) => {}
                    _ => slot.raise(broker, boot, shard, found, sink),
                }
            }
            (Step::Releasing(epoch), StoreAnswer::Txn(Ok(_))) => {
                // Done, or another record stands: somebody else's, or one of this life that the view shows or will show.
                slot.held.take_if(|held| held.epoch <= epoch);
                (slot.step, slot.failures) = (Step::Idle, 0);
                slot.start(sink);
            }
            (Step::Abandoned, StoreAnswer::Txn(_)) => {
                slot.step = Step::Idle;
                slot.start(sink);
            }
            (Step::Raising(record), StoreAnswer::Txn(Ok(TxnOutcome::Committed(_)))) => slot.load(record, sink),
            // Perhaps an earlier try of this life whose outcome was unknown: the epoch rises once more.
            (Step::Raising(_), StoreAnswer::Txn(Ok(TxnOutcome::Conflict(_)))) => slot.read_record(sink),
            (Step::ReadingGroups, StoreAnswer::List(Ok(page))) => slot.loaded_groups(page, sink),
            (Step::ReadingOffsets, StoreAnswer::List(Ok(page))) => slot.loaded_offsets(page, sink),
            (Step::Writing(answered), StoreAnswer::Txn(Ok(TxnOutcome::Committed(_)))) => {
                slot.step = Step::Granted;
                answered.into_iter().for_each(|(shard, token)| answer(shard, token, Ok(()), sink));
                slot.move_on(sink);
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
            slot.step = Step::Idle;
            slot.start(sink);
        }
    }
}

impl Slot {
    fn is_granted(&self) -> bool {
        matches!(self.step, Step::Granted | Step::Writing(_))
    }

    /// The shard that it is granted to.
    fn granted_to(&self) -> Option<ShardIndex> {
        self.record.as_ref().filter(|_| self.is_granted()).map(|record| record.shard)
    }

    /// Lets go of a granted slot that somebody else has taken, or that another shard shall have.
    fn move_on(&mut self, sink: &mut Sink) {
        let raised = self.record.as_ref().is_some_and(|record| self.raised_to > record.epoch);
        let moved = self.home.is_some() && self.home != self.granted_to();
        if raised || moved || self.home.is_none() {
            self.revoke(Vec::new(), ErrorCode::NotCoordinator, sink);
            self.step = Step::Idle;
            self.start(sink);
        }
    }

    /// Takes it back from its shard; what is being granted is granted by a later look.
    fn doubt(&mut self, sink: &mut Sink) {
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Granted => {
                self.revoke(Vec::new(), ErrorCode::NotCoordinator, sink);
                self.start(sink);
            }
            Step::Writing(answered) => {
                self.revoke(answered, ErrorCode::CoordinatorNotAvailable, sink);
                self.step = Step::Abandoned;
            }
            step => {
                self.is_doubted = matches!(step, Step::Raising(_) | Step::ReadingGroups | Step::ReadingOffsets);
                self.step = step;
            }
        }
    }

    /// Begins to have it granted, if its home is here, or lets go of it; not before the shard that had it last has left it.
    fn start(&mut self, sink: &mut Sink) {
        if self.leaving.is_some_and(|times| times > 0) {
            return;
        }
        if self.home.is_some() {
            self.read_record(sink);
        } else if let Some(held) = &self.held {
            let key = keys::slot(self.number);
            let released = SlotRecord { released: true, ..held.clone() };
            let compares = vec![Compare::Value(key.clone(), held.encode())];
            self.step = Step::Releasing(held.epoch);
            sink.txn(self.owner(), Txn { compares, ops: vec![Op::Put(key, released.encode())] });
        }
    }

    /// Whom a record names that has not let go, unless it is `own`. What can't be read is told of when it is raised.
    fn holder(&self, found: Option<&Versioned>, own: impl Fn(&SlotRecord) -> bool) -> Option<SlotRecord> {
        let record = SlotRecord::decode(&found?.value).ok()?;
        (!record.released && !own(&record)).then_some(record)
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
        (self.step, self.is_late, self.is_doubted) = (Step::ReadingRecord, false, false);
        let of_owner = self.asked.as_deref().map(keys::broker);
        sink.call(self.owner(), StoreCall::Get(std::iter::once(keys::slot(self.number)).chain(of_owner).collect()));
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
        let record = SlotRecord { v: RECORD_VERSION, epoch: before + 1, broker, boot, shard, released: false };
        self.held = Some(record.clone());
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
        if std::mem::take(&mut self.is_doubted) {
            return self.read_record(sink);
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
        self.move_on(sink);
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
        self.leaving = self.leaving.map(|times| times + 1);
        answered.into_iter().for_each(|(shard, token)| answer(shard, token, Err(error), sink));
        self.queue.drain(..).for_each(|persist| answer(persist.shard, persist.token, Err(error), sink));
    }
}

/// Whether the life that a record names has its key.
fn lives(record: &SlotRecord, key: Option<&Versioned>) -> bool {
    let broker = key.and_then(|key| BrokerRecord::decode(&key.value).ok());
    broker.is_some_and(|broker| broker.boot == record.boot)
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
