//! An object store whose state outlives every process: put-if-absent has one winner, a read after a write sees it, and
//! nothing else is promised.
//!
//! Invariants:
//! 1. An operation takes effect at one instant, in [`SimBucket::apply`]; observers see every effect in that order.
//! 2. A listing is put together from what was true some time ago, key by key; a read never is.

use super::executor::{ProcessId, Sim};
use super::faults::{Cut, Faults, Repeats, Service};
use crate::object::{ListedObject, MatchOutcome, Object, ObjectStore, Version};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use crate::wrong::{Wrong, wrong};
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Something that happened to the bucket's true state.
#[derive(Clone, Copy, Debug)]
pub enum BucketChange<'a> {
    /// An object came into being.
    Created(&'a str, &'a Bytes),
    /// An object's bytes were replaced.
    Replaced(&'a str, &'a Bytes, &'a Bytes),
    /// An object was deleted.
    Deleted(&'a str, &'a Bytes),
}

#[derive(Clone)]
struct Stored {
    bytes: Bytes,
    version: u64,
    modified_ms: i64,
}

type Observer = Box<dyn Fn(BucketChange<'_>)>;

pub(super) struct Bucket {
    pub(super) service: Rc<Service>,
    objects: RefCell<BTreeMap<String, Stored>>,
    // What listings show: follows `objects` with a lag per change.
    shown: RefCell<BTreeMap<String, (u64, i64)>>,
    versions: Cell<u64>,
    observers: RefCell<Vec<Observer>>,
}

/// Handle to the bucket. Implements [`ObjectStore`] and [`crate::wal::WalStore`] on the same keys.
#[derive(Clone)]
pub struct SimBucket(pub(super) Rc<Bucket>);

impl SimBucket {
    /// An empty bucket.
    pub fn new(sim: &Sim, faults: Faults) -> SimBucket {
        SimBucket(Rc::new(Bucket {
            service: Rc::new(Service::new(sim.clone(), faults)),
            objects: RefCell::default(),
            shown: RefCell::default(),
            versions: Cell::new(0),
            observers: RefCell::default(),
        }))
    }

    /// From now on nothing fails. What is under way stays so.
    pub fn heal(&self) {
        self.0.service.heal();
    }

    /// For a while no request gets through.
    pub fn outage(&self, length: Duration) {
        self.0.service.outage(length);
    }

    /// For a while one process is cut off from it.
    pub fn cut(&self, process: ProcessId, cut: Cut, length: Duration) {
        self.0.service.cut(process, cut, length);
    }

    /// For a while there is no room for anything new.
    pub fn fill(&self, length: Duration) {
        self.0.service.fill(length);
    }

    /// Calls `observer` at every change, within the change: it must not use the bucket's futures.
    pub fn observe(&self, observer: impl Fn(BucketChange<'_>) + 'static) {
        self.0.observers.borrow_mut().push(Box::new(observer));
    }

    /// The true bytes of an object now.
    pub fn peek(&self, key: &str) -> Option<Bytes> {
        self.0.objects.borrow().get(key).map(|o| o.bytes.clone())
    }

    /// The true keys now that start with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.0.objects.borrow();
        objects.range(prefix.to_owned()..).map(|(k, _)| k).take_while(|k| k.starts_with(prefix)).cloned().collect()
    }

    /// Changes the true bytes of an object, takes it away or puts it back, as no request can: nobody is told.
    pub fn damage(&self, key: &str, bytes: Option<Bytes>) {
        let mut objects = self.0.objects.borrow_mut();
        match bytes {
            Some(bytes) => drop(objects.insert(key.to_owned(), Stored { bytes, version: 0, modified_ms: 0 })),
            None => drop(objects.remove(key)),
        }
    }

    /// Makes the objects under `prefix` be exactly these: what another store's truth is.
    pub(super) fn reflect(&self, prefix: &str, objects: &BTreeMap<String, Bytes>) {
        for key in self.keys(prefix).iter().filter(|key| !objects.contains_key(*key)) {
            self.0.remove(key);
        }
        for (key, bytes) in objects.iter().filter(|(key, bytes)| self.peek(key).as_ref() != Some(*bytes)) {
            self.0.sim().note(format_args!("disk: {key} of {} bytes", bytes.len()));
            self.0.set(key, bytes);
        }
    }

    /// Another bucket with the same objects and no faults: for rebuilding beside the living one.
    pub fn copied(&self, sim: &Sim) -> SimBucket {
        let copy = SimBucket::new(sim, Faults::none());
        *copy.0.objects.borrow_mut() = self.0.objects.borrow().clone();
        *copy.0.shown.borrow_mut() =
            self.0.objects.borrow().iter().map(|(k, o)| (k.clone(), (o.bytes.len() as u64, o.modified_ms))).collect();
        copy.0.versions.set(self.0.versions.get());
        copy
    }
}

impl Bucket {
    fn sim(&self) -> &Sim {
        &self.service.sim
    }

    fn set(self: &Rc<Self>, key: &str, bytes: &Bytes) -> u64 {
        let version = self.versions.get() + 1;
        self.versions.set(version);
        let modified_ms = (self.sim().now() / 1_000_000) as i64;
        let stored = Stored { bytes: bytes.clone(), version, modified_ms };
        let before = self.objects.borrow_mut().insert(key.to_owned(), stored);
        match before {
            None => self.tell(BucketChange::Created(key, bytes)),
            Some(old) => self.tell(BucketChange::Replaced(key, &old.bytes, bytes)),
        }
        self.show_later(key);
        version
    }

    fn remove(self: &Rc<Self>, key: &str) {
        let before = self.objects.borrow_mut().remove(key);
        if let Some(old) = before {
            self.sim().note(format_args!("bucket: {key} deleted"));
            self.tell(BucketChange::Deleted(key, &old.bytes));
            self.show_later(key);
        }
    }

    fn tell(&self, change: BucketChange<'_>) {
        self.observers.borrow().iter().for_each(|observer| observer(change));
    }

    fn show_later(self: &Rc<Self>, key: &str) {
        let (bucket, key) = (self.clone(), key.to_owned());
        let lag = self.service.draw(|f| &f.list_lag);
        self.sim().after(lag, move || {
            let objects = bucket.objects.borrow();
            let mut shown = bucket.shown.borrow_mut();
            match objects.get(&key) {
                Some(o) => shown.insert(key, (o.bytes.len() as u64, o.modified_ms)),
                None => shown.remove(&key),
            };
        });
    }

    pub(super) fn put_if_absent(self: &Rc<Self>, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let (bucket, key, bytes) = (self.clone(), key.to_owned(), joined(slices));
        self.service.request(Repeats::MayRepeat, move || {
            let there = bucket.objects.borrow().get(&key).map(|o| o.bytes.len());
            let overwrites = wrong(Wrong::OverwritingPut)
                || (wrong(Wrong::FenceWithoutIfAbsent) && bytes.len() == crate::format::HEADER_BYTES);
            if there.is_some() && !overwrites {
                bucket.sim().note(format_args!("bucket: put {key} refused, it is there"));
                return Ok(PutOutcome::AlreadyExists);
            }
            if bucket.service.is_full() {
                return Err(StoreError::not_done(FailureKind::Full, "no room"));
            }
            bucket.sim().note(format_args!("bucket: put {key} of {} bytes", bytes.len()));
            bucket.set(&key, &bytes);
            Ok(PutOutcome::Stored)
        })
    }

    pub(super) fn read<T: 'static>(
        self: &Rc<Self>,
        key: String,
        of: impl Fn(&Bytes, u64) -> T + 'static,
    ) -> StoreFuture<Option<T>> {
        let bucket = self.clone();
        self.service
            .request(Repeats::Never, move || Ok(bucket.objects.borrow().get(&key).map(|o| of(&o.bytes, o.version))))
    }

    pub(super) fn list(self: &Rc<Self>, prefix: String) -> StoreFuture<Vec<ListedObject>> {
        let bucket = self.clone();
        self.service.request(Repeats::Never, move || {
            let shown = bucket.shown.borrow();
            let range = shown.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix));
            let listed = |(key, &(size, modified_ms)): (&String, &(u64, i64))| ListedObject {
                key: key.clone(),
                size,
                modified_ms,
            };
            Ok(range.map(listed).collect())
        })
    }

    /// Deletes the keys of its true state that `which` chooses, one by one.
    pub(super) fn delete_where(
        self: &Rc<Self>,
        prefix: String,
        which: impl Fn(&str) -> bool + 'static,
    ) -> StoreFuture<()> {
        let bucket = self.clone();
        self.service.request(Repeats::MayRepeat, move || {
            let keys: Vec<String> = {
                let objects = bucket.objects.borrow();
                let range = objects.range(prefix.clone()..).take_while(|(k, _)| k.starts_with(&prefix));
                range.map(|(k, _)| k.clone()).filter(|k| which(k)).collect()
            };
            keys.iter().for_each(|key| bucket.remove(key));
            Ok(())
        })
    }
}

