//! Counts bytes copied and memory allocated, by account: which part of the broker was at work.
//!
//! The program's allocator, `memcpy` and `memmove` are replaced by ones that count and then do the same.
//!
//! 1. Counted is what happens on this thread while an account is entered; nothing else.
//! 2. *Copied* are bytes of records: runs of bytes [`MARK`], as long as a record's value or longer, in what a call copies, so
//!    that the number does not depend on how a compiler moves values around. *Moved* is everything that calls copy, and does.
//! 3. Counting neither allocates nor copies.
//!
//! A value that moves takes along the parts of it that its variant does not use, and those are whatever memory held before. On
//! the heap that is nothing of a record: it is wiped when it is freed. On the stack it is less than a record: what a checksum
//! that is not optimised leaves there of its vectors, 64 bytes each where the processor has such.

#![allow(unsafe_code, reason = "stands in for the allocator and for two functions of the C library")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ffi::c_void;

/// Who is at work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Account {
    /// The shard's thread.
    Shard,
    /// The lane's thread.
    Lane,
    /// The control task's thread.
    Control,
    /// The store itself.
    Store,
    /// The test: clients, sockets, the executor.
    Nobody,
}

/// What the values of all records are made of.
pub(crate) const MARK: u8 = 0xa7;

const ACCOUNTS: usize = Account::Nobody as usize;

/// What one account used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Used {
    /// Allocations, growing ones included.
    pub allocations: u64,
    /// Bytes asked for by those.
    pub allocated: u64,
    /// Bytes of records copied.
    pub copied: u64,
    /// All bytes copied by calls.
    pub moved: u64,
}

struct Cells {
    allocations: Cell<u64>,
    allocated: Cell<u64>,
    copied: Cell<u64>,
    moved: Cell<u64>,
}

impl Cells {
    #[expect(clippy::declare_interior_mutable_const, reason = "the start of each cell, used once each")]
    const ZERO: Cells =
        Cells { allocations: Cell::new(0), allocated: Cell::new(0), copied: Cell::new(0), moved: Cell::new(0) };
}

thread_local! {
    static AT_WORK: Cell<usize> = const { Cell::new(ACCOUNTS) };
    /// The shortest run that is counted, in bytes.
    static RUN: Cell<usize> = const { Cell::new(usize::MAX) };
    static CELLS: [Cells; ACCOUNTS] = const { [Cells::ZERO; ACCOUNTS] };
}

/// While it lives, its account is charged.
pub(crate) struct Entered(usize);

/// Charges `account` from now on.
pub(crate) fn enter(account: Account) -> Entered {
    Entered(AT_WORK.replace(account as usize))
}

impl Drop for Entered {
    fn drop(&mut self) {
        AT_WORK.set(self.0);
    }
}

/// From now on runs on this thread count from `bytes` on: the length of a record's value.
pub(crate) fn count_runs_of(bytes: usize) {
    RUN.set(bytes);
}

/// What `account` used on this thread so far.
pub(crate) fn used(account: Account) -> Used {
    CELLS.with(|cells| {
        let cells = &cells[account as usize];
        Used {
            allocations: cells.allocations.get(),
            allocated: cells.allocated.get(),
            copied: cells.copied.get(),
            moved: cells.moved.get(),
        }
    })
}

fn charge(act: impl FnOnce(&Cells)) {
    // A thread that is ending has none any more.
    let _ = AT_WORK.try_with(|at_work| {
        let account = at_work.get();
        if account < ACCOUNTS {
            let _ = CELLS.try_with(|cells| act(&cells[account]));
        }
    });
}

fn add(cell: &Cell<u64>, count: usize) {
    cell.set(cell.get() + count as u64);
}

/// # Safety
/// `count` bytes can be read at `from`.
unsafe fn charge_copy(cells: &Cells, from: *const u8, count: usize) {
    add(&cells.moved, count);
    let shortest = RUN.get();
    if count < shortest {
        return;
    }
    let (mut run, mut copied) = (0, 0);
    for at in 0..count {
        // SAFETY: within the range that the caller vouches for; volatile, since parts may never have been written.
        if unsafe { from.add(at).read_volatile() } == MARK {
            run += 1;
        } else {
            copied += if run >= shortest { run } else { 0 };
            run = 0;
        }
    }
    add(&cells.copied, copied + if run >= shortest { run } else { 0 });
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn charge_allocation(bytes: usize) {
    charge(|cells| {
        add(&cells.allocations, 1);
        add(&cells.allocated, bytes);
    });
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        charge_allocation(layout.size());
        // SAFETY: the caller keeps to the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        charge_allocation(layout.size());
        // SAFETY: the caller keeps to the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: nobody uses these bytes any more. The black box: a write at the end of a life may be left out otherwise.
        unsafe { std::hint::black_box(pointer).write_bytes(0, layout.size()) };
        // SAFETY: allocated above by the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        charge_allocation(size);
        // SAFETY: that many bytes are there; what was not written yet may be looked at as bytes here and is no record.
        charge(|cells| unsafe { charge_copy(cells, pointer, layout.size().min(size)) });
        // SAFETY: allocated above by the system's allocator with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

unsafe extern "C" {
    // The C library's checked form does the work: it has a name of its own.
    /// With a room that the optimizer knows to be unlimited it makes plain `memmove` of this: our own, for ever. Hence the
    /// black boxes.
    fn __memmove_chk(to: *mut c_void, from: *const c_void, count: usize, room: usize) -> *mut c_void;
}

// SAFETY (of the name): does what the C standard says of `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    // SAFETY: the caller's range is valid for `count` bytes.
    charge(|cells| unsafe { charge_copy(cells, from.cast(), count) });
    // SAFETY: the caller's ranges are valid for `count` bytes; the room is not checked again.
    unsafe { __memmove_chk(to, from, count, std::hint::black_box(usize::MAX)) }
}

// SAFETY (of the name): does what the C standard says of `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, count: usize) -> *mut c_void {
    // SAFETY: as above.
    charge(|cells| unsafe { charge_copy(cells, from.cast(), count) });
    // SAFETY: as above; overlapping ranges are allowed.
    unsafe { __memmove_chk(to, from, count, std::hint::black_box(usize::MAX)) }
}
