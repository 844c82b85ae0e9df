//! Generated requests: every API and version gets some, made of names, ids and numbers that exist, do not exist, are
//! empty, null, negative or said twice.
//!
//! 1. The same seed gives both brokers the same request, but for ids that are a broker's own.
//! 2. Of every version one request is cut short, and one for each field has null where none may be: no broker may take
//!    that for something else.
//! 3. No generated request leaves a broker waiting, and none changes what a later one is answered: nothing is created,
//!    joined or committed but in a group of no other use.

mod admin;
mod consumer_groups;
mod nulls;

use crate::dice::{Dice, MOST_ELEMENTS};
use crate::names::unknown_id;
use crate::pair::{Pair, Side, versions};
use crate::scenarios::{alone, batch, fetch};
use crate::tree::Tree;
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::codec::Request;
use millrace_protocol::frame::{LENGTH_BYTES, request_frame};
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic};
use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use millrace_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::messages::{
    AlterClientQuotasRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, ApiVersionsRequest,
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClientQuotasRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest, FetchRequest,
    FetchResponse, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListGroupsResponse,
    ListOffsetsRequest, ListPartitionReassignmentsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest, UpdateFeaturesRequest,
    create_topics, delete_topics, describe_configs, join_group, leave_group, sync_group,
};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use uuid::Uuid;

/// Topics that exist for generated requests.
const TOPICS: [&str; 2] = ["first", "second"];
/// What a request is made of on one side and in one version.
struct Maker<'a> {
    side: &'a Side,
    version: i16,
    dice: Dice,
}

impl Maker<'_> {
    fn topic(&mut self) -> StrBytes {
        match self.dice.pick(&["first", "second", "nowhere", "", "a/b"]) {
            literal @ ("" | "a/b") => literal.into(),
            name => self.side.name(name),
        }
    }

    fn topic_id(&mut self) -> Uuid {
        match self.dice.below(4) {
            0 => self.side.id(TOPICS[0]),
            1 => self.side.id(TOPICS[1]),
            2 => unknown_id(),
            _ => Uuid::nil(),
        }
    }

    /// A name before this version, an id from it on.
    fn name_or_id(&mut self, ids_from: i16) -> (StrBytes, Uuid) {
        if self.version >= ids_from { (StrBytes::new(), self.topic_id()) } else { (self.topic(), Uuid::nil()) }
    }

    fn group(&mut self) -> StrBytes {
        match self.dice.pick(&["generated", "unheard-of", ""]) {
            "" => StrBytes::new(),
            name => self.side.name(name),
        }
    }

    fn index(&mut self) -> i32 {
        self.dice.pick(&[0, 0, 1, 2, -1, i32::MAX])
    }

    fn small(&mut self) -> i32 {
        self.dice.pick(&[-1, 0, 1, 2, i32::MIN, i32::MAX])
    }

    fn offset(&mut self) -> i64 {
        self.dice.pick(&[0, 1, 5, -1, -2, i64::MAX, i64::MIN])
    }

    fn member(&mut self) -> StrBytes {
        self.dice.pick(&["", "someone", "another"]).into()
    }

    fn instance(&mut self, from: i16) -> Option<StrBytes> {
        (self.version >= from && self.dice.flip()).then(|| "instance".into())
    }

    /// A short list that says nothing twice: whose word counts then has cases of its own.
    fn list<T: Debug>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let mut seen = BTreeSet::new();
        let made: Vec<T> = (0..self.dice.below(MOST_ELEMENTS)).map(|_| make(self)).collect();
        let name = |element: &T| match Tree::of(element) {
            Tree::Leaf(value) => value,
            tree => tree.key().unwrap_or_default(),
        };
        made.into_iter().filter(|element| seen.insert(name(element))).collect()
    }
}

