//! Snapshots of what the metadata store alone holds, and marks (`docs/decisions/083-journal.md`): `meta/snap/{n:020}` and
//! `meta/snap/{n:020}.mark`.
//!
//! Magic `MILLMET\0` and a version byte, then number, when it was taken (Unix milliseconds, zigzag), the writer's name
//! (its length before it), and 1 if the writer was stopping, else 0; then entries {length of what is not shared + 1,
//! bytes of the key shared with the key before, the rest of the key, length of the value, the value}, a 0, the number of
//! entries, and a CRC-32C (little-endian) of all bytes before it. A mark has no entries. Versions are handled as in
//! [`super::checkpoint`].
//!
//! Invariants:
//! 1. The greatest number counts, whenever an object was written; within a generation numbers are given out by the metadata
//!    store, and every number of a generation is above every one of those before.
//! 2. A snapshot is written in one piece or not at all: objects are put whole.

use super::FormatError;
use super::varint::{Reader, put, put_crc, put_signed, split_crc};
use crate::env::WallMs;
use crate::meta::Key;
use bytes::Bytes;

const SNAPSHOT: &str = "metadata snapshot";
const MAGIC: &[u8; 8] = b"MILLMET\0";
const VERSION: u8 = 1;
const MARK: &str = ".mark";
/// Numbers of one generation of `meta/cluster`. A decimal power, so that a key shows both.
const PER_GENERATION: u64 = 1_000_000_000_000;

/// Where snapshots and marks lie.
pub const SNAPSHOTS: &str = "meta/snap/";

/// The number before the first of a generation.
pub fn generation_base(generation: u64) -> u64 {
    generation.saturating_mul(PER_GENERATION)
}

/// Key of a snapshot.
pub fn snapshot_key(number: u64) -> String {
    format!("{SNAPSHOTS}{number:020}")
}

/// Key of a mark.
pub fn mark_key(number: u64) -> String {
    format!("{SNAPSHOTS}{number:020}{MARK}")
}

/// Number of a snapshot or mark, and whether it is a mark.
pub fn parse_snapshot_key(key: &str) -> Option<(u64, bool)> {
    let name = key.strip_prefix(SNAPSHOTS)?;
    let (digits, is_mark) = name.strip_suffix(MARK).map_or((name, false), |digits| (digits, true));
    let decimal = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    decimal.then(|| digits.parse().ok())?.map(|number| (number, is_mark))
}

/// What a snapshot or a mark says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotHead {
    /// Its number.
    pub number: u64,
    /// When its writer began to read, by its clock: what it holds is as of then or later.
    pub taken_at: WallMs,
    /// Name of the process that wrote it.
    pub writer: String,
    /// Whether that process had stopped serving and was about to end.
    pub stopping: bool,
}

/// Puts a snapshot together, entry by entry.
pub struct SnapshotWriter {
    out: Vec<u8>,
    last: Key,
    entries: u64,
}

impl SnapshotWriter {
    /// Begins.
    pub fn new(head: &SnapshotHead) -> SnapshotWriter {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        put(&mut out, head.number);
        put_signed(&mut out, head.taken_at.0);
        put(&mut out, head.writer.len() as u64);
        out.extend_from_slice(head.writer.as_bytes());
        out.push(u8::from(head.stopping));
        SnapshotWriter { out, last: Key::new(), entries: 0 }
    }

    /// Appends an entry. In the order of keys it takes the least room.
    pub fn push(&mut self, key: &str, value: &[u8]) {
        let shared = self.last.bytes().zip(key.bytes()).take_while(|(one, other)| one == other).count();
        let rest = &key.as_bytes()[shared..];
        put(&mut self.out, rest.len() as u64 + 1);
        put(&mut self.out, shared as u64);
        self.out.extend_from_slice(rest);
        put(&mut self.out, value.len() as u64);
        self.out.extend_from_slice(value);
        key.clone_into(&mut self.last);
        self.entries += 1;
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// All of it.
    pub fn finish(mut self) -> Bytes {
        self.out.push(0);
        put(&mut self.out, self.entries);
        put_crc(&mut self.out);
        self.out.into()
    }
}

/// A snapshot that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaSnapshot {
    /// What it says of itself.
    pub head: SnapshotHead,
    /// Keys and values, in the order in which they were pushed.
    pub entries: Vec<(Key, Bytes)>,
}

