//! The one writer of all extents of a process: decides put-if-absent, appends, syncs, rolls, deletes.
//!
//! Invariants:
//! 1. An object is in the index, and a put is answered `Stored`, only after its bytes count: with fsync on they are on
//!    disk, with it off they are in the kernel (survive this process). A fence is on disk either way, with everything
//!    of its log before it.
//! 2. A group of puts to one log is one write and at most one sync.
//! 3. An extent that was found at start-up is on disk before its objects are shown, and is never appended to: the next
//!    object of its log begins a new one, after all earlier ones were synced.
//! 4. A failed write is cut off again, and the cut is on disk, before the put is answered as not done.
//!
//! A failed sync ends the process. The kernel reports it once and may mark the lost pages clean, so that a second sync
//! would succeed without the bytes being on disk, while a read still finds them in memory. So the next start writes what
//! it found and no mark covers once more before it syncs: pages written again are pages to be stored again.

use super::files::ExtentFiles;
use super::frame::{
    EXTENT_HEADER, ExtentHeader, ExtentName, FRAME_HEADER, Frame, crc_of, encode_extent_header, encode_frame_header,
    encode_index,
};
use super::scan::{Found, Scanned};
use super::{Dropped, Index, Place};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, Wid};
use crate::store_error::{Certainty, FailureKind, StoreError};
use crate::wal::PutOutcome;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};

/// An extent that has reached this size is full. One group may pass it.
pub(super) const EXTENT_BYTES: u64 = 64 << 20;
/// Largest object: far above the lane's limit, far below what a frame's positions can say.
pub(super) const OBJECT_BYTES: u64 = 256 << 20;
/// Bytes written again at once when an extent is found.
const AGAIN_BYTES: u64 = 1 << 20;

/// One put of a group.
pub(super) struct Put {
    pub(super) wid: Wid,
    pub(super) seq: Seq,
    pub(super) slices: Vec<Bytes>,
}

impl Put {
    fn length(&self) -> u64 {
        self.slices.iter().map(|slice| slice.len() as u64).sum()
    }
    /// A fence is a header alone, and nothing else is as short.
    fn is_fence(&self) -> bool {
        self.length() == HEADER_BYTES as u64
    }
}

pub(super) struct Writer {
    files: Arc<dyn ExtentFiles>,
    fsync: bool,
    boot: u64,
    logs: BTreeMap<Wid, Vec<Extent>>,
    index: Arc<Mutex<Index>>,
}

struct Extent {
    name: ExtentName,
    /// Bytes that count.
    length: u64,
    /// Bytes known to be on disk.
    synced: u64,
    /// Lowest and highest sequence, if it holds any object.
    range: Option<(Seq, Seq)>,
    /// Where the frames lie, while this is the extent being written: for the index at its end.
    writing: Option<Vec<Frame>>,
    /// Bytes of a failed write may lie behind `length`.
    untidy: bool,
}

impl Extent {
    fn is_synced(&self) -> bool {
        self.synced == self.length
    }
    /// Nothing but what counts is in the file, and that is on disk.
    fn is_settled(&self) -> bool {
        self.is_synced() && !self.untidy
    }
    fn extend(&mut self, seq: Seq) {
        let (low, high) = self.range.unwrap_or((seq, seq));
        self.range = Some((low.min(seq), high.max(seq)));
    }
    fn holds_below(&self, below: Seq) -> bool {
        self.range.is_some_and(|(low, _)| low < below)
    }
    fn lies_below(&self, below: Seq) -> bool {
        self.writing.is_none() && self.range.is_none_or(|(_, high)| high < below)
    }
}

impl Writer {
    /// Reads what the files hold, cuts off writes that never ended, and says what that dropped.
    pub(super) fn open(
        files: Arc<dyn ExtentFiles>,
        fsync: bool,
        index: Arc<Mutex<Index>>,
    ) -> Result<(Writer, Vec<Dropped>), StoreError> {
        let failed = |error| StoreError::from_io(Certainty::NotDone, "listing extents", &error);
        let boot = files.boot().map_err(failed)?;
        let mut listed = files.list().map_err(failed)?;
        listed.sort();
        let mut writer = Writer { files, fsync, boot, logs: BTreeMap::new(), index };
        let mut dropped = Vec::new();
        // From the newest extent of each log down, since a header speaks of the extents before it.
        // What any later extent says stays true: the one right behind may have been made before the sync.
        let mut later: Option<(Wid, bool)> = None;
        for (name, length) in listed.into_iter().rev() {
            let known_synced = later.is_some_and(|(wid, earlier_synced)| wid == name.wid && earlier_synced);
            let earlier_synced = writer.open_extent(name, length, known_synced, &mut dropped)?;
            later = Some((name.wid, known_synced || earlier_synced));
        }
        for extents in writer.logs.values_mut() {
            extents.reverse();
        }
        Ok((writer, dropped))
    }

