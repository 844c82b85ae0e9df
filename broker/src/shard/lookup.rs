//! One partition's lookup of a record by its timestamp, pure: where to look next, and what came of it.
//!
//! References and manifests know largest timestamps, so most lookups open one batch: the first record as new as a given
//! time lies in the first part of the log that is as new (or, where that part's newest records are below the log start,
//! in a later one); the newest record lies in the newest part. Parts that begin in the tail are searched in memory, others
//! in windows of their object.
//!
//! 1. Only committed records from the log start up are found, those below the high watermark: a segment of somebody who was
//!    put in this leader's place may hold more.
//! 2. A lookup that is overtaken by a rising log start starts over; each of its steps reads the log as it is then. So does
//!    one whose segment is gone, with a newer manifest; a segment that this names too is missing.
//! 3. Every step passes over at least one batch, or asks for what it needs: a batch, or a manifest.
//! 4. A manifest is used only if it covers all that the log knows to be covered.

use super::candidates::{Candidates, Holder};
use super::partition_log::PartitionLog;
use super::search::{Found, Pick, SearchError, Searched, Seek};
use bytes::Bytes;
use millrace_protocol::records::HEADER_BYTES;
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName};
use millrace_storage::ids::{Offset, Seq, TopicPartition, Wid};
use std::cmp::Reverse;
use std::ops::Range;
use std::rc::Rc;

/// Bytes of a write-ahead object that are searched at a time; a batch that is larger is read whole.
pub const WINDOW_BYTES: usize = 512 * 1024;

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
    /// In a segment: a block of its file, more if more are needed.
    Segment {
        /// Of which partition.
        partition: TopicPartition,
        /// Which segment.
        named: NamedSegment,
        /// Where to begin; `None`: where the first batch may be that can hold what is looked for.
        position: Option<u64>,
        /// Bytes that are needed from there; 0 if not known.
        needs: usize,
    },
}

impl Source {
    /// Bytes of memory that it takes, where segments are read in blocks of `block_bytes`.
    pub fn bytes(&self, block_bytes: usize) -> usize {
        match self {
            Source::Memory(bytes) => bytes.len(),
            Source::Object { range, .. } => (range.end - range.start) as usize,
            Source::Segment { needs: 0, .. } => block_bytes,
            Source::Segment { needs, .. } => needs + 2 * block_bytes,
        }
    }
}

/// What a lookup does next.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// Get the partition's manifest, a newer one than this if there is one given, and say it by [`Lookup::learned`].
    Manifest(Option<Rc<Manifest>>),
    /// Search these bytes, and say what came of it by [`Lookup::searched`].
    Search(Source, Seek),
    /// It is over; `None`: there is no such record.
    Done(Option<Found>),
}

/// The part of the log that is being searched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    holder: Holder,
    /// Records below this offset were searched, or are below the log start.
    from: Offset,
    /// Where the search goes on in its object, as long as it is not in the tail; `None`: it has not begun,
    position: Option<u64>,
    /// and the bytes that are needed there; 0 if not known.
    needs: usize,
    /// The high watermark when the search began: what comes meanwhile is not in question.
    below: Offset,
}

/// What was asked for and not answered yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// A manifest that covers at least this.
    Manifest { covered: Offset },
    /// A batch of the tail, after which this offset comes.
    Batch { next: Offset },
    /// A part of the entry's object.
    Window,
}

/// A lookup in progress.
#[derive(Clone, PartialEq, Debug)]
pub struct Lookup {
    wanted: Wanted,
    /// Parts below this offset were searched ([`Wanted::Since`]).
    from: Offset,
    /// The last part that was searched, the newest first ([`Wanted::Newest`]).
    previous: Option<(i64, Offset)>,
    entry: Option<Entry>,
    asked: Option<Asked>,
    best: Option<Found>,
    manifest: Option<Rc<Manifest>>,
    /// A segment of that manifest that is not there.
    missing: Option<SegmentName>,
    /// The manifest that came last was older than what the log knows: it came from a cache.
    was_old: bool,
}

