//! The world in which a test can replay any accident by its seed: executor, clocks, stores (DESIGN.md section 8).
//!
//! [`Sim`] runs every task of every process of one run on one thread, in an order that the seed alone decides, in virtual
//! time. [`SimBucket`] and [`SimMeta`] implement the store traits with every fault that PROTOCOL.md allows a store to have;
//! their state outlives processes and may be looked at by checkers. What a run amounts to is its trace hash: two runs of
//! one seed that differ in it are themselves a finding (something in the code is not deterministic).
//!
//! Invariants:
//! 1. Nothing here reads a clock, a thread id, an address or the order of a hash map.
//! 2. A dead process runs no more: its tasks are dropped at the await where they stood, what it spawns is dropped at once.
//!    Requests that it had sent are the world's, and go on.
//! 3. Every choice and every change of a store's state enters the trace hash.

mod bucket;
mod bucket_wal;
mod dice;
mod disk;
mod executor;
mod faults;
mod meta;
mod process;
mod trace;

pub use bucket::{BucketChange, SimBucket};
pub use dice::{Chance, Dice};
pub use disk::{SimDisk, SimLocalWal};
pub use executor::{Ended, ProcessId, Sim, ThreadId};
pub use faults::{Cut, Faults, Temper};
pub use meta::{MetaChange, SimMeta};
