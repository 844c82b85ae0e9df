//! How many requests of a kind a thread has at its store at once: fewer when the store says that they are too many (503
//! SlowDown, 429), then slowly more again (additive increase, multiplicative decrease).
//!
//! Invariants:
//! 1. The limit stays from [`FLOOR`] to [`CEILING`]: something always gets through.
//! 2. One volley of refusals lowers it once: requests sent before the last decrease don't count again.
//! 3. Whoever waits is let in in the order of arrival, and a place is given back however its request ends, also when it is
//!    abandoned.
//!
//! Conditional puts, which lanes bound themselves, take no place; a refusal of theirs lowers the limit of the others all the
//! same ([`Gate::refused_elsewhere`]). How many wait is up to the callers, each of which has a bound.

use crate::env::{Env, Mono};
use futures::channel::oneshot;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Requests at once at least.
const FLOOR: u64 = 2;
/// At most, and before the store has refused any: as many as recovery reads at once.
const CEILING: u64 = 64;
/// The limit is counted in thousandths of a request.
const MILLI: u64 = 1_000;

/// How the store took a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It did what was asked.
    Done,
    /// There were too many.
    Throttled,
    /// It failed otherwise, or was abandoned: that says nothing.
    Otherwise,
}

/// The limit, pure.
#[derive(Debug)]
struct Limit {
    milli: u64,
    in_flight: u64,
    lowered: Option<Mono>,
}

impl Limit {
    fn new() -> Limit {
        Limit { milli: CEILING * MILLI, in_flight: 0, lowered: None }
    }

    fn admits(&self) -> bool {
        self.in_flight < self.milli / MILLI
    }

    fn begin(&mut self) {
        self.in_flight += 1;
    }

    /// A request that was sent at `sent` has ended.
    fn end(&mut self, sent: Mono, now: Mono, taken: Taken) {
        match taken {
            // One more for each round of answers.
            Taken::Done => self.milli = (self.milli + MILLI * MILLI / self.milli).min(CEILING * MILLI),
            Taken::Throttled => self.refuse(sent, now),
            Taken::Otherwise => {}
        }
        self.in_flight -= 1;
    }

    /// There were too many requests, of which one was sent at `sent`.
    fn refuse(&mut self, sent: Mono, now: Mono) {
        if self.lowered.is_none_or(|lowered| sent > lowered) {
            // Half of what was too much, which may be far less than was allowed.
            self.milli = (self.milli.min(self.in_flight * MILLI) / 2).max(FLOOR * MILLI);
            self.lowered = Some(now);
        }
    }
}

/// Lets requests of one thread in.
#[derive(Clone)]
pub(super) struct Gate {
    env: Env,
    state: Rc<RefCell<State>>,
}

struct State {
    limit: Limit,
    waiting: VecDeque<oneshot::Sender<Pass>>,
}

/// A place among the requests in flight, given back when it is dropped.
pub(super) struct Pass {
    gate: Gate,
    sent: Mono,
    taken: Taken,
}

impl Gate {
    pub(super) fn new(env: Env) -> Gate {
        Gate { env, state: Rc::new(RefCell::new(State { limit: Limit::new(), waiting: VecDeque::new() })) }
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> Pass {
        if let Some(pass) = self.try_enter() {
            return pass;
        }
        let (give, given) = oneshot::channel();
        self.state.borrow_mut().waiting.push_back(give);
        given.await.expect("the gate lives as long as somebody waits at it")
    }

    /// A place, if there is one and nobody waits.
    pub(super) fn try_enter(&self) -> Option<Pass> {
        let mut state = self.state.borrow_mut();
        if !state.waiting.is_empty() || !state.limit.admits() {
            return None;
        }
        state.limit.begin();
        drop(state);
        Some(self.pass())
    }

    /// The store refused a request that was sent at `sent` and had no place here.
    pub(super) fn refused_elsewhere(&self, sent: Mono) {
        self.state.borrow_mut().limit.refuse(sent, self.env.now());
    }

    fn pass(&self) -> Pass {
        Pass { gate: self.clone(), sent: self.env.now(), taken: Taken::Otherwise }
    }

    /// Requests that have a place.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> u64 {
        self.state.borrow().limit.in_flight
    }

    /// Lets in who waits, as far as there is room.
    fn admit(&self) {
        loop {
            let mut state = self.state.borrow_mut();
            state.waiting.retain(|waiter| !waiter.is_canceled());
            if !state.limit.admits() {
                return;
            }
            let Some(next) = state.waiting.pop_front() else { return };
            state.limit.begin();
            drop(state);
            // Whoever left meanwhile gives the place back by dropping it.
            let _ = next.send(self.pass());
        }
    }
}

impl Pass {
    /// The request was answered.
    pub(super) fn answered(mut self, taken: Taken) {
        self.taken = taken;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let now = self.gate.env.now();
        self.gate.state.borrow_mut().limit.end(self.sent, now, self.taken);
        self.gate.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::block_on_local;
    use futures::FutureExt;
    use proptest::prelude::*;

    fn limit(limit: &Limit) -> u64 {
        limit.milli / MILLI
    }

    #[test]
    fn a_volley_of_refusals_halves_what_was_in_flight_once() {
        let mut of = Limit::new();
        (0..40).for_each(|_| of.begin());
        (0..40).for_each(|_| of.end(Mono(1), Mono(2), Taken::Throttled));
        assert_eq!(limit(&of), 20);
        of.begin();
        of.end(Mono(3), Mono(4), Taken::Throttled);
        assert_eq!(limit(&of), FLOOR, "one alone was too much");
    }

    #[test]
    fn a_store_that_takes_everything_again_is_asked_as_much_as_before() {
        let mut of = Limit::new();
        of.begin();
        of.end(Mono(1), Mono(2), Taken::Throttled);
        for _ in 0..CEILING * CEILING {
            of.begin();
            of.end(Mono(3), Mono(3), Taken::Done);
        }
        assert_eq!(limit(&of), CEILING);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(events in proptest::collection::vec((0..3_u8, 0..9_u64), 0..300)) {
            let mut of = Limit::new();
            let mut now = 0;
            for (event, step) in events {
                let sent = Mono(now);
                now += step;
                of.begin();
                of.end(sent, Mono(now), [Taken::Done, Taken::Throttled, Taken::Otherwise][usize::from(event)]);
                prop_assert!((FLOOR..=CEILING).contains(&limit(&of)));
                prop_assert_eq!(of.in_flight, 0);
            }
        }
    }

    #[test]
    fn places_are_given_in_order_and_come_back_from_whoever_leaves() {
        block_on_local(|env| async move {
            let gate = Gate::new(env);
            let mut inside: Vec<Pass> = Vec::new();
            for _ in 0..CEILING {
                inside.push(gate.enter().await);
            }
            let mut first = Box::pin(gate.enter());
            let mut second = Box::pin(gate.enter());
            assert!(first.as_mut().now_or_never().is_none());
            assert!(second.as_mut().now_or_never().is_none());
            // Given a place, and gone without having looked at it.
            inside.pop();
            assert!(second.as_mut().now_or_never().is_none(), "the first was before");
            drop(first);
            assert!(second.as_mut().now_or_never().is_some());
            drop(inside);
            drop(second);
            assert_eq!(gate.state.borrow().limit.in_flight, 0);
        })
        .unwrap();
    }
}
