//! What the sockets alone cost on the shards' runtime: a bare echo, one small request at a time on each connection, or a
//! sink that reads what comes and keeps nothing.
//!
//! ```text
//! cargo run --release -p millrace-perf --example sockets -- echo|sink [CONNECTIONS [SECONDS]]
//! ```
//!
//! The server is bound to processor 1 and its client to processor 0, as a broker and `millrace-bench` are when their
//! figures are to be compared with these. Printed is the processor time of the server's thread, from the kernel: what a
//! broker's request, or a GiB produced, costs beyond it is the broker's own.

#![allow(clippy::disallowed_methods, reason = "measures real time on threads of its own")]

use futures::future::join_all;
use millrace_broker::net::stream::{ByteStream, Listener};
use millrace_broker::runtime::{ShardListener, bind, processors, run};
use millrace_broker::settings::HostPort;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use std::future::poll_fn;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// About what a produce request of one record of 100 B takes on the wire.
const MESSAGE_BYTES: usize = 200;
/// What the sink's client writes at a time.
const BLOCK_BYTES: usize = 64 << 10;
/// What the sink reads at a time, as a shard does.
const READ_BYTES: usize = 256 << 10;
/// Before the window that counts.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum Server {
    Echo,
    Sink,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let server = match arguments.next().as_deref() {
        Some("echo") => Server::Echo,
        Some("sink") => Server::Sink,
        _ => panic!("echo or sink [CONNECTIONS [SECONDS]]"),
    };
    let mut numbers = arguments.map(|number| number.parse().expect("a number"));
    let connections = numbers.next().unwrap_or(match server {
        Server::Echo => 64,
        Server::Sink => 4,
    });
    let window = Duration::from_secs(numbers.next().unwrap_or(3));
    let cpus = processors();
    let listener = bind(&HostPort { host: "127.0.0.1".to_owned(), port: 0 }, 1).expect("a free port").remove(0);
    let address = listener.local_addr().expect("bound");
    let (say, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            say.send(gettid().as_raw_nonzero().get()).expect("somebody waits for it");
            serve(server, cpus[1 % cpus.len()], listener, connections);
        });
        let thread = heard.recv().expect("the server starts");
        let mut only = CpuSet::new();
        only.set(cpus[0]);
        sched_setaffinity(None, &only).expect("a processor of ours");
        let mut streams: Vec<TcpStream> =
            (0..connections).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let drive = match server {
            Server::Echo => drive_echo,
            Server::Sink => drive_sink,
        };
        drive(&mut streams, WARM_UP);
        let (before, start) = (run_time(thread), Instant::now());
        let count = drive(&mut streams, window) as f64;
        let (used, took) = ((run_time(thread) - before).as_secs_f64(), start.elapsed().as_secs_f64());
        match server {
            Server::Echo => {
                println!("{connections} connections, {MESSAGE_BYTES} B each way: {:.0} echoes/s", count / took);
                println!("server {:.2} µs of CPU for each", used * 1e6 / count);
            }
            Server::Sink => {
                let gib = count * BLOCK_BYTES as f64 / f64::from(1 << 30);
                println!("{connections} connections, {BLOCK_BYTES} B a write: {:.2} GiB/s", gib / took);
                println!("server {:.3} s of CPU per GiB", used / gib);
            }
        }
    });
}

/// How long the kernel let thread `tid` of this process run.
fn run_time(tid: i32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).expect("the kernel counts run time");
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("its first figure is the time run"))
}

/// Serves that many connections until their peers close.
fn serve(server: Server, cpu: usize, listener: TcpListener, connections: u64) {
    let served = run(Some(cpu), None, |env| async move {
        let listener = ShardListener::adopt(listener).expect("descriptors are left");
        let mut served = Vec::new();
        for _ in 0..connections {
            let (stream, _peer) = listener.accept().await.expect("one connects");
            let (done, finished) = futures::channel::oneshot::channel();
            env.spawn("connection", async move {
                match server {
                    Server::Echo => echo(stream).await,
                    Server::Sink => sink(stream).await,
                }
                let _nobody_waits_after_a_panic = done.send(());
            });
            served.push(finished);
        }
        join_all(served).await;
    });
    served.expect("io_uring works here");
}

/// Sends everything back until the peer closes.
async fn echo(mut stream: Box<dyn ByteStream>) {
    // Longer than a message, as a broker's would be: a read that fills it says nothing of what is left.
    let mut buffer = [0; 2 * MESSAGE_BYTES];
    loop {
        let count = match poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let sent = poll_fn(|cx| stream.poll_write_vectored(cx, &[IoSlice::new(&buffer[..count])])).await;
        assert_eq!(sent.ok(), Some(count), "one message finds room");
    }
}

/// Reads until the peer closes.
async fn sink(mut stream: Box<dyn ByteStream>) {
    let mut buffer = vec![0; READ_BYTES];
    while let Ok(1..) = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await {}
}

/// Writes to each stream in turn for as long as `window` lasts. How many blocks.
fn drive_sink(streams: &mut [TcpStream], window: Duration) -> u64 {
    let (block, start, mut blocks) = (vec![7; BLOCK_BYTES], Instant::now(), 0);
    while start.elapsed() < window {
        for stream in &mut *streams {
            stream.write_all(&block).expect("the server lives");
            blocks += 1;
        }
    }
    blocks
}

/// Keeps one message under way on each stream for as long as `window` lasts, then takes the last answers. How many came.
fn drive_echo(streams: &mut [TcpStream], window: Duration) -> u64 {
    let set = epoll::create(CreateFlags::CLOEXEC).expect("descriptors are left");
    for (key, stream) in streams.iter_mut().enumerate() {
        epoll::add(&set, &*stream, EventData::new_u64(key as u64), EventFlags::IN).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(&[7; MESSAGE_BYTES]).expect("the server lives");
    }
    let (start, mut echoes, mut under_way) = (Instant::now(), 0, streams.len());
    let mut events = Vec::with_capacity(streams.len());
    while under_way > 0 {
        events.clear();
        epoll::wait(&set, spare_capacity(&mut events), None).expect("no signal comes");
        let over = start.elapsed() >= window;
        for event in &events {
            let stream = &mut streams[event.data.u64() as usize];
            stream.read_exact(&mut [0; MESSAGE_BYTES]).expect("the server lives");
            echoes += 1;
            if over {
                under_way -= 1;
            } else {
                stream.write_all(&[7; MESSAGE_BYTES]).expect("the server lives");
            }
        }
    }
    echoes
}
