//! A process whose metadata are in an etcd.

use crate::etcd_server::{Etcd, is_missing};
use crate::groups::{commit, committed, heartbeat, join};
use crate::kafka::{Client, sequenced};
use crate::program::{Broker, directory, refusal, serve, until};
use millrace_protocol::error_code::ErrorCode;

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
