//! The memory store with a time of its own per put, charged to an account of its own, and counted.

use crate::meter::{Account, enter};
use bytes::Bytes;
use millrace_storage::env::Env;
use millrace_storage::ids::{Seq, Wid};
use millrace_storage::wal::memory::MemoryWal;
use millrace_storage::wal::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Puts of a store.
#[derive(Default)]
pub(crate) struct Puts {
    /// How many.
    pub count: Cell<u64>,
    /// Their bytes.
    pub bytes: Cell<u64>,
}

/// The store.
pub(crate) struct CountedWal {
    /// What holds the objects.
    pub inner: MemoryWal,
    /// Virtual time.
    pub env: Env,
    /// How long a put takes.
    pub put_takes: Duration,
    /// Counts.
    pub puts: Rc<Puts>,
}

impl WalStore for CountedWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let _store = enter(Account::Store);
        self.puts.count.set(self.puts.count.get() + 1);
        let bytes: usize = slices.iter().map(Bytes::len).sum();
        self.puts.bytes.set(self.puts.bytes.get() + bytes as u64);
        let inner = self.inner.clone();
        let wait = (!self.put_takes.is_zero()).then(|| self.env.sleep(self.put_takes));
        Box::pin(async move {
            if let Some(wait) = wait {
                wait.await;
            }
            // No await between here and the end of the guard's life: the put itself is done at once.
            let put = {
                let _store = enter(Account::Store);
                inner.put_if_absent(wid, seq, slices)
            };
            put.await
        })
    }

    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.inner.header(wid, seq)
    }

    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.inner.read(wid, seq, range)
    }

    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        self.inner.suffix(wid, seq, length)
    }

    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        self.inner.list(wid, from)
    }

    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        self.inner.list_wids()
    }

    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.inner.delete_below(wid, below)
    }

    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        self.inner.retain_only_fence(wid, end)
    }

    fn sync_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.inner.sync_below(wid, below)
    }
}
