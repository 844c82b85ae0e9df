//! The core driven as its pump drives it: encoded frames in, decoded replies out, and a small lane that commits.

mod ack_share;
mod admin;
mod cold;
mod deletions;
mod fetch;
mod fetch_looks;
mod groups;
mod lane;
mod lookups;
mod produce;
mod quotas;
mod refusals;
mod segments;
mod shared_port;
mod strangers;
mod topics;

use super::core::{ShardConfig, ShardCore};
use super::events::{ConnectionId, Effect, LookupToken, Now, ReadToken, Reply, ReplyTo, RequestNumber};
use super::lookup::Source;
use super::search::Seek;
use crate::cold::reader::ColdRead;
use crate::control::{ClusterImage, FromControl, Node, PartitionImage, ToControl, TopicImage};
use crate::net::frame::Frame;
use bytes::Bytes;
use millrace_protocol::codec::Request;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::{LENGTH_BYTES, decode_response, request_frame};
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use millrace_protocol::messages::produce::{PartitionProduceData, PartitionProduceResponse, TopicProduceData};
use millrace_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use millrace_protocol::records::{BatchBuilder, BatchProducer, Batches};
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::format::manifest::Manifest;
use millrace_storage::format::{BatchEntry, Footer, LogStartEntry, PartitionEntry};
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, Seq, ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::lane::{CommittedObject, Seal, ToLane, ToShard};
use millrace_storage::partition::CommittedPartition;
use segments::Segments;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use uuid::Uuid;

/// The versions that the tests speak unless they are about versions.
const PRODUCE: i16 = 9;
const FETCH: i16 = 12;
/// The only topic.
const TOPIC: &str = "orders";
const TOPIC_ID: TopicId = TopicId(Uuid::from_u128(0x1234));
/// Bytes before the body of a write-ahead object.
const OBJECT_HEADER: usize = 64;

fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TOPIC_ID, index }
}

/// A shard, its lane's objects, and the replies that came.
struct World {
    core: ShardCore,
    now: Now,
    next_request: u64,
    replies: BTreeMap<ReplyTo, Reply>,
    order: Vec<ReplyTo>,
    reads: VecDeque<(ReadToken, Wid, Seq, Range<u64>)>,
    cold: VecDeque<(ReadToken, ColdRead)>,
    searches: VecDeque<(LookupToken, Source, Seek)>,
    manifests: VecDeque<(TopicPartition, LeaderEpoch)>,
    /// Lookups that want the segments of partition 0, and the manifest that they know is stale.
    finds: VecDeque<(LookupToken, Option<Rc<Manifest>>)>,
    asked: VecDeque<ToControl>,
    to_lane: Vec<ToLane>,
    mutes: Vec<(ConnectionId, Mono)>,
    wid: Wid,
    next_seq: u64,
    objects: BTreeMap<(Wid, Seq), Bytes>,
    segments: Segments,
    committed: BTreeMap<TopicPartition, CommittedPartition>,
}

