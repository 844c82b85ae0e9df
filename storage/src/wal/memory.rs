//! Write-ahead logs in this process's memory: for `memory:` and for tests. They end with the process.
//!
//! The lane lets the oldest objects go before the ring's cap is reached (PROTOCOL.md section 6); the hard cap here is
//! what stands between a lane that does not and the machine's memory: a put beyond it fails with
//! [`FailureKind::Full`]. Bytes are copied in, so that no object pins the receive buffer that its slices were cut from,
//! into [`regions`] that are used again; reads give slices of them. Nobody holds the lock on the logs while copying.

mod regions;

use super::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, Wid};
use crate::object::cut;
use crate::store_error::{FailureKind, StoreError};
use bytes::Bytes;
use futures::future::ready;
use regions::{Filling, Parts, Regions};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The logs. Clones share them; it is its own handle on every thread.
#[derive(Clone)]
pub struct MemoryWal {
    logs: Arc<Mutex<Logs>>,
    regions: Arc<Mutex<Regions>>,
    cap: u64,
}

#[derive(Default)]
struct Logs {
    objects: BTreeMap<(Wid, Seq), Stored>,
    /// Sizes of the objects, and of those that are being copied in.
    bytes: u64,
}

struct Stored {
    size: u64,
    parts: Parts,
}

impl Stored {
    /// The bytes `range`, which lies within the object: a slice unless a region ends in it.
    fn slice(&self, range: Range<u64>) -> Bytes {
        let mut start = 0;
        let mut found = Parts::new();
        for part in &self.parts {
            let end = start + part.len() as u64;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                found.push(part.slice((from - start) as usize..(to - start) as usize));
            }
            start = end;
        }
        if found.len() > 1 { found.concat().into() } else { found.pop().unwrap_or_default() }
    }
}

impl MemoryWal {
    /// No logs, which may grow to `cap` bytes together.
    pub fn new(cap: u64) -> MemoryWal {
        MemoryWal { logs: Arc::default(), regions: Arc::new(Mutex::new(Regions::new(cap))), cap }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.logs().bytes
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        // No code panics while it holds the lock, and a panic ends the process anyway.
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an object's bytes before they are copied; the answer to its put if it is not to be copied.
    fn admit(&self, wid: Wid, seq: Seq, size: u64) -> Result<(), Result<PutOutcome, StoreError>> {
        let mut logs = self.logs();
        if logs.objects.contains_key(&(wid, seq)) {
            return Err(Ok(PutOutcome::AlreadyExists));
        }
        if logs.bytes + size > self.cap {
            let detail = format!("{size} bytes more than the {} held would pass the cap of {}", logs.bytes, self.cap);
            return Err(Err(StoreError::not_done(FailureKind::Full, detail)));
        }
        logs.bytes += size;
        Ok(())
    }

    fn copy(&self, slices: &[Bytes]) -> Parts {
        let first = self.regions().take();
        let (parts, region) = Filling::new(first).copy(slices, |full| {
            let mut regions = self.regions();
            regions.give(full);
            regions.take()
        });
        self.regions().give(region);
        parts
    }

    /// Shows what was admitted and copied, unless another put of the sequence came first.
    fn insert(&self, wid: Wid, seq: Seq, stored: Stored) -> PutOutcome {
        let mut logs = self.logs();
        match logs.objects.entry((wid, seq)) {
            Entry::Vacant(place) => {
                place.insert(stored);
                PutOutcome::Stored
            }
            Entry::Occupied(_) => {
                logs.bytes -= stored.size;
                PutOutcome::AlreadyExists
            }
        }
    }

    fn part(&self, wid: Wid, seq: Seq, range: impl FnOnce(u64) -> Range<u64>) -> Option<Suffix> {
        let logs = self.logs();
        let object = logs.objects.get(&(wid, seq))?;
        let size = object.size;
        Some(Suffix { size, bytes: object.slice(cut(range(size), size)) })
    }

    fn delete_where(&self, wid: Wid, doomed: impl Fn(Seq) -> bool) {
        let mut logs = self.logs();
        let all = (wid, Seq(0))..=(wid, Seq(u64::MAX));
        let keys: Vec<(Wid, Seq)> = logs.objects.range(all).map(|(key, _)| *key).filter(|key| doomed(key.1)).collect();
        for key in keys {
            let object = logs.objects.remove(&key).expect("found above, under the same lock");
            logs.bytes -= object.size;
        }
    }
}

fn answer<T: 'static>(value: T) -> StoreFuture<T> {
    Box::pin(ready(Ok(value)))
}

impl WalStore for MemoryWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let size = slices.iter().map(|slice| slice.len() as u64).sum();
        if let Err(answered) = self.admit(wid, seq, size) {
            return Box::pin(ready(answered));
        }
        let parts = self.copy(&slices);
        answer(self.insert(wid, seq, Stored { size, parts }))
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
        answer(objects.map(|((_, seq), object)| Listed { seq: *seq, size: object.size }).collect())
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
        let fence = self.part(wid, end, |_| 0..0);
        if fence.is_none_or(|fence| fence.size != HEADER_BYTES as u64) {
            let detail = format!("no fence at {end} of the log {wid}: nothing is deleted");
            return Box::pin(ready(Err(StoreError::not_done(FailureKind::Other, detail))));
        }
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

    #[test]
    fn puts_that_race_on_threads_have_one_winner_and_count_once() {
        let wal = MemoryWal::new(u64::MAX);
        let large = Bytes::from(vec![3; 5 << 20]);
        let stored: usize = std::thread::scope(|scope| {
            let put = || {
                let puts = (0..4).map(|seq| block_on(wal.put_if_absent(Wid(1), Seq(seq), vec![large.clone(); 3])));
                puts.filter(|outcome| *outcome.as_ref().unwrap() == PutOutcome::Stored).count()
            };
            let racers: Vec<_> = (0..4).map(|_| scope.spawn(put)).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).sum()
        });
        assert_eq!((stored, wal.bytes()), (4, 4 * 3 * large.len() as u64));
        for seq in 0..4 {
            let whole = block_on(wal.read(Wid(1), Seq(seq), 0..u64::MAX)).unwrap().unwrap();
            assert_eq!(whole, vec![3; 15 << 20]);
        }
    }
}
