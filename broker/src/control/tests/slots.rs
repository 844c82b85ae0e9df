//! Coordinator slots whose transactions end otherwise than they seemed to.

use super::*;
use crate::control::cluster::SlotHome;
use crate::control::effects::Sink;
use crate::control::slots::Slots;
use millrace_storage::meta::records::SlotRecord;
use millrace_storage::meta::{Revision, Snapshot, TxnOutcome, Versioned};

const SLOT: u16 = 60;

/// The slots of one process, and what they ask of the store.
struct Bench {
    slots: Slots,
    sink: Sink,
}

impl Bench {
    fn new() -> Bench {
        Bench { slots: Slots::among_others("a".into(), BootId(1)), sink: Sink::default() }
    }

    fn record(&self, epoch: u64) -> SlotRecord {
        SlotRecord { v: 1, epoch, broker: "a".into(), boot: BootId(1), shard: ShardIndex(0), released: false }
    }

    /// What the view shows: the home, and a record of this life that stands at this epoch.
    fn place(&mut self, own: bool, epoch: u64) {
        let own = own.then_some(ShardIndex(0));
        let held = (epoch > 0).then(|| self.record(epoch));
        self.slots.place(SLOT, SlotHome { own, elsewhere: None, epoch, held }, &mut self.sink);
    }

    fn answer(&mut self, answer: StoreAnswer) {
        self.slots.on_store(SLOT, answer, &mut self.sink);
    }

    /// The last call that was made.
    fn call(&mut self) -> Option<StoreCall> {
        let effects = self.sink.drain(Vec::new()).into_iter();
        effects.filter_map(|effect| if let Effect::Call(_, call) = effect { Some(call) } else { None }).last()
    }

    /// The record that the last call puts.
    fn put(&mut self) -> Option<SlotRecord> {
        let Some(StoreCall::Txn(txn)) = self.call() else { return None };
        let [Op::Put(_, value)] = &txn.ops[..] else { return None };
        Some(SlotRecord::decode(value).unwrap())
    }

    fn found(&self, epoch: u64) -> StoreAnswer {
        let (value, revision) = (self.record(epoch).encode(), Revision(1));
        let values = vec![Some(Versioned { value, modified: revision })];
        StoreAnswer::Get(Ok(Snapshot { revision, values }))
    }
}

#[test]
fn a_record_that_came_to_stand_while_an_earlier_one_is_released_is_released_too() {
    let mut bench = Bench::new();
    bench.place(true, 1);
    let found = bench.found(1);
    bench.answer(found);
    assert_eq!(bench.put(), Some(bench.record(2)));
    // Nobody knows whether that was done; its home is elsewhere now, and the view shows what stood before.
    bench.answer(StoreAnswer::Txn(Err(StoreError::unknown(FailureKind::Timeout, "lost"))));
    bench.place(false, 1);
    bench.slots.on_timer(SLOT, &mut bench.sink);
    assert_eq!(bench.put(), Some(SlotRecord { released: true, ..bench.record(1) }));
    // It was: the view shows it before the release is refused.
    bench.place(false, 2);
    bench.answer(StoreAnswer::Txn(Ok(TxnOutcome::Conflict(Revision(2)))));
    assert_eq!(bench.put(), Some(SlotRecord { released: true, ..bench.record(2) }));
    bench.answer(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(3)))));
    assert_eq!(bench.put(), None, "nothing of it stands any more");
}
