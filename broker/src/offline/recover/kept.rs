//! What the log does not hold, and where a recovery has it from: the newest snapshot of the journal, or the metadata store
//! itself, if that is the cluster's own and not older than the journal.

use crate::control::topic_object::TopicObject;
use crate::journal::PREFIXES;
use crate::journal::reader::{self, Newest};
use bytes::Bytes;
use millrace_storage::env::{Env, WallMs};
use millrace_storage::format::snapshot::{SnapshotHead, SnapshotWriter, generation_base, snapshot_key};
use millrace_storage::ids::TopicId;
use millrace_storage::meta::pages::Pages;
use millrace_storage::meta::{Key, MetaStore, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::recovery::put_object;
use millrace_storage::store_error::StoreError;
use std::collections::{BTreeMap, BTreeSet};

/// Node ids that are passed over where they come from a snapshot: brokers may have been given some since.
const PASSED_OVER: i32 = 1_000;
/// Who writes what a recovery found in the metadata store.
const WRITER: &str = "recover";

/// Where it is from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// There is no snapshot: it is lost.
    Nothing,
    /// A snapshot.
    Journal(SnapshotHead),
    /// The metadata store, as of this moment.
    Metadata(WallMs),
}

/// It, in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptCounts {
    /// Where it is from.
    pub source: Source,
    /// Groups with a state.
    pub groups: usize,
    /// Committed offsets.
    pub offsets: usize,
    /// Those of partitions that are no longer there.
    pub dropped: usize,
    /// Settings of groups and brokers, and quotas.
    pub settings: usize,
    /// Snapshots that can't be read, and why.
    pub damaged: Vec<(String, String)>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    source: Source,
    entries: BTreeMap<Key, Bytes>,
    damaged: Vec<(String, String)>,
}

impl Kept {
    /// Reads it. `own`: a metadata store that is the cluster's, of the generation whose numbers begin after `base`.
    pub(super) async fn read(
        env: &Env,
        objects: &dyn ObjectStore,
        own: Option<&dyn MetaStore>,
        base: u64,
    ) -> Result<Kept, StoreError> {
        if let Some(own) = own {
            let newest = reader::find(objects).await?.newest().unwrap_or(0);
            if reader::last_given_out(own, base).await?.0 >= newest {
                let source = Source::Metadata(env.wall());
                return Ok(Kept { source, entries: all(own).await?, damaged: Vec::new() });
            }
        }
        let Newest { snapshot, damaged } = reader::newest(objects).await?;
        Ok(match snapshot {
            Some(snapshot) => {
                let entries = snapshot.entries.into_iter().collect();
                Kept { source: Source::Journal(snapshot.head), entries, damaged }
            }
            None => Kept { source: Source::Nothing, entries: BTreeMap::new(), damaged },
        })
    }

    /// Puts it into the journal as the first of `generation`, so that it is there whatever becomes of where it was; gives
    /// the number. As old as it is: a recovery makes nothing newer.
    pub(super) async fn store(&self, env: &Env, objects: &dyn ObjectStore, generation: u64) -> Result<u64, StoreError> {
        let number = generation_base(generation) + 1;
        let head = match &self.source {
            Source::Nothing => return Ok(number),
            Source::Journal(head) => SnapshotHead { number, ..head.clone() },
            Source::Metadata(at) => SnapshotHead { number, taken_at: *at, writer: WRITER.to_owned(), stopping: true },
        };
        let mut writer = SnapshotWriter::new(&head);
        self.entries.iter().for_each(|(key, value)| writer.push(key, value));
        put_object(env, objects, snapshot_key(number), vec![writer.finish()]).await?;
        Ok(number)
    }

    /// First producer id not given out when it was copied.
    pub(super) fn producer_ids(&self) -> i64 {
        self.entries.get(keys::PRODUCER_IDS).and_then(decimal).unwrap_or(0)
    }

    /// The records of the new store, those aside that the bucket knows better.
    pub(super) fn records(&self, topics: &BTreeMap<String, TopicObject>) -> BTreeMap<Key, Bytes> {
        let lives = lives(topics);
        let of_bucket = [keys::CLUSTER, keys::PRODUCER_IDS, keys::NEXT_NODE];
        let mut records: BTreeMap<Key, Bytes> = self
            .entries
            .iter()
            .filter(|(key, _)| !of_bucket.contains(&key.as_str()) && !is_orphan(key, &lives))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if let Some(next) = self.next_node() {
            records.insert(keys::NEXT_NODE.to_owned(), next.to_string().into());
        }
        records
    }

