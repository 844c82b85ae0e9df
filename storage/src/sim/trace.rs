//! What a run did, as a hash and, on demand, as text.

use std::collections::VecDeque;
use std::fmt;

/// Lines of text kept: the newest ones.
const MAX_LINES: usize = 200_000;

/// FNV-1a over every note, and the notes themselves if they are wanted.
pub(super) struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
    dropped: u64,
}

impl Trace {
    pub(super) fn new(keep_lines: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, lines: keep_lines.then(VecDeque::new), dropped: 0 }
    }

    pub(super) fn number(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }

    /// `origin` is printed before the note but not hashed: the note should tell apart what matters.
    pub(super) fn note(&mut self, origin: fmt::Arguments<'_>, note: fmt::Arguments<'_>) {
        fmt::write(&mut Hashing(&mut self.hash), note).expect("hashing cannot fail");
        if let Some(lines) = &mut self.lines {
            if lines.len() == MAX_LINES {
                lines.pop_front();
                self.dropped += 1;
            }
            lines.push_back(format!("{origin} {note}"));
        }
    }

    pub(super) fn keeps_lines(&self) -> bool {
        self.lines.is_some()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn take_lines(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        if self.dropped > 0 {
            lines.push(format!("({} earlier lines dropped)", self.dropped));
        }
        if let Some(kept) = &mut self.lines {
            lines.extend(kept.drain(..));
        }
        lines
    }
}

struct Hashing<'a>(&'a mut u64);

impl fmt::Write for Hashing<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
