//! Two connected byte streams in memory: for tests of connections.
//!
//! Invariants:
//! 1. Each direction holds at most its capacity; a writer waits beyond that.
//! 2. A dropped end reads as end of stream at the other one, and breaks its writes.

use crate::net::stream::ByteStream;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// The writing end closed or went away.
    ended: bool,
    /// The reading end went away.
    broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// One end of a pair.
pub struct Duplex {
    incoming: Rc<RefCell<Pipe>>,
    outgoing: Rc<RefCell<Pipe>>,
}

/// A connected pair that buffers at most `capacity` bytes each way.
pub fn duplex(capacity: usize) -> (Duplex, Duplex) {
    let pipe = || Rc::new(RefCell::new(Pipe { capacity, ..Pipe::default() }));
    let (there, back) = (pipe(), pipe());
    (Duplex { incoming: back.clone(), outgoing: there.clone() }, Duplex { incoming: there, outgoing: back })
}

impl ByteStream for Duplex {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.incoming.borrow_mut();
        if pipe.bytes.is_empty() {
            if pipe.ended {
                return Poll::Ready(Ok(0));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buffer.len().min(pipe.bytes.len());
        for (place, byte) in buffer.iter_mut().zip(pipe.bytes.drain(..count)) {
            *place = byte;
        }
        wake(&mut pipe.writer);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut pipe = self.outgoing.borrow_mut();
        if pipe.broken || pipe.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = pipe.capacity - pipe.bytes.len();
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = pipe.bytes.len();
        pipe.bytes.extend(slices.iter().flat_map(|slice| slice.iter().copied()).take(room));
        wake(&mut pipe.reader);
        Poll::Ready(Ok(pipe.bytes.len() - before))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.outgoing.borrow_mut();
        pipe.ended = true;
        wake(&mut pipe.reader);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.ended = true;
        wake(&mut outgoing.reader);
        drop(outgoing);
        let mut incoming = self.incoming.borrow_mut();
        incoming.broken = true;
        wake(&mut incoming.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
