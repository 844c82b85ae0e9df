//! What a partition has committed beyond its segments, in pieces that a roll may end at. Pure.
//!
//! Invariants:
//! 1. Pieces stand in offset order; their bytes are those committed since the covered bound.
//! 2. Two neighbours together exceed `piece_bytes`, so that their number follows the bytes, which PROTOCOL.md section 2
//!    limits. The pieces of a roll under way don't change.

use crate::env::Mono;
use crate::ids::Offset;
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// First offset beyond it.
    end: Offset,
    bytes: u64,
    oldest: Mono,
}

/// The pieces.
#[derive(Debug, Default)]
pub(super) struct Uncovered {
    pieces: VecDeque<Piece>,
    /// Of them the first so many are being rolled.
    rolling: usize,
    bytes: u64,
}

impl Uncovered {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest record was committed.
    pub(super) fn oldest(&self) -> Option<Mono> {
        self.pieces.front().map(|piece| piece.oldest)
    }

    pub(super) fn push(&mut self, end: Offset, bytes: u64, at: Mono, piece_bytes: u64) {
        self.bytes += bytes;
        let open = self.pieces.len() > self.rolling;
        match self.pieces.back_mut().filter(|last| open && last.bytes + bytes <= piece_bytes) {
            Some(last) => (last.end, last.bytes) = (end, last.bytes + bytes),
            None => self.pieces.push_back(Piece { end, bytes, oldest: at }),
        }
    }

    /// Marks the oldest pieces, up to about `bytes`, as being rolled: the first offset beyond them, and their bytes.
    pub(super) fn start_roll(&mut self, bytes: u64) -> Option<(Offset, u64)> {
        assert_eq!(self.rolling, 0, "one roll of a partition at a time");
        let mut taken = 0;
        for piece in &self.pieces {
            if taken >= bytes {
                break;
            }
            taken += piece.bytes;
            self.rolling += 1;
        }
        Some((self.pieces.get(self.rolling.checked_sub(1)?)?.end, taken))
    }

    /// The roll ended without a segment.
    pub(super) fn abandon_roll(&mut self) {
        self.rolling = 0;
    }

    /// Everything below `covered` is in segments, or below the log start.
    pub(super) fn drop_below(&mut self, covered: Offset) {
        while let Some(first) = self.pieces.front().filter(|first| first.end <= covered) {
            self.bytes -= first.bytes;
            self.pieces.pop_front();
            self.rolling = self.rolling.saturating_sub(1);
        }
    }
}
