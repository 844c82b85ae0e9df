//! What a connection has received: whole frames out of whatever pieces come.
//!
//! 1. No frame longer than the limit is awaited, and memory follows what was announced below it.
//! 2. The buffer is used again for the next frames: neither allocated nor zeroed for each read.

use bytes::{Bytes, BytesMut};
use millrace_protocol::frame::LENGTH_BYTES;
use std::io::{self, Read};
use std::mem;

/// Bytes of a buffer that has not met a larger frame.
const FIRST_BYTES: usize = 16 << 10;

/// The input of one connection.
#[derive(Debug)]
pub(crate) struct Input {
    /// As long as it may be filled.
    buffer: BytesMut,
    filled: usize,
    limit: usize,
}

impl Input {
    /// Takes frames of at most `limit` bytes. Costs nothing until something comes.
    pub(crate) fn new(limit: usize) -> Input {
        Input { buffer: BytesMut::new(), filled: 0, limit }
    }

    /// Reads until there is nothing more for now, and gives every whole frame, its length off, to `take`.
    ///
    /// # Errors
    /// When the connection has ended, a frame is too long, or `take` fails.
    pub(crate) fn read(
        &mut self,
        stream: &mut impl Read,
        mut take: impl FnMut(&Bytes) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            if self.buffer.len() == self.filled {
                self.buffer.resize((self.filled * 2).max(FIRST_BYTES), 0);
            }
            let room = self.buffer.len() - self.filled;
            match stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.filled += count;
                    self.take_frames(&mut take)?;
                    if count < room {
                        // A stream socket that gave less than it could has no more; epoll tells of what comes (epoll(7)).
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_frames(&mut self, take: &mut impl FnMut(&Bytes) -> io::Result<()>) -> io::Result<()> {
        let Some(length) = self.announced(0)? else { return Ok(()) };
        if self.filled < LENGTH_BYTES + length {
            let whole = LENGTH_BYTES + length;
            if self.buffer.len() < whole {
                self.buffer.resize(whole, 0);
            }
            return Ok(());
        }
        let all = mem::take(&mut self.buffer).freeze();
        let mut at = 0;
        let mut result = Ok(());
        while let Some(length) = announced(&all[at..self.filled], self.limit)? {
            let start = at + LENGTH_BYTES;
            if self.filled - start < length {
                break;
            }
            at = start + length;
            result = take(&all.slice(start..at));
            if result.is_err() {
                break;
            }
        }
        // Whoever keeps a piece of a frame costs a copy here; nobody on the hot path does.
        self.buffer = all.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        result
    }

    fn announced(&self, at: usize) -> io::Result<Option<usize>> {
        announced(&self.buffer[at..self.filled], self.limit)
    }
}

/// The length of the frame that begins there, once it is known.
fn announced(bytes: &[u8], limit: usize) -> io::Result<Option<usize>> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length <= limit => Ok(Some(length)),
        _ => Err(io::Error::other(format!("an answer of {} bytes", i32::from_be_bytes(*length)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives its pieces one by one, then has nothing.
    struct Pieces<'a>(std::slice::Chunks<'a, u8>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.next().ok_or(io::ErrorKind::WouldBlock)?;
            let count = piece.len();
            assert!(buffer.len() >= count, "pieces are smaller than what is free");
            buffer[..count].copy_from_slice(piece);
            Ok(count)
        }
    }

    proptest! {
        #[test]
        fn frames_come_whole_however_they_are_cut(
            sizes in prop::collection::vec(0..3_000_usize, 1..40), piece in 1..2_000_usize
        ) {
            let frames: Vec<Vec<u8>> = sizes.iter().map(|size| vec![*size as u8; *size]).collect();
            let all: Vec<u8> =
                frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat()).collect();
            let mut input = Input::new(3_000);
            let mut seen = Vec::new();
            for part in all.chunks(piece) {
                input.read(&mut Pieces(part.chunks(part.len())), |frame| {
                    seen.push(frame.to_vec());
                    Ok(())
                }).unwrap();
            }
            prop_assert_eq!(seen, frames);
        }
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused_before_it_is_awaited() {
        for length in [11_i32, -1, i32::MAX] {
            let bytes = length.to_be_bytes();
            let error = Input::new(10).read(&mut Pieces(bytes.chunks(4)), |_| Ok(())).unwrap_err();
            assert_eq!(error.to_string(), format!("an answer of {length} bytes"));
        }
    }
}
