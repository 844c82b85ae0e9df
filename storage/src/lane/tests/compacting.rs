//! Rolls as the bare core starts and ends them.

use super::core::{Bare, a_header};
use super::world::{entry, partition};
use crate::compaction::retention::Retention;
use crate::compaction::{PlannerConfig, Segment};
use crate::compactor::Coverage;
use crate::compactor::merge::{Merge, Merged};
use crate::compactor::roll::{Roll, RollError};
use crate::env::WallMs;
use crate::format::object::ObjectKind;
use crate::ids::{BootId, LeaderEpoch, Offset, ShardIndex, WriterId};
use crate::lane::events::{Effect, Event};
use crate::lane::{LaneCommand, LaneConfig, RollMemory, ToLane, ToShard};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome::{AlreadyExists, Stored};
use std::collections::VecDeque;
use std::time::Duration;

const ROLL_AFTER: Duration = Duration::from_secs(10);
const STRANGER: WriterId = WriterId { boot: BootId(6), lane: 0 };

/// Rolls each partition after `ROLL_AFTER`.
fn rolling() -> Bare {
    let config = PlannerConfig { roll_after: ROLL_AFTER, roll_within: ROLL_AFTER, ..PlannerConfig::default() };
    Bare::leading(LaneConfig { linger: Duration::ZERO, compaction: Some(config), ..LaneConfig::default() })
}

/// The same, with a limit of memory.
fn rolling_within(memory: u64) -> Bare {
    let plan = PlannerConfig { roll_after: ROLL_AFTER, roll_within: ROLL_AFTER, ..PlannerConfig::default() };
    let roll_memory = RollMemory { bytes: memory, entry_bytes: u64::MAX };
    Bare::leading(LaneConfig { linger: Duration::ZERO, compaction: Some(plan), roll_memory, ..LaneConfig::default() })
}

fn commit(bare: &mut Bare, seq: u64) {
    bare.seal(entry(partition(0), 1, i64::try_from(seq).expect("few"), 1, "abc"));
    bare.put(seq, Ok(Stored));
}

fn rolls(effects: &VecDeque<Effect>) -> Vec<Roll> {
    let roll = |effect: &Effect| match effect {
        Effect::Roll(roll) => Some((**roll).clone()),
        _ => None,
    };
    effects.iter().filter_map(roll).collect()
}

/// A manifest that covers so much by one segment.
fn covers(end: i64) -> Coverage {
    let last = Offset(end - 1);
    let segment = Segment { base: Offset(0), last, bytes: 100, max_timestamp: -1, created: WallMs(0) };
    Coverage { covered: Offset(end), segments: vec![segment] }
}

/// What the shard is told to be covered.
fn covered(effects: &VecDeque<Effect>) -> Option<Offset> {
    effects.iter().find_map(|effect| match effect {
        Effect::ToShard(_, ToShard::Covered { covered, .. }) => Some(*covered),
        _ => None,
    })
}

#[test]
fn what_was_committed_while_a_roll_was_under_way_is_rolled_at_its_own_age() {
    let mut bare = rolling();
    commit(&mut bare, 0);
    let first = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    assert_eq!((first.references.len(), first.name.number), (1, 0));
    commit(&mut bare, 1);
    let rest = ROLL_AFTER / 2;
    assert!(rolls(&bare.pass(rest)).is_empty(), "one at a time");
    let ended = bare.give(Event::Rolled(partition(0), first.name, Ok(covers(1))));
    assert_eq!(covered(&ended), Some(Offset(1)));
    let second = rolls(&bare.pass(rest)).remove(0);
    assert_eq!((second.references[0].base, second.references.len(), second.name.number), (Offset(1), 1, 1));
}

#[test]
fn a_roll_that_fails_covers_nothing_and_is_tried_again_under_another_name() {
    let mut bare = rolling();
    commit(&mut bare, 0);
    let first = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    let error = RollError::Store(StoreError::not_done(FailureKind::Other, "busy"));
    let failed = bare.give(Event::Rolled(partition(0), first.name, Err(error)));
    assert_eq!((covered(&failed), rolls(&failed)), (None, Vec::new()));
    let again = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    assert_eq!(again.references, first.references);
    assert_ne!(again.name, first.name);
}

#[test]
fn only_the_roll_under_way_ends_what_the_planner_waits_for() {
    let mut bare = rolling();
    commit(&mut bare, 0);
    let first = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    let error = || RollError::Store(StoreError::not_done(FailureKind::Other, "busy"));
    bare.give(Event::Rolled(partition(0), first.name, Err(error())));
    let second = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    // Said twice, as by one from before a fence: it ends nothing, so that nothing further is started.
    bare.give(Event::Rolled(partition(0), first.name, Err(error())));
    assert!(rolls(&bare.pass(ROLL_AFTER * 100)).is_empty());
    assert_eq!(covered(&bare.give(Event::Rolled(partition(0), second.name, Ok(covers(1))))), Some(Offset(1)));
}

