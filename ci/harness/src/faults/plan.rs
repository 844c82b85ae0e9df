//! Which faults hit what, for how long: drawn from a seed, so that a plan can be repeated.
//!
//! 1. Every kind comes as often as every other, give or take one.
//! 2. Faults of one step hit different things.

use crate::random::Random;
use std::fmt;
use std::time::Duration;

/// Every so many steps two faults come at once.
const PAIR_EVERY: usize = 4;
/// Bytes a second that a slow store takes of each broker, at least and at most.
const SLOW_BYTES: (u64, u64) = (16 << 10, 256 << 10);

/// A kind of fault.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// Kill -9 of a broker, which is started again.
    Kill,
    /// SIGSTOP of a broker for longer than its lease.
    Pause,
    /// SIGTERM to a broker, which is started again.
    Drain,
    /// A broker does not reach etcd.
    Etcd,
    /// A broker does not reach the store.
    Store,
    /// Nobody reaches a broker.
    Clients,
    /// etcd is killed and started again.
    EtcdKilled,
    /// The store is killed and started again.
    StoreKilled,
    /// The store is slow.
    StoreSlow,
}

impl Kind {
    /// All.
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Kill,
        Kind::Pause,
        Kind::Drain,
        Kind::Etcd,
        Kind::Store,
        Kind::Clients,
        Kind::EtcdKilled,
        Kind::StoreKilled,
        Kind::StoreSlow,
    ];

    /// Whether it hits one broker.
    fn is_of_a_broker(self) -> bool {
        !matches!(self, Kind::EtcdKilled | Kind::StoreKilled | Kind::StoreSlow)
    }
}

/// What happens to a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// Connections are ended and refused.
    Cut,
    /// Bytes go nowhere until it heals.
    Hold,
}

/// A fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Kill -9, started again when it heals.
    Kill { broker: usize },
    /// SIGSTOP, SIGCONT when it heals.
    Pause { broker: usize },
    /// SIGTERM, started again when it heals.
    Drain { broker: usize },
    /// The broker does not reach etcd.
    Etcd { broker: usize, how: How },
    /// The broker does not reach the store.
    Store { broker: usize, how: How },
    /// Nobody reaches the broker.
    Clients { broker: usize, how: How },
    /// etcd is killed, started again when it heals.
    EtcdKilled,
    /// The store is killed, started again when it heals.
    StoreKilled,
    /// The store takes so many bytes a second of each broker.
    StoreSlow { bytes_per_second: u64 },
}

impl Fault {
    /// The broker that it hits, if it hits one.
    pub(crate) fn broker(&self) -> Option<usize> {
        match *self {
            Fault::Kill { broker } | Fault::Pause { broker } | Fault::Drain { broker } => Some(broker),
            Fault::Etcd { broker, .. } | Fault::Store { broker, .. } | Fault::Clients { broker, .. } => Some(broker),
            Fault::EtcdKilled | Fault::StoreKilled | Fault::StoreSlow { .. } => None,
        }
    }

    /// Its kind in words, for the count of kinds.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Fault::Kill { .. } => "kill -9",
            Fault::Pause { .. } => "SIGSTOP",
            Fault::Drain { .. } => "SIGTERM",
            Fault::Etcd { .. } => "cut from etcd",
            Fault::Store { .. } => "cut from S3",
            Fault::Clients { .. } => "cut from clients",
            Fault::EtcdKilled => "etcd restarted",
            Fault::StoreKilled => "S3 restarted",
            Fault::StoreSlow { .. } => "S3 slow",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind())?;
        if let Some(broker) = self.broker() {
            write!(f, ", broker {broker}")?;
        }
        match self {
            Fault::Etcd { how: How::Hold, .. }
            | Fault::Store { how: How::Hold, .. }
            | Fault::Clients { how: How::Hold, .. } => write!(f, " (silently)"),
            Fault::StoreSlow { bytes_per_second } => write!(f, " ({} KiB/s)", bytes_per_second >> 10),
            _ => Ok(()),
        }
    }
}

/// Faults that begin and heal together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) faults: Vec<Fault>,
    /// From the moment at which they began until they heal.
    pub(crate) hold: Duration,
}

