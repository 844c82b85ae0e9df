//! Reads a partition's records out of its segments: manifest, then index, then blocks of the segment's file, each from
//! a cache where possible, blocks also from the local disk. Runs on the shard's thread; the work of store and disk is
//! done elsewhere.
//!
//! 1. What is given is whole batches without a gap, beginning with the one that holds the offset asked for.
//! 2. An object that is gone was replaced or has expired: the manifest is read again, once. Gone again: damage, since
//!    every offset from log start to the covered bound is in a segment (PROTOCOL.md I8).
//! 3. At most [`GETS`] requests are under way. What they bring is bounded by who asks (the budget of reads) and, for
//!    what is loaded ahead, by half of the blocks' part of the cache.
//! 4. No batch is given to a fetch whose checksum is wrong; it is computed once for each time that its block is loaded.
//!    Searches check what they open.

use super::cache::Cache;
use super::disk::{DiskBlocks, DiskPlan, DiskTotals, entries_bytes};
use super::select::{Selection, Step, Wanted};
use super::shelf::{Load, Loaded, Shelf};
use super::window::{Block, Window};
use crate::net::budget::Budget;
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use millrace_protocol::record_set::RecordSet;
use millrace_protocol::records::HEADER_BYTES;
use millrace_storage::env::Env;
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName, manifest_key};
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::object::ObjectStore;
use millrace_storage::segment::{self, SegmentIndex};
use millrace_storage::store_error::{FailureKind, StoreError};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;

/// Requests to the store under way.
const GETS: usize = 32;
/// Segments that one read may go through: small ones follow each other where little is written.
const SEGMENTS_PER_READ: usize = 8;
/// Blocks that one read asks for at once. What more it needs follows.
const BLOCKS_AT_ONCE: usize = 16;
/// Blocks loaded ahead of a reader at most.
const MOST_AHEAD: usize = 8;
/// Blocks loaded ahead of a search, which may end in each of them.
const SEARCHED_AHEAD: usize = 4;
/// Readers remembered.
const READERS: usize = 1024;
/// Manifests, and indexes, in the cache.
const ENTRIES: usize = 4096;
/// Largest block. On an object store the first byte takes as long as a few of these.
const LARGEST_BLOCK: usize = 1 << 20;
/// Smallest block, where memory is scarce.
const SMALLEST_BLOCK: usize = 64 << 10;
/// So many blocks fit into the cache, unless they are as small as can be.
const BLOCKS_PER_CACHE: usize = 16;

/// Bytes of a block in a cache of `budget` bytes.
pub fn block_bytes(budget: usize) -> usize {
    (budget / BLOCKS_PER_CACHE).clamp(SMALLEST_BLOCK, LARGEST_BLOCK)
}

/// What is asked of the segments of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColdRead {
    /// The partition.
    pub partition: TopicPartition,
    /// The first offset.
    pub from: Offset,
    /// Most bytes.
    pub most: usize,
    /// Whether the first batch may exceed that.
    pub oversized: bool,
    /// The high watermark: batches from here on are not given. Segments may hold more than a leader knows that was replaced
    /// and has not been told.
    pub below: Offset,
}

/// Why a read brought nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ColdError {
    /// The store did not give what it holds.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The offset is below the log start that the manifest states.
    #[error("retention has removed it")]
    Removed,
    /// What must be there is not, or is damaged. A person must look.
    #[error("{0}")]
    Missing(String),
}

/// What the reads of one shard amount to so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ColdTotals {
    /// Requests to the store.
    pub gets: u64,
    /// Bytes that they brought.
    pub bytes: u64,
}

/// One segment's files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct File {
    pub(super) partition: TopicPartition,
    pub(super) name: SegmentName,
    pub(super) base: Offset,
    pub(super) bytes: u64,
}

/// Where a reader goes on.
#[derive(Clone, Copy, Debug)]
struct Place {
    name: SegmentName,
    position: u64,
    /// Blocks loaded ahead of it.
    ahead: usize,
}

/// Why a manifest led nowhere.
enum Obstacle {
    /// It is out of date, or damage: the object that is not there, or the bound that is too low.
    OutOfDate(String),
    Failed(ColdError),
}

