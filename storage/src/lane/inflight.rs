//! Sequences in flight and the commit point (PROTOCOL.md, COMMIT).
//!
//! Invariants:
//! 1. Sequences are given out from 0 without a gap; the bytes of a sequence never change once sent.
//! 2. A sequence is durable only by its own 200, or by a header that names this lane as the writer of DATA.
//! 3. The commit point passes a sequence only when all before it are durable.
//! 4. A 412 alone decides nothing: the header does. An unknown outcome sends the same bytes again.
//! 5. A log is given up for a sequence only while other writes succeed: those of other sequences, and of checkpoints,
//!    which are taken for that alone when nothing else is written. A full store is never held against a sequence.

use super::config::{LaneConfig, PUTS_OF_ONE_SEQUENCE, RECENT_SUCCESS, SUSPECT_AFTER, VANISHED_ROUNDS, backoff};
use super::counters::LaneTotals;
use super::hedging::Hedging;
use super::messages::{CommittedObject, SealWait};
use crate::env::Mono;
use crate::format::object::{ObjectKind, decode_header};
use crate::ids::{Seq, ShardIndex, Wid, WriterId};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome;
use crate::wrong::{Wrong, wrong};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// What an answer of the store leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing to do but what deadlines ask for.
    Wait,
    /// Read the header of this sequence.
    Look(Seq),
    /// A fence stands in the log, or the log is given up.
    Fenced,
    /// An invariant is broken.
    Abort(String),
}

/// What stands at a sequence, as far as its header tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stands {
    Nothing,
    Fence,
    Ours,
    Foreign(String),
}

