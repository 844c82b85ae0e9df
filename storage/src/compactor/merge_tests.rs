//! Merges on a simulated bucket.

use super::Coverage;
use super::background::Background;
use super::manifest::{self, Standing};
use super::merge::{Merge, Merged, merge};
use super::roll::RollError;
use crate::compaction::retention::Retention;
use crate::compaction::{Effect, Event, Led, Moment, Planner, PlannerConfig, Segment, tiers};
use crate::env::{Env, Mono, WallMs};
use crate::format::manifest::{Manifest, NamedSegment, SegmentName};
use crate::ids::{Offset, TopicId, TopicPartition, Wid};
use crate::object::ObjectStore;
use crate::recovery::Stores;
use crate::segment::{SegmentIndex, SegmentWriter, WholeSegment, data_key, index_key};
use crate::sim::{Ended, Faults, ProcessId, Sim, SimBucket, SimMeta};
use bytes::Bytes;
use millrace_protocol::records::BatchBuilder;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Records of each segment.
const RECORDS: i64 = 40;

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(3)), index: 0 }
}

fn name(number: u64) -> SegmentName {
    SegmentName { wid: Wid(9), number }
}

fn batch(base: i64, records: i64) -> Bytes {
    let mut builder = BatchBuilder::new(1_000 + base);
    (0..records).for_each(|_| builder.push(None, Some(&[7; 2_000])));
    let mut bytes = builder.finish();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes.into()
}

struct World {
    bucket: SimBucket,
    env: Env,
    stores: Stores,
    standing: Standing,
    /// All batches, one after the other.
    batches: Vec<u8>,
}

impl World {
    /// `count` segments of eight batches each; segment n was created at n.
    async fn new(sim: Sim, count: i64) -> World {
        let (bucket, meta) = (SimBucket::new(&sim, Faults::none()), SimMeta::new(&sim, Faults::none()));
        let env = sim.env(ProcessId::WORLD);
        let objects = Rc::new(bucket.clone());
        let stores = Stores { wal: objects.clone(), objects, meta: Rc::new(meta) };
        let (mut manifest, mut batches) = (Manifest::empty(partition()), Vec::new());
        for number in 0..count {
            let base = manifest.covered;
            let mut writer = SegmentWriter::new(base);
            for at in (base.0..base.0 + RECORDS).step_by(5) {
                let batch = batch(at, 5);
                batches.extend_from_slice(&batch);
                writer.push(batch).expect("they follow");
            }
            let written = writer.finish(WallMs(number)).expect("batches");
            let name = name(number.unsigned_abs());
            let (data, index) = (data_key(partition(), name, base), index_key(partition(), name, base));
            bucket.put_if_absent(&data, written.file).await.expect("no faults");
            bucket.put_if_absent(&index, vec![written.index]).await.expect("no faults");
            manifest.covered = written.segment.last.plus(1);
            manifest.segments.push(NamedSegment { name, segment: written.segment, records: written.records });
        }
        let none = Standing { manifest: Manifest::empty(partition()), version: None };
        assert_eq!(manifest::commit(&env, &bucket, &none, &manifest).await, Ok(true));
        let standing = manifest::read(&bucket, partition()).await.expect("no faults");
        World { bucket, env, stores, standing, batches }
    }

    fn segments(&self) -> Vec<Segment> {
        self.standing.manifest.segments.iter().map(|named| named.segment).collect()
    }

    async fn merge(&self, segments: Vec<Segment>) -> Result<Merged, RollError> {
        merge(
            &self.env,
            &self.stores,
            &Background::default(),
            Merge { partition: partition(), segments, name: name(100) },
        )
        .await
    }

    async fn manifest(&self) -> Manifest {
        manifest::read(&self.bucket, partition()).await.expect("no faults").manifest
    }

    /// Puts other bytes in place of a segment's file.
    async fn spoil(&self, number: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let named = self.standing.manifest.segments[number];
        let key = data_key(partition(), named.name, named.segment.base);
        let mut bytes = self.bucket.peek(&key).expect("it was put").to_vec();
        change(&mut bytes);
        self.bucket.delete(vec![key.clone()]).await.expect("no faults");
        self.bucket.put_if_absent(&key, vec![bytes.into()]).await.expect("no faults");
    }
}

fn run<F: Future<Output = ()> + 'static>(count: i64, scenario: impl FnOnce(World) -> F + 'static) {
    run_seed(1, count, scenario);
}

fn run_seed<F: Future<Output = ()> + 'static>(seed: u64, count: i64, scenario: impl FnOnce(World) -> F + 'static) {
    let sim = Sim::new(seed, false);
    let world = World::new(sim.clone(), count);
    assert_eq!(sim.run(1_000_000, async move { scenario(world.await).await }), Ended::Done);
}

