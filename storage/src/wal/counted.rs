//! Counts every request to a store of write-ahead logs that is no object store: extents and memory. (Logs in an object
//! store are counted there, [`crate::object::counted`].)

use super::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use crate::ids::{Seq, Wid};
use crate::meter::Counting;
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;

/// A store whose requests are counted.
pub struct CountedWal {
    store: Rc<dyn WalStore>,
    counting: Counting,
}

impl CountedWal {
    /// Counts what is asked of `store`.
    pub fn new(store: Rc<dyn WalStore>, counting: Counting) -> CountedWal {
        CountedWal { store, counting }
    }
}

impl WalStore for CountedWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let bytes = slices.iter().map(Bytes::len).sum();
        self.counting.put(bytes, self.store.put_if_absent(wid, seq, slices))
    }

    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.counting.get(self.store.header(wid, seq), Bytes::len)
    }

    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.counting.get(self.store.read(wid, seq, range), Bytes::len)
    }

    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        self.counting.get(self.store.suffix(wid, seq, length), |suffix| suffix.bytes.len())
    }

    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        self.counting.list(self.store.list(wid, from))
    }

    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        self.counting.list(self.store.list_wids())
    }

    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.counting.delete(1, self.store.delete_below(wid, below))
    }

    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        self.counting.delete(1, self.store.retain_only_fence(wid, end))
    }

    fn sync_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        // A promise about earlier puts, not a request of its own.
        self.store.sync_below(wid, below)
    }
}
