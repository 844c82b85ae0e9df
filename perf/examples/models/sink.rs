//! An object store that remembers of write-ahead objects only what a lane may ask for: that they exist, and the header.
//! Gigabytes go through it. Everything else is kept in memory.

use bytes::Bytes;
use millrace_storage::object::memory::MemoryHandle;
use millrace_storage::object::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use millrace_storage::wal::{PutOutcome, StoreFuture, Suffix};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// What was put, whether it was stored or was there already.
#[derive(Default)]
pub(crate) struct Bill {
    /// Requests.
    pub puts: Cell<u64>,
    /// Bytes.
    pub bytes: Cell<u64>,
}

/// The store.
pub(crate) struct Sink {
    /// Holds what is kept.
    pub inner: MemoryHandle,
    /// Counts.
    pub bill: Rc<Bill>,
}

impl ObjectStore for Sink {
    fn put_if_absent(&self, key: &str, mut slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.bill.puts.set(self.bill.puts.get() + 1);
        let bytes: usize = slices.iter().map(Bytes::len).sum();
        self.bill.bytes.set(self.bill.bytes.get() + bytes as u64);
        if key.starts_with("wal/") {
            slices.truncate(1);
        }
        self.inner.put_if_absent(key, slices)
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.inner.put_if_match(key, bytes, version)
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        self.inner.get(key)
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.inner.get_range(key, range)
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.inner.get_suffix(key, length)
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        self.inner.list(prefix)
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        self.inner.list_directories(prefix)
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        self.inner.delete(keys)
    }
}
