//! One producer: requests out, answers in and checked, what can be mended sent again. Never blocks.
//!
//! 1. At most `limit` requests are unanswered, of an idempotent producer at most [`IDEMPOTENT_IN_FLIGHT`] to a partition;
//!    what is due beyond that waits with its due time. The schedule of the run bounds how many those are.
//! 2. Answers come in request order. The offsets that they give in one partition rise, and without gaps if nobody else
//!    writes there.
//! 3. A request that failed in a way that a client mends (an old leader, a lost connection) is sent again in the order of
//!    its partition, once nothing of that partition is under way and its leader was asked for anew. After
//!    [`RETRY_NANOS`] it is given up, which is an error.
//! 4. Bytes of batches are not copied: they leave from where they were encoded.

use crate::load::link::{Link, Request};
use crate::load::recorder::Recorder;
use crate::load::template::{Templates, Variables};
use crate::pace::SECOND;
use crate::validate::{Identity, Sent};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::decode_response;
use millrace_protocol::messages::ProduceResponse;
use millrace_protocol::records::BatchProducer;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

/// Batches that a broker remembers of an idempotent producer in one partition (KIP-98).
pub(crate) const IDEMPOTENT_IN_FLIGHT: u32 = 5;
/// How long a request is sent again, nanoseconds since it failed first.
const RETRY_NANOS: u64 = 30 * SECOND;

/// Where partitions are led, as last told.
#[derive(Clone, Debug)]
pub(crate) struct Leaders {
    /// By partition.
    pub addresses: Vec<SocketAddr>,
    /// Rises with each answer.
    pub generation: u64,
}

#[derive(Debug)]
struct Partition {
    index: u32,
    /// The last offset that was given, -1 before the first.
    newest: i64,
    /// Whether the next offset need not follow the last one: after a retry, or beside other writers.
    gap_allowed: bool,
    next_sequence: i32,
    records: u64,
    open: u32,
    /// The generation of leaders that was wrong: nothing is sent until there is a newer one.
    halted: Option<u64>,
    again: VecDeque<Request>,
}

/// What a producer has of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Requests unanswered at a time.
    pub limit: usize,
    /// Producer id and epoch, if it is idempotent.
    pub id: Option<(i64, i16)>,
    /// Whether it alone writes to its partitions.
    pub alone: bool,
    /// Whether requests are answered.
    pub answered: bool,
    /// Of its records.
    pub identity: Identity,
}

/// A producer over sockets of type `S`.
#[derive(Debug)]
pub(crate) struct Producer<S> {
    settings: Settings,
    partitions: Vec<Partition>,
    /// Places in `partitions`, in the order in which they are written to.
    order: Vec<u32>,
    turn: usize,
    waiting: VecDeque<u64>,
    open: usize,
    again: usize,
    /// How many partitions are halted.
    halted: usize,
    /// One for each node that it has written to. Never removed: a token names its place.
    pub links: Vec<Link<S>>,
    free: Vec<Vec<u8>>,
}

