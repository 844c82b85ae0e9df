//! The metadata store of several processes: a namespace in an etcd, version 3.4 or later.
//!
//! Requests run on the side runtime; a handle may be used on any thread. What is asked of etcd is its v3 API over gRPC,
//! with messages of our own ([`proto`]).
//!
//! Invariants:
//! 1. Transactions, reads and listings are linearizable. A page of a listing is of one revision; the next page is of
//!    that or a later one.
//! 2. An error says whether the request may have been done ([`errors`]); what may have been done is sent again only where
//!    a second time does no harm ([`client`]).
//! 3. Every answer is checked to come from the etcd that was there before ([`guard`]). One that does not ends the use of
//!    this store for good, with [`FailureKind::NotTheSame`]; the process that uses it is told before anybody else.
//! 4. Every key is under the namespace; keys of this module itself begin with `@` behind it, where no key of the schema
//!    can be: `@store` says which metadata store this is, `@lease/…` is a key that each lease holds.
//! 5. A lease has a key of its own from its grant to its end, and a transaction that puts under it compares that: it is
//!    refused whatever else was compared, where etcd would look at the lease only if that held.

mod address;
mod client;
mod endpoints;
mod errors;
mod guard;
mod proto;
mod upkeep;
mod watch;

pub use address::EtcdAddress;
pub use client::Credentials;
pub use guard::OnOther;
pub use upkeep::{EtcdGauges, Upkeep};

use super::{
    Compare, KeptAlive, Key, Lease, LeaseId, MAX_PAGE, MetaStore, Op, Page, Revision, Snapshot, Txn, TxnOutcome,
    Versioned, WatchStream, apply, keys,
};
use crate::object::OpenError;
use crate::side::{SideRuntime, pause};
use crate::store_error::{Certainty, FailureKind, StoreError};
use crate::wal::StoreFuture;
use bytes::Bytes;
use client::{Client, LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, LEASE_TIME_TO_LIVE, PUT, RANGE, READ_TXN, TXN};
use endpoints::Endpoints;
use futures::future::ready;
use guard::Guard;
use proto::compare::{CREATE, EQUAL, LEASE, LESS, MOD, VALUE};
use proto::{DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, Request, Target, TxnRequest, TxnResponse};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Tries to reach the etcd before opening it fails.
const OPEN_TRIES: u32 = 10;
/// Pause between two of them.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Different leases in one transaction: each takes a comparison of its own.
const MAX_TXN_LEASES: usize = 8;
/// Version of [`StoreRecord`].
const STORE_VERSION: u16 = 1;

/// How an etcd is spoken to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EtcdSettings {
    /// User and password.
    pub credentials: Option<Credentials>,
    /// Certificates of the authorities that its servers' certificates are from (PEM); `None`: the system's.
    pub ca: Option<PathBuf>,
    /// This client's certificate (PEM).
    pub cert: Option<PathBuf>,
    /// Its key (PEM).
    pub key: Option<PathBuf>,
}

/// What is known of a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseAge {
    /// How long it lives from each keep-alive.
    pub granted: Duration,
    /// How long it lives from now.
    pub left: Duration,
}

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct EtcdMeta(Arc<Shared>);

/// What the handles share.
struct Shared {
    client: Client,
    namespace: Namespace,
    id: Uuid,
    side: SideRuntime,
    gauges: Arc<EtcdGauges>,
}

/// The value of `@store`: which metadata store this is, and in which etcd it was made.
#[derive(Serialize, Deserialize)]
struct StoreRecord {
    v: u16,
    /// A UUID.
    id: String,
    /// etcd's cluster id, hexadecimal.
    etcd: String,
}

impl EtcdMeta {
    /// Opens the namespace that `address` names, or makes it, then with the id `new_id`; without one it must be there.
    /// `on_other` is called once if it shows that it is not the same etcd any more: nothing that rests on it may be
    /// acknowledged from then on. Blocks.
    ///
    /// # Errors
    /// It does not answer, refuses this user, or is not the etcd that the namespace was made in.
    pub fn open(
        address: &EtcdAddress,
        settings: &EtcdSettings,
        side: &SideRuntime,
        new_id: Option<Uuid>,
        on_other: OnOther,
    ) -> Result<EtcdMeta, OpenError> {
        EtcdMeta::identified(address, settings, side, Opening { new_id, made_elsewhere: false }, on_other)?
            .map_err(|refused| not_open(&address.endpoints.join(","), refused))
    }

