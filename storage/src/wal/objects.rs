//! Write-ahead logs as plain objects: `wal/{wid}/{seq:020}` in any [`ObjectStore`].

use super::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, Wid};
use crate::object::{ListedObject, ObjectStore};
use crate::store_error::{FailureKind, StoreError};
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;

/// The logs of one object store. A handle of one thread.
pub struct ObjectWal {
    store: Rc<dyn ObjectStore>,
}

impl ObjectWal {
    /// The logs under `wal/` of `store`.
    pub fn new(store: Rc<dyn ObjectStore>) -> ObjectWal {
        ObjectWal { store }
    }

    /// Deletes the objects of `wid` whose sequence `doomed` names.
    fn delete_where(&self, wid: Wid, doomed: impl Fn(Seq) -> bool + 'static) -> StoreFuture<()> {
        let store = self.store.clone();
        Box::pin(async move {
            let listed = sequences(store.list(&folder(wid)).await?);
            let keys: Vec<String> =
                listed.iter().filter(|listed| doomed(listed.seq)).map(|listed| object_key(wid, listed.seq)).collect();
            if keys.is_empty() { Ok(()) } else { store.delete(keys).await }
        })
    }
}

const FOLDER: &str = "wal/";

fn folder(wid: Wid) -> String {
    format!("{FOLDER}{wid}/")
}

/// The key of one write-ahead object.
pub fn object_key(wid: Wid, seq: Seq) -> String {
    format!("{FOLDER}{wid}/{:020}", seq.0)
}

/// The sequences among listed objects, ascending; what is not named like one is a stranger and left alone.
fn sequences(listed: Vec<ListedObject>) -> Vec<Listed> {
    let sequence = |object: &ListedObject| {
        let name = object.key.rsplit('/').next()?;
        let seq = Seq(name.parse().ok().filter(|_| name.len() == 20)?);
        Some(Listed { seq, size: object.size })
    };
    let mut found: Vec<Listed> = listed.iter().filter_map(sequence).collect();
    found.sort_by_key(|listed| listed.seq);
    found
}

impl WalStore for ObjectWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.store.put_if_absent(&object_key(wid, seq), slices)
    }

    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.read(wid, seq, 0..HEADER_BYTES as u64)
    }

    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.store.get_range(&object_key(wid, seq), range)
    }

    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        self.store.get_suffix(&object_key(wid, seq), length)
    }

    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        let listing = self.store.list(&folder(wid));
        Box::pin(async move {
            let mut found = sequences(listing.await?);
            found.retain(|listed| listed.seq >= from);
            Ok(found)
        })
    }

    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        let listing = self.store.list_directories(FOLDER);
        Box::pin(async move { Ok(listing.await?.iter().filter_map(|name| name.parse().ok()).collect()) })
    }

    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.delete_where(wid, move |seq| seq < below)
    }

    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        let fence = self.store.get_range(&object_key(wid, end), 0..HEADER_BYTES as u64 + 1);
        let delete = self.delete_where(wid, move |seq| seq != end);
        Box::pin(async move {
            // A fence is a header alone, and nothing else is as short.
            if fence.await?.is_none_or(|bytes| bytes.len() != HEADER_BYTES) {
                let detail = format!("no fence at {end} of the log {wid}: nothing is deleted");
                return Err(StoreError::not_done(FailureKind::Other, detail));
            }
            delete.await
        })
    }

    fn sync_below(&self, _wid: Wid, _below: Seq) -> StoreFuture<()> {
        // Every put was durable when it was answered.
        Box::pin(async { Ok(()) })
    }
}
