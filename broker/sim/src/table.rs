//! How many seeds it takes to catch each mistake: those of PROTOCOL.md section 9, and others that concern segments, log
//! starts, divided requests and what a process knows of others, each in the scenario where it shows.
//!
//! Of PROTOCOL.md section 9 one is missing: *fold that ignores the epoch* is hidden by other rules ([`HIDDEN`]).

use crate::seeds::{Scenario, run_seed};
use millrace_storage::wrong::Wrong;

/// A switch with its name on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Mistake {
    /// The switch.
    pub wrong: Wrong,
    /// Its name in kebab case.
    pub name: &'static str,
    /// Where it shows.
    pub scenario: Scenario,
}

const fn mistake(wrong: Wrong, name: &'static str) -> Mistake {
    Mistake { wrong, name, scenario: Scenario::Lane }
}

const fn of_nodes(wrong: Wrong, name: &'static str) -> Mistake {
    Mistake { wrong, name, scenario: Scenario::Node }
}

const fn of_shared_ports(wrong: Wrong, name: &'static str) -> Mistake {
    Mistake { wrong, name, scenario: Scenario::SharedPort }
}

const fn of_clusters(wrong: Wrong, name: &'static str) -> Mistake {
    Mistake { wrong, name, scenario: Scenario::Cluster }
}

/// The mistakes that are caught within [`BOUND`] seeds of their scenario.
pub const CAUGHT: &[Mistake] = &[
    mistake(Wrong::OverwritingPut, "overwriting-put"),
    mistake(Wrong::AckBeforeDurable, "ack-before-durable"),
    mistake(Wrong::AckOutOfSequenceOrder, "ack-out-of-sequence-order"),
    mistake(Wrong::OwnRetryTakenForFence, "own-retry-taken-for-fence"),
    mistake(Wrong::AmbiguousErrorTakenForSuccess, "ambiguous-error-taken-for-success"),
    mistake(Wrong::FenceWithoutIfAbsent, "fence-without-if-absent"),
    mistake(Wrong::FenceAtFirstGapOfListing, "fence-at-first-gap-of-listing"),
    mistake(Wrong::ScanFromZero, "scan-from-zero"),
    mistake(Wrong::ScanFromAboveS, "scan-from-above-s"),
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
    of_nodes(Wrong::SegmentDeletedOnSight, "segment-deleted-on-sight"),
    of_nodes(Wrong::LogStartNotFolded, "log-start-not-folded"),
    mistake(Wrong::MergeDropsABatch, "merge-drops-a-batch"),
    mistake(Wrong::MergeDeletesFirst, "merge-deletes-first"),
    mistake(Wrong::MergeComparesLateVersion, "merge-compares-late-version"),
    of_nodes(Wrong::RollComparesLateVersion, "roll-compares-late-version"),
    of_shared_ports(Wrong::PartAckedBeforeDurable, "part-acked-before-durable"),
    of_shared_ports(Wrong::PartsMixedUp, "parts-mixed-up"),
    of_clusters(Wrong::LeaseTrusted, "lease-trusted"),
    of_clusters(Wrong::LateReadTakenForNewest, "late-read-taken-for-newest"),
    of_clusters(Wrong::LeaseKeptWhileStuck, "lease-kept-while-stuck"),
    of_clusters(Wrong::UnknownTopicTakenForGone, "unknown-topic-taken-for-gone"),
    of_clusters(Wrong::BirthWithoutTopic, "birth-without-topic"),
];

/// A mistake of PROTOCOL.md section 9 that no run can show.
#[derive(Clone, Copy, Debug)]
pub struct Hidden {
    /// The switch.
    pub mistake: Mistake,
    /// Why.
    pub because: &'static str,
}

/// Mistakes that nothing shows here.
///
/// `fold-ignores-epoch` makes a fold take entries of any epoch. It changes nothing as long as no fold of a partition at
/// epoch e meets an entry of another epoch, and the other rules of section 4 see to that, on any number of nodes, since
/// all of them are about one log, which has one lane:
/// 1. A log holds entries of a partition at e > 1 only after a checkpoint of that log that holds it at e or was taken to
///    acquire it; that checkpoint's S is a commit point, and folds start at the S of it or of a newer one (`ck` only
///    grows). An epoch f < e of the same log ended by a release, which waits until all entries of f are below the commit
///    point, so that they lie below that S. (An epoch that ended by SEAL is followed by none in that log.)
/// 2. Entries at f > e are appended once the record names f. A fold at e reads a record that says e: it is released, and
///    the fold ends at the released sequence, below which all is older; or its log is sealed, and a later epoch of the
///    same log would have changed the record before the seal.
/// 3. A born partition (epoch 1, not in `ck`) has no earlier epoch, and ids of topics are never used again.
/// 4. The live fold at the commit point is rule 1 again: a partition leaves, or changes its epoch, with nothing in flight.
///
/// So the comparison is a second line of defence. That the first one holds is checked in every run for the folds of claims
/// and releases: [`crate::truth::Truth`] reports any entry of another epoch that one could meet. The live fold and the one
/// of a rebuild are not checked so; `storage`'s own tests hold the fold itself to the comparison.
pub const HIDDEN: &[Hidden] = &[Hidden {
    mistake: mistake(Wrong::FoldIgnoresEpoch, "fold-ignores-epoch"),
    because: "no fold meets an entry of another epoch, which every run checks",
}];

/// Every mistake.
pub fn all() -> impl Iterator<Item = &'static Mistake> {
    CAUGHT.iter().chain(HIDDEN.iter().map(|hidden| &hidden.mistake))
}

/// A mistake by its name.
pub fn by_name(name: &str) -> Option<Wrong> {
    all().find(|mistake| mistake.name == name).map(|mistake| mistake.wrong)
}

/// Seeds within which each mistake must be found. The rarest, a claim that a process sends before it is suspended and that
/// arrives after its log was fenced, shows about once in 600.
pub const BOUND: u64 = 3_000;

/// How a mistake was found where it shows: the number of seeds played, and what was seen; `None` if `bound` seeds did not
/// show it.
pub fn seeds_to_catch(mistake: &Mistake, bound: u64) -> Option<(u64, String)> {
    seeds_to_catch_in(mistake.scenario, mistake.wrong, bound)
}

/// The same in any scenario.
pub fn seeds_to_catch_in(scenario: Scenario, wrong: Wrong, bound: u64) -> Option<(u64, String)> {
    (0..bound).find_map(|seed| {
        let finding = run_seed(scenario, seed, Some(wrong), false).finding?;
        Some((seed + 1, finding))
    })
}
