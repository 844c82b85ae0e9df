//! DeleteRecords and retention: who is answered when and with what, and what goes by itself.

use super::*;
use crate::cold::reader::ColdError;
use crate::shard::deletions::WAITING;
use millrace_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use millrace_protocol::messages::describe_log_dirs::DescribableLogDirTopic;
use millrace_protocol::messages::{DeleteRecordsRequest, DescribeLogDirsRequest, delete_records};
use millrace_storage::compaction::Segment;
use millrace_storage::compaction::retention::Retention;
use millrace_storage::format::manifest::{NamedSegment, SegmentName};

const DELETE: i16 = 2;

fn request(topic: &str, offsets: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partitions =
        offsets.iter().map(|&(partition_index, offset)| DeleteRecordsPartition { partition_index, offset });
    let topic = DeleteRecordsTopic { name: topic.into(), partitions: partitions.collect() };
    DeleteRecordsRequest { topics: vec![topic], timeout_ms: 1_000 }
}

impl World {
    fn delete(&mut self, offsets: &[(i32, i64)]) -> ReplyTo {
        self.send(&request(TOPIC, offsets), DELETE)
    }

    /// Per partition of the answer: its index, the log start, the error.
    fn deleted(&self, to: ReplyTo) -> Option<Vec<(i32, i64, ErrorCode)>> {
        let answer = self.answer::<DeleteRecordsRequest>(to, DELETE)?;
        let told = |each: &delete_records::DeleteRecordsPartitionResult| {
            (each.partition_index, each.low_watermark, each.error_code)
        };
        Some(answer.topics.iter().flat_map(|topic| &topic.partitions).map(told).collect())
    }

    fn written(batches: usize) -> World {
        let mut world = World::new();
        for _ in 0..batches {
            world.write(0, BatchOf::plain(2, 10));
        }
        world
    }

    /// Log starts that the lane was asked for.
    fn asked_of_the_lane(&mut self) -> Vec<i64> {
        let asked = std::mem::take(&mut self.to_lane).into_iter().filter_map(|message| match message {
            ToLane::LogStart { partition: found, offset } if found == partition(0) => Some(offset.0),
            ToLane::Retention { .. } => None,
            other => panic!("{other:?}"),
        });
        asked.collect()
    }

    /// What the lane was told of partition 0's retention.
    fn told_to_expire(&mut self) -> Vec<Retention> {
        let told = std::mem::take(&mut self.to_lane).into_iter().filter_map(|message| match message {
            ToLane::Retention { partition: found, retention } => (found == partition(0)).then_some(retention),
            other => panic!("{other:?}"),
        });
        told.collect()
    }

    fn nobody_waits(&self) {
        assert_eq!(self.core.deletions.room(), WAITING);
        assert_eq!(self.core.next_deadline(), None);
    }
}

#[test]
fn a_deletion_is_answered_when_the_log_start_is_durable_and_nothing_below_is_read_any_more() {
    let mut world = World::written(3);
    let to = world.delete(&[(0, 3)]);
    assert_eq!(world.asked_of_the_lane(), [3]);
    assert_eq!(world.deleted(to), None);
    assert_eq!(world.read(&Ask::from(0)).error_code, ErrorCode::None, "not yet");
    world.raise_log_start(3);
    assert_eq!(world.deleted(to), Some(vec![(0, 3, ErrorCode::None)]));
    assert_eq!(world.read(&Ask::from(2)).error_code, ErrorCode::OffsetOutOfRange);
    assert_eq!(bases(&world.read(&Ask::from(3))), [2, 4], "the batch that holds it is whole");
    world.nobody_waits();
}

#[test]
fn minus_one_is_the_high_watermark_and_what_is_deleted_already_is_answered_at_once() {
    let mut world = World::written(2);
    world.produce(1, &[(0, BatchOf::plain(1, 10))]);
    let all = world.delete(&[(0, -1)]);
    assert_eq!(world.asked_of_the_lane(), [4], "not what may yet be lost");
    world.raise_log_start(4);
    assert_eq!(world.deleted(all), Some(vec![(0, 4, ErrorCode::None)]));
    let again = world.delete(&[(0, 1)]);
    assert_eq!(world.deleted(again), Some(vec![(0, 4, ErrorCode::None)]));
    assert!(world.asked_of_the_lane().is_empty());
}

