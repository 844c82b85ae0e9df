//! When a request to a store is sent again, when a second one is sent beside it, and how long an answer is waited for.
//! Pure: events and the time in, decisions out. [`super::retry`] carries them out.
//!
//! Invariants:
//! 1. A call ends: after [`Patience`]'s window since it began no further attempt is decided, nor after its number of them.
//! 2. Retries are a share of the calls and, beyond what is saved up, so many a second at most ([`Retries`]): who can't be
//!    paid for waits, and fails only when its window ends first.
//! 3. A hedge is sent only for what may be done twice, of whose kind enough answers are known, at most for
//!    the stated share of the calls, and never while [`HEDGES_AT_ONCE`] are unanswered: where the store is slow as
//!    a whole they find it slow too, and that is the end of them. None for [`QUIET`] after it said SlowDown or did
//!    not answer in time.
//! 4. An answer is waited for at least [`Asked::floor`] and at most [`Asked::ceiling`], twice as long with each attempt: a
//!    store that answers everything within the ceiling is read in the end, whatever was learned before.
//!
//! Not here: how many requests are under way at once ([`super::pacing`]).

use super::remote::CALL_LIMIT;
use super::times::{Quantiles, Times};
use crate::env::Mono;
use crate::meter::Operation;
use crate::store_error::{Certainty, FailureKind, StoreError};
use std::time::Duration;

/// What a pause before a retry is a random part of: first this,
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// then twice as much each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Retries that a quiet time saves up.
const RETRIES_SAVED: u64 = 20;
/// Retries that a hundred calls earn.
const RETRY_PERCENT: u64 = 10;
/// Retries a second beyond that.
const RETRIES_PER_SECOND: u64 = 20;
/// Hedges that a quiet time saves up.
const HEDGES_SAVED: u64 = 4;
/// Hedges under way at once.
const HEDGES_AT_ONCE: u32 = 2;
/// No hedge is sent earlier: it would save less than it costs.
const LEAST_HEDGE_DELAY: Duration = Duration::from_millis(2);
/// After a SlowDown or a time-out no hedge is sent for so long.
const QUIET: Duration = Duration::from_secs(10);
/// An answer is waited for so many times as long as 99 in a hundred take.
const PATIENCE_FACTOR: u32 = 4;
/// Bytes that a size class holds at most; larger ones are the last class.
const SIZE_CLASSES: [u64; 2] = [256 << 10, 2 << 20];
/// Bytes a second that a transfer is given at least before it is given up.
const LEAST_BYTES_PER_SECOND: u64 = 1 << 20;
/// What one retry or hedge costs, in hundredths.
const PRICE: u64 = 100;

/// What is asked of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    /// So many bytes of an object.
    Part(u64),
    /// An object of unknown size.
    Whole,
    /// A listing: its length, and so its time, is not known before.
    List,
    /// A deletion.
    Delete,
    /// An object of so many bytes that nobody else writes.
    Own(u64),
}

impl Asked {
    /// How many kinds there are whose times are kept apart.
    const CLASSES: usize = 3 + 3 + 3;

    fn class(self) -> usize {
        let size = |bytes: u64| SIZE_CLASSES.partition_point(|most| *most < bytes);
        match self {
            Asked::Part(bytes) => size(bytes),
            Asked::Own(bytes) => 3 + size(bytes),
            Asked::Whole => 6,
            Asked::List => 7,
            Asked::Delete => 8,
        }
    }

    /// As what it is counted.
    pub(super) fn operation(self) -> Operation {
        match self {
            Asked::Part(_) | Asked::Whole => Operation::Get,
            Asked::List => Operation::List,
            Asked::Delete => Operation::Delete,
            Asked::Own(_) => Operation::Put,
        }
    }

    /// Whether a second request beside the first one gains anything and harms nothing.
    fn may_be_hedged(self) -> bool {
        match self {
            Asked::Part(_) | Asked::Whole | Asked::Own(_) => true,
            Asked::List | Asked::Delete => false,
        }
    }

