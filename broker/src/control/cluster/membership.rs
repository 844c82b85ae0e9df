//! This process's own lease: it registers under it, keeps it alive, stands for controller, and knows how long it may take
//! for granted that nobody was put in its place.
//!
//! Invariants:
//! 1. The lease counts from the moment at which a keep-alive was sent, on the clock that runs through suspend, and is stale
//!    at once after a jump of the wall clock against it that is longer than the lease.
//! 2. The key `/broker/{name}` is put over that of an earlier life, and never over that of a later one: what this life has
//!    put once and finds changed is the end of it ([`Standing::Replaced`]).
//! 3. While the lease is not fresh, lanes look for a fence every [`PROBE_EVERY`], and once after a jump or a long silence.
//! 4. At most [`KEEP_ALIVES`] keep-alives are under way: a lost one does not keep the next from being sent.
//! 5. A process that leaves says so under its lease, and so for this life only; what an operator said of it stays.
//! 6. While a thread of this process is stuck no lease is taken and none kept: it ends, and others take what is here. The
//!    first look after the thread is back goes on, with what is left of the lease or with another.
//!
//! Nothing that is acknowledged rests on the lease (PROTOCOL.md section 5).

use super::super::effects::{Owner, Sink, StoreAnswer, StoreCall};
use super::super::messages::{Freshness, FromControl};
use super::view::View;
use bytes::Bytes;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{BootId, ShardIndex};
use millrace_storage::lane::LaneCommand;
use millrace_storage::meta::records::{BrokerRecord, ControllerRecord, DrainRecord, RECORD_VERSION, Record};
use millrace_storage::meta::{Compare, KeptAlive, LeaseId, Op, Revision, Txn, TxnOutcome, keys};
use millrace_storage::store_error::FailureKind;
use std::time::Duration;

/// How often a process whose lease is not fresh looks whether it was fenced.
pub(in crate::control) const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Keep-alives under way at most.
pub(in crate::control) const KEEP_ALIVES: u8 = 4;

/// Keep-alives in the time of a lease.
const KEEP_ALIVES_PER_LEASE: u32 = 3;

/// Looks in the time of a lease.
const TICKS_PER_LEASE: u32 = 12;

/// How long the end waits until the lease is revoked.
pub(in crate::control) const REVOKE_WITHIN: Duration = Duration::from_secs(1);

/// Whether this life may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::control) enum Standing {
    /// It may.
    Member,
    /// A later life has its name.
    Replaced,
}

struct Held {
    id: LeaseId,
    ttl: Duration,
    /// When the last keep-alive was sent.
    asked: Mono,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Registering {
    Idle,
    Reading,
    Putting(LeaseId),
}

/// See the module.
pub(in crate::control) struct Membership {
    name: String,
    boot: BootId,
    record: Bytes,
    lease: Duration,
    shards: u16,
    lanes: u16,
    held: Option<Held>,
    granting: Option<Mono>,
    /// When each keep-alive under way was sent, and for which lease.
    keeping: [Option<(Mono, LeaseId)>; KEEP_ALIVES as usize],
    freshness: Option<Freshness>,
    registering: Registering,
    /// Under which lease the key stands.
    registered: Option<LeaseId>,
    /// When it was put last: what the view says of earlier is old.
    registered_at: Revision,
    /// The lease was given back: no other is taken.
    has_left: bool,
    was_registered: bool,
    standing_for_controller: bool,
    /// It wants to be left.
    leaves: bool,
    saying_so: bool,
    standing: Standing,
    last_tick: Option<(Mono, WallMs)>,
    probed: Option<Mono>,
}

impl Membership {
    /// Begins to join.
    pub(in crate::control) fn new(
        (name, boot): (String, BootId),
        record: &BrokerRecord,
        (shards, lanes): (u16, u16),
        sink: &mut Sink,
    ) -> Membership {
        // Until it has a lease no shard may answer from what it alone knows.
        for shard in 0..shards {
            let (until, at, wall, lease) = (Mono(0), sink.now, sink.wall, Duration::ZERO);
            sink.shard(ShardIndex(shard), FromControl::Fresh(Freshness { until, at, wall, lease }));
        }
        // The first look is at once, when both clocks are known.
        sink.wake_after(Owner::Membership, Duration::ZERO);
        Membership {
            name,
            boot,
            record: record.encode(),
            lease: Duration::from_millis(record.lease_ms),
            shards,
            lanes,
            held: None,
            granting: None,
            keeping: [None; KEEP_ALIVES as usize],
            freshness: None,
            registering: Registering::Idle,
            registered: None,
            registered_at: Revision(0),
            has_left: false,
            was_registered: false,
            standing_for_controller: false,
            leaves: false,
            saying_so: false,
            standing: Standing::Member,
            last_tick: None,
            probed: None,
        }
    }

