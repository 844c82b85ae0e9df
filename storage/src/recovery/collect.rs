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
//! 3. The `/wal` key goes last, [`KEY_STAYS`] after the objects (counted anew by every process life).

use super::Stores;
use super::acquire::{Failure, checkpoint};
use crate::env::{Env, Mono};
use crate::format::checkpoint::checkpoint_key;
use crate::ids::{TopicPartition, Wid};
use crate::meta::records::{PartitionRecord, Record, WalRecord, WalState};
use crate::meta::{Compare, Op, Txn, keys};
use crate::store_error::{FailureKind, StoreError};
use crate::wrong::{Wrong, wrong};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the `/wal` key of a collected log stays.
pub(super) const KEY_STAYS: Duration = Duration::from_secs(24 * 3600);
/// Records read at once.
const PAGE: usize = 120;

/// What one pass did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Logs of which only the fence remains since this pass.
    pub logs: usize,
    /// `/wal` keys removed.
    pub keys: usize,
}

/// Collects now and then; one per cluster is enough, several do no harm.
#[derive(Default)]
pub struct Collector {
    /// Logs of which only the fence remains, since when.
    emptied: BTreeMap<Wid, Mono>,
}

impl Collector {
    /// One pass.
    ///
    /// # Errors
    /// A store failed; what was done so far stays done, and a later pass goes on.
    pub async fn pass(&mut self, env: &Env, stores: &Stores) -> Result<Collected, StoreError> {
        let mut done = Collected::default();
        // In this order: the checkpoint of a log that a record names was there when the record came to name it, so a
        // `/wal` record read later names that one or a newer one, and its references into older logs only get fewer.
        let records = all_partitions(stores).await?;
        let wals = all_wals(stores).await?;
        let Some(needed) = needed(stores, &wals, &records).await? else { return Ok(done) };
        if all_partitions(stores).await? != records {
            return Ok(done);
        }
        for (&wid, record) in &wals {
            let WalState::Sealed { end } = record.state else { continue };
            if needed.contains(&wid) {
                continue;
            }
            match self.emptied.get(&wid) {
                None => {
                    if wrong(Wrong::FenceDeleted) {
                        stores.wal.retain_only_fence(wid, crate::ids::Seq(u64::MAX)).await?;
                    } else {
                        stores.wal.retain_only_fence(wid, end).await?;
                    }
                    delete_checkpoints(stores, wid).await?;
                    self.emptied.insert(wid, env.now());
                    done.logs += 1;
                }
                Some(&since) if env.now().since(since) >= KEY_STAYS => {
                    let key = keys::wal(wid);
                    let compares = vec![Compare::Value(key.clone(), record.encode())];
                    stores.meta.txn(Txn { compares, ops: vec![Op::Delete(key)] }).await?;
                    self.emptied.remove(&wid);
                    done.keys += 1;
                }
                Some(_) => {}
            }
        }
        Ok(done)
    }
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
        // Its key may have gone with the last record that named it.
        let Some(wal) = wals.get(&wid) else { return Ok(None) };
        let checkpoint = match checkpoint(stores, wid, wal.ck).await {
            Ok(checkpoint) => checkpoint,
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Broken(_)) => return Ok(None),
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

async fn all_wals(stores: &Stores) -> Result<BTreeMap<Wid, WalRecord>, StoreError> {
    let mut wals = BTreeMap::new();
    let mut after = None;
    loop {
        let page = stores.meta.list(keys::WALS, after, PAGE).await?;
        for (key, value) in &page.entries {
            let wid = keys::parse_wal(key).ok_or_else(|| corrupt(key))?;
            wals.insert(wid, WalRecord::decode(&value.value).map_err(|_| corrupt(key))?);
        }
        after = page.entries.last().map(|(key, _)| key.clone());
        if !page.more {
            return Ok(wals);
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
