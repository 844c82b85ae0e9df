//! The core of a lane: events and time in, effects out; no I/O, no clock, no task.
//!
//! It is spread over the files beside it by step of PROTOCOL.md section 4: [`super::joining`] (what becomes an object
//! when), [`super::inflight`] (COMMIT), [`super::leadership`] (partition states), [`super::claims`] (BIRTH, ACQUIRE,
//! RELEASE), [`super::checkpointing`] (CHECKPOINT), [`super::transactions`] (what `/wal` and `/partition` records are
//! compared with), [`super::stop`] (graceful stop), [`super::ring`] (the memory store's cap). This file holds the state,
//! OPEN, the fold at the commit point and FENCED.
//!
//! Invariants:
//! 1. Shards hear of an object only when the commit point has passed it, in sequence order.
//! 2. After FENCED nothing of the old log remains but its name, to be sealed.
//! 3. The same events at the same times give the same effects.

use super::checkpointing::Checkpointing;
use super::claims::{Unborn, Wanted};
use super::compacting::Compacting;
use super::config::{LaneConfig, LaneIdentity, WAITING_OBJECTS};
use super::counters::LaneTotals;
use super::events::{Effect, Event, Now, Token};
use super::inflight::{Flight, InFlight, Step};
use super::joining::{Joining, Window};
use super::leadership::Led;
use super::log_bytes::LogBytes;
use super::messages::{CommittedObject, LaneCommand, LaneReport, SealWait, ToLane, ToShard};
use super::probe::Looks;
use super::ring::Ring;
use super::stop::Stop;
use super::transactions::{Purpose, Transactions};
use crate::compaction;
use crate::env::Mono;
use crate::format::object::{ObjectHeader, ObjectKind, encode_object};
use crate::ids::{Seq, ShardIndex, TopicId, TopicPartition, Wid};
use crate::meta::records::{RECORD_VERSION, WalRecord, WalState};
use crate::partition::ObjectPlace;
use crate::wal::PutOutcome;
use crate::wrong::{Wrong, wrong};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Where the lane's own log stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The old log is being sealed.
    Sealing,
    /// A name is asked for.
    Naming,
    /// OPEN is undecided.
    Opening,
    Open,
}

/// A lane: see the module.
pub struct LaneCore {
    pub(super) identity: LaneIdentity,
    pub(super) config: LaneConfig,
    pub(super) now: Now,
    pub(super) wid: Wid,
    /// `/wal/{wid}` as it stands.
    pub(super) record: WalRecord,
    pub(super) generation: u64,
    pub(super) joining: Joining,
    pub(super) flights: InFlight,
    pub(super) partitions: BTreeMap<TopicPartition, Led>,
    /// Draining, releasing or released.
    pub(super) moving: BTreeSet<TopicPartition>,
    /// In the checkpoint that stands, claim not yet sent.
    pub(super) claimable: BTreeSet<TopicPartition>,
    /// To be born; those in `being_born` and not here have their transaction sent.
    pub(super) births: BTreeMap<TopicPartition, Unborn>,
    /// Found without a record, birth undecided.
    pub(super) being_born: BTreeSet<TopicPartition>,
    pub(super) wanted: BTreeMap<TopicPartition, Wanted>,
    /// Partitions that went elsewhere: the first sequence that holds something of them.
    pub(super) departed: BTreeMap<TopicPartition, Seq>,
    /// Deleted topics: those of which something is held, and a bounded number of others.
    pub(super) forgotten: BTreeSet<TopicId>,
    /// Being acquired or born, and to be released once that is decided.
    pub(super) unwanted: BTreeSet<TopicPartition>,
    pub(super) looking: Option<(Token, Vec<TopicPartition>)>,
    pub(super) look_attempts: u32,
    pub(super) transactions: Transactions,
    pub(super) checkpointing: Checkpointing,
    pub(super) compacting: Option<Compacting>,
    pub(super) log_bytes: LogBytes,
    pub(super) deleted_below: Seq,
    /// When a roll last succeeded, Unix seconds; 0: none did.
    pub(super) rolled_at: u64,
    /// When a checkpoint last came to stand, likewise.
    pub(super) checkpoint_at: u64,
    /// When a write-ahead object was last stored, likewise.
    put_at: u64,
    /// Partitions that alarms were of.
    damaged: u64,
    pub(super) producer_ids: i64,
    pub(super) stop: Option<Stop>,
    /// The sequence that is looked at for a fence.
    pub(super) probing: Option<Seq>,
    pub(super) looks: Looks,
    pub(super) ended: bool,
    pub(super) effects: VecDeque<Effect>,
    phase: Phase,
    ring: Ring,
    shards: BTreeSet<ShardIndex>,
    /// What each shard was told last: every seal with a lower number is durable.
    through: BTreeMap<ShardIndex, u64>,
    /// Whether the shards were told that the store has no room.
    told_full: bool,
    next_token: u64,
    jitter: u64,
}

