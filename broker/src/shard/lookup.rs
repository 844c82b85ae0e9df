//! One partition's lookup of a record by its timestamp, pure: where to look next, and what came of it.
//!
//! References know their largest timestamps, so most lookups open one batch: the first record as new as a given time
//! lies in the first entry that is as new (or, where that entry's newest records are below the log start, in a later
//! one); the newest record lies in the newest entry. Entries that begin in the tail are searched in memory, others in
//! windows of [`WINDOW_BYTES`].
//!
//! 1. Only records from the log start up to the high watermark are found (references hold no others).
//! 2. A lookup that is overtaken by a rising log start starts over; each of its steps reads the log as it is then.
//! 3. Every step passes over at least one batch, or asks for the one that it needs.

use super::partition_log::PartitionLog;
use super::search::{Found, Pick, SearchError, Searched, Seek};
use bytes::Bytes;
use millrace_protocol::records::HEADER_BYTES;
use millrace_storage::ids::{Offset, Seq, Wid};
use millrace_storage::partition::Reference;
use std::ops::Range;

/// Bytes of an entry that are searched at a time; a batch that is larger is read whole.
pub const WINDOW_BYTES: u32 = 512 * 1024;

/// What a lookup is after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The first record with this timestamp or a larger one, Unix milliseconds.
    Since(i64),
    /// The first record with the largest timestamp (KIP-734).
    Newest,
}

/// Where the bytes to search are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// In memory.
    Memory(Bytes),
    /// In a write-ahead object.
    Object {
        /// The log.
        wid: Wid,
        /// The object.
        seq: Seq,
        /// Bytes.
        range: Range<u64>,
    },
}

impl Source {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Source::Memory(bytes) => bytes.len(),
            Source::Object { range, .. } => (range.end - range.start) as usize,
        }
    }
}

/// What a lookup does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Search these bytes, and say what came of it by [`Lookup::searched`].
    Search(Source, Seek),
    /// It is over; `None`: there is no such record.
    Done(Option<Found>),
}

/// The entry that is being searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    reference: Reference,
    /// Records below this offset were searched, or are below the log start.
    from: Offset,
    /// Where the search goes on, from the start of the object, as long as it is not in the tail,
    position: u32,
    /// and the bytes that are needed there; 0 if not known.
    needs: u32,
}

/// What was asked for and not answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// A batch of the tail, after which this offset comes.
    Batch { next: Offset },
    /// So many bytes of the entry's object.
    Window { length: u32 },
}

/// A lookup in progress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lookup {
    wanted: Wanted,
    /// Entries below this offset were searched ([`Wanted::Since`]).
    from: Offset,
    /// The last entry that was searched, the newest first ([`Wanted::Newest`]).
    previous: Option<Reference>,
    entry: Option<Entry>,
    asked: Option<Asked>,
    best: Option<Found>,
}

impl Lookup {
    /// Nothing is searched yet.
    pub fn new(wanted: Wanted) -> Lookup {
        Lookup { wanted, from: Offset(0), previous: None, entry: None, asked: None, best: None }
    }

    /// What to do next. Asked again without a result in between, it says the same of the same log.
    pub fn step(&mut self, log: &PartitionLog) -> Step {
        if self.is_overtaken(log.log_start()) {
            *self = Lookup::new(self.wanted);
        }
        loop {
            if self.best.is_some() && self.wanted != Wanted::Newest {
                return Step::Done(self.best);
            }
            let Some(entry) = self.entry.or_else(|| self.next_entry(log)) else { return Step::Done(self.best) };
            if let Some((source, asked)) = self.place(&entry, log) {
                (self.entry, self.asked) = (Some(entry), Some(asked));
                return Step::Search(source, self.seek(&entry, log.log_start()));
            }
            (self.from, self.previous, self.entry) = (entry.reference.last.plus(1), Some(entry.reference), None);
        }
    }