    /// Takes one found extent in; whether its header says that all earlier ones were on disk.
    fn open_extent(
        &mut self,
        name: ExtentName,
        length: u64,
        known_synced: bool,
        dropped: &mut Vec<Dropped>,
    ) -> Result<bool, StoreError> {
        let files = self.files.clone();
        let found = Found { files: &*files, name, length, known_synced };
        let cut_failed = |error| StoreError::from_io(Certainty::Unknown, "cutting an extent", &error);
        let Some(header) = found.header()? else {
            dropped.push(Dropped { name, position: 0, bytes: length });
            files.delete(&[name]).map_err(cut_failed)?;
            return Ok(false);
        };
        let same_boot = header.boot == self.boot;
        let scanned = found.scan()?;
        if scanned.length < length {
            dropped.push(Dropped { name, position: scanned.length, bytes: length - scanned.length });
            files.truncate(name, scanned.length).map_err(cut_failed)?;
        }
        // Written by a process of this boot that may have ended before its sync: what is seen here is built upon (a
        // fence ends the log for ever), so it must not go with the next power failure.
        if same_boot && !known_synced {
            let failed = |error| StoreError::from_io(Certainty::Unknown, "syncing an extent", &error);
            store_again(&*files, name, &scanned).map_err(failed)?;
        }
        let synced = if known_synced || same_boot { scanned.length } else { 0 };
        let mut extent = Extent { name, length: scanned.length, synced, range: None, writing: None, untidy: false };
        let mut index = lock(&self.index);
        let objects = index.logs.entry(name.wid).or_default();
        for frame in &scanned.frames {
            extent.extend(frame.seq);
            // Two copies are a fence that was being collected when the process ended; the newer one was seen first.
            let known = objects.entry(frame.seq).or_insert_with(|| Place::of(name, frame));
            if known.length != frame.length {
                let detail = format!("two objects under sequence {} of the log {}", frame.seq, name.wid);
                return Err(StoreError::not_done(FailureKind::Corrupt, detail));
            }
        }
        self.logs.entry(name.wid).or_default().push(extent);
        Ok(header.earlier_synced)
    }

    /// Carries out a group of puts; answers in their order.
    pub(super) fn put_group(&mut self, puts: &[Put]) -> Vec<Result<PutOutcome, StoreError>> {
        // The first put of a sequence in the group decides for all of the group.
        let mut first: BTreeMap<(Wid, Seq), usize> = BTreeMap::new();
        let mut fresh: BTreeMap<Wid, Vec<&Put>> = BTreeMap::new();
        {
            let index = lock(&self.index);
            for (number, put) in puts.iter().enumerate() {
                let is_new = !index.holds(put.wid, put.seq) && !first.contains_key(&(put.wid, put.seq));
                if is_new {
                    first.insert((put.wid, put.seq), number);
                    fresh.entry(put.wid).or_default().push(put);
                }
            }
        }
        let written: BTreeMap<Wid, Result<Vec<Frame>, StoreError>> =
            fresh.iter().map(|(wid, puts)| (*wid, self.append(*wid, puts))).collect();
        for (wid, frames) in &written {
            let Ok(frames) = frames else { continue };
            if fresh[wid].iter().any(|put| put.is_fence()) {
                self.sync_where(*wid, |_| true);
            } else if self.fsync {
                self.sync_where(*wid, |extent| extent.writing.is_some());
            }
            let name = self.logs[wid].last().expect("just appended to").name;
            let mut index = lock(&self.index);
            let objects = index.logs.entry(*wid).or_default();
            objects.extend(frames.iter().map(|frame| (frame.seq, Place::of(name, frame))));
        }
        let answer = |(number, put): (usize, &Put)| match first.get(&(put.wid, put.seq)) {
            None => Ok(PutOutcome::AlreadyExists),
            Some(decider) => match &written[&put.wid] {
                Err(error) => Err(error.clone()),
                Ok(_) if *decider == number => Ok(PutOutcome::Stored),
                Ok(_) => Ok(PutOutcome::AlreadyExists),
            },
        };
        puts.iter().enumerate().map(answer).collect()
    }