impl LaneCore {
    /// A lane that asks for a name and opens a log. `seed` is for jitter.
    pub fn new(
        identity: LaneIdentity,
        config: LaneConfig,
        shards: BTreeSet<ShardIndex>,
        now: Now,
        seed: u64,
    ) -> LaneCore {
        let record = WalRecord {
            v: RECORD_VERSION,
            broker: identity.broker.clone(),
            boot: identity.boot,
            lane: identity.lane,
            state: WalState::Open,
            ck: 0,
            lw: Seq(0),
            emptied: None,
        };
        LaneCore {
            joining: Joining::new(&config, now.mono),
            compacting: config.compaction.clone().map(|plan| Compacting::new(plan, config.roll_memory, seed, now.mono)),
            identity,
            config,
            now,
            wid: Wid(0),
            record,
            generation: 0,
            flights: InFlight::new(),
            partitions: BTreeMap::new(),
            moving: BTreeSet::new(),
            claimable: BTreeSet::new(),
            births: BTreeMap::new(),
            being_born: BTreeSet::new(),
            wanted: BTreeMap::new(),
            departed: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            unwanted: BTreeSet::new(),
            looking: None,
            look_attempts: 0,
            transactions: Transactions::default(),
            checkpointing: Checkpointing::new(),
            log_bytes: LogBytes::default(),
            deleted_below: Seq(0),
            rolled_at: 0,
            checkpoint_at: 0,
            put_at: 0,
            damaged: 0,
            producer_ids: 0,
            stop: None,
            probing: None,
            looks: Looks::default(),
            ended: false,
            effects: VecDeque::from([Effect::NewWid]),
            phase: Phase::Naming,
            ring: Ring::default(),
            shards,
            through: BTreeMap::new(),
            told_full: false,
            next_token: 1,
            jitter: seed | 1,
        }
    }

