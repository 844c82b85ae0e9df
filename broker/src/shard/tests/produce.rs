//! Produce: order, acknowledgements, duplicates, timeouts, refusals.

use super::*;
use crate::shard::events::Reply;
use crate::shard::producer_room::SILENT_MS;
use millrace_protocol::records::TimestampType;
use millrace_storage::partition::ProducerTable;

fn errors(results: &[PartitionProduceResponse]) -> Vec<ErrorCode> {
    results.iter().map(|result| result.error_code).collect()
}

#[test]
fn acks_all_is_answered_when_the_object_is_committed_and_not_before() {
    let mut world = World::new();
    let to = world.produce(-1, &[(0, BatchOf::plain(3, 10)), (1, BatchOf::plain(1, 10))]);
    assert!(world.produced(to).is_none());
    let (seal, object) = world.seal().unwrap();
    assert!(world.produced(to).is_none(), "sealed is not durable");
    world.commit_sealed(&seal, object);
    let results = world.produced(to).unwrap();
    assert_eq!(errors(&results), [ErrorCode::None; 2]);
    assert_eq!(results.iter().map(|result| result.base_offset).collect::<Vec<_>>(), [0, 0]);
    assert_eq!(world.write(0, BatchOf::plain(2, 10)), 3);
}

#[test]
fn answers_leave_in_the_order_of_seals() {
    let mut world = World::new();
    let first = world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    let (seal_0, object_0) = world.seal().unwrap();
    let second = world.produce(-1, &[(1, BatchOf::plain(1, 10))]);
    let third = world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    let (seal_1, object_1) = world.seal().unwrap();
    assert_eq!((seal_0.number, seal_1.number), (0, 1));
    world.commit_sealed(&seal_0, object_0);
    assert_eq!(world.order, [first]);
    world.commit_sealed(&seal_1, object_1);
    assert_eq!(world.order, [first, second, third]);
}

#[test]
fn a_request_that_spans_two_seals_is_answered_with_the_last() {
    let mut world = World::new();
    let large = || BatchOf::plain(1, 1_000_000);
    let to = world.produce(-1, &[(0, large()), (0, large()), (0, large()), (0, large()), (1, large())]);
    let (first, first_object) = world.seal().unwrap();
    let (second, second_object) = world.seal().expect("five batches of a megabyte exceed one seal");
    world.commit_sealed(&first, first_object);
    assert!(world.produced(to).is_none());
    world.commit_sealed(&second, second_object);
    assert_eq!(errors(&world.produced(to).unwrap()), [ErrorCode::None; 5]);
}

#[test]
fn acks_one_is_answered_when_appended_and_acks_zero_never() {
    let mut world = World::new();
    let one = world.produce(1, &[(0, BatchOf::plain(1, 10))]);
    assert_eq!(world.produced(one).unwrap()[0].base_offset, 0);
    let zero = world.produce(0, &[(0, BatchOf::plain(1, 10))]);
    assert_eq!(world.replies[&zero], Reply::Silent);
    let failed = world.produce(0, &[(2, BatchOf::plain(1, 10))]);
    assert!(matches!(world.replies[&failed], Reply::Close(_)));
    world.commit();
    assert_eq!(world.order.len(), 3);
}

#[test]
fn acks_other_than_minus_one_zero_and_one_are_invalid() {
    let mut world = World::new();
    let to = world.produce(2, &[(0, BatchOf::plain(1, 10))]);
    assert_eq!(errors(&world.produced(to).unwrap()), [ErrorCode::InvalidRequiredAcks]);
    assert!(world.seal().is_none());
}

#[test]
fn a_retry_attaches_to_the_original_in_flight_and_gets_its_offset_once_committed() {
    let mut world = World::new();
    world.write(0, BatchOf::plain(5, 10));
    let batch = BatchOf::idempotent(2, 9, 0);
    let original = world.produce(-1, &[(0, batch.clone())]);
    let retry = world.produce(-1, &[(0, batch.clone())]);
    let later = world.produce(-1, &[(0, BatchOf::idempotent(1, 9, 2))]);
    assert!(world.produced(retry).is_none());
    world.commit();
    for to in [original, retry] {
        assert_eq!(world.produced(to).unwrap()[0].base_offset, 5);
    }
    assert_eq!(world.produced(later).unwrap()[0].base_offset, 7);
    let again = world.produce(-1, &[(0, batch)]);
    assert_eq!(world.produced(again).unwrap()[0].base_offset, 5, "committed: answered at once");
    assert!(world.seal().is_none(), "and not appended");
}

