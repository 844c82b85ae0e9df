//! The check passes a store that keeps its word and refuses several kinds that do not.

use super::*;
use crate::object::memory::{MemoryHandle, MemoryStore};
use crate::object::{ListedObject, Version};
use crate::side::block_on_local;
use crate::wal::{StoreFuture, Suffix};
use futures::future::ready;
use std::ops::Range;

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Conditions of puts are ignored: every writer is told that it won.
    SeveralWinners,
    /// A put-if-match is never refused.
    MatchIgnored,
    /// Nothing that was put is found.
    Forgets,
    /// Every put is refused.
    Denies,
}

/// A memory store with a fault.
struct Faulty {
    store: MemoryHandle,
    fault: Fault,
}

impl ObjectStore for Faulty {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        match self.fault {
            Fault::Denies => Box::pin(ready(Err(StoreError::not_done(FailureKind::Denied, "403")))),
            Fault::SeveralWinners => {
                // A memory store acts when called.
                drop(self.store.delete(vec![key.to_owned()]));
                self.store.put_if_absent(key, slices)
            }
            Fault::None | Fault::MatchIgnored | Fault::Forgets => self.store.put_if_absent(key, slices),
        }
    }
    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        if self.fault != Fault::MatchIgnored {
            return self.store.put_if_match(key, bytes, version);
        }
        let current = self.store.get(key);
        let current = futures::executor::block_on(current).unwrap().unwrap().version;
        self.store.put_if_match(key, bytes, current)
    }
    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        if self.fault == Fault::Forgets { Box::pin(ready(Ok(None))) } else { self.store.get(key) }
    }
    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.store.get_range(key, range)
    }
    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.store.get_suffix(key, length)
    }
    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        self.store.list(prefix)
    }
    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        self.store.list_directories(prefix)
    }
    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        self.store.delete(keys)
    }
}

/// The check's result on a store with `fault`, and how many objects it left.
fn outcome(fault: Fault) -> (Result<(), OpenError>, usize) {
    block_on_local(|env| async move {
        let store = Faulty { store: MemoryStore::new().handle(env.clone()), fault };
        let result = check(&store, &env, "the store").await;
        (result, store.list("meta/").await.unwrap().len())
    })
    .unwrap()
}

#[test]
fn a_store_with_one_winner_passes_and_is_left_clean() {
    let (result, left) = outcome(Fault::None);
    result.unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_store_with_several_winners_is_refused_with_a_fix() {
    let error = outcome(Fault::SeveralWinners).0.unwrap_err();
    assert!(error.problem.contains("two writers won a put-if-absent"), "{error}");
    assert!(error.fix.contains("If-None-Match"), "{error}");
}

#[test]
fn a_store_that_ignores_if_match_is_refused() {
    let error = outcome(Fault::MatchIgnored).0.unwrap_err();
    assert!(error.problem.contains("two writers won a put-if-match"), "{error}");
}

#[test]
fn a_store_whose_reads_do_not_see_its_writes_is_refused() {
    let error = outcome(Fault::Forgets).0.unwrap_err();
    assert!(error.problem.contains("finds nothing"), "{error}");
}

#[test]
fn a_store_that_denies_everything_is_refused_naming_the_credentials() {
    let error = outcome(Fault::Denies).0.unwrap_err();
    assert!(error.fix.contains("AWS_ACCESS_KEY_ID"), "{error}");
    assert_eq!(error.source_error.unwrap().kind, FailureKind::Denied);
}