impl From<ColdError> for Obstacle {
    fn from(error: ColdError) -> Obstacle {
        Obstacle::Failed(error)
    }
}

/// The reader of one shard. A clone is a handle.
#[derive(Clone)]
pub struct ColdReader(Rc<Inner>);

struct Inner {
    objects: Rc<dyn ObjectStore>,
    block_bytes: u64,
    most_ahead: usize,
    manifests: Rc<Shelf<TopicPartition, Rc<Manifest>>>,
    indexes: Rc<Shelf<File, Rc<SegmentIndex>>>,
    blocks: Rc<Shelf<(File, u64), Rc<Block>>>,
    /// The level under the blocks in memory.
    disk: Option<Rc<DiskBlocks>>,
    /// By partition and the offset that they will ask for next.
    readers: RefCell<Cache<(TopicPartition, Offset), Place>>,
    gets: Budget,
    totals: Rc<Cell<ColdTotals>>,
}

impl ColdReader {
    /// A reader whose caches take `budget` bytes: an eighth for manifests, as much for indexes, the rest for blocks.
    pub fn new(env: &Env, objects: Rc<dyn ObjectStore>, budget: usize) -> ColdReader {
        ColdReader::with_blocks(env, objects, budget, block_bytes(budget), None)
    }

    /// The same with a second level of blocks on disk, whose table is charged to those in memory.
    pub fn with_disk(env: &Env, objects: Rc<dyn ObjectStore>, budget: usize, disk: Option<DiskPlan>) -> ColdReader {
        ColdReader::with_blocks(env, objects, budget, block_bytes(budget), disk)
    }

    fn with_blocks(
        env: &Env,
        objects: Rc<dyn ObjectStore>,
        budget: usize,
        block_bytes: usize,
        disk: Option<DiskPlan>,
    ) -> ColdReader {
        let eighth = budget / 8;
        let table = disk.as_ref().map_or(0, |plan| entries_bytes(plan.shape.slots));
        let for_blocks = (budget - 2 * eighth).saturating_sub(table);
        ColdReader(Rc::new(Inner {
            objects,
            block_bytes: block_bytes as u64,
            most_ahead: for_blocks / 2 / block_bytes,
            manifests: Shelf::new(env.clone(), eighth, ENTRIES, manifest_bytes),
            indexes: Shelf::new(env.clone(), eighth, ENTRIES, |index| index.memory()),
            blocks: Shelf::new(env.clone(), for_blocks, usize::MAX, |block| block.bytes().len()),
            disk: disk.map(|plan| DiskBlocks::open(env, plan)),
            readers: RefCell::new(Cache::new(usize::MAX, READERS)),
            gets: Budget::new(GETS),
            totals: Rc::default(),
        }))
    }

    /// Reads whole batches; none if the first is larger than allowed.
    ///
    /// # Errors
    /// See [`ColdError`]. What was found in segments before the one that failed is given.
    pub async fn read(&self, read: &ColdRead) -> Result<RecordSet, ColdError> {
        let mut again = true;
        loop {
            let manifest = self.manifest(read.partition).await?;
            let obstacle = match self.read_by(&manifest, read).await {
                Ok(records) => return Ok(records),
                Err(obstacle) => obstacle,
            };
            match obstacle {
                Obstacle::Failed(error) => return Err(error),
                Obstacle::OutOfDate(_) if again => self.0.manifests.forget(&read.partition, &manifest, Rc::ptr_eq),
                Obstacle::OutOfDate(what) => return Err(ColdError::Missing(what)),
            }
            again = false;
        }
    }

    /// The manifest of a partition as it stands now; an empty one if there is none.
    ///
    /// # Errors
    /// See [`ColdError`].
    pub async fn manifest_from_store(&self, partition: TopicPartition) -> Result<Rc<Manifest>, ColdError> {
        of_partition(partition, self.load_manifest(partition).await?)
    }

    /// The manifest of a partition, which may be out of date, but is not `stale`.
    ///
    /// # Errors
    /// See [`ColdError`].
    pub async fn manifest_after(
        &self,
        partition: TopicPartition,
        stale: Option<Rc<Manifest>>,
    ) -> Result<Rc<Manifest>, ColdError> {
        if let Some(stale) = stale {
            self.0.manifests.forget(&partition, &stale, Rc::ptr_eq);
        }
        self.manifest(partition).await
    }

