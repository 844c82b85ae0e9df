//! Client quotas and settings of nodes: told to the control task, obeyed by the shard.

use super::*;
use crate::control::topic_rules::Refusal;
use crate::control::{NodeAlteration, NodeSettings, QuotaAlteration, SettingChange, SettingsChange};
use crate::quotas::{Quota, QuotaTable};
use millrace_protocol::Double;
use millrace_protocol::messages::alter_client_quotas::{EntityData, EntryData, OpData};
use millrace_protocol::messages::describe_client_quotas::ComponentData;
use millrace_protocol::messages::describe_configs::{DescribeConfigsResource, DescribeConfigsResourceResult};
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::{
    AlterClientQuotasRequest, DescribeClientQuotasRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
};
use millrace_storage::meta::records::{QuotaEntity, QuotaPart};

const ME: ConnectionId = ConnectionId(1);

fn client(name: &str) -> QuotaEntity {
    QuotaEntity { user: QuotaPart::Absent, client_id: QuotaPart::Named(name.to_owned()) }
}

/// Bytes a second of the client that the tests are.
fn limit(world: &mut World, quota: Quota, rate: u64) {
    let quotas = BTreeMap::from([(quota.name().to_owned(), rate)]);
    let table = Arc::new(QuotaTable(BTreeMap::from([(client("test"), quotas)])));
    world.set_image(|image| image.quotas = table);
}

/// Milliseconds that the answer tells, and that the connection is muted for from now on.
fn told(world: &mut World, throttle_time_ms: i32) -> (i32, u64) {
    let mut muted = world.mutes.drain(..).map(|(connection, until)| {
        assert_eq!(connection, ME);
        (until.0 - world.now.mono.0) / 1_000_000
    });
    (throttle_time_ms, muted.next_back().unwrap_or(0))
}

#[test]
fn a_producer_above_its_quota_is_answered_and_muted_and_what_it_sent_is_kept() {
    let mut world = World::new();
    limit(&mut world, Quota::Produce, 1_000);
    let mut sent = 0;
    for at in 0..4 {
        let to = world.produce(-1, &[(0, BatchOf::plain(1, 4_000))]);
        world.commit();
        assert_eq!(world.produced(to).unwrap()[0].base_offset, at);
        sent += request_frame(&produce_request(-1, &[(0, BatchOf::plain(1, 4_000))]), PRODUCE, 77, Some("test".into()))
            .unwrap()
            .concat()
            .len()
            - LENGTH_BYTES;
        let answer = world.answer::<ProduceRequest>(to, PRODUCE).unwrap();
        let (ms, muted) = told(&mut world, answer.throttle_time_ms);
        let expected = (sent as u64).saturating_sub(10_000);
        assert_eq!((u64::try_from(ms).unwrap(), muted), (expected, expected), "at {at}");
    }
    assert_eq!(world.core.counters().throttled, 2);
    world.pass(30_000);
    let to = world.produce(-1, &[(0, BatchOf::plain(1, 4_000))]);
    world.commit();
    assert_eq!(world.answer::<ProduceRequest>(to, PRODUCE).unwrap().throttle_time_ms, 0, "that is long ago");
}

#[test]
fn a_producer_without_acknowledgements_is_muted_too() {
    let mut world = World::new();
    limit(&mut world, Quota::Produce, 100);
    world.produce(0, &[(0, BatchOf::plain(1, 4_000))]);
    assert!(told(&mut world, 0).1 > 30_000);
}

