//! Which partitions the lane leads or has released, for which shard, and what they may append (PROTOCOL.md sections 1, 3).
//!
//! Invariants:
//! 1. An entry of a seal is of a partition that its shard leads at that epoch, and starts at the lane's own appended end.
//! 2. Committed state changes only by folding committed objects.
//! 3. A released partition stays, frozen, until its record names another write-ahead log.

use super::config::FORGOTTEN_TOPICS;
use super::core::LaneCore;
use super::events::Effect;
use super::messages::{LaneReport, Seal, ToShard};
use super::transactions::{Change, Kind};
use crate::compaction;
use crate::env::Mono;
use crate::ids::{LeaderEpoch, Offset, Seq, ShardIndex, TopicId, TopicPartition, Wid};
use crate::meta::records::PartitionRecord;
use crate::partition::CommittedPartition;
use std::collections::BTreeSet;
use std::time::Duration;

/// Where a partition stands at this lane. NONE is: not in the map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// ACQUIRING, its state read: the next checkpoint holds it at the new epoch.
    Read,
    /// ACQUIRING, in the checkpoint that stands: its claim may be sent.
    Claimable,
    /// ACQUIRING, its claim sent and undecided.
    Claiming,
    /// LEADER.
    Leader,
    /// DRAINING: the shard was asked to stop; `drained` once it has.
    Draining { then: AfterDrain, drained: bool },
    /// DRAINING, all its entries below C: its release is undecided.
    Releasing,
    /// RELEASED.
    Released { since: Mono, look_at: Mono },
}

/// Why a partition is drained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AfterDrain {
    Release,
    Forget,
    Stop,
}

/// A partition that the lane leads, acquires or has released.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Led {
    pub shard: ShardIndex,
    pub role: Role,
    /// The fold of everything below C.
    pub committed: CommittedPartition,
    /// What the shard sealed so far ends here.
    pub appended_end: Offset,
    /// The highest log start that waits to be committed, or was. A LOG_START entry names no epoch, so all of them lie
    /// below the release, like the entries of the epoch that ends.
    pub raised: Offset,
    /// The record as it stands (while ACQUIRING: as it was read).
    pub record: PartitionRecord,
    /// First sequence of this lane's log that holds something of it.
    pub first_own: Option<Seq>,
    /// Bytes that it has in other logs and in no segment.
    pub foreign_bytes: u64,
    /// References below are in chunks of this log.
    pub in_chunks: Offset,
    /// How many times it was released and nobody took it.
    pub taken_back: u32,
}

impl Led {
    pub(super) fn new(
        shard: ShardIndex,
        role: Role,
        committed: CommittedPartition,
        record: PartitionRecord,
        own: Wid,
    ) -> Led {
        let (appended_end, raised) = (committed.end, committed.log_start);
        let (first_own, foreign_bytes, in_chunks, taken_back) = (None, 0, Offset(0), 0);
        let mut led = Led {
            shard,
            role,
            appended_end,
            raised,
            committed,
            record,
            first_own,
            foreign_bytes,
            in_chunks,
            taken_back,
        };
        led.find_first_own(own);
        led
    }

    /// How long somebody has to take it once it is released. Whoever takes longer than that would find the record changed each
    /// time: twice as long the next time, up to sixteen times.
    pub(super) fn patience(&self, first: Duration) -> Duration {
        first.saturating_mul(1 << self.taken_back.min(4))
    }

    /// Looks up `first_own` after references were dropped. Those to other logs, of earlier leaders, come before it.
    pub(super) fn find_first_own(&mut self, own: Wid) {
        (self.first_own, self.foreign_bytes) = (None, 0);
        for reference in self.committed.references.iter() {
            if reference.wid == own {
                self.first_own = Some(reference.seq);
                return;
            }
            self.foreign_bytes += u64::from(reference.length);
        }
    }

    /// Whether its records may be rolled. What was released is frozen.
    pub(super) fn is_rolled(&self) -> bool {
        matches!(self.role, Role::Leader | Role::Draining { .. })
    }

    pub(super) fn appends(&self) -> bool {
        matches!(self.role, Role::Leader | Role::Draining { drained: false, .. })
    }
}

