//! What the process asks of its store, and how long that takes: plain numbers, shared by all threads.
//!
//! Invariants:
//! 1. Every request that goes out is counted once, by the decorators beneath the retries ([`crate::object::counted`],
//!    [`crate::wal::counted`]): failed attempts and hedges too.
//! 2. A request is counted before it begins, what it received or how it failed when it ends. One that is abandoned
//!    before its end stays counted.
//!
//! Not here: what the requests cost (`millrace-bench` prices them), what a lane counts ([`crate::lane::LaneTotals`]).

mod histogram;

pub use histogram::{BOUNDS, Histogram, Snapshot};

use crate::env::Env;
use crate::meta::etcd::EtcdGauges;
use crate::store_error::{FailureKind, StoreError};
use crate::wal::StoreFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Objects of one request of a listing, keys of one request of a deletion, as S3 has them.
pub const PAGE: usize = 1_000;

/// What may be asked of a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// An object written.
    Put,
    /// An object or a part of one read.
    Get,
    /// [`PAGE`] names listed.
    List,
    /// [`PAGE`] objects deleted.
    Delete,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Operation; 4] = [Operation::Put, Operation::Get, Operation::List, Operation::Delete];

    /// Its label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::List => "list",
            Operation::Delete => "delete",
        }
    }
}

/// What is done beyond sending each request once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extra {
    /// A failed request was sent again.
    Retry,
    /// A second request was sent beside one that took long.
    Hedge,
    /// It was answered first.
    HedgeWon,
    /// A request took so much longer than others that its answer was not waited for.
    GivenUp,
    /// A request had to wait for others, since the store had said that it is asked too much.
    Wait,
}

impl Extra {
    /// All of them, in the order of their numbers.
    pub const ALL: [Extra; 5] = [Extra::Retry, Extra::Hedge, Extra::HedgeWon, Extra::GivenUp, Extra::Wait];
}

/// What the embedded metadata store made durable since it was opened.
#[derive(Debug, Default)]
pub struct MetaCounts {
    /// Transactions that changed something.
    pub transactions: AtomicU64,
    /// Commits, which they share: a sync of the disk each.
    pub commits: AtomicU64,
}

/// The requests of a process to its store since it started. Single numbers are current; together they may be of two
/// moments.
#[derive(Debug, Default)]
pub struct StoreMeter {
    requests: [AtomicU64; Operation::ALL.len()],
    failures: [[AtomicU64; FailureKind::ALL.len()]; Operation::ALL.len()],
    sent_bytes: AtomicU64,
    extras: [[AtomicU64; Extra::ALL.len()]; Operation::ALL.len()],
    received_bytes: AtomicU64,
    puts: Histogram,
    gets: Histogram,
    metadata: Arc<MetaCounts>,
    etcd: Option<Arc<EtcdGauges>>,
}

impl StoreMeter {
    /// A meter that shows the counts of the metadata store too.
    pub fn with_metadata(metadata: Arc<MetaCounts>) -> StoreMeter {
        StoreMeter { metadata, ..StoreMeter::default() }
    }

    /// A meter that shows the size of the etcd too.
    pub fn with_etcd(etcd: Arc<EtcdGauges>) -> StoreMeter {
        StoreMeter { etcd: Some(etcd), ..StoreMeter::default() }
    }

    /// The size of the etcd, where the metadata are in one.
    pub fn etcd(&self) -> Option<&EtcdGauges> {
        self.etcd.as_deref()
    }

    /// Transactions of the embedded metadata store that changed something.
    pub fn metadata_transactions(&self) -> u64 {
        self.metadata.transactions.load(Ordering::Relaxed)
    }

    /// Commits that those shared.
    pub fn metadata_commits(&self) -> u64 {
        self.metadata.commits.load(Ordering::Relaxed)
    }

    /// Requests of this kind, failed ones included.
    pub fn requests(&self, operation: Operation) -> u64 {
        self.requests[operation as usize].load(Ordering::Relaxed)
    }

    /// Of those, how many failed in this way. An object that was not there, or was there before, is no failure.
    pub fn failures(&self, operation: Operation, kind: FailureKind) -> u64 {
        self.failures[operation as usize][kind as usize].load(Ordering::Relaxed)
    }

    /// Bytes of the objects put, those of failed puts included.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the objects read.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// How long puts took that were answered without an error.
    pub fn puts(&self) -> &Histogram {
        &self.puts
    }

    /// How long reads took that were answered without an error.
    pub fn gets(&self) -> &Histogram {
        &self.gets
    }

    /// How often this was done for requests of this kind.
    pub fn extras(&self, operation: Operation, extra: Extra) -> u64 {
        self.extras[operation as usize][extra as usize].load(Ordering::Relaxed)
    }

    fn count(&self, operation: Operation, requests: usize) {
        self.requests[operation as usize].fetch_add(requests as u64, Ordering::Relaxed);
    }

    fn ended<T>(&self, operation: Operation, result: &Result<T, StoreError>) {
        if let Err(error) = result {
            self.failures[operation as usize][error.kind as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// One thread's handle to the process's meter: where decorators count.
#[derive(Clone)]
pub struct Counting {
    meter: Arc<StoreMeter>,
    env: Env,
}

impl Counting {
    /// Counts into `meter`; time comes from `env`.
    pub fn new(meter: Arc<StoreMeter>, env: Env) -> Counting {
        Counting { meter, env }
    }

    /// Something was done beyond a request.
    pub(crate) fn extra(&self, operation: Operation, extra: Extra) {
        self.meter.extras[operation as usize][extra as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A put of `bytes`.
    pub(crate) fn put<T: 'static>(&self, bytes: usize, call: StoreFuture<T>) -> StoreFuture<T> {
        let (counting, begun) = (self.clone(), self.env.now());
        self.meter.count(Operation::Put, 1);
        self.meter.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Box::pin(async move {
            let result = call.await;
            counting.meter.ended(Operation::Put, &result);
            if result.is_ok() {
                counting.meter.puts.record(counting.env.now().since(begun));
            }
            result
        })
    }

    /// A read, whose answer holds as many bytes as `size` says.
    pub(crate) fn get<T: 'static>(
        &self,
        call: StoreFuture<Option<T>>,
        size: impl Fn(&T) -> usize + 'static,
    ) -> StoreFuture<Option<T>> {
        let (Counting { meter, env }, begun) = (self.clone(), self.env.now());
        meter.count(Operation::Get, 1);
        Box::pin(async move {
            let result = call.await;
            meter.ended(Operation::Get, &result);
            if result.is_ok() {
                meter.gets.record(env.now().since(begun));
            }
            let bytes = result.iter().flatten().map(size).sum::<usize>();
            meter.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            result
        })
    }

    /// A listing: the requests beyond the first are only known once the answer is.
    pub(crate) fn list<T: 'static>(&self, call: StoreFuture<Vec<T>>) -> StoreFuture<Vec<T>> {
        let meter = self.meter.clone();
        meter.count(Operation::List, 1);
        Box::pin(async move {
            let result = call.await;
            meter.ended(Operation::List, &result);
            let listed = result.as_ref().map_or(0, Vec::len);
            meter.count(Operation::List, listed.div_ceil(PAGE).saturating_sub(1));
            result
        })
    }

    /// A deletion that takes so many requests.
    pub(crate) fn delete(&self, requests: usize, call: StoreFuture<()>) -> StoreFuture<()> {
        let meter = self.meter.clone();
        meter.count(Operation::Delete, requests);
        Box::pin(async move {
            let result = call.await;
            meter.ended(Operation::Delete, &result);
            result
        })
    }
}

#[cfg(test)]
mod tests;
