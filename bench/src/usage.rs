//! What processes used during a stretch of time, as the kernel tells under `/proc` (proc(5), Linux).
//!
//! 1. Counters are differences between two looks; resident sizes are those of the second look. Several processes add up.
//! 2. What the kernel does not tell (another user's I/O, a kernel without scheduler statistics) is `None`, never 0.
//! 3. The longest wait in the run queue is an upper bound: what one thread waited within one [`SAMPLE`], which is one
//!    wait or several. It is read from `/proc/PID/task/TID/schedstat`; a wait counts when it ends, so none is cut in
//!    two. (`wait_max` of `/proc/PID/sched` is exact, but needs a kernel built for it and covers the thread's whole
//!    life, its start-up included.)

mod look;

use look::run_delays;
use std::collections::BTreeMap;
use std::io;
use std::ops::Sub;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often waits in the run queue are looked at.
pub(crate) const SAMPLE: Duration = Duration::from_millis(100);

/// What processes used between two looks; of one look, since they began.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Usage {
    /// CPU seconds in user mode, of all threads, ended ones too.
    pub user_seconds: f64,
    /// CPU seconds in the kernel.
    pub system_seconds: f64,
    /// Resident bytes at the end.
    pub resident: u64,
    /// Most resident bytes of the processes' lives.
    pub peak: u64,
    /// Threads at the end.
    pub threads: u64,
    /// Context switches because a thread had to wait, of the threads that live at the end.
    pub voluntary_switches: u64,
    /// Context switches because a thread's time was up, of the same threads.
    pub involuntary_switches: u64,
    /// Bytes and calls, if the kernel tells.
    pub io: Option<Io>,
    /// The longest that a thread waited for a core, at most (invariant 3).
    pub longest_wait: Option<Duration>,
}

/// What processes read and wrote, `/proc/PID/io`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Io {
    /// Bytes read by calls, from sockets, pages or disks.
    pub read_bytes: u64,
    /// Bytes written by calls.
    pub written_bytes: u64,
    /// Read calls.
    pub reads: u64,
    /// Write calls.
    pub writes: u64,
    /// Bytes that came from a disk.
    pub disk_read_bytes: u64,
    /// Bytes that go to a disk, now or later.
    pub disk_written_bytes: u64,
}

impl Usage {
    /// CPU seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }

    /// What was used since an earlier look.
    fn since(self, from: &Usage) -> Usage {
        Usage {
            user_seconds: self.user_seconds - from.user_seconds,
            system_seconds: self.system_seconds - from.system_seconds,
            voluntary_switches: self.voluntary_switches.saturating_sub(from.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(from.involuntary_switches),
            io: self.io.zip(from.io).map(|(to, from)| to - from),
            ..self
        }
    }
}

impl Sub for Io {
    type Output = Io;

    fn sub(self, from: Io) -> Io {
        Io {
            read_bytes: self.read_bytes.saturating_sub(from.read_bytes),
            written_bytes: self.written_bytes.saturating_sub(from.written_bytes),
            reads: self.reads.saturating_sub(from.reads),
            writes: self.writes.saturating_sub(from.writes),
            disk_read_bytes: self.disk_read_bytes.saturating_sub(from.disk_read_bytes),
            disk_written_bytes: self.disk_written_bytes.saturating_sub(from.disk_written_bytes),
        }
    }
}

/// Watches processes from its start to its end.
pub(crate) struct Watch {
    pids: Vec<u32>,
    from: Usage,
    stop: SyncSender<()>,
    sampler: JoinHandle<Option<Duration>>,
}

impl Watch {
    /// Watches these processes from now on. A thread of this process looks at theirs every [`SAMPLE`].
    ///
    /// # Errors
    /// When one of them does not exist.
    pub(crate) fn start(pids: &[u32]) -> io::Result<Watch> {
        let from = Usage::at(pids)?;
        let (stop, stopped) = mpsc::sync_channel(1);
        let pids = pids.to_vec();
        let watched = pids.clone();
        let sampler = std::thread::spawn(move || {
            let mut longest = LongestWait::default();
            longest.sample(&run_delays(&watched));
            while stopped.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                longest.sample(&run_delays(&watched));
            }
            longest.sample(&run_delays(&watched));
            longest.longest
        });
        Ok(Watch { pids, from, stop, sampler })
    }

    /// What was used since the start.
    ///
    /// # Errors
    /// When one of the processes has ended.
    pub(crate) fn end(self) -> io::Result<Usage> {
        let to = Usage::at(&self.pids);
        drop(self.stop);
        let longest_wait = self.sampler.join().expect("the sampler does not panic");
        Ok(Usage { longest_wait, ..to?.since(&self.from) })
    }
}

/// The most that one thread waited between two samples.
#[derive(Default)]
struct LongestWait {
    /// By thread, nanoseconds waited in its life.
    last: BTreeMap<u32, u64>,
    longest: Option<Duration>,
}

impl LongestWait {
    /// Takes what each thread has waited in its life. One that was not there before has waited since it began.
    fn sample(&mut self, delays: &BTreeMap<u32, u64>) {
        let first = self.last.is_empty();
        for (thread, &delay) in delays {
            let before = self.last.get(thread).copied().unwrap_or(if first { delay } else { 0 });
            let waited = Duration::from_nanos(delay.saturating_sub(before));
            self.longest = Some(self.longest.map_or(waited, |longest| longest.max(waited)));
        }
        self.last.clone_from(delays);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_the_most_that_one_thread_waited_between_two_samples() {
        let mut longest = LongestWait::default();
        longest.sample(&BTreeMap::new());
        assert_eq!(longest.longest, None);
        longest.sample(&BTreeMap::from([(1, 900), (2, 50)])); // what lies before the first sample does not count
        longest.sample(&BTreeMap::from([(1, 930), (2, 60)]));
        longest.sample(&BTreeMap::from([(1, 931), (3, 40)])); // thread 3 is new
        assert_eq!(longest.longest, Some(Duration::from_nanos(40)));
    }

    #[test]
    fn a_watch_of_this_process_counts_what_it_does() {
        let watch = Watch::start(&[std::process::id()]).unwrap();
        let mut spent = 0_u64;
        let ticks = || Usage::at(&[std::process::id()]).map(|look| look.user_seconds + look.system_seconds).unwrap();
        let before = ticks();
        while ticks() < before + 0.03 {
            spent = std::hint::black_box(spent + 1);
        }
        let usage = watch.end().unwrap();
        assert!(usage.cpu_seconds() >= 0.02 && usage.threads >= 1, "{usage:?}");
        assert!(usage.resident > 0 && usage.peak >= usage.resident, "{usage:?}");
    }

    #[test]
    fn a_process_that_is_not_there_cannot_be_watched() {
        assert!(Watch::start(&[u32::MAX]).is_err());
    }
}
