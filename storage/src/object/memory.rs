//! Objects in this process's memory: for `memory:` and for tests. They end with the process.
//!
//! Bytes are copied in, so that no object pins the larger buffer that its slices were cut from.

use super::{ListedObject, MatchOutcome, Object, ObjectStore, Version, cut};
use crate::env::Env;
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use futures::future::ready;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The objects. Clones share them; [`MemoryStore::handle`] makes a thread's view.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Objects>>);

#[derive(Default)]
struct Objects {
    by_key: BTreeMap<String, Stored>,
    /// Versions given out so far: one per write.
    versions: u64,
}

struct Stored {
    bytes: Bytes,
    version: u64,
    modified_ms: i64,
}

/// One thread's view of a [`MemoryStore`].
pub struct MemoryHandle {
    store: MemoryStore,
    env: Env,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A view whose writes are dated by `env`.
    pub fn handle(&self, env: Env) -> MemoryHandle {
        MemoryHandle { store: self.clone(), env }
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        // No code panics while it holds the lock, and a panic ends the process anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    fn write(&mut self, key: String, bytes: Bytes, modified_ms: i64) -> Version {
        self.versions += 1;
        let version = self.versions;
        self.by_key.insert(key, Stored { bytes, version, modified_ms });
        Version(version.to_string())
    }
}

fn slice(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let range = cut(range, bytes.len() as u64);
    bytes.slice(range.start as usize..range.end as usize)
}

impl ObjectStore for MemoryHandle {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let mut objects = self.store.objects();
        let outcome = if objects.by_key.contains_key(key) {
            PutOutcome::AlreadyExists
        } else {
            objects.write(key.to_owned(), Bytes::from(slices.concat()), self.env.wall().0);
            PutOutcome::Stored
        };
        Box::pin(ready(Ok(outcome)))
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        let mut objects = self.store.objects();
        let current = objects.by_key.get(key).map(|stored| stored.version.to_string());
        let outcome = if current.as_ref() == Some(&version.0) {
            let copy = Bytes::copy_from_slice(&bytes);
            MatchOutcome::Stored(objects.write(key.to_owned(), copy, self.env.wall().0))
        } else {
            MatchOutcome::Changed
        };
        Box::pin(ready(Ok(outcome)))
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        let objects = self.store.objects();
        let object = objects
            .by_key
            .get(key)
            .map(|stored| Object { bytes: stored.bytes.clone(), version: Version(stored.version.to_string()) });
        Box::pin(ready(Ok(object)))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        let objects = self.store.objects();
        let bytes = objects.by_key.get(key).map(|stored| slice(&stored.bytes, range));
        Box::pin(ready(Ok(bytes)))
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        let objects = self.store.objects();
        let suffix = objects.by_key.get(key).map(|stored| {
            let size = stored.bytes.len() as u64;
            Suffix { size, bytes: slice(&stored.bytes, size.saturating_sub(length)..size) }
        });
        Box::pin(ready(Ok(suffix)))
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        let objects = self.store.objects();
        let listed = objects
            .by_key
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| ListedObject {
                key: key.clone(),
                size: stored.bytes.len() as u64,
                modified_ms: stored.modified_ms,
            })
            .collect();
        Box::pin(ready(Ok(listed)))
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let objects = self.store.objects();
        let names: BTreeSet<String> = objects
            .by_key
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, _)| Some(key[prefix.len()..].split_once('/')?.0.to_owned()))
            .collect();
        Box::pin(ready(Ok(names.into_iter().collect())))
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        let mut objects = self.store.objects();
        for key in keys {
            objects.by_key.remove(&key);
        }
        Box::pin(ready(Ok(())))
    }
}
