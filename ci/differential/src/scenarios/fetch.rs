//! Fetch: offsets, bounds, epochs, sessions.

use super::batch;
use crate::names::unknown_id;
use crate::pair::{Pair, Side};
use bytes::Bytes;
use millrace_protocol::RecordSet;
use millrace_protocol::messages::fetch::{
    FetchPartition, FetchTopic, FetchableTopicResponse, ForgottenTopic, ReplicaState,
};
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest};
use std::io;
use std::ops::Range;
use uuid::Uuid;

/// The leader epoch in a batch header, which the broker sets.
const LEADER_EPOCH: Range<usize> = 12..16;
/// Length of a batch, and what comes before it.
const LENGTH: Range<usize> = 8..12;

/// A topic with ten batches of two records in partition 0 and nothing in partition 1.
const TOPIC: &str = "fetched";
const BATCHES: i64 = 10;
const END: i64 = 2 * BATCHES;

/// From this version on topics are named by id.
const TOPIC_IDS: i16 = 13;
/// From this version on there are sessions.
const SESSIONS: i16 = 7;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    fill(pair, TOPIC, BATCHES)?;
    offsets(pair)?;
    nil_ids(pair)?;
    bounds(pair)?;
    waits(pair)?;
    places(pair)?;
    sessions(pair)?;
    incremental(pair)
}

/// Makes a topic of two partitions with that many batches of two records in the first.
pub(crate) fn fill(pair: &mut Pair, topic: &str, batches: i64) -> io::Result<()> {
    pair.make_topic(topic, 2)?;
    for at in 0..batches {
        pair.ask("for fetches", 9, |side| {
            let partition_data = vec![PartitionProduceData { index: 0, records: Some(batch(side.started_ms + at, 2)) }];
            let topic = TopicProduceData { name: side.name(topic), partition_data, ..Default::default() };
            ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() }
        })?;
    }
    Ok(())
}

fn topic_of(side: &Side, version: i16, topic: &str, partitions: Vec<FetchPartition>) -> FetchTopic {
    if version >= TOPIC_IDS {
        FetchTopic { topic_id: side.id(topic), partitions, ..Default::default() }
    } else {
        FetchTopic { topic: side.name(topic), partitions, ..Default::default() }
    }
}

/// A fetch of one partition that does not wait.
pub(super) fn request(side: &Side, version: i16, topic: &str, partition: FetchPartition) -> FetchRequest {
    FetchRequest {
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![topic_of(side, version, topic, vec![partition])],
        ..Default::default()
    }
}

pub(super) fn from(fetch_offset: i64) -> FetchPartition {
    FetchPartition { fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() }
}

/// Sends a fetch in every version and compares the records but for their leader epochs.
pub(super) fn every(pair: &mut Pair, case: &str, make: impl Fn(&Side, i16) -> FetchRequest) -> io::Result<()> {
    for version in crate::pair::versions::<FetchRequest>() {
        pair.ask_and_clean(case, version, |side| make(side, version), without_epochs)?;
    }
    Ok(())
}

/// Puts the partitions of each topic together: Kafka tells of a topic again where its partitions come in several ways, and
/// clients look at each partition alone.
pub(crate) fn gathered(response: &mut FetchResponse) {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for mut topic in std::mem::take(&mut response.responses) {
        let same = |known: &&mut FetchableTopicResponse| known.topic == topic.topic && known.topic_id == topic.topic_id;
        match topics.iter_mut().find(same) {
            Some(known) => known.partitions.append(&mut topic.partitions),
            None => topics.push(topic),
        }
    }
    response.responses = topics;
}

