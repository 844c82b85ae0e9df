//! The walk of SEAL, pure (PROTOCOL.md section 4, step 2).
//!
//! Invariants:
//! 1. No sequence is passed that was not seen as DATA.
//! 2. The end is a sequence at which a FENCE was seen, and every sequence from the low-water mark to it was passed.
//! 3. A fence above the position means nothing while the position is undecided.

use crate::ids::Seq;
use crate::wal::Listed;
use crate::wrong::{Wrong, wrong};

/// Fences put at once when a position holds nothing.
pub const VOLLEY: u64 = 8;

/// What a look at a sequence gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// DATA of the log's writer.
    Data,
    /// A fence, whoever wrote it.
    Fence,
    /// Nothing, or the look failed.
    AbsentOrUnknown,
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Look at this sequence.
    At(Seq),
    /// Put fences if-absent here and at the next [`VOLLEY`] − 1, ignore the outcomes, look here again.
    FenceFrom(Seq),
    /// The log ends here.
    End(Seq),
}

/// A walk under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SealWalk {
    position: Seq,
}

impl SealWalk {
    /// Starts at the low-water mark that FENCING froze.
    pub fn new(lw: Seq) -> SealWalk {
        SealWalk { position: if wrong(Wrong::ScanFromZero) { Seq(0) } else { lw } }
    }

    /// Where it stands.
    pub fn position(&self) -> Seq {
        self.position
    }

    /// A listing stands in for looks where the size that it gives exceeds a fence's.
    pub fn on_listing(&mut self, listed: &[Listed], fence_bytes: u64) -> Look {
        for one in listed {
            let data = one.size > fence_bytes || wrong(Wrong::DeadVolleyTakenForData);
            if one.seq == self.position && data {
                self.position = self.position.next();
            }
        }
        if wrong(Wrong::FenceAtFirstGapOfListing) {
            return Look::End(self.position);
        }
        if wrong(Wrong::LowestFenceTakenForEnd)
            && let Some(fence) = listed.iter().find(|one| one.seq >= self.position && one.size == fence_bytes)
        {
            return Look::End(fence.seq);
        }
        Look::At(self.position)
    }

    /// A look at the position gave this.
    pub fn on_look(&mut self, seen: Seen) -> Look {
        match seen {
            Seen::Data => {
                self.position = self.position.next();
                Look::At(self.position)
            }
            Seen::Fence => Look::End(self.position),
            Seen::AbsentOrUnknown => Look::FenceFrom(self.position),
        }
    }
}
