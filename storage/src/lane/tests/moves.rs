//! RELEASE and ACQUIRE: between shards of a lane, between lanes, back again; deleted topics.

use super::world::{World, entry, lead, partition};
use crate::ids::{LeaderEpoch, Offset, ShardIndex};
use crate::lane::{LaneCommand, LaneConfig, LaneReport, ToShard};
use std::time::Duration;

#[test]
fn a_move_between_shards_of_a_lane_releases_and_acquires() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.seal(0, entry(partition(0), 1, 0, 1, "a"));
    life.command(0, lead([(partition(0), ShardIndex(1))]));
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

/// Nobody serves it meanwhile: the second between checkpoints is for those that only follow progress.
#[test]
fn a_partition_that_is_acquired_waits_for_no_second_between_checkpoints() {
    let world = World::new();
    let mut life = world.start_lanes(&LaneConfig::default(), &[&[0], &[1]]);
    for index in 0..5 {
        life.lead(partition(index), 0);
    }
    for index in 0..5 {
        life.command(0, LaneCommand::Release { partitions: vec![partition(index)] });
        life.settle();
        life.drained(0, 0, partition(index));
        life.settle();
        life.command(1, lead([(partition(index), ShardIndex(1))]));
        life.pass(LaneConfig::default().acquire_gap);
        let record = life.record(partition(index));
        assert_eq!((record.epoch, record.shard), (LeaderEpoch(2), ShardIndex(1)), "partition {index}");
    }
}

/// The chunk with the beginning of what a partition had at its first stay is dropped once nothing else needs it; the one with the
/// end of that is not, and the partition is back.
#[test]
fn a_partition_that_came_back_is_recovered_though_an_older_chunk_holds_a_part_of_it() {
    let world = World::new();
    let mut life = world.start_lanes(&LaneConfig::default(), &[&[0], &[1]]);
    let [returns, leaves, stays] = [0, 1, 2].map(partition);
    [returns, leaves, stays].into_iter().for_each(|partition| drop(life.lead(partition, 0)));
    for round in 0..30 {
        let mut entries = vec![entry(leaves, 1, round, 1, "-")];
        entries.extend((round < 8).then(|| entry(returns, 1, round, 1, "a")));
        life.seal_on(0, 0, entries);
        life.pass(Duration::from_millis(10));
    }
    life.pass(Duration::from_secs(11));
    for round in 0..20 {
        let mut entries = vec![entry(stays, 1, round, 1, "-")];
        entries.extend((round == 0).then(|| entry(returns, 1, 8, 1, "b")));
        life.seal_on(0, 0, entries);
        life.pass(Duration::from_millis(10));
    }
    life.pass(Duration::from_secs(11));
    life.command(0, LaneCommand::Release { partitions: vec![returns, leaves] });
    life.settle();
    [returns, leaves].into_iter().for_each(|partition| life.drained(0, 0, partition));
    life.pass(Duration::from_millis(10));
    [returns, leaves].into_iter().for_each(|partition| drop(life.lead_on(1, partition, 1)));
    life.pass(Duration::from_secs(30));
    life.seal_on(0, 0, vec![entry(stays, 1, 20, 1, "-")]);
    life.pass(Duration::from_secs(11));
    life.command(1, LaneCommand::Release { partitions: vec![returns] });
    life.settle();
    life.drained_at(1, 1, returns, 2);
    life.pass(Duration::from_millis(10));
    assert_eq!(life.lead(returns, 0).epoch, LeaderEpoch(3));
    drop(life);
    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(returns, 0);
    assert_eq!((state.end, life.content(&state)), (Offset(9), b"aaaaaaaab".to_vec()));
    assert_eq!(life.lead(stays, 0).end, Offset(21));
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
fn who_takes_long_to_take_a_released_partition_gets_longer_each_time() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    let mut waited = Vec::new();
    for epoch in 1..4 {
        life.command(0, LaneCommand::Release { partitions: vec![partition(0)] });
        life.pass(Duration::from_secs(1));
        life.drained_at(0, 0, partition(0), epoch);
        life.pass(Duration::from_secs(1));
        assert!(life.record(partition(0)).released.is_some(), "at epoch {epoch}");
        let mut seconds = 1;
        while life.record(partition(0)).epoch == LeaderEpoch(epoch) {
            life.pass(Duration::from_secs(1));
            seconds += 1;
        }
        waited.push(seconds);
    }
    assert!(waited[0] >= 5 && waited[1] >= 10 && waited[2] >= 20 && waited[2] < 25, "{waited:?} seconds");
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
