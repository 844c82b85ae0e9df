//! Proof that what the stores hold is whole (PROTOCOL.md section 8): every partition's log from log start to log end.
//!
//! [`Walk`] reads the stores and tells a [`Checker`] what it saw; the checker is pure and folds it with the functions that
//! recovery uses, then lists each [`Finding`]. Manifests and segments go the same way: [`SegmentLook`] checks one segment
//! from its bytes, [`SeenPartition`] says what is stored of one partition. The simulator tells a checker from the true state
//! of its stores.
//!
//! [`log_litter`] lists what of logs and checkpoints nothing needs, without a look at what is in them.
//!
//! Nothing here writes.

mod checker;
mod findings;
mod litter;
mod logs;
mod object;
mod segment;
mod segments;
#[cfg(all(test, feature = "sim"))]
mod segments_tests;
mod segments_walk;
mod walk;

pub use checker::{Checker, Clock, Metadata, Rules};
pub use findings::{Finding, Report};
pub use litter::{Litter, LogLitter, log_litter};
pub use logs::BrokenCheckpoint;
pub use object::{Bodies, SeenObject, examine};
pub use segment::SegmentLook;
pub use segments::SeenPartition;
pub use walk::{AuditStores, Walk};
