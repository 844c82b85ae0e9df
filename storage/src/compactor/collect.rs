//! Collection of segments that no manifest names (PROTOCOL.md I9): looks at the store, lets [`Remains`] decide, deletes.
//!
//! Several collectors do no harm: each deletes only what no commit can name any more.
//!
//! 1. Of a partition the segments are listed first, then its manifest is read.
//! 2. A topic is gone only by its tombstone, which nothing takes back; a record that is missing proves nothing.
//! 3. Log starts come from checkpoints: what was committed once stays so.
//! 4. At most [`DELETED_AT_ONCE`] segments go in a pass.

use super::expire::expire;
use super::manifest;
use crate::compaction::gc::{Listed, Look, Remains, Seen};
use crate::env::Env;
use crate::format::manifest::SegmentName;
use crate::ids::{Offset, TopicId, TopicPartition};
use crate::object::ObjectStore;
use crate::recovery::{Stores, committed_log_starts};
use crate::segment::data_key;
use crate::store_error::StoreError;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// Segments deleted in one pass.
const DELETED_AT_ONCE: usize = 1_000;
/// Where segments lie.
const SEGMENTS: &str = "seg/";
/// Where manifests lie.
const MANIFESTS: &str = "man/";

/// The objects of one segment's name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// Their keys.
    pub keys: Vec<String>,
    /// The file alone.
    pub file: Listed,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When the newest was written, Unix milliseconds by the store's clock.
    pub modified_ms: i64,
}

/// The segments of one topic, by partition and name.
pub type Listing = BTreeMap<TopicPartition, BTreeMap<SegmentName, Stored>>;

/// What one pass did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CollectedSegments {
    /// Segments that manifests let go of because they lie below log starts.
    pub expired: usize,
    /// Segments deleted.
    pub deleted: usize,
    /// Segments that no manifest names and that are still there.
    pub waiting: usize,
    /// For how long the oldest of those has been known.
    pub oldest: Duration,
}

/// Topics that have a segment or a manifest.
///
/// # Errors
/// The store's.
pub async fn topics(objects: &dyn ObjectStore) -> Result<BTreeSet<TopicId>, StoreError> {
    let mut names = objects.list_directories(SEGMENTS).await?;
    names.extend(objects.list_directories(MANIFESTS).await?);
    Ok(names.iter().filter_map(|name| Uuid::parse_str(name).ok()).map(TopicId).collect())
}

/// All segments of a topic. What lies there under other names is not ours to judge.
///
/// # Errors
/// The store's.
pub async fn list(objects: &dyn ObjectStore, topic: TopicId) -> Result<Listing, StoreError> {
    let mut listing = Listing::new();
    for object in objects.list(&format!("{SEGMENTS}{topic}/")).await? {
        let Some((partition, name, base)) = parse(topic, &object.key) else { continue };
        let stored = listing.entry(partition).or_default().entry(name).or_default();
        stored.file.base = base;
        if object.key == data_key(partition, name, base) {
            stored.file.bytes = object.size;
        }
        stored.keys.push(object.key);
        stored.bytes += object.size;
        stored.modified_ms = stored.modified_ms.max(object.modified_ms);
    }
    Ok(listing)
}

/// Reads `seg/{topic}/{partition}/{wid}-{n}/segment-{base}.{what}`.
fn parse(topic: TopicId, key: &str) -> Option<(TopicPartition, SegmentName, Offset)> {
    let mut parts = key.strip_prefix(SEGMENTS)?.split('/').skip(1);
    let index = parts.next()?.parse().ok()?;
    let (wid, number) = parts.next()?.rsplit_once('-')?;
    let name = SegmentName { wid: wid.parse().ok()?, number: number.parse().ok()? };
    let (base, _) = parts.next()?.strip_prefix("segment-")?.split_once('.')?;
    let base = base.parse().ok().filter(|base| *base >= 0)?;
    parts.next().is_none().then_some((TopicPartition { topic, index }, name, Offset(base)))
}

/// Collects now and then.
#[derive(Debug)]
pub struct SegmentCollector {
    remains: Remains,
}

