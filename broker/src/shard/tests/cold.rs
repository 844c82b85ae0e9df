//! Fetches of what lies in segments.

use super::*;
use crate::cold::reader::ColdError;
use millrace_protocol::record_set::RecordSet;
use millrace_storage::ids::Offset;
use millrace_storage::store_error::{FailureKind, StoreError};

/// A restarted shard that leads a partition of four batches of one record, of which segments cover the first `covered`.
fn world_covered(covered: i64) -> World {
    let mut world = World::new();
    for _ in 0..4 {
        world.write(0, BatchOf::plain(1, 100));
    }
    let state = world.committed.get_mut(&partition(0)).unwrap();
    state.covered = Offset(covered);
    state.references.drop_below(Offset(covered));
    world.restart(|_| {});
    world
}

/// What segments hold of the batches that [`world_covered`] wrote, from `from` up to `to`.
fn batches(from: i64, to: i64) -> RecordSet {
    let one = |base: i64| {
        let mut batch = BatchOf::plain(1, 100).to_vec();
        batch[..8].copy_from_slice(&base.to_be_bytes());
        Bytes::from(batch)
    };
    (from..to).map(one).collect()
}

impl World {
    /// Answers the only read of segments.
    fn serve_cold(&mut self, result: Result<RecordSet, ColdError>) -> ColdRead {
        let (token, read) = self.cold.pop_front().expect("segments are to be read");
        assert!(self.cold.is_empty());
        self.core.on_cold_read(self.now, token, result);
        self.collect();
        read
    }
}

#[test]
fn what_no_object_holds_any_more_is_read_from_segments() {
    let mut world = world_covered(3);
    let fetch = world.fetch(&Ask::from(1));
    let read = world.serve_cold(Ok(batches(1, 3)));
    let below = Offset(4);
    assert_eq!(read, ColdRead { partition: partition(0), from: Offset(1), most: 1 << 20, oversized: true, below });
    let data = &world.fetched(fetch).expect("answered")[0];
    assert_eq!((bases(data), data.high_watermark, data.log_start_offset), (vec![1, 2], 4, 0));
    assert_eq!(bases(&world.read(&Ask::from(3))), [3], "covered no further");
    assert!(world.cold.is_empty());
    assert_eq!(world.core.read_bytes(), 0, "nothing stays charged");
}

#[test]
fn readers_at_the_end_cause_no_read_of_segments() {
    let mut world = world_covered(4);
    for base in 4..10 {
        let fetch = world.fetch(&Ask { wait_ms: 500, ..Ask::from(base) });
        world.write(0, BatchOf::plain(1, 100));
        assert_eq!(bases(&world.fetched(fetch).unwrap()[0]), [base]);
    }
    assert_eq!((world.core.counters().cold_reads, world.core.counters().store_reads), (0, 0));
}

#[test]
fn an_object_that_is_gone_since_it_was_planned_is_looked_for_in_segments() {
    let mut world = world_covered(0);
    let fetch = world.fetch(&Ask::from(1));
    for (token, ..) in std::mem::take(&mut world.reads) {
        world.core.on_read(world.now, token, Ok(None));
        world.collect();
    }
    assert!(world.fetched(fetch).is_none());
    assert_eq!(world.serve_cold(Ok(batches(1, 4))).from, Offset(1));
    assert_eq!(bases(&world.fetched(fetch).expect("answered")[0]), [1, 2, 3]);
    assert_eq!(world.core.read_bytes(), 0);
}

#[test]
fn one_fetch_is_served_from_segments_and_from_the_tail() {
    let mut world = world_covered(4);
    world.write(1, BatchOf::plain(1, 100));
    let ask = Ask { partitions: vec![(0, 0, 1 << 20), (1, 0, 1 << 20)], max_bytes: 2 << 20, ..Ask::from(0) };
    let fetch = world.fetch(&ask);
    world.serve_cold(Ok(batches(0, 4)));
    let partitions = world.fetched(fetch).expect("answered");
    assert_eq!(partitions.iter().map(bases).collect::<Vec<_>>(), [vec![0, 1, 2, 3], vec![0]]);
}

