//! What becomes of committed records: rolled from write-ahead objects into segments, merged, expired. Pure.
//!
//! [`Planner`] says what to do next for all partitions that a lane leads, within bounds; [`tiers`] which segments of one
//! partition to merge, with the proof that their number converges; [`retention`] which ones are due to go. Nothing here
//! reads or writes: whoever carries it out commits the manifest (PROTOCOL.md, COMPACT).

mod events;
pub mod gc;
mod planner;
#[cfg(test)]
mod planner_tests;
mod ready;
pub mod retention;
pub mod tiers;
mod uncovered;

pub use events::{Effect, Event, Led, Load, Moment, PlannerConfig};
pub use planner::Planner;

use crate::env::WallMs;
use crate::ids::Offset;

/// One segment of a partition as its manifest names it: offsets `[base, last]`. Those of a partition overlap nowhere, so
/// that a base names a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First offset.
    pub base: Offset,
    /// Last offset, inclusive.
    pub last: Offset,
    /// Bytes of its file, above 0.
    pub bytes: u64,
    /// Largest timestamp of its records, Unix milliseconds; −1 if none.
    pub max_timestamp: i64,
    /// When it was made by the broker's clock; of a merged one that of its newest part.
    pub created: WallMs,
}
