//! What an etcd held, rebuilt from the store of the log after the etcd was lost, or brought back from an older backup.

use crate::etcd_server::{Etcd, is_missing};
use crate::groups::{Member, commit, committed, heartbeat, join};
use crate::kafka::{Client, EARLIEST, LATEST, sequenced};
use crate::program::{self, Broker, Running, Signal, directory, refusal, run, serve, until};
use millrace_protocol::Double;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::messages::alter_client_quotas::{EntityData, EntryData, OpData};
use millrace_protocol::messages::describe_configs::DescribeConfigsResource;
use millrace_protocol::messages::incremental_alter_configs::{IncrementalConfig, IncrementalResource};
use millrace_protocol::messages::{
    AlterClientQuotasRequest, DescribeClientQuotasRequest, DescribeConfigsRequest, DescribeGroupsRequest,
    IncrementalAlterConfigsRequest,
};
use std::path::Path;

/// Kafka's resource types: settings of a topic, of brokers, of a group.
const CONFIGURED: [(i8, &str); 4] = [(2, "t"), (2, "set"), (4, ""), (32, "readers")];

/// A topic as clients see it.
#[derive(PartialEq, Eq, Debug)]
struct SeenTopic {
    name: String,
    id: String,
    /// By partition.
    records: Vec<Vec<String>>,
    /// Where each partition starts and ends.
    bounds: Vec<(i64, i64)>,
}

/// All that clients can see of a cluster: what each question was answered with.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    topics: Vec<SeenTopic>,
    settings: String,
    quotas: String,
    group: String,
    committed: i64,
}

fn configure(client: &mut Client, (kind, resource): (i8, &str), name: &str, value: &str) {
    let config = IncrementalConfig { name: name.into(), value: Some(value.into()), ..Default::default() };
    let resource = IncrementalResource { resource_type: kind, resource_name: resource.into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = client.any().ask(&request, 1);
    assert_eq!(answer.responses[0].error_code, ErrorCode::None, "{answer:?}");
}

fn limit(client: &mut Client) {
    let ops = vec![OpData { key: "producer_byte_rate".into(), value: Double(1e9), remove: false }];
    let entity = vec![EntityData { entity_type: "client-id".into(), entity_name: Some("other".into()) }];
    let request = AlterClientQuotasRequest { entries: vec![EntryData { entity, ops }], validate_only: false };
    assert_eq!(client.any().ask(&request, 1).entries[0].error_code, ErrorCode::None);
}

fn seen(broker: &Broker) -> Seen {
    let mut client = Client::new(broker.bootstrap());
    let listed = broker.topic(&["list"]).expect("it lists");
    let names: Vec<String> = listed.lines().map(|line| line.split('\t').next().expect("a name").to_owned()).collect();
    let topics = names.into_iter().map(|name| {
        let metadata = client.metadata(&name, false);
        let (id, count) = (metadata.topics[0].topic_id, metadata.topics[0].partitions.len());
        let partitions = 0..i32::try_from(count).expect("a few");
        let read = |partition| client.read(&name, partition, 0);
        let records: Vec<_> = partitions.clone().map(read).collect();
        let mut bounds =
            |partition| (client.offset(&name, partition, EARLIEST), client.offset(&name, partition, LATEST));
        let bounds = partitions.map(&mut bounds).collect();
        SeenTopic { name, id: id.to_string(), records, bounds }
    });
    let topics = topics.collect();
    let described = CONFIGURED.map(|(resource_type, name)| {
        let resource = DescribeConfigsResource { resource_type, resource_name: name.into(), configuration_keys: None };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        format!("{:?}", client.any().ask(&request, 4).results)
    });
    let all = DescribeClientQuotasRequest { components: Vec::new(), strict: false };
    let quotas = format!("{:?}", client.any().ask(&all, 1).entries);
    let committed = committed(&mut client);
    let request = DescribeGroupsRequest { groups: vec!["readers".into()], ..Default::default() };
    let group = until("its coordinator describes it", || {
        let addresses = broker.banner.kafka.iter();
        let mut answers = addresses.map(|address| client.at(address).ask(&request, 5).groups[0].clone());
        answers.find(|group| group.error_code == ErrorCode::None)
    });
    Seen { topics, settings: described.join("\n"), quotas, group: format!("{group:?}"), committed }
}

/// Several topics, settings of every kind, a group, an idempotent producer.
fn write(broker: &Broker) -> (Member, i64) {
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 4);
    broker.topic(&["create", "set", "--partitions", "2", "--config", "retention.ms=123456789"]).expect("a new topic");
    broker.topic(&["create", "gone"]).expect("a new topic");
    broker.topic(&["delete", "gone"]).expect("it is there");
    configure(&mut client, (2, "set"), "max.message.bytes", "54321");
    configure(&mut client, (4, ""), "message.max.bytes", "654321");
    configure(&mut client, (32, "readers"), "consumer.session.timeout.ms", "50000");
    limit(&mut client);
    client.write("t", 0, &["a", "b", "c"]);
    client.write("set", 1, &["d"]);
    let id = client.producer();
    assert_eq!(client.produce("t", 1, sequenced(id, 0, &["x", "y"])).error_code, ErrorCode::None);
    let member = join(&mut client);
    assert_eq!(commit(&mut client, &member, 2), ErrorCode::None);
    (member, id)
}

