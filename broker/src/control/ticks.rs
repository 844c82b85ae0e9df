//! Whether every thread that does this process's work has turned lately: its lease is taken and kept only while all have
//! (PROTOCOL.md section 1), so that others take what a thread that is stuck has, and all else that its process has.
//!
//! Each thread writes down when it turned last ([`Ticks::keep`]), and the control task reads that whenever it turns itself
//! ([`Watch`]). Its own thread needs no watch: while that is stuck nothing keeps the lease.
//!
//! Invariants:
//! 1. A thread is stuck while it last ticked more than [`LIMIT`] ago, on the clock that runs through suspend; one that has
//!    not begun is taken to have ticked when the watch began.
//! 2. A thread that has ended holds nothing up: a graceful stop ended it, or it takes the process with it.
//! 3. A thread waits for nobody to tick, and costs a few stores a second.
//!
//! It ends nobody: a thread may come back. What the lease's end means is for those who look after that.

use millrace_storage::env::{Env, Mono};
use millrace_storage::ids::ShardIndex;
use millrace_storage::wrong::{Wrong, wrong};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Who has not ticked for longer is stuck.
pub const LIMIT: Duration = Duration::from_secs(1);
/// How often a thread ticks. One that is kept from its processor now and then, or has long turns, is not stuck.
const EVERY: Duration = Duration::from_millis(200);
/// Before the first tick.
const NOT_BEGUN: u64 = 0;
/// After the last one.
const ENDED: u64 = u64::MAX;

/// A thread that is watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Thread {
    /// A lane's.
    Lane(u16),
    /// A shard's.
    Shard(ShardIndex),
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Thread::Lane(lane) => write!(f, "lane-{lane}"),
            Thread::Shard(shard) => write!(f, "shard-{shard}"),
        }
    }
}

/// When a thread ticked last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// It has not.
    NotBegun,
    /// Then.
    At(Mono),
    /// It ticks no more, and need not.
    Ended,
}

/// When each thread of a process ticked last. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub struct Ticks(Arc<BTreeMap<Thread, AtomicU64>>);

impl Ticks {
    /// Those of a process with so many shards and lanes.
    pub fn of(shards: u16, lanes: u16) -> Ticks {
        let shards = (0..shards).map(|shard| Thread::Shard(ShardIndex(shard)));
        let threads = (0..lanes).map(Thread::Lane).chain(shards);
        Ticks(Arc::new(threads.map(|thread| (thread, AtomicU64::new(NOT_BEGUN))).collect()))
    }

    /// Ticks for `thread`, for as long as the tasks of that thread run, of which this must be one.
    pub async fn keep(self, thread: Thread, env: Env) {
        let ticking = Ticking { ticks: self, thread };
        loop {
            ticking.write(env.now().0.clamp(NOT_BEGUN + 1, ENDED - 1));
            env.sleep(EVERY).await;
        }
    }

    /// What all threads have written down.
    pub fn read(&self) -> impl Iterator<Item = (Thread, Last)> {
        self.0.iter().map(|(&thread, at)| {
            let last = match at.load(Ordering::Relaxed) {
                NOT_BEGUN => Last::NotBegun,
                ENDED => Last::Ended,
                at => Last::At(Mono(at)),
            };
            (thread, last)
        })
    }
}

/// Dropped when its thread runs tasks no more.
struct Ticking {
    ticks: Ticks,
    thread: Thread,
}

impl Ticking {
    fn write(&self, at: u64) {
        self.ticks.0.get(&self.thread).expect("a thread of this process").store(at, Ordering::Relaxed);
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.write(ENDED);
    }
}

/// What is worth a line in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum News {
    /// The thread has not ticked for so long.
    Stuck(Thread, Duration),
    /// It ticks again, after so long.
    Back(Thread, Duration),
}

/// Who is stuck.
#[derive(Clone, Debug)]
pub struct Watch {
    begun: Mono,
    /// And since when.
    stuck: BTreeMap<Thread, Mono>,
}

impl Watch {
    /// Begins to watch.
    pub fn new(now: Mono) -> Watch {
        Watch { begun: now, stuck: BTreeMap::new() }
    }

    /// Looks at what every thread has written down.
    pub fn look(&mut self, now: Mono, threads: impl Iterator<Item = (Thread, Last)>) -> Vec<News> {
        let mut news = Vec::new();
        for (thread, last) in threads {
            let at = match last {
                Last::NotBegun => self.begun,
                Last::At(at) => at,
                Last::Ended => now,
            };
            if now.since(at) > LIMIT {
                if self.stuck.insert(thread, at).is_none() {
                    news.push(News::Stuck(thread, now.since(at)));
                }
            } else if let Some(since) = self.stuck.remove(&thread) {
                news.push(News::Back(thread, at.since(since)));
            }
        }
        news
    }

