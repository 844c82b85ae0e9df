//! The bare core: one event, one consequence.

use super::world::{entry, lead, partition};
use crate::env::{Mono, WallMs};
use crate::format::object::{ObjectHeader, ObjectKind, decode_header, encode_header};
use crate::ids::{BootId, LeaderEpoch, Offset, Seq, ShardIndex, TopicPartition, Wid, WriterId};
use crate::lane::events::{Effect, Event, Found, Now, Token};
use crate::lane::{
    LaneCommand, LaneConfig, LaneCore, LaneIdentity, LaneReport, LaneTotals, Seal, SealEntry, ToLane, ToShard,
};
use crate::meta::records::{PartitionRecord, Record, WalRecord, WalState};
use crate::meta::{Compare, Op, Revision, Snapshot, Txn, TxnOutcome, Versioned, keys};
use crate::partition::ProducerStamp;
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(super) const WID: Wid = Wid(77);
pub(super) const SHARD: ShardIndex = ShardIndex(0);

pub(super) struct Bare {
    pub(super) core: LaneCore,
    at: Mono,
    seals: u64,
}

impl Bare {
    /// An open lane that leads partition 0 for shard 0.
    pub(super) fn leading(config: LaneConfig) -> Bare {
        let mut bare = Bare::open(config);
        let effects = bare.give(Event::Command(lead([(partition(0), SHARD)])));
        let found = BTreeMap::from([(partition(0), Found::Unborn)]);
        let birth = bare.give(Event::LookedUp(look_up(&effects), Ok(found)));
        let (token, _) = txn(&birth);
        bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(2)))));
        bare
    }

    pub(super) fn open(config: LaneConfig) -> Bare {
        let identity = LaneIdentity { broker: "b".into(), boot: BootId(5), lane: 0 };
        let now = Now { mono: Mono(0), wall: WallMs(0) };
        let core = LaneCore::new(identity, config, BTreeSet::from([SHARD, ShardIndex(1)]), now, 1);
        let mut bare = Bare { core, at: Mono(0), seals: 0 };
        bare.core.take_effects();
        let effects = bare.give(Event::NewWid(WID));
        let (token, _) = txn(&effects);
        bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(1)))));
        bare
    }

    pub(super) fn give(&mut self, event: Event) -> VecDeque<Effect> {
        let now = Now { mono: self.at, wall: WallMs(0) };
        self.core.on_event(now, event);
        self.core.advance(now);
        self.core.take_effects()
    }

    pub(super) fn pass(&mut self, time: Duration) -> VecDeque<Effect> {
        self.at = self.at.plus(time);
        self.core.advance(Now { mono: self.at, wall: WallMs(0) });
        self.core.take_effects()
    }

    pub(super) fn seal(&mut self, entry: SealEntry) -> VecDeque<Effect> {
        let number = self.seals;
        self.seals += 1;
        self.give(Event::FromShard(SHARD, ToLane::Seal(Seal { number, generation: 0, entries: vec![entry] })))
    }

    pub(super) fn put(&mut self, seq: u64, result: Result<PutOutcome, StoreError>) -> VecDeque<Effect> {
        self.give(Event::WalPut { wid: WID, seq: Seq(seq), hedge: false, result })
    }

    /// A put ends; the core commits and does nothing else.
    pub(super) fn commit_put(&mut self, seq: u64, result: Result<PutOutcome, StoreError>) -> VecDeque<Effect> {
        let now = Now { mono: self.at, wall: WallMs(0) };
        self.core.on_event(now, Event::WalPut { wid: WID, seq: Seq(seq), hedge: false, result });
        self.core.commit_durable(now);
        self.core.take_effects()
    }

    pub(super) fn accepts_seals(&self) -> bool {
        self.core.accepts_seals()
    }

    pub(super) fn totals(&self) -> LaneTotals {
        self.core.totals()
    }

    /// How long nothing is due.
    pub(super) fn sleeps(&self) -> Duration {
        self.core.next_deadline().expect("something is under way").since(self.at)
    }

    pub(super) fn header(&mut self, seq: u64, bytes: Option<Bytes>) -> VecDeque<Effect> {
        self.give(Event::Header { wid: WID, seq: Seq(seq), result: Ok(bytes) })
    }
}

