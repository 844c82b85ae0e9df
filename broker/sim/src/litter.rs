//! What must go in the end because nobody needs it: objects that no manifest names, and records of topics that are gone.
//!
//! While a backlog is rolled and merged, there is always something that was replaced a moment ago: what counts is that no
//! single piece stays.

use millrace_storage::ids::TopicId;
use millrace_storage::meta::keys;
use millrace_storage::meta::records::{Record, TopicRecord};
use millrace_storage::sim::{Sim, SimMeta};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Between two looks: each reads everything that is stored.
const LOOK: Duration = Duration::from_secs(1);

/// What was left, and since when.
#[derive(Default)]
struct Litter(BTreeMap<String, u64>);

impl Litter {
    /// Takes a look in.
    fn saw(&mut self, now: u64, left: Vec<String>) {
        let mut before = std::mem::take(&mut self.0);
        self.0 = left.into_iter().map(|name| before.remove_entry(&name).unwrap_or((name, now))).collect();
    }

    /// What stays longer than `patience`.
    fn older(&self, now: u64, patience: Duration) -> Vec<&str> {
        let old = self.0.iter().filter(|(_, since)| u128::from(now - **since) > patience.as_nanos());
        old.map(|(name, _)| name.as_str()).collect()
    }
}

/// Waits until nothing is `left`; a piece that stays for longer than `patience` is a finding.
pub async fn gone(sim: &Sim, patience: Duration, left: impl Fn() -> Vec<String>) {
    let mut litter = Litter::default();
    loop {
        litter.saw(sim.now(), left());
        if litter.0.is_empty() {
            return;
        }
        let stay = litter.older(sim.now(), patience);
        assert!(stay.is_empty(), "FINDING litter: {stay:?} stay {patience:?} after all was healed");
        sim.sleep(LOOK).await;
    }
}

/// Records of partitions, and wishes for them, whose topic is gone.
pub fn records_of_no_topic(meta: &SimMeta) -> Vec<String> {
    let topics = meta.contents(keys::TOPICS).into_iter();
    let topics: BTreeSet<TopicId> =
        topics.map(|(_, value)| TopicRecord::decode(&value).expect("our own record").id).collect();
    let of = |key: &str| keys::parse_partition(key).or_else(|| keys::parse_wish(key)).expect("our own key").topic;
    let all = meta.contents(keys::PARTITIONS).into_iter().chain(meta.contents(keys::WISHES));
    all.map(|(key, _)| key).filter(|key| !topics.contains(&of(key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_again_and_again_is_no_litter_and_what_stays_among_it_is() {
        let (mut litter, patience) = (Litter::default(), Duration::from_nanos(3));
        for now in 0..10 {
            litter.saw(now, vec![format!("replaced at {now}")]);
            assert_eq!(litter.older(now, patience), Vec::<&str>::new());
        }
        for now in 10..14 {
            litter.saw(now, vec![format!("replaced at {now}"), "stays".to_owned()]);
            assert_eq!(litter.older(now, patience), Vec::<&str>::new());
        }
        litter.saw(14, vec!["stays".to_owned()]);
        assert_eq!(litter.older(14, patience), ["stays"]);
        litter.saw(15, Vec::new());
        assert!(litter.0.is_empty(), "it went");
    }
}