    /// Whether this life may go on.
    pub(in crate::control) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether the lease is fresh now (invariant 1).
    pub(in crate::control) fn is_fresh(&self, sink: &Sink) -> bool {
        self.freshness.is_some_and(|freshness| freshness.holds(sink.now, sink.wall))
    }

    /// Its own comparison for transactions that only a controller may make: none while another is it.
    pub(in crate::control) fn as_controller(&self, view: &View) -> Option<Compare> {
        let (record, bytes) = view.controller()?;
        let is_own = record.broker == self.name && record.boot == self.boot;
        is_own.then(|| Compare::Value(keys::CONTROLLER.to_owned(), bytes.clone()))
    }

    // ---- time ----

    /// The look that comes several times in the time of a lease.
    pub(in crate::control) fn on_tick(&mut self, sink: &mut Sink) {
        sink.wake_after(Owner::Membership, self.lease / TICKS_PER_LEASE);
        let jumped = self.notice_jump(sink);
        match &self.held {
            None => self.grant(sink),
            Some(held) if sink.now.since(held.asked) >= held.ttl / KEEP_ALIVES_PER_LEASE => self.keep_alive(sink),
            Some(_) => {}
        }
        if jumped {
            self.keep_alive(sink);
        }
        self.register(sink);
        self.probe(jumped, sink);
    }

    /// Whether time passed unseen: by a suspend, or on one clock only.
    fn notice_jump(&mut self, sink: &Sink) -> bool {
        let Some((mono, wall)) = self.last_tick.replace((sink.now, sink.wall)) else { return false };
        let passed = sink.now.since(mono);
        let by_wall = i128::from(sink.wall.0) - i128::from(wall.0);
        let apart = by_wall.abs_diff(i128::try_from(passed.as_millis()).unwrap_or(i128::MAX));
        let apart = apart > self.lease.as_millis();
        if apart {
            self.freshness = None;
        }
        apart || passed > self.lease
    }

    fn probe(&mut self, jumped: bool, sink: &mut Sink) {
        let due = self.probed.is_none_or(|at| sink.now.since(at) >= PROBE_EVERY);
        if jumped || (!self.is_fresh(sink) && due && self.was_registered) {
            self.probed = Some(sink.now);
            (0..self.lanes).for_each(|lane| sink.lane(lane, LaneCommand::Probe));
        }
    }

    // ---- the lease ----

    fn grant(&mut self, sink: &mut Sink) {
        if self.granting.is_none() && self.standing == Standing::Member && !self.has_left && !sink.is_stuck {
            self.granting = Some(sink.now);
            sink.call(Owner::Lease, StoreCall::Grant(self.lease));
        }
    }

    fn keep_alive(&mut self, sink: &mut Sink) {
        let Some(held) = self.held.as_mut().filter(|_| !sink.is_stuck) else { return };
        let Some(place) = self.keeping.iter().position(Option::is_none) else { return };
        held.asked = sink.now;
        self.keeping[place] = Some((sink.now, held.id));
        let place = u8::try_from(place).expect("a handful");
        sink.call(Owner::KeepAlive(place), StoreCall::KeepAlive(held.id));
    }

