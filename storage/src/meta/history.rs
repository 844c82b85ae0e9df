//! The newest changes of a store, and the watches that read them.
//!
//! A watch has no queue of its own: it keeps the revision that it has delivered and reads the shared history from there.
//!
//! Invariants:
//! 1. Bounded: at most [`HISTORY_CHANGES`] changes and [`HISTORY_BYTES`] bytes, whatever the number of watches or how
//!    slow they are. One that falls behind ends with [`WatchError::Compacted`].
//! 2. A revision is delivered whole, once, in order; only after it is durable (its owner pushes it then).

use super::{Change, Revision, WatchError};
use crate::store_error::{FailureKind, StoreError};
use futures::Stream;
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Changes kept for watches.
pub const HISTORY_CHANGES: usize = 16 * 1024;

/// Bytes of keys and values kept for watches; the newest transaction is kept whatever its size.
pub const HISTORY_BYTES: usize = 8 << 20;

/// The history, shared by the store's thread and its watches.
#[derive(Clone)]
pub(super) struct History(Arc<Mutex<Recent>>);

struct Recent {
    /// Changes at or before this revision are gone.
    floor: Revision,
    transactions: VecDeque<Vec<Change>>,
    changes: usize,
    bytes: usize,
    max_changes: usize,
    /// The store is gone: no change will ever come.
    closed: bool,
    /// Watches that sleep, by number.
    sleeping: BTreeMap<u64, Waker>,
    next_watch: u64,
}

impl History {
    /// A history that starts behind `floor` and keeps `max_changes`.
    pub(super) fn new(floor: Revision, max_changes: usize) -> History {
        History(Arc::new(Mutex::new(Recent {
            floor,
            transactions: VecDeque::new(),
            changes: 0,
            bytes: 0,
            max_changes,
            closed: false,
            sleeping: BTreeMap::new(),
            next_watch: 0,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        self.0.lock().expect("no code panics while it holds the history")
    }

    /// Adds the changes of one durable transaction and wakes the watches.
    pub(super) fn push(&self, changes: Vec<Change>) {
        assert!(!changes.is_empty(), "a transaction without a change takes no revision");
        let mut recent = self.lock();
        recent.changes += changes.len();
        recent.bytes += changes.iter().map(cost).sum::<usize>();
        recent.transactions.push_back(changes);
        while recent.transactions.len() > 1 && (recent.changes > recent.max_changes || recent.bytes > HISTORY_BYTES) {
            let oldest = recent.transactions.pop_front().expect("more than one is there");
            recent.changes -= oldest.len();
            recent.bytes -= oldest.iter().map(cost).sum::<usize>();
            recent.floor = oldest[0].revision;
        }
        wake_all(recent);
    }

    /// Forgets everything up to `floor`: changes may have happened that were never pushed.
    pub(super) fn restart(&self, floor: Revision) {
        let mut recent = self.lock();
        recent.transactions.clear();
        (recent.changes, recent.bytes, recent.floor) = (0, 0, floor);
        wake_all(recent);
    }

    /// Ends every watch.
    pub(super) fn close(&self) {
        let mut recent = self.lock();
        recent.closed = true;
        wake_all(recent);
    }

    /// Changes of keys under `prefix` after `after`.
    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Watch {
        let mut recent = self.lock();
        let number = recent.next_watch;
        recent.next_watch += 1;
        Watch { history: self.clone(), number, prefix: prefix.to_owned(), delivered: after, ended: false }
    }
}

/// Wakes after the lock is given back: a waker may drop a task, and with it a watch, which takes the lock.
fn wake_all(mut recent: MutexGuard<'_, Recent>) {
    let sleeping = std::mem::take(&mut recent.sleeping);
    drop(recent);
    sleeping.into_values().for_each(Waker::wake);
}

fn cost(change: &Change) -> usize {
    change.key.len() + change.value.as_ref().map_or(0, bytes::Bytes::len)
}

/// One watch.
pub(super) struct Watch {
    history: History,
    number: u64,
    prefix: String,
    delivered: Revision,
    ended: bool,
}

impl Stream for Watch {
    type Item = Result<Vec<Change>, WatchError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let watch = &mut *self;
        let mut recent = watch.history.lock();
        if watch.delivered < recent.floor {
            watch.ended = true;
            return Poll::Ready(Some(Err(WatchError::Compacted(recent.floor))));
        }
        let first = recent.transactions.partition_point(|changes| changes[0].revision <= watch.delivered);
        for changes in recent.transactions.range(first..) {
            watch.delivered = changes[0].revision;
            let seen: Vec<Change> = changes.iter().filter(|c| c.key.starts_with(&watch.prefix)).cloned().collect();
            if !seen.is_empty() {
                return Poll::Ready(Some(Ok(seen)));
            }
        }
        if recent.closed {
            watch.ended = true;
            let gone = StoreError::not_done(FailureKind::Unavailable, "the metadata store is closed");
            return Poll::Ready(Some(Err(gone.into())));
        }
        recent.sleeping.insert(watch.number, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.history.lock().sleeping.remove(&self.number);
    }
}
