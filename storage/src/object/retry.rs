//! Retries of reads and deletes: the one place where a store's request is repeated for the caller.
//!
//! Conditional puts pass through untouched: what their answer means depends on which attempt it is about, which only
//! the caller can judge. Attempts, pauses and the whole are bounded by the constants below.

use super::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::env::Env;
use crate::store_error::{FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Attempts of one call.
const ATTEMPTS: u32 = 4;
/// The longest first pause; each further one may be twice as long. The pause itself is a random part of that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No attempt begins later than this after the first.
const WINDOW: Duration = Duration::from_secs(30);

/// A store whose reads and deletes are retried.
pub struct Retrying {
    store: Rc<dyn ObjectStore>,
    env: Env,
}

impl Retrying {
    /// Wraps `store`; pauses and their randomness come from `env`.
    pub fn new(store: Rc<dyn ObjectStore>, env: Env) -> Retrying {
        Retrying { store, env }
    }

    fn retry<T: 'static>(&self, call: impl Fn(&dyn ObjectStore) -> StoreFuture<T> + 'static) -> StoreFuture<T> {
        let (store, env) = (self.store.clone(), self.env.clone());
        Box::pin(async move {
            let end = env.now().plus(WINDOW);
            let mut attempt = 1;
            loop {
                match call(&*store).await {
                    Err(error) if attempt < ATTEMPTS && may_pass(&error) && env.now() < end => {
                        let longest = FIRST_PAUSE.as_millis() as u64 * (1 << (attempt - 1));
                        env.sleep(Duration::from_millis(env.random() % longest)).await;
                        attempt += 1;
                    }
                    result => return result,
                }
            }
        })
    }
}

fn may_pass(error: &StoreError) -> bool {
    match error.kind {
        FailureKind::Throttled | FailureKind::Timeout | FailureKind::Unavailable => true,
        FailureKind::Denied | FailureKind::Full | FailureKind::Corrupt | FailureKind::Other => false,
    }
}

impl ObjectStore for Retrying {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.store.put_if_absent(key, slices)
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.store.put_if_match(key, bytes, version)
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        let key = key.to_owned();
        self.retry(move |store| store.get(&key))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        let key = key.to_owned();
        self.retry(move |store| store.get_range(&key, range.clone()))
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        let key = key.to_owned();
        self.retry(move |store| store.get_suffix(&key, length))
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        let prefix = prefix.to_owned();
        self.retry(move |store| store.list(&prefix))
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let prefix = prefix.to_owned();
        self.retry(move |store| store.list_directories(&prefix))
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        self.retry(move |store| store.delete(keys.clone()))
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
