//! MERGE: neighbouring segments become one.
//!
//! 1. Batches are copied as they are, each under its own checksum, and only from files that were found whole: what is
//!    damaged stays where it is and is never given a checksum that makes it look sound.
//! 2. The segments are those that stand in the manifest that the commit compares; nothing of them is deleted here, their
//!    collector sees by the manifest that they were replaced.
//! 3. One piece of a file and the segment that is made are in memory; no more than [`BYTES_PER_SECOND`] are read, and what
//!    is read is checked in turns with the rolls of the lane.
//! 4. What is broken off leaves litter: the next merge begins anew under another name.

use super::Coverage;
use super::background::{Background, TURN_BYTES};
use super::manifest::{self, Standing};
use super::roll::{RollError, put};
use crate::compaction::Segment;
use crate::env::{Env, WallMs};
use crate::format::manifest::{Manifest, NamedSegment, SegmentName};
use crate::ids::TopicPartition;
use crate::recovery::Stores;
use crate::segment::pieces::PieceError;
use crate::segment::{ReadError, SegmentReader, SegmentWriter, WrittenSegment, data_key, index_key};
use crate::wrong::{Wrong, wrong};
use bytes::BytesMut;
use std::ops::Range;
use std::time::Duration;

/// Bytes read in a second at most. A merge is never urgent.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// How long a writer that makes the mistake of comparing a late version waits before at most.
pub(super) const DAWDLES_MS: u64 = 10_000;

/// What is to be merged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merge {
    /// The partition.
    pub partition: TopicPartition,
    /// Neighbours in offset order, at least two, as the planner knows them.
    pub segments: Vec<Segment>,
    /// What the segment will be called.
    pub name: SegmentName,
}

/// What became of a merge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merged {
    /// What segments hold now.
    pub coverage: Coverage,
    /// Bytes of the segments that were replaced; 0: the manifest does not name these segments, or was changed meanwhile.
    pub read: u64,
    /// Bytes of the one that replaced them.
    pub written: u64,
}

/// Merges.
///
/// # Errors
/// See [`RollError`]; it may have happened all the same.
pub async fn merge(env: &Env, stores: &Stores, background: &Background, merge: Merge) -> Result<Merged, RollError> {
    let objects = &*stores.objects;
    // Before the first byte of the segment is put: what the commit compares (rule R1 of `compaction::gc`).
    let mut standing = manifest::read(objects, merge.partition).await?;
    let nothing = |manifest: &Manifest| Merged { coverage: manifest.into(), read: 0, written: 0 };
    let Some(range) = find(&standing.manifest, &merge.segments) else { return Ok(nothing(&standing.manifest)) };
    let parts = &standing.manifest.segments[range.clone()];
    let Some(written) = write(env, stores, background, &merge, parts).await? else {
        // A part is not there. Whoever replaced it has changed the manifest.
        let now = manifest::read(objects, merge.partition).await?;
        if now.version == standing.version {
            let detail = format!("a segment that the manifest of {} names is not there, or cut off", merge.partition);
            return Err(RollError::Damage(detail));
        }
        return Ok(nothing(&now.manifest));
    };
    let read = parts.iter().map(|part| part.segment.bytes).sum();
    let base = written.segment.base;
    put(env, stores, data_key(merge.partition, merge.name, base), written.file).await?;
    put(env, stores, index_key(merge.partition, merge.name, base), vec![written.index]).await?;
    let named = NamedSegment { name: merge.name, segment: written.segment, records: written.records };
    if wrong(Wrong::MergeComparesLateVersion) {
        // Slow writers are those that it takes.
        env.sleep(Duration::from_millis(env.random() % DAWDLES_MS)).await;
        standing = manifest::read(objects, merge.partition).await?;
    }
    if wrong(Wrong::MergeDeletesFirst) {
        let keys = |part: &NamedSegment| data_key(merge.partition, part.name, part.segment.base);
        objects.delete(standing.manifest.segments[range.clone()].iter().map(keys).collect()).await?;
    }
    commit(env, stores, &merge, &standing, named, read).await
}