/// A request that can be generated.
trait Generate: Request {
    fn generate(maker: &mut Maker<'_>) -> Self;

    /// Changes a response before it is compared.
    fn clean(_response: &mut Self::Response) {}
}

/// Makes the topics and runs `rounds` requests of each API and version.
pub(crate) fn run(pair: &mut Pair, seed: u64, rounds: u64) -> io::Result<()> {
    for topic in TOPICS {
        pair.make_topic(topic, 2)?;
    }
    each::<ApiVersionsRequest>(pair, seed, rounds)?;
    each::<MetadataRequest>(pair, seed, rounds)?;
    each::<DescribeClusterRequest>(pair, seed, rounds)?;
    each::<FindCoordinatorRequest>(pair, seed, rounds)?;
    each::<DescribeConfigsRequest>(pair, seed, rounds)?;
    each::<CreateTopicsRequest>(pair, seed, rounds)?;
    each::<DeleteTopicsRequest>(pair, seed, rounds)?;
    each::<DeleteRecordsRequest>(pair, seed, rounds)?;
    each::<CreatePartitionsRequest>(pair, seed, rounds)?;
    each::<AlterConfigsRequest>(pair, seed, rounds)?;
    each::<IncrementalAlterConfigsRequest>(pair, seed, rounds)?;
    each::<DescribeClientQuotasRequest>(pair, seed, rounds)?;
    each::<AlterClientQuotasRequest>(pair, seed, rounds)?;
    each::<ListConfigResourcesRequest>(pair, seed, rounds)?;
    each::<DescribeTopicPartitionsRequest>(pair, seed, rounds)?;
    each::<DescribeLogDirsRequest>(pair, seed, rounds)?;
    each::<DescribeProducersRequest>(pair, seed, rounds)?;
    each::<DescribeQuorumRequest>(pair, seed, rounds)?;
    each::<ElectLeadersRequest>(pair, seed, rounds)?;
    each::<AlterPartitionReassignmentsRequest>(pair, seed, rounds)?;
    each::<ListPartitionReassignmentsRequest>(pair, seed, rounds)?;
    each::<UpdateFeaturesRequest>(pair, seed, rounds)?;
    each::<InitProducerIdRequest>(pair, seed, rounds)?;
    each::<ProduceRequest>(pair, seed, rounds)?;
    settle(pair)?;
    each::<ListOffsetsRequest>(pair, seed, rounds)?;
    each::<OffsetForLeaderEpochRequest>(pair, seed, rounds)?;
    each::<FetchRequest>(pair, seed, rounds)?;
    each::<JoinGroupRequest>(pair, seed, rounds)?;
    each::<SyncGroupRequest>(pair, seed, rounds)?;
    each::<HeartbeatRequest>(pair, seed, rounds)?;
    each::<LeaveGroupRequest>(pair, seed, rounds)?;
    each::<OffsetCommitRequest>(pair, seed, rounds)?;
    each::<OffsetFetchRequest>(pair, seed, rounds)?;
    each::<OffsetDeleteRequest>(pair, seed, rounds)?;
    each::<ConsumerGroupHeartbeatRequest>(pair, seed, rounds)?;
    each::<ConsumerGroupDescribeRequest>(pair, seed, rounds)?;
    each::<DescribeGroupsRequest>(pair, seed, rounds)?;
    each::<ListGroupsRequest>(pair, seed, rounds)?;
    each::<DeleteGroupsRequest>(pair, seed, rounds)
}

/// What was acknowledged before it was durable can be read after this on both sides.
fn settle(pair: &mut Pair) -> io::Result<()> {
    for topic in TOPICS {
        pair.ask("the last batch", 9, |side| {
            let data = |index| PartitionProduceData { index, records: Some(batch(side.started_ms, 1)) };
            let partition_data = vec![data(0), data(1)];
            let topic = TopicProduceData { name: side.name(topic), partition_data, ..Default::default() };
            ProduceRequest { acks: -1, timeout_ms: 10_000, topic_data: vec![topic], ..Default::default() }
        })?;
    }
    Ok(())
}

fn each<R: Generate>(pair: &mut Pair, seed: u64, rounds: u64) -> io::Result<()> {
    for version in versions::<R>() {
        for round in 0..rounds {
            let mut mixed = Dice(seed ^ (round << 32));
            let dice = Dice(mixed.next() ^ u64::from(R::KEY.code().unsigned_abs()));
            let make = |side: &Side| R::generate(&mut Maker { side, version, dice: dice.clone() });
            pair.ask_and_clean(&format!("generated {round}"), version, make, R::clean)?;
        }
        pair.send_bytes((R::KEY, version), "cut short", true, |side| {
            let request = R::generate(&mut Maker { side, version, dice: Dice(seed) });
            cut_short(&request, version)
        })?;
        nulls::each::<R>(pair, version, seed)?;
    }
    Ok(())
}

/// A frame whose length is right, and whose request lacks its last byte.
fn cut_short<R: Request>(request: &R, version: i16) -> Bytes {
    let frame = request_frame(request, version, 1, None).expect("it has this form").concat();
    let body = &frame[LENGTH_BYTES..frame.len() - 1];
    let length = u32::try_from(body.len()).expect("a short request").to_be_bytes();
    [&length[..], body].concat().into()
}

impl Generate for ApiVersionsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        if maker.version < 3 {
            return ApiVersionsRequest::default();
        }
        let mut text = || StrBytes::from(maker.dice.pick(&["client", "1.0", "", "-", "a b", "a-b.c"]));
        ApiVersionsRequest { client_software_name: text(), client_software_version: text(), ..Default::default() }
    }
}

