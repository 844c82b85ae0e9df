//! A socket of tests.

use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// Takes `room` bytes more and has `incoming` to read.
#[derive(Debug, Default)]
pub(crate) struct Pretended {
    /// How much it still takes.
    pub room: usize,
    /// What it took.
    pub written: Vec<u8>,
    /// What it gives.
    pub incoming: VecDeque<u8>,
}

impl Read for Pretended {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.incoming.read(buffer) }
    }
}

impl Write for Pretended {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= count;
        self.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
