//! Connections in memory whose reads, writes and waits are counted as the broker's runtime would make them of a socket.
//!
//! A read gives all that the client has sent, as far as the buffer goes; a real socket may give less at a time. Each read
//! and each write is a system call. Whoever finds nothing waits, which costs neither a call nor an entry of
//! the ring by itself, but a wake later; and first calls in vain, unless the read before came back short, which says that nothing is left.

use crate::meter::{Account, enter};
use bytes::{Buf, Bytes};
use futures::future::LocalBoxFuture;
use millrace_broker::net::stream::{Accepted, ByteStream, Listener};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Calls of all connections of one listener.
#[derive(Default)]
pub(crate) struct Calls {
    /// Reads, those in vain included.
    pub reads: Cell<u64>,
    /// Waits for bytes.
    pub waits: Cell<u64>,
    /// Writes.
    pub writes: Cell<u64>,
}

#[derive(Default)]
struct State {
    to_broker: VecDeque<Bytes>,
    to_client: Vec<u8>,
    /// Whether the last read came back short, or somebody waits since.
    drained: bool,
    broker: Option<Waker>,
    client: Option<Waker>,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn add_one(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// The broker's end.
struct BrokerEnd {
    state: Rc<RefCell<State>>,
    calls: Rc<Calls>,
}

impl ByteStream for BrokerEnd {
    fn poll_read(&mut self, cx: &mut Context<'_>, mut buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let _unmetered = enter(Account::Nobody);
        let mut state = self.state.borrow_mut();
        if state.to_broker.is_empty() {
            if !state.drained {
                add_one(&self.calls.reads);
            }
            if state.broker.is_none() {
                add_one(&self.calls.waits);
            }
            state.drained = true;
            state.broker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let room = buffer.len();
        while let Some(front) = state.to_broker.front_mut().filter(|_| !buffer.is_empty()) {
            let count = front.len().min(buffer.len());
            let (now, later) = buffer.split_at_mut(count);
            front.copy_to_slice(now);
            buffer = later;
            if front.is_empty() {
                state.to_broker.pop_front();
            }
        }
        add_one(&self.calls.reads);
        state.drained = !buffer.is_empty();
        Poll::Ready(Ok(room - buffer.len()))
    }

    fn poll_write_vectored(&mut self, _cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let _unmetered = enter(Account::Nobody);
        let mut state = self.state.borrow_mut();
        slices.iter().for_each(|slice| state.to_client.extend_from_slice(slice));
        add_one(&self.calls.writes);
        wake(&mut state.client);
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The client's end.
pub(crate) struct ClientEnd(Rc<RefCell<State>>);

impl ClientEnd {
    /// Sends a frame.
    pub(crate) fn send(&self, frame: &Bytes) {
        let mut state = self.0.borrow_mut();
        state.to_broker.push_back(frame.clone());
        wake(&mut state.broker);
    }

    /// The next answer without its length.
    pub(crate) async fn receive(&self) -> Bytes {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            let length = state.to_client.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
            if let Some(length) = length.filter(|length| state.to_client.len() >= 4 + length) {
                let answer = Bytes::copy_from_slice(&state.to_client[4..4 + length]);
                state.to_client.drain(..4 + length);
                return Poll::Ready(answer);
            }
            state.client = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Where clients connect.
#[derive(Clone, Default)]
pub(crate) struct Port {
    waiting: Rc<RefCell<VecDeque<BrokerEnd>>>,
    acceptor: Rc<RefCell<Option<Waker>>>,
    /// What its connections called.
    pub calls: Rc<Calls>,
}

impl Port {
    /// A new connection.
    pub(crate) fn connect(&self) -> ClientEnd {
        let state = Rc::new(RefCell::new(State::default()));
        self.waiting.borrow_mut().push_back(BrokerEnd { state: state.clone(), calls: self.calls.clone() });
        wake(&mut self.acceptor.borrow_mut());
        ClientEnd(state)
    }
}

impl Listener for Port {
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Accepted>> {
        Box::pin(poll_fn(|cx| match self.waiting.borrow_mut().pop_front() {
            Some(end) => {
                let stream: Box<dyn ByteStream> = Box::new(end);
                Poll::Ready(Ok((stream, self.local_address())))
            }
            None => {
                *self.acceptor.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }))
    }

    fn local_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9092))
    }
}
