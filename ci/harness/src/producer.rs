//! An idempotent producer: five batches under way to each partition, sent again with the same producer id and sequence
//! until they are acknowledged, over any number of broker deaths.
//!
//! 1. A batch's bytes never change: a retry is recognizable.
//! 2. Batches of a partition go out in order of their sequences; after a failure all under way are answered before the
//!    first of them is sent again.
//! 3. Memory is bounded by the window: no record is made that has no room in it.

use crate::batch::{self, Identity, ProducerState, record_value};
use crate::cluster::{self, PRODUCE_VERSION};
use crate::connection::{Connection, read_frame};
use crate::ledger::Ack;
use crate::load::Shared;
use crate::route::Route;
use crate::trouble::{Trouble, is_retriable};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::frame::decode_response;
use millrace_protocol::messages::ProduceResponse;
use millrace_protocol::messages::produce::PartitionProduceResponse;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Batches under way to a partition, and requests on a connection; what idempotence allows.
const WINDOW: usize = 5;
/// Bytes of records in a batch.
const BATCH_BYTES: usize = 64 << 10;
/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(5);
/// After a retriable error, before the batch is sent again.
const BACKOFF: Duration = Duration::from_millis(20);
/// How long the broker may hold a produce request, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;
/// How long a producer waits for its id.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Answers that may wait to be handled.
const EVENTS: usize = 64;

/// What one producer does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Produce {
    /// Which producer of the run it is.
    pub(crate) index: u32,
    /// `None`: as fast as answers come.
    pub(crate) records_per_second: Option<u64>,
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
}

struct Batch {
    sequence: i32,
    ack: Ack,
    bytes: Bytes,
    under_way: bool,
    /// It was sent on a connection that ended, or refused for now.
    retried: bool,
    /// When it was sent, all batches before it were acknowledged: the broker can miss nothing before it.
    nothing_before: bool,
}

#[derive(Default)]
struct Partition {
    next_sequence: i32,
    batches: VecDeque<Batch>,
    /// A batch failed: nothing is sent before all under way are answered, and not before this time.
    held: Option<Instant>,
}

struct Link {
    connection: Connection,
    generation: u64,
    under_way: VecDeque<UnderWay>,
}

struct UnderWay {
    correlation: i32,
    /// Partitions and sequences.
    sent: Vec<(usize, i32)>,
    since: Instant,
}

enum Event {
    Answer { leader: SocketAddr, generation: u64, frame: Bytes },
    Closed { leader: SocketAddr, generation: u64 },
}

struct Producer<'a> {
    shared: &'a Shared,
    work: Produce,
    id: (i64, i16),
    partitions: Vec<Partition>,
    route: Route,
    links: BTreeMap<SocketAddr, Link>,
    generations: u64,
    events: (SyncSender<Event>, Receiver<Event>),
    made: u64,
    next_partition: usize,
    /// Since when records are due, and how many were made since.
    pace: (Instant, u64),
}

/// Produces until the load is stopped; what goes wrong is told to the ledger.
pub(crate) fn run(shared: &Shared, work: Produce) {
    let outcome = cluster::retry(START_LIMIT, || shared.bootstrap.ask(cluster::producer_id)).and_then(|id| {
        let partitions = shared.ledger().partition_count();
        let mut producer = Producer {
            shared,
            work,
            id,
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            route: Route::new(&shared.topic, partitions),
            links: BTreeMap::new(),
            generations: 0,
            events: sync_channel(EVENTS),
            made: 0,
            next_partition: work.index as usize,
            pace: (Instant::now(), 0),
        };
        producer.run()
    });
    if let Err(trouble) = outcome {
        shared.ledger().other(format!("producer {}: {trouble}", work.index));
    }
}