    /// Opens the namespace for a rebuild: whatever it holds, and whichever etcd it was made in. `None`: it is empty, and
    /// there is no `new_id` to make it with. Blocks.
    ///
    /// # Errors
    /// It does not answer, or refuses this user.
    pub fn open_to_rebuild(
        address: &EtcdAddress,
        settings: &EtcdSettings,
        side: &SideRuntime,
        new_id: Option<Uuid>,
        on_other: OnOther,
    ) -> Result<Option<EtcdMeta>, OpenError> {
        match EtcdMeta::identified(address, settings, side, Opening { new_id, made_elsewhere: true }, on_other)? {
            Ok(opened) => Ok(Some(opened)),
            Err(NotOpen::Empty) => Ok(None),
            Err(refused) => Err(not_open(&address.endpoints.join(","), refused)),
        }
    }

    fn identified(
        address: &EtcdAddress,
        settings: &EtcdSettings,
        side: &SideRuntime,
        opening: Opening,
        on_other: OnOther,
    ) -> Result<Result<EtcdMeta, NotOpen>, OpenError> {
        let ends = endpoints::describe(address, settings)?;
        let (names, namespace) = (address.endpoints.clone(), Namespace(address.namespace.clone()));
        let (credentials, namespace_of) = (settings.credentials.clone(), namespace.clone());
        let opened = side.run(async move {
            let client = Client::new(Endpoints::new(&ends, names), Guard::new(on_other), credentials);
            identify(&client, &namespace_of, opening).await.map(|id| (client, id))
        });
        let side = side.clone();
        Ok(futures::executor::block_on(opened)
            .map(|(client, id)| EtcdMeta(Arc::new(Shared { client, namespace, id, side, gauges: Arc::default() }))))
    }

    /// Makes the namespace the metadata store `id`, made in this etcd, if `mark` still has its value, and deletes that key.
    /// Handles opened before, this one too, go by the id that it had.
    pub fn rename(&self, id: Uuid, mark: (Key, Bytes)) -> StoreFuture<TxnOutcome> {
        self.run(move |shared| async move { shared.rename(id, mark).await })
    }

    /// The lease that a key is under, if it is under one that lives. For people: no transaction compares it.
    pub fn lease_age(&self, key: &str) -> StoreFuture<Option<LeaseAge>> {
        let key = key.to_owned();
        self.run(move |shared| async move { shared.lease_age(&key).await })
    }

    fn run<T: Send + 'static, F: Future<Output = Result<T, StoreError>> + Send + 'static>(
        &self,
        make: impl FnOnce(Arc<Shared>) -> F,
    ) -> StoreFuture<T> {
        Box::pin(self.0.side.run(make(self.0.clone())))
    }
}

/// Which namespaces are opened.
#[derive(Clone, Copy)]
struct Opening {
    /// One that is empty becomes the store of this id; `None`: it is refused.
    new_id: Option<Uuid>,
    /// One that was made in another etcd too.
    made_elsewhere: bool,
}

/// Why it could not be opened.
enum NotOpen {
    Store(StoreError),
    MadeElsewhere { made_in: String, answers: String },
    Empty,
    Unreadable(String),
}

impl From<StoreError> for NotOpen {
    fn from(error: StoreError) -> NotOpen {
        NotOpen::Store(error)
    }
}

fn not_open(endpoints: &str, refused: NotOpen) -> OpenError {
    match refused {
        NotOpen::Store(error) => {
            let fix = match error.kind {
                FailureKind::Denied => "check --etcd-user, the password and the user's roles",
                FailureKind::Full => "make room in etcd and clear its alarm",
                _ => "check that it runs, that --metadata names its client URLs, and the certificates if it wants TLS",
            };
            let problem = format!("the etcd at {endpoints} can't be used: {}", error.detail);
            OpenError { problem, fix: fix.to_owned(), source_error: Some(error) }
        }
        NotOpen::MadeElsewhere { made_in, answers } => OpenError::new(
            format!("this namespace was made in the etcd cluster {made_in}, but {answers} answers at {endpoints}"),
            "it was restored from a backup or copied, and may lack what was acknowledged; point --metadata at the etcd \
             that it was made in, or rebuild the metadata from the bucket (millrace recover)",
        ),
        NotOpen::Empty => OpenError::new(
            format!("there is no metadata store in this namespace of the etcd at {endpoints}"),
            "name the one of a cluster: --metadata etcd://HOST:PORT/NAMESPACE",
        ),
        NotOpen::Unreadable(detail) => OpenError::new(
            format!("the namespace at {endpoints} is not one of this program: {detail}"),
            "choose another namespace: --metadata etcd://HOST:PORT/NAMESPACE",
        ),
    }
}