    /// Whether the lease may be taken and kept.
    pub fn may_keep_lease(&self) -> bool {
        self.stuck.is_empty() || wrong(Wrong::LeaseKeptWhileStuck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_storage::sim::{Sim, ThreadId};

    const LANE: Thread = Thread::Lane(0);
    const SHARD: Thread = Thread::Shard(ShardIndex(0));

    fn ms(ms: u64) -> Mono {
        Mono(1_000_000_000_000).plus(Duration::from_millis(ms))
    }

    fn at(millis: u64) -> Last {
        Last::At(ms(millis))
    }

    #[test]
    fn who_has_not_ticked_for_more_than_a_second_is_stuck_until_it_ticks_again_and_that_is_said_once() {
        let mut watch = Watch::new(ms(0));
        let second = Duration::from_secs(1);
        assert_eq!(watch.look(ms(1_500), [(LANE, at(1_400)), (SHARD, at(500))].into_iter()), []);
        assert!(watch.may_keep_lease());
        let stuck = [News::Stuck(SHARD, second + Duration::from_nanos(1))];
        let now = ms(1_500).plus(Duration::from_nanos(1));
        assert_eq!(watch.look(now, [(LANE, at(1_400)), (SHARD, at(500))].into_iter()), stuck);
        assert_eq!(watch.look(ms(9_000), [(LANE, at(8_900)), (SHARD, at(500))].into_iter()), []);
        assert!(!watch.may_keep_lease());
        let back = [News::Back(SHARD, Duration::from_millis(8_600))];
        assert_eq!(watch.look(ms(9_200), [(LANE, at(9_100)), (SHARD, at(9_100))].into_iter()), back);
        assert!(watch.may_keep_lease());
    }

    #[test]
    fn the_lease_is_not_kept_while_any_thread_is_stuck_and_each_is_named() {
        let mut watch = Watch::new(ms(0));
        let silent = Duration::from_secs(4);
        let both = [News::Stuck(LANE, silent), News::Stuck(SHARD, silent)];
        assert_eq!(watch.look(ms(5_000), [(LANE, at(1_000)), (SHARD, at(1_000))].into_iter()), both);
        let one = [News::Back(LANE, silent)];
        assert_eq!(watch.look(ms(5_000), [(LANE, at(5_000)), (SHARD, at(1_000))].into_iter()), one);
        assert!(!watch.may_keep_lease());
        assert_eq!([LANE.to_string(), SHARD.to_string()], ["lane-0", "shard-0"]);
    }

    #[test]
    fn who_has_not_begun_has_a_second_for_that_and_who_has_ended_holds_nothing_up() {
        let mut watch = Watch::new(ms(0));
        let threads = [(LANE, Last::Ended), (SHARD, Last::NotBegun)];
        assert_eq!(watch.look(ms(1_000), threads.into_iter()), []);
        assert_eq!(watch.look(ms(1_001), threads.into_iter()), [News::Stuck(SHARD, Duration::from_millis(1_001))]);
        assert_eq!(
            watch.look(ms(1_002), [(SHARD, Last::Ended)].into_iter()),
            [News::Back(SHARD, Duration::from_millis(1_002))]
        );
        assert!(watch.may_keep_lease());
    }

    #[test]
    fn a_tick_that_came_after_the_look_began_is_none_of_the_future() {
        let mut watch = Watch::new(ms(0));
        assert_eq!(watch.look(ms(10), [(LANE, at(11))].into_iter()), []);
    }

    #[test]
    fn threads_tick_while_their_tasks_run_and_those_that_are_stuck_do_not() {
        let sim = Sim::new(1, false);
        let world = sim.clone();
        sim.run(100_000, async move {
            let (process, env) = world.start_process();
            let ticks = Ticks::of(2, 1);
            assert!(ticks.read().all(|(_, last)| last == Last::NotBegun) && ticks.read().count() == 3);
            for (number, (thread, _)) in (1..).zip(ticks.read()) {
                let of_it = world.thread(process, ThreadId(number));
                of_it.spawn("tick", ticks.clone().keep(thread, of_it.clone()));
            }
            let mut watch = Watch::new(env.now());
            let mut look = || watch.look(env.now(), ticks.read());
            world.sleep(Duration::from_secs(5)).await;
            assert_eq!(look(), []);
            world.stall(process, ThreadId(3), Duration::from_secs(5));
            world.sleep(Duration::from_millis(800)).await;
            assert_eq!(look(), []);
            world.sleep(Duration::from_secs(1)).await;
            let shard = Thread::Shard(ShardIndex(1));
            assert!(matches!(look()[..], [News::Stuck(thread, _)] if thread == shard));
            world.sleep(Duration::from_secs(4)).await;
            assert!(matches!(look()[..], [News::Back(thread, _)] if thread == shard));
            world.kill(process);
            assert!(ticks.read().all(|(_, last)| last == Last::Ended));
        });
        sim.shut_down();
    }
}
