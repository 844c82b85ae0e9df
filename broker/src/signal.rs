//! Waking between the tasks of one shard: no thread, no channel, no allocation per wake.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// A flag that one task waits for. Raising it twice before it is seen counts once.
#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raises the flag.
    pub fn raise(&self) {
        self.raised.set(true);
        if let Some(waiter) = self.waiter.take() {
            waiter.wake();
        }
    }

    /// Waits until it is raised, and lowers it. One task at a time may wait.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.raised.take() {
                return Poll::Ready(());
            }
            self.waiter.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// A count of bytes with a mark that many tasks can wait to fall below. Adding never waits: who adds is asked for
/// less by those who wait.
pub struct Gauge {
    mark: usize,
    level: Cell<usize>,
    waiters: RefCell<Vec<Waker>>,
}

impl Gauge {
    /// An empty gauge.
    pub fn new(mark: usize) -> Gauge {
        Gauge { mark, level: Cell::new(0), waiters: RefCell::default() }
    }

    /// Counts `bytes` more.
    pub fn add(&self, bytes: usize) {
        self.level.set(self.level.get() + bytes);
    }

    /// Counts `bytes` less.
    pub fn subtract(&self, bytes: usize) {
        let before = self.level.get();
        let level = before.checked_sub(bytes).expect("what is subtracted was added");
        self.level.set(level);
        if before >= self.mark && level < self.mark {
            self.waiters.take().into_iter().for_each(Waker::wake);
        }
    }

    /// What it counts now.
    pub fn level(&self) -> usize {
        self.level.get()
    }

    /// Whether the level has reached the mark.
    pub fn is_at_mark(&self) -> bool {
        self.level.get() >= self.mark
    }

    /// Waits until the level is below the mark.
    pub async fn below_mark(&self) {
        poll_fn(|cx| {
            if self.level.get() < self.mark {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|waiter| waiter.will_wake(cx.waker())) {
                waiters.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
