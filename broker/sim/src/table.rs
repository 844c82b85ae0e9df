//! How many seeds it takes to catch each mistake.
//!
//! Of PROTOCOL.md section 9 two are missing: *lease trusted for acknowledging* needs a second node, *fold that ignores the
//! epoch* is hidden by other rules ([`HIDDEN`]).

use crate::seeds::{Scenario, run_seed};
use millrace_storage::wrong::Wrong;

/// A switch with its name on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Mistake {
    /// The switch.
    pub wrong: Wrong,
    /// Its name in kebab case.
    pub name: &'static str,
}

const fn mistake(wrong: Wrong, name: &'static str) -> Mistake {
    Mistake { wrong, name }
}

/// The mistakes that one node can make and that are caught within [`BOUND`] seeds of the lane scenario.
pub const ON_ONE_NODE: &[Mistake] = &[
    mistake(Wrong::OverwritingPut, "overwriting-put"),
    mistake(Wrong::AckBeforeDurable, "ack-before-durable"),
    mistake(Wrong::AckOutOfSequenceOrder, "ack-out-of-sequence-order"),
    mistake(Wrong::OwnRetryTakenForFence, "own-retry-taken-for-fence"),
    mistake(Wrong::AmbiguousErrorTakenForSuccess, "ambiguous-error-taken-for-success"),
    mistake(Wrong::FenceWithoutIfAbsent, "fence-without-if-absent"),
    mistake(Wrong::FenceAtFirstGapOfListing, "fence-at-first-gap-of-listing"),
    mistake(Wrong::ScanFromZero, "scan-from-zero"),
    mistake(Wrong::LwNotFrozen, "lw-not-frozen"),
    mistake(Wrong::LowestFenceTakenForEnd, "lowest-fence-taken-for-end"),
    mistake(Wrong::FenceDeleted, "fence-deleted"),
    mistake(Wrong::ObjectDeletedBeforeManifest, "object-deleted-before-manifest"),
    mistake(Wrong::SealedWalCollectedWhileNamed, "sealed-wal-collected-while-named"),
    mistake(Wrong::ClaimWithoutOwnWal, "claim-without-own-wal"),
    mistake(Wrong::ClaimsBeforeCheckpointTxn, "claims-before-checkpoint-txn"),
    mistake(Wrong::UnchangedRecordTakenForLost, "unchanged-record-taken-for-lost"),
    mistake(Wrong::CheckpointTxnGoesBack, "checkpoint-txn-goes-back"),
    mistake(Wrong::CheckpointBetweenClaims, "checkpoint-between-claims"),
    mistake(Wrong::CheckpointOfAppended, "checkpoint-of-appended"),
    mistake(Wrong::CheckpointDropsReleased, "checkpoint-drops-released"),
    mistake(Wrong::ReleaseBySomebodyElse, "release-by-somebody-else"),
    mistake(Wrong::MoveBumpsEpochOnly, "move-bumps-epoch-only"),
    mistake(Wrong::BirthWithoutWal, "birth-without-wal"),
    mistake(Wrong::RebuildFromCheckpointsOnly, "rebuild-from-checkpoints-only"),
    mistake(Wrong::GracefulSealBeforeDrained, "graceful-seal-before-drained"),
    mistake(Wrong::GracefulSealBeforeFence, "graceful-seal-before-fence"),
    mistake(Wrong::DeadVolleyTakenForData, "dead-volley-taken-for-data"),
    mistake(Wrong::WidReopened, "wid-reopened"),
    mistake(Wrong::BytesChangedOnRetry, "bytes-changed-on-retry"),
    mistake(Wrong::DrainedBatchesDropped, "drained-batches-dropped"),
    mistake(Wrong::NoFence, "no-fence"),
    mistake(Wrong::OwnFenceMisread, "own-fence-misread"),
];

/// Mistakes that other rules hide: entries of another epoch are never folded, because they lie below the checkpoint that
/// a take-back brings.
pub const HIDDEN: &[Mistake] = &[mistake(Wrong::FoldIgnoresEpoch, "fold-ignores-epoch")];

/// A mistake by its name.
pub fn by_name(name: &str) -> Option<Wrong> {
    ON_ONE_NODE.iter().chain(HIDDEN).find(|mistake| mistake.name == name).map(|mistake| mistake.wrong)
}

/// Seeds within which each mistake must be found.
pub const BOUND: u64 = 1_000;

/// How a mistake was found: the number of seeds played, and what was seen; `None` if `bound` seeds did not show it.
pub fn seeds_to_catch(mistake: &Mistake, bound: u64) -> Option<(u64, String)> {
    (0..bound).find_map(|seed| {
        let finding = run_seed(Scenario::Lane, seed, Some(mistake.wrong), false).finding?;
        Some((seed + 1, finding))
    })
}
