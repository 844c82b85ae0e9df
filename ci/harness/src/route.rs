//! What one client knows of a cluster of several processes: whom it may ask, and who leads what.
//!
//! 1. A leader of an older epoch than one heard of before is not believed: who tells so is behind.
//! 2. No request waits longer than the client's patience, so that one process that is silent does not stop a client.

use crate::cluster;
use crate::connection::{Connection, IO_TIMEOUT};
use crate::trouble::{Trouble, is_retriable};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// After a look that did not tell all leaders, before the next.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Where a cluster is asked: one address after another, the next whenever one fails.
#[derive(Debug)]
pub(crate) struct Bootstrap {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    /// How long one read or write may take.
    pub(crate) patience: Duration,
}

impl Bootstrap {
    /// Of these addresses, at least one.
    pub(crate) fn new(addresses: Vec<SocketAddr>, patience: Duration) -> Self {
        Bootstrap { addresses, next: AtomicUsize::new(0), patience }
    }

    /// The address that answered last.
    pub(crate) fn current(&self) -> SocketAddr {
        self.addresses[self.next.load(Ordering::Relaxed) % self.addresses.len()]
    }

    /// Does it at the current address; if that fails, another is current from then on.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(SocketAddr) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let outcome = ask(self.current());
        if outcome.is_err() {
            self.next.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Greets with this bootstrap's patience.
    pub(crate) fn greet(&self, address: SocketAddr) -> Result<Connection, Trouble> {
        cluster::greet_within(address, self.patience)
    }
}

impl From<SocketAddr> for Bootstrap {
    fn from(address: SocketAddr) -> Self {
        Bootstrap::new(vec![address], IO_TIMEOUT)
    }
}

/// Who leads a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leader {
    /// Where.
    pub(crate) address: SocketAddr,
    /// Since which epoch; grows with every change.
    pub(crate) epoch: i32,
}

/// Who leads the partitions of one topic, as one client knows it.
pub(crate) struct Route {
    topic: String,
    leaders: Vec<Option<Leader>>,
    /// The highest epoch heard of, for each partition.
    epochs: Vec<i32>,
    /// When to look again.
    look_at: Option<Instant>,
}

impl Route {
    /// Knows nothing yet.
    pub(crate) fn new(topic: &str, partitions: usize) -> Self {
        let look_at = Some(Instant::now());
        Route { topic: topic.to_owned(), leaders: vec![None; partitions], epochs: vec![-1; partitions], look_at }
    }

    /// Who leads this partition, if that is known.
    pub(crate) fn leader(&self, partition: usize) -> Option<Leader> {
        self.leaders[partition]
    }

    /// The partitions of each leader.
    pub(crate) fn by_leader(&self) -> BTreeMap<SocketAddr, Vec<usize>> {
        let mut nodes: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
        for (partition, leader) in self.leaders.iter().enumerate() {
            if let Some(leader) = leader {
                nodes.entry(leader.address).or_default().push(partition);
            }
        }
        nodes
    }

    /// Whether every leader is known and none is in doubt.
    pub(crate) fn is_whole(&self) -> bool {
        self.look_at.is_none()
    }

    /// What is known may be wrong.
    pub(crate) fn doubt(&mut self) {
        self.look_at.get_or_insert_with(Instant::now);
    }

    /// A connection to this address ended: it leads nothing until somebody says so again.
    pub(crate) fn forget(&mut self, address: SocketAddr) {
        self.leaders.iter_mut().filter(|leader| leader.is_some_and(|leader| leader.address == address)).for_each(
            |leader| {
                leader.take();
            },
        );
        self.doubt();
    }

    /// Asks who leads, if that is in doubt.
    ///
    /// # Errors
    /// Only what no client would try again.
    pub(crate) fn look(&mut self, bootstrap: &Bootstrap) -> Result<(), Trouble> {
        if self.look_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        match bootstrap.ask(|address| cluster::described(address, &self.topic, bootstrap.patience)) {
            Ok(told) => {
                self.learn(told.into_iter().map(Result::ok));
                Ok(())
            }
            Err(Trouble::Io(_)) => {
                self.look_at = Some(Instant::now() + LOOK_AGAIN);
                Ok(())
            }
            Err(Trouble::Code(code)) if is_retriable(code) => {
                self.look_at = Some(Instant::now() + LOOK_AGAIN);
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn learn(&mut self, told: impl Iterator<Item = Option<Leader>>) {
        let mut whole = 0;
        for (partition, leader) in told.enumerate().take(self.leaders.len()) {
            let known = leader.filter(|leader| leader.epoch >= self.epochs[partition]);
            if let Some(leader) = known {
                self.epochs[partition] = leader.epoch;
                whole += 1;
            }
            self.leaders[partition] = known;
        }
        self.look_at = (whole < self.leaders.len()).then(|| Instant::now() + LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(port: u16, epoch: i32) -> Option<Leader> {
        Some(Leader { address: SocketAddr::from(([127, 0, 0, 1], port)), epoch })
    }

    #[test]
    fn a_leader_of_an_older_epoch_is_not_believed() {
        let mut route = Route::new("t", 2);
        route.learn([leader(1, 4), leader(2, 4)].into_iter());
        assert!(route.is_whole());
        route.learn([leader(1, 3), leader(1, 5)].into_iter());
        assert_eq!((route.leader(0), route.leader(1)), (None, leader(1, 5)));
        assert!(!route.is_whole());
    }

    #[test]
    fn what_an_address_led_is_in_doubt_once_it_is_gone() {
        let mut route = Route::new("t", 3);
        route.learn([leader(1, 0), leader(2, 0), leader(1, 0)].into_iter());
        route.forget(SocketAddr::from(([127, 0, 0, 1], 1)));
        assert!(!route.is_whole());
        assert_eq!((0..3).filter(|&partition| route.leader(partition).is_some()).collect::<Vec<_>>(), [1]);
    }
}