/// The store's id, made if there is none, once the etcd answers.
async fn identify(client: &Client, namespace: &Namespace, opening: Opening) -> Result<Uuid, NotOpen> {
    let mut tries = 0;
    loop {
        tries += 1;
        match identify_once(client, namespace, opening).await {
            Err(NotOpen::Store(error)) if tries < OPEN_TRIES && may_pass(error.kind) => {
                tracing::warn!(%error, "etcd does not answer yet");
                pause(OPEN_AGAIN_AFTER).await;
            }
            decided => return decided,
        }
    }
}

fn may_pass(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::Unavailable | FailureKind::Timeout | FailureKind::Throttled)
}

async fn identify_once(client: &Client, namespace: &Namespace, opening: Opening) -> Result<Uuid, NotOpen> {
    let key = namespace.own("store");
    let found: RangeResponse = client.call(&RANGE, read_of(key.clone())).await?;
    if found.kvs.is_empty() {
        let value = store_record(client, opening.new_id.ok_or(NotOpen::Empty)?);
        let create = TxnRequest {
            compare: vec![compare(key.clone(), EQUAL, CREATE, Target::Created(0))],
            success: vec![Request::Put(PutRequest { key: key.clone(), value, lease: 0 }).into()],
            failure: Vec::new(),
        };
        // Whoever made it: it is read.
        let _: TxnResponse = client.call(&TXN, create).await?;
    }
    let found: RangeResponse = client.call(&RANGE, read_of(key)).await?;
    let kv = found.kvs.first().ok_or_else(|| StoreError::unknown(FailureKind::Unavailable, "it was just removed"))?;
    let record: StoreRecord =
        serde_json::from_slice(&kv.value).map_err(|error| NotOpen::Unreadable(error.to_string()))?;
    let id = Uuid::try_parse(&record.id).map_err(|error| NotOpen::Unreadable(error.to_string()))?;
    let answers = format!("{:x}", client.guard.cluster());
    if record.etcd == answers || opening.made_elsewhere {
        Ok(id)
    } else {
        Err(NotOpen::MadeElsewhere { made_in: record.etcd, answers })
    }
}

/// The value of `@store` of a store that is made in this etcd.
fn store_record(client: &Client, id: Uuid) -> Bytes {
    let record = StoreRecord { v: STORE_VERSION, id: id.to_string(), etcd: format!("{:x}", client.guard.cluster()) };
    serde_json::to_vec(&record).expect("it has no map").into()
}

/// What every key of ours starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Namespace(String);

impl Namespace {
    fn key(&self, key: &str) -> Bytes {
        Bytes::from(format!("{}{key}", self.0))
    }

    /// A key of this module.
    fn own(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}@{name}", self.0))
    }

    fn lease(&self, lease: LeaseId) -> Bytes {
        self.own(&format!("lease/{:016x}", lease.0))
    }

    /// The key without the namespace; `None` if it is no key of the schema.
    fn strip(&self, key: &[u8]) -> Option<Key> {
        std::str::from_utf8(key).ok()?.strip_prefix(&self.0).map(str::to_owned)
    }

    /// Where the keys that start with `prefix` begin, and the first key behind them.
    fn range(&self, prefix: &str) -> (Bytes, Bytes) {
        let begin = self.key(prefix);
        let mut end = begin.to_vec();
        let last = end.last_mut().expect("a namespace is not empty");
        // Keys are ASCII.
        *last += 1;
        (begin, Bytes::from(end))
    }
}

fn compare(key: Bytes, result: i32, target: i32, with: Target) -> proto::Compare {
    proto::Compare { result, target, key, with: Some(with) }
}

fn read_of(key: Bytes) -> RangeRequest {
    RangeRequest { key, ..RangeRequest::default() }
}

