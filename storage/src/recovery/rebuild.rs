//! The metadata store rebuilt from the bucket alone (PROTOCOL.md section 7): logs, partitions and producer ids. Whoever
//! calls it has made the prefix belong to the new, empty metadata store, and brings the topics back.
//!
//! Invariants:
//! 1. Every log that is found is ended, its fence seen, before its fold counts; logs are looked for until none is new, so
//!    that a process that was overlooked and goes on in another log is ended there too.
//! 2. The records name one log of the rebuild's own. Its checkpoint holds every partition, at one epoch more than any log
//!    knows, and is stored, and the log sealed, before a record names it (I5, I7).
//! 3. What of the bucket can't be read, or leaves a gap, stops the rebuild: nothing is passed over.
//! 4. Nothing of the bucket is replaced or deleted. A rebuild that was cut off is made again from the start, into another
//!    new metadata store; it finds the log of the first as one of many.

use super::acquire::{Failure, PARALLEL, bare_checkpoint, checkpoint, footer};
use super::log_fold::{Best, LogFold};
use super::{Stores, rebuild_segments, seal};
use crate::env::Env;
use crate::format::HEADER_BYTES;
use crate::format::checkpoint::{Checkpoint, ReferenceChunk, checkpoint_key, chunk_key};
use crate::ids::{BootId, LeaderEpoch, Seq, ShardIndex, TopicPartition, Wid};
use crate::lane::CHUNK_REFERENCES;
use crate::meta::records::{PartitionRecord, RECORD_VERSION, Record, WalRecord, WalState};
use crate::meta::{Compare, Key, MAX_TXN_OPS, Op, Txn, keys};
use crate::object::ObjectStore;
use crate::partition::{CommittedPartition, ObjectPlace};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::Listed;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Times that one write is tried.
const TRIES: u32 = 40;
/// Between two tries.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// Times that logs are looked for: a process that goes on in ever new logs is not stopped.
const ROUNDS: u32 = 20;
/// Keys that are made in one transaction at most: each is compared too, and whoever wraps the store compares one more.
pub const NEW_AT_ONCE: usize = (MAX_TXN_OPS - 1) / 2;
/// Name of the broker in the records of what it left.
const BROKER: &str = "recover";

/// What was rebuilt.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Rebuilt {
    /// Partitions with what they held; each has a record now.
    pub partitions: BTreeMap<TopicPartition, CommittedPartition>,
    /// First producer id above all that any log knows of.
    pub producer_ids: i64,
    /// Logs that were ended, or had been.
    pub logs: usize,
}

/// Why nothing could be rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RebuildError {
    /// A store failed for long.
    #[error("a store does not answer: {0}; check that it runs and can be reached")]
    Store(#[from] StoreError),
    /// Something can't be read or is not whole.
    #[error("{0}; `millrace audit` lists all that is damaged or missing")]
    Broken(String),
    /// New logs came again and again.
    #[error("another process opens new logs while this one ends them; stop it")]
    Alive,
}

impl From<Failure> for RebuildError {
    fn from(failure: Failure) -> RebuildError {
        match failure {
            Failure::Store(error) => RebuildError::Store(error),
            Failure::Broken(detail) => RebuildError::Broken(detail),
        }
    }
}

/// Rebuilds the records of logs, and of those partitions that are `wanted`, in the empty metadata store of `stores`.
///
/// # Errors
/// See [`RebuildError`]: the metadata store is unfinished then, and of no use.
pub async fn rebuild(
    env: &Env,
    stores: &Stores,
    boot: BootId,
    wanted: impl Fn(TopicPartition) -> bool,
) -> Result<Rebuilt, RebuildError> {
    let mut best = Best::default();
    let mut known = BTreeSet::new();
    for round in 0.. {
        let found = logs(stores).await?;
        let new: Vec<Wid> = found.into_iter().filter(|wid| known.insert(*wid)).collect();
        if new.is_empty() {
            break;
        }
        if round == ROUNDS {
            return Err(RebuildError::Alive);
        }
        for wid in new {
            best.add(end_and_fold(env, stores, boot, wid).await?);
        }
    }
    if let Some((partition, flaw)) = best.flaws().find(|(partition, _)| wanted(*partition)) {
        return Err(RebuildError::Broken(format!("the log of {partition} has a gap: {}", flaw.detail)));
    }
    let mut rebuilt = Rebuilt { logs: known.len(), producer_ids: best.producer_ids, ..Rebuilt::default() };
    for (partition, (_, state)) in best.partitions.into_iter().filter(|(partition, _)| wanted(*partition)) {
        let ids = state.producers.iter().map(|(id, _)| id.saturating_add(1));
        rebuilt.producer_ids = ids.fold(rebuilt.producer_ids, i64::max);
        rebuilt.partitions.insert(partition, state.next_epoch());
    }
    rebuild_segments::cover(&*stores.objects, &mut rebuilt.partitions, &wanted).await?;
    adopt(env, stores, boot, &rebuilt).await?;
    Ok(rebuilt)
}

