//! The batches of a segment's file, checked on the way: for what copies segments. What serves fetches reads ranges.
//!
//! Invariants:
//! 1. A batch is given out only when its own checksum was compared; that the file is whole is known at its end, so that
//!    what was made of it counts only then.

use super::pieces::{PieceError, Pieces};
use super::{PlacedBatch, Scanned, SegmentIndex, SegmentScan, index};
use crate::format::FormatError;
use crate::ids::Offset;
use crate::object::ObjectStore;
use crate::store_error::StoreError;
use bytes::{Buf, BytesMut};
use millrace_protocol::records::LENGTH_OVERHEAD;

/// Why a segment can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// A piece can't be had.
    #[error(transparent)]
    Piece(#[from] PieceError),
    /// The bytes are no segment.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> ReadError {
        ReadError::Piece(PieceError::Store(error))
    }
}

/// A segment's file on its way.
pub struct SegmentReader<'a> {
    pieces: Pieces<'a>,
    scan: SegmentScan,
    index: Option<index::Comparison<'a>>,
}

impl<'a> SegmentReader<'a> {
    /// The file `key`, held against `index` if one is given.
    ///
    /// # Errors
    /// It is not there, or no segment has its size.
    pub async fn open(
        objects: &'a dyn ObjectStore,
        key: String,
        index: Option<&'a SegmentIndex>,
    ) -> Result<SegmentReader<'a>, ReadError> {
        let size = objects.get_suffix(&key, 1).await?.ok_or(PieceError::Missing)?.size;
        SegmentReader::of_size(objects, key, size, index)
    }

    /// The file `key`, which has `size` bytes, held against `index` if one is given.
    ///
    /// # Errors
    /// No segment has that size.
    pub fn of_size(
        objects: &'a dyn ObjectStore,
        key: String,
        size: u64,
        index: Option<&'a SegmentIndex>,
    ) -> Result<SegmentReader<'a>, ReadError> {
        let (scan, index) = (SegmentScan::new(size)?, index.map(index::Comparison::new));
        Ok(SegmentReader { pieces: Pieces::new(objects, key, size), scan, index })
    }

    /// The next batches, each by itself; `None` after the last.
    ///
    /// # Errors
    /// See [`ReadError`]. The reader is of no use then.
    pub async fn next(&mut self) -> Result<Option<Vec<BytesMut>>, ReadError> {
        let Some(untaken) = self.pieces.next().await? else { return Ok(None) };
        let (start, index) = (self.scan.position(), &mut self.index);
        let (mut places, mut flaw) = (Vec::new(), None);
        let meet = |placed: PlacedBatch<'_>| {
            let base = Offset(placed.batch.base_offset());
            flaw = flaw.take().or_else(|| index.as_mut()?.batch(placed.position, base).err());
            places.push((u64::from(placed.position) - start, placed.batch.bytes().len()));
        };
        let taken = self.scan.take(untaken, meet)?;
        if let Some(flaw) = flaw {
            return Err(flaw.into());
        }
        let mut taken = untaken.split_to(taken);
        let mut at = 0;
        let mut batches = Vec::with_capacity(places.len());
        for (place, length) in places {
            // What lies between two batches is the header of the file only.
            taken.advance(usize::try_from(place - at).expect("a place within what was taken"));
            at = place + length as u64;
            assert!(length > LENGTH_OVERHEAD, "a batch has a header");
            batches.push(taken.split_to(length));
        }
        Ok(Some(batches))
    }

    /// What the file came to.
    ///
    /// # Errors
    /// Its end was not seen, or its index names what is not there.
    pub fn finish(self) -> Result<Scanned, ReadError> {
        let scanned = self.scan.finish()?;
        self.index.map_or(Ok(()), index::Comparison::finish)?;
        Ok(scanned)
    }
}
