//! Coordinator slots among many processes.

use super::*;

/// The slots of process "a", of which the test plays slot 3.
struct SlotDesk {
    sink: Sink,
    slots: Slots,
    calls: Vec<StoreCall>,
    messages: Vec<FromControl>,
}

impl SlotDesk {
    fn new() -> SlotDesk {
        let slots = Slots::among_others("a".to_owned(), BootId(1));
        SlotDesk { sink: Sink::default(), slots, calls: Vec::new(), messages: Vec::new() }
    }

    fn place(&mut self, own: Option<u16>, held: Option<SlotRecord>) {
        let home = SlotHome { own: own.map(ShardIndex), elsewhere: None, epoch: 0, held };
        self.slots.place(3, home, &mut self.sink);
        self.drain();
    }

    fn drain(&mut self) {
        for effect in self.sink.drain(Vec::new()) {
            match effect {
                Effect::Call(id, call) => {
                    assert_eq!(self.sink.ended(id), Owner::Slot(3));
                    self.calls.push(call);
                }
                Effect::Shard(_, message) => self.messages.push(message),
                other => panic!("{other:?}"),
            }
        }
    }

    fn answer(&mut self, answer: StoreAnswer) {
        self.slots.on_store(3, answer, &mut self.sink);
        self.drain();
    }

    /// The last read finds this record, and this life of whoever's key was asked for.
    fn finds(&mut self, found: Option<SlotRecord>, life: Option<u64>) -> Vec<Key> {
        let Some(StoreCall::Get(asked)) = self.calls.pop() else { panic!("nothing is read") };
        let versioned = |value| Versioned { value, modified: Revision(1) };
        let life = life.map(|boot| versioned(record(boot, 20).encode()));
        let values = [found.map(|found| versioned(found.encode())), life];
        let values = values.into_iter().take(asked.len()).collect();
        self.answer(StoreAnswer::Get(Ok(Snapshot { revision: Revision(1), values })));
        asked
    }

    /// The epoch that is raised to.
    fn raised(&mut self) -> u64 {
        let Some(StoreCall::Txn(txn)) = self.calls.pop() else { panic!("nothing is written") };
        let [Op::Put(_, value)] = &txn.ops[..] else { panic!("{:?}", txn.ops) };
        self.answer(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(2)))));
        SlotRecord::decode(value).expect("a record of ours").epoch
    }

    fn loads(&mut self) {
        for _ in 0..2 {
            assert!(matches!(self.calls.pop(), Some(StoreCall::List { .. })));
            self.answer(StoreAnswer::List(Ok(Page { revision: Revision(2), entries: Vec::new(), more: false })));
        }
        assert!(matches!(self.messages.pop(), Some(FromControl::SlotGranted { slot: 3, .. })));
    }
}

fn slot(broker: &str, boot: u64, epoch: u64, released: bool) -> SlotRecord {
    let (broker, boot, shard) = (broker.to_owned(), BootId(boot), ShardIndex(0));
    SlotRecord { v: RECORD_VERSION, epoch, broker, boot, shard, released }
}

#[test]
fn a_slot_of_a_living_process_is_taken_only_when_it_has_let_go_and_that_of_a_dead_one_at_once() {
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    assert_eq!(desk.finds(Some(slot("b", 2, 7, false)), None), [keys::slot(3)]);
    assert_eq!(desk.finds(Some(slot("b", 2, 7, false)), Some(2)), [keys::slot(3), keys::broker("b")]);
    assert_eq!(desk.calls, [], "it lives");
    desk.place(Some(1), None);
    desk.finds(Some(slot("b", 2, 7, true)), Some(2));
    assert_eq!(desk.raised(), 8, "it has let go");
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    desk.finds(Some(slot("b", 2, 7, false)), None);
    desk.finds(Some(slot("b", 2, 7, false)), Some(3));
    assert_eq!(desk.raised(), 8, "a later life has its key");
}

