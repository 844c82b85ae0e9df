//! What the bucket's segments truly hold, and what manifests may say (PROTOCOL.md I8, COMPACT).

use crate::ledger::{Ledger, RecordId};
use crate::rebuild;
use crate::truth::ReadIds;
use bytes::Bytes;
use millrace_broker::control::topic_object::{self, TopicObject};
use millrace_storage::compaction::gc::Listed;
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName, manifest_key};
use millrace_storage::ids::{Offset, TopicId, TopicPartition};
use millrace_storage::segment::{FOOTER_BYTES, HEADER_BYTES, data_key, index_key};
use millrace_storage::sim::SimBucket;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What segments hold, read once: a file under a name never changes, and is asked for at every offset.
pub struct Contents {
    bucket: SimBucket,
    read_ids: ReadIds,
    // Both with the bytes that they were read from, which is how it is seen that they are still those.
    manifests: Read<TopicPartition, Rc<Manifest>>,
    files: Read<(TopicPartition, SegmentName), Rc<[RecordId]>>,
}

/// What was read of objects, each with its bytes.
type Read<K, V> = RefCell<BTreeMap<K, (Bytes, V)>>;

impl Contents {
    /// Of the segments in this bucket.
    pub fn new(bucket: &SimBucket, read_ids: ReadIds) -> Contents {
        Contents { bucket: bucket.clone(), read_ids, manifests: RefCell::default(), files: RefCell::default() }
    }

    /// What a segment that the partition's manifest names holds at `offset`.
    pub fn at(&self, p: TopicPartition, offset: Offset) -> Option<RecordId> {
        let manifest = self.manifest(p)?;
        let at = manifest.segments.partition_point(|named| named.segment.last < offset);
        let named = manifest.segments.get(at).filter(|named| named.segment.base <= offset)?;
        let ids = self.ids_of(p, named)?;
        ids.get(usize::try_from(offset.0 - named.segment.base.0).ok()?).copied()
    }

    fn manifest(&self, p: TopicPartition) -> Option<Rc<Manifest>> {
        let key = manifest_key(p);
        let bytes = self.bucket.peek(&key)?;
        Some(once(&self.manifests, p, bytes, |bytes| Rc::new(read(&key, bytes))))
    }

    fn ids_of(&self, p: TopicPartition, named: &NamedSegment) -> Option<Rc<[RecordId]>> {
        let file = self.bucket.peek(&data_key(p, named.name, named.segment.base))?;
        let body = |file: &Bytes| (self.read_ids)(&file[HEADER_BYTES..file.len() - FOOTER_BYTES]).into();
        Some(once(&self.files, (p, named.name), file, body))
    }
}

/// What `read` makes of these bytes, unless they were read before.
fn once<K: Ord, V: Clone>(known: &Read<K, V>, key: K, bytes: Bytes, read: impl FnOnce(&Bytes) -> V) -> V {
    let mut known = known.borrow_mut();
    if let Some((before, value)) = known.get(&key)
        && (before.as_ptr(), before.len()) == (bytes.as_ptr(), bytes.len())
    {
        return value.clone();
    }
    let value = read(&bytes);
    known.insert(key, (bytes, value.clone()));
    value
}

/// A manifest came into being, or took the place of `before`: what it names is there, no bound went back, and nothing
/// came back of what was `replaced`. Gives what it names no more.
pub fn check_manifest(
    bucket: &SimBucket,
    key: &str,
    before: Option<&Bytes>,
    after: &Bytes,
    replaced: &BTreeSet<(TopicPartition, SegmentName)>,
) -> Vec<(TopicPartition, SegmentName)> {
    let (before, next) = (before.map(|bytes| read(key, bytes)), read(key, after));
    if is_gone(bucket, next.partition.topic) {
        return Vec::new();
    }
    // What was named before is looked at when it is deleted.
    let known = |named: &NamedSegment| before.iter().any(|manifest| manifest.segments.contains(named));
    for named in next.segments.iter().filter(|named| !known(named)) {
        let base = named.segment.base;
        let bytes = bucket.peek(&data_key(next.partition, named.name, base)).map_or(0, |file| file.len() as u64);
        assert!(
            bytes == named.segment.bytes,
            "FINDING I8: {key} names a segment at {base} of which {bytes} bytes exist"
        );
        let index = bucket.peek(&index_key(next.partition, named.name, base));
        assert!(index.is_some(), "FINDING I8: {key} names a segment at {base} without an index");
        let again = replaced.contains(&(next.partition, named.name));
        assert!(!again, "FINDING {key} names {} again, which was replaced", named.name);
    }
    let Some(before) = before else { return Vec::new() };
    let grows = next.covered >= before.covered && next.log_start >= before.log_start;
    assert!(grows, "FINDING {key} goes back from {before:?} to {next:?}");
    if next.log_start > before.log_start {
        let start = rebuild::log_start(bucket, next.partition);
        assert!(next.log_start <= start, "FINDING {key} starts at {}, committed is {start}", next.log_start);
    }
    let named = |name: SegmentName| next.segments.iter().any(|each| each.name == name);
    let gone = before.segments.iter().map(|each| each.name).filter(|name| !named(*name));
    gone.map(|name| (next.partition, name)).collect()
}

