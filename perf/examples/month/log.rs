//! One lane's write-ahead log and its segments over a month: what the planner decides, done at once.

use super::traffic::{Mixture, PARTITIONS, RECORD_BYTES, Rate};
use millrace_storage::compaction::retention::{Piece as Expiring, Retention};
use millrace_storage::compaction::{Effect, Event, Led, Load, Moment, Planner, PlannerConfig, Segment, tiers};
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{Offset, TopicId, TopicPartition};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Seconds that are looked at together.
const TICK: u64 = 60;
const DAY: u64 = 86_400;
const DAYS: u64 = 30;
/// Days of which a row is kept.
const ROWS: [u64; 6] = [1, 2, 7, 14, 21, 30];
/// The broker's defaults on an object store: bytes of a full object, bytes that pay for an upload, tokens and lingers.
const OBJECT_BYTES: u64 = 4 << 20;
const PUT_BYTES: u64 = 256 << 10;
const TOKENS_PER_SECOND: u64 = 8;
const LINGERS_PER_SECOND: u64 = 40;
/// A stream's bytes are handed to the planner in parts of so many.
const PART_BYTES: u64 = 32 << 20;
/// Seconds between checkpoints while anything is committed.
const CHECKPOINT_EVERY: u64 = 10;
/// A checkpoint and its chunk of references.
const PUTS_PER_CHECKPOINT: u64 = 2;
/// Merges read their segments in ranges of this size.
const READ_BYTES: u64 = 8 << 20;
/// Seconds between two looks at what has expired, and between two passes of the collector, which writes manifests for it.
const EXPIRE_EVERY: u64 = 300;
const COLLECT_EVERY: u64 = 900;
/// Cells in what is kept for a week: eight, and those that are begun or not yet looked at.
const CELLS: u64 = 10;
/// What topics with a stream keep; the others keep a week.
const STREAM_RETENTION_BYTES: u64 = 8 << 30;

/// A way to plan, and its name in the report.
pub(crate) struct Policy {
    /// First column.
    pub(crate) name: &'static str,
    /// Thresholds.
    pub(crate) config: PlannerConfig,
}

/// What the store holds at the end of a day.
pub(crate) struct Day {
    /// From 1.
    pub(crate) day: u64,
    /// Over all partitions.
    pub(crate) segments: usize,
    /// Of the partition that has the most.
    pub(crate) most_segments: usize,
    /// Their bytes.
    pub(crate) segment_bytes: u64,
    /// From the low-water mark on.
    pub(crate) wal_objects: u64,
    /// Their bytes.
    pub(crate) wal_bytes: u64,
    /// To them.
    pub(crate) references: u64,
}

/// Sums of a month.
#[derive(Default)]
pub(crate) struct Month {
    /// Bytes produced.
    pub(crate) produced: u64,
    /// Produce requests.
    pub(crate) requests: u64,
    /// Pairs of a partition and a quarter of a second in which something came to it.
    pub(crate) lingers: u64,
    /// Write-ahead objects.
    pub(crate) wal_puts: u64,
    /// Checkpoints and chunks.
    pub(crate) checkpoint_puts: u64,
    /// Rolls.
    pub(crate) rolls: u64,
    /// Their bytes.
    pub(crate) rolled: u64,
    /// References that they took.
    pub(crate) roll_references: u64,
    /// Merges.
    pub(crate) merges: u64,
    /// Their bytes.
    pub(crate) merged: u64,
    /// Ranges that they read.
    pub(crate) merge_gets: u64,
    /// Manifests written for expiry alone.
    pub(crate) expiries: u64,
    /// Some days.
    pub(crate) days: Vec<Day>,
}

/// What a partition committed in a tick (of a stream: in a part of it).
struct Piece {
    end: Offset,
    references: u64,
    /// Objects and bytes of the log before it.
    objects_before: u64,
    bytes_before: u64,
}

#[derive(Default)]
struct Partition {
    end: i64,
    covered: i64,
    pieces: VecDeque<Piece>,
    segments: VecDeque<Segment>,
    retention: Retention,
    /// Since the collector passed.
    has_expired: bool,
}

impl Partition {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|each| each.bytes).sum()
    }

    /// Where the log should start, of which what no segment holds counts as one piece.
    fn expires(&self, now: WallMs) -> Option<Offset> {
        let bytes = (self.end - self.covered).unsigned_abs() * RECORD_BYTES;
        let uncovered = Expiring { last: Offset(self.end - 1), bytes, max_timestamp: now.0 };
        let uncovered = (bytes > 0).then_some(uncovered);
        self.retention.start(self.segments.iter().map(|each| Expiring::from(*each)).chain(uncovered), now)
    }
}

