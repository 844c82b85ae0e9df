//! What the partitions of this process cost: bytes in and out a second, smoothed, told to the controller by one small key.
//!
//! Invariants:
//! 1. The key holds the [`TOLD`] heaviest partitions at most, none below [`LEAST`], and is written every [`TELL_EVERY`] at
//!    most, and only if it says something else: a number is kept to about a tenth.
//! 2. What a shard does not name cost it nothing meanwhile; what has come to cost nothing is forgotten.

use super::super::effects::{Owner, Sink};
use bytes::Bytes;
use millrace_storage::env::Mono;
use millrace_storage::ids::{ShardIndex, TopicPartition};
use millrace_storage::meta::records::{LoadRecord, PartitionLoad, RECORD_VERSION, Record};
use millrace_storage::meta::{LeaseId, Op, Txn, keys};
use std::collections::BTreeMap;
use std::time::Duration;

/// Partitions in the key at most.
const TOLD: usize = 256;
/// Bytes a second that are worth a word.
const LEAST: u64 = 16 << 10;
/// Between two writes at least.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// A change shows in so long, mostly.
const SMOOTHED_OVER: Duration = Duration::from_secs(120);

struct Load {
    shard: ShardIndex,
    rate: u64,
}

/// See the module.
pub(in crate::control) struct Loads {
    name: String,
    rates: BTreeMap<TopicPartition, Load>,
    /// When each shard told last.
    heard: BTreeMap<ShardIndex, Mono>,
    written: Option<(LeaseId, Bytes)>,
    writing: Option<(LeaseId, Bytes)>,
}

impl Loads {
    /// Tells once there is something to tell.
    pub(in crate::control) fn new(name: String, sink: &mut Sink) -> Loads {
        sink.wake_after(Owner::Loads, TELL_EVERY);
        let heard = BTreeMap::new();
        Loads { name, rates: BTreeMap::new(), heard, written: None, writing: None }
    }

    /// A shard tells how many bytes went in and out of its partitions since it told last.
    pub(in crate::control) fn on_loads(&mut self, shard: ShardIndex, bytes: &[(TopicPartition, u64)], now: Mono) {
        let Some(before) = self.heard.insert(shard, now) else { return };
        let passed = now.since(before).as_millis();
        if passed == 0 {
            return;
        }
        let mut told: BTreeMap<TopicPartition, u64> = bytes.iter().copied().collect();
        let rate = |bytes: u64| u64::try_from(u128::from(bytes) * 1_000 / passed).unwrap_or(u64::MAX);
        let whole = SMOOTHED_OVER.as_millis() + passed;
        for (partition, load) in self.rates.iter_mut().filter(|(_, load)| load.shard == shard) {
            let latest = u128::from(rate(told.remove(partition).unwrap_or(0)));
            let smoothed = (u128::from(load.rate) * SMOOTHED_OVER.as_millis() + latest * passed) / whole;
            load.rate = u64::try_from(smoothed).expect("between two numbers of 64 bits");
        }
        // A partition that begins here, or came from another shard.
        self.rates.extend(told.into_iter().map(|(partition, bytes)| (partition, Load { shard, rate: rate(bytes) })));
        self.rates.retain(|_, load| load.rate >= LEAST / 2);
    }

    /// Time to tell; `lease`: what this process is registered under.
    pub(in crate::control) fn on_look(&mut self, lease: Option<LeaseId>, sink: &mut Sink) {
        sink.wake_after(Owner::Loads, TELL_EVERY);
        let Some(lease) = lease.filter(|_| self.writing.is_none()) else { return };
        let mut heaviest: Vec<(u64, TopicPartition)> =
            self.rates.iter().map(|(partition, load)| (coarse(load.rate), *partition)).collect();
        heaviest.retain(|(rate, _)| *rate >= LEAST);
        heaviest.sort_unstable_by_key(|(rate, partition)| (std::cmp::Reverse(*rate), *partition));
        heaviest.truncate(TOLD);
        // In the order of names, so that what swaps places says nothing new.
        heaviest.sort_unstable_by_key(|(_, partition)| *partition);
        let load = |(rate, TopicPartition { topic, index })| PartitionLoad { topic, index, rate };
        let partitions: Vec<PartitionLoad> = heaviest.into_iter().map(load).collect();
        if partitions.is_empty() && self.written.is_none() {
            return;
        }
        let value = LoadRecord { v: RECORD_VERSION, partitions }.encode();
        if self.written.as_ref() == Some(&(lease, value.clone())) {
            return;
        }
        self.writing = Some((lease, value.clone()));
        let ops = vec![Op::PutLeased(keys::load(&self.name), value, lease)];
        sink.txn(Owner::Loads, Txn { compares: Vec::new(), ops });
    }

