//! COMPACT: what the lane's planner has rolled and merged, and what that lets go.
//!
//! Invariants:
//! 1. A reference goes, here and at the shard, only when the manifest is known to cover its offsets (PROTOCOL.md I8).
//! 2. The name of a segment is used once: numbers go on over all logs of a process life, each with its own wid.
//! 3. The planner hears of the end of those rolls and merges only that it started: one that was under way when the lane
//!    lost everything ends beside it.
//! 4. A released partition is frozen: what was rolled of it meanwhile its next owner learns from the manifest, by a roll or
//!    a look.
//! 5. What segments a partition has is learnt by its rolls, which read the manifest anyway; of partitions that are not
//!    rolled, by one look at a time and one in [`LOOK`], however many the lane leads. What the planner knows may be out of
//!    date: a merge takes what the manifest names, or nothing.
//! 6. At a limit of the write-ahead log seals wait in their mailboxes, for as long as rolls get on (PROTOCOL.md section 2).

use super::config::RollMemory;
use super::core::LaneCore;
use super::counters::LaneTotals;
use super::events::Effect;
use super::holding::Holding;
use super::messages::{CommittedObject, ToShard};
use crate::compaction::retention::Retention;
use crate::compaction::{self, Load, Moment, Planner, PlannerConfig, Segment};
use crate::compactor::Coverage;
use crate::compactor::merge::{Merge, Merged};
use crate::compactor::roll::{Roll, RollError};
use crate::env::Mono;
use crate::format::manifest::SegmentName;
use crate::ids::{Offset, ShardIndex, TopicPartition, Wid};
use crate::store_error::StoreError;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

/// How often time alone may make something due.
const LOOK: Duration = Duration::from_secs(1);
/// Rolls that let go of nothing for so long do not hold produce back: what ails them is not what it sends.
const PROGRESS: Duration = Duration::from_secs(5);

/// The planner of a lane.
pub(super) struct Compacting {
    config: PlannerConfig,
    planner: Planner,
    next_number: u64,
    /// What the planner has rolled or merged.
    under_way: BTreeMap<TopicPartition, SegmentName>,
    holding: Holding,
    look_at: Mono,
    /// When a roll let go of something last.
    covered_at: Option<Mono>,
    /// Where it differs from the default.
    retention: BTreeMap<TopicPartition, Retention>,
    /// Partitions whose segments the planner does not know.
    unknown: BTreeSet<TopicPartition>,
    /// Which of them was looked at last, and whether its answer is out.
    looked: Option<TopicPartition>,
    looking: bool,
    totals: Totals,
}

/// What was merged so far.
#[derive(Clone, Copy, Default)]
struct Totals {
    merges: u64,
    read: u64,
    written: u64,
    /// Unix seconds.
    last_at: u64,
}

impl Compacting {
    pub(super) fn new(config: PlannerConfig, memory: RollMemory, seed: u64, now: Mono) -> Compacting {
        Compacting {
            planner: Planner::new(config.clone(), seed),
            config,
            next_number: 0,
            under_way: BTreeMap::new(),
            holding: Holding::new(memory),
            look_at: now.plus(LOOK),
            covered_at: None,
            retention: BTreeMap::new(),
            unknown: BTreeSet::new(),
            looked: None,
            looking: false,
            totals: Totals::default(),
        }
    }

    /// The totals of a lane with those of its merges.
    pub(super) fn add_to(&self, totals: LaneTotals) -> LaneTotals {
        let Totals { merges, read, written, last_at } = self.totals;
        let merges_due = self.planner.mergeable() as u64;
        let (merge_read_bytes, merge_written_bytes, merged_at) = (read, written, last_at);
        LaneTotals { merges, merge_read_bytes, merge_written_bytes, merged_at, merges_due, ..totals }
    }

    /// A name that was not used before.
    fn name(&mut self, wid: Wid) -> SegmentName {
        let number = self.next_number;
        self.next_number += 1;
        SegmentName { wid, number }
    }