pub(super) fn txn(effects: &VecDeque<Effect>) -> (Token, Txn) {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::Txn(token, txn) => Some((*token, txn.clone())),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no transaction in {effects:?}"))
}

pub(super) fn look_up(effects: &VecDeque<Effect>) -> Token {
    let found = effects.iter().find_map(|effect| match effect {
        Effect::LookUp { token, .. } => Some(*token),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no look-up in {effects:?}"))
}

pub(super) fn puts(effects: &VecDeque<Effect>) -> Vec<(u64, Vec<u8>)> {
    let put = |effect: &Effect| match effect {
        Effect::PutWal { seq, slices, .. } => Some((seq.0, slices.concat())),
        _ => None,
    };
    effects.iter().filter_map(put).collect()
}

pub(super) fn committed(effects: &VecDeque<Effect>) -> Option<(u64, usize)> {
    effects.iter().find_map(|effect| match effect {
        Effect::ToShard(SHARD, ToShard::Committed { through, objects, .. }) => Some((*through, objects.len())),
        _ => None,
    })
}

/// Number and wait of the seals of shard 0 that became durable.
pub(super) fn waits(effects: &VecDeque<Effect>) -> Vec<(u64, Duration)> {
    let of = |effect: &Effect| match effect {
        Effect::ToShard(SHARD, ToShard::Committed { waits, .. }) => waits.clone(),
        _ => Vec::new(),
    };
    effects.iter().flat_map(of).map(|wait| (wait.number, wait.waited)).collect()
}

pub(super) fn fenced(effects: &VecDeque<Effect>) -> bool {
    effects.contains(&Effect::ToShard(SHARD, ToShard::Fenced { generation: 1 }))
        && effects.contains(&Effect::Report(LaneReport::Fenced))
        && effects.contains(&Effect::Seal(WID))
}

fn aborts(effects: &VecDeque<Effect>) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Abort(_)))
}

pub(super) fn a_header(kind: ObjectKind, writer: WriterId, seq: u64) -> Option<Bytes> {
    let header = ObjectHeader { kind, wid: WID, writer, seq: Seq(seq), sealed_at: WallMs(0) };
    Some(encode_header(&header))
}

pub(super) fn me() -> WriterId {
    WriterId { boot: BootId(5), lane: 0 }
}

pub(super) fn fencer() -> WriterId {
    WriterId { boot: BootId(9), lane: WriterId::FENCER }
}

pub(super) fn outage() -> StoreError {
    StoreError::unknown(FailureKind::Timeout, "no answer")
}

fn one(base: i64) -> SealEntry {
    entry(partition(0), 1, base, 1, "abc")
}

#[test]
fn an_idle_lane_puts_a_seal_at_once_and_commits_it_when_it_is_stored() {
    let mut bare = Bare::leading(LaneConfig::default());
    let effects = bare.seal(one(0));
    let (seq, bytes) = puts(&effects).remove(0);
    assert_eq!(seq, 0);
    let header = decode_header(&bytes[..64]).expect("valid");
    assert_eq!((header.kind, header.writer, header.wid), (ObjectKind::Data, me(), WID));
    assert_eq!(committed(&effects), None);
    assert_eq!(committed(&bare.put(0, Ok(PutOutcome::Stored))), Some((1, 1)));
}

#[test]
fn a_later_sequence_stored_first_waits_for_the_one_before() {
    let mut bare = Bare::leading(LaneConfig { linger: Duration::ZERO, ..LaneConfig::default() });
    bare.seal(one(0));
    bare.seal(one(1));
    assert_eq!(committed(&bare.put(1, Ok(PutOutcome::Stored))), None);
    assert_eq!(committed(&bare.put(0, Ok(PutOutcome::Stored))), Some((2, 2)));
}

#[test]
fn an_unknown_outcome_sends_the_same_bytes_again() {
    let mut bare = Bare::leading(LaneConfig::default());
    let first = puts(&bare.seal(one(0)));
    assert!(puts(&bare.put(0, Err(outage()))).is_empty());
    let deadline = bare.core.next_deadline().expect("a retry is planned");
    assert_eq!(puts(&bare.pass(deadline.since(bare.at))), first);
}

