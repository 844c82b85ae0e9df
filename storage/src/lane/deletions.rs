//! Deletions of a lane, beside its core: nothing waits for them.
//!
//! 1. What could not be deleted is tried again with the next deletion of its kind: write-ahead objects because each covers
//!    what lies below it, checkpoints because their keys are kept, [`MOST_KEPT`] at most. What is beyond that goes with its log
//!    once that is sealed and collected.
//! 2. Since when anything waits is told.

use super::counters::{LaneCells, Undeleted};
use crate::env::{Env, WallMs};
use crate::ids::{Seq, Wid};
use crate::object::ObjectStore;
use crate::wal::WalStore;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Keys that are remembered because they could not be deleted.
const MOST_KEPT: usize = 4_096;

/// What could not be deleted.
pub(super) struct Deletions {
    cells: Arc<LaneCells>,
    left: Rc<RefCell<Left>>,
}

#[derive(Default)]
struct Left {
    /// Since when a deletion of write-ahead objects has failed: by log, since none succeeded after it.
    objects: BTreeMap<Wid, WallMs>,
    /// Checkpoints and chunks, since when.
    checkpoints: BTreeMap<String, WallMs>,
}

fn tell<K>(to: &Undeleted, left: &BTreeMap<K, WallMs>) {
    to.set(left.values().min().copied());
}

impl Deletions {
    /// Nothing is left; `cells` are told.
    pub(super) fn new(cells: Arc<LaneCells>) -> Deletions {
        Deletions { cells, left: Rc::default() }
    }

    /// Deletes the write-ahead objects of a log below a sequence.
    pub(super) fn objects(&self, env: &Env, wal: &Rc<dyn WalStore>, wid: Wid, below: Seq) {
        let (cells, left, since) = (Arc::clone(&self.cells), Rc::clone(&self.left), env.wall());
        let delete = wal.delete_below(wid, below);
        env.spawn("delete below the low-water mark", async move {
            let result = delete.await;
            let mut left = left.borrow_mut();
            let left = &mut left.objects;
            // A log that this lane has left is collected by others.
            left.retain(|other, _| *other == wid);
            match result {
                Ok(()) => drop(left.remove(&wid)),
                Err(error) => {
                    left.entry(wid).or_insert(since);
                    tracing::info!(%error, "a deletion failed; a later one covers it");
                }
            }
            tell(&cells.objects, left);
        });
    }

    /// Deletes old checkpoints and chunks, and what is left of earlier ones.
    pub(super) fn checkpoints(&self, env: &Env, objects: &Rc<dyn ObjectStore>, keys: Vec<String>) {
        let (cells, left) = (Arc::clone(&self.cells), Rc::clone(&self.left));
        let mut waiting: BTreeMap<String, WallMs> = std::mem::take(&mut left.borrow_mut().checkpoints);
        waiting.extend(keys.into_iter().map(|key| (key, env.wall())));
        let delete = objects.delete(waiting.keys().cloned().collect());
        env.spawn("delete old checkpoints", async move {
            let result = delete.await;
            let mut left = left.borrow_mut();
            let left = &mut left.checkpoints;
            if let Err(error) = result {
                let room = MOST_KEPT.saturating_sub(left.len());
                left.extend(waiting.into_iter().take(room));
                tracing::info!(%error, "old checkpoints could not be deleted; it is tried again with the next");
            }
            tell(&cells.checkpoints, left);
        });
    }
}
