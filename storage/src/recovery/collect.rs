//! Collection of sealed write-ahead logs that hold nothing any more (PROTOCOL.md, GC of a SEALED WAL).
//!
//! Who still needs a log is read from durable facts, not asked of lanes: the partition records name logs, and the
//! checkpoints of those logs hold every reference into older ones (I5: a claim is made only after a checkpoint that holds
//! the partition with all its references). Between a partition's record and its log's checkpoint the partition may move
//! on, so the records are read again at the end, and a pass in which one changed collects nothing.
//!
//! Invariants:
//! 1. A log that a partition record names, or that a reference of a partition points into, keeps every object.
//! 2. The fence at the end stays for ever.
//! 3. The `/wal` key goes last, [`KEY_STAYS_MS`] after the objects: the record keeps since when, by the wall clock (nothing
//!    needs the key by then, so that a clock that jumps does no harm).
//! 4. A log that can't be collected, or whose record can't be read, is an alarm and keeps none of the others.

use super::Stores;
use super::acquire::{Failure, checkpoint};
use crate::env::Env;
use crate::format::checkpoint::checkpoint_key;
use crate::ids::{Seq, TopicPartition, Wid};
use crate::meta::records::{PartitionRecord, Record, WalRecord, WalState};
use crate::meta::{Compare, Op, Txn, keys};
use crate::store_error::{FailureKind, StoreError};
use crate::wrong::{Wrong, wrong};
use std::collections::{BTreeMap, BTreeSet};

/// How long the `/wal` key of a collected log stays, milliseconds: 24 hours.
const KEY_STAYS_MS: i64 = 24 * 3_600_000;
/// Records read at once.
const PAGE: usize = 120;

/// What one pass did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Logs of which only the fence remains since this pass.
    pub logs: usize,
    /// `/wal` keys removed.
    pub keys: usize,
    /// Logs that stay because something is wrong with them: a person must look.
    pub damaged: usize,
}

/// Collects now and then; one per cluster is enough, several do no harm.
#[derive(Default)]
pub struct Collector {
    /// Logs whose damage was said.
    alarmed: BTreeSet<Wid>,
}