#[test]
fn ones_own_earlier_attempt_is_success() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(one(0));
    let effects = bare.put(0, Ok(PutOutcome::AlreadyExists));
    assert!(effects.contains(&Effect::ReadHeader { wid: WID, seq: Seq(0) }));
    assert_eq!(committed(&bare.header(0, a_header(ObjectKind::Data, me(), 0))), Some((1, 1)));
}

#[test]
fn a_fence_at_ones_own_sequence_ends_the_log_whoever_wrote_it() {
    for writer in [fencer(), me()] {
        let mut bare = Bare::leading(LaneConfig::default());
        bare.seal(one(0));
        bare.put(0, Ok(PutOutcome::AlreadyExists));
        assert!(fenced(&bare.header(0, a_header(ObjectKind::Fence, writer, 0))));
        assert_eq!(bare.give(Event::Sealed(WID)), VecDeque::from([Effect::NewWid]));
    }
}

#[test]
fn data_of_another_writer_aborts() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(one(0));
    bare.put(0, Ok(PutOutcome::AlreadyExists));
    assert!(aborts(&bare.header(0, a_header(ObjectKind::Data, fencer(), 0))));
}

#[test]
fn an_object_that_exists_and_does_not_three_times_ends_the_log() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(one(0));
    for round in 0..3 {
        bare.put(0, Ok(PutOutcome::AlreadyExists));
        let effects = bare.header(0, None);
        assert_eq!(fenced(&effects), round == 2);
        bare.pass(Duration::from_secs(2));
    }
}

#[test]
fn an_outage_is_no_fence_however_long_it_lasts() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(one(0));
    for _ in 0..1000 {
        bare.put(0, Err(outage()));
        let effects = bare.pass(Duration::from_secs(2));
        assert_eq!(puts(&effects).len(), 1, "{effects:?}");
    }
    assert_eq!(committed(&bare.put(0, Ok(PutOutcome::Stored))), Some((1, 1)));
}

#[test]
fn the_first_answer_after_an_outage_condemns_none_that_still_waits_for_its_own() {
    let mut bare = Bare::leading(LaneConfig { linger: Duration::ZERO, ..LaneConfig::default() });
    bare.seal(one(0));
    bare.put(0, Ok(PutOutcome::Stored));
    (1..=3).for_each(|base| drop(bare.seal(one(base))));
    for _ in 0..50 {
        (1..=3).for_each(|seq| drop(bare.put(seq, Err(outage()))));
        bare.pass(Duration::from_secs(2));
    }
    assert!(!fenced(&bare.put(2, Ok(PutOutcome::Stored))));
    assert_eq!(committed(&bare.put(1, Ok(PutOutcome::Stored))), Some((3, 2)));
    assert_eq!(committed(&bare.put(3, Ok(PutOutcome::Stored))), Some((4, 1)));
}

#[test]
fn a_sequence_unresolved_while_others_succeed_ends_the_log() {
    let mut bare = Bare::leading(LaneConfig { linger: Duration::ZERO, ..LaneConfig::default() });
    bare.seal(one(0));
    for seq in 1..=15 {
        bare.seal(one(seq));
        bare.put(0, Err(outage()));
        bare.put(u64::try_from(seq).expect("positive"), Ok(PutOutcome::Stored));
        let effects = bare.pass(Duration::from_secs(2));
        assert_eq!(fenced(&effects), seq == 15, "after {seq} rounds of two seconds");
    }
}

#[test]
fn at_most_sixteen_sequences_are_in_flight() {
    let mut bare = Bare::leading(LaneConfig { linger: Duration::ZERO, ..LaneConfig::default() });
    let sent: usize = (0..30).map(|base| puts(&bare.seal(one(base))).len()).sum();
    assert_eq!(sent, 16);
    let effects = bare.put(0, Ok(PutOutcome::Stored));
    assert_eq!(puts(&effects).len(), 1, "the rest shares one object");
}

#[test]
fn a_seal_that_does_not_start_at_the_appended_end_aborts() {
    let mut bare = Bare::leading(LaneConfig::default());
    assert!(aborts(&bare.seal(one(1))));
}

