//! The lane: joins what the shards sealed into write-ahead objects, commits them in order, owns checkpoints and
//! partition records. The core is pure; the pump drives it.

mod config;
pub mod events;
pub mod messages;
mod pump;

pub use config::{LaneConfig, LaneIdentity};
pub use messages::*;
pub use pump::{LaneEnds, LanePump, ShardEnd};
