//! The journal as a checker: it is never ahead of the metadata store, what it holds can be read, and no older state of the
//! metadata store passes for the newest.

use millrace_broker::journal::check::contradiction;
use millrace_storage::format::snapshot::{MetaSnapshot, SNAPSHOTS, parse_snapshot_key};
use millrace_storage::meta::{Key, MAX_TXN_OPS, MetaStore, Op, Txn, keys};
use millrace_storage::sim::{Faults, Sim, SimBucket, SimMeta};
use std::time::Duration;

/// Within which whoever writes the journal has left a mark of what was placed, when nothing fails.
const MARKED_WITHIN: Duration = Duration::from_secs(10);

/// What a backup of the metadata store holds.
pub type Backup = Vec<(Key, bytes::Bytes)>;

/// Takes one.
pub fn backup(meta: &SimMeta) -> Backup {
    meta.contents(keys::ALL)
}

/// At any moment.
pub fn check(bucket: &SimBucket, meta: &SimMeta) {
    let given_out = meta.peek(keys::JOURNAL).and_then(|value| std::str::from_utf8(&value).ok()?.parse::<u64>().ok());
    for key in bucket.keys(SNAPSHOTS) {
        let (number, _) = parse_snapshot_key(&key).unwrap_or_else(|| panic!("FINDING journal: {key} is no key of it"));
        assert!(Some(number) <= given_out, "FINDING journal: {key} is in the bucket, {given_out:?} was given out");
        let bytes = bucket.peek(&key).expect("it was listed");
        let read = MetaSnapshot::decode(&bytes).unwrap_or_else(|error| panic!("FINDING journal: {key}: {error}"));
        assert!(read.head.number == number, "FINDING journal: {key} says that it is {}", read.head.number);
    }
}

/// When nothing fails any more: whoever started on one of `backups` would be refused, if anything was placed since; on the
/// metadata store as it is, nobody is.
pub async fn check_backups(sim: &Sim, bucket: &SimBucket, meta: &SimMeta, backups: Vec<Backup>) {
    let placed = meta.contents(keys::PARTITIONS);
    sim.sleep(MARKED_WITHIN).await;
    let found = contradiction(meta, bucket, 0).await.expect("nothing fails any more");
    assert!(found.is_none(), "FINDING journal: the metadata store as it is would be refused: {found:?}");
    for backup in backups {
        let theirs: Backup = backup.iter().filter(|(key, _)| key.starts_with(keys::PARTITIONS)).cloned().collect();
        if theirs == placed {
            continue;
        }
        let older = SimMeta::new(sim, Faults::none());
        for some in backup.chunks(MAX_TXN_OPS) {
            let ops = some.iter().map(|(key, value)| Op::Put(key.clone(), value.clone())).collect();
            older.txn(Txn { compares: Vec::new(), ops }).await.expect("this store has no faults");
        }
        let found = contradiction(&older, bucket, 0).await.expect("nothing fails any more");
        assert!(found.is_some(), "FINDING journal: an older metadata store passes for the newest");
    }
}
