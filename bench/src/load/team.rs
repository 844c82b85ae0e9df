//! The threads of a run and the one that watches them: starts them by one clock, looks at the processes' use at both ends
//! of the window, shows how it goes, and adds up what they counted.
//!
//! 1. All members run by the same clock and window.
//! 2. An open run ends with its members: its window is then as long as that took.
//! 3. Readers are told when every sender has ended, and end by themselves after that.

use crate::arguments::Load;
use crate::load::clock::Clock;
use crate::load::recorder::{Live, LiveCell, Recorder, live_cell, nanos};
use crate::pace::SECOND;
use crate::result::{Counts, Finding, Progress, RunResult, Stage};
use crate::usage::{Usage, Watch};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// How long answers may take after the last request, nanoseconds: longer than a producer tries again.
const DRAIN: u64 = 40 * SECOND;

/// What the members of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The run's.
    pub clock: Clock,
    /// What counts, nanoseconds since the run began.
    pub window: Range<u64>,
    /// Whether the window ends with the members, if they end before it does.
    open: bool,
    /// How long answers may take after the window, nanoseconds.
    pub drain: u64,
    /// By partition, the offset behind the last one that was acknowledged. Complete once `sent` is true.
    pub acknowledged: Vec<AtomicI64>,
    /// Whether every sender has ended.
    pub sent: AtomicBool,
}

impl Shared {
    /// A run of this load that begins now. Answers may take [`DRAIN`] after the window, or less if `drain` is.
    pub(crate) fn start(load: &Load, drain: Option<Duration>) -> Arc<Shared> {
        let window = load.warm_up * SECOND..(load.warm_up + load.seconds) * SECOND;
        let acknowledged = (0..load.partitions).map(|_| AtomicI64::new(0)).collect();
        let drain = drain.map_or(DRAIN, |drain| nanos(drain).min(DRAIN));
        let (clock, sent) = (Clock::start(), AtomicBool::new(false));
        Arc::new(Shared { clock, window, open: false, drain, acknowledged, sent })
    }

    /// A run that begins now, is measured from now on, and ends with its members.
    pub(crate) fn open(load: &Load) -> Arc<Shared> {
        let shared = Shared::start(load, None);
        let mut shared = Arc::into_inner(shared).expect("nobody else has it yet");
        (shared.open, shared.window.start) = (true, 0);
        Arc::new(shared)
    }

    /// A producer was told that `partition` reaches up to `offset`.
    pub(crate) fn acknowledge(&self, partition: u32, offset: i64) {
        self.acknowledged[partition as usize].fetch_max(offset, Ordering::Relaxed);
    }
}

/// What a member does in its thread. It gives back what it counted.
pub(crate) type Work = Box<dyn FnOnce(Recorder) -> io::Result<Recorder> + Send>;

/// A thread of a run.
pub(crate) struct Member {
    /// Members of one series are added up.
    pub series: String,
    /// Whether readers wait for its end.
    pub sends: bool,
    /// What it does.
    pub work: Work,
}

struct Watched {
    series: Vec<(String, LiveCell)>,
    from: u64,
    to: u64,
    open: bool,
    drain: u64,
}

/// What was used during the window: of the broker, if its process was named, and of this process.
type Used = (Option<Usage>, Usage);

/// How long the window was, and what was used meanwhile.
struct Window {
    length: Duration,
    used: Used,
}

