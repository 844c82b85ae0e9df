//! The network between clients and broker processes: byte streams with delay that break, or fall silent, as the seed says.
//!
//! Invariants:
//! 1. Bytes of one direction arrive in order, each once, until the direction ends.
//! 2. A direction of a connection to a host that clients are cut off from carries nothing any more, once it was written to
//!    in that time.
//! 3. Dropping an end ends both directions; the peer learns of it later, or never (a machine that lost its power).

use futures::future::LocalBoxFuture;
use millrace_broker::net::stream::{Accepted, ByteStream, Listener};
use millrace_storage::sim::{Chance, Sim};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Bytes under way in one direction at most.
const CAPACITY: usize = 64 << 10;
/// A connection that breaks by itself does so within this time.
const BREAKS_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

#[derive(Default)]
struct Direction {
    chunks: VecDeque<(u64, VecDeque<u8>)>,
    buffered: usize,
    last_arrival: u64,
    end: Option<(u64, End)>,
    // The reading end is gone.
    broken: bool,
    // What is written vanishes.
    silent: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Direction {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

type Shared = Rc<RefCell<Direction>>;

struct Backlog {
    waiting: VecDeque<Accepted>,
    acceptor: Option<Waker>,
}

struct State {
    sim: Sim,
    /// Of each address those who listen there, the newest last.
    listeners: RefCell<BTreeMap<SocketAddr, Vec<Rc<RefCell<Backlog>>>>>,
    next_client: Cell<u16>,
    breaks: Cell<Chance>,
    /// Whether machines are lost with all that they would have said at their end.
    loses_power: Cell<bool>,
    /// Hosts that clients are cut off from, and until when.
    cuts: RefCell<BTreeMap<IpAddr, u64>>,
}

/// An address whose connections are dealt to others.
struct Dealt {
    front: SocketAddr,
    behind: Vec<SocketAddr>,
}

/// All connections of a run. A clone is another handle.
#[derive(Clone)]
pub(super) struct Network(Rc<State>, Option<Rc<Dealt>>);

impl Network {
    /// A network on which a connection breaks with this chance.
    pub(super) fn new(sim: &Sim, breaks: Chance) -> Network {
        let state = State {
            sim: sim.clone(),
            listeners: RefCell::default(),
            next_client: Cell::new(1_024),
            breaks: Cell::new(breaks),
            loses_power: Cell::new(true),
            cuts: RefCell::default(),
        };
        Network(Rc::new(state), None)
    }

    /// Connections to `front` go to one of the addresses `behind` it, by the dice.
    pub(super) fn dealing(self, front: SocketAddr, behind: Vec<SocketAddr>) -> Network {
        Network(self.0, Some(Rc::new(Dealt { front, behind })))
    }

    /// Who goes says so.
    pub(super) fn keep_power(&self) {
        self.0.loses_power.set(false);
    }

    /// New connections no longer break by themselves.
    pub(super) fn heal(&self) {
        self.0.breaks.set(Chance::NEVER);
        self.0.cuts.borrow_mut().clear();
    }

    /// For a while clients are cut off from a host.
    pub(super) fn cut(&self, host: IpAddr, length: Duration) {
        self.0.sim.note(format_args!("clients are cut off from {host} for {length:?}"));
        self.0.cuts.borrow_mut().insert(host, self.0.sim.now() + length.as_nanos() as u64);
    }

    fn is_cut(&self, host: IpAddr) -> bool {
        self.0.cuts.borrow().get(&host).is_some_and(|until| *until > self.0.sim.now())
    }

    /// Listens on an address, instead of whoever listens there already: that is not heard of again until this one is gone.
    pub(super) fn listen(&self, address: SocketAddr) -> Box<dyn Listener> {
        let backlog = Rc::new(RefCell::new(Backlog { waiting: VecDeque::new(), acceptor: None }));
        self.0.listeners.borrow_mut().entry(address).or_default().push(backlog.clone());
        Box::new(SimListener { network: self.clone(), address, backlog })
    }

    /// Connects as a client.
    pub(super) async fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn ByteStream>> {
        let sim = &self.0.sim;
        sim.sleep(self.delay()).await;
        let dealt = self.1.as_ref().filter(|dealt| dealt.front == address);
        let address = dealt.map_or(address, |dealt| dealt.behind[sim.dice(|d| d.index(dealt.behind.len()))]);
        if self.is_cut(address.ip()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let backlog = self.0.listeners.borrow().get(&address).and_then(|listeners| listeners.last().cloned());
        let backlog = backlog.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (there, back): (Shared, Shared) = Default::default();
        let stream = |incoming: &Shared, outgoing: &Shared| -> Box<dyn ByteStream> {
            let (network, incoming, outgoing) = (self.clone(), incoming.clone(), outgoing.clone());
            Box::new(SimStream { network, host: address.ip(), incoming, outgoing })
        };
        self.plan_break(&there, &back);
        let port = self.0.next_client.get();
        self.0.next_client.set(port.checked_add(1).unwrap_or(1_024));
        let mut backlog = backlog.borrow_mut();
        backlog.waiting.push_back((stream(&there, &back), SocketAddr::from(([10, 9, 9, 9], port))));
        if let Some(acceptor) = backlog.acceptor.take() {
            acceptor.wake();
        }
        Ok(stream(&back, &there))
    }

    fn delay(&self) -> Duration {
        self.0.sim.dice(|d| d.latency(&(Duration::from_micros(20)..Duration::from_millis(5))))
    }

    fn plan_break(&self, there: &Shared, back: &Shared) {
        let (breaks, kind, after) = self
            .0
            .sim
            .dice(|d| (d.happens(self.0.breaks.get()), d.index(3), d.latency(&(Duration::ZERO..BREAKS_WITHIN))));
        if !breaks {
            return;
        }
        let (sim, there, back) = (self.0.sim.clone(), there.clone(), back.clone());
        self.0.sim.after(after, move || match kind {
            0 => there.borrow_mut().silent = true,
            1 => back.borrow_mut().silent = true,
            _ => {
                for direction in [&there, &back] {
                    let mut direction = direction.borrow_mut();
                    direction.chunks.clear();
                    direction.end = Some((sim.now(), End::Reset));
                    direction.broken = true;
                    direction.wake();
                }
            }
        });
    }
}

struct SimListener {
    network: Network,
    address: SocketAddr,
    backlog: Rc<RefCell<Backlog>>,
}

impl Listener for SimListener {
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Accepted>> {
        Box::pin(futures::future::poll_fn(|cx| {
            let mut backlog = self.backlog.borrow_mut();
            match backlog.waiting.pop_front() {
                Some(accepted) => Poll::Ready(Ok(accepted)),
                None => {
                    backlog.acceptor = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let mut listeners = self.network.0.listeners.borrow_mut();
        if let Some(listeners) = listeners.get_mut(&self.address) {
            listeners.retain(|listener| !Rc::ptr_eq(listener, &self.backlog));
        }
        drop(listeners);
        let waiting = std::mem::take(&mut self.backlog.borrow_mut().waiting);
        drop(waiting);
    }
}

struct SimStream {
    network: Network,
    /// Where its listener is.
    host: IpAddr,
    incoming: Shared,
    outgoing: Shared,
}

impl SimStream {
    fn wake_at(&self, at: u64, direction: &Shared) {
        let sim = &self.network.0.sim;
        let direction = direction.clone();
        sim.after(Duration::from_nanos(at.saturating_sub(sim.now())), move || direction.borrow_mut().wake());
    }

    fn end(&self, direction: &Shared, end: End) {
        let at = self.network.0.sim.now() + self.network.delay().as_nanos() as u64;
        {
            let mut direction = direction.borrow_mut();
            let at = at.max(direction.last_arrival);
            if direction.silent || direction.end.is_some() {
                return;
            }
            direction.end = Some((at, end));
        }
        self.wake_at(at, direction);
    }
}

impl ByteStream for SimStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let now = self.network.0.sim.now();
        let mut pipe = self.incoming.borrow_mut();
        if let Some((at, chunk)) = pipe.chunks.front_mut()
            && *at <= now
        {
            let count = buffer.len().min(chunk.len());
            buffer.iter_mut().zip(chunk.drain(..count)).for_each(|(place, byte)| *place = byte);
            if chunk.is_empty() {
                pipe.chunks.pop_front();
            }
            pipe.buffered -= count;
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(count));
        }
        match pipe.end {
            Some((at, End::Closed)) if at <= now && pipe.chunks.is_empty() => Poll::Ready(Ok(0)),
            Some((at, End::Reset)) if at <= now => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            _ => {
                pipe.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let sim = &self.network.0.sim;
        let mut pipe = self.outgoing.borrow_mut();
        if pipe.broken || pipe.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = CAPACITY - pipe.buffered;
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Writes are cut anywhere, as sockets do under load.
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let taken = if sim.dice(|d| d.index(8)) == 0 { 1 + sim.dice(|d| d.index(offered)) } else { offered };
        let bytes: VecDeque<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(taken.min(room)).collect();
        let count = bytes.len();
        pipe.buffered += count;
        pipe.silent |= self.network.is_cut(self.host);
        if pipe.silent {
            return Poll::Ready(Ok(count));
        }
        let arrival = pipe.last_arrival.max(sim.now() + self.network.delay().as_nanos() as u64);
        pipe.last_arrival = arrival;
        pipe.chunks.push_back((arrival, bytes));
        drop(pipe);
        self.wake_at(arrival, &self.outgoing);
        Poll::Ready(Ok(count))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end(&self.outgoing, End::Closed);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // One in eight peers never hears of it.
        if self.network.0.loses_power.get() && self.network.0.sim.dice(|d| d.index(8)) == 0 {
            self.outgoing.borrow_mut().silent = true;
            return;
        }
        self.end(&self.outgoing, End::Closed);
        let mut incoming = self.incoming.borrow_mut();
        incoming.broken = true;
        if let Some(writer) = incoming.writer.take() {
            writer.wake();
        }
    }
}