impl SegmentCollector {
    /// Readers get `grace` after a manifest stopped naming what they read.
    pub fn new(grace: Duration) -> SegmentCollector {
        SegmentCollector { remains: Remains::new(grace) }
    }

    /// One pass over the topics of [`topics`]; `gone`: those of them that have a tombstone.
    ///
    /// # Errors
    /// The store's. What was done stays done, a later pass goes on.
    pub async fn pass(
        &mut self,
        env: &Env,
        stores: &Stores,
        topics: &BTreeSet<TopicId>,
        gone: &BTreeSet<TopicId>,
    ) -> Result<CollectedSegments, StoreError> {
        let objects = &*stores.objects;
        let mut done = CollectedSegments::default();
        let starts = committed_log_starts(stores).await?;
        let mut stored = BTreeMap::new();
        for &topic in topics {
            let listing = list(objects, topic).await?;
            if gone.contains(&topic) && listing.is_empty() {
                let manifests = objects.list(&format!("{MANIFESTS}{topic}/")).await?;
                objects.delete(manifests.into_iter().map(|object| object.key).collect()).await?;
            }
            for (partition, listed) in listing {
                let log_start = starts.get(&partition).copied().filter(|_| !gone.contains(&topic));
                if let Some(log_start) = log_start {
                    done.expired += expire(env, objects, partition, log_start).await?.len();
                }
                self.look(env, objects, partition, &listed, gone.contains(&topic)).await?;
                stored.extend(listed.into_iter().map(|(name, stored)| ((partition, name), stored.keys)));
            }
        }
        for (partition, name) in self.remains.due(env.now(), DELETED_AT_ONCE) {
            if let Some(keys) = stored.remove(&(partition, name)) {
                objects.delete(keys).await?;
                done.deleted += 1;
            }
            self.remains.deleted(partition, name);
        }
        (done.waiting, done.oldest) = self.remains.waiting(env.now());
        Ok(done)
    }

    async fn look(
        &mut self,
        env: &Env,
        objects: &dyn ObjectStore,
        partition: TopicPartition,
        listed: &BTreeMap<SegmentName, Stored>,
        gone: bool,
    ) -> Result<(), StoreError> {
        let manifest = if gone {
            Seen::TopicGone
        } else {
            let standing = manifest::read(objects, partition).await?;
            standing.version.map_or(Seen::Absent, |version| Seen::named(version.0, &standing.manifest))
        };
        let listed = listed.iter().map(|(name, stored)| (*name, stored.file)).collect();
        self.remains.saw(env.now(), Look { partition, listed, manifest });
        Ok(())
    }
}

/// What nothing names, and why it is still there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orphan {
    /// Of which partition.
    pub partition: TopicPartition,
    /// Its objects.
    pub stored: Stored,
    /// In words.
    pub because: &'static str,
}

/// What a collector would look at, for people: nothing is changed. `log_starts`: where logs are known to start.
///
/// # Errors
/// The store's.
pub async fn orphans(
    objects: &dyn ObjectStore,
    gone: &BTreeSet<TopicId>,
    log_starts: &BTreeMap<TopicPartition, Offset>,
) -> Result<Vec<Orphan>, StoreError> {
    let mut found = Vec::new();
    for topic in topics(objects).await? {
        for (partition, listed) in list(objects, topic).await? {
            let manifest = manifest::read(objects, partition).await?.manifest;
            let segments = || manifest.segments.iter().map(|named| named.segment);
            let start = log_starts.get(&partition).copied().unwrap_or(Offset(0));
            for (name, stored) in listed {
                let named = manifest.segments.iter().find(|named| named.name == name);
                let because = match named {
                    _ if gone.contains(&topic) => "its topic is deleted",
                    Some(named) if named.segment.last < start => "it lies below the log start",
                    Some(_) => continue,
                    None if stored.file.is_out_of_reach(segments(), manifest.covered) => {
                        "it was replaced, or has expired"
                    }
                    None => "no manifest names it: it is on its way, or its writer failed",
                };
                found.push(Orphan { partition, stored, because });
            }
        }
    }
    Ok(found)
}
