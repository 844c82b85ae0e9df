//! The metadata store: small keys, transactions with comparisons, watches, leases. Embedded ([`embedded`], redb), in
//! memory ([`memory`]) or in an etcd ([`etcd`]); all run the same conformance suite (`conformance`).
//!
//! Guarantees:
//! 1. Transactions are linearizable and durable when answered (in memory: as long as the process lives).
//! 2. Every change has a revision; revisions grow by one per committed transaction that changes something, and by what
//!    others do who share an etcd.
//! 3. A watch from revision r delivers every later change of its prefix once, in order, or ends with
//!    [`WatchError::Compacted`].
//! 4. An error with `Certainty::Unknown` may have been applied, now or later.
//! 5. A key put with a lease is there no longer than the lease, unless it was put again without it. The end of a lease
//!    (revoked, or not kept alive for its time to live) deletes its keys at one revision, which watches see like any
//!    other. A lease may end later than its time, never earlier. By PROTOCOL.md it decides nothing but who is asked.
//!
//! [`keys`] is the whole key schema on one page, [`records`] the values.

pub(crate) mod apply;
#[cfg(any(test, feature = "sim"))]
pub mod conformance;
pub mod embedded;
pub mod etcd;
mod history;
pub mod keys;
pub(crate) mod leases;
pub mod memory;
pub mod pages;
pub mod records;
#[cfg(test)]
mod tests;

pub use history::{HISTORY_BYTES, HISTORY_CHANGES};

use crate::store_error::StoreError;
use crate::wal::StoreFuture;
use bytes::Bytes;
use futures::stream::LocalBoxStream;
use std::time::Duration;

/// A key: ASCII, parts separated by `/`.
pub type Key = String;

/// The store's revision: one per changing transaction, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub i64);

/// At most this many comparisons plus operations in one transaction (etcd's limit is 128).
pub const MAX_TXN_OPS: usize = 120;

/// At most this many bytes of keys and values in the operations of one transaction (etcd refuses requests of 1.5 MiB).
pub const MAX_TXN_BYTES: usize = 1_400_000;

/// At most this many keys in one [`Page`], whatever limit was asked for.
pub const MAX_PAGE: usize = 1_000;

/// A condition of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compare {
    /// The key does not exist.
    Absent(Key),
    /// The key exists with exactly this value.
    Value(Key, Bytes),
    /// The key was last changed at this revision.
    ModifiedAt(Key, Revision),
}

/// Names a lease of one store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LeaseId(pub i64);

/// A lease just granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// Its name.
    pub id: LeaseId,
    /// How long it lives from each keep-alive: what was asked for, or more where the store knows whole seconds or a
    /// shortest one only.
    pub ttl: Duration,
}

/// What became of a lease that was to live on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeptAlive {
    /// It lives so long from the moment at which the store decided this, which lies between question and answer: whoever
    /// relies on it counts from the question.
    For(Duration),
    /// It has ended, or the store never had it. Its keys are gone, or will be without anybody's doing.
    Ended,
}

/// A change of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Sets the value. A lease that the key had lets go of it.
    Put(Key, Bytes),
    /// Sets the value until the lease ends, or the key is put again. Where the lease has ended the whole transaction is
    /// refused with `Certainty::NotDone` and [`crate::store_error::FailureKind::LeaseEnded`], whatever was compared.
    PutLeased(Key, Bytes, LeaseId),
    /// Removes the key; a missing one is no error.
    Delete(Key),
}

/// All of `compares` hold → all of `ops` happen; else none does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// Conditions.
    pub compares: Vec<Compare>,
    /// Changes.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Deletes all of these if each still has the value that was read.
    pub fn delete_unchanged<'a>(records: impl IntoIterator<Item = (&'a Key, &'a Bytes)>) -> Txn {
        let mut txn = Txn::default();
        for (key, value) in records {
            txn.compares.push(Compare::Value(key.clone(), value.clone()));
            txn.ops.push(Op::Delete(key.clone()));
        }
        txn
    }
}

/// How a transaction was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxnOutcome {
    /// Applied at this revision.
    Committed(Revision),
    /// A comparison did not hold; nothing changed.
    Conflict(Revision),
}

/// A value with where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versioned {
    /// The value.
    pub value: Bytes,
    /// When it was last changed.
    pub modified: Revision,
}

/// Several keys read at one revision, in the order asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The revision of the read.
    pub revision: Revision,
    /// Each key's value, if it exists.
    pub values: Vec<Option<Versioned>>,
}

/// A part of a prefix, in key order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The revision of the read.
    pub revision: Revision,
    /// Keys with their values.
    pub entries: Vec<(Key, Versioned)>,
    /// Whether keys remain after the last of these.
    pub more: bool,
}

/// One change seen by a watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// Its new value; `None` if it was deleted.
    pub value: Option<Bytes>,
    /// The revision of the change.
    pub revision: Revision,
}

/// Why a watch ended: list again and watch from there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WatchError {
    /// The store no longer has the changes since that revision (or the watcher was too slow).
    #[error("changes before revision {0:?} are gone")]
    Compacted(Revision),
    /// The store went away.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Changes as they come; all changes of one revision are delivered together.
pub type WatchStream = LocalBoxStream<'static, Result<Vec<Change>, WatchError>>;

/// The interface that all metadata stores share. A listing is linearizable page by page: each is of one revision, a later
/// one perhaps of a later one.
pub trait MetaStore {
    /// A random id given at creation: every answer must come from the same store.
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid>;
    /// Runs a transaction of at most [`MAX_TXN_OPS`] comparisons and operations, [`MAX_TXN_BYTES`] bytes and one change
    /// per key; any other is refused with `Certainty::NotDone`.
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome>;
    /// Reads keys at one revision (at most [`MAX_TXN_OPS`]).
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot>;
    /// Reads keys that start with `prefix` and come after `after`, at most `limit` and [`MAX_PAGE`].
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page>;
    /// Watches a prefix for changes after `after`.
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream;
    /// Makes a lease that ends `ttl` after it was last kept alive. One whose answer was lost ends by itself.
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease>;
    /// Begins the lease's time to live anew.
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive>;
    /// Ends a lease now and deletes its keys; one that has ended is no error.
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()>;
}
