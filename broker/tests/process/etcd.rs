//! A process whose metadata are in an etcd.

use crate::etcd_server::{Etcd, http, is_missing};
use crate::groups::{commit, committed, heartbeat, join};
use crate::kafka::{Client, sequenced};
use crate::program::{Broker, directory, refusal, serve, until};
use millrace_protocol::error_code::ErrorCode;

/// A key that is none of ours, in base64.
const FILLER: &str = "L2ZpbGw=";

#[test]
fn records_topics_groups_and_producers_are_kept_in_an_etcd_over_restarts_of_both() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let (_directory, data) = directory();
    let address = etcd.address("broker");
    let settings = ["--shards", "2", "--metadata", &address];
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 4);
    assert_eq!(client.write("t", 0, &["a", "b"]), 0);
    let id = client.producer();
    assert_eq!(client.produce("t", 1, sequenced(id, 0, &["x"])).error_code, ErrorCode::None);
    let member = join(&mut client);
    assert_eq!(commit(&mut client, &member, 2), ErrorCode::None);
    let (name, cluster) = (broker.banner.name.clone(), broker.banner.cluster.clone());
    broker.stop();
    assert!(!data.join("metadata").exists());

    for round in 0..2 {
        // Once with the etcd that was, once with one that was killed meanwhile.
        let broker = Broker::start(&data, &settings);
        assert_eq!((&broker.banner.name, &broker.banner.cluster), (&name, &cluster));
        let mut client = Client::new(broker.bootstrap());
        assert_eq!(client.read("t", 0, 0)[..2], ["a", "b"]);
        assert_eq!(heartbeat(&mut client, &member), ErrorCode::None, "same member, same generation");
        assert_eq!(committed(&mut client), 2 + round);
        assert_eq!(client.produce("t", 1, sequenced(id, 0, &["x"])).base_offset, 0, "the duplicate is known");
        etcd.kill();
        // Produce and fetch need no etcd.
        let base = client.write("t", 0, &["c"]);
        assert_eq!(client.read("t", 0, base), ["c"]);
        etcd.run();
        until("the coordinator writes again", || {
            (commit(&mut client, &member, 3 + round) == ErrorCode::None).then_some(())
        });
        broker.kill();
    }
    let audit =
        crate::program::run(&["audit", "--data-dir", data.to_str().expect("a plain path"), "--metadata", &address]);
    let text = String::from_utf8_lossy(&audit.stdout).into_owned() + &String::from_utf8_lossy(&audit.stderr);
    assert!(audit.status.success(), "{text}");
    assert!(text.contains("the etcd at 127.0.0.1"), "{text}");
}

#[test]
fn a_process_ends_when_an_older_state_of_its_etcd_answers() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let (_directory, data) = directory();
    let address = etcd.address("older");
    let mut broker = Broker::start(&data, &["--shards", "1", "--metadata", &address]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    etcd.kill();
    let backup = etcd.backup();
    etcd.run();
    client.write("t", 0, &["a"]);
    let member = join(&mut client);
    until("a commit is taken", || (commit(&mut client, &member, 1) == ErrorCode::None).then_some(()));
    etcd.kill();
    etcd.restore(&backup);
    etcd.run();
    // It has something to ask etcd soon: its lane's checkpoint.
    let status = until("the process ends", || broker.process.ended());
    assert_eq!(status.code(), Some(1));
    let log = broker.process.err();
    assert!(log.contains("the etcd is not the one that it was") && log.contains("restored from a backup"), "{log}");
}

/// Writes until the etcd takes no more.
fn fill(port: u16) {
    let value = "A".repeat(400_000);
    let put = format!(r#"{{"key":"{FILLER}","value":"{value}"}}"#);
    let is_full = || http(port, "POST", "/v3/kv/put", &put).is_some_and(|text| text.contains("space exceeded"));
    assert!((0..50).any(|_| is_full()), "it takes everything");
}

/// What the error of a full etcd says is to be done.
fn make_room(port: u16) {
    let ask = |path: &str, body: &str| http(port, "POST", path, body).expect("etcd answers");
    let field = |text: &str, name: &str| {
        let found = text.split_once(&format!(r#""{name}":""#)).and_then(|(_, rest)| rest.split_once('"'));
        found.unwrap_or_else(|| panic!("{name} in {text}")).0.to_owned()
    };
    let deleted = ask("/v3/kv/deleterange", &format!(r#"{{"key":"{FILLER}"}}"#));
    let revision = field(&deleted, "revision");
    ask("/v3/kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
    ask("/v3/maintenance/defragment", "{}");
    let alarms = ask("/v3/maintenance/alarm", r#"{"action":"GET"}"#);
    let member = field(alarms.split_once("alarms").expect("it has one").1, "memberID");
    ask("/v3/maintenance/alarm", &format!(r#"{{"action":"DEACTIVATE","memberID":"{member}","alarm":"NOSPACE"}}"#));
}

#[test]
fn a_full_etcd_stops_commits_and_new_topics_but_no_records_and_all_goes_on_once_it_has_room() {
    if is_missing() {
        return;
    }
    let etcd = Etcd::start(&["--quota-backend-bytes", "4194304"]);
    let (_directory, data) = directory();
    let address = etcd.address("full");
    let broker = Broker::start(&data, &["--shards", "1", "--metadata", &address]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let member = join(&mut client);
    until("a commit is taken", || (commit(&mut client, &member, 1) == ErrorCode::None).then_some(()));
    fill(etcd.ports[0]);

    let base = client.write("t", 0, &["a", "b"]);
    assert_eq!(client.read("t", 0, base), ["a", "b"]);
    // Clients try both again.
    let refused = commit(&mut client, &member, 2);
    assert!(matches!(refused, ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable), "{refused:?}");
    assert_eq!(client.try_create_topic("more", 1), ErrorCode::RequestTimedOut);
    assert_eq!(client.read("t", 0, base), ["a", "b"]);

    make_room(etcd.ports[0]);
    until("the group's offset is known", || (committed(&mut client) == 1).then_some(()));
    assert_eq!(heartbeat(&mut client, &member), ErrorCode::None, "same member, same generation");
    until("a commit is taken again", || (commit(&mut client, &member, 3) == ErrorCode::None).then_some(()));
    assert_eq!(committed(&mut client), 3);
    until("a topic is made again", || {
        let answer = client.try_create_topic("more", 1);
        matches!(answer, ErrorCode::None | ErrorCode::TopicAlreadyExists).then_some(())
    });
    // It may be the first request that made it, which nobody waits for.
    until("the topic is led", || {
        let found = client.metadata("more", false).topics[0].partitions.first().cloned();
        found.filter(|partition| partition.leader_id >= 0).map(|_| ())
    });
    client.write("more", 0, &["c"]);
    assert_eq!(client.read("t", 0, base), ["a", "b"]);
}

#[test]
fn an_etcd_that_is_not_there_is_refused_with_what_to_check() {
    let (_directory, data) = directory();
    let address = format!("etcd://127.0.0.1:{}", crate::etcd_server::free_port());
    let refused = refusal(serve(&data).args(["--shards", "1", "--metadata", &address]));
    assert!(refused.contains("--metadata") && refused.contains("can't be used"), "{refused}");
    let refused = refusal(serve(&data).args(["--metadata", "etcd://a b"]));
    assert!(refused.contains("etcd://HOST:PORT"), "{refused}");
    let refused = refusal(serve(&data).args(["--metadata", &address, "--etcd-user", "me"]));
    assert!(refused.contains("etcd-password-file"), "{refused}");
}
