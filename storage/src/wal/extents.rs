//! Write-ahead logs on the local disk: objects as frames in extents, files of some tens of MiB (PROTOCOL.md section 6).
//!
//! One thread per process writes ([`writer`]): it takes the puts that wait, appends them with one write per log, and
//! with fsync on syncs once for all of them (group commit). Where objects lie is held in memory, which also decides
//! put-if-absent; one process owns the directory (the caller holds its lock). Reads go to the blocking pool.
//!
//! [`frame`] are the bytes, [`scan`] is what they mean after a crash, [`files`] the seam to the file system under which
//! the simulator loses what was not synced.

pub mod files;
mod frame;
mod read_only;
mod scan;
#[cfg(any(test, feature = "sim"))]
pub mod simulated;
mod writer;

pub use frame::ExtentName;

use super::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, Wid};
use crate::object::{OpenError, cut};
use crate::side::{SideRuntime, thread};
use crate::store_error::{Certainty, FailureKind, StoreError};
use bytes::Bytes;
use files::{DirectoryFiles, ExtentFiles};
use futures::channel::oneshot;
use futures::future::ready;
use read_only::ReadOnlyFiles;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use writer::{Put, Writer, lock, sync_all};

/// Jobs that may wait for the writer; one more is refused. A lane has at most a few dozen.
const QUEUE: usize = 1_024;
/// Puts of one group.
const GROUP_PUTS: usize = 64;
/// A group takes no further put beyond this size.
const GROUP_BYTES: usize = 64 << 20;

/// The logs under one directory. Clones share them; it is its own handle on every thread.
#[derive(Clone)]
pub struct ExtentWal {
    files: Arc<dyn ExtentFiles>,
    index: Arc<Mutex<Index>>,
    drive: Drive,
}

/// Who runs the blocking calls.
#[derive(Clone)]
enum Drive {
    /// A writer thread, and the blocking pool for reads.
    Threads { queue: SyncSender<Job>, side: SideRuntime },
    /// The caller, at once: for simulated files.
    Inline(Arc<Mutex<Writer>>),
}

/// Bytes of an extent that were cut off at start-up: a write that had not ended when the process or the power did.
/// With fsync on nobody was told that they were stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped {
    /// The extent.
    pub name: ExtentName,
    /// Where it was cut.
    pub position: u64,
    /// How many bytes went.
    pub bytes: u64,
}

/// Where every object lies.
#[derive(Default)]
struct Index {
    logs: BTreeMap<Wid, BTreeMap<Seq, Place>>,
}

/// Where one object lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    extent: u32,
    body: u32,
    length: u32,
}

impl Place {
    fn bytes(&self) -> Range<u64> {
        u64::from(self.body)..u64::from(self.body) + u64::from(self.length)
    }
}

impl Index {
    fn place(&self, wid: Wid, seq: Seq) -> Option<Place> {
        self.logs.get(&wid)?.get(&seq).copied()
    }
    fn holds(&self, wid: Wid, seq: Seq) -> bool {
        self.place(wid, seq).is_some()
    }
}

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

enum Job {
    Put(Put, Answer<PutOutcome>),
    Change(Change, Answer<()>),
    /// What of the log below the sequence is not on disk yet.
    UnsyncedBelow(Wid, Seq, Answer<Vec<(ExtentName, u64)>>),
}

enum Change {
    NoteSynced(Vec<(ExtentName, u64)>),
    DeleteBelow(Wid, Seq),
    RetainOnlyFence(Wid, Seq),
}

impl ExtentWal {
    /// The same logs, read by [`SideRuntime::giving_way`].
    #[must_use]
    pub fn giving_way(&self) -> ExtentWal {
        let drive = match &self.drive {
            Drive::Threads { queue, side } => Drive::Threads { queue: queue.clone(), side: side.giving_way() },
            Drive::Inline(writer) => Drive::Inline(writer.clone()),
        };
        ExtentWal { drive, ..self.clone() }
    }