#[test]
fn a_reader_gets_what_brings_it_above_its_quota_and_then_nothing_for_a_while() {
    let mut world = World::new();
    for _ in 0..3 {
        world.write(0, BatchOf::plain(1, 20_000));
    }
    limit(&mut world, Quota::Fetch, 1_000);
    let ask = Ask::from(0);
    let to = world.fetch(&ask);
    let first = world.answer::<FetchRequest>(to, FETCH).unwrap();
    assert_eq!(bases(&first.responses[0].partitions[0]), [0], "one batch, however large");
    let (ms, muted) = told(&mut world, first.throttle_time_ms);
    assert!((10_000..11_000).contains(&ms) && muted == ms as u64, "{ms} {muted}");

    let to = world.fetch(&ask);
    let second = world.answer::<FetchRequest>(to, FETCH).unwrap();
    assert_eq!((second.error_code, second.responses.len()), (ErrorCode::None, 0), "it came on another connection");
    assert_eq!(told(&mut world, second.throttle_time_ms), (ms, muted));

    world.pass(muted + 1_000);
    let to = world.fetch(&Ask::from(1));
    let third = world.answer::<FetchRequest>(to, FETCH).unwrap();
    assert_eq!(bases(&third.responses[0].partitions[0]), [1]);
}

#[test]
fn a_held_back_fetch_leaves_its_session_as_it_is() {
    let mut world = World::new();
    world.write(0, BatchOf::plain(1, 20_000));
    limit(&mut world, Quota::Fetch, 1_000);
    let mut request = Ask::from(0).request();
    (request.session_id, request.session_epoch) = (0, 0);
    let to = world.send(&request, FETCH);
    let first = world.answer::<FetchRequest>(to, FETCH).unwrap();
    assert!(first.session_id > 0 && first.throttle_time_ms > 0);
    request.topics.clear();
    (request.session_id, request.session_epoch) = (first.session_id, 1);
    let to = world.send(&request, FETCH);
    let second = world.answer::<FetchRequest>(to, FETCH).unwrap();
    assert_eq!((second.session_id, second.error_code), (first.session_id, ErrorCode::None));
    assert!(second.responses.is_empty() && second.throttle_time_ms > 0);
    world.pass(30_000);
    request.session_epoch = 2;
    let to = world.send(&request, FETCH);
    let third = world.answer::<FetchRequest>(to, FETCH).unwrap();
    assert_eq!((third.error_code, third.responses.len()), (ErrorCode::None, 1));
}

fn part(kind: &str, name: Option<&str>) -> EntityData {
    EntityData { entity_type: kind.into(), entity_name: name.map(Into::into) }
}

fn op(key: &str, value: f64) -> OpData {
    OpData { key: key.into(), value: Double(value), remove: false }
}

