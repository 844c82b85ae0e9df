//! Connections over an in-memory pair, in virtual time.

use crate::net::arena::CHUNK_BYTES;
use crate::net::budget::{Permit, Pools};
use crate::net::connection::{Connection, Ended, Intake, Limits, PIECE_BYTES, Requests};
use crate::net::duplex::{Duplex, duplex};
use crate::net::frame::Frame;
use crate::net::stream::ByteStream;
use crate::shard::events::{ConnectionId, Reply, ReplyTo, RequestNumber};
use crate::signal::Gauge;
use bytes::Bytes;
use millrace_storage::env::{Env, Mono, step_back};
use millrace_storage::sim::{Ended as RunEnded, Sim};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

const STEPS: u64 = 1_000_000;
const HEARTBEAT: i16 = 12;
const FETCH: i16 = 1;
const COMMIT: i16 = 8;
const JOIN: i16 = 11;
const PRODUCE: i16 = 0;

/// Keeps every request until the test answers it.
#[derive(Default)]
struct Kept {
    requests: RefCell<BTreeMap<ReplyTo, (Frame, Option<Permit>)>>,
    blocked: RefCell<Vec<(ConnectionId, RequestNumber)>>,
    /// What is kept only to serve fetches.
    tail: RefCell<Vec<Bytes>>,
    shortages: Cell<u32>,
}

impl Requests for Kept {
    fn request(&self, reply_to: ReplyTo, frame: Frame, permit: Option<Permit>) {
        self.requests.borrow_mut().insert(reply_to, (frame, permit));
    }
    fn blocked(&self, connection: ConnectionId, request: RequestNumber) {
        self.blocked.borrow_mut().push((connection, request));
    }
    fn short_of_memory(&self) {
        self.shortages.set(self.shortages.get() + 1);
        self.tail.borrow_mut().clear();
    }
}

/// A shard's intake with any number of connections.
struct World {
    env: Env,
    intake: Rc<Intake>,
    kept: Rc<Kept>,
    outbox: Rc<Gauge>,
    connections: Cell<u64>,
}

/// The client's end, and what can be seen of the broker's.
struct Client {
    env: Env,
    wire: Duplex,
    connection: Rc<Connection>,
    ended: Rc<RefCell<Option<Ended>>>,
}

const POOLS: Pools = Pools {
    produce: 64 << 10,
    tail: 4 << 20,
    replies: 64 << 10,
    reads: 0,
    cold: 0,
    lookups: 0,
    reserve: 32 << 10,
    groups: 0,
    producers: 0,
    references: 0,
};

fn limits() -> Limits {
    Limits { in_flight: 4, ..Limits::within(&POOLS, 100 << 20) }
}

/// Runs `test` against a world in virtual time.
fn in_a_world<F: Future<Output = ()> + 'static>(test: impl FnOnce(World) -> F) {
    let sim = Sim::new(7, false);
    let (_, env) = sim.start_process();
    let outbox = Rc::new(Gauge::new(1));
    let intake = Rc::new(Intake::new(env.clone(), &POOLS, limits(), outbox.clone()));
    let world = World { env, intake, kept: Rc::default(), outbox, connections: Cell::new(0) };
    assert_eq!(sim.run(STEPS, test(world)), RunEnded::Done);
    sim.shut_down();
}

impl World {
    fn connect(&self) -> Client {
        let id = ConnectionId(self.connections.get());
        self.connections.set(id.0 + 1);
        let (wire, served) = duplex(1 << 20);
        let connection = Rc::new(Connection::new(id, self.intake.clone()));
        let ended = Rc::new(RefCell::new(None));
        let (task, kept, result) = (connection.clone(), self.kept.clone(), ended.clone());
        self.env.spawn("connection", async move {
            let end = task.serve(Box::new(served), &*kept).await;
            result.replace(Some(end));
        });
        Client { env: self.env.clone(), wire, connection, ended }
    }

    /// Waits until `count` requests are kept.
    async fn kept(&self, count: usize) {
        until(&self.env, || self.kept.requests.borrow().len() == count).await;
    }

    fn take(&self, connection: u64, request: u64) -> (Frame, Option<Permit>) {
        let to = ReplyTo { connection: ConnectionId(connection), request: RequestNumber(request) };
        self.kept.requests.borrow_mut().remove(&to).expect("the request arrived")
    }
}

