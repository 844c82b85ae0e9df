//! How many seeds it takes to catch each mistake.

use crate::seeds::{Scenario, run_seed};
use millrace_storage::wrong::Wrong;

/// The mistakes that one node can make, each with the scenario that finds it first.
pub const ON_ONE_NODE: &[(Wrong, &str)] = &[
    (Wrong::OverwritingPut, "overwriting-put"),
    (Wrong::AckBeforeDurable, "ack-before-durable"),
    (Wrong::AckOutOfSequenceOrder, "ack-out-of-sequence-order"),
    (Wrong::OwnRetryTakenForFence, "own-retry-taken-for-fence"),
    (Wrong::AmbiguousErrorTakenForSuccess, "ambiguous-error-taken-for-success"),
    (Wrong::FenceWithoutIfAbsent, "fence-without-if-absent"),
    (Wrong::FenceAtFirstGapOfListing, "fence-at-first-gap-of-listing"),
    (Wrong::ScanFromZero, "scan-from-zero"),
    (Wrong::LwNotFrozen, "lw-not-frozen"),
    (Wrong::LowestFenceTakenForEnd, "lowest-fence-taken-for-end"),
    (Wrong::FenceDeleted, "fence-deleted"),
    (Wrong::SealedWalCollectedWhileNamed, "sealed-wal-collected-while-named"),
    (Wrong::ClaimWithoutOwnWal, "claim-without-own-wal"),
    (Wrong::ClaimsBeforeCheckpointTxn, "claims-before-checkpoint-txn"),
    (Wrong::UnchangedRecordTakenForLost, "unchanged-record-taken-for-lost"),
    (Wrong::CheckpointTxnGoesBack, "checkpoint-txn-goes-back"),
    (Wrong::CheckpointBetweenClaims, "checkpoint-between-claims"),
    (Wrong::CheckpointOfAppended, "checkpoint-of-appended"),
    (Wrong::CheckpointDropsReleased, "checkpoint-drops-released"),
    (Wrong::MoveBumpsEpochOnly, "move-bumps-epoch-only"),
    (Wrong::BirthWithoutWal, "birth-without-wal"),
    (Wrong::RebuildFromCheckpointsOnly, "rebuild-from-checkpoints-only"),
    (Wrong::FoldIgnoresEpoch, "fold-ignores-epoch"),
    (Wrong::GracefulSealBeforeDrained, "graceful-seal-before-drained"),
    (Wrong::GracefulSealBeforeFence, "graceful-seal-before-fence"),
    (Wrong::DeadVolleyTakenForData, "dead-volley-taken-for-data"),
    (Wrong::WidReopened, "wid-reopened"),
    (Wrong::BytesChangedOnRetry, "bytes-changed-on-retry"),
    (Wrong::DrainedBatchesDropped, "drained-batches-dropped"),
    (Wrong::NoFence, "no-fence"),
    (Wrong::OwnFenceMisread, "own-fence-misread"),
];

/// A mistake by its name.
pub fn by_name(name: &str) -> Option<Wrong> {
    ON_ONE_NODE.iter().find(|(_, text)| *text == name).map(|(wrong, _)| *wrong)
}

/// Seeds within which each mistake must be found.
pub const BOUND: u64 = 3_000;

/// How a mistake was found: the number of seeds played, and what was seen; `None` if `bound` seeds did not show it.
pub fn seeds_to_catch(scenario: Scenario, mistake: Wrong, bound: u64) -> Option<(u64, String)> {
    (0..bound).find_map(|seed| {
        let finding = run_seed(scenario, seed, Some(mistake), false).finding?;
        Some((seed + 1, finding))
    })
}
