//! What the one process does that is controller: it plans from the view and writes wishes, ends the logs of the dead, and
//! finishes what others left half-done.
//!
//! Invariants:
//! 1. Every write compares the controller's key: one that was replaced changes nothing.
//! 2. A log is ended only after its owner was found dead by a read of broker and log at one revision; the view alone may be
//!    torn.
//! 3. At most [`SEALS`] logs are ended in [`SEALS_PER`]; the others wait.
//! 4. What changes while wishes are being written is planned for when they are.
//! 5. While as many items are on their way as may move at once, no other leaves a living owner.

use super::super::effects::{Effect, Owner, Sink, StoreAnswer, StoreCall};
use super::super::messages::COORDINATOR_SLOTS;
use super::costs::Costs;
use super::membership::Membership;
use super::planner::{self, Item, Limits, Member, Seat};
use super::view::{OpenLog, View};
use bytes::Bytes;
use millrace_storage::env::Mono;
use millrace_storage::ids::{ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::meta::records::{
    BrokerRecord, RECORD_VERSION, Record, TopicRecord, TopicState, WalRecord, WalState, WishRecord,
};
use millrace_storage::meta::{MAX_TXN_OPS, Op, Txn, TxnOutcome, keys};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Logs ended in [`SEALS_PER`] at most: a wrong suspicion costs each of its partitions a failover.
pub(in crate::control) const SEALS: usize = 64;
/// See [`SEALS`].
pub(in crate::control) const SEALS_PER: Duration = Duration::from_secs(60);
/// A seal that failed is tried again after this.
const SEAL_AGAIN: Duration = Duration::from_secs(1);
/// Changes gather for so long before a plan, and
const PLAN_AFTER: Duration = Duration::from_millis(20);
/// so much longer for every thousand items: a plan looks at all of them.
const PLAN_LATER: Duration = Duration::from_millis(5);
/// What is half-done for so long has been left by its maker.
const HALF_DONE_FOR: Duration = Duration::from_secs(10);
/// Swaps for each time that loads were listed: each costs two partitions a moment without a leader.
const SWAPS: usize = 4;
/// What a swap must even out: this much of what a seat has on average, and
const WORTH_PERCENT: u64 = 20;
/// so many bytes a second.
const WORTH_BYTES: u64 = 256 << 10;
/// Wishes in a transaction: room for the comparison.
const WRITTEN_AT_ONCE: usize = MAX_TXN_OPS - 1;

/// A log that is being ended.
struct Seal {
    log: OpenLog,
    /// The read is done, the seal itself under way.
    under_way: bool,
    /// Not before this.
    at: Mono,
}

/// See the module.
#[derive(Default)]
pub(in crate::control) struct Controller {
    /// A look is due.
    armed: bool,
    writing: bool,
    /// A look came while wishes were being written, and planned nothing.
    missed: bool,
    failures: u32,
    writes: VecDeque<Op>,
    seals: BTreeMap<Wid, Seal>,
    /// The one whose owner is looked at.
    checking: Option<Wid>,
    /// When seals were begun, oldest first.
    begun: VecDeque<Mono>,
    half_done: BTreeMap<String, (Mono, TopicRecord)>,
    costs: Costs,
    /// What partitions cost was listed anew: the next plan evens it out.
    evens: bool,
}

impl Controller {
    /// Something that a plan depends on has changed.
    pub(in crate::control) fn touch(&mut self, items: usize, sink: &mut Sink) {
        if !std::mem::replace(&mut self.armed, true) {
            let thousands = u32::try_from(items / 1_000).unwrap_or(u32::MAX);
            sink.wake_after(Owner::Plan, PLAN_AFTER + PLAN_LATER.saturating_mul(thousands));
        }
    }

    /// The look: plans and ends logs, if this process is controller.
    pub(in crate::control) fn on_look(&mut self, view: &View, membership: &Membership, sink: &mut Sink) {
        self.armed = false;
        if !view.is_complete() || membership.as_controller(view).is_none() {
            self.writes.clear();
            return;
        }
        self.missed = self.writing || !self.writes.is_empty();
        if !self.missed {
            let swaps = if std::mem::take(&mut self.evens) { SWAPS } else { 0 };
            self.writes = planned(view, &self.costs, swaps).into();
        }
        self.write(view, membership, sink);
        self.find_dead(view, sink);
    }

    /// Now and then loads are listed, and then evened out.
    pub(in crate::control) fn even_loads_now_and_then(
        &mut self,
        view: &View,
        membership: &Membership,
        sink: &mut Sink,
    ) {
        if membership.as_controller(view).is_some() {
            self.costs.look(sink);
        } else {
            self.costs.forget();
        }
    }

    /// A part of what partitions cost came.
    pub(in crate::control) fn on_costs(&mut self, view: &View, answer: StoreAnswer, sink: &mut Sink) {
        if self.costs.on_page(answer, sink) {
            self.evens = true;
            self.touch(view.partition_count(), sink);
        }
    }

    // ---- wishes ----

    fn write(&mut self, view: &View, membership: &Membership, sink: &mut Sink) {
        if self.writing || self.writes.is_empty() {
            return;
        }
        let Some(compare) = membership.as_controller(view) else {
            self.writes.clear();
            return;
        };
        let at_once = self.writes.len().min(WRITTEN_AT_ONCE);
        let ops = self.writes.drain(..at_once).collect();
        self.writing = true;
        sink.txn(Owner::Wishes, Txn { compares: vec![compare], ops });
    }

    /// Wishes were written, or not: what comes of it is planned from what stands.
    pub(in crate::control) fn on_written(
        &mut self,
        view: &View,
        membership: &Membership,
        answer: &StoreAnswer,
        sink: &mut Sink,
    ) {
        self.writing = false;
        if matches!(answer, StoreAnswer::Txn(Ok(TxnOutcome::Committed(_)))) {
            self.failures = 0;
            self.write(view, membership, sink);
            if !self.writing && std::mem::take(&mut self.missed) {
                self.touch(view.partition_count(), sink);
            }
            return;
        }
        self.writes.clear();
        self.failures += 1;
        self.armed = true;
        sink.retry(Owner::Plan, self.failures);
    }

    // ---- the dead ----

    fn find_dead(&mut self, view: &View, sink: &mut Sink) {
        let dead: BTreeMap<Wid, OpenLog> = view.dead_logs().collect();
        self.seals.retain(|wid, seal| seal.under_way || self.checking == Some(*wid) || dead.contains_key(wid));
        for (wid, log) in dead {
            self.seals.entry(wid).or_insert(Seal { log, under_way: false, at: sink.now });
        }
        self.check_next(sink);
    }

    /// Reads the next log and its broker (invariant 2), as far as the limit allows.
    pub(in crate::control) fn check_next(&mut self, sink: &mut Sink) {
        while self.begun.front().is_some_and(|at| sink.now.since(*at) >= SEALS_PER) {
            self.begun.pop_front();
        }
        if self.checking.is_some() {
            return;
        }
        let waiting = self.seals.iter().filter(|(_, seal)| !seal.under_way);
        let Some((wid, at)) = waiting.map(|(wid, seal)| (*wid, seal.at)).min_by_key(|(wid, at)| (*at, *wid)) else {
            return;
        };
        let free = self.begun.front().filter(|_| self.begun.len() >= SEALS).map(|oldest| oldest.plus(SEALS_PER));
        let at = free.map_or(at, |free| free.max(at));
        if at > sink.now {
            return sink.wake_after(Owner::SealAgain, at.since(sink.now));
        }
        self.checking = Some(wid);
        let broker = keys::broker(&self.seals[&wid].log.broker);
        sink.call(Owner::CheckDead, StoreCall::Get(vec![broker, keys::wal(wid)]));
    }

    /// Broker and log were read.
    pub(in crate::control) fn on_checked(&mut self, view: &View, answer: StoreAnswer, sink: &mut Sink) {
        let wid = self.checking.take().expect("one is looked at");
        let seal = self.seals.get_mut(&wid).expect("what is looked at stays");
        let StoreAnswer::Get(answer) = answer else { unreachable!("a read is not answered with {answer:?}") };
        match answer {
            Ok(snapshot) => {
                let mut values = snapshot.values.into_iter().map(|found| found.map(|found| found.value));
                let (broker, wal) = (values.next().flatten(), values.next().flatten());
                let suspected = view.dead_logs().any(|(dead, _)| dead == wid);
                if suspected && is_dead(&seal.log, broker.as_ref(), wal.as_ref(), view) {
                    tracing::warn!(%wid, broker = %seal.log.broker, "ending the log of a dead process");
                    seal.under_way = true;
                    self.begun.push_back(sink.now);
                    sink.effect(Effect::Seal(wid));
                } else {
                    self.seals.remove(&wid);
                }
            }
            Err(error) => {
                tracing::warn!(%wid, %error, "whether the owner of a log lives is not known");
                seal.at = sink.now.plus(SEAL_AGAIN);
            }
        }
        self.check_next(sink);
    }

    /// A seal ended; a failed one is tried again.
    pub(in crate::control) fn on_sealed(&mut self, wid: Wid, sealed: bool, sink: &mut Sink) {
        if sealed {
            self.seals.remove(&wid);
        } else if let Some(seal) = self.seals.get_mut(&wid) {
            (seal.under_way, seal.at) = (false, sink.now.plus(SEAL_AGAIN));
        }
        self.check_next(sink);
    }

    // ---- half-done topics ----

    /// Topics that are to be finished; looked for now and then.
    pub(in crate::control) fn find_half_done(
        &mut self,
        view: &View,
        membership: &Membership,
        sink: &Sink,
    ) -> Vec<(String, TopicRecord)> {
        if membership.as_controller(view).is_none() {
            self.half_done.clear();
            return Vec::new();
        }
        let half_done = view.topics().filter(|(_, record)| record.state != TopicState::Live);
        let mut seen = std::mem::take(&mut self.half_done);
        let mut left = Vec::new();
        for (name, record) in half_done {
            let since = match seen.remove(name) {
                Some((since, before)) if before == *record => since,
                _ => sink.now,
            };
            if sink.now.since(since) >= HALF_DONE_FOR {
                left.push((name.clone(), record.clone()));
            }
            self.half_done.insert(name.clone(), (since, record.clone()));
        }
        left
    }
}

/// Whether what was read at one revision says that the log's owner is gone, or else enough observers of the view do.
fn is_dead(log: &OpenLog, broker: Option<&Bytes>, wal: Option<&Bytes>, view: &View) -> bool {
    let wal = wal.and_then(|value| WalRecord::decode(value).ok());
    let Some(wal) = wal.filter(|wal| !matches!(wal.state, WalState::Sealed { .. })) else { return false };
    if wal.boot != log.boot || wal.broker != log.broker {
        return false;
    }
    match broker.map(|value| BrokerRecord::decode(value)) {
        None => true,
        Some(Ok(record)) => record.boot != log.boot || view.is_suspected(&log.broker),
        // Nobody knows whose it is.
        Some(Err(_)) => false,
    }
}

/// The changes of wishes that a plan comes to, with so many swaps for the sake of loads.
fn planned(view: &View, costs: &Costs, swaps: usize) -> Vec<Op> {
    let member = |(name, record): (&String, &BrokerRecord)| {
        let shards = u16::try_from(record.shards.len()).unwrap_or(u16::MAX);
        (name.clone(), Member { shards, zone: record.zone.clone(), leaving: view.is_leaving(name) })
    };
    let members: BTreeMap<String, Member> =
        view.brokers().filter(|(name, _)| !view.is_suspected(name)).map(member).collect();
    let live: BTreeMap<TopicId, u32> = view.live_topics().map(|(_, record)| (record.id, record.partitions)).collect();
    let mut items = BTreeMap::new();
    for (&topic, &partitions) in &live {
        for index in 0..partitions {
            let partition = TopicPartition { topic, index };
            items.insert(partition, Item { load: costs.of(partition), ..item(view, partition) });
        }
    }
    let mut ops = Vec::new();
    let of_partitions = Limits { swaps, ..limits(&members, &items) };
    for (partition, seat) in planner::plan(&members, &items, of_partitions) {
        ops.push(Op::Put(keys::wish(partition), wish(seat)));
    }
    // Of topics that are gone.
    let known: BTreeSet<TopicId> = view.topics().map(|(_, record)| record.id).collect();
    let strays = view.wishes().filter(|partition| !known.contains(&partition.topic));
    ops.extend(strays.map(|partition| Op::Delete(keys::wish(partition))));
    let slots: BTreeMap<u16, Item> = (0..COORDINATOR_SLOTS).map(|slot| (slot, slot_item(view, slot))).collect();
    for (slot, seat) in planner::plan(&members, &slots, limits(&members, &slots)) {
        ops.push(Op::Put(keys::slot_wish(slot), wish(seat)));
    }
    ops
}

fn item(view: &View, partition: TopicPartition) -> Item {
    let owner = view.seat(partition).map(|(broker, shard)| Seat { broker: broker.to_owned(), shard: shard.0 });
    Item { group: partition.topic.0.as_u128(), owner, wish: view.wish(partition).map(|(wish, _)| seat(wish)), load: 0 }
}

fn slot_item(view: &View, slot: u16) -> Item {
    let owner = view.slot(slot).map(|record| Seat { broker: record.broker.clone(), shard: record.shard.0 });
    Item { group: 0, owner, wish: view.slot_wish(slot).map(|(wish, _)| seat(wish)), load: 0 }
}

fn seat(wish: &WishRecord) -> Seat {
    Seat { broker: wish.broker.clone(), shard: wish.shard.0 }
}

fn wish(seat: Seat) -> Bytes {
    WishRecord { v: RECORD_VERSION, broker: seat.broker, shard: ShardIndex(seat.shard) }.encode()
}

/// Invariant 5: what is on its way from one living broker to another counts.
fn limits<I>(members: &BTreeMap<String, Member>, items: &BTreeMap<I, Item>) -> Limits {
    let lives = |seat: &Seat| members.get(&seat.broker).is_some_and(|member| seat.shard < member.shards);
    let on_its_way = |item: &&Item| {
        // Most are where they shall be.
        if item.wish == item.owner {
            return false;
        }
        let (wish, owner) =
            (item.wish.as_ref().filter(|seat| lives(seat)), item.owner.as_ref().filter(|seat| lives(seat)));
        matches!((wish, owner), (Some(_), Some(_)))
    };
    let limits = Limits { worth_percent: WORTH_PERCENT, worth_bytes: WORTH_BYTES, ..Limits::default() };
    Limits { moves: limits.moves.saturating_sub(items.values().filter(on_its_way).count()), ..limits }
}
