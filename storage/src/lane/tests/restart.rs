//! Commit, crash, recovery; graceful stop; fencing from outside.

use super::world::{World, committed, entry, lead, partition};
use crate::format::checkpoint::checkpoint_key;
use crate::ids::{LeaderEpoch, Offset, Seq};
use crate::lane::{LaneCommand, LaneConfig, LaneReport, ToLane, ToShard};
use crate::meta::records::WalState;
use crate::recovery;
use std::time::Duration;

#[test]
fn what_two_shards_sealed_is_committed_in_order_and_survives_a_crash() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    assert_eq!(life.lead(partition(0), 0).epoch, LeaderEpoch(1));
    life.lead(partition(1), 1);
    life.seal(0, entry(partition(0), 1, 0, 3, "abc"));
    life.seal(1, entry(partition(1), 1, 0, 1, "x"));
    life.seal(0, entry(partition(0), 1, 3, 2, "de"));
    life.pass(Duration::from_millis(10));
    assert_eq!(committed(&life.heard(0)).0, 2);
    assert_eq!(committed(&life.heard(1)).0, 1);
    drop(life);

    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(partition(0), 0);
    assert_eq!((state.epoch, state.end), (LeaderEpoch(2), Offset(5)));
    assert_eq!(life.content(&state), b"abcde");
    let state = life.lead(partition(1), 0);
    assert_eq!((state.end, life.content(&state)), (Offset(1), b"x".to_vec()));
    life.seal(0, entry(partition(0), 2, 5, 1, "f"));
    life.pass(Duration::from_millis(10));
    drop(life);

    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(partition(0), 1);
    assert_eq!((state.epoch, state.end), (LeaderEpoch(3), Offset(6)));
    assert_eq!(life.content(&state), b"abcdef");
}

#[test]
fn recovery_goes_on_from_a_checkpoint_and_its_chunks() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    for round in 0..5 {
        life.seal(0, entry(partition(0), 1, round, 1, "a"));
        life.pass(Duration::from_secs(11));
    }
    let wid = life.record(partition(0)).wid;
    let record = life.wal_record(wid).expect("open");
    assert_eq!((record.ck, record.lw), (5, Seq(0)));
    life.seal(0, entry(partition(0), 1, 5, 1, "b"));
    life.pass(Duration::from_millis(10));
    drop(life);

    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(partition(0), 0);
    assert_eq!((state.end, life.content(&state)), (Offset(6), b"aaaaab".to_vec()));
}

#[test]
fn a_dead_log_is_walked_from_its_checkpoint_and_from_its_low_water_mark_where_that_is_gone() {
    for keep_checkpoint in [true, false] {
        let world = World::new();
        let mut life = world.start(&LaneConfig::default());
        life.lead(partition(0), 0);
        for round in 0..3 {
            life.seal(0, entry(partition(0), 1, round, 1, "a"));
            life.pass(Duration::from_secs(11));
        }
        life.seal(0, entry(partition(0), 1, 3, 1, "b"));
        life.pass(Duration::from_millis(10));
        let wid = life.record(partition(0)).wid;
        let record = life.wal_record(wid).expect("open");
        assert_eq!(record.lw, Seq(0));
        let (env, stores, boot) = (life.env.clone(), life.stores.clone(), life.boot);
        let sealed = life.run(async move {
            if keep_checkpoint {
                // Nobody does that: it shows that the walk does not look there.
                stores.wal.delete_below(wid, Seq(3)).await.expect("memory");
            } else {
                stores.objects.delete(vec![checkpoint_key(wid, record.ck)]).await.expect("memory");
            }
            recovery::seal(&env, &stores, boot, wid).await
        });
        assert_eq!(sealed.expect("memory"), Seq(4));
    }
}

#[test]
fn a_checkpoint_leaves_no_older_one_behind() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    for round in 0..9 {
        life.seal(0, entry(partition(0), 1, round, 1, "a"));
        life.pass(Duration::from_secs(11));
    }
    let objects = life.stores.objects.clone();
    let listed = life.run(async move { objects.list("ckpt/").await }).expect("memory");
    let checkpoints = listed.iter().filter(|object| !object.key.ends_with(".refs")).count();
    let chunks = listed.len() - checkpoints;
    assert_eq!(checkpoints, 1);
    assert!(chunks <= 4, "nine references stand in {chunks} chunks");
}

#[test]
fn a_graceful_stop_seals_the_log_at_its_fence_and_loses_nothing() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.seal(0, entry(partition(0), 1, 0, 2, "ab"));
    life.command(0, LaneCommand::Stop);
    life.settle();
    assert!(life.heard(0).contains(&ToShard::Drain { partition: partition(0), epoch: LeaderEpoch(1) }));
    life.seal(0, entry(partition(0), 1, 2, 1, "c"));
    life.drained(0, 0, partition(0));
    life.pass(Duration::from_millis(100));
    assert_eq!(life.reports(0).pop(), Some(LaneReport::Stopped { sealed: true }));
    let wid = life.record(partition(0)).wid;
    assert!(matches!(life.wal_record(wid).expect("kept").state, WalState::Sealed { .. }));
    drop(life);

    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(partition(0), 0);
    assert_eq!((state.end, life.content(&state)), (Offset(3), b"abc".to_vec()));
}