impl World {
    /// A shard that leads two partitions at epoch 1.
    fn new() -> World {
        World::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ShardConfig)) -> World {
        let mut config = ShardConfig {
            shard: ShardIndex(0),
            node: 1,
            sharing_port: None,
            tail_bytes: 1 << 20,
            read_bytes: 1 << 20,
            block_bytes: 1 << 16,
            lookup_bytes: 1 << 20,
            response_bytes: 16 << 20,
            producer_bytes: 16 << 20,
            group_bytes: 16 << 20,
            auto_create: true,
            boot: BootId(1),
        };
        change(&mut config);
        let mut world = World {
            core: ShardCore::new(config),
            now: Now { mono: Mono(1), wall: WallMs(1_000_000) },
            next_request: 0,
            replies: BTreeMap::new(),
            order: Vec::new(),
            reads: VecDeque::new(),
            cold: VecDeque::new(),
            searches: VecDeque::new(),
            manifests: VecDeque::new(),
            finds: VecDeque::new(),
            asked: VecDeque::new(),
            to_lane: Vec::new(),
            mutes: Vec::new(),
            wid: Wid(7),
            next_seq: 0,
            objects: BTreeMap::new(),
            segments: Segments::default(),
            committed: BTreeMap::new(),
        };
        world.set_image(|_| {});
        for index in 0..2 {
            world.acquire(partition(index), CommittedPartition::born(LeaderEpoch(1)));
        }
        world
    }

    fn set_image(&mut self, change: impl FnOnce(&mut ClusterImage)) {
        let mut image = ClusterImage { cluster_id: "c".into(), controller: 1, ready: true, ..Default::default() };
        for id in [1, 2] {
            let node = Node { id, host: "localhost".into(), port: 9091 + id as u16, rack: None, shard: None };
            image.nodes.insert(id, node);
        }
        add_topic(&mut image, TOPIC, TOPIC_ID, &[]);
        change(&mut image);
        self.core.on_control(self.now, FromControl::Image(Arc::new(image)));
        self.collect();
    }

    fn acquire(&mut self, partition: TopicPartition, state: CommittedPartition) {
        self.committed.insert(partition, state.clone());
        self.lane(ToShard::Acquired { partition, epoch: state.epoch, state: Box::new(state) });
    }

    fn lane(&mut self, message: ToShard) {
        self.core.on_lane(self.now, message);
        self.collect();
    }

    fn collect(&mut self) {
        let mut effects = Vec::new();
        self.core.take_effects(&mut effects);
        for effect in effects {
            match effect {
                Effect::Reply(to, reply) => {
                    assert!(self.replies.insert(to, reply).is_none(), "a request ends once");
                    self.order.push(to);
                }
                Effect::Read { token, wid, seq, range } => self.reads.push_back((token, wid, seq, range)),
                Effect::ColdRead { token, read } => self.cold.push_back((token, read)),
                Effect::Search { token, source, seek } => self.searches.push_back((token, source, seek)),
                Effect::FindSegments { token, partition: found, stale } => {
                    assert_eq!(found, partition(0), "no other has segments");
                    self.finds.push_back((token, stale));
                }
                Effect::ReadManifest { partition, epoch } => self.manifests.push_back((partition, epoch)),
                Effect::ToControl(message) => self.asked.push_back(message),
                Effect::ToLane(message) => self.to_lane.push(message),
                Effect::Mute { connection, until } => self.mutes.push((connection, until)),
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = Mono(self.now.mono.0 + ms * 1_000_000);
        self.now.wall = WallMs(self.now.wall.0 + ms as i64);
        self.core.on_time(self.now);
        self.collect();
    }

    fn send_bytes(&mut self, frame: &[u8]) -> ReplyTo {
        let reply_to = ReplyTo { connection: ConnectionId(1), request: RequestNumber(self.next_request) };
        self.next_request += 1;
        self.core.on_request(self.now, reply_to, Frame::copied(frame), None);
        self.collect();
        reply_to
    }

    fn send<R: Request>(&mut self, request: &R, version: i16) -> ReplyTo {
        let frame = request_frame(request, version, 77, Some("test".into())).unwrap().concat();
        self.send_bytes(&frame[LENGTH_BYTES..])
    }

    /// The reply, decoded, if it has come.
    fn answer<R: Request>(&self, to: ReplyTo, version: i16) -> Option<R::Response> {
        let Reply::Frame(slices) = self.replies.get(&to)? else { panic!("no frame: {:?}", self.replies.get(&to)) };
        let frame = Bytes::from(slices.concat());
        let (correlation, response) = decode_response::<R::Response>(&frame.slice(LENGTH_BYTES..), version).unwrap();
        assert_eq!(correlation, 77);
        Some(response)
    }

    fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let to = self.send(request, version);
        self.answer::<R>(to, version).expect("answered at once")
    }

    fn produce(&mut self, acks: i16, batches: &[(u32, Bytes)]) -> ReplyTo {
        self.send(&produce_request(acks, batches), PRODUCE)
    }

    /// The results of a produce request, in its order, if it has been answered.
    fn produced(&self, to: ReplyTo) -> Option<Vec<PartitionProduceResponse>> {
        let response: ProduceResponse = self.answer::<ProduceRequest>(to, PRODUCE)?;
        Some(response.responses.into_iter().flat_map(|topic| topic.partition_responses).collect())
    }

    /// Produces one batch with acks −1 and commits it.
    fn write(&mut self, index: u32, batch: Bytes) -> i64 {
        let to = self.produce(-1, &[(index, batch)]);
        self.commit();
        let result = &self.produced(to).expect("committed")[0];
        assert_eq!(result.error_code, ErrorCode::None);
        result.base_offset
    }

    /// Takes the next seal and stores it as an object that is not committed yet.
    fn seal(&mut self) -> Option<(Seal, Arc<CommittedObject>)> {
        let seal = self.core.take_seal(self.now)?;
        let mut body = vec![0; OBJECT_HEADER];
        let mut footer = Footer::default();
        for entry in &seal.entries {
            let position = body.len();
            let (mut offsets, mut bytes, mut batches) = (0, 0, Vec::new());
            for batch in &entry.batches {
                let flags = 0;
                batches.push(BatchEntry {
                    offset_delta: offsets,
                    position_delta: bytes,
                    count: batch.count,
                    producer: batch.producer,
                    flags,
                });
                offsets += batch.count;
                bytes += batch.length;
            }
            entry.slices.iter().for_each(|slice| body.extend_from_slice(slice));
            assert_eq!(body.len() - position, bytes as usize, "the slices are the batches");
            footer.partitions.push(PartitionEntry {
                partition: entry.partition,
                epoch: entry.epoch,
                base: entry.base,
                last: entry.base.plus(i64::from(offsets) - 1),
                position: position as u32,
                length: bytes,
                max_timestamp: entry.batches.iter().map(|batch| batch.max_timestamp).max().unwrap(),
                batches,
            });
        }
        let object = CommittedObject { wid: self.wid, seq: Seq(self.next_seq), sealed_at: self.now.wall, footer };
        self.next_seq += 1;
        self.objects.insert((object.wid, object.seq), body.into());
        Some((seal, Arc::new(object)))
    }

    fn commit_sealed(&mut self, seal: &Seal, object: Arc<CommittedObject>) {
        use millrace_storage::partition::ObjectPlace;
        for entry in &object.footer.partitions {
            let place = ObjectPlace { wid: object.wid, seq: object.seq, sealed_at: object.sealed_at };
            self.committed.get_mut(&entry.partition).unwrap().fold(place, entry).unwrap();
        }
        self.lane(ToShard::Committed { through: seal.number + 1, objects: vec![object], waits: vec![] });
    }

    /// Seals and commits everything that was appended.
    fn commit(&mut self) {
        while let Some((seal, object)) = self.seal() {
            self.commit_sealed(&seal, object);
        }
    }

    /// Commits an object that raises the log start of partition 0.
    fn raise_log_start(&mut self, offset: i64) {
        let mut footer = Footer::default();
        footer.log_starts.push(LogStartEntry { partition: partition(0), offset: Offset(offset) });
        let (wid, seq) = (self.wid, Seq(self.next_seq));
        self.next_seq += 1;
        let object = CommittedObject { wid, seq, sealed_at: self.now.wall, footer };
        self.committed.get_mut(&partition(0)).unwrap().fold_log_start(Offset(offset));
        self.lane(ToShard::Committed { through: 0, objects: vec![Arc::new(object)], waits: vec![] });
    }

    /// Answers the reads under way until there are none, and says how many those were.
    fn serve_reads(&mut self) -> usize {
        let mut served = 0;
        while let Some((token, wid, seq, range)) = self.reads.pop_front() {
            let object = &self.objects[&(wid, seq)];
            let end = object.len().min(range.end as usize);
            let bytes = object.slice(range.start as usize..end);
            self.core.on_read(self.now, token, Ok(Some(bytes)));
            self.collect();
            served += 1;
        }
        served
    }

    /// Restarts the shard: a new core that acquires what was committed, at the next epoch.
    fn restart(&mut self, change: impl FnOnce(&mut ShardConfig)) {
        let committed = std::mem::take(&mut self.committed);
        let objects = std::mem::take(&mut self.objects);
        let segments = std::mem::take(&mut self.segments);
        let (next_seq, next_request) = (self.next_seq, self.next_request);
        *self = World::with(change);
        (self.objects, self.segments) = (objects, segments);
        (self.next_seq, self.next_request) = (next_seq, next_request);
        for (partition, state) in committed {
            self.acquire(partition, state.next_epoch());
        }
    }

    fn fetch(&mut self, ask: &Ask) -> ReplyTo {
        self.send(&ask.request(), FETCH)
    }

    /// The partitions of a fetch response, in the request's order, if it has been answered.
    fn fetched(&self, to: ReplyTo) -> Option<Vec<PartitionData>> {
        let response: FetchResponse = self.answer::<FetchRequest>(to, FETCH)?;
        assert_eq!((response.error_code, response.session_id), (ErrorCode::None, 0));
        Some(response.responses.into_iter().flat_map(|topic| topic.partitions).collect())
    }

    /// Fetches one partition at once, reads included; the base offsets and bytes that came.
    fn read(&mut self, ask: &Ask) -> PartitionData {
        let to = self.fetch(ask);
        self.serve_reads();
        self.fetched(to).expect("answered").remove(0)
    }
}

