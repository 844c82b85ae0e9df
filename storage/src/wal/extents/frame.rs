//! The bytes of an extent, version 1. Integers are little-endian; golden bytes stand in the tests.
//!
//! - Extent header, 64 B: magic "MRXEXTNT" · version u32 = 1 · flags u32 (bit 0: every earlier extent of this log was
//!   synced when this one was made) · wid u128 · index u32 · zero u32 · boot u64 (the operating system's boot that it
//!   was made in) · zero · CRC-32C at byte 60.
//! - Frame header, 32 B, before each object: magic "MRXF" · length u32 · seq u64 · synced u32 (bytes of this extent known
//!   to be on disk when the frame was written) · CRC-32C of the object u32 · zero u32 · CRC-32C at byte 28.
//! - Index, at the end of a full extent: 16 B per frame {seq u64, position u32, length u32}, then a trailer of 32 B: magic
//!   "MRXINDEX" · position u32 · entries u32 · CRC-32C of the entries u32 · zero · CRC-32C at byte 28.
//!
//! The CRC of a header also covers where it stands (wid, index, position), so that bytes that were produced to a topic,
//! or stood elsewhere before, are never taken for one.

use crate::ids::{Seq, Wid};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

/// Size of an extent's header.
pub(super) const EXTENT_HEADER: u32 = 64;
/// Size of a frame's header.
pub(super) const FRAME_HEADER: u32 = 32;
/// Size of the trailer of an index.
pub(super) const INDEX_TRAILER: u32 = 32;
/// Size of one entry of an index.
const INDEX_ENTRY: u32 = 16;

const EXTENT_MAGIC: &[u8; 8] = b"MRXEXTNT";
const FRAME_MAGIC: &[u8; 4] = b"MRXF";
const INDEX_MAGIC: &[u8; 8] = b"MRXINDEX";
const VERSION: u32 = 1;

/// One file of one log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ExtentName {
    /// The log.
    pub wid: Wid,
    /// Its number in the log, from 0.
    pub index: u32,
}

/// What an extent's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ExtentHeader {
    /// Every earlier extent of the log was on disk when this one was made.
    pub(super) earlier_synced: bool,
    /// The operating system's boot in which every byte of it was written.
    pub(super) boot: u64,
}

/// Where a frame stands in its extent, and what its header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// The object's sequence.
    pub(super) seq: Seq,
    /// First byte of the frame's header.
    pub(super) position: u32,
    /// Bytes of the object.
    pub(super) length: u32,
    /// Bytes of the extent known to be on disk when the frame was written.
    pub(super) synced: u32,
    /// CRC-32C of the object.
    pub(super) crc: u32,
}

impl Frame {
    /// First byte of the object.
    pub(super) fn body(&self) -> u64 {
        u64::from(self.position) + u64::from(FRAME_HEADER)
    }
    /// First byte after the frame.
    pub(super) fn end(&self) -> u64 {
        self.body() + u64::from(self.length)
    }
}

/// CRC-32C of the slices joined.
pub(super) fn crc_of(slices: &[Bytes]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for slice in slices {
        digest.update(slice);
    }
    crc32(&digest)
}

fn crc32(digest: &Digest) -> u32 {
    u32::try_from(digest.finalize()).expect("a 32-bit CRC")
}

/// CRC-32C of bytes that stand at `position` of the extent `name`.
fn crc_there(name: ExtentName, position: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&name.wid.0.to_le_bytes());
    digest.update(&name.index.to_le_bytes());
    digest.update(&position.to_le_bytes());
    digest.update(bytes);
    crc32(&digest)
}

/// Fills the last four bytes with the CRC of those before.
fn seal(name: ExtentName, position: u32, mut bytes: Vec<u8>, size: u32) -> Bytes {
    bytes.resize(size as usize - 4, 0);
    let crc = crc_there(name, position, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.into()
}

/// The bytes before the CRC, if they are `size` long with that magic and CRC.
fn unseal<'a>(name: ExtentName, position: u32, bytes: &'a [u8], size: u32, magic: &[u8]) -> Option<&'a [u8]> {
    let bytes = bytes.get(..size as usize)?;
    let (body, crc) = bytes.split_at(size as usize - 4);
    (body.starts_with(magic) && crc == crc_there(name, position, body).to_le_bytes()).then_some(body)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Writes an extent's header.