impl<S: io::Read + io::Write> Producer<S> {
    /// A producer that writes to `partitions`, from the `first` turn on.
    pub(crate) fn new(settings: Settings, partitions: &[u32], order: &[u32], first: usize) -> Producer<S> {
        let places: BTreeMap<u32, u32> = partitions.iter().copied().zip(0..).collect();
        let order: Vec<u32> = order.iter().filter_map(|index| places.get(index).copied()).collect();
        assert!(!order.is_empty(), "a producer has partitions to write to");
        let partition = |&index: &u32| Partition {
            index,
            newest: -1,
            gap_allowed: true,
            next_sequence: 0,
            records: 0,
            open: 0,
            halted: None,
            again: VecDeque::new(),
        };
        Producer {
            settings,
            partitions: partitions.iter().map(partition).collect(),
            turn: first % order.len(),
            order,
            waiting: VecDeque::new(),
            open: 0,
            again: 0,
            halted: 0,
            links: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Requests that were asked for and neither answered nor given up.
    pub(crate) fn unanswered(&self) -> usize {
        self.waiting.len() + self.open + self.again
    }

    /// How many more requests may be under way.
    pub(crate) fn room(&self) -> usize {
        self.settings.limit.saturating_sub(self.unanswered())
    }

    /// Whether it waits to learn where a partition is led.
    pub(crate) fn halted(&self) -> bool {
        self.halted > 0
    }

    /// What it sent to each partition.
    pub(crate) fn sent(&self) -> impl Iterator<Item = Sent> {
        let producer = self.settings.identity.producer;
        self.partitions.iter().map(move |own| Sent { producer, partition: own.index, records: own.records })
    }

    /// Up to where its partitions were acknowledged: their indices, and the offsets behind the last ones given.
    pub(crate) fn acknowledged(&self) -> impl Iterator<Item = (u32, i64)> {
        self.partitions.iter().map(|partition| (partition.index, partition.newest + 1))
    }

    /// A request is due.
    pub(crate) fn ask(&mut self, due: u64) {
        self.waiting.push_back(due);
    }

    /// Sends what may be sent. `connect` gives a socket to a node that has none.
    pub(crate) fn send(
        &mut self,
        templates: &Templates,
        leaders: &Leaders,
        now: u64,
        recorder: &mut Recorder,
        connect: &mut dyn FnMut(usize, SocketAddr) -> io::Result<S>,
    ) {
        if self.halted() {
            self.resume(leaders, now, recorder, connect);
        }
        while self.open < self.settings.limit && !self.waiting.is_empty() {
            let Some(place) = self.next_place() else { break };
            let due = self.waiting.pop_front().expect("just seen");
            let request = self.begin(templates, place, due);
            self.put(request, leaders, recorder, connect);
        }
        for link in 0..self.links.len() {
            match self.links[link].write() {
                Ok(()) if !self.settings.answered => self.sent_without_answer(link, now, recorder),
                Ok(()) => {}
                Err(error) => self.lost(link, &error, leaders.generation, now, recorder),
            }
        }
    }

    /// The next partition that takes a request.
    fn next_place(&mut self) -> Option<usize> {
        for _ in 0..self.order.len() {
            let place = self.order[self.turn] as usize;
            self.turn = (self.turn + 1) % self.order.len();
            let partition = &self.partitions[place];
            let full = self.settings.id.is_some() && partition.open >= IDEMPOTENT_IN_FLIGHT;
            if partition.halted.is_none() && !full {
                return Some(place);
            }
        }
        None
    }

    fn begin(&mut self, templates: &Templates, place: usize, due: u64) -> Request {
        let partition = &mut self.partitions[place];
        let template = templates.partitions[partition.index as usize].as_ref().expect("the order names no other");
        let mut head = self.free.pop().unwrap_or_default();
        head.clear();
        let (id, epoch) = self.settings.id.unwrap_or((-1, -1));
        let producer = BatchProducer { id, epoch, base_sequence: partition.next_sequence };
        let variables = Variables {
            correlation: 0,
            producer: self.settings.id.map(|_| producer),
            stamp: due,
            identity: Identity { partition: partition.index, sequence: partition.records, ..self.settings.identity },
        };
        template.fill(&mut head, &variables);
        // Sequences go round after 2^31 - 1 (KIP-98).
        partition.next_sequence = partition.next_sequence.wrapping_add_unsigned(template.records) & i32::MAX;
        partition.records += u64::from(template.records);
        let (records, bytes) = (template.records, template.bytes as u64);
        Request { head, rest: template.rest.clone(), place, due, records, bytes, failed_at: None }
    }

    /// Puts a request on the link to its leader.
    fn put(
        &mut self,
        request: Request,
        leaders: &Leaders,
        recorder: &mut Recorder,
        connect: &mut dyn FnMut(usize, SocketAddr) -> io::Result<S>,
    ) {
        let partition = &mut self.partitions[request.place];
        let address = leaders.addresses[partition.index as usize];
        let place = self.links.iter().position(|link| link.address == address).unwrap_or(self.links.len());
        if place == self.links.len() {
            self.links.push(Link::new(address));
        }
        partition.open += 1;
        self.open += 1;
        let link = &mut self.links[place];
        if !link.is_open() {
            match connect(place, address) {
                Ok(stream) => link.open(stream),
                // What is put on a closed link fails as if it had been lost.
                Err(error) => recorder.retried(&format!("no connection: {error}"), 1),
            }
        }
        link.push(request);
    }

    /// Sends again what failed, where the leader was asked for meanwhile.
    fn resume(
        &mut self,
        leaders: &Leaders,
        now: u64,
        recorder: &mut Recorder,
        connect: &mut dyn FnMut(usize, SocketAddr) -> io::Result<S>,
    ) {
        for place in 0..self.partitions.len() {
            let partition = &mut self.partitions[place];
            let Some(wrong) = partition.halted else { continue };
            if partition.open > 0 || leaders.generation <= wrong {
                continue;
            }
            partition.halted = None;
            self.halted -= 1;
            let again = std::mem::take(&mut partition.again);
            self.again -= again.len();
            for request in again {
                if request.failed_at.is_some_and(|failed_at| now > failed_at + RETRY_NANOS) {
                    recorder.failed("given up after retries", 1);
                    self.free.push(request.head);
                } else {
                    self.put(request, leaders, recorder, connect);
                }
            }
        }
    }

    fn sent_without_answer(&mut self, link: usize, now: u64, recorder: &mut Recorder) {
        while let Some(request) = self.links[link].pop_written() {
            recorder.timed(request.due, now);
            recorder.answered(now, u64::from(request.records), request.bytes);
            self.closed(request);
        }
    }

    fn closed(&mut self, request: Request) {
        self.partitions[request.place].open -= 1;
        self.open -= 1;
        self.free.push(request.head);
    }

    /// The socket of a link is ready: takes its answers.
    pub(crate) fn receive(&mut self, link: usize, generation: u64, now: u64, recorder: &mut Recorder) {
        let mut input = self.links[link].take_input();
        let Some(mut stream) = self.links[link].take_stream() else { return };
        let read = input.read(&mut stream, |frame| self.answer(link, frame, generation, now, recorder));
        self.links[link].put_back(stream, input);
        if let Err(error) = read {
            self.lost(link, &error, generation, now, recorder);
        }
    }

    fn answer(
        &mut self,
        link: usize,
        frame: &Bytes,
        generation: u64,
        now: u64,
        recorder: &mut Recorder,
    ) -> io::Result<()> {
        let (correlation, response) = decode_response::<ProduceResponse>(frame, crate::load::template::PRODUCE_VERSION)
            .map_err(io::Error::other)?;
        let request = self.links[link].pop_answered(correlation);
        let request = request.ok_or_else(|| io::Error::other(format!("an answer to no request ({correlation})")))?;
        let [topic] = &response.responses[..] else {
            return Err(io::Error::other("an answer for other than one topic"));
        };
        let [result] = &topic.partition_responses[..] else {
            return Err(io::Error::other("an answer for other than one partition"));
        };
        let partition = &mut self.partitions[request.place];
        match result.error_code {
            _ if u32::try_from(result.index) != Ok(partition.index) => {
                recorder.failed("an answer for another partition", 1);
            }
            ErrorCode::None => {
                partition.check(result.base_offset, i64::from(request.records), self.settings.alone, recorder);
                recorder.timed(request.due, now);
                recorder.answered(now, u64::from(request.records), request.bytes);
            }
            // The first try was appended and its answer lost.
            ErrorCode::DuplicateSequenceNumber if request.failed_at.is_some() => {
                partition.gap_allowed = true;
                recorder.timed(request.due, now);
                recorder.answered(now, u64::from(request.records), request.bytes);
            }
            code if mended(code) || code == ErrorCode::OutOfOrderSequenceNumber && partition.halted.is_some() => {
                recorder.retried(&format!("{code:?}"), 1);
                self.again(request, generation, now);
                return Ok(());
            }
            code => recorder.failed(&format!("{code:?}"), 1),
        }
        self.closed(request);
        Ok(())
    }

    fn again(&mut self, mut request: Request, generation: u64, now: u64) {
        let partition = &mut self.partitions[request.place];
        partition.open -= 1;
        self.open -= 1;
        self.again += 1;
        request.failed_at.get_or_insert(now);
        self.halted += usize::from(partition.halted.is_none());
        partition.halted = Some(partition.halted.map_or(generation, |wrong| wrong.max(generation)));
        partition.gap_allowed = true;
        partition.again.push_back(request);
    }

    fn lost(&mut self, link: usize, error: &io::Error, generation: u64, now: u64, recorder: &mut Recorder) {
        recorder.retried(&format!("connection lost: {error}"), 1);
        for request in self.links[link].close() {
            if self.settings.answered {
                self.again(request, generation, now);
            } else {
                recorder.failed("connection lost before it was sent", 1);
                self.closed(request);
            }
        }
    }
}

impl Partition {
    fn check(&mut self, base: i64, records: i64, alone: bool, recorder: &mut Recorder) {
        if base <= self.newest {
            recorder.failed("an offset given twice", 1);
        } else if alone && !self.gap_allowed && base != self.newest + 1 {
            recorder.failed("offsets left out", 1);
        }
        self.gap_allowed = false;
        self.newest = self.newest.max(base + records - 1);
    }
}

/// Whether Kafka's clients send again after this error of a produce request.
fn mended(code: ErrorCode) -> bool {
    use ErrorCode::{
        CorruptMessage, FencedLeaderEpoch, KafkaStorageError, LeaderNotAvailable, NetworkException, NotEnoughReplicas,
        NotEnoughReplicasAfterAppend, NotLeaderOrFollower, RequestTimedOut, UnknownLeaderEpoch,
        UnknownTopicOrPartition,
    };
    [
        CorruptMessage,
        FencedLeaderEpoch,
        KafkaStorageError,
        LeaderNotAvailable,
        NetworkException,
        NotEnoughReplicas,
        NotEnoughReplicasAfterAppend,
        NotLeaderOrFollower,
        RequestTimedOut,
        UnknownLeaderEpoch,
        UnknownTopicOrPartition,
    ]
    .contains(&code)
}