fn add_topic(image: &mut ClusterImage, name: &str, id: TopicId, settings: &[(&str, &str)]) {
    let led = PartitionImage { leader: Some(1), epoch: LeaderEpoch(1), shard: ShardIndex(0) };
    let topic = TopicImage {
        id,
        name: name.into(),
        partitions: vec![led; 3],
        settings: settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        deleting: false,
    };
    image.topics.insert(name.into(), Arc::new(topic));
    image.names.insert(id, name.into());
}

fn produce_request(acks: i16, batches: &[(u32, Bytes)]) -> ProduceRequest {
    let partition_data = batches
        .iter()
        .map(|(index, batch)| PartitionProduceData { index: *index as i32, records: Some(batch.clone()) })
        .collect();
    let topic = TopicProduceData { name: TOPIC.into(), partition_data, ..Default::default() };
    ProduceRequest { acks, timeout_ms: 1000, topic_data: vec![topic], ..Default::default() }
}

/// What a test fetches.
#[derive(Clone)]
struct Ask {
    /// Partition, offset, limit.
    partitions: Vec<(i32, i64, i32)>,
    epoch: i32,
    max_bytes: i32,
    min_bytes: i32,
    wait_ms: i32,
}

impl Ask {
    fn from(offset: i64) -> Ask {
        Ask { partitions: vec![(0, offset, 1 << 20)], epoch: -1, max_bytes: 1 << 20, min_bytes: 1, wait_ms: 0 }
    }

