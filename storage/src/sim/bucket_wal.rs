//! Write-ahead objects in the simulated bucket: one object per sequence, as on a real object store.

use super::bucket::{SimBucket, cut, suffix};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, Wid};
use crate::wal::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::ops::Range;

impl SimBucket {
    /// Key of a write-ahead object (PROTOCOL.md section 2).
    pub fn wal_key(wid: Wid, seq: Seq) -> String {
        format!("wal/{wid}/{:020}", seq.0)
    }

    /// What a write-ahead object's key names.
    pub fn parse_wal_key(key: &str) -> Option<(Wid, Seq)> {
        let (wid, seq) = key.strip_prefix("wal/")?.split_once('/')?;
        Some((wid.parse().ok()?, Seq(seq.parse().ok()?)))
    }
}

impl WalStore for SimBucket {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.0.put_if_absent(&SimBucket::wal_key(wid, seq), slices)
    }

    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.0.read(SimBucket::wal_key(wid, seq), |bytes, _| cut(bytes, 0..HEADER_BYTES as u64))
    }

    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.0.read(SimBucket::wal_key(wid, seq), move |bytes, _| cut(bytes, range.clone()))
    }

    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        self.0.read(SimBucket::wal_key(wid, seq), move |bytes, _| suffix(bytes, length))
    }

    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        let listing = self.0.list(format!("wal/{wid}/"));
        Box::pin(async move {
            let all = listing.await?;
            let named = all.iter().filter_map(|o| Some((SimBucket::parse_wal_key(&o.key)?.1, o.size)));
            Ok(named.filter(|(seq, _)| *seq >= from).map(|(seq, size)| Listed { seq, size }).collect())
        })
    }

    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        let listing = self.0.list("wal/".to_owned());
        Box::pin(async move {
            let all = listing.await?;
            let wids: BTreeSet<Wid> = all.iter().filter_map(|o| Some(SimBucket::parse_wal_key(&o.key)?.0)).collect();
            Ok(wids.into_iter().collect())
        })
    }

    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        let bucket = self.clone();
        self.0.delete_where(format!("wal/{wid}/"), move |key| {
            SimBucket::parse_wal_key(key).is_some_and(|(_, seq)| seq < below)
                && bucket.peek(key).is_some_and(|bytes| bytes.len() > HEADER_BYTES)
        })
    }

    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        self.0.delete_where(format!("wal/{wid}/"), move |key| {
            SimBucket::parse_wal_key(key).is_some_and(|(_, seq)| seq != end)
        })
    }

    fn sync_below(&self, _wid: Wid, _below: Seq) -> StoreFuture<()> {
        Box::pin(async { Ok(()) })
    }
}
