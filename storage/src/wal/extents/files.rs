//! The files under extents: a narrow seam, so that the simulator can lose what was not synced.
//!
//! Calls block; they are made from the writer's thread (changes) and from the blocking pool (reads, and the syncs that
//! checkpoints ask for).
//!
//! What lies [`KEPT_BYTES`] behind the end of a log leaves the page cache, step by step: a log that only grows would take
//! fresh memory for every byte, which costs far more than the bytes' copy, where the same few pages do. It also begins
//! the write-back early, so that no flood of dirty pages stops the writer. Only pages that are on disk leave; the
//! advice never waits, and takes no error that a later sync has to see.

use super::frame::ExtentName;
use crate::ids::Wid;
use crate::object::local::{make_directory, read_fresh, sync_directory};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What extents need of a file system.
pub trait ExtentFiles: Send + Sync {
    /// Identifies the operating system's boot: what was written in the same boot was not lost by a power failure.
    fn boot(&self) -> io::Result<u64>;
    /// All extents with their lengths.
    fn list(&self) -> io::Result<Vec<(ExtentName, u64)>>;
    /// Makes a new file of these bytes; bytes and name are on disk afterwards. After an error nothing is there.
    fn create(&self, name: ExtentName, bytes: &[u8]) -> io::Result<()>;
    /// Writes the slices at `position`, the end of what counts in the file. After an error any part may be there.
    fn append(&self, name: ExtentName, position: u64, slices: &[Bytes]) -> io::Result<()>;
    /// Puts everything written to the file on disk. An error is final: the kernel may have dropped the bytes.
    fn sync(&self, name: ExtentName) -> io::Result<()>;
    /// Reads the range, whole. `NotFound` if there is no such file.
    fn read(&self, name: ExtentName, range: Range<u64>) -> io::Result<Bytes>;
    /// Cuts the file; the cut is on disk at the next sync.
    fn truncate(&self, name: ExtentName, length: u64) -> io::Result<()>;
    /// Removes files; one that is not there is no error.
    fn delete(&self, names: &[ExtentName]) -> io::Result<()>;
}

/// Extents as `{root}/{wid}/{index:010}.extent`.
pub struct DirectoryFiles {
    root: PathBuf,
    /// Files open for writing: of each log at most the newest.
    writing: Mutex<BTreeMap<Wid, Writing>>,
}

/// Bytes of a log that stay in the page cache, for consumers that are nearly caught up.
const KEPT_BYTES: u64 = 16 << 20;
/// Bytes after which what lies further behind is asked to leave once more. The first time begins its write-back; once
/// that has ended, the next time lets it go.
const STEP_BYTES: u64 = 4 << 20;

/// The newest extent of a log.
struct Writing {
    index: u32,
    file: File,
    /// The end that calls for the next step.
    next_step: u64,
    /// The extent before it and that one's length, while a part of it stays in the page cache.
    before: Option<(File, u64)>,
}

impl Writing {
    /// Lets go what lies too far behind `end`, now and then.
    fn advanced(&mut self, end: u64) {
        if end < self.next_step {
            return;
        }
        self.next_step = end + STEP_BYTES;
        if let Some((file, length)) = &self.before {
            leave_cache(file, (length + end).saturating_sub(KEPT_BYTES));
            if end >= KEPT_BYTES + STEP_BYTES {
                self.before = None;
            }
        }
        leave_cache(&self.file, end.saturating_sub(KEPT_BYTES));
    }
}

/// Asks the kernel to write back the dirty pages below `end` and to drop the clean ones. Best effort.
fn leave_cache(file: &File, end: u64) {
    // Zero would mean all of the file.
    if let Some(end) = NonZeroU64::new(end) {
        let _ = rustix::fs::fadvise(file, 0, Some(end), rustix::fs::Advice::DontNeed);
    }
}

/// Most slices of one `pwritev` (Linux's IOV_MAX).
const SLICES_PER_WRITE: usize = 1_024;

const SUFFIX: &str = ".extent";

impl DirectoryFiles {
    /// Extents under `root`, which is made if it is not there.
    pub fn open(root: &Path) -> io::Result<DirectoryFiles> {
        make_directory(root)?;
        Ok(DirectoryFiles::existing(root))
    }

    /// Extents under `root`, which is there.
    pub(super) fn existing(root: &Path) -> DirectoryFiles {
        DirectoryFiles { root: root.to_owned(), writing: Mutex::default() }
    }

    fn folder(&self, wid: Wid) -> PathBuf {
        self.root.join(wid.to_string())
    }

    fn path(&self, name: ExtentName) -> PathBuf {
        self.folder(name.wid).join(format!("{:010}{SUFFIX}", name.index))
    }