    /// Takes an event in. What it leads to comes with the next [`LaneCore::advance`]: give all that have come first, so
    /// that seals of several shards share an object.
    pub fn on_event(&mut self, now: Now, event: Event) {
        self.now = now;
        if self.ended {
            return;
        }
        match event {
            Event::FromShard(shard, ToLane::Seal(seal)) => self.on_seal(shard, seal),
            Event::FromShard(shard, ToLane::Drain { partition, epoch }) => self.on_drained(shard, partition, epoch),
            Event::FromShard(shard, ToLane::LogStart { partition, offset }) => {
                self.on_log_start(shard, partition, offset);
            }
            Event::FromShard(shard, ToLane::Retention { partition, retention }) => {
                self.set_retention(shard, partition, retention);
            }
            Event::FromShard(shard, ToLane::ForgetProducers { partition, epoch, producers }) => {
                self.forget_producers(shard, (partition, epoch), &producers);
            }
            Event::FromShard(shard, ToLane::Look { generation }) => self.on_look(shard, generation),
            Event::Command(LaneCommand::Lead { partitions }) => self.on_lead(partitions),
            Event::Command(LaneCommand::Release { partitions }) => self.on_release(&partitions),
            Event::Command(LaneCommand::Forget { topic }) => self.forget_topic(topic),
            Event::Command(LaneCommand::ProducerIdHighWater(first)) => {
                self.producer_ids = self.producer_ids.max(first);
            }
            Event::Command(LaneCommand::Probe) => self.probe(),
            Event::Command(LaneCommand::Stop) => self.on_stop(),
            Event::NewWid(wid) => self.open(wid),
            Event::WalPut { wid, seq, hedge, result } if wid == self.wid => {
                if self.is_own_fence(seq) {
                    return self.on_fence_put(seq, &result);
                }
                if matches!(result, Ok(PutOutcome::Stored)) {
                    self.put_at = self.now.wall.seconds();
                }
                let random = self.random();
                let step = self.flights.on_put(now.mono, (seq, hedge), &result, random);
                self.take(step);
            }
            Event::Header { wid, seq, result } if wid == self.wid => {
                if self.is_own_fence(seq) {
                    return self.on_fence_header(seq, &result);
                }
                if self.is_probe(seq) {
                    return self.on_probed(seq, &result);
                }
                let (random, me) = (self.random(), self.identity.writer());
                let step = self.flights.on_header(now.mono, (wid, seq), me, &result, random);
                self.take(step);
            }
            Event::WalPut { .. } | Event::Header { .. } => {} // of a log that is given up
            Event::Txn(token, result) => self.on_txn(token, &result),
            Event::MetaRead(token, result) => self.on_meta_read(token, result),
            Event::Stored(token, result) => self.on_stored(token, &result),
            Event::LookedUp(token, result) => self.on_looked_up(token, result),
            Event::Sealed(_) => self.name_again(),
            Event::Rolled(partition, name, result) => self.on_rolled(partition, name, result),
            Event::Merged(partition, name, result) => self.on_merged(partition, name, result),
            Event::Looked(partition, result) => self.on_looked(partition, result),
        }
    }

    /// Moves the commit point as far as it goes, and nothing else. [`LaneCore::advance`] does that too, but what it tells the
    /// shards leaves when it has also made objects of what waits.
    pub fn commit_durable(&mut self, now: Now) {
        self.now = now;
        if !self.ended && self.phase == Phase::Open {
            self.commit();
        }
    }

    /// Does everything that is due at `now`.
    pub fn advance(&mut self, now: Now) {
        self.now = now;
        if self.ended || self.phase != Phase::Open {
            self.advance_txns();
            return;
        }
        if self.flights.hopeless(&self.config, now.mono) {
            tracing::error!(wid = %self.wid, "a write-ahead object stays unresolved while the store answers: giving up the log");
            return self.fenced();
        }
        self.commit();
        self.tell_room();
        for (seq, slices) in self.flights.resend(&self.config, now.mono) {
            self.effects.push_back(Effect::PutWal { wid: self.wid, seq, slices, hedge: false });
        }
        for (seq, slices) in self.flights.hedge(now.mono) {
            self.effects.push_back(Effect::PutWal { wid: self.wid, seq, slices, hedge: true });
        }
        for seq in self.flights.look_again(now.mono) {
            self.effects.push_back(Effect::ReadHeader { wid: self.wid, seq });
        }
        self.put_objects();
        self.advance_looks();
        self.keep_held();
        if wrong(Wrong::AckBeforeDurable) {
            self.commit();
        }
        self.advance_drains();
        self.advance_released();
        self.advance_wanted();
        self.advance_ownership();
        self.advance_compaction();
        self.advance_checkpoint();
        self.advance_stop();
        self.advance_txns();
    }

