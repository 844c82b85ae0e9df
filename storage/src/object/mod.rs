//! Plain objects under the cluster's prefix: checkpoints, manifests, segments, `meta/…` (PROTOCOL.md section 2).
//!
//! Implementations: [`remote`] (buckets, through the `object_store` crate, with [`dialect`] for where they differ), [`local`] (files, fsynced),
//! [`memory`]; [`model`] gives any of them another's manners, [`counted`] counts what is asked of them. One conformance
//! suite runs against all; [`race`] proves put-if-absent at start-up. Keys are relative to the prefix, with `/` between
//! parts, in ASCII without `..`.

#[cfg(any(test, feature = "sim"))]
pub mod conformance;
pub mod counted;
pub mod dialect;
pub mod local;
pub mod memory;
pub mod model;
mod pacing;
mod policy;
pub mod race;
pub mod remote;
pub mod retry;
pub(crate) mod times;
pub mod url;

use crate::env::Env;
use crate::meter::{Counting, StoreMeter};
use crate::side::SideRuntime;
use crate::store_error::StoreError;
use crate::wal::{PutOutcome, StoreFuture};
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use url::StoreUrl;

/// Of a hundred requests to a remote store at most so many are sent a second time, unless the settings say otherwise.
pub const HEDGE_PERCENT: u32 = 5;

/// What identifies one version of an object's bytes (an ETag).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Version(pub String);

/// A whole object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// For [`ObjectStore::put_if_match`].
    pub version: Version,
}

/// How a put-if-match ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MatchOutcome {
    /// Replaced; the new version.
    Stored(Version),
    /// The object is not at that version (a 412), or is gone. After an unknown outcome it may be one's own success:
    /// read it.
    Changed,
}

/// One object of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedObject {
    /// Key relative to the prefix.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was written, Unix milliseconds by the store's clock.
    pub modified_ms: i64,
}

/// The narrow interface to objects. Every object written is durable when its put is answered.
pub trait ObjectStore {
    /// Writes an object unless one is there. See guarantee 3 of [`crate::wal`].
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome>;
    /// Writes an object that nobody else writes under this key, or with the same bytes alone: one that is there is it. May
    /// be retried and sent twice.
    fn put_own(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<()> {
        let put = self.put_if_absent(key, slices);
        Box::pin(async move { put.await.map(drop) })
    }
    /// Replaces the object that has this version.
    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome>;
    /// The object; `None` if there is none.
    fn get(&self, key: &str) -> StoreFuture<Option<Object>>;
    /// The bytes `range` (cut at the end); `None` if there is no such object.
    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>>;
    /// The last `length` bytes and the size; `None` if there is no such object.
    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<crate::wal::Suffix>>;
    /// All objects whose key starts with `prefix` (which ends with `/`), by key.
    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>>;
    /// The next level of names under `prefix` (which ends with `/`, or is empty): "directories" only, without the slash.
    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>>;
    /// Deletes; a missing object is success.
    fn delete(&self, keys: Vec<String>) -> StoreFuture<()>;
}

/// Cuts `range` at the end of `size` bytes; empty if it starts there or later.
pub(crate) fn cut(range: Range<u64>, size: u64) -> Range<u64> {
    let start = range.start.min(size);
    start..range.end.clamp(start, size)
}

/// The error of a store that can't be opened or failed its start-up check, with what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}; {fix}")]
pub struct OpenError {
    /// What is wrong.
    pub problem: String,
    /// What the operator can do.
    pub fix: String,
    /// The store's own error, if there is one.
    pub source_error: Option<StoreError>,
}

impl OpenError {
    /// A problem and what to do about it.
    pub fn new(problem: impl Into<String>, fix: impl Into<String>) -> OpenError {
        OpenError { problem: problem.into(), fix: fix.into(), source_error: None }
    }
}

/// An opened store as it crosses threads; each thread makes its own handle.
#[derive(Clone)]
pub enum SharedObjects {
    /// A bucket.
    Remote(remote::RemoteStore),
    /// Files.
    Local(local::LocalStore),
    /// Memory.
    Memory(memory::MemoryStore),
    /// One of the others with the manners of a remote store.
    Modelled(Box<SharedObjects>, model::SharedModel),
}

impl SharedObjects {
    /// Opens what `url` names. Nothing is sent to a remote store yet: [`race::check`] does that.
    pub fn open(url: &StoreUrl, side: &SideRuntime) -> Result<SharedObjects, OpenError> {
        Ok(match url {
            StoreUrl::Bucket { cloud, bucket, prefix } => {
                SharedObjects::Remote(remote::RemoteStore::from_env(*cloud, bucket, prefix, side)?)
            }
            StoreUrl::File(root) => SharedObjects::Local(local::LocalStore::open(root, side)?),
            StoreUrl::Memory => SharedObjects::Memory(memory::MemoryStore::new()),
        })
    }

    /// The same, with ranges of files read by threads that give way to all others.
    #[must_use]
    pub fn giving_way(&self) -> SharedObjects {
        match self {
            SharedObjects::Local(store) => SharedObjects::Local(store.giving_way()),
            SharedObjects::Modelled(store, model) => {
                SharedObjects::Modelled(Box::new(store.giving_way()), model.clone())
            }
            SharedObjects::Remote(_) | SharedObjects::Memory(_) => self.clone(),
        }
    }

    /// This thread's handle, which counts in `meter`: [`SharedObjects::handle_hedging`] with [`HEDGE_PERCENT`].
    pub fn handle(&self, env: &Env, meter: &Arc<StoreMeter>) -> Rc<dyn ObjectStore> {
        self.handle_hedging(env, meter, HEDGE_PERCENT)
    }

    /// This thread's handle, which counts in `meter`. What of a remote store may be asked twice is retried, and of a
    /// hundred such requests at most `percent` are hedged ([`retry`]); conditional puts never are.
    pub fn handle_hedging(&self, env: &Env, meter: &Arc<StoreMeter>, percent: u32) -> Rc<dyn ObjectStore> {
        let counting = Counting::new(meter.clone(), env.clone());
        let store = Rc::new(counted::Counted::new(self.once(env), counting.clone()));
        match self {
            SharedObjects::Remote(_) | SharedObjects::Modelled(..) => {
                Rc::new(retry::Retrying::new(store, env.clone(), counting, percent))
            }
            SharedObjects::Local(_) | SharedObjects::Memory(_) => store,
        }
    }

    /// The handle that sends every request once.
    fn once(&self, env: &Env) -> Rc<dyn ObjectStore> {
        match self {
            SharedObjects::Remote(store) => Rc::new(store.clone()),
            SharedObjects::Local(store) => Rc::new(store.clone()),
            SharedObjects::Memory(store) => Rc::new(store.handle(env.clone())),
            SharedObjects::Modelled(store, model) => {
                Rc::new(model::Modelled::new(store.once(env), model.clone(), env.clone()))
            }
        }
    }
}