    /// Batches of a segment from `position` on, and where they begin in its file: those up to the end of the block, if
    /// that is at least `needs` bytes; `None` if the segment is gone. Without a position it begins with a batch that may
    /// hold `from`. What the batches hold is not checked.
    ///
    /// # Errors
    /// See [`ColdError`].
    pub async fn batches_at(
        &self,
        partition: TopicPartition,
        named: &NamedSegment,
        position: Option<u64>,
        needs: usize,
        from: Offset,
    ) -> Result<Option<(u64, Bytes)>, ColdError> {
        let (file, end) = (file(partition, named), batches_end(named));
        let is_going_on = position.is_some();
        let position = match position {
            Some(position) => position,
            None => match self.find(file, from).await {
                Ok(position) => position,
                Err(Obstacle::OutOfDate(_)) => return Ok(None),
                Err(Obstacle::Failed(error)) => return Err(error),
            },
        };
        if position > end {
            return Err(ColdError::Missing(format!("the index of {} names no batch at {position}", file.key())));
        }
        let needed = position + needs.max(HEADER_BYTES) as u64;
        let until = needed.next_multiple_of(self.0.block_bytes).min(end);
        let until = if needs > HEADER_BYTES { needed.min(end) } else { until };
        let mut window = Window::at(position, self.0.block_bytes);
        let numbers = window.next_block()..until.div_ceil(self.0.block_bytes);
        let loads: Vec<Load<Rc<Block>>> = numbers.map(|number| self.block(file, number)).collect();
        for load in loads {
            let Some(block) = load.await? else { return Ok(None) };
            window.push(block);
        }
        if is_going_on && needs == 0 {
            self.load_ahead(file, window.next_block(), end);
        }
        Ok(Some((position, window.joined(position..until))))
    }

    /// Blocks of a file from this one on, for a search that has not found in its first block what it is after.
    fn load_ahead(&self, file: File, from: u64, end: u64) {
        for number in (from..end.div_ceil(self.0.block_bytes)).take(SEARCHED_AHEAD) {
            if self.0.blocks.ahead() >= self.0.most_ahead {
                break;
            }
            self.0.blocks.get_ahead(&(file, number), || self.load_block(file, number));
        }
    }

    /// The manifest of a partition, which may be out of date.
    async fn manifest(&self, partition: TopicPartition) -> Result<Rc<Manifest>, ColdError> {
        let load = self.0.manifests.get(&partition, || self.load_manifest(partition));
        of_partition(partition, load.await?)
    }

