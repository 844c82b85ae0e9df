//! Producers and consumers that speak real frames: bootstrap, metadata, leaders, retries in order, five in flight.

use super::batch::{self, Stamp};
use super::connection::{Connection, Lost};
use super::neighbour;
use super::network::Network;
use crate::ledger::{Ledger, PLAIN_PRODUCERS, RecordId};
use crate::rebuild;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{
    FetchRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest, ProduceResponse,
};
use millrace_storage::env::Env;
use millrace_storage::ids::{Offset, TopicId, TopicPartition};
use millrace_storage::sim::{Sim, SimBucket};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const METADATA: i16 = 12;
/// Names the topic by its id, so that nothing gets into a later topic of the same name.
const PRODUCE: i16 = 13;
/// Likewise.
const FETCH: i16 = 13;
const INIT_PRODUCER_ID: i16 = 4;
/// Kafka's `max.in.flight.requests.per.connection`.
const IN_FLIGHT: usize = 5;
/// Kafka's `request.timeout.ms`, shorter.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);
/// `timeout_ms` of produce requests.
const TIMEOUT_MS: i32 = 6_000;
/// `retry.backoff.ms`.
pub(super) const BACKOFF: Duration = Duration::from_millis(100);
/// Within this time every shard knows that a topic is deleted, once one client was told.
const NEWS: Duration = Duration::from_secs(5);
/// Names of records that accompany others, above those of all producers.
const COMPANIONS: u64 = 1_000;
const MAX_RECORDS: u64 = 4;
const FETCH_BYTES: i32 = 2_000;

/// What clients share.
#[derive(Clone)]
pub(super) struct World {
    /// The run.
    pub sim: Sim,
    /// Clocks of clients.
    pub env: Env,
    /// The network.
    pub network: Network,
    /// What is stored.
    pub bucket: SimBucket,
    /// What is known.
    pub ledger: Ledger,
    /// Where clients begin.
    pub bootstrap: Rc<Vec<SocketAddr>>,
    /// Longest pause of a producer between two batches.
    pub pace: Duration,
    /// Whether there are many processes: one may not have heard for long of what others did, until everything is healed, and
    /// producers go on until then, so that there is something to lose.
    pub is_cluster: bool,
    /// Longer than this nobody may wait for a partition that was served once, where nothing fails.
    pub patience: Option<Duration>,
    /// Whether one request may be for partitions of several shards.
    pub shared_port: bool,
    /// Clients that are done.
    pub done: Rc<Cell<u64>>,
    /// Everything is healed: nothing is deleted any more.
    pub healed: Rc<Cell<bool>>,
    /// All is produced too: readers go on to the end and stop.
    pub finishing: Rc<Cell<bool>>,
}

/// Where a partition is led.
pub(super) struct Route {
    /// By whom.
    pub address: SocketAddr,
    /// Which it is.
    pub partition: TopicPartition,
}

/// How long a client has waited for a partition that was served once.
#[derive(Default)]
struct Waiting {
    was_served: bool,
    /// Virtual nanoseconds.
    since: Option<u64>,
}

impl Waiting {
    fn begins(&mut self, world: &World) {
        if self.was_served {
            self.since.get_or_insert(world.sim.now());
        }
    }

    fn ends(&mut self, world: &World, who: &str, p: TopicPartition) {
        self.was_served = true;
        let waited = self.since.take().map_or(Duration::ZERO, |since| Duration::from_nanos(world.sim.now() - since));
        let Some(patience) = world.patience else { return };
        assert!(waited <= patience, "FINDING a {who} of {p} waited {waited:?}, and nothing had failed");
    }
}

impl World {
    /// A client is done.
    pub(super) fn is_done(&self, who: fmt::Arguments<'_>) {
        self.sim.note(format_args!("{who} is done"));
        self.done.set(self.done.get() + 1);
    }

    /// A connection to any broker.
    async fn any_connection(&self) -> Result<Connection, Lost> {
        let any = self.any_broker();
        self.connection(any).await
    }

    /// Which broker to ask.
    pub(super) fn any_broker(&self) -> usize {
        self.sim.dice(|d| d.index(self.bootstrap.len()))
    }

