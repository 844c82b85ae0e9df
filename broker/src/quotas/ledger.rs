//! What the clients of one shard sent and received lately, and how long each must pause (KIP-219).
//!
//! Invariants:
//! 1. Without quotas a request costs one look at an empty table; with them, one look for its connection and one
//!    comparison of its client id. Neither allocates: who a connection's bytes are counted with is found when its first
//!    request comes, when its client id changes, and when the table does.
//! 2. At most [`METERS`] meters. One that has drained is forgotten for another, which changes nothing (meter, invariant
//!    2). While none has, whoever finds no place shares the first meter of its quota.

use super::ANONYMOUS;
use super::meter::{BURST_SECONDS, Meter};
use super::table::{Quota, QuotaTable, Scope};
use crate::shard::events::ConnectionId;
use millrace_storage::env::Mono;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Users and client ids that one shard measures at a time, for each quota.
pub const METERS: usize = 4_096;

/// Between two looks for meters that may be forgotten: a look goes over all of them.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a connection's bytes count against.
#[derive(Clone, Copy, Debug)]
struct Charge {
    rate: u64,
    /// Place among the meters of its quota.
    meter: usize,
}

/// Who a connection is.
#[derive(Debug)]
struct Client {
    client_id: String,
    produce: Option<Charge>,
    fetch: Option<Charge>,
}

impl Client {
    fn charge(&self, quota: Quota) -> Option<Charge> {
        match quota {
            Quota::Produce => self.produce,
            Quota::Fetch => self.fetch,
        }
    }
}

/// The meters of one quota; the first is for those who find no place.
#[derive(Debug)]
struct Meters {
    all: Vec<Meter>,
    places: BTreeMap<Scope, usize>,
    looked_at: Option<Mono>,
}

impl Default for Meters {
    fn default() -> Meters {
        Meters { all: vec![Meter::default()], places: BTreeMap::new(), looked_at: None }
    }
}

/// The measurements of one shard.
#[derive(Debug, Default)]
pub struct Ledger {
    table: Arc<QuotaTable>,
    clients: BTreeMap<ConnectionId, Client>,
    produce: Meters,
    fetch: Meters,
}

impl Ledger {
    /// The quotas are these from now on. What was measured stays.
    pub fn set_table(&mut self, table: &Arc<QuotaTable>) {
        if !Arc::ptr_eq(table, &self.table) {
            self.table = table.clone();
            self.clients.clear();
        }
    }

    /// A connection is gone.
    pub fn forget(&mut self, connection: ConnectionId) {
        self.clients.remove(&connection);
    }

    /// Counts bytes that a client sent or received; how long it must pause now.
    pub fn count(
        &mut self,
        now: Mono,
        quota: Quota,
        (connection, client_id): (ConnectionId, &str),
        bytes: usize,
    ) -> Duration {
        let Some(Charge { rate, meter }) = self.charge(now, quota, connection, client_id) else {
            return Duration::ZERO;
        };
        self.meters(quota).all[meter].count(now, rate, bytes as u64)
    }

    /// As [`Ledger::count`], for the client that the connection's last request named.
    pub fn count_more(&mut self, now: Mono, quota: Quota, connection: ConnectionId, bytes: usize) -> Duration {
        let charge = self.clients.get(&connection).and_then(|client| client.charge(quota));
        let Some(Charge { rate, meter }) = charge else { return Duration::ZERO };
        self.meters(quota).all[meter].count(now, rate, bytes as u64)
    }

    /// How long a client must pause for what was counted before, and how many bytes its quota lets pass at once; `None`
    /// without a quota.
    pub fn standing(
        &mut self,
        now: Mono,
        quota: Quota,
        (connection, client_id): (ConnectionId, &str),
    ) -> Option<(Duration, usize)> {
        let Charge { rate, meter } = self.charge(now, quota, connection, client_id)?;
        let most = rate.saturating_mul(BURST_SECONDS);
        Some((self.meters(quota).all[meter].count(now, rate, 0), usize::try_from(most).unwrap_or(usize::MAX)))
    }

    fn meters(&mut self, quota: Quota) -> &mut Meters {
        match quota {
            Quota::Produce => &mut self.produce,
            Quota::Fetch => &mut self.fetch,
        }
    }

    fn charge(&mut self, now: Mono, quota: Quota, connection: ConnectionId, client_id: &str) -> Option<Charge> {
        if self.table.is_empty() {
            return None;
        }
        if self.clients.get(&connection).is_none_or(|client| client.client_id != client_id) {
            let [produce, fetch] = Quota::ALL.map(|quota| {
                let (rate, scope) = self.table.find(quota, ANONYMOUS, client_id)?;
                Some(Charge { rate, meter: self.place(now, quota, scope) })
            });
            self.clients.insert(connection, Client { client_id: client_id.to_owned(), produce, fetch });
        }
        self.clients.get(&connection)?.charge(quota)
    }

    fn place(&mut self, now: Mono, quota: Quota, scope: Scope) -> usize {
        if let Some(place) = self.meters(quota).places.get(&scope) {
            return *place;
        }
        if self.meters(quota).places.len() >= METERS && !self.make_room(now, quota) {
            return 0;
        }
        let meters = self.meters(quota);
        let free = meters.all.len();
        meters.all.push(Meter::default());
        meters.places.insert(scope, free);
        free
    }

