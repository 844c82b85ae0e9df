//! What to roll and merge next, over all partitions that a lane leads. Pure: events and `now` in, effects out.
//!
//! When a partition is rolled (decision 054): when the write-ahead log comes near its limits, the oldest records first;
//! at its deadline; when it has `roll_bytes`; and when what is not rolled exceeds `held_bytes`, the largest first. Besides
//! it is rolled after `roll_after`, but pays for that with credit: the part of a roll by which it is smaller than
//! `paid_bytes`. Every write-ahead object earns a part of a roll. So the requests of rolling trickles are bounded by those
//! of writing them.
//!
//! Invariants:
//! 1. A partition has one effect under way at most: effects commit its manifest. It ends with an event that reports it,
//!    even when the lane lost the partition meanwhile.
//! 2. At most `effects` are under way, and a further one starts only while theirs are below `effect_bytes`.
//! 3. After [`ROLLS_PER_MERGE`] rolls one merge goes before further rolls, so that neither starves. Merges go round.
//! 4. One merge is under way at most: it holds what it writes, up to twice `roll_bytes`, in memory.
//! 5. Rolls that age alone makes due are at most `burst`, one for every `objects_per_roll` write-ahead objects, and one
//!    for every `paid_bytes` that they move.
//! 6. A decision looks only at partitions of which something changed since they were looked at last, or whose time has
//!    come: `settle` takes them out of `unsettled`, and the orders of [`Ready`] have the rest.
//! 7. The same events give the same effects.

use super::events::{Effect, Event, Led, Load, Moment, PlannerConfig};
use super::ready::{Place, Ready};
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
/// A partition whose effect failed waits about so long before the next; doubled by each failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// But no longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A roll ends within this part of `roll_bytes`.
const PIECES_PER_ROLL: u64 = 8;
/// Credit is counted in thousandths of a roll.
const ROLL_PRICE: u64 = 1000;

struct Partition {
    log_start: Offset,
    segments: Vec<Segment>,
    uncovered: Uncovered,
    retention: Retention,
    /// Of effects, in a row.
    failures: u32,
    /// Nothing is started before; it stands in `paused`.
    paused_until: Option<Mono>,
    /// When time alone may make something due; it stands in `looks`.
    look_at: Option<WallMs>,
}

struct Work {
    bytes: u64,
    kind: Kind,
    /// The lane lost the partition since; what it leads now was read from the manifest anew.
    orphaned: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Roll,
    Merge,
}

/// The planner.
pub struct Planner {
    config: PlannerConfig,
    partitions: BTreeMap<TopicPartition, Partition>,
    work: BTreeMap<TopicPartition, Work>,
    /// Those that nothing is under way for and that have something to roll.
    ready: Ready,
    /// Those to be looked at.
    unsettled: BTreeSet<TopicPartition>,
    /// Those with a merge due.
    mergeable: BTreeSet<TopicPartition>,
    looks: BTreeSet<(WallMs, TopicPartition)>,
    paused: BTreeSet<(Mono, TopicPartition)>,
    last_merged: Option<TopicPartition>,
    rolls_since_merge: u32,
    /// Uncovered bytes of all partitions.
    held: u64,
    load: Load,
    /// In thousandths of a roll.
    credit: u64,
    jitter: u64,
    /// Partitions looked at so far.
    #[cfg(test)]
    pub(super) looked: u64,
}

impl Planner {
    /// A planner of no partition. `seed` is for jitter.
    pub fn new(config: PlannerConfig, seed: u64) -> Planner {
        Planner {
            credit: config.burst * ROLL_PRICE,
            config,
            partitions: BTreeMap::new(),
            work: BTreeMap::new(),
            ready: Ready::default(),
            unsettled: BTreeSet::new(),
            mergeable: BTreeSet::new(),
            looks: BTreeSet::new(),
            paused: BTreeSet::new(),
            last_merged: None,
            rolls_since_merge: 0,
            held: 0,
            load: Load::default(),
            jitter: seed | 1,
            #[cfg(test)]
            looked: 0,
        }
    }

