//! What a store lets through: requests per second and prefix, bytes per second.
//!
//! Pure: the time is an argument.

use crate::env::Mono;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// A prefix may be ahead of its rate by this long: S3 counts by the second.
const WINDOW: Duration = Duration::from_secs(1);
/// Prefixes that are counted at once; those beyond are let through.
const PREFIXES: usize = 4_096;

/// A rate of requests for each prefix.
pub(super) struct Rate {
    each: Duration,
    /// Per prefix, when all that it asked for would have been done at that rate.
    due: BTreeMap<String, Mono>,
}

impl Rate {
    pub(super) fn new(per_second: NonZeroU32) -> Rate {
        Rate { each: Duration::from_secs(1) / per_second.get(), due: BTreeMap::new() }
    }

    /// Whether a request is let through now. One that is not costs nothing.
    pub(super) fn takes(&mut self, now: Mono, prefix: &str) -> bool {
        if !self.due.contains_key(prefix) {
            if self.due.len() >= PREFIXES {
                self.due.retain(|_, due| *due > now);
            }
            if self.due.len() >= PREFIXES {
                return true;
            }
            self.due.insert(prefix.to_owned(), now);
        }
        let due = self.due.get_mut(prefix).expect("just made sure of");
        let next = now.max(*due).plus(self.each);
        let takes = next.since(now) <= WINDOW;
        if takes {
            *due = next;
        }
        takes
    }
}

/// How long `bytes` take at `mib_per_second`.
pub(super) fn transfer(bytes: usize, mib_per_second: NonZeroU32) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / (u128::from(mib_per_second.get()) << 20);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Bandwidth that all requests share, in the order in which they come.
pub(super) struct Link {
    mib_per_second: NonZeroU32,
    free: Mono,
}

impl Link {
    pub(super) fn new(mib_per_second: NonZeroU32) -> Link {
        Link { mib_per_second, free: Mono(0) }
    }

    /// When `bytes` that are ready at `start` have passed.
    pub(super) fn moves(&mut self, start: Mono, bytes: usize) -> Mono {
        self.free = self.free.max(start).plus(transfer(bytes, self.mib_per_second));
        self.free
    }
}
