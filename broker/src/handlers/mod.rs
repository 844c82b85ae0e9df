//! One file per API: each takes a decoded request and the shard's core, and answers at once or leaves the request in
//! one of the core's tables.
//!
//! 1. Every request ends with exactly one reply.
//! 2. A key or version that is not advertised closes the connection, as in Kafka; only ApiVersions itself answers.

pub mod errors;

pub(crate) mod alter_client_quotas;
pub(crate) mod alter_configs;
pub(crate) mod alter_partition_reassignments;
pub(crate) mod api_versions;
pub(crate) mod config_changes;
pub(crate) mod consumer_group_describe;
pub(crate) mod consumer_group_heartbeat;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_client_quotas;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod describe_quorum;
pub(crate) mod describe_topic_partitions;
pub(crate) mod elect_leaders;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod group_desk;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_config_resources;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_partition_reassignments;
pub mod metadata;
pub(crate) mod node_configs;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod operations;
pub(crate) mod produce;
pub(crate) mod questions;
pub(crate) mod sync_group;
pub(crate) mod topics;
pub(crate) mod update_features;

use crate::net::budget::Permit;
use crate::net::frame::Frame;
use crate::shard::core::ShardCore;
use crate::shard::events::{Now, Reply, ReplyTo};
use crate::shard::split;
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::api::ApiKey;
use millrace_protocol::codec::{Message, Request};
use millrace_protocol::frame::{PEEK_BYTES, RequestHeader, peek, response_frame};
use millrace_protocol::wire::Reader;

/// What the answer to a request must repeat, and where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestContext {
    /// The request's way back.
    pub reply_to: ReplyTo,
    /// Version of request and response.
    pub version: i16,
    /// The client's number for it.
    pub correlation_id: i32,
}

impl RequestContext {
    /// The frame of a response.
    ///
    /// # Panics
    /// If the response has no form in the request's version: a mistake of its handler.
    pub(crate) fn encode<M: Message>(&self, response: &M) -> Vec<Bytes> {
        response_frame(response, self.version, self.correlation_id).expect("handlers answer in the version asked for")
    }

    /// Ends the request with a response.
    pub(crate) fn reply<M: Message>(&self, core: &mut ShardCore, response: &M) {
        let frame = self.encode(response);
        core.end(self.reply_to, Reply::Frame(frame));
    }
}

/// Bytes of a text for people in a response: texts may quote what the client sent, and the wire's strings end at 32 KiB.
const LONGEST_MESSAGE: usize = 1024;

/// A text for people, cut where it is too long.
pub(crate) fn message(mut text: String) -> StrBytes {
    text.truncate(text.floor_char_boundary(LONGEST_MESSAGE));
    StrBytes::from(text)
}

/// Ends the request by closing its connection.
pub(crate) fn close(core: &mut ShardCore, reply_to: ReplyTo, why: &'static str) {
    core.counters.refused_connections += 1;
    core.end(reply_to, Reply::Close(why));
}

/// Hands a request to the file named after its API.
pub(crate) fn dispatch(core: &mut ShardCore, now: Now, reply_to: ReplyTo, frame: Frame, permit: Option<Permit>) {
    core.counters.requests += 1;
    let Some(fixed) = frame.bytes().first_chunk::<PEEK_BYTES>() else {
        return close(core, reply_to, "a request shorter than its header");
    };
    let fixed = peek(fixed);
    let Some(key) = ApiKey::from_code(fixed.api_key) else {
        return close(core, reply_to, "an unknown API");
    };
    let context = RequestContext { reply_to, version: fixed.api_version, correlation_id: fixed.correlation_id };
    if !key.serves(fixed.api_version) {
        if key == ApiKey::ApiVersions {
            return api_versions::refuse(core, context);
        }
        return close(core, reply_to, "a version that is not served");
    }
    if core.shares_port() {
        return split::dispatch(core, now, context, key, frame, permit);
    }
    if key == ApiKey::Produce {
        return produce::handle(core, now, context, frame, permit);
    }
    drop(permit);
    dispatch_decoded(core, now, context, key, &frame.freeze());
}