impl MetaSnapshot {
    /// Reads one.
    ///
    /// # Errors
    /// The bytes are no snapshot, are damaged or of another version.
    pub fn decode(bytes: &Bytes) -> Result<MetaSnapshot, FormatError> {
        let (content, _) = split_crc(SNAPSHOT, bytes)?;
        let mut reader = Reader::new(SNAPSHOT, content);
        reader.magic(MAGIC, VERSION)?;
        let (number, taken_at) = (reader.varint()?, WallMs(reader.signed()?));
        let length = reader.count(1)?;
        let name = reader.slice(length)?.to_vec();
        let writer = text(&reader, name)?;
        let [stopping] = reader.array::<1>()?;
        reader.ensure(stopping < 2, "neither stopping nor not")?;
        let head = SnapshotHead { number, taken_at, writer, stopping: stopping == 1 };
        let mut entries: Vec<(Key, Bytes)> = Vec::new();
        loop {
            let rest = match reader.count(1)? {
                0 => break,
                more => more - 1,
            };
            let shared: usize = reader.bounded()?;
            let last = entries.last().map_or(&[][..], |(key, _)| key.as_bytes());
            let Some(before) = last.get(..shared) else {
                return Err(reader.error("shares more than the key before has"));
            };
            let key = [before, reader.slice(rest)?].concat();
            let key = text(&reader, key)?;
            let length = reader.count(1)?;
            let value = bytes.slice_ref(reader.slice(length)?);
            entries.push((key, value));
        }
        let count = reader.varint()?;
        reader.ensure(count == entries.len() as u64, "not as many entries as it says")?;
        reader.finish()?;
        Ok(MetaSnapshot { head, entries })
    }
}

fn text(reader: &Reader<'_>, bytes: Vec<u8>) -> Result<String, FormatError> {
    String::from_utf8(bytes).map_err(|_| reader.error("no text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(number: u64) -> SnapshotHead {
        SnapshotHead { number, taken_at: WallMs(1_700_000_000_000), writer: "a".to_owned(), stopping: true }
    }

    fn encode(head: &SnapshotHead, entries: &[(Key, Bytes)]) -> Bytes {
        let mut writer = SnapshotWriter::new(head);
        entries.iter().for_each(|(key, value)| writer.push(key, value));
        writer.finish()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            number: u64,
            entries in proptest::collection::vec(("[a-d/ü]{0,12}", proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        ) {
            let entries: Vec<_> = entries.into_iter().map(|(key, value)| (key, Bytes::from(value))).collect();
            let bytes = encode(&head(number), &entries);
            prop_assert_eq!(MetaSnapshot::decode(&bytes), Ok(MetaSnapshot { head: head(number), entries }));
        }

        #[test]
        fn damaged_bytes_are_refused(at: prop::sample::Index, flip in 1u8..=255) {
            let entries = [("/offset/00/g".to_owned(), Bytes::from_static(b"1")), ("/pid".to_owned(), Bytes::new())];
            let mut bytes = encode(&head(7), &entries).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(MetaSnapshot::decode(&bytes.into()).is_err());
        }

        #[test]
        fn bytes_from_outside_never_panic(bytes: Vec<u8>) {
            let mut signed = [&MAGIC[..], &[VERSION], &bytes].concat();
            put_crc(&mut signed);
            drop(MetaSnapshot::decode(&signed.into()));
        }
    }

    #[test]
    fn the_bytes_of_version_one_stay() {
        let entries = [("/a/1".to_owned(), Bytes::from_static(b"x")), ("/a/2".to_owned(), Bytes::from_static(b""))];
        let bytes = encode(&SnapshotHead { number: 300, taken_at: WallMs(5), ..head(0) }, &entries);
        let (content, crc) = bytes.split_last_chunk::<4>().expect("it ends with a CRC");
        assert_eq!(content, b"MILLMET\0\x01\xac\x02\x0a\x01a\x01\x05\x00/a/1\x01x\x02\x032\x00\x00\x02");
        assert_eq!(*crc, super::super::varint::crc32c(content).to_le_bytes());
    }

    #[test]
    fn keys_show_generation_and_number_and_read_back() {
        assert_eq!(snapshot_key(generation_base(3) + 17), "meta/snap/00000003000000000017");
        assert_eq!(parse_snapshot_key(&snapshot_key(17)), Some((17, false)));
        assert_eq!(parse_snapshot_key(&mark_key(generation_base(2))), Some((generation_base(2), true)));
        for other in ["meta/snap/17", "meta/snap/0000000000000000001x", "meta/topics/00000000000000000017"] {
            assert_eq!(parse_snapshot_key(other), None);
        }
    }
}