    /// An answer is waited for at least so long.
    fn floor(self) -> Duration {
        let (least, bytes) = match self {
            Asked::Part(bytes) => (2, bytes),
            Asked::Whole => (4, 0),
            Asked::Own(bytes) => (4, bytes),
            Asked::Delete => (10, 0),
            Asked::List => return Asked::LIST_LIMIT,
        };
        let transfer = Duration::from_millis(bytes.saturating_mul(1_000) / LEAST_BYTES_PER_SECOND);
        (Duration::from_secs(least) + transfer).min(self.ceiling())
    }

    /// Longer than the store's own limit for a listing, which so decides alone.
    const LIST_LIMIT: Duration = Duration::from_secs(150);

    /// An answer is waited for at most so long. The store's client gives up by then.
    fn ceiling(self) -> Duration {
        match self {
            Asked::List => Asked::LIST_LIMIT,
            Asked::Delete => CALL_LIMIT * 2,
            Asked::Part(_) | Asked::Whole | Asked::Own(_) => CALL_LIMIT,
        }
    }
}

/// How long and how often a call is tried that fails in some way.
struct Patience {
    attempts: u32,
    window: Duration,
}

impl Patience {
    fn with(error: &StoreError) -> Patience {
        let (attempts, seconds) = match error.kind {
            // A bad minute of the store is slow, not refused.
            FailureKind::Throttled => (240, 120),
            // Nobody listens there: more likely a wrong address than a bad minute.
            FailureKind::Unavailable if error.certainty == Certainty::NotDone => (4, 30),
            FailureKind::Timeout | FailureKind::Unavailable => (60, 30),
            FailureKind::Denied
            | FailureKind::Full
            | FailureKind::Corrupt
            | FailureKind::LeaseEnded
            | FailureKind::NotTheSame
            | FailureKind::Other => (1, 0),
        };
        Patience { attempts, window: Duration::from_secs(seconds) }
    }
}

/// What retries may cost, in hundredths of one.
#[derive(Debug)]
struct Retries {
    /// What is saved up.
    saved: u64,
    /// When all that was promised beyond is paid for, at [`RETRIES_PER_SECOND`].
    paid: Mono,
}

impl Retries {
    fn new() -> Retries {
        Retries { saved: RETRIES_SAVED * PRICE, paid: Mono(0) }
    }

    fn earn(&mut self) {
        self.saved = (self.saved + RETRY_PERCENT).min(RETRIES_SAVED * PRICE);
    }

    /// When a retry that is wanted at `wanted` may be made. It is paid for if that is not after `end`.
    fn pay(&mut self, now: Mono, wanted: Mono, end: Mono) -> Mono {
        if self.saved >= PRICE && wanted <= end {
            self.saved -= PRICE;
            return wanted;
        }
        let paid = self.paid.max(now).plus(Duration::from_secs(1) / RETRIES_PER_SECOND as u32);
        let at = paid.max(wanted);
        if at <= end {
            self.paid = paid;
        }
        at
    }
}

/// One call on its way through its attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Call {
    asked: Asked,
    begun: Mono,
    attempt: u32,
}

impl Call {
    /// What it asks.
    pub(super) fn asked(&self) -> Asked {
        self.asked
    }
}

/// What is to be done about an attempt that begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// When it is given up.
    pub(super) give_up: Mono,
    /// When a second one may be sent beside it ([`Policy::pay_hedge`] says whether).
    pub(super) hedge: Option<Mono>,
}

/// What follows from an attempt that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Another attempt, then.
    Again(Mono),
    /// The call fails with it.
    Failed,
}

/// What one thread knows about its store, and what it may still spend.
#[derive(Debug)]
pub(super) struct Policy {
    classes: [Times; Asked::CLASSES],
    retries: Retries,
    hedge_percent: u32,
    /// In hundredths of a hedge.
    hedges_saved: u64,
    hedges_under_way: u32,
    quiet_until: Mono,
}

