//! The wrong variants of PROTOCOL.md section 9: mistakes that the simulator must catch.
//!
//! Beyond that section: a segment deleted though a commit under way may name it; a log start that recovery does not fold;
//! merges that lose a batch, delete before their manifest stands, or compare (as rolls may) a version read too late; a part
//! of a divided request that is answered too early, or as if it were another one; a read that is older than what a watch has
//! shown, taken for the newest (liveness); a topic that a process does not know yet, taken for one that is gone; a lease that is
//! kept while a thread of its process is stuck (liveness).
//!
//! Without the cargo feature `wrong-variants` every question is answered `false` at compile time, so no shipped binary
//! holds any of them. With it, one is chosen by name at run time, so one build proves all. Which of them no run of one node
//! can show, and why, stands beside the simulator's table (`broker/sim/src/table.rs`).

/// One mistake. Its text form is its name in kebab case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "each name is the sentence of PROTOCOL.md section 9")]
#[rustfmt::skip]
pub enum Wrong {
    OverwritingPut, AckBeforeDurable, AckOutOfSequenceOrder, OwnRetryTakenForFence, AmbiguousErrorTakenForSuccess,
    FenceWithoutIfAbsent, FenceAtFirstGapOfListing, ScanFromZero, ScanFromAboveS, LwNotFrozen, LowestFenceTakenForEnd,
    FenceDeleted, ObjectDeletedBeforeManifest, SealedWalCollectedWhileNamed, ClaimWithoutOwnWal, ClaimsBeforeCheckpointTxn,
    UnchangedRecordTakenForLost, CheckpointTxnGoesBack, CheckpointBetweenClaims, CheckpointOfAppended,
    CheckpointDropsReleased, ReleaseBySomebodyElse, MoveBumpsEpochOnly, BirthWithoutWal, RebuildFromCheckpointsOnly,
    FoldIgnoresEpoch, GracefulSealBeforeDrained, GracefulSealBeforeFence, DeadVolleyTakenForData, WidReopened,
    BytesChangedOnRetry, LeaseTrusted, DrainedBatchesDropped, NoFence, OwnFenceMisread, SegmentDeletedOnSight,
    LogStartNotFolded, MergeDropsABatch, MergeDeletesFirst, MergeComparesLateVersion, RollComparesLateVersion,
    PartAckedBeforeDurable, PartsMixedUp, LateReadTakenForNewest, UnknownTopicTakenForGone,
    LeaseKeptWhileStuck, BirthWithoutTopic,
}

/// Whether the process runs with this mistake.
#[cfg(not(feature = "wrong-variants"))]
#[inline(always)]
pub fn wrong(_variant: Wrong) -> bool {
    false
}

#[cfg(feature = "wrong-variants")]
mod chosen {
    use super::Wrong;
    use std::cell::Cell;

    thread_local! {
        static CHOSEN: Cell<Option<Wrong>> = const { Cell::new(None) };
    }

    /// Whether this thread's simulation runs with this mistake.
    pub fn wrong(variant: Wrong) -> bool {
        CHOSEN.get() == Some(variant)
    }

    /// Chooses the mistake for simulations of this thread.
    pub fn choose(variant: Option<Wrong>) {
        CHOSEN.set(variant);
    }
}

#[cfg(feature = "wrong-variants")]
pub use chosen::{choose, wrong};