    /// The next of those whose segments are not known, going round.
    fn next_unknown(&mut self) -> Option<TopicPartition> {
        let after = self.looked.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.unknown.range((after, Bound::Unbounded)).chain(&self.unknown).next().copied();
        self.looked = next.or(self.looked);
        next
    }

    /// Whether what ended is what the planner waits for.
    fn ended(&mut self, partition: TopicPartition, name: SegmentName) -> bool {
        let planned = self.under_way.get(&partition) == Some(&name);
        if planned {
            self.under_way.remove(&partition);
        }
        planned
    }
}

impl LaneCore {
    /// Tells the planner, if there is one.
    pub(super) fn plan(&mut self, event: compaction::Event) {
        let now = self.moment();
        let Some(compacting) = &mut self.compacting else { return };
        match &event {
            compaction::Event::Lost(partition) => {
                compacting.holding.forget(*partition);
                compacting.unknown.remove(partition);
                compacting.retention.remove(partition);
            }
            compaction::Event::LogStart(partition, offset) => compacting.holding.drop_below(*partition, *offset),
            _ => {}
        }
        compacting.planner.handle(now, event);
    }

    /// Whether the write-ahead log is near one of its limits, so that rolls need the processor as much as produce does.
    pub fn is_pressed(&self) -> bool {
        self.compacting.as_ref().is_some_and(|compacting| compacting.planner.is_pressed())
    }

    /// Whether produce waits until rolls have let go of something (invariant 6).
    pub(super) fn waits_for_rolls(&self) -> bool {
        let gets_on = |at: Mono| self.now.mono.since(at) < PROGRESS;
        self.stop.is_none()
            && self
                .compacting
                .as_ref()
                .is_some_and(|compacting| compacting.planner.is_full() && compacting.covered_at.is_some_and(gets_on))
    }

    /// Memory of rolls and of what waits for them.
    pub(super) fn held_bytes(&self) -> u64 {
        self.compacting.as_ref().map_or(0, |compacting| compacting.holding.memory())
    }

    /// What was just committed is to be kept in memory.
    pub(super) fn hold(&mut self, object: Arc<CommittedObject>, slices: Vec<Bytes>) {
        if let Some(compacting) = &mut self.compacting {
            compacting.holding.committed(object, slices);
        }
    }

    /// Keeps what is to be kept, once the shards were told and the next objects are on their way.
    pub(super) fn keep_held(&mut self) {
        let Some(compacting) = &mut self.compacting else { return };
        let partitions = &self.partitions;
        compacting.holding.keep(|entry| {
            let led = partitions.get(&entry.partition).filter(|led| led.committed.epoch == entry.epoch);
            led.is_some_and(|led| led.is_rolled() && entry.base >= led.committed.referenced_from())
        });
    }

    fn moment(&self) -> Moment {
        Moment { mono: self.now.mono, wall: self.now.wall }
    }

    /// The lane leads the partition, or a part of it was covered unexpectedly.
    pub(super) fn plan_led(&mut self, partition: TopicPartition) {
        let Some(led) = self.partitions.get(&partition) else { return };
        let Some(compacting) = &mut self.compacting else { return };
        let state = &led.committed;
        let uncovered = state.references.iter().map(|one| (one.last.plus(1), u64::from(one.length))).collect();
        let (log_start, covered, segments) = (state.log_start, state.covered, Vec::new());
        // The leader before may have rolled more than it could tell, and have let go of what it rolled.
        let of_another = state.references.first().is_some_and(|first| first.wid != self.wid);
        if covered > log_start || of_another {
            compacting.unknown.insert(partition);
        }
        let retention = compacting.retention.get(&partition).copied().unwrap_or_default();
        let led = compaction::Led { log_start, covered, uncovered, segments, retention };
        self.plan(compaction::Event::Led(partition, led));
    }

    /// A shard says when what it leads expires.
    pub(super) fn set_retention(&mut self, shard: ShardIndex, partition: TopicPartition, retention: Retention) {
        let leads = self.partitions.get(&partition).is_some_and(|led| led.shard == shard);
        let Some(compacting) = self.compacting.as_mut().filter(|_| leads) else { return };
        compacting.retention.insert(partition, retention);
        self.plan(compaction::Event::Settings(partition, retention));
    }

