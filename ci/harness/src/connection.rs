//! A blocking connection that speaks Kafka's frames.

use crate::trouble::Trouble;
use bytes::Bytes;
use millrace_protocol::codec::Request;
use millrace_protocol::frame::{LENGTH_BYTES, decode_response, request_frame};
use std::any::type_name;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The largest answer that is believed, in bytes.
const MAX_FRAME: usize = 128 << 20;
/// How long a connection may take to open on loopback.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one read or write may take before the broker counts as hung.
pub(crate) const IO_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection; replies come in the order of the requests.
pub(crate) struct Connection {
    stream: TcpStream,
    next_correlation: i32,
}

impl Connection {
    /// Opens a connection on which no read or write takes longer than `patience`.
    pub(crate) fn open(address: SocketAddr, patience: Duration) -> Result<Self, Trouble> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT.min(patience))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Connection { stream, next_correlation: 0 })
    }

    /// Sends a request and says by which correlation id its answer is known.
    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> Result<i32, Trouble> {
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        let frame = request_frame(request, version, correlation, Some("millrace-harness".into()))?;
        self.stream.write_all(&frame.concat())?;
        Ok(correlation)
    }

    /// Sends a request and waits for its answer; nothing else may be under way.
    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, Trouble> {
        let sent = self.send(request, version)?;
        let frame = read_frame(&mut self.stream).map_err(|error| self.described::<R>(error))?;
        let (correlation, response) = decode_response::<R::Response>(&frame, version)?;
        if correlation != sent {
            return Err(Trouble::proof(format!("answer {correlation} to request {sent}")));
        }
        Ok(response)
    }

    /// Says whose answer to what did not come.
    fn described<R>(&self, error: io::Error) -> io::Error {
        let request = type_name::<R>().rsplit("::").next().unwrap_or_default();
        let peer = self.stream.peer_addr().map_or_else(|_| "a peer that is gone".to_owned(), |peer| peer.to_string());
        io::Error::new(error.kind(), format!("{request} to {peer}: {error}"))
    }

    /// The socket, to read from in another thread.
    pub(crate) fn reader(&self) -> Result<TcpStream, Trouble> {
        Ok(self.stream.try_clone()?)
    }

    /// Ends both directions; a reader in another thread ends too.
    pub(crate) fn close(&self) {
        // The peer may have closed it before: then there is nothing left to end.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Reads one frame and gives it without its length.
pub(crate) fn read_frame(stream: &mut impl Read) -> io::Result<Bytes> {
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix)?;
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(length) if length <= MAX_FRAME => {
            let mut frame = vec![0; length];
            stream.read_exact(&mut frame)?;
            Ok(frame.into())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("answer of {length} bytes"))),
    }
}
