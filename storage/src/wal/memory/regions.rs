//! Memory that objects are copied into: regions that are filled one after another and filled again when the last byte of
//! them was let go.
//!
//! The first touch of fresh memory costs more than the copy itself, so a log that lets its oldest objects go while it
//! takes new ones runs in the regions that it already has.
//!
//! Invariants:
//! 1. A region is filled again only when no slice of its last filling is left, wherever that slice is held.
//! 2. At most [`Regions::limit`] regions are kept. What readers hold beyond that goes back to the system with them.
//! 3. Nobody holds the lock on the regions while copying: a region being filled is taken out.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Size of a region: several huge pages.
const REGION_BYTES: usize = 8 << 20;

/// An object's bytes: whole, or in two or more parts where a region ended in between.
pub(super) type Parts = SmallVec<[Bytes; 1]>;

/// The regions that no one is filling now.
pub(super) struct Regions {
    /// Room left in them. More than one only when several threads have filled at the same time.
    open: Vec<BytesMut>,
    /// No room left; the one filled longest ago first.
    full: VecDeque<BytesMut>,
    limit: usize,
}

impl Regions {
    /// None yet, for objects of `cap` bytes together.
    pub(super) fn new(cap: u64) -> Regions {
        // One more for the region that is partly let go, one for that being filled.
        let limit = usize::try_from(cap / REGION_BYTES as u64).unwrap_or(usize::MAX).saturating_add(2);
        Regions { open: Vec::new(), full: VecDeque::new(), limit }
    }

    /// A region to fill, which the caller gives back with [`Regions::give`].
    pub(super) fn take(&mut self) -> BytesMut {
        self.open.pop().or_else(|| self.reclaim()).unwrap_or_else(|| BytesMut::with_capacity(REGION_BYTES))
    }

    /// Takes back a region, full or not.
    pub(super) fn give(&mut self, region: BytesMut) {
        if region.capacity() > 0 {
            self.open.push(region);
            return;
        }
        self.full.push_back(region);
        if self.full.len() > self.limit {
            self.full.pop_front();
        }
    }

    /// The full region of which nothing is left and that was filled longest ago.
    fn reclaim(&mut self) -> Option<BytesMut> {
        let at = self.full.iter_mut().position(|region| region.try_reclaim(REGION_BYTES))?;
        self.full.remove(at)
    }
}

/// Copies slices into regions, one after another.
pub(super) struct Filling {
    region: BytesMut,
    parts: Parts,
}

impl Filling {
    /// Begins in `region`.
    pub(super) fn new(region: BytesMut) -> Filling {
        Filling { region, parts: Parts::new() }
    }

    /// Copies `slices` behind each other. `next` takes a full region and gives another one.
    pub(super) fn copy(mut self, slices: &[Bytes], mut next: impl FnMut(BytesMut) -> BytesMut) -> (Parts, BytesMut) {
        for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                if self.region.len() == self.region.capacity() {
                    self.end_part();
                    self.region = next(std::mem::take(&mut self.region));
                }
                let room = self.region.capacity() - self.region.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                self.region.extend_from_slice(now);
                rest = later;
            }
        }
        self.end_part();
        (self.parts, self.region)
    }

    fn end_part(&mut self) {
        if !self.region.is_empty() {
            self.parts.push(self.region.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(regions: &mut Regions, slices: &[Bytes]) -> Parts {
        let region = regions.take();
        let (parts, region) = Filling::new(region).copy(slices, |full| {
            regions.give(full);
            regions.take()
        });
        regions.give(region);
        parts
    }

    #[test]
    fn an_object_that_meets_the_end_of_a_region_goes_on_in_the_next() {
        let mut regions = Regions::new(u64::MAX);
        let third = Bytes::from((0..REGION_BYTES / 3 + 1).map(|at| (at * 7) as u8).collect::<Vec<u8>>());
        for objects in 1..10 {
            let parts = copy(&mut regions, &[third.clone(), Bytes::new(), third.clone()]);
            assert_eq!(parts.concat(), [third.clone(), third.clone()].concat(), "object {objects}");
            assert!(parts.len() <= 2);
        }
        assert!(copy(&mut regions, &[]).is_empty());
    }

    #[test]
    fn a_region_is_filled_again_once_nothing_of_it_is_left() {
        let mut regions = Regions::new(4 * REGION_BYTES as u64);
        let whole = Bytes::from(vec![1; REGION_BYTES]);
        let first = copy(&mut regions, std::slice::from_ref(&whole));
        let held = first[0].slice(5..6);
        let at = first[0].as_ptr();
        drop(first);
        let second = copy(&mut regions, std::slice::from_ref(&whole));
        assert_ne!(second[0].as_ptr(), at, "a reader still holds a byte");
        drop(held);
        let third = copy(&mut regions, std::slice::from_ref(&whole));
        assert_eq!(third[0].as_ptr(), at);
    }

    #[test]
    fn regions_beyond_the_limit_are_not_kept() {
        let mut regions = Regions::new(0);
        let whole = Bytes::from(vec![1; REGION_BYTES]);
        let held: Vec<Parts> = (0..5).map(|_| copy(&mut regions, std::slice::from_ref(&whole))).collect();
        assert_eq!(regions.full.len(), 2);
        drop(held);
    }
}
