//! Write-ahead logs in this process's memory: for `memory:` and for tests. They end with the process.
//!
//! The lane lets the oldest objects go before the ring's cap is reached (PROTOCOL.md section 6); the hard cap here is
//! what stands between a lane that does not and the machine's memory: a put beyond it fails with
//! [`FailureKind::Full`]. Bytes are copied in, so that no object pins the receive buffer that its slices were cut from.

use super::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, Wid};
use crate::object::cut;
use crate::store_error::{FailureKind, StoreError};
use bytes::Bytes;
use futures::future::ready;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The logs. Clones share them; it is its own handle on every thread.
#[derive(Clone)]
pub struct MemoryWal {
    logs: Arc<Mutex<Logs>>,
    cap: u64,
}

#[derive(Default)]
struct Logs {
    objects: BTreeMap<(Wid, Seq), Bytes>,
    bytes: u64,
}

impl MemoryWal {
    /// No logs, which may grow to `cap` bytes together.
    pub fn new(cap: u64) -> MemoryWal {
        MemoryWal { logs: Arc::default(), cap }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.logs().bytes
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        // No code panics while it holds the lock, and a panic ends the process anyway.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, wid: Wid, seq: Seq, range: impl FnOnce(u64) -> Range<u64>) -> Option<Suffix> {
        let logs = self.logs();
        let object = logs.objects.get(&(wid, seq))?;
        let size = object.len() as u64;
        let range = cut(range(size), size);
        Some(Suffix { size, bytes: object.slice(range.start as usize..range.end as usize) })
    }

    fn delete_where(&self, wid: Wid, doomed: impl Fn(Seq) -> bool) {
        let mut logs = self.logs();
        let all = (wid, Seq(0))..=(wid, Seq(u64::MAX));
        let keys: Vec<(Wid, Seq)> = logs.objects.range(all).map(|(key, _)| *key).filter(|key| doomed(key.1)).collect();
        for key in keys {
            let object = logs.objects.remove(&key).expect("found above, under the same lock");
            logs.bytes -= object.len() as u64;
        }
    }
}

fn answer<T: 'static>(value: T) -> StoreFuture<T> {
    Box::pin(ready(Ok(value)))
}

impl WalStore for MemoryWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let mut logs = self.logs();
        if logs.objects.contains_key(&(wid, seq)) {
            return answer(PutOutcome::AlreadyExists);
        }
        let size: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        if logs.bytes + size > self.cap {
            let detail = format!("{size} bytes more than the {} held would pass the cap of {}", logs.bytes, self.cap);
            return Box::pin(ready(Err(StoreError::not_done(FailureKind::Full, detail))));
        }
        logs.bytes += size;
        logs.objects.insert((wid, seq), Bytes::from(slices.concat()));
        answer(PutOutcome::Stored)
    }

    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.read(wid, seq, 0..HEADER_BYTES as u64)
    }

    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        answer(self.part(wid, seq, |_| range).map(|part| part.bytes))
    }

    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        answer(self.part(wid, seq, |size| size.saturating_sub(length)..size))
    }

    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        let logs = self.logs();
        let objects = logs.objects.range((wid, from)..=(wid, Seq(u64::MAX)));
        answer(objects.map(|((_, seq), object)| Listed { seq: *seq, size: object.len() as u64 }).collect())
    }

    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        let mut wids: Vec<Wid> = self.logs().objects.keys().map(|(wid, _)| *wid).collect();
        wids.dedup();
        answer(wids)
    }

    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.delete_where(wid, |seq| seq < below);
        answer(())
    }

    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        self.delete_where(wid, |seq| seq != end);
        answer(())
    }

    fn sync_below(&self, _wid: Wid, _below: Seq) -> StoreFuture<()> {
        answer(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn a_put_beyond_the_cap_fails_as_full_and_deletion_makes_room() {
        let wal = MemoryWal::new(10);
        let six = || vec![Bytes::from_static(b"sixsix")];
        assert_eq!(block_on(wal.put_if_absent(Wid(1), Seq(0), six())).unwrap(), PutOutcome::Stored);
        let error = block_on(wal.put_if_absent(Wid(1), Seq(1), six())).unwrap_err();
        assert_eq!(error.kind, FailureKind::Full);
        block_on(wal.delete_below(Wid(1), Seq(1))).unwrap();
        assert_eq!(wal.bytes(), 0);
        assert_eq!(block_on(wal.put_if_absent(Wid(1), Seq(1), six())).unwrap(), PutOutcome::Stored);
    }
}
