//! Manifests: which segments hold the records of a partition (PROTOCOL.md section 4, COMPACT).
//!
//! One object `man/{topic id}/{partition}` per partition, replaced by if-match. Magic `MILLMAN\0` and a version byte,
//! then varints: partition {topic id (16 bytes), index}, log start, covered, epochs as in a checkpoint, the first
//! segment's base, and segments {wid (16 bytes), number, last − base, bytes, max timestamp (zigzag difference), records,
//! created (zigzag difference)}, and a CRC-32C (little-endian) of all bytes before it. Both lists are preceded by their
//! length; without segments the base is `covered`. Versions are handled as in [`super::checkpoint`].
//!
//! Invariants:
//! 1. Every offset from `log_start` up to `covered` is in a segment: segments stand in offset order without a gap, the
//!    first starts at `log_start` or below it and the last ends just before `covered`; without segments
//!    `covered ≤ log_start`.
//! 2. Encoders assert it, decoders refuse what breaks it.
//!
//! Not here: that neither bound ever decreases is up to whoever commits a manifest in place of another.

use super::FormatError;
use super::checkpoint::{decode_epochs, encode_epochs, read_offset};
use super::object::{put_partition, read_partition};
use super::varint::{Reader, put, put_crc, put_natural, put_signed, split_crc};
use crate::compaction::Segment;
use crate::env::WallMs;
use crate::ids::{Offset, TopicPartition, Wid};
use crate::partition::EpochHistory;
use bytes::Bytes;
use std::fmt;

const MANIFEST: &str = "manifest";
const MAGIC: &[u8; 8] = b"MILLMAN\0";
const VERSION: u8 = 1;
/// The least that a segment takes: its wid and six varints.
const LEAST_SEGMENT_BYTES: usize = 22;

/// What makes the keys of a segment's objects unique: whoever writes segments counts them under its own wid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentName {
    /// The write-ahead log of the lane that made it.
    pub wid: Wid,
    /// Its number among those of that lane.
    pub number: u64,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.wid, self.number)
    }
}

/// A segment as a manifest names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamedSegment {
    /// Part of its objects' keys.
    pub name: SegmentName,
    /// Its offsets, size and times.
    pub segment: Segment,
    /// Records in it; fewer than its offsets where a batch has lost some.
    pub records: u64,
}

/// What object storage holds of one partition in segments.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// The partition: a manifest under another's key is refused by whoever reads it there.
    pub partition: TopicPartition,
    /// First offset that may be read.
    pub log_start: Offset,
    /// First offset that no segment holds or held.
    pub covered: Offset,
    /// Where each leader epoch up to `covered` started.
    pub epochs: EpochHistory,
    /// In offset order.
    pub segments: Vec<NamedSegment>,
}

/// Key of a partition's manifest.
pub fn manifest_key(partition: TopicPartition) -> String {
    format!("man/{}/{}", partition.topic, partition.index)
}

impl Manifest {
    /// Of a partition that has no segment yet.
    pub fn empty(partition: TopicPartition) -> Manifest {
        let none = Offset(0);
        Manifest { partition, log_start: none, covered: none, epochs: EpochHistory::default(), segments: Vec::new() }
    }

    /// Writes it.
    ///
    /// # Panics
    /// If it breaks invariant 1.
    pub fn encode(&self) -> Bytes {
        assert_eq!(self.flaw(), None, "manifest of {}, invariant 1", self.partition);
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        put_partition(&mut out, self.partition);
        put_natural(&mut out, self.log_start.0);
        put_natural(&mut out, self.covered.0);
        encode_epochs(&mut out, &self.epochs);
        put_natural(&mut out, self.segments.first().map_or(self.covered, |first| first.segment.base).0);
        put(&mut out, self.segments.len() as u64);
        let (mut timestamp, mut created) = (0i64, 0i64);
        for NamedSegment { name, segment, records } in &self.segments {
            out.extend_from_slice(&name.wid.0.to_be_bytes());
            put(&mut out, name.number);
            put_natural(&mut out, segment.last.0 - segment.base.0);
            put(&mut out, segment.bytes);
            put_signed(&mut out, segment.max_timestamp.wrapping_sub(timestamp));
            put(&mut out, *records);
            put_signed(&mut out, segment.created.0.wrapping_sub(created));
            (timestamp, created) = (segment.max_timestamp, segment.created.0);
        }
        put_crc(&mut out);
        Bytes::from(out)
    }

