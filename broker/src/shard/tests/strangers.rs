//! Requests that no sensible client sends: every API and version, with whatever values the wire can carry.

use super::*;
use crate::control::TopicAnswer;
use crate::control::topic_rules::Refusal;
use millrace_protocol::api::{ADVERTISED, ApiKey};
use millrace_protocol::messages::describe_groups::DescribeGroupsRequest;
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::*;
use proptest::prelude::*;

/// The longest string that the wire carries.
const LONGEST: usize = i16::MAX as usize;

/// The body of a request whose fields are all zero: a decoder of any version finds something in it.
fn zeros(key: ApiKey, version: i16, client: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(key.code().to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(77i32.to_be_bytes());
    frame.extend(i16::try_from(client.len()).unwrap().to_be_bytes());
    frame.extend(client);
    frame.extend([0; 256]);
    frame
}

#[test]
fn every_advertised_version_has_a_handler() {
    for api in ADVERTISED {
        for version in api.min..=api.max {
            let mut world = World::new();
            let to = world.send_bytes(&zeros(api.key, version, b"c"));
            let unserved = Reply::Close("an API that is not served");
            assert_ne!(world.replies.get(&to), Some(&unserved), "{:?} version {version}", api.key);
        }
    }
}

/// A piece of a body: often something that names what exists, or a limit.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: String| {
        let mut bytes = i16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let compact = |text: String| {
        let mut bytes = Vec::new();
        let mut left = text.len() + 1;
        while left > 0x7f {
            bytes.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes.extend(text.as_bytes());
        bytes
    };
    let names = prop_oneof![
        Just(String::new()),
        Just(TOPIC.to_owned()),
        Just("new".to_owned()),
        Just("\u{6f22}/..".to_owned()),
        Just("x".repeat(LONGEST))
    ];
    let limits = prop_oneof![Just(0i64), Just(1), Just(2), Just(-1), Just(i64::MAX), Just(i64::MIN)];
    prop_oneof![
        8 => prop::collection::vec(prop_oneof![4 => Just(0u8), 2 => Just(1), 2 => Just(2), 1 => Just(255)], 1..6),
        2 => names.clone().prop_map(text),
        3 => names.prop_map(compact),
        2 => limits.clone().prop_map(|limit| limit.to_be_bytes().to_vec()),
        2 => limits.prop_map(|limit| (limit as i32).to_be_bytes().to_vec()),
        1 => Just(TOPIC_ID.0.as_bytes().to_vec()),
    ]
}

/// Answers what the core asked the control task, as badly as that can.
fn answer_control(world: &mut World) {
    let refused = |name: String| TopicAnswer {
        name,
        id: None,
        partitions: 0,
        error: ErrorCode::InvalidConfig,
        message: Some("y".repeat(2 * LONGEST)),
    };
    let no = || Refusal { error: ErrorCode::PolicyViolation, message: "y".repeat(2 * LONGEST) };
    while let Some(asked) = world.asked.pop_front() {
        let answer = match asked {
            ToControl::CreateTopics { token, topics, .. } => {
                FromControl::Topics { token, topics: topics.into_iter().map(|topic| refused(topic.name)).collect() }
            }
            ToControl::AlterTopics { token, alterations, .. } => FromControl::Topics {
                token,
                topics: alterations.into_iter().map(|topic| refused(topic.name)).collect(),
            },
            ToControl::AlterGroups { token, alterations, .. } => FromControl::Topics {
                token,
                topics: alterations.into_iter().map(|group| refused(group.group)).collect(),
            },
            ToControl::AlterQuotas { token, alterations, .. } => {
                FromControl::Altered { token, results: alterations.iter().map(|_| Err(no())).collect() }
            }
            ToControl::AlterNodes { token, alterations, .. } => {
                FromControl::Altered { token, results: alterations.iter().map(|_| Err(no())).collect() }
            }
            ToControl::DeleteTopics { token, topics } => {
                FromControl::Topics { token, topics: topics.into_iter().map(|topic| refused(topic.name)).collect() }
            }
            ToControl::ProducerIds { token } => FromControl::ProducerIds { token, first: Ok(i64::MAX - 5000) },
            ToControl::Persist { token, .. } => FromControl::Persisted { token, result: Ok(()) },
            ToControl::SlotLeft { .. } | ToControl::Loads { .. } | ToControl::Drained => continue,
        };
        world.core.on_control(world.now, answer);
        world.collect();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn no_request_of_any_api_and_version_panics_or_stays_without_its_one_reply(
        api in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        long_client in any::<bool>(),
        pieces in prop::collection::vec(piece(), 0..24),
    ) {
        let api = api.get(ADVERTISED);
        let version = api.min + at.index(usize::try_from(api.max - api.min).unwrap() + 1) as i16;
        let mut world = World::new();
        for slot in 0..crate::control::COORDINATOR_SLOTS {
            let granted = FromControl::SlotGranted { slot, slot_epoch: 1, groups: Vec::new(), offsets: Vec::new() };
            world.core.on_control(world.now, granted);
        }
        let client = if long_client { vec![b'c'; LONGEST] } else { b"c".to_vec() };
        let mut frame = zeros(api.key, version, &client);
        frame.truncate(frame.len() - 256);
        if api.key.is_flexible(version) {
            frame.push(0);
        }
        frame.extend(pieces.concat());
        frame.extend([0; 256]);
        let to = world.send_bytes(&frame);
        answer_control(&mut world);
        // Longer than any wait that is honoured.
        for _ in 0..4 {
            world.pass(25 * 24 * 3_600_000);
            world.serve_reads();
            answer_control(&mut world);
        }
        prop_assert!(world.replies.contains_key(&to), "{:?} version {version} is not answered", api.key);
    }
}

#[test]
fn metadata_before_version_12_refuses_ids_and_null_names() {
    let by_id = MetadataRequestTopic { topic_id: TOPIC_ID.0, name: None };
    let by_nothing = MetadataRequestTopic { topic_id: Uuid::nil(), name: None };
    for version in [10, 11] {
        for topic in [by_id.clone(), by_nothing.clone()] {
            let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
            let response = World::new().ask(&request, version);
            assert_eq!(response.topics[0].error_code, ErrorCode::InvalidRequest);
        }
    }
}

#[test]
fn names_as_long_as_the_wire_carries_are_echoed_in_answers_that_fit() {
    let mut world = World::new();
    for slot in 0..crate::control::COORDINATOR_SLOTS {
        let granted = FromControl::SlotGranted { slot, slot_epoch: 1, groups: Vec::new(), offsets: Vec::new() };
        world.core.on_control(world.now, granted);
    }
    let long = "g".repeat(LONGEST);
    let request = DescribeGroupsRequest { groups: vec![long.as_str().into()], ..Default::default() };
    let response = world.ask(&request, 6);
    assert_eq!(response.groups[0].error_code, ErrorCode::GroupIdNotFound);
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![Default::default()],
        ..Default::default()
    };
    let frame = millrace_protocol::frame::request_frame(&join, 9, 77, Some(long.as_str().into())).unwrap().concat();
    let to = world.send_bytes(&frame[LENGTH_BYTES..]);
    let response = world.answer::<JoinGroupRequest>(to, 9).expect("at once");
    assert_eq!(response.error_code, ErrorCode::MemberIdRequired);
}

#[test]
fn a_request_that_names_one_thing_many_times_is_answered_in_linear_time_and_memory() {
    use millrace_protocol::messages::create_topics::CreatableTopic;
    use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
    use millrace_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
    const TIMES: usize = 200_000;
    let mut world = World::new();
    let partitions = (0..TIMES as i32).map(|n| ListOffsetsPartition { partition_index: n, ..Default::default() });
    let topic = ListOffsetsTopic { name: TOPIC.into(), partitions: partitions.collect() };
    let offsets = world.ask(&ListOffsetsRequest { topics: vec![topic], ..Default::default() }, 1);
    assert_eq!(offsets.topics[0].partitions.len(), TIMES);
    let topics = (0..TIMES).map(|n| CreatableTopic { name: format!("/{n}").into(), ..Default::default() });
    let created = world.ask(&CreateTopicsRequest { topics: topics.collect(), ..Default::default() }, 2);
    assert_eq!(created.topics.len(), TIMES);
    let topic = MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
    let metadata = world.ask(&MetadataRequest { topics: Some(vec![topic; TIMES]), ..Default::default() }, 9);
    assert_eq!(metadata.topics.len(), 1);
    let topic = DescribeConfigsResource { resource_type: 2, resource_name: TOPIC.into(), configuration_keys: None };
    let configs = world.ask(&DescribeConfigsRequest { resources: vec![topic; TIMES], ..Default::default() }, 1);
    assert_eq!(configs.results.len(), 1);
}