    fn load_manifest(&self, partition: TopicPartition) -> LocalBoxFuture<'static, Loaded<Rc<Manifest>>> {
        let get = self.get(manifest_key(partition), None);
        Box::pin(async move {
            let Some(bytes) = get.await? else { return Ok(None) };
            let manifest = Manifest::decode(&bytes).map_err(damaged)?;
            Ok(Some(Rc::new(manifest)))
        })
    }

    async fn read_by(&self, manifest: &Manifest, read: &ColdRead) -> Result<RecordSet, Obstacle> {
        if read.from < manifest.log_start {
            return Err(Obstacle::Failed(ColdError::Removed));
        }
        if read.from >= manifest.covered {
            let covered = manifest.covered;
            return Err(Obstacle::OutOfDate(format!("the manifest covers {covered}, not {}", read.from)));
        }
        let mut at = manifest.segments.partition_point(|segment| segment.segment.last < read.from);
        let first = &manifest.segments[at];
        let known = self.0.readers.borrow_mut().get(&(read.partition, read.from));
        let known = known.filter(|place| place.name == first.name);
        let mut position = match known {
            Some(place) => place.position,
            None => self.find(file(read.partition, first), read.from).await?,
        };
        let at_once = self.stretch(manifest, at, position, read.most as u64, BLOCKS_AT_ONCE);
        let _held: Vec<Load<Rc<Block>>> = at_once.into_iter().map(|(file, number)| self.block(file, number)).collect();
        let (mut records, mut from) = (RecordSet::new(), read.from);
        for segment in manifest.segments[at..].iter().take(SEGMENTS_PER_READ) {
            let wanted = Wanted {
                from,
                most: read.most.saturating_sub(records.len()) as u64,
                oversized: read.oversized && records.is_empty(),
                end: batches_end(segment),
                last: segment.segment.last,
                below: read.below,
            };
            let picked = self.pick(file(read.partition, segment), wanted, position).await;
            let (window, range, next) = match picked {
                Err(obstacle) if records.is_empty() => return Err(obstacle),
                Err(_) => break,
                Ok(picked) => picked,
            };
            (position, from) = (range.end, from.max(next));
            window.records(range, &mut records);
            if position < batches_end(segment) {
                break;
            }
            (at, position) = (at + 1, segment::HEADER_BYTES as u64);
        }
        if !records.is_empty() && at < manifest.segments.len() {
            self.remember(manifest, at, position, from, known.map(|place| place.ahead));
        }
        Ok(records)
    }

    /// Where the batch begins that holds `from`, or one before it.
    async fn find(&self, file: File, from: Offset) -> Result<u64, Obstacle> {
        if from <= file.base || file.bytes <= self.0.block_bytes {
            return Ok(segment::HEADER_BYTES as u64);
        }
        let key = segment::index_key(file.partition, file.name, file.base);
        let load = self.0.indexes.get(&file, || {
            let get = self.get(key.clone(), None);
            Box::pin(async move {
                let Some(bytes) = get.await? else { return Ok(None) };
                Ok(Some(Rc::new(SegmentIndex::decode(&bytes).map_err(damaged)?)))
            })
        });
        let index = load.await.map_err(ColdError::from)?.ok_or_else(|| gone(&key))?;
        Ok(index.position_at(from))
    }

    /// Picks batches of one segment, beginning with the one at `position`: the blocks that hold them, where in the file
    /// they are, and the offset after them.
    async fn pick(&self, file: File, wanted: Wanted, position: u64) -> Result<(Window, Range<u64>, Offset), Obstacle> {
        let mut window = Window::at(position, self.0.block_bytes);
        let mut selection = Selection::new(wanted, position, file.base);
        loop {
            match selection.step(&window) {
                Step::Need { keep, range } => {
                    if keep >= window.end() {
                        window = Window::at(keep, self.0.block_bytes);
                    }
                    let numbers = window.next_block()..range.end.div_ceil(self.0.block_bytes);
                    let loads: Vec<Load<Rc<Block>>> = numbers.map(|number| self.block(file, number)).collect();
                    for load in loads {
                        window.push(load.await.map_err(ColdError::from)?.ok_or_else(|| gone(&file.key()))?);
                    }
                }
                Step::Picked { range, next } => return Ok((window, range, next)),
                Step::Broken { position } => {
                    let what = format!("{} holds no batch of its own at {position}", file.key());
                    return Err(Obstacle::Failed(ColdError::Missing(what)));
                }
            }
        }
    }

    /// The reader that has just been given everything below `next`, at `position` of segment `at`, will probably go on
    /// there. One that has done so before is helped by loading what follows, more each time.
    fn remember(&self, manifest: &Manifest, at: usize, position: u64, next: Offset, ahead: Option<usize>) {
        let ahead = ahead.map_or(0, |ahead| (ahead * 2).clamp(1, MOST_AHEAD));
        for (file, number) in self.stretch(manifest, at, position, u64::MAX, ahead) {
            if self.0.blocks.ahead() >= self.0.most_ahead {
                break;
            }
            self.0.blocks.get_ahead(&(file, number), || self.load_block(file, number));
        }
        let place = Place { name: manifest.segments[at].name, position, ahead };
        self.0.readers.borrow_mut().insert((manifest.partition, next), place, 0);
    }

    /// The blocks that hold `bytes` from `position` of segment `at` on, through the segments that follow: at most `most`.
    fn stretch(&self, manifest: &Manifest, at: usize, position: u64, bytes: u64, most: usize) -> Vec<(File, u64)> {
        let mut blocks = Vec::new();
        let (mut start, mut left) = (position, bytes.max(1));
        for segment in &manifest.segments[at..] {
            let end = batches_end(segment).min(start.saturating_add(left));
            for number in start / self.0.block_bytes..end.div_ceil(self.0.block_bytes) {
                if blocks.len() == most {
                    return blocks;
                }
                blocks.push((file(manifest.partition, segment), number));
            }
            left -= end.saturating_sub(start).min(left);
            if left == 0 {
                break;
            }
            start = segment::HEADER_BYTES as u64;
        }
        blocks
    }

    fn block(&self, file: File, number: u64) -> Load<Rc<Block>> {
        self.0.blocks.get(&(file, number), || self.load_block(file, number))
    }

    fn load_block(&self, file: File, number: u64) -> LocalBoxFuture<'static, Loaded<Rc<Block>>> {
        let start = number * self.0.block_bytes;
        let range = start..file.bytes.min(start + self.0.block_bytes);
        let length = range.end - start;
        let get = self.get(file.key(), Some(range));
        let disk = self.0.disk.clone();
        Box::pin(async move {
            let key = (file, number);
            if let Some(disk) = &disk
                && let Some(bytes) = disk.read(&key, length).await
            {
                return Ok(Some(Block::new(bytes)));
            }
            let Some(bytes) = get.await? else { return Ok(None) };
            if bytes.len() as u64 != length {
                return Err(damaged(format_args!("{} ends before its {} bytes", file.key(), file.bytes)));
            }
            if let Some(disk) = &disk {
                disk.keep(key, bytes.clone());
            }
            Ok(Some(Block::new(bytes)))
        })
    }

    /// The object `key`, or a range of it, once there is a place among the requests under way.
    fn get(&self, key: String, range: Option<Range<u64>>) -> LocalBoxFuture<'static, Loaded<Bytes>> {
        let (objects, gets, totals) = (self.0.objects.clone(), self.0.gets.clone(), self.0.totals.clone());
        Box::pin(async move {
            let _place = gets.take(1).await;
            let got = match range {
                Some(range) => objects.get_range(&key, range).await?,
                None => objects.get(&key).await?.map(|object| object.bytes),
            };
            let ColdTotals { gets, bytes } = totals.get();
            let more = got.as_ref().map_or(0, Bytes::len) as u64;
            totals.set(ColdTotals { gets: gets + 1, bytes: bytes + more });
            Ok(got)
        })
    }

    /// What its reads amount to so far.
    pub fn totals(&self) -> ColdTotals {
        self.0.totals.get()
    }

    /// What has come of its blocks on disk so far.
    pub fn disk_totals(&self) -> DiskTotals {
        self.0.disk.as_ref().map(|disk| disk.totals()).unwrap_or_default()
    }

    /// Bytes that its caches hold in memory.
    pub fn used(&self) -> usize {
        self.0.manifests.used() + self.0.indexes.used() + self.0.blocks.used()
    }
}

