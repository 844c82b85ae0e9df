//! Consumer groups over the end of their coordinator.

use crate::kafka::Client;
use crate::program::{Broker, directory, until};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use millrace_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use millrace_protocol::messages::sync_group::SyncGroupRequestAssignment;
use millrace_protocol::messages::{
    FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};

const GROUP: &str = "readers";
const ASSIGNMENT: &[u8] = b"all of it";

/// A member that knows its place.
pub(crate) struct Member {
    id: String,
    generation: i32,
}

/// The address of the group's coordinator.
fn coordinator(client: &mut Client) -> String {
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP.into()], ..Default::default() };
    until("a coordinator", || {
        let found = client.any().ask(&request, 4).coordinators[0].clone();
        (found.error_code == ErrorCode::None).then(|| format!("{}:{}", found.host, found.port))
    })
}

/// Joins as the only member and assigns itself everything.
pub(crate) fn join(client: &mut Client) -> Member {
    let address = coordinator(client);
    let mut request = JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::from_static(b"m") }],
        ..Default::default()
    };
    // The first answer gives the member its id (KIP-394).
    let named = until("the group is loaded", || {
        let answer = client.at(&address).ask(&request, 7);
        (answer.error_code != ErrorCode::CoordinatorLoadInProgress).then_some(answer)
    });
    assert_eq!(named.error_code, ErrorCode::MemberIdRequired);
    request.member_id = named.member_id.clone();
    let joined = client.at(&address).ask(&request, 7);
    assert_eq!((joined.error_code, &joined.leader), (ErrorCode::None, &named.member_id), "{joined:?}");
    let sync = SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(ASSIGNMENT),
        }],
        ..Default::default()
    };
    let synced = client.at(&address).ask(&sync, 3);
    assert_eq!((synced.error_code, &synced.assignment[..]), (ErrorCode::None, ASSIGNMENT));
    Member { id: joined.member_id.to_string(), generation: joined.generation_id }
}

/// What the coordinator says to a sign of life, once it has loaded the group.
pub(crate) fn heartbeat(client: &mut Client, member: &Member) -> ErrorCode {
    let address = coordinator(client);
    let request = HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id: member.generation,
        member_id: member.id.as_str().into(),
        ..Default::default()
    };
    until("the group is loaded", || {
        let error = client.at(&address).ask(&request, 3).error_code;
        (error != ErrorCode::CoordinatorLoadInProgress).then_some(error)
    })
}

pub(crate) fn commit(client: &mut Client, member: &Member, offset: i64) -> ErrorCode {
    let address = coordinator(client);
    let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: member.generation,
        member_id: member.id.as_str().into(),
        topics: vec![OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition], ..Default::default() }],
        ..Default::default()
    };
    client.at(&address).ask(&request, 8).topics[0].partitions[0].error_code
}

pub(crate) fn committed(client: &mut Client) -> i64 {
    let address = coordinator(client);
    let topic = OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() };
    let group = OffsetFetchRequestGroup { group_id: GROUP.into(), topics: Some(vec![topic]), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    until("the group is loaded", || {
        let answer = client.at(&address).ask(&request, 8).groups[0].clone();
        let loaded = answer.error_code != ErrorCode::CoordinatorLoadInProgress;
        loaded.then(|| answer.topics[0].partitions[0].committed_offset)
    })
}

#[test]
fn a_group_goes_on_without_a_rebalance_when_its_coordinator_comes_back() {
    for end in [Broker::stop, Broker::kill] {
        let (_directory, data) = directory();
        let broker = Broker::start(&data, &["--shards", "2"]);
        let mut client = Client::new(broker.bootstrap());
        client.create_topic("t", 1);
        client.write("t", 0, &["a", "b", "c"]);
        let member = join(&mut client);
        assert_eq!(heartbeat(&mut client, &member), ErrorCode::None);
        assert_eq!(commit(&mut client, &member, 2), ErrorCode::None);
        end(broker);

        // Also with another number of shards, that is, another coordinator.
        for shards in ["2", "1"] {
            let broker = Broker::start(&data, &["--shards", shards]);
            let mut client = Client::new(broker.bootstrap());
            assert_eq!(heartbeat(&mut client, &member), ErrorCode::None, "same member, same generation");
            let older = Member { generation: member.generation - 1, id: member.id.clone() };
            assert_eq!(heartbeat(&mut client, &older), ErrorCode::IllegalGeneration);
            assert_eq!(committed(&mut client), 2);
            assert_eq!(commit(&mut client, &member, 2), ErrorCode::None);
            end(broker);
        }
    }
}

#[test]
fn a_member_that_left_is_unknown_and_its_offsets_stay() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    assert_eq!(committed(&mut client), -1);
    let member = join(&mut client);
    assert_eq!(commit(&mut client, &member, 7), ErrorCode::None);
    let address = coordinator(&mut client);
    let leave =
        LeaveGroupRequest { group_id: GROUP.into(), member_id: member.id.as_str().into(), ..Default::default() };
    assert_eq!(client.at(&address).ask(&leave, 1).error_code, ErrorCode::None);
    assert_eq!(heartbeat(&mut client, &member), ErrorCode::UnknownMemberId);
    // Not killed: leaving is answered before it is durable, as in Kafka, and a lost one ends with the session.
    broker.stop();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!(heartbeat(&mut client, &member), ErrorCode::UnknownMemberId);
    assert_eq!(committed(&mut client), 7);
    broker.stop();
}
