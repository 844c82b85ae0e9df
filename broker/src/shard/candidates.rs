//! Which part of a log to search next for a record by its timestamp: an entry of a write-ahead object, or a segment. Pure.
//!
//! 1. What is searched holds only committed records. Where a segment holds what references hold too, since it was rolled
//!    just now, both may be searched: the record that is found is the same.
//! 2. [`Candidates::newest_after`] gives each part at most once: they come by falling timestamps, equals by offset.

use super::partition_log::PartitionLog;
use millrace_storage::format::manifest::{Manifest, NamedSegment};
use millrace_storage::ids::Offset;
use millrace_storage::partition::Reference;
use millrace_storage::segment;
use std::cmp::Reverse;
use std::rc::Rc;

/// What holds a part of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    /// An entry of a write-ahead object.
    Object(Reference),
    /// A segment.
    Segment(NamedSegment),
}

impl Holder {
    /// First offset.
    pub(super) fn base(&self) -> Offset {
        match self {
            Holder::Object(reference) => reference.base,
            Holder::Segment(named) => named.segment.base,
        }
    }

    /// Last offset, inclusive.
    pub(super) fn last(&self) -> Offset {
        match self {
            Holder::Object(reference) => reference.last,
            Holder::Segment(named) => named.segment.last,
        }
    }

    /// Largest timestamp, Unix milliseconds.
    pub(super) fn max_timestamp(&self) -> i64 {
        match self {
            Holder::Object(reference) => reference.max_timestamp,
            Holder::Segment(named) => named.segment.max_timestamp,
        }
    }

    /// Where in its object the search begins; `None`: that is for the reader of segments to say.
    pub(super) fn begin(&self) -> Option<u64> {
        match self {
            Holder::Object(reference) => Some(reference.position.into()),
            Holder::Segment(_) => None,
        }
    }

    /// Where in its object its batches end.
    pub(super) fn end(&self) -> u64 {
        match self {
            Holder::Object(Reference { position, length, .. }) => u64::from(*position) + u64::from(*length),
            Holder::Segment(named) => segment::batches_end(named.segment.bytes),
        }
    }

    /// Its place in the order of [`Candidates::newest_after`].
    pub(super) fn rank(&self) -> (i64, Offset) {
        (self.max_timestamp(), self.base())
    }
}

/// What is readable of a log from an offset on.
pub(super) struct Candidates<'a> {
    segments: &'a [NamedSegment],
    log: &'a PartitionLog,
    from: Offset,
}

impl<'a> Candidates<'a> {
    /// Everything that holds `from` or follows it. `None`: `manifest` does not reach as far as it must.
    pub(super) fn from_offset(
        log: &'a PartitionLog,
        manifest: Option<&'a Rc<Manifest>>,
        from: Offset,
    ) -> Option<Candidates<'a>> {
        let end = log.references_from();
        if from >= end {
            return Some(Candidates { segments: &[], log, from });
        }
        let segments = &manifest.filter(|manifest| manifest.covered >= end)?.segments;
        let first = segments.partition_point(|named| named.segment.last < from);
        let after = segments.partition_point(|named| named.segment.base < end);
        Some(Candidates { segments: segments.get(first..after).unwrap_or_default(), log, from })
    }

    /// The first that is as new as `timestamp`.
    pub(super) fn first_as_new(&self, timestamp: i64) -> Option<Holder> {
        let segment = self.segments.iter().find(|named| named.segment.max_timestamp >= timestamp);
        let reference = || self.log.references().first_as_new(self.from, timestamp).map(Holder::Object);
        segment.map(|named| Holder::Segment(*named)).or_else(reference)
    }

    /// The newest, of equals the first. After `previous`, one's [`Holder::rank`]: what would be it without those up to
    /// that.
    pub(super) fn newest_after(&self, previous: Option<(i64, Offset)>) -> Option<Holder> {
        let falling = |(timestamp, base): (i64, Offset)| (Reverse(timestamp), base);
        let segments = self.segments.iter().copied().map(Holder::Segment);
        let follow = segments.filter(|one| previous.is_none_or(|previous| falling(one.rank()) > falling(previous)));
        let reference = self.log.references().newest_after(previous).map(Holder::Object);
        follow.chain(reference).min_by_key(|one| falling(one.rank()))
    }
}