fn millrace(name: &str, data: &Path, address: &str, more: &[&str]) -> (Option<i32>, String) {
    let arguments = [&[name, "--data-dir", data.to_str().expect("a plain path"), "--metadata", address], more].concat();
    let output = run(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

/// Everything is as it was, and goes on: the same member, the producer without a duplicate, with ids never used before.
fn check(data: &Path, settings: &[&str], before: &Seen, member: &Member, id: i64) {
    let broker = Broker::start(data, settings);
    assert_eq!(&seen(&broker), before);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!(heartbeat(&mut client, member), ErrorCode::None, "same member, same generation");
    assert_eq!(client.produce("t", 1, sequenced(id, 0, &["x", "y"])).base_offset, 0, "the duplicate is known");
    assert_eq!(client.produce("t", 1, sequenced(id, 2, &["z"])).base_offset, 2);
    assert!(client.producer() > id, "an id is given out once");
    assert_eq!(commit(&mut client, member, 3), ErrorCode::None);
    broker.kill();
    let broker = Broker::start(data, settings);
    let mut client = Client::new(broker.bootstrap());
    assert_eq!(client.read("t", 1, 0), ["x", "y", "z"]);
    assert_eq!(committed(&mut client), 3);
    broker.stop();
}

#[test]
fn an_etcd_that_was_lost_is_rebuilt_field_by_field() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let (_directory, data) = directory();
    let address = etcd.address("lost");
    let settings = ["--shards", "2", "--metadata", &address];
    let broker = Broker::start(&data, &settings);
    let (member, id) = write(&broker);
    let before = seen(&broker);
    assert!(before.settings.contains("123456789") && before.settings.contains("50000"), "{}", before.settings);
    assert_eq!(before.committed, 2);
    let (code, text) = millrace("recover", &data, &address, &[]);
    assert!(code == Some(1) && text.contains("another process uses"), "{text}");
    broker.stop();

    etcd.kill();
    etcd.forget();
    etcd.run();
    // A broker that starts on the new one before is refused, and does no harm.
    let refused = refusal(serve(&data).args(settings));
    assert!(refused.contains("belongs to metadata store") && refused.contains("millrace recover"), "{refused}");
    let (code, text) = millrace("recover", &data, &address, &["--dry-run"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("would recover 2 topics with 6 records"), "{text}");
    assert!(text.contains("when it stopped") && text.contains("1 with 1 committed offsets as of 20"), "{text}");
    for generation in ["(generation 1)", "(generation 2)"] {
        // Made again it comes to the same.
        let (code, text) = millrace("recover", &data, &address, &[]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.starts_with("recovered 2 topics with 6 records") && text.contains(generation), "{text}");
    }
    let (code, text) = millrace("audit", &data, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
    check(&data, &settings, &before, &member, id);
    let (code, text) = millrace("audit", &data, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn an_etcd_from_an_older_backup_is_refused_and_reconciled_with_the_bucket() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let (_directory, data) = directory();
    let address = etcd.address("older");
    let settings = ["--shards", "2", "--metadata", &address];
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("old", 1);
    client.create_topic("deleted-later", 1);
    client.write("old", 0, &["before the backup"]);
    client.write("deleted-later", 0, &["never again"]);
    broker.stop();
    etcd.kill();
    let backup = etcd.backup();
    etcd.run();

    let broker = Broker::start(&data, &settings);
    broker.topic(&["delete", "deleted-later"]).expect("it is there");
    let (member, id) = write(&broker);
    let mut client = Client::new(broker.bootstrap());
    client.write("old", 0, &["after the backup"]);
    let before = seen(&broker);
    broker.stop();
    etcd.kill();
    etcd.restore(&backup);
    etcd.run();
    let (code, text) = millrace("audit", &data, &address, &[]);
    assert!(code == Some(1) && text.contains("meta/snap/") && text.contains("it is older"), "{text}");
    for _ in 0..2 {
        let refused = refusal(serve(&data).args(settings));
        assert!(
            refused.contains("is older than the object store") && refused.contains("millrace recover"),
            "{refused}"
        );
    }
    let (code, text) = millrace("recover", &data, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("recovered 3 topics with 8 records") && text.contains("when it stopped"), "{text}");
    let (code, text) = millrace("audit", &data, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
    check(&data, &settings, &before, &member, id);
}

#[test]
fn a_recovery_of_an_etcd_that_is_killed_is_made_again() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let (_directory, data) = directory();
    let address = etcd.address("killed");
    let settings = ["--shards", "2", "--metadata", &address];
    let broker = Broker::start(&data, &settings);
    let (member, id) = write(&broker);
    let before = seen(&broker);
    broker.stop();
    etcd.kill();
    etcd.forget();
    etcd.run();
    let names = |folder: &str| {
        let entries = std::fs::read_dir(data.join(folder)).expect("it is there").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    // The steps leave signs in the bucket one after the other: the snapshot, whose the prefix is, the fences of logs.
    let signs = || (names("log/meta/snap"), std::fs::read(data.join("log/meta/cluster")).expect("it is there"));
    let arguments = ["recover", "--data-dir", data.to_str().expect("a plain path"), "--metadata", &address];
    for step in 0..6 {
        let (snapshots, cluster) = signs();
        let mut process = Running::start(&mut program::millrace(&arguments));
        until("it began, or has ended", || {
            let (now, whose) = signs();
            let is_there = if step % 2 == 0 { now != snapshots } else { whose != cluster };
            (is_there || process.ended().is_some()).then_some(())
        });
        process.signal(Signal::Kill);
        process.end();
    }
    let (code, text) = millrace("recover", &data, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 with 1 committed offsets"), "{text}");
    let (code, text) = millrace("audit", &data, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
    check(&data, &settings, &before, &member, id);
}

#[test]
fn an_etcd_that_is_not_older_keeps_what_was_committed_last() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let (_directory, data) = directory();
    let address = etcd.address("intact");
    // Only the first seconds of its life are in the journal when it is killed.
    let settings = ["--shards", "2", "--metadata", &address, "--journal-ms", "3600000"];
    let broker = Broker::start(&data, &settings);
    let (member, id) = write(&broker);
    let before = seen(&broker);
    broker.kill();
    let (code, text) = millrace("recover", &data, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("as the etcd had them"), "{text}");
    check(&data, &settings, &before, &member, id);

    // The namespace of another cluster is left alone.
    let (_other, theirs) = directory();
    Broker::start(&theirs, &["--shards", "1"]).stop();
    std::fs::remove_dir_all(theirs.join("metadata")).expect("it was there");
    let (code, text) = millrace("recover", &theirs, &address, &[]);
    assert!(code == Some(1) && text.contains("belongs to another cluster"), "{text}");
    drop(etcd);
    etcd = Etcd::start(&[]);
    let address = etcd.address("strange");
    let (code, text) = millrace("recover", &theirs, &address, &[]);
    assert_eq!(code, Some(0), "{text}");
}
