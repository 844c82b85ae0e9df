//! What to roll, merge and expire next, over all partitions that a lane leads. Pure: events and `now` in, effects out.
//!
//! Invariants:
//! 1. A partition has one effect under way at most: effects commit its manifest. It ends with an event that reports it,
//!    even when the lane lost the partition meanwhile.
//! 2. At most `effects` are under way, and a further one starts only while theirs are below `effect_bytes`.
//! 3. Expiry goes first: it moves no bytes. Then the partition with the oldest uncovered record is rolled first; after
//!    [`ROLLS_PER_MERGE`] rolls one merge goes before further rolls, so that neither starves. Merges go round.
//! 4. While produce is busy only one merge is under way.
//! 5. The same events give the same effects.

use super::retention::Retention;
use super::uncovered::Uncovered;
use super::{Segment, tiers};
use crate::env::{Mono, WallMs};
use crate::ids::{Offset, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

/// So many rolls start before a merge that waits.
const ROLLS_PER_MERGE: u32 = 8;
/// From this part of its limits on, in quarters, a write-ahead log's oldest records are rolled whatever their age.
const PRESSURE_QUARTERS: u64 = 3;
/// A partition whose effect failed waits as long before the next.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A roll ends within this part of `roll_bytes`.
const PIECES_PER_ROLL: u64 = 8;

/// Bounds and thresholds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannerConfig {
    /// A partition is rolled at this size, and a segment of it is full, bytes.
    pub roll_bytes: u64,
    /// A record is in a segment, or on the way there, after this time.
    pub roll_after: Duration,
    /// Effects under way at once.
    pub effects: usize,
    /// Their bytes; one effect is always allowed.
    pub effect_bytes: u64,
    /// Uncovered write-ahead objects before produce is slowed (PROTOCOL.md section 2); `None` on local extents.
    pub uncovered_objects: Option<u64>,
    /// The same in bytes; `None` on object stores.
    pub uncovered_bytes: Option<u64>,
}

impl Default for PlannerConfig {
    /// For object stores.
    fn default() -> Self {
        PlannerConfig {
            roll_bytes: 64 << 20,
            roll_after: Duration::from_secs(60),
            effects: 4,
            effect_bytes: 256 << 20,
            uncovered_objects: Some(512),
            uncovered_bytes: None,
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
    /// First offset not committed.
    pub end: Offset,
    /// Bytes between the two.
    pub uncovered_bytes: u64,
    /// In offset order.
    pub segments: Vec<Segment>,
    /// Settings of its topic.
    pub retention: Retention,
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
    /// The log start rose (DeleteRecords).
    LogStart(TopicPartition, Offset),
    /// The manifest names the segment that a roll made.
    Rolled(TopicPartition, Segment),
    /// The manifest names this segment instead of those it was merged from.
    Merged(TopicPartition, Segment),
    /// The manifest names no segment below the new log start.
    Expired(TopicPartition, Offset),
    /// The effect under way came to nothing.
    Failed(TopicPartition),
    /// Settings of a topic changed.
    Settings(TopicPartition, Retention),
    /// How loaded the lane is.
    Load {
        /// Produce needs the processor and the store.
        busy: bool,
        /// Write-ahead objects not wholly covered.
        uncovered_objects: u64,
        /// Their bytes.
        uncovered_bytes: u64,
    },
}

/// What to do. Each is answered by `Rolled`, `Merged` or `Expired`, or by `Failed`.
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
    /// Raise the log start and drop these segments from the manifest.
    Expire {
        /// Of which partition.
        partition: TopicPartition,
        /// At or above the one before.
        log_start: Offset,
        /// In offset order, at least one.
        segments: Vec<Segment>,
    },
}

struct Partition {
    log_start: Offset,
    segments: Vec<Segment>,
    uncovered: Uncovered,
    retention: Retention,
    not_before: Mono,
}

struct Work {
    bytes: u64,
    merge: bool,
    /// The lane lost the partition since; what it leads now was read from the manifest anew.
    orphaned: bool,
}

/// The planner.
pub struct Planner {
    config: PlannerConfig,
    partitions: BTreeMap<TopicPartition, Partition>,
    work: BTreeMap<TopicPartition, Work>,
    /// Partitions whose segments or settings changed, or whose cell may have passed, since they were last looked at.
    unsettled: BTreeSet<TopicPartition>,
    last_merged: Option<TopicPartition>,
    rolls_since_merge: u32,
    busy: bool,
    pressed: bool,
}

impl Planner {
    /// A planner of no partition.
    pub fn new(config: PlannerConfig) -> Planner {
        Planner {
            config,
            partitions: BTreeMap::new(),
            work: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            last_merged: None,
            rolls_since_merge: 0,
            busy: false,
            pressed: false,
        }
    }