fn joined(slices: Vec<Bytes>) -> Bytes {
    let mut whole = BytesMut::with_capacity(slices.iter().map(Bytes::len).sum());
    slices.iter().for_each(|slice| whole.extend_from_slice(slice));
    whole.freeze()
}

pub(super) fn cut(bytes: &Bytes, range: Range<u64>) -> Bytes {
    let end = usize::try_from(range.end).unwrap_or(usize::MAX).min(bytes.len());
    let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
    bytes.slice(start..end)
}

pub(super) fn suffix(bytes: &Bytes, length: u64) -> Suffix {
    let size = bytes.len() as u64;
    Suffix { size, bytes: cut(bytes, size.saturating_sub(length)..size) }
}

impl ObjectStore for SimBucket {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.0.put_if_absent(key, slices)
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        let (bucket, key) = (self.0.clone(), key.to_owned());
        self.0.service.request(Repeats::MayRepeat, move || {
            let current = bucket.objects.borrow().get(&key).map(|o| o.version.to_string());
            if current.as_ref() != Some(&version.0) {
                return Ok(MatchOutcome::Changed);
            }
            bucket.sim().note(format_args!("bucket: replace {key}"));
            Ok(MatchOutcome::Stored(Version(bucket.set(&key, &bytes).to_string())))
        })
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        self.0.read(key.to_owned(), |bytes, version| Object {
            bytes: bytes.clone(),
            version: Version(version.to_string()),
        })
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.0.read(key.to_owned(), move |bytes, _| cut(bytes, range.clone()))
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.0.read(key.to_owned(), move |bytes, _| suffix(bytes, length))
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        self.0.list(prefix.to_owned())
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let (listing, prefix) = (self.0.list(prefix.to_owned()), prefix.to_owned());
        Box::pin(async move {
            let below = listing.await?;
            let names = below.iter().filter_map(|o| o.key[prefix.len()..].split_once('/'));
            Ok(names.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>().into_iter().collect())
        })
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        let bucket = self.0.clone();
        self.0.service.request(Repeats::MayRepeat, move || -> Result<(), StoreError> {
            keys.iter().for_each(|key| bucket.remove(key));
            Ok(())
        })
    }
}
