//! A lane among other processes: it opens a log only while its life is registered, and looks for a fence when asked to.

use super::core::{Bare, WID, a_header, committed, fenced, fencer, me};
use super::world::{entry, partition};
use crate::env::{Mono, WallMs};
use crate::format::object::ObjectKind;
use crate::ids::{BootId, Seq, ShardIndex};
use crate::lane::events::{Effect, Event, Now};
use crate::lane::{LaneCommand, LaneConfig, LaneCore, LaneIdentity};
use crate::meta::{Compare, keys};
use crate::wal::PutOutcome;
use bytes::Bytes;
use std::collections::BTreeSet;

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