#[test]
fn quotas_are_set_by_the_control_task_and_what_is_malformed_or_not_offered_is_refused_at_once() {
    let mut world = World::new();
    let entry = |entity: Vec<EntityData>, ops: Vec<OpData>| EntryData { entity, ops };
    let rate = || vec![op("producer_byte_rate", 1_000.0)];
    let me = || part("client-id", Some("test"));
    let malformed = [
        entry(vec![], rate()),
        entry(vec![part("ip", Some("127.0.0.1"))], vec![op("connection_creation_rate", 1.0)]),
        entry(vec![part("group", Some("g"))], rate()),
        entry(vec![part("user", Some(""))], rate()),
        entry(vec![part("user", None), part("user", Some("u"))], rate()),
        entry(vec![part("user", Some(&"x".repeat(2_000)))], rate()),
        entry(vec![part("user", Some("a"))], vec![op("request_percentage", 50.0)]),
        entry(vec![part("user", Some("b"))], vec![op("no_such_rate", 1.0)]),
        entry(vec![part("user", Some("c"))], vec![op("producer_byte_rate", 0.0)]),
        entry(vec![part("user", Some("d"))], vec![op("producer_byte_rate", f64::NAN)]),
        entry(vec![part("user", Some("e"))], vec![op("producer_byte_rate", 1.5)]),
        entry(vec![part("user", Some("f"))], vec![op("producer_byte_rate", 1e300)]),
        entry(vec![part("user", Some("g"))], vec![op("producer_byte_rate", 1.0), op("producer_byte_rate", 2.0)]),
    ];
    let request = AlterClientQuotasRequest { entries: malformed.to_vec(), validate_only: false };
    let answer = world.ask(&request, 1);
    assert_eq!(answer.entries.len(), malformed.len());
    assert!(answer.entries.iter().all(|entry| entry.error_code == ErrorCode::InvalidRequest), "{answer:?}");
    assert!(world.asked.is_empty());

    let removal = OpData { key: "consumer_byte_rate".into(), remove: true, ..Default::default() };
    let entries = vec![
        entry(vec![part("client-id", None), part("user", None)], rate()),
        entry(vec![me()], vec![op("producer_byte_rate", 1_000.0), removal]),
        entry(vec![part("user", None), part("client-id", None)], rate()),
    ];
    let to = world.send(&AlterClientQuotasRequest { entries, validate_only: true }, 0);
    let Some(ToControl::AlterQuotas { token, alterations, validate_only: true }) = world.asked.pop_front() else {
        panic!("asked to change")
    };
    let changes = vec![("producer_byte_rate".to_owned(), Some(1_000)), ("consumer_byte_rate".to_owned(), None)];
    assert_eq!(alterations, [QuotaAlteration { entity: client("test"), changes }]);
    let refusal = Refusal { error: ErrorCode::PolicyViolation, message: "too many".to_owned() };
    world.core.on_control(world.now, FromControl::Altered { token, results: vec![Err(refusal)] });
    world.collect();
    let answer = world.answer::<AlterClientQuotasRequest>(to, 0).unwrap();
    let codes: Vec<_> = answer.entries.iter().map(|entry| (entry.entity.len(), entry.error_code)).collect();
    assert_eq!(codes, [(2, ErrorCode::InvalidRequest), (1, ErrorCode::PolicyViolation)], "the first was named twice");

    let to =
        world.send(&AlterClientQuotasRequest { entries: vec![entry(vec![me()], rate())], validate_only: false }, 1);
    world.pass(600_000);
    assert_eq!(
        world.answer::<AlterClientQuotasRequest>(to, 1).unwrap().entries[0].error_code,
        ErrorCode::RequestTimedOut
    );
}

#[test]
fn a_rate_is_whole_within_a_millionth() {
    let mut world = World::new();
    for (value, rate) in [(10.000_000_1, Some(10)), (9.999_999_9, Some(10)), (10.000_01, None), (0.000_000_1, None)] {
        let entity = vec![part("client-id", Some("test"))];
        let entries = vec![EntryData { entity, ops: vec![op("producer_byte_rate", value)] }];
        world.send(&AlterClientQuotasRequest { entries, validate_only: true }, 1);
        let asked = world.asked.pop_front().map(|question| {
            let ToControl::AlterQuotas { alterations, .. } = question else { panic!("{question:?}") };
            alterations[0].changes.clone()
        });
        assert_eq!(asked, rate.map(|rate| vec![("producer_byte_rate".to_owned(), Some(rate))]), "{value}");
    }
}

