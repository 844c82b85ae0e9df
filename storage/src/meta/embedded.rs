//! The metadata store of one process: a redb file on local disk, served by a thread of its own.
//!
//! Handles put requests into a bounded queue. The thread takes what waits, runs it in order inside one redb write
//! transaction, commits that once, then answers: one sync for a whole group of transactions.
//!
//! Invariants:
//! 1. An answer leaves after the commit that it rests on: durable (redb's `Durability::Immediate`), kill −9 and power
//!    loss safe. A read of a group that also writes is answered after that commit too.
//! 2. Requests are decided in the order in which they entered the queue: linearizable.
//! 3. A commit that fails because the disk is full answers `Certainty::Unknown` to its transactions. The file is then
//!    closed and opened again by the next request, and watches end with `Compacted`, since what happened is known from
//!    the file alone. A commit that fails otherwise ends the process.
//! 4. Leases live in the memory of this process, which keys they hold is in the file: those of a life that has ended
//!    have ended too, and the first thing that the next one does is to delete their keys.
//! 5. Bounded: [`QUEUE`] requests wait, [`GROUP`] share a commit; more are refused with `NotDone` and `Throttled`.
//!
//! One process only: redb locks the file. The thread ends, and the file is closed, when the last handle is dropped.

use super::apply::{self, Applied};
use super::history::{HISTORY_CHANGES, History};
use super::leases::Leases;
use super::{
    Change, KeptAlive, Key, Lease, LeaseId, MetaStore, Page, Revision, Snapshot, Txn, TxnOutcome, WatchStream,
};
use crate::meter::MetaCounts;
use crate::object::OpenError;
use crate::side::monotonic_now;
use crate::store_error::{Certainty, FailureKind, StoreError};
use crate::wal::StoreFuture;
use file::{File, Keys};
use futures::StreamExt;
use futures::channel::oneshot;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

mod file;

/// Requests that may wait for the thread.
pub const QUEUE: usize = 4_096;

/// Requests that share one commit at most.
pub const GROUP: usize = 512;

/// Pause before keys of ended leases, whose deletion failed, are deleted again.
const SWEEP_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Name of the file within the directory given to [`EmbeddedMeta::open`].
pub const FILE_NAME: &str = "metadata.redb";

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct EmbeddedMeta(Arc<Inner>);

struct Inner {
    cluster_id: uuid::Uuid,
    requests: Option<SyncSender<Request>>,
    history: History,
    counts: Arc<MetaCounts>,
    thread: Option<JoinHandle<()>>,
}

enum Request {
    Txn(Txn, oneshot::Sender<Result<TxnOutcome, StoreError>>),
    Get(Vec<Key>, oneshot::Sender<Result<Snapshot, StoreError>>),
    List { prefix: String, after: Option<Key>, limit: usize, answer: oneshot::Sender<Result<Page, StoreError>> },
    Grant(Duration, oneshot::Sender<Result<Lease, StoreError>>),
    KeepAlive(LeaseId, oneshot::Sender<Result<KeptAlive, StoreError>>),
    Revoke(LeaseId, oneshot::Sender<Result<(), StoreError>>),
}

impl EmbeddedMeta {
    /// Opens the store in `directory`, or makes both, then with the id `new_cluster_id`. Blocks.
    pub fn open(directory: &Path, new_cluster_id: uuid::Uuid) -> Result<EmbeddedMeta, OpenError> {
        EmbeddedMeta::open_with_history(directory, new_cluster_id, HISTORY_CHANGES)
    }

    /// Like [`EmbeddedMeta::open`], keeping only so many changes for watches.
    pub fn open_with_history(
        directory: &Path,
        new_cluster_id: uuid::Uuid,
        changes: usize,
    ) -> Result<EmbeddedMeta, OpenError> {
        let path = directory.join(FILE_NAME);
        let (file, opened) = File::open(path.clone(), new_cluster_id)?;
        EmbeddedMeta::over((file, opened), path, changes)
    }

    /// A copy in memory of the store in `directory`, which no process uses: the file stays as it is. Blocks.
    pub fn open_copy(directory: &Path) -> Result<EmbeddedMeta, OpenError> {
        let path = directory.join(FILE_NAME);
        EmbeddedMeta::over(File::open_copy(&path)?, path, HISTORY_CHANGES)
    }