#[test]
fn neighbours_become_one_segment_of_the_same_bytes_and_nothing_is_deleted() {
    run(5, |world| async move {
        let parts = world.segments()[1..4].to_vec();
        let done = world.merge(parts.clone()).await.expect("it is there");
        let manifest = world.manifest().await;
        assert_eq!(manifest.segments.iter().map(|named| named.name.number).collect::<Vec<_>>(), [0, 100, 4]);
        let NamedSegment { segment, records, .. } = manifest.segments[1];
        assert_eq!((segment.base, segment.last, records), (Offset(40), Offset(159), 120));
        assert_eq!((segment.created, segment.max_timestamp), (WallMs(3), parts[2].max_timestamp));
        assert_eq!((done.read, done.written), (parts.iter().map(|each| each.bytes).sum(), segment.bytes));
        assert_eq!(done.coverage, (&manifest).into());
        let file = world.bucket.peek(&data_key(partition(), name(100), segment.base)).expect("it was put");
        let third = world.batches.len() / 5;
        assert_eq!(file[32..file.len() - 16], world.batches[third..4 * third]);
        let index = world.bucket.peek(&index_key(partition(), name(100), segment.base)).expect("it was put");
        let index = SegmentIndex::decode(&index).expect("an index");
        WholeSegment::read(&file).expect("whole").compare(&index).expect("it names batches");
        assert!(index.entries().len() > 1, "and as many as in any segment");
        assert_eq!(world.bucket.keys("seg/").len(), 12);
    });
}

#[test]
fn what_the_manifest_does_not_name_so_is_not_merged_and_what_it_names_is_told() {
    run(4, |world| async move {
        let stale = Segment { last: Offset(99), ..world.segments()[1] };
        for parts in [vec![world.segments()[0], stale], vec![stale, stale], vec![world.segments()[3], stale]] {
            let done = world.merge(parts).await.expect("it is there");
            assert_eq!((done.read, done.coverage.segments), (0, world.segments()));
        }
        assert_eq!(world.manifest().await, world.standing.manifest);
        assert_eq!(world.bucket.keys("seg/").len(), 8, "nothing was put");
    });
}

#[test]
fn a_damaged_segment_is_never_copied() {
    run(3, |world| async move {
        // In the middle of a batch; then in its length; then the end of the file.
        world.spoil(1, |bytes| bytes[500] ^= 1).await;
        assert!(matches!(world.merge(world.segments()).await, Err(RollError::Damage(_))));
        world.spoil(1, |bytes| (bytes[500], bytes[42]) = (bytes[500] ^ 1, bytes[42] ^ 1)).await;
        assert!(matches!(world.merge(world.segments()).await, Err(RollError::Damage(_))));
        world.spoil(1, |bytes| bytes[42] ^= 1).await;
        world.spoil(2, |bytes| bytes.truncate(bytes.len() - 100)).await;
        assert!(matches!(world.merge(world.segments()).await, Err(RollError::Damage(_))));
        assert_eq!(world.manifest().await, world.standing.manifest);
        assert_eq!(world.bucket.keys("seg/").len(), 6, "nothing was put");
    });
}

#[test]
fn a_segment_that_holds_other_records_than_the_manifest_says_is_damage() {
    run(3, |world| async move {
        let mut next = world.standing.manifest.clone();
        next.segments[1].records += 1;
        assert_eq!(manifest::commit(&world.env, &world.bucket, &world.standing, &next).await, Ok(true));
        assert!(matches!(world.merge(world.segments()).await, Err(RollError::Damage(_))));
    });
}

#[test]
fn a_segment_that_is_missing_is_damage() {
    run(3, |world| async move {
        let last = world.standing.manifest.segments[2];
        world.bucket.delete(vec![data_key(partition(), last.name, last.segment.base)]).await.expect("no faults");
        assert!(matches!(world.merge(world.segments()).await, Err(RollError::Damage(_))));
        assert_eq!(world.manifest().await, world.standing.manifest);
    });
}

/// Somebody else raises the manifest's log start, or deletes a segment besides, while a merge is under way: how many of the
/// seeds have the merge come to nothing.
fn competing(deletes: bool) -> usize {
    let refused = Rc::new(Cell::new(0));
    for seed in 0..60 {
        let refused = refused.clone();
        run_seed(seed, 3, move |world| async move {
            let before = world.standing.manifest.clone();
            let other = async {
                let pause = Duration::from_millis(world.env.random() % 60);
                world.env.sleep(pause).await;
                let next = Manifest { log_start: Offset(7), ..before.clone() };
                let committed = manifest::commit(&world.env, &world.bucket, &world.standing, &next).await;
                if deletes && committed == Ok(true) {
                    let last = before.segments[2];
                    let key = data_key(partition(), last.name, last.segment.base);
                    world.bucket.delete(vec![key]).await.expect("no faults");
                }
                committed.expect("no faults")
            };
            let (merged, committed) = futures::future::join(world.merge(world.segments()), other).await;
            let (stands, merged) = (world.manifest().await, merged.map(|merged| merged.read > 0));
            assert_eq!(stands.log_start, if committed { Offset(7) } else { Offset(0) }, "seed {seed}");
            match merged {
                Ok(true) => assert_eq!(stands.segments.len(), 1, "seed {seed}"),
                Ok(false) => {
                    assert!(committed && stands.segments == before.segments, "seed {seed}: {stands:?}");
                    refused.set(refused.get() + 1);
                }
                // It read the manifest that stands, which names a segment that was deleted all the same.
                Err(error) => assert!(deletes && committed, "seed {seed}: {error}"),
            }
        });
    }
    refused.get()
}

