//! EXPIRE: a manifest lets go of the segments that lie wholly below the log start.

use super::manifest;
use crate::env::Env;
use crate::format::manifest::{Manifest, SegmentName};
use crate::ids::{Offset, TopicPartition};
use crate::object::ObjectStore;
use crate::store_error::StoreError;

/// Raises the manifest's log start to `log_start`, a committed one, and gives the segments that it names no more. A
/// manifest that names none below stays as it is: bounds alone are not worth a request.
///
/// # Errors
/// The store's; it may have happened all the same.
pub async fn expire(
    env: &Env,
    objects: &dyn ObjectStore,
    partition: TopicPartition,
    log_start: Offset,
) -> Result<Vec<SegmentName>, StoreError> {
    let (before, after) =
        manifest::change(env, objects, partition, |manifest| without_expired(manifest, log_start)).await?;
    let kept = |name: SegmentName| after.manifest.segments.iter().any(|named| named.name == name);
    Ok(before.manifest.segments.iter().map(|named| named.name).filter(|name| !kept(*name)).collect())
}

/// The manifest without what lies wholly below `log_start`; `None` if it names nothing there.
pub fn without_expired(manifest: &Manifest, log_start: Offset) -> Option<Manifest> {
    let gone = manifest.segments.partition_point(|named| named.segment.last < log_start);
    if gone == 0 {
        return None;
    }
    let mut next = manifest.clone();
    next.segments.drain(..gone);
    next.log_start = next.log_start.max(log_start);
    Some(next)
}
