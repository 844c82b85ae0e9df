//! The reading half of ACQUIRE (PROTOCOL.md section 4, steps 1 and 2): records, checkpoint, chunks, footers, and the fold.
//!
//! Invariants:
//! 1. A partition's record and the `/wal` record that it names are read at one revision.
//! 2. The state given is the checkpoint's, plus every entry of the record's epoch up to the end (of the sealed log, or
//!    of what was released), without a gap.
//! 3. What is missing or contradicts itself is read again; the same again with nothing changed is an alarm. So is, at
//!    once, a record that can't be decoded, or one that names a log without a record at the same revision.
//! 4. An alarm is of the partitions that it concerns; the others of a look-up are not held up by it.

use super::Stores;
use crate::format::Footer;
use crate::format::TRAILER_BYTES;
use crate::format::checkpoint::{Checkpoint, ReferenceChunk, checkpoint_key, chunk_key};
use crate::format::object::{ObjectHeader, decode_footer, decode_trailer};
use crate::ids::{LeaderEpoch, Seq, TopicPartition, Wid};
use crate::lane::events::Found;
use crate::meta::keys;
use crate::meta::records::{PartitionRecord, Record, WalRecord, WalState};
use crate::object::ObjectStore;
use crate::partition::{CommittedPartition, EpochHistory, ObjectPlace};
use crate::store_error::{FailureKind, StoreError};
use crate::wrong::{Wrong, wrong};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;

/// Partitions whose records are read at one revision, with the logs that they name: within the limit of one read.
const RECORDS: usize = 55;
/// Footers and chunks read at once.
pub(super) const PARALLEL: usize = 64;
/// Bytes of an object's end read without knowing how long its footer is.
const SUFFIX_BYTES: u64 = 16 << 10;
/// Times that everything is read again because records changed meanwhile.
const ROUNDS: u32 = 5;

/// A partition that can be acquired.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Source {
    pub(crate) record: PartitionRecord,
    pub(crate) wal: WalRecord,
}

/// Why a state can't be had.
pub(crate) enum Failure {
    /// A store failed: nothing is known.
    Store(StoreError),
    /// Something that must exist does not, or contradicts itself.
    Broken(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error.kind {
            FailureKind::Corrupt => Failure::Broken(error.to_string()),
            _ => Failure::Store(error),
        }
    }
}

/// Reads what stands in the way of leading these partitions, or their state.
///
/// # Errors
/// A store failed; ask again.
pub async fn look_up(
    stores: &Stores,
    partitions: Vec<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Found>, StoreError> {
    let mut found = BTreeMap::new();
    let mut left = partitions;
    let mut failed: BTreeMap<TopicPartition, (Source, String)> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let mut logs: BTreeMap<Wid, BTreeMap<TopicPartition, Source>> = BTreeMap::new();
        for batch in left.chunks(RECORDS) {
            for (partition, looked) in records(stores, batch).await? {
                match looked {
                    Looked::Done(done) => drop(found.insert(partition, done)),
                    Looked::Source(source) => match failed.remove(&partition) {
                        Some((before, detail)) if before == source => {
                            found.insert(partition, Found::Alarm { detail });
                        }
                        _ => drop(logs.entry(source.record.wid).or_default().insert(partition, source)),
                    },
                }
            }
        }
        left.clear();
        for (wid, sources) in logs {
            for (partition, result) in states(stores, wid, &sources).await? {
                let source = sources[&partition].clone();
                match result {
                    Ok(state) => {
                        found.insert(partition, Found::State { record: source.record, state: Box::new(state) });
                    }
                    Err(detail) => {
                        failed.insert(partition, (source, detail));
                        left.push(partition);
                    }
                }
            }
        }
        if left.is_empty() {
            return Ok(found);
        }
    }
    for partition in left {
        let (source, _) = failed.remove(&partition).expect("what is left has failed");
        found.insert(partition, Found::Held { record: source.record });
    }
    Ok(found)
}

enum Looked {
    Done(Found),
    Source(Source),
}

/// Step 1: records and the logs that they name, at one revision.
async fn records(stores: &Stores, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, Looked)>, StoreError> {
    let record_keys: Vec<String> = partitions.iter().map(|&partition| keys::partition(partition)).collect();
    let first = stores.meta.get(record_keys.clone()).await?;
    let mut wids: Vec<Wid> = Vec::new();
    for value in first.values.iter().flatten() {
        // One that can't be decoded is told of below.
        wids.extend(PartitionRecord::decode(&value.value).map(|record| record.wid));
    }
    wids.sort_unstable();
    wids.dedup();
    let mut all = record_keys;
    all.extend(wids.iter().map(|&wid| keys::wal(wid)));
    let snapshot = stores.meta.get(all).await?;
    let (record_values, wal_values) = snapshot.values.split_at(partitions.len());
    let mut wals: BTreeMap<Wid, Result<WalRecord, String>> = BTreeMap::new();
    for (&wid, value) in wids.iter().zip(wal_values) {
        let wal = match value {
            Some(value) => WalRecord::decode(&value.value).map_err(|error| format!("log {wid}: {error}")),
            None => Err(format!("the log {wid} that it names has no record")),
        };
        wals.insert(wid, wal);
    }
    let mut looked = Vec::with_capacity(partitions.len());
    for (&partition, value) in partitions.iter().zip(record_values) {
        let one = match value {
            None => Looked::Done(Found::Unborn),
            Some(value) => match PartitionRecord::decode(&value.value) {
                Ok(record) => classify(record, &wals),
                Err(error) => Looked::Done(Found::Alarm { detail: error.to_string() }),
            },
        };
        looked.push((partition, one));
    }
    Ok(looked)
}

