//! The executor: picks the next runnable task by the seed, lets virtual time jump to the next event when none is.
//!
//! Invariants:
//! 1. Exactly one task is polled at a time; a task is polled only after it was woken.
//! 2. Tasks belong to a process life ([`ProcessId`]); killing one drops its tasks in the order of their ids, outside every
//!    borrow, so that drops may wake, cancel timers and even try to spawn.
//! 3. Events at one instant happen in the order in which they were asked for.
//! 4. A run ends: at its main task's end, when nothing can ever happen again, or at the bound of steps.

use super::dice::Dice;
use super::process::{Clocks, ProcessRuntime};
use super::trace::Trace;
use crate::env::Env;
use futures::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// One life of one process. [`ProcessId::WORLD`] is everything that never dies: clients, the scenario, the stores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProcessId(pub u32);

impl ProcessId {
    /// Owner of what outlives all processes.
    pub const WORLD: ProcessId = ProcessId(0);
}

/// A thread of a process, which its tasks share. It matters only where one of them stands still ([`Sim::stall`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ThreadId(pub u32);

impl ThreadId {
    /// The one that a process begins with.
    pub const FIRST: ThreadId = ThreadId(0);
}

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The main task returned.
    Done,
    /// The main task waits for something that can no longer happen.
    Deadlock,
    /// The bound of steps was reached: somebody spins, or the scenario is too long.
    TooManySteps,
}

type TaskId = u64;
type Effect = Box<dyn FnOnce()>;

struct Task {
    owner: ProcessId,
    thread: ThreadId,
    name: &'static str,
    // Out while it is polled.
    future: Option<LocalBoxFuture<'static, ()>>,
    wake: Arc<TaskWake>,
}

struct TaskWake {
    id: TaskId,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

enum Event {
    Wake(Waker),
    Run(Effect),
}

#[derive(Default)]
struct Life {
    dead: bool,
    paused_until: u64,
    /// Threads that stand still, or did, and until when.
    stalled_until: BTreeMap<ThreadId, u64>,
    clocks: Option<Clocks>,
    /// Nanoseconds for which its machine stood still, so that its timers did too.
    suspended: u64,
    /// How far its wall clock was set away from where it would be.
    wall_set_ms: i64,
    polls: u64,
    dies_at_poll: Option<u64>,
    watchers: Vec<Waker>,
}

impl Life {
    fn stands_until(&self, thread: ThreadId) -> u64 {
        self.stalled_until.get(&thread).copied().unwrap_or(0).max(self.paused_until)
    }
}

struct Inner {
    now: Cell<u64>,
    steps: Cell<u64>,
    dice: RefCell<Dice>,
    trace: RefCell<Trace>,
    tasks: RefCell<BTreeMap<TaskId, Task>>,
    next_task: Cell<TaskId>,
    ready: Arc<Mutex<Vec<TaskId>>>,
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    next_event: Cell<u64>,
    lives: RefCell<BTreeMap<ProcessId, Life>>,
    current: Cell<Option<(TaskId, ProcessId, &'static str)>>,
}

/// Handle to one run. A clone costs one count.
#[derive(Clone)]
pub struct Sim(Rc<Inner>);

/// The longest that one poll takes, in virtual nanoseconds.
const MAX_POLL_NANOS: u64 = 4_000;

impl Sim {
    /// The run of `seed`; `keep_trace` keeps the trace's text, not just its hash.
    pub fn new(seed: u64, keep_trace: bool) -> Sim {
        let mut lives = BTreeMap::new();
        lives.insert(ProcessId::WORLD, Life::default());
        Sim(Rc::new(Inner {
            now: Cell::new(0),
            steps: Cell::new(0),
            dice: RefCell::new(Dice::new(seed)),
            trace: RefCell::new(Trace::new(keep_trace)),
            tasks: RefCell::default(),
            next_task: Cell::new(0),
            ready: Arc::default(),
            events: RefCell::default(),
            next_event: Cell::new(0),
            lives: RefCell::new(lives),
            current: Cell::new(None),
        }))
    }

    /// Runs `main` as a task of the world, and all that it starts, until it ends or `max_steps` polls were made.
    pub fn run(&self, max_steps: u64, main: impl Future<Output = ()> + 'static) -> Ended {
        let done = Rc::new(Cell::new(false));
        let flag = done.clone();
        self.spawn(ProcessId::WORLD, "main", async move {
            main.await;
            flag.set(true);
        });
        let limit = self.0.steps.get() + max_steps;
        while !done.get() {
            self.run_due_events();
            if self.step() {
                if self.0.steps.get() >= limit {
                    return Ended::TooManySteps;
                }
            } else if !self.jump_to_next_event() {
                return Ended::Deadlock;
            }
        }
        Ended::Done
    }

