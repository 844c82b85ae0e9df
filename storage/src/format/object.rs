//! Header, footer and trailer of a write-ahead object.

use super::{Footer, FormatError};
use crate::env::WallMs;
use crate::ids::{Seq, Wid, WriterId};
use bytes::Bytes;

/// What a header says the object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Batches of the writer.
    Data,
    /// The end of the log: nothing at or after this sequence counts.
    Fence,
}

/// The first 64 bytes of every write-ahead object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectHeader {
    /// DATA or FENCE.
    pub kind: ObjectKind,
    /// The log that it belongs to.
    pub wid: Wid,
    /// Who wrote it.
    pub writer: WriterId,
    /// Its sequence.
    pub seq: Seq,
    /// The broker's wall clock when it was sealed; producers expire by it, so that the fold is deterministic.
    pub sealed_at: WallMs,
}

/// The last 32 bytes of a DATA object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trailer {
    /// First byte of the footer, from the start of the object.
    pub footer_position: u32,
    /// Its length in bytes.
    pub footer_length: u32,
    /// CRC-32C of the footer.
    pub footer_crc: u32,
    /// CRC-32C of the body.
    pub body_crc: u32,
    /// The newest checkpoint that the writer knew to be current.
    pub newest_checkpoint: u64,
}

/// Writes a header.
pub fn encode_header(_header: &ObjectHeader) -> Bytes {
    todo!("formats")
}

/// Reads a header: exactly the first [`super::HEADER_BYTES`].
pub fn decode_header(_bytes: &[u8]) -> Result<ObjectHeader, FormatError> {
    todo!("formats")
}

/// The slices of a whole DATA object: header, the body's slices as they are (positions in `footer` already count the
/// header), footer and trailer. `body_crc` is combined by the caller from what it already knows, or computed here.
pub fn encode_object(
    _header: &ObjectHeader,
    _body: Vec<Bytes>,
    _footer: &Footer,
    _newest_checkpoint: u64,
) -> Vec<Bytes> {
    todo!("formats")
}

/// Reads the trailer: exactly the last [`super::TRAILER_BYTES`].
pub fn decode_trailer(_bytes: &[u8]) -> Result<Trailer, FormatError> {
    todo!("formats")
}

/// Reads a footer whose position, length and CRC the trailer gave. A footer starts with a copy of the header, so that
/// one read of the end of an object suffices to fold it.
pub fn decode_footer(_bytes: &[u8], _trailer: &Trailer) -> Result<(ObjectHeader, Footer), FormatError> {
    todo!("formats")
}
