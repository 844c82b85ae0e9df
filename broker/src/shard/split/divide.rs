//! How requests divide by partition or by group, and how their answers are put together: pure, one `impl` for each API.
//!
//! 1. Every element of a request is in exactly one part, those of one partition or group in the same one and in order.
//! 2. A topic that is named by its own, without partitions, goes with the asker's part.

use super::Routes;
use crate::handlers::topics;
use millrace_protocol::StrBytes;
use millrace_protocol::codec::Request;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::delete_records::{DeleteRecordsTopic, DeleteRecordsTopicResult};
use millrace_protocol::messages::describe_log_dirs::DescribeLogDirsTopic;
use millrace_protocol::messages::describe_producers::{DescribeProducersTopic, DescribeProducersTopicResponse};
use millrace_protocol::messages::list_offsets::{ListOffsetsTopic, ListOffsetsTopicResponse};
use millrace_protocol::messages::offset_for_leader_epoch::{OffsetForLeaderTopic, OffsetForLeaderTopicResult};
use millrace_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest,
    DeleteGroupsResponse, DeleteRecordsRequest, DeleteRecordsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest, DescribeProducersResponse,
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListGroupsResponse, ListOffsetsRequest,
    ListOffsetsResponse, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetFetchResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, SyncGroupRequest,
};
use millrace_storage::ids::ShardIndex;
use std::collections::BTreeMap;

/// A request that can be served in parts.
pub(super) trait Divide: Request {
    /// Its parts by owner, at least one.
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self>;
    /// The answer, of those of the parts in order.
    fn join(parts: Vec<Self::Response>) -> Self::Response;
}

/// Elements by owner.
fn by_owner<P>(elements: Vec<P>, owner: impl Fn(&P) -> ShardIndex) -> BTreeMap<ShardIndex, Vec<P>> {
    let mut parts: BTreeMap<ShardIndex, Vec<P>> = BTreeMap::new();
    for element in elements {
        parts.entry(owner(&element)).or_default().push(element);
    }
    parts
}

/// Requests of what each owner has; one of nothing is the asker's.
fn requests<E, R>(
    routes: &Routes,
    mut parts: BTreeMap<ShardIndex, Vec<E>>,
    part: impl Fn(Vec<E>) -> R,
) -> BTreeMap<ShardIndex, R> {
    if parts.is_empty() {
        parts.insert(routes.own, Vec::new());
    }
    parts.into_iter().map(|(owner, elements)| (owner, part(elements))).collect()
}

/// A request by owner of its partitions. `index` tells a partition's, `made` puts a topic together, `part` a request.
fn by_partition<T, P, R>(
    routes: &Routes,
    topics: Vec<T>,
    taken: impl Fn(T) -> (StrBytes, Vec<P>),
    index: impl Fn(&P) -> i32,
    made: impl Fn(StrBytes, Vec<P>) -> T,
    part: impl Fn(Vec<T>) -> R,
) -> BTreeMap<ShardIndex, R> {
    let mut parts: BTreeMap<ShardIndex, Vec<T>> = BTreeMap::new();
    for topic in topics {
        let (name, partitions) = taken(topic);
        let mut divided =
            by_owner(partitions, |asked| routes.found(topics::by_name(&routes.image, &name, index(asked))));
        if divided.is_empty() {
            divided.insert(routes.own, Vec::new());
        }
        for (owner, partitions) in divided {
            parts.entry(owner).or_default().push(made(name.clone(), partitions));
        }
    }
    requests(routes, parts, part)
}

/// A request by coordinator of its groups; `part` puts a request together.
fn by_group<G, R>(
    routes: &Routes,
    groups: Vec<G>,
    name: impl Fn(&G) -> &str,
    part: impl Fn(Vec<G>) -> R,
) -> BTreeMap<ShardIndex, R> {
    let parts = by_owner(groups, |group| routes.group(name(group)));
    requests(routes, parts, part)
}

/// Topics of several answers, each once, in the order of their first appearance.
fn topics_of<T, P>(
    parts: impl Iterator<Item = Vec<T>>,
    name: impl Fn(&T) -> &StrBytes,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
) -> Vec<T> {
    let mut topics: Vec<T> = Vec::new();
    let mut places: BTreeMap<StrBytes, usize> = BTreeMap::new();
    for mut topic in parts.flatten() {
        let place = *places.entry(name(&topic).clone()).or_insert(topics.len());
        match topics.get_mut(place) {
            Some(known) => partitions(known).append(partitions(&mut topic)),
            None => topics.push(topic),
        }
    }
    topics
}

impl Divide for ListOffsetsRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        let (replica_id, isolation_level, timeout_ms) = (self.replica_id, self.isolation_level, self.timeout_ms);
        by_partition(
            routes,
            self.topics,
            |topic| (topic.name, topic.partitions),
            |asked| asked.partition_index,
            |name, partitions| ListOffsetsTopic { name, partitions },
            |topics| ListOffsetsRequest { replica_id, isolation_level, topics, timeout_ms },
        )
    }

    fn join(parts: Vec<ListOffsetsResponse>) -> ListOffsetsResponse {
        let topics = parts.into_iter().map(|part| part.topics);
        let topics = topics_of(topics, |topic: &ListOffsetsTopicResponse| &topic.name, |topic| &mut topic.partitions);
        ListOffsetsResponse { topics, ..Default::default() }
    }
}

impl Divide for OffsetForLeaderEpochRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        let replica_id = self.replica_id;
        by_partition(
            routes,
            self.topics,
            |topic| (topic.topic, topic.partitions),
            |asked| asked.partition,
            |topic, partitions| OffsetForLeaderTopic { topic, partitions },
            |topics| OffsetForLeaderEpochRequest { replica_id, topics },
        )
    }

    fn join(parts: Vec<OffsetForLeaderEpochResponse>) -> OffsetForLeaderEpochResponse {
        let topics = parts.into_iter().map(|part| part.topics);
        let topics =
            topics_of(topics, |topic: &OffsetForLeaderTopicResult| &topic.topic, |topic| &mut topic.partitions);
        OffsetForLeaderEpochResponse { topics, ..Default::default() }
    }
}

