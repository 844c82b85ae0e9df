//! The control task: one per process, on the side thread. It alone (with the lanes) touches the metadata store: topics,
//! node ids, producer id blocks, coordinator slots, group records; it places partitions on shards, tells lanes what to
//! lead, and publishes the [`ClusterImage`] that every shard answers Metadata from.

//!
//! [`start`] finds out who the process is and what the stores hold, [`core`] is the pure state machine, [`pump`] drives
//! it. Before any lane opens, process start seals the write-ahead logs of dead lives (`millrace_storage::recovery`);
//! the control task only tells lanes what to lead.

pub mod cluster;
mod cluster_records;
pub mod core;
pub mod effects;
pub mod group_settings;
pub mod messages;
pub mod node_settings;
mod own_changes;
pub mod placement;
mod producer_ids;
pub mod pump;
#[cfg(test)]
mod pump_tests;
mod slots;
pub mod start;
#[cfg(test)]
mod tests;
pub mod ticks;
mod topic_change;
pub mod topic_object;
pub mod topic_rules;
pub mod topic_settings;
mod topics;

pub use cluster_records::MOST_ENTITIES;
pub use messages::*;
