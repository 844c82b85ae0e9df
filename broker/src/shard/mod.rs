//! A shard: one core's partitions and coordinators as a pure state machine (`core`): requests, lane and control
//! messages, finished reads and time go in, effects come out. The pump that drives it on a runtime is `crate::pump`.

pub(crate) mod ack_share;
mod candidates;
pub mod core;
pub mod counters;
mod covered;
pub mod deadlines;
pub(crate) mod deletions;
pub mod events;
mod expiry;
pub(crate) mod fetch_looks;
mod fetch_reads;
pub mod fetch_sessions;
pub(crate) mod fetches;
pub mod fetching;
pub mod lookup;
pub(crate) mod lookups;
pub mod partition_log;
pub(crate) mod producer_room;
pub(crate) mod produces;
pub mod search;
pub mod split;
pub(crate) mod stored_bytes;
pub mod tail;
pub mod topic_settings;

#[cfg(test)]
mod tests;
