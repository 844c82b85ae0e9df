//! COMPACT: what the lane's planner has rolled, and what that lets go.
//!
//! Invariants:
//! 1. A reference goes, here and at the shard, only when the manifest is known to cover its offsets (PROTOCOL.md I8).
//! 2. The name of a segment is used once: numbers go on over all logs of a process life, each with its own wid.
//! 3. The planner hears of the end of those rolls only that it started: one that was under way when the lane lost
//!    everything ends beside it.
//! 4. A released partition is frozen: what was rolled of it meanwhile its next owner learns from the manifest.

use super::config::RollMemory;
use super::core::LaneCore;
use super::events::Effect;
use super::holding::Holding;
use super::messages::{CommittedObject, ToShard};
use crate::compaction::{self, Load, Moment, Planner, PlannerConfig};
use crate::compactor::roll::{Roll, RollError};
use crate::env::Mono;
use crate::format::manifest::SegmentName;
use crate::ids::{Offset, TopicPartition};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How often time alone may make something due.
const LOOK: Duration = Duration::from_secs(1);

/// The planner of a lane.
pub(super) struct Compacting {
    config: PlannerConfig,
    planner: Planner,
    next_number: u64,
    /// What the planner has rolled.
    under_way: BTreeMap<TopicPartition, SegmentName>,
    holding: Holding,
    look_at: Mono,
}

impl Compacting {
    pub(super) fn new(config: PlannerConfig, memory: RollMemory, seed: u64, now: Mono) -> Compacting {
        let (planner, holding) = (Planner::new(config.clone(), seed), Holding::new(memory));
        Compacting { config, planner, next_number: 0, under_way: BTreeMap::new(), holding, look_at: now.plus(LOOK) }
    }
}

impl LaneCore {
    /// Tells the planner, if there is one.
    pub(super) fn plan(&mut self, event: compaction::Event) {
        let now = self.moment();
        let Some(compacting) = &mut self.compacting else { return };
        match &event {
            compaction::Event::Lost(partition) => compacting.holding.forget(*partition),
            compaction::Event::LogStart(partition, offset) => compacting.holding.drop_below(*partition, *offset),
            _ => {}
        }
        compacting.planner.handle(now, event);
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

    /// The lane leads the partition, or a part of it was covered.
    pub(super) fn plan_led(&mut self, partition: TopicPartition) {
        let Some(led) = self.partitions.get(&partition).filter(|_| self.compacting.is_some()) else { return };
        let state = &led.committed;
        let uncovered = state.references.iter().map(|one| (one.last.plus(1), u64::from(one.length))).collect();
        let (log_start, covered, segments) = (state.log_start, state.covered, Vec::new());
        // Segments expire and are merged by whoever knows them all; the planner rolls.
        let retention = compaction::retention::Retention { delete: false, ms: None, bytes: None };
        let led = compaction::Led { log_start, covered, uncovered, segments, retention };
        self.plan(compaction::Event::Led(partition, led));
    }

    /// Everything is lost, what is under way too.
    pub(super) fn plan_nothing(&mut self) {
        let (seed, now) = (self.random(), self.now.mono);
        if let Some(compacting) = &mut self.compacting {
            compacting.planner = Planner::new(compacting.config.clone(), seed);
            compacting.under_way.clear();
            compacting.holding.clear();
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
            self.compacting.as_mut().expect("just seen").look_at = now.mono.plus(LOOK);
        }
        while let Some(compacting) = &mut self.compacting
            && let Some(effect) = compacting.planner.next(now)
        {
            match effect {
                compaction::Effect::Roll { partition, through, .. } => self.roll(partition, through),
                compaction::Effect::Merge { .. } | compaction::Effect::Expire { .. } => {
                    unreachable!("the planner is told of no segment")
                }
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
            busy: self.is_busy(),
            committed_objects: committed.0,
            uncovered_objects: committed.0 - from.0,
            uncovered_bytes: self.log_bytes.since(from) + foreign,
            references: rolled().map(|led| led.committed.references.len() as u64).sum(),
        }
    }

    fn roll(&mut self, partition: TopicPartition, through: Offset) {
        let wid = self.wid;
        let compacting = self.compacting.as_mut().expect("its planner said so");
        let name = SegmentName { wid, number: compacting.next_number };
        let state = &self.partitions[&partition].committed;
        let mut references: Vec<_> = state.references.iter().take_while(|one| one.last < through).collect();
        if references.is_empty() {
            return self.plan(compaction::Event::Failed(partition));
        }
        let held = compacting.holding.take(partition, name, &mut references);
        compacting.next_number += 1;
        compacting.under_way.insert(partition, name);
        let (log_start, epochs) = (state.log_start, state.epochs.clone());
        self.effects.push_back(Effect::Roll(Box::new(Roll { partition, log_start, epochs, references, held, name })));
    }

    /// A roll ended.
    pub(super) fn on_rolled(
        &mut self,
        partition: TopicPartition,
        name: SegmentName,
        result: Result<Offset, RollError>,
    ) {
        let planned = self.compacting.as_mut().is_some_and(|compacting| {
            compacting.holding.rolled(partition, name);
            compacting.under_way.get(&partition) == Some(&name) && compacting.under_way.remove(&partition).is_some()
        });
        if planned {
            self.plan(match result {
                Ok(through) => compaction::Event::Covered(partition, through),
                Err(_) => compaction::Event::Failed(partition),
            });
        }
        let through = match result {
            Ok(through) => through,
            Err(RollError::Store(error)) => {
                return tracing::warn!(%partition, %error, "records stay in the write-ahead log for now");
            }
            Err(error @ RollError::Damage(_)) => {
                return tracing::error!(%partition, %error, "committed records can't be rolled into a segment");
            }
        };
        let Some(led) = self.partitions.get_mut(&partition) else { return };
        if !led.is_rolled() {
            return;
        }
        led.committed.cover(through);
        led.find_first_own(self.wid);
        let (shard, epoch, covered) = (led.shard, led.committed.epoch, led.committed.covered);
        if let Some(compacting) = &mut self.compacting {
            compacting.holding.drop_below(partition, covered);
            if compacting.planner.is_pressed() {
                // Before more is rolled for a pressure that is gone.
                compacting.look_at = self.now.mono;
            }
        }
        self.checkpointing.progressed(self.now.mono);
        self.effects.push_back(Effect::ToShard(shard, ToShard::Covered { partition, epoch, covered }));
        if !planned {
            self.plan_led(partition);
        }
    }

    /// When the planner wants to look without an event.
    pub(super) fn compaction_deadline(&self) -> Option<Mono> {
        let waits = |compacting: &&Compacting| compacting.planner.uncovered_bytes() > 0 && self.stop.is_none();
        let behind =
            self.compacting.as_ref().filter(|compacting| compacting.holding.is_behind()).map(|_| self.now.mono);
        self.compacting.as_ref().filter(waits).map(|compacting| compacting.look_at).into_iter().chain(behind).min()
    }
}
