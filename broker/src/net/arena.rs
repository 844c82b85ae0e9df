//! The shard's memory for produce frames: chunks that small frames share and that are used again when the last slice of
//! them is gone, on whatever thread that happens.
//!
//! Fresh pages cost more at first touch than the rest of the produce path, so chunks are cut from regions and
//! recycled through a lock-free queue. A frame as large as a chunk gets exact memory of its own.
//!
//! Invariants:
//! 1. A byte range belongs to one [`Span`] at a time: a filling of a chunk gives out each range once, and the chunk
//!    comes back only when every span of the filling is gone.
//! 2. Memory is initialised once (zero), never again: a recycled range holds bytes of earlier frames, and whoever takes
//!    a span overwrites all of it before showing it to anyone.
//! 3. Regions and exact frames together stay within the arena's bound.
//! 4. The return queue has a place for every chunk that the bound allows, so giving back never fails.

#![allow(unsafe_code, reason = "raw memory shared by disjoint ranges; each use says why it is sound")]

use crossbeam_queue::ArrayQueue;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Size of a chunk.
pub const CHUNK_BYTES: usize = 512 << 10;
/// Size of a region.
pub const REGION_BYTES: usize = 2 << 20;
const CHUNKS_PER_REGION: usize = REGION_BYTES / CHUNK_BYTES;
/// Spans that the arena gives start at multiples of this (a cache line), so that two threads do not write one line.
const SPAN_ALIGN: usize = 64;