    /// A connection to a broker, counted round and round.
    pub(super) async fn connection(&self, broker: usize) -> Result<Connection, Lost> {
        Connection::open(&self.sim, &self.network, self.bootstrap[broker % self.bootstrap.len()]).await
    }

    /// The neighbour of a partition, if a request for it shall be for both: half of the time.
    fn companion(&self, index: u32) -> Option<u32> {
        (self.shared_port && self.sim.dice(|d| d.index(2)) == 0).then(|| neighbour(index))
    }

    /// Asks for the topic, creating it if need be, until the partition has a leader.
    pub(super) async fn route(&self, topic: &str, index: u32) -> Route {
        loop {
            if let Ok(Some(route)) = self.try_route(topic, index).await {
                return route;
            }
            self.sim.sleep(BACKOFF).await;
        }
    }

    async fn try_route(&self, topic: &str, index: u32) -> Result<Option<Route>, Lost> {
        let mut connection = self.any_connection().await?;
        let asked = self.sim.now();
        let name = MetadataRequestTopic { name: Some(topic.into()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest { topics: Some(vec![name]), ..MetadataRequest::default() };
        let answer = connection.call(&request, METADATA, PATIENCE).await?;
        let Some(found) = answer.topics.first().filter(|t| t.error_code == ErrorCode::None) else { return Ok(None) };
        let gone = self.ledger.deleted_since(TopicId(found.topic_id));
        let known_by_now =
            |since: u64| asked > since + NEWS.as_nanos() as u64 && (!self.is_cluster || self.healed.get());
        let back = gone.is_some_and(known_by_now);
        assert!(!back, "FINDING {topic} is {} again, which was deleted at {gone:?}", found.topic_id);
        let wanted = i32::try_from(index).expect("a small index");
        let partition = found.partitions.iter().find(|p| p.partition_index == wanted);
        let leader = partition.filter(|p| p.error_code == ErrorCode::None).map(|p| p.leader_id);
        let broker = leader.and_then(|leader| answer.brokers.iter().find(|b| b.node_id == leader));
        let Some(broker) = broker else { return Ok(None) };
        let address = format!("{}:{}", broker.host.as_str(), broker.port).parse();
        let address =
            address.unwrap_or_else(|_| panic!("FINDING a broker at {}:{}", broker.host.as_str(), broker.port));
        Ok(Some(Route { address, partition: TopicPartition { topic: TopicId(found.topic_id), index } }))
    }
}

struct Pending {
    ids: Vec<RecordId>,
    sequence: i32,
}

/// A producer of one partition.
pub(super) struct Producer {
    world: World,
    topic: String,
    index: u32,
    name: u64,
    producer: Option<i64>,
    /// The topic that it writes to, and whether that has acknowledged nothing so far.
    writes_to: Option<TopicId>,
    fresh: bool,
    next_number: u64,
    next_companion: u64,
    unacknowledged: VecDeque<Pending>,
    waiting: Waiting,
}

impl Producer {
    /// A producer whose records are named `name`; from [`PLAIN_PRODUCERS`] on it is not idempotent.
    pub(super) fn new(world: &World, topic: &str, index: u32, name: u64) -> Producer {
        Producer {
            world: world.clone(),
            topic: topic.to_owned(),
            index,
            name,
            producer: None,
            writes_to: None,
            fresh: true,
            next_number: 0,
            next_companion: 0,
            unacknowledged: VecDeque::new(),
            waiting: Waiting::default(),
        }
    }

    /// Produces until `batches` are acknowledged, and among many processes until everything is healed.
    pub(super) async fn run(mut self, batches: u64) {
        let sim = self.world.sim.clone();
        let mut done = 0;
        while self.left(batches, done) > 0 {
            self.waiting.begins(&self.world);
            let route = self.world.route(&self.topic, self.index).await;
            self.write_to(route.partition.topic);
            self.fill(self.left(batches, done));
            let before = done;
            if let Ok(mut connection) = Connection::open(&sim, &self.world.network, route.address).await {
                while self.left(batches, done) > 0
                    && let Ok(sent) = self.send_all(&mut connection, &route).await
                {
                    done += sent;
                    if sent == 0 {
                        break;
                    }
                    self.waiting.ends(&self.world, "producer", route.partition);
                    let pause = sim.dice(|d| d.latency(&(Duration::ZERO..self.world.pace)));
                    sim.sleep(pause).await;
                    self.fill(self.left(batches, done));
                    self.waiting.begins(&self.world);
                }
            }
            if done == before {
                sim.sleep(BACKOFF).await;
            }
        }
        self.world.is_done(format_args!("the producer of {}/{}", self.topic, self.index));
    }

    /// Batches that are still to be acknowledged.
    fn left(&self, batches: u64, done: u64) -> u64 {
        let goes_on = self.world.is_cluster && !self.world.healed.get();
        batches.saturating_sub(done).max(if goes_on { IN_FLIGHT as u64 } else { 0 })
    }

    /// In a new topic of the name an idempotent producer begins anew. Nobody knows whether what it sent last is in the log
    /// of the other, to which it may come back after a broker that is behind: it is given up.
    fn write_to(&mut self, topic: TopicId) {
        if self.writes_to.replace(topic) != Some(topic) {
            (self.producer, self.fresh) = (None, true);
            self.unacknowledged.clear();
        }
    }

    /// Has as many batches under way as fit, of which `left` are wanted.
    fn fill(&mut self, left: u64) {
        while self.unacknowledged.len() < self.window().min(left as usize) {
            let pending = self.next_batch();
            self.unacknowledged.push_back(pending);
        }
    }

    /// Batches under way. An idempotent producer without an acknowledgement sends one at a time: a broker that does not
    /// know it takes any sequence for its first, so that a second batch may get in while the first is refused.
    fn window(&self) -> usize {
        if self.name < PLAIN_PRODUCERS && self.fresh { 1 } else { IN_FLIGHT }
    }

    fn next_batch(&mut self) -> Pending {
        let count = self.world.sim.dice(|d| d.below(1..MAX_RECORDS + 1));
        let sequence = i32::try_from(self.next_number).expect("runs are short");
        let ids = (0..count).map(|i| RecordId { producer: self.name, number: self.next_number + i }).collect();
        self.next_number += count;
        Pending { ids, sequence }
    }

    async fn stamp(&mut self, connection: &mut Connection) -> Result<Option<i64>, Lost> {
        if self.name < PLAIN_PRODUCERS && self.producer.is_none() {
            let request = InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
            let answer = connection.call(&request, INIT_PRODUCER_ID, PATIENCE).await?;
            if answer.error_code != ErrorCode::None {
                return Err(Lost);
            }
            self.producer = Some(answer.producer_id);
        }
        Ok(self.producer)
    }

    /// Sends everything unacknowledged on one connection, then reads the answers in order; gives how many were
    /// acknowledged. After the first failure the rest is sent again, in order.
    async fn send_all(&mut self, connection: &mut Connection, route: &Route) -> Result<u64, Lost> {
        let producer = self.stamp(connection).await?;
        let sent = self.unacknowledged.len().min(self.window());
        let mut companions = Vec::with_capacity(sent);
        for at in 0..sent {
            let pending = &self.unacknowledged[at];
            let stamp = match producer {
                Some(producer) => Stamp { producer, epoch: 0, sequence: pending.sequence },
                None => Stamp { producer: -1, epoch: -1, sequence: -1 },
            };
            let now = self.world.env.wall();
            self.world.ledger.sent(route.partition, &pending.ids, now);
            let records = batch::write(stamp, now.0, &pending.ids);
            let mut request = self.request(route, records);
            companions.push(self.accompany(&mut request, route.partition));
            connection.send(&request, PRODUCE, PATIENCE).await?;
        }
        let mut acknowledged = 0;
        let mut failed = false;
        for companion in companions {
            let answer: Result<ProduceResponse, Lost> = connection.receive(PRODUCE, PATIENCE).await;
            let Ok(answer) = answer else { break };
            let result = &answer.responses[0].partition_responses[0];
            assert!(!fatal(result.error_code), "FINDING produce was answered {:?}", result.error_code);
            if let Some((partition, ids)) = companion {
                self.companion_answered(&answer, partition, &ids);
            }
            if failed {
                continue;
            }
            if result.error_code != ErrorCode::None {
                failed = true;
                continue;
            }
            let pending = self.unacknowledged.pop_front().expect("one per answer");
            let base = Offset(result.base_offset);
            self.world.ledger.readable(route.partition, base, &pending.ids);
            self.world.ledger.acknowledged(route.partition, base, &pending.ids);
            acknowledged += 1;
            self.fresh = false;
        }
        if producer.is_none() && acknowledged < IN_FLIGHT as u64 {
            // Nobody knows whether the rest is in the log; it is given up, and new records are sent.
            self.unacknowledged.clear();
        }
        Ok(acknowledged)
    }

    /// Puts a record for the partition's neighbour into the request, as of a producer that is not idempotent, if the
    /// dice say so.
    fn accompany(
        &mut self,
        request: &mut ProduceRequest,
        p: TopicPartition,
    ) -> Option<(TopicPartition, Vec<RecordId>)> {
        let index = self.world.companion(self.index)?;
        let partition = TopicPartition { index, ..p };
        let ids = vec![RecordId { producer: PLAIN_PRODUCERS + COMPANIONS + self.name, number: self.next_companion }];
        self.next_companion += 1;
        let now = self.world.env.wall();
        self.world.ledger.sent(partition, &ids, now);
        let records = Some(batch::write(Stamp { producer: -1, epoch: -1, sequence: -1 }, now.0, &ids));
        let data = PartitionProduceData { index: i32::try_from(index).expect("small"), records };
        request.topic_data[0].partition_data.push(data);
        Some((partition, ids))
    }

    fn companion_answered(&self, answer: &ProduceResponse, partition: TopicPartition, ids: &[RecordId]) {
        let result = &answer.responses[0].partition_responses[1];
        let index = u32::try_from(result.index).ok();
        assert!(index == Some(partition.index), "FINDING the result of {partition} is called {}", result.index);
        assert!(!fatal(result.error_code), "FINDING produce was answered {:?}", result.error_code);
        if result.error_code == ErrorCode::None {
            let base = Offset(result.base_offset);
            self.world.ledger.readable(partition, base, ids);
            self.world.ledger.acknowledged(partition, base, ids);
        }
    }

    fn request(&self, route: &Route, records: bytes::Bytes) -> ProduceRequest {
        let partition =
            PartitionProduceData { index: i32::try_from(self.index).expect("small"), records: Some(records) };
        let topic = TopicProduceData {
            topic_id: route.partition.topic.0,
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        ProduceRequest { transactional_id: None, acks: -1, timeout_ms: TIMEOUT_MS, topic_data: vec![topic] }
    }
}

/// Errors that a client would report to its user although it did nothing wrong.
fn fatal(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::CorruptMessage
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::DuplicateSequenceNumber
            | ErrorCode::InvalidRecord
            | ErrorCode::UnknownServerError
            | ErrorCode::MessageTooLarge
            | ErrorCode::InvalidRequest
    )
}

/// What a leader that is about to change, or has changed, answers.
pub(super) fn passing(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotLeaderOrFollower
            | ErrorCode::LeaderNotAvailable
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::KafkaStorageError
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
    )
}

/// A consumer of one partition from its start: what it reads must never change, and never end before what was read. Where
/// the log was shortened beyond its place it goes on at the log start.
pub(super) struct Consumer {
    world: World,
    topic: String,
    index: u32,
    reads: Option<TopicId>,
    next: i64,
    /// Where the log starts, as each broker has said.
    told: BTreeMap<SocketAddr, i64>,
    waiting: Waiting,
}

impl Consumer {
    /// A consumer at offset 0.
    pub(super) fn new(world: &World, topic: &str, index: u32) -> Consumer {
        Consumer {
            world: world.clone(),
            topic: topic.to_owned(),
            index,
            reads: None,
            next: 0,
            told: BTreeMap::new(),
            waiting: Waiting::default(),
        }
    }

