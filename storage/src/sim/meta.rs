//! A metadata store whose state outlives every process: linearizable transactions that may be lost, late, or answered
//! with nothing; watches that lag and break; leases that end late.
//!
//! Invariants:
//! 1. A transaction takes effect at one instant, at most once; observers see every effect in that order.
//! 2. A watch delivers all changes of one revision together, each revision once, in order, until it breaks. One that can't
//!    be heard goes on, or breaks, once it can be again; none outlives a restart.
//! 3. A lease ends by the world's time, never early. From when it is due it is not kept alive any more, but its keys stay
//!    and may still be put until it has ended, as in etcd.

use super::dice::Chance;
use super::executor::{ProcessId, Sim};
use super::faults::{Cut, Faults, Repeats, Service};
use crate::env::Mono;
use crate::meta::leases::Leases;
use crate::meta::{
    Change, Compare, KeptAlive, Key, Lease, LeaseId, MAX_TXN_OPS, MetaStore, Op, Page, Revision, Snapshot, Txn,
    TxnOutcome, Versioned, WatchError, WatchStream, apply,
};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::StoreFuture;
use bytes::Bytes;
use futures::StreamExt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// One key changed by a transaction: before and after.
#[derive(Clone, Copy, Debug)]
pub struct MetaChange<'a> {
    /// The key.
    pub key: &'a str,
    /// Its value before.
    pub before: Option<&'a Bytes>,
    /// Its value after.
    pub after: Option<&'a Bytes>,
}

