//! The lane: joins what the shards sealed into write-ahead objects, commits them in order, owns checkpoints and
//! partition records. The core is pure; the pump drives it.

mod checkpointing;
mod claims;
mod compacting;
mod config;
pub mod core;
mod counters;
mod deletions;
pub mod events;
mod hedging;
mod holding;
mod inflight;
mod joining;
mod leadership;
mod log_bytes;
pub mod messages;
mod outage;
mod probe;
mod pump;
mod ring;
mod stop;
#[cfg(test)]
mod tests;
mod transactions;

pub(crate) use config::CHUNK_REFERENCES;
pub use config::{LaneConfig, LaneIdentity, RollMemory};
pub use core::LaneCore;
pub use counters::{LaneCells, LaneTotals};
pub use messages::*;
pub use pump::{LaneEnds, LanePump, ShardEnd};