    /// Takes in what happened at `now`. What concerns a partition that is not led frees its place and is otherwise
    /// ignored.
    pub fn handle(&mut self, now: Moment, event: Event) {
        match event {
            Event::Led(partition, led) => self.lead(now, partition, led),
            Event::Lost(partition) => {
                self.partitions.remove(&partition);
                self.unsettled.remove(&partition);
                if let Some(work) = self.work.get_mut(&partition) {
                    work.orphaned = true;
                }
            }
            Event::Load { busy, uncovered_objects, uncovered_bytes } => {
                let near =
                    |found: u64, limit: Option<u64>| limit.is_some_and(|limit| found >= limit / 4 * PRESSURE_QUARTERS);
                self.busy = busy;
                self.pressed = near(uncovered_objects, self.config.uncovered_objects)
                    || near(uncovered_bytes, self.config.uncovered_bytes);
            }
            Event::Committed { partition, end, bytes } => {
                let piece_bytes = self.config.roll_bytes / PIECES_PER_ROLL;
                let Some(found) = self.partitions.get_mut(&partition) else { return };
                found.uncovered.push(end, bytes, now.mono, piece_bytes);
            }
            Event::LogStart(partition, offset) => self.change(partition, |found| {
                found.log_start = found.log_start.max(offset);
                found.uncovered.drop_below(offset);
            }),
            Event::Settings(partition, retention) => self.change(partition, |found| found.retention = retention),
            Event::Rolled(partition, segment) => self.finish(partition, |found| {
                found.uncovered.drop_below(segment.last.plus(1));
                found.uncovered.abandon_roll();
                found.segments.push(segment);
            }),
            Event::Merged(partition, segment) => self.finish(partition, |found| {
                let from = found.segments.partition_point(|each| each.last < segment.base);
                let to = found.segments.partition_point(|each| each.base <= segment.last);
                found.segments.splice(from..to, [segment]);
            }),
            Event::Expired(partition, log_start) => self.finish(partition, |found| {
                found.log_start = found.log_start.max(log_start);
                found.segments.retain(|each| each.last >= log_start);
            }),
            Event::Failed(partition) => self.finish(partition, |found| {
                found.uncovered.abandon_roll();
                found.not_before = now.mono.plus(AFTER_FAILURE);
            }),
        }
    }

    fn lead(&mut self, now: Moment, partition: TopicPartition, led: Led) {
        let mut uncovered = Uncovered::default();
        if led.covered.max(led.log_start) < led.end {
            uncovered.push(led.end, led.uncovered_bytes.max(1), now.mono, 0);
        }
        let Led { log_start, segments, retention, .. } = led;
        let found = Partition { log_start, segments, uncovered, retention, not_before: now.mono };
        self.partitions.insert(partition, found);
        self.unsettled.insert(partition);
    }

    fn change(&mut self, partition: TopicPartition, change: impl FnOnce(&mut Partition)) {
        let Some(found) = self.partitions.get_mut(&partition) else { return };
        change(found);
        self.unsettled.insert(partition);
    }

    fn finish(&mut self, partition: TopicPartition, change: impl FnOnce(&mut Partition)) {
        if self.work.remove(&partition).is_some_and(|work| !work.orphaned) {
            self.change(partition, change);
        }
    }

