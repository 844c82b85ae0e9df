//! One producer connection: requests out, answers in and checked. Never blocks.
//!
//! 1. At most `limit` requests are unanswered; what is due beyond that waits with its due time. The schedule of the run
//!    bounds how many those are.
//! 2. Answers come in request order, without an error, and the offsets that they give in one partition rise.
//! 3. Bytes of batches are never copied: they leave from where they were encoded.

use crate::batches::{Batches, HEAD_BYTES, PRODUCE_VERSION};
use crate::load::recorder::Recorder;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::{LENGTH_BYTES, decode_response};
use millrace_protocol::messages::ProduceResponse;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};

/// Slices of one write at most.
const SLICES: usize = 64;
/// Bytes that one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// No answer to a produce request is larger, bytes.
const ANSWER_LIMIT: usize = 1 << 20;

struct Outgoing {
    head: [u8; HEAD_BYTES],
    rest: Bytes,
    sent: usize,
}

impl Outgoing {
    fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let head = &self.head[self.sent.min(HEAD_BYTES)..];
        let rest = &self.rest[self.sent.saturating_sub(HEAD_BYTES)..];
        [head, rest].into_iter().filter(|slice| !slice.is_empty()).map(IoSlice::new)
    }

    fn left(&self) -> usize {
        HEAD_BYTES + self.rest.len() - self.sent
    }
}

struct Open {
    correlation: i32,
    /// Which of the connection's partitions.
    partition: usize,
    due: u64,
}

struct Partition {
    index: usize,
    /// The last offset that was given there, -1 before the first.
    newest: i64,
}

/// One connection over `S`.
pub(crate) struct Connection<S> {
    stream: S,
    limit: usize,
    partitions: Vec<Partition>,
    turn: usize,
    correlation: i32,
    waiting: VecDeque<u64>,
    outgoing: VecDeque<Outgoing>,
    open: VecDeque<Open>,
    input: Vec<u8>,
}

impl<S: Read + Write> Connection<S> {
    /// A connection that writes to `partitions` in turn, from the `first` of them on.
    pub(crate) fn new(stream: S, partitions: &[usize], first: usize, limit: usize) -> Connection<S> {
        assert!(!partitions.is_empty(), "a connection goes to a node that leads something");
        Connection {
            stream,
            limit,
            partitions: partitions.iter().map(|&index| Partition { index, newest: -1 }).collect(),
            turn: first % partitions.len(),
            correlation: 0,
            waiting: VecDeque::new(),
            outgoing: VecDeque::new(),
            open: VecDeque::new(),
            input: Vec::new(),
        }
    }