#[test]
fn a_seal_of_a_shard_that_does_not_lead_aborts() {
    let mut bare = Bare::leading(LaneConfig::default());
    let seal = Seal { number: 0, generation: 0, entries: vec![one(0)] };
    assert!(aborts(&bare.give(Event::FromShard(ShardIndex(1), ToLane::Seal(seal)))));
}

#[test]
fn a_birth_with_a_lost_answer_is_known_from_its_record() {
    let mut bare = Bare::open(LaneConfig::default());
    let effects = bare.give(Event::Command(lead([(partition(0), SHARD)])));
    let found = BTreeMap::from([(partition(0), Found::Unborn)]);
    let (token, sent) = txn(&bare.give(Event::LookedUp(look_up(&effects), Ok(found))));
    assert!(sent.compares.contains(&Compare::Absent(keys::partition(partition(0)))));
    bare.give(Event::Txn(token, Err(outage())));
    let effects = bare.pass(Duration::from_secs(2));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::ReadMeta(..))));

    // Nothing there yet: that decides nothing, it is sent again.
    bare.give(Event::MetaRead(token, Ok(stands(&sent, false))));
    let (token, again) = txn(&bare.pass(Duration::from_secs(2)));
    assert_eq!(again, sent);
    bare.give(Event::Txn(token, Ok(TxnOutcome::Conflict(Revision(3)))));
    let effects = bare.give(Event::MetaRead(token, Ok(stands(&sent, true))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::ToShard(SHARD, ToShard::Acquired { .. }))));
}

/// What stands under the keys of a transaction that compared the `/wal` record first: before it, or after.
pub(super) fn stands(txn: &Txn, after: bool) -> Snapshot {
    let Compare::Value(_, wal) = &txn.compares[0] else { panic!("compares the /wal record first") };
    let versioned = |value: &Bytes| Some(Versioned { value: value.clone(), modified: Revision(1) });
    let mut values = vec![versioned(wal)];
    for (compare, op) in txn.compares[1..].iter().zip(&txn.ops) {
        let Op::Put(_, new) = op else { panic!("puts") };
        values.push(match compare {
            _ if after => versioned(new),
            Compare::Value(_, old) => versioned(old),
            _ => None,
        });
    }
    for topic in &txn.compares[1 + txn.ops.len()..] {
        let Compare::Value(_, seen) = topic else { panic!("compares the topic's record last") };
        values.push(versioned(seen));
    }
    Snapshot { revision: Revision(9), values }
}

fn old_record(epoch: i32) -> PartitionRecord {
    PartitionRecord { v: 1, epoch: LeaderEpoch(epoch), wid: Wid(1), shard: SHARD, born: 0, released: None }
}

/// A lane that has read partition 0 at epoch 4, end 10, and put its checkpoint; gives the checkpoint's transaction.
fn acquiring() -> (Bare, Token, Txn) {
    let mut bare = Bare::open(LaneConfig::default());
    let effects = bare.give(Event::Command(lead([(partition(0), SHARD)])));
    let mut state = crate::partition::CommittedPartition::born(LeaderEpoch(4));
    state.end = Offset(10);
    state.log_start = Offset(10);
    let found = Found::State { record: old_record(4), state: Box::new(state) };
    let mut effects = bare.give(Event::LookedUp(look_up(&effects), Ok(BTreeMap::from([(partition(0), found)]))));
    for _ in 0..3 {
        let token = effects.iter().find_map(|effect| match effect {
            Effect::SyncBelow { token, .. } | Effect::PutObject { token, .. } => Some(*token),
            _ => None,
        });
        let Some(token) = token else { break };
        effects = bare.give(Event::Stored(token, Ok(())));
    }
    let (token, checkpoint) = txn(&effects);
    (bare, token, checkpoint)
}

fn record_of(txn: &Txn, partition: TopicPartition) -> Option<PartitionRecord> {
    txn.ops.iter().find_map(|op| match op {
        Op::Put(key, value) if *key == keys::partition(partition) => {
            Some(PartitionRecord::decode(value).expect("valid"))
        }
        _ => None,
    })
}

