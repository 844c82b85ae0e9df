//! The seam between logic and the world: time, randomness and tasks come through one cheap handle.
//!
//! A shard's thread has an `Env` over glommio, the lane's and the control task's threads one over tokio, the simulator
//! one over its own executor. Nothing outside the runtime modules names a clock, a thread or a random source.
//! Stores and sockets have seams of their own ([`crate::wal`], [`crate::object`], [`crate::meta`], the broker's `net`);
//! their futures run on any executor.
//!
//! Invariants:
//! 1. An `Env` stays on its thread (it is not `Send`), as do the tasks that it spawns.
//! 2. `now` never goes back; it runs on through suspend (`CLOCK_BOOTTIME`).
//! 3. In the simulator the same seed gives the same values in the same order.

use futures::channel::oneshot;
use futures::future::LocalBoxFuture;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// A point on the monotonic clock of one process life, in nanoseconds from an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// The point `after` later; saturates.
    #[must_use]
    pub fn plus(self, after: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
    /// Time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since the Unix epoch by the wall clock: for timestamps that people and Kafka clients see, never for
/// deciding anything about ownership.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallMs(pub i64);

impl WallMs {
    /// Whole seconds since the Unix epoch, as metrics tell times; 0 before it.
    pub fn seconds(self) -> u64 {
        u64::try_from(self.0 / 1_000).unwrap_or(0)
    }
}

/// Lets every other ready task run once.
pub async fn step_back() {
    let mut stepped = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What a runtime offers. Implemented once per runtime and once by the simulator.
pub trait Runtime {
    /// The monotonic clock.
    fn now(&self) -> Mono;
    /// The wall clock.
    fn wall(&self) -> WallMs;
    /// 64 random bits: cryptographic outside the simulator, seeded inside.
    fn random(&self) -> u64;
    /// Runs `task` on this thread until it ends; `name` is for traces. A panic of the task aborts the process
    /// (in the simulator: is a finding).
    fn spawn(&self, name: &'static str, task: LocalBoxFuture<'static, ()>);
    /// Ends at `at` or soon after.
    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()>;
    /// Ends when the other tasks of this thread that are ready have had their turn: for what may wait. Here after each of
    /// them had one; runtimes that can let them go on until none is ready do so.
    fn last_turn(&self) -> LocalBoxFuture<'static, ()> {
        Box::pin(step_back())
    }
    /// Does `work`, which may compute for long, and ends after it. Here at once, on this thread; runtimes whose threads
    /// have others waiting do it elsewhere.
    fn aside(&self, work: Box<dyn FnOnce() + Send>) -> LocalBoxFuture<'static, ()> {
        work();
        Box::pin(std::future::ready(()))
    }
}

/// The handle that everything takes. A clone costs one count.
#[derive(Clone)]
pub struct Env(Rc<dyn Runtime>);

impl Env {
    /// Wraps a runtime.
    pub fn new(runtime: Rc<dyn Runtime>) -> Env {
        Env(runtime)
    }
    /// See [`Runtime::now`].
    pub fn now(&self) -> Mono {
        self.0.now()
    }
    /// See [`Runtime::wall`].
    pub fn wall(&self) -> WallMs {
        self.0.wall()
    }
    /// See [`Runtime::random`].
    pub fn random(&self) -> u64 {
        self.0.random()
    }
    /// 128 random bits.
    pub fn random_u128(&self) -> u128 {
        (u128::from(self.random()) << 64) | u128::from(self.random())
    }
    /// See [`Runtime::spawn`].
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        self.0.spawn(name, Box::pin(task));
    }
    /// Ends `after` from now.
    pub fn sleep(&self, after: Duration) -> LocalBoxFuture<'static, ()> {
        self.0.sleep_until(self.now().plus(after))
    }
    /// See [`Runtime::sleep_until`].
    pub fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        self.0.sleep_until(at)
    }
    /// See [`Runtime::last_turn`].
    pub fn last_turn(&self) -> LocalBoxFuture<'static, ()> {
        self.0.last_turn()
    }
    /// What `work` gives, which may compute for long: see [`Runtime::aside`].
    pub async fn aside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (give, given) = oneshot::channel();
        let done = self.0.aside(Box::new(move || {
            // Nobody takes it where the shard ends first.
            let _ = give.send(work());
        }));
        done.await;
        given.await.expect("the work was done")
    }
}