/// Runs the members to their ends.
///
/// # Errors
/// When a member fails, or a process that is watched ends.
pub(crate) fn run(
    workload: &str,
    load: &Load,
    shared: &Shared,
    members: Vec<Member>,
    show: &mut dyn FnMut(&Progress),
) -> io::Result<RunResult> {
    let mut series: Vec<(String, LiveCell)> = Vec::new();
    for member in &members {
        if !series.iter().any(|(name, _)| *name == member.series) {
            series.push((member.series.clone(), live_cell()));
        }
    }
    let (ended, ends) = sync_channel(members.len());
    let mut senders = members.iter().filter(|member| member.sends).count();
    let count = members.len();
    for (number, member) in members.into_iter().enumerate() {
        let place = series.iter().position(|(name, _)| *name == member.series).expect("each has its series");
        let recorder = Recorder::new(shared.window.clone(), series[place].1.clone());
        let cpu = load.cpus.get(number % load.cpus.len().max(1)).copied();
        let ended = ended.clone();
        thread::spawn(move || {
            let recorder = pin(cpu).and_then(|()| (member.work)(recorder));
            // Who awaits it may have failed and gone.
            let _ = ended.send((place, member.sends, recorder));
        });
    }
    let Shared { window, open, drain, .. } = shared;
    let watched = Watched { series, from: window.start, to: window.end, open: *open, drain: *drain };
    let mut totals: Vec<Option<Recorder>> = watched.series.iter().map(|_| None).collect();
    let mut left = count;
    let mut on_end = |(place, sends, recorder): (usize, bool, io::Result<Recorder>)| -> io::Result<bool> {
        let recorder = recorder?;
        left -= 1;
        senders -= usize::from(sends);
        if senders == 0 {
            shared.sent.store(true, Ordering::Release);
        }
        match &mut totals[place] {
            Some(total) => total.merge(&recorder),
            none => *none = Some(recorder),
        }
        Ok(left == 0)
    };
    let Window { length, used } = watch(load, shared.clock, &watched, &ends, &mut on_end, show)?;
    let mut result = RunResult {
        workload: workload.to_owned(),
        settings: load.settings(),
        window: length,
        series: Vec::new(),
        findings: Vec::<Finding>::new(),
        errors: BTreeMap::new(),
        retries: BTreeMap::new(),
        details: Vec::new(),
        own: used.1,
        broker: used.0,
    };
    for ((name, _), total) in watched.series.iter().zip(totals) {
        let mut total = total.expect("each series has a member that ended");
        add(&mut result.errors, mem::take(&mut total.errors));
        add(&mut result.retries, mem::take(&mut total.retries));
        result.series.push(total.series(name).within(length));
    }
    Ok(result)
}

fn add(causes: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    more.into_iter().for_each(|(cause, times)| *causes.entry(cause).or_default() += times);
}

/// Waits for all members, with what is due at certain times done meanwhile.
fn watch<E>(
    load: &Load,
    clock: Clock,
    watched: &Watched,
    ends: &Receiver<E>,
    on_end: &mut dyn FnMut(E) -> io::Result<bool>,
    show: &mut dyn FnMut(&Progress),
) -> io::Result<Window> {
    let (mut watches, mut used, mut done) = (None, None, false);
    let mut shown = 0;
    loop {
        let now = clock.now();
        if watches.is_none() && used.is_none() && now >= watched.from {
            let broker = load.pid.map(|pid| Watch::start(&[pid])).transpose()?;
            watches = Some((broker, Watch::start(&[std::process::id()])?));
            // Whoever looks on learns of the window when it begins, not up to a second later.
            shown = now;
            show(&watched.progress(now));
        }
        if (now >= watched.to || done && watched.open)
            && let Some((broker, own)) = watches.take()
        {
            let length = Duration::from_nanos(now.min(watched.to) - watched.from);
            used = Some(Window { length, used: (broker.map(Watch::end).transpose()?, own.end()?) });
        }
        if done && let Some(used) = used {
            return Ok(used);
        }
        if now >= shown + SECOND {
            shown = now;
            show(&watched.progress(now));
        }
        let next = [watched.from, watched.to, shown + SECOND].into_iter().filter(|time| *time > now).min();
        let wait = Duration::from_nanos(next.expect("the next look is always ahead") - now);
        if done {
            thread::sleep(wait);
            continue;
        }
        match ends.recv_timeout(wait) {
            Ok(end) => done = on_end(end)?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("a thread of the run broke down")),
        }
    }
}

impl Watched {
    fn progress(&self, now: u64) -> Progress {
        let (stage, began, ends) = match now {
            _ if now < self.from => (Stage::WarmUp, 0, self.from),
            _ if now < self.to => (Stage::Window, self.from, self.to),
            _ => (Stage::Drain, self.to, self.to + self.drain),
        };
        let (elapsed, whole) = (Duration::from_nanos(now - began), Duration::from_nanos(ends - began));
        let mut progress = Progress { stage, elapsed, whole, series: Vec::new(), errors: 0, retries: 0 };
        for (name, live) in &self.series {
            let mut live = live.lock().expect("who holds it does not panic");
            progress.series.push((name.clone(), mem::replace(&mut live.counts, Counts::new())));
            let Live { errors, retries, .. } = *live;
            progress.errors += errors;
            progress.retries += retries;
        }
        progress
    }
}

/// Pins this thread to a CPU, if one is given.
fn pin(cpu: Option<usize>) -> io::Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::other(format!("no CPU {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| io::Error::other(format!("CPU {cpu}: {error}")))
}
