//! Extents in memory that lose, on a power failure, any part of what was not synced. For the simulator and for tests.

use super::files::ExtentFiles;
use super::frame::ExtentName;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Unit in which a file system may keep one unsynced write and lose an earlier one.
const PAGE: usize = 4_096;

/// A disk of extents.
#[derive(Default)]
pub struct SimulatedFiles(Mutex<Disk>);

#[derive(Default)]
struct Disk {
    files: BTreeMap<ExtentName, SimulatedFile>,
    boot: u64,
    /// Bytes that still fit; `None` without a limit.
    room: Option<u64>,
    /// The process dies once it has written this many further bytes: everything fails from then on.
    dies_after: Option<u64>,
    /// The next sync fails.
    sync_fails: bool,
    /// Syncs that failed so far.
    failed_syncs: u64,
}

#[derive(Default)]
struct SimulatedFile {
    bytes: Vec<u8>,
    /// Content at the last sync.
    on_disk: Vec<u8>,
    /// What a failed sync did not bring to disk and marked clean: no later one does, unless it is written again.
    lost: Vec<Range<usize>>,
}

impl SimulatedFile {
    fn synced(bytes: &[u8]) -> SimulatedFile {
        SimulatedFile { bytes: bytes.to_vec(), on_disk: bytes.to_vec(), lost: Vec::new() }
    }

    fn written(&mut self, range: Range<usize>) {
        let parts = |lost: Range<usize>| [lost.start..lost.end.min(range.start), lost.start.max(range.end)..lost.end];
        self.lost =
            std::mem::take(&mut self.lost).into_iter().flat_map(parts).filter(|part| !part.is_empty()).collect();
    }

    fn zero_lost(lost: &[Range<usize>], bytes: &mut [u8]) {
        for range in lost {
            let end = range.end.min(bytes.len());
            bytes[range.start.min(end)..end].fill(0);
        }
    }
}

impl SimulatedFiles {
    /// An empty disk.
    pub fn new() -> SimulatedFiles {
        SimulatedFiles::default()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `bytes` more be written before the disk is full.
    pub fn limit_room(&self, bytes: Option<u64>) {
        self.disk().room = bytes;
    }

    /// Lets `bytes` more be appended before the process dies in the middle of a write.
    pub fn die_after(&self, bytes: u64) {
        self.disk().dies_after = Some(bytes);
    }

    /// Lets the next sync fail, and its pages be clean afterwards.
    pub fn fail_next_sync(&self) {
        self.disk().sync_fails = true;
    }

    /// Syncs that failed so far, of a dead process too.
    pub fn failed_syncs(&self) -> u64 {
        self.disk().failed_syncs
    }

    /// The kernel forgets pages that it takes for clean: reads show what is on disk.
    pub fn evict(&self) {
        for file in self.disk().files.values_mut() {
            SimulatedFile::zero_lost(&file.lost, &mut file.bytes);
        }
    }

    /// The process is gone and starts again: everything that it wrote is there.
    pub fn restart(&self) {
        let mut disk = self.disk();
        disk.dies_after = None;
        disk.sync_fails = false;
    }

    /// The power fails. Of what was not synced a random part survives: `below(n)` gives a number below n.
    pub fn power_failure(&self, below: &mut dyn FnMut(u64) -> u64) {
        let mut disk = self.disk();
        disk.dies_after = None;
        disk.sync_fails = false;
        disk.boot += 1;
        for file in disk.files.values_mut() {
            let same = file.bytes.iter().zip(&file.on_disk).take_while(|(now, then)| now == then).count();
            if file.bytes.len() <= same {
                // Only a truncation was not synced: it happened or not.
                if below(2) == 0 {
                    file.bytes = file.on_disk.clone();
                }
            } else {
                let unsynced = (file.bytes.len() - same) as u64;
                file.bytes.truncate(same + below(unsynced + 1) as usize);
                for page in file.bytes[same..].chunks_mut(PAGE) {
                    if below(4) == 0 {
                        page.fill(0);
                    }
                }
            }
            file.on_disk = file.bytes.clone();
            file.lost.clear();
        }
    }

    /// Flips one bit of a file, synced or not.
    pub fn damage(&self, name: ExtentName, position: usize) {
        let mut disk = self.disk();
        let file = disk.files.get_mut(&name).expect("the test names a file that is there");
        file.bytes[position] ^= 1;
        file.on_disk[position] ^= 1;
    }
}

impl Disk {
    fn alive(&self) -> io::Result<()> {
        if self.dies_after == Some(0) { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    fn file(&mut self, name: ExtentName) -> io::Result<&mut SimulatedFile> {
        self.files.get_mut(&name).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl ExtentFiles for SimulatedFiles {
    fn boot(&self) -> io::Result<u64> {
        Ok(self.disk().boot)
    }

    fn list(&self) -> io::Result<Vec<(ExtentName, u64)>> {
        Ok(self.disk().files.iter().map(|(name, file)| (*name, file.bytes.len() as u64)).collect())
    }

    fn create(&self, name: ExtentName, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        if disk.room.is_some_and(|room| room < bytes.len() as u64) {
            return Err(ErrorKind::StorageFull.into());
        }
        let before = disk.files.insert(name, SimulatedFile::synced(bytes));
        assert!(before.is_none(), "an extent's name is used once");
        Ok(())
    }

    fn append(&self, name: ExtentName, position: u64, slices: &[Bytes]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        let bytes = slices.concat();
        // Only what makes the file longer takes room.
        let length = disk.file(name)?.bytes.len();
        let growth = (position as usize + bytes.len()).saturating_sub(length);
        let fits = disk.room.map_or(bytes.len(), |room| bytes.len() - growth.saturating_sub(room as usize));
        let lives = disk.dies_after.map_or(bytes.len(), |left| bytes.len().min(left as usize));
        let written = fits.min(lives);
        if let Some(room) = &mut disk.room {
            *room -= (position as usize + written).saturating_sub(length) as u64;
        }
        let file = disk.file(name)?;
        let end = position as usize + written;
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        file.bytes[position as usize..end].copy_from_slice(&bytes[..written]);
        file.written(position as usize..end);
        if let Some(left) = &mut disk.dies_after {
            *left -= written as u64;
        }
        disk.alive()?;
        if written < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self, name: ExtentName) -> io::Result<()> {
        let mut disk = self.disk();
        let fails = std::mem::take(&mut disk.sync_fails);
        disk.failed_syncs += u64::from(fails || disk.alive().is_err());
        disk.alive()?;
        let file = disk.file(name)?;
        if fails {
            let same = file.bytes.iter().zip(&file.on_disk).take_while(|(now, then)| now == then).count();
            file.lost.push(same..file.bytes.len());
            return Err(io::Error::other("input/output error"));
        }
        file.on_disk = file.bytes.clone();
        SimulatedFile::zero_lost(&file.lost, &mut file.on_disk);
        Ok(())
    }

    fn read(&self, name: ExtentName, range: Range<u64>) -> io::Result<Bytes> {
        let mut disk = self.disk();
        let file = disk.file(name)?;
        let part = file.bytes.get(range.start as usize..range.end as usize).ok_or(ErrorKind::UnexpectedEof)?;
        Ok(Bytes::copy_from_slice(part))
    }

    fn truncate(&self, name: ExtentName, length: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        disk.file(name)?.bytes.truncate(length as usize);
        Ok(())
    }

    fn delete(&self, names: &[ExtentName]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        for name in names {
            disk.files.remove(name);
        }
        Ok(())
    }
}