    /// The grant was answered.
    pub(in crate::control) fn on_granted(&mut self, answer: StoreAnswer, sink: &mut Sink) {
        let asked = self.granting.take().expect("a grant is under way");
        match answer {
            StoreAnswer::Grant(Ok(lease)) => {
                self.held = Some(Held { id: lease.id, ttl: lease.ttl, asked });
                self.freshen(asked, lease.ttl, sink);
                self.register(sink);
            }
            // The next look asks again.
            StoreAnswer::Grant(Err(error)) => tracing::warn!(%error, "no lease yet"),
            other => unreachable!("a grant is not answered with {other:?}"),
        }
    }

    /// A keep-alive was answered.
    pub(in crate::control) fn on_kept(&mut self, place: u8, answer: StoreAnswer, sink: &mut Sink) {
        let (sent, id) = self.keeping[usize::from(place)].take().expect("a keep-alive is under way");
        let is_current = self.held.as_ref().is_some_and(|held| held.id == id);
        match answer {
            StoreAnswer::KeepAlive(Ok(KeptAlive::For(ttl))) if is_current => self.freshen(sent, ttl, sink),
            StoreAnswer::KeepAlive(Ok(KeptAlive::Ended)) if is_current => {
                tracing::warn!("the lease has ended; another is taken");
                (self.held, self.registered, self.freshness) = (None, None, None);
                self.grant(sink);
            }
            StoreAnswer::KeepAlive(Ok(_)) => {}
            StoreAnswer::KeepAlive(Err(error)) => tracing::debug!(%error, "a keep-alive failed"),
            other => unreachable!("a keep-alive is not answered with {other:?}"),
        }
    }

    fn freshen(&mut self, sent: Mono, ttl: Duration, sink: &mut Sink) {
        let until = sent.plus(ttl);
        if self.freshness.is_some_and(|known| known.until >= until) {
            return;
        }
        let freshness = Freshness { until, at: sink.now, wall: sink.wall, lease: self.lease };
        self.freshness = Some(freshness);
        for shard in 0..self.shards {
            sink.shard(ShardIndex(shard), FromControl::Fresh(freshness));
        }
    }

    // ---- the key ----

    fn register(&mut self, sink: &mut Sink) {
        let Some(held) = &self.held else { return };
        let stands = self.registered == Some(held.id);
        if !stands && self.registering == Registering::Idle && self.standing == Standing::Member {
            self.registering = Registering::Reading;
            sink.call(Owner::Register, StoreCall::Get(vec![keys::broker(&self.name)]));
        }
    }

    /// The key was read, or put.
    pub(in crate::control) fn on_registering(&mut self, answer: StoreAnswer, sink: &mut Sink) {
        match (std::mem::replace(&mut self.registering, Registering::Idle), answer) {
            (Registering::Reading, StoreAnswer::Get(Ok(mut snapshot))) => {
                let found = snapshot.values.remove(0).map(|found| found.value);
                self.put_key(found, sink);
            }
            (Registering::Putting(lease), StoreAnswer::Txn(Ok(TxnOutcome::Committed(revision)))) => {
                (self.registered, self.registered_at, self.was_registered) = (Some(lease), revision, true);
            }
            // Perhaps an earlier try of this life: read again.
            (Registering::Putting(_), StoreAnswer::Txn(Ok(TxnOutcome::Conflict(_)))) => self.register(sink),
            (Registering::Putting(lease), StoreAnswer::Txn(Err(error))) if error.kind == FailureKind::LeaseEnded => {
                if self.held.as_ref().is_some_and(|held| held.id == lease) {
                    (self.held, self.freshness) = (None, None);
                    self.grant(sink);
                }
            }
            // The next look tries again.
            (_, StoreAnswer::Get(Err(error)) | StoreAnswer::Txn(Err(error))) => {
                tracing::warn!(%error, "this process is not registered yet");
            }
            (_, other) => unreachable!("registration never asked for {other:?}"),
        }
    }

