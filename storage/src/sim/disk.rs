//! Write-ahead logs in local extents, on a disk that dies in the middle of writes and loses what was not synced.
//!
//! Every change is reflected in a [`SimBucket`], so that observers and checkers see one truth whatever the store: an
//! object that a crash tore away is a deletion to them, and a finding if anybody knew of it.
//!
//! A sync that fails ends the process by design (`wal/extents/writer.rs`): here the panic that says so kills the simulated
//! process. Any other panic is passed on, and so a finding.

use super::bucket::SimBucket;
use super::executor::Sim;
use crate::ids::{Seq, Wid};
use crate::store_error::StoreError;
use crate::wal::extents::ExtentWal;
use crate::wal::extents::simulated::SimulatedFiles;
use crate::wal::{Listed, PutOutcome, StoreFuture, Suffix, WalStore};
use bytes::Bytes;
use futures::FutureExt;
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

/// Longest time of one call, either way.
const CALL: Duration = Duration::from_millis(4);
/// A disk that fills up takes at most this many bytes more.
const FULL_WITHIN: u64 = 4_000;
/// A write that dies does so within this many bytes.
const DIES_WITHIN: u64 = 20_000;

/// The disk of one machine, with fsync on. A clone is another handle.
#[derive(Clone)]
pub struct SimDisk {
    sim: Sim,
    files: Arc<SimulatedFiles>,
    mirror: SimBucket,
}

impl SimDisk {
    /// An empty disk, reflected in `mirror` under `wal/`.
    pub fn new(sim: &Sim, mirror: &SimBucket) -> SimDisk {
        SimDisk { sim: sim.clone(), files: Arc::new(SimulatedFiles::new()), mirror: mirror.clone() }
    }

    /// After some more bytes every write fails, the one under way in its middle, until the process is started again.
    pub fn dies_soon(&self) {
        self.files.die_after(self.sim.dice(|d| d.below(0..DIES_WITHIN)));
    }

    /// After some more bytes nothing fits, until [`SimDisk::make_room`].
    pub fn fill(&self) {
        self.files.limit_room(Some(self.sim.dice(|d| d.below(0..FULL_WITHIN))));
    }

    /// Everything fits again.
    pub fn make_room(&self) {
        self.files.limit_room(None);
    }

    /// The next sync of the process fails, which ends it.
    pub fn next_sync_fails(&self) {
        self.files.fail_next_sync();
    }

    /// Starts after the process before, or the power, has gone: what its life left is read as at any start.
    ///
    /// # Panics
    /// If a crash leaves what the code takes for damage.
    pub fn open(&self, power_failed: bool) -> SimLocalWal {
        if power_failed {
            self.files.power_failure(&mut |bound| self.sim.dice(|d| d.below(0..bound)));
        } else {
            self.files.restart();
            // What a failed sync left in memory only may be gone although the power was not.
            if self.files.failed_syncs() > 0 && self.sim.dice(|d| d.index(2)) == 0 {
                self.files.evict();
            }
        }
        let opened = ExtentWal::inline(self.files.clone(), true);
        let (wal, dropped) = opened.unwrap_or_else(|e| panic!("FINDING a crash is taken for damage: {e}"));
        self.sim.note(format_args!("disk: opened, {dropped:?} dropped"));
        let local = SimLocalWal { wal, disk: self.clone() };
        local.reflect_all();
        local
    }
}

impl SimDisk {
    /// What the call gave; `None` if a sync failed in it and ended the process that is being polled, or if one had in the
    /// same poll: what else that poll does is not done.
    fn unless_it_ends_the_process<T>(&self, call: impl FnOnce() -> StoreFuture<T>) -> Option<Result<T, StoreError>> {
        let (process, _) = self.sim.current_task().expect("a task of the process calls");
        if !self.sim.is_alive(process) {
            return None;
        }
        let before = self.files.failed_syncs();
        let result =
            catch_unwind(AssertUnwindSafe(|| call().now_or_never().expect("calls of simulated files do not wait")));
        match result {
            Ok(result) => Some(result),
            Err(panic) if self.files.failed_syncs() == before => resume_unwind(panic),
            Err(_) => {
                self.sim.note(format_args!("disk: a sync failed"));
                self.sim.kill(process);
                None
            }
        }
    }
}

