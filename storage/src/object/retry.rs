//! Retries of reads and deletes: the one place where a store's request is repeated for the caller.
//!
//! A store that says that it is asked too much is asked less at once ([`super::pacing`]), and again for longer than one that
//! fails otherwise: a start in a bad minute of the store is slow, not refused.
//!
//! Conditional puts pass through untouched: what their answer means depends on which attempt it is about, which only
//! the caller can judge. Attempts, pauses and the whole are bounded by the constants below.

use super::pacing::{Gate, Taken};
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
/// Attempts of one call that the store refuses because it is asked too much.
const THROTTLED_ATTEMPTS: u32 = 8;
/// What a pause is a part of is not longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest first pause; each further one may be twice as long. The pause itself is a random part of that.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No attempt begins later than this after the first.
const WINDOW: Duration = Duration::from_secs(30);

/// A store whose reads and deletes are retried.
pub struct Retrying {
    store: Rc<dyn ObjectStore>,
    env: Env,
    gate: Gate,
}

impl Retrying {
    /// Wraps `store`; pauses and their randomness come from `env`.
    pub fn new(store: Rc<dyn ObjectStore>, env: Env) -> Retrying {
        let gate = Gate::new(env.clone());
        Retrying { store, env, gate }
    }

    fn retry<T: 'static>(&self, call: impl Fn(&dyn ObjectStore) -> StoreFuture<T> + 'static) -> StoreFuture<T> {
        let (store, env, gate) = (self.store.clone(), self.env.clone(), self.gate.clone());
        Box::pin(async move {
            let end = env.now().plus(WINDOW);
            let mut attempt = 1;
            loop {
                let pass = gate.enter().await;
                let result = call(&*store).await;
                pass.answered(match &result {
                    Ok(_) => Taken::Done,
                    Err(error) if error.kind == FailureKind::Throttled => Taken::Throttled,
                    Err(_) => Taken::Otherwise,
                });
                match result {
                    Err(error) if attempt < attempts(&error) && env.now() < end => {
                        let longest = (FIRST_PAUSE * (1 << (attempt - 1))).min(LONGEST_PAUSE).as_millis() as u64;
                        env.sleep(Duration::from_millis(env.random() % longest)).await;
                        attempt += 1;
                    }
                    result => return result,
                }
            }
        })
    }
}

/// How often a call is tried that fails like this.
fn attempts(error: &StoreError) -> u32 {
    match error.kind {
        FailureKind::Throttled => THROTTLED_ATTEMPTS,
        FailureKind::Timeout | FailureKind::Unavailable => ATTEMPTS,
        FailureKind::Denied | FailureKind::Full | FailureKind::Corrupt | FailureKind::Other => 1,
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
