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
//! 5. A checkpoint that can't be read hides what the partitions of its log refer to: any object that holds something of
//!    these partitions may be meant, and nothing else. So it is an alarm, and keeps the logs that hold any such object.

use super::Stores;
use super::acquire::{Failure, PARALLEL, bare_checkpoint, checkpoint, footer};
use crate::env::Env;
use crate::format::HEADER_BYTES;
use crate::format::checkpoint::{Checkpoint, checkpoint_key};
use crate::ids::{Offset, Seq, TopicId, TopicPartition, Wid};
use crate::meta::records::{PartitionRecord, Record, WalRecord, WalState};
use crate::meta::{Compare, MetaStore, Op, Txn, keys};
use crate::store_error::{FailureKind, StoreError};
use crate::wrong::{Wrong, wrong};
use futures::{StreamExt, TryStreamExt};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// How long the `/wal` key of a collected log stays, milliseconds: 24 hours.
const KEY_STAYS_MS: i64 = 24 * 3_600_000;
/// Records read at once.
const PAGE: usize = 120;
/// Times that a checkpoint is looked for while newer ones take its place.
const ROUNDS: u32 = 3;

/// What one pass did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Collected {
    /// Logs of which only the fence remains since this pass.
    pub logs: usize,
    /// `/wal` keys removed.
    pub keys: usize,
    /// Logs with which something is wrong, so that they stay or keep others: a person must look.
    pub damaged: usize,
    /// Logs that stay because a checkpoint that can't be read may refer to them.
    pub held_back: usize,
}

/// What keeps sealed logs.
#[derive(Default)]
struct Needed {
    /// Logs that partition records name, and those that references of such partitions point into.
    logs: BTreeSet<Wid>,
    /// Partitions whose references are not known.
    hidden: BTreeSet<TopicPartition>,
}

