//! A store with the manners of another one: its latencies, bandwidth, limits on requests. What a user of S3 would see,
//! measured on a laptop and, since time comes from [`Env`] alone, in virtual time.
//!
//! Invariants:
//! 1. The modelled store's time is added to that of the real one, and a write takes effect at its end: a put that is
//!    slow is slow before its object is there, so that a hedge can overtake it.
//! 2. What is refused with SlowDown is not sent to the real store.
//! 3. All handles of one [`SharedModel`] share limits, bandwidth and the sequence of draws, which its seed decides.
//! 4. Latency is drawn per request; a listing is one request per thousand objects, a deletion one per thousand keys.
//!
//! It promises nothing that the real store does not, and hides nothing of it: the conformance suite passes through it.

mod latency;
mod limits;
mod parameters;

pub use latency::Latency;
pub use parameters::{Bandwidth, Latencies, Limits, ModelError, Parameters, Prices};

use super::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::env::{Env, Mono};
use crate::meter::PAGE;
use crate::store_error::{FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use limits::{Link, Rate};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is asked of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Put,
    Get,
    List,
    Delete,
}

/// What requests have done to the modelled store so far.
struct State {
    dice: ChaCha8Rng,
    writes: Rate,
    reads: Rate,
    up: Link,
    down: Link,
}

/// A model that handles of several threads share.
#[derive(Clone)]
pub struct SharedModel {
    parameters: Arc<Parameters>,
    state: Arc<Mutex<State>>,
}

impl SharedModel {
    /// A store that nobody has asked anything yet.
    pub fn new(parameters: Parameters) -> SharedModel {
        let state = State {
            dice: ChaCha8Rng::seed_from_u64(parameters.seed),
            writes: Rate::new(parameters.limits.writes_per_second),
            reads: Rate::new(parameters.limits.reads_per_second),
            up: Link::new(parameters.bandwidth.total_mib_per_second),
            down: Link::new(parameters.bandwidth.total_mib_per_second),
        };
        SharedModel { parameters: Arc::new(parameters), state: Arc::new(Mutex::new(state)) }
    }

    /// What it was made of.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// When the modelled store would have taken a request for `key`, or refused it.
    fn admit(&self, now: Mono, kind: Kind, key: &str) -> Result<Mono, (Mono, StoreError)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let latencies = &self.parameters.latency_ms;
        let latency = match kind {
            Kind::Put => &latencies.put,
            Kind::Get => &latencies.get,
            Kind::List => &latencies.list,
            Kind::Delete => &latencies.delete,
        };
        let draw = latency.at(state.dice.next_u64());
        let rate = match kind {
            Kind::Put | Kind::Delete => &mut state.writes,
            Kind::Get | Kind::List => &mut state.reads,
        };
        let prefix = key.rsplit_once('/').map_or("", |(prefix, _)| prefix);
        if rate.takes(now, prefix) {
            return Ok(now.plus(draw));
        }
        let error = StoreError::not_done(FailureKind::Throttled, "503 SlowDown, says the model of the store");
        Err((now.plus(latency.at(0)), error))
    }

    /// When `bytes` that began to move at `start` are over.
    fn moved(&self, start: Mono, bytes: usize, link: fn(&mut State) -> &mut Link) -> Mono {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = limits::transfer(bytes, self.parameters.bandwidth.connection_mib_per_second);
        start.plus(alone).max(link(&mut state).moves(start, bytes))
    }
}

/// A store behind a model: one thread's handle.
pub struct Modelled {
    store: Rc<dyn ObjectStore>,
    model: SharedModel,
    env: Env,
}

impl Modelled {
    /// Wraps `store`; time comes from `env`.
    pub fn new(store: Rc<dyn ObjectStore>, model: SharedModel, env: Env) -> Modelled {
        Modelled { store, model, env }
    }

