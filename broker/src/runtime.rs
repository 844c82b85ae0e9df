//! The runtime of a shard's thread: glommio, named here only. An executor bound to one processor, its [`Env`], TCP.
//!
//! Traps of the dependency, and what is done about them:
//! 1. Its streams wait in the ring for each request's bytes, and their vectored write sends the first slice only: the
//!    sockets of connections are [`Sockets`] of our own, and only their set waits here.
//! 2. Its listener sets SO_REUSEPORT, so that two processes bind one port and share the connections: [`bind`] does not.
//! 3. It accepts without CLOEXEC: set here.
//! 4. A panic in a task is swallowed: tasks run under a catch that aborts the process.
//! 5. A locked-memory limit below 512 KiB shows only when an executor starts: [`probe`] looks first.
//! 6. While any task is ready, it hears of nothing from outside (bytes of the ring, wakes by other threads) until the time
//!    of a turn is over, which by default is 100 ms: [`TURN`].
//! 7. A turn that is over before its first task has run, since the thread was kept from its processor, is taken for one
//!    with nothing to do: the executor sleeps, and ready tasks wait for whatever wakes it. So turns are long
//!    where they need not be short, and from the first task on a timer is always due soon: [`PULSE`].

#![allow(unsafe_code, reason = "raw descriptors of the dependency's sockets")]

mod last_turns;

use crate::net::sockets::Sockets;
use crate::net::stream::{Accepted, ByteStream, Listener};
use crate::settings::HostPort;
use crate::signal::Signal;
use futures::future::LocalBoxFuture;
use futures::io::AsyncRead;
use futures::{FutureExt, select_biased};
use glommio::net::{TcpListener, TcpStream};
use glommio::timer::Timer;
use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use last_turns::LastTurns;
use millrace_storage::env::{Env, Mono, Runtime, WallMs};
use millrace_storage::mailbox::{Receiver, Sender, mailbox};
use millrace_storage::object::OpenError;
use millrace_storage::side::{SideRuntime, monotonic_now, wall_now};
use rustix::process::{Resource, getrlimit};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Locked memory that an executor's rings need at most.
const LEAST_MEMLOCK_BYTES: u64 = 512 << 10;
/// How long tasks that are always ready keep a shard from hearing its lane and its sockets at most. A thread is hardly ever
/// kept from its processor for so long just when its first task is to run (trap 7).
const TURN: Duration = Duration::from_millis(100);
/// The same while somebody waits for a last turn: it is in every acknowledgement of a shard that is read from without a
/// pause. Looking costs a call.
const SHORT_TURN: Duration = Duration::from_millis(1);
/// How long an executor that fell asleep over ready tasks sleeps at most.
const PULSE: Duration = Duration::from_millis(10);
/// Memory that an executor registers with its ring for direct file access, which shards do not use.
const RING_MEMORY_BYTES: usize = 64 << 10;
/// Pause after a failed accept (no descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Checks that shards can run here; the error names the fix.
pub fn probe() -> Result<(), OpenError> {
    let memlock = getrlimit(Resource::Memlock).current;
    if memlock.is_some_and(|limit| limit < LEAST_MEMLOCK_BYTES) {
        return Err(OpenError::new(
            format!("the limit on locked memory is {} bytes, and io_uring needs 512 KiB", memlock.unwrap_or_default()),
            "raise it: `ulimit -l 1024`, LimitMEMLOCK=1M in a systemd unit, or `--ulimit memlock=1048576` for Docker",
        ));
    }
    // On a thread of its own: an executor leaves thread-local state behind.
    let tried = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("probe".to_owned());
        thread.spawn_scoped(scope, || run(None, None, |_env| async {})).map(|probe| probe.join())
    });
    match tried {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(no_uring("the executor could not be made")),
        Err(error) => Err(OpenError::new(format!("no thread can be started: {error}"), "raise the limit on processes")),
    }
}

fn no_uring(detail: &str) -> OpenError {
    OpenError::new(
        format!("io_uring can't be used ({detail})"),
        "it needs Linux 5.8 or later and the io_uring system calls: where they are switched off \
         (`sysctl kernel.io_uring_disabled`, the default seccomp profile of Docker 25 or containerd), allow them, \
         for Docker with `--security-opt seccomp=unconfined`",
    )
}

