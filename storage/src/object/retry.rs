//! Retries, hedges and time limits of requests to a store: the one place where a request is repeated for the caller.
//!
//! [`super::policy`] decides, this carries out; [`super::pacing`] bounds how many requests are under way, reads and writes
//! apart, and lowers that at once where the store says that it is asked too much: a start in a bad minute of the store is
//! slow, not refused.
//!
//! Invariants:
//! 1. Only what may be done twice is: reads, listings, deletions, and objects that nobody else writes
//!    ([`ObjectStore::put_own`]). Conditional puts pass through untouched: what their answer means depends on which
//!    attempt it is about, which only the caller can judge. But a refusal of theirs slows other writes down.
//! 2. Of a hedged pair the first answer that is no error counts; an error does only once both have ended.
//! 3. A request that is given up goes on at the store and ends there or in its client; what it then says is lost.

use super::pacing::{Gate, Pass, Taken};
use super::policy::{Asked, Call, Plan, Policy, Verdict};
use super::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::env::{Env, Mono};
use crate::meter::{Counting, Extra, Operation};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use futures::future::Fuse;
use futures::{FutureExt, select_biased};
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

/// A store whose reads, listings, deletions and own objects are retried, hedged and given up in time.
pub struct Retrying(Rc<Inner>);

struct Inner {
    store: Rc<dyn ObjectStore>,
    env: Env,
    counting: Counting,
    policy: RefCell<Policy>,
    reads: Gate,
    writes: Gate,
}

impl Retrying {
    /// Wraps `store`; pauses and their randomness come from `env`, and what is done beyond single requests is counted in
    /// `counting`. Of a hundred calls at most `hedge_percent` are hedged.
    pub fn new(store: Rc<dyn ObjectStore>, env: Env, counting: Counting, hedge_percent: u32) -> Retrying {
        let policy = RefCell::new(Policy::new(hedge_percent));
        let (reads, writes) = (Gate::new(env.clone()), Gate::new(env.clone()));
        Retrying(Rc::new(Inner { store, env, counting, policy, reads, writes }))
    }

    fn call<T: 'static>(
        &self,
        asked: Asked,
        request: impl Fn(&dyn ObjectStore) -> StoreFuture<T> + 'static,
    ) -> StoreFuture<T> {
        let inner = self.0.clone();
        Box::pin(async move {
            let mut call = inner.policy.borrow_mut().begin(inner.env.now(), asked);
            loop {
                let pass = inner.enter(asked).await;
                let sent = inner.env.now();
                let result = inner.attempt(&call, pass, &request).await;
                let now = inner.env.now();
                let error = match result {
                    Ok(answer) => {
                        inner.policy.borrow_mut().done(now, &call, sent);
                        return Ok(answer);
                    }
                    Err(error) => error,
                };
                let random = inner.env.random();
                let verdict = inner.policy.borrow_mut().failed(now, &mut call, sent, &error, random);
                match verdict {
                    Verdict::Failed => return Err(error),
                    Verdict::Again(at) => inner.env.sleep_until(at).await,
                }
                inner.counting.extra(asked.operation(), Extra::Retry);
            }
        })
    }

    /// A conditional put, of which a refusal is heard.
    fn conditional<T: 'static>(&self, put: StoreFuture<T>) -> StoreFuture<T> {
        let (inner, sent) = (self.0.clone(), self.0.env.now());
        Box::pin(async move {
            let result = put.await;
            if let Err(error) = &result
                && error.kind == FailureKind::Throttled
            {
                inner.writes.refused_elsewhere(sent);
            }
            result
        })
    }
}

impl Inner {
    fn gate(&self, asked: Asked) -> &Gate {
        match asked.operation() {
            Operation::Get | Operation::List => &self.reads,
            Operation::Put | Operation::Delete => &self.writes,
        }
    }

