//! Objects as files under a root directory, one process at a time (the caller holds the directory's lock).
//!
//! Invariants:
//! 1. A put is answered only when the file's bytes and its name are on disk: file synced, then linked or renamed, then
//!    every directory on the way to it synced.
//! 2. A key names either no file or a whole one: bytes are written to a staged file first, which is hard-linked
//!    (put-if-absent: the link has one winner) or renamed (put-if-match, which compares under [`Shared::names`]).
//! 3. Staged files of a process that died are removed when the store is opened.
//! 4. A directory exists for a listing only while a file lies somewhere below it.
//!
//! An error before the link or rename left nothing behind; a failed sync after it has an unknown outcome.

use super::{ListedObject, MatchOutcome, Object, ObjectStore, OpenError, Version, cut};
use crate::side::SideRuntime;
use crate::store_error::{Certainty, StoreError};
use crate::wal::{PutOutcome, StoreFuture, Suffix};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, pread};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Staged files lie here; no key starts with a dot.
const STAGING: &str = ".staging";

/// A directory of objects. Clones share it; it is its own handle on every thread.
#[derive(Clone)]
pub struct LocalStore {
    shared: Arc<Shared>,
    side: SideRuntime,
}

struct Shared {
    root: PathBuf,
    /// Held by every change of names (mkdir, link, rename, unlink, rmdir), so that an emptied directory is not removed
    /// from under a file about to be linked into it, and so that put-if-match compares what it replaces.
    names: Mutex<()>,
    staged: AtomicU64,
}

impl LocalStore {
    /// Opens or creates the directory and removes what a dead process left half-written.
    pub fn open(root: &Path, side: &SideRuntime) -> Result<LocalStore, OpenError> {
        let prepare = || -> io::Result<()> {
            let staging = root.join(STAGING);
            make_directory(&staging)?;
            for entry in fs::read_dir(&staging)? {
                fs::remove_file(entry?.path())?;
            }
            Ok(())
        };
        prepare().map_err(|error| {
            OpenError::new(
                format!("the object directory {} can't be used: {error}", root.display()),
                "give this process write access to it, or name another one",
            )
        })?;
        Ok(LocalStore::existing(root, side))
    }

    /// The directory as it is: to be read, since what a dead process left half-written stays.
    pub fn existing(root: &Path, side: &SideRuntime) -> LocalStore {
        let shared = Shared { root: root.to_owned(), names: Mutex::new(()), staged: AtomicU64::new(0) };
        LocalStore { shared: Arc::new(shared), side: side.clone() }
    }

    /// The same, with ranges read by [`SideRuntime::giving_way`].
    #[must_use]
    pub fn giving_way(&self) -> LocalStore {
        LocalStore { side: self.side.giving_way(), ..self.clone() }
    }

    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let shared = self.shared.clone();
        Box::pin(self.side.blocking(move || call(&shared)))
    }

    /// [`LocalStore::call`] with the path that `key` names.
    fn call_at<T: Send + 'static>(
        &self,
        key: &str,
        call: impl FnOnce(&Shared, &Path) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let path = self.shared.path(key);
        self.call(move |shared| call(shared, &path))
    }
}

impl Shared {
    fn path(&self, key: &str) -> PathBuf {
        assert!(is_plain(key), "keys are made by this program: {key:?}");
        self.root.join(key)
    }

