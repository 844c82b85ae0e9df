//! What clients that are broken, or mean harm, can make a process hold: its resident size stays within its total.

use crate::kafka::{Client, Connection};
use crate::program::{Broker, Running, directory, until};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::request_frame;
use millrace_protocol::messages::join_group::JoinGroupRequestProtocol;
use millrace_protocol::messages::{ApiVersionsRequest, HeartbeatRequest, JoinGroupRequest};
use std::io::{ErrorKind, Write};

/// `--memory-mib`: the produce pool takes a frame of 100 MiB.
const MEMORY_MIB: u64 = 512;
/// What the program itself takes, and the allocator keeps.
const BESIDES_MIB: u64 = 128;

/// A broker with one shard.
fn broker(data: &std::path::Path) -> Broker {
    let memory = MEMORY_MIB.to_string();
    Broker::start(data, &["--shards", "1", "--memory-mib", &memory])
}

/// The largest resident size that the process has had, MiB.
fn peak_mib(process: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says so");
    peak.trim().strip_suffix(" kB").expect("its unit").parse::<u64>().expect("a number") / 1024
}

/// What one pool holds, and its bound, bytes.
fn pool(broker: &Broker, name: &str) -> (u64, u64) {
    let (_, text) = broker.get("/metrics");
    let value = |series: &str| {
        let start = format!("{series}{{shard=\"0\",pool=\"{name}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).expect("a pool").parse().expect("a number")
    };
    (value("millrace_pool_bytes"), value("millrace_pool_bound_bytes"))
}

fn assert_within_total(broker: &Broker) {
    let peak = peak_mib(&broker.process);
    assert!(peak < MEMORY_MIB + BESIDES_MIB, "{peak} MiB");
}

/// A produce request of version 9 whose one topic has as many empty partitions as fit into `bytes`.
fn empty_partitions(bytes: usize) -> Vec<u8> {
    /// Index, null records, no tags.
    const PARTITION: [u8; 6] = [0, 0, 0, 0, 0, 0];
    let count = bytes / PARTITION.len();
    let mut frame = vec![0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0];
    // No transactional id, acks −1, a timeout, one topic called "t".
    frame.extend([0, 0xff, 0xff, 0, 0, 0, 100, 2, 2, b't']);
    let mut rest = u32::try_from(count + 1).expect("few enough");
    while rest >= 0x80 {
        frame.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    frame.push(u8::try_from(rest).expect("seven bits"));
    frame.extend(std::iter::repeat_n(PARTITION, count).flatten());
    frame.extend([0, 0]);
    let mut whole = u32::try_from(frame.len()).expect("below 4 GiB").to_be_bytes().to_vec();
    whole.append(&mut frame);
    whole
}

#[test]
fn frames_of_empty_partitions_are_refused_before_they_are_taken_apart() {
    let (_directory, data) = directory();
    let broker = broker(&data);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let frame = empty_partitions((100 << 20) - 1024);
    for _ in 0..2 {
        let mut connection = Connection::open(broker.bootstrap());
        // It may be refused, and the connection closed, before the last byte.
        let _ = connection.stream.write_all(&frame);
        assert!(connection.is_closed());
    }
    assert_within_total(&broker);
    assert_eq!(client.write("t", 0, &["a"]), 0);
    broker.stop();
}

#[test]
fn members_with_much_to_say_are_refused_when_the_groups_have_no_room_and_heartbeats_go_on() {
    const CONNECTIONS: usize = 20;
    const MEMBERS_EACH: usize = 50;
    const METADATA: usize = 256 << 10;
    let (_directory, data) = directory();
    let broker = broker(&data);
    let metadata = Bytes::from(vec![7; METADATA]);
    let join = |group: String| JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: metadata.clone() }],
        ..JoinGroupRequest::default()
    };
    let mut members: Vec<Connection> = (0..CONNECTIONS).map(|_| Connection::open(broker.bootstrap())).collect();
    for member in 0..MEMBERS_EACH {
        for (at, connection) in members.iter_mut().enumerate() {
            connection.send(&join(format!("group {at} {member}")), 3);
        }
    }
    let mut other = Connection::open(broker.bootstrap());
    let beat = other.ask(&HeartbeatRequest { group_id: "another".into(), ..HeartbeatRequest::default() }, 4);
    assert_eq!(beat.error_code, ErrorCode::UnknownMemberId);
    let mut refused = 0;
    for connection in &mut members {
        for _ in 0..MEMBERS_EACH {
            let (_, answer) = connection.receive::<JoinGroupRequest>(3);
            match answer.error_code {
                ErrorCode::None => {}
                ErrorCode::GroupMaxSizeReached => refused += 1,
                error => panic!("{error:?}"),
            }
        }
    }
    let (_, bound) = pool(&broker, "groups");
    let most = usize::try_from(bound).expect("64 bits") / METADATA;
    assert!(CONNECTIONS * MEMBERS_EACH - refused <= most, "{refused} refused, room for {most}");
    assert!(CONNECTIONS * MEMBERS_EACH - refused > most / 2, "{refused} refused, room for {most}");
    until("the gauge shows it", || (pool(&broker, "groups").0 > bound / 2).then_some(()));
    assert_within_total(&broker);
    broker.stop();
}

#[test]
fn a_peer_that_asks_and_asks_and_reads_nothing_is_read_no_further() {
    const CONNECTIONS: usize = 20;
    const REQUESTS: usize = 10_000;
    /// The most of replies that wait for one connection, and the last of them.
    const UNSENT: u64 = (1 << 20) + (64 << 10);
    let (_directory, data) = directory();
    let broker = broker(&data);
    let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| Connection::open(broker.bootstrap())).collect();
    for connection in &mut connections {
        connection.stream.set_nonblocking(true).expect("a socket");
    }
    let request = request_frame(&ApiVersionsRequest::default(), 0, 1, None).expect("has a form").concat();
    for connection in &mut connections {
        for _ in 0..REQUESTS {
            match connection.stream.write(&request) {
                Ok(count) if count == request.len() => {}
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    assert_eq!(client.write("t", 0, &["a"]), 0);
    let (waiting, _) = pool(&broker, "replies");
    assert!(waiting <= CONNECTIONS as u64 * UNSENT, "{waiting} bytes wait for {CONNECTIONS}");
    assert_within_total(&broker);
    broker.stop();
}
