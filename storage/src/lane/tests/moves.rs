//! RELEASE and ACQUIRE: between shards of a lane, between lanes, back again; deleted topics.

use super::world::{World, entry, partition};
use crate::ids::{LeaderEpoch, Offset, ShardIndex};
use crate::lane::{LaneCommand, LaneConfig, LaneReport, ToShard};
use std::time::Duration;

#[test]
fn a_move_between_shards_of_a_lane_releases_and_acquires() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.seal(0, entry(partition(0), 1, 0, 1, "a"));
    life.command(0, LaneCommand::Lead { partitions: vec![(partition(0), ShardIndex(1))] });
    life.settle();
    assert!(life.heard(0).contains(&ToShard::Drain { partition: partition(0), epoch: LeaderEpoch(1) }));
    life.seal(0, entry(partition(0), 1, 1, 1, "b"));
    life.drained(0, 0, partition(0));
    life.pass(Duration::from_secs(2));
    assert!(life.heard(0).contains(&ToShard::Revoked { partition: partition(0) }));
    let acquired = life.heard(1).into_iter().find_map(|message| match message {
        ToShard::Acquired { state, .. } => Some(*state),
        _ => None,
    });
    let state = acquired.expect("shard 1 leads");
    assert_eq!((state.epoch, state.end), (LeaderEpoch(2), Offset(2)));
    assert_eq!(life.record(partition(0)).shard, ShardIndex(1));
    life.seal(1, entry(partition(0), 2, 2, 1, "c"));
    life.pass(Duration::from_millis(10));
    drop(life);
    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(partition(0), 0);
    assert_eq!((state.epoch, life.content(&state)), (LeaderEpoch(3), b"abc".to_vec()));
}

#[test]
fn a_move_between_lanes_keeps_every_record() {
    let world = World::new();
    let mut life = world.start_lanes(&LaneConfig::default(), &[&[0], &[1]]);
    life.lead(partition(0), 0);
    life.lead(partition(1), 0);
    life.seal_on(0, 0, vec![entry(partition(0), 1, 0, 1, "a"), entry(partition(1), 1, 0, 1, "-")]);
    life.pass(Duration::from_millis(10));
    life.command(0, LaneCommand::Release { partitions: vec![partition(0)] });
    life.settle();
    life.drained(0, 0, partition(0));
    life.seal_on(0, 0, vec![entry(partition(1), 1, 1, 1, "-")]);
    life.pass(Duration::from_millis(10));
    let state = life.lead_on(1, partition(0), 1);
    assert_eq!((state.epoch, state.end), (LeaderEpoch(2), Offset(1)));
    life.seal_on(1, 1, vec![entry(partition(0), 2, 1, 1, "b")]);
    life.pass(Duration::from_secs(30));
    drop(life);
    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(partition(0), 0);
    assert_eq!((state.end, life.content(&state)), (Offset(2), b"ab".to_vec()));
    assert_eq!(life.lead(partition(1), 0).end, Offset(2));
}

#[test]
fn a_released_partition_that_nobody_takes_is_taken_back() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.command(0, LaneCommand::Release { partitions: vec![partition(0)] });
    life.settle();
    life.drained(0, 0, partition(0));
    life.pass(Duration::from_secs(1));
    assert!(life.record(partition(0)).released.is_some());
    life.pass(Duration::from_secs(8));
    assert_eq!(life.record(partition(0)).epoch, LeaderEpoch(2));
    assert!(life.record(partition(0)).released.is_none());
}

#[test]
fn a_partition_of_a_deleted_topic_is_let_go_once_it_is_drained() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.reports(0);
    life.command(0, LaneCommand::Forget { topic: partition(0).topic });
    life.settle();
    life.seal(0, entry(partition(0), 1, 0, 1, "a"));
    life.drained(0, 0, partition(0));
    life.pass(Duration::from_millis(100));
    assert_eq!(life.reports(0), vec![LaneReport::NotLeading { partition: partition(0) }]);
    assert!(life.heard(0).contains(&ToShard::Revoked { partition: partition(0) }));
    life.pass(Duration::from_secs(20));
    let wid = life.record(partition(0)).wid;
    assert_eq!(life.wal_record(wid).expect("open").lw, crate::ids::Seq(1), "its entries hold nothing back");
}
