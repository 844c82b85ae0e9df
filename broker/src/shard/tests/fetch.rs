//! Fetch: limits, waiting, epochs, the tail and reads of write-ahead objects.

use super::*;
use crate::shard::events::Reply;

/// Bytes of `BatchOf::plain(1, 100)`.
fn batch_bytes() -> usize {
    BatchOf::plain(1, 100).len()
}

/// A partition with `count` committed batches of one record each, every one in its own object.
fn world_of(count: usize) -> World {
    let mut world = World::new();
    for _ in 0..count {
        world.write(0, BatchOf::plain(1, 100));
    }
    world
}

#[test]
fn batches_come_whole_from_the_one_that_holds_the_offset() {
    let mut world = World::new();
    world.write(0, BatchOf::plain(3, 10));
    world.write(0, BatchOf::plain(2, 10));
    let data = world.read(&Ask::from(1));
    assert_eq!(bases(&data), [0, 3]);
    assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (5, 5, 0));
    let bytes = data.records.unwrap().concat();
    assert_eq!(bytes[12..16], 1i32.to_be_bytes(), "with the leader epoch in them");
    assert_eq!(world.core.counters().store_reads, 0, "from the tail");
}

#[test]
fn nothing_is_readable_before_it_is_committed() {
    let mut world = World::new();
    world.produce(1, &[(0, BatchOf::plain(1, 10))]);
    let data = world.read(&Ask::from(0));
    assert_eq!((bases(&data), data.high_watermark), (vec![], 0));
    let between = world.read(&Ask::from(1));
    assert_eq!(between.error_code, ErrorCode::None, "between high watermark and log end a fetch waits");
    assert_eq!(world.read(&Ask::from(2)).error_code, ErrorCode::OffsetOutOfRange);
    assert_eq!(world.read(&Ask::from(-1)).error_code, ErrorCode::OffsetOutOfRange);
}

#[test]
fn a_parked_fetch_is_woken_by_the_watermark() {
    let mut world = World::new();
    let parked = world.fetch(&Ask { wait_ms: 500, ..Ask::from(0) });
    let produced = world.produce(-1, &[(0, BatchOf::plain(1, 10))]);
    assert!(world.fetched(parked).is_none());
    world.commit();
    assert_eq!(bases(&world.fetched(parked).unwrap()[0]), [0]);
    assert_eq!(world.order, [produced, parked]);
    assert_eq!(world.core.next_deadline(), None, "no deadline is left");
}

#[test]
fn a_parked_fetch_ends_empty_at_its_deadline() {
    let mut world = World::new();
    let parked = world.fetch(&Ask { wait_ms: 500, ..Ask::from(0) });
    world.pass(499);
    assert!(world.fetched(parked).is_none());
    world.pass(1);
    assert_eq!(bases(&world.fetched(parked).unwrap()[0]), [0; 0]);
}

#[test]
fn a_fetch_waits_until_there_are_as_many_bytes_as_it_wants() {
    let mut world = World::new();
    let parked = world.fetch(&Ask { wait_ms: 500, min_bytes: 2 * batch_bytes() as i32, ..Ask::from(0) });
    world.write(0, BatchOf::plain(1, 100));
    assert!(world.fetched(parked).is_none());
    world.write(0, BatchOf::plain(1, 100));
    assert_eq!(bases(&world.fetched(parked).unwrap()[0]), [0, 1]);
}

#[test]
fn nobody_waits_for_more_bytes_than_may_be_given() {
    let mut world = world_of(2);
    let bytes = batch_bytes() as i32;
    let ask = |min_bytes, max_bytes, offset| Ask { wait_ms: 500, min_bytes, max_bytes, ..Ask::from(offset) };
    // Whole batches leave, but a part of the next one counts.
    for (max_bytes, given) in [(2 * bytes, vec![0, 1]), (2 * bytes - 1, vec![0]), (bytes + 1, vec![0]), (1, vec![0])] {
        let full = world.fetch(&ask(1 << 20, max_bytes, 0));
        assert_eq!(bases(&world.fetched(full).unwrap()[0]), given, "{max_bytes}");
    }
    let parked = world.fetch(&ask(1 << 20, 2 * bytes + 1, 0));
    assert!(world.fetched(parked).is_none());
    let nothing = world.fetch(&ask(1, 0, 2));
    assert!(bases(&world.fetched(nothing).unwrap()[0]).is_empty());
}