/// Sets the leader epoch of every batch to 0, and puts partitions of a topic together.
pub(crate) fn without_epochs(response: &mut FetchResponse) {
    gathered(response);
    for partition in response.responses.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let Some(records) = &partition.records else { continue };
        let mut bytes = records.concat().to_vec();
        let mut at = 0;
        while at + LEADER_EPOCH.end <= bytes.len() {
            bytes[at..][LEADER_EPOCH].fill(0);
            let length = bytes[at..][LENGTH].try_into().map(i32::from_be_bytes).expect("four bytes");
            at += LENGTH.end + usize::try_from(length).unwrap_or(bytes.len());
        }
        partition.records = Some(RecordSet::from(Bytes::from(bytes)));
    }
}

fn offsets(pair: &mut Pair) -> io::Result<()> {
    for offset in [0, 1, 7, END - 1, END, END + 1, -1, -2, i64::MAX, i64::MIN] {
        every(pair, &format!("offset {offset}"), |side, version| request(side, version, TOPIC, from(offset)))?;
    }
    every(pair, "an empty partition", |side, version| {
        request(side, version, TOPIC, FetchPartition { partition: 1, ..from(0) })
    })?;
    // The epoch is the side's own; older than Kafka's first there is none.
    for (case, above) in [("the leader epoch", 0), ("a later leader epoch", 1), ("a much later leader epoch", 100)] {
        every(pair, case, |side, version| {
            let epoch = if version >= 9 { side.epoch + above } else { -1 };
            request(side, version, TOPIC, FetchPartition { current_leader_epoch: epoch, ..from(0) })
        })?;
    }
    for (case, epoch) in [("no last fetched epoch", -1), ("a last fetched epoch", 0)] {
        every(pair, case, |side, version| {
            let epoch = if version >= 12 && epoch >= 0 { side.epoch } else { -1 };
            request(side, version, TOPIC, FetchPartition { last_fetched_epoch: epoch, ..from(2) })
        })?;
    }
    Ok(())
}

/// Topics that nobody names, alone and beside one that is there.
fn nil_ids(pair: &mut Pair) -> io::Result<()> {
    let of = |topic_id, partition| FetchTopic {
        topic_id,
        partitions: vec![FetchPartition { partition, ..from(0) }],
        ..Default::default()
    };
    for (case, session_epoch) in [("without a session", -1), ("with a new session", 0)] {
        for version in crate::pair::versions::<FetchRequest>().filter(|version| *version >= TOPIC_IDS) {
            let ask = |pair: &mut Pair, what: &str, topics: &dyn Fn(&Side) -> Vec<FetchTopic>| {
                let request = |side: &Side| FetchRequest {
                    min_bytes: 1,
                    max_bytes: 1 << 20,
                    session_epoch,
                    topics: topics(side),
                    ..Default::default()
                };
                pair.ask_and_clean(&format!("{what} {case}"), version, request, without_epochs)
            };
            ask(pair, "a nil id", &|_| vec![of(Uuid::nil(), 0)])?;
            ask(pair, "a nil id with a negative partition", &|_| vec![of(Uuid::nil(), -1)])?;
            ask(pair, "a nil id beside a topic", &|side| vec![of(Uuid::nil(), 0), of(side.id(TOPIC), 0)])?;
            ask(pair, "an unknown id beside a topic", &|side| vec![of(unknown_id(), 0), of(side.id(TOPIC), 0)])?;
            ask(pair, "a nil and an unknown id", &|_| vec![of(Uuid::nil(), 0), of(unknown_id(), 0)])?;
        }
    }
    Ok(())
}