/// As many neighbours of ten records each.
fn segments(count: i64) -> Vec<Segment> {
    let segment = |at: i64| Segment {
        base: Offset(at * 10),
        last: Offset(at * 10 + 9),
        bytes: 100,
        max_timestamp: -1,
        created: WallMs(0),
    };
    (0..count).map(segment).collect()
}

fn merges(effects: &VecDeque<Effect>) -> Vec<Merge> {
    let merge = |effect: &Effect| match effect {
        Effect::Merge(merge) => Some(merge.clone()),
        _ => None,
    };
    effects.iter().filter_map(merge).collect()
}

/// A lane whose first roll found what others had covered before, so that there is something to merge.
fn merging() -> (Bare, Merge) {
    let mut bare = rolling();
    commit(&mut bare, 0);
    let roll = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    let coverage = Coverage { covered: Offset(80), segments: segments(8) };
    let effects = bare.give(Event::Rolled(partition(0), roll.name, Ok(coverage)));
    let merge = merges(&effects).remove(0);
    assert_eq!(merge.segments, segments(8));
    assert_ne!(merge.name, roll.name);
    (bare, merge)
}

#[test]
fn what_a_roll_finds_in_the_manifest_is_merged_and_counted() {
    let (mut bare, merge) = merging();
    let made = Segment { last: Offset(79), bytes: 700, ..segments(1)[0] };
    let coverage = Coverage { covered: Offset(80), segments: vec![made] };
    let effects = bare.give(Event::Merged(partition(0), merge.name, Ok(Merged { coverage, read: 800, written: 700 })));
    assert_eq!((merges(&effects), covered(&effects)), (Vec::new(), None));
    let totals = bare.totals();
    assert_eq!((totals.merges, totals.merge_read_bytes, totals.merge_written_bytes), (1, 800, 700));
}

#[test]
fn a_merge_that_came_to_nothing_is_made_anew_of_what_stands_under_another_name() {
    let (mut bare, merge) = merging();
    let coverage = Coverage { covered: Offset(90), segments: segments(9) };
    let effects = bare.give(Event::Merged(partition(0), merge.name, Ok(Merged { coverage, read: 0, written: 0 })));
    let again = merges(&effects).remove(0);
    assert_eq!((again.segments, bare.totals().merges), (segments(9), 0));
    assert_ne!(again.name, merge.name);
}

#[test]
fn a_merge_that_fails_is_tried_again_later() {
    let (mut bare, merge) = merging();
    let damage = RollError::Damage("a wrong checksum".into());
    assert!(merges(&bare.give(Event::Merged(partition(0), merge.name, Err(damage)))).is_empty());
    let again = merges(&bare.pass(Duration::from_secs(2))).remove(0);
    assert_eq!(again.segments, merge.segments);
    // From before a fence: it ends nothing.
    let coverage = Coverage { covered: Offset(80), segments: segments(1) };
    bare.give(Event::Merged(partition(0), merge.name, Ok(Merged { coverage, read: 0, written: 0 })));
    assert!(merges(&bare.pass(Duration::from_secs(100))).is_empty());
}

#[test]
fn nothing_is_merged_across_cells_of_the_retention_that_the_shard_tells() {
    let mut bare = rolling();
    let retention = Retention { delete: true, ms: Some(800), bytes: None };
    let tell = ToLane::Retention { partition: partition(0), retention };
    bare.give(Event::FromShard(ShardIndex(0), tell));
    commit(&mut bare, 0);
    let roll = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    let of_cells = segments(8).into_iter().map(|each| Segment { created: WallMs(each.base.0 * 10), ..each }).collect();
    let coverage = Coverage { covered: Offset(80), segments: of_cells };
    assert!(merges(&bare.give(Event::Rolled(partition(0), roll.name, Ok(coverage)))).is_empty());
}

#[test]
fn a_log_near_its_limit_of_bytes_is_rolled_though_nothing_else_makes_it_due() {
    const MIB: u64 = 1 << 20;
    let never = Duration::from_secs(1_000_000);
    let config = PlannerConfig {
        roll_after: never,
        roll_within: never,
        uncovered_bytes: Some(40 * MIB),
        ..PlannerConfig::default()
    };
    let mut bare =
        Bare::leading(LaneConfig { linger: Duration::ZERO, compaction: Some(config), ..LaneConfig::default() });
    let text = "a".repeat(MIB as usize);
    let mut write = |seq: u64| {
        bare.seal(entry(partition(0), 1, i64::try_from(seq).expect("few"), 1, &text));
        bare.put(seq, Ok(Stored));
        rolls(&bare.pass(Duration::from_secs(1)))
    };
    let started = (0..40).find(|seq| !write(*seq).is_empty()).expect("before the limit");
    assert!((25..30).contains(&started), "at three quarters, to within a step: {started}");
}