fn revision(header: Option<&proto::Header>) -> Revision {
    Revision(header.map_or(0, |header| header.revision))
}

fn versioned(kv: &proto::KeyValue) -> Versioned {
    Versioned { value: kv.value.clone(), modified: Revision(kv.mod_revision) }
}

/// etcd's form of a transaction, and the leases that it puts under.
fn translate(namespace: &Namespace, txn: &Txn) -> (TxnRequest, Vec<(LeaseId, Key)>) {
    let mut compares: Vec<proto::Compare> = txn.compares.iter().map(|one| condition(namespace, one)).collect();
    let mut leases: Vec<(LeaseId, Key)> = Vec::new();
    let mut success = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        let put = |key: &Key, value: &Bytes, lease| {
            Request::Put(PutRequest { key: namespace.key(key), value: value.clone(), lease })
        };
        let request = match op {
            Op::Put(key, value) => put(key, value, 0),
            Op::PutLeased(key, value, lease) => {
                if leases.iter().all(|(known, _)| known != lease) {
                    leases.push((*lease, key.clone()));
                }
                put(key, value, lease.0)
            }
            Op::Delete(key) => Request::Delete(DeleteRangeRequest { key: namespace.key(key) }),
        };
        success.push(request.into());
    }
    for (lease, _) in &leases {
        compares.push(compare(namespace.lease(*lease), EQUAL, LEASE, Target::Lease(lease.0)));
    }
    let failure = leases.iter().map(|(lease, _)| Request::Range(read_of(namespace.lease(*lease))).into());
    let failure = failure.collect();
    (TxnRequest { compare: compares, success, failure }, leases)
}

fn condition(namespace: &Namespace, one: &Compare) -> proto::Compare {
    match one {
        Compare::Absent(key) => compare(namespace.key(key), EQUAL, CREATE, Target::Created(0)),
        Compare::Value(key, value) => compare(namespace.key(key), EQUAL, VALUE, Target::Value(value.clone())),
        // A key that is missing counts as changed at 0, where no key can have been: this never holds.
        Compare::ModifiedAt(key, at) if at.0 <= 0 => compare(namespace.key(key), LESS, CREATE, Target::Created(0)),
        Compare::ModifiedAt(key, at) => compare(namespace.key(key), EQUAL, MOD, Target::Modified(at.0)),
    }
}

/// How etcd decided a transaction that `translate` made.
fn decided(answer: &TxnResponse, leases: &[(LeaseId, Key)]) -> Result<TxnOutcome, StoreError> {
    let at = revision(answer.header.as_ref());
    if answer.succeeded {
        return Ok(TxnOutcome::Committed(at));
    }
    let held = answer.responses.iter().map(|one| one.range.as_ref().is_some_and(|found| !found.kvs.is_empty()));
    match leases.iter().zip(held).find(|(_, held)| !held) {
        Some(((lease, key), _)) => Err(apply::lease_ended(key, *lease)),
        None => Ok(TxnOutcome::Conflict(at)),
    }
}

/// Refuses what etcd would, and what this module has no room for.
fn check(txn: &Txn) -> Result<(), StoreError> {
    apply::check(txn)?;
    let leases: BTreeSet<LeaseId> =
        txn.ops.iter().filter_map(|op| if let Op::PutLeased(_, _, lease) = op { Some(*lease) } else { None }).collect();
    if leases.len() > MAX_TXN_LEASES {
        let detail = format!("a transaction puts under {} leases; at most {MAX_TXN_LEASES}", leases.len());
        return Err(StoreError::not_done(FailureKind::Other, detail));
    }
    Ok(())
}

impl Shared {
    async fn txn(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        if txn.ops.iter().any(|op| matches!(op, Op::Put(key, _) if key.starts_with(keys::OFFSETS))) {
            self.gauges.room_for_offsets().await;
        }
        let (request, leases) = translate(&self.namespace, &txn);
        let answer: TxnResponse = self.client.call(&TXN, request).await?;
        decided(&answer, &leases)
    }