impl Lookup {
    /// Nothing is searched yet.
    pub fn new(wanted: Wanted) -> Lookup {
        Lookup {
            wanted,
            from: Offset(0),
            previous: None,
            entry: None,
            asked: None,
            best: None,
            manifest: None,
            missing: None,
            was_old: false,
        }
    }

    /// What to do next. Asked again without a result in between, it says the same of the same log.
    pub fn step(&mut self, log: &PartitionLog) -> Step {
        if self.is_overtaken(log.log_start()) {
            self.start_over();
        }
        loop {
            if self.best.is_some() && self.wanted != Wanted::Newest {
                return Step::Done(self.best);
            }
            let Some(entry) = self.entry.map_or_else(|| self.next_entry(log), |entry| Some(Some(entry))) else {
                self.asked = Some(Asked::Manifest { covered: log.references_from() });
                return Step::Manifest(self.manifest.clone());
            };
            let Some(entry) = entry else { return Step::Done(self.best) };
            if let Some((source, asked)) = self.place(&entry, log) {
                (self.entry, self.asked) = (Some(entry), Some(asked));
                return Step::Search(source, self.seek(&entry, log.log_start()));
            }
            self.from = entry.holder.last().plus(1).min(entry.below);
            (self.previous, self.entry) = (Some(entry.holder.rank()), None);
        }
    }

    /// The manifest that the last step asked for.
    ///
    /// # Errors
    /// [`SearchError::Missing`] if it is not as new as it must be, for the second time: what a cache holds may be old.
    pub fn learned(&mut self, manifest: Rc<Manifest>) -> Result<(), SearchError> {
        let Some(Asked::Manifest { covered }) = self.asked.take() else { panic!("a manifest was asked for") };
        let named = |missing| manifest.segments.iter().any(|named| named.name == missing);
        let is_old = manifest.covered < covered || self.missing.is_some_and(named);
        if is_old && self.was_old {
            return Err(SearchError::Missing);
        }
        (self.manifest, self.was_old) = (Some(manifest), is_old);
        if !is_old {
            self.missing = None;
            if self.wanted == Wanted::Newest {
                // Its segments may be others than those that were searched.
                self.start_over();
            }
        }
        Ok(())
    }

    /// What came of the search that the last step asked for.
    ///
    /// # Errors
    /// [`SearchError::Broken`] if the entry ends within a batch.
    pub fn searched(&mut self, searched: Searched) -> Result<(), SearchError> {
        let entry = self.entry.as_mut().expect("a search was asked for");
        match self.asked.take().expect("a search was asked for") {
            Asked::Manifest { .. } => panic!("a manifest was asked for"),
            Asked::Batch { next } => entry.from = next,
            Asked::Window => {
                let Searched { next, needs, .. } = searched;
                // What was needed there was there.
                let stuck = entry.position == Some(next) && needs <= entry.needs;
                let left = entry.holder.end().checked_sub(next).ok_or(SearchError::Broken)?;
                if stuck || needs as u64 > left {
                    return Err(SearchError::Broken);
                }
                (entry.position, entry.needs) = (Some(next), needs);
            }
        }
        let rank = |found: Found| (found.timestamp, Reverse(found.offset));
        self.best = self.best.into_iter().chain(searched.found).max_by_key(|found| rank(*found));
        Ok(())
    }

    /// The bytes that the last step asked for are gone. True if the log may have let go of them too: the lookup starts
    /// over.
    pub fn starts_over_without_them(&mut self, log: &PartitionLog) -> bool {
        match self.entry.expect("a search was asked for").holder {
            Holder::Object(reference) if log.references().find(reference.last) == Some(reference) => return false,
            Holder::Object(_) => {}
            Holder::Segment(named) => self.missing = Some(named.name),
        }
        self.start_over();
        true
    }