    /// Requests that were asked for and not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.waiting.len() + self.open.len()
    }

    /// How many more requests may be under way.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.unanswered())
    }

    /// A request is due.
    pub(crate) fn ask(&mut self, due: u64) {
        self.waiting.push_back(due);
    }

    /// Sends what may be sent.
    pub(crate) fn send(&mut self, batches: &Batches) -> io::Result<()> {
        loop {
            while self.open.len() < self.limit {
                let Some(due) = self.waiting.pop_front() else { break };
                self.begin(batches, due);
            }
            if self.outgoing.is_empty() {
                return Ok(());
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for slice in self.outgoing.iter().flat_map(Outgoing::slices).take(SLICES) {
                slices[count] = slice;
                count += 1;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn begin(&mut self, batches: &Batches, due: u64) {
        let request = &batches.requests[self.partitions[self.turn].index];
        self.correlation = self.correlation.wrapping_add(1);
        self.outgoing.push_back(Outgoing { head: request.head(self.correlation), rest: request.rest.clone(), sent: 0 });
        self.open.push_back(Open { correlation: self.correlation, partition: self.turn, due });
        self.turn = (self.turn + 1) % self.partitions.len();
    }

    fn sent(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.outgoing.front_mut().expect("no more is sent than was offered");
            if count < front.left() {
                front.sent += count;
                return;
            }
            count -= front.left();
            self.outgoing.pop_front();
        }
    }

    /// Takes the answers that have come at `now` into `recorder`.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub(crate) fn receive(&mut self, batches: &Batches, now: u64, recorder: &mut Recorder) -> io::Result<()> {
        loop {
            let had = self.input.len();
            self.input.resize(had + READ_BYTES, 0);
            let read = self.stream.read(&mut self.input[had..]);
            self.input.truncate(had + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.take_answers(batches, now, recorder)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_answers(&mut self, batches: &Batches, now: u64, recorder: &mut Recorder) -> io::Result<()> {
        let mut at = 0;
        while let Some(length) = self.input[at..].first_chunk::<LENGTH_BYTES>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            if length > ANSWER_LIMIT {
                return Err(io::Error::other(format!("an answer of {length} bytes")));
            }
            let start = at + LENGTH_BYTES;
            let Some(frame) = self.input.get(start..start + length) else { break };
            let frame = Bytes::copy_from_slice(frame);
            self.answered(&frame, batches, now, recorder)?;
            at = start + length;
        }
        self.input.drain(..at);
        Ok(())
    }

    fn answered(&mut self, frame: &Bytes, batches: &Batches, now: u64, recorder: &mut Recorder) -> io::Result<()> {
        let (correlation, response) =
            decode_response::<ProduceResponse>(frame, PRODUCE_VERSION).map_err(io::Error::other)?;
        let open = self.open.pop_front().filter(|open| open.correlation == correlation);
        let open = open.ok_or_else(|| io::Error::other(format!("an answer to no request ({correlation})")))?;
        let partition = &mut self.partitions[open.partition];
        let results = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        let [result] = results.collect::<Vec<_>>()[..] else {
            return Err(io::Error::other("an answer for other than one partition"));
        };
        if usize::try_from(result.index) != Ok(partition.index) {
            recorder.failed("an answer for another partition", 1);
        } else if result.error_code != ErrorCode::None {
            recorder.failed(&format!("{:?}", result.error_code), 1);
        } else if result.base_offset <= partition.newest {
            recorder.failed("an offset given twice", 1);
        } else {
            partition.newest = result.base_offset + batches.records as i64 - 1;
            recorder.timed(open.due, now);
            recorder.answered(now, batches.records, batches.bytes);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::recorder::live_cell;
    use crate::pace::SECOND;
    use millrace_protocol::frame::response_frame;
    use millrace_protocol::messages::produce::{PartitionProduceResponse, TopicProduceResponse};

    /// A socket that takes `room` bytes more and has `incoming` to read.
    #[derive(Default)]
    struct Pretended {
        room: usize,
        written: Vec<u8>,
        incoming: VecDeque<u8>,
    }

    impl Read for Pretended {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.incoming.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.incoming.read(buffer) }
        }
    }

    impl Write for Pretended {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batches() -> Batches {
        Batches::encode("t", 2, -1, (1, 100), 5)
    }

    fn connection(limit: usize) -> Connection<Pretended> {
        Connection::new(Pretended { room: usize::MAX, ..Pretended::default() }, &[0, 1], 0, limit)
    }

    fn answer(correlation: i32, index: i32, base_offset: i64, error_code: ErrorCode) -> Vec<u8> {
        let result = PartitionProduceResponse { index, base_offset, error_code, ..PartitionProduceResponse::default() };
        let topic = TopicProduceResponse {
            name: "t".into(),
            partition_responses: vec![result],
            ..TopicProduceResponse::default()
        };
        let response = ProduceResponse { responses: vec![topic], ..ProduceResponse::default() };
        response_frame(&response, PRODUCE_VERSION, correlation).unwrap().concat()
    }

    #[test]
    fn requests_leave_whole_whatever_the_socket_takes_and_no_more_than_the_limit() {
        let batches = batches();
        let mut connection = connection(3);
        (0..5).for_each(|due| connection.ask(due));
        let mut writes = 0;
        connection.stream.room = 0;
        loop {
            connection.send(&batches).unwrap();
            if connection.outgoing.is_empty() {
                break;
            }
            connection.stream.room = 7;
            writes += 1;
        }
        let expected: Vec<u8> = [(1, 0), (2, 1), (3, 0)]
            .iter()
            .flat_map(|&(correlation, partition)| {
                let request: &crate::batches::Encoded = &batches.requests[partition];
                [&request.head(correlation)[..], &request.rest].concat()
            })
            .collect();
        assert!(writes > 10);
        assert_eq!(connection.stream.written, expected);
        assert_eq!((connection.unanswered(), connection.room()), (5, 0));
    }

    #[test]
    fn answers_are_matched_and_counted_with_their_due_times_however_they_are_cut() {
        let (batches, mut connection) = (batches(), connection(4));
        let mut recorder = Recorder::new(0..SECOND, live_cell());
        (1..=3).for_each(|due| connection.ask(due));
        connection.send(&batches).unwrap();
        let all: Vec<u8> = (1..=3).flat_map(|n| answer(n, (n - 1) % 2, i64::from(n), ErrorCode::None)).collect();
        for piece in all.chunks(5) {
            connection.stream.incoming.extend(piece);
            connection.receive(&batches, 100, &mut recorder).unwrap();
        }
        assert!(recorder.errors.is_empty());
        let total = recorder.series("x").total;
        assert_eq!((total.requests, total.records, connection.unanswered()), (3, 3, 0));
        assert_eq!((total.latency.min(), total.latency.max()), (97, 99));
    }

    #[test]
    fn errors_and_offsets_given_twice_are_counted() {
        let (batches, mut connection) = (batches(), connection(9));
        let mut recorder = Recorder::new(0..SECOND, live_cell());
        (0..5).for_each(|due| connection.ask(due));
        connection.send(&batches).unwrap();
        for (correlation, index, base, error) in [
            (1, 0, 7, ErrorCode::None),
            (2, 1, -1, ErrorCode::NotLeaderOrFollower),
            (3, 0, 7, ErrorCode::None),
            (4, 0, 8, ErrorCode::None),
        ] {
            connection.stream.incoming.extend(answer(correlation, index, base, error));
        }
        connection.receive(&batches, 100, &mut recorder).unwrap();
        let errors: Vec<(&str, u64)> = recorder.errors.iter().map(|(what, times)| (what.as_str(), *times)).collect();
        let expected =
            [("NotLeaderOrFollower", 1), ("an answer for another partition", 1), ("an offset given twice", 1)];
        assert_eq!(errors, expected);
        connection.stream.incoming.extend(answer(9, 0, 9, ErrorCode::None));
        assert!(connection.receive(&batches, 100, &mut recorder).is_err());
    }
}
