//! A store with one partition in three segments, damaged in each way that an audit must tell.

use super::segments_walk::{Whole, segments};
use super::{Checker, Clock, Finding, Metadata, Rules};
use crate::env::WallMs;
use crate::format::checkpoint::Checkpoint;
use crate::format::manifest::{Manifest, NamedSegment, SegmentName, manifest_key};
use crate::ids::{BootId, LeaderEpoch, Offset, Seq, ShardIndex, TopicId, TopicPartition, Wid};
use crate::meta::records::{PartitionRecord, RECORD_VERSION, WalRecord, WalState};
use crate::partition::CommittedPartition;
use crate::segment::{SegmentWriter, data_key, index_key};
use crate::sim::{Faults, Sim, SimBucket};
use bytes::Bytes;
use millrace_protocol::records::BatchBuilder;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const W: Wid = Wid(5);
/// Long after everything was written.
const LATER: i64 = 1_000_000;

fn partition() -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), index: 3 }
}

/// A batch of one record of 100 KB: large enough that every other one stands in the index.
fn batch(base: i64) -> Bytes {
    let mut builder = BatchBuilder::new(1_000 + base);
    builder.push(None, Some(&vec![7; 100_000]));
    let mut bytes = builder.finish();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes.into()
}

/// Writes the segment of these offsets that says it begins at `base`.
fn put(bucket: &SimBucket, number: u64, base: i64, offsets: impl IntoIterator<Item = i64>) -> NamedSegment {
    let mut writer = SegmentWriter::new(Offset(base));
    offsets.into_iter().for_each(|offset| writer.push(batch(offset)).unwrap());
    let written = writer.finish(WallMs(0)).unwrap();
    let name = SegmentName { wid: W, number };
    bucket.damage(&data_key(partition(), name, Offset(base)), Some(written.file.concat().into()));
    bucket.damage(&index_key(partition(), name, Offset(base)), Some(written.index));
    NamedSegment { name, segment: written.segment, records: written.records }
}

struct World {
    bucket: SimBucket,
    segments: Vec<NamedSegment>,
    covered: i64,
    /// What the log says: end, and what it takes for covered.
    log: (i64, i64),
}

impl World {
    /// Offsets 0 to 11 in three segments; the log ends there.
    fn new(sim: &Sim) -> World {
        let bucket = SimBucket::new(sim, Faults::none());
        let segments = (0..3).map(|n| put(&bucket, n, 4 * n as i64, 4 * n as i64..4 * n as i64 + 4)).collect();
        World { bucket, segments, covered: 12, log: (12, 12) }
    }

    fn key(&self, at: usize) -> String {
        data_key(partition(), self.segments[at].name, self.segments[at].segment.base)
    }

    fn index(&self, at: usize) -> String {
        index_key(partition(), self.segments[at].name, self.segments[at].segment.base)
    }

    fn flip(&self, key: &str, at: usize) {
        let mut bytes = self.bucket.peek(key).unwrap().to_vec();
        bytes[at] ^= 1;
        self.bucket.damage(key, Some(bytes.into()));
    }

    fn manifest(&self) -> Manifest {
        let (segments, covered) = (self.segments.clone(), Offset(self.covered));
        Manifest { segments, covered, ..Manifest::empty(partition()) }
    }
}

/// What an audit of the damaged store finds.
fn findings(damage: fn(&mut World), grace_ms: i64) -> BTreeSet<Finding> {
    let found = Rc::new(RefCell::new(None));
    let (sim, into) = (Sim::new(1, false), found.clone());
    let mut world = World::new(&sim);
    world.bucket.damage(&manifest_key(partition()), Some(world.manifest().encode()));
    damage(&mut world);
    // A copy lists what was put there behind the bucket's back too.
    let bucket = world.bucket.copied(&sim);
    sim.run(100_000, async move {
        let (end, covered) = world.log;
        let mut state = CommittedPartition::born(LeaderEpoch(1));
        (state.end, state.covered) = (Offset(end), Offset(covered));
        let record = PartitionRecord {
            v: RECORD_VERSION,
            epoch: LeaderEpoch(1),
            wid: W,
            shard: ShardIndex(0),
            born: 0,
            released: None,
        };
        let wal = WalRecord {
            v: RECORD_VERSION,
            broker: "b".to_owned(),
            boot: BootId(1),
            lane: 0,
            state: WalState::Open,
            ck: 1,
            lw: Seq(0),
            emptied: None,
        };
        let metadata = Metadata { wals: [(W, wal)].into(), partitions: [(partition(), record)].into() };
        let clock = Clock::Running(WallMs(LATER));
        let rules = Rules { clock, grace_ms, topics: None, deleted: BTreeMap::new(), whole_files: false };
        let mut checker = Checker::new(rules, Some(metadata));
        let partitions = [(partition(), state)].into();
        checker.checkpoint(W, 1, Ok(Checkpoint { number: 1, partitions, ..Checkpoint::empty(W) }));
        segments(&bucket, &mut checker, &Whole::new()).await.unwrap();
        into.replace(Some(checker.finish().findings));
    });
    found.take().expect("an audit ends")
}

