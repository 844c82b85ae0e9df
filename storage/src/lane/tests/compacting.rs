//! Rolls as the bare core starts and ends them.

use super::core::Bare;
use super::world::{entry, partition};
use crate::compaction::PlannerConfig;
use crate::compactor::roll::{Roll, RollError};
use crate::ids::Offset;
use crate::lane::events::{Effect, Event};
use crate::lane::{LaneConfig, ToShard};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome::Stored;
use std::collections::VecDeque;
use std::time::Duration;

const ROLL_AFTER: Duration = Duration::from_secs(10);

/// Rolls each partition after `ROLL_AFTER`.
fn rolling() -> Bare {
    let config = PlannerConfig { roll_after: ROLL_AFTER, roll_within: ROLL_AFTER, ..PlannerConfig::default() };
    Bare::leading(LaneConfig { linger: Duration::ZERO, compaction: Some(config), ..LaneConfig::default() })
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
    let ended = bare.give(Event::Rolled(partition(0), first.name, Ok(Offset(1))));
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
    assert_eq!(covered(&bare.give(Event::Rolled(partition(0), second.name, Ok(Offset(1))))), Some(Offset(1)));
}
