//! What a transaction, a read and a listing mean, over any ordered map of keys: the one place that decides it for the
//! in-memory and the embedded store.
//!
//! Invariants:
//! 1. Every comparison is made before the first change, so a conflict leaves nothing behind.
//! 2. A transaction that changes nothing (no operations, deletions of missing keys only) takes no revision, as in etcd.
//! 3. The keys of all leases found ended at one moment are deleted at one revision ([`sweep`]).
//!
//! It decides nothing about durability or order: its callers do.

use super::leases::Leases;
use super::{Change, Compare, Key, LeaseId, MAX_PAGE, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Page, Revision, Txn, Versioned};
use crate::store_error::{FailureKind, StoreError};
use bytes::Bytes;
use std::collections::BTreeSet;

/// An ordered map from keys to values with revisions, as a transaction sees it.
pub(super) trait KeyValues {
    /// What can go wrong in the map itself.
    type Error;
    /// The value of `key`.
    fn get(&self, key: &str) -> Result<Option<Versioned>, Self::Error>;
    /// Sets `key` to `value`, changed at `revision`, held by `lease` or by none.
    fn put(&mut self, key: &Key, value: &Bytes, revision: Revision, lease: Option<LeaseId>) -> Result<(), Self::Error>;
    /// Removes `key`; answers whether it existed.
    fn delete(&mut self, key: &str) -> Result<bool, Self::Error>;
    /// The keys that a lease holds, in order.
    fn leased(&self) -> Result<Vec<(Key, LeaseId)>, Self::Error>;
}

/// What a transaction did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Applied {
    /// A comparison did not hold.
    Conflict,
    /// All comparisons held, but there was nothing to change.
    Unchanged,
    /// It took the revision that it was offered; at least one change.
    Changed(Vec<Change>),
}

/// Refuses a transaction that some implementation of the trait could not run.
pub(super) fn check(txn: &Txn) -> Result<(), StoreError> {
    let count = txn.compares.len() + txn.ops.len();
    if count > MAX_TXN_OPS {
        return Err(refused(format!("a transaction of {count} comparisons and operations; at most {MAX_TXN_OPS}")));
    }
    let mut bytes = 0;
    let mut changed = BTreeSet::new();
    for op in &txn.ops {
        let (key, length) = match op {
            Op::Put(key, value) | Op::PutLeased(key, value, _) => (key, value.len()),
            Op::Delete(key) => (key, 0),
        };
        bytes += key.len() + length;
        if !changed.insert(key) {
            return Err(refused(format!("a transaction changes {key} twice")));
        }
    }
    if bytes > MAX_TXN_BYTES {
        return Err(refused(format!("a transaction of {bytes} bytes; at most {MAX_TXN_BYTES}")));
    }
    Ok(())
}

/// Refuses a transaction that names a lease which has ended.
pub(crate) fn check_leases(txn: &Txn, leases: &Leases) -> Result<(), StoreError> {
    let ended = txn.ops.iter().find_map(|op| match op {
        Op::PutLeased(key, _, lease) if !leases.lives(*lease) => Some((key, lease)),
        _ => None,
    });
    ended.map_or(Ok(()), |(key, lease)| Err(lease_ended(key, *lease)))
}

/// The refusal of a transaction that names a lease which has ended.
pub(super) fn lease_ended(key: &str, lease: LeaseId) -> StoreError {
    let detail = format!("{key} was to be put under lease {:x}, which has ended; grant another", lease.0);
    StoreError::not_done(FailureKind::LeaseEnded, detail)
}

/// Deletes at `next` the keys whose lease has ended.
pub(super) fn sweep<K: KeyValues>(keys: &mut K, leases: &Leases, next: Revision) -> Result<Vec<Change>, K::Error> {
    let mut changes = Vec::new();
    for (key, lease) in keys.leased()? {
        if !leases.lives(lease) {
            keys.delete(&key)?;
            changes.push(Change { key, value: None, revision: next });
        }
    }
    Ok(changes)
}

/// Refuses a read of more keys than a transaction may hold.
pub(super) fn check_get(keys: &[Key]) -> Result<(), StoreError> {
    if keys.len() > MAX_TXN_OPS {
        return Err(refused(format!("a read of {} keys; at most {MAX_TXN_OPS}", keys.len())));
    }
    Ok(())
}

fn refused(detail: String) -> StoreError {
    StoreError::not_done(FailureKind::Other, detail)
}

/// Runs `txn`; if it changes anything, the changes stand at `next`.
pub(super) fn apply<K: KeyValues>(keys: &mut K, txn: &Txn, next: Revision) -> Result<Applied, K::Error> {
    for compare in &txn.compares {
        if !holds(keys, compare)? {
            return Ok(Applied::Conflict);
        }
    }
    let mut changes = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        match op {
            Op::Put(key, value) | Op::PutLeased(key, value, _) => {
                let lease = if let Op::PutLeased(_, _, lease) = op { Some(*lease) } else { None };
                keys.put(key, value, next, lease)?;
                changes.push(Change { key: key.clone(), value: Some(value.clone()), revision: next });
            }
            Op::Delete(key) => {
                if keys.delete(key)? {
                    changes.push(Change { key: key.clone(), value: None, revision: next });
                }
            }
        }
    }
    Ok(if changes.is_empty() { Applied::Unchanged } else { Applied::Changed(changes) })
}

fn holds<K: KeyValues>(keys: &K, compare: &Compare) -> Result<bool, K::Error> {
    Ok(match compare {
        Compare::Absent(key) => keys.get(key)?.is_none(),
        Compare::Value(key, value) => keys.get(key)?.is_some_and(|found| found.value == value),
        Compare::ModifiedAt(key, revision) => keys.get(key)?.is_some_and(|found| found.modified == *revision),
    })
}

/// Where a listing starts: at `prefix`, or behind `after` if that lies further on.
pub(super) fn list_from<'a>(prefix: &'a str, after: Option<&'a str>) -> std::ops::Bound<&'a str> {
    match after {
        Some(after) if after >= prefix => std::ops::Bound::Excluded(after),
        _ => std::ops::Bound::Included(prefix),
    }
}

/// Makes a page of the keys that `ascending` yields from [`list_from`] on.
pub(super) fn page<E>(
    ascending: impl Iterator<Item = Result<(Key, Versioned), E>>,
    prefix: &str,
    limit: usize,
    revision: Revision,
) -> Result<Page, E> {
    let limit = limit.min(MAX_PAGE);
    let mut page = Page { revision, entries: Vec::new(), more: false };
    for entry in ascending {
        let (key, value) = entry?;
        if !key.starts_with(prefix) {
            break;
        }
        if page.entries.len() == limit {
            page.more = true;
            break;
        }
        page.entries.push((key, value));
    }
    Ok(page)
}
