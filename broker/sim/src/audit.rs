//! The checker of `millrace audit`, told from the true state of the simulated stores.

use millrace_broker::control::topic_object::{self, TopicObject};
use millrace_storage::audit::{
    Bodies, BrokenCheckpoint, Checker, Clock, Finding, Metadata, Report, Rules, SeenPartition, SegmentLook, examine,
};
use millrace_storage::format::checkpoint::{Checkpoint, ReferenceChunk, checkpoint_key, chunk_key};
use millrace_storage::format::manifest::{Manifest, NamedSegment};
use millrace_storage::ids::{TopicId, TopicPartition, Wid};
use millrace_storage::meta::keys;
use millrace_storage::meta::records::{PartitionRecord, Record, WalRecord};
use millrace_storage::object::ListedObject;
use millrace_storage::segment::{SegmentIndex, data_key, index_key};
use millrace_storage::sim::{SimBucket, SimMeta};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What stands in the stores at this instant must be whole, whoever is at work and however far.
pub fn check(bucket: &SimBucket, meta: &SimMeta, bodies: Bodies) {
    if let Some(finding) = audit(bucket, Some(meta), bodies).findings.first() {
        panic!("FINDING audit: {finding}");
    }
}

/// An audit of this instant, with the metadata store or of the bucket alone.
pub fn audit(bucket: &SimBucket, meta: Option<&SimMeta>, bodies: Bodies) -> Report {
    // How long something may stay that nothing refers to is a matter of time, of which a run has little.
    let (topics, deleted) = topics(bucket);
    let gone = deleted.clone();
    let rules = Rules { clock: Clock::Stopped, grace_ms: i64::MAX, topics, deleted, whole_files: false };
    let mut checker = Checker::new(rules, meta.map(metadata));
    for key in bucket.keys("wal/") {
        let (wid, seq) = SimBucket::parse_wal_key(&key).expect("only write-ahead objects lie there");
        let bytes = bucket.peek(&key).expect("listed at this instant");
        match examine(wid, seq, &bytes, bodies) {
            Ok(object) => checker.object(Rc::new(object)),
            Err(detail) => checker.damaged_object(wid, seq, bytes.len() as u64, detail),
        }
    }
    let mut numbers: BTreeMap<Wid, Vec<u64>> = BTreeMap::new();
    for key in bucket.keys("ckpt/") {
        let (wid, name) = key["ckpt/".len()..].split_once('/').expect("a folder per log");
        let wid = wid.parse().expect("named like a log");
        let size = bucket.peek(&key).expect("listed at this instant").len() as u64;
        if let Ok(number) = name.parse() {
            numbers.entry(wid).or_default().push(number);
        }
        checker.beside(wid, key, size, 0);
    }
    for (wid, numbers) in numbers {
        let newest = numbers.last().copied();
        let named = meta.and_then(|meta| wal(meta, wid)).map(|record| record.ck);
        for number in numbers.into_iter().filter(|number| Some(*number) == newest || Some(*number) == named) {
            checker.checkpoint(wid, number, checkpoint(bucket, wid, number));
        }
    }
    for key in bucket.keys("man/") {
        let bytes = bucket.peek(&key).expect("listed at this instant");
        let manifest = Manifest::decode(&bytes).unwrap_or_else(|error| panic!("FINDING {key}: {error}"));
        let partition = manifest.partition;
        // Of a deleted topic nothing need be whole.
        for named in manifest.segments.iter().filter(|_| !gone.contains_key(&partition.topic)) {
            segment(bucket, partition, *named).into_iter().for_each(|finding| checker.found(finding));
        }
        let in_folder = bucket.keys(&format!("seg/{}/{}/", partition.topic, partition.index)).into_iter();
        let listed = in_folder.map(|key| {
            let size = bucket.peek(&key).expect("listed at this instant").len() as u64;
            ListedObject { key, size, modified_ms: 0 }
        });
        let (listed, manifest_bytes) = (listed.collect(), bytes.len() as u64);
        checker.partition(SeenPartition { partition, listed, manifest: Some(Ok(manifest)), manifest_bytes });
    }
    checker.finish()
}