#[track_caller]
fn tells(damage: fn(&mut World), expected: fn(&Finding) -> bool) {
    let found = findings(damage, i64::MAX);
    assert!(found.iter().any(expected), "{found:?}");
}

/// Another manifest in place of the one that stands.
fn replace(world: &World) {
    world.bucket.damage(&manifest_key(partition()), Some(world.manifest().encode()));
}

#[test]
fn a_whole_store_has_no_finding() {
    assert_eq!(findings(|_| {}, 0), [].into());
}

#[test]
fn a_file_an_index_and_a_manifest_that_are_gone_are_missing() {
    tells(
        |world| world.bucket.damage(&world.key(1), None),
        |f| matches!(f, Finding::Missing { key, .. } if key.ends_with(".kfs")),
    );
    tells(
        |world| world.bucket.damage(&world.index(1), None),
        |f| matches!(f, Finding::Missing { key, .. } if key.ends_with(".index")),
    );
    tells(
        |world| world.bucket.damage(&manifest_key(partition()), None),
        |f| matches!(f, Finding::Missing { key, .. } if key.starts_with("man/")),
    );
}

#[test]
fn a_flipped_bit_in_a_file_or_a_manifest_is_damage() {
    let damaged = |f: &Finding| matches!(f, Finding::Damaged { .. });
    tells(|world| world.flip(&world.key(1), 200_000), damaged);
    tells(|world| world.flip(&manifest_key(partition()), 30), damaged);
}

#[test]
fn an_index_entry_that_names_no_batch_is_damage() {
    let damaged = |f: &Finding| matches!(f, Finding::Damaged { key, .. } if key.ends_with(".index"));
    // The last byte of a position, and of an offset.
    tells(|world| world.flip(&world.index(1), 27), damaged);
    tells(|world| world.flip(&world.index(1), 23), damaged);
}

#[test]
fn a_segment_of_other_offsets_than_its_manifest_says_overlaps_or_leaves_a_hole() {
    tells(
        |world| {
            let longer = put(&world.bucket, 0, 0, 0..5);
            world.segments[0].segment.bytes = longer.segment.bytes;
            replace(world);
        },
        |f| matches!(f, Finding::Contradiction { about, .. } if about.starts_with("seg/")),
    );
    tells(
        |world| {
            world.segments[1] = put(&world.bucket, 9, 4, [4, 5, 7]);
            replace(world);
        },
        |f| matches!(f, Finding::Gap { .. }),
    );
}

#[test]
fn a_manifest_that_covers_less_than_the_log_says_or_more_than_it_has_is_told() {
    let contradiction = |f: &Finding| matches!(f, Finding::Contradiction { about, .. } if about.starts_with("man/"));
    tells(
        |world| {
            world.segments.pop();
            world.covered = 8;
            replace(world);
        },
        contradiction,
    );
    tells(|world| world.log = (8, 8), contradiction);
}

#[test]
fn what_no_manifest_names_may_stay_for_the_grace_and_no_longer() {
    let orphan: fn(&mut World) = |world| {
        put(&world.bucket, 9, 4, 4..8);
    };
    assert_eq!(findings(orphan, LATER + 1), [].into());
    let old = findings(orphan, LATER);
    assert_eq!(old.len(), 2, "{old:?}");
    assert!(old.iter().all(|f| matches!(f, Finding::Unreferenced { key, .. } if key.contains("-9/"))), "{old:?}");
}