    fn over(
        (file, opened): (File, file::Opened),
        path: std::path::PathBuf,
        changes: usize,
    ) -> Result<EmbeddedMeta, OpenError> {
        let history = History::new(opened.revision, changes);
        let (requests, queue) = sync_channel(QUEUE);
        let counts: Arc<MetaCounts> = Arc::default();
        let server = Server {
            queue,
            file: Some(file),
            path,
            cluster_id: opened.cluster_id,
            history: history.clone(),
            counts: counts.clone(),
            leases: Leases::default(),
            unswept: true,
        };
        // A thread of the store's own, because redb's calls block on the disk.
        let thread =
            std::thread::Builder::new().name("metadata".to_owned()).spawn(move || server.run()).map_err(|e| {
                OpenError {
                    problem: format!("the metadata thread can't be started: {e}"),
                    fix: "raise the limit of threads (ulimit -u)".to_owned(),
                    source_error: None,
                }
            })?;
        Ok(EmbeddedMeta(Arc::new(Inner {
            cluster_id: opened.cluster_id,
            requests: Some(requests),
            history,
            counts,
            thread: Some(thread),
        })))
    }

    /// What was made durable since it was opened.
    pub fn counts(&self) -> Arc<MetaCounts> {
        self.0.counts.clone()
    }

    fn ask<T: 'static>(&self, make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request) -> StoreFuture<T> {
        let (answer, answered) = oneshot::channel();
        let requests = self.0.requests.as_ref().expect("taken only when the last handle drops");
        match requests.try_send(make(answer)) {
            Ok(()) => Box::pin(async move {
                answered.await.unwrap_or_else(|oneshot::Canceled| {
                    Err(StoreError::unknown(FailureKind::Unavailable, "the metadata thread ended"))
                })
            }),
            Err(TrySendError::Full(_)) => {
                refuse(FailureKind::Throttled, format!("{QUEUE} requests wait for the metadata store"))
            }
            Err(TrySendError::Disconnected(_)) => {
                refuse(FailureKind::Unavailable, "the metadata thread ended".to_owned())
            }
        }
    }
}

fn refuse<T: 'static>(kind: FailureKind, detail: String) -> StoreFuture<T> {
    Box::pin(futures::future::ready(Err(StoreError::not_done(kind, detail))))
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has aborted the process or failed the test already.
            let _ = thread.join();
        }
    }
}

impl MetaStore for EmbeddedMeta {
    fn cluster_id(&self) -> StoreFuture<uuid::Uuid> {
        Box::pin(futures::future::ready(Ok(self.0.cluster_id)))
    }
    fn txn(&self, txn: Txn) -> StoreFuture<TxnOutcome> {
        match apply::check(&txn) {
            Ok(()) => self.ask(|answer| Request::Txn(txn, answer)),
            Err(refused) => Box::pin(futures::future::ready(Err(refused))),
        }
    }
    fn get(&self, keys: Vec<Key>) -> StoreFuture<Snapshot> {
        match apply::check_get(&keys) {
            Ok(()) => self.ask(|answer| Request::Get(keys, answer)),
            Err(refused) => Box::pin(futures::future::ready(Err(refused))),
        }
    }
    fn list(&self, prefix: &str, after: Option<Key>, limit: usize) -> StoreFuture<Page> {
        let prefix = prefix.to_owned();
        self.ask(|answer| Request::List { prefix, after, limit, answer })
    }
    fn watch(&self, prefix: &str, after: Revision) -> WatchStream {
        self.0.history.watch(prefix, after).boxed_local()
    }
    fn grant(&self, ttl: Duration) -> StoreFuture<Lease> {
        self.ask(|answer| Request::Grant(ttl, answer))
    }
    fn keep_alive(&self, lease: LeaseId) -> StoreFuture<KeptAlive> {
        self.ask(|answer| Request::KeepAlive(lease, answer))
    }
    fn revoke(&self, lease: LeaseId) -> StoreFuture<()> {
        self.ask(|answer| Request::Revoke(lease, answer))
    }
}

/// The thread's side.
struct Server {
    queue: Receiver<Request>,
    /// `None` after a failure, until the next request opens it again.
    file: Option<File>,
    path: std::path::PathBuf,
    cluster_id: uuid::Uuid,
    history: History,
    counts: Arc<MetaCounts>,
    leases: Leases,
    /// A lease has ended, and the file may still have its keys.
    unswept: bool,
}

/// An answer that waits for the group's commit.
enum Decided {
    Txn(Result<TxnOutcome, StoreError>, oneshot::Sender<Result<TxnOutcome, StoreError>>),
    Get(Snapshot, oneshot::Sender<Result<Snapshot, StoreError>>),
    List(Page, oneshot::Sender<Result<Page, StoreError>>),
    Grant(Lease, oneshot::Sender<Result<Lease, StoreError>>),
    KeepAlive(KeptAlive, oneshot::Sender<Result<KeptAlive, StoreError>>),
    Revoke(oneshot::Sender<Result<(), StoreError>>),
}

