//! The broker's own share of acknowledgements.

use super::*;
use millrace_storage::lane::SealWait;
use millrace_storage::meter::Histogram;
use std::time::Duration;

/// What the shard's own share of acknowledgements was: how many seals, and milliseconds of all together.
fn shares(acks: &Histogram) -> (u64, f64) {
    let recorded = acks.snapshot();
    (recorded.count(), (recorded.seconds * 1e6).round() / 1e3)
}

#[test]
fn the_share_of_an_acknowledgement_is_the_age_of_its_oldest_batch_less_what_the_lane_waited() {
    let (mut world, acks) = (World::new(), Arc::<Histogram>::default());
    world.core.record_acks_in(acks.clone());
    world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    world.pass(3);
    world.produce(-1, &[(1, BatchOf::plain(1, 10))]);
    let (seal, object) = world.seal().unwrap();
    world.pass(10);
    let waits = vec![SealWait { number: seal.number, waited: Duration::from_millis(6) }];
    world.lane(ToShard::Committed { through: 1, objects: vec![object], waits });
    assert_eq!(shares(&acks), (1, 7.0));
}

#[test]
fn of_a_backlog_every_seal_counts_from_the_first_batch() {
    let (mut world, acks) = (World::new(), Arc::<Histogram>::default());
    world.core.record_acks_in(acks.clone());
    let large = || BatchOf::plain(1, 900 << 10);
    world.produce(-1, &[(0, large())]);
    world.pass(5);
    for _ in 0..4 {
        world.produce(-1, &[(0, large())]);
    }
    for through in 1..=2 {
        let (seal, object) = world.seal().unwrap();
        let waits = vec![SealWait { number: seal.number, waited: Duration::ZERO }];
        world.lane(ToShard::Committed { through, objects: vec![object], waits });
    }
    assert!(world.seal().is_none());
    assert_eq!(shares(&acks), (2, 10.0));
}

#[test]
fn what_a_fence_took_is_no_acknowledgement() {
    let (mut world, acks) = (World::new(), Arc::<Histogram>::default());
    world.core.record_acks_in(acks.clone());
    world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    world.seal().unwrap();
    world.lane(ToShard::Fenced { generation: 1 });
    world.pass(50);
    world.acquire(partition(0), CommittedPartition::born(LeaderEpoch(2)));
    world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    let (seal, object) = world.seal().unwrap();
    world.pass(4);
    let waits = vec![SealWait { number: seal.number, waited: Duration::from_millis(9) }];
    world.lane(ToShard::Committed { through: seal.number + 1, objects: vec![object], waits });
    // Waiting is measured on another thread: more than the age is none of the broker's own.
    assert_eq!(shares(&acks), (1, 0.0));
}
