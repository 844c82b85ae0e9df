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
}

#[derive(Default)]
struct SimulatedFile {
    bytes: Vec<u8>,
    /// Content at the last sync.
    on_disk: Vec<u8>,
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

    /// The process is gone and starts again: everything that it wrote is there.
    pub fn restart(&self) {
        self.disk().dies_after = None;
    }

    /// The power fails. Of what was not synced a random part survives: `below(n)` gives a number below n.
    pub fn power_failure(&self, below: &mut dyn FnMut(u64) -> u64) {
        let mut disk = self.disk();
        disk.dies_after = None;
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
        let file = SimulatedFile { bytes: bytes.to_vec(), on_disk: bytes.to_vec() };
        let before = disk.files.insert(name, file);
        assert!(before.is_none(), "an extent's name is used once");
        Ok(())
    }

    fn append(&self, name: ExtentName, position: u64, slices: &[Bytes]) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        let bytes = slices.concat();
        let fits = disk.room.map_or(bytes.len(), |room| bytes.len().min(room as usize));
        let lives = disk.dies_after.map_or(bytes.len(), |left| bytes.len().min(left as usize));
        let written = fits.min(lives);
        if let Some(room) = &mut disk.room {
            *room -= written as u64;
        }
        let file = disk.file(name)?;
        let end = position as usize + written;
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
        }
        file.bytes[position as usize..end].copy_from_slice(&bytes[..written]);
        if let Some(left) = &mut disk.dies_after {
            *left -= written as u64;
        }
        disk.alive()?;
        if written < bytes.len() { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self, name: ExtentName) -> io::Result<()> {
        let mut disk = self.disk();
        disk.alive()?;
        let file = disk.file(name)?;
        file.on_disk = file.bytes.clone();
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