#[test]
fn a_log_at_its_limit_takes_no_seals_while_rolls_get_on() {
    const MIB: u64 = 1 << 20;
    let config = PlannerConfig { uncovered_bytes: Some(16 * MIB), ..PlannerConfig::default() };
    let mut bare =
        Bare::leading(LaneConfig { linger: Duration::ZERO, compaction: Some(config), ..LaneConfig::default() });
    let text = "a".repeat(2 * MIB as usize);
    let mut started = VecDeque::new();
    for seq in 0..20 {
        bare.seal(entry(partition(0), 1, i64::try_from(seq).expect("few"), 1, &text));
        bare.put(seq, Ok(Stored));
        started.extend(rolls(&bare.pass(Duration::from_secs(1))));
    }
    assert!(bare.accepts_seals(), "no roll has ended: nothing says that waiting helps");
    let roll = started.pop_front().expect("the limit is near");
    let first = roll.references.last().expect("it rolls something").last.0 + 1;
    assert!(first < 12, "what is left exceeds the limit");
    let next = rolls(&bare.give(Event::Rolled(partition(0), roll.name, Ok(covers(first))))).remove(0);
    assert!(!bare.accepts_seals());
    bare.pass(Duration::from_secs(4));
    assert!(!bare.accepts_seals());
    bare.pass(Duration::from_secs(2));
    assert!(bare.accepts_seals(), "rolls that do not get on hold nobody back");
    bare.give(Event::Rolled(partition(0), next.name, Ok(covers(20))));
    bare.pass(Duration::from_secs(1));
    assert!(bare.accepts_seals(), "there is room again");
}

#[test]
fn a_roll_has_what_was_committed_in_memory_also_when_it_is_tried_again() {
    let mut bare = rolling();
    commit(&mut bare, 0);
    commit(&mut bare, 1);
    assert_ne!(bare.totals().held_bytes, 0);
    let first = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    let expected: Vec<_> = first.references.iter().map(|one| (one.base, bytes::Bytes::from_static(b"abc"))).collect();
    assert_eq!(first.held.clone().into_iter().collect::<Vec<_>>(), expected);
    let error = RollError::Store(StoreError::not_done(FailureKind::Other, "busy"));
    bare.give(Event::Rolled(partition(0), first.name, Err(error)));
    let again = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    assert_eq!(again.held, first.held);
    bare.give(Event::Rolled(partition(0), again.name, Ok(covers(2))));
    assert_ne!(bare.totals().held_bytes, 0, "the rolls hold it still");
    drop((first, again));
    assert_eq!(bare.totals().held_bytes, 0);
}

#[test]
fn without_memory_records_are_rolled_all_the_same_one_entry_at_a_time() {
    let mut bare = rolling_within(0);
    (0..3).for_each(|seq| commit(&mut bare, seq));
    let mut started = rolls(&bare.pass(ROLL_AFTER));
    for base in 0..3 {
        let roll = started.remove(0);
        assert_eq!((roll.held.len(), roll.references.len(), roll.references[0].base), (0, 1, Offset(base)));
        started = rolls(&bare.give(Event::Rolled(partition(0), roll.name, Ok(covers(base + 1)))));
    }
    assert!(started.is_empty());
    assert!(rolls(&bare.pass(ROLL_AFTER)).is_empty());
}

#[test]
fn a_fence_lets_go_of_everything_but_what_a_roll_still_holds() {
    let mut bare = rolling();
    commit(&mut bare, 0);
    let roll = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    commit(&mut bare, 1);
    bare.seal(entry(partition(0), 1, 2, 1, "abc"));
    bare.put(2, Ok(AlreadyExists));
    let fenced = bare.header(2, a_header(ObjectKind::Fence, STRANGER, 2));
    assert!(fenced.iter().any(|effect| matches!(effect, Effect::ToShard(_, ToShard::Fenced { .. }))));
    let held: u64 = bare.totals().held_bytes;
    assert!(held > 0);
    drop(roll);
    assert_eq!(bare.totals().held_bytes, 0);
}

#[test]
fn what_was_rolled_up_to_is_known_though_the_lane_lost_the_partition_meanwhile() {
    let mut bare = rolling();
    commit(&mut bare, 0);
    let roll = rolls(&bare.pass(ROLL_AFTER)).remove(0);
    bare.give(Event::Command(LaneCommand::Forget { topic: partition(0).topic }));
    let effects = bare.give(Event::FromShard(
        crate::ids::ShardIndex(0),
        ToLane::Drain { partition: partition(0), epoch: LeaderEpoch(1) },
    ));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::ToShard(_, ToShard::Revoked { .. }))));
    let ended = bare.give(Event::Rolled(partition(0), roll.name, Ok(covers(1))));
    assert_eq!(covered(&ended), None);
    drop(roll);
    assert_eq!(bare.totals().held_bytes, 0);
}
