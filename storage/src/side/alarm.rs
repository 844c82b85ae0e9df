//! Sleeps shorter than tokio's timer can tell apart.
//!
//! Invariant: a timer belongs to one sleep at a time; what an earlier one left in it is never taken for its own ring.
#![allow(unsafe_code)] // `AsyncFd` wants a promise about the descriptor that it watches

use crate::env::Mono;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Alarms that a thread keeps for later sleeps.
pub(super) const IDLE_ALARMS: usize = 4;

/// Timers of the kernel that nobody sleeps on.
pub(super) type IdleAlarms = Rc<RefCell<Vec<AsyncFd<OwnedFd>>>>;

/// A timer of the kernel, exact to what its scheduler allows: one call to arm, none to give up. Goes back to the idle ones
/// when the sleep ends, however it ends.
pub(super) struct Alarm {
    timer: Option<AsyncFd<OwnedFd>>,
    idle: IdleAlarms,
}

impl Alarm {
    /// One that is idle, or a new one.
    pub(super) fn take(idle: &IdleAlarms) -> io::Result<Alarm> {
        let kept = idle.borrow_mut().pop();
        Ok(Alarm { timer: Some(kept.map_or_else(make, Ok)?), idle: idle.clone() })
    }

    /// Ends at `at` or soon after.
    pub(super) async fn ring(&self, at: Mono) -> io::Result<()> {
        let timer = self.timer.as_ref().expect("taken by the drop only");
        // Zero would disarm it.
        let nanos = at.0.max(1);
        let it_value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).expect("a u64 of nanoseconds is few enough seconds"),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).expect("below a billion"),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value })?;
        loop {
            // What an earlier sleep left may look like a ring: arming took its count away, and the read says so.
            let mut ready = timer.readable().await?;
            match rustix::io::read(timer, &mut [0_u8; 8]) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_ALARMS {
            idle.extend(self.timer.take());
        }
    }
}

fn make() -> io::Result<AsyncFd<OwnedFd>> {
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and is moved into what watches it.
    Ok(unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?)
}
