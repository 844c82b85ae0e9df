//! A produce run: one thread, all connections, until the window is over and every request is answered.

use crate::arguments::Load;
use crate::batches::Batches;
use crate::cluster::{Cluster, ClusterError};
use crate::connection::Connection;
use crate::load::recorder::{Live, LiveCell, Recorder, live_cell};
use crate::pace::{SECOND, Schedule};
use crate::result::{Counts, Progress, RunResult, Stage};
use crate::usage::{Usage, Watch};
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, mem};

/// How long answers may take after the last request, nanoseconds.
const DRAIN: u64 = 30 * SECOND;
/// Events taken at a time.
const EVENTS: usize = 1024;
/// The longest wait without a look at the clock.
const LOOK: Duration = Duration::from_millis(50);
const TIMER: Token = Token(usize::MAX);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The cluster can't be used.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A connection or a descriptor could not be made.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// Partitions would be left out.
    #[error("{0} nodes lead partitions of the topic: give at least as many --connections")]
    TooFewConnections(usize),
}

/// The name of the only series.
const SERIES: &str = "produce";

/// Runs it, and shows how it goes.
pub(crate) fn produce(arguments: &Load, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let leaders = Cluster::connect(&arguments.bootstrap)?.topic(&arguments.topic, arguments.partitions)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let batches = Batches::encode(
        &arguments.topic,
        arguments.partitions,
        arguments.acks.code(),
        (arguments.batch_bytes as usize, arguments.record_size as usize),
        i64::try_from(now_ms).unwrap_or(i64::MAX),
    );
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error| RunError::Io(what, error)
    };
    let poll = Poll::new().map_err(failed("epoll"))?;
    let mut connections = Vec::new();
    for (number, (address, partitions)) in deal(&leaders, arguments.connections as usize)?.into_iter().enumerate() {
        let mut stream = connect(address).map_err(failed(&address.to_string()))?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(number), interest).map_err(failed("epoll"))?;
        connections.push(Some(Connection::new(stream, &partitions, number, arguments.in_flight as usize)));
    }
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC);
    let timer = timer.map_err(|error| RunError::Io("timer".to_owned(), error.into()))?;
    let timer_descriptor = timer.as_raw_fd();
    let mut source = SourceFd(&timer_descriptor);
    poll.registry().register(&mut source, TIMER, Interest::READABLE).map_err(failed("epoll"))?;
    let window = arguments.warm_up * SECOND..(arguments.warm_up + arguments.seconds) * SECOND;
    let schedule = arguments.rate.map(|rate| Schedule::new(rate, connections.len()));
    let live = live_cell();
    let mut run = Run {
        poll,
        connections,
        timer,
        schedule,
        batches,
        recorder: Recorder::new(window.clone(), live.clone()),
        live,
        start: Instant::now(),
        watched: arguments.pid,
    };
    let (broker, own) = run.go(window.start, window.end, show).map_err(failed("the run"))?;
    let (errors, retries) = (mem::take(&mut run.recorder.errors), mem::take(&mut run.recorder.retries));
    Ok(RunResult {
        workload: SERIES.to_owned(),
        settings: arguments.settings(),
        window: Duration::from_secs(arguments.seconds),
        series: vec![run.recorder.series(SERIES)],
        findings: Vec::new(),
        errors,
        retries,
        own,
        broker,
    })
}