    /// Waits as long as the modelled store takes to answer, after `bytes` were sent to it; then asks the real one.
    fn ask<T: 'static>(
        &self,
        kind: Kind,
        key: &str,
        bytes: usize,
        call: impl FnOnce(&dyn ObjectStore) -> StoreFuture<T> + 'static,
    ) -> StoreFuture<T> {
        let (store, env) = (self.store.clone(), self.env.clone());
        let now = env.now();
        let admitted = self.model.admit(now, kind, key).map(|answer| {
            let sent = if bytes == 0 { now } else { self.model.moved(now, bytes, |state| &mut state.up) };
            answer.plus(sent.since(now))
        });
        Box::pin(async move {
            match admitted {
                Ok(at) => {
                    env.sleep_until(at).await;
                    call(&*store).await
                }
                Err((at, error)) => {
                    env.sleep_until(at).await;
                    Err(error)
                }
            }
        })
    }

    /// A read: as [`Modelled::ask`], and then the bytes that `size` finds in the answer come over.
    fn read<T: 'static>(
        &self,
        key: &str,
        size: impl Fn(&T) -> usize + 'static,
        call: impl FnOnce(&dyn ObjectStore) -> StoreFuture<T> + 'static,
    ) -> StoreFuture<T> {
        let asked = self.ask(Kind::Get, key, 0, call);
        let (model, env) = (self.model.clone(), self.env.clone());
        Box::pin(async move {
            let answer = asked.await?;
            let at = model.moved(env.now(), size(&answer), |state| &mut state.down);
            env.sleep_until(at).await;
            Ok(answer)
        })
    }

    /// A listing of whatever: the requests beyond the first are only known once the answer is.
    fn list_pages<T: 'static>(
        &self,
        prefix: &str,
        call: impl FnOnce(&dyn ObjectStore) -> StoreFuture<Vec<T>> + 'static,
    ) -> StoreFuture<Vec<T>> {
        let first = self.ask(Kind::List, prefix, 0, call);
        let (model, env, prefix) = (self.model.clone(), self.env.clone(), prefix.to_owned());
        Box::pin(async move {
            let listed = first.await?;
            for _ in 1..listed.len().div_ceil(PAGE) {
                let at = model.admit(env.now(), Kind::List, &prefix).map_err(|(_, error)| error)?;
                env.sleep_until(at).await;
            }
            Ok(listed)
        })
    }
}

impl ObjectStore for Modelled {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let (owned, bytes) = (key.to_owned(), slices.iter().map(Bytes::len).sum());
        self.ask(Kind::Put, key, bytes, move |store| store.put_if_absent(&owned, slices))
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        let owned = key.to_owned();
        self.ask(Kind::Put, key, bytes.len(), move |store| store.put_if_match(&owned, bytes, version))
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        let owned = key.to_owned();
        let size = |found: &Option<Object>| found.as_ref().map_or(0, |object| object.bytes.len());
        self.read(key, size, move |store| store.get(&owned))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        let owned = key.to_owned();
        let size = |found: &Option<Bytes>| found.as_ref().map_or(0, Bytes::len);
        self.read(key, size, move |store| store.get_range(&owned, range))
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        let owned = key.to_owned();
        let size = |found: &Option<Suffix>| found.as_ref().map_or(0, |suffix| suffix.bytes.len());
        self.read(key, size, move |store| store.get_suffix(&owned, length))
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        let owned = prefix.to_owned();
        self.list_pages(prefix, move |store| store.list(&owned))
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let owned = prefix.to_owned();
        self.list_pages(prefix, move |store| store.list_directories(&owned))
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        let requests = keys.chunks(PAGE).map(|page| {
            let owned = page.to_vec();
            self.ask(Kind::Delete, &page[0], 0, move |store| store.delete(owned))
        });
        let requests: Vec<_> = requests.collect();
        Box::pin(async move {
            for request in requests {
                request.await?;
            }
            Ok(())
        })
    }
}

/// How long a thing of `milliseconds` takes.
fn milliseconds(milliseconds: f64) -> Duration {
    Duration::from_secs_f64(milliseconds / 1_000.0)
}

#[cfg(all(test, feature = "sim"))]
mod tests;