impl Client {
    async fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = poll_fn(|cx| self.wire.poll_write_vectored(cx, &[IoSlice::new(bytes)])).await;
            bytes = &bytes[sent.expect("the broker reads")..];
        }
    }

    async fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let mut got = 0;
        while got < count {
            let read = poll_fn(|cx| self.wire.poll_read(cx, &mut bytes[got..])).await.expect("memory does not break");
            assert_ne!(read, 0, "the broker closed after {got} bytes");
            got += read;
        }
        bytes
    }

    fn answer(&self, request: u64, reply: Reply) {
        self.connection.answer(RequestNumber(request), reply);
    }

    /// Waits for the end of the connection, closing it when it is overdue as the pump does.
    async fn end(&self) -> Ended {
        loop {
            if let Some(ended) = self.ended.take() {
                return ended;
            }
            if let Some(reason) = self.connection.overdue(self.env.now()) {
                self.connection.close(reason);
            }
            self.env.sleep(Duration::from_secs(1)).await;
        }
    }

    async fn end_reason(&self) -> &'static str {
        match self.end().await {
            Ended::Refused(reason) => reason,
            other => panic!("ended otherwise: {other:?}"),
        }
    }
}

/// Waits, in virtual time, until `condition` holds.
async fn until(env: &Env, condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        env.sleep(Duration::from_millis(1)).await;
    }
    panic!("what was awaited did not come");
}

/// A framed request with a body of `filler`.
fn request(api: i16, filler: u8, length: usize) -> Vec<u8> {
    let mut bytes = i32::try_from(length).unwrap().to_be_bytes().to_vec();
    bytes.extend(api.to_be_bytes());
    bytes.extend(3_i16.to_be_bytes());
    bytes.resize(4 + length, filler);
    bytes
}

fn reply(text: &'static str) -> Reply {
    Reply::Frame(vec![Bytes::from_static(text.as_bytes())])
}

#[test]
fn others_get_their_turn_while_a_large_reply_leaves_for_a_peer_that_takes_all() {
    const PIECES: usize = 4;
    in_a_world(|world| async move {
        let mut reader = world.connect();
        reader.send(&request(FETCH, 1, 20)).await;
        world.kept(1).await;
        // The pair takes all of it at once.
        reader.answer(0, Reply::Frame(vec![Bytes::from(vec![7; PIECES * PIECE_BYTES])]));
        let mut left = world.intake.reply_bytes();
        assert_eq!(left, PIECES * PIECE_BYTES);
        while left == PIECES * PIECE_BYTES {
            step_back().await;
            left = world.intake.reply_bytes();
        }
        assert!(left > 0, "it all left in one turn");
        assert_eq!(reader.receive(PIECES * PIECE_BYTES).await, vec![7; PIECES * PIECE_BYTES]);
    });
}

#[test]
fn replies_leave_in_request_order_whatever_order_they_are_answered_in() {
    in_a_world(async |world| {
        let mut client = world.connect();
        for _ in 0..3 {
            client.send(&request(HEARTBEAT, 1, 20)).await;
        }
        world.kept(3).await;
        client.answer(2, reply("third"));
        client.answer(1, Reply::Frame(vec![Bytes::from_static(b"sec"), Bytes::new(), Bytes::from_static(b"ond")]));
        until(&world.env, || *world.kept.blocked.borrow() == [(ConnectionId(0), RequestNumber(0))]).await;
        client.answer(0, reply("first"));
        assert_eq!(client.receive(16).await, b"firstsecondthird");
        until(&world.env, || world.intake.reply_bytes() == 0).await;
    });
}

#[test]
fn a_muted_connection_hands_nothing_over_until_its_time_while_replies_leave() {
    in_a_world(async |world| {
        let mut client = world.connect();
        client.send(&request(HEARTBEAT, 1, 20)).await;
        world.kept(1).await;
        let over = world.env.now().plus(Duration::from_secs(700));
        client.connection.mute(over);
        client.connection.mute(world.env.now().plus(Duration::from_secs(1)));
        client.send(&request(PRODUCE, 1, 20)).await;
        client.send(&request(HEARTBEAT, 1, 20)).await;
        client.answer(0, reply("first"));
        assert_eq!(client.receive(5).await, b"first");
        world.env.sleep(Duration::from_secs(500)).await;
        assert_eq!(world.kept.requests.borrow().len(), 1, "the longer of both mutes counts");
        assert!(client.connection.is_quiet(), "a process that stops does not wait for it");
        assert_eq!(client.connection.overdue(world.env.now()), None, "the wait is ours");
        world.env.sleep_until(Mono(over.0 - 1)).await;
        assert_eq!(world.kept.requests.borrow().len(), 1);
        world.kept(3).await;
    });
}