fn bounds(pair: &mut Pair) -> io::Result<()> {
    for bytes in [i32::MAX, 100, 1, 0, -1, i32::MIN] {
        every(pair, &format!("max bytes {bytes}"), |side, version| FetchRequest {
            max_bytes: bytes,
            ..request(side, version, TOPIC, from(0))
        })?;
        every(pair, &format!("partition max bytes {bytes}"), |side, version| {
            request(side, version, TOPIC, FetchPartition { partition_max_bytes: bytes, ..from(0) })
        })?;
    }
    for (min_bytes, max_wait_ms) in [(0, 0), (0, 100), (-1, -1), (1, -1), (1 << 20, 20), (i32::MAX, 20)] {
        every(pair, &format!("min bytes {min_bytes}, wait {max_wait_ms}"), |side, version| FetchRequest {
            min_bytes,
            max_wait_ms,
            ..request(side, version, TOPIC, from(0))
        })?;
        every(pair, &format!("at the end, min bytes {min_bytes}, wait {max_wait_ms}"), |side, version| FetchRequest {
            min_bytes,
            max_wait_ms,
            ..request(side, version, TOPIC, from(END))
        })?;
    }
    for isolation_level in [1, 2, -1] {
        every(pair, &format!("isolation level {isolation_level}"), |side, version| FetchRequest {
            isolation_level,
            ..request(side, version, TOPIC, from(3))
        })?;
    }
    Ok(())
}

/// Whether a fetch waits for more than there is.
fn waits(pair: &mut Pair) -> io::Result<()> {
    const WAIT_MS: i32 = 1_000;
    // What the first partition holds is less than a kilobyte.
    let cases = [
        ("as much as there may be", 1 << 20, 1 << 20, 1 << 20),
        ("more than the response may hold", 1 << 20, 100, 1 << 20),
        ("more than a little larger response may hold", 1 << 20, 2_000, 1 << 20),
        ("something of an empty response", 1, 0, 1 << 20),
        ("more than a partition may give", 500, 1 << 20, 100),
        ("what a partition may give", 500, 1 << 20, 500),
        ("something", 1, 1 << 20, 1 << 20),
        ("nothing", 0, 1 << 20, 1 << 20),
    ];
    for (case, min_bytes, max_bytes, partition_max_bytes) in cases {
        for (offset, at) in [(0, "the start"), (END, "the end")] {
            let asked = |side: &Side| FetchRequest {
                min_bytes,
                max_bytes,
                max_wait_ms: WAIT_MS,
                ..request(side, 12, TOPIC, FetchPartition { partition_max_bytes, ..from(offset) })
            };
            pair.ask_in_time(&format!("wants {case} from {at}"), 12, asked, WAIT_MS as u64 / 2)?;
        }
    }
    Ok(())
}

fn places(pair: &mut Pair) -> io::Result<()> {
    every(pair, "an unknown topic", |side, version| request(side, version, "nowhere", from(0)))?;
    every(pair, "an illegal name", |side, version| request(side, version, "a/b", from(0)))?;
    for partition in [2, 1_000, -1] {
        every(pair, &format!("partition {partition}"), |side, version| {
            request(side, version, TOPIC, FetchPartition { partition, ..from(0) })
        })?;
    }
    every(pair, "no topic", |_, _| FetchRequest { min_bytes: 1, ..Default::default() })?;
    every(pair, "an empty name or id", |_, _| FetchRequest {
        topics: vec![FetchTopic { partitions: vec![from(0)], ..Default::default() }],
        ..Default::default()
    })?;
    every(pair, "a topic without partitions", |side, version| FetchRequest {
        topics: vec![topic_of(side, version, TOPIC, Vec::new())],
        ..Default::default()
    })?;
    every(pair, "a partition twice", |side, version| FetchRequest {
        topics: vec![topic_of(side, version, TOPIC, vec![from(0), from(4)])],
        ..request(side, version, TOPIC, from(0))
    })?;
    every(pair, "a topic twice", |side, version| {
        let second = FetchPartition { partition: 1, ..from(0) };
        let topics = vec![topic_of(side, version, TOPIC, vec![from(0)]), topic_of(side, version, TOPIC, vec![second])];
        FetchRequest { topics, ..request(side, version, TOPIC, from(0)) }
    })?;
    every(pair, "good and bad partitions", |side, version| {
        let bad = FetchPartition { partition: 9, ..from(0) };
        let beyond = FetchPartition { partition: 1, ..from(9) };
        let known = topic_of(side, version, TOPIC, vec![from(0), bad, beyond]);
        FetchRequest {
            max_wait_ms: 100,
            topics: vec![known, topic_of(side, version, "nowhere", vec![from(0)])],
            ..request(side, version, TOPIC, from(0))
        }
    })
}

