//! The metadata store in memory: for `--object-store memory:`, for tests, and under the simulator's faults.
//!
//! Clones share one store and may be used from any thread. Every operation is done when it is called, so operations are
//! linearizable in the order of their calls. It lives as long as its last clone; nothing of it survives the process.
//!
//! The store itself has no clock: leases granted by [`MemoryMeta`] live until they are revoked. Those granted through
//! [`TimedMemory`] run out by its clock, of which several handles on one store are to agree. No task waits for that:
//! whatever looks at the store first ends what is due, watches of timed handles among them.

use super::apply::{self, Applied, KeyValues};
use super::history::{HISTORY_CHANGES, History};
use super::leases::Leases;
use super::{
    KeptAlive, Key, Lease, LeaseId, MetaStore, Page, Revision, Snapshot, Txn, TxnOutcome, Versioned, WatchStream,
};
use crate::env::{Env, Mono};
use crate::store_error::StoreError;
use crate::wal::StoreFuture;
use bytes::Bytes;
use futures::future::{LocalBoxFuture, ready};
use futures::stream::poll_fn;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The store. A clone is another handle on the same one.
#[derive(Clone)]
pub struct MemoryMeta {
    cluster_id: uuid::Uuid,
    state: Arc<Mutex<State>>,
    history: History,
}

#[derive(Default)]
struct State {
    revision: Revision,
    keys: Keys,
    leases: Leases,
}

#[derive(Default)]
struct Keys {
    values: BTreeMap<Key, Versioned>,
    leased: BTreeMap<Key, LeaseId>,
}

impl MemoryMeta {
    /// An empty store with this id.
    pub fn new(cluster_id: uuid::Uuid) -> MemoryMeta {
        MemoryMeta::with_history(cluster_id, HISTORY_CHANGES)
    }

    /// An empty store that keeps only so many changes for its watches.
    pub fn with_history(cluster_id: uuid::Uuid, changes: usize) -> MemoryMeta {
        MemoryMeta { cluster_id, state: Arc::default(), history: History::new(Revision(0), changes) }
    }

    /// A handle of the thread that `env` belongs to, on which leases run out.
    pub fn timed(&self, env: &Env) -> TimedMemory {
        TimedMemory { store: self.clone(), env: env.clone() }
    }

    /// The state at `now`: without the keys of leases that are due by then.
    fn state(&self, now: Option<Mono>) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().expect("no code panics while it holds the keys");
        if now.is_some_and(|now| state.leases.end_due(now)) {
            self.sweep(&mut state);
        }
        state
    }

    fn sweep(&self, state: &mut State) {
        let next = Revision(state.revision.0 + 1);
        let changes = proven(apply::sweep(&mut state.keys, &state.leases, next));
        if !changes.is_empty() {
            state.revision = next;
            // Pushed under the lock, so that the history has the order of the revisions.
            self.history.push(changes);
        }
    }

    fn run(&self, txn: &Txn, now: Option<Mono>) -> Result<TxnOutcome, StoreError> {
        apply::check(txn)?;
        let mut state = self.state(now);
        apply::check_leases(txn, &state.leases)?;
        let next = Revision(state.revision.0 + 1);
        Ok(match proven(apply::apply(&mut state.keys, txn, next)) {
            Applied::Conflict => TxnOutcome::Conflict(state.revision),
            Applied::Unchanged => TxnOutcome::Committed(state.revision),
            Applied::Changed(changes) => {
                state.revision = next;
                self.history.push(changes);
                TxnOutcome::Committed(next)
            }
        })
    }

    fn read(&self, keys: &[Key], now: Option<Mono>) -> Result<Snapshot, StoreError> {
        apply::check_get(keys)?;
        let state = self.state(now);
        let values = keys.iter().map(|key| state.keys.values.get(key).cloned()).collect();
        Ok(Snapshot { revision: state.revision, values })
    }

    fn page(&self, prefix: &str, after: Option<&str>, limit: usize, now: Option<Mono>) -> Page {
        let state = self.state(now);
        let from = apply::list_from(prefix, after);
        let ascending = state.keys.values.range::<str, _>((from, Bound::Unbounded));
        let entries = ascending.map(|(key, value)| Ok((key.clone(), value.clone())));
        proven(apply::page(entries, prefix, limit, state.revision))
    }

    fn end(&self, lease: LeaseId, now: Option<Mono>) {
        let mut state = self.state(now);
        if state.leases.end(lease) {
            self.sweep(&mut state);
        }
    }
}

