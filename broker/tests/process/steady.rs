//! A client that goes on while brokers come and go, as a default client does: what may be retried is retried after a tenth
//! of a second with new metadata, from any broker that answers. What a default client would surface is an error here.

use crate::kafka::{Connection, fetch_request, produce_request, records, sequenced};
use crate::program::{PATIENCE, now};
use millrace_protocol::codec::Request;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::{InitProducerIdRequest, MetadataRequest, MetadataResponse};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// `retry.backoff.ms` of Kafka's clients.
const BACKOFF: Duration = Duration::from_millis(100);

/// What the clients of Kafka do again by themselves.
fn is_retriable(error: ErrorCode) -> bool {
    use ErrorCode as E;
    matches!(
        error,
        E::NotLeaderOrFollower
            | E::LeaderNotAvailable
            | E::UnknownTopicOrPartition
            | E::FencedLeaderEpoch
            | E::UnknownLeaderEpoch
            | E::RequestTimedOut
            | E::KafkaStorageError
            | E::CoordinatorNotAvailable
            | E::CoordinatorLoadInProgress
    )
}

/// See the module.
pub(crate) struct Steady {
    bootstrap: Vec<String>,
    connections: BTreeMap<String, Connection>,
    topic: String,
    /// Address and epoch of the leader by partition.
    leaders: BTreeMap<i32, (String, i32)>,
}

impl Steady {
    pub(crate) fn new(bootstrap: &[String], topic: &str) -> Steady {
        let (bootstrap, topic) = (bootstrap.to_vec(), topic.to_owned());
        Steady { bootstrap, connections: BTreeMap::new(), topic, leaders: BTreeMap::new() }
    }

    /// The answer of one broker; none if it is not there.
    fn ask<R: Request>(&mut self, address: &str, request: &R, version: i16) -> Option<R::Response> {
        if !self.connections.contains_key(address) {
            self.connections.insert(address.to_owned(), Connection::try_open(address).ok()?);
        }
        let answer = self.connections.get_mut(address).expect("just put there").try_ask(request, version);
        if answer.is_err() {
            self.connections.remove(address);
        }
        answer.ok()
    }

    fn ask_any<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.bootstrap.clone().iter().find_map(|address| self.ask(address, request, version))
    }

    /// What some broker says of the topic.
    pub(crate) fn metadata(&mut self) -> Option<MetadataResponse> {
        let topics = vec![MetadataRequestTopic { name: Some(self.topic.as_str().into()), ..Default::default() }];
        let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
        self.ask_any(&request, 12)
    }

    fn refresh(&mut self) {
        let Some(metadata) = self.metadata() else { return };
        for partition in metadata.topics.iter().flat_map(|topic| &topic.partitions) {
            let node = metadata.brokers.iter().find(|broker| broker.node_id == partition.leader_id);
            let known = self.leaders.get(&partition.partition_index).map_or(-1, |(_, epoch)| *epoch);
            // What is older than what is known is late.
            if let Some(node) = node.filter(|_| partition.leader_epoch >= known) {
                let address = format!("{}:{}", node.host, node.port);
                self.leaders.insert(partition.partition_index, (address, partition.leader_epoch));
            }
        }
    }

    /// Asks until an answer is none that is tried again; the error that a client would surface.
    fn insist<T>(
        &mut self,
        what: &str,
        mut attempt: impl FnMut(&mut Steady) -> Option<(ErrorCode, T)>,
    ) -> Result<T, String> {
        let begun = now();
        let mut last = None;
        while begun.elapsed() < PATIENCE {
            match attempt(self) {
                Some((ErrorCode::None, answer)) => return Ok(answer),
                Some((error, _)) if !is_retriable(error) => return Err(format!("{what}: {error:?}")),
                other => last = other.map(|(error, _)| error),
            }
            #[expect(clippy::disallowed_methods, reason = "the pause of a client between two tries")]
            std::thread::sleep(BACKOFF);
            self.refresh();
        }
        Err(format!("{what}: in vain, at last {last:?}"))
    }

    fn at_leader<R: Request>(&mut self, partition: i32, request: &R, version: i16) -> Option<R::Response> {
        let (address, _) = self.leaders.get(&partition)?.clone();
        self.ask(&address, request, version)
    }

    fn producer_id(&mut self) -> Result<i64, String> {
        let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        self.insist("a producer id", |client| {
            client.ask_any(&request, 4).map(|answer| (answer.error_code, answer.producer_id))
        })
    }

    /// Appends a batch; its base offset.
    pub(crate) fn append(&mut self, partition: i32, batch: &[u8]) -> Result<i64, String> {
        let request = produce_request(&self.topic, partition, -1, batch.to_vec());
        self.insist("produce", |client| {
            let response = client.at_leader(partition, &request, 11)?;
            let answer = &response.responses[0].partition_responses[0];
            Some((answer.error_code, answer.base_offset))
        })
    }

    /// Values from `offset` on, maybe none yet.
    fn fetch(&mut self, partition: i32, offset: i64) -> Result<Vec<(i64, String)>, String> {
        let request = fetch_request(&self.topic, partition, offset, 500);
        self.insist("fetch", |client| {
            let response = client.at_leader(partition, &request, 12)?;
            let answer = &response.responses[0].partitions[0];
            Some((answer.error_code, records(answer)))
        })
    }
}

/// What one idempotent producer of one partition came to.
pub(crate) struct Produced {
    pub(crate) values: Vec<String>,
    /// The longest time from one acknowledgement to the next.
    pub(crate) longest: Duration,
}

/// Produces one record after the other until `ends`, each once the one before is acknowledged.
pub(crate) fn produce(mut client: Steady, partition: i32, ends: &AtomicBool) -> Result<Produced, String> {
    let id = client.producer_id()?;
    let mut produced = Produced { values: Vec::new(), longest: Duration::ZERO };
    let mut last = now();
    while !ends.load(Ordering::Relaxed) {
        let sequence = i32::try_from(produced.values.len()).expect("a short test");
        let value = format!("{partition}/{sequence}");
        let offset = client.append(partition, &sequenced(id, sequence, &[&value]))?;
        if offset != i64::from(sequence) {
            return Err(format!("{value} is at {offset}"));
        }
        produced.values.push(value);
        produced.longest = produced.longest.max(last.elapsed());
        last = now();
    }
    Ok(produced)
}

/// Reads a partition until `ends` and then up to `count` values: all of it, in order, without a gap.
pub(crate) fn consume(
    mut client: Steady,
    partition: i32,
    ends: &AtomicBool,
    count: impl Fn() -> usize,
) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    while !ends.load(Ordering::Relaxed) || values.len() < count() {
        let next = i64::try_from(values.len()).expect("a short test");
        for (offset, value) in client.fetch(partition, next)? {
            if offset == i64::try_from(values.len()).expect("a short test") {
                values.push(value);
            }
        }
    }
    Ok(values)
}