    /// Drops every task and event: a run's parts hold each other by cycles that only this breaks.
    pub fn shut_down(&self) {
        let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(tasks);
        let events = std::mem::take(&mut *self.0.events.borrow_mut());
        drop(events);
    }

    /// Virtual nanoseconds since the start of the run.
    pub fn now(&self) -> u64 {
        self.0.now.get()
    }

    /// Polls made so far.
    pub fn steps(&self) -> u64 {
        self.0.steps.get()
    }

    /// Uses the run's randomness.
    pub fn dice<T>(&self, roll: impl FnOnce(&mut Dice) -> T) -> T {
        roll(&mut self.0.dice.borrow_mut())
    }

    /// Adds to the trace.
    pub fn note(&self, note: fmt::Arguments<'_>) {
        let mut trace = self.0.trace.borrow_mut();
        let now = self.now();
        match (trace.keeps_lines(), self.0.current.get()) {
            (true, Some((task, owner, name))) => {
                trace.note(format_args!("{:>13.6} p{} {name}#{task}:", now as f64 / 1e9, owner.0), note)
            }
            _ => trace.note(format_args!("{:>13.6} world:", now as f64 / 1e9), note),
        }
    }

    /// Whether the trace's text is kept, so that costly notes can be left out.
    pub fn keeps_trace(&self) -> bool {
        self.0.trace.borrow().keeps_lines()
    }

    /// Hash of everything that happened so far.
    pub fn trace_hash(&self) -> u64 {
        self.0.trace.borrow().hash()
    }

    /// The trace's text (empty unless it was asked for).
    pub fn take_trace(&self) -> Vec<String> {
        self.0.trace.borrow_mut().take_lines()
    }

    /// The task that is polled now, for findings.
    pub fn current_task(&self) -> Option<(ProcessId, &'static str)> {
        self.0.current.get().map(|(_, owner, name)| (owner, name))
    }

    /// A new process life with its own clocks.
    pub fn start_process(&self) -> (ProcessId, Env) {
        let mut lives = self.0.lives.borrow_mut();
        let id = ProcessId(u32::try_from(lives.len()).expect("a run has few processes"));
        lives.insert(id, Life::default());
        drop(lives);
        (id, self.env(id))
    }

    /// An `Env` of a process. Its clocks start anywhere.
    pub fn env(&self, process: ProcessId) -> Env {
        let clocks = self.dice(Clocks::drawn);
        self.0.lives.borrow_mut().get_mut(&process).expect("a process that was started").clocks = Some(clocks);
        self.thread(process, ThreadId::FIRST)
    }

    /// The `Env` of a thread of a process, which has the clocks of its others.
    pub fn thread(&self, process: ProcessId, thread: ThreadId) -> Env {
        let clocks = self.0.lives.borrow()[&process].clocks.expect("a process has an `Env` first of all");
        Env::new(Rc::new(ProcessRuntime::new(self.clone(), process, thread, clocks)))
    }

    /// Adds a task. Of a dead process: drops it.
    pub fn spawn(&self, owner: ProcessId, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.spawn_boxed((owner, ThreadId::FIRST), name, Box::pin(task));
    }

    pub(super) fn spawn_boxed(
        &self,
        (owner, thread): (ProcessId, ThreadId),
        name: &'static str,
        future: LocalBoxFuture<'static, ()>,
    ) {
        if !self.is_alive(owner) {
            return;
        }
        let id = self.0.next_task.get();
        self.0.next_task.set(id + 1);
        let wake = Arc::new(TaskWake { id, queued: AtomicBool::new(false), ready: self.0.ready.clone() });
        self.0.tasks.borrow_mut().insert(id, Task { owner, thread, name, future: Some(future), wake: wake.clone() });
        wake.wake_by_ref();
    }

    /// Whether the process still runs (or is paused).
    pub fn is_alive(&self, process: ProcessId) -> bool {
        self.0.lives.borrow().get(&process).is_some_and(|life| !life.dead)
    }

    /// Polls of the process's tasks so far.
    pub fn polls(&self, process: ProcessId) -> u64 {
        self.0.lives.borrow().get(&process).map_or(0, |life| life.polls)
    }

