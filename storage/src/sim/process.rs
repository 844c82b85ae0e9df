//! The `Env` of a simulated process: virtual clocks that start anywhere, seeded randomness.

use super::dice::Dice;
use super::executor::{ProcessId, Sim, ThreadId};
use crate::env::{Mono, Runtime, WallMs};
use futures::future::LocalBoxFuture;

/// Wall clock at the start of every run: 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// A process's wall clock is off by at most this.
const MAX_SKEW_MS: u64 = 4_000;
/// A process's monotonic clock starts at most this late.
const MAX_MONO_START_NANOS: u64 = 1 << 40;

/// Where a process's clocks start.
#[derive(Clone, Copy)]
pub(super) struct Clocks {
    mono_start: u64,
    wall_skew_ms: i64,
}

impl Clocks {
    pub(super) fn drawn(dice: &mut Dice) -> Clocks {
        let (mono_start, skew) = (dice.below(0..MAX_MONO_START_NANOS), dice.below(0..2 * MAX_SKEW_MS));
        Clocks { mono_start, wall_skew_ms: skew as i64 - MAX_SKEW_MS as i64 }
    }
}

pub(super) struct ProcessRuntime {
    sim: Sim,
    process: ProcessId,
    thread: ThreadId,
    clocks: Clocks,
}

impl ProcessRuntime {
    pub(super) fn new(sim: Sim, process: ProcessId, thread: ThreadId, clocks: Clocks) -> ProcessRuntime {
        ProcessRuntime { sim, process, thread, clocks }
    }
}

impl Runtime for ProcessRuntime {
    fn now(&self) -> Mono {
        Mono(self.clocks.mono_start + self.sim.now())
    }
    fn wall(&self) -> WallMs {
        let set = self.sim.wall_set_ms(self.process);
        WallMs(EPOCH_MS + self.clocks.wall_skew_ms + set + (self.sim.now() / 1_000_000) as i64)
    }
    fn random(&self) -> u64 {
        self.sim.dice(|d| d.bits())
    }
    fn spawn(&self, name: &'static str, task: LocalBoxFuture<'static, ()>) {
        self.sim.spawn_boxed((self.process, self.thread), name, task);
    }
    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        let (sim, process) = (self.sim.clone(), self.process);
        let mut at = at.0.saturating_sub(self.clocks.mono_start);
        let mut seen = sim.suspended(process);
        Box::pin(async move {
            loop {
                sim.sleep_until(at).await;
                let suspended = sim.suspended(process);
                if suspended == seen {
                    return;
                }
                // A timer counts the time in which its machine ran.
                at += suspended - seen;
                seen = suspended;
            }
        })
    }
}
