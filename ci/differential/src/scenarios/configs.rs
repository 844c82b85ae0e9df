//! DescribeConfigs.

use crate::pair::Pair;
use millrace_protocol::StrBytes;
use millrace_protocol::messages::DescribeConfigsRequest;
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use std::io;

const TOPIC: &str = "configured";
const OF_TOPIC: i8 = 2;
const OF_BROKER: i8 = 4;

fn about(resource_type: i8, resource_name: StrBytes, keys: Option<&[&'static str]>) -> DescribeConfigsResource {
    let configuration_keys = keys.map(|keys| keys.iter().map(|key| (*key).into()).collect());
    DescribeConfigsResource { resource_type, resource_name, configuration_keys }
}

fn request(resources: Vec<DescribeConfigsResource>) -> DescribeConfigsRequest {
    DescribeConfigsRequest { resources, ..Default::default() }
}

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 1)?;
    pair.every("a topic", |side, _| request(vec![about(OF_TOPIC, side.name(TOPIC), None)]))?;
    pair.every("no resource", |_, _| request(Vec::new()))?;
    pair.every("no key", |side, _| request(vec![about(OF_TOPIC, side.name(TOPIC), Some(&[]))]))?;
    pair.every("some keys", |side, _| {
        request(vec![about(OF_TOPIC, side.name(TOPIC), Some(&["retention.ms", "no.such.setting", "cleanup.policy"]))])
    })?;
    pair.every("a topic twice", |side, _| {
        request(vec![about(OF_TOPIC, side.name(TOPIC), Some(&["retention.ms"])); 2])
    })?;
    for (case, keys) in [
        ("a setting twice", &["retention.ms", "retention.ms"][..]),
        ("an unknown setting twice", &["no.such.setting", "no.such.setting"]),
        ("an empty setting", &[""]),
        ("a setting in capitals", &["RETENTION.MS"]),
    ] {
        pair.every(case, |side, _| request(vec![about(OF_TOPIC, side.name(TOPIC), Some(keys))]))?;
        pair.every(&format!("{case}, of the broker"), |side, _| {
            request(vec![about(OF_BROKER, side.node().to_string().into(), Some(keys))])
        })?;
    }
    pair.every("good and bad resources", |side, _| {
        let keys = Some(&["retention.ms"][..]);
        let resources = vec![
            about(OF_TOPIC, side.name("nowhere"), keys),
            about(OF_TOPIC, side.name(TOPIC), keys),
            about(OF_TOPIC, "a/b".into(), keys),
            about(OF_BROKER, "999".into(), keys),
        ];
        request(resources)
    })?;
    pair.every("a broker twice", |side, _| {
        request(vec![about(OF_BROKER, side.node().to_string().into(), Some(&["broker.id"])); 2])
    })?;
    pair.every("synonyms of the broker's", |side, _| DescribeConfigsRequest {
        include_synonyms: true,
        ..request(vec![about(OF_BROKER, side.node().to_string().into(), None)])
    })?;
    pair.every("documentation", |side, version| DescribeConfigsRequest {
        include_documentation: version >= 3,
        ..request(vec![about(OF_TOPIC, side.name(TOPIC), Some(&["retention.ms"]))])
    })?;
    pair.every("synonyms", |side, _| DescribeConfigsRequest {
        include_synonyms: true,
        ..request(vec![about(OF_TOPIC, side.name(TOPIC), Some(&["retention.ms"]))])
    })?;
    for illegal in ["", "a/b"] {
        pair.every(&format!("the topic {illegal:?}"), |_, _| request(vec![about(OF_TOPIC, illegal.into(), None)]))?;
    }
    pair.every("an unknown topic", |side, _| request(vec![about(OF_TOPIC, side.name("nowhere"), None)]))?;
    const BROKER_KEYS: Option<&[&str]> = Some(&["auto.create.topics.enable", "default.replication.factor"]);
    for (case, keys) in [("the broker", None), ("settings of the broker", BROKER_KEYS)] {
        pair.every(case, |side, _| request(vec![about(OF_BROKER, side.node().to_string().into(), keys)]))?;
    }
    for name in ["", "999", "first", "-1"] {
        pair.every(&format!("the broker {name:?}"), |_, _| request(vec![about(OF_BROKER, name.into(), None)]))?;
    }
    for kind in [0, 1, 3, 8, 16, 32, 99, -1] {
        for (case, name) in [("a name", "some"), ("no name", "")] {
            pair.every(&format!("type {kind}, {case}"), |_, _| request(vec![about(kind, name.into(), None)]))?;
        }
    }
    Ok(())
}