struct World {
    planner: Planner,
    partitions: Vec<Partition>,
    /// Of partitions with something uncovered: where in the log it starts.
    oldest: BTreeSet<(u64, u64, u32)>,
    objects: u64,
    bytes: u64,
    references: u64,
    month: Month,
}

fn name(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), index }
}

fn moment(seconds: u64) -> Moment {
    let wall = i64::try_from(seconds * 1000).expect("a month");
    Moment { mono: Mono(0).plus(Duration::from_secs(seconds)), wall: WallMs(wall) }
}

/// Objects that the flush governor puts in `seconds` for so many records and bytes: one for each record, but no more than
/// tokens and bytes pay for and lingers allow, unless they are full (decisions 016 and 024).
fn wal_objects(records: u64, bytes: u64, seconds: u64) -> u64 {
    let paid = TOKENS_PER_SECOND * seconds + bytes / PUT_BYTES;
    records.min(paid.min(LINGERS_PER_SECOND * seconds).max(bytes.div_ceil(OBJECT_BYTES)))
}

impl Month {
    /// Plays the month.
    pub(crate) fn play(mixture: Mixture, policy: &Policy) -> Month {
        let rates: Vec<Rate> = (0..PARTITIONS).map(|index| mixture.rate(index)).collect();
        let mut world = World::new(&rates, &policy.config);
        for tick in 0..DAYS * DAY / TICK {
            let (from, to) = (tick * TICK, (tick + 1) * TICK);
            world.commit(&rates, from, to);
            if to % EXPIRE_EVERY == 0 {
                world.expire(to);
            }
            world.roll(to);
            if to % DAY == 0 && ROWS.contains(&(to / DAY)) {
                world.note(to / DAY);
            }
        }
        world.month
    }
}

impl World {
    fn new(rates: &[Rate], config: &PlannerConfig) -> World {
        let mut planner = Planner::new(config.clone(), 1);
        let mut partitions = Vec::new();
        for (index, rate) in (0..).zip(rates) {
            let bytes = matches!(rate, Rate::Records(1024..) | Rate::Burst(_)).then_some(STREAM_RETENTION_BYTES);
            let retention = Retention { bytes, ..Retention::default() };
            let none = Offset(0);
            let led = Led { log_start: none, covered: none, uncovered: Vec::new(), segments: Vec::new(), retention };
            planner.handle(moment(0), Event::Led(name(index), led));
            partitions.push(Partition { retention, ..Partition::default() });
        }
        World {
            planner,
            partitions,
            oldest: BTreeSet::new(),
            objects: 0,
            bytes: 0,
            references: 0,
            month: Month::default(),
        }
    }

    fn commit(&mut self, rates: &[Rate], from: u64, to: u64) {
        let arrived: Vec<_> = (0..).zip(rates).map(|(index, rate)| rate.arrived(index, from, to)).collect();
        let records: u64 = arrived.iter().map(|each| each.records).sum();
        let objects = wal_objects(records, records * RECORD_BYTES, to - from);
        let (objects_before, bytes_before) = (self.objects, self.bytes);
        for (index, arrived) in (0..).zip(&arrived).filter(|(_, arrived)| arrived.records > 0) {
            self.month.requests += arrived.requests;
            self.month.lingers += arrived.lingers;
            let partition = &mut self.partitions[index as usize];
            if partition.pieces.is_empty() {
                self.oldest.insert((objects_before, bytes_before, index));
            }
            let parts = (arrived.records * RECORD_BYTES).div_ceil(PART_BYTES);
            let references = arrived.records.min(objects);
            for part in 0..parts {
                let share = |of: u64| of * (part + 1) / parts - of * part / parts;
                let (count, references) = (share(arrived.records), share(references));
                let bytes = count * RECORD_BYTES;
                partition.end += i64::try_from(count).expect("a tick's records");
                let end = Offset(partition.end);
                partition.pieces.push_back(Piece { end, references, objects_before, bytes_before });
                self.references += references;
                self.planner.handle(moment(to), Event::Committed { partition: name(index), end, bytes });
            }
        }
        self.objects += objects;
        self.bytes += records * RECORD_BYTES;
        self.month.produced += records * RECORD_BYTES;
        self.month.wal_puts += objects;
        self.month.checkpoint_puts += PUTS_PER_CHECKPOINT * objects.min(TICK / CHECKPOINT_EVERY);
    }

