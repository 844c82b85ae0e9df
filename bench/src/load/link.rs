//! A producer's connection to one node: requests in order, partly written, written, answered.
//!
//! 1. Requests leave whole and in order, with correlation ids that rise by one.
//! 2. A closed link keeps nothing: what it had is given back.

use crate::load::template::TRAILER;
use crate::wire::input::Input;
use crate::wire::output::gather;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// No answer to a produce request is larger, bytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// Where the correlation id stands in a head.
const CORRELATION: usize = 8;

/// A request under way.
#[derive(Debug)]
pub(crate) struct Request {
    /// What is its own.
    pub head: Vec<u8>,
    /// What it shares with others.
    pub rest: Bytes,
    /// Which of the producer's partitions.
    pub place: usize,
    /// When it was due.
    pub due: u64,
    /// Records in it.
    pub records: u32,
    /// Bytes of its batch.
    pub bytes: u64,
    /// When it failed first.
    pub failed_at: Option<u64>,
}

impl Request {
    fn pieces(&self) -> [&[u8]; 3] {
        [&self.head, &self.rest, TRAILER]
    }

    fn len(&self) -> usize {
        self.head.len() + self.rest.len() + TRAILER.len()
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link<S> {
    /// To whom.
    pub address: SocketAddr,
    stream: Option<S>,
    input: Input,
    /// Correlation id of the first of `requests`.
    first: i32,
    requests: VecDeque<Request>,
    /// How many of them were written, and how much of the next one.
    written: usize,
    part: usize,
}

impl<S: io::Read + io::Write> Link<S> {
    /// Not open yet.
    pub(crate) fn new(address: SocketAddr) -> Link<S> {
        let input = Input::new(ANSWER_LIMIT);
        Link { address, stream: None, input, first: 1, requests: VecDeque::new(), written: 0, part: 0 }
    }

    /// Whether it has a socket.
    pub(crate) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Gives it a socket.
    pub(crate) fn open(&mut self, stream: S) {
        self.stream = Some(stream);
        self.input = Input::new(ANSWER_LIMIT);
    }

    /// Adds a request.
    pub(crate) fn push(&mut self, mut request: Request) {
        let number = i32::try_from(self.requests.len()).expect("requests in flight are bounded");
        let correlation = self.first.wrapping_add(number);
        request.head[CORRELATION..CORRELATION + 4].copy_from_slice(&correlation.to_be_bytes());
        self.requests.push_back(request);
    }

    /// Writes what the socket takes.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        while self.written < self.requests.len() {
            let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            let pieces = self.requests.iter().skip(self.written).flat_map(Request::pieces);
            let Some(sent) = gather(stream, pieces, self.part)? else { break };
            self.part += sent;
            while self.requests.get(self.written).is_some_and(|request| self.part >= request.len()) {
                self.part -= self.requests[self.written].len();
                self.written += 1;
            }
        }
        Ok(())
    }

    /// The oldest request, if it has been written.
    pub(crate) fn pop_written(&mut self) -> Option<Request> {
        self.written = self.written.checked_sub(1)?;
        self.first = self.first.wrapping_add(1);
        self.requests.pop_front()
    }

    /// The oldest request, if this is its correlation id.
    pub(crate) fn pop_answered(&mut self, correlation: i32) -> Option<Request> {
        if correlation == self.first { self.pop_written() } else { None }
    }

    /// Takes its socket out, to be read.
    pub(crate) fn take_stream(&mut self) -> Option<S> {
        self.stream.take()
    }

    /// Takes its input out.
    pub(crate) fn take_input(&mut self) -> Input {
        std::mem::replace(&mut self.input, Input::new(ANSWER_LIMIT))
    }

    /// Puts both back.
    pub(crate) fn put_back(&mut self, stream: S, input: Input) {
        (self.stream, self.input) = (Some(stream), input);
    }

    /// Closes the socket; gives what was not answered, in order.
    pub(crate) fn close(&mut self) -> VecDeque<Request> {
        self.stream = None;
        (self.written, self.part) = (0, 0);
        let requests = std::mem::take(&mut self.requests);
        self.first = self.first.wrapping_add_unsigned(u32::try_from(requests.len()).expect("bounded"));
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::pretended::Pretended;

    fn request(byte: u8) -> Request {
        let rest = Bytes::from(vec![byte; 30]);
        Request { head: vec![0; 20], rest, place: 0, due: 0, records: 1, bytes: 30, failed_at: None }
    }

    #[test]
    fn requests_leave_whole_and_in_order_whatever_the_socket_takes() {
        let mut link = Link::new(([127, 0, 0, 1], 1).into());
        link.open(Pretended::default());
        (1..=3).for_each(|byte| link.push(request(byte)));
        let mut writes = 0;
        while link.written < 3 {
            link.stream.as_mut().unwrap().room = 7;
            link.write().unwrap();
            writes += 1;
        }
        let expected: Vec<u8> = (1..=3_u8)
            .flat_map(|number| {
                let mut frame = vec![0; 20];
                frame[11] = number;
                frame.extend([number; 30]);
                frame.extend(TRAILER);
                frame
            })
            .collect();
        assert!(writes > 10);
        assert_eq!(link.stream.as_ref().unwrap().written, expected);
        assert!(link.pop_answered(2).is_none(), "answers come in order");
        assert!(link.pop_answered(1).is_some());
    }

    #[test]
    fn a_closed_link_gives_back_what_was_not_answered() {
        let mut link = Link::<Pretended>::new(([127, 0, 0, 1], 1).into());
        (1..=3).for_each(|byte| link.push(request(byte)));
        assert_eq!(link.write().unwrap_err().kind(), io::ErrorKind::NotConnected);
        let back: Vec<u8> = link.close().iter().map(|request| request.rest[0]).collect();
        assert_eq!(back, [1, 2, 3]);
        assert!(link.pop_written().is_none());
    }
}