    /// Takes in what happened at `now`. What concerns a partition that is not led frees its place and is otherwise
    /// ignored.
    pub fn handle(&mut self, now: Moment, event: Event) {
        match event {
            Event::Led(partition, led) => self.lead(now, partition, led),
            Event::Lost(partition) => self.lose(partition),
            Event::Load(load) => self.earn(load),
            Event::Committed { partition, end, bytes } => {
                let piece_bytes = self.config.roll_bytes / PIECES_PER_ROLL;
                let Some(found) = self.partitions.get_mut(&partition) else { return };
                found.uncovered.push(end, bytes, now.mono, piece_bytes);
                self.held += bytes;
                self.place(partition);
            }
            Event::LogStart(partition, offset) => self.change(partition, |found| {
                found.log_start = found.log_start.max(offset);
                found.uncovered.drop_below(offset);
                found.segments.retain(|each| each.last >= offset);
            }),
            Event::Named(partition, segments) => self.change(partition, |found| {
                found.segments = segments;
                found.segments.retain(|each| each.last >= found.log_start);
            }),
            Event::Settings(partition, retention) => self.change(partition, |found| found.retention = retention),
            Event::Rolled(partition, segment) => self.finish(partition, |found| {
                found.uncovered.drop_below(segment.last.plus(1));
                found.uncovered.abandon_roll();
                found.segments.push(segment);
            }),
            Event::Covered(partition, through) => self.finish(partition, |found| {
                found.uncovered.drop_below(through);
                found.uncovered.abandon_roll();
            }),
            Event::Merged(partition, segment) => self.finish(partition, |found| {
                let from = found.segments.partition_point(|each| each.last < segment.base);
                let to = found.segments.partition_point(|each| each.base <= segment.last);
                found.segments.splice(from..to, [segment]);
            }),
            Event::Failed(partition) => self.fail(now, partition),
        }
    }

    /// The next effect, if one is due and there is room for it. Call until `None`: after events, and once a second.
    pub fn next(&mut self, now: Moment) -> Option<Effect> {
        self.wake(now);
        if self.work.len() >= self.config.effects || self.bytes() >= self.config.effect_bytes {
            return None;
        }
        self.settle(now);
        if self.rolls_since_merge < ROLLS_PER_MERGE {
            self.roll(now).or_else(|| self.merge(now))
        } else {
            self.merge(now).or_else(|| self.roll(now))
        }
    }

    /// Bytes under way.
    pub fn bytes(&self) -> u64 {
        self.work.values().map(|work| work.bytes).sum()
    }

    /// Bytes of all partitions that no segment holds.
    pub fn uncovered_bytes(&self) -> u64 {
        self.held
    }

    /// Partitions of which segments wait to be merged, as far as was looked.
    pub fn mergeable(&self) -> usize {
        self.mergeable.len()
    }

    /// Whether time alone may make something due soon.
    pub fn waits(&self) -> bool {
        self.held > 0 || !self.mergeable.is_empty() || !self.paused.is_empty()
    }

    /// Segments of all partitions.
    pub fn segments(&self) -> usize {
        self.partitions.values().map(|found| found.segments.len()).sum()
    }

    fn lead(&mut self, now: Moment, partition: TopicPartition, led: Led) {
        self.lose(partition);
        let mut uncovered = Uncovered::default();
        let piece_bytes = self.config.roll_bytes / PIECES_PER_ROLL;
        let from = led.covered.max(led.log_start);
        for &(end, bytes) in led.uncovered.iter().filter(|(end, _)| *end > from) {
            uncovered.push(end, bytes, now.mono, piece_bytes);
        }
        self.held += uncovered.bytes();
        let Led { log_start, segments, retention, .. } = led;
        let (failures, paused_until, look_at) = (0, None, None);
        let found = Partition { log_start, segments, uncovered, retention, failures, paused_until, look_at };
        self.partitions.insert(partition, found);
        self.touch(partition);
    }

