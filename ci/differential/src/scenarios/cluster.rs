//! ApiVersions, Metadata, DescribeCluster, FindCoordinator.

use crate::pair::{Pair, Side};
use millrace_protocol::StrBytes;
use millrace_protocol::messages::metadata::MetadataRequestTopic;
use millrace_protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, FindCoordinatorRequest, MetadataRequest,
};
use std::io;
use uuid::Uuid;

const TOPIC: &str = "described";
/// From this version on topics can be asked for by id (KIP-516).
const BY_ID: i16 = 12;

pub(crate) fn run(pair: &mut Pair) -> io::Result<()> {
    pair.make_topic(TOPIC, 3)?;
    api_versions(pair)?;
    metadata(pair)?;
    cluster(pair)?;
    coordinators(pair)
}

fn api_versions(pair: &mut Pair) -> io::Result<()> {
    for (case, name, version_text) in [
        ("a client", "some-client", "1.0.3"),
        ("no name", "", "1"),
        ("no version", "client", ""),
        ("a name with a space", "a client", "1"),
        ("a name that ends with a dot", "client.", "1"),
        ("a name beyond ASCII", "clïent", "1"),
    ] {
        pair.every(case, |_, version| {
            let text = |text: &'static str| if version >= 3 { text.into() } else { StrBytes::new() };
            ApiVersionsRequest {
                client_software_name: text(name),
                client_software_version: text(version_text),
                ..Default::default()
            }
        })?;
    }
    Ok(())
}

fn named(name: StrBytes) -> MetadataRequestTopic {
    MetadataRequestTopic { name: Some(name), ..Default::default() }
}

/// Without auto-creation where the version can say so.
fn about(version: i16, topics: Option<Vec<MetadataRequestTopic>>) -> MetadataRequest {
    MetadataRequest { topics, allow_auto_topic_creation: version < 4, ..Default::default() }
}

fn metadata(pair: &mut Pair) -> io::Result<()> {
    pair.every("no topic", |_, version| about(version, Some(Vec::new())))?;
    pair.every("all topics", |_, version| about(version, if version == 0 { Some(Vec::new()) } else { None }))?;
    pair.every("a topic", |side, version| about(version, Some(vec![named(side.name(TOPIC))])))?;
    pair.every("a topic twice", |side, version| {
        about(version, Some(vec![named(side.name(TOPIC)), named(side.name(TOPIC))]))
    })?;
    for illegal in ["", ".", "..", "a b", "a/b", "ä", "a\n"] {
        pair.every(&format!("the name {illegal:?}"), |_, version| about(version, Some(vec![named(illegal.into())])))?;
    }
    pair.every("a name of 250 characters", |_, version| about(version, Some(vec![named("x".repeat(250).into())])))?;
    pair.every("operations", |side, version| MetadataRequest {
        include_cluster_authorized_operations: (8..=10).contains(&version),
        include_topic_authorized_operations: version >= 8,
        ..about(version, Some(vec![named(side.name(TOPIC))]))
    })?;
    let without_auto = |version: i16| version >= 4;
    for version in crate::pair::versions::<MetadataRequest>().filter(|v| without_auto(*v)) {
        let ask = |side: &Side, names: &[&str]| {
            about(version, Some(names.iter().map(|name| named(side.name(name))).collect()))
        };
        pair.ask("an unknown topic", version, |side| ask(side, &["nowhere"]))?;
        pair.ask("known and unknown topics", version, |side| ask(side, &[TOPIC, "nowhere", "nowhere"]))?;
    }
    for version in crate::pair::versions::<MetadataRequest>().filter(|v| *v >= BY_ID) {
        let by = |topic_id, name| MetadataRequestTopic { topic_id, name };
        let ask = |topics| about(version, Some(topics));
        pair.ask("by id", version, |side| ask(vec![by(side.id(TOPIC), None)]))?;
        pair.ask("by an unknown id", version, |side| {
            ask(vec![by(side.id("nowhere"), None), by(side.id(TOPIC), None)])
        })?;
        pair.ask("by id and name", version, |side| ask(vec![by(side.id(TOPIC), Some(side.name(TOPIC)))]))?;
        pair.ask("by no id and no name", version, |_| ask(vec![by(Uuid::nil(), None)]))?;
        pair.ask("by id and by name", version, |side| {
            ask(vec![by(side.id(TOPIC), None), by(Uuid::nil(), Some(side.name(TOPIC)))])
        })?;
    }
    for version in [10, 11] {
        pair.ask("by id before it can be", version, |side| {
            about(version, Some(vec![MetadataRequestTopic { topic_id: side.id(TOPIC), name: None }]))
        })?;
    }
    pair.every("a topic to create", |side, version| MetadataRequest {
        topics: Some(vec![named(side.name(&format!("created-{version}")))]),
        allow_auto_topic_creation: true,
        ..Default::default()
    })
}

fn cluster(pair: &mut Pair) -> io::Result<()> {
    pair.every("the cluster", |_, _| DescribeClusterRequest::default())?;
    pair.every("operations", |_, _| DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..Default::default()
    })?;
    for endpoint_type in [0, 2, 3, -1] {
        pair.every(&format!("endpoint type {endpoint_type}"), |_, version| DescribeClusterRequest {
            endpoint_type: if version >= 1 { endpoint_type } else { 1 },
            ..Default::default()
        })?;
    }
    pair.every("fenced brokers", |_, version| DescribeClusterRequest {
        include_fenced_brokers: version >= 2,
        ..Default::default()
    })
}

fn coordinators(pair: &mut Pair) -> io::Result<()> {
    for key_type in [0, 1, 2, 3, -1] {
        for (case, key) in [("a key", "some"), ("an empty key", "")] {
            pair.every(&format!("{case} of type {key_type}"), |side, version| {
                let key = if key.is_empty() { StrBytes::new() } else { side.name(key) };
                let key_type = if version >= 1 { key_type } else { 0 };
                if version >= 4 {
                    FindCoordinatorRequest { key_type, coordinator_keys: vec![key], ..Default::default() }
                } else {
                    FindCoordinatorRequest { key, key_type, ..Default::default() }
                }
            })?;
        }
    }
    for version in 4..=6 {
        pair.ask("no key", version, |_| FindCoordinatorRequest::default())?;
        pair.ask("several keys", version, |side| FindCoordinatorRequest {
            coordinator_keys: vec![side.name("a"), StrBytes::new(), side.name("b"), side.name("a")],
            ..Default::default()
        })?;
    }
    Ok(())
}
