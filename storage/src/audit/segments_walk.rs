//! The walk over manifests and segments, partition by partition.
//!
//! Invariants:
//! 1. Of each partition the listing comes first, then its manifest, then the segments that it names: what is written
//!    meanwhile is not taken for missing, nor what is named for unreferenced. What is deleted meanwhile a second pass does
//!    not find named again.
//! 2. Files are read in pieces, [`AT_ONCE`] of them at a time.
//! 3. A segment that was found whole is not read again: its bytes never change.

use super::checker::Checker;
use super::findings::Finding;
use super::segment::SegmentLook;
use super::segments::SeenPartition;
use crate::format::manifest::{Manifest, NamedSegment, SegmentName, manifest_key};
use crate::ids::{TopicId, TopicPartition};
use crate::object::ObjectStore;
use crate::segment::pieces::{PieceError, Pieces};
use crate::segment::{SegmentIndex, data_key, index_key};
use crate::store_error::StoreError;
use bytes::Buf;
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Segments read at once.
const AT_ONCE: usize = 4;
/// Folder of manifests.
const MANIFESTS: &str = "man/";
/// Folder of segments.
const SEGMENTS: &str = "seg/";

/// Segments that were found whole.
pub(super) type Whole = BTreeMap<(TopicPartition, SegmentName), NamedSegment>;

/// Looks at all manifests and segments; what is whole in `known` need not be read again. Gives what is whole now.
pub(super) async fn segments(
    objects: &dyn ObjectStore,
    checker: &mut Checker,
    known: &Whole,
) -> Result<Whole, StoreError> {
    let mut topics: BTreeSet<TopicId> = BTreeSet::new();
    for folder in [MANIFESTS, SEGMENTS] {
        let names = objects.list_directories(folder).await?;
        topics.extend(names.iter().filter_map(|name| Uuid::try_parse(name).ok().map(TopicId)));
    }
    let mut whole = Whole::new();
    for topic in topics {
        let folder = format!("{MANIFESTS}{topic}/");
        let manifests = objects.list(&folder).await?;
        let index = |name: &str| name.parse::<u32>().ok();
        let mut partitions: BTreeSet<u32> =
            manifests.iter().filter_map(|one| index(one.key.strip_prefix(&folder)?)).collect();
        let folders = objects.list_directories(&format!("{SEGMENTS}{topic}/")).await?;
        partitions.extend(folders.iter().filter_map(|name| index(name)));
        for partition in partitions.into_iter().map(|index| TopicPartition { topic, index }) {
            let seen = partition_of(objects, partition).await?;
            if let Some(Ok(manifest)) = &seen.manifest
                && manifest.partition == partition
                && checker.is_alive(partition)
            {
                check(objects, checker, manifest, known, &mut whole).await?;
            }
            checker.partition(seen);
        }
        // After all of them, so that no manifest that was read is younger.
        for one in objects.list(&folder).await? {
            if let Some(index) = one.key.strip_prefix(&folder).and_then(index) {
                checker.committed(TopicPartition { topic, index }, one.modified_ms);
            }
        }
    }
    Ok(whole)
}

/// What is stored of one partition.
async fn partition_of(objects: &dyn ObjectStore, partition: TopicPartition) -> Result<SeenPartition, StoreError> {
    let listed = objects.list(&format!("{SEGMENTS}{}/{}/", partition.topic, partition.index)).await?;
    let found = objects.get(&manifest_key(partition)).await?;
    let manifest_bytes = found.as_ref().map_or(0, |found| found.bytes.len() as u64);
    let manifest = found.map(|found| Manifest::decode(&found.bytes).map_err(|error| error.to_string()));
    Ok(SeenPartition { partition, listed, manifest, manifest_bytes })
}

/// Checks the segments that a manifest names.
async fn check(
    objects: &dyn ObjectStore,
    checker: &mut Checker,
    manifest: &Manifest,
    known: &Whole,
    whole: &mut Whole,
) -> Result<(), StoreError> {
    let partition = manifest.partition;
    let looks = manifest.segments.iter().map(async |named| {
        let is_known = known.get(&(partition, named.name)) == Some(named);
        let findings = if is_known { Vec::new() } else { segment(objects, partition, *named).await? };
        Ok::<_, StoreError>((named, findings))
    });
    let mut looks = futures::stream::iter(looks).buffered(AT_ONCE);
    while let Some((named, findings)) = looks.try_next().await? {
        if findings.is_empty() {
            whole.insert((partition, named.name), *named);
        }
        findings.into_iter().for_each(|finding| checker.found(finding));
    }
    Ok(())
}

/// What is wrong with one segment.
async fn segment(
    objects: &dyn ObjectStore,
    partition: TopicPartition,
    named: NamedSegment,
) -> Result<Vec<Finding>, StoreError> {
    let (base, last) = (named.segment.base, named.segment.last);
    let missing =
        |key: String| Finding::Missing { key, needed_by: format!("offsets {base} to {last} of partition {partition}") };
    let mut findings = Vec::new();
    let key = index_key(partition, named.name, base);
    let index = match objects.get(&key).await?.map(|found| SegmentIndex::decode(&found.bytes)) {
        Some(Ok(index)) => Some(index),
        Some(Err(error)) => {
            findings.push(Finding::Damaged { key, detail: error.to_string() });
            None
        }
        None => {
            findings.push(missing(key));
            None
        }
    };
    let key = data_key(partition, named.name, base);
    let mut look = match SegmentLook::new(partition, named, index.as_ref()) {
        Ok(look) => look,
        Err(finding) => return Ok([findings, vec![finding]].concat()),
    };
    let size = match objects.get_suffix(&key, 1).await? {
        Some(end) => end.size,
        None => return Ok([findings, vec![missing(key)]].concat()),
    };
    if size != named.segment.bytes {
        let detail = format!("it has {size} bytes, by its manifest {}", named.segment.bytes);
        findings.push(Finding::Damaged { key, detail });
        return Ok(findings);
    }
    let mut pieces = Pieces::new(objects, key.clone(), size);
    loop {
        match pieces.next().await {
            Ok(None) => break,
            Ok(Some(untaken)) => match look.take(untaken) {
                Ok(taken) => untaken.advance(taken),
                Err(finding) => return Ok([findings, vec![finding]].concat()),
            },
            Err(PieceError::Store(error)) => return Err(error),
            Err(PieceError::Missing) => return Ok([findings, vec![missing(key)]].concat()),
            Err(error @ PieceError::Endless) => {
                let detail = format!("{error} from position {}", look.position());
                findings.push(Finding::Damaged { key, detail });
                return Ok(findings);
            }
        }
    }
    findings.extend(look.finish());
    Ok(findings)
}