fn classify(record: PartitionRecord, wals: &BTreeMap<Wid, Result<WalRecord, String>>) -> Looked {
    let wal = match wals.get(&record.wid) {
        // Named between the two reads: the next look tells.
        None => return Looked::Done(Found::Held { record }),
        Some(Err(detail)) => return Looked::Done(Found::Alarm { detail: detail.clone() }),
        Some(Ok(wal)) => wal,
    };
    let sealed = matches!(wal.state, WalState::Sealed { .. });
    if sealed || record.released.is_some() || wrong(Wrong::ReleaseBySomebodyElse) {
        Looked::Source(Source { record, wal: wal.clone() })
    } else {
        Looked::Done(Found::Held { record })
    }
}

/// Where the entries of a source's epoch end; `listed_end`: that of a log which is not sealed.
pub(crate) fn end_of(source: &Source, s: Seq, listed_end: Seq) -> Seq {
    match (source.record.released, source.wal.state) {
        (Some(released), _) => released.seq,
        (None, WalState::Sealed { end }) => end,
        (None, _) => listed_end.max(s),
    }
}

/// Each partition's state, or why there is none.
pub(crate) type States = BTreeMap<TopicPartition, Result<CommittedPartition, String>>;

/// Step 2 for everything that comes from one log.
async fn states(stores: &Stores, wid: Wid, sources: &BTreeMap<TopicPartition, Source>) -> Result<States, StoreError> {
    // A live releaser's checkpoint may move on between two batches of records: each ck is read on its own.
    let mut by_checkpoint: BTreeMap<u64, BTreeMap<TopicPartition, &Source>> = BTreeMap::new();
    for (&partition, source) in sources {
        by_checkpoint.entry(source.wal.ck).or_default().insert(partition, source);
    }
    let mut states = States::new();
    for (ck, sources) in by_checkpoint {
        match states_from(stores, wid, ck, &sources).await {
            Ok(some) => states.extend(some),
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Broken(detail)) => {
                states.extend(sources.keys().map(|&partition| (partition, Err(detail.clone()))));
            }
        }
    }
    Ok(states)
}

async fn states_from(
    stores: &Stores,
    wid: Wid,
    ck: u64,
    sources: &BTreeMap<TopicPartition, &Source>,
) -> Result<States, Failure> {
    let mut checkpoint = checkpoint(&*stores.objects, wid, ck).await?;
    let s = checkpoint.s;
    let listed_end = if wrong(Wrong::ReleaseBySomebodyElse) {
        stores.wal.list(wid, s).await?.last().map_or(s, |last| last.seq.next())
    } else {
        s
    };
    let mut states = States::new();
    let mut ends = BTreeMap::new();
    for (&partition, source) in sources {
        states.insert(partition, start(checkpoint.partitions.remove(&partition), source, s));
        ends.insert(partition, end_of(source, s, listed_end));
    }
    let last = ends.values().copied().max().unwrap_or(s).max(s);
    let footers: Vec<(ObjectHeader, Footer)> = futures::stream::iter(s.0..last.0)
        .map(|seq| footer(stores, wid, Seq(seq)))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    for (header, footer) in &footers {
        let place = ObjectPlace { wid, seq: header.seq, sealed_at: header.sealed_at };
        fold_footer(&mut states, &ends, place, footer);
    }
    for (partition, source) in sources {
        check_released(states.get_mut(partition).expect("every source has a state"), source);
    }
    Ok(states)
}

/// Folds the entries of one object into the partitions whose `ends` lie above it.
pub(crate) fn fold_footer(
    states: &mut States,
    ends: &BTreeMap<TopicPartition, Seq>,
    place: ObjectPlace,
    footer: &Footer,
) {
    for entry in &footer.partitions {
        let within = ends.get(&entry.partition).is_some_and(|end| place.seq < *end);
        if let Some(Ok(state)) = states.get_mut(&entry.partition).filter(|_| within)
            && let Err(error) = state.fold(place, entry)
        {
            states.insert(entry.partition, Err(format!("{}/{}: {error}", place.wid, place.seq)));
        }
    }
    for start in &footer.log_starts {
        let within = ends.get(&start.partition).is_some_and(|end| place.seq < *end);
        if let Some(Ok(state)) = states.get_mut(&start.partition).filter(|_| within)
            && !wrong(Wrong::LogStartNotFolded)
        {
            state.fold_log_start(start.offset);
        }
    }
}