    /// What is to be done, in order.
    pub fn take_effects(&mut self) -> VecDeque<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// When [`LaneCore::advance`] wants to be called though nothing happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        let transactions = self.transactions.deadline();
        if self.ended || self.phase != Phase::Open {
            return transactions;
        }
        let room = self.flights.has_room(&self.config);
        let joining = room.then(|| self.joining.deadline(&self.config, self.flights.is_empty())).flatten();
        [
            transactions,
            joining,
            self.flights.deadline(&self.config),
            self.compaction_deadline(),
            self.checkpoint_deadline(),
            self.ownership_deadline(),
            self.stop.and_then(|stop| stop.deadline()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether messages of shards are taken now; if not, they wait in their mailboxes.
    pub fn accepts_seals(&self) -> bool {
        self.joining.bytes() < WAITING_OBJECTS * self.config.object_limit_bytes && !self.waits_for_rolls()
    }

    /// Whether produce is at work.
    pub fn is_busy(&self) -> bool {
        !self.flights.is_empty()
    }

    /// The lane's log, once it is open.
    pub fn wid(&self) -> Option<Wid> {
        self.is_open().then_some(self.wid)
    }

    /// What was put so far, and what it leaves to be rolled.
    pub fn totals(&self) -> LaneTotals {
        let totals = LaneTotals {
            held_bytes: self.held_bytes(),
            uncovered_bytes: self.uncovered_bytes(),
            rolled_at: self.rolled_at,
            checkpoint_at: self.checkpoint_at,
            put_at: self.put_at,
            damaged: self.damaged,
            unneeded_since: self.unneeded_since(),
            ..self.flights.totals()
        };
        self.compacting.as_ref().map_or(totals, |compacting| compacting.add_to(totals))
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    /// Jitter; xorshift on the seed that the pump drew.
    pub(super) fn random(&mut self) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.jitter
    }

    pub(super) fn report(&mut self, report: LaneReport) {
        if matches!(report, LaneReport::Alarm { partition: Some(_), .. }) {
            self.damaged += 1;
        }
        self.effects.push_back(Effect::Report(report));
    }

    pub(super) fn abort(&mut self, why: String) {
        self.ended = true;
        self.effects.push_back(Effect::Abort(why));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait => {}
            Step::Look(seq) => self.effects.push_back(Effect::ReadHeader { wid: self.wid, seq }),
            Step::Fenced => self.fenced(),
            Step::Abort(why) => self.abort(why),
        }
    }

    /// Asks for a name: at first, after FENCED, and should a random name ever be taken.
    pub(super) fn name_again(&mut self) {
        self.phase = Phase::Naming;
        self.effects.push_back(Effect::NewWid);
    }

    fn open(&mut self, wid: Wid) {
        if self.phase != Phase::Naming {
            return;
        }
        self.phase = Phase::Opening;
        self.wid = wid;
        self.start_txn(Purpose::Open(self.record.clone()));
    }

    /// OPEN is known to have happened.
    pub(super) fn opened(&mut self, record: WalRecord) {
        self.record = record;
        self.phase = Phase::Open;
        self.report(LaneReport::Opened { wid: self.wid });
    }

    /// The log ended under the lane, or is given up: drop everything, tell everybody, seal it, open another.
    pub(super) fn fenced(&mut self) {
        tracing::warn!(wid = %self.wid, "fenced");
        self.generation += 1;
        self.joining.clear();
        self.flights.give_up();
        self.partitions.clear();
        self.moving.clear();
        self.claimable.clear();
        self.births.clear();
        self.being_born.clear();
        self.unwanted.clear();
        self.departed.clear();
        self.looking = None;
        self.probing = None;
        self.looks.clear();
        self.transactions.clear();
        self.checkpointing = Checkpointing::new();
        self.plan_nothing();
        self.log_bytes = LogBytes::default();
        self.deleted_below = Seq(0);
        self.ring = Ring::default();
        self.told_full = false;
        self.record = WalRecord { state: WalState::Open, ck: 0, lw: Seq(0), ..self.record.clone() };
        for &shard in &self.shards {
            self.effects.push_back(Effect::ToShard(shard, ToShard::Fenced { generation: self.generation }));
        }
        self.report(LaneReport::Fenced);
        if self.stop.is_some() {
            return self.stopped(false);
        }
        self.phase = Phase::Sealing;
        self.effects.push_back(Effect::Seal(self.wid));
    }

    /// Tells the shards when the store has no room, and when it has again.
    fn tell_room(&mut self) {
        // The ring makes room by itself: produce is never refused for it.
        let full = self.flights.no_room() && self.config.ring_bytes.is_none();
        if std::mem::replace(&mut self.told_full, full) != full {
            for &shard in &self.shards {
                self.effects.push_back(Effect::ToShard(shard, ToShard::StoreFull(full)));
            }
        }
    }

    /// Sends objects while the window has room and the governor says so.
    fn put_objects(&mut self) {
        while self.flights.has_room(&self.config) {
            let window = Window { idle: self.flights.is_empty(), moved: self.flights.moved() };
            let Some(joined) = self.joining.next(&self.config, self.now.mono, window) else { return };
            let seq = self.flights.next_seq();
            let header = ObjectHeader {
                kind: ObjectKind::Data,
                wid: self.wid,
                writer: self.identity.writer(),
                seq,
                sealed_at: self.now.wall,
            };
            let slices = encode_object(&header, joined.body, &joined.footer, self.record.ck);
            let object =
                Arc::new(CommittedObject { wid: self.wid, seq, sealed_at: self.now.wall, footer: joined.footer });
            self.flights.push(&self.config, self.now.mono, object, slices.clone(), joined.seals);
            self.effects.push_back(Effect::PutWal { wid: self.wid, seq, slices, hedge: false });
        }
    }

    /// Moves the commit point over everything durable, folds it, tells the shards: one message each.
    fn commit(&mut self) {
        let mut objects: Vec<Arc<CommittedObject>> = Vec::new();
        let mut told: BTreeMap<ShardIndex, Vec<SealWait>> = BTreeMap::new();
        while let Some(flight) = self.flights.pop_durable() {
            for shard in self.fold(&flight) {
                told.entry(shard).or_default();
            }
            if self.ended {
                return;
            }
            for &(shard, wait) in &flight.seals {
                told.entry(shard).or_default().push(wait);
            }
            self.log_bytes.committed(flight.object.seq, flight.bytes as u64);
            if let Some(cap) = self.config.ring_bytes
                && let Some(keep) = self.ring.committed(cap, flight.object.seq, flight.bytes as u64)
            {
                self.raise_past(keep);
            }
            let (object, slices) = flight.into_parts();
            self.hold(object.clone(), slices);
            objects.push(object);
        }
        if objects.is_empty() {
            return;
        }
        self.checkpointing.progressed(self.now.mono);
        for (shard, waits) in told {
            let through = self.through.entry(shard).or_default();
            *through = waits.last().map_or(*through, |last| last.number + 1);
            let message = ToShard::Committed { through: *through, objects: objects.clone(), waits };
            self.effects.push_back(Effect::ToShard(shard, message));
        }
    }

    /// Folds one object into the committed state; gives the shards that it is of interest to.
    fn fold(&mut self, flight: &Flight) -> BTreeSet<ShardIndex> {
        let object = &flight.object;
        let place = ObjectPlace { wid: object.wid, seq: object.seq, sealed_at: object.sealed_at };
        let mut shards = BTreeSet::new();
        for entry in &object.footer.partitions {
            let Some(led) = self.partitions.get_mut(&entry.partition) else { continue };
            shards.insert(led.shard);
            if let Err(error) = led.committed.fold(place, entry) {
                self.abort(format!("{}: {error}", entry.partition));
                return shards;
            }
            led.first_own.get_or_insert(object.seq);
            let (partition, end, bytes) = (entry.partition, led.committed.end, u64::from(entry.length));
            self.plan(compaction::Event::Committed { partition, end, bytes });
        }
        for start in &object.footer.log_starts {
            let Some(led) = self.partitions.get_mut(&start.partition) else { continue };
            shards.insert(led.shard);
            led.committed.fold_log_start(start.offset);
            led.find_first_own(self.wid);
            let log_start = led.committed.log_start;
            self.plan(compaction::Event::LogStart(start.partition, log_start));
        }
        if !object.footer.log_starts.is_empty() {
            self.ring_may_shrink();
        }
        shards
    }
}