    /// Writes the puts to the log's extent in one go; all or none of them.
    fn append(&mut self, wid: Wid, puts: &[&Put]) -> Result<Vec<Frame>, StoreError> {
        if let Some(put) = puts.iter().find(|put| put.length() > OBJECT_BYTES) {
            let detail = format!("an object of {} bytes", put.length());
            return Err(StoreError::not_done(FailureKind::Other, detail));
        }
        self.prepare(wid)?;
        let extent = self.logs.get_mut(&wid).and_then(|extents| extents.last_mut()).expect("just prepared");
        let mut frames = Vec::with_capacity(puts.len());
        let mut slices = Vec::with_capacity(puts.len() * 2);
        let mut position = extent.length;
        for put in puts {
            let frame = Frame {
                seq: put.seq,
                position: small(position),
                length: small(put.length()),
                synced: small(extent.synced),
                crc: crc_of(&put.slices),
            };
            slices.push(encode_frame_header(extent.name, &frame));
            slices.extend_from_slice(&put.slices);
            position = frame.end();
            frames.push(frame);
        }
        if let Err(error) = self.files.append(extent.name, extent.length, &slices) {
            extent.untidy = true;
            let certainty = if tidy(&*self.files, extent) { Certainty::NotDone } else { Certainty::Unknown };
            return Err(StoreError::from_io(certainty, "appending to an extent", &error));
        }
        extent.length = position;
        for frame in &frames {
            extent.extend(frame.seq);
        }
        extent.writing.as_mut().expect("prepared for writing").extend_from_slice(&frames);
        Ok(frames)
    }

    /// Makes the log's last extent one that can be appended to.
    fn prepare(&mut self, wid: Wid) -> Result<(), StoreError> {
        let last = self.logs.get_mut(&wid).and_then(|extents| extents.last_mut());
        let index = match last {
            None => 0,
            Some(extent) if extent.writing.is_some() => {
                if extent.untidy && !tidy(&*self.files, extent) {
                    let detail = "what a failed write left behind can't be cut off";
                    return Err(StoreError::not_done(FailureKind::Full, detail));
                }
                if extent.length < EXTENT_BYTES {
                    return Ok(());
                }
                let index = extent.name.index + 1;
                self.finish(wid);
                index
            }
            Some(extent) => {
                let index = extent.name.index + 1;
                self.sync_where(wid, |_| true);
                index
            }
        };
        let name = ExtentName { wid, index };
        let extents = self.logs.entry(wid).or_default();
        let earlier_synced = extents.iter().all(Extent::is_settled);
        let header = encode_extent_header(name, &ExtentHeader { earlier_synced, boot: self.boot });
        let created = self.files.create(name, &header);
        created.map_err(|error| StoreError::from_io(Certainty::NotDone, "making an extent", &error))?;
        let length = u64::from(EXTENT_HEADER);
        extents.push(Extent { name, length, synced: length, range: None, writing: Some(Vec::new()), untidy: false });
        Ok(())
    }

    /// Ends the full extent of the log with its index, which only saves time at the next start.
    fn finish(&mut self, wid: Wid) {
        let extent = self.logs.get_mut(&wid).and_then(|extents| extents.last_mut()).expect("the caller saw it");
        let frames = extent.writing.take().expect("the caller saw it being written");
        let index = encode_index(extent.name, small(extent.length), &frames);
        let length = index.len() as u64;
        match self.files.append(extent.name, extent.length, &[index]) {
            Ok(()) => extent.length += length,
            Err(_) => {
                extent.untidy = true;
                tidy(&*self.files, extent);
            }
        }
        if self.fsync {
            self.sync_where(wid, |_| true);
        }
    }

    /// Syncs those extents of the log that `which` names and that need it.
    fn sync_where(&mut self, wid: Wid, which: impl Fn(&Extent) -> bool) {
        for extent in self.logs.get_mut(&wid).into_iter().flatten() {
            if which(extent) && !extent.is_synced() {
                sync(&*self.files, extent.name);
                extent.synced = extent.length;
            }
        }
    }

    /// Extents that hold objects below `below` and are not wholly on disk, each with the length to be synced.
    pub(super) fn unsynced_below(&self, wid: Wid, below: Seq) -> Vec<(ExtentName, u64)> {
        let extents = self.logs.get(&wid).into_iter().flatten();
        let unsynced = extents.filter(|extent| extent.holds_below(below) && !extent.is_synced());
        unsynced.map(|extent| (extent.name, extent.length)).collect()
    }

    /// These are on disk up to these lengths.
    pub(super) fn note_synced(&mut self, synced: &[(ExtentName, u64)]) {
        for (name, length) in synced {
            let mut extents = self.logs.get_mut(&name.wid).into_iter().flatten();
            if let Some(extent) = extents.find(|extent| extent.name == *name) {
                extent.synced = extent.synced.max(*length);
            }
        }
    }

    /// See [`crate::wal::WalStore::delete_below`]: whole extents only.
    pub(super) fn delete_below(&mut self, wid: Wid, below: Seq) -> Result<(), StoreError> {
        self.delete_where(wid, |extent| extent.lies_below(below))
    }