/// Collects now and then; one per cluster is enough, several do no harm.
#[derive(Default)]
pub struct Collector {
    /// Logs whose damage was said.
    alarmed: BTreeSet<Wid>,
    /// What sealed logs hold, read only while a checkpoint can't be: it does not change.
    contents: BTreeMap<Wid, BTreeSet<TopicPartition>>,
    topics: BTreeSet<TopicId>,
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
        let records = all_partitions(&*stores.meta).await?;
        self.topics = records.keys().map(|partition| partition.topic).collect();
        let (wals, unreadable) = all_wals(&*stores.meta).await?;
        for (wid, error) in unreadable {
            self.alarm(&mut done, wid, UNCOLLECTED, &error);
        }
        let Some(needed) = self.needed(&mut done, stores, &wals, &records).await? else { return Ok(done) };
        if all_partitions(&*stores.meta).await? != records {
            return Ok(done);
        }
        for (&wid, record) in &wals {
            let WalState::Sealed { end } = record.state else { continue };
            if needed.logs.contains(&wid) {
                continue;
            }
            let key = keys::wal(wid);
            let compares = vec![Compare::Value(key.clone(), record.encode())];
            let op = match record.emptied {
                None => {
                    if self.may_be_meant(stores, (wid, end), &needed.hidden).await? {
                        done.held_back += 1;
                        continue;
                    }
                    match empty(stores, wid, end).await {
                        Ok(()) => {}
                        Err(error) if is_damage(&error) => {
                            self.alarm(&mut done, wid, UNCOLLECTED, &error.to_string());
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

    /// Topics of which the last pass saw a partition's record.
    pub fn topics(&self) -> &BTreeSet<TopicId> {
        &self.topics
    }

    fn alarm(&mut self, done: &mut Collected, wid: Wid, what: &'static str, error: &str) {
        done.damaged += 1;
        if self.alarmed.insert(wid) {
            tracing::error!(%wid, error, "{what}");
        }
    }

    /// Reads what is needed; `None` if a checkpoint changed again and again while it was read.
    async fn needed(
        &mut self,
        done: &mut Collected,
        stores: &Stores,
        wals: &BTreeMap<Wid, WalRecord>,
        records: &BTreeMap<TopicPartition, PartitionRecord>,
    ) -> Result<Option<Needed>, StoreError> {
        let named: BTreeSet<Wid> = records.values().map(|record| record.wid).collect();
        let mut needed = Needed::default();
        for &wid in &named {
            // Its key may have gone with the last record that named it, or it can't be read.
            let Some(wal) = wals.get(&wid) else { return Ok(None) };
            match newest_checkpoint(stores, wid, wal.ck).await? {
                Newest::Changing => return Ok(None),
                Newest::Broken(detail) => {
                    self.alarm(done, wid, HIDES, &detail);
                    let of_it = records.iter().filter(|(_, record)| record.wid == wid);
                    needed.hidden.extend(of_it.map(|(partition, _)| *partition));
                }
                Newest::Read(checkpoint) => {
                    let known = checkpoint.partitions.iter().filter(|(partition, _)| records.contains_key(partition));
                    let references = known.flat_map(|(_, state)| state.references.iter());
                    needed.logs.extend(references.map(|reference| reference.wid));
                }
            }
        }
        if !wrong(Wrong::SealedWalCollectedWhileNamed) {
            needed.logs.extend(named);
        }
        if needed.hidden.is_empty() {
            self.contents.clear();
        }
        self.contents.retain(|wid, _| wals.contains_key(wid));
        Ok(Some(needed))
    }

    /// Whether a log sealed at `end` may hold something that a partition of `hidden` refers to.
    async fn may_be_meant(
        &mut self,
        stores: &Stores,
        (wid, end): (Wid, Seq),
        hidden: &BTreeSet<TopicPartition>,
    ) -> Result<bool, StoreError> {
        if hidden.is_empty() {
            return Ok(false);
        }
        let held = match self.contents.entry(wid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unread) => match contents(stores, wid, end).await {
                Ok(contents) => unread.insert(contents),
                Err(Failure::Store(error)) => return Err(error),
                // Then nobody knows.
                Err(Failure::Broken(_)) => return Ok(true),
            },
        };
        Ok(!held.is_disjoint(hidden))
    }
}

const UNCOLLECTED: &str = "a sealed write-ahead log can't be collected: something of it is damaged or missing";
const HIDES: &str = "a checkpoint can't be read: sealed logs that hold records of its partitions are not collected";

/// The partitions of which a sealed log still holds something.
async fn contents(stores: &Stores, wid: Wid, end: Seq) -> Result<BTreeSet<TopicPartition>, Failure> {
    let listed = stores.wal.list(wid, Seq(0)).await?;
    let data = listed.into_iter().filter(|one| one.seq < end && one.size > HEADER_BYTES as u64);
    let mut footers = futures::stream::iter(data.map(|one| footer(stores, wid, one.seq))).buffered(PARALLEL);
    let mut partitions = BTreeSet::new();
    while let Some((_, footer)) = footers.try_next().await? {
        partitions.extend(footer.partitions.iter().map(|entry| entry.partition));
    }
    Ok(partitions)
}

/// What became of looking for a log's newest checkpoint.
enum Newest {
    Read(Checkpoint),
    /// Its parts went while they were read, more than [`ROUNDS`] times.
    Changing,
    /// It is named still, and can't be read.
    Broken(String),
}

/// Reads checkpoint `ck`, or the newer one that has taken its place: its references into older logs only get fewer.
async fn newest_checkpoint(stores: &Stores, wid: Wid, mut ck: u64) -> Result<Newest, StoreError> {
    for _ in 0..ROUNDS {
        let detail = match checkpoint(&*stores.objects, wid, ck).await {
            Ok(checkpoint) => return Ok(Newest::Read(checkpoint)),
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Broken(detail)) => detail,
        };
        let read = stores.meta.get(vec![keys::wal(wid)]).await?;
        let Some(found) = read.values.first().and_then(Option::as_ref) else { return Ok(Newest::Changing) };
        match WalRecord::decode(&found.value) {
            Ok(record) if record.ck != ck => ck = record.ck,
            _ => return Ok(Newest::Broken(detail)),
        }
    }
    Ok(Newest::Changing)
}

/// Where logs start by the checkpoints of the write-ahead logs that partition records name. That was committed, so that
/// it can only rise. A checkpoint that can't be read says nothing.
///
/// # Errors
/// The store's, or a record can't be read.
pub async fn committed_log_starts(stores: &Stores) -> Result<BTreeMap<TopicPartition, Offset>, StoreError> {
    let records = all_partitions(&*stores.meta).await?;
    let named: BTreeSet<Wid> = records.values().map(|record| record.wid).collect();
    let (wals, _) = all_wals(&*stores.meta).await?;
    let mut starts = BTreeMap::new();
    for (&wid, wal) in wals.iter().filter(|(wid, _)| named.contains(wid)) {
        let checkpoint = match bare_checkpoint(&*stores.objects, wid, wal.ck).await {
            Ok(checkpoint) => checkpoint,
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Broken(_)) => continue,
        };
        for (partition, state) in checkpoint.partitions {
            let start = starts.entry(partition).or_insert(state.log_start);
            *start = state.log_start.max(*start);
        }
    }
    Ok(starts)
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

async fn delete_checkpoints(stores: &Stores, wid: Wid) -> Result<(), StoreError> {
    let folder = checkpoint_key(wid, 0);
    let prefix = &folder[..=folder.rfind('/').expect("the key has a folder")];
    let listed = stores.objects.list(prefix).await?;
    stores.objects.delete(listed.into_iter().map(|object| object.key).collect()).await
}

/// Logs by their records, and those whose record can't be read.
pub(crate) async fn all_wals(
    meta: &dyn MetaStore,
) -> Result<(BTreeMap<Wid, WalRecord>, Vec<(Wid, String)>), StoreError> {
    let (mut wals, mut unreadable) = (BTreeMap::new(), Vec::new());
    let mut after = None;
    loop {
        let page = meta.list(keys::WALS, after, PAGE).await?;
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

/// Every partition's record.
pub(crate) async fn all_partitions(
    meta: &dyn MetaStore,
) -> Result<BTreeMap<TopicPartition, PartitionRecord>, StoreError> {
    let mut partitions = BTreeMap::new();
    let mut after = None;
    loop {
        let page = meta.list(keys::PARTITIONS, after, PAGE).await?;
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
