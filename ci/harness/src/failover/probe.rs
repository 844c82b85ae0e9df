//! Produces to and fetches from every partition of a topic, again and again, and says how long each was not served.
//!
//! 1. For each broker one thread produces and one fetches, so that one that is silent holds up no others. A request that was sent to
//!    a former leader counts if it succeeds and is not waited for.
//! 2. A time counts from the fault, or from the last success after it.

use crate::batch::{Identity, encode, record_value};
use crate::cluster::{self, PRODUCE_VERSION};
use crate::connection::Connection;
use crate::consumer::{Position, fetch};
use crate::route::{Bootstrap, Leader, Route};
use crate::trouble::Trouble;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the broker may hold a produce request, in milliseconds.
const PRODUCE_TIMEOUT_MS: i32 = 10_000;
/// A thread begins a request so long after the one before, at least.
const EVERY: Duration = Duration::from_millis(50);
/// While all is well, who leads is asked so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Partitions in one fetch.
const FETCHED_AT_ONCE: usize = 100;

/// What a thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Produce,
    Fetch,
}

/// How long one partition was not served in one way.
#[derive(Clone, Copy, Debug)]
struct Served {
    /// The last success, or the fault.
    last: Instant,
    /// Since the fault: successes, the first of them, the longest wait for one.
    successes: u32,
    first: Duration,
    longest: Duration,
}

impl Served {
    fn from(at: Instant) -> Self {
        Served { last: at, successes: 0, first: Duration::ZERO, longest: Duration::ZERO }
    }

    /// A request that was sent at `sent` succeeded by `now`.
    fn succeeded(&mut self, fault: Instant, sent: Instant, now: Instant) {
        if sent < fault {
            return;
        }
        if self.successes == 0 {
            self.first = now - fault;
        }
        self.successes += 1;
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }
}

#[derive(Clone, Copy)]
struct Slot {
    leader: Option<Leader>,
    /// Where a record is known to be.
    offset: i64,
    produced: Served,
    fetched: Served,
}

struct State {
    fault: Instant,
    slots: Vec<Slot>,
}

struct Shared {
    topic: String,
    bootstrap: Bootstrap,
    state: Mutex<State>,
    doubtful: AtomicBool,
    stopped: AtomicBool,
    batch: Bytes,
}

/// The running probe.
pub(crate) struct Probe {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<(), Trouble>>>,
}

