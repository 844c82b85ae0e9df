//! Collection of segments beside a lane: their files are a few bytes here, since nobody looks into them.

use super::world::{Life, World, entry, partition};
use crate::compaction::Segment;
use crate::compactor::collect::{CollectedSegments, SegmentCollector, orphans, topics};
use crate::compactor::manifest;
use crate::env::WallMs;
use crate::format::manifest::{Manifest, NamedSegment, SegmentName, manifest_key};
use crate::ids::{Offset, TopicId, Wid};
use crate::lane::{LaneConfig, ToLane};
use crate::recovery::committed_log_starts;
use crate::segment::{data_key, index_key};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(600);

fn named(number: u64, base: i64, last: i64) -> NamedSegment {
    let (base, last, bytes) = (Offset(base), Offset(last), 3);
    let segment = Segment { base, last, bytes, max_timestamp: 5, created: WallMs(5) };
    NamedSegment { name: SegmentName { wid: Wid(9), number }, segment, records: 3 }
}

impl Life {
    fn put_segment(&mut self, named: NamedSegment) {
        let (p, base, objects) = (partition(0), named.segment.base, self.stores.objects.clone());
        for key in [data_key(p, named.name, base), index_key(p, named.name, base)] {
            let put = objects.put_if_absent(&key, vec![Bytes::from_static(b"abc")]);
            self.run(put).expect("memory");
        }
    }

    /// Commits a manifest that names these segments.
    fn name(&mut self, segments: Vec<NamedSegment>) {
        let (env, objects) = (self.env.clone(), self.stores.objects.clone());
        let committed = self.run(async move {
            let standing = manifest::read(&*objects, partition(0)).await?;
            let covered = segments.last().expect("some").segment.last.plus(1);
            let log_start = segments[0].segment.base;
            let next = Manifest { covered, log_start, segments, ..standing.manifest.clone() };
            manifest::commit(&env, &*objects, &standing, &next).await
        });
        assert_eq!(committed, Ok(true));
    }

    fn collect(&mut self, collector: SegmentCollector, gone: bool) -> (SegmentCollector, CollectedSegments) {
        let (env, stores, mut collector) = (self.env.clone(), self.stores.clone(), collector);
        let gone: BTreeSet<TopicId> = gone.then_some(partition(0).topic).into_iter().collect();
        self.run(async move {
            let all = topics(&*stores.objects).await.expect("memory");
            let done = collector.pass(&env, &stores, &all, &gone).await.expect("memory");
            (collector, done)
        })
    }

    /// Numbers of the segments that are stored.
    fn stored(&mut self) -> Vec<u64> {
        let objects = self.stores.objects.clone();
        let listed = self.run(async move { objects.list("seg/").await }).expect("memory");
        let number = |key: &str| key.split('/').nth(3)?.rsplit_once('-')?.1.parse().ok();
        let numbers: BTreeSet<u64> = listed.iter().filter_map(|object| number(&object.key)).collect();
        numbers.into_iter().collect()
    }
}

/// A partition of nine records in three segments, and a fourth that nobody names, at the end of the log.
fn covered(world: &World) -> Life {
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.seal(0, entry(partition(0), 1, 0, 9, "abc"));
    let segments: Vec<_> = (0..3_u8).map(|at| named(at.into(), i64::from(at) * 3, i64::from(at) * 3 + 2)).collect();
    segments.iter().for_each(|segment| life.put_segment(*segment));
    life.name(segments);
    life.put_segment(named(7, 9, 11));
    life.pass(Duration::from_secs(1));
    life
}

#[test]
fn what_lies_below_a_committed_log_start_is_named_no_more_and_deleted_a_grace_later() {
    let world = World::new();
    let mut life = covered(&world);
    let (collector, done) = life.collect(SegmentCollector::new(GRACE), false);
    assert_eq!((done.expired, done.waiting), (0, 1));
    let raise = ToLane::LogStart { partition: partition(0), offset: Offset(4) };
    assert!(life.lanes[0].shards[&crate::ids::ShardIndex(0)].to.send(raise).is_ok());
    life.pass(Duration::from_secs(20));
    let stores = life.stores.clone();
    let listed = life.run(async move {
        let starts = committed_log_starts(&stores).await?;
        orphans(&*stores.objects, &BTreeSet::new(), &starts).await
    });
    let found: Vec<_> =
        listed.expect("memory").into_iter().map(|orphan| (orphan.stored.file.base.0, orphan.because)).collect();
    let on_its_way = "no manifest names it: it is on its way, or its writer failed";
    assert_eq!(found, [(0, "it lies below the log start"), (9, on_its_way)]);

    let (collector, done) = life.collect(collector, false);
    assert_eq!((done.expired, done.deleted, done.waiting), (1, 0, 2));
    life.pass(GRACE / 2);
    let (collector, _) = life.collect(collector, false);
    assert_eq!(life.stored(), [0, 1, 2, 7]);
    life.pass(GRACE / 2);
    let (collector, done) = life.collect(collector, false);
    // The manifest changed without the fourth, too.
    assert_eq!((done.deleted, done.waiting), (2, 0));
    assert_eq!(life.stored(), [1, 2], "offset 4 is still readable");
    assert_eq!(life.collect(collector, false).1, CollectedSegments::default());
}

#[test]
fn a_collector_that_starts_anew_finds_what_another_had_let_go_of() {
    let world = World::new();
    let mut life = covered(&world);
    life.name(vec![named(2, 6, 8)]);
    let (collector, done) = life.collect(SegmentCollector::new(GRACE), false);
    assert_eq!((done.deleted, done.waiting), (0, 3));
    life.pass(GRACE);
    assert_eq!(life.collect(collector, false).1.deleted, 2, "what begins below everything that is named");
    assert_eq!(life.stored(), [2, 7], "the last may yet be named");
}

#[test]
fn of_a_deleted_topic_segments_go_and_then_the_manifest() {
    let world = World::new();
    let mut life = covered(&world);
    let (collector, _) = life.collect(SegmentCollector::new(GRACE), true);
    life.pass(GRACE);
    let (collector, done) = life.collect(collector, true);
    assert_eq!((done.deleted, life.stored().len()), (4, 0));
    life.collect(collector, true);
    let objects = life.stores.objects.clone();
    assert_eq!(life.run(async move { objects.get(&manifest_key(partition(0))).await }), Ok(None));
}

#[test]
fn a_commit_that_compares_an_older_version_is_refused() {
    let world = World::new();
    let mut life = covered(&world);
    let (env, objects) = (life.env.clone(), life.stores.objects.clone());
    let read = life.run(async move { manifest::read(&*objects, partition(0)).await }).expect("memory");
    let next = Manifest { log_start: Offset(1), ..read.manifest.clone() };
    let objects = life.stores.objects.clone();
    let (first, second) = life.run(async move {
        let first = manifest::commit(&env, &*objects, &read, &next).await;
        (first, manifest::commit(&env, &*objects, &read, &next).await)
    });
    assert_eq!((first, second), (Ok(true), Ok(false)));
}