fn sessions(pair: &mut Pair) -> io::Result<()> {
    for (session_id, session_epoch) in
        [(0, 0), (0, -1), (0, 1), (0, -2), (77, 0), (77, 1), (77, -1), (77, -2), (-1, 0), (-1, 5)]
    {
        every(pair, &format!("session {session_id} epoch {session_epoch}"), |side, version| FetchRequest {
            session_id: if version >= 7 { session_id } else { 0 },
            session_epoch: if version >= 7 { session_epoch } else { -1 },
            ..request(side, version, TOPIC, from(0))
        })?;
    }
    every(pair, "a forgotten topic", |side, version| {
        let topic = topic_of(side, version, TOPIC, Vec::new());
        let forgotten = ForgottenTopic { topic: topic.topic, topic_id: topic.topic_id, partitions: vec![1] };
        let forgotten_topics_data = if version >= 7 { vec![forgotten] } else { Vec::new() };
        FetchRequest { forgotten_topics_data, ..request(side, version, TOPIC, from(0)) }
    })?;
    // A debugging consumer (-2) reads as a consumer does.
    every(pair, "replica -2", |side, version| {
        let mut request = request(side, version, TOPIC, from(0));
        if version >= 15 {
            request.replica_state = ReplicaState { replica_id: -2, replica_epoch: -1 };
        } else {
            request.replica_id = -2;
        }
        request
    })?;
    every(pair, "a rack", |side, version| FetchRequest {
        rack_id: "somewhere".into(),
        ..request(side, version, TOPIC, from(0))
    })
}

/// One session from its beginning to its end.
fn incremental(pair: &mut Pair) -> io::Result<()> {
    for version in crate::pair::versions::<FetchRequest>().filter(|version| *version >= SESSIONS) {
        let step = |side: &Side, session_epoch, topics| FetchRequest {
            session_id: side.session,
            session_epoch,
            min_bytes: 0,
            max_bytes: 1 << 20,
            topics,
            ..Default::default()
        };
        let of = |side: &Side, partitions| vec![topic_of(side, version, TOPIC, partitions)];
        let second = || FetchPartition { partition: 1, ..from(0) };
        let ask = |pair: &mut Pair, case: &str, make: &dyn Fn(&Side) -> FetchRequest| {
            pair.ask_and_clean(&format!("within a session: {case}"), version, make, without_epochs)
        };
        let whole = ask(pair, "begun", &|side| FetchRequest {
            session_id: 0,
            ..step(side, 0, of(side, vec![from(0), second()]))
        })?;
        whole.keep(pair, |side, answer| side.session = answer.session_id);
        ask(pair, "read to the end", &|side| step(side, 1, of(side, vec![from(END)])))?;
        ask(pair, "nothing changed", &|side| step(side, 2, Vec::new()))?;
        ask(pair, "the same epoch again", &|side| step(side, 2, Vec::new()))?;
        ask(pair, "back to the beginning", &|side| step(side, 3, of(side, vec![from(0)])))?;
        ask(pair, "an unknown partition", &|side| {
            step(side, 4, of(side, vec![FetchPartition { partition: 9, ..from(0) }]))
        })?;
        let without = |side: &Side, session_epoch, partitions| {
            let topic = topic_of(side, version, TOPIC, Vec::new());
            let forgotten = ForgottenTopic { topic: topic.topic, topic_id: topic.topic_id, partitions };
            FetchRequest { forgotten_topics_data: vec![forgotten], ..step(side, session_epoch, Vec::new()) }
        };
        ask(pair, "without some", &|side| without(side, 5, vec![0, 9]))?;
        ask(pair, "without any", &|side| without(side, 6, vec![1]))?;
        ask(pair, "after its end", &|side| step(side, 7, Vec::new()))?;
    }
    Ok(())
}
