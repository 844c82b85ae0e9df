//! Leader epoch history: where each epoch started (KIP-101, KIP-320).

use crate::ids::{LeaderEpoch, Offset};

/// Answer to OffsetForLeaderEpoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The largest epoch not above the one asked for.
    pub epoch: LeaderEpoch,
    /// Its end offset: the start of the next epoch, or the log's end.
    pub end: Offset,
}

/// (epoch, start offset) in ascending order of both; epochs without records too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EpochHistory {}
