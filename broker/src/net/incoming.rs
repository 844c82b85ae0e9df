//! What arrives on one connection: reads straight into the memory that a request is to have, or ahead of it.
//!
//! A call of the system costs more than a small request does. So while a connection's requests are small, a read takes
//! whatever has come into a buffer that the shard's connections take turns with; and the read of a large body goes a
//! few bytes beyond it, for the head of the next one. Both mostly come back short, from which the runtime knows, without
//! another call, that nothing more is there.
//!
//! Invariants:
//! 1. Bytes are given in the order in which they came, each once.
//! 2. A connection that waits for bytes holds no buffer; all of a shard's together are at most [`BUFFERS`]. Where none
//!    is free, reads are exact.
//! 3. A body above [`SMALL_FRAME`] bytes is read to its place, but for what a buffer held of it when its size was seen.

use crate::net::stream::ByteStream;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::Poll;

/// Size prefix, API key and version: read before anything is decided.
pub const HEAD_BYTES: usize = 8;
/// While a connection's frames are at most this long, its reads go ahead.
const SMALL_FRAME: usize = 4 << 10;
/// One buffer.
const BUFFER_BYTES: usize = 16 << 10;
/// Buffers of one shard: with [`BUFFER_BYTES`] 1 MiB, which is not charged to any pool.
const BUFFERS: usize = 64;

/// The buffers that the connections of one shard take turns with. Made when they are first needed.
#[derive(Default)]
pub struct ReadBuffers {
    free: RefCell<Vec<Box<[u8]>>>,
    made: Cell<usize>,
}

impl ReadBuffers {
    fn take(&self) -> Option<Box<[u8]>> {
        if let Some(buffer) = self.free.borrow_mut().pop() {
            return Some(buffer);
        }
        let made = self.made.get();
        (made < BUFFERS).then(|| {
            self.made.set(made + 1);
            vec![0; BUFFER_BYTES].into_boxed_slice()
        })
    }

    fn put_back(&self, buffer: Box<[u8]>) {
        self.free.borrow_mut().push(buffer);
    }
}

/// Bytes of a buffer that were read and not yet given.
struct Ahead {
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
}

/// The incoming direction of one connection.
pub struct Incoming<'a> {
    stream: &'a RefCell<Box<dyn ByteStream>>,
    buffers: &'a ReadBuffers,
    ahead: Option<Ahead>,
    /// What came behind a large body; never together with `ahead`.
    next: SmallVec<[u8; HEAD_BYTES]>,
    /// Whether the last frame was small.
    small: bool,
}