    fn delete_where(&mut self, wid: Wid, doomed: impl Fn(&Extent) -> bool) -> Result<(), StoreError> {
        let Some(extents) = self.logs.get_mut(&wid) else { return Ok(()) };
        let names: Vec<ExtentName> = extents.iter().filter(|extent| doomed(extent)).map(|extent| extent.name).collect();
        if names.is_empty() {
            return Ok(());
        }
        // Out of the index first: a read must find nothing rather than a file that is going.
        let gone: BTreeSet<u32> = names.iter().map(|name| name.index).collect();
        if let Some(objects) = lock(&self.index).logs.get_mut(&wid) {
            objects.retain(|_, place| !gone.contains(&place.extent));
        }
        // Kept in the list when this fails, so that the next call tries again.
        let failed = |error| StoreError::from_io(Certainty::Unknown, "deleting extents", &error);
        self.files.delete(&names).map_err(failed)?;
        extents.retain(|extent| !gone.contains(&extent.name.index));
        Ok(())
    }

    /// See [`crate::wal::WalStore::retain_only_fence`]: the fence is copied to an extent of its own before the rest goes.
    pub(super) fn retain_only_fence(&mut self, wid: Wid, end: Seq) -> Result<(), StoreError> {
        let Some(extents) = self.logs.get(&wid).filter(|extents| !extents.is_empty()) else { return Ok(()) };
        let refused = |detail: String| StoreError::not_done(FailureKind::Other, detail);
        let place = lock(&self.index).place(wid, end);
        let Some(place) = place.filter(|place| u64::from(place.length) == HEADER_BYTES as u64) else {
            return Err(refused(format!("no fence at {end} of the log {wid}: nothing is deleted")));
        };
        if extents.len() == 1 && extents[0].range == Some((end, end)) {
            return Ok(());
        }
        let source = ExtentName { wid, index: place.extent };
        let fence = self
            .files
            .read(source, place.bytes())
            .map_err(|error| StoreError::from_io(Certainty::NotDone, "reading a fence", &error))?;
        let name = ExtentName { wid, index: extents.last().expect("not empty").name.index + 1 };
        let earlier_synced = extents.iter().all(Extent::is_settled);
        let header = encode_extent_header(name, &ExtentHeader { earlier_synced, boot: self.boot });
        let crc = crc_of(std::slice::from_ref(&fence));
        let frame = Frame { seq: end, position: EXTENT_HEADER, length: place.length, synced: EXTENT_HEADER, crc };
        let bytes = [header, encode_frame_header(name, &frame), fence].concat();
        let created = self.files.create(name, &bytes);
        created.map_err(|error| StoreError::from_io(Certainty::NotDone, "making an extent", &error))?;
        lock(&self.index).logs.entry(wid).or_default().insert(end, Place::of(name, &frame));
        let length = bytes.len() as u64;
        let range = Some((end, end));
        let kept = Extent { name, length, synced: length, range, writing: None, untidy: false };
        self.logs.get_mut(&wid).expect("seen above").push(kept);
        self.delete_where(wid, |extent| extent.name != name)
    }
}

impl Place {
    fn of(name: ExtentName, frame: &Frame) -> Place {
        Place { extent: name.index, body: frame.position + FRAME_HEADER, length: frame.length }
    }
}

/// Cuts off what a failed write left, on disk too; whether that worked.
fn tidy(files: &dyn ExtentFiles, extent: &mut Extent) -> bool {
    if files.truncate(extent.name, extent.length).is_err() {
        return false;
    }
    sync(files, extent.name);
    extent.synced = extent.length;
    extent.untidy = false;
    true
}

/// Writes again what no mark covers, and syncs: a sync alone says nothing about pages that an earlier one failed on.
fn store_again(files: &dyn ExtentFiles, name: ExtentName, scanned: &Scanned) -> std::io::Result<()> {
    let mut position = scanned.synced;
    while position < scanned.length {
        let end = scanned.length.min(position + AGAIN_BYTES);
        files.append(name, position, &[files.read(name, position..end)?])?;
        position = end;
    }
    files.sync(name)
}

/// Syncs extents that the writer goes on writing; one that was deleted meanwhile needs it no more.
pub(super) fn sync_all(files: &dyn ExtentFiles, extents: &[(ExtentName, u64)]) {
    for (name, _) in extents {
        match files.sync(*name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => must_sync(*name, result),
        }
    }
}

fn sync(files: &dyn ExtentFiles, name: ExtentName) {
    must_sync(name, files.sync(name));
}

fn must_sync(name: ExtentName, result: std::io::Result<()>) {
    if let Err(error) = result {
        panic!(
            "extent {} of the log {} can't be synced: {error}; only a restart knows what is on disk",
            name.index, name.wid
        );
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).expect("an extent ends below EXTENT_BYTES and one group of puts")
}

pub(super) fn lock(index: &Mutex<Index>) -> std::sync::MutexGuard<'_, Index> {
    // No code panics while it holds the lock, and a panic ends the process anyway.
    index.lock().unwrap_or_else(PoisonError::into_inner)
}
