//! Leaderships: fences, revocations, draining.

use super::*;

#[test]
fn a_fence_fails_what_waits_and_the_next_seal_is_of_the_new_generation() {
    let mut world = World::new();
    let sealed = world.produce(-1, &[(0, BatchOf::idempotent(1, 9, 0))]);
    world.seal().unwrap();
    let unsealed = world.produce(-1, &[(1, BatchOf::plain(1, 10))]);
    let parked = world.fetch(&Ask { wait_ms: 500, ..Ask::from(0) });
    world.lane(ToShard::Fenced { generation: 1 });
    for to in [sealed, unsealed] {
        assert_eq!(world.produced(to).unwrap()[0].error_code, ErrorCode::NotLeaderOrFollower);
    }
    assert_eq!(world.fetched(parked).unwrap()[0].error_code, ErrorCode::NotLeaderOrFollower);
    assert!(world.seal().is_none(), "what was appended before the fence is gone");

    // The sealed batch was not committed: the retry is new to the log that recovery found.
    let recovered = world.committed[&partition(0)].next_epoch();
    world.acquire(partition(0), recovered);
    let retry = world.produce(-1, &[(0, BatchOf::idempotent(1, 9, 0))]);
    let (seal, object) = world.seal().unwrap();
    assert_eq!((seal.number, seal.generation, seal.entries[0].epoch), (1, 1, LeaderEpoch(2)));
    world.commit_sealed(&seal, object);
    assert_eq!(world.produced(retry).unwrap()[0].base_offset, 0);
}

#[test]
fn a_retry_of_a_batch_that_recovery_folded_is_a_duplicate() {
    let mut world = World::new();
    world.write(0, BatchOf::plain(3, 10));
    world.write(0, BatchOf::idempotent(2, 9, 0));
    world.restart(|_| {});
    let retry = world.produce(-1, &[(0, BatchOf::idempotent(2, 9, 0))]);
    assert_eq!(world.produced(retry).unwrap()[0].base_offset, 3);
    assert_eq!(world.write(0, BatchOf::idempotent(1, 9, 2)), 5);
}

#[test]
fn committed_entries_of_an_older_epoch_do_not_raise_the_watermark() {
    let mut world = World::new();
    world.produce(1, &[(0, BatchOf::plain(1, 10))]);
    let (_, object) = world.seal().unwrap();
    let state = world.committed[&partition(0)].next_epoch();
    world.acquire(partition(0), state);
    world.lane(ToShard::Committed { through: 1, objects: vec![object], waits: vec![] });
    assert_eq!(world.read(&Ask::from(0)).high_watermark, 0);
}

#[test]
fn a_draining_partition_refuses_produce_and_still_commits_and_serves() {
    let mut world = World::new();
    let before = world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    world.lane(ToShard::Drain { partition: partition(0), epoch: LeaderEpoch(1) });
    assert_eq!(world.to_lane, [ToLane::Drain { partition: partition(0), epoch: LeaderEpoch(1) }]);
    let after = world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    assert_eq!(world.produced(after).unwrap()[0].error_code, ErrorCode::NotLeaderOrFollower);
    world.commit();
    assert_eq!(world.produced(before).unwrap()[0].error_code, ErrorCode::None);
    assert_eq!(bases(&world.read(&Ask::from(0))), [0]);
    world.lane(ToShard::Revoked { partition: partition(0) });
    assert_eq!(world.read(&Ask::from(0)).error_code, ErrorCode::NotLeaderOrFollower);
}