/// Runs a shard on the calling thread, bound to processor `cpu` if one is given, until the future made by `make` ends.
/// What computes for long goes to `side`.
pub fn run<T: 'static, F: Future<Output = T> + 'static>(
    cpu: Option<usize>,
    side: Option<SideRuntime>,
    make: impl FnOnce(Env) -> F,
) -> Result<T, OpenError> {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .io_memory(RING_MEMORY_BYTES)
        .preempt_timer(TURN)
        .make()
        .map_err(|error: GlommioError<()>| no_uring(&error.to_string()))?;
    let last_turns = Rc::new(LastTurns::default());
    let main = make(Env::new(Rc::new(ShardRuntime { side, last_turns: last_turns.clone() })));
    Ok(executor.run(async move {
        start_pulse().await;
        last_turns.start(SHORT_TURN);
        main.await
    }))
}

/// Begins the timer of trap 7; it is set before this first task waits for anything.
async fn start_pulse() {
    let mut pulse = Timer::new(PULSE);
    poll_fn(|cx| {
        let _not_due = Pin::new(&mut pulse).poll(cx);
        Poll::Ready(())
    })
    .await;
    glommio::spawn_local(async move {
        loop {
            (&mut pulse).await;
            pulse = Timer::new(PULSE);
        }
    })
    .detach();
}

/// Processors that this process may use, ascending.
pub fn processors() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).expect("asks about this process, with a set of full size");
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect()
}

/// 64 random bits of the operating system.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    let got = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    assert_eq!(got, Ok(bytes.len()), "the kernel gives up to 256 bytes whole");
    u64::from_ne_bytes(bytes)
}

fn spawn(name: &'static str, task: LocalBoxFuture<'static, ()>) {
    glommio::spawn_local(async move {
        // The process shares one fate, also where panics unwind: the message is already on stderr.
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a task ended by a broken invariant");
            std::process::abort();
        }
    })
    .detach();
}

struct ShardRuntime {
    /// None while the machine is probed.
    side: Option<SideRuntime>,
    last_turns: Rc<LastTurns>,
}

impl Runtime for ShardRuntime {
    fn now(&self) -> Mono {
        monotonic_now()
    }

    fn wall(&self) -> WallMs {
        wall_now()
    }

    fn random(&self) -> u64 {
        random()
    }

    fn spawn(&self, name: &'static str, task: LocalBoxFuture<'static, ()>) {
        spawn(name, task);
    }

    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            // The dependency's clock stops in suspend and ours does not: look again until ours is there.
            loop {
                let left = at.since(monotonic_now());
                if left.is_zero() {
                    return;
                }
                Timer::new(left).await;
            }
        })
    }

    fn last_turn(&self) -> LocalBoxFuture<'static, ()> {
        Box::pin(self.last_turns.clone().wait())
    }

    fn aside(&self, work: Box<dyn FnOnce() + Send>) -> LocalBoxFuture<'static, ()> {
        match &self.side {
            Some(side) => Box::pin(side.computing(work)),
            None => {
                work();
                Box::pin(std::future::ready(()))
            }
        }
    }
}

/// How long a port that is taken is tried again. The kernel tears the rings of a killed process down after the process
/// is gone, and until then its listeners live on: a restart right after a crash would find its own ports taken.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
const PORT_RETRY: Duration = Duration::from_millis(5);

/// Binds `count` listeners: `address` and the ports that follow it, or free ports if its port is 0. All or nothing, and
/// each fails if any other process listens there.
pub fn bind(address: &HostPort, count: u16) -> Result<Vec<std::net::TcpListener>, OpenError> {
    (0..count)
        .map(|index| {
            let port = match address.port {
                0 => 0,
                first => first.checked_add(index).ok_or_else(|| {
                    OpenError::new(
                        format!("{count} ports from {first} on do not exist"),
                        "choose a lower --listen port",
                    )
                })?,
            };
            let here = HostPort { host: address.host.clone(), port };
            bind_patiently(&here).map_err(|error| {
                OpenError::new(
                    format!("can't listen on {here}: {error}"),
                    "stop what listens there, or choose another address with --listen (shard i takes PORT+i)",
                )
            })
        })
        .collect()
}