#[test]
fn what_one_partition_may_give_counts_whole_though_batches_are_not_cut() {
    let mut world = world_of(2);
    let (bytes, limit) = (batch_bytes() as i32, batch_bytes() as i32 + 10);
    let ask = |min_bytes| Ask { wait_ms: 500, min_bytes, partitions: vec![(0, 0, limit)], ..Ask::from(0) };
    let enough = world.fetch(&ask(limit));
    assert_eq!(bases(&world.fetched(enough).unwrap()[0]), [0]);
    let parked = world.fetch(&ask(limit + 1));
    assert!(world.fetched(parked).is_none());
    assert!(limit < 2 * bytes, "one batch fits");
}

#[test]
fn what_is_in_memory_counts_for_a_fetch_that_begins_below_it() {
    let mut world = world_of(1);
    world.restart(|_| {});
    let min_bytes = 2 * batch_bytes() as i32;
    let parked = world.fetch(&Ask { wait_ms: 500, min_bytes, ..Ask::from(0) });
    assert_eq!(world.serve_reads(), 0, "one batch is stored, and none in memory");
    world.write(0, BatchOf::plain(1, 100));
    assert_eq!(world.serve_reads(), 1, "there are two");
    assert_eq!(bases(&world.fetched(parked).unwrap()[0]), [0]);
    let more = Ask { wait_ms: 500, min_bytes: min_bytes + 1, ..Ask::from(0) };
    let parked = world.fetch(&more);
    assert_eq!(world.serve_reads(), 0);
    world.pass(500);
    assert_eq!(world.serve_reads(), 1);
    assert!(world.fetched(parked).is_some());
}

#[test]
fn a_reply_queued_behind_a_parked_fetch_ends_it() {
    let mut world = World::new();
    let parked = world.fetch(&Ask { wait_ms: 500, ..Ask::from(0) });
    world.core.on_queued_behind(world.now, parked.connection, parked.request);
    world.collect();
    assert_eq!(bases(&world.fetched(parked).unwrap()[0]), [0; 0]);
}

#[test]
fn a_connection_that_goes_ends_its_parked_fetches_silently() {
    let mut world = World::new();
    let parked = world.fetch(&Ask { wait_ms: 500, ..Ask::from(0) });
    world.core.on_disconnect(world.now, parked.connection);
    world.collect();
    assert_eq!(world.replies[&parked], Reply::Silent);
    world.write(0, BatchOf::plain(1, 10));
    assert_eq!(world.core.next_deadline(), None);
}

#[test]
fn the_first_batch_fits_whatever_the_limits_and_the_others_only_within_them() {
    let mut world = world_of(3);
    let bytes = batch_bytes() as i32;
    let limited = |partition_max, max_bytes| Ask { partitions: vec![(0, 0, partition_max)], max_bytes, ..Ask::from(0) };
    assert_eq!(bases(&world.read(&limited(1, 1 << 20))), [0]);
    assert_eq!(bases(&world.read(&limited(1 << 20, 1))), [0]);
    assert_eq!(bases(&world.read(&limited(2 * bytes - 1, 1 << 20))), [0]);
    assert_eq!(bases(&world.read(&limited(2 * bytes, 1 << 20))), [0, 1]);
    assert_eq!(bases(&world.read(&limited(1 << 20, 2 * bytes))), [0, 1]);
}

#[test]
fn a_full_response_starts_with_another_partition_next_time() {
    let mut world = world_of(1);
    world.write(1, BatchOf::plain(1, 100));
    let ask = Ask { partitions: vec![(0, 0, 1 << 20), (1, 0, 1 << 20)], max_bytes: 1, ..Ask::from(0) };
    let mut served = Vec::new();
    for _ in 0..2 {
        let to = world.fetch(&ask);
        let partitions = world.fetched(to).unwrap();
        assert_eq!(partitions.iter().map(|data| data.partition_index).collect::<Vec<_>>(), [0, 1]);
        served.extend(partitions.iter().filter(|data| !bases(data).is_empty()).map(|data| data.partition_index));
    }
    served.sort_unstable();
    assert_eq!(served, [0, 1]);
}

#[test]
fn leader_epochs_are_checked() {
    let mut world = World::new();
    world.restart(|_| {});
    for (epoch, error) in [
        (-1, ErrorCode::None),
        (1, ErrorCode::FencedLeaderEpoch),
        (2, ErrorCode::None),
        (3, ErrorCode::UnknownLeaderEpoch),
    ] {
        assert_eq!(world.read(&Ask { epoch, ..Ask::from(0) }).error_code, error);
    }
    let elsewhere = Ask { partitions: vec![(2, 0, 100)], ..Ask::from(0) };
    assert_eq!(world.read(&elsewhere).error_code, ErrorCode::NotLeaderOrFollower);
}

