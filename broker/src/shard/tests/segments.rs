//! Segments of partition 0 for the tests of lookups: rolled, merged, let go of, and read through a cache of manifests.

use super::*;
use crate::shard::search::{SearchError, Searched};
use millrace_protocol::records::HEADER_BYTES;
use millrace_storage::format::manifest::{NamedSegment, SegmentName};
use millrace_storage::segment::{self, SegmentWriter, WrittenSegment};

/// Bytes of a block: most batches of these tests do not fit.
const BLOCK: u64 = 300;

/// What object storage holds of partition 0.
pub(super) struct Segments {
    manifest: Rc<Manifest>,
    /// As a reader knows it.
    cached: Option<Rc<Manifest>>,
    files: BTreeMap<SegmentName, Bytes>,
    next: u64,
}

impl Default for Segments {
    fn default() -> Segments {
        Segments { manifest: Rc::new(Manifest::empty(partition(0))), cached: None, files: BTreeMap::new(), next: 0 }
    }
}

/// What happens to segments.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// So many entries are rolled; the shard is told, or not yet.
    Roll(usize, bool),
    /// So many segments from this one on become one.
    Merge(usize, usize),
    /// The manifest lets go of what lies below the log start.
    Expire,
}

impl Segments {
    fn write(&mut self, base: Offset, batches: Vec<Bytes>) -> NamedSegment {
        let name = SegmentName { wid: Wid(9), number: self.next };
        self.next += 1;
        let mut writer = SegmentWriter::new(base);
        batches.into_iter().for_each(|batches| writer.push(batches).unwrap());
        let WrittenSegment { file, segment, records, .. } = writer.finish(WallMs(0)).expect("batches");
        self.files.insert(name, file.concat().into());
        NamedSegment { name, segment, records }
    }

    fn batches(&self, named: &NamedSegment) -> Bytes {
        let end = segment::batches_end(named.segment.bytes) as usize;
        self.files[&named.name].slice(segment::HEADER_BYTES..end)
    }

    fn commit(&mut self, segments: Vec<NamedSegment>, log_start: Offset) {
        let covered = segments.last().map_or(self.manifest.covered, |last| last.segment.last.plus(1));
        self.files.retain(|name, _| segments.iter().any(|named| named.name == *name));
        self.manifest = Rc::new(Manifest { segments, covered, log_start, ..(*self.manifest).clone() });
        let read = Manifest::decode(&self.manifest.encode()).expect("a manifest that can be stored");
        assert_eq!(read, *self.manifest);
    }

    fn merge(&mut self, at: usize, count: usize) {
        let mut segments = self.manifest.segments.clone();
        let Some(merged) = segments.get(at..segments.len().min(at + count)).filter(|merged| merged.len() > 1) else {
            return;
        };
        let one = self.write(merged[0].segment.base, merged.iter().map(|named| self.batches(named)).collect());
        let end = at + merged.len();
        segments.splice(at..end, [one]);
        self.commit(segments, self.manifest.log_start);
    }

    /// All files are gone.
    pub(super) fn lose(&mut self) {
        self.files.clear();
    }

    /// The part of a segment that its reader gives, and where it begins.
    pub(super) fn search(&self, source: &Source, seek: Seek) -> Result<Searched, SearchError> {
        let Source::Segment { named, position, needs, .. } = source else { panic!("no segment: {source:?}") };
        let file = self.files.get(&named.name).ok_or(SearchError::Missing)?;
        let start = position.unwrap_or(segment::HEADER_BYTES as u64);
        let needed = start + (*needs).max(HEADER_BYTES) as u64;
        let until = if *needs > HEADER_BYTES { needed } else { needed.next_multiple_of(BLOCK) };
        let until = until.min(segment::batches_end(named.segment.bytes));
        seek.search(start, &file[start as usize..until as usize])
    }
}

impl World {
    pub(super) fn change(&mut self, change: &Change) {
        let log_start = self.committed[&partition(0)].log_start;
        match *change {
            Change::Roll(count, told) => self.roll(count, told),
            Change::Merge(at, count) => self.segments.merge(at, count),
            Change::Expire => {
                let mut segments = self.segments.manifest.segments.clone();
                segments.retain(|named| named.segment.last >= log_start);
                self.segments.commit(segments, log_start);
            }
        }
    }

    fn roll(&mut self, count: usize, told: bool) {
        let state = &self.committed[&partition(0)];
        let (log_start, epoch) = (state.log_start, state.epoch);
        let from = self.segments.manifest.covered;
        let entries: Vec<_> = state.references.since(from).take(count).collect();
        if let Some(first) = entries.first() {
            let bytes = entries.iter().map(|entry| {
                let start = entry.position as usize;
                self.objects[&(entry.wid, entry.seq)].slice(start..start + entry.length as usize)
            });
            let one = self.segments.write(first.base, bytes.collect());
            let mut segments = self.segments.manifest.segments.clone();
            if from < first.base {
                segments.clear();
            }
            segments.push(one);
            self.segments.commit(segments, log_start);
        }
        let covered = self.segments.manifest.covered;
        if told && covered > Offset(0) {
            let state = self.committed.get_mut(&partition(0)).unwrap();
            state.covered = covered;
            state.references.drop_below(covered);
            self.lane(ToShard::Covered { partition: partition(0), epoch, covered });
        }
    }

    /// Gives the lookup that asked first the segments as a reader knows them. False if none asked.
    pub(super) fn serve_find(&mut self) -> bool {
        let Some((token, stale)) = self.finds.pop_front() else { return false };
        let Segments { manifest, cached, .. } = &mut self.segments;
        if cached.as_ref().zip(stale.as_ref()).is_some_and(|(cached, stale)| Rc::ptr_eq(cached, stale)) {
            *cached = None;
        }
        let known = cached.get_or_insert_with(|| manifest.clone()).clone();
        self.core.on_segments(self.now, token, Ok(known));
        self.collect();
        true
    }
}