/// A plan of `faults` faults of these kinds, of a cluster of `brokers` whose leases last `lease`.
pub(crate) fn plan(seed: u64, faults: usize, kinds: &[Kind], brokers: usize, lease: Duration) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut deck = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut left = faults;
    while left > 0 {
        let wanted = if steps.len() % PAIR_EVERY == PAIR_EVERY - 1 { 2.min(left) } else { 1 };
        let mut step = Step { faults: Vec::new(), hold: Duration::ZERO };
        while step.faults.len() < wanted {
            if deck.is_empty() {
                deck = shuffled(&mut random, kinds);
            }
            let Some((fault, hold)) = draw(&mut random, &mut deck, brokers, lease, &step.faults) else { break };
            step.faults.push(fault);
            step.hold = step.hold.max(hold);
        }
        left -= step.faults.len();
        steps.push(step);
    }
    steps
}

fn shuffled(random: &mut Random, kinds: &[Kind]) -> Vec<Kind> {
    let mut deck = kinds.to_vec();
    for place in (1..deck.len()).rev() {
        deck.swap(place, random.below(place + 1));
    }
    deck
}

/// The next kind of the deck that fits beside the others of its step, at something that none of them hits.
fn draw(
    random: &mut Random,
    deck: &mut Vec<Kind>,
    brokers: usize,
    lease: Duration,
    beside: &[Fault],
) -> Option<(Fault, Duration)> {
    let fits = |kind: &Kind| beside.iter().all(|other| other.broker().is_some() || kind.is_of_a_broker());
    let kind = deck.remove(deck.iter().rposition(fits)?);
    let free: Vec<usize> =
        (0..brokers).filter(|&broker| beside.iter().all(|other| other.broker() != Some(broker))).collect();
    let broker = free[random.below(free.len())];
    let how = if random.below(2) == 0 { How::Cut } else { How::Hold };
    let between = |random: &mut Random, from: Duration, to: Duration| {
        from + Duration::from_millis(random.below((to - from).as_millis() as usize) as u64)
    };
    // Shorter than a lease or longer, half the time each.
    let long = between(random, lease + Duration::from_millis(500), lease + Duration::from_secs(4));
    let short = between(random, Duration::from_millis(100), lease);
    let short_or_long = if random.below(2) == 0 { long } else { short };
    let slow = SLOW_BYTES.0 + random.below((SLOW_BYTES.1 - SLOW_BYTES.0) as usize) as u64;
    let fault = match kind {
        Kind::Kill => Fault::Kill { broker },
        Kind::Pause => Fault::Pause { broker },
        Kind::Drain => Fault::Drain { broker },
        Kind::Etcd => Fault::Etcd { broker, how },
        Kind::Store => Fault::Store { broker, how },
        Kind::Clients => Fault::Clients { broker, how },
        Kind::EtcdKilled => Fault::EtcdKilled,
        Kind::StoreKilled => Fault::StoreKilled,
        Kind::StoreSlow => Fault::StoreSlow { bytes_per_second: slow },
    };
    Some((fault, if kind == Kind::Pause { long } else { short_or_long }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const LEASE: Duration = Duration::from_secs(5);

    #[test]
    fn the_same_seed_gives_the_same_plan_with_every_kind_equally_often() {
        let steps = plan(7, 90, &Kind::ALL, 3, LEASE);
        assert_eq!(steps, plan(7, 90, &Kind::ALL, 3, LEASE));
        assert_ne!(steps, plan(8, 90, &Kind::ALL, 3, LEASE));
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        steps.iter().flat_map(|step| &step.faults).for_each(|fault| *kinds.entry(fault.kind()).or_default() += 1);
        assert_eq!(kinds.len(), 9);
        assert_eq!(kinds.values().sum::<usize>(), 90);
        assert!(kinds.values().all(|count| (9..=11).contains(count)), "{kinds:?}");
    }

    #[test]
    fn a_plan_of_some_kinds_has_no_others() {
        let steps = plan(3, 20, &[Kind::Kill, Kind::StoreSlow], 3, LEASE);
        let kinds: Vec<_> = steps.iter().flat_map(|step| &step.faults).map(Fault::kind).collect();
        assert_eq!(kinds.len(), 20);
        assert!(kinds.iter().all(|kind| ["kill -9", "S3 slow"].contains(kind)), "{kinds:?}");
    }

    #[test]
    fn faults_of_a_step_hit_different_things_and_a_pause_outlasts_the_lease() {
        for seed in 0..50 {
            for step in plan(seed, 60, &Kind::ALL, 3, LEASE) {
                if let [one, other] = step.faults[..] {
                    assert_ne!((one.broker(), one.kind()), (other.broker(), other.kind()));
                    assert!(one.broker().is_none() || one.broker() != other.broker());
                }
                let pauses = step.faults.iter().any(|fault| matches!(fault, Fault::Pause { .. }));
                assert!(!pauses || step.hold > LEASE);
            }
        }
    }
}