    /// Opens the logs under `root` and starts their writer. With `fsync` a stored object is on disk, without it survives
    /// this process. Also says what was cut off: at most what was not yet acknowledged with fsync on, else perhaps more.
    pub fn open(root: &Path, fsync: bool, side: &SideRuntime) -> Result<(ExtentWal, Vec<Dropped>), OpenError> {
        let unusable = |problem: String| {
            let problem = format!("the write-ahead directory {} can't be used: {problem}", root.display());
            OpenError::new(problem, "give this process write access to it and room on its disk")
        };
        let files: Arc<dyn ExtentFiles> =
            Arc::new(DirectoryFiles::open(root).map_err(|error| unusable(error.to_string()))?);
        let index = Arc::new(Mutex::new(Index::default()));
        let (writer, dropped) = Writer::open(files.clone(), fsync, index.clone()).map_err(|error| {
            let damaged = error.kind == FailureKind::Corrupt;
            let fix =
                "restore the directory from a copy, or start with another one: bytes that were on disk have changed";
            let open_error = unusable(error.detail.clone());
            OpenError {
                fix: if damaged { fix.to_owned() } else { open_error.fix.clone() },
                source_error: Some(error),
                ..open_error
            }
        })?;
        let (queue, jobs) = sync_channel(QUEUE);
        thread("wal-writer".to_owned(), move || write(writer, &jobs)).map_err(|error| unusable(error.to_string()))?;
        let drive = Drive::Threads { queue, side: side.clone() };
        Ok((ExtentWal { files, index, drive }, dropped))
    }

    /// Opens the logs in `files`; every call blocks until it is done. For simulated files.
    pub fn inline(files: Arc<dyn ExtentFiles>, fsync: bool) -> Result<(ExtentWal, Vec<Dropped>), StoreError> {
        let index = Arc::new(Mutex::new(Index::default()));
        let (writer, dropped) = Writer::open(files.clone(), fsync, index.clone())?;
        Ok((ExtentWal { files, index, drive: Drive::Inline(Arc::new(Mutex::new(writer))) }, dropped))
    }

    /// Opens the logs under `root`, which is there, for reading: nothing of it changes, puts fail, deletions do nothing.
    /// Calls block. Also says what a process that starts would cut off.
    pub fn open_read_only(root: &Path) -> Result<(ExtentWal, Vec<Dropped>), StoreError> {
        let files = DirectoryFiles::existing(root);
        ExtentWal::inline(Arc::new(ReadOnlyFiles(files)), false)
    }

    fn change(&self, change: Change) -> StoreFuture<()> {
        match &self.drive {
            Drive::Inline(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                Box::pin(ready(apply(&mut writer, change)))
            }
            Drive::Threads { queue, .. } => enqueue(queue, |answer| Job::Change(change, answer)),
        }
    }

    /// Reads the part of the object that `range` makes of its size.
    fn part(
        &self,
        wid: Wid,
        seq: Seq,
        range: impl FnOnce(u64) -> Range<u64> + Send + 'static,
    ) -> StoreFuture<Option<Suffix>> {
        let Some(place) = lock(&self.index).place(wid, seq) else { return Box::pin(ready(Ok(None))) };
        let files = self.files.clone();
        let read = move || {
            let size = u64::from(place.length);
            let range = cut(range(size), size);
            let start = place.bytes().start;
            match files.read(ExtentName { wid, index: place.extent }, start + range.start..start + range.end) {
                Ok(bytes) => Ok(Some(Suffix { size, bytes })),
                // Deleted since the look into the index.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(StoreError::from_io(Certainty::NotDone, "reading an object", &error)),
            }
        };
        match &self.drive {
            Drive::Inline(_) => Box::pin(ready(read())),
            Drive::Threads { side, .. } => Box::pin(side.reading(read)),
        }
    }
}

/// Gives the writer a job; refused when too many wait.
fn enqueue<T: Send + 'static>(queue: &SyncSender<Job>, job: impl FnOnce(Answer<T>) -> Job) -> StoreFuture<T> {
    let (answer, result) = oneshot::channel();
    match queue.try_send(job(answer)) {
        Ok(()) => Box::pin(async move { result.await.expect("the writer answers every job or ends the process") }),
        Err(TrySendError::Full(_)) => {
            let refused = StoreError::not_done(FailureKind::Throttled, "too many writes wait for the disk");
            Box::pin(ready(Err(refused)))
        }
        Err(TrySendError::Disconnected(_)) => {
            unreachable!("the writer lives as long as a handle, or ended the process")
        }
    }
}

