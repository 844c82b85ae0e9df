//! What of write-ahead logs and checkpoints nothing needs any more, or not yet: by records, checkpoints and listings alone, so
//! that it costs little however much is stored. For people; nobody deletes by it.
//!
//! Invariants:
//! 1. What a partition's log is made of by its record and the checkpoint that this names is not told of.
//! 2. Without records nobody knows which logs have ended: then only what a log's own newest checkpoint lets go is told of.
//!
//! Beside a live process things move: what is told of may be gone, or have been on its way.

use super::walk::AuditStores;
use crate::format::HEADER_BYTES;
use crate::format::checkpoint::{Checkpoint, checkpoint_key, chunk_key};
use crate::ids::{Seq, TopicPartition, Wid};
use crate::meta::records::{PartitionRecord, WalRecord, WalState};
use crate::object::ListedObject;
use crate::recovery::acquire::{Failure, checkpoint};
use crate::recovery::collect::{all_partitions, all_wals};
use crate::store_error::StoreError;
use crate::wal::objects::object_key;
use std::collections::{BTreeMap, BTreeSet};

/// Objects that nothing needs, of one log and for one reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Litter {
    /// The key, of several objects that of the first.
    pub key: String,
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why they are there still, in words.
    pub because: &'static str,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogLitter {
    /// Write-ahead objects, by log and reason.
    pub objects: Vec<Litter>,
    /// Checkpoints and their chunks of references, one by one.
    pub checkpoints: Vec<Litter>,
}

/// The metadata store's records.
struct Records {
    wals: BTreeMap<Wid, WalRecord>,
    partitions: BTreeMap<TopicPartition, PartitionRecord>,
}

/// One log.
struct Log {
    record: Option<WalRecord>,
    /// The checkpoint that counts; `None` if it can't be read.
    checkpoint: Option<Checkpoint>,
    number: u64,
    /// Its folder of checkpoints.
    beside: Vec<ListedObject>,
}

/// Looks at all logs.
///
/// # Errors
/// The store's.
pub async fn log_litter(stores: &AuditStores) -> Result<LogLitter, StoreError> {
    let records = match &stores.meta {
        None => None,
        Some(meta) => Some(Records { partitions: all_partitions(&**meta).await?, wals: all_wals(&**meta).await?.0 }),
    };
    let mut wids: BTreeSet<Wid> = stores.wal.list_wids().await?.into_iter().collect();
    wids.extend(stores.objects.list_directories("ckpt/").await?.iter().filter_map(|name| name.parse::<Wid>().ok()));
    let mut logs = BTreeMap::new();
    for wid in wids {
        let record = records.as_ref().and_then(|records| records.wals.get(&wid)).cloned();
        logs.insert(wid, log(stores, wid, record).await?);
    }
    let needed = records.as_ref().map(|records| needed(records, &logs));
    let mut litter = LogLitter::default();
    for (&wid, log) in &logs {
        let ended = needed.as_ref().is_some_and(|needed| !needed.contains(&wid) && log.is_over());
        litter.checkpoints.extend(log.checkpoints(wid, ended));
        let lw = log.record.as_ref().map(|record| record.lw).or(log.checkpoint.as_ref().map(|one| one.lw));
        let mut found: BTreeMap<&'static str, Litter> = BTreeMap::new();
        for listed in stores.wal.list(wid, Seq(0)).await? {
            let fence = listed.size <= HEADER_BYTES as u64;
            let Some(because) = log.judge(listed.seq, fence, lw.unwrap_or(Seq(0)), ended) else { continue };
            let key = object_key(wid, listed.seq);
            let sum = found.entry(because).or_insert(Litter { key, count: 0, bytes: 0, because });
            (sum.count, sum.bytes) = (sum.count + 1, sum.bytes + listed.size);
        }
        litter.objects.extend(found.into_values());
    }
    Ok(litter)
}

async fn log(stores: &AuditStores, wid: Wid, record: Option<WalRecord>) -> Result<Log, StoreError> {
    let folder = checkpoint_key(wid, 0);
    let folder = &folder[..=folder.rfind('/').expect("the key has a folder")];
    let beside = stores.objects.list(folder).await?;
    let numbers = beside.iter().filter_map(|object| object.key.strip_prefix(folder)?.parse::<u64>().ok());
    let number = record.as_ref().map_or(numbers.max().unwrap_or(0), |record| record.ck);
    let checkpoint = match checkpoint(&*stores.objects, wid, number).await {
        Ok(read) => Some(read),
        Err(Failure::Broken(_)) => None,
        Err(Failure::Store(error)) => return Err(error),
    };
    Ok(Log { record, checkpoint, number, beside })
}

/// Logs that records name or that a reference of a partition leads into: all, if a checkpoint that may refer to them can't
/// be read.
fn needed(records: &Records, logs: &BTreeMap<Wid, Log>) -> BTreeSet<Wid> {
    let mut needed: BTreeSet<Wid> = records.partitions.values().map(|record| record.wid).collect();
    for wid in needed.clone() {
        let Some(checkpoint) = logs.get(&wid).and_then(|log| log.checkpoint.as_ref()) else {
            return logs.keys().copied().collect();
        };
        let known = checkpoint.partitions.iter().filter(|(partition, _)| records.partitions.contains_key(partition));
        needed.extend(known.flat_map(|(_, state)| state.references.iter()).map(|reference| reference.wid));
    }
    needed
}

impl Log {
    /// Whether its record says that it has ended, or went with its last object.
    fn is_over(&self) -> bool {
        self.record.as_ref().is_none_or(|record| matches!(record.state, WalState::Sealed { .. }))
    }

    /// Why nothing needs an object; `None` if something does.
    fn judge(&self, seq: Seq, fence: bool, lw: Seq, ended: bool) -> Option<&'static str> {
        let end = match self.record.as_ref().map(|record| &record.state) {
            Some(WalState::Sealed { end }) => Some(*end),
            _ => None,
        };
        match end {
            Some(end) if seq > end => Some("beyond the end of their log"),
            // The fence at the end stays for ever.
            Some(end) if seq == end => None,
            // So does that of a log whose record has gone.
            None if ended && fence => None,
            _ if ended => Some("nothing of their log is needed any more"),
            _ if seq < lw => Some("below the low-water mark of their log"),
            _ => None,
        }
    }

    fn checkpoints(&self, wid: Wid, ended: bool) -> Vec<Litter> {
        let mut kept = BTreeSet::from([checkpoint_key(wid, self.number)]);
        let chunks = self.checkpoint.iter().flat_map(|checkpoint| &checkpoint.chunks);
        kept.extend(chunks.map(|chunk| chunk_key(wid, chunk.number)));
        let unreadable = self.checkpoint.is_none();
        let litter = self.beside.iter().filter(|one| ended || !(unreadable || kept.contains(&one.key)));
        let newer = checkpoint_key(wid, self.number);
        let because = |key: &str| {
            if ended {
                "nothing of its log is needed any more"
            } else if key > newer.as_str() {
                "no record names it: it is on its way, or its writer failed"
            } else {
                "a newer checkpoint has taken its place"
            }
        };
        litter
            .map(|one| Litter { key: one.key.clone(), count: 1, bytes: one.size, because: because(&one.key) })
            .collect()
    }
}
