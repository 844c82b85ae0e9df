//! Whether the metadata store is an older state of what it was: restored from a backup, or copied. It would say that
//! partitions are where they no longer are, and what was acknowledged since would be lost without a word.
//!
//! Found out from the bucket, by facts that no metadata store that kept its transactions can be in contradiction to: a
//! journal number that it has not given out (invariant 1 of [`super`]), and a checkpoint of a log that it does not know,
//! which holds a partition at a later epoch than its record has.

use super::reader::{find, last_given_out};
use crate::control::start::StartError;
use millrace_storage::env::Env;
use millrace_storage::ids::{LeaderEpoch, TopicPartition, Wid};
use millrace_storage::meta::pages::Pages;
use millrace_storage::meta::records::{PartitionRecord, Record};
use millrace_storage::meta::{Key, MAX_TXN_OPS, MetaStore, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::recovery::{RebuildError, last_epochs, logs_with_checkpoints};
use millrace_storage::store_error::StoreError;
use std::collections::{BTreeMap, BTreeSet};

/// What contradicts the metadata store, for people; `None`: nothing that can be seen.
///
/// # Errors
/// A store did not answer, or holds what can't be read.
pub async fn contradiction(
    meta: &dyn MetaStore,
    objects: &dyn ObjectStore,
    base: u64,
) -> Result<Option<String>, RebuildError> {
    // The bucket is looked at first: what is there then, the metadata store knew of before.
    let newest = find(objects).await?.newest();
    let logs = logs_with_checkpoints(objects).await?;
    let (given_out, _) = last_given_out(meta, base).await?;
    if let Some(newest) = newest.filter(|newest| *newest > given_out) {
        return Ok(Some(format!("the journal is at {newest}, the metadata store at {given_out}")));
    }
    let unknown: Vec<Wid> = {
        let known = known_logs(meta).await?;
        logs.into_iter().filter(|wid| !known.contains(wid)).collect()
    };
    for wid in unknown {
        // A log that was collected, perhaps, and a checkpoint of it that came late. A damaged one proves nothing.
        let epochs = match last_epochs(objects, wid).await {
            Ok(epochs) => epochs,
            Err(RebuildError::Broken(_)) => continue,
            Err(error) => return Err(error),
        };
        if let Some((partition, epoch)) = later(meta, &epochs).await? {
            return Ok(Some(format!("log {wid}, which is unknown, has {partition} at epoch {}, a later one", epoch.0)));
        }
    }
    Ok(None)
}

/// Refuses an older state.
pub(crate) async fn not_older(
    env: &Env,
    meta: &dyn MetaStore,
    objects: &dyn ObjectStore,
    base: u64,
) -> Result<(), StartError> {
    let found = crate::control::start::until_answered(env, "the journal", async || {
        contradiction(meta, objects, base).await.or_else(|error| match error {
            RebuildError::Store(error) => Err(error),
            // Whoever needs it will say so.
            RebuildError::Broken(_) | RebuildError::Alive => Ok(None),
        })
    });
    match found.await? {
        Some(detail) => Err(StartError::OlderMetadata(detail)),
        None => Ok(()),
    }
}

async fn known_logs(meta: &dyn MetaStore) -> Result<BTreeSet<Wid>, StoreError> {
    let mut known = BTreeSet::new();
    let mut pages = Pages::of(meta, keys::WALS);
    while let Some(page) = pages.next_page().await? {
        known.extend(page.entries.iter().filter_map(|(key, _)| keys::parse_wal(key)));
    }
    Ok(known)
}

/// A partition that has a record of an earlier epoch.
async fn later(
    meta: &dyn MetaStore,
    epochs: &BTreeMap<TopicPartition, LeaderEpoch>,
) -> Result<Option<(TopicPartition, LeaderEpoch)>, StoreError> {
    let all: Vec<_> = epochs.iter().map(|(partition, epoch)| (*partition, *epoch)).collect();
    for some in all.chunks(MAX_TXN_OPS) {
        let names: Vec<Key> = some.iter().map(|(partition, _)| keys::partition(*partition)).collect();
        let snapshot = meta.get(names).await?;
        for (&(partition, epoch), found) in some.iter().zip(snapshot.values) {
            let record = found.and_then(|found| PartitionRecord::decode(&found.value).ok());
            if record.is_some_and(|record| record.epoch < epoch) {
                return Ok(Some((partition, epoch)));
            }
        }
    }
    Ok(None)
}