async fn commit(
    env: &Env,
    stores: &Stores,
    merge: &Merge,
    standing: &Standing,
    named: NamedSegment,
    read: u64,
) -> Result<Merged, RollError> {
    let mut next = standing.manifest.clone();
    if let Some(range) = find(&next, &merge.segments) {
        next.segments.splice(range, [named]);
        if manifest::commit(env, &*stores.objects, standing, &next).await? {
            return Ok(Merged { coverage: (&next).into(), read, written: named.segment.bytes });
        }
    }
    let stands = manifest::read(&*stores.objects, merge.partition).await?.manifest;
    Ok(Merged { coverage: (&stands).into(), read: 0, written: 0 })
}

/// Where `segments` stand in the manifest, as they are.
fn find(manifest: &Manifest, segments: &[Segment]) -> Option<Range<usize>> {
    let from = manifest.segments.partition_point(|named| named.segment.base < segments[0].base);
    let range = from..from.checked_add(segments.len())?;
    let found = manifest.segments.get(range.clone())?;
    found.iter().map(|named| &named.segment).eq(segments).then_some(range)
}

/// The segment that holds what `parts` do; `None` if one of them is not there.
async fn write(
    env: &Env,
    stores: &Stores,
    background: &Background,
    merge: &Merge,
    parts: &[NamedSegment],
) -> Result<Option<WrittenSegment>, RollError> {
    let mut writer = SegmentWriter::new(parts[0].segment.base);
    for part in parts {
        match copy(env, stores, background, (merge.partition, part), &mut writer).await {
            Ok(()) => {}
            Err(CopyError::Missing) => return Ok(None),
            Err(CopyError::Failed(error)) => return Err(error),
        }
    }
    let created = parts.iter().map(|part| part.segment.created).max().unwrap_or(WallMs(0));
    let written = writer.finish(created).expect("a segment holds a batch");
    let records = parts.iter().map(|part| part.records).sum::<u64>();
    let (last, whole) = (parts[parts.len() - 1].segment.last, written.records == records);
    if written.segment.last != last || !(whole || wrong(Wrong::MergeDropsABatch)) {
        let (partition, name) = (merge.partition, merge.name);
        return Err(RollError::Damage(format!(
            "{partition}: {name} holds other records than those that it is made of"
        )));
    }
    Ok(Some(written))
}

enum CopyError {
    /// The file is not there, or shorter than the manifest says.
    Missing,
    Failed(RollError),
}

impl<E: Into<RollError>> From<E> for CopyError {
    fn from(error: E) -> CopyError {
        CopyError::Failed(error.into())
    }
}

/// Copies the batches of `part`.
async fn copy(
    env: &Env,
    stores: &Stores,
    background: &Background,
    (partition, part): (TopicPartition, &NamedSegment),
    writer: &mut SegmentWriter,
) -> Result<(), CopyError> {
    let Segment { base, last, bytes, .. } = part.segment;
    let key = data_key(partition, part.name, base);
    let damaged = |detail: String| RollError::Damage(format!("{key}: {detail}"));
    let failed = |error: ReadError| match error {
        ReadError::Piece(PieceError::Missing) => CopyError::Missing,
        ReadError::Piece(PieceError::Store(error)) => error.into(),
        other => damaged(other.to_string()).into(),
    };
    let mut reader = SegmentReader::of_size(&*stores.objects, key.clone(), bytes, None).map_err(failed)?;
    while let Some(batches) = reader.next().await.map_err(failed)? {
        let piece: usize = batches.iter().map(BytesMut::len).sum();
        let (most, mut of_turn) = (batches.len(), 0);
        for (at, batch) in batches.into_iter().enumerate() {
            if wrong(Wrong::MergeDropsABatch) && at == 1 && most > 2 {
                continue;
            }
            of_turn += batch.len();
            writer.push(batch.freeze()).map_err(|error| damaged(error.to_string()))?;
            if of_turn >= TURN_BYTES {
                of_turn = 0;
                background.turn(env).await;
            }
        }
        env.sleep(Duration::from_micros(1 + piece as u64 * 1_000_000 / BYTES_PER_SECOND)).await;
    }
    let found = reader.finish().map_err(failed)?;
    if (found.base, found.last, found.records) != (base, last, part.records) {
        let (base, last, records) = (found.base, found.last, found.records);
        return Err(
            damaged(format!("it holds {records} records from {base} to {last}, the manifest says {part:?}")).into()
        );
    }
    Ok(())
}