#[test]
fn a_claim_follows_the_transaction_of_its_checkpoint_and_compares_it() {
    let (mut bare, token, checkpoint) = acquiring();
    let Op::Put(_, value) = &checkpoint.ops[0] else { panic!("puts the /wal record") };
    assert_eq!(WalRecord::decode(value).expect("valid").ck, 1);
    assert!(bare.pass(Duration::from_millis(500)).is_empty(), "no claim before the transaction is known");
    let (claim, sent) = txn(&bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(5))))));
    assert_eq!(sent.compares[0], Compare::Value(keys::wal(WID), value.clone()));
    assert_eq!(sent.compares[1], Compare::Value(keys::partition(partition(0)), old_record(4).encode()));
    assert_eq!(record_of(&sent, partition(0)).map(|record| (record.epoch, record.wid)), Some((LeaderEpoch(5), WID)));
    let effects = bare.give(Event::Txn(claim, Ok(TxnOutcome::Committed(Revision(6)))));
    let acquired = effects.iter().find_map(|effect| match effect {
        Effect::ToShard(SHARD, ToShard::Acquired { epoch, state, .. }) => Some((*epoch, state.end)),
        _ => None,
    });
    assert_eq!(acquired, Some((LeaderEpoch(5), Offset(10))));
}

#[test]
fn an_unchanged_record_does_not_decide_a_claim() {
    let (mut bare, token, _) = acquiring();
    let (claim, sent) = txn(&bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(5))))));
    bare.give(Event::Txn(claim, Err(outage())));
    bare.pass(Duration::from_secs(2));
    let effects = bare.give(Event::MetaRead(claim, Ok(stands(&sent, false))));
    assert!(!effects.contains(&Effect::Report(LaneReport::NotLeading { partition: partition(0) })));
    let (_, again) = txn(&bare.pass(Duration::from_secs(2)));
    assert_eq!(again, sent);
    let long = bare.pass(Duration::from_secs(60));
    assert!(!long.iter().any(|effect| matches!(effect, Effect::SyncBelow { .. })), "no checkpoint meanwhile");
}

#[test]
fn a_claim_whose_record_changed_otherwise_is_lost() {
    let (mut bare, token, _) = acquiring();
    let (claim, sent) = txn(&bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(5))))));
    bare.give(Event::Txn(claim, Ok(TxnOutcome::Conflict(Revision(6)))));
    let mut found = stands(&sent, false);
    found.values[1] = Some(Versioned { value: old_record(5).encode(), modified: Revision(6) });
    let effects = bare.give(Event::MetaRead(claim, Ok(found)));
    assert!(effects.contains(&Effect::Report(LaneReport::NotLeading { partition: partition(0) })));
}

#[test]
fn a_log_seen_not_open_is_a_fence() {
    let (mut bare, token, checkpoint) = acquiring();
    bare.give(Event::Txn(token, Ok(TxnOutcome::Conflict(Revision(6)))));
    let Op::Put(_, value) = &checkpoint.ops[0] else { panic!("puts the /wal record") };
    let fencing = WalRecord { state: WalState::Fencing, ck: 0, ..WalRecord::decode(value).expect("valid") };
    let value = Some(Versioned { value: fencing.encode(), modified: Revision(6) });
    let snapshot = Snapshot { revision: Revision(6), values: vec![value] };
    assert!(fenced(&bare.give(Event::MetaRead(token, Ok(snapshot)))));
}

#[test]
fn a_second_lead_while_a_birth_is_undecided_changes_nothing() {
    let mut bare = Bare::open(LaneConfig::default());
    let again = || Event::Command(lead([(partition(0), SHARD)]));
    let effects = bare.give(again());
    let found = BTreeMap::from([(partition(0), Found::Unborn)]);
    let (token, _) = txn(&bare.give(Event::LookedUp(look_up(&effects), Ok(found))));
    assert!(bare.give(again()).is_empty());
    assert!(bare.pass(Duration::from_secs(1)).is_empty());
    let effects = bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(2)))));
    let epoch = LeaderEpoch(1);
    assert!(effects.contains(&Effect::Report(LaneReport::Leading { partition: partition(0), shard: SHARD, epoch })));
    assert!(bare.pass(Duration::from_secs(1)).is_empty());
}

