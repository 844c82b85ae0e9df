//! Blocks of segments on the local disk: the second level under the blocks in memory, of one shard, where configured.
//!
//! Invariants:
//! 1. It is never an error: what is not there, torn, of another store or not readable is loaded from the store.
//! 2. The file's bytes are bounded by its [`Shape`], what the table in memory takes by the caller ([`entries_bytes`]).
//! 3. Files are touched beside the shard's thread only ([`Env::aside`]), by at most [`READS`] reads and [`WRITES`] writes at
//!    once. What can't be written now is not written: it was read once, and may be again.
//! 4. A slot is written by one write at a time, and its block is found only once that has ended. A read that meets a
//!    write into its slot finds another checksum.
//! 5. After a write that failed, as on a full disk, nothing is written any more until the next start; what is there is
//!    read on.

use super::cache::{Cache, OVERHEAD_BYTES};
use super::disk_file::{BlockFile, BlockKey, Kept, Shape};
use crate::net::budget::Budget;
use bytes::Bytes;
use millrace_storage::env::Env;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Reads at once.
const READS: usize = 8;
/// Writes at once, each of which keeps a block in memory.
const WRITES: usize = 4;

/// Where a shard keeps blocks.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// The file.
    pub path: PathBuf,
    /// How it is divided.
    pub shape: Shape,
    /// Address of the store that the blocks are from.
    pub store: String,
}

/// Bytes of memory that the table of so many slots takes.
pub fn entries_bytes(slots: u32) -> usize {
    slots as usize * OVERHEAD_BYTES
}

/// What has come of it so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskTotals {
    /// Blocks given.
    pub hits: u64,
    /// Blocks written.
    pub writes: u64,
    /// Blocks that were not what the table said, or could not be read.
    pub damaged: u64,
    /// Blocks not written because as many as may be were being written.
    pub skipped: u64,
    /// 1 once nothing is written any more, or if the file could not be opened.
    pub stopped: u64,
}

/// The blocks of one shard.
pub struct DiskBlocks {
    env: Env,
    path: PathBuf,
    file: RefCell<Option<Arc<BlockFile>>>,
    slots: RefCell<Slots>,
    reads: Budget,
    writing: Cell<usize>,
    totals: Cell<DiskTotals>,
}

/// Which slot holds what.
struct Slots {
    kept: Cache<BlockKey, Kept>,
    free: Vec<u32>,
}

impl Slots {
    fn new(slots: u32, kept: Vec<(BlockKey, Kept)>) -> Slots {
        let mut taken = vec![false; slots as usize];
        let mut cache = Cache::new(usize::MAX, usize::MAX);
        for (key, kept) in kept {
            // The same block twice: written anew after its first copy was found torn. Either will do.
            if !cache.contains(&key) {
                taken[kept.slot as usize] = true;
                cache.insert(key, kept, 0);
            }
        }
        Slots { kept: cache, free: (0..slots).rev().filter(|slot| !taken[*slot as usize]).collect() }
    }

    /// A slot to write into: a free one, else that of the block used least recently, which is not found any more.
    fn reserve(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| self.kept.take_oldest().map(|(_, kept)| kept.slot))
    }

    /// Forgets a block that is not what it should be.
    fn forget(&mut self, key: &BlockKey, what: Kept) {
        if self.kept.get(key) == Some(what) {
            self.kept.remove(key);
            self.free.push(what.slot);
        }
    }
}

impl DiskBlocks {
    /// Opens the file beside the shard's thread; until that has happened nothing is found and nothing kept.
    pub fn open(env: &Env, plan: DiskPlan) -> Rc<DiskBlocks> {
        let blocks = Rc::new(DiskBlocks {
            env: env.clone(),
            path: plan.path.clone(),
            file: RefCell::new(None),
            slots: RefCell::new(Slots::new(0, Vec::new())),
            reads: Budget::new(READS),
            writing: Cell::new(0),
            totals: Cell::default(),
        });
        let opening = blocks.clone();
        env.spawn("open blocks on disk", async move {
            let DiskPlan { path, shape, store } = plan;
            let opened = opening.env.aside(move || BlockFile::open(&path, shape, &store)).await;
            match opened {
                Ok((file, kept)) => {
                    opening.slots.replace(Slots::new(shape.slots, kept));
                    opening.file.replace(Some(Arc::new(file)));
                }
                Err(error) => opening.stop(&error),
            }
        });
        blocks
    }

    /// The block, if it is here, whole and of `length` bytes.
    pub async fn read(&self, key: &BlockKey, length: u64) -> Option<Bytes> {
        let file = self.file.borrow().clone()?;
        let kept = self.slots.borrow_mut().kept.get(key)?;
        let _place = self.reads.take(1).await;
        let read = self.env.aside(move || file.read(kept)).await;
        match read {
            Ok(Some(bytes)) if bytes.len() as u64 == length => {
                self.count(|totals| totals.hits += 1);
                Some(bytes.into())
            }
            Ok(_) | Err(_) => {
                self.slots.borrow_mut().forget(key, kept);
                self.count(|totals| totals.damaged += 1);
                None
            }
        }
    }

    /// Keeps a block that was loaded, if that can be begun now.
    pub fn keep(self: &Rc<Self>, key: BlockKey, bytes: Bytes) {
        if self.totals.get().stopped > 0 {
            return;
        }
        let Some(file) = self.file.borrow().clone() else { return };
        if self.slots.borrow().kept.contains(&key) {
            return;
        }
        if self.writing.get() == WRITES {
            return self.count(|totals| totals.skipped += 1);
        }
        let Some(slot) = self.slots.borrow_mut().reserve() else { return };
        self.writing.set(self.writing.get() + 1);
        let blocks = self.clone();
        self.env.spawn("keep block", async move {
            let wrote = blocks.env.aside(move || file.write(slot, &key, &bytes)).await;
            blocks.writing.set(blocks.writing.get() - 1);
            match wrote {
                Ok(kept) => {
                    let mut slots = blocks.slots.borrow_mut();
                    if slots.kept.contains(&key) {
                        slots.free.push(slot);
                    } else {
                        slots.kept.insert(key, kept, 0);
                    }
                    blocks.count(|totals| totals.writes += 1);
                }
                Err(error) => blocks.stop(&error),
            }
        });
    }

    /// What has come of it so far.
    pub fn totals(&self) -> DiskTotals {
        self.totals.get()
    }

    fn count(&self, add: impl FnOnce(&mut DiskTotals)) {
        let mut totals = self.totals.get();
        add(&mut totals);
        self.totals.set(totals);
    }

    fn stop(&self, error: &io::Error) {
        if self.totals.get().stopped == 0 {
            let path = self.path.display();
            tracing::warn!(%path, %error, "blocks of segments are not kept on this disk any more until the next start");
        }
        self.count(|totals| totals.stopped = 1);
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