/// The segments that a manifest names newly hold one record for each offset, and what clients have read.
pub fn check_content(contents: &Contents, key: &str, before: Option<&Bytes>, after: &Bytes, ledger: &Ledger) {
    let (before, next) = (before.map(|bytes| read(key, bytes)), read(key, after));
    let known = |named: &NamedSegment| before.iter().any(|manifest| manifest.segments.contains(named));
    let p = next.partition;
    if is_gone(&contents.bucket, p.topic) {
        return;
    }
    for named in next.segments.iter().filter(|named| !known(named)) {
        let (base, last) = (named.segment.base, named.segment.last);
        let ids = contents.ids_of(p, named).expect("it was looked for");
        let count = ids.len() as i64;
        assert!(count == last.0 - base.0 + 1, "FINDING {key}: {count} records from {base} to {last}");
        for (offset, id) in (base.0..).zip(ids.iter().copied()) {
            let was = ledger.record_at(p, Offset(offset));
            assert!(was.is_none_or(|was| was == id), "FINDING {key}: {id:?} at {offset}, where {was:?} was");
        }
    }
}

/// Whether the topic is deleted for good.
fn is_gone(bucket: &SimBucket, topic: TopicId) -> bool {
    bucket.peek(&topic_object::key(topic)).is_some_and(|bytes| TopicObject::is_tombstone(&bytes))
}

/// What is left of segments and manifests of deleted topics.
pub fn of_deleted_topics(bucket: &SimBucket) -> Vec<String> {
    let keys = bucket.keys("seg/").into_iter().chain(bucket.keys("man/"));
    let topic = |key: &str| key.split('/').nth(1).and_then(|id| id.parse().ok()).map(TopicId);
    keys.filter(|key| topic(key).is_some_and(|topic| is_gone(bucket, topic))).collect()
}

/// An object of a segment was deleted: the manifest of its partition does not name it, or its topic is gone.
pub fn check_may_go(bucket: &SimBucket, key: &str) {
    let partition = key.strip_prefix("seg/").and_then(|key| key.rsplitn(3, '/').nth(2)).expect("a segment's own key");
    let manifest = format!("man/{partition}");
    let Some(bytes) = bucket.peek(&manifest) else { return };
    let found = read(&manifest, &bytes);
    if is_gone(bucket, found.partition.topic) {
        return;
    }
    let named = found.segments.iter().find(|named| {
        let base = named.segment.base;
        [data_key(found.partition, named.name, base), index_key(found.partition, named.name, base)]
            .iter()
            .any(|one| one == key)
    });
    assert!(named.is_none(), "FINDING I8: {key} was deleted, which {manifest} names as {named:?}");
}

/// Segments that no manifest names and that no commit under way could name: what collectors must have deleted in the end.
pub fn uncollected(bucket: &SimBucket) -> Vec<String> {
    let mut files: BTreeMap<String, Listed> = BTreeMap::new();
    for key in bucket.keys("seg/") {
        let (folder, file) = key.rsplit_once('/').expect("a folder for each segment");
        let (base, kind) = file.strip_prefix("segment-").and_then(|file| file.split_once('.')).expect("our own key");
        let listed = files.entry(folder.to_owned()).or_default();
        listed.base = Offset(base.parse().expect("our own key"));
        if kind == "kfs" {
            listed.bytes = bucket.peek(&key).map_or(0, |bytes| bytes.len() as u64);
        }
    }
    let stays = |(folder, listed): &(String, Listed)| {
        let mut parts = folder.rsplitn(2, '/');
        let (name, partition) = (parts.next().expect("a name"), parts.next().expect("a partition"));
        let key = partition.replacen("seg/", "man/", 1);
        let Some(manifest) = bucket.peek(&key).map(|bytes| read(&key, &bytes)) else { return false };
        let named = manifest.segments.iter().any(|each| each.name.to_string() == *name);
        !named && listed.is_out_of_reach(manifest.segments.iter().map(|each| each.segment), manifest.covered)
    };
    files.into_iter().filter(stays).map(|(folder, _)| folder).collect()
}

fn read(key: &str, bytes: &Bytes) -> Manifest {
    Manifest::decode(bytes).unwrap_or_else(|error| panic!("FINDING {key}: {error}"))
}