    fn writing(&self) -> MutexGuard<'_, BTreeMap<Wid, Writing>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, open for writing: the one kept open if it is that, else opened for this call.
    fn with_file<T>(&self, name: ExtentName, call: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        match self.writing().get(&name.wid) {
            Some(writing) if writing.index == name.index => call(&writing.file),
            Some(_) | None => call(&File::options().write(true).open(self.path(name))?),
        }
    }
}

fn write_all_at(file: &File, mut position: u64, slices: &[Bytes]) -> io::Result<()> {
    let mut parts: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut rest = &mut parts[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let now = rest.len().min(SLICES_PER_WRITE);
        match rustix::io::pwritev(file, &rest[..now], position) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl ExtentFiles for DirectoryFiles {
    fn boot(&self) -> io::Result<u64> {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, text.trim().as_bytes()))
    }

    fn list(&self) -> io::Result<Vec<(ExtentName, u64)>> {
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            // What is not named like a log or an extent is a stranger and left alone.
            let Some(wid) = folder.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            for entry in fs::read_dir(folder.path())? {
                let entry = entry?;
                let name = entry.file_name();
                let index = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
                if let Some(index) = index {
                    found.push((ExtentName { wid, index }, entry.metadata()?.len()));
                }
            }
        }
        Ok(found)
    }

    fn create(&self, name: ExtentName, bytes: &[u8]) -> io::Result<()> {
        let folder = self.folder(name.wid);
        let path = self.path(name);
        fs::create_dir_all(&folder)?;
        let make = || {
            let file = File::create_new(&path)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()?;
            sync_directory(&folder)?;
            sync_directory(&self.root)?;
            Ok(file)
        };
        match make() {
            Ok(file) => {
                let mut writing = self.writing();
                let before = writing.remove(&name.wid).and_then(|before| {
                    let length = before.file.metadata().ok()?.len();
                    Some((before.file, length))
                });
                writing.insert(name.wid, Writing { index: name.index, file, next_step: STEP_BYTES, before });
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn append(&self, name: ExtentName, position: u64, slices: &[Bytes]) -> io::Result<()> {
        self.with_file(name, |file| write_all_at(file, position, slices))?;
        if let Some(writing) = self.writing().get_mut(&name.wid).filter(|writing| writing.index == name.index) {
            writing.advanced(position + slices.iter().map(|slice| slice.len() as u64).sum::<u64>());
        }
        Ok(())
    }

    fn sync(&self, name: ExtentName) -> io::Result<()> {
        // Not under the lock: the writer may go on meanwhile. The copy shares the state of errors with its original.
        self.with_file(name, File::try_clone)?.sync_data()
    }

    fn read(&self, name: ExtentName, range: Range<u64>) -> io::Result<Bytes> {
        Ok(read_fresh(&File::open(self.path(name))?, range)?.into())
    }

    fn truncate(&self, name: ExtentName, length: u64) -> io::Result<()> {
        self.with_file(name, |file| file.set_len(length))
    }

    fn delete(&self, names: &[ExtentName]) -> io::Result<()> {
        for name in names {
            {
                let mut writing = self.writing();
                match writing.get_mut(&name.wid) {
                    Some(newest) if newest.index == name.index => drop(writing.remove(&name.wid)),
                    // An open file would keep its bytes on the disk.
                    Some(newest) => newest.before = None,
                    None => {}
                }
            }
            match fs::remove_file(self.path(*name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            // Goes only when nothing lies in it any more.
            let _ = fs::remove_dir(self.folder(name.wid));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_left_the_page_cache_reads_back_whole() {
        let directory = tempfile::tempdir().unwrap();
        let files = DirectoryFiles::open(directory.path()).unwrap();
        let part = |index: u32, number: u64| {
            let fill = (u64::from(index) * 100 + number) as u8;
            Bytes::from(vec![fill; (STEP_BYTES / 2) as usize + 77])
        };
        let parts = (KEPT_BYTES + 3 * STEP_BYTES) / (STEP_BYTES / 2);
        let length = part(0, 0).len() as u64;
        let names = [0, 1].map(|index| ExtentName { wid: Wid(7), index });
        for name in names {
            files.create(name, &[]).unwrap();
            for number in 0..parts {
                let whole = part(name.index, number);
                files.append(name, number * length, &[whole.slice(..100), whole.slice(100..)]).unwrap();
                assert_eq!(files.writing()[&name.wid].before.is_some(), {
                    let end = (number + 1) * length;
                    name.index == 1 && end < KEPT_BYTES + STEP_BYTES
                });
            }
        }
        for name in names {
            for number in 0..parts {
                let read = files.read(name, number * length..(number + 1) * length).unwrap();
                assert!(read == part(name.index, number), "part {number} of {name:?}");
            }
        }
    }
}