    fn lose(&mut self, partition: TopicPartition) {
        let Some(found) = self.partitions.remove(&partition) else { return };
        self.held -= found.uncovered.bytes();
        found.look_at.map(|at| self.looks.remove(&(at, partition)));
        found.paused_until.map(|until| self.paused.remove(&(until, partition)));
        if let Some(work) = self.work.get_mut(&partition) {
            work.orphaned = true;
        }
        self.touch(partition);
    }

    fn earn(&mut self, load: Load) {
        let objects = load.committed_objects.saturating_sub(self.load.committed_objects);
        let earned = objects.saturating_mul(ROLL_PRICE) / self.config.objects_per_roll;
        self.credit = self.credit.saturating_add(earned).min(self.config.burst * ROLL_PRICE);
        self.load = load;
    }

    fn change(&mut self, partition: TopicPartition, change: impl FnOnce(&mut Partition)) {
        let Some(found) = self.partitions.get_mut(&partition) else { return };
        let before = found.uncovered.bytes();
        change(found);
        self.held -= before - found.uncovered.bytes();
        self.touch(partition);
    }

    fn finish(&mut self, partition: TopicPartition, change: impl FnOnce(&mut Partition)) {
        match self.work.remove(&partition) {
            Some(work) if !work.orphaned => self.change(partition, |found| {
                found.failures = 0;
                change(found);
            }),
            Some(_) => self.touch(partition),
            None => {}
        }
    }

    fn fail(&mut self, now: Moment, partition: TopicPartition) {
        let failures = self.partitions.get(&partition).map_or(0, |found| found.failures);
        let until = now.mono.plus(self.pause(failures));
        let mut waits = false;
        self.finish(partition, |found| {
            found.uncovered.abandon_roll();
            found.failures = failures.saturating_add(1);
            found.paused_until = Some(until);
            waits = true;
        });
        if waits {
            self.paused.insert((until, partition));
        }
    }