#[test]
fn what_can_not_be_read_is_told_as_what_it_is() {
    for (error, code) in [
        (ColdError::Removed, ErrorCode::OffsetOutOfRange),
        (ColdError::Missing("test".into()), ErrorCode::KafkaStorageError),
        (ColdError::Store(StoreError::unknown(FailureKind::Timeout, "test")), ErrorCode::KafkaStorageError),
    ] {
        let mut world = world_covered(4);
        let fetch = world.fetch(&Ask::from(0));
        world.serve_cold(Err(error));
        assert_eq!(world.fetched(fetch).expect("answered")[0].error_code, code);
    }
}

#[test]
fn a_store_that_never_answers_gathers_no_cold_reads_without_end() {
    let mut world = world_covered(4);
    for _ in 0..100 {
        let fetch = world.fetch(&Ask::from(0));
        world.pass(11_000);
        assert_eq!(world.fetched(fetch).expect("in time")[0].error_code, ErrorCode::KafkaStorageError);
    }
    assert_eq!(world.cold.len(), 1, "a second one exceeds the budget");
    world.serve_cold(Ok(batches(0, 4)));
    let fetch = world.fetch(&Ask::from(0));
    world.serve_cold(Ok(batches(0, 4)));
    assert_eq!(bases(&world.fetched(fetch).expect("answered")[0]), [0, 1, 2, 3]);
}

/// A restarted shard that leads `partitions` partitions of two batches each, which are in segments only.
fn world_of_covered(partitions: u32) -> World {
    let mut world = World::new();
    for index in 0..partitions {
        (0..2).for_each(|_| _ = world.write(index, BatchOf::plain(1, 100)));
        let state = world.committed.get_mut(&partition(index)).unwrap();
        state.covered = Offset(2);
        state.references.drop_below(Offset(2));
    }
    world.restart(|_| {});
    world
}

#[test]
fn every_partition_of_a_full_fetch_is_served_from_segments_in_turn() {
    let mut world = world_of_covered(2);
    let ask = Ask { partitions: vec![(0, 0, 1 << 20), (1, 0, 1 << 20)], max_bytes: 1, ..Ask::from(0) };
    let mut served = Vec::new();
    for _ in 0..4 {
        let fetch = world.fetch(&ask);
        served.push(world.serve_cold(Ok(batches(0, 1))).partition.index);
        let partitions = world.fetched(fetch).expect("answered");
        assert_eq!(partitions.iter().filter(|data| !bases(data).is_empty()).count(), 1, "the room is for one");
    }
    assert_eq!(served.iter().filter(|index| **index == 0).count(), 2, "{served:?}");
}

#[test]
fn a_fetch_with_room_for_all_reads_every_partition_from_segments() {
    let mut world = world_of_covered(2);
    let ask = Ask { partitions: vec![(0, 0, 1 << 20), (1, 0, 1 << 20)], max_bytes: 2 << 20, ..Ask::from(0) };
    let fetch = world.fetch(&ask);
    assert_eq!(world.cold.len(), 2, "both at once");
    for (token, _) in std::mem::take(&mut world.cold) {
        world.core.on_cold_read(world.now, token, Ok(batches(0, 2)));
        world.collect();
    }
    let partitions = world.fetched(fetch).expect("answered");
    assert_eq!(partitions.iter().map(bases).collect::<Vec<_>>(), [[0, 1], [0, 1]]);
}

#[test]
fn segments_that_nobody_gives_delay_neither_producers_nor_readers_at_the_end() {
    let mut world = world_covered(4);
    // As many as come, of which the budget of reads lets the first begin.
    let stuck: Vec<_> = (0..20).map(|_| world.fetch(&Ask::from(0))).collect();
    assert!(!world.cold.is_empty());
    let tail = world.core.tail_bytes();
    for base in 4..30 {
        let fetch = world.fetch(&Ask { wait_ms: 500, ..Ask::from(base) });
        assert_eq!(world.write(0, BatchOf::plain(1, 100)), base);
        assert_eq!(bases(&world.fetched(fetch).expect("at once")[0]), [base]);
    }
    assert!(world.core.tail_bytes() > tail, "nothing of the end had to leave");
    assert!(stuck.iter().all(|fetch| world.fetched(*fetch).is_none()));
    assert_eq!((world.core.counters().store_reads, world.reads.len()), (0, 0));
}