    /// What came of the search that the last step asked for.
    ///
    /// # Errors
    /// [`SearchError::Broken`] if the entry ends within a batch.
    pub fn searched(&mut self, searched: Searched) -> Result<(), SearchError> {
        let entry = self.entry.as_mut().expect("a search was asked for");
        match self.asked.take().expect("a search was asked for") {
            Asked::Batch { next } => entry.from = next,
            Asked::Window { length } => {
                let end = entry.reference.position + entry.reference.length;
                let next = u32::try_from(searched.next).ok().and_then(|next| entry.position.checked_add(next));
                let next = next.filter(|next| *next <= end).ok_or(SearchError::Broken)?;
                let needs = u32::try_from(searched.needs).map_err(|_| SearchError::Broken)?;
                let stuck = searched.next == 0 && needs <= length;
                if stuck || needs > end - next {
                    return Err(SearchError::Broken);
                }
                (entry.position, entry.needs) = (next, needs);
            }
        }
        if searched.found.is_some_and(|found| self.best.is_none_or(|best| found.timestamp > best.timestamp)) {
            self.best = searched.found;
        }
        Ok(())
    }

    /// The bytes that the last step asked for are gone. True if the log has let go of them too: the lookup starts over.
    pub fn starts_over_without_them(&mut self, log: &PartitionLog) -> bool {
        let reference = self.entry.expect("a search was asked for").reference;
        let let_go = log.references().find(reference.last) != Some(reference);
        if let_go {
            *self = Lookup::new(self.wanted);
        }
        let_go
    }

    /// Whether what was done so far rests on records that are no longer there.
    fn is_overtaken(&self, log_start: Offset) -> bool {
        // Of an entry that holds the newest record, others are passed over.
        let newest = self.wanted == Wanted::Newest && self.entry.is_some_and(|entry| entry.from < log_start);
        newest || self.best.is_some_and(|best| best.offset < log_start)
    }

    /// The next entry to search.
    fn next_entry(&self, log: &PartitionLog) -> Option<Entry> {
        let start = log.log_start();
        let reference = match self.wanted {
            Wanted::Since(timestamp) => log.references().first_as_new(self.from.max(start), timestamp),
            Wanted::Newest => {
                let newest = log.references().newest_after(self.previous);
                newest.filter(|newest| self.best.is_none_or(|best| newest.max_timestamp > best.timestamp))
            }
        }?;
        Some(Entry { reference, from: reference.base.max(start), position: reference.position, needs: 0 })
    }

    /// Where to search in an entry; `None` if there is nothing left in it.
    fn place(&self, entry: &Entry, log: &PartitionLog) -> Option<(Source, Asked)> {
        let Reference { wid, seq, position, length, last, max_timestamp, .. } = entry.reference;
        if self.best.is_some_and(|best| best.timestamp >= max_timestamp) {
            return None;
        }
        if entry.from >= log.tail_start() {
            let least = self.seek(entry, log.log_start()).least;
            let mut batches = log.tail_from(entry.from).take_while(|batch| batch.base <= last);
            let batch = batches.find(|batch| batch.description.max_timestamp >= least)?;
            return Some((Source::Memory(batch.bytes.clone()), Asked::Batch { next: batch.last.plus(1) }));
        }
        let left = position + length - entry.position;
        // A batch whose size is known is read alone: what is looked for is most likely in it.
        let wanted = if entry.needs > HEADER_BYTES as u32 { entry.needs } else { WINDOW_BYTES };
        let length = wanted.min(left);
        let start = u64::from(entry.position);
        let source = Source::Object { wid, seq, range: start..start + u64::from(length) };
        (length > 0).then_some((source, Asked::Window { length }))
    }

    fn seek(&self, entry: &Entry, log_start: Offset) -> Seek {
        let from = entry.from.max(log_start);
        match self.wanted {
            Wanted::Since(least) => Seek { pick: Pick::First, least, from },
            // Of an entry that begins below the log start the newest record may be gone: then all others are in question.
            Wanted::Newest if entry.reference.base < log_start => {
                let least = self.best.map_or(i64::MIN, |best| best.timestamp.saturating_add(1));
                Seek { pick: Pick::Newest, least, from }
            }
            Wanted::Newest => Seek { pick: Pick::Newest, least: entry.reference.max_timestamp, from },
        }
    }
}