    /// Reads until everything is healed and the end of the log is reached.
    pub(super) async fn run(mut self) {
        loop {
            let route = self.world.route(&self.topic, self.index).await;
            if self.reads.replace(route.partition.topic) != Some(route.partition.topic) {
                self.next = 0;
                self.told.clear();
            }
            if let Ok(mut connection) = Connection::open(&self.world.sim, &self.world.network, route.address).await
                && let Ok(true) = self.read(&mut connection, &route).await
            {
                self.world.is_done(format_args!("the consumer of {}/{}", self.topic, self.index));
                return;
            }
            self.world.sim.sleep(BACKOFF).await;
        }
    }

    /// Where the log starts as this broker must know: a leader that was replaced and was not told yet goes by what it said
    /// before, whatever its successor has said.
    fn known_start(&self, route: &Route) -> Offset {
        if self.world.is_cluster && !self.world.healed.get() {
            return Offset(self.told.get(&route.address).copied().unwrap_or(0));
        }
        self.world.ledger.highest_told_start(route.partition)
    }

    /// Fetches until an error (`false`: somebody else leads) or the very end (`true`).
    async fn read(&mut self, connection: &mut Connection, route: &Route) -> Result<bool, Lost> {
        loop {
            let finishing = self.world.finishing.get();
            let started = self.known_start(route);
            self.waiting.begins(&self.world);
            let answer = connection.call(&self.request(route), FETCH, PATIENCE).await?;
            let Some(topic) = answer.responses.first() else {
                assert!(answer.error_code != ErrorCode::None, "FINDING a fetch without a session names no topic");
                return Ok(false);
            };
            let data = &topic.partitions[0];
            if data.error_code == ErrorCode::OffsetOutOfRange {
                self.go_on_at(rebuild::log_start(&self.world.bucket, route.partition), route.partition);
                continue;
            }
            if data.error_code != ErrorCode::None {
                // A leader that was suspended may not know of the newest records; its end is beyond our place.
                let known = passing(data.error_code);
                assert!(known, "FINDING fetch at {} of {} answered {:?}", self.next, route.partition, data.error_code);
                return Ok(false);
            }
            let (p, start) = (route.partition, data.log_start_offset);
            assert!(start >= started.0, "FINDING {p} starts at {start}, and did at {started} before");
            assert!(self.next >= started.0, "FINDING {p} is read at {}, below its start {started}", self.next);
            self.waiting.ends(&self.world, "consumer", p);
            self.world.ledger.told_start(p, Offset(start));
            self.told.insert(route.address, start);
            let bytes = data.records.as_ref().map(|r| r.concat()).unwrap_or_default();
            for (base, ids) in batch::read_all(&bytes) {
                let end = base + ids.len() as i64;
                assert!(base <= self.next || self.next == 0, "FINDING offsets {}..{base} are missing", self.next);
                assert!(end <= data.high_watermark, "FINDING {end} read above {}", data.high_watermark);
                self.world.ledger.readable(route.partition, Offset(base), &ids);
                self.next = self.next.max(end);
            }
            if finishing && self.next >= data.high_watermark {
                self.world.ledger.check_end(route.partition, Offset(data.high_watermark), "at the end");
                return Ok(true);
            }
            let pause = self.world.sim.dice(|d| d.latency(&(Duration::ZERO..Duration::from_millis(300))));
            self.world.sim.sleep(pause).await;
        }
    }

