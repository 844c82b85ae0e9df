//! A segment's file read in pieces, so that whoever reads it needs no more memory than a piece and its largest batch take.
//!
//! Invariants:
//! 1. What is kept is what was not taken yet, at most [`PIECE`] and [`LARGEST_BATCH`] bytes.

use crate::object::ObjectStore;
use crate::store_error::StoreError;
use bytes::BytesMut;

/// Bytes of a file read at once.
const PIECE: u64 = 4 << 20;
/// A batch that takes more can't have come through a broker.
const LARGEST_BATCH: usize = 16 << 20;

/// Why there is no next piece.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PieceError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is not there, or shorter than it was.
    #[error("it is not there, or was cut off")]
    Missing,
    /// No batch ended in what was read last.
    #[error("no batch ends within {LARGEST_BATCH} bytes")]
    Endless,
}

/// A file on its way.
pub struct Pieces<'a> {
    objects: &'a dyn ObjectStore,
    key: String,
    size: u64,
    read: u64,
    untaken: BytesMut,
}

impl<'a> Pieces<'a> {
    /// The file `key` of `size` bytes, from its start.
    pub fn new(objects: &'a dyn ObjectStore, key: String, size: u64) -> Pieces<'a> {
        Pieces { objects, key, size, read: 0, untaken: BytesMut::new() }
    }

    /// What was not taken of the pieces before, with the next piece behind it; `None` after the last. The caller takes
    /// what is whole from its front.
    ///
    /// # Errors
    /// See [`PieceError`].
    pub async fn next(&mut self) -> Result<Option<&mut BytesMut>, PieceError> {
        if self.read >= self.size {
            return Ok(None);
        }
        if self.untaken.len() > LARGEST_BATCH {
            return Err(PieceError::Endless);
        }
        let range = self.read..self.size.min(self.read + PIECE);
        let piece = self.objects.get_range(&self.key, range).await?.filter(|piece| !piece.is_empty());
        let piece = piece.ok_or(PieceError::Missing)?;
        self.read += piece.len() as u64;
        self.untaken.extend_from_slice(&piece);
        Ok(Some(&mut self.untaken))
    }
}
