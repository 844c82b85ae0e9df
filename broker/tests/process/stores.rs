//! Where the log of record may live.

use crate::kafka::Client;
use crate::program::{Broker, directory, refusal, serve, until};

#[test]
fn a_store_and_metadata_outside_of_the_data_directory_are_used_and_found_again() {
    let (directory, data) = directory();
    let store = format!("file://{}/store", directory.path().display());
    let metadata = format!("embedded:{}/meta", directory.path().display());
    let settings = ["--shards", "1", "--object-store", &store, "--metadata", &metadata];
    let broker = Broker::start(&data, &settings);
    assert!(broker.banner.text.contains(&format!("(log: {store})")), "{}", broker.banner.text);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    client.write("t", 0, &["a"]);
    broker.kill();
    assert!(!data.join("log").exists() && !data.join("metadata").exists());
    let broker = Broker::start(&data, &settings);
    assert_eq!(Client::new(broker.bootstrap()).read("t", 0, 0), ["a"]);
    broker.stop();
}

#[test]
fn a_store_that_belongs_to_another_metadata_store_is_refused_with_both_settings_named() {
    let (directory, data) = directory();
    let store = format!("file://{}/store", directory.path().display());
    let broker = Broker::start(&data, &["--shards", "1", "--object-store", &store]);
    broker.stop();
    let refused = refusal(serve(&directory.path().join("other")).args(["--shards", "1", "--object-store", &store]));
    assert!(refused.contains("belongs to metadata store"), "{refused}");
    assert!(refused.contains("--metadata") && refused.contains("--object-store"), "{refused}");
    // Whoever it belongs to still can.
    Broker::start(&data, &["--shards", "1", "--object-store", &store]).stop();
}

#[test]
fn the_memory_store_promises_nothing_and_keeps_nothing() {
    let (_directory, data) = directory();
    let settings = ["--shards", "2", "--object-store", "memory:"];
    let broker = Broker::start(&data, &settings);
    assert!(broker.banner.text.contains("acks=all   in memory: survives nothing"), "{}", broker.banner.text);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 2);
    client.write("t", 1, &["a"]);
    assert_eq!(client.read("t", 1, 0), ["a"]);
    broker.stop();
    let broker = Broker::start(&data, &settings);
    assert_eq!(broker.topic(&["list"]).as_deref(), Ok(""));
    broker.stop();
}

#[test]
fn each_request_to_a_store_is_counted_and_a_broker_that_is_only_read_makes_no_put() {
    for store in ["file:", "memory:"] {
        let (directory, data) = directory();
        let place =
            if store == "file:" { format!("file://{}/store", directory.path().display()) } else { store.into() };
        let broker = Broker::start(&data, &["--shards", "1", "--object-store", &place]);
        let (puts, sent) = ("millrace_store_puts_total", "millrace_store_sent_bytes_total");
        let mut client = Client::new(broker.bootstrap());
        client.create_topic("t", 1);
        let before = (broker.metric(puts), broker.metric(sent));
        // Nothing was produced: no checkpoint is due, however long this takes.
        assert!((0..20).all(|_| client.read("t", 0, 0).is_empty()));
        assert_eq!((broker.metric(puts), broker.metric(sent)), before, "{place}");
        client.write("t", 0, &["a record"]);
        assert!(broker.metric(puts) > before.0 && broker.metric(sent) > before.1, "{place}");
        until("the put's time is counted", || (broker.metric("millrace_store_put_seconds_count") > 0).then_some(()));
        until("its share is", || (broker.metric("millrace_ack_share_seconds_count") > 0).then_some(()));
        assert_eq!(broker.metric("millrace_store_failures_total"), 0, "{place}");
        broker.stop();
    }
}