/// A released partition must have been folded up to the end that its record gives.
pub(crate) fn check_released(state: &mut Result<CommittedPartition, String>, source: &Source) {
    if let (Ok(folded), Some(released)) = (&*state, source.record.released)
        && folded.end != released.end
    {
        *state = Err(format!("released at end {}, folded to {}", released.end, folded.end));
    }
}

/// The state from which the fold of one partition starts.
pub(crate) fn start(held: Option<CommittedPartition>, source: &Source, s: Seq) -> Result<CommittedPartition, String> {
    let epoch = source.record.epoch;
    match held {
        None if epoch == LeaderEpoch(1) => Ok(CommittedPartition::born(epoch)),
        None => Err(format!("checkpoint {} lacks a partition of epoch {epoch}", source.wal.ck)),
        Some(state) if state.epoch == epoch => Ok(state),
        // Its owner tried to take it back: same log, nothing was appended at the new epoch.
        Some(mut state)
            if state.epoch.0 == epoch.0 + 1 && source.record.released.is_some_and(|released| s >= released.seq) =>
        {
            state.epoch = epoch;
            let mut epochs = EpochHistory::default();
            state
                .epochs
                .starts()
                .iter()
                .filter(|at| at.epoch <= epoch)
                .for_each(|at| epochs.append(at.epoch, at.start));
            state.epochs = epochs;
            Ok(state)
        }
        Some(state) => Err(format!("checkpoint {} holds epoch {}, not {epoch}", source.wal.ck, state.epoch)),
    }
}

/// The checkpoint with its references attached. Number 0 is empty.
pub(crate) async fn checkpoint(objects: &dyn ObjectStore, wid: Wid, ck: u64) -> Result<Checkpoint, Failure> {
    let mut checkpoint = bare_checkpoint(objects, wid, ck).await?;
    let chunks: Vec<ReferenceChunk> = futures::stream::iter(checkpoint.chunks.clone())
        .map(|name| async move {
            let bytes = object(objects, chunk_key(wid, name.number)).await?;
            ReferenceChunk::decode(&bytes, &name).map_err(broken)
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    for chunk in &chunks {
        checkpoint.attach(chunk).map_err(broken)?;
    }
    checkpoint.check_attached().map_err(broken)?;
    Ok(checkpoint)
}

/// The checkpoint without its references.
pub(crate) async fn bare_checkpoint(objects: &dyn ObjectStore, wid: Wid, ck: u64) -> Result<Checkpoint, Failure> {
    if ck == 0 {
        return Ok(Checkpoint::empty(wid));
    }
    let bytes = object(objects, checkpoint_key(wid, ck)).await?;
    let checkpoint = Checkpoint::decode(&bytes).map_err(broken)?;
    if checkpoint.wid != wid || checkpoint.number != ck {
        return Err(Failure::Broken(format!("checkpoint {ck} of {wid} says it is another")));
    }
    Ok(checkpoint)
}

async fn object(objects: &dyn ObjectStore, key: String) -> Result<Bytes, Failure> {
    let found = objects.get(&key).await?;
    Ok(found.ok_or_else(|| Failure::Broken(format!("{key} is missing")))?.bytes)
}

/// One footer, by suffix: mostly one read.
pub(super) async fn footer(stores: &Stores, wid: Wid, seq: Seq) -> Result<(ObjectHeader, Footer), Failure> {
    let missing = || Failure::Broken(format!("{wid}/{seq} is missing"));
    let mut suffix = stores.wal.suffix(wid, seq, SUFFIX_BYTES).await?.ok_or_else(missing)?;
    let at = suffix
        .bytes
        .len()
        .checked_sub(TRAILER_BYTES)
        .ok_or_else(|| Failure::Broken(format!("{wid}/{seq} ends early")))?;
    let trailer =
        decode_trailer(&suffix.bytes[at..]).map_err(|error| Failure::Broken(format!("{wid}/{seq}: {error}")))?;
    if trailer.object_bytes() != suffix.size {
        return Err(Failure::Broken(format!("{wid}/{seq} has {} bytes, not {}", suffix.size, trailer.object_bytes())));
    }
    if trailer.suffix_bytes() > suffix.bytes.len() as u64 {
        suffix = stores.wal.suffix(wid, seq, trailer.suffix_bytes()).await?.ok_or_else(missing)?;
    }
    let begin = suffix.bytes.len().checked_sub(trailer.suffix_bytes() as usize);
    let begin = begin.ok_or_else(|| Failure::Broken(format!("{wid}/{seq} was cut")))?;
    let bytes = &suffix.bytes[begin..suffix.bytes.len() - TRAILER_BYTES];
    let (header, footer) =
        decode_footer(bytes, &trailer).map_err(|error| Failure::Broken(format!("{wid}/{seq}: {error}")))?;
    if header.wid != wid || header.seq != seq {
        return Err(Failure::Broken(format!("{wid}/{seq} holds {header:?}")));
    }
    Ok((header, footer))
}

fn broken(error: crate::format::FormatError) -> Failure {
    Failure::Broken(error.to_string())
}