    /// Everything is lost, what is under way too.
    pub(super) fn plan_nothing(&mut self) {
        let (seed, now) = (self.random(), self.now.mono);
        if let Some(compacting) = &mut self.compacting {
            compacting.planner = Planner::new(compacting.config.clone(), seed);
            compacting.under_way.clear();
            compacting.holding.clear();
            compacting.retention.clear();
            compacting.unknown.clear();
            compacting.look_at = now.plus(LOOK);
        }
    }

    /// Starts what is due.
    pub(super) fn advance_compaction(&mut self) {
        if self.compacting.is_none() || self.stop.is_some() {
            return;
        }
        let now = self.moment();
        if self.compacting.as_ref().is_some_and(|compacting| compacting.look_at <= now.mono) {
            self.plan(compaction::Event::Load(self.load()));
            let compacting = self.compacting.as_mut().expect("just seen");
            compacting.look_at = now.mono.plus(LOOK);
            if !compacting.looking
                && let Some(partition) = compacting.next_unknown()
            {
                compacting.looking = true;
                self.effects.push_back(Effect::LookAtSegments(partition));
            }
        }
        while let Some(compacting) = &mut self.compacting
            && let Some(effect) = compacting.planner.next(now)
        {
            match effect {
                compaction::Effect::Roll { partition, through, .. } => self.roll(partition, through),
                compaction::Effect::Merge { partition, segments } => self.merge(partition, segments),
            }
        }
    }

    fn load(&self) -> Load {
        let committed = self.flights.commit_point();
        // What keeps the log from the low-water mark on, as far as rolls of this lane can change it.
        let rolled = || self.partitions.values().filter(|led| led.is_rolled());
        let from = rolled().filter_map(|led| led.first_own).min().unwrap_or(committed);
        let foreign: u64 = rolled().map(|led| led.foreign_bytes).sum();
        Load {
            committed_objects: committed.0,
            uncovered_objects: committed.0 - from.0,
            uncovered_bytes: self.log_bytes.since(from) + foreign,
            references: rolled().map(|led| led.committed.references.len() as u64).sum(),
        }
    }

    fn roll(&mut self, partition: TopicPartition, through: Offset) {
        let state = &self.partitions[&partition].committed;
        let mut references: Vec<_> = state.references.iter().take_while(|one| one.last < through).collect();
        if references.is_empty() {
            return self.plan(compaction::Event::Failed(partition));
        }
        let compacting = self.compacting.as_mut().expect("its planner said so");
        let name = compacting.name(self.wid);
        let held = compacting.holding.take(partition, name, &mut references);
        compacting.under_way.insert(partition, name);
        let (log_start, epochs) = (state.log_start, state.epochs.clone());
        self.effects.push_back(Effect::Roll(Box::new(Roll { partition, log_start, epochs, references, held, name })));
    }

    fn merge(&mut self, partition: TopicPartition, segments: Vec<Segment>) {
        let compacting = self.compacting.as_mut().expect("its planner said so");
        let name = compacting.name(self.wid);
        compacting.under_way.insert(partition, name);
        self.effects.push_back(Effect::Merge(Merge { partition, segments, name }));
    }

    /// A roll ended.
    pub(super) fn on_rolled(
        &mut self,
        partition: TopicPartition,
        name: SegmentName,
        result: Result<Coverage, RollError>,
    ) {
        if let Some(compacting) = &mut self.compacting {
            compacting.holding.rolled(partition, name);
        }
        let planned = self.plan_ended(partition, name, result.as_ref().ok());
        let through = match result {
            Ok(Coverage { covered, .. }) => {
                self.rolled_at = self.now.wall.seconds();
                covered
            }
            Err(RollError::Store(error)) => {
                return tracing::warn!(%partition, %error, "records stay in the write-ahead log for now");
            }
            Err(error @ RollError::Damage(_)) => {
                return tracing::error!(%partition, %error, "committed records can't be rolled into a segment");
            }
        };
        if self.cover(partition, through) && !planned {
            self.plan_led(partition);
        }
    }