impl Generate for MetadataRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        // All by id or all by name: of both, and of neither, there are cases.
        let by_id = maker.version >= 12 && maker.dice.flip();
        let topic = |maker: &mut Maker<'_>| {
            if by_id {
                let topic_id = maker.dice.pick(&[maker.side.id(TOPICS[0]), unknown_id()]);
                return MetadataRequestTopic { topic_id, name: None };
            }
            let mut name = maker.topic();
            if maker.version < 4 && name == maker.side.name("nowhere") {
                name = maker.side.name(TOPICS[0]);
            }
            MetadataRequestTopic { name: Some(name), ..Default::default() }
        };
        let topics = maker.list(topic);
        let all = maker.version >= 1 && maker.dice.below(8) == 0;
        MetadataRequest {
            topics: (!all).then_some(topics),
            allow_auto_topic_creation: maker.version < 4,
            include_cluster_authorized_operations: (8..=10).contains(&maker.version) && maker.dice.flip(),
            include_topic_authorized_operations: maker.version >= 8 && maker.dice.flip(),
        }
    }
}

impl Generate for DescribeClusterRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        DescribeClusterRequest {
            include_cluster_authorized_operations: maker.dice.flip(),
            endpoint_type: if maker.version >= 1 { maker.dice.pick(&[1, 1, 0, 3]) } else { 1 },
            include_fenced_brokers: maker.version >= 2 && maker.dice.flip(),
        }
    }
}

impl Generate for FindCoordinatorRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let key_type = if maker.version >= 1 { maker.dice.pick(&[0, 0, 3, -1]) } else { 0 };
        if maker.version >= 4 {
            return FindCoordinatorRequest {
                key_type,
                coordinator_keys: maker.list(Maker::group),
                ..Default::default()
            };
        }
        FindCoordinatorRequest { key: maker.group(), key_type, ..Default::default() }
    }
}

impl Generate for DescribeConfigsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        const KEYS: [&str; 3] = ["retention.ms", "no.such.setting", "cleanup.policy"];
        let resource = |maker: &mut Maker<'_>| describe_configs::DescribeConfigsResource {
            resource_type: maker.dice.pick(&[2, 2, 2, 0, 99]),
            resource_name: maker.topic(),
            configuration_keys: Some(vec![KEYS[maker.dice.below(2) as usize].into(), KEYS[2].into()]),
        };
        // One resource, each setting once: what is named twice has cases of its own.
        DescribeConfigsRequest { resources: vec![resource(maker)], ..Default::default() }
    }
}

impl Generate for CreateTopicsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topic = |maker: &mut Maker<'_>| create_topics::CreatableTopic {
            name: maker.topic(),
            num_partitions: maker.dice.pick(&[1, 1, 2, 0, -2]),
            replication_factor: maker.dice.pick(&[1, 1, -1, 0, -2]),
            configs: maker.dice.list(|dice| create_topics::CreatableTopicConfig {
                name: dice.pick(&["retention.ms", "flush.ms", "no.such.setting"]).into(),
                value: Some(dice.pick(&["1000", "-5", "soon"]).into()),
            }),
            ..Default::default()
        };
        CreateTopicsRequest { topics: maker.list(topic), timeout_ms: 10_000, validate_only: true }
    }
}

impl Generate for DeleteTopicsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let absent = |maker: &mut Maker<'_>| maker.dice.pick(&["nowhere", "else", "a/b", ""]);
        if maker.version < 6 {
            let name = |maker: &mut Maker<'_>| StrBytes::from(absent(maker));
            return DeleteTopicsRequest { topic_names: maker.list(name), timeout_ms: 5_000, ..Default::default() };
        }
        let topic = |maker: &mut Maker<'_>| {
            // Either: of both, and of neither, there are cases.
            let name = maker.dice.flip().then(|| absent(maker).into());
            let topic_id = if name.is_some() { Uuid::nil() } else { unknown_id() };
            delete_topics::DeleteTopicState { name, topic_id }
        };
        DeleteTopicsRequest { topics: maker.list(topic), timeout_ms: 5_000, ..Default::default() }
    }
}