impl File {
    fn key(&self) -> String {
        segment::data_key(self.partition, self.name, self.base)
    }
}

fn file(partition: TopicPartition, named: &NamedSegment) -> File {
    File { partition, name: named.name, base: named.segment.base, bytes: named.segment.bytes }
}

/// Where the batches of a segment's file end.
fn batches_end(named: &NamedSegment) -> u64 {
    segment::batches_end(named.segment.bytes)
}

/// What was found under the partition's key, if it is the partition's.
fn of_partition(partition: TopicPartition, found: Option<Rc<Manifest>>) -> Result<Rc<Manifest>, ColdError> {
    let manifest = found.unwrap_or_else(|| Rc::new(Manifest::empty(partition)));
    if manifest.partition != partition {
        return Err(ColdError::Missing(format!("the manifest of {partition} is that of {}", manifest.partition)));
    }
    Ok(manifest)
}

fn manifest_bytes(manifest: &Rc<Manifest>) -> usize {
    size_of::<Manifest>() + manifest.segments.len() * size_of::<NamedSegment>() + size_of_val(manifest.epochs.starts())
}

fn damaged(what: impl ToString) -> StoreError {
    StoreError::not_done(FailureKind::Corrupt, what.to_string())
}

fn gone(key: &str) -> Obstacle {
    Obstacle::OutOfDate(format!("{key} does not exist"))
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