fn bind_patiently(here: &HostPort) -> io::Result<std::net::TcpListener> {
    let until = monotonic_now().plus(PORT_PATIENCE);
    loop {
        match bind_one(here) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && monotonic_now() < until => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "before any executor runs; there is nothing to wait for"
                )]
                std::thread::sleep(PORT_RETRY);
            }
            result => return result,
        }
    }
}

fn bind_one(here: &HostPort) -> io::Result<std::net::TcpListener> {
    let address = (here.host.as_str(), here.port).to_socket_addrs()?.next();
    let address = address.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
    // CLOEXEC and SO_REUSEADDR, not SO_REUSEPORT (trap 2).
    let listener = std::net::TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// A bound listener on this thread's executor.
pub struct ShardListener {
    listener: TcpListener,
    address: SocketAddr,
    sockets: Rc<Sockets>,
}

impl ShardListener {
    /// Takes a listener that [`bind`] made. To be called inside [`run`].
    pub fn adopt(listener: std::net::TcpListener) -> io::Result<ShardListener> {
        let address = listener.local_addr()?;
        // SAFETY: the descriptor is a listening TCP socket that we own and hand over.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        let sockets = Rc::new(Sockets::new()?);
        spawn("sockets", announce(sockets.clone()).boxed_local());
        Ok(ShardListener { listener, address, sockets })
    }
}

/// How many accepted connections wait for a shard that they were handed to.
const HANDED: usize = 16;

/// A connection on its way to its shard, with the address of its peer.
type Handed = (OwnedFd, SocketAddr);

/// What a shard's connections will come through, before its executor runs.
pub struct Door(Way);

enum Way {
    /// A port of its own.
    Port(std::net::TcpListener),
    /// The port of all: accepts for them.
    Shared(std::net::TcpListener, Vec<Sender<Handed>>, Receiver<Handed>),
    /// Takes what the first one hands over.
    Handed(SocketAddr, Receiver<Handed>),
}

/// The doors of `shards` shards, of as many listeners or of one for all.
pub fn doors(mut listeners: Vec<std::net::TcpListener>, shards: u16) -> io::Result<Vec<Door>> {
    if listeners.len() == usize::from(shards) {
        return Ok(listeners.into_iter().map(|listener| Door(Way::Port(listener))).collect());
    }
    let listener = listeners.pop().expect("at least one port is bound");
    let address = listener.local_addr()?;
    let (senders, mut receivers): (Vec<_>, VecDeque<_>) = (0..shards).map(|_| mailbox(HANDED)).unzip();
    let own = receivers.pop_front().expect("at least one shard");
    let mut doors = vec![Door(Way::Shared(listener, senders, own))];
    doors.extend(receivers.into_iter().map(|receiver| Door(Way::Handed(address, receiver))));
    Ok(doors)
}

impl Door {
    /// Opens it. To be called inside [`run`].
    pub fn open(self) -> io::Result<Box<dyn Listener>> {
        let (address, receiver, accepting) = match self.0 {
            Way::Port(listener) => return Ok(Box::new(ShardListener::adopt(listener)?)),
            Way::Handed(address, receiver) => (address, receiver, None),
            Way::Shared(listener, senders, receiver) => {
                let listener = ShardListener::adopt(listener)?;
                let (address, closing) = (listener.address, Rc::new(Signal::default()));
                spawn("hand out", hand_out(listener, senders, closing.clone()).boxed_local());
                (address, receiver, Some(closing))
            }
        };
        let sockets = Rc::new(Sockets::new()?);
        spawn("sockets", announce(sockets.clone()).boxed_local());
        Ok(Box::new(HandedListener { address, receiver: RefCell::new(receiver), sockets, accepting }))
    }
}

/// Accepts for all shards, each in turn. One whose mailbox is full is passed over; while all are, connections wait in the
/// listener's backlog.
async fn hand_out(listener: ShardListener, shards: Vec<Sender<Handed>>, closing: Rc<Signal>) {
    let mut next = 0;
    let mut closed = Box::pin(closing.wait().fuse());
    loop {
        let place = select_biased! { () = closed => None, place = Box::pin(some_place(&shards, next)).fuse() => place };
        let Some(shard) = place else { return };
        let accepted = select_biased! {
            () = closed => return,
            accepted = Box::pin(listener.accept_raw()).fuse() => accepted,
        };
        match accepted {
            // A shard that has gone takes the process with it.
            Ok(handed) => drop(shards[shard].send(handed)),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                Timer::new(ACCEPT_RETRY).await;
            }
        }
        next = (shard + 1) % shards.len();
    }
}