#[test]
fn nothing_is_deleted_before_the_checkpoints_transaction_is_known() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(one(0));
    bare.put(0, Ok(PutOutcome::Stored));
    bare.give(Event::FromShard(SHARD, ToLane::LogStart { partition: partition(0), offset: Offset(1) }));
    bare.put(1, Ok(PutOutcome::Stored));
    let mut effects = bare.pass(Duration::from_secs(10));
    let deletes = |effects: &VecDeque<Effect>| effects.iter().any(|one| matches!(one, Effect::DeleteWalBelow { .. }));
    while let Some(token) = effects.iter().find_map(|effect| match effect {
        Effect::SyncBelow { token, .. } | Effect::PutObject { token, .. } => Some(*token),
        _ => None,
    }) {
        assert!(!deletes(&effects));
        effects = bare.give(Event::Stored(token, Ok(())));
    }
    assert!(!deletes(&effects));
    let (token, _) = txn(&effects);
    let effects = bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(7)))));
    assert!(effects.contains(&Effect::DeleteWalBelow { wid: WID, below: Seq(2) }));
}

/// Lets `seconds` pass with the log's sequence 0 answered by `refusal` and every other request by success or `objects`.
fn struggle(bare: &mut Bare, seconds: u32, refusal: &StoreError, objects: &Result<(), StoreError>) -> Option<u32> {
    for second in 0..seconds {
        let mut effects = bare.pass(Duration::from_secs(1));
        while !effects.is_empty() {
            if fenced(&effects) {
                return Some(second);
            }
            let mut next = VecDeque::new();
            for effect in effects {
                next.extend(match effect {
                    Effect::PutWal { seq: Seq(0), .. } => bare.put(0, Err(refusal.clone())),
                    Effect::PutWal { seq, .. } => bare.put(seq.0, Ok(PutOutcome::Stored)),
                    Effect::SyncBelow { token, .. } => bare.give(Event::Stored(token, Ok(()))),
                    Effect::PutObject { token, .. } => bare.give(Event::Stored(token, objects.clone())),
                    Effect::Txn(token, _) => bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(9))))),
                    _ => VecDeque::new(),
                });
            }
            effects = next;
        }
    }
    None
}

/// A lane with a full window: sequence 0 refused, the others stored.
fn stuck() -> Bare {
    let mut bare = Bare::leading(LaneConfig { linger: Duration::ZERO, ..LaneConfig::default() });
    (0..30).for_each(|base| drop(bare.seal(one(base))));
    (1..16).for_each(|seq| drop(bare.put(seq, Ok(PutOutcome::Stored))));
    bare.put(0, Err(outage()));
    bare
}

#[test]
fn a_sequence_that_fails_alone_ends_the_log_though_the_window_is_full_and_nothing_else_is_put() {
    let at = struggle(&mut stuck(), 120, &outage(), &Ok(())).expect("given up");
    assert!((29..60).contains(&at), "after {at} s");
}

#[test]
fn neither_an_outage_nor_a_full_disk_fences_however_full_the_window_is() {
    assert_eq!(struggle(&mut stuck(), 600, &outage(), &Err(outage())), None);
    let full = StoreError::not_done(FailureKind::Full, "no space");
    let mut bare = stuck();
    assert_eq!(struggle(&mut bare, 600, &full, &Ok(())), None, "a checkpoint is small and may still fit");
    assert_eq!(struggle(&mut bare, 20, &outage(), &Ok(())), None, "time on a full disk does not count");
}

