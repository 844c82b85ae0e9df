//! PROTOCOL.md section 7 as a checker: what the bucket alone amounts to must be what the metadata store led to (I10).

use crate::ledger::Ledger;
use crate::truth::read_object;
use millrace_storage::format::PartitionEntry;
use millrace_storage::format::checkpoint::Checkpoint;
use millrace_storage::format::object::ObjectKind;
use millrace_storage::ids::{LeaderEpoch, Offset, Seq, TopicPartition, Wid};
use millrace_storage::partition::CommittedPartition;
use millrace_storage::sim::SimBucket;
use millrace_storage::wrong::{Wrong, wrong};
use std::collections::{BTreeMap, BTreeSet};

/// What one write-ahead log says of one partition; the greatest counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Claim {
    epoch: LeaderEpoch,
    end: Offset,
    log_start: Offset,
}

/// Rebuilds every partition from the bucket and compares with what was recovered through the metadata store.
pub fn check(bucket: &SimBucket, ledger: &Ledger, recovered: &BTreeMap<TopicPartition, CommittedPartition>) {
    let best = rebuild(bucket);
    for (p, state) in recovered {
        let rebuilt = best.get(p).copied();
        let end = rebuilt.map_or(Offset(0), |claim| claim.end);
        assert!(end == state.end, "FINDING I10: {p} ends at {}, rebuilt from the bucket {rebuilt:?}", state.end);
        ledger.check_end(*p, end, "rebuilt from the bucket");
        let log_start = rebuilt.map_or(Offset(0), |claim| claim.log_start);
        assert!(log_start <= state.log_start, "FINDING I10: {p} starts at {}, rebuilt {rebuilt:?}", state.log_start);
    }
}

/// Rebuilds from the bucket at any moment: whatever was readable must be there.
pub fn check_nothing_lost(bucket: &SimBucket, ledger: &Ledger) {
    let best = rebuild(bucket);
    for p in ledger.partitions() {
        let end = best.get(&p).map_or(Offset(0), |claim| claim.end);
        ledger.check_end(p, end, "I10, rebuilt from the bucket");
    }
}

/// Where the log of a partition starts by what the bucket holds now.
pub fn log_start(bucket: &SimBucket, p: TopicPartition) -> Offset {
    rebuild(bucket).get(&p).map_or(Offset(0), |claim| claim.log_start)
}

fn rebuild(bucket: &SimBucket) -> BTreeMap<TopicPartition, Claim> {
    let mut best: BTreeMap<TopicPartition, Claim> = BTreeMap::new();
    for wid in wids(bucket) {
        for (p, claim) in walk(bucket, wid) {
            let highest = best.entry(p).or_insert(claim);
            *highest = claim.max(*highest);
        }
    }
    best
}

fn wids(bucket: &SimBucket) -> BTreeSet<Wid> {
    let named = |key: &String| key.split('/').nth(1)?.parse().ok();
    bucket.keys("wal/").iter().chain(bucket.keys("ckpt/").iter()).filter_map(named).collect()
}

/// The newest checkpoint of a log, and what follows it up to its end.
fn walk(bucket: &SimBucket, wid: Wid) -> BTreeMap<TopicPartition, Claim> {
    let checkpoints = bucket.keys(&format!("ckpt/{wid}/"));
    let newest = checkpoints.iter().filter(|key| !key.ends_with(".refs")).max();
    let checkpoint = newest.map(|key| {
        let bytes = bucket.peek(key).expect("it was listed");
        Checkpoint::decode(&bytes).unwrap_or_else(|e| panic!("FINDING {key}: {e}"))
    });
    let mut seq = checkpoint.as_ref().map_or(Seq(0), |c| c.s);
    let mut claims: BTreeMap<TopicPartition, Claim> = checkpoint
        .into_iter()
        .flat_map(|c| c.partitions)
        .map(|(p, state)| (p, Claim { epoch: state.epoch, end: state.end, log_start: state.log_start }))
        .collect();
    while !wrong(Wrong::RebuildFromCheckpointsOnly) {
        let key = SimBucket::wal_key(wid, seq);
        let Some(bytes) = bucket.peek(&key) else { break };
        let object = read_object(&key, &bytes);
        if object.header.kind == ObjectKind::Fence {
            break;
        }
        object.footer.partitions.iter().for_each(|entry| fold(&mut claims, entry));
        for start in &object.footer.log_starts {
            if let Some(claim) = claims.get_mut(&start.partition) {
                claim.log_start = claim.log_start.max(start.offset.min(claim.end));
            }
        }
        seq = seq.next();
    }
    claims
}

fn fold(claims: &mut BTreeMap<TopicPartition, Claim>, entry: &PartitionEntry) {
    let born = entry.epoch == LeaderEpoch(1) && entry.base == Offset(0);
    if born {
        claims.entry(entry.partition).or_insert(Claim { epoch: entry.epoch, end: Offset(0), log_start: Offset(0) });
    }
    if let Some(claim) = claims.get_mut(&entry.partition)
        && claim.epoch == entry.epoch
        && claim.end == entry.base
    {
        claim.end = entry.last.plus(1);
    }
}