    /// The next effect, if one is due and there is room for it. Call until `None`, after events and now and then.
    pub fn next(&mut self, now: Moment) -> Option<Effect> {
        if self.work.len() >= self.config.effects || self.bytes() >= self.config.effect_bytes {
            return None;
        }
        if let Some(effect) = self.expire(now) {
            return Some(effect);
        }
        if self.rolls_since_merge < ROLLS_PER_MERGE {
            self.roll(now).or_else(|| self.merge(now))
        } else {
            self.merge(now).or_else(|| self.roll(now))
        }
    }

    /// Has every partition looked at again for what time alone makes due: expiry, and cells that have passed. Call it
    /// once in a while; once in five minutes is what Kafka does.
    pub fn look_again(&mut self) {
        self.unsettled.extend(self.partitions.keys());
    }

    /// Bytes under way.
    pub fn bytes(&self) -> u64 {
        self.work.values().map(|work| work.bytes).sum()
    }

    /// Segments of all partitions.
    pub fn segments(&self) -> usize {
        self.partitions.values().map(|found| found.segments.len()).sum()
    }

    fn ready(&self, partition: &TopicPartition, found: &Partition, now: Moment) -> bool {
        found.not_before <= now.mono && !self.work.contains_key(partition)
    }

    fn expire(&mut self, now: Moment) -> Option<Effect> {
        let due = self.unsettled.iter().find_map(|partition| {
            let found = self.partitions.get(partition).filter(|found| self.ready(partition, found, now))?;
            let uncovered = found.uncovered.bytes();
            let count = found.retention.expired(&found.segments, uncovered, found.log_start, now.wall);
            (count > 0).then_some((*partition, count))
        });
        let (partition, count) = due?;
        let found = &self.partitions[&partition];
        let segments = found.segments[..count].to_vec();
        let log_start = found.log_start.max(segments[count - 1].last.plus(1));
        self.work.insert(partition, Work { bytes: 0, merge: false, orphaned: false });
        Some(Effect::Expire { partition, log_start, segments })
    }

    fn roll(&mut self, now: Moment) -> Option<Effect> {
        let due = self.partitions.iter().filter(|(partition, found)| self.ready(partition, found, now));
        let due = due.filter_map(|(partition, found)| {
            let oldest = found.uncovered.oldest()?;
            let old = now.mono.since(oldest) >= self.config.roll_after;
            let large = found.uncovered.bytes() >= self.config.roll_bytes;
            (old || large || self.pressed).then_some((oldest, *partition))
        });
        let (_, partition) = due.min()?;
        let found = self.partitions.get_mut(&partition).expect("just seen");
        let (through, bytes) = found.uncovered.start_roll(self.config.roll_bytes).expect("it has an oldest piece");
        self.work.insert(partition, Work { bytes, merge: false, orphaned: false });
        self.rolls_since_merge = self.rolls_since_merge.saturating_add(1);
        Some(Effect::Roll { partition, through, bytes })
    }

    fn merge(&mut self, now: Moment) -> Option<Effect> {
        if self.busy && self.work.values().any(|work| work.merge) {
            return None;
        }
        let after = self.last_merged.map_or(Bound::Unbounded, Bound::Excluded);
        let round = self.unsettled.range((after, Bound::Unbounded)).chain(&self.unsettled);
        let (mut settled, mut due) = (Vec::new(), None);
        for partition in round.take(self.unsettled.len() * 2) {
            let Some(found) = self.partitions.get(partition).filter(|found| self.ready(partition, found, now)) else {
                continue;
            };
            let limits = found.retention.limits(self.config.roll_bytes, now.wall);
            if let Some(range) = tiers::due(&found.segments, &limits) {
                due = Some((*partition, found.segments[range].to_vec()));
                break;
            }
            settled.push(*partition);
        }
        for partition in settled {
            self.unsettled.remove(&partition);
        }
        let (partition, segments) = due?;
        self.last_merged = Some(partition);
        self.rolls_since_merge = 0;
        let bytes = segments.iter().map(|each| each.bytes).sum();
        self.work.insert(partition, Work { bytes, merge: true, orphaned: false });
        Some(Effect::Merge { partition, segments })
    }
}