type Observer = Box<dyn Fn(&[MetaChange<'_>])>;

struct State {
    service: Rc<Service>,
    id: uuid::Uuid,
    revision: Cell<i64>,
    values: RefCell<BTreeMap<Key, Versioned>>,
    leased: RefCell<BTreeMap<Key, LeaseId>>,
    leases: RefCell<Leases>,
    history: RefCell<Vec<Change>>,
    /// Watches that wait for a change under their prefix, by their numbers.
    waiting: RefCell<BTreeMap<u64, (Rc<str>, Waker)>>,
    next_watch: Cell<u64>,
    observers: RefCell<Vec<Observer>>,
    breaks_watches: Cell<Chance>,
    starts: Cell<u64>,
}

/// Handle to the store.
#[derive(Clone)]
pub struct SimMeta(Rc<State>);

impl SimMeta {
    /// An empty store.
    pub fn new(sim: &Sim, faults: Faults) -> SimMeta {
        let id = uuid::Uuid::from_u64_pair(sim.dice(|d| d.bits()), sim.dice(|d| d.bits()));
        let breaks_watches = faults.lost_response;
        SimMeta(Rc::new(State {
            service: Rc::new(Service::new(sim.clone(), faults)),
            id,
            revision: Cell::new(1),
            values: RefCell::default(),
            leased: RefCell::default(),
            leases: RefCell::default(),
            history: RefCell::default(),
            waiting: RefCell::default(),
            next_watch: Cell::new(0),
            observers: RefCell::default(),
            breaks_watches: Cell::new(breaks_watches),
            starts: Cell::new(0),
        }))
    }

    /// From now on nothing fails. What is under way stays so: watches may be silent until the time (virtual nanoseconds) that
    /// this gives.
    pub fn heal(&self) -> u64 {
        let silent_until = self.0.service.last_silence();
        self.0.service.heal();
        self.0.breaks_watches.set(Chance::NEVER);
        silent_until
    }

    /// For a while no request gets through.
    pub fn outage(&self, length: Duration) {
        self.0.service.outage(length);
    }

    /// For a while one process is cut off from it.
    pub fn cut(&self, process: ProcessId, cut: Cut, length: Duration) {
        self.0.service.cut(process, cut, length);
    }

    /// It ends and is there again after a while: every watch ends, and leases live their whole time from then on.
    pub fn restart(&self, length: Duration) {
        let state = &self.0;
        state.service.sim.note(format_args!("meta: starts again within {length:?}"));
        state.service.outage(length);
        state.starts.set(state.starts.get() + 1);
        state.leases.borrow_mut().renew_all(state.now().plus(length));
        std::mem::take(&mut *state.waiting.borrow_mut()).into_values().for_each(|(_, waker)| waker.wake());
    }

    /// Calls `observer` with all changes of each transaction, right after it took effect.
    pub fn observe(&self, observer: impl Fn(&[MetaChange<'_>]) + 'static) {
        self.0.observers.borrow_mut().push(Box::new(observer));
    }

    /// Puts a key by nobody's request: something that was there before.
    pub fn place(&self, key: Key, value: Bytes) {
        let put = Txn { compares: Vec::new(), ops: vec![Op::Put(key, value)] };
        self.0.apply(&put).expect("a put without a lease");
    }

    /// The true value of a key now.
    pub fn peek(&self, key: &str) -> Option<Bytes> {
        self.0.values.borrow().get(key).map(|v| v.value.clone())
    }

    /// The true contents under a prefix now.
    pub fn contents(&self, prefix: &str) -> Vec<(Key, Bytes)> {
        let values = self.0.values.borrow();
        let range = values.range(prefix.to_owned()..).take_while(|(k, _)| k.starts_with(prefix));
        range.map(|(k, v)| (k.clone(), v.value.clone())).collect()
    }
}

impl State {
    fn holds(&self, compare: &Compare) -> bool {
        let values = self.values.borrow();
        match compare {
            Compare::Absent(key) => !values.contains_key(key),
            Compare::Value(key, value) => values.get(key).is_some_and(|v| v.value == *value),
            Compare::ModifiedAt(key, revision) => values.get(key).is_some_and(|v| v.modified == *revision),
        }
    }

    fn apply(&self, txn: &Txn) -> Result<TxnOutcome, StoreError> {
        apply::check_leases(txn, &self.leases.borrow())?;
        let revision = Revision(self.revision.get());
        if let Some(broken) = txn.compares.iter().find(|c| !self.holds(c)) {
            self.service.sim.note(format_args!("meta: conflict at {}: {broken:?}", revision.0));
            return Ok(TxnOutcome::Conflict(revision));
        }
        let mut changed: BTreeMap<Key, (Option<Bytes>, Option<Bytes>)> = BTreeMap::new();
        let next = Revision(revision.0 + 1);
        let (mut values, mut leased) = (self.values.borrow_mut(), self.leased.borrow_mut());
        for op in &txn.ops {
            let (Op::Put(key, _) | Op::PutLeased(key, ..) | Op::Delete(key)) = op;
            leased.remove(key);
            if let Op::PutLeased(key, _, lease) = op {
                leased.insert(key.clone(), *lease);
            }
            let (key, before, after) = match op {
                Op::Put(key, value) | Op::PutLeased(key, value, _) => {
                    let new = Versioned { value: value.clone(), modified: next };
                    (key, values.insert(key.clone(), new), Some(value.clone()))
                }
                Op::Delete(key) => match values.remove(key) {
                    None => continue,
                    old => (key, old, None),
                },
            };
            changed.entry(key.clone()).or_insert((before.map(|v| v.value), None)).1 = after;
        }
        drop((values, leased));
        if changed.is_empty() {
            return Ok(TxnOutcome::Committed(revision));
        }
        self.revision.set(next.0);
        self.publish(next, &changed);
        Ok(TxnOutcome::Committed(next))
    }

    fn now(&self) -> Mono {
        Mono(self.service.sim.now())
    }

    fn grant(self: &Rc<Self>, ttl: Duration) -> Lease {
        let lease = self.leases.borrow_mut().grant(ttl, Some(self.now()));
        self.look_when_due(lease.id);
        lease
    }

    /// Ends the lease some time after it is due, unless it is kept alive until then.
    fn look_when_due(self: &Rc<Self>, id: LeaseId) {
        let Some(due) = self.leases.borrow().due_of(id) else { return };
        let lag = self.service.draw(|f| &f.watch_lag);
        let state = self.clone();
        self.service.sim.after(due.since(self.now()) + lag, move || {
            let due = state.leases.borrow().due_of(id);
            match due {
                Some(due) if due > state.now() => state.look_when_due(id),
                Some(_) => state.end(id),
                None => {}
            }
        });
    }

    fn end(&self, id: LeaseId) {
        if !self.leases.borrow_mut().end(id) {
            return;
        }
        self.service.sim.note(format_args!("meta: lease {} ends", id.0));
        let mut leased = self.leased.borrow_mut();
        let held: Vec<Key> = leased.extract_if(.., |_, lease| *lease == id).map(|(key, _)| key).collect();
        drop(leased);
        if held.is_empty() {
            return;
        }
        let mut values = self.values.borrow_mut();
        let changed = held.into_iter().map(|key| {
            let before = values.remove(&key).map(|found| found.value);
            (key, (before, None))
        });
        let changed = changed.collect();
        drop(values);
        let next = Revision(self.revision.get() + 1);
        self.revision.set(next.0);
        self.publish(next, &changed);
    }

    fn publish(&self, revision: Revision, changed: &BTreeMap<Key, (Option<Bytes>, Option<Bytes>)>) {
        for (key, (_, after)) in changed {
            let text = after.as_deref().map_or("deleted".into(), String::from_utf8_lossy);
            self.service.sim.note(format_args!("meta: {key} = {text} at {}", revision.0));
            self.history.borrow_mut().push(Change { key: key.clone(), value: after.clone(), revision });
        }
        let concerns = |prefix: &str| changed.keys().any(|key| key.starts_with(prefix));
        let mut waiting = self.waiting.borrow_mut();
        let woken = waiting.extract_if(.., |_, (prefix, _)| concerns(prefix));
        woken.for_each(|(_, (_, waker))| waker.wake());
        drop(waiting);
        let told: Vec<MetaChange<'_>> = changed
            .iter()
            .map(|(key, (before, after))| MetaChange { key, before: before.as_ref(), after: after.as_ref() })
            .collect();
        self.observers.borrow().iter().for_each(|observer| observer(&told));
    }

    /// The changes of the first revision that touches `prefix`, of the history from this place on, which moves behind them.
    fn next_change(&self, prefix: &str, from: &mut usize) -> Option<Vec<Change>> {
        let history = self.history.borrow();
        let concerns = |change: &&Change| change.key.starts_with(prefix);
        let Some(first) = history[*from..].iter().find(concerns).map(|change| change.revision) else {
            *from = history.len();
            return None;
        };
        let end = history.partition_point(|change| change.revision <= first);
        let of_first = history[*from..end].iter().filter(|change| change.revision == first).filter(concerns);
        *from = end;
        Some(of_first.cloned().collect())
    }
}

impl MetaStore for SimMeta {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        let id = self.0.id;
        self.0.service.request(Repeats::Never, move || Ok(id))
    }

    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        let size = txn.compares.len() + txn.ops.len();
        assert!(size <= MAX_TXN_OPS, "a transaction of {size} comparisons and operations");
        let state = self.0.clone();
        self.0.service.request(Repeats::Never, move || state.apply(&txn))
    }

    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        assert!(keys.len() <= MAX_TXN_OPS, "a read of {} keys", keys.len());
        let state = self.0.clone();
        self.0.service.request(Repeats::Never, move || {
            let stored = state.values.borrow();
            let values = keys.iter().map(|key| stored.get(key).cloned()).collect();
            Ok(Snapshot { revision: Revision(state.revision.get()), values })
        })
    }

    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        let (state, prefix) = (self.0.clone(), prefix.to_owned());
        self.0.service.request(Repeats::Never, move || {
            let stored = state.values.borrow();
            let range = stored.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix));
            let mut rest = range.filter(|(k, _)| after.as_ref().is_none_or(|a| *k > a));
            let entries = rest.by_ref().take(limit).map(|(k, v)| (k.clone(), v.clone())).collect();
            Ok(Page { revision: Revision(state.revision.get()), entries, more: rest.next().is_some() })
        })
    }

    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        let (state, prefix): (_, Rc<str>) = (self.0.clone(), prefix.into());
        let from = state.history.borrow().partition_point(|change| change.revision <= after);
        let number = state.next_watch.replace(state.next_watch.get() + 1);
        let (starts, watcher) = (state.starts.get(), state.service.sim.current_task().map(|(process, _)| process));
        let changes = futures::stream::unfold(Some((after, from)), move |place| {
            let (state, prefix) = (state.clone(), prefix.clone());
            async move {
                let (after, mut from) = place?;
                let ended = || state.starts.get() != starts;
                let changes = futures::future::poll_fn(|cx| match state.next_change(&prefix, &mut from) {
                    _ if ended() => Poll::Ready(Vec::new()),
                    Some(changes) => Poll::Ready(changes),
                    None => {
                        state.waiting.borrow_mut().insert(number, (prefix.clone(), cx.waker().clone()));
                        Poll::Pending
                    }
                })
                .await;
                let (lag, mut breaks) = (
                    state.service.draw(|f| &f.watch_lag),
                    state.service.sim.dice(|d| d.happens(state.breaks_watches.get())),
                );
                state.service.sim.sleep(lag).await;
                while state.service.silent_until(watcher) > state.service.sim.now() {
                    state.service.sim.sleep_until(state.service.silent_until(watcher)).await;
                    breaks |= state.service.sim.dice(|d| d.index(2)) == 0;
                }
                if ended() {
                    let gone = StoreError::unknown(FailureKind::Unavailable, "the store started again");
                    return Some((Err(WatchError::Store(gone)), None));
                }
                if breaks {
                    return Some((Err(WatchError::Compacted(after)), None));
                }
                let next = changes[0].revision;
                Some((Ok(changes), Some((next, from))))
            }
        });
        changes.boxed_local()
    }

    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        let state = self.0.clone();
        self.0.service.request(Repeats::Never, move || Ok(state.grant(ttl)))
    }

    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        let state = self.0.clone();
        self.0
            .service
            .request(Repeats::Never, move || Ok(state.leases.borrow_mut().keep_alive(lease, Some(state.now()))))
    }

    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        let state = self.0.clone();
        self.0.service.request(Repeats::Never, move || {
            state.end(lease);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::executor::Ended;
    use super::super::faults::Temper;
    use super::*;
    use crate::meta::conformance;

    #[test]
    fn a_watch_delivers_every_revision_once_in_order_or_says_that_it_broke() {
        for seed in 0..50 {
            let sim = Sim::new(seed, false);
            let faults = sim.dice(|d| Faults::drawn(Temper::Rough, d));
            let meta = SimMeta::new(&sim, faults);
            let (m, s) = (meta.clone(), sim.clone());
            let ended = sim.run(100_000, async move {
                let mut watch = m.watch("/a/", Revision(1));
                let writer = m.clone();
                s.spawn(super::super::ProcessId::WORLD, "writer", async move {
                    for i in 0..20 {
                        let op = Op::Put(format!("/a/{}", i % 3), Bytes::from(vec![i]));
                        // Lost ones are simply missing from the sequence.
                        drop(writer.txn(Txn { compares: vec![], ops: vec![op] }).await);
                    }
                    writer.heal();
                    let last = Op::Put("/a/end".to_owned(), Bytes::new());
                    writer.txn(Txn { compares: vec![], ops: vec![last] }).await.expect("healed");
                });
                let mut seen = Revision(1);
                while let Some(Ok(changes)) = watch.next().await {
                    assert!(changes[0].revision > seen);
                    seen = changes[0].revision;
                    if changes[0].key == "/a/end" {
                        return;
                    }
                }
            });
            assert_eq!(ended, Ended::Done, "seed {seed}");
            sim.shut_down();
        }
    }

    #[test]
    fn a_restart_ends_every_watch_and_gives_every_lease_its_whole_time() {
        let sim = Sim::new(1, false);
        let meta = SimMeta::new(&sim, Faults::none());
        let (m, s) = (meta.clone(), sim.clone());
        let ended = sim.run(100_000, async move {
            let ttl = Duration::from_secs(5);
            let lease = m.grant(ttl).await.expect("nothing fails");
            let mut watch = m.watch("/a/", Revision(1));
            s.sleep(Duration::from_secs(4)).await;
            m.restart(Duration::from_secs(3));
            assert!(m.get(vec!["/a/".to_owned()]).await.is_err());
            assert!(matches!(watch.next().await, Some(Err(WatchError::Store(_)))));
            s.sleep(Duration::from_secs(4)).await;
            assert_eq!(m.keep_alive(lease.id).await, Ok(KeptAlive::For(ttl)), "eleven seconds after it was granted");
        });
        assert_eq!(ended, Ended::Done);
        sim.shut_down();
    }

    #[test]
    fn a_process_that_is_cut_off_hears_nothing_and_others_do() {
        for cut in [Cut::Off, Cut::Deaf] {
            let sim = Sim::new(1, false);
            let meta = SimMeta::new(&sim, Faults::none());
            let (process, env) = sim.start_process();
            meta.cut(process, cut, Duration::from_secs(10));
            let (m, failed) = (meta.clone(), Rc::new(Cell::new(false)));
            let told = failed.clone();
            env.spawn("cut off", async move {
                let op = Op::Put("/a".to_owned(), Bytes::new());
                told.set(m.txn(Txn { compares: vec![], ops: vec![op] }).await.is_err());
            });
            let (m, s) = (meta.clone(), sim.clone());
            sim.run(100_000, async move {
                s.sleep(Duration::from_secs(5)).await;
                m.get(vec!["/a".to_owned()]).await.expect("this one is not cut off");
            });
            assert!(failed.get());
            assert_eq!(meta.peek("/a").is_some(), cut == Cut::Deaf);
            sim.shut_down();
        }
    }

    #[test]
    fn leases_conform_in_virtual_time() {
        let sim = Sim::new(3, false);
        let (meta, env) = (SimMeta::new(&sim, Faults::none()), sim.env(super::super::ProcessId::WORLD));
        let ended = sim.run(1_000_000, async move {
            conformance::leases(&meta, &env, Duration::from_secs(5), "/suite/").await;
        });
        assert_eq!(ended, Ended::Done);
        sim.shut_down();
    }

    #[test]
    fn a_transaction_with_a_false_comparison_changes_nothing() {
        let sim = Sim::new(1, false);
        let meta = SimMeta::new(&sim, Faults::none());
        let m = meta.clone();
        sim.run(1_000, async move {
            let put = |compares| Txn { compares, ops: vec![Op::Put("/k".to_owned(), Bytes::from_static(b"v"))] };
            let absent = vec![Compare::Absent("/k".to_owned())];
            assert_eq!(m.txn(put(absent.clone())).await, Ok(TxnOutcome::Committed(Revision(2))));
            assert_eq!(m.txn(put(absent)).await, Ok(TxnOutcome::Conflict(Revision(2))));
        });
        assert_eq!(meta.peek("/k").as_deref(), Some(&b"v"[..]));
        sim.shut_down();
    }
}