impl LaneCore {
    /// Checks a seal against what its shard leads (invariant 1) and lets it join.
    pub(super) fn on_seal(&mut self, shard: ShardIndex, seal: Seal) {
        if seal.generation < self.generation {
            return;
        }
        if seal.generation > self.generation {
            return self.abort(format!("seal of generation {} before it began", seal.generation));
        }
        for entry in &seal.entries {
            let Some(led) = self.partitions.get_mut(&entry.partition) else {
                return self.abort(format!("{shard} sealed {} which nobody leads here", entry.partition));
            };
            let epoch = led.committed.epoch;
            if led.shard != shard || !led.appends() || epoch != entry.epoch || led.appended_end != entry.base {
                let why = format!(
                    "{shard} sealed {} at epoch {}, base {}: led for {} at epoch {epoch}, end {}, {:?}",
                    entry.partition, entry.epoch, entry.base, led.shard, led.appended_end, led.role
                );
                return self.abort(why);
            }
            let count: i64 = entry.batches.iter().map(|batch| i64::from(batch.count)).sum();
            let (described, given): (u64, u64) = (
                entry.batches.iter().map(|batch| u64::from(batch.length)).sum(),
                entry.slices.iter().map(|slice| slice.len() as u64).sum(),
            );
            if count == 0 || described != given {
                return self.abort(format!("{shard} sealed {count} records, {given} of {described} bytes"));
            }
            led.appended_end = led.appended_end.plus(count);
        }
        self.joining.push(self.now.mono, shard, seal);
    }

    /// The shard has stopped appending.
    pub(super) fn on_drained(&mut self, shard: ShardIndex, partition: TopicPartition, epoch: LeaderEpoch) {
        if let Some(led) = self.partitions.get_mut(&partition)
            && led.shard == shard
            && led.committed.epoch == epoch
            && let Role::Draining { drained, .. } = &mut led.role
        {
            *drained = true;
        }
    }

    /// Retention or DeleteRecords raised a log start.
    pub(super) fn on_log_start(&mut self, shard: ShardIndex, partition: TopicPartition, offset: Offset) {
        if let Some(led) = self.partitions.get(&partition)
            && led.shard == shard
            && offset > led.committed.log_start
        {
            self.raise_log_start(partition, offset.min(led.committed.end));
        }
    }

    /// The shard that leads the partition at this epoch has no memory for these producers.
    pub(super) fn forget_producers(
        &mut self,
        shard: ShardIndex,
        (partition, epoch): (TopicPartition, LeaderEpoch),
        producers: &[i64],
    ) {
        if let Some(led) = self.partitions.get_mut(&partition)
            && led.shard == shard
            && led.committed.epoch == epoch
        {
            for &id in producers {
                led.committed.producers.forget(id);
            }
        }
    }

    /// Lets a log start join the next object, if the partition is still appended to.
    pub(super) fn raise_log_start(&mut self, partition: TopicPartition, offset: Offset) {
        if let Some(led) = self.partitions.get_mut(&partition)
            && led.appends()
        {
            led.raised = led.raised.max(offset);
            self.joining.raise(self.now.mono, partition, offset);
        }
    }

    /// Asks the shard to stop appending.
    pub(super) fn drain(&mut self, partition: TopicPartition, then: AfterDrain) {
        let Some(led) = self.partitions.get_mut(&partition) else { return };
        match &mut led.role {
            Role::Leader => {
                led.role = Role::Draining { then, drained: false };
                self.moving.insert(partition);
                let (shard, epoch) = (led.shard, led.committed.epoch);
                self.effects.push_back(Effect::ToShard(shard, ToShard::Drain { partition, epoch }));
            }
            Role::Draining { then: planned, .. } if then == AfterDrain::Forget => *planned = then,
            _ => {}
        }
    }

    /// The topic is deleted.
    pub(super) fn forget_topic(&mut self, topic: TopicId) {
        self.wanted.retain(|partition, _| partition.topic != topic);
        self.departed.retain(|partition, _| partition.topic != topic);
        self.remember_forgotten(topic);
        let unborn: Vec<TopicPartition> =
            self.births.keys().filter(|partition| partition.topic == topic).copied().collect();
        for partition in unborn {
            self.births.remove(&partition);
            self.partition_lost(partition);
        }
        let of_topic: Vec<TopicPartition> =
            self.partitions.keys().filter(|partition| partition.topic == topic).copied().collect();
        for partition in of_topic {
            self.forget(partition);
        }
    }

    /// The ids of topics are never used twice and commands come in order, so that a topic of which nothing is held any
    /// more need not be remembered; some are, should a command be late.
    fn remember_forgotten(&mut self, topic: TopicId) {
        if self.forgotten.len() >= FORGOTTEN_TOPICS {
            let held = self.partitions.keys().chain(&self.being_born).map(|partition| partition.topic);
            let held: BTreeSet<TopicId> = held.collect();
            self.forgotten.retain(|topic| held.contains(topic));
        }
        self.forgotten.insert(topic);
    }

    /// Stops leading a partition of a deleted topic, as soon as its role allows.
    fn forget(&mut self, partition: TopicPartition) {
        let Some(led) = self.partitions.get(&partition) else { return };
        match led.role {
            Role::Leader | Role::Draining { .. } => self.drain(partition, AfterDrain::Forget),
            Role::Released { .. } | Role::Read | Role::Claimable => self.drop_partition(partition),
            Role::Claiming | Role::Releasing => {} // decided first; then `settle` comes back here
        }
    }

