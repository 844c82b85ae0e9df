//! Whole processes, many of them, on stores where nothing fails: what their metadata store sees while nobody uses them, and
//! while each is produced to.

use super::batch::{self, Stamp};
use super::connection::Connection;
use super::network::Network;
use super::{Life, Starting, address_of, stores};
use crate::ledger::RecordId;
use crate::scale::counted::{Counted, Counts};
use crate::scale::{Size, print_rates};
use millrace_broker::control::cluster::ClusterConfig;
use millrace_broker::process::housekeeping::Housekeeping;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_topics::CreatableTopic;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{CreateTopicsRequest, ProduceRequest};
use millrace_storage::ids::TopicPartition;
use millrace_storage::lane::LaneConfig;
use millrace_storage::meta::keys;
use millrace_storage::meta::records::{PartitionRecord, Record, WalRecord};
use millrace_storage::sim::{Chance, Faults, ProcessId, Sim, SimBucket, SimMeta};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(5);
/// Virtual time within which all is as it shall be.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// After it everything that a change led to is over.
const QUIET: Duration = Duration::from_secs(90);
/// Between two batches to each broker: each of its checkpoints has something to say.
const PACE: Duration = Duration::from_secs(1);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const CREATE_TOPICS: i16 = 7;
const PRODUCE: i16 = 13;
const PER_TOPIC: u32 = 1_000;

struct Many {
    sim: Sim,
    bucket: SimBucket,
    meta: SimMeta,
    network: Network,
    counts: Counts,
    size: Size,
}

/// Runs the scenario as the main task of `sim`, and prints what was counted.
pub async fn run(sim: Sim, size: Size, minutes: u32) {
    let (bucket, meta) = (SimBucket::new(&sim, Faults::none()), SimMeta::new(&sim, Faults::none()));
    let (network, counts) = (Network::new(&sim, Chance::NEVER), Counts::default());
    let many = Many { sim, bucket, meta, network, counts, size };
    (1..=size.brokers).for_each(|host| many.start(host));
    many.wait("brokers", |many| many.meta.contents(keys::BROKERS).len() == usize::from(many.size.brokers)).await;
    many.wait("a controller", |many| many.meta.peek(keys::CONTROLLER).is_some()).await;
    many.create_topics().await;
    let partitions = many.size.partitions as usize;
    many.wait("partitions", |many| many.meta.contents(keys::PARTITIONS).len() == partitions).await;
    many.sim.sleep(QUIET).await;
    let began = many.sim.now();
    many.count("idle", minutes).await;
    let acknowledged: Rc<Cell<u64>> = Rc::default();
    many.produce(&acknowledged);
    many.sim.sleep(QUIET).await;
    many.count("busy", minutes).await;
    let produced = acknowledged.get();
    println!("         {produced} batches acknowledged in the last {:.0} s", (many.sim.now() - began) as f64 / 1e9);
    assert!(produced > u64::from(size.brokers), "FINDING hardly anything was produced");
}

impl Many {
    fn start(&self, host: u16) {
        let (process, env) = self.sim.start_process();
        let life = Rc::new(Life { process, stop: Default::default() });
        let ms = Duration::from_millis;
        // As a process is without any settings, on an object store.
        let housekeeping = Housekeeping {
            segments_every: ms(900_000),
            segments_grace: ms(600_000),
            journal_every: Some(ms(60_000)),
            jobs: Arc::default(),
        };
        let starting = Starting {
            name: format!("millrace-{host:04}"),
            host,
            cluster: Some(ClusterConfig { zone: None, lease: LEASE, drain: Duration::ZERO, admin: None }),
            env: env.clone(),
            sim: self.sim.clone(),
            process,
            network: self.network.clone(),
            stores: stores(&self.bucket, Counted::new(Rc::new(self.meta.clone()), &self.counts)),
            lane_config: LaneConfig { linger: ms(25), ..LaneConfig::default() },
            housekeeping,
            expire_every: Duration::from_secs(300),
            shards: 1,
            to_peer: None,
            lanes: 1,
            max_partitions: u32::MAX,
        };
        env.spawn("start", starting.run(life));
    }