    /// Waits for a place among the requests under way.
    async fn enter(&self, asked: Asked) -> Pass {
        if let Some(pass) = self.gate(asked).try_enter() {
            return pass;
        }
        self.counting.extra(asked.operation(), Extra::Wait);
        self.gate(asked).enter().await
    }

    /// Sends the request, perhaps a second one beside it, and waits as long as that is worth it.
    async fn attempt<T>(
        self: &Rc<Self>,
        call: &Call,
        pass: Pass,
        request: &impl Fn(&dyn ObjectStore) -> StoreFuture<T>,
    ) -> Result<T, StoreError> {
        let asked = call.asked();
        let Plan { give_up, hedge } = self.policy.borrow().send(self.env.now(), call);
        let mut first = Some(pass);
        let mut first_answer = request(&*self.store).fuse();
        let mut second: Option<Hedge> = None;
        let mut second_answer = Fuse::terminated();
        let mut due = self.timer(hedge);
        let mut over = self.timer(Some(give_up));
        loop {
            select_biased! {
                result = first_answer => {
                    first.take().expect("it ends once").answered(taken(&result));
                    if result.is_ok() || second.is_none() {
                        return result;
                    }
                }
                result = second_answer => {
                    let hedge = second.take().expect("it ends once");
                    hedge.pass.answered(taken(&result));
                    if result.is_ok() {
                        self.counting.extra(asked.operation(), Extra::HedgeWon);
                    }
                    if result.is_ok() || first.is_none() {
                        return result;
                    }
                }
                () = due => {
                    if let Some(pass) = self.gate(asked).try_enter() && self.policy.borrow_mut().pay_hedge(self.env.now()) {
                        self.counting.extra(asked.operation(), Extra::Hedge);
                        second = Some(Hedge { pass, _under_way: UnderWay(self.clone()) });
                        second_answer = request(&*self.store).fuse();
                    }
                }
                () = over => {
                    self.counting.extra(asked.operation(), Extra::GivenUp);
                    return Err(StoreError::unknown(FailureKind::Timeout, "no answer for far longer than others took"));
                }
            }
        }
    }

    fn timer(&self, at: Option<Mono>) -> Fuse<futures::future::LocalBoxFuture<'static, ()>> {
        at.map_or_else(Fuse::terminated, |at| self.env.sleep_until(at).fuse())
    }
}

/// The second of two requests.
struct Hedge {
    pass: Pass,
    _under_way: UnderWay,
}

/// Says that a hedge has ended, however it does.
struct UnderWay(Rc<Inner>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.policy.borrow_mut().hedge_ended();
    }
}

fn taken<T>(result: &Result<T, StoreError>) -> Taken {
    match result {
        Ok(_) => Taken::Done,
        Err(error) if error.kind == FailureKind::Throttled => Taken::Throttled,
        Err(_) => Taken::Otherwise,
    }
}

impl ObjectStore for Retrying {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.conditional(self.0.store.put_if_absent(key, slices))
    }

    fn put_own(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<()> {
        let key = key.to_owned();
        let bytes: usize = slices.iter().map(Bytes::len).sum();
        self.call(Asked::Own(bytes as u64), move |store| store.put_own(&key, slices.clone()))
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.conditional(self.0.store.put_if_match(key, bytes, version))
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        let key = key.to_owned();
        self.call(Asked::Whole, move |store| store.get(&key))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        let key = key.to_owned();
        let bytes = range.end.saturating_sub(range.start);
        self.call(Asked::Part(bytes), move |store| store.get_range(&key, range.clone()))
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        let key = key.to_owned();
        self.call(Asked::Part(length), move |store| store.get_suffix(&key, length))
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        let prefix = prefix.to_owned();
        self.call(Asked::List, move |store| store.list(&prefix))
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let prefix = prefix.to_owned();
        self.call(Asked::List, move |store| store.list_directories(&prefix))
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        self.call(Asked::Delete, move |store| store.delete(keys.clone()))
    }
}

#[cfg(all(test, feature = "sim"))]
#[path = "retry_tests.rs"]
mod tests;
