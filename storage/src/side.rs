//! tokio, named here and in the file below only: the side runtime that object-store clients need, threads for blocking calls, and the
//! [`Env`] of the lane's and the control task's threads.
//!
//! Invariants:
//! 1. A future returned by [`SideRuntime::run`] or [`SideRuntime::blocking`] may be awaited by any executor; the work
//!    itself goes on when that future is dropped (a request that was sent may have happened, whoever still listens).
//! 2. A panic of work given to this module is never swallowed: it reaches the caller, or aborts the process.
//! 3. The runtime's threads are bounded ([`WORKER_THREADS`], [`BLOCKING_THREADS`], [`READING_THREADS`]). What waits for them is bounded by
//!    the callers, each of which waits for its own result.

mod alarm;

use crate::env::{Env, Mono, Runtime, WallMs};
use alarm::{Alarm, IdleAlarms};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rustix::process::nice;
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinHandle, LocalSet};

/// Threads that drive object-store requests. Uploads are bound by the network, signing is off (see
/// [`crate::object::remote`]).
const WORKER_THREADS: usize = 2;

/// tokio's timer and the kernel's wait below it count milliseconds and round up: together they come up to so much late.
/// The rest of a sleep is left to an alarm, since a lane's lateness is in every acknowledgement that lingered.
const COARSE: Duration = Duration::from_millis(2);

/// Threads for blocking calls.
const BLOCKING_THREADS: usize = 16;

/// Threads for file reads that consumers wait for. They give way to every other thread ([`LEAST_PRIORITY`]): where all share
/// few processors, those who read what was written long ago would else keep shards and lanes waiting for theirs, each for its
/// slice in turn. A start, and what lanes read, does not give way.
const READING_THREADS: usize = 16;

/// The lowest that there is (`nice`).
const LEAST_PRIORITY: i32 = 19;

/// The runtime beside the shards. A clone is a handle; the last one to go stops it without waiting.
#[derive(Clone)]
pub struct SideRuntime {
    owner: Arc<Owner>,
    /// Whether reads through this handle give way.
    gives_way: bool,
}

struct Owner {
    handle: Handle,
    runtime: Option<tokio::runtime::Runtime>,
    /// Has no workers: nothing is ever driven by it.
    readers: Option<tokio::runtime::Runtime>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Not a plain drop: that waits, which is forbidden on a thread that drives async code.
        for runtime in [self.runtime.take(), self.readers.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

impl SideRuntime {
    /// Starts the threads.
    pub fn start() -> std::io::Result<SideRuntime> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("side")
            .enable_all()
            .build()?;
        let readers = Builder::new_current_thread()
            .max_blocking_threads(READING_THREADS)
            .thread_name("reader")
            .on_thread_start(|| {
                // Of this thread alone. To ask for less is always allowed; where it is not, they compete.
                let _ = nice(LEAST_PRIORITY);
            })
            .build()?;
        let handle = runtime.handle().clone();
        let owner = Owner { handle, runtime: Some(runtime), readers: Some(readers) };
        Ok(SideRuntime { owner: Arc::new(owner), gives_way: false })
    }

    /// A handle whose reads give way to every other thread of the machine.
    #[must_use]
    pub fn giving_way(&self) -> SideRuntime {
        SideRuntime { gives_way: true, ..self.clone() }
    }

    /// Runs `future` on the side runtime from now on; the result may be awaited anywhere.
    pub fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        self.join(self.owner.handle.spawn(future))
    }

    /// Runs `call`, which may block, on a thread of the bounded pool from now on; the result may be awaited anywhere.
    pub fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        self.join(self.owner.handle.spawn_blocking(call))
    }

    /// As [`SideRuntime::blocking`], for reads: on a thread of the lowest priority if this handle gives way.
    pub fn reading<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let readers = self.owner.readers.as_ref().expect("it is taken when the last handle goes");
        let pool = if self.gives_way { readers.handle() } else { &self.owner.handle };
        self.join(pool.spawn_blocking(call))
    }

    /// Runs `call`, which computes for long, on a thread of the bounded pool from now on; the result may be awaited
    /// anywhere. The thread is not bound to the caller's processor, as one that the caller started would be.
    pub fn computing<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let side = self.clone();
        self.run(async move { side.blocking(call).await })
    }

    fn join<T: Send + 'static>(&self, work: JoinHandle<T>) -> impl Future<Output = T> + Send + 'static {
        let alive = self.clone();
        async move {
            let result = work.await;
            drop(alive);
            match result {
                Ok(value) => value,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(error) => unreachable!("the runtime outlives its work, which nobody cancels: {error}"),
                },
            }
        }
    }
}

/// The result of `future` if it comes within `limit`. To be awaited inside [`SideRuntime::run`].
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

/// Lets time go by. To be awaited inside [`SideRuntime::run`].
pub(crate) async fn pause(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Drives a lane or the control task on the calling thread until it ends. `make` gets the thread's [`Env`]; tasks
/// spawned through it live on this thread and are dropped when the main future ends.
pub fn block_on_local<F: Future>(make: impl FnOnce(Env) -> F) -> std::io::Result<F::Output> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let env = Env::new(Rc::new(LocalRuntime { random: RefCell::new(random_source()?), idle: Rc::default() }));
    Ok(tasks.block_on(&runtime, async { make(env).await }))
}

