//! A bounded cache: what was used least recently leaves first.
//!
//! 1. The bytes charged stay within the budget and the entries within their bound; an entry that exceeds the budget by
//!    itself is kept alone.
//! 2. Which entries leave follows from the order of the calls alone.

use std::collections::BTreeMap;

/// Bookkeeping of one entry in bytes, an upper estimate.
pub const OVERHEAD_BYTES: usize = 256;

/// Values by key, with what each of them takes.
#[derive(Debug)]
pub struct Cache<K, V> {
    budget: usize,
    most: usize,
    used: usize,
    uses: u64,
    by_key: BTreeMap<K, Entry<V>>,
    /// Every key by its last use.
    by_use: BTreeMap<u64, K>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    charged: usize,
    used_at: u64,
}

impl<K: Ord + Clone, V: Clone> Cache<K, V> {
    /// An empty cache for `budget` bytes and `most` entries.
    pub fn new(budget: usize, most: usize) -> Cache<K, V> {
        Cache { budget, most, used: 0, uses: 0, by_key: BTreeMap::new(), by_use: BTreeMap::new() }
    }

    /// The value, which is now the one used last.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let entry = self.by_key.get_mut(key)?;
        let key = self.by_use.remove(&entry.used_at).expect("every entry has a use");
        self.uses += 1;
        entry.used_at = self.uses;
        self.by_use.insert(self.uses, key);
        Some(entry.value.clone())
    }

    /// Whether it is here; no use.
    pub fn contains(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// Puts `value`, which takes `bytes`, in place of what was under `key`. Gives the keys that had to leave.
    pub fn insert(&mut self, key: K, value: V, bytes: usize) -> Vec<K> {
        self.remove(&key);
        let charged = bytes + OVERHEAD_BYTES;
        self.uses += 1;
        self.used += charged;
        self.by_use.insert(self.uses, key.clone());
        self.by_key.insert(key, Entry { value, charged, used_at: self.uses });
        let mut left = Vec::new();
        while self.by_key.len() > 1 && (self.used > self.budget || self.by_key.len() > self.most) {
            let (_, oldest) = self.by_use.first_key_value().expect("as many uses as entries");
            let oldest = oldest.clone();
            self.remove(&oldest);
            left.push(oldest);
        }
        left
    }

    /// Forgets it.
    pub fn remove(&mut self, key: &K) {
        if let Some(entry) = self.by_key.remove(key) {
            self.used -= entry.charged;
            self.by_use.remove(&entry.used_at).expect("every entry has a use");
        }
    }

    /// Takes out what was used least recently.
    pub fn take_oldest(&mut self) -> Option<(K, V)> {
        let key = self.by_use.values().next()?.clone();
        let value = self.by_key.get(&key).expect("as many uses as entries").value.clone();
        self.remove(&key);
        Some((key, value))
    }

    /// Bytes charged.
    pub fn used(&self) -> usize {
        self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_used_least_recently_leaves_first() {
        let mut cache = Cache::new(3 * (10 + OVERHEAD_BYTES), 10);
        for key in 0..3 {
            assert!(cache.insert(key, key, 10).is_empty());
        }
        assert_eq!(cache.get(&0), Some(0));
        assert_eq!(cache.insert(3, 3, 10), [1]);
        assert_eq!(cache.insert(2, 22, 10), [0; 0], "in its own place");
        assert_eq!(cache.insert(4, 4, 10), [0]);
        assert_eq!(cache.get(&2), Some(22));
    }

    #[test]
    fn what_is_taken_out_is_what_was_used_least_recently() {
        let mut cache = Cache::new(10_000, 10);
        (0..3).for_each(|key| drop(cache.insert(key, key * 10, 10)));
        cache.get(&0);
        assert_eq!([cache.take_oldest(), cache.take_oldest()], [Some((1, 10)), Some((2, 20))]);
        assert_eq!((cache.take_oldest(), cache.take_oldest(), cache.used()), (Some((0, 0)), None, 0));
    }

    #[test]
    fn what_exceeds_the_budget_alone_is_kept_alone() {
        let mut cache = Cache::new(1000, 10);
        cache.insert(1, (), 10);
        assert_eq!(cache.insert(2, (), 5000), [1]);
        assert!(cache.contains(&2));
        assert_eq!(cache.insert(3, (), 10), [2]);
    }

    proptest! {
        #[test]
        fn it_keeps_to_its_bounds_and_gives_only_what_was_put(
            calls in proptest::collection::vec((0..20u8, 0..2000usize, any::<bool>()), 1..200),
        ) {
            let mut cache = Cache::new(4000, 6);
            let mut put = BTreeMap::new();
            for (at, (key, bytes, insert)) in calls.into_iter().enumerate() {
                if insert {
                    put.insert(key, at);
                    for left in cache.insert(key, at, bytes) {
                        prop_assert!(put.remove(&left).is_some(), "what leaves was there");
                    }
                } else if bytes % 5 == 0 {
                    put.remove(&key);
                    cache.remove(&key);
                } else {
                    prop_assert_eq!(cache.get(&key), put.get(&key).copied());
                }
                prop_assert!(cache.used() <= 4000 && put.len() <= 6);
                prop_assert_eq!(put.is_empty(), cache.used() == 0);
            }
        }
    }
}
