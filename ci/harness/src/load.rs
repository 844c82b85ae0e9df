//! Producers and readers of one topic under one roof: started together, paused, drained, stopped.

use crate::batch::{Identity, identity};
use crate::cluster;
use crate::consumer::{self, Follow};
use crate::ledger::Ledger;
use crate::producer::{self, Produce};
use crate::route::Bootstrap;
use crate::trouble::Trouble;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the threads of a load share.
pub(crate) struct Shared {
    /// Where the cluster is asked.
    pub(crate) bootstrap: Bootstrap,
    /// The topic.
    pub(crate) topic: String,
    ledger: Mutex<Ledger>,
    /// Producers make no new records; those under way are still brought home.
    paused: RwLock<bool>,
    stopped: AtomicBool,
    /// Batches made and not acknowledged, of each producer.
    pub(crate) outstanding: Vec<AtomicU64>,
    /// Batches that were answered only after their connection had ended once.
    pub(crate) retried: AtomicU64,
}

impl Shared {
    /// The ledger, held for a moment.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("a thread that panicked has ended the proof")
    }

    /// Whether producers shall rest. The answer holds as long as the guard: a producer keeps it until what it made is
    /// counted in `outstanding`.
    pub(crate) fn paused(&self) -> RwLockReadGuard<'_, bool> {
        self.paused.read().expect("a thread that panicked has ended the proof")
    }

    fn set_paused(&self, paused: bool) {
        *self.paused.write().expect("a thread that panicked has ended the proof") = paused;
    }

    /// Whether threads shall end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// What to load with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Threads that produce, each with a producer id of its own.
    pub(crate) producers: usize,
    /// Records a second over all producers; `None`: as fast as answers come.
    pub(crate) records_per_second: Option<u64>,
    /// Bytes of a record's value.
    pub(crate) record_bytes: usize,
    /// Threads that read along.
    pub(crate) readers: usize,
}

/// A running load.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts producers and readers of an existing topic.
    pub(crate) fn start(
        bootstrap: impl Into<Bootstrap>,
        topic: &str,
        partitions: usize,
        plan: &Plan,
    ) -> Result<Self, Trouble> {
        let shared = Arc::new(Shared {
            bootstrap: bootstrap.into(),
            topic: topic.to_owned(),
            ledger: Mutex::new(Ledger::new(partitions, plan.producers)),
            paused: RwLock::new(false),
            stopped: AtomicBool::new(false),
            outstanding: (0..plan.producers).map(|_| AtomicU64::new(0)).collect(),
            retried: AtomicU64::new(0),
        });
        let mut threads = Vec::new();
        for index in 0..plan.producers {
            let work = Produce {
                index: index as u32,
                records_per_second: plan.records_per_second.map(|rate| rate / plan.producers as u64),
                record_bytes: plan.record_bytes,
            };
            let shared = Arc::clone(&shared);
            threads.push(spawn(format!("producer-{index}"), move || producer::run(&shared, work))?);
        }
        for index in 0..plan.readers {
            let shared = Arc::clone(&shared);
            threads.push(spawn(format!("reader-{index}"), move || Follow::new(&shared).run())?);
        }
        Ok(Load { shared, threads })
    }

    /// What the threads share.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Waits until so many records were acknowledged in all.
    pub(crate) fn await_acknowledged(&self, records: u64, limit: Duration) -> Result<(), Trouble> {
        self.await_condition(limit, || self.shared.ledger().acknowledged() >= records).map_err(|_| {
            let acknowledged = self.shared.ledger().acknowledged();
            Trouble::proof(format!("only {acknowledged} of {records} records acknowledged after {limit:?}"))
        })
    }

    /// Makes no more records and waits until every one made is acknowledged.
    pub(crate) fn drain(&self, limit: Duration) -> Result<(), Trouble> {
        self.shared.set_paused(true);
        let outstanding = || self.shared.outstanding.iter().map(|count| count.load(Ordering::Acquire)).sum::<u64>();
        self.await_condition(limit, || outstanding() == 0)
            .map_err(|_| Trouble::proof(format!("{} batches not acknowledged after {limit:?}", outstanding())))
    }

    /// Waits until the reader has seen everything that was acknowledged, holds it against that, and forgets it. The load must
    /// be drained.
    pub(crate) fn settle(&self, limit: Duration) -> Result<(), Trouble> {
        self.await_condition(limit, || self.shared.ledger().unread() == 0).map_err(|_| {
            let unread = self.shared.ledger().unread();
            Trouble::proof(format!("{unread} acknowledged records not read after {limit:?}"))
        })?;
        self.shared.ledger().settle();
        Ok(())
    }

    /// Makes records again.
    pub(crate) fn resume(&self) {
        self.shared.set_paused(false);
    }

    fn await_condition(&self, limit: Duration, holds: impl Fn() -> bool) -> Result<(), Trouble> {
        let deadline = Instant::now() + limit;
        while !holds() {
            if self.threads.iter().any(JoinHandle::is_finished) {
                return Err(Trouble::proof("a thread of the load ended"));
            }
            if Instant::now() > deadline {
                return Err(Trouble::proof("deadline"));
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Reads the log from `from` on (one offset for each partition) and compares it with everything known; gives the
    /// log's ends. The load must be drained.
    pub(crate) fn verify(&self, from: &[i64], limit: Duration) -> Result<Vec<i64>, Trouble> {
        let mut ends = Vec::with_capacity(from.len());
        let mut logs = Vec::with_capacity(from.len());
        for (partition, &start) in from.iter().enumerate() {
            let (log, end) = cluster::retry(limit, || self.read_log(partition, start))?;
            logs.push(log);
            ends.push(end);
        }
        self.shared.ledger().compare(from, &logs);
        Ok(ends)
    }

    fn read_log(&self, partition: usize, from: i64) -> Result<(Vec<Identity>, i64), Trouble> {
        let Shared { bootstrap, topic, .. } = &*self.shared;
        let leader = bootstrap.ask(|address| cluster::leaders(address, topic))?[partition];
        let end = cluster::log_end(leader, topic, partition as i32)?;
        let mut log = Vec::with_capacity((end - from).max(0) as usize);
        for (offset, value) in consumer::read_range(leader, topic, partition as i32, from, end)? {
            let expected = from + log.len() as i64;
            if offset != expected {
                let finding = format!("partition {partition}: offset {offset} follows where {expected} should");
                self.shared.ledger().other(finding);
            }
            match identity(&value) {
                Some(record) => log.push(record),
                None => return Err(Trouble::proof(format!("partition {partition} offset {offset}: bytes changed"))),
            }
        }
        Ok((log, end))
    }

    /// Ends all threads.
    pub(crate) fn stop(mut self) -> Result<(), Trouble> {
        self.shared.stopped.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| Trouble::proof("a thread of the load panicked"))?;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
    }
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Trouble> {
    Ok(thread::Builder::new().name(name).spawn(work)?)
}