    async fn wait(&self, what: &str, holds: impl Fn(&Many) -> bool) {
        assert!(self.sim.within(PATIENCE, || holds(self)).await, "FINDING the {what} are not there");
    }

    async fn create_topics(&self) {
        let address = address_of(1, 0);
        let connection = Connection::open(&self.sim, &self.network, address).await;
        let mut connection = connection.unwrap_or_else(|_| panic!("FINDING nobody listens at {address}"));
        for (number, left) in (0..self.size.partitions).step_by(PER_TOPIC as usize).enumerate() {
            let partitions = (self.size.partitions - left).min(PER_TOPIC);
            let topic = CreatableTopic {
                name: format!("topic-{number}").as_str().into(),
                num_partitions: i32::try_from(partitions).expect("a thousand"),
                replication_factor: -1,
                ..CreatableTopic::default()
            };
            let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
            let answer = connection.call(&request, CREATE_TOPICS, PATIENCE).await;
            let answer = answer.unwrap_or_else(|_| panic!("FINDING no answer to CreateTopics"));
            assert_eq!(answer.topics[0].error_code, ErrorCode::None, "FINDING {answer:?}");
        }
    }

    async fn count(&self, what: &str, minutes: u32) {
        self.counts.take();
        let began = self.sim.now();
        self.sim.sleep(Duration::from_secs(60) * minutes).await;
        print_rates(what, &self.counts.take(), (self.sim.now() - began) as f64 / 1e9);
    }

    /// Starts a producer to one partition of each broker.
    fn produce(&self, acknowledged: &Rc<Cell<u64>>) {
        let mut led: BTreeMap<String, TopicPartition> = BTreeMap::new();
        for (key, value) in self.meta.contents(keys::PARTITIONS) {
            let record = PartitionRecord::decode(&value).expect("a record of ours");
            let Some(wal) = self.meta.peek(&keys::wal(record.wid)) else { continue };
            let wal = WalRecord::decode(&wal).expect("a record of ours");
            led.entry(wal.broker).or_insert(keys::parse_partition(&key).expect("a key of ours"));
        }
        for (broker, partition) in led {
            let host = broker.rsplit('-').next().and_then(|number| number.parse().ok()).expect("a name of ours");
            let (sim, network, acknowledged) = (self.sim.clone(), self.network.clone(), acknowledged.clone());
            self.sim.spawn(ProcessId::WORLD, "producer", produce(sim, network, host, partition, acknowledged));
        }
    }
}

/// A batch every [`PACE`], for as long as the run.
async fn produce(sim: Sim, network: Network, host: u16, partition: TopicPartition, acknowledged: Rc<Cell<u64>>) {
    let mut number = 0;
    loop {
        let Ok(mut connection) = Connection::open(&sim, &network, address_of(host, 0)).await else {
            sim.sleep(PACE).await;
            continue;
        };
        loop {
            let stamp = Stamp { producer: -1, epoch: -1, sequence: -1 };
            let records = batch::write(stamp, 1, &[RecordId { producer: u64::from(host), number }]);
            let index = i32::try_from(partition.index).expect("a thousand");
            let data = PartitionProduceData { index, records: Some(records) };
            let topic =
                TopicProduceData { topic_id: partition.topic.0, partition_data: vec![data], ..Default::default() };
            let request =
                ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..ProduceRequest::default() };
            let Ok(answer) = connection.call(&request, PRODUCE, ANSWERED_WITHIN).await else { break };
            if answer.responses[0].partition_responses[0].error_code == ErrorCode::None {
                number += 1;
                acknowledged.set(acknowledged.get() + 1);
            }
            sim.sleep(PACE).await;
        }
    }
}
