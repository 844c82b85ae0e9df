//! Where committed batches lie in write-ahead objects.
//!
//! One [`Reference`] per entry of a committed footer. They only come at the end and go at the start, so the list is
//! kept as immutable chunks shared by pointer plus a short tail of its own: a clone costs one count and a copy of the
//! tail, whatever the length of the log.
//!
//! Invariants:
//! 1. References stand in offset order and overlap nowhere: each `base` lies above the `last` before it.
//! 2. Every chunk holds exactly [`CHUNK`] references and knows their largest timestamp, so that a search by time passes
//!    it over at once; the tail holds fewer.
//! 3. Equality is that of the references, however they are chunked.

use crate::ids::{Offset, Seq, Wid};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

/// References of one immutable chunk: 8 KiB, the most that a clone copies.
const CHUNK: usize = 128;

/// One entry of one write-ahead object: offsets `[base, last]` of a partition. 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// The log.
    pub wid: Wid,
    /// The object.
    pub seq: Seq,
    /// First byte within it.
    pub position: u32,
    /// Bytes.
    pub length: u32,
    /// First offset.
    pub base: Offset,
    /// Last offset, inclusive.
    pub last: Offset,
    /// Largest timestamp of its batches, Unix milliseconds; −1 if none.
    pub max_timestamp: i64,
}

const _: () = assert!(size_of::<Reference>() <= 64);

/// [`CHUNK`] references.
#[derive(Clone)]
struct Chunk {
    references: Arc<[Reference]>,
    max_timestamp: i64,
}

impl Chunk {
    fn new(references: &[Reference]) -> Chunk {
        let max_timestamp = references.iter().map(|reference| reference.max_timestamp).max();
        Chunk { references: Arc::from(references), max_timestamp: max_timestamp.expect("a chunk is full") }
    }
}

/// References in offset order, in immutable chunks shared by pointer plus a short tail: a clone is cheap.
#[derive(Clone, Default)]
pub struct References {
    chunks: Arc<VecDeque<Chunk>>,
    /// References of the first chunk (of the tail, if there is no chunk) that are dropped already.
    skip: usize,
    tail: Vec<Reference>,
}

