//! Which leases live and until when: a pure table, for the stores that are their own clock ([`super::memory`],
//! [`super::embedded`], the simulator's).
//!
//! Invariants:
//! 1. A lease lives from [`Leases::grant`] until [`Leases::end`] or [`Leases::end_due`] takes it out; its number is never
//!    given out again.
//! 2. It is due once its time to live has gone by since it was granted or last kept alive. One that is due is not kept
//!    alive any more, also where nobody has taken it out yet.
//!
//! Which keys a lease holds is written beside the keys ([`super::apply::KeyValues::leased`]).

use super::{KeptAlive, Lease, LeaseId};
use crate::env::Mono;
use std::collections::BTreeMap;
use std::time::Duration;

/// The leases of one store.
#[derive(Clone, Default)]
pub(crate) struct Leases {
    granted: i64,
    living: BTreeMap<LeaseId, Living>,
}

#[derive(Clone, Copy)]
struct Living {
    ttl: Duration,
    /// `None`: nobody tells the time.
    due: Option<Mono>,
}

impl Leases {
    /// Makes a lease. Without `now` it lives until it is ended.
    pub(crate) fn grant(&mut self, ttl: Duration, now: Option<Mono>) -> Lease {
        self.granted += 1;
        let id = LeaseId(self.granted);
        self.living.insert(id, Living { ttl, due: now.map(|now| now.plus(ttl)) });
        Lease { id, ttl }
    }

    /// Begins its time to live anew.
    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: Option<Mono>) -> KeptAlive {
        match self.living.get_mut(&id) {
            Some(living) if !is_due(living, now) => {
                living.due = now.map(|now| now.plus(living.ttl));
                KeptAlive::For(living.ttl)
            }
            _ => KeptAlive::Ended,
        }
    }

    /// Whether it was granted and not taken out.
    pub(crate) fn lives(&self, id: LeaseId) -> bool {
        self.living.contains_key(&id)
    }

    /// Takes it out; answers whether it lived.
    pub(crate) fn end(&mut self, id: LeaseId) -> bool {
        self.living.remove(&id).is_some()
    }

    /// Takes out all that are due; answers whether any was.
    pub(crate) fn end_due(&mut self, now: Mono) -> bool {
        let before = self.living.len();
        self.living.retain(|_, living| !is_due(living, Some(now)));
        self.living.len() != before
    }

    /// Begins the time to live of all of them anew.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn renew_all(&mut self, now: Mono) {
        self.living.values_mut().for_each(|living| living.due = Some(now.plus(living.ttl)));
    }

    /// When it is due, if it lives and anybody tells the time.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn due_of(&self, id: LeaseId) -> Option<Mono> {
        self.living.get(&id)?.due
    }

    /// When the next one is due.
    pub(crate) fn next_due(&self) -> Option<Mono> {
        self.living.values().filter_map(|living| living.due).min()
    }
}

fn is_due(living: &Living, now: Option<Mono>) -> bool {
    living.due.zip(now).is_some_and(|(due, now)| due <= now)
}
