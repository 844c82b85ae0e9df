//! ROLL: committed entries of write-ahead objects become a segment.
//!
//! 1. What is rolled is committed, so that whoever rolls the same offsets, a leader of an earlier epoch too, writes the
//!    same batches; of two such segments the manifest names the one that came first.
//! 2. A segment ends where an entry ends: references are either covered or not.
//! 3. What a roll holds of entries that are not in memory is at most all of them: whoever plans it has room for that.
//! 4. Before a manifest covers entries, they are on the disk: a log without fsync that lost its end with the power would go
//!    on below what is covered.

use super::background::{Background, SegmentMeter, SegmentTotals, TURN_BYTES};
use super::merge::DAWDLES_MS;
use super::{Coverage, manifest};
use crate::env::Env;
use crate::format::manifest::{Manifest, NamedSegment, SegmentName};
use crate::ids::{Offset, Seq, TopicPartition, Wid};
use crate::partition::{EpochHistory, Reference};
use crate::recovery::Stores;
use crate::segment::{SegmentError, SegmentWriter, data_key, index_key};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::StoreFuture;
use crate::wrong::{Wrong, wrong};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;
use std::time::Duration;

/// Write-ahead objects read at once.
const READS: usize = 8;
/// Times that an object is put.
const PUTS: u32 = 4;
/// Longest pause between two of them.
const PAUSE_MS: u64 = 1_000;

/// What is to be rolled.
#[derive(Clone, PartialEq, Debug)]
pub struct Roll {
    /// The partition.
    pub partition: TopicPartition,
    /// Its committed log start.
    pub log_start: Offset,
    /// Where its epochs start.
    pub epochs: EpochHistory,
    /// The entries, contiguous from the first that no manifest is known to cover.
    pub references: Vec<Reference>,
    /// Those of them that are in memory, by their first offset.
    pub held: BTreeMap<Offset, Bytes>,
    /// What the segment will be called.
    pub name: SegmentName,
}

/// Why nothing was rolled, or merged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RollError {
    /// The store failed: to be tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Data that must exist does not, or is damaged. A person must look.
    #[error("{0}")]
    Damage(String),
}

impl From<SegmentError> for RollError {
    fn from(error: SegmentError) -> RollError {
        RollError::Damage(error.to_string())
    }
}

/// Rolls, and gives what segments hold now: more than was asked for if somebody else was faster.
///
/// # Errors
/// See [`RollError`]; it may have happened all the same.
///
/// # Panics
/// If there is nothing to roll.
pub async fn roll(env: &Env, stores: &Stores, background: &Background, roll: Roll) -> Result<Coverage, RollError> {
    let coverage = cover(env, stores, background, roll).await?;
    background.meter.add(SegmentTotals { rolls: 1, ..SegmentTotals::default() });
    Ok(coverage)
}

async fn cover(env: &Env, stores: &Stores, background: &Background, roll: Roll) -> Result<Coverage, RollError> {
    let (first, last) = (roll.references.first(), roll.references.last());
    let (base, through) = first.zip(last).map(|(first, last)| (first.base, last.last.plus(1))).expect("no entry");
    // Before the first byte of the segment is put: what the commit compares (rule R1 of `compaction::gc`).
    let mut standing = manifest::read(&*stores.objects, roll.partition).await?;
    if standing.manifest.covered > base {
        return Ok((&standing.manifest).into());
    }
    let writer = write(env, stores, background, &roll).await?;
    if writer.next() != through {
        return Err(RollError::Damage(format!("entries that end before {through}")));
    }
    let written = writer.finish(env.wall()).expect("an entry holds a batch");
    let put = |key: String, slices: Vec<Bytes>| put(env, stores, key, slices);
    put(data_key(roll.partition, roll.name, base), written.file).await?;
    put(index_key(roll.partition, roll.name, base), vec![written.index]).await?;
    let bytes = written.segment.bytes;
    background.meter.add(SegmentTotals { segments: 1, segment_bytes: bytes, ..SegmentTotals::default() });
    let named = NamedSegment { name: roll.name, segment: written.segment, records: written.records };
    let newest: BTreeMap<Wid, Seq> = roll.references.iter().map(|one| (one.wid, one.seq)).collect();
    for (wid, seq) in newest {
        stores.wal.sync_below(wid, seq.next()).await?;
    }
    if wrong(Wrong::RollComparesLateVersion) {
        env.sleep(Duration::from_millis(env.random() % DAWDLES_MS)).await;
        let late = manifest::read(&*stores.objects, roll.partition).await?;
        standing = if late.manifest.covered == standing.manifest.covered { late } else { standing };
    }
    let next = append(&standing.manifest, &roll, named)?;
    if manifest::commit(env, &*stores.objects, &standing, &next).await? {
        background.meter.add(SegmentTotals { manifests: 1, ..SegmentTotals::default() });
        return Ok((&next).into());
    }
    let stands = manifest::read(&*stores.objects, roll.partition).await?.manifest;
    if stands.covered > base {
        return Ok((&stands).into());
    }
    let detail = format!("the manifest of {} was changed meanwhile: the segment is to be written anew", roll.partition);
    Err(StoreError::not_done(FailureKind::Other, detail).into())
}