    async fn rename(&self, id: Uuid, (mark, value): (Key, Bytes)) -> Result<TxnOutcome, StoreError> {
        let (key, mark) = (self.namespace.own("store"), self.namespace.key(&mark));
        let put = PutRequest { key, value: store_record(&self.client, id), lease: 0 };
        let request = TxnRequest {
            compare: vec![compare(mark.clone(), EQUAL, VALUE, Target::Value(value))],
            success: vec![Request::Put(put).into(), Request::Delete(DeleteRangeRequest { key: mark }).into()],
            failure: Vec::new(),
        };
        let answer: TxnResponse = self.client.call(&TXN, request).await?;
        decided(&answer, &[])
    }

    async fn get(&self, keys: Vec<Key>) -> Result<Snapshot, StoreError> {
        let reads = keys.iter().map(|key| Request::Range(read_of(self.namespace.key(key))).into()).collect();
        let request = TxnRequest { success: reads, ..TxnRequest::default() };
        let answer: TxnResponse = self.client.call(&READ_TXN, request).await?;
        if answer.responses.len() != keys.len() {
            let detail = format!("{} answers to {} reads", answer.responses.len(), keys.len());
            return Err(StoreError::unknown(FailureKind::Corrupt, detail));
        }
        let value = |one: &proto::ResponseOp| one.range.as_ref().and_then(|found| found.kvs.first().map(versioned));
        Ok(Snapshot {
            revision: revision(answer.header.as_ref()),
            values: answer.responses.iter().map(value).collect(),
        })
    }

    async fn list(&self, prefix: String, after: Option<Key>, limit: usize) -> Result<Page, StoreError> {
        let (begin, range_end) = self.namespace.range(&prefix);
        let key = match after {
            // The first key that is longer.
            Some(after) if after >= prefix => self.namespace.key(&format!("{after}\0")),
            _ => begin,
        };
        // To etcd 0 means no limit.
        let mut ask = limit.clamp(1, MAX_PAGE);
        let answer: RangeResponse = loop {
            let limit = i64::try_from(ask).expect("at most a page");
            let request = RangeRequest { key: key.clone(), range_end: range_end.clone(), limit, keys_only: false };
            match self.client.call(&RANGE, request).await {
                // Larger than an answer may be: fewer keys at a time.
                Err(error) if is_too_large(&error) && ask > 1 => ask = ask.div_ceil(4),
                answered => break answered?,
            }
        };
        let mut more = answer.more;
        let mut entries = Vec::with_capacity(answer.kvs.len());
        for kv in &answer.kvs {
            if entries.len() == limit {
                more = true;
                break;
            }
            let key = self.namespace.strip(&kv.key).ok_or_else(|| {
                StoreError::not_done(FailureKind::Corrupt, format!("a key under {prefix} is no text: {:?}", kv.key))
            })?;
            entries.push((key, versioned(kv)));
        }
        Ok(Page { revision: revision(answer.header.as_ref()), entries, more })
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let seconds = i64::try_from(ttl.as_nanos().div_ceil(1_000_000_000)).unwrap_or(i64::MAX).max(1);
        let granted: proto::LeaseGrantResponse =
            self.client.call(&LEASE_GRANT, proto::LeaseGrantRequest { ttl: seconds }).await?;
        if !granted.error.is_empty() {
            return Err(StoreError::not_done(FailureKind::Other, format!("etcd grants no lease: {}", granted.error)));
        }
        let id = LeaseId(granted.id);
        let mark = PutRequest { key: self.namespace.lease(id), value: Bytes::new(), lease: id.0 };
        let _: proto::PutResponse = self.client.call(&PUT, mark).await?;
        Ok(Lease { id, ttl: Duration::from_secs(granted.ttl.unsigned_abs()) })
    }

