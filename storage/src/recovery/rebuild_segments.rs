//! What manifests add to a rebuild: a part of the log that is in segments only.
//!
//! Invariants:
//! 1. What a log takes for covered its manifest holds, and no manifest covers what no log knows: else something is lost,
//!    and nothing is rebuilt.
//! 2. A state covers as much as its manifest: its references do not point at objects that may have gone since.

use super::rebuild::RebuildError;
use crate::format::manifest::{Manifest, manifest_key};
use crate::ids::{Offset, TopicId, TopicPartition};
use crate::object::ObjectStore;
use crate::partition::CommittedPartition;
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Manifests read at once.
const AT_ONCE: usize = 32;
/// Folder of manifests.
const FOLDER: &str = "man/";

/// Takes into `states` what the manifests of `wanted` partitions hold.
pub(super) async fn cover(
    objects: &dyn ObjectStore,
    states: &mut BTreeMap<TopicPartition, CommittedPartition>,
    wanted: impl Fn(TopicPartition) -> bool,
) -> Result<(), RebuildError> {
    let mut partitions: BTreeSet<TopicPartition> = states.keys().copied().collect();
    for name in objects.list_directories(FOLDER).await? {
        let Some(topic) = Uuid::try_parse(&name).ok().map(TopicId) else { continue };
        let folder = format!("{FOLDER}{topic}/");
        let listed = objects.list(&folder).await?;
        let indexes = listed.iter().filter_map(|one| one.key.strip_prefix(&folder)?.parse().ok());
        partitions.extend(indexes.map(|index| TopicPartition { topic, index }).filter(|one| wanted(*one)));
    }
    let reads = partitions
        .into_iter()
        .map(async |partition| Ok::<_, RebuildError>((partition, read(objects, partition).await?)));
    let mut reads = futures::stream::iter(reads).buffered(AT_ONCE);
    while let Some((partition, manifest)) = reads.try_next().await? {
        match states.get_mut(&partition) {
            Some(state) => one(state, &manifest)?,
            None if manifest.covered > Offset(0) => {
                let (key, covered) = (manifest_key(partition), manifest.covered);
                return Err(RebuildError::Broken(format!("{key} covers offsets up to {covered} of an unknown log")));
            }
            None => {}
        }
    }
    Ok(())
}

async fn read(objects: &dyn ObjectStore, partition: TopicPartition) -> Result<Manifest, RebuildError> {
    let key = manifest_key(partition);
    let Some(found) = objects.get(&key).await? else { return Ok(Manifest::empty(partition)) };
    match Manifest::decode(&found.bytes) {
        Ok(manifest) if manifest.partition == partition => Ok(manifest),
        Ok(manifest) => Err(RebuildError::Broken(format!("{key} is the manifest of {}", manifest.partition))),
        Err(error) => Err(RebuildError::Broken(format!("{key}: {error}"))),
    }
}

fn one(state: &mut CommittedPartition, manifest: &Manifest) -> Result<(), RebuildError> {
    let Manifest { partition, log_start, covered, .. } = *manifest;
    if covered < state.covered || covered > state.end || log_start > state.end {
        let ours = format!("covers offsets from {log_start} to {covered}");
        let (theirs, end) = (state.covered, state.end);
        let key = manifest_key(partition);
        return Err(RebuildError::Broken(format!("{key} {ours}, by its log up to {theirs}, which ends at {end}")));
    }
    state.fold_log_start(log_start);
    state.cover(covered);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::{NamedSegment, SegmentName};
    use crate::ids::{LeaderEpoch, Seq, Wid};
    use crate::partition::Reference;

    fn manifest(covered: i64) -> Manifest {
        let partition = TopicPartition { topic: TopicId(Uuid::from_u128(7)), index: 3 };
        let segment = crate::compaction::Segment {
            base: Offset(0),
            last: Offset(covered - 1),
            bytes: 100,
            max_timestamp: -1,
            created: crate::env::WallMs(0),
        };
        let named = NamedSegment { name: SegmentName { wid: Wid(5), number: 1 }, segment, records: 1 };
        Manifest { covered: Offset(covered), segments: vec![named], ..Manifest::empty(partition) }
    }

    /// A log of 30 offsets, ten in each object, of which it takes the first ten for covered.
    fn state() -> CommittedPartition {
        let mut state = CommittedPartition::born(LeaderEpoch(1));
        (state.covered, state.end) = (Offset(10), Offset(30));
        state.references = (1..3)
            .map(|n| Reference {
                wid: Wid(5),
                seq: Seq(n),
                position: 64,
                length: 100,
                base: Offset(10 * n as i64),
                last: Offset(10 * n as i64 + 9),
                max_timestamp: -1,
            })
            .collect();
        state
    }

    #[test]
    fn what_was_rolled_since_the_checkpoint_is_not_referred_to_any_more() {
        let mut rebuilt = state();
        one(&mut rebuilt, &manifest(20)).unwrap();
        assert_eq!((rebuilt.covered, rebuilt.end), (Offset(20), Offset(30)));
        assert_eq!(rebuilt.references.first().map(|first| first.base), Some(Offset(20)));
    }

    #[test]
    fn a_manifest_that_holds_less_than_its_log_says_or_more_than_there_is_stops_a_rebuild() {
        assert!(one(&mut state(), &manifest(9)).is_err());
        assert!(one(&mut state(), &manifest(31)).is_err());
    }
}