    fn request(&self) -> FetchRequest {
        let partitions = self.partitions.iter().map(|&(partition, fetch_offset, partition_max_bytes)| FetchPartition {
            partition,
            fetch_offset,
            partition_max_bytes,
            current_leader_epoch: self.epoch,
            ..Default::default()
        });
        let topic = FetchTopic { topic: TOPIC.into(), partitions: partitions.collect(), ..Default::default() };
        FetchRequest {
            max_wait_ms: self.wait_ms,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            topics: vec![topic],
            ..Default::default()
        }
    }
}

/// Builds a batch of `count` records with values of `size` bytes.
struct BatchOf {
    count: u32,
    size: usize,
    producer: (i64, i16, i32),
    attributes: i16,
    timestamp: i64,
}

impl BatchOf {
    fn plain(count: u32, size: usize) -> Bytes {
        BatchOf { count, size, producer: (-1, -1, -1), attributes: 0, timestamp: 1_000_000 }.build()
    }

    fn idempotent(count: u32, id: i64, first_sequence: i32) -> Bytes {
        BatchOf { count, size: 10, producer: (id, 0, first_sequence), attributes: 0, timestamp: 1_000_000 }.build()
    }

    fn build(&self) -> Bytes {
        let (id, epoch, base_sequence) = self.producer;
        let mut builder = BatchBuilder::new(self.timestamp).attributes(self.attributes);
        if id >= 0 {
            builder = builder.producer(BatchProducer { id, epoch, base_sequence });
        }
        for _ in 0..self.count {
            builder.push(None, Some(&vec![b'v'; self.size]));
        }
        builder.finish().into()
    }
}

/// Base offsets of the whole batches in a record set.
fn bases(data: &PartitionData) -> Vec<i64> {
    let bytes = data.records.as_ref().map(|records| records.concat()).unwrap_or_default();
    let mut batches = Batches::new(&bytes);
    let bases = batches.by_ref().map(|batch| batch.unwrap().base_offset()).collect();
    assert!(batches.rest().is_empty(), "whole batches");
    bases
}