/// The writer's thread: ends with the last handle.
fn write(mut writer: Writer, jobs: &Receiver<Job>) {
    let mut held = None;
    while let Some(first) = held.take().or_else(|| jobs.recv().ok()) {
        let (put, answer) = match first {
            Job::Put(put, answer) => (put, answer),
            // Nobody may wait any longer; what was asked for is done all the same.
            Job::Change(change, answer) => {
                let _ = answer.send(apply(&mut writer, change));
                continue;
            }
            Job::UnsyncedBelow(wid, below, answer) => {
                let _ = answer.send(Ok(writer.unsynced_below(wid, below)));
                continue;
            }
        };
        let mut bytes = size_of_put(&put);
        let (mut puts, mut answers) = (vec![put], vec![answer]);
        while puts.len() < GROUP_PUTS && bytes < GROUP_BYTES {
            match jobs.try_recv() {
                Ok(Job::Put(put, answer)) => {
                    bytes += size_of_put(&put);
                    puts.push(put);
                    answers.push(answer);
                }
                Ok(other) => {
                    held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        for (answer, outcome) in answers.into_iter().zip(writer.put_group(&puts)) {
            let _ = answer.send(outcome);
        }
    }
}

fn size_of_put(put: &Put) -> usize {
    put.slices.iter().map(Bytes::len).sum()
}

fn apply(writer: &mut Writer, change: Change) -> Result<(), StoreError> {
    match change {
        Change::NoteSynced(extents) => {
            writer.note_synced(&extents);
            Ok(())
        }
        Change::DeleteBelow(wid, below) => writer.delete_below(wid, below),
        Change::RetainOnlyFence(wid, end) => writer.retain_only_fence(wid, end),
    }
}

impl WalStore for ExtentWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        let put = Put { wid, seq, slices };
        match &self.drive {
            Drive::Inline(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                let outcome = writer.put_group(&[put]).pop().expect("one answer per put");
                Box::pin(ready(outcome))
            }
            Drive::Threads { queue, .. } => enqueue(queue, |answer| Job::Put(put, answer)),
        }
    }

    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.read(wid, seq, 0..HEADER_BYTES as u64)
    }

    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        let part = self.part(wid, seq, |_| range);
        Box::pin(async move { Ok(part.await?.map(|part| part.bytes)) })
    }

    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        self.part(wid, seq, move |size| size.saturating_sub(length)..size)
    }

    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        let index = lock(&self.index);
        let listed = |(seq, place): (&Seq, &Place)| Listed { seq: *seq, size: u64::from(place.length) };
        let objects = index.logs.get(&wid).map(|objects| objects.range(from..).map(listed).collect());
        Box::pin(ready(Ok(objects.unwrap_or_default())))
    }

    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        let index = lock(&self.index);
        let wids = index.logs.iter().filter(|(_, objects)| !objects.is_empty()).map(|(wid, _)| *wid).collect();
        Box::pin(ready(Ok(wids)))
    }

    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.change(Change::DeleteBelow(wid, below))
    }

    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        self.change(Change::RetainOnlyFence(wid, end))
    }

    fn sync_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        let files = self.files.clone();
        match &self.drive {
            Drive::Inline(writer) => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                let extents = writer.unsynced_below(wid, below);
                sync_all(&*files, &extents);
                writer.note_synced(&extents);
                Box::pin(ready(Ok(())))
            }
            // Not on the writer's thread: without fsync, puts would wait for the disk then.
            Drive::Threads { queue, side } => {
                let (queue, side) = (queue.clone(), side.clone());
                let asked = enqueue(&queue, |answer| Job::UnsyncedBelow(wid, below, answer));
                Box::pin(async move {
                    let extents = asked.await?;
                    if extents.is_empty() {
                        return Ok(());
                    }
                    let synced = side.blocking(move || {
                        sync_all(&*files, &extents);
                        extents
                    });
                    let synced = synced.await;
                    enqueue(&queue, |answer| Job::Change(Change::NoteSynced(synced), answer)).await
                })
            }
        }
    }
}

#[cfg(test)]
#[path = "extents/crash_tests.rs"]
mod crash_tests;