/// Makes records of the partitions of `rebuilt`, at the epochs that it gives them, none of which may have a record: they
/// name a new log that holds no data, whose checkpoint holds them all (invariant 2).
///
/// # Errors
/// A store failed for long.
pub async fn adopt(env: &Env, stores: &Stores, boot: BootId, rebuilt: &Rebuilt) -> Result<(), RebuildError> {
    if rebuilt.partitions.is_empty() {
        return Ok(());
    }
    let wid = Wid(env.random_u128());
    open_own(env, stores, boot, wid, rebuilt).await?;
    let epochs = rebuilt.partitions.iter().map(|(partition, state)| (*partition, state.epoch));
    Ok(lead_from(env, stores, wid, epochs.collect()).await?)
}

/// Logs that have checkpoints, or had.
///
/// # Errors
/// The store did not answer.
pub async fn logs_with_checkpoints(objects: &dyn ObjectStore) -> Result<BTreeSet<Wid>, StoreError> {
    let folders = objects.list_directories("ckpt/").await?;
    Ok(folders.iter().filter_map(|name| name.parse::<Wid>().ok()).collect())
}

/// The epochs of the partitions in a log's newest checkpoint.
///
/// # Errors
/// The store did not answer, or the checkpoint can't be read.
pub async fn last_epochs(
    objects: &dyn ObjectStore,
    wid: Wid,
) -> Result<BTreeMap<TopicPartition, LeaderEpoch>, RebuildError> {
    let newest = newest_checkpoint(objects, wid).await?;
    let checkpoint = bare_checkpoint(objects, wid, newest).await?;
    Ok(checkpoint.partitions.iter().map(|(partition, state)| (*partition, state.epoch)).collect())
}

/// Everything under `wal/` or `ckpt/`.
pub(super) async fn logs(stores: &Stores) -> Result<BTreeSet<Wid>, StoreError> {
    let mut wids: BTreeSet<Wid> = stores.wal.list_wids().await?.into_iter().collect();
    wids.extend(logs_with_checkpoints(&*stores.objects).await?);
    Ok(wids)
}

/// The newest checkpoint of a log, its end, and the fold of what lies between.
async fn end_and_fold(env: &Env, stores: &Stores, boot: BootId, wid: Wid) -> Result<LogFold, RebuildError> {
    let newest = newest_checkpoint(&*stores.objects, wid).await?;
    let listed = stores.wal.list(wid, Seq(0)).await?;
    let fences = listed.iter().filter(|one| one.size == HEADER_BYTES as u64).count();
    if newest == 0 && fences == listed.len() && listed.first().is_some_and(|fence| fence.seq > Seq(0)) {
        // Collected: it holds nothing, and the fence that stayed is its end for ever.
        return Ok(LogFold::new(Checkpoint::empty(wid)));
    }
    let (lw, mut fold) = fold_start(&*stores.objects, wid, newest).await?;
    let record = WalRecord {
        v: RECORD_VERSION,
        broker: BROKER.to_owned(),
        boot: BootId(0),
        lane: 0,
        state: WalState::Open,
        ck: newest,
        lw,
        emptied: None,
    };
    put_new(env, stores, vec![(keys::wal(wid), record.encode())]).await?;
    let end = seal(env, stores, boot, wid).await?;
    let fence = |one: &&Listed| one.size == HEADER_BYTES as u64 && one.seq >= end;
    let lowest = listed.iter().filter(fence).map(|one| one.seq).min();
    if lowest.is_some_and(|fence| fence > end) {
        // Perhaps half collected. The fence that stood above must stay, so the log is left as it is: without a record
        // nobody collects it.
        delete(env, stores, keys::wal(wid)).await?;
    }
    fold_to(stores, wid, &mut fold, end).await?;
    Ok(fold)
}