#[test]
fn quotas_are_described_by_what_their_entities_are_made_of() {
    let mut world = World::new();
    let named = |name: &str| QuotaPart::Named(name.to_owned());
    let entities = [
        (QuotaPart::Absent, named("c")),
        (QuotaPart::Default, QuotaPart::Absent),
        (named("u"), QuotaPart::Absent),
        (named("u"), named("c")),
    ];
    let rates = || BTreeMap::from([(Quota::Fetch.name().to_owned(), 5)]);
    let table = entities.map(|(user, client_id)| (QuotaEntity { user, client_id }, rates()));
    world.set_image(|image| image.quotas = Arc::new(QuotaTable(table.into())));
    let component = |kind: &str, match_type, name: Option<&str>| ComponentData {
        entity_type: kind.into(),
        match_type,
        match_name: name.map(Into::into),
    };
    let mut found = |components: &[ComponentData], strict| {
        let request = DescribeClientQuotasRequest { components: components.to_vec(), strict };
        let answer = world.ask(&request, 1);
        let entries = answer.entries.map(|entries| entries.iter().map(|entry| entry.entity.len()).collect::<Vec<_>>());
        (answer.error_code, entries)
    };
    let ok = |lengths: &[usize]| (ErrorCode::None, Some(lengths.to_vec()));
    assert_eq!(found(&[], false), ok(&[1, 1, 1, 2]));
    assert_eq!(found(&[], true), ok(&[]));
    assert_eq!(found(&[component("user", 0, Some("u"))], false), ok(&[1, 2]));
    assert_eq!(found(&[component("user", 0, Some("u"))], true), ok(&[1]));
    assert_eq!(found(&[component("user", 1, None)], true), ok(&[1]));
    assert_eq!(found(&[component("user", 2, None), component("client-id", 2, None)], true), ok(&[2]));
    assert_eq!(found(&[component("ip", 2, None)], false), ok(&[]));
    let invalid = [
        vec![component("", 2, None)],
        vec![component("user", 2, None); 2],
        vec![component("user", 0, None)],
        vec![component("user", 1, Some("u"))],
        vec![component("user", 3, None)],
        vec![component("user", 2, None), component("ip", 2, None)],
    ];
    for components in invalid {
        assert_eq!(found(&components, false), (ErrorCode::InvalidRequest, None), "{components:?}");
    }
    assert_eq!(found(&[component("group", 2, None)], false), (ErrorCode::UnsupportedVersion, None));
}

/// The settings of a resource, with synonyms.
fn described(world: &mut World, kind: i8, name: &str) -> Vec<DescribeConfigsResourceResult> {
    let resource =
        DescribeConfigsResource { resource_type: kind, resource_name: name.into(), configuration_keys: None };
    let request = DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, ..Default::default() };
    let mut answer = world.ask(&request, 4);
    assert_eq!(answer.results[0].error_code, ErrorCode::None);
    answer.results.remove(0).configs
}

/// Value, source and the sources of synonyms of a setting.
fn shown(configs: &[DescribeConfigsResourceResult], name: &str) -> (String, i8, Vec<i8>) {
    let config = configs.iter().find(|config| &*config.name == name).unwrap_or_else(|| panic!("{name} is shown"));
    let sources = config.synonyms.iter().map(|synonym| synonym.source).collect();
    (config.value.as_deref().unwrap_or("null").to_owned(), config.config_source, sources)
}

#[test]
fn settings_of_nodes_are_changed_by_the_control_task_beside_those_of_topics() {
    let mut world = World::new();
    let set = |name: &str| IncrementalConfig { name: name.into(), value: Some("9".into()), ..Default::default() };
    let resource = |resource_type, name: &str, config: &str| IncrementalResource {
        resource_type,
        resource_name: name.into(),
        configs: vec![set(config)],
    };
    let resources = vec![
        resource(4, "", "message.max.bytes"),
        resource(2, TOPIC, "retention.ms"),
        resource(4, "2", "log.retention.ms"),
        resource(4, "3", "log.retention.ms"),
    ];
    let to = world.send(&IncrementalAlterConfigsRequest { resources, validate_only: false }, 1);
    let Some(ToControl::AlterTopics { token, .. }) = world.asked.pop_front() else { panic!("topics come first") };
    let done = crate::control::TopicAnswer {
        name: TOPIC.into(),
        id: None,
        partitions: 3,
        error: ErrorCode::None,
        message: None,
    };
    world.core.on_control(world.now, FromControl::Topics { token, topics: vec![done] });
    world.collect();
    let Some(ToControl::AlterNodes { token, alterations, validate_only: false }) = world.asked.pop_front() else {
        panic!("then nodes")
    };
    let change = |name: &str| SettingsChange::Each([(name.to_owned(), SettingChange::Set("9".to_owned()))].into());
    let expected = [
        NodeAlteration { node: None, change: change("message.max.bytes") },
        NodeAlteration { node: Some(2), change: change("log.retention.ms") },
    ];
    assert_eq!(alterations, expected);
    let refusal = Refusal { error: ErrorCode::InvalidRequest, message: String::new() };
    world.core.on_control(world.now, FromControl::Altered { token, results: vec![Ok(()), Err(refusal)] });
    world.collect();
    let answer = world.answer::<IncrementalAlterConfigsRequest>(to, 1).unwrap();
    let codes: Vec<_> = answer.responses.iter().map(|response| response.error_code).collect();
    let (done, refused) = (ErrorCode::None, ErrorCode::InvalidRequest);
    assert_eq!(codes, [done, done, refused, refused], "there is no node 3");
}