/// Judges a header read at (`wid`, `seq`).
pub(super) fn judge(wid: Wid, seq: Seq, me: WriterId, header: Option<&Bytes>) -> Stands {
    let Some(bytes) = header else { return Stands::Nothing };
    match decode_header(bytes) {
        Err(error) => Stands::Foreign(error.to_string()),
        Ok(header) if header.wid != wid || header.seq != seq => Stands::Foreign(format!("header of {header:?}")),
        Ok(header) if header.kind == ObjectKind::Fence && !(wrong(Wrong::OwnFenceMisread) && header.writer == me) => {
            Stands::Fence
        }
        Ok(header) if header.writer == me => Stands::Ours,
        Ok(header) => Stands::Foreign(format!("data of writer {:?}", header.writer)),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Sent,
    RetryAt(Mono),
    Looking,
    LookAt(Mono),
    Durable,
}

/// A sequence that was sent.
#[derive(Debug)]
pub(super) struct Flight {
    /// What becomes known to the shards.
    pub object: Arc<CommittedObject>,
    /// Size of the object.
    pub bytes: usize,
    /// The seals in it, with what each waited for so far.
    pub seals: Vec<(ShardIndex, SealWait)>,
    slices: Vec<Bytes>,
    state: State,
    /// Its last answer was that the store has no room.
    no_room: bool,
    /// First sent, or last refused by a full store.
    unresolved_since: Mono,
    /// When it was put, however often later.
    put: Mono,
    sent: Mono,
    /// When it became durable, if it is.
    stored: Mono,
    attempts: u32,
    /// Was put a second time because the first took long.
    hedged: bool,
    /// Puts without an answer yet.
    unanswered: u32,
    vanished: u32,
}

impl Flight {
    /// The object and its slices.
    pub(super) fn into_parts(self) -> (Arc<CommittedObject>, Vec<Bytes>) {
        (self.object, self.slices)
    }

    fn store(&mut self, now: Mono) {
        self.state = State::Durable;
        self.stored = now;
    }

    fn may_repeat(&self) -> bool {
        self.unanswered < PUTS_OF_ONE_SEQUENCE
    }

    /// Under way for the first time: what was sent again has been paid for twice.
    fn may_hedge(&self) -> bool {
        self.state == State::Sent && self.attempts == 1 && !self.hedged
    }
}

fn find(flights: &mut VecDeque<Flight>, seq: Seq) -> Option<&mut Flight> {
    flights.iter_mut().find(|flight| flight.object.seq == seq && flight.state != State::Durable)
}

/// All sequences from the commit point on.
pub(super) struct InFlight {
    flights: VecDeque<Flight>,
    commit_point: Seq,
    /// When the last of all sequences below the commit point became durable.
    moved: Mono,
    bytes: usize,
    answering: Option<Answering>,
    hedging: Hedging,
    objects: u64,
    object_bytes: u64,
}

/// A time in which the store answered again and again, up to now or to an outage.
#[derive(Clone, Copy)]
struct Answering {
    since: Mono,
    last: Mono,
}

impl InFlight {
    pub(super) fn new() -> InFlight {
        InFlight {
            flights: VecDeque::new(),
            commit_point: Seq(0),
            moved: Mono(0),
            bytes: 0,
            answering: None,
            hedging: Hedging::default(),
            objects: 0,
            object_bytes: 0,
        }
    }

    /// Forgets the log, but not what was learned of the store.
    pub(super) fn give_up(&mut self) {
        self.flights.clear();
        self.commit_point = Seq(0);
        self.bytes = 0;
        self.answering = None;
    }

    /// What was put so far, of all logs.
    pub(super) fn totals(&self) -> LaneTotals {
        LaneTotals {
            objects: self.objects,
            object_bytes: self.object_bytes,
            hedges: self.hedging.sent,
            hedges_won: self.hedging.won,
            ..LaneTotals::default()
        }
    }

    /// C: the first sequence not known durable with all before it.
    pub(super) fn commit_point(&self) -> Seq {
        self.commit_point
    }

    /// The sequence that the next object gets.
    pub(super) fn next_seq(&self) -> Seq {
        Seq(self.commit_point.0 + self.flights.len() as u64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Whether another object may be sent; one always may.
    pub(super) fn has_room(&self, config: &LaneConfig) -> bool {
        self.flights.is_empty()
            || (self.flights.len() < config.in_flight_objects
                && self.bytes + config.object_bytes <= config.in_flight_bytes)
    }

    /// Takes note of a sequence that is being sent: it must be `next_seq`.
    pub(super) fn push(
        &mut self,
        config: &LaneConfig,
        now: Mono,
        object: Arc<CommittedObject>,
        slices: Vec<Bytes>,
        seals: Vec<(ShardIndex, SealWait)>,
    ) {
        assert_eq!(object.seq, self.next_seq(), "invariant 1: no sequence is skipped");
        let bytes: usize = slices.iter().map(Bytes::len).sum();
        self.bytes += bytes;
        self.objects += 1;
        self.object_bytes += bytes as u64;
        self.hedging.put(config.hedge_percent);
        let state = if wrong(Wrong::AckBeforeDurable) { State::Durable } else { State::Sent };
        self.flights.push_back(Flight {
            object,
            bytes,
            seals,
            slices,
            state,
            no_room: false,
            unresolved_since: now,
            put: now,
            sent: now,
            stored: now,
            attempts: 1,
            hedged: false,
            unanswered: 1,
            vanished: 0,
        });
    }

    /// A put ended: of which sequence, and whether it was the hedge.
    pub(super) fn on_put(
        &mut self,
        now: Mono,
        (seq, hedge): (Seq, bool),
        result: &Result<PutOutcome, StoreError>,
        random: u64,
    ) -> Step {
        if result.is_ok() {
            self.answered(now);
        }
        if result.as_ref().is_err_and(|error| error.kind == FailureKind::Throttled) {
            self.hedging.throttled(now);
        }
        let Some(flight) = find(&mut self.flights, seq) else { return Step::Wait };
        flight.unanswered = flight.unanswered.saturating_sub(1);
        flight.no_room = result.as_ref().is_err_and(|error| error.kind == FailureKind::Full);
        if flight.no_room {
            flight.unresolved_since = now;
        }
        match result {
            Ok(PutOutcome::Stored) => {
                flight.store(now);
                if flight.attempts == 1 {
                    self.hedging.stored(now.since(flight.sent));
                }
                self.hedging.won += u64::from(hedge);
            }
            Ok(PutOutcome::AlreadyExists) if wrong(Wrong::OwnRetryTakenForFence) => return Step::Fenced,
            Ok(PutOutcome::AlreadyExists) => {
                flight.state = State::Looking;
                return Step::Look(seq);
            }
            Err(_) if wrong(Wrong::AmbiguousErrorTakenForSuccess) || wrong(Wrong::DrainedBatchesDropped) => {
                flight.store(now);
            }
            // The other put of a hedged pair decides, or patience ends: the store need not get a third at once.
            Err(_) if flight.state == State::Sent && flight.hedged && flight.unanswered > 0 => {}
            Err(_) if flight.state == State::Sent => {
                flight.state = State::RetryAt(now.plus(backoff(flight.attempts, random)));
            }
            Err(_) => {}
        }
        Step::Wait
    }

    /// A header was read at a sequence that answered "already exists".
    pub(super) fn on_header(
        &mut self,
        now: Mono,
        (wid, seq): (Wid, Seq),
        me: WriterId,
        result: &Result<Option<Bytes>, StoreError>,
        random: u64,
    ) -> Step {
        if result.is_ok() {
            self.answered(now);
        }
        let Some(flight) = find(&mut self.flights, seq) else { return Step::Wait };
        let Ok(header) = result else {
            flight.attempts += 1;
            flight.state = State::LookAt(now.plus(backoff(flight.attempts, random)));
            return Step::Wait;
        };
        match judge(wid, seq, me, header.as_ref()) {
            Stands::Fence => Step::Fenced,
            Stands::Ours => {
                flight.store(now);
                Step::Wait
            }
            Stands::Nothing => {
                flight.vanished += 1;
                if flight.vanished >= VANISHED_ROUNDS {
                    return Step::Fenced;
                }
                flight.state = State::RetryAt(now.plus(backoff(flight.vanished, random)));
                Step::Wait
            }
            Stands::Foreign(what) => Step::Abort(format!("{wid}/{seq} holds {what}")),
        }
    }

    /// Objects to send again now: those whose wait is over, those that no answer came for.
    pub(super) fn resend(&mut self, config: &LaneConfig, now: Mono) -> Vec<(Seq, Vec<Bytes>)> {
        let mut again = Vec::new();
        for flight in &mut self.flights {
            let due = match flight.state {
                State::RetryAt(at) => at <= now,
                State::Sent => flight.may_repeat() && now.since(flight.sent) >= config.put_patience,
                State::Looking | State::LookAt(_) | State::Durable => false,
            };
            if due {
                flight.state = State::Sent;
                flight.sent = now;
                flight.attempts += 1;
                flight.unanswered += 1;
                let mut slices = flight.slices.clone();
                if wrong(Wrong::BytesChangedOnRetry) {
                    slices.truncate(1);
                }
                again.push((flight.object.seq, slices));
            }
        }
        again
    }

    /// Objects to put a second time now, though an answer may well come: the oldest first, since all others wait for it.
    pub(super) fn hedge(&mut self, now: Mono) -> Vec<(Seq, Vec<Bytes>)> {
        let mut again = Vec::new();
        for flight in self.flights.iter_mut().filter(|flight| flight.may_hedge()) {
            if self.hedging.due(flight.sent).is_some_and(|due| due <= now) {
                self.hedging.pay();
                flight.hedged = true;
                flight.unanswered += 1;
                again.push((flight.object.seq, flight.slices.clone()));
            }
        }
        again
    }

    /// Headers to read again now.
    pub(super) fn look_again(&mut self, now: Mono) -> Vec<Seq> {
        let mut again = Vec::new();
        for flight in &mut self.flights {
            if matches!(flight.state, State::LookAt(at) if at <= now) {
                flight.state = State::Looking;
                again.push(flight.object.seq);
            }
        }
        again
    }

    /// The store has just carried out a request.
    pub(super) fn answered(&mut self, now: Mono) {
        let since = self.answering.filter(|one| now.since(one.last) <= RECENT_SUCCESS).map_or(now, |one| one.since);
        self.answering = Some(Answering { since, last: now });
    }

    /// Whether a sequence stays unresolved for too long while other requests succeed. An outage is none of this, and the
    /// time of an outage does not count: after it all that was in flight is old, and just about to be stored.
    pub(super) fn hopeless(&self, config: &LaneConfig, now: Mono) -> bool {
        let answering = self.answering.filter(|one| now.since(one.last) <= RECENT_SUCCESS);
        answering.is_some_and(|one| {
            let waits = |flight: &Flight| now.since(flight.unresolved_since.max(one.since)) >= config.unresolved_limit;
            self.flights.iter().any(|flight| flight.state != State::Durable && waits(flight))
        })
    }

    /// Whether the store has no room for something that was sent.
    pub(super) fn no_room(&self) -> bool {
        self.flights.iter().any(|flight| flight.no_room && flight.state != State::Durable)
    }

    /// When it is time for another write, whose success or failure tells a sequence that does not resolve from an
    /// outage: the window may be full, so that this log has none.
    pub(super) fn wants_evidence(&self, config: &LaneConfig) -> Option<Mono> {
        let unresolved = self.flights.iter().filter(|flight| flight.state != State::Durable);
        let suspect =
            unresolved.map(|flight| flight.unresolved_since).min()?.plus(config.unresolved_limit / SUSPECT_AFTER);
        Some(self.answering.map_or(suspect, |one| suspect.max(one.last.plus(RECENT_SUCCESS / 2))))
    }

    /// When the commit point moved last, as far as the store is concerned.
    pub(super) fn moved(&self) -> Mono {
        self.moved
    }

    /// The next sequence that the commit point passes, if it is durable. Its seals have waited for the store.
    pub(super) fn pop_durable(&mut self) -> Option<Flight> {
        if wrong(Wrong::AckOutOfSequenceOrder)
            && let Some(at) = self.flights.iter().position(|flight| flight.state == State::Durable)
        {
            self.flights.swap(0, at);
        }
        if self.flights.front()?.state != State::Durable {
            return None;
        }
        let mut flight = self.flights.pop_front()?;
        self.commit_point = self.commit_point.next();
        self.bytes -= flight.bytes;
        self.moved = self.moved.max(flight.stored);
        let at_the_store = self.moved.since(flight.put);
        flight.seals.iter_mut().for_each(|(_, wait)| wait.waited += at_the_store);
        Some(flight)
    }

    /// When something here wants a look without an event.
    pub(super) fn deadline(&self, config: &LaneConfig) -> Option<Mono> {
        let alone = |flight: &Flight| match flight.state {
            State::RetryAt(at) | State::LookAt(at) => Some(at),
            State::Sent => flight.may_repeat().then(|| flight.sent.plus(config.put_patience)),
            State::Looking | State::Durable => None,
        };
        let hedge = |flight: &Flight| flight.may_hedge().then(|| self.hedging.due(flight.sent)).flatten();
        self.flights.iter().flat_map(|flight| [alone(flight), hedge(flight)]).flatten().min()
    }
}
