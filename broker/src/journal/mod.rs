//! The journal: what the metadata store alone knows (committed offsets, groups, settings of groups, nodes and clients, node
//! and producer ids), copied to the bucket from time to time, so that `millrace recover` can bring it back
//! (`docs/decisions/083-journal.md`). Topics are not in it: each has an object of its own.
//!
//! Invariants:
//! 1. A number is given out by a transaction on `/journal` before an object of that number is put. So `/journal` is never
//!    below the greatest number in the bucket, unless the metadata store went back to an older state: [`check`].
//! 2. What a snapshot holds is read after its number was given out: the greatest number is never older than what any
//!    other held when it got its number, whoever wrote them and whenever they arrived.
//! 3. Collection never deletes the object of the greatest number, nor the newest two snapshots.
//! 4. Bounded: a page of metadata at a time, [`writer::MOST_BYTES`] in a snapshot, one snapshot in the time of the setting.
//!
//! [`writer`] writes snapshots and marks, [`task`] says when, [`reader`] finds them, [`check`] compares at start.

pub mod check;
pub(crate) mod reader;
pub mod task;
#[cfg(test)]
mod tests;
pub mod writer;

use millrace_storage::meta::keys;

/// What is copied, in the order of a snapshot. Each is a whole prefix.
pub(crate) const PREFIXES: [&str; 9] = [
    keys::CLUSTER,
    keys::GROUPS,
    keys::GROUP_SETTINGS,
    keys::NEXT_NODE,
    keys::NODES,
    keys::OFFSETS,
    keys::PRODUCER_IDS,
    keys::QUOTAS,
    keys::SETTINGS,
];