/// Memory of its own, zeroed once.
struct Region {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a region is plain memory without thread affinity, and it offers no access by itself: all of it goes through
// spans, whose ranges are disjoint (invariant 1).
unsafe impl Send for Region {}
// SAFETY: as above; a shared region only hands out its address.
unsafe impl Sync for Region {}

impl Region {
    fn new(bytes: usize, align: usize) -> Arc<Region> {
        let layout =
            Layout::from_size_align(bytes, align).expect("bounded by the arena's limit; align is a power of 2");
        assert!(bytes > 0, "a zero-sized layout must not be allocated");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Arc::new(Region { base, layout })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; every span holds an `Arc` of its region, so none is left.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// The exclusive right to one chunk of a region.
struct Chunk {
    region: Arc<Region>,
    index: usize,
}

/// What outlives the arena while spans do.
struct Home {
    returned: ArrayQueue<Chunk>,
    /// Bytes of exact frames that live.
    exact_bytes: AtomicUsize,
    /// Chunks that are in use.
    chunks_out: AtomicUsize,
}

enum Backing {
    Chunk(Chunk),
    Exact(Arc<Region>),
}

/// One filling of a chunk, or one exact frame: shared by its spans; the last one gives it back.
struct Lease {
    backing: Option<Backing>,
    home: Arc<Home>,
}

impl Lease {
    fn base(&self) -> NonNull<u8> {
        match self.backing.as_ref().expect("taken only on drop") {
            Backing::Exact(region) => region.base,
            // SAFETY: index < CHUNKS_PER_REGION, so the offset stays within the region's one allocation.
            Backing::Chunk(chunk) => unsafe { chunk.region.base.add(chunk.index * CHUNK_BYTES) },
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.backing.take().expect("taken only here") {
            Backing::Chunk(chunk) => {
                self.home.chunks_out.fetch_sub(1, Ordering::Relaxed);
                // The queue's push and pop order every write through a span before the next filling's.
                assert!(self.home.returned.push(chunk).is_ok(), "a place for every chunk (invariant 4)");
            }
            Backing::Exact(region) => {
                self.home.exact_bytes.fetch_sub(region.layout.size(), Ordering::Relaxed);
            }
        }
    }
}

/// A byte range of the arena, exclusively owned. Never empty.
pub struct Span {
    lease: Arc<Lease>,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the range is exclusive to this span (invariant 1), so moving it to another thread moves the only access.
unsafe impl Send for Span {}
// SAFETY: through a shared span the range can only be read.
unsafe impl Sync for Span {}

impl Span {
    /// Bytes of memory that this span keeps from being reused by others.
    pub fn pinned(&self) -> usize {
        self.length.next_multiple_of(SPAN_ALIGN)
    }

    /// Gives up all but the first `length` bytes (at least 1).
    pub fn truncate(&mut self, length: usize) {
        assert!((1..=self.length).contains(&length), "a span is never empty and never grows");
        self.length = length;
    }

    /// Gives up all but these ranges, each of which becomes a span of its own: they ascend, do not overlap, and none is
    /// empty. Two of them may share a cache line.
    pub fn cut(self, ranges: &[Range<usize>]) -> Vec<Span> {
        let mut end = 0;
        let cut = ranges.iter().map(|range| {
            assert!(end <= range.start && range.start < range.end && range.end <= self.length, "ranges ascend within");
            end = range.end;
            // SAFETY: the range lies within this span, checked just now, and so within its one allocation.
            let start = unsafe { self.start.add(range.start) };
            Span { lease: self.lease.clone(), start, length: range.len() }
        });
        // Disjoint parts of a range that was this span's alone, which ends here (invariant 1).
        cut.collect()
    }

    /// The range, to fill or patch.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: initialised memory (invariant 2), alive as long as the lease, exclusive to this span (invariant 1),
        // and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for Span {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`, with `self` borrowed shared.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Span({} of lease {:p})", self.length, Arc::as_ptr(&self.lease))
    }
}

/// The chunk that is being filled.
struct Open {
    lease: Arc<Lease>,
    used: usize,
}

/// What an arena holds, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArenaUse {
    /// Memory taken from the system.
    pub held: usize,
    /// Of that, memory that live frames keep (whole chunks).
    pub pinned: usize,
}

/// A shard's arena. Stays on its thread; its spans need not.
pub struct Arena {
    limit: usize,
    /// Bytes of regions that exist.
    region_bytes: usize,
    free: Vec<Chunk>,
    open: Option<Open>,
    home: Arc<Home>,
}

impl Arena {
    /// An arena that never holds more than `limit` bytes. It starts with none.
    pub fn new(limit: usize) -> Arena {
        let chunks = (limit / REGION_BYTES * CHUNKS_PER_REGION).max(1);
        let home = Home {
            returned: ArrayQueue::new(chunks),
            exact_bytes: AtomicUsize::new(0),
            chunks_out: AtomicUsize::new(0),
        };
        Arena { limit, region_bytes: 0, free: Vec::new(), open: None, home: Arc::new(home) }
    }

    /// A span of `length` bytes (at least 1); `None` while the bound leaves no memory for it.
    pub fn take(&mut self, length: usize) -> Option<Span> {
        assert!(length > 0, "a span is never empty");
        if length >= CHUNK_BYTES {
            return self.take_exact(length);
        }
        let open = match self.open.take() {
            Some(open) if open.used + length <= CHUNK_BYTES => open,
            _ => self.open_chunk()?,
        };
        // SAFETY: used + length <= CHUNK_BYTES, so the offset stays within the chunk.
        let start = unsafe { open.lease.base().add(open.used) };
        let span = Span { lease: open.lease.clone(), start, length };
        let used = (open.used + length).next_multiple_of(SPAN_ALIGN);
        self.open = Some(Open { used, ..open });
        Some(span)
    }

    fn take_exact(&mut self, length: usize) -> Option<Span> {
        if length > self.limit.saturating_sub(self.held()) {
            self.trim();
            if length > self.limit.saturating_sub(self.held()) {
                return None;
            }
        }
        let region = Region::new(length, SPAN_ALIGN);
        self.home.exact_bytes.fetch_add(length, Ordering::Relaxed);
        let start = region.base;
        let lease = Arc::new(Lease { backing: Some(Backing::Exact(region)), home: self.home.clone() });
        Some(Span { lease, start, length })
    }

    fn open_chunk(&mut self) -> Option<Open> {
        let chunk = match self.free.pop().or_else(|| self.home.returned.pop()) {
            Some(chunk) => chunk,
            None => self.grow()?,
        };
        self.home.chunks_out.fetch_add(1, Ordering::Relaxed);
        let lease = Arc::new(Lease { backing: Some(Backing::Chunk(chunk)), home: self.home.clone() });
        Some(Open { lease, used: 0 })
    }

    fn grow(&mut self) -> Option<Chunk> {
        if REGION_BYTES > self.limit.saturating_sub(self.held()) {
            return None;
        }
        let region = Region::new(REGION_BYTES, SPAN_ALIGN);
        self.region_bytes += REGION_BYTES;
        self.free.extend((1..CHUNKS_PER_REGION).map(|index| Chunk { region: region.clone(), index }));
        Some(Chunk { region, index: 0 })
    }

    /// Gives regions of which no chunk is in use back to the system. For an idle shard, and before an exact frame that
    /// finds no room.
    pub fn trim(&mut self) {
        if self.open.as_mut().is_some_and(|open| Arc::get_mut(&mut open.lease).is_some()) {
            self.open = None;
        }
        while let Some(chunk) = self.home.returned.pop() {
            self.free.push(chunk);
        }
        self.free.sort_by_key(|chunk| (Arc::as_ptr(&chunk.region).addr(), chunk.index));
        let mut kept = Vec::new();
        for group in self.free.chunk_by(|a, b| Arc::ptr_eq(&a.region, &b.region)) {
            if group.len() == CHUNKS_PER_REGION {
                self.region_bytes -= REGION_BYTES;
            } else {
                kept.extend(group.iter().map(|chunk| Chunk { region: chunk.region.clone(), index: chunk.index }));
            }
        }
        self.free = kept;
    }

    /// What it holds now.
    pub fn usage(&self) -> ArenaUse {
        let exact = self.home.exact_bytes.load(Ordering::Relaxed);
        let chunks = self.home.chunks_out.load(Ordering::Relaxed);
        ArenaUse { held: self.region_bytes + exact, pinned: chunks * CHUNK_BYTES + exact }
    }

    fn held(&self) -> usize {
        self.usage().held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(arena: &mut Arena, length: usize, with: u8) -> Span {
        let mut span = arena.take(length).expect("within the bound");
        span.bytes_mut().fill(with);
        span
    }

    #[test]
    fn small_frames_share_a_chunk_and_do_not_touch_each_other() {
        let mut arena = Arena::new(REGION_BYTES);
        let spans: Vec<Span> = (1..=20).map(|n| filled(&mut arena, 100 + n, u8::try_from(n).unwrap())).collect();
        for (span, n) in spans.iter().zip(1..) {
            assert_eq!(span.as_ref(), vec![n; 100 + usize::from(n)]);
        }
        assert_eq!(arena.usage(), ArenaUse { held: REGION_BYTES, pinned: CHUNK_BYTES });
    }

    #[test]
    fn a_chunk_is_used_again_once_its_last_slice_went_on_another_thread() {
        let mut arena = Arena::new(REGION_BYTES);
        // Four frames that fill the four chunks of the one region that the bound allows.
        let spans: Vec<Span> = (0..4).map(|n| filled(&mut arena, CHUNK_BYTES - 1, n)).collect();
        assert!(arena.take(1000).is_none());
        std::thread::scope(|scope| {
            scope.spawn(move || drop(spans));
        });
        let again = filled(&mut arena, CHUNK_BYTES - 1, 9);
        assert_eq!(arena.usage(), ArenaUse { held: REGION_BYTES, pinned: CHUNK_BYTES });
        drop(again);
    }

    #[test]
    fn a_frame_as_large_as_a_chunk_has_memory_of_its_own_that_goes_with_it() {
        let mut arena = Arena::new(4 * REGION_BYTES);
        let span = filled(&mut arena, CHUNK_BYTES + 7, 3);
        assert_eq!(arena.usage().held, CHUNK_BYTES + 7);
        drop(span);
        assert_eq!(arena.usage(), ArenaUse { held: 0, pinned: 0 });
    }

    #[test]
    fn a_span_that_is_cut_is_patched_on_several_threads_and_its_chunk_comes_back_with_the_last_part() {
        let mut arena = Arena::new(REGION_BYTES);
        let parts = filled(&mut arena, CHUNK_BYTES - 1, 7).cut(&[3..10, 10..500, 1000..CHUNK_BYTES - 1]);
        assert_eq!(parts.iter().map(|part| part.length).collect::<Vec<_>>(), [7, 490, CHUNK_BYTES - 1001]);
        std::thread::scope(|scope| {
            for mut part in parts {
                scope.spawn(move || {
                    assert!(part.as_ref().iter().all(|byte| *byte == 7));
                    part.bytes_mut().fill(1);
                });
            }
        });
        let spans: Vec<Span> = (0..4).map(|n| filled(&mut arena, CHUNK_BYTES - 1, n)).collect();
        assert!(arena.take(1000).is_none(), "all four chunks of the region were free");
        drop(spans);
    }

    #[test]
    fn trimming_returns_idle_regions_and_keeps_live_ones() {
        let mut arena = Arena::new(4 * REGION_BYTES);
        let mut spans: Vec<Span> = (0..8).map(|n| filled(&mut arena, CHUNK_BYTES - 1, n)).collect();
        assert_eq!(arena.usage().held, 2 * REGION_BYTES);
        let live = spans.pop().unwrap();
        drop(spans);
        arena.trim();
        assert_eq!(arena.usage(), ArenaUse { held: REGION_BYTES, pinned: CHUNK_BYTES });
        assert_eq!(live.as_ref()[0], 7);
        drop(live);
        arena.trim();
        assert_eq!(arena.usage().held, 0);
    }

    #[test]
    fn an_exact_frame_that_finds_the_bound_taken_by_idle_chunks_gets_their_memory() {
        let mut arena = Arena::new(2 * REGION_BYTES);
        drop((0..8).map(|n| filled(&mut arena, CHUNK_BYTES - 1, n)).collect::<Vec<_>>());
        assert_eq!(arena.usage().held, 2 * REGION_BYTES);
        let exact = arena.take(REGION_BYTES + 1);
        assert!(exact.is_some());
        assert!(arena.take(REGION_BYTES).is_none());
    }

    #[test]
    fn spans_outlive_their_arena() {
        let mut arena = Arena::new(REGION_BYTES);
        let span = filled(&mut arena, 10, 5);
        drop(arena);
        assert_eq!(span.as_ref(), [5; 10]);
    }
}
