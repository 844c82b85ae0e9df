//! A metadata store that counts what it is asked for and what its watches tell.

use futures::StreamExt as _;
use millrace_storage::meta::{
    Change, KeptAlive, Key, Lease, LeaseId, MetaStore, Op, Page, Revision, Snapshot, Txn, TxnOutcome, WatchStream,
};
use millrace_storage::wal::StoreFuture;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// How much of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amount {
    /// Requests, or deliveries.
    pub calls: u64,
    /// Keys in them.
    pub keys: u64,
    /// Bytes of those keys and their values.
    pub bytes: u64,
}

impl Amount {
    /// One more of so many keys and bytes.
    pub fn add(&mut self, keys: u64, bytes: u64) {
        (self.calls, self.keys, self.bytes) = (self.calls + 1, self.keys + keys, self.bytes + bytes);
    }

    /// Bytes for each key.
    pub fn a_key(&self) -> f64 {
        self.bytes as f64 / self.keys.max(1) as f64
    }

    fn plus(self, other: &Amount) -> Amount {
        Amount { calls: self.calls + other.calls, keys: self.keys + other.keys, bytes: self.bytes + other.bytes }
    }
}

/// The first part of a key.
pub fn kind_of(key: &str) -> &str {
    key.match_indices('/').nth(1).map_or(key, |(end, _)| &key[..=end])
}

#[derive(Clone, Default, Debug)]
struct Numbers {
    written: BTreeMap<String, Amount>,
    told: Amount,
    keep_alives: u64,
    reads: u64,
    listings: u64,
}

/// What was counted since it was last taken. A clone is another handle.
#[derive(Clone, Default, Debug)]
pub struct Counts(Rc<RefCell<Numbers>>);

impl Counts {
    /// What was counted, and begins anew.
    pub fn take(&self) -> Counts {
        Counts(Rc::new(RefCell::new(self.0.take())))
    }

    /// All transactions.
    pub fn written(&self) -> Amount {
        self.0.borrow().written.values().fold(Amount::default(), Amount::plus)
    }

    /// Transactions by the kind of the first key that they change, most first.
    pub fn by_kind(&self) -> impl Iterator<Item = (String, Amount)> + use<> {
        let written = self.0.borrow().written.clone();
        let mut kinds: Vec<(String, Amount)> = written.into_iter().collect();
        kinds.sort_by_key(|(_, amount)| std::cmp::Reverse(amount.calls));
        kinds.into_iter()
    }

    /// What watches delivered.
    pub fn told(&self) -> Amount {
        self.0.borrow().told
    }

    /// Keep-alives of leases: no writes to an etcd's log.
    pub fn keep_alives(&self) -> u64 {
        self.0.borrow().keep_alives
    }

    /// Reads of keys by name.
    pub fn reads(&self) -> u64 {
        self.0.borrow().reads
    }

    /// Pages of listings.
    pub fn listings(&self) -> u64 {
        self.0.borrow().listings
    }

    fn on_txn(&self, txn: &Txn) {
        let Some(first) = txn.ops.first() else { return };
        let bytes = txn.ops.iter().map(|op| match op {
            Op::Put(key, value) | Op::PutLeased(key, value, _) => key.len() + value.len(),
            Op::Delete(key) => key.len(),
        });
        let (Op::Put(key, _) | Op::PutLeased(key, ..) | Op::Delete(key)) = first;
        let mut numbers = self.0.borrow_mut();
        let amount = numbers.written.entry(kind_of(key).to_owned()).or_default();
        amount.add(txn.ops.len() as u64, bytes.sum::<usize>() as u64);
    }

    fn on_changes(&self, changes: &[Change]) {
        let bytes: usize =
            changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, |value| value.len())).sum();
        self.0.borrow_mut().told.add(changes.len() as u64, bytes as u64);
    }
}

/// See the module.
#[derive(Clone)]
pub struct Counted {
    store: Rc<dyn MetaStore>,
    counts: Counts,
}

impl Counted {
    /// Counts into `counts` what goes to this store.
    pub fn new(store: Rc<dyn MetaStore>, counts: &Counts) -> Counted {
        Counted { store, counts: counts.clone() }
    }
}

impl MetaStore for Counted {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        self.store.cluster_id()
    }
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        self.counts.on_txn(&txn);
        self.store.txn(txn)
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        self.counts.0.borrow_mut().reads += 1;
        self.store.get(keys)
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        self.counts.0.borrow_mut().listings += 1;
        self.store.list(prefix, after, limit)
    }
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        let counts = self.counts.clone();
        let told = self.store.watch(prefix, after).inspect(move |changes| {
            if let Ok(changes) = changes {
                counts.on_changes(changes);
            }
        });
        told.boxed_local()
    }
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        self.counts.0.borrow_mut().written.entry("a lease".to_owned()).or_default().add(0, 0);
        self.store.grant(ttl)
    }
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        self.counts.0.borrow_mut().keep_alives += 1;
        self.store.keep_alive(lease)
    }
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        self.counts.0.borrow_mut().written.entry("a lease".to_owned()).or_default().add(0, 0);
        self.store.revoke(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_the_first_part_of_a_key() {
        assert_eq!((kind_of("/wal/ab"), kind_of("/partition/a/1"), kind_of("/pid")), ("/wal/", "/partition/", "/pid"));
    }
}