/// Connections, dealt out in turn over the nodes: each with the partitions that its node leads.
fn deal(leaders: &[SocketAddr], connections: usize) -> Result<Vec<(SocketAddr, Vec<usize>)>, RunError> {
    let mut nodes: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (partition, &leader) in leaders.iter().enumerate() {
        nodes.entry(leader).or_default().push(partition);
    }
    if connections < nodes.len() {
        return Err(RunError::TooFewConnections(nodes.len()));
    }
    let nodes: Vec<_> = nodes.into_iter().collect();
    Ok(nodes.iter().cloned().cycle().take(connections).collect())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

struct Run {
    poll: Poll,
    /// `None` once a connection is lost.
    connections: Vec<Option<Connection<TcpStream>>>,
    timer: OwnedFd,
    /// `None`: as fast as requests are answered.
    schedule: Option<Schedule>,
    batches: Batches,
    recorder: Recorder,
    live: LiveCell,
    start: Instant,
    watched: Option<u32>,
}

impl Run {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run lasts days at most")
    }

    /// Runs; gives what the broker, if it is watched, and this process used between `from` and `to`.
    fn go(&mut self, from: u64, to: u64, show: &mut dyn FnMut(&Progress)) -> io::Result<(Option<Usage>, Usage)> {
        let mut events = Events::with_capacity(EVENTS);
        let (mut watches, mut used, mut shown) = (None, None, 0);
        if self.schedule.is_none() {
            (0..self.connections.len()).for_each(|number| self.fill(number));
        }
        loop {
            let now = self.now();
            if watches.is_none() && used.is_none() && now >= from {
                let broker = self.watched.map(|pid| Watch::start(&[pid])).transpose()?;
                watches = Some((broker, Watch::start(&[std::process::id()])?));
            }
            if now < to {
                self.ask_what_is_due(now);
            } else {
                if let Some((broker, own)) = watches.take() {
                    used = Some((broker.map(Watch::end).transpose()?, own.end()?));
                }
                let unanswered: usize = self.connections.iter().flatten().map(Connection::unanswered).sum();
                if unanswered == 0 || now > to + DRAIN {
                    self.recorder.failed("no answer", unanswered as u64);
                    break;
                }
            }
            self.recorder.hand_over(now);
            if now >= shown + SECOND {
                shown = now;
                show(&self.progress(now, from, to));
            }
            self.wait(now, &mut events)?;
            for event in &events {
                if event.token() != TIMER {
                    self.serve(event.token().0);
                    if self.schedule.is_none() && now < to {
                        self.fill(event.token().0);
                    }
                }
            }
        }
        Ok(used.expect("the window has ended"))
    }

    fn progress(&self, now: u64, from: u64, to: u64) -> Progress {
        let (stage, began, ends) = match now {
            _ if now < from => (Stage::WarmUp, 0, from),
            _ if now < to => (Stage::Window, from, to),
            _ => (Stage::Drain, to, to + DRAIN),
        };
        let mut live = self.live.lock().expect("who holds it does not panic");
        let counts = mem::replace(&mut live.counts, Counts::new());
        let Live { errors, retries, .. } = *live;
        let (elapsed, whole) = (Duration::from_nanos(now - began), Duration::from_nanos(ends - began));
        Progress { stage, elapsed, whole, series: vec![(SERIES.to_owned(), counts)], errors, retries }
    }

    /// Asks connections for what the schedule says.
    fn ask_what_is_due(&mut self, now: u64) {
        while let Some((number, at)) = self.schedule.as_mut().and_then(|schedule| schedule.take(now)) {
            match &mut self.connections[number] {
                Some(connection) => connection.ask(at),
                None => self.recorder.failed("no connection", 1),
            }
            self.with(number, |connection, batches, _| connection.send(batches));
        }
    }

    /// Has a connection send as much as it may.
    fn fill(&mut self, number: usize) {
        let now = self.now();
        self.with(number, |connection, batches, _| {
            if connection.room() == 0 {
                return Ok(());
            }
            (0..connection.room()).for_each(|_| connection.ask(now));
            connection.send(batches)
        });
    }

    /// The socket of a connection is ready.
    fn serve(&mut self, number: usize) {
        let now = self.now();
        self.with(number, |connection, batches, recorder| {
            connection.receive(batches, now, recorder)?;
            connection.send(batches)
        });
    }

    fn with(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Connection<TcpStream>, &Batches, &mut Recorder) -> io::Result<()>,
    ) {
        let Some(connection) = &mut self.connections[number] else { return };
        if let Err(error) = act(connection, &self.batches, &mut self.recorder) {
            self.recorder.failed(&format!("connection lost: {error}"), 1);
            self.recorder.failed("no answer", connection.unanswered() as u64);
            // Closing the socket takes it out of the poll.
            self.connections[number] = None;
        }
    }

    /// Waits for sockets, or for the next request that is due.
    fn wait(&mut self, now: u64, events: &mut Events) -> io::Result<()> {
        if let Some(schedule) = &self.schedule {
            // epoll counts in milliseconds, which is too coarse for a schedule. Zero would disarm the timer.
            let wait = schedule.next_due().saturating_sub(now).clamp(1, SECOND - 1);
            let value = Timespec { tv_sec: 0, tv_nsec: i64::try_from(wait).expect("below a second") };
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec { it_interval: none, it_value: value };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        match self.poll.poll(events, Some(LOOK)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_round_the_nodes_with_the_partitions_that_each_leads() {
        let node = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let leaders = [node(2), node(1), node(2), node(1)];
        let dealt = deal(&leaders, 3).unwrap();
        assert_eq!(dealt, [(node(1), vec![1, 3]), (node(2), vec![0, 2]), (node(1), vec![1, 3])]);
        assert!(matches!(deal(&leaders, 1), Err(RunError::TooFewConnections(2))));
    }
}