    /// Ends once the process is dead.
    pub async fn died(&self, process: ProcessId) {
        futures::future::poll_fn(|cx| {
            let mut lives = self.0.lives.borrow_mut();
            let life = lives.get_mut(&process).expect("a process that was started");
            if life.dead {
                return Poll::Ready(());
            }
            life.watchers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Kills the process: all its tasks are dropped where they stand.
    pub fn kill(&self, process: ProcessId) {
        assert!(process != ProcessId::WORLD, "the world does not die");
        {
            let mut lives = self.0.lives.borrow_mut();
            let life = lives.get_mut(&process).expect("a process that was started");
            if std::mem::replace(&mut life.dead, true) {
                return;
            }
            life.watchers.drain(..).for_each(Waker::wake);
        }
        self.note(format_args!("kill p{}", process.0));
        let ids: Vec<TaskId> =
            self.0.tasks.borrow().iter().filter(|(_, t)| t.owner == process).map(|(id, _)| *id).collect();
        for id in ids {
            let task = self.0.tasks.borrow_mut().remove(&id);
            drop(task);
        }
    }

    /// Kills the process right after its tasks have been polled `polls` more times: at whatever await that is.
    pub fn kill_after(&self, process: ProcessId, polls: u64) {
        let mut lives = self.0.lives.borrow_mut();
        let life = lives.get_mut(&process).expect("a process that was started");
        life.dies_at_poll = Some(life.polls + polls.max(1));
    }

    /// Runs none of the process's tasks for a while, as if it had been sent SIGSTOP.
    pub fn pause(&self, process: ProcessId, length: Duration) {
        let until = self.now().saturating_add(length.as_nanos() as u64);
        self.note(format_args!("pause p{} for {length:?}", process.0));
        let mut lives = self.0.lives.borrow_mut();
        let life = lives.get_mut(&process).expect("a process that was started");
        life.paused_until = life.paused_until.max(until);
    }

    /// Runs none of the tasks of one thread of the process for a while, as if it were stuck; its others go on.
    pub fn stall(&self, process: ProcessId, thread: ThreadId, length: Duration) {
        let until = self.now().saturating_add(length.as_nanos() as u64);
        self.note(format_args!("thread {} of p{} is stuck for {length:?}", thread.0, process.0));
        let mut lives = self.0.lives.borrow_mut();
        let life = lives.get_mut(&process).expect("a process that was started");
        let known = life.stalled_until.entry(thread).or_default();
        *known = until.max(*known);
    }

    /// The process's machine stands still for a while: its clocks run on, its timers do not.
    pub fn suspend(&self, process: ProcessId, length: Duration) {
        self.pause(process, length);
        let mut lives = self.0.lives.borrow_mut();
        lives.get_mut(&process).expect("a process that was started").suspended += length.as_nanos() as u64;
    }

    pub(super) fn suspended(&self, process: ProcessId) -> u64 {
        self.0.lives.borrow()[&process].suspended
    }

    /// Sets the process's wall clock so far away from where it would be had nobody ever set it.
    pub fn set_wall(&self, process: ProcessId, away_ms: i64) {
        self.note(format_args!("the wall clock of p{} is set {away_ms} ms away", process.0));
        self.0.lives.borrow_mut().get_mut(&process).expect("a process that was started").wall_set_ms = away_ms;
    }

    pub(super) fn wall_set_ms(&self, process: ProcessId) -> i64 {
        self.0.lives.borrow()[&process].wall_set_ms
    }

    /// Does `effect` after `delay`, whatever dies meanwhile.
    pub fn after(&self, delay: Duration, effect: impl FnOnce() + 'static) {
        self.add_event(self.now().saturating_add(delay.as_nanos() as u64), Event::Run(Box::new(effect)));
    }

    /// Ends at virtual time `at` (nanoseconds).
    pub fn sleep_until(&self, at: u64) -> impl Future<Output = ()> + 'static {
        Sleep { sim: self.clone(), at, event: None }
    }

    /// Ends after `length` of virtual time.
    pub fn sleep(&self, length: Duration) -> impl Future<Output = ()> + 'static {
        self.sleep_until(self.now().saturating_add(length.as_nanos() as u64))
    }

    /// Lets virtual time pass until `holds`, looking every 20 ms, or until `limit` is over; whether it came to hold.
    pub async fn within(&self, limit: Duration, holds: impl Fn() -> bool) -> bool {
        let end = self.now() + limit.as_nanos() as u64;
        while !holds() {
            if self.now() > end {
                return false;
            }
            self.sleep(Duration::from_millis(20)).await;
        }
        true
    }

    fn add_event(&self, at: u64, event: Event) -> (u64, u64) {
        let order = self.0.next_event.get();
        self.0.next_event.set(order + 1);
        self.0.events.borrow_mut().insert((at, order), event);
        (at, order)
    }

    fn run_due_events(&self) {
        loop {
            let mut events = self.0.events.borrow_mut();
            let Some(entry) = events.first_entry() else { return };
            if entry.key().0 > self.now() {
                return;
            }
            let event = entry.remove();
            drop(events);
            match event {
                Event::Wake(waker) => waker.wake(),
                Event::Run(effect) => effect(),
            }
        }
    }

    fn jump_to_next_event(&self) -> bool {
        let next = self.0.events.borrow().keys().next().map(|(at, _)| *at);
        if let Some(at) = next {
            self.0.now.set(self.now().max(at));
        }
        next.is_some()
    }

    /// Polls one runnable task; false if there is none.
    fn step(&self) -> bool {
        let id = {
            let mut ready = self.0.ready.lock().unwrap_or_else(PoisonError::into_inner);
            if ready.is_empty() {
                return false;
            }
            let choice = if ready.len() == 1 { 0 } else { self.dice(|d| d.index(ready.len())) };
            ready.swap_remove(choice)
        };
        let (owner, thread, name, wake) = {
            let tasks = self.0.tasks.borrow();
            // A task that ended or died after it was woken.
            let Some(task) = tasks.get(&id) else { return true };
            (task.owner, task.thread, task.name, task.wake.clone())
        };
        wake.queued.store(false, Ordering::Relaxed);
        let stands_until = self.0.lives.borrow()[&owner].stands_until(thread);
        if stands_until > self.now() {
            self.add_event(stands_until, Event::Wake(wake.into()));
            return true;
        }
        self.poll(id, owner, name, wake);
        true
    }

    fn poll(&self, id: TaskId, owner: ProcessId, name: &'static str, wake: Arc<TaskWake>) {
        self.0.steps.set(self.0.steps.get() + 1);
        let spent = self.dice(|d| d.below(100..MAX_POLL_NANOS));
        self.0.now.set(self.now() + spent);
        self.0.trace.borrow_mut().number(id ^ (self.now() << 20));
        let future = self.0.tasks.borrow_mut().get_mut(&id).and_then(|task| task.future.take());
        let mut future = future.expect("a task is polled by nobody else");
        self.0.current.set(Some((id, owner, name)));
        let waker = Waker::from(wake);
        let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        self.0.current.set(None);
        if ended {
            let task = self.0.tasks.borrow_mut().remove(&id);
            drop(task);
        } else if let Some(task) = self.0.tasks.borrow_mut().get_mut(&id) {
            task.future = Some(future);
        }
        self.count_poll(owner);
    }

    fn count_poll(&self, owner: ProcessId) {
        let dies = {
            let mut lives = self.0.lives.borrow_mut();
            let life = lives.get_mut(&owner).expect("a process that was started");
            life.polls += 1;
            !life.dead && life.dies_at_poll.is_some_and(|at| life.polls >= at)
        };
        if dies {
            self.kill(owner);
        }
    }
}

struct Sleep {
    sim: Sim,
    at: u64,
    event: Option<(u64, u64)>,
}

impl Sleep {
    fn cancel(&mut self) {
        if let Some(key) = self.event.take() {
            let event = self.sim.0.events.borrow_mut().remove(&key);
            drop(event);
        }
    }
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.cancel();
        if self.sim.now() >= self.at {
            return Poll::Ready(());
        }
        self.event = Some(self.sim.add_event(self.at, Event::Wake(cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn counting(sim: Sim, count: Rc<Cell<u64>>) {
        loop {
            sim.sleep(Duration::from_millis(1)).await;
            count.set(count.get() + 1);
        }
    }

    #[test]
    fn time_jumps_to_the_next_event() {
        let sim = Sim::new(1, false);
        let s = sim.clone();
        let ended = sim.run(100, async move { s.sleep(Duration::from_secs(3_600)).await });
        assert_eq!(ended, Ended::Done);
        assert!(sim.now() >= 3_600_000_000_000 && sim.steps() < 10);
    }

    #[test]
    fn a_killed_process_runs_no_more_and_its_timers_are_gone() {
        let sim = Sim::new(2, false);
        let count = Rc::new(Cell::new(0));
        let (process, env) = sim.start_process();
        env.spawn("counting", counting(sim.clone(), count.clone()));
        let s = sim.clone();
        let ended = sim.run(10_000, async move {
            s.sleep(Duration::from_millis(10)).await;
            s.kill(process);
            s.died(process).await;
            s.sleep(Duration::from_millis(10)).await;
        });
        assert_eq!(ended, Ended::Done);
        assert!((5..=10).contains(&count.get()), "{}", count.get());
        assert!(sim.0.events.borrow().is_empty());
        sim.shut_down();
    }

    #[test]
    fn a_process_can_be_killed_at_its_nth_poll() {
        let sim = Sim::new(3, false);
        let count = Rc::new(Cell::new(0));
        let (process, env) = sim.start_process();
        env.spawn("counting", counting(sim.clone(), count.clone()));
        sim.kill_after(process, 4);
        let s = sim.clone();
        assert_eq!(sim.run(10_000, async move { s.died(process).await }), Ended::Done);
        assert_eq!(count.get(), 3, "the first poll only starts the first wait");
    }

    #[test]
    fn timers_of_a_machine_that_stood_still_are_late_by_as_much_and_those_of_a_stopped_process_are_not() {
        for (suspends, wakes_after) in [(false, 5), (true, 6)] {
            let sim = Sim::new(4, false);
            let (process, env) = sim.start_process();
            let woken = Rc::new(Cell::new(0));
            let (s, e, w) = (sim.clone(), env.clone(), woken.clone());
            env.spawn("sleeping", async move {
                e.sleep(Duration::from_secs(2)).await;
                w.set(s.now() / 1_000_000_000);
            });
            let s = sim.clone();
            sim.run(1_000, async move {
                s.sleep(Duration::from_secs(1)).await;
                match suspends {
                    true => s.suspend(process, Duration::from_secs(4)),
                    false => s.pause(process, Duration::from_secs(4)),
                }
                s.sleep(Duration::from_secs(20)).await;
            });
            assert_eq!(woken.get(), wakes_after);
            sim.shut_down();
        }
    }

    #[test]
    fn a_thread_that_is_stuck_stands_still_and_the_others_of_its_process_do_not() {
        let sim = Sim::new(6, false);
        let (process, env) = sim.start_process();
        let stuck = sim.thread(process, ThreadId(1));
        assert_eq!(stuck.now(), env.now(), "they have one clock");
        let (here, there) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        env.spawn("here", counting(sim.clone(), here.clone()));
        let (s, counted) = (sim.clone(), there.clone());
        // What a thread's tasks spawn is its own.
        let inner = stuck.clone();
        stuck.spawn("spawns", async move { inner.spawn("there", counting(s, counted)) });
        let (s, counts) = (sim.clone(), (here.clone(), there.clone()));
        sim.run(10_000, async move {
            s.sleep(Duration::from_millis(10)).await;
            s.stall(process, ThreadId(1), Duration::from_millis(100));
            let before = (counts.0.get(), counts.1.get());
            s.sleep(Duration::from_millis(99)).await;
            assert!(counts.0.get() > before.0 + 50 && counts.1.get() == before.1, "{before:?}");
            s.sleep(Duration::from_millis(10)).await;
            assert!(counts.1.get() > before.1 + 3);
        });
        assert!(there.get() > 8 && here.get() > there.get() + 50);
        sim.shut_down();
    }

    #[test]
    fn a_wall_clock_is_set_for_one_process_alone() {
        let sim = Sim::new(5, false);
        let ((process, env), (_, other)) = (sim.start_process(), sim.start_process());
        let (before, of_other) = (env.wall(), other.wall());
        sim.set_wall(process, -60_000);
        assert_eq!((env.wall().0, other.wall()), (before.0 - 60_000, of_other));
    }

    #[test]
    fn one_seed_gives_one_order_and_another_gives_another() {
        let order = |seed| {
            let sim = Sim::new(seed, false);
            let log = Rc::new(RefCell::new(Vec::new()));
            for name in 0..8 {
                let (s, log) = (sim.clone(), log.clone());
                sim.spawn(ProcessId::WORLD, "x", async move {
                    s.sleep(Duration::from_millis(1)).await;
                    log.borrow_mut().push(name);
                });
            }
            let s = sim.clone();
            sim.run(1_000, async move { s.sleep(Duration::from_millis(2)).await });
            (sim.trace_hash(), log.take())
        };
        assert_eq!(order(5), order(5));
        assert_ne!(order(5), order(6));
    }

    #[test]
    fn waiting_for_what_cannot_happen_is_a_deadlock() {
        let sim = Sim::new(1, false);
        assert_eq!(sim.run(100, futures::future::pending()), Ended::Deadlock);
        sim.shut_down();
    }
}