impl References {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.chunks.len() * CHUNK + self.tail.len() - self.skip
    }

    /// Bytes of memory that they take: 64 each, one in 500 more for the chunks, and up to 8 KiB for the tail.
    pub fn memory(&self) -> usize {
        /// Counts and length of a chunk, its place in the list and its largest timestamp.
        const PER_CHUNK: usize = 5 * size_of::<usize>();
        let chunks = self.chunks.len() * (CHUNK * size_of::<Reference>() + PER_CHUNK);
        chunks + self.tail.capacity() * size_of::<Reference>()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The reference of the lowest offsets.
    pub fn first(&self) -> Option<Reference> {
        self.get(0)
    }

    /// The reference of the highest offsets.
    pub fn last(&self) -> Option<Reference> {
        self.len().checked_sub(1).and_then(|index| self.get(index))
    }

    /// The reference that holds `offset`.
    pub fn find(&self, offset: Offset) -> Option<Reference> {
        self.from_offset(offset).next().filter(|found| found.base <= offset)
    }

    /// The reference that holds `offset`, or else the first above it, and all that follow.
    pub fn from_offset(&self, offset: Offset) -> impl Iterator<Item = Reference> + '_ {
        self.after_skipping(self.partition_point(|reference| reference.last < offset))
    }

    /// The references that start at `offset` or above it: what was committed since the end was `offset`.
    pub fn since(&self, offset: Offset) -> impl Iterator<Item = Reference> + '_ {
        self.after_skipping(self.partition_point(|reference| reference.base < offset))
    }

    /// The first reference, of those that hold `from` or follow it, with a timestamp of at least `timestamp`.
    pub fn first_as_new(&self, from: Offset, timestamp: i64) -> Option<Reference> {
        let first = self.partition_point(|reference| reference.last < from);
        let found = self.next_newer(first, timestamp.checked_sub(1))?;
        self.get(found)
    }

    /// The reference with the largest timestamp, the first of equals. After `previous`, the largest timestamp and first
    /// offset of one: that which would be the next if those up to it were not there.
    pub fn newest_after(&self, previous: Option<(i64, Offset)>) -> Option<Reference> {
        let follows = |reference: &Reference| {
            previous.is_none_or(|(max_timestamp, base)| match reference.max_timestamp.cmp(&max_timestamp) {
                Ordering::Less => true,
                Ordering::Equal => reference.base > base,
                Ordering::Greater => false,
            })
        };
        let mut newest: Option<Reference> = None;
        let mut from = 0;
        while let Some(index) = self.next_newer(from, newest.map(|newest| newest.max_timestamp)) {
            let reference = self.get(index).expect("just found");
            if follows(&reference) {
                newest = Some(reference);
            }
            from = index + 1;
        }
        newest
    }

    /// All, in offset order.
    pub fn iter(&self) -> impl Iterator<Item = Reference> + Clone + '_ {
        self.after_skipping(0)
    }

    /// Adds the next one.
    ///
    /// # Panics
    /// If it breaks invariant 1: the fold gives contiguous entries, decoders check.
    pub fn push(&mut self, reference: Reference) {
        assert!(reference.base <= reference.last, "a reference holds an offset");
        assert!(self.last().is_none_or(|last| last.last < reference.base), "references stand in offset order");
        self.tail.push(reference);
        if self.tail.len() == CHUNK {
            Arc::make_mut(&mut self.chunks).push_back(Chunk::new(&self.tail));
            self.tail.clear();
        }
    }

    /// Drops what lies wholly below `offset`.
    pub fn drop_below(&mut self, offset: Offset) {
        self.skip += self.partition_point(|reference| reference.last < offset);
        if self.skip >= CHUNK && !self.chunks.is_empty() {
            let whole = (self.skip / CHUNK).min(self.chunks.len());
            Arc::make_mut(&mut self.chunks).drain(..whole);
            self.skip -= whole * CHUNK;
        }
        if self.chunks.is_empty() {
            self.tail.drain(..self.skip);
            self.skip = 0;
        }
    }

    /// The reference at `index`, counted from the first that is not dropped.
    fn get(&self, index: usize) -> Option<Reference> {
        let at = index + self.skip;
        match self.chunks.get(at / CHUNK) {
            Some(chunk) => Some(chunk.references[at % CHUNK]),
            None => self.tail.get(at - self.chunks.len() * CHUNK).copied(),
        }
    }

    fn after_skipping(&self, start: usize) -> impl Iterator<Item = Reference> + Clone + '_ {
        (start..self.len()).map(|index| self.get(index).expect("below len"))
    }

    /// Where, from `index` on, the next reference with a larger timestamp than `than` stands (any, without one).
    fn next_newer(&self, mut index: usize, than: Option<i64>) -> Option<usize> {
        let newer = |timestamp: i64| than.is_none_or(|than| timestamp > than);
        loop {
            let at = index + self.skip;
            if let Some(chunk) = self.chunks.get(at / CHUNK)
                && !newer(chunk.max_timestamp)
            {
                index += CHUNK - at % CHUNK;
                continue;
            }
            if newer(self.get(index)?.max_timestamp) {
                return Some(index);
            }
            index += 1;
        }
    }

    /// How many at the start satisfy `below`, which holds for none after the first that it does not hold for.
    fn partition_point(&self, below: impl Fn(&Reference) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if below(&self.get(middle).expect("below len")) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

impl PartialEq for References {
    fn eq(&self, other: &References) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for References {}

impl fmt::Debug for References {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<Reference> for References {
    fn from_iter<I: IntoIterator<Item = Reference>>(references: I) -> References {
        let mut all = References::default();
        references.into_iter().for_each(|reference| all.push(reference));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;

    fn reference(base: i64, count: i64) -> Reference {
        Reference {
            wid: Wid(7),
            seq: Seq(base.unsigned_abs()),
            position: 64,
            length: 100,
            base: Offset(base),
            last: Offset(base + count - 1),
            // Neither in order nor all different.
            max_timestamp: base * 7919 % 601,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(i64),
        DropBelow(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![9 => (1..6i64).prop_map(Step::Push), 1 => (0..1500i64).prop_map(Step::DropBelow)];
        proptest::collection::vec(step, 0..500)
    }

    proptest! {
        #[test]
        fn references_behave_as_a_plain_list(steps in steps(), probe in 0..1500i64) {
            let (mut ours, mut plain, mut end) = (References::default(), Vec::new(), 0);
            for step in steps {
                match step {
                    Step::Push(count) => {
                        ours.push(reference(end, count));
                        plain.push(reference(end, count));
                        end += count;
                    }
                    Step::DropBelow(offset) => {
                        let before = ours.clone();
                        ours.drop_below(Offset(offset));
                        prop_assert_eq!(before.len(), plain.len());
                        plain.retain(|each| each.last >= Offset(offset));
                    }
                }
            }
            let probe = Offset(probe);
            prop_assert_eq!(ours.len(), plain.len());
            prop_assert_eq!(ours.iter().collect::<Vec<_>>(), plain.clone());
            prop_assert_eq!(ours.first(), plain.first().copied());
            prop_assert_eq!(ours.last(), plain.last().copied());
            prop_assert_eq!(ours.find(probe), plain.iter().find(|r| r.base <= probe && probe <= r.last).copied());
            prop_assert!(ours.since(probe).eq(plain.iter().filter(|r| r.base >= probe).copied()));
            prop_assert!(ours.from_offset(probe).eq(plain.iter().filter(|r| r.last >= probe).copied()));
            let time = probe.0 % 700;
            let as_new = plain.iter().find(|r| r.last >= probe && r.max_timestamp >= time).copied();
            prop_assert_eq!(ours.first_as_new(probe, time), as_new);
            let mut by_time = plain.clone();
            by_time.sort_by_key(|r| (Reverse(r.max_timestamp), r.base));
            let newest = std::iter::successors(ours.newest_after(None), |r| ours.newest_after(Some((r.max_timestamp, r.base))));
            prop_assert_eq!(newest.take(5).collect::<Vec<_>>(), &by_time[..by_time.len().min(5)]);
            prop_assert_eq!(&ours, &plain.into_iter().collect::<References>());
        }
    }

    #[test]
    fn a_reference_takes_less_than_65_bytes_of_a_long_log() {
        let mut log = References::default();
        assert_eq!(log.memory(), 0);
        for n in 0..100_000 {
            log.push(reference(n, 1));
        }
        assert!((64..65).contains(&(log.memory() / log.len())), "{}", log.memory());
        log.drop_below(Offset(99_999));
        assert!(log.memory() <= 2 * CHUNK * 64 + 100, "{}", log.memory());
    }

    #[test]
    fn a_clone_keeps_what_the_original_drops_and_gains() {
        let mut ours: References = (0..300).map(|n| reference(n, 1)).collect();
        let before = ours.clone();
        ours.drop_below(Offset(200));
        ours.push(reference(300, 1));
        assert_eq!((before.len(), ours.len()), (300, 101));
        assert_eq!(before.find(Offset(0)), Some(reference(0, 1)));
        assert_eq!(before.find(Offset(300)), None);
    }
}