#[test]
fn what_is_appended_goes_when_it_is_durable() {
    let mut world = World::written(2);
    world.produce(1, &[(0, BatchOf::plain(3, 10))]);
    let (all, again) = (world.delete(&[(0, 7)]), world.delete(&[(0, 7)]));
    let inside = world.delete(&[(0, 5)]);
    let beyond = world.delete(&[(0, 8)]);
    assert_eq!(world.deleted(beyond), Some(vec![(0, -1, ErrorCode::OffsetOutOfRange)]));
    assert!(world.asked_of_the_lane().is_empty(), "it may yet be lost");
    world.commit();
    assert_eq!(world.asked_of_the_lane(), [5, 7]);
    world.raise_log_start(7);
    for to in [all, again, inside] {
        assert_eq!(world.deleted(to), Some(vec![(0, 7, ErrorCode::None)]));
    }
    world.nobody_waits();
}

#[test]
fn offsets_that_are_not_in_the_log_and_partitions_that_are_not_led_are_refused() {
    let mut world = World::written(1);
    let to = world.delete(&[(0, 3), (1, -2), (2, 0), (9, 0), (-1, 0)]);
    let expected = [
        (-1, -1, ErrorCode::UnknownTopicOrPartition),
        (0, -1, ErrorCode::OffsetOutOfRange),
        (1, -1, ErrorCode::OffsetOutOfRange),
        (2, -1, ErrorCode::NotLeaderOrFollower),
        (9, -1, ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(world.deleted(to).unwrap(), expected);
    let nowhere = world.send(&request("nowhere", &[(0, 0)]), 0);
    let answer = world.answer::<DeleteRecordsRequest>(nowhere, 0).unwrap();
    assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition);
    world.lane(ToShard::Drain { partition: partition(0), epoch: LeaderEpoch(1) });
    let draining = world.delete(&[(0, 1)]);
    assert_eq!(world.deleted(draining), Some(vec![(0, -1, ErrorCode::NotLeaderOrFollower)]));
    world.nobody_waits();
}

#[test]
fn a_topic_that_is_only_compacted_keeps_its_records() {
    let refused = ErrorCode::PolicyViolation;
    for (policy, error) in [("compact", refused), ("", ErrorCode::None), ("compact,delete", ErrorCode::None)] {
        let mut world = World::written(1);
        world.set_image(|image| add_topic(image, TOPIC, TOPIC_ID, &[("cleanup.policy", policy)]));
        let to = world.delete(&[(0, 0)]);
        assert_eq!(world.deleted(to).unwrap()[0].2, error, "{policy:?}");
    }
}

#[test]
fn each_waits_for_its_own_offset_and_the_last_of_a_partition_named_twice_counts() {
    let mut world = World::written(3);
    let (far, near) = (world.delete(&[(0, 1), (0, 6)]), world.delete(&[(0, 2), (1, 0)]));
    world.raise_log_start(2);
    assert_eq!(world.deleted(near), Some(vec![(0, 2, ErrorCode::None), (1, 0, ErrorCode::None)]));
    assert_eq!(world.deleted(far), None);
    world.raise_log_start(6);
    assert_eq!(world.deleted(far), Some(vec![(0, 6, ErrorCode::None)]));
    world.nobody_waits();
}

#[test]
fn the_end_of_a_leadership_or_of_its_time_ends_a_deletion() {
    let mut world = World::written(1);
    let late = world.delete(&[(0, 1)]);
    world.pass(1_000);
    assert_eq!(world.deleted(late), Some(vec![(0, -1, ErrorCode::RequestTimedOut)]));
    let fenced = world.delete(&[(0, 1)]);
    world.lane(ToShard::Fenced { generation: 1 });
    assert_eq!(world.deleted(fenced), Some(vec![(0, -1, ErrorCode::NotLeaderOrFollower)]));
    world.nobody_waits();
}

#[test]
fn the_deletions_of_a_connection_that_is_gone_end_without_an_answer() {
    let mut world = World::written(1);
    let gone = world.delete(&[(0, 1)]);
    world.core.on_disconnect(world.now, gone.connection);
    world.collect();
    assert_eq!(world.replies.get(&gone), Some(&Reply::Silent));
    world.raise_log_start(1);
    world.nobody_waits();
}

#[test]
fn no_more_deletions_wait_than_there_is_room_for() {
    let mut world = World::written(1);
    for _ in 0..WAITING {
        world.delete(&[(0, 1)]);
    }
    let refused = world.delete(&[(0, 1)]);
    assert_eq!(world.deleted(refused), Some(vec![(0, -1, ErrorCode::RequestTimedOut)]));
    world.raise_log_start(1);
    world.nobody_waits();
}

#[test]
fn the_directory_of_logs_counts_only_what_is_left() {
    let mut world = World::written(3);
    let size = |world: &mut World| {
        let topic = DescribableLogDirTopic { topic: TOPIC.into(), partitions: vec![0] };
        let answer = world.ask(&DescribeLogDirsRequest { topics: Some(vec![topic]) }, 4);
        answer.results[0].topics[0].partitions[0].partition_size
    };
    let before = size(&mut world);
    world.raise_log_start(3);
    assert_eq!(size(&mut world) * 3, before * 2, "the first batch is wholly below");
    world.raise_log_start(6);
    assert_eq!(size(&mut world), 0);
}

/// Lets time pass and the shard look for what has expired.
fn expire(world: &mut World, ms: u64) {
    world.pass(ms);
    world.core.expire(world.now);
    world.collect();
}

fn with_settings(world: &mut World, settings: &[(&str, &str)]) {
    world.set_image(|image| add_topic(image, TOPIC, TOPIC_ID, settings));
}

#[test]
fn records_older_than_their_limit_go_and_others_stay() {
    let mut world = World::new();
    with_settings(&mut world, &[("retention.ms", "1000")]);
    world.write(0, BatchOf::plain(2, 10));
    world.pass(600);
    let timestamp = world.now.wall.0;
    world.write(0, BatchOf { count: 1, size: 10, producer: (-1, -1, -1), attributes: 0, timestamp }.build());
    expire(&mut world, 400);
    assert!(world.asked_of_the_lane().is_empty(), "as old as the limit is not older");
    expire(&mut world, 1);
    assert_eq!(world.asked_of_the_lane(), [2]);
    world.raise_log_start(2);
    expire(&mut world, 1);
    assert!(world.asked_of_the_lane().is_empty(), "it is done");
    expire(&mut world, 1_000);
    assert_eq!(world.asked_of_the_lane(), [3], "nothing need stay");
    with_settings(&mut world, &[("retention.ms", "-1")]);
    expire(&mut world, 1_000);
    assert!(world.asked_of_the_lane().is_empty());
}

#[test]
fn a_log_larger_than_its_limit_loses_its_oldest_batches() {
    let mut world = World::written(4);
    let batch = BatchOf::plain(2, 10).len();
    with_settings(&mut world, &[("retention.bytes", &(2 * batch + 1).to_string())]);
    expire(&mut world, 0);
    assert_eq!(world.asked_of_the_lane(), [2], "three batches are needed to have the limit");
    with_settings(&mut world, &[("retention.bytes", "0"), ("cleanup.policy", "compact")]);
    expire(&mut world, 0);
    assert!(world.asked_of_the_lane().is_empty());
}

#[test]
fn the_lane_hears_of_a_retention_that_is_not_the_default_once_in_a_leadership() {
    let mut world = World::written(1);
    assert_eq!(world.told_to_expire(), []);
    let settings = [("retention.ms", "1000"), ("cleanup.policy", "compact")];
    let retention = Retention { delete: false, ms: Some(1_000), ..Retention::default() };
    with_settings(&mut world, &settings);
    with_settings(&mut world, &settings);
    assert_eq!(world.told_to_expire(), [retention]);
    let state = world.committed[&partition(0)].next_epoch();
    world.acquire(partition(0), state);
    assert_eq!(world.told_to_expire(), [retention]);
    with_settings(&mut world, &[]);
    assert_eq!(world.told_to_expire(), [Retention::default()]);
}

/// Three batches of two records, of which segments hold the first two; the third is in no segment.
fn rolled() -> (World, Manifest) {
    let mut world = World::written(3);
    let mut state = world.committed[&partition(0)].next_epoch();
    state.cover(Offset(4));
    let mut manifest = Manifest::empty(partition(0));
    for base in [0, 2] {
        let (base, last) = (Offset(base), Offset(base + 1));
        let segment = Segment { base, last, bytes: 100, max_timestamp: 1_000_000, created: WallMs(1_000_000) };
        let name = SegmentName { wid: Wid(1), number: base.0.unsigned_abs() };
        manifest.segments.push(NamedSegment { name, segment, records: 2 });
    }
    manifest.covered = Offset(4);
    world.acquire(partition(0), state);
    (world, manifest)
}

#[test]
fn what_segments_hold_is_read_once_and_kept_up_by_rolls() {
    let (mut world, manifest) = rolled();
    with_settings(&mut world, &[("retention.bytes", "150"), ("retention.ms", "-1")]);
    expire(&mut world, 0);
    let read = (partition(0), LeaderEpoch(2));
    assert_eq!(world.manifests.pop_front(), Some(read));
    let older = Manifest { covered: Offset(2), segments: manifest.segments[..1].to_vec(), ..manifest.clone() };
    world.core.on_manifest(world.now, read, Ok(&older));
    world.collect();
    assert!(world.asked_of_the_lane().is_empty(), "it does not reach the references");
    expire(&mut world, 0);
    assert_eq!(world.manifests.pop_front(), Some(read));
    world.core.on_manifest(world.now, read, Ok(&manifest));
    world.collect();
    assert_eq!(world.asked_of_the_lane(), [2], "100 bytes and those that no segment holds stay");
    world.raise_log_start(2);
    world.lane(ToShard::Covered { partition: partition(0), epoch: LeaderEpoch(2), covered: Offset(6) });
    with_settings(&mut world, &[("retention.bytes", "1")]);
    expire(&mut world, 0);
    assert_eq!(world.asked_of_the_lane(), [4], "the piece that was rolled since has the limit");
    assert!(world.manifests.is_empty());
}

#[test]
fn the_directory_of_logs_waits_until_it_is_known_what_segments_hold() {
    const DIRS: i16 = 4;
    let size = |world: &World, to: ReplyTo| {
        let answer = world.answer::<DescribeLogDirsRequest>(to, DIRS)?;
        Some(answer.results[0].topics[0].partitions[0].partition_size)
    };
    let ask = |world: &mut World| world.send(&DescribeLogDirsRequest { topics: None }, DIRS);
    let batch = BatchOf::plain(2, 10).len() as i64;
    let read = (partition(0), LeaderEpoch(2));
    let (mut world, manifest) = rolled();
    let asked = [ask(&mut world), ask(&mut world)];
    assert_eq!(std::mem::take(&mut world.manifests), [read], "once for both");
    assert_eq!(asked.map(|to| size(&world, to)), [None; 2]);
    // Rolled just now, of which the shard has not been told.
    let mut newer = manifest.clone();
    let segment = Segment { base: Offset(4), last: Offset(5), ..manifest.segments[1].segment };
    newer.segments.push(NamedSegment { segment, ..manifest.segments[1] });
    newer.covered = Offset(6);
    world.core.on_manifest(world.now, read, Ok(&newer));
    world.collect();
    assert_eq!(asked.map(|to| size(&world, to)), [Some(300); 2]);
    let asked = ask(&mut world);
    world.core.on_manifest(world.now, read, Ok(&manifest));
    world.collect();
    assert_eq!(size(&world, asked), Some(200 + batch));
    let asked = ask(&mut world);
    assert_eq!(size(&world, asked), Some(200 + batch), "it is known now");

    let (mut world, _) = rolled();
    let asked = ask(&mut world);
    let lost = ColdError::Missing("test".into());
    world.core.on_manifest(world.now, read, Err(lost));
    world.collect();
    assert_eq!(size(&world, asked), Some(batch), "what is known");
    let asked = ask(&mut world);
    world.pass(15_000);
    assert_eq!(size(&world, asked), Some(batch), "in time");
    let gone = ask(&mut world);
    world.core.on_disconnect(world.now, ConnectionId(1));
    world.collect();
    assert_eq!((&world.replies[&gone], world.core.next_deadline()), (&Reply::Silent, None));
}

#[test]
fn where_nothing_can_expire_no_manifest_is_read() {
    let (mut world, _) = rolled();
    with_settings(&mut world, &[("retention.ms", "-1")]);
    expire(&mut world, 0);
    assert!(world.manifests.is_empty() && world.asked_of_the_lane().is_empty());
}