#[test]
fn a_log_sealed_by_another_fences_its_lane_which_opens_a_new_one() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.seal(0, entry(partition(0), 1, 0, 1, "a"));
    life.pass(Duration::from_millis(10));
    life.heard(0);
    let wid = life.record(partition(0)).wid;
    let (env, stores, boot) = (life.env.clone(), life.stores.clone(), life.boot);
    let end = life.run(async move { recovery::seal(&env, &stores, boot, wid).await }).expect("memory");
    assert_eq!(end, Seq(1));

    life.seal(0, entry(partition(0), 1, 1, 1, "lost"));
    life.pass(Duration::from_millis(100));
    assert_eq!(life.heard(0), vec![ToShard::Fenced { generation: 1 }]);
    let reports = life.reports(0);
    assert!(reports.contains(&LaneReport::Fenced));
    assert!(matches!(reports.last(), Some(LaneReport::Opened { wid: new }) if *new != wid));

    // The shard has not seen the fence yet: its seal is dropped, not taken for a broken invariant.
    life.seal(0, entry(partition(0), 1, 2, 1, "late"));
    life.settle();
    life.lanes[0].shards.values_mut().for_each(|shard| shard.generation = 1);
    let state = life.lead(partition(0), 0);
    assert_eq!((state.epoch, state.end), (LeaderEpoch(2), Offset(1)));
    life.seal(0, entry(partition(0), 2, 1, 1, "b"));
    life.pass(Duration::from_millis(10));
    assert_eq!(committed(&life.heard(0)).1, 1);
}

#[test]
fn a_thousand_partitions_are_acquired_in_one_go() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    let all = || (0..1000).map(|index| (partition(index), crate::ids::ShardIndex(0))).collect::<Vec<_>>();
    life.command(0, lead(all()));
    life.pass(Duration::from_secs(1));
    let acquired =
        |messages: &[ToShard]| messages.iter().filter(|message| matches!(message, ToShard::Acquired { .. })).count();
    assert_eq!(acquired(&life.heard(0)), 1000);
    let entries = (0..1000).map(|index| entry(partition(index), 1, 0, 1, "r")).collect();
    life.seal_on(0, 0, entries);
    life.pass(Duration::from_millis(10));
    drop(life);
    let mut life = world.start(&LaneConfig::default());
    life.command(0, lead(all()));
    life.pass(Duration::from_millis(1));
    assert_eq!(acquired(&life.heard(0)), 1000);
}

#[test]
fn a_log_start_is_part_of_the_fold() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    for base in 0..4 {
        life.seal(0, entry(partition(0), 1, base, 1, "a"));
        life.pass(Duration::from_millis(10));
    }
    let raise = ToLane::LogStart { partition: partition(0), offset: Offset(2) };
    assert!(life.lanes[0].shards[&crate::ids::ShardIndex(0)].to.send(raise).is_ok());
    life.pass(Duration::from_millis(10));
    drop(life);
    let mut life = world.start(&LaneConfig::default());
    let state = life.lead(partition(0), 0);
    assert_eq!((state.log_start, state.end, state.references.len()), (Offset(2), Offset(4), 2));
}

#[test]
fn the_ring_gives_up_the_oldest_records_and_their_objects() {
    let world = World::new();
    let config = LaneConfig { ring_bytes: Some(20_000), ..LaneConfig::default() };
    let mut life = world.start(&config);
    life.lead(partition(0), 0);
    let text = "x".repeat(1000);
    for base in 0..100 {
        life.seal(0, entry(partition(0), 1, base, 1, &text));
        life.pass(Duration::from_millis(100));
    }
    life.pass(Duration::from_secs(3));
    assert!(world.wal.bytes() <= 22_000, "{} bytes stay", world.wal.bytes());
    drop(life);
    let mut life = world.start(&config);
    let state = life.lead(partition(0), 0);
    assert_eq!(state.end, Offset(100));
    assert!(state.log_start > Offset(80));
    assert!(!life.content(&state).is_empty());
}

#[test]
fn the_ring_keeps_to_its_cap_however_fast_it_is_written() {
    let world = World::new();
    let config = LaneConfig { ring_bytes: Some(20_000), checkpoint_gap: Duration::ZERO, ..LaneConfig::default() };
    let mut life = world.start(&config);
    life.lead(partition(0), 0);
    let text = "x".repeat(1000);
    for base in 0..200 {
        life.seal(0, entry(partition(0), 1, base, 1, &text));
        life.pass(Duration::from_millis(1));
        // Beyond the cap only what arrives until the log starts are committed and a checkpoint stands.
        assert!(world.wal.bytes() <= 24_000, "{} bytes after {base}", world.wal.bytes());
    }
}

#[test]
fn a_log_that_holds_nothing_any_more_is_collected_down_to_its_fence() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    life.seal(0, entry(partition(0), 1, 0, 1, "a"));
    life.pass(Duration::from_millis(10));
    let first = life.record(partition(0)).wid;
    drop(life);
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    let pass = |life: &mut super::world::Life| {
        let (env, stores) = (life.env.clone(), life.stores.clone());
        life.run(async move { recovery::Collector::default().pass(&env, &stores).await }).expect("memory")
    };
    assert_eq!(pass(&mut life).logs, 0, "a reference points into the first log");
    let raise = ToLane::LogStart { partition: partition(0), offset: Offset(1) };
    assert!(life.lanes[0].shards[&crate::ids::ShardIndex(0)].to.send(raise).is_ok());
    life.pass(Duration::from_secs(20));
    assert_eq!(pass(&mut life).logs, 1);
    let wal = life.stores.wal.clone();
    let listed = life.run(async move { wal.list(first, Seq(0)).await }).expect("memory");
    assert_eq!(listed.iter().map(|one| (one.seq, one.size)).collect::<Vec<_>>(), vec![(Seq(1), 64)]);
}
