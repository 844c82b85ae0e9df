//! A scripted shard: the least that can stand on the other side of a real lane.
//!
//! It gives offsets, seals, and answers producers when the lane says that their records are committed; everything that the
//! lane tells it is compared with what it knows and with the truth.

use crate::ledger::{Ledger, RecordId};
use crate::node::batch::{self, Stamp};
use crate::truth::Truth;
use bytes::Bytes;
use futures::channel::oneshot;
use millrace_storage::env::Env;
use millrace_storage::ids::{LeaderEpoch, Offset, ShardIndex, TopicPartition};
use millrace_storage::lane::{BatchDescription, CommittedObject, Seal, SealEntry, ToLane, ToShard};
use millrace_storage::mailbox::{Receiver, Sender};
use millrace_storage::partition::{AppendedPartition, CommittedPartition, ObjectPlace, ProducerStamp, Sequenced};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A batch that a producer sends.
#[derive(Clone, Debug)]
pub(super) struct Produce {
    /// Where to.
    pub partition: TopicPartition,
    /// Its producer, if idempotent.
    pub stamp: Option<ProducerStamp>,
    /// Its records.
    pub ids: Vec<RecordId>,
}

/// Why a batch was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Not led here, or no longer.
    NotLeader,
    /// The producer's sequence does not follow.
    OutOfOrder,
    /// The store has no room for what was appended before.
    NoRoom,
}

type Answer = oneshot::Sender<Result<Offset, Refused>>;

/// Where a seal left a partition.
type SealedEnd = (TopicPartition, LeaderEpoch, Offset);

struct Waiting {
    base: Offset,
    last: Offset,
    answer: Answer,
}

struct Led {
    epoch: LeaderEpoch,
    appended: AppendedPartition,
    committed: CommittedPartition,
    unsealed: Vec<BatchDescription>,
    bytes: Vec<u8>,
    unsealed_base: Offset,
    // What stands at the offsets from `committed.end` on.
    in_flight: VecDeque<RecordId>,
    waiting: VecDeque<Waiting>,
    draining: bool,
}

struct State {
    shard: ShardIndex,
    env: Env,
    ledger: Ledger,
    truth: Truth,
    led: BTreeMap<TopicPartition, Led>,
    generation: u64,
    next_seal: u64,
    // Seals sent: number and the end of each partition in it.
    sealed: VecDeque<(u64, Vec<SealedEnd>)>,
    drains: Vec<(TopicPartition, LeaderEpoch)>,
    log_starts: Vec<(TopicPartition, Offset)>,
    sealer: Option<Waker>,
    store_full: bool,
}

/// Handle to a shard.
#[derive(Clone)]
pub(super) struct ScriptedShard(Rc<RefCell<State>>);

/// Bytes that wait to be sealed at most.
const UNSEALED_LIMIT: usize = 16 << 10;
/// How often the shard seals.
const TICK: Duration = Duration::from_millis(1);

impl ScriptedShard {
    /// A shard of the process that `env` belongs to, with its ends of the mailboxes to the lane.
    pub(super) fn start(
        shard: ShardIndex,
        env: &Env,
        (ledger, truth): (&Ledger, &Truth),
        to_lane: Sender<ToLane>,
        from_lane: Receiver<ToShard>,
    ) -> ScriptedShard {
        let this = ScriptedShard(Rc::new(RefCell::new(State {
            shard,
            env: env.clone(),
            ledger: ledger.clone(),
            truth: truth.clone(),
            led: BTreeMap::new(),
            generation: 0,
            next_seal: 0,
            sealed: VecDeque::new(),
            drains: Vec::new(),
            log_starts: Vec::new(),
            sealer: None,
            store_full: false,
        })));
        env.spawn("shard-in", this.clone().listen(from_lane));
        env.spawn("shard-out", this.clone().seal_forever(to_lane));
        this
    }