/// The logs as one process life has them open. A clone shares them.
#[derive(Clone)]
pub struct SimLocalWal {
    wal: ExtentWal,
    disk: SimDisk,
}

fn at_once<T>(call: StoreFuture<T>) -> Option<T> {
    call.now_or_never().expect("calls of simulated files do not wait").ok()
}

impl SimLocalWal {
    fn objects_of(&self, wid: Wid) -> BTreeMap<String, Bytes> {
        let listed = at_once(self.wal.list(wid, Seq(0))).unwrap_or_default();
        let whole = |seq| at_once(self.wal.read(wid, seq, 0..u64::MAX)).flatten();
        listed.iter().filter_map(|one| Some((SimBucket::wal_key(wid, one.seq), whole(one.seq)?))).collect()
    }

    fn reflect_all(&self) {
        let wids = at_once(self.wal.list_wids()).unwrap_or_default();
        let all = wids.into_iter().flat_map(|wid| self.objects_of(wid)).collect();
        self.disk.mirror.reflect("wal/", &all);
    }

    /// Takes some time, does `call` at one instant, takes some more time. A process that dies in between never learns.
    fn timed<T: 'static>(&self, call: impl FnOnce(&SimLocalWal) -> StoreFuture<T> + 'static) -> StoreFuture<T> {
        let this = self.clone();
        Box::pin(async move {
            let sim = &this.disk.sim;
            let (before, after) =
                sim.dice(|d| (d.latency(&(Duration::ZERO..CALL)), d.latency(&(Duration::ZERO..CALL))));
            sim.sleep(before).await;
            let Some(result) = this.disk.unless_it_ends_the_process(|| call(&this)) else {
                return std::future::pending().await;
            };
            sim.sleep(after).await;
            result
        })
    }

    fn changing(&self, wid: Wid, call: impl FnOnce(&SimLocalWal) -> StoreFuture<()> + 'static) -> StoreFuture<()> {
        self.timed(move |this| {
            let done = call(this);
            this.disk.mirror.reflect(&format!("wal/{wid}/"), &this.objects_of(wid));
            done
        })
    }
}

impl WalStore for SimLocalWal {
    fn put_if_absent(&self, wid: Wid, seq: Seq, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.timed(move |this| {
            let done = this.wal.put_if_absent(wid, seq, slices);
            let key = SimBucket::wal_key(wid, seq);
            let stands = at_once(this.wal.read(wid, seq, 0..u64::MAX)).flatten();
            this.disk.mirror.reflect(&key, &stands.map(|bytes| (key.clone(), bytes)).into_iter().collect());
            done
        })
    }
    fn header(&self, wid: Wid, seq: Seq) -> StoreFuture<Option<Bytes>> {
        self.timed(move |this| this.wal.header(wid, seq))
    }
    fn read(&self, wid: Wid, seq: Seq, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        self.timed(move |this| this.wal.read(wid, seq, range))
    }
    fn suffix(&self, wid: Wid, seq: Seq, length: u64) -> StoreFuture<Option<Suffix>> {
        self.timed(move |this| this.wal.suffix(wid, seq, length))
    }
    fn list(&self, wid: Wid, from: Seq) -> StoreFuture<Vec<Listed>> {
        self.timed(move |this| this.wal.list(wid, from))
    }
    fn list_wids(&self) -> StoreFuture<Vec<Wid>> {
        self.timed(|this| this.wal.list_wids())
    }
    fn delete_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.changing(wid, move |this| this.wal.delete_below(wid, below))
    }
    fn retain_only_fence(&self, wid: Wid, end: Seq) -> StoreFuture<()> {
        self.changing(wid, move |this| this.wal.retain_only_fence(wid, end))
    }
    fn sync_below(&self, wid: Wid, below: Seq) -> StoreFuture<()> {
        self.timed(move |this| this.wal.sync_below(wid, below))
    }
}