    fn go_on_at(&mut self, start: Offset, p: TopicPartition) {
        assert!(start.0 > self.next, "FINDING {} of {p} is out of range, but its log starts at {start}", self.next);
        self.world.ledger.log_start(p, start);
        self.next = start.0;
    }

    fn request(&self, route: &Route) -> FetchRequest {
        let partition = FetchPartition {
            partition: i32::try_from(self.index).expect("small"),
            fetch_offset: self.next,
            partition_max_bytes: FETCH_BYTES,
            ..FetchPartition::default()
        };
        let mut partitions = vec![partition];
        if let Some(companion) = self.world.companion(self.index) {
            // Its records are another consumer's; here they compete for the bytes.
            let companion = i32::try_from(companion).expect("small");
            partitions.push(FetchPartition { partition: companion, fetch_offset: 0, ..partitions[0].clone() });
        }
        let topic_id = route.partition.topic.0;
        let topic = FetchTopic { topic_id, partitions, ..FetchTopic::default() };
        FetchRequest {
            max_wait_ms: 500,
            min_bytes: if self.world.shared_port { 1 + self.world.sim.dice(|d| d.index(400)) as i32 } else { 1 },
            max_bytes: FETCH_BYTES,
            topics: vec![topic],
            ..FetchRequest::default()
        }
    }
}