#[test]
fn settings_of_nodes_are_obeyed_for_topics_without_their_own_and_described_with_their_source() {
    let mut world = World::new();
    let values = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let mut settings = NodeSettings::default();
    settings.set(None, values(&[("message.max.bytes", "500"), ("log.retention.ms", "7")]));
    settings.set(Some(1), values(&[("message.max.bytes", "300")]));
    settings.set(Some(2), values(&[("message.max.bytes", "1")]));
    let settings = Arc::new(settings);
    world.set_image(|image| {
        image.node_settings = settings;
        add_topic(image, "own", TopicId(Uuid::from_u128(9)), &[("retention.ms", "8")]);
    });
    let to = world.produce(-1, &[(0, BatchOf::plain(1, 400))]);
    assert_eq!(world.produced(to).unwrap()[0].error_code, ErrorCode::MessageTooLarge);
    world.write(0, BatchOf::plain(1, 100));

    let topic = described(&mut world, 2, TOPIC);
    assert_eq!(shown(&topic, "max.message.bytes"), ("300".to_owned(), 2, vec![2, 3, 5]));
    assert_eq!(shown(&topic, "retention.ms"), ("7".to_owned(), 3, vec![3]));
    assert_eq!(shown(&topic, "segment.bytes"), ("1073741824".to_owned(), 5, vec![5]));
    let own = described(&mut world, 2, "own");
    assert_eq!(shown(&own, "retention.ms"), ("8".to_owned(), 1, vec![1, 3]));
    let node = described(&mut world, 4, "1");
    assert_eq!(shown(&node, "message.max.bytes"), ("300".to_owned(), 2, vec![2, 3, 5]));
    assert_eq!(shown(&node, "log.retention.ms"), ("7".to_owned(), 3, vec![3]));
    assert_eq!(shown(&node, "log.roll.ms"), ("null".to_owned(), 5, vec![]));
    let read_only = |name: &str| node.iter().find(|config| &*config.name == name).unwrap().read_only;
    assert!(!read_only("message.max.bytes") && read_only("log.retention.hours") && read_only("num.partitions"));
    let all = described(&mut world, 4, "");
    assert_eq!(shown(&all, "message.max.bytes"), ("500".to_owned(), 3, vec![3]));
    assert_eq!(all.len(), 2);
}

#[test]
fn a_setting_that_is_named_twice_is_described_once() {
    let mut world = World::new();
    for (resource_type, name, key) in [(2, TOPIC, "retention.ms"), (4, "1", "log.retention.ms")] {
        let keys = vec![key.into(), "no.such.setting".into(), key.into()];
        let resource =
            DescribeConfigsResource { resource_type, resource_name: name.into(), configuration_keys: Some(keys) };
        let answer = world.ask(&DescribeConfigsRequest { resources: vec![resource], ..Default::default() }, 4);
        let told: Vec<&str> = answer.results[0].configs.iter().map(|config| &*config.name).collect();
        assert_eq!((answer.results[0].error_code, told), (ErrorCode::None, vec![key]));
    }
}