/// The low-water mark of a log and its fold, as far as checkpoint `newest` goes.
pub(super) async fn fold_start(
    objects: &dyn ObjectStore,
    wid: Wid,
    newest: u64,
) -> Result<(Seq, LogFold), RebuildError> {
    match checkpoint(objects, wid, newest).await {
        Ok(checkpoint) => Ok((checkpoint.lw, LogFold::new(checkpoint))),
        Err(Failure::Broken(detail)) => {
            let bare = bare_checkpoint(objects, wid, newest).await?;
            Ok((bare.lw, LogFold::without_references(bare, &detail)))
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Folds all objects below `end`.
pub(super) async fn fold_to(stores: &Stores, wid: Wid, fold: &mut LogFold, end: Seq) -> Result<(), RebuildError> {
    let footers = futures::stream::iter((fold.next().0..end.0).map(Seq));
    let mut footers = footers.map(|seq| footer(stores, wid, seq)).buffered(PARALLEL);
    while let Some((header, footer)) = footers.try_next().await? {
        fold.fold(ObjectPlace { wid, seq: header.seq, sealed_at: header.sealed_at }, &footer);
    }
    Ok(())
}

/// Number of a log's newest checkpoint; 0 is none.
pub(super) async fn newest_checkpoint(objects: &dyn ObjectStore, wid: Wid) -> Result<u64, StoreError> {
    let any = checkpoint_key(wid, 0);
    let folder = &any[..=any.rfind('/').expect("the key has a folder")];
    let listed = objects.list(folder).await?;
    let numbers = listed.iter().filter_map(|object| object.key.strip_prefix(folder)?.parse::<u64>().ok());
    Ok(numbers.max().unwrap_or(0))
}

/// The rebuild's own log: no data, one checkpoint that holds everything, a fence at its start.
async fn open_own(env: &Env, stores: &Stores, boot: BootId, wid: Wid, rebuilt: &Rebuilt) -> Result<(), RebuildError> {
    let mut chunks = Vec::new();
    for (number, chunk) in (1..).zip(chunked(&rebuilt.partitions)) {
        let (name, bytes) = chunk.encode(number);
        put_object(env, &*stores.objects, chunk_key(wid, number), vec![bytes]).await?;
        chunks.push(name);
    }
    let number = chunks.len().max(1) as u64;
    let checkpoint = Checkpoint {
        number,
        producer_id_high_water: rebuilt.producer_ids,
        chunks,
        partitions: rebuilt.partitions.clone(),
        ..Checkpoint::empty(wid)
    };
    put_object(env, &*stores.objects, checkpoint_key(wid, number), vec![checkpoint.encode()]).await?;
    let record = WalRecord {
        v: RECORD_VERSION,
        broker: BROKER.to_owned(),
        boot,
        lane: 0,
        state: WalState::Open,
        ck: number,
        lw: Seq(0),
        emptied: None,
    };
    put_new(env, stores, vec![(keys::wal(wid), record.encode())]).await?;
    let end = seal(env, stores, boot, wid).await?;
    assert!(end == Seq(0), "invariant 2: nobody else knows this log, and it holds no data");
    Ok(())
}

/// All references, in chunks of at most [`CHUNK_REFERENCES`].
fn chunked(partitions: &BTreeMap<TopicPartition, CommittedPartition>) -> Vec<ReferenceChunk> {
    let mut chunks = Vec::new();
    let (mut chunk, mut count) = (ReferenceChunk::default(), 0);
    for (&partition, state) in partitions {
        for reference in state.references.iter() {
            chunk.partitions.entry(partition).or_default().push(reference);
            count += 1;
            if count == CHUNK_REFERENCES {
                chunks.push(std::mem::take(&mut chunk));
                count = 0;
            }
        }
    }
    if count > 0 {
        chunks.push(chunk);
    }
    chunks
}

/// Records that name the log.
async fn lead_from(
    env: &Env,
    stores: &Stores,
    wid: Wid,
    epochs: Vec<(TopicPartition, LeaderEpoch)>,
) -> Result<(), StoreError> {
    let (shard, born) = (ShardIndex(0), env.wall().0);
    for some in epochs.chunks(NEW_AT_ONCE) {
        let record = |epoch| PartitionRecord { v: RECORD_VERSION, epoch, wid, shard, born, released: None };
        let records = some.iter().map(|&(partition, epoch)| (keys::partition(partition), record(epoch).encode()));
        put_new(env, stores, records.collect()).await?;
    }
    Ok(())
}

/// Makes keys that are not there, in one transaction. Nobody else writes this store: if they are there, they are ours.
///
/// # Errors
/// The store failed for long; the keys may be there all the same.
pub async fn put_new(env: &Env, stores: &Stores, records: Vec<(Key, Bytes)>) -> Result<(), StoreError> {
    let compares = records.iter().map(|(key, _)| Compare::Absent(key.clone())).collect();
    let ops = records.into_iter().map(|(key, value)| Op::Put(key, value)).collect();
    let txn = Txn { compares, ops };
    patiently(env, async || stores.meta.txn(txn.clone()).await.map(drop)).await
}

async fn delete(env: &Env, stores: &Stores, key: Key) -> Result<(), StoreError> {
    let txn = Txn { compares: Vec::new(), ops: vec![Op::Delete(key)] };
    patiently(env, async || stores.meta.txn(txn.clone()).await.map(drop)).await
}

/// Puts an object whose key is new and this caller's own: one that is there is the one of an earlier try.
///
/// # Errors
/// The store failed for long; the object may be there all the same.
pub async fn put_object(
    env: &Env,
    objects: &dyn ObjectStore,
    key: String,
    slices: Vec<Bytes>,
) -> Result<(), StoreError> {
    patiently(env, async || objects.put_own(&key, slices.clone()).await).await
}

async fn patiently(env: &Env, mut step: impl AsyncFnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
    let mut last = StoreError::unknown(FailureKind::Timeout, "nothing was tried");
    for _ in 0..TRIES {
        match step().await {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
        env.sleep(TRY_AGAIN_AFTER).await;
    }
    Err(last)
}