fn told_of_room(effects: &VecDeque<Effect>) -> Vec<(u16, bool)> {
    let told = |effect: &Effect| match effect {
        Effect::ToShard(shard, ToShard::StoreFull(full)) => Some((shard.0, *full)),
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

#[test]
fn a_store_without_room_is_told_to_every_shard_once_and_so_is_that_it_has_room_again() {
    let full = || Err(StoreError::not_done(FailureKind::Full, "no space"));
    let mut bare = Bare::leading(LaneConfig { linger: Duration::ZERO, ..LaneConfig::default() });
    (0..2).for_each(|base| drop(bare.seal(one(base))));
    assert_eq!(told_of_room(&bare.put(0, Err(outage()))), [], "an outage is none");
    bare.pass(Duration::from_secs(3));
    assert_eq!(told_of_room(&bare.put(0, full())), [(0, true), (1, true)]);
    assert_eq!(told_of_room(&bare.put(1, Ok(PutOutcome::Stored))), [], "sequence 0 still finds none");
    assert_eq!(puts(&bare.pass(Duration::from_secs(3))).len(), 1, "it is sent again");
    assert_eq!(told_of_room(&bare.put(0, full())), []);
    bare.pass(Duration::from_secs(3));
    assert_eq!(told_of_room(&bare.put(0, Ok(PutOutcome::Stored))), [(0, false), (1, false)]);
}

#[test]
fn the_cap_of_the_ring_is_told_to_nobody() {
    let mut bare = Bare::leading(LaneConfig { ring_bytes: Some(1_000), ..LaneConfig::default() });
    bare.seal(one(0));
    let full = StoreError::not_done(FailureKind::Full, "the cap");
    assert_eq!(told_of_room(&bare.put(0, Err(full))), []);
}

#[test]
fn deleted_topics_are_remembered_in_bounded_numbers() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.give(Event::Command(LaneCommand::Forget { topic: partition(0).topic }));
    for id in 100..5_000 {
        bare.give(Event::Command(LaneCommand::Forget { topic: crate::ids::TopicId(uuid::Uuid::from_u128(id)) }));
    }
    assert!(bare.core.forgotten.len() <= 1024, "{}", bare.core.forgotten.len());
    assert!(bare.core.forgotten.contains(&partition(0).topic), "it is still draining");
}

fn release() -> Event {
    Event::Command(LaneCommand::Release { partitions: vec![partition(0)] })
}

fn drains(effects: &VecDeque<Effect>) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::ToShard(SHARD, ToShard::Drain { .. })))
}

#[test]
fn a_partition_released_while_it_is_acquired_is_released_once_its_claim_is_decided() {
    for claimed in [false, true] {
        let (mut bare, token, _) = acquiring();
        if !claimed {
            bare.give(release());
        }
        let (claim, _) = txn(&bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(5))))));
        if claimed {
            bare.give(release());
        }
        assert!(drains(&bare.give(Event::Txn(claim, Ok(TxnOutcome::Committed(Revision(6)))))));
    }
}

/// A lane whose birth of partition 0 is undecided.
pub(super) fn bearing() -> (Bare, Token, Txn) {
    let mut bare = Bare::open(LaneConfig::default());
    let effects = bare.give(Event::Command(lead([(partition(0), SHARD)])));
    let found = BTreeMap::from([(partition(0), Found::Unborn)]);
    let (token, sent) = txn(&bare.give(Event::LookedUp(look_up(&effects), Ok(found))));
    (bare, token, sent)
}

#[test]
fn a_partition_released_while_it_is_born_is_released_unless_it_is_wanted_again() {
    for again in [false, true] {
        let (mut bare, token, _) = bearing();
        bare.give(release());
        if again {
            bare.give(Event::Command(lead([(partition(0), SHARD)])));
        }
        let effects = bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(2)))));
        assert_eq!(drains(&effects), !again);
    }
}

#[test]
fn producers_that_their_shard_forgets_are_forgotten_if_it_leads_at_that_epoch() {
    let mut bare = Bare::leading(LaneConfig::default());
    let mut entry = one(0);
    entry.batches[0].producer = Some(ProducerStamp { id: 9, epoch: 0, first_sequence: 0 });
    bare.seal(entry);
    bare.put(0, Ok(PutOutcome::Stored));
    let known = |bare: &Bare| bare.core.partitions[&partition(0)].committed.producers.len();
    let forget =
        |epoch| ToLane::ForgetProducers { partition: partition(0), epoch: LeaderEpoch(epoch), producers: vec![9] };
    assert_eq!(known(&bare), 1);
    bare.give(Event::FromShard(SHARD, forget(2)));
    assert_eq!(known(&bare), 1);
    bare.give(Event::FromShard(SHARD, forget(1)));
    assert_eq!(known(&bare), 0);
}