    /// Reads it.
    ///
    /// # Errors
    /// The bytes are no manifest, are damaged or of another version, or break invariant 1.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let (content, _) = split_crc(MANIFEST, bytes)?;
        let mut reader = Reader::new(MANIFEST, content);
        reader.magic(MAGIC, VERSION)?;
        let partition = read_partition(&mut reader)?;
        let (log_start, covered) = (read_offset(&mut reader)?, read_offset(&mut reader)?);
        let epochs = decode_epochs(&mut reader)?;
        let segments = decode_segments(&mut reader)?;
        let manifest = Manifest { partition, log_start, covered, epochs, segments };
        if let Some(flaw) = manifest.flaw() {
            return Err(reader.error(flaw));
        }
        reader.finish()?;
        Ok(manifest)
    }

    /// How it breaks invariant 1, if it does.
    fn flaw(&self) -> Option<&'static str> {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return (self.covered > self.log_start).then_some("offsets are covered that no segment holds");
        };
        let dense = self.segments.windows(2).all(|pair| pair[0].segment.last.plus(1) == pair[1].segment.base);
        let whole = self.segments.iter().all(|each| each.segment.base <= each.segment.last && each.segment.bytes > 0);
        if !dense || !whole {
            Some("an empty segment, or a gap between segments")
        } else if first.segment.base > self.log_start {
            Some("the first segment starts above the log start")
        } else if last.segment.last.plus(1) != self.covered {
            Some("the last segment does not end where the covered offsets do")
        } else {
            None
        }
    }
}

fn decode_segments(reader: &mut Reader<'_>) -> Result<Vec<NamedSegment>, FormatError> {
    let mut base = read_offset(reader)?;
    let count = reader.count(LEAST_SEGMENT_BYTES)?;
    let mut segments = Vec::with_capacity(count);
    let (mut max_timestamp, mut created) = (0i64, 0i64);
    for _ in 0..count {
        let name = SegmentName { wid: Wid(u128::from_be_bytes(reader.array()?)), number: reader.varint()? };
        let last = base.0.checked_add(reader.bounded()?).filter(|last| *last < i64::MAX);
        let last = Offset(last.ok_or_else(|| reader.error("offsets beyond 2^63"))?);
        let bytes = reader.varint()?;
        max_timestamp = max_timestamp.wrapping_add(reader.signed()?);
        let records = reader.varint()?;
        created = created.wrapping_add(reader.signed()?);
        let segment = Segment { base, last, bytes, max_timestamp, created: WallMs(created) };
        segments.push(NamedSegment { name, segment, records });
        base = last.plus(1);
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;
    use uuid::Uuid;

    fn manifest(log_start: i64, covered: i64, segments: &[(i64, i64)]) -> Manifest {
        let one = |&(base, last): &(i64, i64)| NamedSegment {
            name: SegmentName { wid: Wid(5), number: base.unsigned_abs() },
            segment: Segment {
                base: Offset(base),
                last: Offset(last),
                bytes: 100,
                max_timestamp: -1,
                created: WallMs(1),
            },
            records: 1,
        };
        Manifest {
            log_start: Offset(log_start),
            covered: Offset(covered),
            segments: segments.iter().map(one).collect(),
            ..Manifest::empty(TopicPartition { topic: TopicId(Uuid::from_u128(7)), index: 3 })
        }
    }

    #[test]
    fn offsets_between_log_start_and_covered_are_in_segments() {
        let good = [
            manifest(0, 0, &[]),
            manifest(20, 10, &[]),
            manifest(5, 20, &[(0, 9), (10, 19)]),
            manifest(30, 20, &[(10, 19)]),
        ];
        for manifest in good {
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
        let bad = [
            manifest(0, 10, &[]),
            manifest(0, 20, &[(0, 9), (11, 19)]),
            manifest(0, 20, &[(0, 10), (10, 19)]),
            manifest(0, 20, &[(1, 19)]),
            manifest(0, 21, &[(0, 19)]),
            manifest(0, 19, &[(0, 19)]),
        ];
        for manifest in bad {
            assert!(manifest.flaw().is_some(), "{manifest:?}");
        }
    }

    #[test]
    fn a_manifest_and_its_segments_have_keys_of_their_own() {
        let manifest = manifest(0, 10, &[(0, 9)]);
        assert_eq!(manifest_key(manifest.partition), "man/00000000000000000000000000000007/3");
        assert_eq!(manifest.segments[0].name.to_string(), "00000000000000000000000000000005-0");
    }
}
