//! Reads and deletes are repeated a bounded number of times, conditional puts never.

use super::*;
use crate::meter::{Counting, Operation, StoreMeter};
use crate::object::counted::Counted;
use crate::side::block_on_local;
use crate::store_error::Certainty;
use futures::future::ready;
use std::cell::Cell;
use std::sync::Arc;

/// A store that only fails, and counts.
struct Failing {
    kind: FailureKind,
    calls: Cell<u32>,
}

impl Failing {
    fn fail<T: 'static>(&self) -> StoreFuture<T> {
        self.calls.set(self.calls.get() + 1);
        Box::pin(ready(Err(StoreError::unknown(self.kind, "as asked"))))
    }
}

#[rustfmt::skip]
impl ObjectStore for Failing {
    fn put_if_absent(&self, _: &str, _: Vec<Bytes>) -> StoreFuture<PutOutcome> { self.fail() }
    fn put_if_match(&self, _: &str, _: Bytes, _: Version) -> StoreFuture<MatchOutcome> { self.fail() }
    fn get(&self, _: &str) -> StoreFuture<Option<Object>> { self.fail() }
    fn get_range(&self, _: &str, _: Range<u64>) -> StoreFuture<Option<Bytes>> { self.fail() }
    fn get_suffix(&self, _: &str, _: u64) -> StoreFuture<Option<Suffix>> { self.fail() }
    fn list(&self, _: &str) -> StoreFuture<Vec<ListedObject>> { self.fail() }
    fn list_directories(&self, _: &str) -> StoreFuture<Vec<String>> { self.fail() }
    fn delete(&self, _: Vec<String>) -> StoreFuture<()> { self.fail() }
}

/// A store that takes a few requests at once and refuses the others.
struct Narrow {
    env: Env,
    room: u32,
    inside: Rc<Cell<u32>>,
}

impl Narrow {
    fn take<T: 'static>(&self, answer: T) -> StoreFuture<T> {
        let (inside, env, room) = (self.inside.clone(), self.env.clone(), self.room);
        Box::pin(async move {
            inside.set(inside.get() + 1);
            let taken = inside.get() <= room;
            env.sleep(Duration::from_millis(1)).await;
            inside.set(inside.get() - 1);
            if taken { Ok(answer) } else { Err(StoreError::not_done(FailureKind::Throttled, "SlowDown")) }
        })
    }
}

#[rustfmt::skip]
impl ObjectStore for Narrow {
    fn put_if_absent(&self, _: &str, _: Vec<Bytes>) -> StoreFuture<PutOutcome> { self.take(PutOutcome::Stored) }
    fn put_if_match(&self, _: &str, _: Bytes, _: Version) -> StoreFuture<MatchOutcome> { self.take(MatchOutcome::Changed) }
    fn get(&self, _: &str) -> StoreFuture<Option<Object>> { self.take(None) }
    fn get_range(&self, _: &str, _: Range<u64>) -> StoreFuture<Option<Bytes>> { self.take(None) }
    fn get_suffix(&self, _: &str, _: u64) -> StoreFuture<Option<Suffix>> { self.take(None) }
    fn list(&self, _: &str) -> StoreFuture<Vec<ListedObject>> { self.take(Vec::new()) }
    fn list_directories(&self, _: &str) -> StoreFuture<Vec<String>> { self.take(Vec::new()) }
    fn delete(&self, _: Vec<String>) -> StoreFuture<()> { self.take(()) }
}

#[test]
fn a_crowd_of_reads_gets_through_a_store_that_takes_few_at_once() {
    block_on_local(|env| async move {
        let inside = Rc::new(Cell::new(0));
        let narrow = Rc::new(Narrow { env: env.clone(), room: 6, inside: inside.clone() });
        let store = Retrying::new(narrow, env);
        let reads = futures::future::join_all((0..300).map(|n| store.get(&format!("{n}")))).await;
        assert!(reads.iter().all(Result::is_ok), "{reads:?}");
        assert_eq!(inside.get(), 0);
    })
    .unwrap();
}

/// How often the store is called for one call of the wrapped one.
fn calls<T>(kind: FailureKind, call: impl FnOnce(&Retrying) -> StoreFuture<T>) -> u32 {
    block_on_local(|env| async move {
        let store = Rc::new(Failing { kind, calls: Cell::new(0) });
        let error = call(&Retrying::new(store.clone(), env)).await.err().expect("the store only fails");
        assert_eq!(error.certainty, Certainty::Unknown);
        store.calls.get()
    })
    .unwrap()
}

#[test]
fn reads_and_deletes_are_repeated_up_to_the_bound() {
    assert_eq!(calls(FailureKind::Throttled, |store| store.get("k")), THROTTLED_ATTEMPTS);
    assert_eq!(calls(FailureKind::Unavailable, |store| store.get_range("k", 0..1)), ATTEMPTS);
    assert_eq!(calls(FailureKind::Timeout, |store| store.delete(vec!["k".to_owned()])), ATTEMPTS);
}

#[test]
fn what_will_not_pass_is_tried_once() {
    assert_eq!(calls(FailureKind::Denied, |store| store.get("k")), 1);
    assert_eq!(calls(FailureKind::Corrupt, |store| store.list("k/")), 1);
}

#[test]
fn conditional_puts_are_sent_once() {
    assert_eq!(calls(FailureKind::Timeout, |store| store.put_if_absent("k", vec![])), 1);
    let version = Version("1".to_owned());
    assert_eq!(calls(FailureKind::Timeout, |store| store.put_if_match("k", Bytes::new(), version)), 1);
}

#[test]
fn each_attempt_is_counted_once_with_how_it_failed() {
    let meter = Arc::new(StoreMeter::default());
    let counting = meter.clone();
    block_on_local(|env| async move {
        let failing = Rc::new(Failing { kind: FailureKind::Throttled, calls: Cell::new(0) });
        let counted = Rc::new(Counted::new(failing, Counting::new(counting, env.clone())));
        let store = Retrying::new(counted, env);
        store.get("k").await.unwrap_err();
        store.put_if_absent("k", vec![Bytes::from_static(b"four")]).await.unwrap_err();
    })
    .unwrap();
    for (operation, attempts) in
        [(Operation::Get, u64::from(THROTTLED_ATTEMPTS)), (Operation::Put, 1), (Operation::List, 0)]
    {
        assert_eq!(meter.requests(operation), attempts);
        assert_eq!(meter.failures(operation, FailureKind::Throttled), attempts);
    }
    assert_eq!((meter.sent_bytes(), meter.received_bytes()), (4, 0));
    assert_eq!(meter.puts().snapshot().count(), 0);
}
