//! The one clock of a run, and waiting by it.

use crate::pace::SECOND;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use rustix::time::{timerfd_create, timerfd_settime};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Events taken at a time.
const EVENTS: usize = 1024;
/// The longest wait without a look at the clock.
const LOOK: Duration = Duration::from_millis(50);
const TIMER: Token = Token(usize::MAX);

/// Nanoseconds since the run began, by CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// How long ago that was.
    pub(crate) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).expect("a run lasts days at most")
    }
}

/// Sockets of a thread, and a timer finer than epoll's milliseconds.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Where sockets are registered.
    pub poll: Poll,
    events: Events,
    timer: OwnedFd,
}

impl Waiter {
    /// No sockets yet.
    pub(crate) fn new() -> io::Result<Waiter> {
        let poll = Poll::new()?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        Ok(Waiter { poll, events: Events::with_capacity(EVENTS), timer })
    }

    /// Waits for sockets, for `nanos` if given, and for [`LOOK`] at most; `ready` then has the tokens of the sockets.
    pub(crate) fn wait(&mut self, nanos: Option<u64>, ready: &mut Vec<Token>) -> io::Result<()> {
        if let Some(nanos) = nanos {
            // Zero would disarm the timer.
            let value = i64::try_from(nanos.clamp(1, SECOND - 1)).expect("below a second");
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Itimerspec { it_interval: none, it_value: Timespec { tv_sec: 0, tv_nsec: value } };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        }
        match self.poll.poll(&mut self.events, Some(LOOK)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            other => other?,
        }
        ready.clear();
        ready.extend(self.events.iter().map(mio::event::Event::token).filter(|token| *token != TIMER));
        Ok(())
    }
}
