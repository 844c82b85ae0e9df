//! What the watched part of the metadata store says: who lives, who owns what, who is wished to. Listings and changes go
//! in, what they concern comes out.
//!
//! Invariants:
//! 1. A key never goes back to an older value: what is not newer than what is known of it is ignored. (One that was
//!    deleted while it was listed may show again until the watch has caught up.)
//! 2. What a new listing lacks, and did not come after it, is gone.
//! 3. Whatever a change makes different for a topic, a partition or a slot is named by [`View::take_touched`].
//! 4. A broker is suspected when [`OBSERVERS`] others that live say so of its life, as long as fewer than half of all are: it
//!    is nobody's home then. Where more are suspected it is the network between them that is ill, and nobody is.
//!
//! It decides nothing, and asks for nothing.

use bytes::Bytes;
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, ShardIndex, TopicPartition, Wid};
use millrace_storage::meta::records::{
    BrokerRecord, ControllerRecord, DrainRecord, PartitionRecord, Record, RecordError, SlotRecord, SuspectRecord,
    TopicRecord, TopicState, WalRecord, WalState, WishRecord,
};
use millrace_storage::meta::{Change, Key, Revision, Versioned, keys};
use std::collections::{BTreeMap, BTreeSet};

/// What is watched, each by a watch of its own.
pub const WATCHED: [&str; 13] = [
    keys::BROKERS,
    keys::CONTROLLER,
    keys::DRAINS,
    keys::SUSPECTS,
    keys::WALS,
    keys::PARTITIONS,
    keys::WISHES,
    keys::TOPICS,
    keys::SLOTS,
    keys::SLOT_WISHES,
    keys::GROUP_SETTINGS,
    keys::QUOTAS,
    keys::SETTINGS,
];

/// Observers that must say of a life that it does not answer, before that counts.
pub const OBSERVERS: usize = 2;

/// Of these, what holds settings.
const SETTINGS: [&str; 3] = [keys::GROUP_SETTINGS, keys::QUOTAS, keys::SETTINGS];

/// What is known of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Known<T> {
    value: T,
    bytes: Bytes,
    modified: Revision,
}

type Table<K, T> = BTreeMap<K, Known<T>>;

/// A write-ahead log that may still be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenLog {
    /// Whose.
    pub broker: String,
    /// Of which life.
    pub boot: BootId,
}

/// A shard of a broker that lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The broker.
    pub broker: String,
    /// The shard.
    pub shard: ShardIndex,
}

/// Who has a partition, by its record and by that of its log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Name of the broker, if the log's record is known.
    pub broker: Option<String>,
    /// The shard.
    pub shard: ShardIndex,
    /// At which epoch.
    pub epoch: LeaderEpoch,
    /// The life and the lane whose log that is, if the log's record is known.
    pub life: Option<(BootId, u16)>,
    /// Whether somebody may be leading it: its log is not sealed, and it is not released.
    pub is_held: bool,
    /// Where it was released.
    pub released: Option<Offset>,
    /// The Kafka node that leads it: its log is open, and that life's key stands.
    pub leader: Option<i32>,
}

/// What changed since it was last asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Touched {
    /// Topics, by name.
    pub topics: BTreeSet<String>,
    /// Partitions whose home, owner or leader may be another.
    pub partitions: BTreeSet<TopicPartition>,
    /// Coordinator slots, likewise.
    pub slots: BTreeSet<u16>,
    /// Keys of settings and quotas.
    pub settings: BTreeSet<Key>,
    /// Brokers, the controller, drains, suspicions or logs: what plans and seals depend on.
    pub members: bool,
    /// Who lives, which every partition and slot depends on.
    pub brokers: bool,
}

impl Touched {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Touched::default()
    }
}

