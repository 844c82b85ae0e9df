//! The `Env` of a simulated process: virtual clocks that start anywhere, seeded randomness.

use super::executor::{ProcessId, Sim};
use crate::env::{Mono, Runtime, WallMs};
use futures::future::LocalBoxFuture;

/// Wall clock at the start of every run: 2026-01-01.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// A process's wall clock is off by at most this.
const MAX_SKEW_MS: u64 = 4_000;
/// A process's monotonic clock starts at most this late.
const MAX_MONO_START_NANOS: u64 = 1 << 40;

pub(super) struct ProcessRuntime {
    sim: Sim,
    process: ProcessId,
    mono_start: u64,
    wall_skew_ms: i64,
}

impl ProcessRuntime {
    pub(super) fn new(sim: Sim, process: ProcessId) -> ProcessRuntime {
        let (mono_start, skew) = sim.dice(|d| (d.below(0..MAX_MONO_START_NANOS), d.below(0..2 * MAX_SKEW_MS)));
        ProcessRuntime { sim, process, mono_start, wall_skew_ms: skew as i64 - MAX_SKEW_MS as i64 }
    }
}

impl Runtime for ProcessRuntime {
    fn now(&self) -> Mono {
        Mono(self.mono_start + self.sim.now())
    }
    fn wall(&self) -> WallMs {
        let set = self.sim.wall_set_ms(self.process);
        WallMs(EPOCH_MS + self.wall_skew_ms + set + (self.sim.now() / 1_000_000) as i64)
    }
    fn random(&self) -> u64 {
        self.sim.dice(|d| d.bits())
    }
    fn spawn(&self, name: &'static str, task: LocalBoxFuture<'static, ()>) {
        self.sim.spawn_boxed(self.process, name, task);
    }
    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        let (sim, process) = (self.sim.clone(), self.process);
        let mut at = at.0.saturating_sub(self.mono_start);
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