    /// First node id that is surely not given out.
    fn next_node(&self) -> Option<i32> {
        let nodes = self.entries.iter().filter(|(key, _)| key.starts_with(keys::NODES));
        let taken = nodes.filter_map(|(_, value)| decimal::<i32>(value)).map(|node| node.saturating_add(1));
        let next = self.entries.get(keys::NEXT_NODE).and_then(decimal).into_iter().chain(taken).max()?;
        Some(match self.source {
            Source::Metadata(_) => next,
            Source::Journal(_) | Source::Nothing => next.saturating_add(PASSED_OVER),
        })
    }

    /// In numbers.
    pub(super) fn counts(&self, topics: &BTreeMap<String, TopicObject>) -> KeptCounts {
        let lives = lives(topics);
        let of = |prefixes: &[&str]| {
            let keys = self.entries.keys();
            keys.filter(|key| prefixes.iter().any(|prefix| key.starts_with(prefix))).count()
        };
        let dropped = self.entries.keys().filter(|key| is_orphan(key, &lives)).count();
        KeptCounts {
            source: self.source.clone(),
            groups: of(&[keys::GROUPS]),
            offsets: of(&[keys::OFFSETS]) - dropped,
            dropped,
            settings: of(&[keys::GROUP_SETTINGS, keys::QUOTAS, keys::SETTINGS]),
            damaged: self.damaged.clone(),
        }
    }
}

/// Partitions of the topics there are.
fn lives(topics: &BTreeMap<String, TopicObject>) -> BTreeSet<(TopicId, u32)> {
    topics.values().map(|topic| (topic.id, topic.partitions)).collect()
}

/// Whether it is the offset of a partition that is not there.
fn is_orphan(key: &str, lives: &BTreeSet<(TopicId, u32)>) -> bool {
    let lives = |topic: TopicId, index: u32| {
        lives.range((topic, 0)..).next().is_some_and(|(found, partitions)| *found == topic && index < *partitions)
    };
    key.starts_with(keys::OFFSETS)
        && keys::parse_offset(key).is_none_or(|(_, partition)| !lives(partition.topic, partition.index))
}

fn decimal<T: std::str::FromStr>(value: &Bytes) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

async fn all(meta: &dyn MetaStore) -> Result<BTreeMap<Key, Bytes>, StoreError> {
    let mut entries = BTreeMap::new();
    for prefix in PREFIXES {
        let mut pages = Pages::of(meta, prefix);
        while let Some(page) = pages.next_page().await? {
            entries.extend(page.entries.into_iter().map(|(key, found)| (key, found.value)));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_storage::ids::TopicPartition;

    fn topic(id: u128, partitions: u32) -> TopicObject {
        let id = TopicId(uuid::Uuid::from_u128(id));
        TopicObject { v: 1, name: format!("t{partitions}"), id, partitions, settings: BTreeMap::new(), deleted: false }
    }

    fn kept(source: Source) -> Kept {
        let partition = |id, index| TopicPartition { topic: TopicId(uuid::Uuid::from_u128(id)), index };
        let text = Bytes::from_static;
        let entries = [
            (keys::offset(3, "g", partition(7, 1)), text(b"kept")),
            (keys::offset(3, "g", partition(7, 2)), text(b"beyond its partitions")),
            (keys::offset(3, "g", partition(8, 0)), text(b"of another topic")),
            (keys::group(3, "g"), text(b"group")),
            (keys::PRODUCER_IDS.to_owned(), text(b"5000")),
            (keys::NEXT_NODE.to_owned(), text(b"4")),
            (format!("{}b/0", keys::NODES), text(b"6")),
            ("/cluster".to_owned(), text(b"of the journal")),
        ];
        Kept { source, entries: entries.into(), damaged: Vec::new() }
    }

    #[test]
    fn offsets_of_what_is_gone_stay_behind_and_ids_are_passed_over() {
        let topics = BTreeMap::from([("t".to_owned(), topic(7, 2))]);
        let kept = kept(Source::Nothing);
        let records = kept.records(&topics);
        let values: Vec<&[u8]> = records.values().map(|value| &value[..]).collect();
        assert_eq!(values, [&b"group"[..], b"1007", b"6", b"kept"], "{records:?}");
        assert_eq!(kept.producer_ids(), 5_000);
        let counts = kept.counts(&topics);
        assert_eq!((counts.groups, counts.offsets, counts.dropped, counts.settings), (1, 1, 2, 0));
    }

    #[test]
    fn what_the_metadata_store_says_itself_needs_no_room() {
        assert_eq!(kept(Source::Metadata(WallMs(0))).next_node(), Some(7));
    }
}