/// See the module.
#[derive(Default)]
pub struct View {
    brokers: Table<String, BrokerRecord>,
    controller: Table<(), ControllerRecord>,
    /// The life that leaves; none: an operator wants the broker left.
    drains: Table<String, Option<BootId>>,
    suspects: Table<(String, String), SuspectRecord>,
    /// Invariant 4.
    suspected: BTreeSet<String>,
    wals: Table<Wid, WalRecord>,
    partitions: Table<TopicPartition, PartitionRecord>,
    wishes: Table<TopicPartition, WishRecord>,
    topics: Table<String, TopicRecord>,
    slots: Table<u16, SlotRecord>,
    slot_wishes: Table<u16, WishRecord>,
    /// Settings of groups and nodes, and quotas, by key; their parts of the core read them.
    settings: Table<Key, ()>,
    /// Partitions by the log that their records name.
    named: BTreeMap<Wid, BTreeSet<TopicPartition>>,
    touched: Touched,
    listings: BTreeMap<&'static str, Listing>,
    /// Whether each of them was whole once.
    is_complete: bool,
}

/// A listing under way, or done.
#[derive(Default)]
struct Listing {
    first: Option<Revision>,
    seen: BTreeSet<Key>,
    /// Whether it was whole once.
    is_complete: bool,
    /// How far changes are known.
    through: Revision,
}

impl View {
    // ---- what comes in ----

    /// A listing of this prefix begins.
    pub fn begin_listing(&mut self, prefix: &'static str) {
        let listing = self.listings.entry(prefix).or_default();
        (listing.first, listing.seen) = (None, BTreeSet::new());
    }

    /// A page of it came.
    ///
    /// # Errors
    /// A record can't be read; the others of the page were taken in.
    pub fn on_page(
        &mut self,
        prefix: &'static str,
        revision: Revision,
        entries: Vec<(Key, Versioned)>,
    ) -> Result<(), RecordError> {
        let listing = self.listings.entry(prefix).or_default();
        listing.first.get_or_insert(revision);
        listing.seen.extend(entries.iter().map(|(key, _)| key.clone()));
        let mut result = Ok(());
        for (key, found) in entries {
            result = self.set(&key, Some(found.value), found.modified).and(result);
        }
        result
    }

    /// The listing is whole: the revision after which its watch is to begin.
    pub fn end_listing(&mut self, prefix: &'static str) -> Revision {
        let listing = self.listings.get_mut(prefix).expect("a listing that has begun");
        let first = listing.first.expect("a listing has a page");
        listing.is_complete = true;
        listing.through = listing.through.max(first);
        let seen = std::mem::take(&mut listing.seen);
        let is_listed = |prefix: &&str| self.listings.get(prefix).is_some_and(|listing| listing.is_complete);
        self.is_complete = WATCHED.iter().all(is_listed);
        for (key, modified) in self.keys_of(prefix) {
            if !seen.contains(&key) && modified <= first {
                self.set(&key, None, first).expect("nothing is read of what is gone");
            }
        }
        first
    }

    /// Changes came, of one revision.
    ///
    /// # Errors
    /// A record can't be read; the others were taken in.
    pub fn on_changes(&mut self, prefix: &'static str, changes: Vec<Change>) -> Result<(), RecordError> {
        let mut result = Ok(());
        let listing = self.listings.entry(prefix).or_default();
        listing.through = changes.iter().map(|change| change.revision).fold(listing.through, Revision::max);
        for change in changes {
            result = self.set(&change.key, change.value, change.revision).and(result);
        }
        result
    }