    /// Goes on with a partition whose birth, claim or release was decided while its topic was deleted or the lane stops.
    fn settle(&mut self, partition: TopicPartition) {
        let unwanted = self.unwanted.remove(&partition);
        if self.forgotten.contains(&partition.topic) {
            self.forget(partition);
        } else if unwanted {
            self.drain(partition, AfterDrain::Release);
        } else if self.stop.is_some() {
            self.drain(partition, AfterDrain::Stop);
        }
    }

    fn drop_partition(&mut self, partition: TopicPartition) {
        self.partitions.remove(&partition);
        self.moving.remove(&partition);
        self.claimable.remove(&partition);
        self.unwanted.remove(&partition);
        self.joining.forget(partition);
        self.plan(compaction::Event::Lost(partition));
        self.report(LaneReport::NotLeading { partition });
    }

    /// A birth, claim or release is known to have happened.
    pub(super) fn partition_changed(&mut self, kind: Kind, partition: TopicPartition, change: Change) {
        match kind {
            Kind::Birth => {
                self.being_born.remove(&partition);
                let state = CommittedPartition::born(change.after.epoch);
                let led = Led::new(change.shard, Role::Leader, state, change.after, self.wid);
                self.partitions.insert(partition, led);
                self.lead(partition);
            }
            Kind::Claim => {
                let led = self.partitions.get_mut(&partition).expect("a claimed partition stays until it is decided");
                led.record = change.after;
                led.role = Role::Leader;
                self.departed.remove(&partition);
                self.lead(partition);
            }
            Kind::Release => {
                let now = self.now.mono;
                let led = self.partitions.get_mut(&partition).expect("a releasing partition stays until it is decided");
                led.record = change.after;
                led.role = Role::Released { since: now, look_at: now.plus(super::config::LOOK_AGAIN) };
                let shard = led.shard;
                self.effects.push_back(Effect::ToShard(shard, ToShard::Revoked { partition }));
                self.plan(compaction::Event::Lost(partition));
                self.report(LaneReport::NotLeading { partition });
            }
        }
        self.settle(partition);
    }

    fn lead(&mut self, partition: TopicPartition) {
        let led = &self.partitions[&partition];
        let (shard, epoch) = (led.shard, led.committed.epoch);
        let state = Box::new(led.committed.clone());
        self.effects.push_back(Effect::ToShard(shard, ToShard::Acquired { partition, epoch, state }));
        self.report(LaneReport::Leading { partition, shard, epoch });
        self.plan_led(partition);
        // The control task may have changed its mind meanwhile.
        match self.wanted.get(&partition).map(|wanted| wanted.shard == shard) {
            None => {}
            Some(true) => drop(self.wanted.remove(&partition)),
            Some(false) => self.drain(partition, AfterDrain::Release),
        }
    }

    /// A birth or claim is known to have failed: somebody else was first, or the topic is deleted. Or a release was known
    /// too late: likewise.
    pub(super) fn partition_lost(&mut self, partition: TopicPartition) {
        if let Some(led) = self.partitions.remove(&partition) {
            if led.role == Role::Releasing {
                // Nobody else changes the record of an open log: the release did happen, and its taker was faster than
                // our look.
                self.effects.push_back(Effect::ToShard(led.shard, ToShard::Revoked { partition }));
            }
            self.depart(partition, led.first_own);
        }
        self.plan(compaction::Event::Lost(partition));
        self.being_born.remove(&partition);
        self.unwanted.remove(&partition);
        self.claimable.remove(&partition);
        self.moving.remove(&partition);
        self.report(LaneReport::NotLeading { partition });
    }

    /// What this log still holds of a partition that went elsewhere keeps the low-water mark down: the lane cannot know
    /// what its new owner no longer needs.
    pub(super) fn depart(&mut self, partition: TopicPartition, first_own: Option<Seq>) {
        if let Some(first) = first_own
            && !self.forgotten.contains(&partition.topic)
        {
            let at = self.departed.entry(partition).or_insert(first);
            *at = (*at).min(first);
        }
    }

    /// Lets go of partitions that are drained: starts releases, drops deleted ones.
    pub(super) fn advance_drains(&mut self) {
        let moving: BTreeSet<TopicPartition> = self.moving.clone();
        let mut releases = Vec::new();
        for partition in moving {
            let Some(led) = self.partitions.get_mut(&partition) else { continue };
            let Role::Draining { then, drained: true } = led.role else { continue };
            if led.appended_end != led.committed.end || led.raised > led.committed.log_start {
                continue;
            }
            match then {
                AfterDrain::Stop => {}
                AfterDrain::Forget => {
                    let shard = led.shard;
                    self.effects.push_back(Effect::ToShard(shard, ToShard::Revoked { partition }));
                    self.drop_partition(partition);
                }
                AfterDrain::Release => releases.push(partition),
            }
        }
        self.release(&releases);
    }
}
