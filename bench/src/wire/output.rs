//! What a connection sends: pieces of requests, gathered by the kernel from where they stand.

use std::io::{self, IoSlice, Write};

/// Slices of one write at most.
const SLICES: usize = 64;

/// Writes as much of `pieces` as the socket takes at once, the first `skipped` bytes off; how much, `None` if it takes
/// nothing for now.
pub(crate) fn gather<'a>(
    stream: &mut impl Write,
    pieces: impl Iterator<Item = &'a [u8]>,
    mut skipped: usize,
) -> io::Result<Option<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut count = 0;
    for piece in pieces {
        let rest = &piece[skipped.min(piece.len())..];
        skipped -= piece.len() - rest.len();
        if rest.is_empty() {
            continue;
        }
        slices[count] = IoSlice::new(rest);
        count += 1;
        if count == SLICES {
            break;
        }
    }
    loop {
        match stream.write_vectored(&slices[..count]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => return Ok(Some(sent)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