#[test]
fn a_manifest_that_was_changed_meanwhile_is_not_replaced() {
    assert!(competing(false) > 5);
}

#[test]
fn a_segment_that_went_while_the_manifest_was_changed_is_no_damage() {
    assert!(competing(true) > 5);
}

/// Appends a segment of one batch, as a roll would.
async fn append(world: &World, number: u64, records: i64, created: WallMs) -> Vec<u8> {
    let standing = manifest::read(&world.bucket, partition()).await.expect("no faults");
    let mut next = standing.manifest.clone();
    let (base, bytes) = (next.covered, batch(next.covered.0, records));
    let mut writer = SegmentWriter::new(base);
    writer.push(bytes.clone()).expect("it follows");
    let written = writer.finish(created).expect("a batch");
    world.bucket.put_if_absent(&data_key(partition(), name(number), base), written.file).await.expect("no faults");
    world
        .bucket
        .put_if_absent(&index_key(partition(), name(number), base), vec![written.index])
        .await
        .expect("no faults");
    next.covered = written.segment.last.plus(1);
    next.segments.push(NamedSegment { name: name(number), segment: written.segment, records: written.records });
    assert_eq!(manifest::commit(&world.env, &world.bucket, &standing, &next).await, Ok(true));
    bytes.to_vec()
}

#[test]
fn a_log_that_grows_for_weeks_has_few_segments_and_every_byte_of_it() {
    const HOUR: i64 = 3_600_000;
    const APPENDS: i64 = 400;
    run(1, |world| async move {
        let (config, retention) =
            (PlannerConfig { roll_bytes: 64 << 10, ..PlannerConfig::default() }, Retention::default());
        let mut planner = Planner::new(config.clone(), 1);
        let none = Offset(0);
        let led = Led { log_start: none, covered: none, uncovered: Vec::new(), segments: Vec::new(), retention };
        let (mut written, mut number, mut copied) = (world.batches.clone(), 1_000, 0);
        let mut most = 0;
        for step in 0..APPENDS {
            // Every hour: mostly a record or two, now and then nearly a segment.
            let records = if step % 29 == 0 { 25 } else { 1 + step % 2 };
            let wall = WallMs(step * HOUR);
            number += 1;
            written.extend(append(&world, number, records, wall).await);
            let now = Moment { mono: Mono(0).plus(Duration::from_millis(wall.0.unsigned_abs())), wall };
            if step == 0 {
                planner.handle(now, Event::Led(partition(), led.clone()));
            }
            let manifest = world.manifest().await;
            planner.handle(now, Event::Named(partition(), Coverage::from(&manifest).segments));
            while let Some(Effect::Merge { segments, .. }) = planner.next(now) {
                number += 1;
                let what = Merge { partition: partition(), segments, name: name(number) };
                let done = merge(&world.env, &world.stores, &Background::default(), what).await.expect("no faults");
                assert!(done.read > 0, "what the planner knows is what stands");
                copied += done.read;
                planner.handle(now, Event::Named(partition(), done.coverage.segments));
                planner.handle(now, Event::Covered(partition(), done.coverage.covered));
            }
            let manifest = world.manifest().await;
            let bytes = manifest.segments.iter().map(|named| named.segment.bytes).sum();
            let cells = wall.0 / (retention.cell().expect("a week").as_millis() as i64) + 1;
            let limits = retention.limits(config.fan_in, config.roll_bytes, wall);
            let bound = tiers::segments_limit(bytes, cells.unsigned_abs() + 1, &limits);
            assert!(manifest.segments.len() as u64 <= bound, "{} of {bound} at {step}", manifest.segments.len());
            most = most.max(manifest.segments.len());
        }
        assert!(most < 60, "far fewer than were rolled: {most}");
        assert!(copied < 8 * written.len() as u64, "each byte is copied a few times: {copied}");
        let mut read = Vec::new();
        for named in world.manifest().await.segments {
            let file = world.bucket.peek(&data_key(partition(), named.name, named.segment.base)).expect("it is named");
            read.extend_from_slice(&file[32..file.len() - 16]);
        }
        assert!(read == written, "{} bytes of {}", read.len(), written.len());
    });
}
