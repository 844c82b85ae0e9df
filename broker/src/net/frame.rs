//! One request frame in the arena's memory, still exclusively owned: produce patches it in place before it is shared.

use bytes::Bytes;

/// A request without its 4-byte length prefix. Exclusively owned until [`Frame::freeze`].
#[derive(Debug)]
pub struct Frame {
    // Replaced by the arena's region; a vector keeps tests of handlers simple.
    bytes: Vec<u8>,
}

impl Frame {
    /// A frame of its own memory (tests, the simulator).
    pub fn copied(bytes: &[u8]) -> Frame {
        Frame { bytes: bytes.to_vec() }
    }
    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The frame, to patch.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
    /// Shares the memory: it returns to the arena when the last slice is dropped, on whatever thread.
    pub fn freeze(self) -> Bytes {
        Bytes::from(self.bytes)
    }
    /// Bytes of memory that this frame keeps from being reused (its chunk's share).
    pub fn pinned(&self) -> usize {
        self.bytes.len()
    }
}
