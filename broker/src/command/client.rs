//! A blocking Kafka client for the command line: one connection, one request at a time, every wait bounded.

use crate::settings::HostPort;
use bytes::Bytes;
use millrace_protocol::codec::{Message, Request};
use millrace_protocol::frame::{LENGTH_BYTES, decode_response, request_frame};
use millrace_protocol::string::StrBytes;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long connecting and each read or write may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest response that is read.
const RESPONSE_LIMIT: usize = 64 << 20;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The address is not one.
    #[error("--bootstrap {0}")]
    Address(String),
    /// Nobody listens there, or the connection broke.
    #[error("can't reach a broker at {address}: {source}; is `millrace serve` running there?")]
    Connection {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// What came back is no answer of Kafka's protocol.
    #[error("{address} does not answer as a Kafka broker: {problem}")]
    Protocol {
        /// Who.
        address: String,
        /// What is wrong.
        problem: String,
    },
}

/// A connection to one broker.
pub(super) struct Client {
    address: String,
    stream: TcpStream,
    correlation: i32,
}

impl Client {
    pub(super) fn connect(address: &str) -> Result<Client, ClientError> {
        let parsed =
            HostPort::parse(address).map_err(|problem| ClientError::Address(format!("{address}: {problem}")))?;
        let failed = |source| ClientError::Connection { address: address.to_owned(), source };
        let mut last = std::io::Error::other("the name has no address");
        for candidate in (parsed.host.as_str(), parsed.port).to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&candidate, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
                    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
                    return Ok(Client { address: address.to_owned(), stream, correlation: 0 });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Asks in the given version and waits for the answer.
    pub(super) fn ask<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, ClientError> {
        self.correlation += 1;
        let name = Some(StrBytes::from_static("millrace-cli"));
        let frame = request_frame(request, version, self.correlation, name).map_err(|e| self.broken(e.to_string()))?;
        let answer = self.exchange(&frame)?;
        let (correlation, response) =
            decode_response::<R::Response>(&answer, version).map_err(|e| self.broken(e.to_string()))?;
        if correlation != self.correlation {
            return Err(self.broken(format!("correlation id {correlation} answers {}", self.correlation)));
        }
        debug_assert!(<R::Response as Message>::VERSIONS.contains(&version));
        Ok(response)
    }

    fn exchange(&mut self, frame: &[Bytes]) -> Result<Bytes, ClientError> {
        let mut write = || frame.iter().try_for_each(|slice| self.stream.write_all(slice));
        let mut length = [0; LENGTH_BYTES];
        let result = write().and_then(|()| self.stream.read_exact(&mut length));
        result.map_err(|source| self.lost(source))?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > RESPONSE_LIMIT {
            return Err(self.broken(format!("an answer of {length} bytes")));
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).map_err(|source| self.lost(source))?;
        Ok(Bytes::from(answer))
    }

    fn lost(&self, source: std::io::Error) -> ClientError {
        ClientError::Connection { address: self.address.clone(), source }
    }

    fn broken(&self, problem: String) -> ClientError {
        ClientError::Protocol { address: self.address.clone(), problem }
    }
}