impl Server {
    fn run(mut self) {
        loop {
            // Before the first request: what the leases of the last life held.
            self.unswept |= self.leases.end_due(monotonic_now());
            if self.unswept {
                self.serve(Vec::new());
            }
            match self.next() {
                Ok(first) => {
                    let mut group = vec![first];
                    while group.len() < GROUP
                        && let Ok(next) = self.queue.try_recv()
                    {
                        group.push(next);
                    }
                    self.serve(group);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.history.close();
    }

    /// Waits for a request, or until a lease is due.
    fn next(&self) -> Result<Request, RecvTimeoutError> {
        let due = self.leases.next_due().map(|due| due.since(monotonic_now()));
        let again = self.unswept.then_some(SWEEP_AGAIN_AFTER);
        match due.into_iter().chain(again).min() {
            Some(wait) => self.queue.recv_timeout(wait),
            None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Answers every request of the group.
    fn serve(&mut self, group: Vec<Request>) {
        if let Err(error) = self.reopen() {
            group.into_iter().for_each(|request| request.fail(&error));
            return;
        }
        let file = self.file.as_ref().expect("just opened");
        let mut waiting = group.into_iter();
        let mut decided = Vec::with_capacity(waiting.len());
        let mut changed = Vec::new();
        self.unswept |= self.leases.end_due(monotonic_now());
        let mut leases = GroupLeases { leases: &mut self.leases, unswept: self.unswept };
        let outcome = decide(file, &mut leases, &mut waiting, &mut decided, &mut changed);
        // What a failed group swept is to be swept again.
        self.unswept = outcome.is_err();
        match outcome {
            Ok(()) => {
                if !changed.is_empty() {
                    self.counts.transactions.fetch_add(changed.len() as u64, Ordering::Relaxed);
                    self.counts.commits.fetch_add(1, Ordering::Relaxed);
                }
                changed.into_iter().for_each(|changes| self.history.push(changes));
                decided.into_iter().for_each(Decided::answer);
            }
            Err(error) => {
                // The kernel reports a failed write-back once and may forget the pages: what a second look at the file
                // shows need not be on disk. A restart reads what is.
                let is_certain = error.certainty == Certainty::NotDone || error.kind == FailureKind::Full;
                assert!(is_certain, "the disk failed while the metadata store made a commit durable: {error}");
                tracing::error!(%error, "the metadata store failed; it is opened again with the next request");
                decided.into_iter().for_each(|request| request.fail(&error));
                waiting.for_each(|request| request.fail(&StoreError::not_done(error.kind, error.detail.clone())));
                self.file = None;
            }
        }
    }

    /// Opens the file again after a failure.
    fn reopen(&mut self) -> Result<(), StoreError> {
        if self.file.is_some() {
            return Ok(());
        }
        let (file, opened) = File::open(self.path.clone(), self.cluster_id)
            .map_err(|e| StoreError::not_done(FailureKind::Unavailable, e.to_string()))?;
        if opened.cluster_id != self.cluster_id {
            return Err(StoreError::not_done(FailureKind::Corrupt, "another metadata store lies in its place"));
        }
        self.history.restart(opened.revision);
        self.file = Some(file);
        Ok(())
    }
}

/// The leases as a group of requests sees them.
struct GroupLeases<'a> {
    leases: &'a mut Leases,
    /// One has ended whose keys are to be deleted before the next request is decided.
    unswept: bool,
}

/// Decides the requests of `waiting` in order and commits. On an error, what is in `decided` has an unknown outcome and
/// what is left in `waiting` was not begun; the request at which it failed counts as decided. A lease that was ended
/// stays so: the next group deletes its keys.
fn decide(
    file: &File,
    leases: &mut GroupLeases<'_>,
    waiting: &mut std::vec::IntoIter<Request>,
    decided: &mut Vec<Decided>,
    changed: &mut Vec<Vec<Change>>,
) -> Result<(), StoreError> {
    let mut group = file.begin()?;
    {
        let mut keys = group.keys()?;
        sweep(&mut keys, leases, changed)?;
        for request in waiting {
            let one = decide_one(&mut keys, leases.leases, changed, request)?;
            if matches!(one, Decided::Revoke(_)) {
                leases.unswept = true;
            }
            decided.push(one);
            sweep(&mut keys, leases, changed)?;
        }
        keys.store_revision()?;
    }
    if changed.is_empty() { group.abort() } else { group.commit() }
}

/// Deletes the keys of leases that have ended.
fn sweep(keys: &mut Keys<'_>, leases: &mut GroupLeases<'_>, changed: &mut Vec<Vec<Change>>) -> Result<(), StoreError> {
    if !leases.unswept {
        return Ok(());
    }
    let next = Revision(keys.revision.0 + 1);
    let changes = apply::sweep(keys, leases.leases, next)?;
    if !changes.is_empty() {
        keys.revision = next;
        changed.push(changes);
    }
    leases.unswept = false;
    Ok(())
}

/// Decides one request; on an error it was told so.
fn decide_one(
    keys: &mut Keys<'_>,
    leases: &mut Leases,
    changed: &mut Vec<Vec<Change>>,
    request: Request,
) -> Result<Decided, StoreError> {
    Ok(match request {
        Request::Txn(txn, answer) => {
            if let Err(refused) = apply::check_leases(&txn, leases) {
                return Ok(Decided::Txn(Err(refused), answer));
            }
            match run_txn(keys, &txn, changed) {
                Ok(outcome) => Decided::Txn(Ok(outcome), answer),
                Err(error) => return Err(fail_one(answer, error)),
            }
        }
        Request::Get(names, answer) => match keys.snapshot(&names) {
            Ok(snapshot) => Decided::Get(snapshot, answer),
            Err(error) => return Err(fail_one(answer, error)),
        },
        Request::List { prefix, after, limit, answer } => match keys.page(&prefix, after.as_deref(), limit) {
            Ok(page) => Decided::List(page, answer),
            Err(error) => return Err(fail_one(answer, error)),
        },
        Request::Grant(ttl, answer) => Decided::Grant(leases.grant(ttl, Some(monotonic_now())), answer),
        Request::KeepAlive(id, answer) => Decided::KeepAlive(leases.keep_alive(id, Some(monotonic_now())), answer),
        Request::Revoke(id, answer) => {
            leases.end(id);
            Decided::Revoke(answer)
        }
    })
}

fn run_txn(keys: &mut Keys<'_>, txn: &Txn, changed: &mut Vec<Vec<Change>>) -> Result<TxnOutcome, StoreError> {
    let next = Revision(keys.revision.0 + 1);
    Ok(match apply::apply(keys, txn, next)? {
        Applied::Conflict => TxnOutcome::Conflict(keys.revision),
        Applied::Unchanged => TxnOutcome::Committed(keys.revision),
        Applied::Changed(changes) => {
            keys.revision = next;
            changed.push(changes);
            TxnOutcome::Committed(next)
        }
    })
}

fn fail_one<T>(answer: oneshot::Sender<Result<T, StoreError>>, error: StoreError) -> StoreError {
    // The asker may be gone.
    let _ = answer.send(Err(error.clone()));
    error
}

impl Request {
    fn fail(self, error: &StoreError) {
        match self {
            Request::Txn(_, answer) => drop(answer.send(Err(error.clone()))),
            Request::Get(_, answer) => drop(answer.send(Err(error.clone()))),
            Request::List { answer, .. } => drop(answer.send(Err(error.clone()))),
            Request::Grant(_, answer) => drop(answer.send(Err(error.clone()))),
            Request::KeepAlive(_, answer) => drop(answer.send(Err(error.clone()))),
            Request::Revoke(_, answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}

impl Decided {
    fn answer(self) {
        match self {
            Decided::Txn(outcome, answer) => drop(answer.send(outcome)),
            Decided::Get(snapshot, answer) => drop(answer.send(Ok(snapshot))),
            Decided::List(page, answer) => drop(answer.send(Ok(page))),
            Decided::Grant(lease, answer) => drop(answer.send(Ok(lease))),
            Decided::KeepAlive(kept, answer) => drop(answer.send(Ok(kept))),
            Decided::Revoke(answer) => drop(answer.send(Ok(()))),
        }
    }

    fn fail(self, error: &StoreError) {
        match self {
            Decided::Txn(_, answer) => drop(answer.send(Err(error.clone()))),
            Decided::Get(_, answer) => drop(answer.send(Err(error.clone()))),
            Decided::List(_, answer) => drop(answer.send(Err(error.clone()))),
            Decided::Grant(_, answer) => drop(answer.send(Err(error.clone()))),
            Decided::KeepAlive(_, answer) => drop(answer.send(Err(error.clone()))),
            Decided::Revoke(answer) => drop(answer.send(Err(error.clone()))),
        }
    }
}