#[test]
fn sizes_that_no_request_can_have_end_the_connection_before_any_memory_is_taken() {
    in_a_world(async |world| {
        for size in [-1, i32::MIN, i32::MAX, 2_000_000_000, 0, 7, (32 << 10) + 1] {
            let mut client = world.connect();
            let mut head = request(HEARTBEAT, 0, 8);
            head[..4].copy_from_slice(&size.to_be_bytes());
            client.send(&head).await;
            assert!(client.end_reason().await.contains("frame"), "size {size}");
        }
        for size in [-1, i32::MAX, 0, 7] {
            let mut client = world.connect();
            client.send(&i32::to_be_bytes(size)).await;
            assert!(client.end_reason().await.contains("frame"), "size {size} and nothing more");
        }
        assert_eq!(world.intake.arena().borrow().usage().held, 0);
    });
}

#[test]
fn random_bytes_end_in_a_closed_connection_or_in_requests_and_nothing_else() {
    in_a_world(async |world| {
        for round in 0..200_u64 {
            let mut client = world.connect();
            let junk: Vec<u8> = (0..64).flat_map(|_| world.env.random().to_le_bytes()).collect();
            client.send(&junk[..usize::try_from(round).unwrap() + 8]).await;
            drop(client.wire);
            until(&world.env, || client.ended.borrow().is_some()).await;
        }
    });
}