#[test]
fn an_error_in_one_partition_answers_at_once_with_all() {
    let mut world = world_of(1);
    let ask = Ask { partitions: vec![(0, 0, 1 << 20), (2, 0, 100)], wait_ms: 500, min_bytes: 1 << 20, ..Ask::from(0) };
    let to = world.fetch(&ask);
    let partitions = world.fetched(to).unwrap();
    assert_eq!(bases(&partitions[0]), [0]);
    assert_eq!(partitions[1].error_code, ErrorCode::NotLeaderOrFollower);
}

#[test]
fn sessions_that_nobody_holds_are_not_found() {
    let mut world = World::new();
    for (session_id, session_epoch, error) in
        [(0, -1, ErrorCode::None), (0, 3, ErrorCode::FetchSessionIdNotFound), (5, 3, ErrorCode::FetchSessionIdNotFound)]
    {
        let request = FetchRequest { session_id, session_epoch, ..Ask::from(0).request() };
        let response = world.ask(&request, FETCH);
        assert_eq!((response.error_code, response.session_id), (error, 0));
    }
}

#[test]
fn of_a_partition_that_is_not_known_an_empty_list_of_transactions_comes_as_from_kafka() {
    let mut world = World::new();
    let mut request = Ask::from(0).request();
    request.topics[0].partitions[0].partition = 99;
    let response = world.ask(&request, FETCH);
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(partition.aborted_transactions, Some(Vec::new()));
}

