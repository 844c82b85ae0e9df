//! A lane among other processes: it opens a log only while its life is registered, and looks for a fence when asked to.

use super::core::{Bare, SHARD, WID, a_header, committed, fenced, fencer, me};
use super::world::{entry, partition};
use crate::env::{Mono, WallMs};
use crate::format::object::ObjectKind;
use crate::ids::{BootId, LeaderEpoch, Seq, ShardIndex};
use crate::lane::events::{Effect, Event, Now};
use crate::lane::{LaneCommand, LaneConfig, LaneCore, LaneIdentity, ToLane, ToShard};
use crate::meta::{Compare, keys};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

fn look(seq: u64) -> Effect {
    Effect::ReadHeader { wid: WID, seq: Seq(seq) }
}

fn probe() -> Event {
    Event::Command(LaneCommand::Probe)
}

#[test]
fn a_fence_at_the_next_sequence_ends_the_log_though_nothing_is_produced() {
    let mut bare = Bare::leading(LaneConfig::default());
    assert!(bare.give(probe()).contains(&look(0)));
    assert!(!bare.give(probe()).contains(&look(0)), "one look at a time");
    assert!(!fenced(&bare.header(0, None)));
    assert!(bare.give(probe()).contains(&look(0)));
    assert!(fenced(&bare.header(0, a_header(ObjectKind::Fence, fencer(), 0))));
}

#[test]
fn what_is_in_flight_tells_as_well_as_a_look() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(entry(partition(0), 1, 0, 1, "abc"));
    assert!(!bare.give(probe()).contains(&look(0)));
    assert_eq!(committed(&bare.put(0, Ok(PutOutcome::Stored))), Some((1, 1)));
    assert!(bare.give(probe()).contains(&look(1)), "the sequence after what is durable");
}

#[test]
fn what_was_put_while_the_look_was_under_way_is_decided_by_its_own_answer() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.give(probe());
    bare.seal(entry(partition(0), 1, 0, 1, "abc"));
    assert!(!fenced(&bare.header(0, None)), "it looked before the object was there");
    bare.put(0, Ok(PutOutcome::AlreadyExists));
    assert_eq!(committed(&bare.header(0, a_header(ObjectKind::Data, me(), 0))), Some((1, 1)));
}

/// A shard's question.
fn question() -> Event {
    Event::FromShard(SHARD, ToLane::Look { generation: 0 })
}

/// What the shard is answered, if it is.
fn answer(effects: &VecDeque<Effect>) -> Option<bool> {
    effects.iter().find_map(|effect| match effect {
        Effect::ToShard(_, ToShard::Looked { unfenced }) => Some(*unfenced),
        _ => None,
    })
}

#[test]
fn a_shard_is_answered_by_a_look_that_began_after_its_question() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.give(probe());
    assert!(!bare.give(question()).contains(&look(0)), "one is under way, which says nothing of now");
    let effects = bare.header(0, None);
    assert!(effects.contains(&look(0)), "another");
    assert_eq!(answer(&effects), None);
    assert_eq!(answer(&bare.header(0, None)), Some(true));
    assert!(bare.give(question()).contains(&look(0)));
    let failed =
        Event::Header { wid: WID, seq: Seq(0), result: Err(StoreError::unknown(FailureKind::Timeout, "cut off")) };
    assert_eq!(answer(&bare.give(failed)), Some(false), "it does not ask again and again by itself");
    assert!(bare.give(question()).contains(&look(0)));
    let effects = bare.header(0, a_header(ObjectKind::Fence, fencer(), 0));
    assert!(fenced(&effects));
    assert_eq!(answer(&effects), None, "FENCED says it");
    assert_eq!(answer(&bare.give(question())), None, "asked before it heard of the fence");
}

#[test]
fn a_shard_is_answered_by_an_object_that_was_sent_after_its_question_and_by_no_earlier_one() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(entry(partition(0), 1, 0, 1, "abc"));
    assert!(!bare.give(question()).contains(&look(1)), "what is in flight comes first");
    bare.seal(entry(partition(0), 1, 1, 1, "def"));
    let effects = bare.put(0, Ok(PutOutcome::Stored));
    assert_eq!((committed(&effects), answer(&effects)), (Some((1, 1)), None), "sent before it");
    assert!(!effects.contains(&look(1)), "another was sent, and tells");
    let effects = bare.put(1, Ok(PutOutcome::Stored));
    assert_eq!(answer(&effects), Some(true), "sent after it");

    bare.seal(entry(partition(0), 1, 2, 1, "ghi"));
    bare.give(question());
    let effects = bare.put(2, Ok(PutOutcome::Stored));
    assert_eq!(answer(&effects), None);
    assert!(effects.contains(&look(3)), "nothing is in flight that would tell");
    assert_eq!(answer(&bare.header(3, None)), Some(true));
}

/// It would find the fence that the stop puts, and take it for somebody else's.
#[test]
fn a_graceful_stop_waits_for_the_look_that_is_under_way() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.give(probe());
    bare.give(Event::Command(LaneCommand::Stop));
    let drained = ToLane::Drain { partition: partition(0), epoch: LeaderEpoch(1) };
    let effects = bare.give(Event::FromShard(SHARD, drained));
    assert!(effects.is_empty(), "{effects:?}");
    let effects = bare.header(0, None);
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::PutWal { seq: Seq(0), .. })),
        "the fence: {effects:?}"
    );
}

#[test]
fn a_log_is_opened_only_while_this_life_is_registered() {
    let registered = Compare::Value(keys::broker("b"), Bytes::from_static(b"this life"));
    let config = LaneConfig { registered: Some(registered.clone()), ..LaneConfig::default() };
    let identity = LaneIdentity { broker: "b".into(), boot: BootId(5), lane: 0 };
    let now = Now { mono: Mono(0), wall: WallMs(0) };
    let mut core = LaneCore::new(identity, config, BTreeSet::from([ShardIndex(0)]), now, 1);
    core.on_event(now, Event::NewWid(WID));
    let effects = core.take_effects();
    let txn = effects.iter().find_map(|effect| match effect {
        Effect::Txn(_, txn) => Some(txn.clone()),
        _ => None,
    });
    assert_eq!(txn.expect("OPEN").compares, [Compare::Absent(keys::wal(WID)), registered]);
}