    /// A producer's request with acks −1: the base offset when it is committed.
    pub(super) fn produce(&self, produce: Produce) -> oneshot::Receiver<Result<Offset, Refused>> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.0.borrow_mut();
        state.on_produce(produce, answer);
        state.wake_sealer();
        drop(state);
        answered
    }

    /// Whether it leads the partition and takes records for it.
    pub(super) fn leads(&self, p: TopicPartition) -> bool {
        self.0.borrow().led.get(&p).is_some_and(|led| !led.draining)
    }

    /// Whether it refuses new records because the store has no room.
    pub(super) fn refuses_for_room(&self) -> bool {
        self.0.borrow().store_full
    }

    /// Committed state of what it leads.
    pub(super) fn committed(&self, p: TopicPartition) -> Option<CommittedPartition> {
        self.0.borrow().led.get(&p).map(|led| led.committed.clone())
    }

    /// Raises the log start of a partition somewhat, as DeleteRecords would.
    pub(super) fn raise_log_start(&self, p: TopicPartition, part: u64) {
        let mut state = self.0.borrow_mut();
        let Some(led) = state.led.get(&p) else { return };
        let above = (led.committed.end.0 - led.committed.log_start.0).unsigned_abs();
        let offset = led.committed.log_start.plus(i64::try_from(part % (above + 1)).expect("part of an i64"));
        state.ledger.ask_log_start(p, offset);
        state.log_starts.push((p, offset));
        state.wake_sealer();
    }

    async fn listen(self, mut from_lane: Receiver<ToShard>) {
        while let Some(message) = from_lane.recv().await {
            self.0.borrow_mut().on_lane(message);
        }
    }

    async fn seal_forever(self, to_lane: Sender<ToLane>) {
        let env = self.0.borrow().env.clone();
        loop {
            // A drain leaves behind the seal that holds everything appended before it.
            let drains = std::mem::take(&mut self.0.borrow_mut().drains);
            let seal = self.0.borrow_mut().take_seal();
            if let Some(seal) = seal
                && to_lane.send_waiting(ToLane::Seal(seal)).await.is_err()
            {
                return;
            }
            let log_starts = std::mem::take(&mut self.0.borrow_mut().log_starts);
            let starts = log_starts.into_iter().map(|(partition, offset)| ToLane::LogStart { partition, offset });
            for message in starts.chain(drains.into_iter().map(|(partition, epoch)| ToLane::Drain { partition, epoch }))
            {
                if to_lane.send_waiting(message).await.is_err() {
                    return;
                }
            }
            env.sleep(TICK).await;
            // A quiet shard does not tick: hours pass quickly.
            futures::future::poll_fn(|cx| self.0.borrow_mut().poll_work(cx)).await;
        }
    }
}