#[test]
fn what_the_view_shows_of_a_slot_while_its_record_is_read_is_not_missed() {
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    desk.finds(Some(slot("b", 2, 7, false)), None);
    // The release is shown before the answer of the read that came before it.
    desk.place(Some(1), None);
    assert_eq!(desk.finds(Some(slot("b", 2, 7, false)), Some(2)), [keys::slot(3), keys::broker("b")]);
    desk.finds(Some(slot("b", 2, 7, true)), Some(2));
    assert_eq!(desk.raised(), 8, "it is read again");
}

#[test]
fn a_slot_is_granted_anew_under_another_lease_also_while_it_is_written_or_loaded() {
    let mut desk = SlotDesk::new();
    let doubt = |desk: &mut SlotDesk| {
        desk.slots.doubt_all(&mut desk.sink);
        desk.drain();
    };
    let left = |desk: &mut SlotDesk| {
        assert_eq!(desk.messages.pop(), Some(FromControl::SlotRevoked { slot: 3 }));
        desk.slots.left(3, &mut desk.sink);
        desk.drain();
    };
    let own = |epoch| Some(SlotRecord { shard: ShardIndex(1), ..slot("a", 1, epoch, false) });
    desk.place(Some(1), None);
    desk.finds(None, None);
    assert_eq!(desk.raised(), 1);
    desk.loads();
    doubt(&mut desk);
    assert_eq!(desk.calls, [], "the shard may still answer");
    left(&mut desk);
    desk.finds(own(1), None);
    assert_eq!(desk.raised(), 2);
    // While it is loaded.
    doubt(&mut desk);
    for _ in 0..2 {
        assert!(matches!(desk.calls.pop(), Some(StoreCall::List { .. })));
        let nothing = Page { revision: Revision(2), entries: Vec::new(), more: false };
        desk.answer(StoreAnswer::List(Ok(nothing)));
    }
    assert_eq!(desk.messages, [], "that was under the earlier lease");
    desk.finds(own(2), None);
    assert_eq!(desk.raised(), 3);
    desk.loads();
    // While it is written.
    let writes = vec![(keys::group(3, "g"), None)];
    desk.slots.persist(ShardIndex(1), Token(9), (3, 3), writes, &mut desk.sink);
    desk.drain();
    assert!(matches!(desk.calls.pop(), Some(StoreCall::Txn(_))));
    doubt(&mut desk);
    let refused = FromControl::Persisted { token: Token(9), result: Err(ErrorCode::CoordinatorNotAvailable) };
    assert_eq!(desk.messages.pop(), Some(refused));
    left(&mut desk);
    assert_eq!(desk.calls, [], "the write is under way");
    desk.answer(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(3)))));
    desk.finds(Some(slot("b", 2, 4, false)), None);
    assert_eq!(desk.finds(Some(slot("b", 2, 4, false)), Some(2)), [keys::slot(3), keys::broker("b")]);
    assert_eq!((desk.calls, desk.messages), (vec![], vec![]), "another has it by now");
}

#[test]
fn a_slot_whose_home_is_elsewhere_is_taken_from_its_shard_and_then_released() {
    let mut desk = SlotDesk::new();
    desk.place(Some(1), None);
    desk.finds(None, None);
    assert_eq!(desk.raised(), 1);
    desk.loads();
    desk.place(None, None);
    assert_eq!(desk.messages, [FromControl::SlotRevoked { slot: 3 }]);
    assert_eq!(desk.calls, [], "the shard may still answer");
    desk.slots.left(3, &mut desk.sink);
    desk.drain();
    let held = SlotRecord { shard: ShardIndex(1), ..slot("a", 1, 1, false) };
    let released = SlotRecord { released: true, ..held.clone() };
    let Some(StoreCall::Txn(txn)) = desk.calls.pop() else { panic!("nothing is written") };
    assert_eq!(txn.compares, [Compare::Value(keys::slot(3), held.encode())]);
    assert_eq!(txn.ops, [Op::Put(keys::slot(3), released.encode())]);
    desk.answer(StoreAnswer::Txn(Ok(TxnOutcome::Committed(Revision(3)))));
    desk.place(None, None);
    assert_eq!(desk.calls, [], "nothing is left to do");
    desk.place(None, Some(held));
    assert_eq!(desk.calls.len(), 1, "a record of this life stands after all");
}
