//! Byte budgets: what keeps memory within its total while clients are faster than the store.
//!
//! `--memory-mib` is one total. An eighth of it is kept for what grows with topics, groups and producers, and for the
//! copies of small batches that a seal makes. Another eighth is the lanes' ([`lane_bytes`]): committed batches that wait to
//! be rolled into segments, and what rolls read; at its end the newest of the partition with the most are dropped, and
//! read from the store when they are rolled. The rest is divided among the shards, and each shard divides its part by this
//! table ([`Pools::split`]):
//!
//! | pool | part | charged by | what happens at its end |
//! |---|---|---|---|
//! | `produce` | 1/3 | a permit per produce request, from before its body is read until it is answered | the connection is not read on |
//! | `tail` | 1/8 | the shard, for committed bytes kept to serve fetches | the oldest are dropped |
//! | arena slack | 11/48 | chunks that a few live bytes of the two above keep from reuse | the tail is dropped, the connection not read on meanwhile |
//! | `replies` | 1/8 | replies that wait for their connection | no request is read whose reply can be large |
//! | `reads` | 7/128 | the shard, for bytes read from write-ahead objects and segments | reads wait |
//! | `cold` | 1/16 | manifests, indexes and blocks of segments kept for the next read | those used least recently are dropped |
//! | `lookups` | 1/128 | the shard, for batches that are searched by timestamp | lookups wait |
//! | `reserve` | 1/16 | other requests that wait for their answer, and bodies above 1 KiB while they are read | the connection is not read on |
//!
//! Of the eighth, in equal parts for all shards:
//!
//! | pool | part | what it holds | what happens at its end |
//! |---|---|---|---|
//! | `groups` | 3/8 | members and offsets of consumer groups, and their records while they are written | what would grow them is refused |
//! | `producers` | 3/8 | what is known of idempotent producers | those silent for minutes are forgotten, else new ones refused |
//! | `references` | 1/8 | where committed records lie in write-ahead objects | nothing: the log would be lost |
//! | the rest | 1/8 | topics, copies at seal time | |
//!
//! References go only when segments replace the objects that they lead to: until then the log's length is bounded by
//! them. One stands for all records that a partition has in one object, whatever their number; it takes 64 bytes, at
//! the shard and at the lane: 130 bytes with the tables around it. At 8 objects a second of the same partition that is
//! 86 MiB a day, at 64 MiB an object and one partition 2 MiB for each TiB.
//!
//! Invariants:
//! 1. A permit is given only while what permits hold stays within the budget; beyond it they come only by
//!    [`Permit::grow`], for what a request turned out to need besides its frame.
//! 2. First come, first served: a large request is not overtaken for ever by small ones.
//! 3. A permit's bytes come back when it is dropped, a waiter's place when it is.
//! 4. The bytes of a permit that was lent to other threads come back once, when the last of its [`Loan`]s has gone and the
//!    budget's own thread has looked ([`Budget::collect`]).

use futures::task::AtomicWaker;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

/// What one of `lanes` lanes of a process with `total` bytes has for rolls.
pub fn lane_bytes(total: usize, lanes: u16) -> usize {
    total / 8 / usize::from(lanes)
}

/// How the memory of one shard is divided, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pools {
    /// Produce requests that are being received, sealed or made durable.
    pub produce: usize,
    /// Newest committed bytes.
    pub tail: usize,
    /// Replies on their way out.
    pub replies: usize,
    /// Bytes read back from the store.
    pub reads: usize,
    /// What is kept of segments.
    pub cold: usize,
    /// Bytes that are searched by timestamp.
    pub lookups: usize,
    /// Bodies of all other requests.
    pub reserve: usize,
    /// Consumer groups.
    pub groups: usize,
    /// Idempotent producers.
    pub producers: usize,
    /// References to write-ahead objects.
    pub references: usize,
}

impl Pools {
    /// The pools of one of `shards` shards of a process with `total` bytes.
    pub fn of_process(total: usize, shards: u16) -> Pools {
        Pools::split((total - total / 4) / usize::from(shards))
    }

    /// Splits the bytes of one shard by the table above.
    pub fn split(shard_bytes: usize) -> Pools {
        // The eighth beside the six that are given.
        let kept = shard_bytes / 6;
        Pools {
            produce: shard_bytes / 3,
            tail: shard_bytes / 8,
            replies: shard_bytes / 8,
            cold: shard_bytes / 16,
            reads: shard_bytes / 128 * 7,
            lookups: shard_bytes / 128,
            reserve: shard_bytes / 16,
            groups: kept * 3 / 8,
            producers: kept * 3 / 8,
            references: kept / 8,
        }
    }

    /// Bound of the shard's arena: what lies in produce frames and in the tail, with half as much again for chunks
    /// that a few live bytes keep from reuse.
    pub fn arena(&self) -> usize {
        let live = self.produce + self.tail;
        live + live / 2
    }
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    granted: bool,
    waker: Waker,
}

struct State {
    capacity: usize,
    taken: usize,
    next_ticket: u64,
    waiters: VecDeque<Waiter>,
    /// Bytes of loans that have ended elsewhere.
    returned: Arc<Returned>,
}

