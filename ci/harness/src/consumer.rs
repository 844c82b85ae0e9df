//! Readers: one that follows the log while brokers die, and one that reads a range to compare it.

use crate::batch::{decode, identity};
use crate::cluster;
use crate::connection::Connection;
use crate::load::Shared;
use crate::route::Route;
use crate::trouble::{Trouble, is_retriable};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::FetchRequest;
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// Topics go by name up to this version.
const FETCH_VERSION: i16 = 12;
/// How long a fetch may wait for records, in milliseconds.
const MAX_WAIT_MS: i32 = 50;
/// Bytes that an answer may hold for one partition.
const PARTITION_BYTES: i32 = 4 << 20;
/// Bytes that an answer may hold.
const ANSWER_BYTES: i32 = 32 << 20;
/// After a failure, before the next try.
const PAUSE: Duration = Duration::from_millis(5);
/// Fetches in a row that may bring nothing below the log's end.
const MAX_EMPTY_FETCHES: u32 = 200;

/// Follows all partitions of a topic and tells the ledger what it sees.
pub(crate) struct Follow<'a> {
    shared: &'a Shared,
    route: Route,
    links: BTreeMap<SocketAddr, Connection>,
    positions: Vec<i64>,
}

impl<'a> Follow<'a> {
    /// From the beginning of every partition.
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let partitions = shared.ledger().partition_count();
        let route = Route::new(&shared.topic, partitions);
        Follow { shared, route, links: BTreeMap::new(), positions: vec![0; partitions] }
    }

    /// Until the load is stopped, over any number of broker deaths.
    pub(crate) fn run(mut self) {
        while !self.shared.is_stopped() {
            let looked = self.route.look(&self.shared.bootstrap);
            let mut fetched = false;
            for (leader, partitions) in self.route.by_leader() {
                match self.fetch(leader, &partitions) {
                    Ok(()) => fetched = true,
                    Err(trouble) => self.failed(leader, trouble),
                }
            }
            if let Err(other) = looked {
                self.shared.ledger().other(format!("reader: {other}"));
            }
            if !fetched {
                thread::sleep(PAUSE);
            }
        }
    }

    fn failed(&mut self, leader: SocketAddr, trouble: Trouble) {
        match trouble {
            Trouble::Code(code) if is_retriable(code) => self.route.doubt(),
            other => {
                self.links.remove(&leader);
                self.route.forget(leader);
                if !matches!(other, Trouble::Io(_)) {
                    self.shared.ledger().other(format!("reader: {other}"));
                }
            }
        }
    }

    fn fetch(&mut self, leader: SocketAddr, partitions: &[usize]) -> Result<(), Trouble> {
        let connection = match self.links.entry(leader) {
            Entry::Occupied(link) => link.into_mut(),
            Entry::Vacant(none) => none.insert(self.shared.bootstrap.greet(leader)?),
        };
        let position = |&partition: &usize| Position {
            partition: partition as i32,
            epoch: self.route.leader(partition).map_or(-1, |leader| leader.epoch),
            offset: self.positions[partition],
        };
        let wanted: Vec<_> = partitions.iter().map(position).collect();
        let mut failed = None;
        for answer in fetch(connection, &self.shared.topic, &wanted, MAX_WAIT_MS)? {
            let partition = answer.partition_index as usize;
            match answer.error_code {
                ErrorCode::None => self.take(partition, &answer)?,
                ErrorCode::OffsetOutOfRange => {
                    self.shared.ledger().read_position_gone(partition, self.positions[partition]);
                    failed = Some(ErrorCode::NotLeaderOrFollower);
                }
                code => failed = Some(code),
            }
        }
        failed.map_or(Ok(()), |code| Err(Trouble::Code(code)))
    }

    fn take(&mut self, partition: usize, answer: &PartitionData) -> Result<(), Trouble> {
        let records = answer.records.as_ref().map(|records| records.concat()).unwrap_or_default();
        let records = decode(&records).map_err(|e| Trouble::proof(format!("partition {partition}: {e}")))?;
        let mut ledger = self.shared.ledger();
        for (offset, value) in records {
            if offset < self.positions[partition] {
                continue; // the batch began before the position
            }
            match identity(&value) {
                Some(record) => ledger.read_at(partition, offset, record),
                None => ledger.other(format!("partition {partition} offset {offset}: bytes changed")),
            }
            self.positions[partition] = offset + 1;
        }
        Ok(())
    }
}

/// From where to read a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    pub(crate) partition: i32,
    /// The leader's as the client knows it; -1: of any epoch.
    pub(crate) epoch: i32,
    pub(crate) offset: i64,
}

/// Asks a leader for records.
pub(crate) fn fetch(
    connection: &mut Connection,
    topic: &str,
    positions: &[Position],
    max_wait_ms: i32,
) -> Result<Vec<PartitionData>, Trouble> {
    let partitions = positions
        .iter()
        .map(|position| FetchPartition {
            partition: position.partition,
            current_leader_epoch: position.epoch,
            fetch_offset: position.offset,
            partition_max_bytes: PARTITION_BYTES,
            ..Default::default()
        })
        .collect();
    let request = FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: ANSWER_BYTES,
        topics: vec![FetchTopic { topic: topic.into(), partitions, ..Default::default() }],
        ..Default::default()
    };
    let answer = connection.call(&request, FETCH_VERSION)?;
    if !answer.error_code.is_none() {
        return Err(Trouble::Code(answer.error_code));
    }
    Ok(answer.responses.into_iter().flat_map(|topic| topic.partitions).collect())
}

/// Reads the records of a partition from one offset to another, excluded.
pub(crate) fn read_range(
    leader: SocketAddr,
    topic: &str,
    partition: i32,
    from: i64,
    to: i64,
) -> Result<Vec<(i64, Bytes)>, Trouble> {
    let mut connection = cluster::greet(leader)?;
    let mut found: Vec<(i64, Bytes)> = Vec::new();
    let mut position = from;
    let mut empty = 0;
    while position < to {
        let wanted = Position { partition, epoch: -1, offset: position };
        let answers = fetch(&mut connection, topic, &[wanted], MAX_WAIT_MS)?;
        let [answer] = answers.as_slice() else { return Err(Trouble::proof("one partition asked, another answered")) };
        if !answer.error_code.is_none() {
            return Err(Trouble::Code(answer.error_code));
        }
        let records = answer.records.as_ref().map(|records| records.concat()).unwrap_or_default();
        let records = decode(&records).map_err(|e| Trouble::proof(format!("partition {partition}: {e}")))?;
        let before = position;
        for (offset, value) in records.into_iter().filter(|(offset, _)| (before..to).contains(offset)) {
            position = offset + 1;
            found.push((offset, value));
        }
        empty = if position == before { empty + 1 } else { 0 };
        if empty == MAX_EMPTY_FETCHES {
            return Err(Trouble::proof(format!(
                "partition {partition}: nothing at offset {position}, the log ends at {to}"
            )));
        }
    }
    Ok(found)
}
