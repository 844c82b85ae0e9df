//! COMPACT: what the lane's planner has rolled, and what that lets go.
//!
//! Invariants:
//! 1. A reference goes, here and at the shard, only when the manifest is known to cover its offsets (PROTOCOL.md I8).
//! 2. The name of a segment is used once: numbers go on over all logs of a process life, each with its own wid.
//! 3. The planner hears of the end of those rolls only that it started: one that was under way when the lane lost
//!    everything ends beside it.
//! 4. A released partition is frozen: what was rolled of it meanwhile its next owner learns from the manifest.

use super::core::LaneCore;
use super::events::Effect;
use super::leadership::Role;
use super::messages::ToShard;
use crate::compaction::{self, Load, Moment, Planner, PlannerConfig};
use crate::compactor::roll::{Roll, RollError};
use crate::env::Mono;
use crate::format::manifest::SegmentName;
use crate::ids::{Offset, TopicPartition};
use std::collections::BTreeMap;
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
    look_at: Mono,
}

impl Compacting {
    pub(super) fn new(config: PlannerConfig, seed: u64, now: Mono) -> Compacting {
        let planner = Planner::new(config.clone(), seed);
        Compacting { config, planner, next_number: 0, under_way: BTreeMap::new(), look_at: now.plus(LOOK) }
    }
}

impl LaneCore {
    /// Tells the planner, if there is one.
    pub(super) fn plan(&mut self, event: compaction::Event) {
        let now = self.moment();
        if let Some(compacting) = &mut self.compacting {
            compacting.planner.handle(now, event);
        }
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
            let next_number = compacting.next_number;
            *compacting = Compacting { next_number, ..Compacting::new(compacting.config.clone(), seed, now) };
        }
    }

    /// Starts what is due.
    pub(super) fn advance_compaction(&mut self) {
        if self.compacting.is_none() || self.stop.is_some() {
            return;
        }
        let now = self.moment();
        let load = self.load();
        let Some(compacting) = &mut self.compacting else { return };
        if compacting.look_at <= now.mono {
            compacting.look_at = now.mono.plus(LOOK);
            compacting.planner.handle(now, compaction::Event::Load(load));
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
        let committed = self.flights.commit_point().0;
        let references = self.partitions.values().map(|led| led.committed.references.len() as u64).sum();
        Load {
            busy: !self.flights.is_empty(),
            committed_objects: committed,
            uncovered_objects: committed - self.record.lw.0,
            uncovered_bytes: 0,
            references,
        }
    }

    fn roll(&mut self, partition: TopicPartition, through: Offset) {
        let wid = self.wid;
        let compacting = self.compacting.as_mut().expect("its planner said so");
        let name = SegmentName { wid, number: compacting.next_number };
        let state = &self.partitions[&partition].committed;
        let references: Vec<_> = state.references.iter().take_while(|one| one.last < through).collect();
        if references.is_empty() {
            return self.plan(compaction::Event::Failed(partition));
        }
        compacting.next_number += 1;
        compacting.under_way.insert(partition, name);
        let (log_start, epochs) = (state.log_start, state.epochs.clone());
        self.effects.push_back(Effect::Roll(Box::new(Roll { partition, log_start, epochs, references, name })));
    }

    /// A roll ended.
    pub(super) fn on_rolled(
        &mut self,
        partition: TopicPartition,
        name: SegmentName,
        result: Result<Offset, RollError>,
    ) {
        let planned = self.compacting.as_mut().is_some_and(|compacting| {
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
        if !matches!(led.role, Role::Leader | Role::Draining { .. }) {
            return;
        }
        led.committed.cover(through);
        led.find_first_own(self.wid);
        let (shard, epoch, covered) = (led.shard, led.committed.epoch, led.committed.covered);
        self.checkpointing.progressed(self.now.mono);
        self.effects.push_back(Effect::ToShard(shard, ToShard::Covered { partition, epoch, covered }));
        if !planned {
            self.plan_led(partition);
        }
    }

    /// When the planner wants to look without an event.
    pub(super) fn compaction_deadline(&self) -> Option<Mono> {
        let waits = |compacting: &&Compacting| compacting.planner.uncovered_bytes() > 0 && self.stop.is_none();
        self.compacting.as_ref().filter(waits).map(|compacting| compacting.look_at)
    }
}