impl Generate for InitProducerIdRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let known = maker.version >= 3;
        InitProducerIdRequest {
            transactional_id: if maker.dice.flip() { None } else { Some(StrBytes::new()) },
            transaction_timeout_ms: maker.small(),
            producer_id: if known { maker.dice.pick(&[-1, 0, 7, i64::MIN]) } else { -1 },
            producer_epoch: if known { maker.dice.pick(&[-1, 0, 7, i16::MIN]) } else { -1 },
            ..Default::default()
        }
    }
}

impl Generate for ProduceRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topic = |maker: &mut Maker<'_>| {
            let (name, topic_id) = maker.name_or_id(13);
            let started = maker.side.started_ms;
            let partition = |maker: &mut Maker<'_>| {
                let good = batch(started, 1 + maker.dice.below(3) as u32);
                // Null records, which Kafka does not answer, have a case.
                let records = if maker.dice.below(3) == 0 { good.slice(..good.len() / 2) } else { good };
                PartitionProduceData { index: maker.index(), records: Some(records) }
            };
            TopicProduceData { name, topic_id, partition_data: maker.list(partition) }
        };
        let mut topic_data = maker.list(topic);
        topic_data.retain(|topic| !topic.partition_data.is_empty());
        ProduceRequest { acks: maker.dice.pick(&[-1, 1, 3]), timeout_ms: 10_000, topic_data, ..Default::default() }
    }
}

impl Generate for ListOffsetsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let partition = |maker: &mut Maker<'_>| ListOffsetsPartition {
            partition_index: maker.index(),
            current_leader_epoch: -1,
            timestamp: maker.dice.pick(&[-1, -2, -3, -4, -5, 0, i64::MAX]),
        };
        let topic = |maker: &mut Maker<'_>| ListOffsetsTopic { name: maker.topic(), partitions: maker.list(partition) };
        ListOffsetsRequest { replica_id: -1, topics: maker.list(topic), timeout_ms: 5_000, ..Default::default() }
    }
}

impl Generate for OffsetForLeaderEpochRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let partition = |maker: &mut Maker<'_>| OffsetForLeaderPartition {
            partition: maker.index(),
            current_leader_epoch: maker.dice.pick(&[-1, 9]),
            leader_epoch: maker.dice.pick(&[maker.side.epoch, -1, 9]),
        };
        let topic =
            |maker: &mut Maker<'_>| OffsetForLeaderTopic { topic: maker.topic(), partitions: maker.list(partition) };
        OffsetForLeaderEpochRequest { replica_id: -1, topics: maker.list(topic) }
    }
}

impl Generate for FetchRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topic = |maker: &mut Maker<'_>| {
            let (topic, mut topic_id) = maker.name_or_id(13);
            if topic_id.is_nil() {
                // Of no topic Kafka says that it failed.
                topic_id = unknown_id();
            }
            // No offset at which records lie: how many there are differs once a produce was answered differently.
            let partition = |maker: &mut Maker<'_>| FetchPartition {
                partition: maker.index(),
                fetch_offset: maker.dice.pick(&[i64::MAX, -1, -2, 1 << 40]),
                partition_max_bytes: maker.small(),
                ..Default::default()
            };
            FetchTopic { topic, topic_id, partitions: maker.list(partition) }
        };
        let topics = maker.list(topic);
        FetchRequest { max_bytes: maker.small(), min_bytes: maker.dice.pick(&[0, 1]), topics, ..Default::default() }
    }

    fn clean(response: &mut FetchResponse) {
        fetch::gathered(response);
    }
}