impl Policy {
    /// A policy that knows nothing yet. Of a hundred calls at most so many are hedged.
    pub(super) fn new(hedge_percent: u32) -> Policy {
        Policy {
            classes: Default::default(),
            retries: Retries::new(),
            hedge_percent,
            hedges_saved: 0,
            hedges_under_way: 0,
            quiet_until: Mono(0),
        }
    }

    /// A call begins.
    pub(super) fn begin(&mut self, now: Mono, asked: Asked) -> Call {
        self.retries.earn();
        if asked.may_be_hedged() {
            self.hedges_saved = (self.hedges_saved + u64::from(self.hedge_percent)).min(HEDGES_SAVED * PRICE);
        }
        Call { asked, begun: now, attempt: 1 }
    }

    /// An attempt of `call` is sent.
    pub(super) fn send(&self, now: Mono, call: &Call) -> Plan {
        let known = self.classes[call.asked.class()].quantiles();
        let first = known.map_or(call.asked.ceiling(), |known| {
            (known.nearly_all * PATIENCE_FACTOR).clamp(call.asked.floor(), call.asked.ceiling())
        });
        let patience = first.saturating_mul(1 << (call.attempt - 1).min(8)).min(call.asked.ceiling());
        let hedged = call.asked.may_be_hedged() && call.attempt == 1 && self.hedges_saved >= PRICE;
        let hedge = known.filter(|_| hedged).map(|known| now.plus(hedge_delay(known)));
        Plan { give_up: now.plus(patience), hedge }
    }

    /// Whether a hedge that is due is sent; it is paid for then, and [`Policy::hedge_ended`] follows.
    pub(super) fn pay_hedge(&mut self, now: Mono) -> bool {
        let can = self.hedges_saved >= PRICE && self.hedges_under_way < HEDGES_AT_ONCE && now >= self.quiet_until;
        if can {
            self.hedges_saved -= PRICE;
            self.hedges_under_way += 1;
        }
        can
    }

    /// A hedge was answered or given up.
    pub(super) fn hedge_ended(&mut self) {
        self.hedges_under_way -= 1;
    }

    /// An attempt of `call` that was sent at `sent` did what it was asked, alone or by its hedge.
    pub(super) fn done(&mut self, now: Mono, call: &Call, sent: Mono) {
        self.classes[call.asked.class()].record(now.since(sent));
    }

    /// An attempt of `call` that was sent at `sent` failed.
    pub(super) fn failed(
        &mut self,
        now: Mono,
        call: &mut Call,
        sent: Mono,
        error: &StoreError,
        random: u64,
    ) -> Verdict {
        match error.kind {
            FailureKind::Throttled => self.quiet_until = now.plus(QUIET),
            FailureKind::Timeout => {
                self.quiet_until = now.plus(QUIET);
                // It would have taken longer than that, which is what later ones must know.
                self.classes[call.asked.class()].record(now.since(sent));
            }
            FailureKind::Unavailable
            | FailureKind::Denied
            | FailureKind::Full
            | FailureKind::Corrupt
            | FailureKind::LeaseEnded
            | FailureKind::NotTheSame
            | FailureKind::Other => {}
        }
        let patience = Patience::with(error);
        if call.attempt >= patience.attempts {
            return Verdict::Failed;
        }
        let longest = FIRST_PAUSE.saturating_mul(1 << (call.attempt - 1).min(8)).min(LONGEST_PAUSE).as_millis() as u64;
        let (wanted, end) = (now.plus(Duration::from_millis(1 + random % longest)), call.begun.plus(patience.window));
        let at = self.retries.pay(now, wanted, end);
        if at > end {
            return Verdict::Failed;
        }
        call.attempt += 1;
        Verdict::Again(at)
    }
}

/// When nearly all others would have been answered. Where that is hardly later than half of them there is nothing to win.
fn hedge_delay(known: Quantiles) -> Duration {
    known.most.max(known.half * 2).max(LEAST_HEDGE_DELAY)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
