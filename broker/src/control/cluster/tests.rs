//! The parts of a cluster by themselves: the view here; the lease of one process, the controller, and what follows for
//! settings, slots and topics in a file each.

mod controller;
mod elsewhere;
mod lease;
mod slots;

use super::super::effects::{Effect, Owner, Sink, StoreAnswer, StoreCall};
use super::super::messages::{Freshness, FromControl, NewTopic, Node, Token, TopicDeletion};
use super::super::slots::Slots;
use super::super::topics::{Counts, PartitionNumbers, Topics};
use super::controller::{Controller, SEALS, SEALS_PER};
use super::membership::{Membership, PROBE_EVERY, Standing};
use super::view::{View, WATCHED};
use super::{ClusterConfig, Home, SlotHome, broker_record};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, Seq, ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::lane::{LaneCommand, LaneReport, ToLead, TopicSeen};
use millrace_storage::meta::records::{
    BrokerRecord, ControllerRecord, DrainRecord, PartitionRecord, RECORD_VERSION, Record, Released, SlotRecord,
    SuspectRecord, TopicRecord, TopicState, WalRecord, WalState, WishRecord,
};
use millrace_storage::meta::{
    Change, Compare, KeptAlive, Key, Lease, LeaseId, Op, Page, Revision, Snapshot, TxnOutcome, Versioned, keys,
};
use millrace_storage::store_error::{FailureKind, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(5);

pub(super) fn record(boot: u64, first_node: i32) -> BrokerRecord {
    let node = |shard: u16| Node {
        id: first_node + i32::from(shard),
        host: "h".to_owned(),
        port: 9092 + shard,
        rack: None,
        shard: Some(ShardIndex(shard)),
    };
    let config = ClusterConfig { zone: Some("z".to_owned()), lease: LEASE, drain: Duration::ZERO, admin: None };
    broker_record(&config, BootId(boot), &[node(0), node(1)], false)
}

fn wal(broker: &str, boot: u64, state: WalState) -> Bytes {
    let (broker, boot) = (broker.to_owned(), BootId(boot));
    WalRecord { v: RECORD_VERSION, broker, boot, lane: 0, state, ck: 0, lw: Seq(0), emptied: None }.encode()
}

fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), index }
}

fn owned(wid: u128, shard: u16, released: bool) -> Bytes {
    let released = released.then_some(Released { seq: Seq(3), end: Offset(9) });
    let (epoch, wid, shard) = (LeaderEpoch(4), Wid(wid), ShardIndex(shard));
    PartitionRecord { v: RECORD_VERSION, epoch, wid, shard, born: 0, released }.encode()
}

fn wish(broker: &str, shard: u16) -> Bytes {
    WishRecord { v: RECORD_VERSION, broker: broker.to_owned(), shard: ShardIndex(shard) }.encode()
}

/// A view that was listed whole, of these keys.
pub(super) fn view_of(entries: Vec<(Key, Bytes)>) -> View {
    let mut view = View::default();
    for prefix in WATCHED {
        view.begin_listing(prefix);
        let of_it = entries.iter().filter(|(key, _)| key.starts_with(prefix));
        let versioned =
            of_it.map(|(key, value)| (key.clone(), Versioned { value: value.clone(), modified: Revision(5) }));
        view.on_page(prefix, Revision(10), versioned.collect()).expect("records of ours");
        assert_eq!(view.end_listing(prefix), Revision(10));
    }
    assert!(view.is_complete());
    view
}

pub(super) fn change(view: &mut View, key: Key, value: Option<Bytes>, revision: i64) {
    let prefix = WATCHED.into_iter().find(|prefix| key.starts_with(prefix)).expect("it is watched");
    view.on_changes(prefix, vec![Change { key, value, revision: Revision(revision) }]).expect("records of ours");
}

fn two_brokers() -> Vec<(Key, Bytes)> {
    vec![
        (keys::broker("a"), record(1, 10).encode()),
        (keys::broker("b"), record(2, 20).encode()),
        (keys::wal(Wid(1)), wal("a", 1, WalState::Open)),
        (keys::wal(Wid(2)), wal("b", 2, WalState::Open)),
    ]
}

