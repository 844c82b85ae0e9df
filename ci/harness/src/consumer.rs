//! Readers: one that follows the log while brokers die, and one that reads a range to compare it.

use crate::batch::{decode, identity};
use crate::cluster::{self, Leaders};
use crate::connection::Connection;
use crate::load::Shared;
use crate::trouble::{Trouble, is_retriable};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::FetchRequest;
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use std::collections::BTreeMap;
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
    positions: Vec<i64>,
}

impl<'a> Follow<'a> {
    /// From the beginning of every partition.
    pub(crate) fn new(shared: &'a Shared) -> Self {
        let partitions = shared.ledger().partition_count();
        Follow { shared, positions: vec![0; partitions] }
    }

    /// Until the load is stopped, over any number of broker deaths.
    pub(crate) fn run(mut self) {
        while !self.shared.is_stopped() {
            match self.follow() {
                Ok(()) | Err(Trouble::Io(_)) => {}
                Err(Trouble::Code(code)) if is_retriable(code) => {}
                Err(other) => self.shared.ledger().other(format!("reader: {other}")),
            }
            thread::sleep(PAUSE);
        }
    }

    /// Until a connection or a leader is lost.
    fn follow(&mut self) -> Result<(), Trouble> {
        let leaders = cluster::leaders(self.shared.bootstrap, &self.shared.topic)?;
        let mut links = Vec::new();
        for (leader, partitions) in by_leader(&leaders) {
            links.push((cluster::greet(leader)?, partitions));
        }
        while !self.shared.is_stopped() {
            for (connection, partitions) in &mut links {
                self.fetch(connection, partitions)?;
            }
        }
        Ok(())
    }

    fn fetch(&mut self, connection: &mut Connection, partitions: &[i32]) -> Result<(), Trouble> {
        let wanted: Vec<_> = partitions.iter().map(|&p| (p, self.positions[p as usize])).collect();
        for answer in fetch(connection, &self.shared.topic, &wanted, MAX_WAIT_MS)? {
            let partition = answer.partition_index as usize;
            match answer.error_code {
                ErrorCode::None => self.take(partition, &answer)?,
                ErrorCode::OffsetOutOfRange => {
                    self.shared.ledger().read_position_gone(partition, self.positions[partition]);
                    return Err(Trouble::Code(ErrorCode::NotLeaderOrFollower));
                }
                code => return Err(Trouble::Code(code)),
            }
        }
        Ok(())
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

fn by_leader(leaders: &Leaders) -> BTreeMap<SocketAddr, Vec<i32>> {
    let mut nodes: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
    for (partition, leader) in leaders.iter().enumerate() {
        nodes.entry(*leader).or_default().push(partition as i32);
    }
    nodes
}

fn fetch(
    connection: &mut Connection,
    topic: &str,
    positions: &[(i32, i64)],
    max_wait_ms: i32,
) -> Result<Vec<PartitionData>, Trouble> {
    let partitions = positions
        .iter()
        .map(|&(partition, fetch_offset)| FetchPartition {
            partition,
            fetch_offset,
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
        let answers = fetch(&mut connection, topic, &[(partition, position)], MAX_WAIT_MS)?;
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
