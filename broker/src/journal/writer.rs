//! Writes snapshots and marks. A mark is a snapshot without entries: it says that the metadata store had come so far, for
//! [`super::check`], and costs no listing.

use super::PREFIXES;
use super::reader::{find, last_given_out};
use bytes::Bytes;
use millrace_storage::env::Env;
use millrace_storage::format::snapshot::{SnapshotHead, SnapshotWriter, mark_key, snapshot_key};
use millrace_storage::meta::pages::Pages;
use millrace_storage::meta::{Compare, MetaStore, Op, Revision, Txn, TxnOutcome, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::recovery::Stores;
use millrace_storage::store_error::{FailureKind, StoreError};
use std::cell::Cell;
use std::rc::Rc;

/// Bytes of a snapshot at most: some four million committed offsets.
pub const MOST_BYTES: usize = 256 << 20;
/// Snapshots that collection leaves.
const KEPT: usize = 2;
/// Times that a number is asked for while others take theirs.
const TRIES: u32 = 20;

/// What tells two states of what is copied apart: a put raises the newest revision, a deletion alone leaves fewer keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Seen {
    keys: u64,
    newest: Revision,
}

/// What the clones of a [`Journal`] share.
#[derive(Default)]
struct State {
    /// The state that the last snapshot of this process holds.
    written: Cell<Option<Seen>>,
    /// A number that was given out and not used, since nothing had changed.
    reserved: Cell<Option<u64>>,
    /// The last mark of this process: the next one replaces it.
    marked: Cell<Option<u64>>,
}

/// A snapshot that was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Its number.
    pub number: u64,
    /// Keys in it.
    pub keys: u64,
    /// Its size.
    pub bytes: usize,
}

/// Writes the journal for one process. Clones share what was written.
#[derive(Clone)]
pub struct Journal {
    env: Env,
    meta: Rc<dyn MetaStore>,
    objects: Rc<dyn ObjectStore>,
    name: String,
    base: u64,
    state: Rc<State>,
}

impl Journal {
    /// The journal of the process `name`; `base`: the number before the first of the cluster's generation.
    pub fn new(env: &Env, stores: &Stores, name: &str, base: u64) -> Journal {
        let (meta, objects) = (stores.meta.clone(), stores.objects.clone());
        Journal { env: env.clone(), meta, objects, name: name.to_owned(), base, state: Rc::default() }
    }

    /// Writes a snapshot, unless nothing changed since this process wrote one. One who is `stopping` writes it anyhow, so
    /// that it is known how old it is.
    ///
    /// # Errors
    /// A store did not answer; the snapshot may be there all the same, or come to be.
    pub async fn snapshot(&self, stopping: bool) -> Result<Option<Written>, StoreError> {
        let number = self.number_for_snapshot().await?;
        let head = SnapshotHead { number, taken_at: self.env.wall(), writer: self.name.clone(), stopping };
        let mut writer = SnapshotWriter::new(&head);
        let mut seen = Seen::default();
        for prefix in PREFIXES {
            self.read(prefix, &mut writer, &mut seen).await?;
        }
        if !stopping && self.state.written.get() == Some(seen) {
            self.state.reserved.set(Some(number));
            return Ok(None);
        }
        let bytes = writer.finish();
        let written = Written { number, keys: seen.keys, bytes: bytes.len() };
        self.objects.put_own(&snapshot_key(number), vec![bytes]).await?;
        self.state.written.set(Some(seen));
        self.collect().await?;
        Ok(Some(written))
    }

    /// Leaves a mark: whoever starts on an older state of the metadata store than this one is refused.
    ///
    /// # Errors
    /// A store did not answer; the mark may be there all the same, or come to be.
    pub async fn mark(&self) -> Result<(), StoreError> {
        let number = self.next_number().await?;
        let head = SnapshotHead { number, taken_at: self.env.wall(), writer: self.name.clone(), stopping: false };
        self.objects.put_own(&mark_key(number), vec![SnapshotWriter::new(&head).finish()]).await?;
        match self.state.marked.replace(Some(number)) {
            Some(before) => self.objects.delete(vec![mark_key(before)]).await,
            None => Ok(()),
        }
    }

    async fn read(&self, prefix: &str, writer: &mut SnapshotWriter, seen: &mut Seen) -> Result<(), StoreError> {
        let mut pages = Pages::of(&*self.meta, prefix);
        while let Some(page) = pages.next_page().await? {
            for (key, found) in &page.entries {
                seen.keys += 1;
                seen.newest = seen.newest.max(found.modified);
                writer.push(key, &found.value);
            }
            if writer.bytes() > MOST_BYTES {
                let detail = format!("offsets and groups take more than {} MiB in the journal", MOST_BYTES >> 20);
                return Err(StoreError::not_done(FailureKind::Full, detail));
            }
        }
        Ok(())
    }

    /// One that was not used, if no other was given out since: else it might hold more than a greater number does.
    async fn number_for_snapshot(&self) -> Result<u64, StoreError> {
        if let Some(reserved) = self.state.reserved.take()
            && last_given_out(&*self.meta, self.base).await?.0 == reserved
        {
            return Ok(reserved);
        }
        self.next_number().await
    }

    /// The next number, this process's alone.
    async fn next_number(&self) -> Result<u64, StoreError> {
        for _ in 0..TRIES {
            let (last, value) = last_given_out(&*self.meta, self.base).await?;
            let key = keys::JOURNAL.to_owned();
            let compare = match value {
                Some(value) => Compare::Value(key.clone(), value),
                None => Compare::Absent(key.clone()),
            };
            let number = last + 1;
            let ops = vec![Op::Put(key, Bytes::from(number.to_string()))];
            if let TxnOutcome::Committed(_) = self.meta.txn(Txn { compares: vec![compare], ops }).await? {
                return Ok(number);
            }
        }
        Err(StoreError::not_done(FailureKind::Throttled, "others took every number of the journal"))
    }

    /// Deletes what newer objects stand for.
    async fn collect(&self) -> Result<(), StoreError> {
        let found = find(&*self.objects).await?;
        let (Some(newest), Some(oldest)) = (found.newest(), found.snapshots.iter().rev().nth(KEPT - 1)) else {
            return Ok(());
        };
        let is_kept = |number: u64| number == newest || (number >= *oldest && found.snapshots.contains(&number));
        let old: Vec<String> =
            found.objects.iter().filter(|(number, _)| !is_kept(*number)).map(|(_, key)| key.clone()).collect();
        if old.is_empty() { Ok(()) } else { self.objects.delete(old).await }
    }
}
