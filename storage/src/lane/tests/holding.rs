//! What the lane keeps of what was committed, and what it gives up.

use super::world::partition;
use crate::env::WallMs;
use crate::format::manifest::SegmentName;
use crate::format::{Footer, PartitionEntry};
use crate::ids::{LeaderEpoch, Offset, Seq, TopicPartition, Wid};
use crate::lane::holding::Holding;
use crate::lane::{CommittedObject, RollMemory};
use crate::partition::Reference;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Memory of an entry beside its bytes.
const BESIDE: u64 = 160;

fn name(number: u64) -> SegmentName {
    SegmentName { wid: Wid(9), number }
}

fn reference(offset: i64, length: u32) -> Reference {
    let (base, last) = (Offset(offset), Offset(offset));
    Reference { wid: Wid(5), seq: Seq(0), position: 64, length, base, last, max_timestamp: 5 }
}

/// Has an object committed with one record at `offset` of each of these partitions, as many bytes as said.
fn commit(holding: &mut Holding, offset: i64, lengths: &[(u32, u32)]) {
    let (mut position, mut partitions, mut slices) = (64, Vec::new(), vec![Bytes::from(vec![0; 64])]);
    for &(index, length) in lengths {
        partitions.push(PartitionEntry {
            partition: partition(index),
            epoch: LeaderEpoch(1),
            base: Offset(offset),
            last: Offset(offset),
            position,
            length,
            max_timestamp: 5,
            batches: Vec::new(),
        });
        position += length;
        // Slices end anywhere.
        let bytes = Bytes::from(vec![u8::try_from(index).expect("small"); length as usize]);
        slices.extend([bytes.slice(..bytes.len() / 3), bytes.slice(bytes.len() / 3..)]);
    }
    let footer = Footer { partitions, log_starts: Vec::new() };
    let object = CommittedObject { wid: Wid(5), seq: Seq(0), sealed_at: WallMs(0), footer };
    holding.committed(Arc::new(object), slices);
    while holding.is_behind() {
        holding.keep(|_| true);
    }
}

fn holding(bytes: u64) -> Holding {
    Holding::new(RollMemory { bytes, entry_bytes: u64::MAX })
}

/// Starts a roll of these offsets; gives those that are in memory and those that it is to roll.
fn take(
    holding: &mut Holding,
    of: TopicPartition,
    number: u64,
    offsets: &[(i64, u32)],
) -> (BTreeMap<Offset, Bytes>, Vec<i64>) {
    let mut references = offsets.iter().map(|&(offset, length)| reference(offset, length)).collect();
    let held = holding.take(of, name(number), &mut references);
    (held, references.iter().map(|one| one.base.0).collect())
}

#[test]
fn a_roll_finds_what_was_committed_and_once_it_is_covered_the_memory_is_free() {
    let mut holding = holding(1 << 20);
    commit(&mut holding, 0, &[(0, 100), (1, 5), (2, 300)]);
    commit(&mut holding, 1, &[(1, 7)]);
    assert_eq!(holding.memory(), 412 + 4 * BESIDE);
    let (held, rolled) = take(&mut holding, partition(1), 1, &[(0, 5), (1, 7)]);
    assert_eq!(rolled, [0, 1]);
    assert_eq!(held, BTreeMap::from([(Offset(0), vec![1; 5].into()), (Offset(1), vec![1; 7].into())]));
    holding.rolled(partition(1), name(1));
    holding.drop_below(partition(1), Offset(2));
    assert_eq!(holding.memory(), 412 + 4 * BESIDE, "a roll that still holds it");
    drop(held);
    assert_eq!(holding.memory(), 400 + 2 * BESIDE);
    holding.forget(partition(0));
    holding.clear();
    assert_eq!(holding.memory(), 0);
}

#[test]
fn a_stream_makes_room_for_trickles_and_not_they_for_it() {
    let bound = 10_000;
    let mut holding = holding(bound);
    for offset in 0..20 {
        commit(&mut holding, offset, &[(0, 1_000), (1, 10)]);
        assert!(holding.memory() <= bound);
    }
    let offsets: Vec<_> = (0..20).map(|offset| (offset, 10)).collect();
    assert_eq!(take(&mut holding, partition(1), 1, &offsets).0.len(), 20, "all of the trickle is there");
    let offsets: Vec<_> = (0..20).map(|offset| (offset, 1_000)).collect();
    let (held, _) = take(&mut holding, partition(0), 2, &offsets);
    assert!(!held.is_empty() && held.len() < 10);
    let expected: Vec<_> = (0..held.len()).map(|n| Offset(i64::try_from(n).expect("few"))).collect();
    assert!(held.keys().eq(&expected), "of the stream the oldest, which is what is rolled next");
}

#[test]
fn what_a_roll_has_to_read_takes_the_place_of_what_is_kept_and_a_roll_ends_where_none_is_left() {
    let mut holding = holding(10_000);
    commit(&mut holding, 0, &[(0, 3_000)]);
    commit(&mut holding, 9, &[(1, 3_000)]);
    // Of partition 0 the later ones are not in memory.
    let offsets: Vec<_> = (0..9).map(|offset| (offset, 3_000)).collect();
    let (held, rolled) = take(&mut holding, partition(0), 1, &offsets);
    assert_eq!((held.len(), rolled), (1, vec![0, 1, 2]));
    assert_eq!(holding.memory(), 9_000 + BESIDE, "that of partition 1 is gone");
    let (none, rolled) = take(&mut holding, partition(1), 2, &[(9, 3_000), (10, 3_000)]);
    assert_eq!((none.len(), rolled), (0, vec![9]), "one goes on in any case");
    for (of, number) in [(partition(0), 1), (partition(1), 2)] {
        holding.rolled(of, name(number));
    }
    drop(held);
    assert_eq!(holding.memory(), 3_000 + BESIDE, "until its offsets are known to be covered");
    holding.drop_below(partition(0), Offset(3));
    assert_eq!(holding.memory(), 0);
}

#[test]
fn what_is_being_rolled_stays_though_others_need_room_and_is_kept_if_the_roll_fails() {
    let mut holding = holding(5_000);
    for offset in 0..4 {
        commit(&mut holding, offset, &[(0, 1_000)]);
    }
    let (held, _) = take(&mut holding, partition(0), 1, &[(0, 1_000), (1, 1_000), (2, 1_000)]);
    drop(held);
    for offset in 0..10 {
        commit(&mut holding, offset, &[(1, 200)]);
    }
    holding.rolled(partition(0), name(1));
    let (held, _) = take(&mut holding, partition(0), 2, &[(0, 1_000), (1, 1_000), (2, 1_000), (3, 1_000)]);
    assert!(held.keys().eq(&[Offset(0), Offset(1), Offset(2)]), "the fourth made room");
}

#[test]
fn large_entries_can_be_left_to_the_store() {
    let mut holding = Holding::new(RollMemory { bytes: 1 << 20, entry_bytes: 100 });
    commit(&mut holding, 0, &[(0, 101), (1, 100)]);
    assert_eq!(holding.memory(), 100 + BESIDE);
    let mut nothing = Holding::new(RollMemory { bytes: 0, entry_bytes: u64::MAX });
    commit(&mut nothing, 0, &[(0, 1), (1, 1)]);
    assert_eq!(nothing.memory(), 0);
}
