//! The walk of SEAL, pure (PROTOCOL.md section 4, step 2).
//!
//! Invariants:
//! 1. No sequence is passed that was not seen as DATA.
//! 2. The end is a sequence at which a FENCE was seen, and every sequence from the start to it was passed.
//! 3. A fence above the position means nothing while the position is undecided.

use crate::ids::Seq;
use crate::wal::Listed;
use crate::wrong::{Wrong, wrong};

/// Fences put at once when a position holds nothing.
pub(super) const VOLLEY: u64 = 8;

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
    /// Starts where everything below was durable: at S of the checkpoint, or at the low-water mark, that FENCING froze.
    pub fn new(start: Seq) -> SealWalk {
        SealWalk { position: if wrong(Wrong::ScanFromZero) { Seq(0) } else { start } }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FENCE_BYTES: u64 = 64;

    /// What stands in a log: data up to a point, then anything.
    fn log() -> impl Strategy<Value = Vec<Option<bool>>> {
        proptest::collection::vec(proptest::option::of(any::<bool>()), 0..12)
    }

    proptest! {
        #[test]
        fn the_end_is_the_first_fence_with_only_data_before_it(mut log in log(), lw in 0_u64..4) {
            let original = log.clone();
            let mut walk = SealWalk::new(Seq(lw));
            let listed: Vec<Listed> = log.iter().enumerate().skip(lw as usize)
                .filter_map(|(seq, what)| what.map(|data| Listed {
                    seq: Seq(seq as u64), size: if data { 1000 } else { FENCE_BYTES },
                })).collect();
            let mut next = walk.on_listing(&listed, FENCE_BYTES);
            let mut steps = 0;
            let end = loop {
                steps += 1;
                prop_assert!(steps < 100);
                next = match next {
                    Look::End(end) => break end,
                    Look::At(seq) => walk.on_look(match log.get(seq.0 as usize) {
                        Some(Some(true)) => Seen::Data,
                        Some(Some(false)) => Seen::Fence,
                        _ => Seen::AbsentOrUnknown,
                    }),
                    Look::FenceFrom(seq) => {
                        for at in seq.0..seq.0 + VOLLEY {
                            log.resize(log.len().max(at as usize + 1), None);
                            log[at as usize].get_or_insert(false);
                        }
                        Look::At(seq)
                    }
                };
            };
            prop_assert_eq!(log[end.0 as usize], Some(false));
            prop_assert!((lw..end.0).all(|seq| original[seq as usize] == Some(true)));
        }
    }

    #[test]
    fn a_fence_above_an_undecided_position_means_nothing() {
        let mut walk = SealWalk::new(Seq(3));
        let listed = [Listed { seq: Seq(5), size: FENCE_BYTES }];
        assert_eq!(walk.on_listing(&listed, FENCE_BYTES), Look::At(Seq(3)));
        assert_eq!(walk.on_look(Seen::AbsentOrUnknown), Look::FenceFrom(Seq(3)));
        assert_eq!(walk.on_look(Seen::Data), Look::At(Seq(4)));
    }
}