pub(super) fn encode_extent_header(name: ExtentName, header: &ExtentHeader) -> Bytes {
    let mut bytes = Vec::with_capacity(EXTENT_HEADER as usize);
    bytes.extend_from_slice(EXTENT_MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&u32::from(header.earlier_synced).to_le_bytes());
    bytes.extend_from_slice(&name.wid.0.to_le_bytes());
    bytes.extend_from_slice(&name.index.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&header.boot.to_le_bytes());
    seal(name, 0, bytes, EXTENT_HEADER)
}

/// Reads the header of the extent `name`; `None` if these bytes are no such header.
pub(super) fn decode_extent_header(name: ExtentName, bytes: &[u8]) -> Option<ExtentHeader> {
    let body = unseal(name, 0, bytes, EXTENT_HEADER, EXTENT_MAGIC)?;
    (u32_at(body, 8) == VERSION)
        .then(|| ExtentHeader { earlier_synced: u32_at(body, 12) & 1 == 1, boot: u64_at(body, 40) })
}

/// Writes a frame's header.
pub(super) fn encode_frame_header(name: ExtentName, frame: &Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(FRAME_HEADER as usize);
    bytes.extend_from_slice(FRAME_MAGIC);
    bytes.extend_from_slice(&frame.length.to_le_bytes());
    bytes.extend_from_slice(&frame.seq.0.to_le_bytes());
    bytes.extend_from_slice(&frame.synced.to_le_bytes());
    bytes.extend_from_slice(&frame.crc.to_le_bytes());
    seal(name, frame.position, bytes, FRAME_HEADER)
}

/// Reads the header of a frame that stands at `position`; `None` if these bytes are no such header.
pub(super) fn decode_frame_header(name: ExtentName, position: u32, bytes: &[u8]) -> Option<Frame> {
    let body = unseal(name, position, bytes, FRAME_HEADER, FRAME_MAGIC)?;
    let (length, seq) = (u32_at(body, 4), Seq(u64_at(body, 8)));
    Some(Frame { seq, position, length, synced: u32_at(body, 16), crc: u32_at(body, 20) })
}

/// Whether a frame header may begin with these bytes: a quick look before the CRC.
pub(super) fn may_be_frame(bytes: &[u8]) -> bool {
    bytes.starts_with(FRAME_MAGIC)
}

/// Writes the index of an extent's frames, to stand at `position`.
pub(super) fn encode_index(name: ExtentName, position: u32, frames: &[Frame]) -> Bytes {
    let mut bytes = Vec::with_capacity(frames.len() * INDEX_ENTRY as usize + INDEX_TRAILER as usize);
    for frame in frames {
        bytes.extend_from_slice(&frame.seq.0.to_le_bytes());
        bytes.extend_from_slice(&frame.position.to_le_bytes());
        bytes.extend_from_slice(&frame.length.to_le_bytes());
    }
    let entries = Bytes::from(bytes);
    let mut trailer = Vec::with_capacity(INDEX_TRAILER as usize);
    trailer.extend_from_slice(INDEX_MAGIC);
    trailer.extend_from_slice(&position.to_le_bytes());
    trailer.extend_from_slice(&u32::try_from(frames.len()).expect("an extent is small").to_le_bytes());
    trailer.extend_from_slice(&crc_of(std::slice::from_ref(&entries)).to_le_bytes());
    let stands = position + u32::try_from(entries.len()).expect("an extent is small");
    let trailer = seal(name, stands, trailer, INDEX_TRAILER);
    Bytes::from([entries, trailer].concat())
}