/// Starts a named thread: for the write-ahead writers, which block in the kernel by design.
pub(crate) fn thread(name: String, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name).spawn(body).map(drop)
}

/// The monotonic clock that every runtime module of the process reads: it runs on through suspend.
pub fn monotonic_now() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("the boot clock is not negative");
    let nanoseconds = u64::try_from(time.tv_nsec).expect("nanoseconds are not negative");
    Mono(seconds * 1_000_000_000 + nanoseconds)
}

/// The wall clock that every runtime module of the process reads.
pub fn wall_now() -> WallMs {
    let time = clock_gettime(ClockId::Realtime);
    WallMs(time.tv_sec * 1_000 + time.tv_nsec / 1_000_000)
}

/// A cryptographic generator seeded by the operating system.
pub fn random_source() -> std::io::Result<ChaCha20Rng> {
    let mut seed = [0u8; 32];
    let got = rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty())?;
    assert_eq!(got, seed.len(), "the kernel gives up to 256 bytes whole");
    Ok(ChaCha20Rng::from_seed(seed))
}

struct LocalRuntime {
    random: RefCell<ChaCha20Rng>,
    idle: IdleAlarms,
}

impl Runtime for LocalRuntime {
    fn now(&self) -> Mono {
        monotonic_now()
    }

    fn wall(&self) -> WallMs {
        wall_now()
    }

    fn random(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    fn spawn(&self, name: &'static str, task: LocalBoxFuture<'static, ()>) {
        tokio::task::spawn_local(async move {
            // The process shares one fate, also where panics unwind: the message is already on stderr.
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task ended by a broken invariant");
                std::process::abort();
            }
        });
    }

    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        let idle = self.idle.clone();
        Box::pin(async move {
            // tokio's clock and ours differ by suspend and by rounding: look again until ours is there.
            loop {
                let left = at.since(monotonic_now());
                if left.is_zero() {
                    return;
                }
                if left > COARSE {
                    tokio::time::sleep(left - COARSE).await;
                    continue;
                }
                let rung = match Alarm::take(&idle) {
                    Ok(alarm) => alarm.ring(at).await,
                    Err(error) => Err(error),
                };
                // No descriptors left: late is better than not at all.
                if rung.is_err() {
                    tokio::time::sleep(left).await;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_on_the_side_is_awaited_from_a_foreign_executor() {
        let side = SideRuntime::start().unwrap();
        let sum = futures::executor::block_on(async {
            side.run(async { 1 }).await + side.blocking(|| 2).await + side.run(async { 3 }).await
        });
        assert_eq!(sum, 6);
    }

    #[test]
    fn a_panic_on_the_side_reaches_the_caller() {
        let side = SideRuntime::start().unwrap();
        let work = side.blocking(|| panic!("as asked"));
        let seen = std::panic::catch_unwind(AssertUnwindSafe(|| futures::executor::block_on(work)));
        assert!(seen.is_err());
    }

    #[test]
    fn the_last_handle_may_go_inside_an_executor_of_the_same_kind() {
        block_on_local(|_env| async {
            let side = SideRuntime::start().unwrap();
            side.run(async {}).await;
            drop(side);
        })
        .unwrap();
    }

    #[test]
    fn no_sleep_ends_early_and_those_given_up_disturb_no_later_ones() {
        block_on_local(|env| async move {
            let micros = |micros: u64| Duration::from_micros(micros);
            for long in [500, 1_900, 2_100, 4_500] {
                // All on alarms that were armed before, some of which have rung since.
                let given_up: Vec<_> =
                    (0..2 * alarm::IDLE_ALARMS as u64).map(|more| env.sleep(micros(300 + more))).collect();
                let polled = futures::future::join_all(given_up);
                assert!(polled.now_or_never().is_none());
                let (start, mut short) = (env.now(), env.sleep(micros(400)));
                let mut long_sleep = env.sleep(micros(long));
                futures::future::select(&mut short, &mut long_sleep).await;
                assert!(env.now().since(start) >= micros(400));
                long_sleep.await;
                assert!(env.now().since(start) >= micros(long));
            }
            // Of the past.
            env.sleep_until(Mono(0)).await;
        })
        .unwrap();
    }

    #[test]
    fn a_local_thread_has_tasks_a_clock_and_distinct_random_numbers() {
        let (slept, numbers) = block_on_local(|env| async move {
            let (done, finished) = futures::channel::oneshot::channel();
            let start = env.now();
            let task_env = env.clone();
            env.spawn("sleeper", async move {
                task_env.sleep(Duration::from_millis(3)).await;
                let _ = done.send(task_env.now());
            });
            let end = finished.await.unwrap();
            (end.since(start), [env.random_u128(), env.random_u128()])
        })
        .unwrap();
        assert!(slept >= Duration::from_millis(3));
        assert_ne!(numbers[0], numbers[1]);
        assert!(wall_now().0 > 1_600_000_000_000);
    }
}

/// Sockets for what runs under [`block_on_local`]: the admin endpoint, and questions to other processes.
pub mod net {
    use std::io;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    pub use tokio::net::TcpListener;
    use tokio::net::TcpStream;

    /// Sends bytes to whoever listens there, and waits for the first byte of an answer.
    pub async fn ask(host: &str, port: u16, question: &[u8]) -> io::Result<()> {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(question).await?;
        stream.read_u8().await.map(drop)
    }
}
