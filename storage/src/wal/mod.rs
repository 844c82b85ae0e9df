//! Write-ahead logs as a store sees them: immutable objects, put-if-absent under `(wid, seq)` (PROTOCOL.md sections 2 and 6).
//!
//! Implementations: [`extents`] (local directory), [`objects`] (any object store), [`memory`]. One conformance suite
//! runs against all of them. A handle's futures run on any executor; a handle is made per thread.
//!
//! Guarantees that every implementation gives:
//! 1. put-if-absent has one winner per `(wid, seq)`, and a read after a successful put sees its bytes, whole.
//! 2. A put that answered `Stored` or `AlreadyExists` left a durable object (with fsync off: one that survives the process).
//! 3. `put_if_absent` may report `AlreadyExists` for the caller's own earlier attempt: the header decides, not the answer.
//! 4. Nothing is deleted but by `delete_below` and `retain_only_fence`.

#[cfg(any(test, feature = "sim"))]
pub mod conformance;
pub mod counted;
pub mod extents;
pub mod memory;
pub mod objects;

use crate::ids::{Seq, Wid};
use crate::store_error::StoreError;
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use std::ops::Range;

/// Any number of waits for the result of a store operation.
pub type StoreFuture<T> = LocalBoxFuture<'static, Result<T, StoreError>>;

/// How a put-if-absent ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// The object is now there, with these bytes.
    Stored,
    /// An object was there before (a 412): perhaps an earlier attempt of the same caller.
    AlreadyExists,
}

/// The end of an object, read without knowing its size first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suffix {
    /// Size of the whole object in bytes.
    pub size: u64,
    /// Its last bytes: as many as were asked for, or all.
    pub bytes: Bytes,
}

/// One write-ahead object of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its sequence.
    pub seq: Seq,
    /// Its size in bytes.
    pub size: u64,
}

/// The narrow interface to write-ahead objects.
pub trait WalStore {
    /// Writes the object made of `slices` in order unless one is there.
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome>;
    /// The first [`crate::format::HEADER_BYTES`] bytes; `None` if there is no such object.
    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>>;
    /// The bytes `range` of the object (cut at its end); `None` if there is no such object.
    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>>;
    /// The last `length` bytes and the size; `None` if there is no such object.
    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>>;
    /// All objects of `wid` at or above `from`, ascending. May lag behind writes on stores whose listings do.
    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>>;
    /// All write-ahead logs of which an object exists.
    fn list_wids(&self) -> StoreFuture<Vec<Wid>>;
    /// Deletes data objects of `wid` below `below`. May keep some (extents go by whole file).
    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()>;
    /// Deletes every object of the sealed `wid` but the fence at `end`, strays beyond it included. An error that nothing
    /// was done if no fence stands there.
    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()>;
    /// Makes all objects of `wid` below `below` survive a power loss (a no-op where they already do).
    fn sync_below(&self, wid: Wid, below: Seq) -> StoreFuture<()>;
}
