//! What the sockets alone cost: a bare echo on the shards' runtime, one request at a time on each connection.
//!
//! ```text
//! cargo run --release -p millrace-perf --example echo -- [CONNECTIONS [SECONDS]]
//! ```
//!
//! The server is bound to processor 1 and its client to processor 0, as a broker and `millrace-bench` are when their
//! figures are to be compared with this one. Printed is the processor time of the server's thread, from the kernel: what a
//! broker's request costs beyond it is the broker's own.

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
/// Before the window that counts.
const WARM_UP: Duration = Duration::from_secs(1);

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse().expect("a number"));
    let connections = numbers.next().unwrap_or(64);
    let window = Duration::from_secs(numbers.next().unwrap_or(3));
    let cpus = processors();
    let listener = bind(&HostPort { host: "127.0.0.1".to_owned(), port: 0 }, 1).expect("a free port").remove(0);
    let address = listener.local_addr().expect("bound");
    let (say, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            say.send(gettid().as_raw_nonzero().get()).expect("somebody waits for it");
            serve(cpus[1 % cpus.len()], listener, connections);
        });
        let server = heard.recv().expect("the server starts");
        let mut only = CpuSet::new();
        only.set(cpus[0]);
        sched_setaffinity(None, &only).expect("a processor of ours");
        let mut streams: Vec<TcpStream> =
            (0..connections).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        drive(&mut streams, WARM_UP);
        let (before, start) = (run_time(server), Instant::now());
        let echoes = drive(&mut streams, window) as f64;
        let (used, took) = (run_time(server) - before, start.elapsed());
        println!("{connections} connections, {MESSAGE_BYTES} B each way: {:.0} echoes/s", echoes / took.as_secs_f64());
        println!("server {:.2} µs of CPU for each", used.as_secs_f64() * 1e6 / echoes);
    });
}

/// How long the kernel let thread `tid` of this process run.
fn run_time(tid: i32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).expect("the kernel counts run time");
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("its first figure is the time run"))
}

/// Serves that many connections until their peers close.
fn serve(cpu: usize, listener: TcpListener, connections: u64) {
    let served = run(Some(cpu), None, |env| async move {
        let listener = ShardListener::adopt(listener).expect("descriptors are left");
        let mut served = Vec::new();
        for _ in 0..connections {
            let (stream, _peer) = listener.accept().await.expect("one connects");
            let (done, finished) = futures::channel::oneshot::channel();
            env.spawn("echo", async move {
                echo(stream).await;
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

/// Keeps one message under way on each stream for as long as `window` lasts, then takes the last answers. How many came.
fn drive(streams: &mut [TcpStream], window: Duration) -> u64 {
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
