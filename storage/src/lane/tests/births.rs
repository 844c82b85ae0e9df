//! BIRTH: a partition comes into being only while its topic is LIVE.

use super::core::{Bare, SHARD, bearing, look_up, outage, stands, txn};
use super::world::{World, lead, partition, topic};
use crate::ids::{ShardIndex, TopicId, TopicPartition};
use crate::lane::events::{Effect, Event, Found};
use crate::lane::{LaneCommand, LaneConfig, LaneReport, ToLead, ToShard, TopicSeen};
use crate::meta::records::{Record, TopicRecord, TopicState};
use crate::meta::{Compare, MAX_TXN_OPS, MetaStore, Revision, Snapshot, Txn, TxnOutcome, Versioned, keys};
use bytes::Bytes;
use futures::executor::block_on;
use std::sync::Arc;
use std::time::Duration;

/// What stands after a birth that did not happen, whose topic stands so.
fn unborn(sent: &Txn, topic: Option<Bytes>) -> Snapshot {
    let mut stands = stands(sent, false);
    *stands.values.last_mut().expect("the topic's") = topic.map(|value| Versioned { value, modified: Revision(8) });
    stands
}

#[test]
fn a_birth_compares_its_topics_record() {
    let (_, _, sent) = bearing();
    let live = topic(TopicState::Live);
    assert_eq!(sent.compares.last(), Some(&Compare::Value(keys::topic("t"), live.record)));
}

#[test]
fn a_birth_whose_topic_is_no_longer_live_is_lost_and_never_sent_again() {
    let other = TopicRecord {
        id: TopicId(uuid::Uuid::from_u128(8)),
        ..TopicRecord::decode(&topic(TopicState::Live).record).expect("our own")
    };
    for stands in [Some(topic(TopicState::Deleting).record), Some(other.encode()), None] {
        for lost_answer in [false, true] {
            let (mut bare, token, sent) = bearing();
            if lost_answer {
                bare.give(Event::Txn(token, Err(outage())));
                bare.pass(Duration::from_secs(2));
            } else {
                bare.give(Event::Txn(token, Ok(TxnOutcome::Conflict(Revision(7)))));
            }
            let effects = bare.give(Event::MetaRead(token, Ok(unborn(&sent, stands.clone()))));
            assert!(effects.contains(&Effect::Report(LaneReport::NotLeading { partition: partition(0) })));
            assert!(!bare.core.transactions.ownership_undecided());
            let later = bare.pass(Duration::from_secs(60));
            assert!(!later.iter().any(|effect| matches!(effect, Effect::Txn(..))), "{later:?}");
        }
    }
}

#[test]
fn a_birth_whose_topic_was_altered_meanwhile_is_sent_again_and_compares_what_stands() {
    let (mut bare, token, sent) = bearing();
    bare.give(Event::Txn(token, Ok(TxnOutcome::Conflict(Revision(7)))));
    let mut record = TopicRecord::decode(&topic(TopicState::Live).record).expect("our own");
    record.settings.insert("retention.ms".into(), "1".into());
    bare.give(Event::MetaRead(token, Ok(unborn(&sent, Some(record.encode())))));
    let (token, again) = txn(&bare.pass(Duration::from_secs(2)));
    assert_eq!(again.ops, sent.ops);
    assert_eq!(again.compares.last(), Some(&Compare::Value(keys::topic("t"), record.encode())));
    let effects = bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(9)))));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::ToShard(SHARD, ToShard::Acquired { .. }))));
}

#[test]
fn a_birth_that_happened_before_its_topic_was_deleted_is_known_to_have_happened() {
    let (mut bare, token, sent) = bearing();
    bare.give(Event::Txn(token, Err(outage())));
    bare.pass(Duration::from_secs(2));
    let mut stands = stands(&sent, true);
    *stands.values.last_mut().expect("the topic's") = None;
    let effects = bare.give(Event::MetaRead(token, Ok(stands)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::ToShard(SHARD, ToShard::Acquired { .. }))));
}

#[test]
fn births_of_many_topics_fit_into_a_transaction_each() {
    let mut bare = Bare::open(LaneConfig::default());
    let of = |number: u128, index| {
        let id = TopicId(uuid::Uuid::from_u128(number));
        let record = TopicRecord { id, ..TopicRecord::decode(&topic(TopicState::Live).record).expect("our own") };
        let topic = Arc::new(TopicSeen { name: format!("t-{number}"), record: record.encode() });
        ToLead { partition: TopicPartition { topic: id, index }, shard: SHARD, topic }
    };
    let partitions: Vec<ToLead> =
        (0..90).map(|number| of(number, 0)).chain((0..59).map(|index| of(100, index))).collect();
    let found = partitions.iter().map(|lead| (lead.partition, Found::Unborn)).collect();
    let effects = bare.give(Event::Command(LaneCommand::Lead { partitions: partitions.clone() }));
    let mut effects = bare.give(Event::LookedUp(look_up(&effects), Ok(found)));
    let mut born = 0;
    while let Some((token, sent)) = effects.iter().find_map(|effect| match effect {
        Effect::Txn(token, sent) => Some((*token, sent.clone())),
        _ => None,
    }) {
        assert!(sent.compares.len() + sent.ops.len() <= MAX_TXN_OPS);
        born += sent.ops.len();
        effects.retain(|effect| !matches!(effect, Effect::Txn(one, _) if *one == token));
        effects.extend(bare.give(Event::Txn(token, Ok(TxnOutcome::Committed(Revision(5))))));
    }
    assert_eq!(born, partitions.len());
}

#[test]
fn a_lane_gives_up_a_partition_whose_topic_is_deleted_and_bears_it_never() {
    for state in [Some(TopicState::Deleting), None] {
        let world = World::new();
        let mut life = world.start(&LaneConfig::default());
        world.put_topic(state);
        life.command(0, lead([(partition(0), ShardIndex(0)), (partition(1), ShardIndex(1))]));
        life.pass(Duration::from_secs(60));
        let given_up = |report: &LaneReport| matches!(report, LaneReport::NotLeading { .. });
        assert_eq!(life.reports(0).iter().filter(|report| given_up(report)).count(), 2, "each once");
        let records = block_on(world.meta.list(keys::PARTITIONS, None, 10)).expect("memory");
        assert_eq!(records.entries, vec![]);
        // Others are not held up by it.
        world.put_topic(Some(TopicState::Live));
        life.lead(partition(0), 0);
    }
}