/// A map in memory has no errors.
fn proven<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

impl KeyValues for Keys {
    type Error = Infallible;

    fn get(&self, key: &str) -> Result<Option<Versioned>, Infallible> {
        Ok(self.values.get(key).cloned())
    }
    fn put(&mut self, key: &Key, value: &Bytes, revision: Revision, lease: Option<LeaseId>) -> Result<(), Infallible> {
        self.values.insert(key.clone(), Versioned { value: value.clone(), modified: revision });
        match lease {
            Some(lease) => self.leased.insert(key.clone(), lease),
            None => self.leased.remove(key),
        };
        Ok(())
    }
    fn delete(&mut self, key: &str) -> Result<bool, Infallible> {
        self.leased.remove(key);
        Ok(self.values.remove(key).is_some())
    }
    fn leased(&self) -> Result<Vec<(Key, LeaseId)>, Infallible> {
        Ok(self.leased.iter().map(|(key, lease)| (key.clone(), *lease)).collect())
    }
}

impl MetaStore for MemoryMeta {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        Box::pin(ready(Ok(self.cluster_id)))
    }
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        Box::pin(ready(self.run(&txn, None)))
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        Box::pin(ready(self.read(&keys, None)))
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        Box::pin(ready(Ok(self.page(prefix, after.as_deref(), limit, None))))
    }
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        self.history.watch(prefix, after).boxed_local()
    }
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        Box::pin(ready(Ok(self.state(None).leases.grant(ttl, None))))
    }
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        Box::pin(ready(Ok(self.state(None).leases.keep_alive(lease, None))))
    }
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        self.end(lease, None);
        Box::pin(ready(Ok(())))
    }
}

/// A handle on a [`MemoryMeta`] with a clock, on which leases run out.
#[derive(Clone)]
pub struct TimedMemory {
    store: MemoryMeta,
    env: Env,
}

impl TimedMemory {
    fn now(&self) -> Option<Mono> {
        Some(self.env.now())
    }
}

impl MetaStore for TimedMemory {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        self.store.cluster_id()
    }
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        Box::pin(ready(self.store.run(&txn, self.now())))
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        Box::pin(ready(self.store.read(&keys, self.now())))
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        Box::pin(ready(Ok(self.store.page(prefix, after.as_deref(), limit, self.now()))))
    }
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        let mut changes = self.store.history.watch(prefix, after);
        let timed = self.clone();
        let mut alarm: Option<(Mono, LocalBoxFuture<'static, ()>)> = None;
        // A lease that holds a key began to hold it by a change, which woke every watch: none sleeps past its end.
        poll_fn(move |cx| {
            loop {
                let due = timed.store.state(timed.now()).leases.next_due();
                if alarm.as_ref().map(|(at, _)| *at) != due {
                    alarm = due.map(|at| (at, timed.env.sleep_until(at)));
                }
                let rings = alarm.as_mut().is_some_and(|(_, sleep)| sleep.poll_unpin(cx).is_ready());
                if !rings {
                    return changes.poll_next_unpin(cx);
                }
                alarm = None;
            }
        })
        .boxed_local()
    }
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        let now = self.now();
        Box::pin(ready(Ok(self.store.state(now).leases.grant(ttl, now))))
    }
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        let now = self.now();
        Box::pin(ready(Ok(self.store.state(now).leases.keep_alive(lease, now))))
    }
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        self.store.end(lease, self.now());
        Box::pin(ready(Ok(())))
    }
}
