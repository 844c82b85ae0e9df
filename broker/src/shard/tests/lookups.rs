//! ListOffsets by timestamp: every answer is that of a plain scan.

use super::segments::Change;
use super::*;
use crate::cold::reader::ColdError;
use crate::shard::lookups::{UNDER_WAY, WAITING};
use crate::shard::search::{SearchError, Searched};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use millrace_protocol::records::Compression;
use proptest::prelude::*;

const LIST: i16 = 11;
const MAX_TIMESTAMP: i64 = -3;

/// What a scan finds, or what was answered: offset, timestamp, leader epoch.
type Told = (i64, i64, i32);
const NOTHING: Told = (-1, -1, -1);

fn listing(asked: &[(i32, i64)]) -> ListOffsetsRequest {
    let partitions = asked.iter().map(|&(partition_index, timestamp)| ListOffsetsPartition {
        partition_index,
        timestamp,
        ..Default::default()
    });
    let topic = ListOffsetsTopic { name: TOPIC.into(), partitions: partitions.collect() };
    ListOffsetsRequest { replica_id: -1, topics: vec![topic], timeout_ms: 5_000, ..Default::default() }
}

fn told(response: &ListOffsetsResponse) -> Vec<(ErrorCode, Told)> {
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|each| (each.error_code, (each.offset, each.timestamp, each.leader_epoch))).collect()
}

impl World {
    /// What a search under way finds.
    fn search(&self, source: &Source, seek: Seek) -> Result<Searched, SearchError> {
        match source {
            Source::Memory(bytes) => seek.search(0, bytes),
            Source::Object { wid, seq, range } => {
                let object = self.objects.get(&(*wid, *seq)).ok_or(SearchError::Missing)?;
                seek.search(range.start, &object[range.start as usize..range.end as usize])
            }
            Source::Segment { .. } => self.segments.search(source, seek),
        }
    }

    /// Answers the search that is under way for longest. False if there is none.
    fn serve_search(&mut self) -> bool {
        let Some((token, source, seek)) = self.searches.pop_front() else { return false };
        let result = self.search(&source, seek);
        self.core.on_searched(self.now, token, result);
        self.collect();
        true
    }

    /// Answers the searches under way until there are none, and says how many those were.
    fn serve_searches(&mut self) -> usize {
        let mut served = 0;
        loop {
            if self.serve_search() {
                served += 1;
            } else if !self.serve_find() {
                return served;
            }
        }
    }

    fn look_up(&mut self, timestamp: i64) -> (ErrorCode, Told) {
        self.look_up_amid(timestamp, &mut std::iter::empty())
    }

    /// The same while `changes` happen, one before each step of the lookup.
    fn look_up_amid(&mut self, timestamp: i64, changes: &mut dyn Iterator<Item = Change>) -> (ErrorCode, Told) {
        let to = self.send(&listing(&[(0, timestamp)]), LIST);
        loop {
            if let Some(change) = changes.next() {
                self.change(&change);
            }
            if !self.serve_search() && !self.serve_find() {
                return told(&self.answer::<ListOffsetsRequest>(to, LIST).expect("answered"))[0];
            }
        }
    }

    /// Bytes charged and places taken are given back.
    fn assert_idle(&self) {
        assert_eq!(self.core.lookup_bytes(), 0);
        assert_eq!(self.core.lookups.room(), WAITING);
        assert_eq!(self.core.next_deadline(), None);
    }
}

/// A batch with records of these timestamps.
fn batch_at(codec: Compression, times: &[i64], size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(times[0]).compressed(codec);
    times.iter().for_each(|&time| builder.push_record(time, None, Some(&vec![b'v'; size]), &[]));
    builder.finish().into()
}

/// The log as a plain list.
#[derive(Default)]
struct Plain {
    records: Vec<Told>,
    start: i64,
}

impl Plain {
    fn since(&self, timestamp: i64) -> Told {
        self.readable().find(|record| record.1 >= timestamp).unwrap_or(NOTHING)
    }

    fn newest(&self) -> Told {
        let newest = self.readable().map(|record| record.1).max();
        self.readable().find(|record| Some(record.1) == newest).unwrap_or(NOTHING)
    }