/// Where an index's entries lie, as the trailer at `position` says; `None` if there is no such trailer.
pub(super) fn decode_index_trailer(name: ExtentName, position: u32, bytes: &[u8]) -> Option<(u32, u32)> {
    let body = unseal(name, position, bytes, INDEX_TRAILER, INDEX_MAGIC)?;
    let (start, entries) = (u32_at(body, 8), u32_at(body, 12));
    let end = u64::from(start) + u64::from(entries) * u64::from(INDEX_ENTRY);
    (end == u64::from(position)).then_some((start, u32_at(body, 16)))
}

/// Reads an index's entries; `None` if the CRC is not that of the trailer. CRCs and `synced` of the frames are zero.
pub(super) fn decode_index(bytes: &[u8], crc: u32) -> Option<Vec<Frame>> {
    let bytes = Bytes::copy_from_slice(bytes);
    if crc_of(std::slice::from_ref(&bytes)) != crc {
        return None;
    }
    let frame = |entry: &[u8]| Frame {
        seq: Seq(u64_at(entry, 0)),
        position: u32_at(entry, 8),
        length: u32_at(entry, 12),
        synced: 0,
        crc: 0,
    };
    Some(bytes.chunks_exact(INDEX_ENTRY as usize).map(frame).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: ExtentName = ExtentName { wid: Wid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), index: 7 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_of_version_1_stay() {
        let header = encode_extent_header(NAME, &ExtentHeader { earlier_synced: true, boot: 0x1122 });
        let frame = Frame { seq: Seq(5), position: 64, length: 3, synced: 64, crc: 0xaabb_ccdd };
        let index = encode_index(NAME, 99, &[frame]);
        assert_eq!(hex(&header), GOLDEN_HEADER);
        assert_eq!(hex(&encode_frame_header(NAME, &frame)), GOLDEN_FRAME);
        assert_eq!(hex(&index), GOLDEN_INDEX);
    }

    const GOLDEN_HEADER: &str = "4d52584558544e540100000001000000efcdab8967452301efcdab896745230107000000000000002211000000000000000000000000000000000000240bd395";
    const GOLDEN_FRAME: &str = "4d52584603000000050000000000000040000000ddccbbaa00000000401f807c";
    const GOLDEN_INDEX: &str =
        "050000000000000040000000030000004d5258494e4445586300000001000000f4795a0e0000000000000000be89ba34";

    proptest! {
        #[test]
        fn a_frame_header_reads_back_only_where_it_stands(
            seq: u64, position in 64u32.., length: u32, synced: u32, crc: u32, flip in 0usize..32 * 8,
        ) {
            let frame = Frame { seq: Seq(seq), position, length, synced, crc };
            let bytes = encode_frame_header(NAME, &frame);
            prop_assert_eq!(decode_frame_header(NAME, position, &bytes), Some(frame));
            prop_assert_eq!(decode_frame_header(NAME, position - 1, &bytes), None);
            let elsewhere = ExtentName { index: 8, ..NAME };
            prop_assert_eq!(decode_frame_header(elsewhere, position, &bytes), None);
            let mut damaged = bytes.to_vec();
            damaged[flip / 8] ^= 1 << (flip % 8);
            prop_assert_eq!(decode_frame_header(NAME, position, &damaged), None);
        }

        #[test]
        fn an_index_reads_back(places in prop::collection::vec((any::<u64>(), any::<u32>(), any::<u32>()), 0..20)) {
            let frame = |(seq, position, length)| Frame { seq: Seq(seq), position, length, synced: 0, crc: 0 };
            let frames: Vec<Frame> = places.into_iter().map(frame).collect();
            let bytes = encode_index(NAME, 1_000, &frames);
            let trailer = bytes.len() - INDEX_TRAILER as usize;
            let (start, crc) = decode_index_trailer(NAME, 1_000 + trailer as u32, &bytes[trailer..]).unwrap();
            prop_assert_eq!(start, 1_000);
            prop_assert_eq!(decode_index(&bytes[..trailer], crc).unwrap(), frames);
        }

        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), position: u32) {
            let _ = decode_extent_header(NAME, &bytes);
            let _ = decode_frame_header(NAME, position, &bytes);
            let _ = decode_index_trailer(NAME, position, &bytes);
            let _ = decode_index(&bytes, position);
        }
    }
}