    /// Whether what was done so far rests on records that are no longer there.
    fn is_overtaken(&self, log_start: Offset) -> bool {
        // Of an entry that holds the newest record, others are passed over.
        let newest = self.wanted == Wanted::Newest && self.entry.is_some_and(|entry| entry.from < log_start);
        newest || self.best.is_some_and(|best| best.offset < log_start)
    }

    /// From the beginning, but for what is known of the segments.
    fn start_over(&mut self) {
        let (manifest, missing) = (self.manifest.take(), self.missing);
        *self = Lookup { manifest, missing, ..Lookup::new(self.wanted) };
    }

    /// The next entry to search, if any; `None`: a newer manifest is needed for that.
    fn next_entry(&self, log: &PartitionLog) -> Option<Option<Entry>> {
        let start = log.log_start();
        let manifest = self.manifest.as_ref().filter(|_| self.missing.is_none());
        let holder = match self.wanted {
            Wanted::Since(timestamp) => {
                Candidates::from_offset(log, manifest, self.from.max(start))?.first_as_new(timestamp)
            }
            Wanted::Newest => {
                let newest = Candidates::from_offset(log, manifest, start)?.newest_after(self.previous);
                newest.filter(|newest| self.may_be_in(newest))
            }
        };
        let below = log.high_watermark();
        let entry = |holder: Holder| {
            let (from, position) = (holder.base().max(start), holder.begin());
            Entry { holder, from, position, needs: 0, below }
        };
        Some(holder.map(entry))
    }

    /// Where to search in an entry; `None` if there is nothing left in it.
    fn place(&self, entry: &Entry, log: &PartitionLog) -> Option<(Source, Asked)> {
        let Entry { holder, position, needs, .. } = *entry;
        if !self.may_be_in(&holder) {
            return None;
        }
        if entry.from >= log.tail_start() {
            let least = self.seek(entry, log.log_start()).least;
            let mut batches = log.tail_from(entry.from).take_while(|batch| batch.base <= holder.last());
            let batch = batches.find(|batch| batch.description.max_timestamp >= least)?;
            return Some((Source::Memory(batch.bytes.clone()), Asked::Batch { next: batch.last.plus(1) }));
        }
        if position == Some(holder.end()) {
            return None;
        }
        let source = match holder {
            Holder::Object(reference) => {
                let start = position.expect("it begins where the reference says");
                // A batch whose size is known is read alone: what is looked for is most likely in it.
                let wanted = if needs > HEADER_BYTES { needs } else { WINDOW_BYTES };
                let range = start..holder.end().min(start + wanted as u64);
                Source::Object { wid: reference.wid, seq: reference.seq, range }
            }
            Holder::Segment(named) => Source::Segment { partition: log.partition(), named, position, needs },
        };
        Some((source, Asked::Window))
    }

    /// Whether a part may hold what is looked for, rather than what was found: a newer record, or one as new that comes first.
    fn may_be_in(&self, holder: &Holder) -> bool {
        self.best.is_none_or(|best| holder.max_timestamp() >= Lookup::least_in(holder, best))
    }

    /// How new a record of a part must be to be that.
    fn least_in(holder: &Holder, best: Found) -> i64 {
        best.timestamp.saturating_add(i64::from(best.offset <= holder.last()))
    }

    fn seek(&self, entry: &Entry, log_start: Offset) -> Seek {
        let Entry { holder, below, .. } = *entry;
        let from = entry.from.max(log_start);
        match self.wanted {
            Wanted::Since(least) => Seek { pick: Pick::First, least, from, below },
            // Of an entry that reaches beyond the log's bounds the newest record may be beyond them: then all others are in
            // question.
            Wanted::Newest if holder.base() < log_start || holder.last() >= below => {
                let least = self.best.map_or(i64::MIN, |best| Lookup::least_in(&holder, best));
                Seek { pick: Pick::Newest, least, from, below }
            }
            Wanted::Newest => Seek { pick: Pick::Newest, least: holder.max_timestamp(), from, below },
        }
    }
}