/// The topics that the bucket knows: those alive with their partitions, unless none is known at all, and those deleted.
fn topics(bucket: &SimBucket) -> (Option<BTreeMap<TopicId, u32>>, BTreeMap<TopicId, i64>) {
    let objects = bucket.keys(topic_object::FOLDER).into_iter().map(|key| {
        let bytes = bucket.peek(&key).expect("listed at this instant");
        TopicObject::decode(&bytes).unwrap_or_else(|error| panic!("FINDING {key}: {error}"))
    });
    let (deleted, alive): (Vec<TopicObject>, Vec<TopicObject>) = objects.partition(|object| object.deleted);
    let known = !alive.is_empty() || !deleted.is_empty();
    let alive = alive.into_iter().map(|object| (object.id, object.partitions)).collect();
    (known.then_some(alive), deleted.into_iter().map(|object| (object.id, 0)).collect())
}

/// What is wrong with a segment.
fn segment(bucket: &SimBucket, partition: TopicPartition, named: NamedSegment) -> Vec<Finding> {
    let base = named.segment.base;
    let missing = |key: String| vec![Finding::Missing { key, needed_by: format!("a manifest of {partition}") }];
    let key = index_key(partition, named.name, base);
    let Some(index) = bucket.peek(&key) else { return missing(key) };
    let index = match SegmentIndex::decode(&index) {
        Ok(index) => index,
        Err(error) => return vec![Finding::Damaged { key, detail: error.to_string() }],
    };
    let key = data_key(partition, named.name, base);
    let Some(file) = bucket.peek(&key) else { return missing(key) };
    let looked = SegmentLook::new(partition, named, Some(&index)).and_then(|mut look| {
        look.take(&file)?;
        Ok(look.finish())
    });
    looked.unwrap_or_else(|finding| vec![finding])
}

fn metadata(meta: &SimMeta) -> Metadata {
    let wals = meta.contents(keys::WALS).into_iter().map(|(key, value)| {
        (keys::parse_wal(&key).expect("our own key"), WalRecord::decode(&value).expect("our own record"))
    });
    let partitions = meta.contents(keys::PARTITIONS).into_iter().map(|(key, value)| {
        (keys::parse_partition(&key).expect("our own key"), PartitionRecord::decode(&value).expect("our own record"))
    });
    Metadata { wals: wals.collect(), partitions: partitions.collect() }
}

fn wal(meta: &SimMeta, wid: Wid) -> Option<WalRecord> {
    Some(WalRecord::decode(&meta.peek(&keys::wal(wid))?).expect("our own record"))
}

fn checkpoint(bucket: &SimBucket, wid: Wid, number: u64) -> Result<Checkpoint, BrokenCheckpoint> {
    let bytes = bucket.peek(&checkpoint_key(wid, number)).expect("listed at this instant");
    let mut checkpoint =
        Checkpoint::decode(&bytes).map_err(|error| BrokenCheckpoint { bare: None, detail: error.to_string() })?;
    let bare = checkpoint.clone();
    let broken = |detail: String| BrokenCheckpoint { bare: Some(Box::new(bare.clone())), detail };
    for name in &bare.chunks {
        let key = chunk_key(wid, name.number);
        let bytes = bucket.peek(&key).ok_or_else(|| broken(format!("{key} is missing")))?;
        let chunk = ReferenceChunk::decode(&bytes, name).map_err(|error| broken(error.to_string()))?;
        checkpoint.attach(&chunk).map_err(|error| broken(error.to_string()))?;
    }
    checkpoint.check_attached().map_err(|error| broken(error.to_string()))?;
    Ok(checkpoint)
}
