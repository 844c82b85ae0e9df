//! One request frame in the arena's memory, still exclusively owned: produce patches it in place before it is shared.

use crate::net::arena::Span;
use bytes::Bytes;
use std::ops::Range;

/// A request without its 4-byte length prefix. Exclusively owned until [`Frame::freeze`].
#[derive(Debug)]
pub struct Frame(Memory);

#[derive(Debug)]
enum Memory {
    /// A part of the arena: produce requests.
    Arena(Span),
    /// Memory of its own: all other requests, tests, the simulator.
    Own(Vec<u8>),
}

impl Frame {
    /// A frame of its own memory (tests, the simulator).
    pub fn copied(bytes: &[u8]) -> Frame {
        Frame::owned(bytes.to_vec())
    }

    /// A frame of its own memory.
    pub fn owned(bytes: Vec<u8>) -> Frame {
        Frame(Memory::Own(bytes))
    }

    /// A frame in the arena, wholly filled.
    pub fn in_arena(span: Span) -> Frame {
        Frame(Memory::Arena(span))
    }

    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Memory::Arena(span) => span.as_ref(),
            Memory::Own(bytes) => bytes,
        }
    }

    /// The frame, to patch.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Arena(span) => span.bytes_mut(),
            Memory::Own(bytes) => bytes,
        }
    }

    /// Gives up all but these ranges, each of which becomes a frame of its own: they ascend and do not overlap. An
    /// empty one becomes an empty frame.
    pub fn cut(self, ranges: &[Range<usize>]) -> Vec<Frame> {
        let span = match self.0 {
            Memory::Arena(span) => span,
            Memory::Own(bytes) => return ranges.iter().map(|range| Frame::copied(&bytes[range.clone()])).collect(),
        };
        let full: Vec<Range<usize>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        let mut spans = span.cut(&full).into_iter();
        let frame = |range: &Range<usize>| match range.is_empty() {
            true => Frame::owned(Vec::new()),
            false => Frame::in_arena(spans.next().expect("one for each that is not empty")),
        };
        ranges.iter().map(frame).collect()
    }

    /// Shares the memory: it returns to the arena when the last slice is dropped, on whatever thread. One small
    /// allocation, no copy.
    pub fn freeze(self) -> Bytes {
        match self.0 {
            Memory::Arena(span) => Bytes::from_owner(span),
            Memory::Own(bytes) => Bytes::from(bytes),
        }
    }

    /// Bytes of memory that this frame keeps from being reused (its chunk's share).
    pub fn pinned(&self) -> usize {
        match &self.0 {
            Memory::Arena(span) => span.pinned(),
            Memory::Own(bytes) => bytes.capacity(),
        }
    }
}
