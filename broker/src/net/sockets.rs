//! The TCP sockets of one shard, and the news which of them can go on.
//!
//! An entry of the ring that completes while its thread runs interrupts the thread: waiting for each request's bytes in the
//! ring costs more than reading them. So sockets wait in one set (epoll), which collects news without a word, and only
//! the set waits in the ring: a shard with much to do hears of many sockets by one entry and one call.
//!
//! Invariants:
//! 1. The set tells each change once (edge-triggered). What it told stays noted until a call proves it outdated: a
//!    read that finds nothing, or comes back short.
//! 2. An end is a change too, told once: a socket whose peer has closed, or that broke, stays readable for ever.
//! 3. A socket leaves the set before its descriptor is closed, so that no news comes for a place that was given away.
//!
//! It knows no runtime: whoever has one calls [`Sockets::announce`] when [`Sockets::set`] is readable.

use crate::net::stream::ByteStream;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// News taken with one call. What is left keeps the set readable.
const NEWS_PER_CALL: usize = 256;

/// The set that a shard's sockets wait in.
pub struct Sockets {
    set: OwnedFd,
    places: RefCell<Slab<Rc<Place>>>,
    /// Kept between calls so that a call allocates nothing.
    news: RefCell<Vec<Event>>,
}

/// What is known of one socket.
#[derive(Default)]
struct Place {
    readable: Cell<bool>,
    /// No bytes will come after those that have come (invariant 2).
    ended: Cell<bool>,
    reader: Cell<Option<Waker>>,
    writer: Cell<Option<Waker>>,
}

fn wake(waiter: &Cell<Option<Waker>>) {
    if let Some(waker) = waiter.take() {
        waker.wake();
    }
}

impl Sockets {
    /// An empty set.
    pub fn new() -> io::Result<Sockets> {
        let news = RefCell::new(Vec::with_capacity(NEWS_PER_CALL));
        Ok(Sockets { set: epoll::create(CreateFlags::CLOEXEC)?, places: RefCell::default(), news })
    }

    /// Readable while there is news.
    pub fn set(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }

    /// Takes what news there is, at most [`NEWS_PER_CALL`], and wakes whom it concerns. Never waits.
    pub fn announce(&self) -> io::Result<()> {
        let mut news = self.news.borrow_mut();
        news.clear();
        match epoll::wait(&self.set, spare_capacity(&mut news), Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let places = self.places.borrow();
        for event in news.iter() {
            let (flags, key) = (event.flags, event.data.u64());
            let place = usize::try_from(key).ok().and_then(|key| places.get(key)).expect("invariant 3");
            let over = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if over {
                place.ended.set(true);
            }
            if over || flags.contains(EventFlags::IN) {
                place.readable.set(true);
                wake(&place.reader);
            }
            if over || flags.contains(EventFlags::OUT) {
                wake(&place.writer);
            }
        }
        Ok(())
    }

    /// Takes a connected socket.
    pub fn adopt(self: &Rc<Self>, socket: OwnedFd) -> io::Result<TcpSocket> {
        let place = Rc::new(Place::default());
        let key = self.places.borrow_mut().insert(place.clone());
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if let Err(error) = epoll::add(&self.set, &socket, EventData::new_u64(key as u64), wanted) {
            self.places.borrow_mut().remove(key);
            return Err(error.into());
        }
        Ok(TcpSocket { socket, place, key, sockets: self.clone() })
    }
}

/// One connected socket. Closed when dropped.
pub struct TcpSocket {
    socket: OwnedFd,
    place: Rc<Place>,
    key: usize,
    sockets: Rc<Sockets>,
}

impl ByteStream for TcpSocket {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        while self.place.readable.get() {
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((count, _)) => {
                    // Short: all that had come was taken. What comes from now on is news.
                    self.place.readable.set(count == buffer.len() || self.place.ended.get());
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.place.readable.set(false),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        self.place.reader.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            // Most replies are one slice, for which the shorter call is the cheaper one.
            let sent = match slices {
                [one] => send(&self.socket, one, flags),
                _ => sendmsg(&self.socket, slices, &mut SendAncillaryBuffer::default(), flags),
            };
            match sent {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // Room that comes free from now on is news.
                    self.place.writer.set(Some(cx.waker().clone()));
                    return Poll::Pending;
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.socket, Shutdown::Write).map_err(io::Error::from))
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        epoll::delete(&self.sockets.set, &self.socket).expect("it was added, and its descriptor is still open");
        self.sockets.places.borrow_mut().remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn pair(sockets: &Rc<Sockets>) -> (TcpStream, TcpSocket) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (accepted, _) = listener.accept().expect("one connects");
        (client, sockets.adopt(accepted.into()).expect("a socket"))
    }

