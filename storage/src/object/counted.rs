//! Counts every request to an object store where it goes out, beneath the retries.

use super::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::meter::{Counting, PAGE};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;

/// A store whose requests are counted.
pub struct Counted {
    store: Rc<dyn ObjectStore>,
    counting: Counting,
}

impl Counted {
    /// Counts what is asked of `store`.
    pub fn new(store: Rc<dyn ObjectStore>, counting: Counting) -> Counted {
        Counted { store, counting }
    }
}

impl ObjectStore for Counted {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let bytes = slices.iter().map(Bytes::len).sum();
        self.counting.put(bytes, self.store.put_if_absent(key, slices))
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.counting.put(bytes.len(), self.store.put_if_match(key, bytes, version))
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        self.counting.get(self.store.get(key), |object| object.bytes.len())
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.counting.get(self.store.get_range(key, range), Bytes::len)
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.counting.get(self.store.get_suffix(key, length), |suffix| suffix.bytes.len())
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        self.counting.list(self.store.list(prefix))
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        self.counting.list(self.store.list_directories(prefix))
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        self.counting.delete(keys.len().div_ceil(PAGE), self.store.delete(keys))
    }
}