    /// Whether every prefix was listed once.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn set(&mut self, key: &str, value: Option<Bytes>, revision: Revision) -> Result<(), RecordError> {
        if let Some(wid) = keys::parse_wal(key) {
            let before = self.wals.get(&wid).map(|known| (known.value.state, known.value.boot));
            put(&mut self.wals, wid, value, revision)?;
            // A checkpoint of a log that stays open concerns nobody else.
            if self.wals.get(&wid).map(|known| (known.value.state, known.value.boot)) != before {
                self.touched.members = true;
                self.touched.partitions.extend(self.named.get(&wid).into_iter().flatten());
            }
        } else if let Some(partition) = keys::parse_partition(key) {
            let before = self.partitions.get(&partition).map(|known| known.value.wid);
            put(&mut self.partitions, partition, value, revision)?;
            self.rename(partition, before);
            self.touched.partitions.insert(partition);
        } else if let Some(partition) = keys::parse_wish(key) {
            put(&mut self.wishes, partition, value, revision)?;
            self.touched.partitions.insert(partition);
        } else if let Some(name) = key.strip_prefix(keys::TOPICS) {
            put(&mut self.topics, name.to_owned(), value, revision)?;
            self.touched.topics.insert(name.to_owned());
        } else if let Some(slot) = keys::parse_slot(key) {
            put(&mut self.slots, slot, value, revision)?;
            self.touched.slots.insert(slot);
        } else if let Some(slot) = keys::parse_slot_wish(key) {
            put(&mut self.slot_wishes, slot, value, revision)?;
            self.touched.slots.insert(slot);
        } else if let Some(name) = keys::parse_broker(key) {
            put(&mut self.brokers, name, value, revision)?;
            (self.touched.members, self.touched.brokers) = (true, true);
            self.renew_suspected();
        } else if key == keys::CONTROLLER {
            put(&mut self.controller, (), value, revision)?;
            self.touched.members = true;
        } else if let Some(name) = keys::parse_drain(key) {
            put_with(&mut self.drains, name, value, revision, leaver)?;
            self.touched.members = true;
        } else if let Some(pair) = keys::parse_suspect(key) {
            put(&mut self.suspects, pair, value, revision)?;
            self.touched.members = true;
            self.renew_suspected();
        } else if SETTINGS.iter().any(|prefix| key.starts_with(prefix)) {
            put_with(&mut self.settings, key.to_owned(), value, revision, |_| Ok(()))?;
            self.touched.settings.insert(key.to_owned());
        }
        Ok(())
    }

    fn renew_suspected(&mut self) {
        let suspects = self.suspects.keys().map(|(name, _)| name).collect::<BTreeSet<_>>().into_iter();
        let lives = |name: &&String| self.brokers.get(*name).map(|known| known.value.boot);
        let suspected =
            suspects.filter(|name| lives(name).is_some_and(|boot| self.observers_against(name, boot) >= OBSERVERS));
        let mut suspected: BTreeSet<String> = suspected.cloned().collect();
        if 2 * suspected.len() >= self.brokers.len() {
            suspected.clear();
        }
        if suspected != self.suspected {
            self.suspected = suspected;
            self.touched.brokers = true;
        }
    }

    fn rename(&mut self, partition: TopicPartition, before: Option<Wid>) {
        let now = self.partitions.get(&partition).map(|known| known.value.wid);
        if now == before {
            return;
        }
        if let Some(wid) = before
            && let Some(named) = self.named.get_mut(&wid)
        {
            named.remove(&partition);
            if named.is_empty() {
                self.named.remove(&wid);
            }
        }
        if let Some(wid) = now {
            self.named.entry(wid).or_default().insert(partition);
        }
    }

    fn keys_of(&self, prefix: &'static str) -> Vec<(Key, Revision)> {
        fn all<K, T>(table: &Table<K, T>, key: impl Fn(&K) -> Key) -> Vec<(Key, Revision)> {
            table.iter().map(|(name, known)| (key(name), known.modified)).collect()
        }
        match prefix {
            keys::BROKERS => all(&self.brokers, |name| keys::broker(name)),
            keys::CONTROLLER => all(&self.controller, |()| keys::CONTROLLER.to_owned()),
            keys::DRAINS => all(&self.drains, |name| keys::drain(name)),
            keys::SUSPECTS => all(&self.suspects, |(name, observer)| keys::suspect(name, observer)),
            keys::WALS => all(&self.wals, |wid| keys::wal(*wid)),
            keys::PARTITIONS => all(&self.partitions, |partition| keys::partition(*partition)),
            keys::WISHES => all(&self.wishes, |partition| keys::wish(*partition)),
            keys::TOPICS => all(&self.topics, |name| keys::topic(name)),
            keys::SLOTS => all(&self.slots, |slot| keys::slot(*slot)),
            keys::SLOT_WISHES => all(&self.slot_wishes, |slot| keys::slot_wish(*slot)),
            keys::GROUP_SETTINGS | keys::QUOTAS | keys::SETTINGS => {
                let mut of_it = all(&self.settings, Key::clone);
                of_it.retain(|(key, _)| key.starts_with(prefix));
                of_it
            }
            other => unreachable!("{other} is not watched"),
        }
    }

    /// What changed since the last time this was asked.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::take(&mut self.touched)
    }

    // ---- what it says ----

    /// Who lives.
    pub fn brokers(&self) -> impl Iterator<Item = (&String, &BrokerRecord)> {
        self.brokers.iter().map(|(name, known)| (name, &known.value))
    }

    /// A broker that lives.
    pub fn broker(&self, name: &str) -> Option<&BrokerRecord> {
        self.brokers.get(name).map(|known| &known.value)
    }

    /// The controller, and its record's bytes.
    pub fn controller(&self) -> Option<(&ControllerRecord, &Bytes)> {
        self.controller.get(&()).map(|known| (&known.value, &known.bytes))
    }

    /// Whether an operator wants this broker left, or its life leaves.
    pub fn is_leaving(&self, name: &str) -> bool {
        let life = self.broker(name).map(|record| record.boot);
        self.drains.get(name).is_some_and(|known| known.value.is_none() || known.value == life)
    }

    /// Whether this broker's own life says that it leaves.
    pub fn leaves_by_itself(&self, name: &str) -> bool {
        self.drains.get(name).is_some_and(|known| known.value.is_some()) && self.is_leaving(name)
    }

    /// Whether enough others say that this broker does not answer (invariant 4).
    pub fn is_suspected(&self, name: &str) -> bool {
        self.suspected.contains(name)
    }

    /// Whom an observer says that it suspects, and of which life.
    pub fn said_by<'a>(&'a self, observer: &'a str) -> impl Iterator<Item = (&'a str, BootId)> + use<'a> {
        let of_it = self.suspects.iter().filter(move |((_, by), _)| by == observer);
        of_it.map(|((name, _), known)| (name.as_str(), known.value.boot))
    }

    /// Brokers that an operator wants left, living or not.
    pub fn drained(&self) -> impl Iterator<Item = &String> {
        self.drains.iter().filter(|(_, known)| known.value.is_none()).map(|(name, _)| name)
    }

    /// A topic's record.
    pub fn topic(&self, name: &str) -> Option<&TopicRecord> {
        self.topics.get(name).map(|known| &known.value)
    }

    /// All topics.
    pub fn topics(&self) -> impl Iterator<Item = (&String, &TopicRecord)> {
        self.topics.iter().map(|(name, known)| (name, &known.value))
    }

    /// Those that are neither being made nor deleted.
    pub fn live_topics(&self) -> impl Iterator<Item = (&String, &TopicRecord)> {
        self.topics().filter(|(_, record)| record.state == TopicState::Live)
    }

    /// Partitions that have a record.
    pub fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &PartitionRecord)> {
        self.partitions.iter().map(|(partition, known)| (*partition, &known.value))
    }

    /// How many those are.
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// The wish for a partition and the bytes of its record.
    pub fn wish(&self, partition: TopicPartition) -> Option<(&WishRecord, &Bytes)> {
        self.wishes.get(&partition).map(|known| (&known.value, &known.bytes))
    }

    /// Partitions that have a wish.
    pub fn wishes(&self) -> impl Iterator<Item = TopicPartition> {
        self.wishes.keys().copied()
    }

    /// The record under a key of settings or quotas, and how far its prefix is known.
    pub fn setting(&self, key: &str) -> (Option<&Bytes>, Revision) {
        let prefix = SETTINGS.into_iter().find(|prefix| key.starts_with(prefix));
        (self.settings.get(key).map(|known| &known.bytes), prefix.map_or(Revision(0), |prefix| self.through(prefix)))
    }

    /// A slot's record.
    pub fn slot(&self, slot: u16) -> Option<&SlotRecord> {
        self.slots.get(&slot).map(|known| &known.value)
    }

    /// The wish for a slot and the bytes of its record.
    pub fn slot_wish(&self, slot: u16) -> Option<(&WishRecord, &Bytes)> {
        self.slot_wishes.get(&slot).map(|known| (&known.value, &known.bytes))
    }

    /// Who has a partition; `None`: it has no record.
    pub fn owner(&self, partition: TopicPartition) -> Option<Owner> {
        let record = &self.partitions.get(&partition)?.value;
        let wal = self.wals.get(&record.wid).map(|known| &known.value);
        let sealed = wal.is_some_and(|wal| matches!(wal.state, WalState::Sealed { .. }));
        let open = wal.filter(|wal| wal.state == WalState::Open && record.released.is_none());
        Some(Owner {
            broker: wal.map(|wal| wal.broker.clone()),
            shard: record.shard,
            epoch: record.epoch,
            life: wal.map(|wal| (wal.boot, wal.lane)),
            is_held: !sealed && record.released.is_none(),
            released: record.released.map(|released| released.end),
            leader: open.and_then(|wal| self.node(&wal.broker, Some(wal.boot), record.shard)),
        })
    }

    /// The broker and the shard that have a partition, if its record and that of its log are known.
    pub fn seat(&self, partition: TopicPartition) -> Option<(&str, ShardIndex)> {
        let record = &self.partitions.get(&partition)?.value;
        let wal = self.wals.get(&record.wid)?;
        Some((&wal.value.broker, record.shard))
    }

    /// Where a partition shall be: its wish, or else its owner, if that lives.
    pub fn home(&self, partition: TopicPartition) -> Option<Place> {
        let wish = self.wish(partition).and_then(|(wish, _)| self.living(&wish.broker, wish.shard));
        wish.or_else(|| {
            let owner = self.owner(partition)?;
            self.living(owner.broker.as_deref()?, owner.shard)
        })
    }

    /// Where a slot's coordinator shall be, likewise.
    pub fn slot_home(&self, slot: u16) -> Option<Place> {
        let wish = self.slot_wish(slot).and_then(|(wish, _)| self.living(&wish.broker, wish.shard));
        wish.or_else(|| {
            let record = self.slot(slot)?;
            self.living(&record.broker, record.shard)
        })
    }

    /// The Kafka node that coordinates a slot: its record's, if that life's key stands.
    pub fn coordinator(&self, slot: u16) -> Option<i32> {
        let record = self.slot(slot)?;
        self.node(&record.broker, Some(record.boot), record.shard)
    }

    /// Nobody's home is where nobody answers.
    fn living(&self, broker: &str, shard: ShardIndex) -> Option<Place> {
        let record = self.broker(broker).filter(|_| !self.is_suspected(broker))?;
        (usize::from(shard.0) < record.shards.len()).then(|| Place { broker: broker.to_owned(), shard })
    }

    /// The node of a shard of a broker that lives; `boot`: of this life only.
    pub fn node(&self, broker: &str, boot: Option<BootId>, shard: ShardIndex) -> Option<i32> {
        let record = self.broker(broker).filter(|record| boot.is_none_or(|boot| record.boot == boot))?;
        let told = if record.shared_port { 0 } else { usize::from(shard.0) };
        let exists = usize::from(shard.0) < record.shards.len();
        record.shards.get(told).filter(|_| exists).map(|shard| shard.node)
    }

    /// Write-ahead logs.
    pub fn logs(&self) -> impl Iterator<Item = (Wid, &WalRecord)> {
        self.wals.iter().map(|(wid, known)| (*wid, &known.value))
    }

    /// How many partitions' records name a log.
    pub fn partitions_of(&self, wid: Wid) -> usize {
        self.named.get(&wid).map_or(0, BTreeSet::len)
    }

    /// Partitions whose records name a log of this broker that is not sealed, released ones too; `boot`: of this life only.
    pub fn named_by<'a>(
        &'a self,
        broker: &'a str,
        boot: Option<BootId>,
    ) -> impl Iterator<Item = TopicPartition> + use<'a> {
        let logs = self.named.iter().filter(move |(wid, _)| self.is_unsealed_log_of(**wid, broker, boot));
        logs.flat_map(|(_, partitions)| partitions.iter().copied())
    }

    /// Whether a partition is one of those.
    pub fn is_named_by(&self, partition: TopicPartition, broker: &str, boot: Option<BootId>) -> bool {
        self.partitions.get(&partition).is_some_and(|known| self.is_unsealed_log_of(known.value.wid, broker, boot))
    }

    fn is_unsealed_log_of(&self, wid: Wid, broker: &str, boot: Option<BootId>) -> bool {
        self.wals.get(&wid).is_some_and(|known| {
            let WalRecord { broker: of, boot: life, state, .. } = &known.value;
            of == broker && boot.is_none_or(|boot| boot == *life) && !matches!(state, WalState::Sealed { .. })
        })
    }

    /// Slots whose records name this broker, those that it has let go too; `boot`: this life only.
    pub fn slots_of<'a>(&'a self, broker: &'a str, boot: Option<BootId>) -> impl Iterator<Item = u16> + use<'a> {
        let is_its = move |record: &SlotRecord| record.broker == broker && boot.is_none_or(|boot| boot == record.boot);
        self.slots.iter().filter(move |(_, known)| is_its(&known.value)).map(|(slot, _)| *slot)
    }

    /// How far the changes of a prefix are known.
    pub fn through(&self, prefix: &'static str) -> Revision {
        self.listings.get(prefix).map_or(Revision(0), |listing| listing.through)
    }

    /// How many living observers say of this life that it does not answer them.
    pub fn observers_against(&self, broker: &str, boot: BootId) -> usize {
        let against = self.suspects.iter().filter(|((name, observer), known)| {
            name == broker && observer != name && known.value.boot == boot && self.brokers.contains_key(observer)
        });
        against.count()
    }

    /// Logs that are not sealed and whose owner is dead: its key is gone, or belongs to another life, or (before that) it is
    /// suspected and the log has something that others are to take.
    pub fn dead_logs(&self) -> impl Iterator<Item = (Wid, OpenLog)> {
        self.wals.iter().filter_map(move |(wid, known)| {
            let WalRecord { broker, boot, state, .. } = &known.value;
            let lives = self.broker(broker).is_some_and(|record| record.boot == *boot);
            let dead = !lives || (self.is_suspected(broker) && self.named.contains_key(wid));
            let sealed = matches!(state, WalState::Sealed { .. });
            (dead && !sealed).then(|| (*wid, OpenLog { broker: broker.clone(), boot: *boot }))
        })
    }
}

/// Whom the value of a `/drain/` key means.
fn leaver(value: &[u8]) -> Result<Option<BootId>, RecordError> {
    if value.is_empty() {
        return Ok(None);
    }
    DrainRecord::decode(value).map(|record| Some(record.boot))
}

fn put<K: Ord, T: Record>(
    table: &mut Table<K, T>,
    key: K,
    value: Option<Bytes>,
    revision: Revision,
) -> Result<(), RecordError> {
    put_with(table, key, value, revision, |bytes| T::decode(bytes))
}

fn put_with<K: Ord, T>(
    table: &mut Table<K, T>,
    key: K,
    value: Option<Bytes>,
    modified: Revision,
    decode: impl Fn(&[u8]) -> Result<T, RecordError>,
) -> Result<(), RecordError> {
    if table.get(&key).is_some_and(|known| known.modified > modified) {
        return Ok(());
    }
    match value {
        Some(bytes) => {
            let known = Known { value: decode(&bytes)?, bytes, modified };
            table.insert(key, known);
        }
        None => _ = table.remove(&key),
    }
    Ok(())
}