    /// Does what the planner says until it says no more.
    fn roll(&mut self, now: u64) {
        loop {
            let (first_object, first_byte) =
                self.oldest.first().map_or((self.objects, self.bytes), |&(objects, bytes, _)| (objects, bytes));
            let load = Load {
                committed_objects: self.objects,
                uncovered_objects: self.objects - first_object,
                uncovered_bytes: self.bytes - first_byte,
                references: self.references,
            };
            self.planner.handle(moment(now), Event::Load(load));
            let Some(effect) = self.planner.next(moment(now)) else { return };
            let done = self.carry_out(now, effect);
            self.planner.handle(moment(now), done);
        }
    }

    fn carry_out(&mut self, now: u64, effect: Effect) -> Event {
        match effect {
            Effect::Roll { partition, through, bytes } => {
                self.cover(partition.index, through);
                self.month.rolls += 1;
                self.month.rolled += bytes;
                let found = &mut self.partitions[partition.index as usize];
                let base = Offset(std::mem::replace(&mut found.covered, through.0));
                let created = moment(now).wall;
                let made = Segment { base, last: through.plus(-1), bytes, max_timestamp: created.0, created };
                found.segments.push_back(made);
                Event::Rolled(partition, made)
            }
            Effect::Merge { partition, segments } => {
                let bytes = segments.iter().map(|each| each.bytes).sum();
                self.month.merges += 1;
                self.month.merged += bytes;
                self.month.merge_gets += segments.iter().map(|each| each.bytes.div_ceil(READ_BYTES)).sum::<u64>();
                let last = segments[segments.len() - 1];
                let made = Segment { base: segments[0].base, bytes, ..last };
                let held = &mut self.partitions[partition.index as usize].segments;
                let from = held.partition_point(|each| each.base < made.base);
                held.drain(from..from + segments.len());
                held.insert(from, made);
                Event::Merged(partition, made)
            }
        }
    }

    /// Raises log starts, and once in a while counts the manifests that are written for it.
    fn expire(&mut self, now: u64) {
        let at = moment(now);
        for (index, found) in (0..).zip(&mut self.partitions) {
            let Some(start) = found.expires(at.wall) else { continue };
            let before = found.segments.len();
            found.segments.retain(|each| each.last >= start);
            found.has_expired |= found.segments.len() < before;
            self.planner.handle(at, Event::LogStart(name(index), start));
        }
        if now.is_multiple_of(COLLECT_EVERY) {
            let expired =
                self.partitions.iter_mut().filter_map(|found| std::mem::take(&mut found.has_expired).then_some(()));
            self.month.expiries += expired.count() as u64;
        }
    }

    fn cover(&mut self, index: u32, through: Offset) {
        let partition = &mut self.partitions[index as usize];
        while let Some(first) = partition.pieces.front().filter(|first| first.end <= through) {
            self.oldest.remove(&(first.objects_before, first.bytes_before, index));
            self.references -= first.references;
            self.month.roll_references += first.references;
            partition.pieces.pop_front();
        }
        if let Some(first) = partition.pieces.front() {
            self.oldest.insert((first.objects_before, first.bytes_before, index));
        }
    }

    fn note(&mut self, day: u64) {
        let first = self.oldest.first().map_or((self.objects, self.bytes), |&(objects, bytes, _)| (objects, bytes));
        let counts = || self.partitions.iter().map(|each| each.segments.len());
        let most_segments = counts().max().unwrap_or(0);
        assert_eq!(self.planner.segments(), counts().sum::<usize>());
        for each in &self.partitions {
            let limits =
                each.retention.limits(tiers::FAN_IN, PlannerConfig::default().roll_bytes, moment(day * DAY).wall);
            let bound = tiers::segments_limit(each.bytes(), CELLS, &limits);
            assert!(each.segments.len() as u64 <= bound, "{} segments, at most {bound}", each.segments.len());
        }
        self.month.days.push(Day {
            day,
            segments: self.planner.segments(),
            most_segments,
            segment_bytes: self.partitions.iter().map(Partition::bytes).sum(),
            wal_objects: self.objects - first.0,
            wal_bytes: self.bytes - first.1,
            references: self.references,
        });
    }
}