impl Collector {
    /// One pass.
    ///
    /// # Errors
    /// A store failed, or a partition's record can't be read (it may name any log); what was done so far stays done, and
    /// a later pass goes on.
    pub async fn pass(&mut self, env: &Env, stores: &Stores) -> Result<Collected, StoreError> {
        let mut done = Collected::default();
        // In this order: the checkpoint of a log that a record names was there when the record came to name it, so a
        // `/wal` record read later names that one or a newer one, and its references into older logs only get fewer.
        let records = all_partitions(stores).await?;
        let (wals, unreadable) = all_wals(stores).await?;
        for (wid, error) in unreadable {
            self.alarm(&mut done, wid, &error);
        }
        let Some(needed) = needed(stores, &wals, &records).await? else { return Ok(done) };
        if all_partitions(stores).await? != records {
            return Ok(done);
        }
        for (&wid, record) in &wals {
            let WalState::Sealed { end } = record.state else { continue };
            if needed.contains(&wid) {
                continue;
            }
            let key = keys::wal(wid);
            let compares = vec![Compare::Value(key.clone(), record.encode())];
            let op = match record.emptied {
                None => {
                    match empty(stores, wid, end).await {
                        Ok(()) => {}
                        Err(error) if is_damage(&error) => {
                            self.alarm(&mut done, wid, &error.to_string());
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                    done.logs += 1;
                    Op::Put(key, WalRecord { emptied: Some(env.wall().0), ..record.clone() }.encode())
                }
                Some(since) if env.wall().0.saturating_sub(since) >= KEY_STAYS_MS => {
                    done.keys += 1;
                    Op::Delete(key)
                }
                Some(_) => continue,
            };
            stores.meta.txn(Txn { compares, ops: vec![op] }).await?;
        }
        Ok(done)
    }

    fn alarm(&mut self, done: &mut Collected, wid: Wid, error: &str) {
        done.damaged += 1;
        if self.alarmed.insert(wid) {
            tracing::error!(%wid, error, "a sealed write-ahead log can't be collected: something of it is damaged or missing");
        }
    }
}

/// Leaves nothing of a log but its fence.
async fn empty(stores: &Stores, wid: Wid, end: Seq) -> Result<(), StoreError> {
    let kept = if wrong(Wrong::FenceDeleted) { Seq(u64::MAX) } else { end };
    stores.wal.retain_only_fence(wid, kept).await?;
    delete_checkpoints(stores, wid).await
}

/// Whether an error is of this one log; others end a pass, since they meet the next log too.
fn is_damage(error: &StoreError) -> bool {
    matches!(error.kind, FailureKind::Corrupt | FailureKind::Other)
}

/// Logs that partition records name, and those that references of such partitions point into; `None` if a checkpoint
/// changed while it was read.
async fn needed(
    stores: &Stores,
    wals: &BTreeMap<Wid, WalRecord>,
    records: &BTreeMap<TopicPartition, PartitionRecord>,
) -> Result<Option<BTreeSet<Wid>>, StoreError> {
    let named: BTreeSet<Wid> = records.values().map(|record| record.wid).collect();
    let mut needed = if wrong(Wrong::SealedWalCollectedWhileNamed) { BTreeSet::new() } else { named.clone() };
    for wid in named {
        // Its key may have gone with the last record that named it, or it can't be read.
        let Some(wal) = wals.get(&wid) else { return Ok(None) };
        let checkpoint = match checkpoint(stores, wid, wal.ck).await {
            Ok(checkpoint) => checkpoint,
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Broken(detail)) => {
                tracing::warn!(%wid, detail, "nothing is collected while a checkpoint changes or can't be read");
                return Ok(None);
            }
        };
        for (partition, state) in &checkpoint.partitions {
            if records.contains_key(partition) {
                needed.extend(state.references.iter().map(|reference| reference.wid));
            }
        }
    }
    Ok(Some(needed))
}

async fn delete_checkpoints(stores: &Stores, wid: Wid) -> Result<(), StoreError> {
    let folder = checkpoint_key(wid, 0);
    let prefix = &folder[..=folder.rfind('/').expect("the key has a folder")];
    let listed = stores.objects.list(prefix).await?;
    stores.objects.delete(listed.into_iter().map(|object| object.key).collect()).await
}

/// Logs by their records, and those whose record can't be read.
async fn all_wals(stores: &Stores) -> Result<(BTreeMap<Wid, WalRecord>, Vec<(Wid, String)>), StoreError> {
    let (mut wals, mut unreadable) = (BTreeMap::new(), Vec::new());
    let mut after = None;
    loop {
        let page = stores.meta.list(keys::WALS, after, PAGE).await?;
        for (key, value) in &page.entries {
            let wid = keys::parse_wal(key).ok_or_else(|| corrupt(key))?;
            match WalRecord::decode(&value.value) {
                Ok(record) => drop(wals.insert(wid, record)),
                Err(error) => unreadable.push((wid, error.to_string())),
            }
        }
        after = page.entries.last().map(|(key, _)| key.clone());
        if !page.more {
            return Ok((wals, unreadable));
        }
    }
}

async fn all_partitions(stores: &Stores) -> Result<BTreeMap<TopicPartition, PartitionRecord>, StoreError> {
    let mut partitions = BTreeMap::new();
    let mut after = None;
    loop {
        let page = stores.meta.list(keys::PARTITIONS, after, PAGE).await?;
        for (key, value) in &page.entries {
            let partition = keys::parse_partition(key).ok_or_else(|| corrupt(key))?;
            partitions.insert(partition, PartitionRecord::decode(&value.value).map_err(|_| corrupt(key))?);
        }
        after = page.entries.last().map(|(key, _)| key.clone());
        if !page.more {
            return Ok(partitions);
        }
    }
}

fn corrupt(key: &str) -> StoreError {
    StoreError::not_done(FailureKind::Corrupt, format!("record {key}"))
}
