//! Starting, and refusing to.

use crate::kafka::Client;
use crate::program::{Broker, Signal, directory, millrace, now, refusal, serve, shares_port, until};
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn the_banner_says_where_it_listens_where_data_lives_and_what_each_acks_promises() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2", "--name", "east"]);
    let banner = &broker.banner;
    let ports = if shares_port() { 1 } else { 2 };
    assert_eq!((banner.name.as_str(), banner.kafka.len(), banner.cluster.len()), ("east", ports, 22));
    assert_ne!(Some(&banner.kafka[0]), banner.kafka.get(1));
    let text = &banner.text;
    assert!(text.contains(&format!("data       {} (log: file://", data.display())), "{text}");
    assert!(text.contains("acks=all   on disk (fdatasync): survives kill -9 and power loss\n"), "{text}");
    assert!(text.contains("acks=1     appended in memory") && text.contains("acks=0     no answer"), "{text}");
    assert!(!text.contains("advertised"), "{text}");
    broker.stop();
}

#[test]
fn clients_are_told_the_advertised_address_of_each_shard() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2", "--advertise", "broker.example:19092", "--zone", "zone-a"]);
    let text = &broker.banner.text;
    let expected = ["broker.example:19092", "broker.example:19093"];
    let expected = &expected[..if shares_port() { 1 } else { 2 }];
    assert!(text.contains(&format!("advertised {}\n", expected.join(", "))), "{text}");
    let metadata = Client::new(broker.bootstrap()).metadata("absent", false);
    let mut told: Vec<_> = metadata.brokers.iter().map(|node| format!("{}:{}", node.host, node.port)).collect();
    told.sort();
    assert_eq!(told, expected);
    assert!(metadata.brokers.iter().all(|node| node.rack.as_deref() == Some("zone-a")));
    assert_eq!(metadata.cluster_id.as_deref(), Some(broker.banner.cluster.as_str()));
    broker.stop();
}

#[test]
fn a_second_process_on_the_same_data_directory_is_refused_and_the_first_goes_on() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    let refused = refusal(&mut serve(&data));
    assert!(refused.contains("another process uses ") && refused.contains("--data-dir"), "{refused}");
    assert!(refused.contains(data.to_str().expect("a plain path")), "{refused}");
    assert_eq!(broker.get("/readyz").0, 200);
    broker.stop();
}

#[test]
fn a_second_process_on_the_same_file_store_is_refused() {
    let (directory, data) = directory();
    let store = format!("file://{}", directory.path().join("store").display());
    let broker = Broker::start(&data, &["--shards", "1", "--object-store", &store]);
    let refused = refusal(serve(&directory.path().join("other")).args(["--object-store", &store]));
    assert!(refused.contains("another process uses ") && refused.contains("/store"), "{refused}");
    assert!(refused.contains("--object-store"), "the setting that helps is named: {refused}");
    broker.stop();
}

#[test]
fn a_port_that_is_taken_is_refused_with_the_address_and_the_setting() {
    let (_directory, data) = directory();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let data = data.to_str().expect("a plain path");
    let refused = refusal(&mut millrace(&["serve", "--data-dir", data, "--listen", &address, "--shards", "1"]));
    assert!(refused.contains(&format!("can't listen on {address}")) && refused.contains("--listen"), "{refused}");
    let refused = refusal(&mut millrace(&[
        "serve",
        "--data-dir",
        data,
        "--listen",
        "127.0.0.1:0",
        "--shards",
        "1",
        "--admin",
        &address,
    ]));
    assert!(refused.contains(&format!("admin address {address}")) && refused.contains("--admin"), "{refused}");
}

#[test]
fn a_data_directory_that_cannot_be_made_is_refused_with_its_path_and_the_setting() {
    let (directory, _data) = directory();
    // A file in the way stops root too, where permissions would not.
    let file = directory.path().join("file");
    std::fs::write(&file, "").expect("it can be written");
    let refused = refusal(&mut serve(&file.join("data")));
    assert!(refused.contains("file/data can't be used") && refused.contains("--data-dir"), "{refused}");
}

#[test]
fn two_lanes_serve_two_shards_and_one_lane_serves_one() {
    for (shards, lanes) in [("1", "1"), ("2", "2")] {
        let (_directory, data) = directory();
        let broker = Broker::start(&data, &["--shards", shards, "--wal-lanes", lanes]);
        let mut client = Client::new(broker.bootstrap());
        client.create_topic("t", 4);
        for partition in 0..4 {
            assert_eq!(client.write("t", partition, &["a", "b"]), 0);
            assert_eq!(client.read("t", partition, 0), ["a", "b"]);
        }
        broker.stop();
    }
}

#[test]
fn more_lanes_than_shards_are_refused_also_when_the_shards_are_counted_by_the_cores() {
    let (_directory, data) = directory();
    let refused = refusal(serve(&data).args(["--shards", "1", "--wal-lanes", "2"]));
    assert!(refused.contains("wal-lanes"), "{refused}");
    // 16 shards at most are chosen by themselves; a machine has fewer cores than lanes or just as many.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 16 {
        let refused = refusal(serve(&data).args(["--wal-lanes", "16"]));
        assert!(refused.contains("wal-lanes") && refused.contains("--shards"), "{refused}");
    }
}

#[test]
fn sigterm_and_sigint_end_it_at_once_with_success_and_the_log_sealed() {
    for signal in [Signal::Term, Signal::Int] {
        let (_directory, data) = directory();
        let mut broker = Broker::start(&data, &["--shards", "2"]);
        let mut client = Client::new(broker.bootstrap());
        client.create_topic("t", 2);
        client.write("t", 0, &["a"]);
        // The client's connections stay open: they are not waited for.
        let begun = now();
        broker.process.signal(signal);
        let status = broker.process.end();
        let took = begun.elapsed();
        let log = broker.process.err();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("\"stopped\",\"sealed\":true"), "{log}");
        // Far below the limits of draining (10 s); generous for a busy machine.
        assert!(took < Duration::from_secs(3), "{took:?}: {log}");
    }
}

#[test]
fn a_fetch_that_waits_does_not_hold_a_stop_up() {
    let (_directory, data) = directory();
    let mut broker = Broker::start(&data, &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    client.leader("t", 0).send(&crate::kafka::fetch_request("t", 0, 0, 60_000), 12);
    until("the fetch is parked", || (broker.metric("millrace_parked_fetches_total") > 0).then_some(()));
    let begun = now();
    broker.process.signal(Signal::Term);
    assert_eq!(broker.process.end().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