/// All APIs but Produce, whose request is decoded with slices of its frame.
pub(crate) fn dispatch_decoded(core: &mut ShardCore, now: Now, context: RequestContext, key: ApiKey, frame: &Bytes) {
    let mut body = Reader::new(frame);
    let Ok(header) = RequestHeader::decode(&mut body) else {
        return close(core, context.reply_to, "a broken request header");
    };
    let to = (core, now, context, &mut body);
    match key {
        ApiKey::ApiVersions => answer(to, api_versions::handle),
        ApiKey::Metadata => answer(to, metadata::handle),
        ApiKey::Fetch => answer(to, |core, now, context, request| {
            fetch::handle(core, now, context, request, header.client_id);
        }),
        ApiKey::ListOffsets => answer(to, list_offsets::handle),
        ApiKey::InitProducerId => answer(to, init_producer_id::handle),
        ApiKey::CreateTopics => answer(to, create_topics::handle),
        ApiKey::CreatePartitions => answer(to, create_partitions::handle),
        ApiKey::DeleteTopics => answer(to, delete_topics::handle),
        ApiKey::DeleteRecords => answer(to, delete_records::handle),
        ApiKey::DescribeTopicPartitions => answer(to, describe_topic_partitions::handle),
        ApiKey::OffsetForLeaderEpoch => answer(to, offset_for_leader_epoch::handle),
        ApiKey::DescribeCluster => answer(to, describe_cluster::handle),
        ApiKey::DescribeConfigs => answer(to, describe_configs::handle),
        ApiKey::AlterConfigs => answer(to, alter_configs::handle),
        ApiKey::IncrementalAlterConfigs => answer(to, incremental_alter_configs::handle),
        ApiKey::DescribeClientQuotas => answer(to, describe_client_quotas::handle),
        ApiKey::AlterClientQuotas => answer(to, alter_client_quotas::handle),
        ApiKey::ListConfigResources => answer(to, list_config_resources::handle),
        ApiKey::DescribeLogDirs => answer(to, describe_log_dirs::handle),
        ApiKey::DescribeProducers => answer(to, describe_producers::handle),
        ApiKey::DescribeQuorum => answer(to, describe_quorum::handle),
        ApiKey::ElectLeaders => answer(to, elect_leaders::handle),
        ApiKey::AlterPartitionReassignments => answer(to, alter_partition_reassignments::handle),
        ApiKey::ListPartitionReassignments => answer(to, list_partition_reassignments::handle),
        ApiKey::UpdateFeatures => answer(to, update_features::handle),
        ApiKey::OffsetDelete => answer(to, offset_delete::handle),
        ApiKey::FindCoordinator => answer(to, find_coordinator::handle),
        ApiKey::JoinGroup => answer(to, |core, now, context, request| {
            join_group::handle(core, now, context, request, header.client_id);
        }),
        ApiKey::ConsumerGroupHeartbeat => answer(to, |core, now, context, request| {
            consumer_group_heartbeat::handle(core, now, context, request, header.client_id);
        }),
        ApiKey::ConsumerGroupDescribe => answer(to, consumer_group_describe::handle),
        ApiKey::SyncGroup => answer(to, sync_group::handle),
        ApiKey::Heartbeat => answer(to, heartbeat::handle),
        ApiKey::LeaveGroup => answer(to, leave_group::handle),
        ApiKey::OffsetCommit => answer(to, offset_commit::handle),
        ApiKey::OffsetFetch => answer(to, offset_fetch::handle),
        ApiKey::DescribeGroups => answer(to, describe_groups::handle),
        ApiKey::ListGroups => answer(to, list_groups::handle),
        ApiKey::DeleteGroups => answer(to, delete_groups::handle),
        // Kafka's table of keys is long; what is advertised and not named here is a mistake that a test finds.
        _ => close(to.0, context.reply_to, "an API that is not served"),
    }
}

/// A handler's arguments, and the request's body still to be decoded.
type Undecoded<'a, 'b> = (&'a mut ShardCore, Now, RequestContext, &'a mut Reader<'b>);

fn answer<R: Request>(to: Undecoded<'_, '_>, handle: impl FnOnce(&mut ShardCore, Now, RequestContext, R)) {
    let (core, now, context, body) = to;
    match R::decode(body, context.version) {
        Ok(request) => handle(core, now, context, request),
        Err(_) => close(core, context.reply_to, "a broken request"),
    }
}