    /// Waits until the set is readable, as a runtime would, and takes the news.
    fn hear(sockets: &Sockets) {
        let mut waited = [rustix::event::PollFd::new(&sockets.set, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut waited, None).expect("no signal comes");
        sockets.announce().expect("the set is open");
    }

    /// Reads until `wanted` is there, hearing news whenever nothing is.
    fn read(sockets: &Sockets, socket: &mut TcpSocket, buffer: &mut [u8]) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match socket.poll_read(&mut cx, buffer) {
                Poll::Ready(result) => return result.expect("the connection holds"),
                Poll::Pending => hear(sockets),
            }
        }
    }

    #[test]
    fn sockets_whose_bytes_came_meanwhile_are_announced_by_one_call_and_each_reader_wakes_once() {
        let sockets = Rc::new(Sockets::new().expect("descriptors are left"));
        let mut pairs: Vec<_> = (0..20).map(|_| pair(&sockets)).collect();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        for (client, socket) in &mut pairs {
            assert!(socket.poll_read(&mut cx, &mut [0; 8]).is_pending());
            client.write_all(b"news").expect("room in the socket");
        }
        // Loopback delivers within the call that sends.
        hear(&sockets);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 20);
        for (_, socket) in &mut pairs {
            assert!(matches!(socket.poll_read(&mut cx, &mut [0; 8]), Poll::Ready(Ok(4))));
            assert!(socket.poll_read(&mut cx, &mut [0; 8]).is_pending(), "and without a call: the read was short");
        }
    }

    #[test]
    fn an_end_that_came_together_with_the_last_bytes_is_seen_behind_a_short_read() {
        let sockets = Rc::new(Sockets::new().expect("descriptors are left"));
        let (mut client, mut socket) = pair(&sockets);
        client.write_all(b"last").expect("room in the socket");
        drop(client);
        let mut buffer = [0; 64];
        assert_eq!(read(&sockets, &mut socket, &mut buffer), 4);
        assert_eq!(read(&sockets, &mut socket, &mut buffer), 0);
    }

    #[test]
    fn bytes_that_a_full_buffer_left_behind_are_read_without_further_news() {
        let sockets = Rc::new(Sockets::new().expect("descriptors are left"));
        let (mut client, mut socket) = pair(&sockets);
        client.write_all(b"eightfold").expect("room in the socket");
        let mut buffer = [0; 8];
        assert_eq!(read(&sockets, &mut socket, &mut buffer), 8);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(socket.poll_read(&mut cx, &mut buffer), Poll::Ready(Ok(1))));
    }

    #[test]
    fn a_writer_that_found_no_room_wakes_when_the_peer_has_read() {
        let sockets = Rc::new(Sockets::new().expect("descriptors are left"));
        let (mut client, mut socket) = pair(&sockets);
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let mut cx = Context::from_waker(&waker);
        let piece = vec![7; 1 << 20];
        let mut sent = 0;
        while let Poll::Ready(count) = socket.poll_write_vectored(&mut cx, &[IoSlice::new(&piece)]) {
            sent += count.expect("the connection holds");
        }
        client.read_exact(&mut vec![0; sent]).expect("all of it was sent");
        while wakes.0.load(Ordering::Relaxed) == 0 {
            hear(&sockets);
        }
        assert!(matches!(socket.poll_write_vectored(&mut cx, &[IoSlice::new(&piece)]), Poll::Ready(Ok(1..))));
    }

    #[test]
    fn news_of_a_socket_that_went_reaches_nobody() {
        let sockets = Rc::new(Sockets::new().expect("descriptors are left"));
        let (mut client, socket) = pair(&sockets);
        client.write_all(b"late").expect("room in the socket");
        drop(socket);
        sockets.announce().expect("the set is open");
        assert!(sockets.places.borrow().is_empty());
    }
}
