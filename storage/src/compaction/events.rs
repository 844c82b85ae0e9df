//! What goes into the planner and what comes out of it, and its settings.

use super::retention::Retention;
use super::{Segment, tiers};
use crate::env::{Mono, WallMs};
use crate::ids::{Offset, TopicPartition};
use std::time::Duration;

/// Bounds and thresholds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannerConfig {
    /// A partition is rolled at this size, and a segment of it is full, bytes.
    pub roll_bytes: u64,
    /// The fewest segments that are merged at the end of a log, at least 2.
    pub fan_in: usize,
    /// A record is in a segment, or on the way there, after this time if there is credit for it.
    pub roll_after: Duration,
    /// And after this time in any case, or after a cell of its retention where that is less.
    pub roll_within: Duration,
    /// What is not rolled may take so many bytes, over all partitions: while they are in memory a roll reads nothing.
    pub held_bytes: u64,
    /// A roll of as many bytes pays for itself. At least 1.
    pub paid_bytes: u64,
    /// Write-ahead objects that earn the credit for one roll. At least 1.
    pub objects_per_roll: u64,
    /// Rolls for which credit can be saved.
    pub burst: u64,
    /// Effects under way at once.
    pub effects: usize,
    /// Their bytes; one effect is always allowed.
    pub effect_bytes: u64,
    /// Write-ahead objects that the log may keep (PROTOCOL.md section 2); `None` on local extents.
    pub uncovered_objects: Option<u64>,
    /// The same in bytes.
    pub uncovered_bytes: Option<u64>,
    /// References that the lane may hold in memory, 64 bytes each.
    pub references: Option<u64>,
}

impl Default for PlannerConfig {
    /// For object stores (decision 054 has the reasons and figures).
    fn default() -> Self {
        PlannerConfig {
            roll_bytes: 64 << 20,
            fan_in: tiers::FAN_IN,
            roll_after: Duration::from_secs(60),
            roll_within: Duration::from_secs(24 * 3600),
            held_bytes: 256 << 20,
            paid_bytes: 8 << 20,
            objects_per_roll: 8,
            burst: 64,
            effects: 4,
            effect_bytes: 256 << 20,
            uncovered_objects: Some(65_536),
            uncovered_bytes: Some(256 << 30),
            references: Some(1 << 20),
        }
    }
}

/// Both clocks at one instant: ages of uncovered records follow the first, retention the second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Monotonic.
    pub mono: Mono,
    /// Wall clock.
    pub wall: WallMs,
}

/// A partition when the lane comes to lead it, from its manifest and its committed state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Led {
    /// First readable offset.
    pub log_start: Offset,
    /// First offset that no segment holds.
    pub covered: Offset,
    /// What is committed beyond it, in offset order: of each reference its end, exclusive, and its bytes.
    pub uncovered: Vec<(Offset, u64)>,
    /// In offset order; none as long as they are not known ([`Event::Named`]).
    pub segments: Vec<Segment>,
    /// Settings of its topic.
    pub retention: Retention,
}

/// What of the log keeps the store and the memory of the lane.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Load {
    /// Write-ahead objects committed since the lane's log was opened.
    pub committed_objects: u64,
    /// Write-ahead objects from the first that something is not covered of up to the commit point.
    pub uncovered_objects: u64,
    /// Their bytes.
    pub uncovered_bytes: u64,
    /// References that the lane holds.
    pub references: u64,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The lane leads a partition.
    Led(TopicPartition, Led),
    /// It no longer does.
    Lost(TopicPartition),
    /// Records were committed up to `end`, exclusive.
    Committed {
        /// Of which partition.
        partition: TopicPartition,
        /// Its committed end.
        end: Offset,
        /// Bytes of the batches.
        bytes: u64,
    },
    /// The log start rose: DeleteRecords, or something has expired. What lies below is no longer the planner's concern.
    LogStart(TopicPartition, Offset),
    /// The manifest names the segment that a roll made.
    Rolled(TopicPartition, Segment),
    /// The effect under way ended without news beyond this: segments hold everything below the offset, whoever made them.
    Covered(TopicPartition, Offset),
    /// The manifest names this segment instead of those it was merged from.
    Merged(TopicPartition, Segment),
    /// These segments, in offset order, are all that the manifest names. Ends no effect.
    Named(TopicPartition, Vec<Segment>),
    /// The effect under way came to nothing.
    Failed(TopicPartition),
    /// Settings of a topic changed.
    Settings(TopicPartition, Retention),
    /// The lane's load, once in a while and when it changed much.
    Load(Load),
}

/// What to do. Each is answered by `Rolled` or `Covered`, by `Merged`, or by `Failed`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Write what lies between the covered bound and `through` as one segment.
    Roll {
        /// Of which partition.
        partition: TopicPartition,
        /// First offset beyond the segment.
        through: Offset,
        /// About its bytes.
        bytes: u64,
    },
    /// Write these neighbours as one segment.
    Merge {
        /// Of which partition.
        partition: TopicPartition,
        /// In offset order, at least two.
        segments: Vec<Segment>,
    },
}
