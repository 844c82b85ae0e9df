//! What the bucket's segments truly hold, and what manifests may say (PROTOCOL.md I8, COMPACT).

use crate::ledger::RecordId;
use crate::truth::ReadIds;
use bytes::Bytes;
use millrace_storage::format::manifest::{Manifest, manifest_key};
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::segment::{FOOTER_BYTES, HEADER_BYTES, data_key, index_key};
use millrace_storage::sim::SimBucket;

/// Whether a segment that the partition's manifest names holds `id` at `offset`.
pub fn hold(bucket: &SimBucket, read_ids: ReadIds, p: TopicPartition, offset: Offset, id: RecordId) -> bool {
    let Some(manifest) = bucket.peek(&manifest_key(p)).map(|bytes| read(&manifest_key(p), &bytes)) else {
        return false;
    };
    let at = manifest.segments.partition_point(|named| named.segment.last < offset);
    let Some(named) = manifest.segments.get(at).filter(|named| named.segment.base <= offset) else { return false };
    let Some(file) = bucket.peek(&data_key(p, named.name, named.segment.base)) else { return false };
    let ids = read_ids(&file.slice(HEADER_BYTES..file.len() - FOOTER_BYTES));
    usize::try_from(offset.0 - named.segment.base.0).ok().and_then(|at| ids.get(at)) == Some(&id)
}

/// A manifest came into being, or took the place of `before`: what it names is there, and no bound went back.
pub fn check_manifest(bucket: &SimBucket, key: &str, before: Option<&Bytes>, after: &Bytes) {
    let next = read(key, after);
    for named in &next.segments {
        let base = named.segment.base;
        let bytes = bucket.peek(&data_key(next.partition, named.name, base)).map_or(0, |file| file.len() as u64);
        assert!(
            bytes == named.segment.bytes,
            "FINDING I8: {key} names a segment at {base} of which {bytes} bytes exist"
        );
        let index = bucket.peek(&index_key(next.partition, named.name, base));
        assert!(index.is_some(), "FINDING I8: {key} names a segment at {base} without an index");
    }
    let Some(before) = before.map(|bytes| read(key, bytes)) else { return };
    let grows = next.covered >= before.covered && next.log_start >= before.log_start;
    assert!(grows, "FINDING {key} goes back from {before:?} to {next:?}");
}

/// An object of a segment was deleted: no manifest names it.
pub fn check_may_go(bucket: &SimBucket, key: &str) {
    for manifest in bucket.keys("man/") {
        let Some(bytes) = bucket.peek(&manifest) else { continue };
        let found = read(&manifest, &bytes);
        let named = found.segments.iter().find(|named| {
            let base = named.segment.base;
            [data_key(found.partition, named.name, base), index_key(found.partition, named.name, base)]
                .iter()
                .any(|one| one == key)
        });
        assert!(named.is_none(), "FINDING I8: {key} was deleted, which {manifest} names as {named:?}");
    }
}

fn read(key: &str, bytes: &Bytes) -> Manifest {
    Manifest::decode(bytes).unwrap_or_else(|error| panic!("FINDING {key}: {error}"))
}
