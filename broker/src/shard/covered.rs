//! What a partition's segments hold, as far as retention must know it: read from the manifest once in a leadership, then
//! kept up by what is rolled. Pure.
//!
//! 1. Known pieces stand in offset order without a gap, and end where the references begin.
//! 2. At most [`MOST`] are kept: beyond that the manifest, which merges keep short, is read again when it is needed.

use millrace_storage::compaction::retention::Piece;
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::Offset;
use millrace_storage::partition::{CommittedPartition, Reference};
use std::collections::VecDeque;

/// Pieces kept, 32 bytes each.
const MOST: usize = 4_096;

/// Pieces by offset; `None`: not known.
#[derive(Debug)]
pub(super) struct Covered(Option<VecDeque<Piece>>);

impl Covered {
    /// Of a leadership that begins.
    pub(super) fn acquired(state: &CommittedPartition) -> Covered {
        Covered((state.covered <= state.log_start).then(VecDeque::new))
    }

    /// These references were rolled.
    pub(super) fn add(&mut self, rolled: impl Iterator<Item = Reference>) {
        let joined = rolled.map(Piece::from).reduce(Piece::join);
        if let (Some(pieces), Some(joined)) = (&mut self.0, joined) {
            pieces.push_back(joined);
            if pieces.len() > MOST {
                self.0 = None;
            }
        }
    }

    /// The manifest says what the segments hold. Ignored if it is older than what is known of it.
    pub(super) fn learn(&mut self, manifest: &Manifest, log_start: Offset, references_from: Offset) {
        if manifest.covered == references_from {
            let readable = manifest.segments.iter().filter(|named| named.segment.last >= log_start);
            self.0 = Some(readable.map(|named| Piece::from(named.segment)).collect());
        }
    }

    /// The log starts at `offset` now.
    pub(super) fn drop_below(&mut self, offset: Offset) {
        if let Some(pieces) = &mut self.0 {
            let gone = pieces.partition_point(|piece| piece.last < offset);
            pieces.drain(..gone);
        }
    }

    /// The pieces; `None` if the manifest must be read first.
    pub(super) fn pieces(&self) -> Option<impl Iterator<Item = Piece> + Clone> {
        self.0.as_ref().map(|pieces| pieces.iter().copied())
    }
}