    /// Between half and the whole of a step that doubles.
    fn pause(&mut self, failures: u32) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let step = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
        let half_ms = u64::try_from(step.as_millis() / 2).expect("at most LONGEST_PAUSE");
        Duration::from_millis(half_ms + self.jitter % (half_ms + 1))
    }

    fn is_idle(&self, partition: TopicPartition, found: &Partition) -> bool {
        found.paused_until.is_none() && !self.work.contains_key(&partition)
    }

    /// Something changed: has it looked at, once it is idle.
    fn touch(&mut self, partition: TopicPartition) {
        if self.partitions.get(&partition).is_some_and(|found| self.is_idle(partition, found)) {
            self.unsettled.insert(partition);
        } else {
            self.unsettled.remove(&partition);
            self.mergeable.remove(&partition);
        }
        self.place(partition);
    }

    fn place(&mut self, partition: TopicPartition) {
        let found = self.partitions.get(&partition).filter(|found| self.is_idle(partition, found));
        let place = found.and_then(|found| {
            let oldest = found.uncovered.oldest()?;
            let cell = found.retention.cell().unwrap_or(Duration::MAX).max(self.config.roll_after);
            let deadline = oldest.plus(self.config.roll_within.min(cell));
            Some(Place { oldest, bytes: found.uncovered.bytes(), deadline })
        });
        self.ready.put(partition, place);
    }

    fn start(&mut self, partition: TopicPartition, kind: Kind, bytes: u64) {
        self.work.insert(partition, Work { bytes, kind, orphaned: false });
        self.touch(partition);
    }

    /// Takes in that time has passed.
    fn wake(&mut self, now: Moment) {
        while let Some(&(until, partition)) = self.paused.first().filter(|(until, _)| *until <= now.mono) {
            self.paused.remove(&(until, partition));
            self.change(partition, |found| found.paused_until = None);
        }
        while let Some(&(at, partition)) = self.looks.first().filter(|(at, _)| *at <= now.wall) {
            self.looks.remove(&(at, partition));
            self.change(partition, |found| found.look_at = None);
        }
    }

    /// Looks at what is unsettled.
    fn settle(&mut self, now: Moment) {
        while let Some(partition) = self.unsettled.pop_first() {
            let Some(found) = self.partitions.get_mut(&partition) else { continue };
            #[cfg(test)]
            {
                self.looked += 1;
            }
            let limits = found.retention.limits(self.config.fan_in, self.config.roll_bytes, now.wall);
            if tiers::due(&found.segments, &limits).is_some() {
                self.mergeable.insert(partition);
            } else {
                self.mergeable.remove(&partition);
            }
            let look_at = found.retention.next_look(&found.segments, &limits, now.wall);
            let before = std::mem::replace(&mut found.look_at, look_at);
            before.map(|at| self.looks.remove(&(at, partition)));
            self.looks.extend(look_at.map(|at| (at, partition)));
        }
    }

    /// Whether the load was near a limit of the write-ahead log.
    pub fn is_pressed(&self) -> bool {
        self.exceeds(PRESSURE_QUARTERS)
    }

    /// Whether it was at one.
    pub fn is_full(&self) -> bool {
        self.exceeds(4)
    }

    /// Whether the load was at so many quarters of a limit.
    fn exceeds(&self, quarters: u64) -> bool {
        let at = |found: u64, limit: Option<u64>| limit.is_some_and(|limit| found >= limit / 4 * quarters);
        at(self.load.uncovered_objects, self.config.uncovered_objects)
            || at(self.load.uncovered_bytes, self.config.uncovered_bytes)
            || at(self.load.references, self.config.references)
    }

    /// Which partition to roll, and what that costs in credit.
    fn due(&self, now: Moment) -> Option<(TopicPartition, u64)> {
        let (oldest, its_place) = self.ready.oldest()?;
        if self.is_pressed() {
            return Some((oldest, 0));
        }
        let (urgent, deadline) = self.ready.most_urgent().map(|(partition, place)| (partition, place.deadline))?;
        if deadline <= now.mono {
            return Some((urgent, 0));
        }
        let is_old = |place: &Place| now.mono.since(place.oldest) >= self.config.roll_after;
        let (largest, place) = self.ready.largest()?;
        let rolling = self.work.values().filter(|work| work.kind == Kind::Roll && !work.orphaned);
        let waiting = self.held.saturating_sub(rolling.map(|work| work.bytes).sum());
        let large = place.bytes >= self.config.roll_bytes || waiting > self.config.held_bytes;
        if large || (place.bytes >= self.config.paid_bytes && is_old(&place)) {
            return Some((largest, 0));
        }
        let missing = self.config.paid_bytes.saturating_sub(its_place.bytes);
        let price = (missing.saturating_mul(ROLL_PRICE)).div_ceil(self.config.paid_bytes);
        (is_old(&its_place) && self.credit >= price).then_some((oldest, price))
    }

    fn roll(&mut self, now: Moment) -> Option<Effect> {
        let (partition, price) = self.due(now)?;
        let found = self.partitions.get_mut(&partition).expect("what is ready is led");
        let (through, bytes) = found.uncovered.start_roll(self.config.roll_bytes).expect("it has an oldest piece");
        self.credit -= price;
        self.rolls_since_merge = self.rolls_since_merge.saturating_add(1);
        self.start(partition, Kind::Roll, bytes);
        Some(Effect::Roll { partition, through, bytes })
    }

    fn merge(&mut self, now: Moment) -> Option<Effect> {
        if self.work.values().any(|work| work.kind == Kind::Merge) {
            return None;
        }
        loop {
            let after = self.last_merged.map_or(Bound::Unbounded, Bound::Excluded);
            let mut round = self.mergeable.range((after, Bound::Unbounded)).chain(&self.mergeable);
            let partition = *round.next()?;
            self.mergeable.remove(&partition);
            let found = &self.partitions[&partition];
            let limits = found.retention.limits(self.config.fan_in, self.config.roll_bytes, now.wall);
            // It was due when it was looked at; the clock may have moved.
            let Some(range) = tiers::due(&found.segments, &limits) else { continue };
            let segments = found.segments[range].to_vec();
            self.last_merged = Some(partition);
            self.rolls_since_merge = 0;
            self.start(partition, Kind::Merge, segments.iter().map(|each| each.bytes).sum());
            return Some(Effect::Merge { partition, segments });
        }
    }
}
