//! The audit sees what was damaged on purpose, and nothing else.

use bytes::Bytes;
use millrace_sim::audit::audit;
use millrace_sim::lane::{Remains, remains};
use millrace_storage::audit::{Bodies, Finding, Report};
use millrace_storage::format::HEADER_BYTES;
use millrace_storage::format::checkpoint::{Checkpoint, checkpoint_key, chunk_key};
use millrace_storage::ids::Wid;
use millrace_storage::meta::keys;
use millrace_storage::meta::records::{PartitionRecord, Record, WalRecord, WalState};
use millrace_storage::partition::Reference;
use millrace_storage::sim::SimBucket;
use std::collections::BTreeMap;

/// Runs that leave different remains.
const SEEDS: u64 = 24;

fn look(world: &Remains) -> Report {
    audit(&world.bucket, Some(&world.meta), Bodies::Opaque)
}

/// Logs by their records.
fn wals(world: &Remains) -> BTreeMap<Wid, WalRecord> {
    let read = |(key, value): (String, Bytes)| (keys::parse_wal(&key).unwrap(), WalRecord::decode(&value).unwrap());
    world.meta.contents(keys::WALS).into_iter().map(read).collect()
}

/// The logs that partitions are led from, with the checkpoints that their records name.
fn leading(world: &Remains) -> Vec<Checkpoint> {
    let records = world.meta.contents(keys::PARTITIONS).into_iter();
    let mut wids: Vec<Wid> = records.map(|(_, value)| PartitionRecord::decode(&value).unwrap().wid).collect();
    wids.sort_unstable();
    wids.dedup();
    let wals = wals(world);
    let named = wids.into_iter().filter(|wid| wals[wid].ck > 0);
    named
        .map(|wid| Checkpoint::decode(&world.bucket.peek(&checkpoint_key(wid, wals[&wid].ck)).unwrap()).unwrap())
        .collect()
}

/// References that the led partitions still hold, in their chunks.
fn references(world: &Remains) -> Vec<Reference> {
    let mut all = Vec::new();
    for mut checkpoint in leading(world) {
        for name in checkpoint.chunks.clone() {
            let bytes = world.bucket.peek(&chunk_key(checkpoint.wid, name.number)).unwrap();
            let chunk = millrace_storage::format::checkpoint::ReferenceChunk::decode(&bytes, &name).unwrap();
            checkpoint.attach(&chunk).unwrap();
        }
        all.extend(checkpoint.partitions.values().flat_map(|state| state.references.iter().collect::<Vec<_>>()));
    }
    all
}

/// Does one kind of damage wherever the remains allow it, to a fresh world each time; every one must be seen as `expected`.
fn each(targets: fn(&Remains) -> Vec<String>, change: fn(&Bytes) -> Option<Bytes>, expected: fn(&Finding) -> bool) {
    let mut done = 0;
    for seed in 0..SEEDS {
        let world = remains(seed);
        assert_eq!(look(&world).findings, [].into(), "seed {seed} before any damage");
        for key in targets(&world) {
            let before = world.bucket.peek(&key).expect("a target exists");
            world.bucket.damage(&key, change(&before));
            let report = look(&world);
            assert!(report.findings.iter().any(expected), "seed {seed}, {key}: {:?}", report.findings);
            world.bucket.damage(&key, Some(before));
            done += 1;
        }
    }
    assert!(done > SEEDS / 4, "too few runs left something to damage");
}

fn remove(_before: &Bytes) -> Option<Bytes> {
    None
}

/// Another bit in the middle.
fn flip(before: &Bytes) -> Option<Bytes> {
    let mut bytes = before.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Some(bytes.into())
}

/// The same without its last byte.
fn cut(before: &Bytes) -> Option<Bytes> {
    Some(before.slice(..before.len() - 1))
}

fn referenced_objects(world: &Remains) -> Vec<String> {
    let mut keys: Vec<String> = references(world).iter().map(|one| SimBucket::wal_key(one.wid, one.seq)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn named_checkpoints(world: &Remains) -> Vec<String> {
    leading(world).iter().map(|checkpoint| checkpoint_key(checkpoint.wid, checkpoint.number)).collect()
}

fn named_chunks(world: &Remains) -> Vec<String> {
    let names = |one: &Checkpoint| one.chunks.iter().map(|name| chunk_key(one.wid, name.number)).collect::<Vec<_>>();
    leading(world).iter().flat_map(names).collect()
}

fn fences(world: &Remains) -> Vec<String> {
    let ends = wals(world).into_iter().filter_map(|(wid, record)| match record.state {
        WalState::Sealed { end } => Some(SimBucket::wal_key(wid, end)),
        WalState::Open | WalState::Fencing => None,
    });
    ends.collect()
}

#[test]
fn a_referenced_object_that_is_gone_is_missing() {
    each(
        referenced_objects,
        remove,
        |finding| matches!(finding, Finding::Missing { key, .. } if key.starts_with("wal/")),
    );
}

#[test]
fn a_flipped_bit_or_a_lost_byte_anywhere_in_an_object_is_damage() {
    let damaged = |finding: &Finding| matches!(finding, Finding::Damaged { key, .. } if key.starts_with("wal/"));
    each(referenced_objects, flip, damaged);
    each(referenced_objects, cut, damaged);
}

#[test]
fn a_checkpoint_that_is_gone_or_changed_is_told() {
    each(
        named_checkpoints,
        remove,
        |finding| matches!(finding, Finding::Missing { key, .. } if key.starts_with("ckpt/")),
    );
    each(
        named_checkpoints,
        flip,
        |finding| matches!(finding, Finding::Damaged { key, .. } if key.starts_with("ckpt/")),
    );
}

#[test]
fn a_chunk_of_references_that_is_gone_or_changed_is_told() {
    let damaged = |finding: &Finding| matches!(finding, Finding::Damaged { key, .. } if key.starts_with("ckpt/"));
    each(named_chunks, remove, damaged);
    each(named_chunks, flip, damaged);
}

#[test]
fn a_fence_that_is_gone_or_is_none_is_told_though_nothing_else_needs_it() {
    each(fences, remove, |finding| matches!(finding, Finding::NoFence { .. }));
    each(fences, flip, |finding| matches!(finding, Finding::NoFence { .. } | Finding::Damaged { .. }));
}

#[test]
fn the_bucket_alone_shows_what_is_gone_from_the_middle_of_a_sealed_log() {
    let mut done = 0;
    for seed in 0..SEEDS {
        let world = remains(seed);
        let alone = || audit(&world.bucket, None, Bodies::Opaque).findings;
        assert_eq!(alone(), [].into(), "seed {seed}");
        let Some(key) = referenced_objects(&world).into_iter().next() else { continue };
        assert!(world.bucket.peek(&key).is_some_and(|bytes| bytes.len() > HEADER_BYTES));
        world.bucket.damage(&key, None);
        // One above the end of a log that nobody has fenced may have been in flight: then nothing is known to be gone.
        done += u64::from(!alone().is_empty());
    }
    assert!(done > SEEDS / 4, "seen in {done} runs");
}