    /// It was written, or perhaps not.
    pub(in crate::control) fn on_written(&mut self, done: bool) {
        let written = self.writing.take();
        self.written = written.filter(|_| done);
    }
}

/// A number to an eighth of its size.
fn coarse(number: u64) -> u64 {
    let bits = u64::BITS - number.leading_zeros();
    let dropped = bits.saturating_sub(4);
    number >> dropped << dropped
}

#[cfg(test)]
mod tests {
    use super::super::super::effects::{Effect, StoreCall};
    use super::*;
    use millrace_storage::ids::TopicId;

    const MIB: u64 = 1 << 20;
    const SECOND: Duration = Duration::from_secs(1);

    struct Desk {
        sink: Sink,
        loads: Loads,
    }

    impl Desk {
        fn new() -> Desk {
            let mut sink = Sink::default();
            let loads = Loads::new("a".to_owned(), &mut sink);
            let mut desk = Desk { sink, loads };
            desk.hear(0, &[]);
            desk
        }

        /// Ten seconds in which so many bytes a second went through these partitions of a shard.
        fn hear(&mut self, shard: u16, rates: &[(u32, u64)]) {
            self.sink.now = self.sink.now.plus(10 * SECOND);
            let bytes: Vec<_> = rates.iter().map(|(index, rate)| (partition(*index), rate * 10)).collect();
            self.loads.on_loads(ShardIndex(shard), &bytes, self.sink.now);
        }

        fn tells(&mut self) -> Option<Vec<(u32, u64)>> {
            self.loads.on_look(Some(LeaseId(1)), &mut self.sink);
            let (id, txn) = match self.sink.drain(Vec::new()).pop()? {
                Effect::Call(id, StoreCall::Txn(txn)) => (id, txn),
                other => panic!("{other:?}"),
            };
            assert_eq!(self.sink.ended(id), Owner::Loads);
            self.loads.on_written(true);
            let [Op::PutLeased(key, value, LeaseId(1))] = &txn.ops[..] else { panic!("{:?}", txn.ops) };
            assert_eq!(*key, keys::load("a"));
            let record = LoadRecord::decode(value).expect("a record of ours");
            Some(record.partitions.iter().map(|load| (load.index, load.rate)).collect())
        }
    }

    fn partition(index: u32) -> TopicPartition {
        TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), index }
    }

    #[test]
    fn what_costs_something_is_told_once_and_again_only_when_it_changes() {
        let mut desk = Desk::new();
        assert_eq!(desk.tells(), None, "nothing costs anything");
        desk.hear(0, &[(1, MIB), (2, 2 * MIB), (3, 100)]);
        assert_eq!(desk.tells(), Some(vec![(1, MIB), (2, 2 * MIB)]));
        desk.hear(0, &[(1, MIB + MIB / 20), (2, 2 * MIB)]);
        assert_eq!(desk.tells(), None, "hardly another number");
        for _ in 0..60 {
            desk.hear(0, &[(1, 5 * MIB)]);
        }
        let told = desk.tells().expect("it changed");
        assert!(told[0].0 == 1 && (4 * MIB..=5 * MIB).contains(&told[0].1), "{told:?}");
        assert!(told.get(1).is_none_or(|(_, rate)| *rate < MIB / 8), "{told:?}");
        for _ in 0..200 {
            desk.hear(0, &[]);
        }
        assert_eq!(desk.tells(), Some(vec![]));
        assert_eq!(desk.tells(), None);
    }

    #[test]
    fn only_the_heaviest_are_told() {
        let mut desk = Desk::new();
        let rates: Vec<(u32, u64)> = (0..1_000).map(|index| (index, MIB * u64::from(index + 1))).collect();
        desk.hear(0, &rates);
        let told = desk.tells().expect("there is something");
        assert_eq!(told.len(), TOLD);
        assert!(told.iter().all(|(index, _)| *index >= 700), "{told:?}");
    }

    #[test]
    fn what_another_lease_was_told_is_told_again() {
        let mut desk = Desk::new();
        desk.hear(0, &[(1, MIB)]);
        assert!(desk.tells().is_some());
        desk.loads.on_look(Some(LeaseId(2)), &mut desk.sink);
        assert_eq!(desk.sink.drain(Vec::new()).len(), 1);
    }
}
