//! The batches of one partition, in order, from wherever they lie: segments first, then what is in the write-ahead log only.
//!
//! Invariants:
//! 1. Each batch comes once, whole and byte for byte, its checksum found right.
//! 2. Memory is bounded: one piece of a file, one entry of a write-ahead object.

use super::OfflineError;
use super::kafscale::TransferError;
use bytes::Bytes;
use millrace_protocol::records::RecordBatch;
use millrace_storage::compactor::roll;
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::object::ObjectStore;
use millrace_storage::partition::CommittedPartition;
use millrace_storage::recovery::Stores;
use millrace_storage::segment::{SegmentReader, data_key};
use std::ops::{ControlFlow, Range};

/// Whoever takes batches: `key` is where it lies, for errors.
pub(super) trait Take {
    /// Takes the next one; whether more are wanted.
    async fn take(&mut self, key: &str, batch: Bytes) -> Result<ControlFlow<()>, OfflineError>;
}

/// Gives the batches that hold something of `range`.
///
/// # Errors
/// See [`OfflineError`]; or what `to` gave.
pub(super) async fn give(
    stores: &Stores,
    partition: TopicPartition,
    (manifest, state): (&Manifest, &CommittedPartition),
    range: Range<Offset>,
    to: &mut impl Take,
) -> Result<ControlFlow<()>, OfflineError> {
    let Range { start: from, end } = range;
    for named in &manifest.segments {
        if named.segment.last < from || named.segment.base >= end {
            continue;
        }
        let key = data_key(partition, named.name, named.segment.base);
        if segment(&*stores.objects, key, from..end, to).await?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    let rest = state.references.iter().filter(|one| one.base >= manifest.covered);
    for reference in rest.filter(|one| one.last >= from && one.base < end) {
        let key = format!("{}/{}", reference.wid, reference.seq);
        let (_, mut bytes) = roll::read(stores, reference).await.map_err(|error| damaged(&key, &error))?;
        while !bytes.is_empty() {
            let split = RecordBatch::split(&bytes).map_err(|error| damaged(&key, &error))?;
            let (batch, _) = split.ok_or_else(|| damaged(&key, &"a batch is cut off"))?;
            let length = batch.bytes().len();
            if one(&key, bytes.split_to(length), &(from..end), to).await?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Gives the batches of one segment that hold something of `range`.
async fn segment(
    objects: &dyn ObjectStore,
    key: String,
    range: Range<Offset>,
    to: &mut impl Take,
) -> Result<ControlFlow<()>, OfflineError> {
    let mut reader = SegmentReader::open(objects, key.clone(), None).await.map_err(|error| damaged(&key, &error))?;
    while let Some(batches) = reader.next().await.map_err(|error| damaged(&key, &error))? {
        for batch in batches {
            if one(&key, batch.freeze(), &range, to).await?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    reader.finish().map_err(|error| damaged(&key, &error))?;
    Ok(ControlFlow::Continue(()))
}

async fn one(
    key: &str,
    bytes: Bytes,
    range: &Range<Offset>,
    to: &mut impl Take,
) -> Result<ControlFlow<()>, OfflineError> {
    let (batch, _) = RecordBatch::split(&bytes).ok().flatten().expect("whoever cut it out found it whole");
    if Offset(batch.last_offset()) < range.start || Offset(batch.base_offset()) >= range.end {
        return Ok(ControlFlow::Continue(()));
    }
    to.take(key, bytes).await
}

fn damaged(key: &str, error: &dyn ToString) -> TransferError {
    TransferError::Damaged { key: key.to_owned(), detail: error.to_string() }
}
