//! What the bucket alone says of partitions, nothing changed: as a rebuild folds it, without ending any log.
//!
//! Invariants:
//! 1. Of each log only what is durable without a gap before it counts, up to its fence: committed, whether or not its lane
//!    knows it yet.
//!
//! Beside a live process the parts of what is read may go meanwhile, which is an error: read again.

use super::Stores;
use super::log_fold::Best;
use super::rebuild::{RebuildError, fold_start, fold_to, logs, newest_checkpoint};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, TopicPartition};
use crate::partition::CommittedPartition;
use std::collections::BTreeMap;

/// The state of those partitions that are `wanted` and not empty. The metadata of `stores` are not looked at.
///
/// # Errors
/// See [`RebuildError`].
pub async fn observe(
    stores: &Stores,
    wanted: impl Fn(TopicPartition) -> bool,
) -> Result<BTreeMap<TopicPartition, CommittedPartition>, RebuildError> {
    let mut best = Best::default();
    for wid in logs(stores).await? {
        let newest = newest_checkpoint(&*stores.objects, wid).await?;
        let (_, mut fold) = fold_start(&*stores.objects, wid, newest).await?;
        let listed = stores.wal.list(wid, fold.next()).await?;
        let data = (fold.next().0..)
            .zip(&listed)
            .take_while(|(seq, one)| one.seq == Seq(*seq) && one.size > HEADER_BYTES as u64);
        let end = Seq(fold.next().0 + data.count() as u64);
        fold_to(stores, wid, &mut fold, end).await?;
        best.add(fold);
    }
    if let Some((partition, flaw)) = best.flaws().find(|(partition, _)| wanted(*partition)) {
        return Err(RebuildError::Broken(format!("the log of {partition} has a gap: {}", flaw.detail)));
    }
    let states = best.partitions.into_iter().map(|(partition, (_, state))| (partition, state));
    Ok(states.filter(|(partition, _)| wanted(*partition)).collect())
}
