//! Picks whole batches from the batches of one segment: those from the one that holds an offset on, as many as fit. Pure.
//!
//! 1. What is picked begins with the first batch whose last offset is not below the offset asked for.
//! 2. It exceeds the limit only by a single batch, and only where that was allowed.
//! 3. No batch is picked that begins at or above the offset below which was asked.
//! 4. A batch that contradicts the segment's bounds or its own checksum is damage, never picked.

use super::window::Window;
use crate::shard::fetching::batch_extent;
use millrace_protocol::records::HEADER_BYTES;
use millrace_storage::ids::Offset;
use std::ops::Range;

/// What is asked of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The first offset.
    pub from: Offset,
    /// Most bytes.
    pub most: u64,
    /// Whether the first batch may exceed that.
    pub oversized: bool,
    /// Where the segment's batches end in its file.
    pub end: u64,
    /// The segment's last offset.
    pub last: Offset,
    /// Batches from here on are not given.
    pub below: Offset,
}

/// How far it is.
#[derive(Debug)]
pub struct Selection {
    wanted: Wanted,
    /// Where the next batch begins,
    at: u64,
    /// and the least offset that it may have.
    next: Offset,
    /// Where the first batch picked begins.
    start: Option<u64>,
}

/// What comes next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// These bytes must be in the window; nothing below them is needed but what was picked.
    Need {
        /// The first batch picked so far begins here, or else the range does.
        keep: u64,
        /// The bytes.
        range: Range<u64>,
    },
    /// Done: these bytes are whole batches.
    Picked {
        /// Where they stand in the file; empty if the first batch is too large.
        range: Range<u64>,
        /// The offset after them.
        next: Offset,
    },
    /// This is not what a segment holds.
    Broken {
        /// Where.
        position: u64,
    },
}

impl Selection {
    /// Begins at `position`, where a batch begins whose base is at least `base`.
    pub fn new(wanted: Wanted, position: u64, base: Offset) -> Selection {
        Selection { wanted, at: position, next: base, start: None }
    }

    /// Goes on with what is in the window.
    pub fn step(&mut self, window: &Window) -> Step {
        while self.at < self.wanted.end {
            let header_end = self.at + HEADER_BYTES as u64;
            if header_end > self.wanted.end {
                return self.broken();
            }
            if header_end > window.end() {
                return self.need(header_end);
            }
            let header = window.header(self.at).expect("the window reaches beyond it");
            let Some(batch) = batch_extent(&header).filter(|batch| batch.base >= self.next) else {
                return self.broken();
            };
            let end = self.at + batch.bytes as u64;
            if end > self.wanted.end || batch.last > self.wanted.last {
                return self.broken();
            }
            if batch.base >= self.wanted.below {
                return self.picked();
            }
            if batch.last >= self.wanted.from {
                let start = self.start.unwrap_or(self.at);
                let alone = self.start.is_none() && self.wanted.oversized;
                if end - start > self.wanted.most && !alone {
                    return self.picked();
                }
                if end > window.end() {
                    return self.need(end);
                }
                if !window.is_sound(self.at..end, &header) {
                    return self.broken();
                }
                self.start = Some(start);
            }
            (self.at, self.next) = (end, batch.last.plus(1));
        }
        self.picked()
    }

    fn need(&self, end: u64) -> Step {
        Step::Need { keep: self.start.unwrap_or(self.at), range: self.at..end }
    }

    /// Damage: what was picked before it is given all the same.
    fn broken(&self) -> Step {
        if self.start.is_some() { self.picked() } else { Step::Broken { position: self.at } }
    }

    fn picked(&self) -> Step {
        Step::Picked { range: self.start.unwrap_or(self.at)..self.at, next: self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cold::testing::{Batch, batches};
    use crate::cold::window::Block;
    use bytes::Bytes;
    use millrace_protocol::record_set::RecordSet;
    use proptest::prelude::*;

    /// Picks from `file`, loading blocks as they are needed; the bytes, and the offset after them.
    fn pick(file: &[u8], block_bytes: u64, wanted: &Wanted, position: u64) -> (Bytes, Offset) {
        let mut window = Window::at(position, block_bytes);
        let mut selection = Selection::new(wanted.clone(), position, Offset(0));
        loop {
            match selection.step(&window) {
                Step::Need { keep, range } => {
                    assert!(range.end > window.end(), "every step gets on");
                    if keep >= window.end() {
                        window = Window::at(keep, block_bytes);
                    }
                    while window.end() < range.end {
                        let start = (window.next_block() * block_bytes) as usize;
                        let end = file.len().min(start + block_bytes as usize);
                        window.push(Block::new(Bytes::copy_from_slice(&file[start..end])));
                    }
                }
                Step::Picked { range, next } => {
                    let mut records = RecordSet::new();
                    window.records(range, &mut records);
                    return (records.concat(), next);
                }
                Step::Broken { position } => panic!("broken at {position}"),
            }
        }
    }

    proptest! {
        #[test]
        fn exactly_the_whole_batches_from_the_one_that_holds_the_offset_are_picked(
            counts in proptest::collection::vec((1..6u32, 0..300usize), 1..12),
            block_bytes in 1..2000u64,
            at in any::<proptest::sample::Index>(),
            known in any::<proptest::sample::Index>(),
            most in 0..3000u64,
            oversized in any::<bool>(),
            known_through in any::<proptest::sample::Index>(),
        ) {
            const HEAD: usize = 32;
            let batches = batches(&counts);
            let file = [vec![0; HEAD], batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect()].concat();
            let last = batches.last().unwrap().last;
            let from = Offset(at.index(last.0 as usize + 1) as i64);
            let holds = batches.iter().position(|batch| batch.last >= from).unwrap();
            // The index may know any batch up to the one that holds the offset.
            let skipped: usize = batches[..known.index(holds + 1)].iter().map(|batch| batch.bytes.len()).sum();
            let below = batches[known_through.index(batches.len())].last.plus(1);
            let mut expected: Vec<&Batch> = Vec::new();
            let mut bytes = 0;
            for batch in batches[holds..].iter().filter(|batch| batch.last < below) {
                bytes += batch.bytes.len() as u64;
                if bytes > most && !(expected.is_empty() && oversized) {
                    break;
                }
                expected.push(batch);
            }
            let wanted = Wanted { from, most, oversized, end: file.len() as u64, last, below };
            let (picked, next) = pick(&file, block_bytes, &wanted, (HEAD + skipped) as u64);
            let whole: Vec<u8> = expected.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
            prop_assert_eq!(picked, whole);
            if let Some(newest) = expected.last() {
                prop_assert_eq!(next, newest.last.plus(1));
            }
        }

        #[test]
        fn damage_is_found_or_picked_within_bounds_but_never_a_panic(
            counts in proptest::collection::vec((1..6u32, 0..100usize), 1..5),
            flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
            from in 0..20i64,
        ) {
            let batches = batches(&counts);
            let mut file: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
            for (at, value) in &flips {
                let at = at.index(file.len());
                file[at] = *value;
            }
            let (end, last) = (file.len() as u64, batches.last().unwrap().last);
            let mut window = Window::at(0, 1 << 20);
            window.push(Block::new(file.into()));
            let wanted = Wanted { from: Offset(from), most: 500, oversized: true, end, last, below: last.plus(1) };
            match Selection::new(wanted, 0, Offset(0)).step(&window) {
                Step::Picked { range, .. } => prop_assert!(range.end <= end),
                Step::Broken { position } => prop_assert!(position < end),
                Step::Need { .. } => prop_assert!(false, "all is there"),
            }
        }
    }
}