impl Generate for JoinGroupRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        // Someone whom the group does not know, or whom no group would take.
        let mut member_id = maker.member();
        let session_timeout_ms = maker.dice.pick(&[30_000, 1, -1, i32::MAX]);
        if session_timeout_ms == 30_000 && member_id.is_empty() {
            member_id = "someone".into();
        }
        JoinGroupRequest {
            group_id: maker.group(),
            session_timeout_ms,
            rebalance_timeout_ms: maker.small(),
            member_id,
            group_instance_id: maker.instance(5),
            protocol_type: maker.dice.pick(&["consumer", "connect", ""]).into(),
            protocols: maker.dice.list(|dice| join_group::JoinGroupRequestProtocol {
                name: dice.pick(&["range", "sticky", ""]).into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

impl Generate for SyncGroupRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let names = maker.version >= 5 && maker.dice.below(4) > 0;
        SyncGroupRequest {
            group_id: maker.group(),
            generation_id: maker.small(),
            member_id: maker.member(),
            group_instance_id: maker.instance(3),
            protocol_type: names.then(|| "consumer".into()),
            protocol_name: names.then(|| "range".into()),
            assignments: maker.list(|maker| sync_group::SyncGroupRequestAssignment {
                member_id: maker.member(),
                ..Default::default()
            }),
        }
    }
}

impl Generate for HeartbeatRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        HeartbeatRequest {
            group_id: maker.group(),
            generation_id: maker.small(),
            member_id: maker.member(),
            group_instance_id: maker.instance(3),
        }
    }
}

impl Generate for LeaveGroupRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let group_id = maker.group();
        if maker.version < 3 {
            return LeaveGroupRequest { group_id, member_id: maker.member(), ..Default::default() };
        }
        let members = maker.list(|maker| leave_group::MemberIdentity {
            member_id: maker.member(),
            group_instance_id: maker.instance(3),
            reason: None,
        });
        LeaveGroupRequest { group_id, members, ..Default::default() }
    }
}

impl Generate for OffsetCommitRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let topic = |maker: &mut Maker<'_>| {
            let (name, topic_id) = maker.name_or_id(10);
            let partitions = maker.list(|maker| OffsetCommitRequestPartition {
                partition_index: maker.index(),
                committed_offset: maker.offset(),
                committed_metadata: maker.dice.flip().then(|| "noted".into()),
                ..Default::default()
            });
            OffsetCommitRequestTopic { name, topic_id, partitions }
        };
        let mut topics = maker.list(topic);
        topics.retain(|topic| !topic.partitions.is_empty());
        // What is committed to no name has a case.
        let group_id = maker.dice.pick(&["generated", "unheard-of"]);
        OffsetCommitRequest {
            topics,
            group_id: maker.side.name(group_id),
            generation_id_or_member_epoch: maker.dice.pick(&[-1, -1, 0, 3]),
            member_id: maker.dice.pick(&["", "", "someone"]).into(),
            ..Default::default()
        }
    }
}

impl Generate for OffsetFetchRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let require_stable = maker.version >= 7 && maker.dice.flip();
        let all = maker.version >= 2 && maker.dice.below(4) == 0;
        if maker.version < 8 {
            let topics = maker.list(|maker| OffsetFetchRequestTopic {
                name: maker.topic(),
                partition_indexes: maker.list(Maker::index),
            });
            let topics = (!all).then_some(topics);
            return OffsetFetchRequest { group_id: maker.group(), topics, require_stable, ..Default::default() };
        }
        let groups = maker.list(|maker| {
            let topics = maker.list(|maker| {
                let (name, topic_id) = maker.name_or_id(10);
                OffsetFetchRequestTopics { name, topic_id, partition_indexes: maker.list(Maker::index) }
            });
            let topics = (!all).then_some(topics);
            OffsetFetchRequestGroup { group_id: maker.group(), topics, ..Default::default() }
        });
        OffsetFetchRequest { groups, require_stable, ..Default::default() }
    }
}

impl Generate for DescribeGroupsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        DescribeGroupsRequest {
            groups: maker.list(Maker::group),
            include_authorized_operations: maker.version >= 3 && maker.dice.flip(),
        }
    }
}

impl Generate for ListGroupsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        let states = maker.dice.list(|dice| dice.pick(&["Stable", "Empty", "dead", "nonsense"]).into());
        let types = maker.dice.list(|dice| dice.pick(&["classic", "Consumer"]).into());
        ListGroupsRequest {
            states_filter: if maker.version >= 4 { states } else { Vec::new() },
            types_filter: if maker.version >= 5 { types } else { Vec::new() },
        }
    }

    fn clean(response: &mut ListGroupsResponse) {
        alone("generated")(response);
    }
}

impl Generate for DeleteGroupsRequest {
    fn generate(maker: &mut Maker<'_>) -> Self {
        DeleteGroupsRequest { groups_names: maker.list(Maker::group) }
    }
}