/// The first shard from `next` on that has a place; `None` when one has gone: the process stops.
async fn some_place(shards: &[Sender<Handed>], next: usize) -> Option<usize> {
    poll_fn(|cx| {
        let count = shards.len();
        for shard in (0..count).map(|at| (next + at) % count) {
            match shards[shard].poll_place(cx) {
                Poll::Ready(true) => return Poll::Ready(Some(shard)),
                Poll::Ready(false) => return Poll::Ready(None),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}

/// What takes the connections that were accepted elsewhere.
struct HandedListener {
    address: SocketAddr,
    receiver: RefCell<Receiver<Handed>>,
    sockets: Rc<Sockets>,
    /// Ends the task that accepts, if it runs here.
    accepting: Option<Rc<Signal>>,
}

impl Listener for HandedListener {
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let handed = poll_fn(|cx| self.receiver.borrow_mut().poll_recv(cx)).await;
            let Some((socket, peer)) = handed else { return std::future::pending().await };
            Ok((Box::new(self.sockets.adopt(socket)?) as Box<dyn ByteStream>, peer))
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HandedListener {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.raise();
        }
    }
}

impl ShardListener {
    /// The next connection, of no shard yet.
    async fn accept_raw(&self) -> io::Result<Handed> {
        let stream = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        let peer = stream.peer_addr()?;
        // SAFETY: the stream owns the descriptor and outlives the borrow. The copy closes with an exec (trap 3).
        let copy = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }.try_clone_to_owned()?;
        Ok((copy, peer))
    }
}

impl Listener for ShardListener {
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async {
            let (socket, peer) = self.accept_raw().await?;
            Ok((Box::new(self.sockets.adopt(socket)?) as Box<dyn ByteStream>, peer))
        })
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

/// Wakes the tasks of `sockets` whenever there is news for them, for as long as the executor lives.
async fn announce(sockets: Rc<Sockets>) {
    loop {
        readable(sockets.set()).await;
        sockets.announce().expect("the set is open, and its events are read into memory of ours");
    }
}

/// Waits until `descriptor`, which is no socket, is readable. The dependency waits for sockets only; but a stream of
/// its own waits until its descriptor is readable before it reads, which here fails at once.
async fn readable(descriptor: BorrowedFd<'_>) {
    // SAFETY: the descriptor is open for as long as it is borrowed, and the stream, never dropped, does not close it.
    // Nothing leaks with it: after the read it holds no memory but itself.
    let mut stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor.as_raw_fd()) });
    let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut [0])).await;
    assert!(read.is_err(), "an event set has no bytes to read");
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_storage::env::step_back;
    use std::cell::Cell;
    use std::io::{IoSlice, Read, Write};

    fn loopback() -> HostPort {
        HostPort { host: "127.0.0.1".to_owned(), port: 0 }
    }

    #[test]
    fn shards_can_run_here_and_have_a_clock_tasks_and_random_numbers() {
        probe().unwrap();
        let cpu = processors()[0];
        let slept = run(Some(cpu), None, |env| async move {
            assert_ne!(env.random(), env.random());
            let (done, finished) = futures::channel::oneshot::channel();
            let (start, task_env) = (env.now(), env.clone());
            env.spawn("sleeper", async move {
                task_env.sleep(std::time::Duration::from_millis(3)).await;
                let _ = done.send(task_env.now());
            });
            finished.await.unwrap().since(start)
        });
        assert!(slept.unwrap() >= std::time::Duration::from_millis(3));
    }

    #[test]
    fn work_aside_is_done_on_another_thread_while_the_shard_goes_on() {
        let side = SideRuntime::start().unwrap();
        let shard = std::thread::current().id();
        let (go, may_go) = std::sync::mpsc::channel();
        let worker = run(None, Some(side), |env| async move {
            let work = env.aside(move || {
                may_go.recv().unwrap();
                std::thread::current().id()
            });
            // Would never be said if the work held this thread.
            let (worker, ()) = futures::join!(work, async { go.send(()).unwrap() });
            worker
        });
        assert_ne!(worker.unwrap(), shard);
    }

    #[test]
    fn who_gives_way_gets_a_turn_also_while_another_task_is_always_ready() {
        let turns = run(None, None, |env| async move {
            let over = Rc::new(Cell::new(false));
            let busy = over.clone();
            env.spawn("busy", async move {
                while !busy.get() {
                    step_back().await;
                }
            });
            // Two at once: each gets its own.
            let give_way = |turns: usize| {
                let env = env.clone();
                async move {
                    for _ in 0..turns {
                        env.last_turn().await;
                    }
                    turns
                }
            };
            let (one, other) = futures::join!(give_way(20), give_way(30));
            over.set(true);
            one + other
        });
        assert_eq!(turns.unwrap(), 50);
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_also_in_the_middle_of_the_range() {
        let taken = bind(&loopback(), 1).unwrap().remove(0).local_addr().map(|address| address.port()).unwrap();
        let holder = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
        let first = HostPort { port: taken - 1, ..loopback() };
        let error = bind(&first, 2).unwrap_err();
        assert!(error.problem.contains("can't listen on"), "{error}");
        drop(holder);
    }

    #[test]
    fn connections_to_a_shared_port_are_dealt_to_the_shards_in_turn() {
        const EACH: usize = 3;
        let listeners = bind(&loopback(), 1).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let doors = doors(listeners, 2).unwrap();
        std::thread::scope(|scope| {
            let shards: Vec<_> = doors
                .into_iter()
                .map(|door| {
                    let serve = move |_env| async move {
                        let listener = door.open().unwrap();
                        assert_eq!(listener.local_address(), address);
                        let mut clients = Vec::new();
                        for _ in 0..EACH {
                            let (mut stream, _) = listener.accept().await.unwrap();
                            let mut number = [0];
                            poll_fn(|cx| stream.poll_read(cx, &mut number)).await.unwrap();
                            clients.push(number[0]);
                        }
                        clients
                    };
                    scope.spawn(move || run(None, None, serve).unwrap())
                })
                .collect();
            let clients: Vec<_> = (0..2 * EACH)
                .map(|client| {
                    let mut stream = std::net::TcpStream::connect(address).unwrap();
                    stream.write_all(&[u8::try_from(client).unwrap()]).unwrap();
                    stream
                })
                .collect();
            let served: Vec<Vec<u8>> = shards.into_iter().map(|shard| shard.join().unwrap()).collect();
            assert_eq!(served, [[0, 2, 4], [1, 3, 5]]);
            drop(clients);
        });
    }

    #[test]
    fn bytes_cross_a_real_socket_both_ways_and_every_slice_is_sent() {
        const SLICE: usize = 100_000;
        const SLICES: usize = 100;
        let listener = bind(&loopback(), 1).unwrap().remove(0);
        let address = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let client = scope.spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                stream.write_all(b"hello").unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                all
            });
            run(None, None, |_env| async move {
                let listener = ShardListener::adopt(listener).unwrap();
                assert_eq!(listener.local_address(), address);
                let (mut stream, peer) = listener.accept().await.unwrap();
                assert!(peer.ip().is_loopback());
                let mut got = [0; 16];
                let count = poll_fn(|cx| stream.poll_read(cx, &mut got)).await.unwrap();
                assert_eq!(&got[..count], b"hello");
                // Far more than the socket takes at once, in slices that differ.
                let slices: Vec<Vec<u8>> = (0..SLICES).map(|n| vec![u8::try_from(n).unwrap(); SLICE]).collect();
                let mut sent = 0;
                while sent < SLICES * SLICE {
                    let rest: Vec<IoSlice<'_>> = slices[sent / SLICE..]
                        .iter()
                        .enumerate()
                        .map(|(n, slice)| IoSlice::new(&slice[if n == 0 { sent % SLICE } else { 0 }..]))
                        .collect();
                    sent += poll_fn(|cx| stream.poll_write_vectored(cx, &rest)).await.unwrap();
                }
                poll_fn(|cx| stream.poll_close(cx)).await.unwrap();
            })
            .unwrap();
            let all = client.join().unwrap();
            assert_eq!(all.len(), SLICES * SLICE);
            assert!(all.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at / SLICE));
        });
    }
}
