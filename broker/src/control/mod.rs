//! The control task: one per process, on the side thread. It alone (with the lanes) touches the metadata store: topics,
//! node ids, producer id blocks, coordinator slots, group records; it places partitions on shards, tells lanes what to
//! lead, and publishes the [`ClusterImage`] that every shard answers Metadata from.

pub mod messages;
pub use messages::*;
