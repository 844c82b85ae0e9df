//! Data that must exist does not, or contradicts itself: an alarm, and the partition is not served.

use super::world::{Life, World, entry, lead, partition};
use crate::env::WallMs;
use crate::format::checkpoint::checkpoint_key;
use crate::format::object::{ObjectHeader, ObjectKind, encode_header};
use crate::ids::{BootId, LeaderEpoch, Seq, ShardIndex, Wid, WriterId};
use crate::lane::{LaneConfig, LaneReport, ToShard};
use crate::meta::records::{PartitionRecord, Record};
use crate::meta::{MetaStore, Op, Txn, keys};
use crate::wal::WalStore;
use bytes::Bytes;
use futures::executor::block_on;
use std::time::Duration;

/// A world whose only life crashed after three objects, with or without a checkpoint.
fn crashed(world: &World, checkpointed: bool) -> Wid {
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    for base in 0..3 {
        life.seal(0, entry(partition(0), 1, base, 1, "a"));
        life.pass(Duration::from_millis(10));
    }
    if checkpointed {
        life.pass(Duration::from_secs(20));
    }
    life.record(partition(0)).wid
}

fn alarms(life: &mut Life) -> bool {
    life.command(0, lead([(partition(0), ShardIndex(0))]));
    life.pass(Duration::from_secs(3));
    let served = life.heard(0).iter().any(|message| matches!(message, ToShard::Acquired { .. }));
    let alarm = life.reports(0).iter().any(|report| matches!(report, LaneReport::Alarm { .. }));
    assert_ne!(served, alarm, "either served or an alarm");
    assert_eq!(life.totals(0).damaged, u64::from(alarm));
    alarm
}

#[test]
fn a_missing_object_is_an_alarm() {
    let world = World::new();
    let wid = crashed(&world, false);
    drop(world.start(&LaneConfig::default()));
    block_on(world.wal.delete_below(wid, Seq(1))).expect("memory");
    assert!(alarms(&mut world.start(&LaneConfig::default())));
}

#[test]
fn a_missing_checkpoint_is_an_alarm() {
    let world = World::new();
    let wid = crashed(&world, true);
    let mut life = world.start(&LaneConfig::default());
    let key = checkpoint_key(wid, 1);
    block_on(life.stores.objects.delete(vec![key])).expect("memory");
    assert!(alarms(&mut life));
}

#[test]
fn a_partition_of_a_later_epoch_that_the_checkpoint_lacks_is_an_alarm() {
    let world = World::new();
    let wid = crashed(&world, false);
    let mut life = world.start(&LaneConfig::default());
    let record = PartitionRecord { epoch: LeaderEpoch(2), ..life.record(partition(0)) };
    assert_eq!(record.wid, wid);
    let put = Op::Put(keys::partition(partition(0)), record.encode());
    block_on(world.meta.txn(Txn { compares: vec![], ops: vec![put] })).expect("memory");
    assert!(alarms(&mut life));
}

#[test]
fn what_is_whole_is_no_alarm() {
    let world = World::new();
    crashed(&world, true);
    assert!(!alarms(&mut world.start(&LaneConfig::default())));
}

#[test]
fn a_log_that_cannot_be_sealed_is_tried_again_with_pauses_and_the_lane_goes_on_once_it_can() {
    let world = World::new();
    let mut life = world.start(&LaneConfig::default());
    life.lead(partition(0), 0);
    let wid = life.record(partition(0)).wid;
    let whole = life.wal_record(wid).expect("open");
    let put = |value: Bytes| {
        let ops = vec![Op::Put(keys::wal(wid), value)];
        block_on(world.meta.txn(Txn { compares: vec![], ops })).expect("memory");
    };
    put(Bytes::from_static(b"no record"));
    let writer = WriterId { boot: BootId(99), lane: WriterId::FENCER };
    let fence = ObjectHeader { kind: ObjectKind::Fence, wid, writer, seq: Seq(0), sealed_at: WallMs(0) };
    block_on(world.wal.put_if_absent(wid, Seq(0), vec![encode_header(&fence)])).expect("memory");
    life.seal(0, entry(partition(0), 1, 0, 1, "a"));
    // Refused at once, every time: without pauses this never returns.
    life.pass(Duration::from_secs(60));
    assert!(life.reports(0).contains(&LaneReport::Fenced));
    put(whole.encode());
    life.pass(Duration::from_secs(5));
    assert!(life.reports(0).iter().any(|report| matches!(report, LaneReport::Opened { .. })));
}

#[test]
fn a_record_that_names_a_log_without_a_record_is_an_alarm() {
    let world = World::new();
    let wid = crashed(&world, false);
    let mut life = world.start(&LaneConfig::default());
    let delete = Op::Delete(keys::wal(wid));
    block_on(world.meta.txn(Txn { compares: vec![], ops: vec![delete] })).expect("memory");
    assert!(alarms(&mut life));
}

#[test]
fn a_record_that_cannot_be_decoded_is_an_alarm_for_its_partition_alone() {
    let world = World::new();
    crashed(&world, false);
    let mut life = world.start(&LaneConfig::default());
    let put = Op::Put(keys::partition(partition(1)), Bytes::from_static(b"no record"));
    block_on(world.meta.txn(Txn { compares: vec![], ops: vec![put] })).expect("memory");
    life.command(0, lead((0..2).map(|index| (partition(index), ShardIndex(0)))));
    life.pass(Duration::from_secs(3));
    let served: Vec<_> = life
        .heard(0)
        .into_iter()
        .filter_map(|message| match message {
            ToShard::Acquired { partition, .. } => Some(partition),
            _ => None,
        })
        .collect();
    assert_eq!(served, vec![partition(0)]);
    let alarmed = life
        .reports(0)
        .into_iter()
        .any(|report| matches!(report, LaneReport::Alarm { partition: Some(of), .. } if of == partition(1)));
    assert!(alarmed);
}
