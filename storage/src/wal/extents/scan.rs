//! What an extent found at start-up holds.
//!
//! A frame's header says how much of the extent was on disk when it was written; the next extent's header says whether
//! all before it was. That tells a write that never ended (cut off: nobody was told that it happened) from bytes that
//! went bad (an error: somebody was):
//! 1. Below the last such mark every frame must be whole, or the extent is corrupt.
//! 2. From it on the first frame that is not whole ends the extent, and what follows is dropped.
//!
//! Full extents that are known to be on disk are read through their index; the frame headers of the rest are walked, and
//! bodies are read from the last mark on. So opening many GiB takes a few reads per file.

use super::files::ExtentFiles;
use super::frame::{
    EXTENT_HEADER, ExtentHeader, ExtentName, FRAME_HEADER, Frame, INDEX_TRAILER, crc_of, decode_extent_header,
    decode_frame_header, decode_index, decode_index_trailer, may_be_frame,
};
use crate::store_error::{Certainty, FailureKind, StoreError};
use bytes::Bytes;

/// Bytes read at once while walking headers of small frames or looking for what lies behind a bad one.
const CHUNK: u64 = 256 * 1024;

/// An extent's content.
pub(super) struct Scanned {
    /// Its frames in the order of their positions.
    pub(super) frames: Vec<Frame>,
    /// Bytes that count; whatever lies beyond is to be cut off.
    pub(super) length: u64,
    /// Bytes known to be on disk since before the extent was found.
    pub(super) synced: u64,
}

/// An extent whose length is known.
pub(super) struct Found<'a> {
    pub(super) files: &'a dyn ExtentFiles,
    pub(super) name: ExtentName,
    pub(super) length: u64,
    /// A later extent says that all of this one was on disk.
    pub(super) known_synced: bool,
}

impl Found<'_> {
    /// The extent's header; `None` if its creation never ended, so that it holds nothing.
    pub(super) fn header(&self) -> Result<Option<ExtentHeader>, StoreError> {
        if self.length > u64::from(u32::MAX) {
            return Err(self.corrupt(0, "it is larger than any extent"));
        }
        let bytes = self.read(0, self.length.min(u64::from(EXTENT_HEADER)))?;
        match decode_extent_header(self.name, &bytes) {
            Some(header) => Ok(Some(header)),
            // The header is on disk before the first frame is written and before the next extent is made.
            None if self.length <= u64::from(EXTENT_HEADER) && !self.known_synced => Ok(None),
            None => Err(self.corrupt(0, "its header is damaged")),
        }
    }

    /// The frames.
    pub(super) fn scan(&self) -> Result<Scanned, StoreError> {
        if self.known_synced
            && let Some(frames) = self.index()?
        {
            return Ok(Scanned { frames, length: self.length, synced: self.length });
        }
        let (mut frames, mut end) = self.walk()?;
        if self.known_synced {
            if end < self.length && !self.is_index(end)? {
                return Err(self.corrupt(end, "a frame that was on disk is damaged"));
            }
            return Ok(Scanned { frames, length: self.length, synced: self.length });
        }
        let synced = frames.iter().map(|frame| u64::from(frame.synced)).max().unwrap_or(0);
        let doubtful = frames.partition_point(|frame| u64::from(frame.position) < synced);
        // Without a power failure too: a failed sync may have dropped pages of a process that ended over it.
        for at in doubtful..frames.len() {
            let frame = frames[at];
            let body = self.read(frame.body(), frame.end())?;
            if crc_of(&[body]) != frame.crc {
                frames.truncate(at);
                end = u64::from(frame.position);
                break;
            }
        }
        if end < self.length && self.is_index(end)? {
            end = self.length;
        }
        if end < self.length && self.mark_beyond(end)? {
            return Err(self.corrupt(end, "a frame that was on disk is damaged"));
        }
        Ok(Scanned { frames, length: end, synced: synced.min(end) })
    }

    /// Frames whose headers follow each other, and where that ends.
    fn walk(&self) -> Result<(Vec<Frame>, u64), StoreError> {
        let mut frames = Vec::new();
        let mut position = u64::from(EXTENT_HEADER);
        let (mut chunk, mut chunk_start) = (Bytes::new(), 0);
        loop {
            let header_end = position + u64::from(FRAME_HEADER);
            if header_end > self.length {
                return Ok((frames, position));
            }
            if header_end > chunk_start + chunk.len() as u64 {
                chunk_start = position;
                // Behind a large frame stands another one, most likely: its header alone, not a chunk of its body.
                let large = frames.last().is_some_and(|frame: &Frame| u64::from(frame.length) > CHUNK);
                let wanted = if large { u64::from(FRAME_HEADER) } else { CHUNK };
                chunk = self.read(position, (position + wanted).min(self.length))?;
            }
            let bytes = &chunk[(position - chunk_start) as usize..];
            match decode_frame_header(self.name, place(position), bytes) {
                Some(frame) if frame.end() <= self.length => {
                    position = frame.end();
                    frames.push(frame);
                }
                Some(_) | None => return Ok((frames, position)),
            }
        }
    }

    /// Whether a frame behind `bad` says that the bytes at `bad` were on disk.
    fn mark_beyond(&self, bad: u64) -> Result<bool, StoreError> {
        let mut start = bad + 1;
        while start + u64::from(FRAME_HEADER) <= self.length {
            let chunk = self.read(start, (start + CHUNK).min(self.length))?;
            let starts = chunk.len() - FRAME_HEADER as usize + 1;
            for at in 0..starts {
                let bytes = &chunk[at..];
                if may_be_frame(bytes)
                    && let Some(frame) = decode_frame_header(self.name, place(start + at as u64), bytes)
                    && u64::from(frame.synced) > bad
                {
                    return Ok(true);
                }
            }
            start += starts as u64;
        }
        Ok(false)
    }

    /// The frames by the index of a full extent, if it has one.
    fn index(&self) -> Result<Option<Vec<Frame>>, StoreError> {
        let Some(trailer) = self.length.checked_sub(u64::from(INDEX_TRAILER)) else { return Ok(None) };
        let bytes = self.read(trailer, self.length)?;
        let Some((start, crc)) = decode_index_trailer(self.name, place(trailer), &bytes) else { return Ok(None) };
        Ok(decode_index(&self.read(u64::from(start), trailer)?, crc))
    }

    /// Whether the index of the extent stands at `position`: the regular end of its frames.
    fn is_index(&self, position: u64) -> Result<bool, StoreError> {
        let Some(trailer) = self.length.checked_sub(u64::from(INDEX_TRAILER)) else { return Ok(false) };
        let bytes = self.read(trailer, self.length)?;
        let start = decode_index_trailer(self.name, place(trailer), &bytes).map(|(start, _)| u64::from(start));
        Ok(start == Some(position))
    }

    fn read(&self, start: u64, end: u64) -> Result<Bytes, StoreError> {
        let failed = |error| StoreError::from_io(Certainty::NotDone, "reading an extent", &error);
        self.files.read(self.name, start..end).map_err(failed)
    }

    fn corrupt(&self, position: u64, what: &str) -> StoreError {
        let ExtentName { wid, index } = self.name;
        let detail = format!("extent {index} of the log {wid}, byte {position}: {what}");
        StoreError::not_done(FailureKind::Corrupt, detail)
    }
}

fn place(position: u64) -> u32 {
    u32::try_from(position).expect("an extent is below 4 GiB")
}
