//! The admin endpoint.

use crate::kafka::Client;
use crate::program::{Broker, directory, http, until};
use std::io::Write;
use std::net::TcpStream;

/// More than the endpoint takes at a time.
const MANY: usize = 200;

#[test]
fn it_says_alive_ready_and_what_was_counted() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "2"]);
    assert_eq!(broker.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(broker.get("/readyz"), (200, "ready\n".to_owned()));
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 2);
    client.write("t", 0, &["a", "b", "c"]);
    client.write("t", 1, &["d"]);
    until("the records are counted", || (broker.metric("millrace_records_total") == 4).then_some(()));
    assert!(broker.metric("millrace_resident_bytes") > 1 << 20);
    assert!(broker.metric("millrace_start_time_seconds") > 1_700_000_000);
    until("the connections are counted", || (broker.metric("millrace_connections") > 0).then_some(()));
    let (_, text) = broker.get("/metrics");
    assert!(text.ends_with("# EOF\n") && text.contains("{shard=\"1\"}"), "{text}");
    broker.stop();
}

#[test]
fn other_paths_and_methods_and_what_is_no_http_get_an_error_and_harm_nobody() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    assert_eq!(broker.get("/").0, 404);
    assert_eq!(broker.get("/metrics/../x").0, 404);
    assert_eq!(broker.get("/readyz?verbose").0, 200);
    let ask = |request: &str| http(broker.admin(), request).0;
    assert_eq!(ask("POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), 405);
    assert_eq!(ask("DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), 405);
    assert_eq!(
        http(broker.admin(), "HEAD /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
        (200, String::new())
    );
    assert_eq!(ask("nonsense\r\n\r\n"), 400);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    assert!(matches!(ask(&long), 0 | 400 | 414 | 431));
    assert_eq!(broker.get("/healthz").0, 200);
    broker.stop();
}

#[test]
fn more_connections_than_it_takes_are_closed_and_it_answers_again_when_they_go() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &["--shards", "1"]);
    // Each has sent half a request and says no more.
    let idle: Vec<TcpStream> = (0..MANY)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(broker.admin()).ok()?;
            stream.write_all(b"GET /metrics HT").ok()?;
            Some(stream)
        })
        .collect();
    assert!(!idle.is_empty());
    // Kafka's side does not suffer.
    Client::new(broker.bootstrap()).create_topic("t", 1);
    drop(idle);
    until("the endpoint answers", || (broker.get("/healthz").0 == 200).then_some(()));
    broker.stop();
}
