//! `millrace topic create|list|describe|delete`: ordinary Kafka requests, so they work against any Kafka broker.

use super::client::Client;
use super::{CommandError, say};
use clap::ArgMatches;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use millrace_protocol::messages::delete_topics::DeleteTopicState;
use millrace_protocol::messages::metadata::{MetadataRequestTopic, MetadataResponseTopic};
use millrace_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, MetadataResponse};
use millrace_protocol::string::StrBytes;

/// How long the broker may take, milliseconds.
const TIMEOUT_MS: i32 = 20_000;

const METADATA_VERSION: i16 = 12;
const CREATE_TOPICS_VERSION: i16 = 7;
const DELETE_TOPICS_VERSION: i16 = 6;

pub(super) fn run(matches: &ArgMatches) -> Result<(), CommandError> {
    let bootstrap = matches.get_one::<String>("bootstrap").expect("has a default");
    let mut client = Client::connect(bootstrap)?;
    match matches.subcommand() {
        Some(("create", matches)) => create(&mut client, matches),
        Some(("list", _)) => list(&mut client),
        Some(("describe", matches)) => describe(&mut client, name(matches)),
        Some(("delete", matches)) => delete(&mut client, name(matches)),
        _ => unreachable!("clap requires one of the subcommands"),
    }
}

fn name(matches: &ArgMatches) -> &str {
    matches.get_one::<String>("name").expect("required")
}

fn create(client: &mut Client, matches: &ArgMatches) -> Result<(), CommandError> {
    let configs = matches.get_many::<String>("config").unwrap_or_default();
    let configs = configs.map(|text| match text.split_once('=') {
        Some((key, value)) => Ok(CreatableTopicConfig { name: key.into(), value: Some(value.into()) }),
        None => Err(format!("--config {text}: expected KEY=VALUE")),
    });
    let topic = CreatableTopic {
        name: name(matches).into(),
        num_partitions: matches.get_one("partitions").copied().unwrap_or(-1),
        replication_factor: -1,
        configs: configs.collect::<Result<_, _>>()?,
        ..Default::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..Default::default() };
    let response = client.ask(&request, CREATE_TOPICS_VERSION)?;
    let result = response.topics.first().ok_or("the broker answered for no topic")?;
    check(result.error_code, result.error_message.as_ref(), name(matches))?;
    let (name, partitions, id) = (result.name.as_str(), result.num_partitions, result.topic_id);
    Ok(say(&format!("created {name} with {partitions} partitions, id {id}\n"))?)
}

fn list(client: &mut Client) -> Result<(), CommandError> {
    let request = MetadataRequest { topics: None, ..Default::default() };
    let mut text = String::new();
    for topic in client.ask(&request, METADATA_VERSION)?.topics {
        let partitions = topic.partitions.len();
        let plural = if partitions == 1 { "" } else { "s" };
        text.push_str(&format!("{}\t{partitions} partition{plural}\n", topic_name(&topic)));
    }
    Ok(say(&text)?)
}

fn describe(client: &mut Client, name: &str) -> Result<(), CommandError> {
    let topics = vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }];
    let request = MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
    let MetadataResponse { topics, brokers, .. } = client.ask(&request, METADATA_VERSION)?;
    let topic = topics.first().ok_or("the broker answered for no topic")?;
    check(topic.error_code, None, name)?;
    let mut text = format!("{name}\tid {}\t{} partitions\n", topic.topic_id, topic.partitions.len());
    for partition in &topic.partitions {
        let leader = brokers.iter().find(|broker| broker.node_id == partition.leader_id);
        let leader = match leader {
            Some(node) => format!("node {} at {}:{}", node.node_id, node.host.as_str(), node.port),
            None => "no leader".to_owned(),
        };
        let (index, epoch) = (partition.partition_index, partition.leader_epoch);
        text.push_str(&format!("  partition {index}\t{leader}\tepoch {epoch}\n"));
    }
    Ok(say(&text)?)
}

fn delete(client: &mut Client, name: &str) -> Result<(), CommandError> {
    let topics = vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, timeout_ms: TIMEOUT_MS, ..Default::default() };
    let response = client.ask(&request, DELETE_TOPICS_VERSION)?;
    let result = response.responses.first().ok_or("the broker answered for no topic")?;
    check(result.error_code, result.error_message.as_ref(), name)?;
    Ok(say(&format!("deleted {name}\n"))?)
}

fn topic_name(topic: &MetadataResponseTopic) -> &str {
    topic.name.as_deref().unwrap_or_default()
}

fn check(error: ErrorCode, message: Option<&StrBytes>, topic: &str) -> Result<(), CommandError> {
    if error.is_none() {
        return Ok(());
    }
    let detail = message.map(|text| format!(": {}", text.as_str())).unwrap_or_default();
    Err(format!("topic {topic}: {error:?}{detail}").into())
}