/// What comes back from other threads.
#[derive(Default)]
struct Returned {
    bytes: AtomicUsize,
    collector: AtomicWaker,
}

impl State {
    /// Grants from the front as far as the bytes go. Granted waiters stay in the queue until they look.
    fn grant(&mut self) {
        for waiter in &mut self.waiters {
            if waiter.granted {
                continue;
            }
            if waiter.bytes > self.capacity.saturating_sub(self.taken) {
                break;
            }
            self.taken += waiter.bytes;
            waiter.granted = true;
            waiter.waker.wake_by_ref();
        }
    }

    fn free(&self) -> usize {
        // Nothing is free while permits have grown beyond the capacity.
        self.capacity.saturating_sub(self.taken)
    }

    fn anyone_waits(&self) -> bool {
        self.waiters.iter().any(|waiter| !waiter.granted)
    }
}

/// A number of bytes that permits are taken from. Clones share it; it stays on its thread.
#[derive(Clone)]
pub struct Budget(Rc<RefCell<State>>);

/// Bytes taken from a budget; they go back when it is dropped.
pub struct Permit {
    from: Source,
    bytes: usize,
}

/// Whose bytes a permit holds.
enum Source {
    /// A budget of this thread.
    Budget(Budget),
    /// One of another thread.
    Loan(#[expect(dead_code, reason = "held to be dropped")] Loan),
}

/// A permit on its way to another thread. Clones hold the same bytes, which go back with the last of them.
#[derive(Clone)]
pub struct Loan(Arc<Lent>);

struct Lent {
    bytes: usize,
    to: Arc<Returned>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.to.bytes.fetch_add(self.bytes, Ordering::Release);
        self.to.collector.wake();
    }
}

impl Loan {
    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }
}

impl std::fmt::Debug for Loan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loan({})", self.bytes())
    }
}

impl Budget {
    /// A budget of `capacity` bytes.
    pub fn new(capacity: usize) -> Budget {
        let returned = Arc::default();
        Budget(Rc::new(RefCell::new(State { capacity, taken: 0, next_ticket: 0, waiters: VecDeque::new(), returned })))
    }

    /// All of its bytes.
    pub fn capacity(&self) -> usize {
        self.0.borrow().capacity
    }

    /// Bytes that permits hold.
    pub fn taken(&self) -> usize {
        self.0.borrow().taken
    }

    /// Whether anybody waits for bytes that others hold.
    pub fn is_waited_for(&self) -> bool {
        self.0.borrow().anyone_waits()
    }

    /// Takes `bytes` if they are free and nobody waits for some.
    pub fn try_take(&self, bytes: usize) -> Option<Permit> {
        let mut state = self.0.borrow_mut();
        if bytes > state.free() || state.anyone_waits() {
            return None;
        }
        state.taken += bytes;
        Some(Permit { from: Source::Budget(self.clone()), bytes })
    }

    /// Takes `bytes` behind everyone who waits already.
    ///
    /// # Panics
    /// If `bytes` exceeds the capacity: that would wait for ever. Frame limits are checked before.
    pub fn take(&self, bytes: usize) -> Taking {
        assert!(bytes <= self.capacity(), "a frame limit exceeds its budget");
        Taking { budget: self.clone(), bytes, ticket: None }
    }

    /// Takes back the bytes of loans that end, for ever: to be run by one task if permits are lent.
    pub async fn collect(&self) {
        let returned = self.0.borrow().returned.clone();
        poll_fn(|cx| {
            returned.collector.register(cx.waker());
            let bytes = returned.bytes.swap(0, Ordering::Acquire);
            if bytes > 0 {
                let mut state = self.0.borrow_mut();
                state.taken -= bytes;
                state.grant();
            }
            Poll::Pending
        })
        .await
    }
}

impl Permit {
    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts `more` bytes without waiting, whatever is free: nobody else gets any until they are back.
    ///
    /// # Panics
    /// If it is of a loan: it is grown before.
    pub fn grow(&mut self, more: usize) {
        let Source::Budget(budget) = &self.from else { unreachable!("a loan does not grow") };
        budget.0.borrow_mut().taken += more;
        self.bytes += more;
    }

    /// Makes it something that may go to other threads.
    pub fn lend(mut self) -> Loan {
        let Source::Budget(budget) = &self.from else { unreachable!("a loan is cloned instead") };
        let to = budget.0.borrow().returned.clone();
        // Its own end gives nothing back any more.
        Loan(Arc::new(Lent { bytes: std::mem::take(&mut self.bytes), to }))
    }

    /// What a thread holds that a permit was lent to.
    pub fn of_loan(loan: Loan) -> Permit {
        Permit { bytes: loan.bytes(), from: Source::Loan(loan) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Source::Budget(budget) = &self.from else { return };
        let mut state = budget.0.borrow_mut();
        state.taken -= self.bytes;
        state.grant();
    }
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({})", self.bytes)
    }
}

