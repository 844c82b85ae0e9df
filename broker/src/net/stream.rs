//! The seam between connections and what carries their bytes: TCP on the shard's runtime, the simulator's network,
//! an in-memory pair ([`crate::net::duplex`]) in tests, TLS later.
//!
//! What every implementation keeps to:
//! 1. The two directions are independent: reading and writing may be polled by different tasks, and each remembers the
//!    waker of its own last poll.
//! 2. `poll_read` never touches bytes of the buffer beyond those that it reports.
//! 3. Dropping a stream or listener closes it at once; bytes that `poll_write_vectored` took are still delivered
//!    unless the peer is gone.
//!
//! Both traits are used as objects: a connection does not know what it runs on, at one virtual call per system call.

use futures::future::LocalBoxFuture;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// One established connection.
pub trait ByteStream {
    /// Reads some bytes into the front of `buffer` (never empty). 0 means that the peer will send no more.
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Sends a prefix of `slices` taken together, at least one byte of it (there is at least one, and none is empty).
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Tells the peer that nothing more comes. Reading goes on.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A new connection with the address of its peer.
pub type Accepted = (Box<dyn ByteStream>, SocketAddr);

/// What connections come from.
pub trait Listener {
    /// The next connection. An error concerns that one connection or a shortage (descriptors): the listener lives on.
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Accepted>>;

    /// Where it listens: the port that the system chose, if it was asked for port 0.
    fn local_address(&self) -> SocketAddr;
}
