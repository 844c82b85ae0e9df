//! The files of extents, to be read only: what a process that starts would cut off or write again stays as it is.

use super::files::ExtentFiles;
use super::frame::ExtentName;
use bytes::Bytes;
use std::io::{self, ErrorKind};
use std::ops::Range;

/// Other files, of which nothing changes.
pub(super) struct ReadOnlyFiles<F>(pub(super) F);

fn refuse() -> io::Error {
    io::Error::new(ErrorKind::ReadOnlyFilesystem, "opened for reading only")
}

impl<F: ExtentFiles> ExtentFiles for ReadOnlyFiles<F> {
    fn boot(&self) -> io::Result<u64> {
        self.0.boot()
    }

    fn list(&self) -> io::Result<Vec<(ExtentName, u64)>> {
        self.0.list()
    }

    fn create(&self, _name: ExtentName, _bytes: &[u8]) -> io::Result<()> {
        Err(refuse())
    }

    /// Opening writes what it found once more, so that it is stored: not needed by who only reads.
    fn append(&self, _name: ExtentName, _position: u64, _slices: &[Bytes]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, _name: ExtentName) -> io::Result<()> {
        Ok(())
    }

    fn read(&self, name: ExtentName, range: Range<u64>) -> io::Result<Bytes> {
        self.0.read(name, range)
    }

    /// What lies behind the cut is not looked at again.
    fn truncate(&self, _name: ExtentName, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn delete(&self, _names: &[ExtentName]) -> io::Result<()> {
        Ok(())
    }
}