impl Producer<'_> {
    fn run(&mut self) -> Result<(), Trouble> {
        while !self.shared.is_stopped() {
            self.route.look(&self.shared.bootstrap)?;
            self.give_up_silent();
            {
                let paused = self.shared.paused();
                self.make_due(*paused);
                self.note_outstanding();
            }
            self.send_all();
            match self.events.1.recv_timeout(TICK) {
                Ok(event) => self.handle(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the producer holds a sender"),
            }
            while let Ok(event) = self.events.1.try_recv() {
                self.handle(event)?;
            }
            self.note_outstanding();
        }
        self.links.values().for_each(|link| link.connection.close());
        Ok(())
    }

    fn note_outstanding(&self) {
        let outstanding = self.partitions.iter().map(|partition| partition.batches.len() as u64).sum();
        self.shared.outstanding[self.work.index as usize].store(outstanding, Ordering::Release);
    }

    /// Connections on which an answer is overdue count as lost.
    fn give_up_silent(&mut self) {
        let patience = self.shared.bootstrap.patience;
        let is_silent = |link: &Link| link.under_way.front().is_some_and(|first| first.since.elapsed() > patience);
        let silent: Vec<_> = self.links.iter().filter(|(_, link)| is_silent(link)).map(|(&leader, _)| leader).collect();
        silent.into_iter().for_each(|leader| self.lost(leader));
    }

    /// Makes the records that are due, as far as the window has room.
    fn make_due(&mut self, paused: bool) {
        if paused {
            self.pace = (Instant::now(), 0);
            return;
        }
        let due = match self.work.records_per_second {
            Some(rate) => (self.pace.0.elapsed().as_micros() as u64 * rate / 1_000_000).saturating_sub(self.pace.1),
            None => u64::MAX,
        };
        let per_batch = (BATCH_BYTES / self.work.record_bytes).max(1) as u64;
        let mut left = due;
        for _ in 0..self.partitions.len() * WINDOW {
            if left == 0 {
                return;
            }
            let chosen = self.next_partition % self.partitions.len();
            self.next_partition += 1;
            if self.partitions[chosen].batches.len() < WINDOW {
                let count = left.min(per_batch);
                self.make_batch(chosen, count as u32);
                left -= count;
            }
        }
    }

    fn make_batch(&mut self, partition: usize, count: u32) {
        let first = Identity { producer: self.work.index, number: self.made };
        let values: Vec<_> = (0..u64::from(count))
            .map(|index| record_value(Identity { number: self.made + index, ..first }, self.work.record_bytes))
            .collect();
        let target = &mut self.partitions[partition];
        let state = ProducerState { id: self.id.0, epoch: self.id.1, sequence: target.next_sequence };
        target.batches.push_back(Batch {
            sequence: target.next_sequence,
            ack: Ack { first, count },
            bytes: batch::encode(&values, Some(state), now_ms()).into(),
            under_way: false,
            retried: false,
            nothing_before: false,
        });
        target.next_sequence += count as i32;
        self.made += u64::from(count);
        self.pace.1 += u64::from(count);
        self.shared.ledger().sent(self.work.index, self.made);
    }

    /// Sends what may be sent, one batch of each partition in a request.
    fn send_all(&mut self) {
        for (leader, led) in self.route.by_leader() {
            while self.links.get(&leader).is_none_or(|link| link.under_way.len() < WINDOW) {
                let chosen = self.choose(&led);
                if chosen.is_empty() {
                    break;
                }
                if self.send(leader, chosen).is_err() {
                    self.lost(leader);
                    break;
                }
            }
        }
    }

    /// The next unsent batch of each of these partitions that may send: partition and place in its queue.
    fn choose(&mut self, led: &[usize]) -> Vec<(usize, usize)> {
        let now = Instant::now();
        let mut chosen = Vec::new();
        for &index in led {
            let partition = &mut self.partitions[index];
            if let Some(until) = partition.held {
                if now < until || partition.batches.iter().any(|batch| batch.under_way) {
                    continue;
                }
                partition.held = None;
            }
            if let Some(place) = partition.batches.iter().position(|batch| !batch.under_way) {
                chosen.push((index, place));
            }
        }
        chosen
    }

    fn send(&mut self, leader: SocketAddr, chosen: Vec<(usize, usize)>) -> Result<(), Trouble> {
        if !self.links.contains_key(&leader) {
            self.connect(leader)?;
        }
        let mut sent = Vec::with_capacity(chosen.len());
        let mut data = Vec::with_capacity(chosen.len());
        for (index, place) in chosen {
            let batch = &mut self.partitions[index].batches[place];
            batch.under_way = true;
            batch.nothing_before = place == 0;
            sent.push((index, batch.sequence));
            data.push((index as i32, batch.bytes.clone()));
        }
        let request = cluster::produce_request(&self.shared.topic, -1, TIMEOUT_MS, data);
        let link = self.links.get_mut(&leader).expect("connected above");
        match link.connection.send(&request, PRODUCE_VERSION) {
            Ok(correlation) => {
                link.under_way.push_back(UnderWay { correlation, sent, since: Instant::now() });
                Ok(())
            }
            Err(trouble) => {
                self.give_back(sent);
                Err(trouble)
            }
        }
    }

    /// These batches are under way no longer, and nobody knows whether they arrived.
    fn give_back(&mut self, sent: Vec<(usize, i32)>) {
        for (index, sequence) in sent {
            let batches = self.partitions[index].batches.iter_mut();
            for batch in batches.filter(|batch| batch.sequence == sequence) {
                batch.under_way = false;
                batch.retried = true;
            }
        }
    }

    fn connect(&mut self, leader: SocketAddr) -> Result<(), Trouble> {
        let connection = self.shared.bootstrap.greet(leader)?;
        let mut stream = connection.reader()?;
        stream.set_read_timeout(None)?;
        self.generations += 1;
        let generation = self.generations;
        let events = self.events.0.clone();
        thread::Builder::new().name("answers".to_owned()).spawn(move || {
            while let Ok(frame) = read_frame(&mut stream) {
                if events.send(Event::Answer { leader, generation, frame }).is_err() {
                    return;
                }
            }
            // The producer may have ended: then nobody needs to know.
            let _ = events.send(Event::Closed { leader, generation });
        })?;
        self.links.insert(leader, Link { connection, generation, under_way: VecDeque::new() });
        Ok(())
    }

    /// The connection is gone: what was under way on it is to be sent again, perhaps elsewhere.
    fn lost(&mut self, leader: SocketAddr) {
        self.route.forget(leader);
        let Some(link) = self.links.remove(&leader) else { return };
        link.connection.close();
        link.under_way.into_iter().for_each(|request| self.give_back(request.sent));
    }

    fn handle(&mut self, event: Event) -> Result<(), Trouble> {
        match event {
            Event::Closed { leader, generation } => {
                if self.links.get(&leader).is_some_and(|link| link.generation == generation) {
                    self.lost(leader);
                }
                Ok(())
            }
            Event::Answer { leader, generation, frame } => {
                let Some(link) = self.links.get_mut(&leader).filter(|link| link.generation == generation) else {
                    return Ok(());
                };
                let (correlation, answer) = decode_response::<ProduceResponse>(&frame, PRODUCE_VERSION)?;
                let Some(request) = link.under_way.pop_front() else {
                    return Err(Trouble::proof("an answer to no request"));
                };
                if correlation != request.correlation {
                    let expected = request.correlation;
                    return Err(Trouble::proof(format!("answer {correlation} before answer {expected}")));
                }
                self.take_answer(request.sent, answer)
            }
        }
    }

    fn take_answer(&mut self, sent: Vec<(usize, i32)>, answer: ProduceResponse) -> Result<(), Trouble> {
        let results: BTreeMap<usize, PartitionProduceResponse> = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partition_responses)
            .map(|result| (result.index as usize, result))
            .collect();
        for (index, sequence) in sent {
            let result = results.get(&index).ok_or_else(|| Trouble::proof("a partition was not answered"))?;
            self.take_result(index, sequence, result)?;
        }
        Ok(())
    }

    fn take_result(&mut self, index: usize, sequence: i32, result: &PartitionProduceResponse) -> Result<(), Trouble> {
        let partition = &mut self.partitions[index];
        let Some(place) = partition.batches.iter().position(|batch| batch.sequence == sequence && batch.under_way)
        else {
            return Ok(()); // given up as lost with its connection before this answer was handled
        };
        let batch = &mut partition.batches[place];
        match result.error_code {
            ErrorCode::None => {
                let batch = partition.batches.remove(place).expect("found above");
                self.shared.retried.fetch_add(u64::from(batch.retried), Ordering::Relaxed);
                self.shared.ledger().acknowledged_at(index, result.base_offset, batch.ack);
                Ok(())
            }
            code if is_retriable(code) || (code == ErrorCode::OutOfOrderSequenceNumber && !batch.nothing_before) => {
                batch.under_way = false;
                batch.retried = true;
                partition.held = Some(Instant::now() + BACKOFF);
                if code != ErrorCode::RequestTimedOut && code != ErrorCode::OutOfOrderSequenceNumber {
                    self.route.doubt();
                }
                Ok(())
            }
            code => Err(Trouble::proof(format!(
                "partition {index}: {code:?} for sequence {sequence} of {:?}, sent {} with {} before it",
                batch.ack,
                if batch.retried { "again" } else { "once" },
                if batch.nothing_before { "nothing" } else { "batches" },
            ))),
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