#[test]
fn a_request_that_trickles_is_cut_off_and_frees_its_permit() {
    in_a_world(async |world| {
        let mut client = world.connect();
        let bytes = request(PRODUCE, 1, 1000);
        client.send(&bytes[..100]).await;
        until(&world.env, || world.intake.produce_bytes() == 1000).await;
        let before = world.env.now();
        assert_eq!(client.end_reason().await, "the request arrives too slowly");
        assert!(world.env.now().since(before) < limits().body_time + Duration::from_secs(3));
        assert_eq!(world.intake.produce_bytes(), 0);
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time_and_holds_no_memory() {
    in_a_world(async |world| {
        let client = world.connect();
        let before = world.env.now();
        assert_eq!(client.end_reason().await, "idle");
        assert!(world.env.now().since(before) >= limits().idle_time);
        assert_eq!(world.intake.arena().borrow().usage().held, 0);
    });
}

#[test]
fn a_connection_that_waits_for_a_reply_is_not_idle() {
    in_a_world(async |world| {
        let mut client = world.connect();
        client.send(&request(HEARTBEAT, 1, 20)).await;
        world.kept(1).await;
        world.env.sleep(2 * limits().idle_time).await;
        assert_eq!(client.connection.overdue(world.env.now()), None);
    });
}

#[test]
fn produce_waits_for_its_permit_while_heartbeats_go_on() {
    in_a_world(async |world| {
        let mut first = world.connect();
        first.send(&request(PRODUCE, 7, 40_000)).await;
        world.kept(1).await;
        let mut second = world.connect();
        second.send(&request(PRODUCE, 8, 40_000)).await;
        let mut third = world.connect();
        third.send(&request(HEARTBEAT, 9, 5_000)).await;
        world.kept(2).await;
        let (heartbeat, permit) = world.take(2, 0);
        assert_eq!((heartbeat.bytes()[0], heartbeat.bytes()[4999], permit.is_none()), (0, 9, true));
        // The wait is the broker's: the client is not blamed for it, however long it lasts.
        world.env.sleep(Duration::from_secs(3600)).await;
        assert_eq!(second.connection.overdue(world.env.now()), None);
        let (frame, permit) = world.take(0, 0);
        assert_eq!(permit.unwrap().bytes(), 40_000);
        assert_eq!((frame.bytes().len(), frame.bytes()[4], frame.bytes()[39_999]), (40_000, 7, 7));
        world.kept(1).await;
        let (frame, _permit) = world.take(1, 0);
        assert_eq!(frame.freeze()[4..], [8; 39_996]);
    });
}

#[test]
fn small_requests_that_wait_are_charged_and_heartbeats_go_on_when_the_reserve_is_gone() {
    in_a_world(async |world| {
        let parked = POOLS.reserve / (2 * 1000 + 256);
        let mut clients: Vec<Client> = (0..=parked).map(|_| world.connect()).collect();
        for client in &mut clients {
            client.send(&request(FETCH, 1, 1000)).await;
        }
        world.kept(parked).await;
        let mut member = world.connect();
        member.send(&request(HEARTBEAT, 1, 1000)).await;
        world.kept(parked + 1).await;
        clients[0].answer(0, Reply::Silent);
        world.kept(parked + 2).await;
    });
}

#[test]
fn a_join_that_waits_keeps_nothing_of_the_reserve() {
    in_a_world(async |world| {
        for joined in 1..=3 {
            let mut member = world.connect();
            member.send(&request(JOIN, 1, POOLS.reserve)).await;
            world.kept(joined).await;
        }
    });
}

#[test]
fn while_replies_pile_up_who_takes_none_of_its_own_is_read_no_further() {
    in_a_world(async |world| {
        let (mut stuck, mut member) = (world.connect(), world.connect());
        stuck.send(&request(FETCH, 1, 20)).await;
        member.send(&request(HEARTBEAT, 1, 20)).await;
        world.kept(2).await;
        stuck.answer(0, Reply::Frame(vec![Bytes::from(vec![1; POOLS.replies + (1 << 20)])]));
        until(&world.env, || world.intake.reply_bytes() >= POOLS.replies).await;
        // More than the peer's socket takes.
        member.answer(0, Reply::Frame(vec![Bytes::from(vec![1; (1 << 20) + (8 << 10)])]));
        // One more is read, which the connection waited for before.
        for _ in 0..2 {
            member.send(&request(HEARTBEAT, 1, 20)).await;
        }
        world.kept(3).await;
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.kept.requests.borrow().len(), 3);
        stuck.receive(POOLS.replies + (1 << 20)).await;
        world.kept(4).await;
    });
}

#[test]
fn no_more_requests_are_read_than_may_be_in_flight() {
    in_a_world(async |world| {
        let mut client = world.connect();
        for _ in 0..6 {
            client.send(&request(HEARTBEAT, 1, 20)).await;
        }
        world.kept(4).await;
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.kept.requests.borrow().len(), 4);
        client.answer(0, Reply::Silent);
        client.answer(1, Reply::Silent);
        world.kept(6).await;
    });
}

#[test]
fn while_replies_pile_up_fetches_wait_and_heartbeats_go_on() {
    in_a_world(async |world| {
        let mut stuck = world.connect();
        stuck.send(&request(FETCH, 1, 20)).await;
        world.kept(1).await;
        stuck.answer(0, Reply::Frame(vec![Bytes::from(vec![1; POOLS.replies + (1 << 20)])]));
        until(&world.env, || world.intake.reply_bytes() >= POOLS.replies).await;
        let (mut reader, mut member) = (world.connect(), world.connect());
        reader.send(&request(FETCH, 1, 20)).await;
        member.send(&request(HEARTBEAT, 1, 20)).await;
        member.send(&request(COMMIT, 1, 20)).await;
        world.kept(3).await;
        stuck.receive(POOLS.replies + (1 << 20)).await;
        world.kept(4).await;
    });
}

#[test]
fn a_few_peers_that_take_no_replies_are_cut_off_soon_when_others_wait_for_them() {
    in_a_world(async |world| {
        let mut stuck = world.connect();
        stuck.send(&request(FETCH, 1, 20)).await;
        world.kept(1).await;
        stuck.answer(0, Reply::Frame(vec![Bytes::from(vec![1; POOLS.replies + (1 << 20)])]));
        let mut reader = world.connect();
        reader.send(&request(FETCH, 1, 20)).await;
        let before = world.env.now();
        assert_eq!(stuck.end_reason().await, "replies are not taken");
        assert!(world.env.now().since(before) < Duration::from_secs(10));
        drop(stuck);
        world.kept(2).await;
    });
}

#[test]
fn a_peer_that_takes_no_replies_is_given_no_further_large_ones() {
    in_a_world(async |world| {
        let mut stuck = world.connect();
        stuck.send(&request(FETCH, 1, 20)).await;
        world.kept(1).await;
        // More than the wire takes, and less than the bounds of the connection and of the pool.
        stuck.answer(0, Reply::Frame(vec![Bytes::from(vec![1; (1 << 20) + 1000])]));
        until(&world.env, || world.intake.reply_bytes() == 1000).await;
        stuck.send(&request(FETCH, 1, 20)).await;
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.kept.requests.borrow().len(), 1);
        stuck.receive(1 << 20).await;
        world.kept(2).await;
    });
}

