//! A cache of objects together with the loads that fill it.
//!
//! 1. Of one key at most one load is under way: who wants it meanwhile waits for the same one.
//! 2. A load goes on when nobody waits for it any more, and its result is cached.
//! 3. Failures and objects that do not exist are told to those who wait, and not remembered.

use super::cache::Cache;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{LocalBoxFuture, Shared, ready};
use millrace_storage::env::Env;
use millrace_storage::store_error::StoreError;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What a load brings; `None`: there is no such object.
pub type Loaded<V> = Result<Option<V>, StoreError>;

/// A load under way, or ended.
pub type Load<V> = Shared<LocalBoxFuture<'static, Loaded<V>>>;

/// Values by key, loaded when they are wanted.
pub struct Shelf<K, V> {
    env: Env,
    cache: RefCell<Cache<K, V>>,
    under_way: RefCell<BTreeMap<K, Load<V>>>,
    /// Loads that nobody has waited for so far, cached or under way.
    ahead: RefCell<BTreeSet<K>>,
    bytes_of: fn(&V) -> usize,
}

impl<K: Ord + Clone + 'static, V: Clone + 'static> Shelf<K, V> {
    /// An empty shelf for `budget` bytes, as `bytes_of` counts them, and `most` entries.
    pub fn new(env: Env, budget: usize, most: usize, bytes_of: fn(&V) -> usize) -> Rc<Shelf<K, V>> {
        Rc::new(Shelf {
            env,
            cache: RefCell::new(Cache::new(budget, most)),
            under_way: RefCell::default(),
            ahead: RefCell::default(),
            bytes_of,
        })
    }

    /// The value of `key`, by `load` if it is neither here nor on its way.
    pub fn get(self: &Rc<Self>, key: &K, load: impl FnOnce() -> LocalBoxFuture<'static, Loaded<V>>) -> Load<V> {
        self.ahead.borrow_mut().remove(key);
        if let Some(value) = self.cache.borrow_mut().get(key) {
            return ready(Ok(Some(value))).boxed_local().shared();
        }
        if let Some(under_way) = self.under_way.borrow().get(key) {
            return under_way.clone();
        }
        self.start(key.clone(), load())
    }

    /// Loads what somebody will probably want, unless it is here or on its way.
    pub fn get_ahead(self: &Rc<Self>, key: &K, load: impl FnOnce() -> LocalBoxFuture<'static, Loaded<V>>) {
        if !self.cache.borrow().contains(key) && !self.under_way.borrow().contains_key(key) {
            self.ahead.borrow_mut().insert(key.clone());
            drop(self.start(key.clone(), load()));
        }
    }

    fn start(self: &Rc<Self>, key: K, load: LocalBoxFuture<'static, Loaded<V>>) -> Load<V> {
        let (tell, told) = oneshot::channel();
        let told = told.map(|told| told.expect("the task below tells before it ends")).boxed_local().shared();
        self.under_way.borrow_mut().insert(key.clone(), told.clone());
        let shelf = self.clone();
        self.env.spawn("cold load", async move {
            let loaded = load.await;
            shelf.under_way.borrow_mut().remove(&key);
            if let Ok(Some(value)) = &loaded {
                shelf.put(key, value.clone());
            } else {
                shelf.ahead.borrow_mut().remove(&key);
            }
            // Nobody may be waiting for what was loaded ahead.
            let _ = tell.send(loaded);
        });
        told
    }

    fn put(&self, key: K, value: V) {
        let bytes = (self.bytes_of)(&value);
        let left = self.cache.borrow_mut().insert(key, value, bytes);
        let mut ahead = self.ahead.borrow_mut();
        left.iter().for_each(|key| _ = ahead.remove(key));
    }

    /// Forgets the value of `key` if it still is `stale`, which has turned out to be out of date.
    pub fn forget(&self, key: &K, stale: &V, same: fn(&V, &V) -> bool) {
        let mut cache = self.cache.borrow_mut();
        if cache.get(key).is_some_and(|value| same(&value, stale)) {
            cache.remove(key);
        }
    }

    /// How many loads were started ahead of their use and not used yet.
    pub fn ahead(&self) -> usize {
        self.ahead.borrow().len()
    }

    /// Bytes cached.
    pub fn used(&self) -> usize {
        self.cache.borrow().used()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_storage::sim::{Ended, ProcessId, Sim};
    use std::cell::Cell;
    use std::time::Duration;

    /// Runs `scenario` in virtual time; loads of key `n` take `n` milliseconds and are counted.
    fn run<F: Future<Output = ()> + 'static>(scenario: impl FnOnce(Rc<World>) -> F) {
        let sim = Sim::new(1, false);
        let env = sim.env(ProcessId::WORLD);
        let shelf = Shelf::new(env.clone(), 2000, 3, |value: &u64| *value as usize);
        let world = Rc::new(World { shelf, env, loads: Cell::new(0) });
        assert_eq!(sim.run(10_000, scenario(world)), Ended::Done);
    }

    struct World {
        shelf: Rc<Shelf<u64, u64>>,
        env: Env,
        loads: Cell<u64>,
    }

    impl World {
        fn load(&self, key: u64) -> LocalBoxFuture<'static, Loaded<u64>> {
            self.loads.set(self.loads.get() + 1);
            let env = self.env.clone();
            Box::pin(async move {
                env.sleep(Duration::from_millis(key)).await;
                if key == 99 { Ok(None) } else { Ok(Some(key)) }
            })
        }

        fn get(&self, key: u64) -> Load<u64> {
            self.shelf.get(&key, || self.load(key))
        }
    }

    #[test]
    fn many_who_want_one_key_cause_one_load() {
        run(|world| async move {
            let all = futures::future::join_all((0..10).map(|_| world.get(5))).await;
            assert_eq!(all, vec![Ok(Some(5)); 10]);
            assert_eq!((world.get(5).await, world.loads.get()), (Ok(Some(5)), 1));
        });
    }

    #[test]
    fn a_load_that_nobody_waits_for_any_more_is_finished_and_kept() {
        run(|world| async move {
            drop(world.get(5));
            world.env.sleep(Duration::from_millis(10)).await;
            assert_eq!((world.get(5).await, world.loads.get()), (Ok(Some(5)), 1));
        });
    }

    #[test]
    fn what_does_not_exist_is_asked_for_again() {
        run(|world| async move {
            assert_eq!(world.get(99).await, Ok(None));
            assert_eq!(world.get(99).await, Ok(None));
            assert_eq!(world.loads.get(), 2);
        });
    }

    #[test]
    fn loads_ahead_count_until_they_are_used_or_leave() {
        run(|world| async move {
            for key in [1, 2, 99] {
                world.shelf.get_ahead(&key, || world.load(key));
            }
            assert_eq!(world.shelf.ahead(), 3);
            assert_eq!(world.get(1).await, Ok(Some(1)));
            world.env.sleep(Duration::from_millis(100)).await;
            assert_eq!((world.shelf.ahead(), world.loads.get()), (1, 3), "1 was used, 99 does not exist");
            for key in 3..6 {
                world.get(key).await.unwrap();
            }
            assert_eq!(world.shelf.ahead(), 0, "2 had to leave");
        });
    }
}
