//! The append-and-poll workload: processes that append unique values to partitions and poll them, each doing one thing at a
//! time, and tell a history what they did and were told.
//!
//! 1. One idempotent writer to a partition, which tries an append again until it is acknowledged; plain writers to all
//!    partitions, which try once.
//! 2. No process decides whether an answer was right: the history is judged afterwards.

use crate::batch::{self, Identity, ProducerState, identity, record_value};
use crate::cluster::{self, PRODUCE_VERSION};
use crate::connection::Connection;
use crate::consumer::{Position, fetch};
use crate::history::{Event, Kind, Recorder, Value, runs};
use crate::random::Random;
use crate::route::{Bootstrap, Leader, Route};
use crate::trouble::{Trouble, is_retriable};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the broker may hold a produce request, in milliseconds.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// How long a fetch may wait for records, in milliseconds.
const MAX_WAIT_MS: i32 = 20;
/// Values appended at once, at most.
const MOST_VALUES: usize = 4;
/// Bytes of a value.
const VALUE_BYTES: usize = 40;
/// Records of one fetch that count as polled; the rest is polled again.
const MOST_POLLED: usize = 500;
/// One poll in so many begins somewhere that was polled before.
const AGAIN_EVERY: usize = 8;
/// One operation in so many is a poll.
const POLL_EVERY: usize = 3;
/// After a failure, before the next try.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a process waits for its producer id.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Processes with an idempotent writer each; they share out the partitions.
    pub(crate) idempotent: usize,
    /// Processes with a plain writer each.
    pub(crate) plain: usize,
    /// Partitions of the topic.
    pub(crate) partitions: usize,
    /// Operations a second that a process does at most.
    pub(crate) operations_per_second: u32,
    /// Decides what each process does.
    pub(crate) seed: u64,
}

struct Shared {
    bootstrap: Bootstrap,
    topic: String,
    plan: Plan,
    recorder: Recorder,
    /// Processes bring home what they began, and end.
    stopping: AtomicBool,
    /// Processes end at once.
    aborted: AtomicBool,
}

/// The running processes.
pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<(), Trouble>>>,
}

impl Clients {
    /// Starts them on an existing topic.
    pub(crate) fn start(bootstrap: Bootstrap, topic: &str, plan: Plan) -> Result<Self, Trouble> {
        let shared = Arc::new(Shared {
            bootstrap,
            topic: topic.to_owned(),
            plan,
            recorder: Recorder::new(),
            stopping: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
        });
        let mut clients = Clients { shared, threads: Vec::new() };
        for index in 0..plan.idempotent + plan.plain {
            let shared = Arc::clone(&clients.shared);
            let named = thread::Builder::new().name(format!("process-{index}"));
            clients.threads.push(named.spawn(move || Process::new(&shared, index as u32)?.run())?);
        }
        Ok(clients)
    }

    /// What they told so far.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    /// Whether any of them has ended by itself.
    pub(crate) fn all_live(&mut self) -> Result<(), Trouble> {
        match self.threads.iter().position(JoinHandle::is_finished) {
            Some(ended) => self.threads.swap_remove(ended).join().expect("a process does not panic"),
            None => Ok(()),
        }
    }

    /// Lets them bring home what they began, and reads the log to its end.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<(), Trouble> {
        self.shared.stopping.store(true, Ordering::Release);
        let deadline = Instant::now() + limit;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() > deadline {
                return Err(Trouble::proof(format!("an append has no outcome after {limit:?}")));
            }
            thread::sleep(LOOK_EVERY);
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("a process does not panic")?;
        }
        let process = (self.shared.plan.idempotent + self.shared.plan.plain) as u32;
        let mut last = Process::bare(&self.shared, process);
        (0..self.shared.plan.partitions).try_for_each(|partition| last.read_to_end(partition, limit))
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.aborted.store(true, Ordering::Release);
        self.shared.stopping.store(true, Ordering::Release);
    }
}

struct Process<'a> {
    shared: &'a Shared,
    index: u32,
    kind: Kind,
    /// Of an idempotent writer.
    id: Option<(i64, i16)>,
    next_number: u64,
    sequences: Vec<i32>,
    positions: Vec<i64>,
    route: Route,
    links: BTreeMap<SocketAddr, Connection>,
    random: Random,
}

/// What became of one try.
enum Try {
    Done(i64),
    Refused,
    Lost,
}