    fn names(&self) -> MutexGuard<'_, ()> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a synced file under a fresh staged name; leaves nothing behind when it fails.
    fn stage(&self, slices: &[Bytes]) -> Result<Staged, StoreError> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let staged = Staged(self.root.join(STAGING).join(number.to_string()));
        let write = || {
            let mut file = File::create_new(&staged.0)?;
            write_all_vectored(&mut file, slices)?;
            file.sync_all()
        };
        write().map_err(|error| StoreError::from_io(Certainty::NotDone, "writing an object", &error))?;
        Ok(staged)
    }

    /// Syncs every directory from the file's up to the root.
    fn sync_names(&self, path: &Path) -> Result<(), StoreError> {
        for directory in path.ancestors().skip(1).take_while(|directory| directory.starts_with(&self.root)) {
            sync_directory(directory)
                .map_err(|error| StoreError::from_io(Certainty::Unknown, "syncing a directory", &error))?;
        }
        Ok(())
    }

    fn put_if_absent(&self, path: &Path, slices: &[Bytes]) -> Result<PutOutcome, StoreError> {
        let staged = self.stage(slices)?;
        let link = || {
            let _names = self.names();
            fs::create_dir_all(path.parent().expect("every key lies below the root"))?;
            fs::hard_link(&staged.0, path)
        };
        let outcome = match link() {
            Ok(()) => PutOutcome::Stored,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => PutOutcome::AlreadyExists,
            Err(error) => return Err(StoreError::from_io(Certainty::NotDone, "naming an object", &error)),
        };
        // Also when another put won: its own sync may not have come yet, and this answer says that the object is there.
        self.sync_names(path)?;
        Ok(outcome)
    }

    fn put_if_match(&self, path: &Path, bytes: Bytes, version: &Version) -> Result<MatchOutcome, StoreError> {
        let new = version_of(&bytes);
        let staged = self.stage(&[bytes])?;
        {
            let _names = self.names();
            match read_whole(path)? {
                Some(current) if version_of(&current) == *version => {}
                Some(_) | None => return Ok(MatchOutcome::Changed),
            }
            fs::rename(&staged.0, path)
                .map_err(|error| StoreError::from_io(Certainty::NotDone, "replacing an object", &error))?;
        }
        self.sync_names(path)?;
        Ok(MatchOutcome::Stored(new))
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<ListedObject>> {
        let mut found = Vec::new();
        let mut directories = vec![prefix.trim_end_matches('/').to_owned()];
        while let Some(directory) = directories.pop() {
            for (name, entry) in self.entries(&directory)? {
                let key = if directory.is_empty() { name } else { format!("{directory}/{name}") };
                // An entry that is gone by now was deleted, which a listing may miss or not.
                let Some(metadata) = present(entry.metadata())? else { continue };
                if metadata.is_dir() {
                    directories.push(key);
                } else {
                    let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                    let modified_ms = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
                    found.push(ListedObject { key, size: metadata.len(), modified_ms });
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn list_directories(&self, prefix: &str) -> io::Result<Vec<String>> {
        let parent = prefix.trim_end_matches('/');
        let mut names = Vec::new();
        for (name, entry) in self.entries(parent)? {
            let is_directory = present(entry.file_type())?.is_some_and(|kind| kind.is_dir());
            if is_directory && !self.list(&format!("{prefix}{name}/"))?.is_empty() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Names in a directory that keys can reach; none if it does not exist.
    fn entries(&self, directory: &str) -> io::Result<Vec<(String, fs::DirEntry)>> {
        let Some(entries) = present(fs::read_dir(self.root.join(directory)))? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && !name.starts_with('.')
            {
                found.push((name, entry));
            }
        }
        Ok(found)
    }

    fn delete(&self, paths: &[PathBuf]) -> io::Result<()> {
        let mut parents = BTreeSet::new();
        for path in paths {
            let _names = self.names();
            if present(fs::remove_file(path))?.is_some() {
                parents.extend(path.parent());
            }
        }
        for parent in parents {
            present(sync_directory(parent))?;
            let _names = self.names();
            for directory in parent.ancestors().take_while(|up| *up != self.root && up.starts_with(&self.root)) {
                // Fails, as it should, while anything lies in it.
                if fs::remove_dir(directory).is_err() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// A staged file; its name goes when this does.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // Fails after a rename, or when it was never made; what stays is removed at the next open.
        let _ = fs::remove_file(&self.0);
    }
}

fn is_plain(key: &str) -> bool {
    key.is_ascii() && key.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
}

/// `None` for what does not exist.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the names in a directory on disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    // The parent of a relative path of one part is empty: the current directory.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}

/// Makes a directory and what is missing above it; all of their names are on disk afterwards.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|up| !up.as_os_str().is_empty() && !up.exists()).collect();
    fs::create_dir_all(path)?;
    // Also when nothing was missing: an earlier process may have ended between making and syncing it.
    for made in missing.into_iter().chain([path]) {
        made.parent().map_or(Ok(()), sync_directory)?;
    }
    Ok(())
}

fn write_all_vectored(file: &mut File, slices: &[Bytes]) -> io::Result<()> {
    let mut parts: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut rest = &mut parts[..];
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_error(error: &io::Error) -> StoreError {
    StoreError::from_io(Certainty::NotDone, "reading an object", error)
}

fn read_whole(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    present(fs::read(path)).map_err(|error| read_error(&error))
}

/// Reads `range` of the file, cut at its end, with the file's size. Files never change in place.
fn read_part(path: &Path, range: impl FnOnce(u64) -> Range<u64>) -> Result<Option<Suffix>, StoreError> {
    let read = || -> io::Result<Option<Suffix>> {
        let Some(file) = present(File::open(path))? else { return Ok(None) };
        let size = file.metadata()?.len();
        let range = cut(range(size), size);
        Ok(Some(Suffix { size, bytes: read_fresh(&file, range)?.into() }))
    };
    read().map_err(|error| read_error(&error))
}

/// Reads `range`, all of which the file has, into memory that was not filled with anything before: that would cost as much
/// as the copy itself.
pub(crate) fn read_fresh(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let length = (range.end - range.start) as usize;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = range.start + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Memory may come in larger pieces than was asked for.
    bytes.truncate(length);
    Ok(bytes)
}

/// A version is the length and CRC-64 of the bytes: it survives restarts, and equal bytes are the same state.
fn version_of(bytes: &[u8]) -> Version {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    Version(format!("{:x}-{crc:016x}", bytes.len()))
}

impl ObjectStore for LocalStore {
    fn put_if_absent(&self, key: &str, slices: Vec<Bytes>) -> StoreFuture<PutOutcome> {
        self.call_at(key, move |shared, path| shared.put_if_absent(path, &slices))
    }

    fn put_if_match(&self, key: &str, bytes: Bytes, version: Version) -> StoreFuture<MatchOutcome> {
        self.call_at(key, move |shared, path| shared.put_if_match(path, bytes, &version))
    }

    fn get(&self, key: &str) -> StoreFuture<Option<Object>> {
        self.call_at(key, |_, path| {
            let object = read_whole(path)?.map(|bytes| Object { version: version_of(&bytes), bytes: bytes.into() });
            Ok(object)
        })
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> StoreFuture<Option<Bytes>> {
        let path = self.shared.path(key);
        Box::pin(self.side.reading(move || Ok(read_part(&path, |_| range)?.map(|part| part.bytes))))
    }

    fn get_suffix(&self, key: &str, length: u64) -> StoreFuture<Option<Suffix>> {
        self.call_at(key, move |_, path| read_part(path, |size| size.saturating_sub(length)..size))
    }

    fn list(&self, prefix: &str) -> StoreFuture<Vec<ListedObject>> {
        let prefix = prefix.to_owned();
        self.call(move |shared| shared.list(&prefix).map_err(|error| read_error(&error)))
    }

    fn list_directories(&self, prefix: &str) -> StoreFuture<Vec<String>> {
        let prefix = prefix.to_owned();
        self.call(move |shared| shared.list_directories(&prefix).map_err(|error| read_error(&error)))
    }

    fn delete(&self, keys: Vec<String>) -> StoreFuture<()> {
        let paths: Vec<PathBuf> = keys.iter().map(|key| self.shared.path(key)).collect();
        self.call(move |shared| {
            let failed = |error: io::Error| StoreError::from_io(Certainty::Unknown, "deleting objects", &error);
            shared.delete(&paths).map_err(failed)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    #[test]
    fn what_a_dead_process_staged_is_gone_after_the_next_open() {
        let directory = tempfile::tempdir().unwrap();
        let side = SideRuntime::start().unwrap();
        let staging = directory.path().join(STAGING);
        fs::create_dir_all(&staging).unwrap();
        fs::write(staging.join("0"), b"half an obj").unwrap();
        let store = LocalStore::open(directory.path(), &side).unwrap();
        block_on(store.put_if_absent("a/b", vec![Bytes::from_static(b"x")])).unwrap();
        assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    }

    #[test]
    fn a_version_survives_reopening_and_a_replaced_object_refuses_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let side = SideRuntime::start().unwrap();
        let store = LocalStore::open(directory.path(), &side).unwrap();
        block_on(store.put_if_absent("m", vec![Bytes::from_static(b"one")])).unwrap();
        let version = block_on(store.get("m")).unwrap().unwrap().version;
        let store = LocalStore::open(directory.path(), &side).unwrap();
        let replaced = block_on(store.put_if_match("m", Bytes::from_static(b"two"), version.clone())).unwrap();
        assert!(matches!(replaced, MatchOutcome::Stored(_)));
        let again = block_on(store.put_if_match("m", Bytes::from_static(b"three"), version)).unwrap();
        assert_eq!(again, MatchOutcome::Changed);
    }

    #[test]
    fn a_directory_is_made_with_all_that_is_missing_above_it() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("a/b/c");
        make_directory(&deep).unwrap();
        make_directory(&deep).unwrap();
        assert!(deep.is_dir());
        sync_directory(Path::new("")).unwrap();
    }

    #[test]
    fn a_root_that_is_a_file_is_refused_with_a_fix() {
        let directory = tempfile::tempdir().unwrap();
        let side = SideRuntime::start().unwrap();
        fs::write(directory.path().join("file"), b"").unwrap();
        let error = LocalStore::open(&directory.path().join("file"), &side).err().unwrap();
        assert!(error.to_string().contains("name another one"), "{error}");
    }
}