/// Waits for a permit.
pub struct Taking {
    budget: Budget,
    bytes: usize,
    ticket: Option<u64>,
}

impl Future for Taking {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(ticket) = self.ticket else {
            if let Some(permit) = self.budget.try_take(self.bytes) {
                return Poll::Ready(permit);
            }
            let mut state = self.budget.0.borrow_mut();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            let (bytes, waker) = (self.bytes, cx.waker().clone());
            state.waiters.push_back(Waiter { ticket, bytes, granted: false, waker });
            drop(state);
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        let mut state = self.budget.0.borrow_mut();
        let place = state.waiters.iter().position(|waiter| waiter.ticket == ticket);
        let place = place.expect("only this future removes its waiter, and then forgets the ticket");
        if !state.waiters[place].granted {
            state.waiters[place].waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        state.waiters.remove(place);
        drop(state);
        self.ticket = None;
        Poll::Ready(Permit { from: Source::Budget(self.budget.clone()), bytes: self.bytes })
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.budget.0.borrow_mut();
        let place = state.waiters.iter().position(|waiter| waiter.ticket == ticket);
        let waiter = place.and_then(|place| state.waiters.remove(place));
        if waiter.is_some_and(|waiter| waiter.granted) {
            state.taken -= self.bytes;
        }
        state.grant();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn now_or_never(taking: &mut Taking) -> Option<Permit> {
        taking.now_or_never()
    }

    #[test]
    fn a_dropped_permit_gives_its_bytes_back() {
        let budget = Budget::new(10);
        let permit = budget.try_take(10).unwrap();
        assert!(budget.try_take(1).is_none());
        drop(permit);
        assert_eq!(budget.taken(), 0);
        assert_eq!(now_or_never(&mut budget.take(10)).unwrap().bytes(), 10);
    }

    #[test]
    fn a_loan_gives_its_bytes_back_once_and_to_who_waits_when_its_last_holder_on_any_thread_has_gone() {
        let budget = Budget::new(10);
        let mut collecting = Box::pin(budget.collect());
        assert!(collecting.as_mut().now_or_never().is_none());
        let loan = budget.try_take(10).unwrap().lend();
        assert_eq!((loan.bytes(), budget.taken()), (10, 10));
        let mut waiting = budget.take(4);
        assert!(now_or_never(&mut waiting).is_none());
        let (here, there) = (Permit::of_loan(loan.clone()), loan);
        std::thread::scope(|scope| drop(scope.spawn(move || drop(Permit::of_loan(there)))));
        assert!(collecting.as_mut().now_or_never().is_none());
        assert!(now_or_never(&mut waiting).is_none(), "one holder is left");
        drop(here);
        assert!(collecting.as_mut().now_or_never().is_none());
        assert_eq!(now_or_never(&mut waiting).unwrap().bytes(), 4);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn waiters_are_served_in_the_order_they_came() {
        let budget = Budget::new(10);
        let first = budget.try_take(6).unwrap();
        let mut large = budget.take(8);
        let mut small = budget.take(2);
        assert!(now_or_never(&mut large).is_none());
        assert!(now_or_never(&mut small).is_none(), "4 bytes are free, but the large one came before");
        assert!(budget.try_take(1).is_none());
        drop(first);
        let large = now_or_never(&mut large).unwrap();
        let small = now_or_never(&mut small).unwrap();
        assert_eq!(budget.taken(), 10);
        drop((large, small));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_waiter_that_gives_up_lets_the_next_one_pass_and_keeps_nothing() {
        let budget = Budget::new(10);
        let held = budget.try_take(6).unwrap();
        let mut large = budget.take(8);
        let mut small = budget.take(2);
        assert!(now_or_never(&mut large).is_none());
        assert!(now_or_never(&mut small).is_none());
        drop(large);
        drop(now_or_never(&mut small).unwrap());
        let mut granted = budget.take(10);
        assert!(now_or_never(&mut granted).is_none());
        drop(held);
        assert_eq!(budget.taken(), 10, "granted, not yet looked at");
        drop(granted);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_permit_that_grew_beyond_the_budget_keeps_others_waiting_until_it_is_back() {
        let budget = Budget::new(10);
        let mut grown = budget.try_take(4).unwrap();
        let small = budget.try_take(4).unwrap();
        grown.grow(20);
        let mut waiting = budget.take(1);
        drop(small);
        assert!(now_or_never(&mut waiting).is_none());
        assert_eq!(budget.taken(), 24);
        drop(grown);
        assert!(now_or_never(&mut waiting).is_some());
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn the_pools_stay_within_the_total() {
        for shards in 1..=64 {
            let pools = Pools::of_process(1 << 30, shards);
            let reads = pools.reads + pools.cold + pools.lookups;
            let buffers = pools.arena() + pools.replies + reads + pools.reserve;
            assert!((buffers + lane_bytes(1 << 30, shards)) * usize::from(shards) <= (1 << 30) - (1 << 27));
            let kept = pools.groups + pools.producers + pools.references;
            assert!(kept * usize::from(shards) <= (1 << 27) / 8 * 7);
        }
    }
}