    fn put_key(&mut self, found: Option<Bytes>, sink: &mut Sink) {
        let Some(held) = &self.held else { return };
        let key = keys::broker(&self.name);
        let compare = match found {
            None => Compare::Absent(key.clone()),
            Some(value) if value != self.record && self.was_registered => {
                tracing::error!(name = %self.name, "another process has taken this one's name");
                self.standing = Standing::Replaced;
                return;
            }
            Some(value) => Compare::Value(key.clone(), value),
        };
        let ops = vec![Op::PutLeased(key, self.record.clone(), held.id)];
        self.registering = Registering::Putting(held.id);
        sink.txn(Owner::Register, Txn { compares: vec![compare], ops });
    }

    // ---- the controller ----

    /// The view shows others: is one's own key still there, is there a controller?
    pub(in crate::control) fn on_view(&mut self, view: &View, sink: &mut Sink) {
        let stands = view.broker(&self.name).is_some_and(|record| record.boot == self.boot);
        if self.registered.is_some() && !stands && view.through(keys::BROKERS) >= self.registered_at {
            // What is read now is not late.
            self.registered = None;
            self.register(sink);
        }
        self.stand(view, sink);
    }

    /// What this process is registered under.
    pub(in crate::control) fn registered(&self) -> Option<LeaseId> {
        self.held.as_ref().map(|held| held.id).filter(|id| self.registered == Some(*id))
    }

    /// Stands for controller, if there is none, or one that does not answer.
    pub(in crate::control) fn stand(&mut self, view: &View, sink: &mut Sink) {
        let Some(held) = &self.held else { return };
        if self.standing_for_controller || self.registered != Some(held.id) || view.is_suspected(&self.name) {
            return;
        }
        let key = keys::CONTROLLER.to_owned();
        let compare = match view.controller() {
            None => Compare::Absent(key.clone()),
            Some((record, bytes)) if view.is_suspected(&record.broker) => Compare::Value(key.clone(), bytes.clone()),
            Some(_) => return,
        };
        self.standing_for_controller = true;
        let record = ControllerRecord { v: RECORD_VERSION, broker: self.name.clone(), boot: self.boot };
        let ops = vec![Op::PutLeased(key.clone(), record.encode(), held.id)];
        sink.txn(Owner::Election, Txn { compares: vec![compare], ops });
    }

    /// The election came to an end, or nobody knows: the view tells.
    pub(in crate::control) fn on_election(&mut self) {
        self.standing_for_controller = false;
    }

    // ---- the end ----

    /// From now on others are to take what this process has.
    pub(in crate::control) fn begin_to_leave(&mut self, view: &View, sink: &mut Sink) {
        self.leaves = true;
        self.say_so(view, sink);
    }

    /// Invariant 5; looked at now and then, since the lease may have ended meanwhile.
    pub(in crate::control) fn say_so(&mut self, view: &View, sink: &mut Sink) {
        let Some(held) = &self.held else { return };
        if !self.leaves || self.saying_so || self.registered != Some(held.id) || view.is_leaving(&self.name) {
            return;
        }
        self.saying_so = true;
        let key = keys::drain(&self.name);
        let record = DrainRecord { v: RECORD_VERSION, boot: self.boot };
        let ops = vec![Op::PutLeased(key.clone(), record.encode(), held.id)];
        sink.txn(Owner::Leaving, Txn { compares: vec![Compare::Absent(key)], ops });
    }

    /// It was said, or not: the view tells.
    pub(in crate::control) fn on_said(&mut self) {
        self.saying_so = false;
    }

    /// Gives the lease back: others need not wait for its end. Whether there is something to wait for.
    pub(in crate::control) fn leave(&mut self, sink: &mut Sink) -> bool {
        let Some(held) = self.held.take() else { return false };
        (self.registered, self.freshness, self.has_left) = (None, None, true);
        sink.call(Owner::Revoke, StoreCall::Revoke(held.id));
        true
    }
}
