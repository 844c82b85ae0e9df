//! The flush governor, and what an object holds.

use super::world::{entry, partition};
use crate::env::Mono;
use crate::ids::{Offset, ShardIndex};
use crate::lane::joining::{Joining, Window};
use crate::lane::{LaneConfig, Seal, SealEntry};
use std::time::Duration;

const SHARD: ShardIndex = ShardIndex(0);
const IDLE: Window = Window { idle: true, moved: Mono(0) };
const BUSY: Window = Window { idle: false, moved: Mono(0) };

fn at(ms: u64) -> Mono {
    Mono(0).plus(Duration::from_millis(ms))
}

fn seal(number: u64, entries: Vec<SealEntry>) -> Seal {
    Seal { number, generation: 0, entries }
}

fn sized(number: u64, base: i64, bytes: usize) -> Seal {
    seal(number, vec![entry(partition(0), 1, base, 1, &"x".repeat(bytes))])
}

#[test]
fn seals_of_a_tick_share_an_object_and_runs_of_a_partition_are_joined() {
    let config = LaneConfig::default();
    let mut joining = Joining::new(&config, at(0));
    joining.push(at(0), SHARD, seal(0, vec![entry(partition(0), 1, 0, 2, "ab"), entry(partition(1), 1, 7, 1, "z")]));
    joining.push(at(0), ShardIndex(1), seal(0, vec![entry(partition(2), 3, 0, 1, "q")]));
    joining.push(at(0), SHARD, seal(1, vec![entry(partition(0), 1, 2, 1, "c")]));
    let joined = joining.next(&config, at(0), IDLE).expect("idle: at once");
    assert_eq!(joined.body.concat(), b"abczq");
    let first = &joined.footer.partitions[0];
    assert_eq!((first.base, first.last, first.position, first.length), (Offset(0), Offset(2), 64, 3));
    assert_eq!(first.batches[1].offset_delta, 2);
    assert_eq!(joined.footer.partitions[1].position, 67);
    let seals: Vec<_> = joined.seals.iter().map(|(shard, wait)| (*shard, wait.number)).collect();
    assert_eq!(seals, [(SHARD, 0), (ShardIndex(1), 0), (SHARD, 1)]);
    assert!(joining.is_empty());
}

#[test]
fn while_something_is_in_flight_a_small_seal_lingers() {
    let config = LaneConfig { linger: Duration::from_millis(5), ..LaneConfig::default() };
    let mut joining = Joining::new(&config, at(0));
    joining.push(at(10), SHARD, sized(0, 0, 100));
    assert!(joining.next(&config, at(14), BUSY).is_none());
    assert_eq!(joining.deadline(&config, false), Some(at(15)));
    assert!(joining.next(&config, at(15), BUSY).is_some());
}

#[test]
fn a_full_object_needs_neither_idleness_nor_a_token() {
    let config = LaneConfig { object_bytes: 1000, puts_per_second: Some(1), put_burst: 0, ..LaneConfig::default() };
    let mut joining = Joining::new(&config, at(0));
    joining.push(at(0), SHARD, sized(0, 0, 999));
    assert!(joining.next(&config, at(0), IDLE).is_none());
    joining.push(at(0), SHARD, sized(1, 1, 1));
    assert!(joining.next(&config, at(0), BUSY).is_some());
}

#[test]
fn the_token_bucket_bounds_small_objects_per_second() {
    let config = LaneConfig { puts_per_second: Some(8), put_burst: 16, ..LaneConfig::default() };
    let mut joining = Joining::new(&config, at(0));
    let mut sent = 0;
    for ms in 0..10_000 {
        joining.push(at(ms), SHARD, sized(ms, i64::try_from(ms).expect("small"), 1));
        sent += usize::from(joining.next(&config, at(ms), IDLE).is_some());
    }
    assert!((94..=96).contains(&sent), "16 + 8 a second, not {sent}");
}

#[test]
fn a_deadline_for_a_token_is_when_one_is_there() {
    let config = LaneConfig { puts_per_second: Some(8), put_burst: 1, ..LaneConfig::default() };
    let mut joining = Joining::new(&config, at(0));
    joining.push(at(0), SHARD, sized(0, 0, 1));
    assert!(joining.next(&config, at(0), IDLE).is_some());
    joining.push(at(1), SHARD, sized(1, 1, 1));
    assert!(joining.next(&config, at(1), IDLE).is_none());
    let deadline = joining.deadline(&config, true).expect("something waits");
    assert!(deadline > at(1));
    assert!(joining.next(&config, deadline, IDLE).is_some());
}

#[test]
fn looks_between_two_milliseconds_lose_no_part_of_a_token() {
    let config = LaneConfig { puts_per_second: Some(100), put_burst: 1, ..LaneConfig::default() };
    let mut joining = Joining::new(&config, at(0));
    joining.push(at(0), SHARD, sized(0, 0, 0));
    assert!(joining.next(&config, at(0), IDLE).is_some());
    joining.push(at(0), SHARD, sized(1, 1, 0));
    let mut looks = (1..100).map(|count| Mono(0).plus(Duration::from_micros(1_500 * count)));
    let given = looks.find(|now| joining.next(&config, *now, IDLE).is_some());
    // A token comes every ten milliseconds, and the next look is at ten and a half.
    assert_eq!(given, Some(Mono(0).plus(Duration::from_micros(10_500))));
}

#[test]
fn an_object_stays_below_the_limit_unless_one_seal_exceeds_it() {
    let config = LaneConfig { object_bytes: 1000, object_limit_bytes: 1500, ..LaneConfig::default() };
    let mut joining = Joining::new(&config, at(0));
    joining.push(at(0), SHARD, sized(0, 0, 900));
    joining.push(at(0), SHARD, sized(1, 1, 2000));
    joining.push(at(0), SHARD, sized(2, 2, 10));
    let sizes: Vec<usize> = std::iter::from_fn(|| joining.next(&config, at(0), IDLE))
        .map(|joined| joined.body.iter().map(bytes::Bytes::len).sum())
        .collect();
    assert_eq!(sizes, vec![900, 2000, 10]);
    assert_eq!(joining.bytes(), 0);
}
