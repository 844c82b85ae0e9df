//! A client's connection: real frames, answered in order.

use super::network::Network;
use bytes::Bytes;
use futures::future::{Either, select};
use millrace_broker::net::stream::ByteStream;
use millrace_protocol::codec::{Message, Request};
use millrace_protocol::frame::{decode_response, request_frame};
use millrace_storage::sim::Sim;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

/// A response frame is never larger than this.
const MAX_RESPONSE: usize = 4 << 20;

/// The connection is of no more use: nobody knows which of the requests under way were carried out.
#[derive(Debug)]
pub(super) struct Lost;

/// One connection.
pub(super) struct Connection {
    sim: Sim,
    stream: Box<dyn ByteStream>,
    next_correlation: i32,
    next_answer: i32,
    // Nothing is asked or read any more: what comes late would be taken for the answer to a later request.
    is_lost: bool,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(sim: &Sim, network: &Network, address: SocketAddr) -> Result<Connection, Lost> {
        let stream = network.connect(address).await.map_err(|_| Lost)?;
        Ok(Connection { sim: sim.clone(), stream, next_correlation: 0, next_answer: 0, is_lost: false })
    }

    /// Sends a request without waiting for its answer.
    pub(super) async fn send<R: Request>(&mut self, request: &R, version: i16, patience: Duration) -> Result<(), Lost> {
        let frame = request_frame(request, version, self.next_correlation, Some("sim".into()));
        let frame = frame.expect("a request of a version that has it").concat();
        self.next_correlation += 1;
        self.within(patience, async |connection| connection.write(&frame).await).await
    }

    /// The answer to the earliest request that has none.
    pub(super) async fn receive<M: Message>(&mut self, version: i16, patience: Duration) -> Result<M, Lost> {
        let frame = self.within(patience, async |connection| connection.read_frame().await).await?;
        let (correlation, answer) = decode_response(&frame, version)
            .unwrap_or_else(|e| panic!("FINDING a response that a client can't read: {e}"));
        assert!(correlation == self.next_answer, "FINDING answer {correlation} instead of {}", self.next_answer);
        self.next_answer += 1;
        Ok(answer)
    }

    /// Asks and waits.
    pub(super) async fn call<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        patience: Duration,
    ) -> Result<R::Response, Lost> {
        self.send(request, version, patience).await?;
        self.receive(version, patience).await
    }

    /// Does a piece of work in time, or gives the connection up for good, as every client does.
    async fn within<T>(
        &mut self,
        patience: Duration,
        work: impl AsyncFnOnce(&mut Connection) -> io::Result<T>,
    ) -> Result<T, Lost> {
        if self.is_lost {
            return Err(Lost);
        }
        let timeout = self.sim.sleep(patience);
        let done = match select(std::pin::pin!(work(self)), std::pin::pin!(timeout)).await {
            Either::Left((Ok(done), _)) => Some(done),
            _ => None,
        };
        self.is_lost = done.is_none();
        done.ok_or(Lost)
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.stream.poll_write_vectored(cx, &[IoSlice::new(bytes)])).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    async fn read_frame(&mut self) -> io::Result<Bytes> {
        let mut prefix = [0; 4];
        self.read(&mut prefix).await?;
        let length = usize::try_from(i32::from_be_bytes(prefix)).expect("FINDING a negative frame length");
        assert!(length <= MAX_RESPONSE, "FINDING a response of {length} bytes");
        let mut frame = vec![0; length];
        self.read(&mut frame).await?;
        Ok(Bytes::from(frame))
    }

    async fn read(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let count = poll_fn(|cx| self.stream.poll_read(cx, into)).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            into = &mut into[count..];
        }
        Ok(())
    }
}