    /// The manifest covers the partition up to `through`: says so to its shard, if it is led.
    fn cover(&mut self, partition: TopicPartition, through: Offset) -> bool {
        let Some(led) = self.partitions.get_mut(&partition).filter(|led| led.is_rolled()) else { return false };
        led.committed.cover(through);
        led.find_first_own(self.wid);
        let (shard, epoch, covered) = (led.shard, led.committed.epoch, led.committed.covered);
        if let Some(compacting) = &mut self.compacting {
            compacting.holding.drop_below(partition, covered);
            compacting.covered_at = Some(self.now.mono);
            if compacting.planner.is_pressed() {
                // Before more is rolled for a pressure that is gone.
                compacting.look_at = self.now.mono;
            }
        }
        self.checkpointing.progressed(self.now.mono);
        self.effects.push_back(Effect::ToShard(shard, ToShard::Covered { partition, epoch, covered }));
        true
    }

    /// A merge ended. What segments hold did not change, so that nobody else need know.
    pub(super) fn on_merged(
        &mut self,
        partition: TopicPartition,
        name: SegmentName,
        result: Result<Merged, RollError>,
    ) {
        self.plan_ended(partition, name, result.as_ref().ok().map(|merged| &merged.coverage));
        match result {
            Ok(Merged { read: 0, .. }) => {}
            Ok(Merged { read, written, .. }) => {
                let Some(compacting) = &mut self.compacting else { return };
                let totals = &mut compacting.totals;
                totals.merges += 1;
                (totals.read, totals.written) = (totals.read + read, totals.written + written);
                totals.last_at = self.now.wall.seconds();
            }
            Err(RollError::Store(error)) => tracing::warn!(%partition, %error, "segments are not merged for now"),
            Err(error @ RollError::Damage(_)) => tracing::error!(%partition, %error, "segments can't be merged"),
        }
    }

    /// Tells the planner of the end of what it started; gives whether it did.
    fn plan_ended(&mut self, partition: TopicPartition, name: SegmentName, coverage: Option<&Coverage>) -> bool {
        let Some(compacting) = &mut self.compacting else { return false };
        if !compacting.ended(partition, name) {
            return false;
        }
        let Some(Coverage { covered, segments }) = coverage else {
            self.plan(compaction::Event::Failed(partition));
            return true;
        };
        compacting.unknown.remove(&partition);
        self.plan(compaction::Event::Named(partition, segments.clone()));
        self.plan(compaction::Event::Covered(partition, *covered));
        true
    }

    /// The manifest of a partition was read.
    pub(super) fn on_looked(&mut self, partition: TopicPartition, result: Result<Coverage, StoreError>) {
        let Some(compacting) = &mut self.compacting else { return };
        compacting.looking = false;
        match result {
            // What was rolled meanwhile told more.
            Ok(Coverage { covered, segments }) if compacting.unknown.remove(&partition) => {
                let known = self.partitions.get(&partition).map_or(covered, |led| led.committed.covered);
                if known < covered && self.cover(partition, covered) {
                    self.plan_led(partition);
                    self.compacting.as_mut().expect("just seen").unknown.remove(&partition);
                }
                self.plan(compaction::Event::Named(partition, segments));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%partition, %error, "its segments are not merged for now"),
        }
    }

    /// Bytes that no segment holds; 0 without a planner.
    pub(super) fn uncovered_bytes(&self) -> u64 {
        self.compacting.as_ref().map_or(0, |compacting| compacting.planner.uncovered_bytes())
    }

    /// When the planner wants to look without an event.
    pub(super) fn compaction_deadline(&self) -> Option<Mono> {
        let waits = |compacting: &&Compacting| {
            self.stop.is_none() && (compacting.planner.waits() || !compacting.unknown.is_empty())
        };
        let behind =
            self.compacting.as_ref().filter(|compacting| compacting.holding.is_behind()).map(|_| self.now.mono);
        self.compacting.as_ref().filter(waits).map(|compacting| compacting.look_at).into_iter().chain(behind).min()
    }
}