impl<'a> Incoming<'a> {
    /// Nothing has been read yet.
    pub fn new(stream: &'a RefCell<Box<dyn ByteStream>>, buffers: &'a ReadBuffers) -> Incoming<'a> {
        Incoming { stream, buffers, ahead: None, next: SmallVec::new(), small: true }
    }

    /// Some bytes of a head, to the front of `rest` (never empty). 0: the peer will send no more.
    pub async fn head(&mut self, rest: &mut [u8]) -> io::Result<usize> {
        let waited = self.give(rest);
        if waited > 0 {
            return Ok(waited);
        }
        if self.small && self.read_ahead().await? {
            return Ok(self.give(rest));
        }
        self.read(rest).await
    }

    /// The head announced a frame of `size` bytes.
    pub fn announced(&mut self, size: usize) {
        self.small = size <= SMALL_FRAME;
    }

    /// The next bytes, as many as `body` has places.
    pub async fn body(&mut self, body: &mut [u8]) -> io::Result<()> {
        self.body_and_next(body, 0).await
    }

    /// The next bytes, as many as `memory` has places but for the last `beyond`, at most [`HEAD_BYTES`]. Those are taken
    /// too if they have come with the others, and kept for the next head.
    pub async fn body_and_next(&mut self, memory: &mut [u8], beyond: usize) -> io::Result<()> {
        let size = memory.len() - beyond;
        let mut filled = self.give(&mut memory[..size]);
        while filled < size {
            match self.read(&mut memory[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        self.next.extend_from_slice(&memory[size..filled.max(size)]);
        Ok(())
    }

    /// Gives what is there already.
    fn give(&mut self, to: &mut [u8]) -> usize {
        if !self.next.is_empty() {
            let count = to.len().min(self.next.len());
            to[..count].copy_from_slice(&self.next[..count]);
            self.next.drain(..count);
            return count;
        }
        let Some(ahead) = &mut self.ahead else { return 0 };
        let count = to.len().min(ahead.to - ahead.from);
        to[..count].copy_from_slice(&ahead.buffer[ahead.from..][..count]);
        ahead.from += count;
        if ahead.from == ahead.to {
            self.put_back();
        }
        count
    }

    fn put_back(&mut self) {
        if let Some(ahead) = self.ahead.take() {
            self.buffers.put_back(ahead.buffer);
        }
    }

    /// Reads whatever has come into a buffer; `false` if there is none, or nothing came any more.
    async fn read_ahead(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            let Some(mut buffer) = self.buffers.take() else { return Poll::Ready(Ok(false)) };
            let result = self.stream.borrow_mut().poll_read(cx, &mut buffer);
            match result {
                Poll::Ready(Ok(to)) if to > 0 => {
                    self.ahead = Some(Ahead { buffer, from: 0, to });
                    Poll::Ready(Ok(true))
                }
                other => {
                    self.buffers.put_back(buffer);
                    other.map_ok(|_end| false)
                }
            }
        })
        .await
    }

    async fn read(&self, to: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.stream.borrow_mut().poll_read(cx, to)).await
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::duplex::{Duplex, duplex};
    use futures::FutureExt;
    use proptest::prelude::*;
    use std::io::IoSlice;
    use std::task::{Context, Waker};

    fn send(wire: &mut Duplex, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            matches!(wire.poll_write_vectored(&mut cx, &[IoSlice::new(bytes)]), Poll::Ready(Ok(n)) if n == bytes.len())
        );
    }

    fn pair() -> (Duplex, RefCell<Box<dyn ByteStream>>) {
        let (client, broker) = duplex(1 << 20);
        (client, RefCell::new(Box::new(broker)))
    }

    /// Frames of bytes that tell their place, each with its head of [`HEAD_BYTES`] bytes.
    fn sent(bodies: &[usize]) -> Vec<u8> {
        (0..bodies.iter().map(|body| HEAD_BYTES + body).sum()).map(|at| (at % 251) as u8).collect()
    }

    /// Everything that is there, read as a connection would.
    fn read_all(incoming: &mut Incoming<'_>, bodies: &[usize]) -> Vec<u8> {
        let mut all = Vec::new();
        for &body in bodies {
            let (mut head, mut got) = ([0; HEAD_BYTES], 0);
            while got < HEAD_BYTES {
                got += incoming.head(&mut head[got..]).now_or_never().expect("it was sent").expect("it is open");
            }
            all.extend(head);
            incoming.announced(HEAD_BYTES + body);
            let beyond = if body > SMALL_FRAME { HEAD_BYTES } else { 0 };
            let mut memory = vec![0; body + beyond];
            incoming.body_and_next(&mut memory, beyond).now_or_never().expect("it was sent").expect("it is open");
            all.extend(&memory[..body]);
        }
        all
    }

    proptest! {
        #[test]
        fn bytes_come_in_order_and_once_whatever_the_sizes_of_frames_and_pieces(
            bodies in prop::collection::vec(prop_oneof![0..300usize, 3000..6000usize, 15_000..40_000usize], 1..12),
            buffers_out in prop_oneof![Just(0), Just(BUFFERS)],
        ) {
            let buffers = ReadBuffers::default();
            let held: Vec<_> = (0..buffers_out).map(|_| buffers.take().expect("within the bound")).collect();
            let (mut client, broker) = pair();
            let mut incoming = Incoming::new(&broker, &buffers);
            let bytes = sent(&bodies);
            send(&mut client, &bytes);
            prop_assert!(read_all(&mut incoming, &bodies) == bytes);
            let mut next = [0; HEAD_BYTES];
            prop_assert!(incoming.head(&mut next).now_or_never().is_none(), "nothing is left");
            prop_assert!(incoming.ahead.is_none(), "and no buffer is held");
            drop(client);
            prop_assert_eq!(incoming.head(&mut next).now_or_never().expect("the end").expect("no error"), 0);
            drop(held);
        }
    }

    #[test]
    fn small_requests_come_with_one_read_and_a_buffer_goes_back_with_its_connection() {
        let buffers = ReadBuffers::default();
        let (mut client, broker) = pair();
        let mut incoming = Incoming::new(&broker, &buffers);
        send(&mut client, &sent(&[100, 100]));
        read_all(&mut incoming, &[100]);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(broker.borrow_mut().poll_read(&mut cx, &mut [0]).is_pending(), "all of it was taken at once");
        assert!(buffers.free.borrow().is_empty(), "the second request is still in the buffer");
        drop(incoming);
        assert_eq!((buffers.free.borrow().len(), buffers.made.get()), (1, 1));
    }
}