#[test]
fn a_gap_in_sequences_is_out_of_order() {
    let mut world = World::new();
    world.write(0, BatchOf::idempotent(2, 9, 0));
    let to = world.produce(-1, &[(0, BatchOf::idempotent(1, 9, 5))]);
    assert_eq!(errors(&world.produced(to).unwrap()), [ErrorCode::OutOfOrderSequenceNumber]);
}

#[test]
fn a_timed_out_batch_stays_in_the_log_and_its_retry_is_acknowledged() {
    let mut world = World::new();
    let batch = BatchOf::idempotent(1, 9, 0);
    let first = world.produce(-1, &[(0, batch.clone()), (2, BatchOf::plain(1, 10))]);
    world.pass(999);
    assert!(world.produced(first).is_none());
    world.pass(1);
    let results = world.produced(first).unwrap();
    assert_eq!(errors(&results), [ErrorCode::RequestTimedOut, ErrorCode::NotLeaderOrFollower]);
    let retry = world.produce(-1, &[(0, batch)]);
    world.commit();
    assert_eq!(world.produced(retry).unwrap()[0].base_offset, 0);
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn while_the_store_is_full_new_batches_are_refused_at_once_and_what_was_appended_waits() {
    let mut world = World::new();
    let batch = |sequence| BatchOf::idempotent(1, 9, sequence);
    let waiting = world.produce(-1, &[(0, batch(0))]);
    let (seal, object) = world.seal().unwrap();
    world.lane(ToShard::StoreFull(true));
    for (acks, sequence) in [(-1, 1), (1, 1), (-1, 2)] {
        let refused = world.produce(acks, &[(0, batch(sequence))]);
        assert_eq!(errors(&world.produced(refused).unwrap()), [ErrorCode::KafkaStorageError]);
    }
    let retry = world.produce(-1, &[(0, batch(0))]);
    assert!(world.seal().is_none(), "nothing was appended");
    assert!(world.produced(waiting).is_none() && world.produced(retry).is_none(), "these are in the log");
    world.pass(1_000);
    for to in [waiting, retry] {
        assert_eq!(errors(&world.produced(to).unwrap()), [ErrorCode::RequestTimedOut]);
    }
    world.commit_sealed(&seal, object);
    world.lane(ToShard::StoreFull(false));
    assert_eq!(world.write(0, batch(1)), 1);
    let committed = world.produce(-1, &[(0, batch(0))]);
    assert_eq!(world.produced(committed).unwrap()[0].base_offset, 0);
}

#[test]
fn a_fence_ends_what_was_said_of_a_full_store() {
    let mut world = World::new();
    world.lane(ToShard::StoreFull(true));
    world.lane(ToShard::Fenced { generation: 1 });
    let recovered = world.committed[&partition(0)].next_epoch();
    world.acquire(partition(0), recovered);
    let to = world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    assert!(world.produced(to).is_none(), "appended");
}

#[test]
fn broken_batches_get_kafkas_errors_and_take_no_offset() {
    let mut world = World::new();
    let sound = BatchOf { count: 1, size: 10, producer: (-1, -1, -1), attributes: 0, timestamp: 1_000_000 };
    let flipped = {
        let mut bytes = sound.build().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    let old = {
        let mut bytes = sound.build().to_vec();
        bytes[16] = 1;
        Bytes::from(bytes)
    };
    let twice = Bytes::from([sound.build(), sound.build()].concat());
    let control = BatchOf { attributes: 0x20, ..sound }.build();
    let transactional = BatchOf { attributes: 0x10, ..sound }.build();
    let no_sequence = BatchOf { producer: (9, 0, -1), ..sound }.build();
    let from_the_future = BatchOf { timestamp: 1_000_000 + 3_600_001, ..sound }.build();
    for (batch, error) in [
        (flipped, ErrorCode::CorruptMessage),
        (old, ErrorCode::InvalidRecord),
        (twice, ErrorCode::InvalidRecord),
        (control, ErrorCode::InvalidRecord),
        (no_sequence, ErrorCode::InvalidRecord),
        (Bytes::new(), ErrorCode::InvalidRecord),
        (transactional, ErrorCode::TransactionalIdAuthorizationFailed),
        (from_the_future, ErrorCode::InvalidTimestamp),
        (BatchOf::plain(1, 1_048_588), ErrorCode::MessageTooLarge),
    ] {
        let to = world.produce(-1, &[(0, batch)]);
        assert_eq!(errors(&world.produced(to).expect("refused at once")), [error]);
    }
    assert_eq!(world.write(0, BatchOf::plain(1, 10)), 0);
}

#[test]
fn versions_before_three_close_the_connection() {
    let mut world = World::new();
    let to = world.send_bytes(&[0, 0, 0, 2, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(world.replies[&to], Reply::Close(_)));
}

#[test]
fn unknown_partitions_and_partitions_led_elsewhere_are_told_apart() {
    let mut world = World::new();
    world.set_image(|image| {
        let topic = Arc::make_mut(image.topics.get_mut(TOPIC).unwrap());
        topic.partitions[2] = PartitionImage { leader: Some(2), epoch: LeaderEpoch(4), shard: ShardIndex(1) };
    });
    let batch = || BatchOf::plain(1, 10);
    let version = 12;
    let to = world.send(&produce_request(-1, &[(2, batch()), (3, batch())]), version);
    let response = world.answer::<ProduceRequest>(to, version).unwrap();
    let results = &response.responses[0].partition_responses;
    assert_eq!(errors(results), [ErrorCode::NotLeaderOrFollower, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!((results[0].current_leader.leader_id, results[0].current_leader.leader_epoch), (2, 4));
    assert_eq!((response.node_endpoints[0].node_id, response.node_endpoints[0].port), (2, 9093));
}

#[test]
fn topics_are_found_by_id_from_version_13() {
    let mut world = World::new();
    let mut request = produce_request(1, &[(0, BatchOf::plain(1, 10))]);
    request.topic_data[0].name = Default::default();
    for (id, error) in [(TOPIC_ID.0, ErrorCode::None), (Uuid::from_u128(99), ErrorCode::UnknownTopicId)] {
        request.topic_data[0].topic_id = id;
        let response = world.ask(&request, 13);
        assert_eq!(response.responses[0].partition_responses[0].error_code, error);
    }
}

#[test]
fn a_topic_that_keeps_append_time_stamps_batches_and_says_so() {
    let mut world = World::new();
    let settings = [("message.timestamp.type", "LogAppendTime"), ("max.message.bytes", "500")];
    world.set_image(|image| add_topic(image, TOPIC, TOPIC_ID, &settings));
    let to = world.produce(1, &[(0, BatchOf::plain(1, 10)), (0, BatchOf::plain(1, 500))]);
    let results = world.produced(to).unwrap();
    assert_eq!(errors(&results), [ErrorCode::None, ErrorCode::MessageTooLarge]);
    assert_eq!(results[0].log_append_time_ms, world.now.wall.0);
    world.commit();
    let bytes = world.read(&Ask::from(0)).records.unwrap().concat();
    let batch = Batches::new(&bytes).next().unwrap().unwrap();
    assert_eq!(batch.attributes().timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((batch.max_timestamp(), batch.crc()), (world.now.wall.0, batch.computed_crc()));
}

#[test]
fn small_batches_are_copied_together_and_large_ones_are_not() {
    let mut world = World::new();
    let large = BatchOf::plain(1, 64 * 1024);
    world.produce(1, &[(0, BatchOf::plain(1, 10)), (0, BatchOf::plain(1, 20)), (0, large.clone())]);
    world.produce(1, &[(1, BatchOf::plain(1, 30))]);
    let (seal, _) = world.seal().unwrap();
    assert_eq!(seal.entries[0].slices.len(), 2, "two small ones joined, a large one by itself");
    let all: usize = seal.entries.iter().flat_map(|entry| &entry.slices).map(Bytes::len).sum();
    assert_eq!(world.core.counters().copied_at_seal_bytes as usize, all - large.len());
    assert_eq!(world.core.counters().produced_bytes as usize, all);
}

#[test]
fn a_partition_with_a_backlog_of_many_seals_does_not_keep_others_waiting() {
    let mut world = World::new();
    for _ in 0..10 {
        world.produce(-1, &[(0, BatchOf::plain(1, 1_000_000))]);
    }
    let small = world.produce(-1, &[(1, BatchOf::plain(1, 10))]);
    for _ in 0..2 {
        let (seal, object) = world.seal().expect("a backlog");
        world.commit_sealed(&seal, object);
    }
    assert!(world.produced(small).is_some(), "in the second seal at the latest");
    assert!(world.core.take_seal(world.now).is_some(), "the backlog goes on");
}

#[test]
fn what_a_seal_copies_is_what_its_small_batches_take() {
    let mut world = World::new();
    let (small, large) = (BatchOf::plain(1, 100), BatchOf::plain(1, 100_000));
    world.produce(-1, &[(0, small.clone()), (1, large.clone())]);
    world.produce(-1, &[(0, large), (1, small.clone())]);
    world.commit();
    assert_eq!(world.core.counters().copied_at_seal_bytes, 2 * small.len() as u64);
}

#[test]
fn a_fence_of_all_partitions_leaves_nothing_charged_or_unsealed() {
    let mut world = World::new();
    let others = world.committed.clone();
    world.write(0, BatchOf::plain(1, 10));
    let waiting = world.produce(-1, &[(0, BatchOf::plain(1, 10)), (1, BatchOf::plain(1, 10))]);
    world.lane(ToShard::Fenced { generation: 1 });
    for result in world.produced(waiting).expect("ended") {
        assert_eq!(result.error_code, ErrorCode::NotLeaderOrFollower);
    }
    assert!(world.core.is_drained());
    for (partition, state) in others {
        world.acquire(partition, state.next_epoch());
    }
    world.write(1, BatchOf::plain(1, 10));
    world.core.shed_tail();
}

#[test]
fn a_small_batch_keeps_no_more_memory_than_a_piece() {
    let mut world = World::new();
    let batch = BatchOf::plain(1, 8_000);
    for round in 0..100 {
        world.produce(-1, &[(round % 2, batch.clone())]);
    }
    let (seal, object) = world.seal().expect("they wait");
    let slices = seal.entries.iter().flat_map(|entry| &entry.slices);
    assert!(slices.clone().all(|slice| slice.len() <= 64 * 1024));
    assert!(slices.count() <= 2 * (100 * batch.len() / (64 * 1024 - batch.len()) + 2), "few slices, for the upload");
    world.commit_sealed(&seal, object);
    assert_eq!(world.core.counters().copied_at_seal_bytes, 100 * batch.len() as u64);
    let read = world.read(&Ask::from(0));
    assert_eq!(bases(&read).len(), 50);
}

#[test]
fn a_producer_is_forgotten_only_once_no_client_retries_and_until_then_new_ones_are_refused() {
    let room_for_four = 4 * 2 * ProducerTable::BYTES_EACH;
    let mut world = World::with(|config| config.producer_bytes = room_for_four);
    for id in 0..4 {
        world.write(0, BatchOf::idempotent(1, id, 0));
    }
    let refused = world.produce(-1, &[(1, BatchOf::idempotent(1, 4, 0))]);
    assert_eq!(errors(&world.produced(refused).unwrap()), [ErrorCode::KafkaStorageError]);
    assert!(world.seal().is_none(), "nothing of it was appended");
    world.pass(10_000);
    assert_eq!(world.write(0, BatchOf::idempotent(1, 0, 1)), 4, "who is known goes on");
    world.pass(u64::try_from(SILENT_MS).unwrap() - 10_000);
    assert_eq!(world.write(1, BatchOf::idempotent(1, 4, 0)), 0);
    let forget = ToLane::ForgetProducers { partition: partition(0), epoch: LeaderEpoch(1), producers: vec![1] };
    assert_eq!(world.to_lane, [forget]);
    let known =
        |world: &World, id| world.core.logs[&partition(0)].appended.producers().get(id, world.now.wall).is_some();
    assert_eq!([0, 1, 2, 3].map(|id| known(&world, id)), [true, false, true, true]);
    let retry = world.produce(-1, &[(0, BatchOf::idempotent(1, 2, 0))]);
    assert_eq!(world.produced(retry).unwrap()[0].base_offset, 2, "a retry is still known as one");
}

#[test]
fn producers_of_partitions_that_are_lost_give_their_places_back() {
    let room_for_one = 2 * ProducerTable::BYTES_EACH;
    let mut world = World::with(|config| config.producer_bytes = room_for_one);
    world.write(0, BatchOf::idempotent(1, 1, 0));
    world.lane(ToShard::Revoked { partition: partition(0) });
    assert_eq!(world.write(1, BatchOf::idempotent(1, 2, 0)), 0);
}