/// The batches, checked.
async fn write(env: &Env, stores: &Stores, background: &Background, roll: &Roll) -> Result<SegmentWriter, RollError> {
    let first = roll.references.first().expect("looked at before");
    let (mut writer, mut of_turn) = (SegmentWriter::new(first.base), 0);
    let mut entries =
        stream::iter(&roll.references).map(|one| find(stores, &background.meter, roll, *one)).buffered(READS);
    background.turn(env).await;
    while let Some((reference, bytes)) = entries.try_next().await? {
        if writer.next() != reference.base {
            return Err(RollError::Damage(format!("{} where {} was to come", reference.base, writer.next())));
        }
        of_turn += bytes.len();
        writer.push(bytes)?;
        if of_turn >= TURN_BYTES {
            of_turn = 0;
            background.turn(env).await;
        }
    }
    Ok(writer)
}

/// The bytes of an entry, from memory if they are there.
async fn find(
    stores: &Stores,
    meter: &SegmentMeter,
    roll: &Roll,
    reference: Reference,
) -> Result<(Reference, Bytes), RollError> {
    let bytes = u64::from(reference.length);
    let held = roll.held.get(&reference.base).filter(|held| held.len() as u64 == bytes);
    if let Some(held) = held {
        meter.add(SegmentTotals { roll_held_bytes: bytes, ..SegmentTotals::default() });
        return Ok((reference, held.clone()));
    }
    meter.add(SegmentTotals { roll_reads: 1, roll_read_bytes: bytes, ..SegmentTotals::default() });
    read(stores, reference).await
}

/// The bytes of an entry.
///
/// # Errors
/// The store's, or they are not there.
pub async fn read(stores: &Stores, reference: Reference) -> Result<(Reference, Bytes), RollError> {
    let Reference { wid, seq, position, length, .. } = reference;
    let range = u64::from(position)..u64::from(position) + u64::from(length);
    let found = stores.wal.read(wid, seq, range).await?;
    let whole = found.filter(|bytes| bytes.len() == length as usize);
    let missing = || RollError::Damage(format!("the write-ahead object {wid}/{seq} is not there or cut off"));
    Ok((reference, whole.ok_or_else(missing)?))
}

/// Puts an object that nobody else can have put, so that one that is there is this one.
pub(super) async fn put(env: &Env, stores: &Stores, key: String, slices: Vec<Bytes>) -> Result<(), StoreError> {
    let mut attempt = 1;
    loop {
        let put: StoreFuture<()> = stores.objects.put_own(&key, slices.clone());
        match put.await {
            Ok(()) => return Ok(()),
            Err(error) if attempt == PUTS => return Err(error),
            Err(_) => attempt += 1,
        }
        env.sleep(Duration::from_millis(env.random() % PAUSE_MS)).await;
    }
}

/// The manifest, which does not cover the segment's offsets, with the segment at its end.
fn append(manifest: &Manifest, roll: &Roll, named: NamedSegment) -> Result<Manifest, RollError> {
    let base = named.segment.base;
    let mut next = manifest.clone();
    next.log_start = next.log_start.max(roll.log_start);
    if manifest.covered < base {
        // A log start beyond what was covered: no segment holds anything that may still be read.
        if base > next.log_start {
            let (partition, covered) = (roll.partition, manifest.covered);
            return Err(RollError::Damage(format!("{partition}: nothing holds the offsets from {covered} to {base}")));
        }
        next.segments.clear();
    }
    next.segments.push(named);
    next.covered = named.segment.last.plus(1);
    next.epochs = EpochHistory::default();
    let covered = roll.epochs.starts().iter().filter(|epoch| epoch.start < next.covered);
    covered.for_each(|epoch| next.epochs.append(epoch.epoch, epoch.start));
    Ok(next)
}