impl State {
    fn on_produce(&mut self, produce: Produce, answer: Answer) {
        let now = self.env.wall();
        let Some(led) = self.led.get_mut(&produce.partition).filter(|led| !led.draining) else {
            // A producer that has gone needs no answer; likewise below.
            let _ = answer.send(Err(Refused::NotLeader));
            return;
        };
        let count = u32::try_from(produce.ids.len()).expect("a small batch");
        let store_full = self.store_full;
        let at_once = match led.appended.check(produce.stamp, count, now) {
            Ok(Sequenced::Append) if store_full => Err(Refused::NoRoom),
            Ok(Sequenced::Append) if led.bytes.len() > UNSEALED_LIMIT => Err(Refused::NotLeader),
            Ok(Sequenced::Append) => return led.append(&produce, count, now, answer),
            Ok(Sequenced::DuplicateCommitted { base, .. }) => Ok(base),
            Ok(Sequenced::DuplicateInFlight { base, last }) => {
                return led.waiting.push_back(Waiting { base, last, answer });
            }
            Err(_) => Err(Refused::OutOfOrder),
        };
        let _ = answer.send(at_once);
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let unsealed = self.led.values().any(|led| !led.unsealed.is_empty());
        if unsealed || !self.drains.is_empty() || !self.log_starts.is_empty() {
            return Poll::Ready(());
        }
        self.sealer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn wake_sealer(&mut self) {
        if let Some(sealer) = self.sealer.take() {
            sealer.wake();
        }
    }

    fn take_seal(&mut self) -> Option<Seal> {
        let mut entries = Vec::new();
        let mut ends = Vec::new();
        for (&partition, led) in self.led.iter_mut().filter(|(_, led)| !led.unsealed.is_empty()) {
            ends.push((partition, led.epoch, led.appended.next_offset()));
            entries.push(SealEntry {
                partition,
                epoch: led.epoch,
                base: std::mem::replace(&mut led.unsealed_base, led.appended.next_offset()),
                batches: std::mem::take(&mut led.unsealed),
                slices: vec![Bytes::from(std::mem::take(&mut led.bytes))],
            });
        }
        if entries.is_empty() {
            return None;
        }
        let number = self.next_seal;
        self.next_seal += 1;
        self.sealed.push_back((number, ends));
        Some(Seal { number, generation: self.generation, entries })
    }

    fn on_lane(&mut self, message: ToShard) {
        match message {
            ToShard::Committed { through, objects, waits: _ } => {
                objects.iter().for_each(|object| self.on_committed(object));
                self.check_through(through);
            }
            ToShard::Acquired { partition, epoch, state } => self.on_acquired(partition, epoch, *state),
            ToShard::Drain { partition, epoch } => {
                if let Some(led) = self.led.get_mut(&partition).filter(|led| led.epoch == epoch) {
                    led.draining = true;
                    self.drains.push((partition, epoch));
                    self.wake_sealer();
                }
            }
            ToShard::Revoked { partition } => {
                let led = self.led.remove(&partition);
                if let Some(led) = led {
                    let lost = led.in_flight.len();
                    assert!(!led.draining || lost == 0, "FINDING {partition} revoked with {lost} records in flight");
                }
            }
            ToShard::Covered { partition, epoch, covered } => {
                if let Some(led) = self.led.get_mut(&partition).filter(|led| led.epoch == epoch) {
                    led.committed.cover(covered);
                }
            }
            ToShard::StoreFull(full) => {
                assert!(full != self.store_full, "FINDING shard {} is told twice that the store is full", self.shard);
                self.store_full = full;
            }
            ToShard::Looked { .. } => panic!("FINDING an answer to what shard {} did not ask", self.shard),
            ToShard::Fenced { generation } => {
                self.store_full = false;
                assert!(generation > self.generation, "FINDING fence generation goes back");
                self.generation = generation;
                self.sealed.clear();
                self.drains.clear();
                self.led.clear();
            }
        }
    }

    fn on_acquired(&mut self, p: TopicPartition, epoch: LeaderEpoch, state: CommittedPartition) {
        assert!(epoch == state.epoch, "FINDING {p} acquired at {epoch} with the state of {}", state.epoch);
        super::check_state(&self.ledger, &self.truth, p, &state);
        let appended = AppendedPartition::new(&state);
        let unsealed_base = state.end;
        let led = Led {
            epoch,
            appended,
            committed: state,
            unsealed: Vec::new(),
            bytes: Vec::new(),
            unsealed_base,
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
            draining: false,
        };
        let before = self.led.insert(p, led);
        assert!(before.is_none(), "FINDING {p} acquired twice by shard {}", self.shard);
    }

    fn on_committed(&mut self, object: &CommittedObject) {
        self.truth.check_committed(object.wid, object.seq);
        let place = ObjectPlace { wid: object.wid, seq: object.seq, sealed_at: object.sealed_at };
        for entry in &object.footer.partitions {
            let Some(led) = self.led.get_mut(&entry.partition).filter(|led| led.epoch == entry.epoch) else { continue };
            let count = usize::try_from(entry.last.0 - entry.base.0 + 1).expect("an entry is not empty");
            let stored = self.truth.ids_committed(object.wid, object.seq, entry);
            let mine: Vec<RecordId> = led.in_flight.drain(..count.min(led.in_flight.len())).collect();
            assert!(stored.as_ref() == Some(&mine), "FINDING {:?} stored for {mine:?} at {place:?}", stored);
            led.committed
                .fold(place, entry)
                .unwrap_or_else(|e| panic!("FINDING {} at {place:?}: {e}", entry.partition));
            led.appended.commit_through(led.committed.end);
            self.ledger.readable(entry.partition, entry.base, &mine);
            led.answer_committed();
        }
        for start in &object.footer.log_starts {
            if let Some(led) = self.led.get_mut(&start.partition) {
                led.committed.fold_log_start(start.offset);
                self.ledger.log_start(start.partition, led.committed.log_start);
            }
        }
    }

    fn check_through(&mut self, through: u64) {
        assert!(through <= self.next_seal, "FINDING seal {through} was never sent");
        while self.sealed.front().is_some_and(|(number, _)| *number < through) {
            let (_, ends) = self.sealed.pop_front().expect("just seen");
            for (p, epoch, end) in ends {
                let Some(led) = self.led.get(&p).filter(|led| led.epoch == epoch) else { continue };
                let committed = led.committed.end;
                assert!(committed >= end, "FINDING seals below {through} durable, {p} {committed} of {end}");
            }
        }
    }
}

impl Led {
    fn append(&mut self, produce: &Produce, count: u32, now: millrace_storage::env::WallMs, answer: Answer) {
        let base = self.appended.append(produce.stamp, count, now);
        let before = self.bytes.len();
        let none = Stamp { producer: -1, epoch: -1, sequence: -1 };
        let stamp = produce.stamp.map_or(none, |stamp| {
            let ProducerStamp { id, epoch, first_sequence } = stamp;
            Stamp { producer: id, epoch, sequence: first_sequence }
        });
        self.bytes.extend_from_slice(&batch::write(stamp, now.0, &produce.ids));
        // As a broker does, in place: the checksum leaves both out.
        self.bytes[before..before + 8].copy_from_slice(&base.0.to_be_bytes());
        self.bytes[before + 12..before + 16].copy_from_slice(&self.epoch.0.to_be_bytes());
        self.unsealed.push(BatchDescription {
            length: u32::try_from(self.bytes.len() - before).expect("a small batch"),
            count,
            max_timestamp: now.0,
            producer: produce.stamp,
        });
        self.in_flight.extend(&produce.ids);
        self.waiting.push_back(Waiting { base, last: base.plus(i64::from(count) - 1), answer });
    }

    fn answer_committed(&mut self) {
        let end = self.committed.end;
        let waiting = std::mem::take(&mut self.waiting);
        for each in waiting {
            if each.last < end {
                let _ = each.answer.send(Ok(each.base));
            } else {
                self.waiting.push_back(each);
            }
        }
    }
}