    fn readable(&self) -> impl Iterator<Item = Told> {
        self.records.iter().copied().filter(|record| record.0 >= self.start)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Append a batch.
    Write(usize, Vec<i64>),
    /// Make everything appended durable.
    Commit,
    /// The log starts at this part of its length.
    Start(prop::sample::Index),
    /// A new leadership, with or without a tail from now on.
    Restart(bool),
    /// Something happens to its segments.
    Segments(Change),
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (1..4usize, any::<bool>()).prop_map(|(count, told)| Change::Roll(count, told)),
        2 => (0..4usize, 2..5usize).prop_map(|(at, count)| Change::Merge(at, count)),
        1 => Just(Change::Expire),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let times = prop::collection::vec(-1..60i64, 1..7);
    let step = prop_oneof![
        8 => (0..5usize, times).prop_map(|(codec, times)| Step::Write(codec, times)),
        4 => Just(Step::Commit),
        1 => any::<prop::sample::Index>().prop_map(Step::Start),
        1 => any::<bool>().prop_map(Step::Restart),
        4 => changes().prop_map(Step::Segments),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a successor writes: batches, and of how many segments from which one on it makes one.
type Beyond = Vec<(Vec<i64>, usize, usize)>;

fn beyond() -> impl Strategy<Value = Beyond> {
    prop::collection::vec((prop::collection::vec(-1..60i64, 1..4), 0..6usize, 2..4usize), 1..5)
}

impl World {
    /// A successor writes on, rolls all of it and merges, of which the leader hears nothing.
    fn replace(&mut self, beyond: &Beyond) {
        let replaced = self.committed[&partition(0)].next_epoch();
        for (times, at, count) in beyond {
            self.write(0, batch_at(Compression::None, times, 30));
            self.change(&Change::Roll(usize::MAX, false));
            self.change(&Change::Merge(*at, *count));
        }
        self.acquire(partition(0), replaced);
    }
}

proptest! {
    #[test]
    fn at_every_timestamp_of_a_fuzzed_log_the_answer_is_that_of_a_scan(
        steps in steps(),
        beyond in prop::option::of(beyond()),
        meanwhile in prop::collection::vec(prop::option::of(changes()), 0..30),
    ) {
        let is_replaced = beyond.is_some();
        let mut world = World::new();
        let (mut plain, mut appended, mut epoch) = (Plain::default(), Vec::new(), 1);
        for step in steps {
            match step {
                Step::Write(codec, times) => {
                    world.produce(1, &[(0, batch_at(Compression::ALL[codec], &times, 30))]);
                    for time in times {
                        appended.push(((plain.records.len() + appended.len()) as i64, time, epoch));
                    }
                }
                Step::Commit => {
                    world.commit();
                    plain.records.append(&mut appended);
                }
                Step::Start(part) => {
                    let start = part.index(plain.records.len() + 1) as i64;
                    world.raise_log_start(start);
                    plain.start = plain.start.max(start);
                }
                Step::Restart(tail) => {
                    // What was not committed is gone with the old leader.
                    appended.clear();
                    epoch += 1;
                    world.restart(|config| config.tail_bytes = if tail { 1 << 20 } else { 0 });
                }
                Step::Segments(change) => world.change(&change),
            }
        }
        if let Some(beyond) = beyond {
            world.restart(|_| {});
            world.replace(&beyond);
        }
        for timestamp in 0..61 {
            prop_assert_eq!(world.look_up(timestamp), (ErrorCode::None, plain.since(timestamp)), "at {}", timestamp);
        }
        prop_assert_eq!(world.look_up(MAX_TIMESTAMP), (ErrorCode::None, plain.newest()));
        let meanwhile = meanwhile.into_iter().map(|change| match change {
            // Who was replaced is told nothing of what its successor rolls.
            Some(Change::Roll(..)) if is_replaced => Change::Expire,
            change => change.unwrap_or(Change::Expire),
        });
        let meanwhile = &mut meanwhile.collect::<Vec<_>>().into_iter().cycle().take(1_000);
        for timestamp in (0..61).step_by(7) {
            let found = world.look_up_amid(timestamp, meanwhile);
            prop_assert_eq!(found, (ErrorCode::None, plain.since(timestamp)), "at {}, amid changes", timestamp);
            let newest = world.look_up_amid(MAX_TIMESTAMP, meanwhile);
            prop_assert_eq!(newest, (ErrorCode::None, plain.newest()), "amid changes");
        }
        world.assert_idle();
    }
}

#[test]
fn entries_larger_than_a_window_are_searched_to_their_end() {
    let mut world = World::with(|config| config.tail_bytes = 0);
    // One object of 2.6 MB, the newest record in its middle; a batch is larger than a window.
    let sizes = [150_000, 200_000, 450_000, 350_000, 150_000];
    for (at, size) in sizes.into_iter().enumerate() {
        let time = if at == 2 { 90 } else { 10 * at as i64 };
        world.produce(1, &[(0, batch_at(Compression::None, &[time, time + 1], size))]);
    }
    world.commit();
    for (timestamp, expected) in [(0, (0, 0)), (11, (3, 11)), (12, (4, 90)), (91, (5, 91)), (92, (-1, -1))] {
        let (error, (offset, found, _)) = world.look_up(timestamp);
        assert_eq!((error, (offset, found)), (ErrorCode::None, expected), "{timestamp}");
    }
    assert_eq!(world.look_up(MAX_TIMESTAMP), (ErrorCode::None, (5, 91, 1)));
    world.assert_idle();
}

#[test]
fn records_of_a_log_append_time_topic_have_the_time_of_their_batch() {
    let mut world = World::new();
    let settings = &[("message.timestamp.type", "LogAppendTime")];
    world.set_image(|image| add_topic(image, TOPIC, TOPIC_ID, settings));
    let times: Vec<i64> = (0..3)
        .map(|_| {
            world.pass(10);
            world.write(0, batch_at(Compression::Gzip, &[5, 900, 7], 30));
            world.now.wall.0
        })
        .collect();
    assert_eq!(world.look_up(0), (ErrorCode::None, (0, times[0], 1)));
    assert_eq!(world.look_up(times[0] + 1), (ErrorCode::None, (3, times[1], 1)));
    assert_eq!(world.look_up(MAX_TIMESTAMP), (ErrorCode::None, (6, times[2], 1)));
    world.raise_log_start(8);
    assert_eq!(world.look_up(0), (ErrorCode::None, (8, times[2], 1)), "in the middle of a batch");
    assert_eq!(world.look_up(MAX_TIMESTAMP), (ErrorCode::None, (8, times[2], 1)));
}

#[test]
fn a_lookup_of_the_newest_entry_opens_one_batch_however_long_the_log_is() {
    let mut world = World::with(|config| config.tail_bytes = 0);
    for time in 0..300 {
        world.write(0, batch_at(Compression::None, &[time], 10));
    }
    for timestamp in [150, MAX_TIMESTAMP] {
        let to = world.send(&listing(&[(0, timestamp)]), LIST);
        assert_eq!(world.serve_searches(), 1);
        assert!(world.answer::<ListOffsetsRequest>(to, LIST).is_some());
    }
}

#[test]
fn what_is_not_found_in_time_is_told_so_and_keeps_its_charge_until_its_search_ends() {
    let mut world = World::new();
    world.write(0, batch_at(Compression::None, &[1], 10));
    let to = world.send(&listing(&[(0, 0), (1, 0)]), LIST);
    world.pass(4_999);
    assert!(world.answer::<ListOffsetsRequest>(to, LIST).is_none());
    world.pass(1);
    let answer = told(&world.answer::<ListOffsetsRequest>(to, LIST).unwrap());
    let errors: Vec<ErrorCode> = answer.iter().map(|each| each.0).collect();
    assert_eq!(errors, [ErrorCode::RequestTimedOut, ErrorCode::None]);
    assert!(world.core.lookup_bytes() > 0);
    world.serve_searches();
    world.assert_idle();
}

#[test]
fn a_partition_that_is_named_twice_is_told_once_that_this_is_wrong_and_nothing_is_looked_up() {
    let mut world = World::new();
    world.write(0, batch_at(Compression::None, &[1], 10));
    let mut request = listing(&[(0, 0), (1, -1), (0, -1)]);
    request.topics.push(ListOffsetsTopic { name: "nowhere".into(), partitions: Vec::new() });
    request.topics.push(listing(&[(1, 0), (1, 0)]).topics.remove(0));
    let response = world.ask(&request, LIST);
    assert_eq!(response.topics.len(), 1);
    assert_eq!(told(&response), [(ErrorCode::InvalidRequest, NOTHING); 2]);
}

#[test]
fn lookups_wait_for_their_turn_and_for_bytes_and_their_number_is_bounded() {
    let mut world = World::new();
    world.write(0, batch_at(Compression::None, &[1], 1_000));
    let asked: Vec<ReplyTo> = (0..WAITING + UNDER_WAY).map(|_| world.send(&listing(&[(0, 0)]), LIST)).collect();
    assert_eq!((world.searches.len(), world.core.lookups.room()), (UNDER_WAY, 0));
    for (version, busy) in [(4, ErrorCode::LeaderNotAvailable), (5, ErrorCode::OffsetNotAvailable)] {
        assert_eq!(told(&world.ask(&listing(&[(0, 0)]), version))[0].0, busy);
    }
    assert_eq!(world.serve_searches(), asked.len());
    for to in asked {
        assert_eq!(told(&world.answer::<ListOffsetsRequest>(to, LIST).unwrap())[0].1, (0, 1, 1));
    }
    world.assert_idle();
    world.restart(|config| config.lookup_bytes = 1);
    for _ in 0..3 {
        world.send(&listing(&[(0, 0)]), LIST);
    }
    assert_eq!(world.searches.len(), 1, "a single one may exceed the budget");
    assert_eq!(world.serve_searches(), 3);
    world.assert_idle();
}

#[test]
fn a_lookup_ends_with_its_connection_or_its_leadership() {
    let mut world = World::new();
    for index in 0..2 {
        world.write(index, batch_at(Compression::None, &[1], 10));
    }
    let moved = world.send(&listing(&[(0, 0), (1, 0)]), LIST);
    world.lane(ToShard::Revoked { partition: partition(1) });
    world.serve_searches();
    let answer = told(&world.answer::<ListOffsetsRequest>(moved, LIST).unwrap());
    // What was found before the leadership ended stands.
    assert_eq!(answer[0], (ErrorCode::None, (0, 1, 1)));
    assert_eq!(answer[1].0, ErrorCode::NotLeaderOrFollower);
    let gone = world.send(&listing(&[(0, 0)]), LIST);
    world.core.on_disconnect(world.now, ConnectionId(1));
    world.collect();
    assert_eq!(world.replies[&gone], Reply::Silent);
    world.serve_searches();
    world.assert_idle();
}

#[test]
fn objects_that_are_gone_are_passed_over_only_if_the_log_start_has_passed_them_too() {
    let mut world = World::with(|config| config.tail_bytes = 0);
    for time in [90, 50] {
        world.write(0, batch_at(Compression::None, &[time], 10));
    }
    let lost = world.objects.remove(&(world.wid, Seq(0))).unwrap();
    assert_eq!(world.look_up(0).0, ErrorCode::KafkaStorageError);
    for (timestamp, expected) in [(0, (1, 50, 1)), (MAX_TIMESTAMP, (1, 50, 1)), (80, NOTHING)] {
        let to = world.send(&listing(&[(0, timestamp)]), LIST);
        world.raise_log_start(1);
        world.serve_searches();
        assert_eq!(told(&world.answer::<ListOffsetsRequest>(to, LIST).unwrap())[0], (ErrorCode::None, expected));
    }
    // Found, but not there any more when it is to be told.
    let mut world = World::with(|config| config.tail_bytes = 0);
    for time in [90, 50] {
        world.write(0, batch_at(Compression::None, &[time], 10));
    }
    world.objects.insert((world.wid, Seq(0)), lost);
    let to = world.send(&listing(&[(0, MAX_TIMESTAMP)]), LIST);
    let (token, source, seek) = world.searches.pop_front().unwrap();
    let found = world.search(&source, seek);
    world.raise_log_start(1);
    world.core.on_searched(world.now, token, found);
    world.collect();
    world.serve_searches();
    assert_eq!(told(&world.answer::<ListOffsetsRequest>(to, LIST).unwrap())[0], (ErrorCode::None, (1, 50, 1)));
}

#[test]
fn a_batch_whose_records_cannot_be_read_is_an_error_for_lookups_that_need_it() {
    let mut world = World::new();
    world.write(0, batch_at(Compression::None, &[10], 10));
    let mut broken = BatchBuilder::new(20).attributes(Compression::Gzip.attribute());
    broken.push(None, Some(b"no gzip"));
    world.write(0, broken.finish().into());
    assert_eq!(world.look_up(5), (ErrorCode::None, (0, 10, 1)));
    assert_eq!(world.look_up(11).0, ErrorCode::CorruptMessage);
    assert_eq!(world.look_up(MAX_TIMESTAMP).0, ErrorCode::CorruptMessage);
    assert_eq!(world.look_up(21), (ErrorCode::None, NOTHING));
    world.assert_idle();
}

/// A log of so many batches of one record in segments of `each`, without a tail.
fn world_in_segments(batches: i64, each: usize) -> World {
    let mut world = World::with(|config| config.tail_bytes = 0);
    for time in 0..batches {
        world.write(0, batch_at(Compression::None, &[10 * time], 10));
    }
    for _ in 0..batches as usize / each {
        world.change(&Change::Roll(each, true));
    }
    world
}

#[test]
fn a_lookup_in_segments_reads_one_manifest_and_opens_one_segment_however_many_there_are() {
    let mut world = world_in_segments(300, 3);
    for timestamp in [1_495, MAX_TIMESTAMP] {
        let to = world.send(&listing(&[(0, timestamp)]), LIST);
        assert!(world.serve_find());
        assert_eq!(world.serve_searches(), 1);
        assert!(world.answer::<ListOffsetsRequest>(to, LIST).is_some());
    }
    world.assert_idle();
}

#[test]
fn a_segment_that_is_replaced_is_looked_for_once_more_and_one_that_is_missing_is_an_error() {
    let mut world = world_in_segments(9, 3);
    assert_eq!(world.look_up(40), (ErrorCode::None, (4, 40, 1)));
    world.change(&Change::Merge(0, 3));
    assert_eq!(world.look_up(50), (ErrorCode::None, (5, 50, 1)), "with the cached manifest first");
    world.segments.lose();
    for timestamp in [50, MAX_TIMESTAMP] {
        assert_eq!(world.look_up(timestamp).0, ErrorCode::KafkaStorageError);
    }
    world.assert_idle();
}

#[test]
fn a_manifest_that_does_not_reach_the_references_is_an_error_and_one_that_can_not_be_read_too() {
    let mut world = world_in_segments(3, 3);
    for result in [Ok(Manifest::empty(partition(0))), Err(ColdError::Missing("test".into()))] {
        let to = world.send(&listing(&[(0, 10)]), LIST);
        while let Some((token, _)) = world.finds.pop_front() {
            world.core.on_segments(world.now, token, result.clone().map(Rc::new));
            world.collect();
        }
        let answer = told(&world.answer::<ListOffsetsRequest>(to, LIST).unwrap());
        assert_eq!(answer[0].0, ErrorCode::KafkaStorageError);
    }
    world.assert_idle();
}

#[test]
fn what_a_successor_put_into_segments_beyond_the_high_watermark_is_not_found() {
    let mut world = world_in_segments(2, 2);
    world.replace(&vec![(vec![90], 0, 2)]);
    for (timestamp, expected) in [(10, (1, 10, 1)), (11, NOTHING), (MAX_TIMESTAMP, (1, 10, 1))] {
        assert_eq!(world.look_up(timestamp), (ErrorCode::None, expected), "{timestamp}");
    }
    world.assert_idle();
}

#[test]
fn of_the_newest_records_the_first_is_found_though_a_segment_with_a_successors_newer_one_is_searched_before() {
    let mut world = World::with(|config| config.tail_bytes = 0);
    for (time, rolled) in [(10, 0), (100, 2), (100, 1)] {
        world.write(0, batch_at(Compression::None, &[time], 10));
        world.change(&Change::Roll(rolled, rolled > 0));
    }
    world.replace(&vec![(vec![200], 1, 2)]);
    assert_eq!(world.look_up(MAX_TIMESTAMP), (ErrorCode::None, (1, 100, 1)));
    world.assert_idle();
}
