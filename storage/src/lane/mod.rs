//! The lane: joins what the shards sealed into write-ahead objects, commits them in order, owns checkpoints and
//! partition records. The core is pure; the pump drives it.

pub mod messages;
pub use messages::*;