#[test]
fn within_a_session_only_news_are_asked_for_and_answered() {
    let mut world = world_of(2);
    let full = FetchRequest { session_epoch: 0, ..Ask::from(0).request() };
    let first = world.ask(&full, FETCH);
    assert!(first.session_id > 0);
    assert_eq!(first.responses[0].partitions.len(), full.topics[0].partitions.len());
    let id = first.session_id;
    // The consumer read everything: it says so, and is told nothing until there is more.
    let moved = FetchRequest { session_id: id, session_epoch: 1, ..Ask::from(2).request() };
    let news = world.ask(&moved, FETCH);
    assert_eq!((news.error_code, news.session_id, news.responses.len()), (ErrorCode::None, id, 0));
    world.write(0, BatchOf::plain(1, 100));
    let nothing_changed = FetchRequest { session_epoch: 2, topics: Vec::new(), ..moved };
    let news = world.ask(&nothing_changed, FETCH);
    assert_eq!(bases(&news.responses[0].partitions[0]), [2]);
    let repeated = world.ask(&nothing_changed, FETCH);
    assert_eq!(repeated.error_code, ErrorCode::InvalidFetchSessionEpoch);
    // A full fetch closes it.
    let closing = FetchRequest { session_id: id, session_epoch: -1, ..Ask::from(0).request() };
    assert_eq!(world.ask(&closing, FETCH).session_id, 0);
    let gone = FetchRequest { session_epoch: 3, ..nothing_changed };
    assert_eq!(world.ask(&gone, FETCH).error_code, ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn after_a_restart_everything_is_read_through_references() {
    let mut world = world_of(20);
    world.restart(|_| {});
    let (mut next, mut fetches) = (0, 0);
    while next < 20 {
        let data = world.read(&Ask::from(next));
        assert_eq!(data.error_code, ErrorCode::None);
        let got = bases(&data);
        assert_eq!(got, (next..next + got.len() as i64).collect::<Vec<_>>());
        next += got.len() as i64;
        fetches += 1;
    }
    assert!(fetches <= 3, "several references a fetch: {fetches}");
    assert_eq!(world.write(0, BatchOf::plain(1, 100)), 20);
    assert_eq!(bases(&world.read(&Ask::from(20))), [20]);
}

#[test]
fn what_was_evicted_from_the_tail_is_read_from_its_object_at_any_offset() {
    let mut world = World::with(|config| config.tail_bytes = 0);
    world.produce(1, &[(0, BatchOf::plain(3, 100)), (0, BatchOf::plain(2, 100)), (1, BatchOf::plain(1, 9))]);
    world.produce(1, &[(0, BatchOf::plain(4, 100))]);
    world.commit();
    for (from, expected) in [(0, vec![0, 3, 5]), (2, vec![0, 3, 5]), (3, vec![3, 5]), (4, vec![3, 5]), (8, vec![5])] {
        assert_eq!(bases(&world.read(&Ask::from(from))), expected, "from {from}");
    }
    assert_eq!(bases(&world.read(&Ask { partitions: vec![(0, 2, 1)], ..Ask::from(0) })), [0]);
    assert_eq!(bases(&world.read(&Ask { partitions: vec![(1, 0, 1)], ..Ask::from(0) })), [0]);
}

#[test]
fn a_batch_larger_than_the_first_read_is_read_to_its_end() {
    let mut world = World::with(|config| config.tail_bytes = 0);
    let large = || BatchOf::plain(1, 900_000);
    world.produce(1, &[(0, large()), (0, large()), (0, large()), (0, large())]);
    world.commit();
    for from in 0..4 {
        let data = world.read(&Ask { partitions: vec![(0, from, 100)], ..Ask::from(0) });
        assert_eq!(bases(&data), [from], "its place was remembered, or searched");
    }
    world.restart(|_| {});
    assert_eq!(bases(&world.read(&Ask { partitions: vec![(0, 3, 100)], ..Ask::from(0) })), [3]);
}

#[test]
fn reads_wait_for_the_budget_and_all_are_answered() {
    let mut world = World::with(|config| (config.tail_bytes, config.read_bytes) = (0, 1));
    for _ in 0..3 {
        world.write(0, BatchOf::plain(1, 100));
    }
    let fetches: Vec<ReplyTo> = (0..3).map(|from| world.fetch(&Ask::from(from))).collect();
    assert!(world.reads.len() <= 3, "only the first one's");
    world.serve_reads();
    for (from, to) in fetches.into_iter().enumerate() {
        assert_eq!(bases(&world.fetched(to).unwrap()[0])[0], from as i64);
    }
}

#[test]
fn a_failed_read_is_a_storage_error_and_a_silent_store_is_given_up() {
    use millrace_storage::store_error::{FailureKind, StoreError};
    let mut world = World::with(|config| config.tail_bytes = 0);
    world.write(0, BatchOf::plain(1, 100));
    let failed = world.fetch(&Ask::from(0));
    let (token, ..) = world.reads.pop_front().unwrap();
    world.core.on_read(world.now, token, Err(StoreError::unknown(FailureKind::Timeout, "test")));
    world.collect();
    assert_eq!(world.fetched(failed).unwrap()[0].error_code, ErrorCode::KafkaStorageError);
    let silent = world.fetch(&Ask { wait_ms: 100, ..Ask::from(0) });
    world.pass(100);
    assert!(world.fetched(silent).is_none(), "a slow read must not end in an empty answer for ever");
    world.pass(10_000);
    assert_eq!(world.fetched(silent).unwrap()[0].error_code, ErrorCode::KafkaStorageError);
    world.serve_reads();
    assert_eq!(bases(&world.read(&Ask::from(0))), [0]);
}

#[test]
fn a_fetch_that_waits_for_two_partitions_gets_what_one_object_brings_to_both() {
    let mut world = World::new();
    let ask = Ask { partitions: vec![(0, 0, 1 << 20), (1, 0, 1 << 20)], wait_ms: 500, ..Ask::from(0) };
    let fetch = world.fetch(&ask);
    world.produce(-1, &[(0, BatchOf::plain(1, 10)), (1, BatchOf::plain(1, 10))]);
    world.commit();
    let fetched = world.fetched(fetch).expect("woken");
    assert_eq!(fetched.iter().map(bases).collect::<Vec<_>>(), [[0], [0]]);
}

#[test]
fn a_second_fetch_of_a_connection_ends_the_one_that_is_parked() {
    let mut world = World::new();
    let ask = Ask { wait_ms: 500, ..Ask::from(0) };
    let first = world.fetch(&ask);
    assert!(world.fetched(first).is_none());
    let second = world.fetch(&ask);
    assert!(world.fetched(first).is_some());
    assert!(world.fetched(second).is_none());
}

#[test]
fn a_store_that_never_answers_gathers_no_reads_without_end() {
    let mut world = World::with(|config| config.tail_bytes = 0);
    world.write(0, BatchOf::plain(1, 50_000));
    world.core.shed_tail();
    for _ in 0..100 {
        let fetch = world.fetch(&Ask::from(0));
        world.pass(11_000);
        assert_eq!(world.fetched(fetch).expect("in time")[0].error_code, ErrorCode::KafkaStorageError);
    }
    let under_way: u64 = world.reads.iter().map(|(.., range)| range.end - range.start).sum();
    assert!(under_way <= world.core.config().read_bytes as u64, "{under_way}");
    // It answers again, and so does the shard, without the reads that nobody waits for any more in between.
    let fetch = world.fetch(&Ask::from(0));
    world.serve_reads();
    assert_eq!(bases(&world.fetched(fetch).expect("answered")[0]), [0]);
}