    /// Forgets the meters that have drained; whether there is room then. Connections look their own up again.
    fn make_room(&mut self, now: Mono, quota: Quota) -> bool {
        let meters = self.meters(quota);
        if meters.looked_at.is_some_and(|at| now.since(at) < LOOK_AGAIN_AFTER) {
            return false;
        }
        meters.looked_at = Some(now);
        let old = std::mem::take(&mut meters.places);
        let counted = std::mem::take(&mut meters.all);
        meters.all.push(counted[0]);
        for (scope, place) in old {
            if !counted[place].is_drained(now) {
                meters.places.insert(scope, meters.all.len());
                meters.all.push(counted[place]);
            }
        }
        let has_room = meters.places.len() < METERS;
        self.clients.clear();
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_storage::meta::records::{QuotaEntity, QuotaPart};

    const A: ConnectionId = ConnectionId(1);
    const B: ConnectionId = ConnectionId(2);

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    fn of_client(part: QuotaPart, quota: Quota, rate: u64) -> Arc<QuotaTable> {
        let entity = QuotaEntity { user: QuotaPart::Absent, client_id: part };
        let quotas = BTreeMap::from([(quota.name().to_owned(), rate)]);
        Arc::new(QuotaTable(BTreeMap::from([(entity, quotas)])))
    }

    fn seconds(ledger: &mut Ledger, ms: u64, client: (ConnectionId, &str), bytes: usize) -> u64 {
        ledger.count(at(ms), Quota::Produce, client, bytes).as_secs()
    }

    #[test]
    fn connections_of_one_client_id_are_counted_together_and_others_are_not() {
        let mut ledger = Ledger::default();
        assert_eq!(seconds(&mut ledger, 20_000, (A, "c"), 1 << 30), 0, "no quota");
        ledger.set_table(&of_client(QuotaPart::Named("c".to_owned()), Quota::Produce, 1_000));
        assert_eq!(seconds(&mut ledger, 20_000, (A, "c"), 10_000), 0);
        assert_eq!(seconds(&mut ledger, 20_000, (B, "c"), 3_000), 3);
        assert_eq!(seconds(&mut ledger, 20_000, (A, "other"), 1 << 30), 0, "the connection is another client now");
        assert_eq!(seconds(&mut ledger, 20_000, (A, "c"), 1_000), 4);
        assert_eq!(ledger.count(at(20_000), Quota::Fetch, (A, "c"), 1 << 30), Duration::ZERO, "of produce alone");
        assert_eq!(seconds(&mut ledger, 60_000, (A, "c"), 1_000), 0, "what is long ago does not count");
    }

    #[test]
    fn the_default_counts_each_client_id_for_itself() {
        let mut ledger = Ledger::default();
        ledger.set_table(&of_client(QuotaPart::Default, Quota::Produce, 1_000));
        assert_eq!(seconds(&mut ledger, 20_000, (A, "a"), 12_000), 2);
        assert_eq!(seconds(&mut ledger, 20_000, (B, "b"), 11_000), 1);
    }

    #[test]
    fn a_changed_quota_counts_at_once_and_one_that_is_taken_away_no_more() {
        let mut ledger = Ledger::default();
        let of = |rate| of_client(QuotaPart::Named("c".to_owned()), Quota::Produce, rate);
        ledger.set_table(&of(1_000));
        assert_eq!(seconds(&mut ledger, 20_000, (A, "c"), 12_000), 2);
        ledger.set_table(&of(100));
        assert_eq!(seconds(&mut ledger, 20_000, (A, "c"), 0), 110, "what was measured stays");
        ledger.set_table(&Arc::default());
        assert_eq!(seconds(&mut ledger, 20_000, (A, "c"), 1 << 30), 0);
        assert_eq!(ledger.count_more(at(20_000), Quota::Produce, A, 1), Duration::ZERO);
    }

    #[test]
    fn what_is_received_is_counted_for_the_client_that_asked_last() {
        let mut ledger = Ledger::default();
        ledger.set_table(&of_client(QuotaPart::Named("c".to_owned()), Quota::Fetch, 1_000));
        assert_eq!(ledger.standing(at(20_000), Quota::Fetch, (A, "c")), Some((Duration::ZERO, 10_000)));
        assert_eq!(ledger.count_more(at(20_000), Quota::Fetch, A, 12_000).as_secs(), 2);
        assert_eq!(ledger.standing(at(20_000), Quota::Fetch, (B, "c")).unwrap().0.as_secs(), 2);
        assert_eq!(ledger.standing(at(20_000), Quota::Fetch, (B, "d")), None);
        ledger.forget(A);
        assert_eq!(ledger.count_more(at(20_000), Quota::Fetch, A, 12_000), Duration::ZERO);
    }

    #[test]
    fn meters_are_bounded_and_those_that_count_nothing_make_room() {
        let mut ledger = Ledger::default();
        ledger.set_table(&of_client(QuotaPart::Default, Quota::Produce, 1_000));
        for client in 0..METERS {
            seconds(&mut ledger, 20_000, (A, &client.to_string()), 12_000);
        }
        assert_eq!(seconds(&mut ledger, 20_000, (A, "one more"), 8_000), 0);
        assert_eq!(seconds(&mut ledger, 20_000, (B, "and another"), 8_000), 6, "they share a meter");
        assert_eq!(ledger.produce.all.len(), METERS + 1);
        assert_eq!(seconds(&mut ledger, 20_500, (A, "7"), 0), 1, "who has a meter keeps it");
        assert_eq!(seconds(&mut ledger, 60_000, (B, "a third"), 12_000), 2, "the others have drained");
        assert_eq!(ledger.produce.all.len(), 2);
    }
}
