//! The metadata store in memory: for `--object-store memory:`, for tests, and under the simulator's faults.
//!
//! Clones share one store and may be used from any thread. Every operation is done when it is called, so operations are
//! linearizable in the order of their calls. It lives as long as its last clone; nothing of it survives the process.

use super::apply::{self, Applied, KeyValues};
use super::history::{HISTORY_CHANGES, History};
use super::{Key, MetaStore, Page, Revision, Snapshot, Txn, TxnOutcome, Versioned, WatchStream};
use crate::store_error::StoreError;
use crate::wal::StoreFuture;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::ready;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

/// The store. A clone is another handle on the same one.
#[derive(Clone)]
pub struct MemoryMeta {
    cluster_id: uuid::Uuid,
    state: Arc<Mutex<State>>,
    history: History,
}

struct State {
    revision: Revision,
    keys: BTreeMap<Key, Versioned>,
}

impl MemoryMeta {
    /// An empty store with this id.
    pub fn new(cluster_id: uuid::Uuid) -> MemoryMeta {
        MemoryMeta::with_history(cluster_id, HISTORY_CHANGES)
    }

    /// An empty store that keeps only so many changes for its watches.
    pub fn with_history(cluster_id: uuid::Uuid, changes: usize) -> MemoryMeta {
        MemoryMeta {
            cluster_id,
            state: Arc::new(Mutex::new(State { revision: Revision(0), keys: BTreeMap::new() })),
            history: History::new(Revision(0), changes),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the keys")
    }

    fn run(&self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        apply::check(txn)?;
        let mut state = self.state();
        let next = Revision(state.revision.0 + 1);
        Ok(match proven(apply::apply(&mut state.keys, txn, next)) {
            Applied::Conflict => TxnOutcome::Conflict(state.revision),
            Applied::Unchanged => TxnOutcome::Committed(state.revision),
            Applied::Changed(changes) => {
                state.revision = next;
                // Pushed under the lock, so that the history has the order of the revisions.
                self.history.push(changes);
                TxnOutcome::Committed(next)
            }
        })
    }
}

/// A map in memory has no errors.
fn proven<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

impl KeyValues for BTreeMap<Key, Versioned> {
    type Error = Infallible;

    fn get(&self, key: &str) -> Result<Option<Versioned>, Infallible> {
        Ok(BTreeMap::get(self, key).cloned())
    }
    fn put(&mut self, key: &Key, value: &Bytes, revision: Revision) -> Result<(), Infallible> {
        self.insert(key.clone(), Versioned { value: value.clone(), modified: revision });
        Ok(())
    }
    fn delete(&mut self, key: &str) -> Result<bool, Infallible> {
        Ok(self.remove(key).is_some())
    }
}

impl MetaStore for MemoryMeta {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        Box::pin(ready(Ok(self.cluster_id)))
    }

    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        Box::pin(ready(self.run(&txn)))
    }

    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        let snapshot = apply::check_get(&keys).map(|()| {
            let state = self.state();
            let values = keys.iter().map(|key| state.keys.get(key).cloned()).collect();
            Snapshot { revision: state.revision, values }
        });
        Box::pin(ready(snapshot))
    }

    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        let state = self.state();
        let from = apply::list_from(prefix, after.as_deref());
        let ascending = state.keys.range::<str, _>((from, Bound::Unbounded));
        let page =
            apply::page(ascending.map(|(key, value)| Ok((key.clone(), value.clone()))), prefix, limit, state.revision);
        Box::pin(ready(Ok(proven(page))))
    }

    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        self.history.watch(prefix, after).boxed_local()
    }
}