#[test]
fn while_the_control_task_is_behind_heartbeats_go_on() {
    in_a_world(async |world| {
        world.outbox.add(1);
        let (mut committer, mut member) = (world.connect(), world.connect());
        committer.send(&request(COMMIT, 1, 20)).await;
        member.send(&request(HEARTBEAT, 1, 20)).await;
        member.send(&request(HEARTBEAT, 1, 20)).await;
        world.kept(2).await;
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.kept.requests.borrow().len(), 2);
        world.outbox.subtract(1);
        world.kept(3).await;
    });
}

#[test]
fn requests_that_are_not_answered_keep_their_part_of_the_reserve() {
    in_a_world(async |world| {
        let mut first = world.connect();
        for _ in 0..3 {
            first.send(&request(COMMIT, 1, 4_900)).await;
        }
        world.kept(3).await;
        let (mut second, mut small) = (world.connect(), world.connect());
        second.send(&request(COMMIT, 1, 4_900)).await;
        small.send(&request(HEARTBEAT, 1, 100)).await;
        world.kept(4).await;
        world.env.sleep(Duration::from_secs(1)).await;
        assert_eq!(world.kept.requests.borrow().len(), 4, "the fourth large one waits");
        first.answer(1, Reply::Silent);
        world.kept(5).await;
    });
}

#[test]
fn an_arena_that_the_tail_keeps_full_is_emptied_for_the_next_request() {
    in_a_world(async |world| {
        // Small live slices in every chunk of an arena of three regions, as large refused batches beside them leave it.
        let all = POOLS.arena() / CHUNK_BYTES;
        for _ in 0..all {
            let arena = world.intake.arena();
            let Some(span) = arena.borrow_mut().take(CHUNK_BYTES - 1) else { break };
            world.kept.tail.borrow_mut().push(Frame::in_arena(span).freeze().slice(..100));
        }
        let mut client = world.connect();
        client.send(&request(PRODUCE, 1, 1000)).await;
        world.kept(1).await;
        assert!(world.kept.shortages.get() > 0);
    });
}

#[test]
fn a_trickling_request_is_cut_off_sooner_when_others_wait_for_its_memory() {
    in_a_world(async |world| {
        let (mut slow, mut other) = (world.connect(), world.connect());
        slow.send(&request(PRODUCE, 1, 60_000)[..100]).await;
        until(&world.env, || world.intake.produce_bytes() == 60_000).await;
        other.send(&request(PRODUCE, 1, 20_000)).await;
        let before = world.env.now();
        assert_eq!(slow.end_reason().await, "the request arrives too slowly");
        assert!(world.env.now().since(before) < Duration::from_secs(13));
        world.kept(1).await;
    });
}

#[test]
fn idle_connections_make_room_when_no_further_one_has_a_place() {
    in_a_world(async |world| {
        let client = world.connect();
        world.intake.set_crowded(true);
        let before = world.env.now();
        assert_eq!(client.end_reason().await, "idle");
        assert!(world.env.now().since(before) < Duration::from_secs(40));
    });
}

#[test]
fn a_peer_that_does_not_take_its_replies_is_cut_off() {
    in_a_world(async |world| {
        let mut client = world.connect();
        client.send(&request(HEARTBEAT, 1, 20)).await;
        world.kept(1).await;
        client.answer(0, Reply::Frame(vec![Bytes::from(vec![1; 3 << 20])]));
        assert_eq!(client.end_reason().await, "replies are not taken");
        drop(client);
        assert_eq!(world.intake.reply_bytes(), 0);
    });
}

#[test]
fn a_close_lets_earlier_replies_leave_first_and_no_later_ones() {
    in_a_world(async |world| {
        let mut client = world.connect();
        for _ in 0..3 {
            client.send(&request(HEARTBEAT, 1, 20)).await;
        }
        world.kept(3).await;
        client.answer(2, reply("never seen"));
        client.answer(1, Reply::Close("a broken request"));
        client.answer(0, reply("first"));
        assert_eq!(client.receive(5).await, b"first");
        assert_eq!(client.end_reason().await, "a broken request");
        let mut byte = [0];
        assert_eq!(poll_fn(|cx| client.wire.poll_read(cx, &mut byte)).await.unwrap(), 0);
    });
}
