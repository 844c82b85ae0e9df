//! Which quotas there are, and whose a client's bytes are counted as. The order of precedence is Kafka's.

use millrace_storage::meta::records::{QuotaEntity, QuotaPart};
use std::collections::BTreeMap;

/// What can be limited. Kafka's other quotas are not offered: see `docs/decisions/072-client-quotas.md`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Quota {
    /// Bytes of produce requests a second.
    Produce,
    /// Bytes of fetch responses a second.
    Fetch,
}

impl Quota {
    /// All of them.
    pub const ALL: [Quota; 2] = [Quota::Produce, Quota::Fetch];

    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            Quota::Produce => "producer_byte_rate",
            Quota::Fetch => "consumer_byte_rate",
        }
    }

    /// The quota of that name.
    pub fn of(name: &str) -> Option<Quota> {
        Quota::ALL.into_iter().find(|quota| quota.name() == name)
    }
}

/// Who is counted together: a quota of a user counts all of its clients, one of a client id all of its users, and the
/// default ones each for itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Scope {
    /// The user, if others are not counted with it.
    pub user: Option<String>,
    /// The client id, likewise.
    pub client_id: Option<String>,
}

/// All quotas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QuotaTable(pub BTreeMap<QuotaEntity, BTreeMap<String, u64>>);

impl QuotaTable {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes a second that count for this client, and who is counted together with it.
    pub fn find(&self, quota: Quota, user: &str, client_id: &str) -> Option<(u64, Scope)> {
        use QuotaPart::{Absent, Default, Named};
        let named = |name: &str| Named(name.to_owned());
        // Whether the scope has the user, and the client id.
        let (both, of_user, of_client) = ((true, true), (true, false), (false, true));
        let order = [
            (named(user), named(client_id), both),
            (named(user), Default, both),
            (named(user), Absent, of_user),
            (Default, named(client_id), both),
            (Default, Default, both),
            (Default, Absent, of_user),
            (Absent, named(client_id), of_client),
            (Absent, Default, of_client),
        ];
        order.into_iter().find_map(|(user_part, client_part, (by_user, by_client))| {
            let entity = QuotaEntity { user: user_part, client_id: client_part };
            let rate = *self.0.get(&entity)?.get(quota.name())?;
            let scope =
                Scope { user: by_user.then(|| user.to_owned()), client_id: by_client.then(|| client_id.to_owned()) };
            Some((rate, scope))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(user: &str, client_id: &str) -> QuotaEntity {
        let part = |text: &str| match text {
            "" => QuotaPart::Absent,
            "*" => QuotaPart::Default,
            name => QuotaPart::Named(name.to_owned()),
        };
        QuotaEntity { user: part(user), client_id: part(client_id) }
    }

    #[test]
    fn the_most_special_quota_counts() {
        // From the most general to the most special: with each more the answer changes.
        let order = [("", "*"), ("", "c"), ("*", ""), ("*", "*"), ("*", "c"), ("u", ""), ("u", "*"), ("u", "c")];
        let scopes = [("", "c"), ("", "c"), ("u", ""), ("u", "c"), ("u", "c"), ("u", ""), ("u", "c"), ("u", "c")];
        let mut table = QuotaTable::default();
        assert_eq!(table.find(Quota::Produce, "u", "c"), None);
        for (rate, ((user, client_id), (by_user, by_client))) in (1..).zip(order.into_iter().zip(scopes)) {
            let quotas = BTreeMap::from([(Quota::Produce.name().to_owned(), rate)]);
            table.0.insert(entity(user, client_id), quotas);
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let scope = Scope { user: text(by_user), client_id: text(by_client) };
            assert_eq!(table.find(Quota::Produce, "u", "c"), Some((rate, scope)), "{user}/{client_id}");
            assert_eq!(table.find(Quota::Fetch, "u", "c"), None, "the quotas are looked for each by itself");
        }
        assert_eq!(table.find(Quota::Produce, "v", "d").unwrap().0, 4, "default user, default client id");
    }
}