impl Divide for DeleteRecordsRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        let timeout_ms = self.timeout_ms;
        by_partition(
            routes,
            self.topics,
            |topic| (topic.name, topic.partitions),
            |asked| asked.partition_index,
            |name, partitions| DeleteRecordsTopic { name, partitions },
            |topics| DeleteRecordsRequest { topics, timeout_ms },
        )
    }

    fn join(parts: Vec<DeleteRecordsResponse>) -> DeleteRecordsResponse {
        let topics = parts.into_iter().map(|part| part.topics);
        let topics = topics_of(topics, |topic: &DeleteRecordsTopicResult| &topic.name, |topic| &mut topic.partitions);
        DeleteRecordsResponse { topics, ..Default::default() }
    }
}

impl Divide for DescribeProducersRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        by_partition(
            routes,
            self.topics,
            |topic| (topic.name, topic.partition_indexes),
            |index| *index,
            |name, partition_indexes| DescribeProducersTopic { name, partition_indexes },
            |topics| DescribeProducersRequest { topics },
        )
    }

    fn join(parts: Vec<DescribeProducersResponse>) -> DescribeProducersResponse {
        let topics = parts.into_iter().map(|part| part.topics);
        let topics =
            topics_of(topics, |topic: &DescribeProducersTopicResponse| &topic.name, |topic| &mut topic.partitions);
        DescribeProducersResponse { topics, ..Default::default() }
    }
}

impl Divide for DescribeLogDirsRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        // Each answers for what it leads.
        routes.all().map(|owner| (owner, self.clone())).collect()
    }

    fn join(parts: Vec<DescribeLogDirsResponse>) -> DescribeLogDirsResponse {
        let mut results = parts.into_iter().flat_map(|part| part.results);
        let mut place = results.next().expect("every shard answers for the one place");
        let topics = std::iter::once(std::mem::take(&mut place.topics)).chain(results.map(|other| other.topics));
        place.topics = topics_of(topics, |topic: &DescribeLogDirsTopic| &topic.name, |topic| &mut topic.partitions);
        DescribeLogDirsResponse { results: vec![place], ..Default::default() }
    }
}

impl Divide for ListGroupsRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        routes.all().map(|owner| (owner, self.clone())).collect()
    }

    fn join(parts: Vec<ListGroupsResponse>) -> ListGroupsResponse {
        let failed = parts.iter().map(|part| part.error_code).find(|code| *code != ErrorCode::None);
        let groups = parts.into_iter().flat_map(|part| part.groups).collect();
        ListGroupsResponse { error_code: failed.unwrap_or(ErrorCode::None), groups, ..Default::default() }
    }
}

impl Divide for DescribeGroupsRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        let include_authorized_operations = self.include_authorized_operations;
        let part = |groups| DescribeGroupsRequest { groups, include_authorized_operations };
        by_group(routes, self.groups, |group| group, part)
    }

    fn join(parts: Vec<DescribeGroupsResponse>) -> DescribeGroupsResponse {
        let groups = parts.into_iter().flat_map(|part| part.groups).collect();
        DescribeGroupsResponse { groups, ..Default::default() }
    }
}

impl Divide for ConsumerGroupDescribeRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        let include_authorized_operations = self.include_authorized_operations;
        let part = |group_ids| ConsumerGroupDescribeRequest { group_ids, include_authorized_operations };
        by_group(routes, self.group_ids, |group| group, part)
    }

    fn join(parts: Vec<ConsumerGroupDescribeResponse>) -> ConsumerGroupDescribeResponse {
        let groups = parts.into_iter().flat_map(|part| part.groups).collect();
        ConsumerGroupDescribeResponse { groups, ..Default::default() }
    }
}

impl Divide for DeleteGroupsRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        by_group(routes, self.groups_names, |group| group, |groups_names| DeleteGroupsRequest { groups_names })
    }

    fn join(parts: Vec<DeleteGroupsResponse>) -> DeleteGroupsResponse {
        let results = parts.into_iter().flat_map(|part| part.results).collect();
        DeleteGroupsResponse { results, ..Default::default() }
    }
}

impl Divide for OffsetFetchRequest {
    fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
        if self.groups.is_empty() {
            // The versions of one group; later ones without any are the asker's.
            return BTreeMap::from([(routes.group(&self.group_id), self)]);
        }
        let require_stable = self.require_stable;
        let part = |groups| OffsetFetchRequest { groups, require_stable, ..Default::default() };
        by_group(routes, self.groups, |group| &group.group_id, part)
    }

    fn join(parts: Vec<OffsetFetchResponse>) -> OffsetFetchResponse {
        let groups = parts.into_iter().flat_map(|part| part.groups).collect();
        OffsetFetchResponse { groups, ..Default::default() }
    }
}

/// Requests of one group: they are never divided, but may be another shard's.
macro_rules! of_one_group {
    ($($request:ty),*) => {
        $(impl Divide for $request {
            fn divide(self, routes: &Routes) -> BTreeMap<ShardIndex, Self> {
                BTreeMap::from([(routes.group(&self.group_id), self)])
            }

            fn join(_: Vec<Self::Response>) -> Self::Response {
                unreachable!("one group has one coordinator")
            }
        })*
    };
}

of_one_group!(
    JoinGroupRequest,
    SyncGroupRequest,
    HeartbeatRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetDeleteRequest,
    ConsumerGroupHeartbeatRequest
);