impl<'a> Process<'a> {
    /// A process that does nothing by itself.
    fn bare(shared: &'a Shared, index: u32) -> Self {
        let partitions = shared.plan.partitions;
        let kind = if (index as usize) < shared.plan.idempotent { Kind::Idempotent } else { Kind::Plain };
        Process {
            shared,
            index,
            kind,
            id: None,
            next_number: 0,
            sequences: vec![0; partitions],
            positions: vec![0; partitions],
            route: Route::new(&shared.topic, partitions),
            links: BTreeMap::new(),
            random: Random::new(shared.plan.seed.wrapping_add(u64::from(index) << 32)),
        }
    }

    fn new(shared: &'a Shared, index: u32) -> Result<Self, Trouble> {
        let mut process = Process::bare(shared, index);
        if process.kind == Kind::Idempotent {
            process.id = Some(cluster::retry(START_LIMIT, || shared.bootstrap.ask(cluster::producer_id))?);
        }
        shared.recorder.tell(Event::Writer { writer: index, kind: process.kind });
        Ok(process)
    }

    fn run(mut self) -> Result<(), Trouble> {
        let every = Duration::from_secs(1) / self.shared.plan.operations_per_second;
        while !self.shared.stopping.load(Ordering::Acquire) {
            let next = Instant::now() + every;
            if self.random.below(POLL_EVERY) == 0 {
                self.poll()?;
            } else {
                self.append()?;
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn is_aborted(&self) -> bool {
        self.shared.aborted.load(Ordering::Acquire)
    }

    /// The leader with a connection to it, as soon as there is one; `None` if the process shall end.
    fn leader(&mut self, partition: usize) -> Result<Option<Leader>, Trouble> {
        while !self.is_aborted() {
            self.route.look(&self.shared.bootstrap)?;
            if let Some(leader) = self.route.leader(partition)
                && self.connect(leader.address)
            {
                return Ok(Some(leader));
            }
            thread::sleep(PAUSE);
        }
        Ok(None)
    }

    fn connect(&mut self, address: SocketAddr) -> bool {
        match self.links.entry(address) {
            Entry::Occupied(_) => true,
            Entry::Vacant(none) => match self.shared.bootstrap.greet(address) {
                Ok(connection) => {
                    none.insert(connection);
                    true
                }
                Err(_) => {
                    self.route.forget(address);
                    false
                }
            },
        }
    }

    fn lost(&mut self, address: SocketAddr) {
        self.links.remove(&address);
        self.route.forget(address);
    }

    /// A partition that this process may write to.
    fn choose(&mut self) -> usize {
        let Plan { idempotent, partitions, .. } = self.shared.plan;
        match self.kind {
            Kind::Plain => self.random.below(partitions),
            Kind::Idempotent => {
                let own = (self.index as usize..partitions).step_by(idempotent);
                let chosen = self.random.below(own.len());
                self.index as usize + chosen * idempotent
            }
        }
    }

    fn append(&mut self) -> Result<(), Trouble> {
        let partition = self.choose();
        let count = 1 + self.random.below(MOST_VALUES) as u32;
        let first = Value { writer: self.index, number: self.next_number };
        self.next_number += u64::from(count);
        let values: Vec<_> = (0..u64::from(count))
            .map(|index| Identity { producer: first.writer, number: first.number + index })
            .map(|identity| record_value(identity, VALUE_BYTES))
            .collect();
        let sequence = self.sequences[partition];
        let state = self.id.map(|(id, epoch)| ProducerState { id, epoch, sequence });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let bytes: Bytes = batch::encode(&values, state, now).into();
        let mut told = false;
        while let Some(leader) = self.leader(partition)? {
            if !told {
                let (process, partition) = (self.index, partition as u32);
                self.shared.recorder.tell(Event::Append { process, partition, first, count });
                told = true;
            }
            match self.send(leader.address, partition, bytes.clone())? {
                Try::Done(base) => {
                    self.shared.recorder.tell(Event::Appended { process: self.index, base });
                    self.sequences[partition] += count as i32;
                    return Ok(());
                }
                Try::Refused => self.route.doubt(),
                Try::Lost => self.lost(leader.address),
            }
            if self.kind == Kind::Plain {
                self.shared.recorder.tell(Event::Unknown { process: self.index });
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Sends it once.
    fn send(&mut self, address: SocketAddr, partition: usize, records: Bytes) -> Result<Try, Trouble> {
        let data = [(partition as i32, records)];
        let request = cluster::produce_request(&self.shared.topic, -1, PRODUCE_TIMEOUT_MS, data);
        let connection = self.links.get_mut(&address).expect("connected before");
        let answer = match connection.call(&request, PRODUCE_VERSION) {
            Ok(answer) => answer,
            Err(Trouble::Io(_)) => return Ok(Try::Lost),
            Err(other) => return Err(other),
        };
        let result = answer.responses.first().and_then(|topic| topic.partition_responses.first());
        match result.map(|result| (result.error_code, result.base_offset)) {
            Some((ErrorCode::None, base)) => Ok(Try::Done(base)),
            Some((code, _)) if is_retriable(code) => Ok(Try::Refused),
            Some((code, _)) => {
                let (index, sequence) = (self.index, self.sequences[partition]);
                Err(Trouble::proof(format!("process {index}, partition {partition}, sequence {sequence}: {code:?}")))
            }
            None => Err(Trouble::proof("a partition was not answered")),
        }
    }

    fn poll(&mut self) -> Result<(), Trouble> {
        let partition = self.random.below(self.shared.plan.partitions);
        let position = self.positions[partition];
        let from = match self.random.below(AGAIN_EVERY) {
            0 if position > 0 => self.random.below(position as usize) as i64,
            _ => position,
        };
        let next = self.poll_from(partition, from, MOST_POLLED)?;
        self.positions[partition] = position.max(next);
        Ok(())
    }

    /// Polls once, if there is a leader, and gives the position behind what was found.
    fn poll_from(&mut self, partition: usize, from: i64, most: usize) -> Result<i64, Trouble> {
        self.route.look(&self.shared.bootstrap)?;
        let Some(leader) = self.route.leader(partition).filter(|leader| self.connect(leader.address)) else {
            return Ok(from);
        };
        let wanted = Position { partition: partition as i32, epoch: leader.epoch, offset: from };
        let connection = self.links.get_mut(&leader.address).expect("connected above");
        let answers = match fetch(connection, &self.shared.topic, &[wanted], MAX_WAIT_MS) {
            Ok(answers) => answers,
            Err(Trouble::Io(_)) => {
                self.lost(leader.address);
                return Ok(from);
            }
            Err(Trouble::Code(code)) if is_retriable(code) => {
                self.route.doubt();
                return Ok(from);
            }
            Err(other) => return Err(other),
        };
        let Some(answer) = answers.first() else { return Err(Trouble::proof("a partition was not answered")) };
        let (process, told) = (self.index, partition as u32);
        match answer.error_code {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => {
                self.shared.recorder.tell(Event::OutOfRange { process, partition: told, from });
                self.route.doubt();
                return Ok(from);
            }
            code if is_retriable(code) => {
                self.route.doubt();
                return Ok(from);
            }
            code => return Err(Trouble::proof(format!("fetch of partition {partition} from {from}: {code:?}"))),
        }
        let records = answer.records.as_ref().map(|records| records.concat()).unwrap_or_default();
        let records = batch::decode(&records).map_err(|e| Trouble::proof(format!("partition {partition}: {e}")))?;
        let mut found = Vec::new();
        for (offset, bytes) in records.into_iter().filter(|(offset, _)| *offset >= from).take(most) {
            match identity(&bytes) {
                Some(Identity { producer, number }) => found.push((offset, Value { writer: producer, number })),
                None => self.shared.recorder.tell(Event::Garbled { process, partition: told, offset }),
            }
        }
        let Some(&(last, _)) = found.last() else { return Ok(from) };
        let records = runs(found.into_iter());
        self.shared.recorder.tell(Event::Polled { process, partition: told, from, records });
        Ok(last + 1)
    }

    /// The final read of a partition.
    fn read_to_end(&mut self, partition: usize, limit: Duration) -> Result<(), Trouble> {
        let bootstrap = &self.shared.bootstrap;
        let end = cluster::retry(limit, || {
            let leader = bootstrap.ask(|address| cluster::leaders(address, &self.shared.topic))?[partition];
            cluster::log_end(leader, &self.shared.topic, partition as i32)
        })?;
        self.shared.recorder.tell(Event::End { partition: partition as u32, end });
        let deadline = Instant::now() + limit;
        let mut position = 0;
        while position < end {
            position = self.poll_from(partition, position, usize::MAX)?;
            if Instant::now() > deadline {
                return Err(Trouble::proof(format!("partition {partition}: nothing at offset {position} of {end}")));
            }
        }
        Ok(())
    }
}