    async fn lease_age(&self, key: &str) -> Result<Option<LeaseAge>, StoreError> {
        let request = RangeRequest { key: self.namespace.key(key), limit: 1, ..RangeRequest::default() };
        let found: RangeResponse = self.client.call(&RANGE, request).await?;
        let Some(id) = found.kvs.first().map(|kv| kv.lease).filter(|lease| *lease != 0) else { return Ok(None) };
        let asked = proto::LeaseTimeToLiveRequest { id };
        let answer: proto::LeaseTimeToLiveResponse = self.client.call(&LEASE_TIME_TO_LIVE, asked).await?;
        let left = u64::try_from(answer.ttl).ok().map(Duration::from_secs);
        Ok(left.map(|left| LeaseAge { granted: Duration::from_secs(answer.granted_ttl.unsigned_abs()), left }))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<KeptAlive, StoreError> {
        let asked = proto::LeaseKeepAliveRequest { id: lease.0 };
        let kept: Result<proto::LeaseKeepAliveResponse, _> = self.client.call(&LEASE_KEEP_ALIVE, asked).await;
        match kept {
            Ok(kept) if kept.ttl > 0 => Ok(KeptAlive::For(Duration::from_secs(kept.ttl.unsigned_abs()))),
            Ok(_) => Ok(KeptAlive::Ended),
            Err(error) if error.kind == FailureKind::LeaseEnded => Ok(KeptAlive::Ended),
            Err(error) => Err(error),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let asked = proto::LeaseRevokeRequest { id: lease.0 };
        match self.client.call::<_, proto::LeaseRevokeResponse>(&LEASE_REVOKE, asked).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == FailureKind::LeaseEnded => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether an answer was refused for its size.
fn is_too_large(error: &StoreError) -> bool {
    error.certainty == Certainty::Unknown && error.kind == FailureKind::Other
}

impl MetaStore for EtcdMeta {
    fn cluster_id(&self) -> StoreFuture<Uuid> {
        Box::pin(ready(self.0.client.guard.asking().map(|_| self.0.id)))
    }
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        match check(&txn) {
            Ok(()) => self.run(|shared| async move { shared.txn(txn).await }),
            Err(refused) => Box::pin(ready(Err(refused))),
        }
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        match apply::check_get(&keys) {
            Ok(()) => self.run(|shared| async move { shared.get(keys).await }),
            Err(refused) => Box::pin(ready(Err(refused))),
        }
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        let prefix = prefix.to_owned();
        self.run(move |shared| async move { shared.list(prefix, after, limit).await })
    }
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        watch::watch(&self.0, prefix, after)
    }
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        self.run(move |shared| async move { shared.grant(ttl).await })
    }
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        self.run(move |shared| async move { shared.keep_alive(lease).await })
    }
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        self.run(move |shared| async move { shared.revoke(lease).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range_that_ends_where_its_neighbours_begin() {
        let namespace = Namespace("/a".to_owned());
        assert_eq!(namespace.range("/topic/"), (Bytes::from("/a/topic/"), Bytes::from("/a/topic0")));
        assert_eq!(namespace.range(""), (Bytes::from("/a"), Bytes::from("/b")));
        assert_eq!(namespace.strip(b"/a/topic/x").as_deref(), Some("/topic/x"));
        assert_eq!(namespace.strip(b"/b/topic/x"), None);
    }

    #[test]
    fn what_puts_under_a_lease_compares_that_the_lease_lives() {
        let namespace = Namespace("/a".to_owned());
        let leased = |key: &str, lease| Op::PutLeased(key.to_owned(), Bytes::new(), LeaseId(lease));
        let ops = vec![leased("/x", 7), leased("/y", 7), leased("/z", 8)];
        let (request, leases) = translate(&namespace, &Txn { compares: Vec::new(), ops });
        assert_eq!(leases, [(LeaseId(7), "/x".to_owned()), (LeaseId(8), "/z".to_owned())]);
        assert_eq!((request.compare.len(), request.success.len(), request.failure.len()), (2, 3, 2));
        let found = |kvs: usize| proto::ResponseOp {
            range: Some(RangeResponse { kvs: vec![proto::KeyValue::default(); kvs], ..RangeResponse::default() }),
        };
        let answer =
            |first, second| TxnResponse { responses: vec![found(first), found(second)], ..TxnResponse::default() };
        assert_eq!(decided(&answer(1, 1), &leases), Ok(TxnOutcome::Conflict(Revision(0))));
        let refused = decided(&answer(1, 0), &leases).unwrap_err();
        assert_eq!((refused.certainty, refused.kind), (Certainty::NotDone, FailureKind::LeaseEnded));
        assert!(refused.detail.contains("/z"), "{refused}");
    }

    #[test]
    fn too_many_leases_are_refused() {
        let ops = (0..9).map(|lease| Op::PutLeased(format!("/{lease}"), Bytes::new(), LeaseId(lease))).collect();
        let refused = check(&Txn { compares: Vec::new(), ops }).unwrap_err();
        assert_eq!(refused.certainty, Certainty::NotDone);
    }
}
