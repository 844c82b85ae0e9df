//! The files under extents: a narrow seam, so that the simulator can lose what was not synced.
//!
//! Calls block; they are made from the writer's thread (changes) and from the blocking pool (reads).

use super::frame::ExtentName;
use crate::ids::Wid;
use crate::object::local::{make_directory, sync_directory};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice};
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
    writing: Mutex<BTreeMap<Wid, (u32, File)>>,
}

/// Most slices of one `pwritev` (Linux's IOV_MAX).
const SLICES_PER_WRITE: usize = 1_024;

const SUFFIX: &str = ".extent";

impl DirectoryFiles {
    /// Extents under `root`, which is made if it is not there.
    pub fn open(root: &Path) -> io::Result<DirectoryFiles> {
        make_directory(root)?;
        Ok(DirectoryFiles { root: root.to_owned(), writing: Mutex::default() })
    }

    fn folder(&self, wid: Wid) -> PathBuf {
        self.root.join(wid.to_string())
    }

    fn path(&self, name: ExtentName) -> PathBuf {
        self.folder(name.wid).join(format!("{:010}{SUFFIX}", name.index))
    }

    fn writing(&self) -> MutexGuard<'_, BTreeMap<Wid, (u32, File)>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, open for writing: the one kept open if it is that, else opened for this call.
    fn with_file<T>(&self, name: ExtentName, call: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        match self.writing().get(&name.wid) {
            Some((index, file)) if *index == name.index => call(file),
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
                self.writing().insert(name.wid, (name.index, file));
                Ok(())
            }
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn append(&self, name: ExtentName, position: u64, slices: &[Bytes]) -> io::Result<()> {
        self.with_file(name, |file| write_all_at(file, position, slices))
    }

    fn sync(&self, name: ExtentName) -> io::Result<()> {
        self.with_file(name, File::sync_data)
    }

    fn read(&self, name: ExtentName, range: Range<u64>) -> io::Result<Bytes> {
        let file = File::open(self.path(name))?;
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn truncate(&self, name: ExtentName, length: u64) -> io::Result<()> {
        self.with_file(name, |file| file.set_len(length))
    }

    fn delete(&self, names: &[ExtentName]) -> io::Result<()> {
        for name in names {
            {
                let mut writing = self.writing();
                if writing.get(&name.wid).is_some_and(|(index, _)| *index == name.index) {
                    writing.remove(&name.wid);
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
