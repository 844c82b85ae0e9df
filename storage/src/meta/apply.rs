//! What a transaction, a read and a listing mean, over any ordered map of keys: the one place that decides it for the
//! in-memory and the embedded store.
//!
//! Invariants:
//! 1. Every comparison is made before the first change, so a conflict leaves nothing behind.
//! 2. A transaction that changes nothing (no operations, deletions of missing keys only) takes no revision, as in etcd.
//!
//! It decides nothing about durability or order: its callers do.

use super::{Change, Compare, Key, MAX_PAGE, MAX_TXN_BYTES, MAX_TXN_OPS, Op, Page, Revision, Txn, Versioned};
use crate::store_error::{FailureKind, StoreError};
use bytes::Bytes;
use std::collections::BTreeSet;

/// An ordered map from keys to values with revisions, as a transaction sees it.
pub(super) trait KeyValues {
    /// What can go wrong in the map itself.
    type Error;
    /// The value of `key`.
    fn get(&self, key: &str) -> Result<Option<Versioned>, Self::Error>;
    /// Sets `key` to `value`, changed at `revision`.
    fn put(&mut self, key: &Key, value: &Bytes, revision: Revision) -> Result<(), Self::Error>;
    /// Removes `key`; answers whether it existed.
    fn delete(&mut self, key: &str) -> Result<bool, Self::Error>;
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
            Op::Put(key, value) => (key, value.len()),
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
            Op::Put(key, value) => {
                keys.put(key, value, next)?;
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