impl Probe {
    /// Of an existing topic whose partitions hold a record each, on a cluster whose brokers are at these addresses.
    pub(crate) fn start(
        bootstrap: Bootstrap,
        brokers: &[SocketAddr],
        topic: &str,
        partitions: usize,
    ) -> Result<Self, Trouble> {
        let now = Instant::now();
        let slot = Slot { leader: None, offset: 0, produced: Served::from(now), fetched: Served::from(now) };
        let batch = encode(&[record_value(Identity { producer: u32::MAX, number: 0 }, 32)], None, 0).into();
        let shared = Arc::new(Shared {
            topic: topic.to_owned(),
            bootstrap,
            state: Mutex::new(State { fault: now, slots: vec![slot; partitions] }),
            doubtful: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            batch,
        });
        let mut probe = Probe { shared, threads: Vec::new() };
        let shared = Arc::clone(&probe.shared);
        probe.spawn("leaders", move || shared.watch_leaders(partitions))?;
        for &broker in brokers {
            for what in [What::Produce, What::Fetch] {
                let shared = Arc::clone(&probe.shared);
                probe.spawn("probe", move || shared.probe(broker, what))?;
            }
        }
        Ok(probe)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() -> Result<(), Trouble> + Send + 'static) -> Result<(), Trouble> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    /// The fault is now: times count from here.
    pub(crate) fn fault(&self) {
        let mut state = self.shared.state();
        let now = Instant::now();
        state.fault = now;
        for slot in &mut state.slots {
            slot.produced = Served::from(now);
            slot.fetched = Served::from(now);
        }
    }

    /// Who leads each partition, as far as it is known.
    pub(crate) fn leaders(&self) -> Vec<Option<Leader>> {
        self.shared.state().slots.iter().map(|slot| slot.leader).collect()
    }

    /// Whether each of these partitions was served in both ways by a request that was sent after `since`.
    pub(crate) fn all_served(&self, partitions: &[usize], since: Instant) -> Result<bool, Trouble> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err(Trouble::proof("a thread of the probe ended"));
        }
        let state = self.shared.state();
        let is_served = |served: &Served| served.successes > 0 && served.last > since;
        Ok(partitions.iter().all(|&partition| {
            let slot = &state.slots[partition];
            is_served(&slot.produced) && is_served(&slot.fetched)
        }))
    }

    /// How long these partitions were not served: until the first success after the fault.
    pub(crate) fn first(&self, partitions: &[usize], what: What) -> Vec<Duration> {
        self.times(partitions, what, |served| served.first)
    }

    /// The same, the longest of all waits for a success since the fault.
    pub(crate) fn longest(&self, partitions: &[usize], what: What) -> Vec<Duration> {
        self.times(partitions, what, |served| served.longest)
    }

    fn times(&self, partitions: &[usize], what: What, of: fn(&Served) -> Duration) -> Vec<Duration> {
        let state = self.shared.state();
        let served = |&partition: &usize| of(state.slots[partition].served(what));
        partitions.iter().map(served).collect()
    }

    /// Ends all threads.
    pub(crate) fn stop(mut self) -> Result<(), Trouble> {
        self.shared.stopped.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| Trouble::proof("a thread of the probe panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

impl Slot {
    fn served(&self, what: What) -> &Served {
        match what {
            What::Produce => &self.produced,
            What::Fetch => &self.fetched,
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a thread that panicked has ended the proof")
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn watch_leaders(&self, partitions: usize) -> Result<(), Trouble> {
        let mut route = Route::new(&self.topic, partitions);
        let mut looked = Instant::now();
        while !self.is_stopped() {
            if self.doubtful.swap(false, Ordering::AcqRel) || !route.is_whole() || looked.elapsed() > LOOK_EVERY {
                route.doubt();
                route.look(&self.bootstrap)?;
                looked = Instant::now();
                let mut state = self.state();
                let slots = state.slots.iter_mut().enumerate();
                slots.for_each(|(partition, slot)| slot.leader = route.leader(partition));
            }
            thread::sleep(EVERY);
        }
        Ok(())
    }

    /// Does one thing to all partitions that a broker leads, until stopped.
    fn probe(&self, broker: SocketAddr, what: What) -> Result<(), Trouble> {
        let mut connection = None;
        while !self.is_stopped() {
            let next = Instant::now() + EVERY;
            let led: Vec<Position> = {
                let state = self.state();
                let positions = state.slots.iter().enumerate().filter_map(|(partition, slot)| {
                    let leader = slot.leader.filter(|leader| leader.address == broker)?;
                    Some(Position { partition: partition as i32, epoch: leader.epoch, offset: slot.offset })
                });
                positions.collect()
            };
            if !led.is_empty() {
                let outcome = match what {
                    What::Produce => self.produce(broker, &mut connection, &led),
                    What::Fetch => {
                        led.chunks(FETCHED_AT_ONCE).try_for_each(|led| self.fetch(broker, &mut connection, led))
                    }
                };
                match outcome {
                    Ok(()) => {}
                    Err(Trouble::Io(_) | Trouble::Code(_)) => {
                        connection = None;
                        self.doubtful.store(true, Ordering::Release);
                    }
                    Err(other) => return Err(other),
                }
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn connected<'a>(
        &self,
        broker: SocketAddr,
        connection: &'a mut Option<Connection>,
    ) -> Result<&'a mut Connection, Trouble> {
        if connection.is_none() {
            *connection = Some(cluster::greet_within(broker, self.bootstrap.patience)?);
        }
        Ok(connection.as_mut().expect("opened above"))
    }

    fn produce(
        &self,
        broker: SocketAddr,
        connection: &mut Option<Connection>,
        led: &[Position],
    ) -> Result<(), Trouble> {
        let connection = self.connected(broker, connection)?;
        let data = led.iter().map(|position| (position.partition, self.batch.clone()));
        let request = cluster::produce_request(&self.topic, -1, PRODUCE_TIMEOUT_MS, data);
        let sent = Instant::now();
        let answer = connection.call(&request, PRODUCE_VERSION)?;
        let now = Instant::now();
        let mut state = self.state();
        let fault = state.fault;
        for result in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            let slot = &mut state.slots[result.index as usize];
            if result.error_code.is_none() {
                slot.offset = slot.offset.max(result.base_offset);
                slot.produced.succeeded(fault, sent, now);
            } else {
                self.doubtful.store(true, Ordering::Release);
            }
        }
        Ok(())
    }

    fn fetch(&self, broker: SocketAddr, connection: &mut Option<Connection>, led: &[Position]) -> Result<(), Trouble> {
        let connection = self.connected(broker, connection)?;
        let sent = Instant::now();
        let answers = fetch(connection, &self.topic, led, 0)?;
        let now = Instant::now();
        let mut state = self.state();
        let fault = state.fault;
        for answer in answers {
            let slot = &mut state.slots[answer.partition_index as usize];
            let brings = answer.records.as_ref().is_some_and(|records| !records.is_empty());
            if answer.error_code.is_none() && brings {
                slot.fetched.succeeded(fault, sent, now);
            } else if !answer.error_code.is_none() {
                self.doubtful.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_count_from_the_fault_and_what_was_sent_before_it_does_not() {
        let fault = Instant::now();
        let at = |ms| fault + Duration::from_millis(ms);
        let mut served = Served::from(fault);
        served.succeeded(fault, fault - Duration::from_millis(5), at(10));
        assert_eq!(served.successes, 0);
        served.succeeded(fault, at(20), at(100));
        served.succeeded(fault, at(110), at(400));
        served.succeeded(fault, at(410), at(450));
        assert_eq!((served.successes, served.last), (3, at(450)));
        assert_eq!((served.first, served.longest), (Duration::from_millis(100), Duration::from_millis(300)));
    }
}
