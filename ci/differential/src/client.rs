//! One connection to one broker: a request at a time, blocking.

use crate::names::CLIENT_ID;
use bytes::Bytes;
use millrace_protocol::codec::Request;
use millrace_protocol::frame::{LENGTH_BYTES, decode_response, request_frame};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer responses are a mistake, in bytes.
const LONGEST_RESPONSE: usize = 64 << 20;

/// What came of a request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Outcome<T> {
    /// A response.
    Answered(T),
    /// The connection was closed instead.
    Closed,
    /// Nothing came in time.
    Silent,
    /// Bytes that are no such response, and why.
    Garbled(String),
}

impl<T> Outcome<T> {
    /// The response, if there was one.
    pub(crate) fn answer(self) -> Option<T> {
        match self {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Closed | Outcome::Silent | Outcome::Garbled(_) => None,
        }
    }
}

/// A client of one broker. Connects anew after anything but an answer.
#[derive(Debug)]
pub(crate) struct Client {
    address: String,
    stream: Option<TcpStream>,
    correlation_id: i32,
}

impl Client {
    /// A client of the broker at `HOST:PORT`; connects with the first request.
    pub(crate) fn new(address: &str) -> Client {
        Client { address: address.to_owned(), stream: None, correlation_id: 0 }
    }

    /// Sends a request and waits for what comes of it, `patience` long.
    ///
    /// # Errors
    /// When the broker can't be connected to.
    pub(crate) fn exchange<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        patience: Duration,
    ) -> io::Result<Outcome<R::Response>> {
        self.correlation_id += 1;
        let frame = request_frame(request, version, self.correlation_id, Some(CLIENT_ID.into()))
            .unwrap_or_else(|error| panic!("a request that has no form in version {version}: {error}, {request:?}"));
        let outcome = match self.exchange_bytes(&frame.concat(), patience)? {
            Outcome::Answered(bytes) => match decode_response::<R::Response>(&bytes, version) {
                Ok((id, response)) if id == self.correlation_id => Outcome::Answered(response),
                Ok((id, _)) => Outcome::Garbled(format!("correlation id {id} for {}", self.correlation_id)),
                Err(error) => Outcome::Garbled(error.to_string()),
            },
            Outcome::Closed => Outcome::Closed,
            Outcome::Silent => Outcome::Silent,
            Outcome::Garbled(why) => Outcome::Garbled(why),
        };
        if !matches!(outcome, Outcome::Answered(_)) {
            self.stream = None;
        }
        Ok(outcome)
    }

    /// Sends these bytes and waits for one frame, given without its length.
    ///
    /// # Errors
    /// When the broker can't be connected to.
    pub(crate) fn exchange_bytes(&mut self, bytes: &[u8], patience: Duration) -> io::Result<Outcome<Bytes>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(&self.address)?,
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        // A broker that closes early makes writing fail, which is the same outcome.
        let result = stream.write_all(bytes).and_then(|()| read_frame(&mut stream));
        Ok(match result {
            Ok(frame) => {
                self.stream = Some(stream);
                Outcome::Answered(frame)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::Silent,
                ErrorKind::InvalidData => Outcome::Garbled(error.to_string()),
                _ => Outcome::Closed,
            },
        })
    }
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix)?;
    let length = usize::try_from(i32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if length > LONGEST_RESPONSE {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a response of {length} bytes")));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(frame.into())
}
