//! A reader's connection to one node: one fetch at a time.

use crate::load::intake::{FETCH_VERSION, Intake, Position};
use crate::wire::input::Input;
use crate::wire::output::gather;
use millrace_protocol::frame::request_frame;
use millrace_protocol::messages::FetchRequest;
use millrace_protocol::messages::fetch::{FetchPartition, FetchTopic};
use millrace_protocol::string::StrBytes;
use mio::net::TcpStream;
use std::io;
use std::net::SocketAddr;

/// How long a fetch waits for a byte, milliseconds: the default of Kafka's consumers.
const MAX_WAIT_MS: i32 = 500;
/// Bytes of an answer at most, and of a partition in it; likewise the defaults.
const MAX_BYTES: i32 = 50 << 20;
const PARTITION_BYTES: i32 = 1 << 20;
/// No answer is larger: one batch may go beyond what was asked for.
const ANSWER_LIMIT: usize = 128 << 20;

/// A connection.
#[derive(Debug)]
pub(crate) struct FetchLink {
    /// Its socket.
    pub stream: TcpStream,
    /// Which of the reader's positions are led there.
    places: Vec<usize>,
    input: Input,
    request: Vec<u8>,
    written: usize,
    asked_at: u64,
    correlation: i32,
}

impl FetchLink {
    /// Begins to connect.
    pub(crate) fn open(address: SocketAddr, places: Vec<usize>) -> io::Result<FetchLink> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let input = Input::new(ANSWER_LIMIT);
        Ok(FetchLink { stream, places, input, request: Vec::new(), written: 0, asked_at: 0, correlation: 0 })
    }

    /// Makes the next request, to be written.
    pub(crate) fn ask(&mut self, topic: &str, positions: &[Position], now: u64) {
        let partition = |&place: &usize| FetchPartition {
            partition: i32::try_from(positions[place].partition).expect("the command line bounds it"),
            fetch_offset: positions[place].offset,
            partition_max_bytes: PARTITION_BYTES,
            ..FetchPartition::default()
        };
        let partitions = self.places.iter().map(partition).collect();
        let request = FetchRequest {
            max_wait_ms: MAX_WAIT_MS,
            min_bytes: 1,
            max_bytes: MAX_BYTES,
            topics: vec![FetchTopic { topic: StrBytes::from(topic), partitions, ..FetchTopic::default() }],
            ..FetchRequest::default()
        };
        self.correlation = self.correlation.wrapping_add(1);
        let name = Some(StrBytes::from_static("millrace-bench"));
        let frame = request_frame(&request, FETCH_VERSION, self.correlation, name).expect("has a form in this version");
        self.request = frame.concat();
        (self.written, self.asked_at) = (0, now);
    }

    /// Writes what the socket takes.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while self.written < self.request.len() {
            let pieces = std::iter::once(&self.request[..]);
            let Some(sent) = gather(&mut self.stream, pieces, self.written)? else { break };
            self.written += sent;
        }
        Ok(())
    }

    /// Takes the answer if it has come whole; whether it has.
    pub(crate) fn receive(&mut self, intake: &mut Intake, now: u64) -> io::Result<bool> {
        let mut answered = false;
        let (correlation, asked_at) = (self.correlation, self.asked_at);
        self.input.read(&mut self.stream, |frame| {
            answered = true;
            intake.take(frame, correlation, asked_at, now)
        })?;
        Ok(answered)
    }
}