#[test]
fn what_is_older_than_what_is_known_is_ignored() {
    let mut view = view_of(two_brokers());
    change(&mut view, keys::wish(partition(0)), Some(wish("b", 1)), 12);
    change(&mut view, keys::wish(partition(0)), Some(wish("a", 0)), 11);
    change(&mut view, keys::wish(partition(0)), None, 9);
    assert_eq!(view.wish(partition(0)).map(|(wish, _)| wish.broker.as_str()), Some("b"));
    assert_eq!(view.through(keys::WISHES), Revision(12));
}

#[test]
fn what_a_new_listing_lacks_is_gone_unless_it_came_later() {
    let mut view = view_of(two_brokers());
    change(&mut view, keys::broker("late"), Some(record(3, 30).encode()), 21);
    view.take_touched();
    view.begin_listing(keys::BROKERS);
    let only = vec![(keys::broker("a"), Versioned { value: record(1, 10).encode(), modified: Revision(5) })];
    view.on_page(keys::BROKERS, Revision(20), only).expect("a record of ours");
    view.end_listing(keys::BROKERS);
    assert_eq!(view.brokers().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "late"]);
    assert!(view.take_touched().brokers);
}

#[test]
fn a_leader_is_known_once_both_records_are_and_only_while_that_life_has_an_open_log() {
    let mut view = view_of(vec![(keys::partition(partition(0)), owned(1, 1, false))]);
    assert_eq!(view.owner(partition(0)).and_then(|owner| owner.leader), None);
    view.take_touched();
    for (key, value) in two_brokers() {
        change(&mut view, key, Some(value), 12);
    }
    assert!(view.take_touched().partitions.contains(&partition(0)), "its log's record came");
    let leader = |view: &View| view.owner(partition(0)).and_then(|owner| owner.leader);
    assert_eq!(leader(&view), Some(11));
    change(&mut view, keys::broker("a"), Some(record(9, 90).encode()), 13);
    assert_eq!(leader(&view), None, "that is another life");
    change(&mut view, keys::broker("a"), Some(record(1, 10).encode()), 14);
    change(&mut view, keys::wal(Wid(1)), Some(wal("a", 1, WalState::Fencing)), 15);
    assert_eq!(leader(&view), None, "somebody ends its log");
    assert!(view.owner(partition(0)).is_some_and(|owner| owner.is_held), "and has not ended it yet");
    change(&mut view, keys::wal(Wid(1)), Some(wal("a", 1, WalState::Sealed { end: Seq(3) })), 16);
    assert!(view.owner(partition(0)).is_some_and(|owner| !owner.is_held));
}

#[test]
fn a_checkpoint_of_a_log_that_stays_open_touches_nothing() {
    let mut view = view_of([two_brokers(), vec![(keys::partition(partition(0)), owned(1, 1, false))]].concat());
    view.take_touched();
    let open = WalRecord::decode(&wal("a", 1, WalState::Open)).expect("a record of ours");
    change(&mut view, keys::wal(Wid(1)), Some(WalRecord { ck: 7, lw: Seq(2), ..open }.encode()), 12);
    assert!(view.take_touched().is_empty());
}

#[test]
fn a_home_is_the_wish_while_that_broker_lives_and_has_the_shard_and_else_the_owner() {
    let mut view = view_of([two_brokers(), vec![(keys::partition(partition(0)), owned(1, 1, true))]].concat());
    let home = |view: &View| view.home(partition(0)).map(|home| (home.broker, home.shard.0));
    assert_eq!(home(&view), Some(("a".to_owned(), 1)));
    change(&mut view, keys::wish(partition(0)), Some(wish("b", 0)), 12);
    assert_eq!(home(&view), Some(("b".to_owned(), 0)));
    change(&mut view, keys::wish(partition(0)), Some(wish("b", 2)), 13);
    assert_eq!(home(&view), Some(("a".to_owned(), 1)), "b has two shards");
    change(&mut view, keys::broker("a"), None, 14);
    assert_eq!(home(&view), None);
}
