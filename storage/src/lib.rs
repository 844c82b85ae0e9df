//! The log of Millrace: write-ahead objects, the lane that commits them, stores, metadata.
//!
//! Start reading at [`lane`]: shards hand it what they appended, it makes objects of them, [`wal`] stores those, and the
//! commit point rises. [`partition`] is the state that the fold of committed objects amounts to, [`format`] its bytes,
//! [`recovery`] how a new process continues. PROTOCOL.md (the commit protocol) is normative for all of it.

pub mod audit;
pub mod compaction;
pub mod compactor;
pub mod env;
pub mod format;
pub mod ids;
pub mod lane;
pub mod mailbox;
pub mod meta;
pub mod meter;
pub mod object;
pub mod partition;
pub mod recovery;
pub mod segment;
pub mod side;
#[cfg(feature = "sim")]
pub mod sim;
pub mod store_error;
pub mod wal;
pub mod wrong;
